//! How many connections there are, of all clients and of each.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use ahash::AHashMap;
use parking_lot::Mutex;

/// Counts connections. Touched at their beginning and end only.
#[derive(Default)]
pub(super) struct ConnectionLimits(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    total: u32,
    clients: AHashMap<IpAddr, u32>,
}

/// Which limit was reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Full {
    Total,
    Client,
}

/// A connection's place; given back when it is dropped.
pub(super) struct Slot {
    limits: Arc<ConnectionLimits>,
    client: IpAddr,
}

impl ConnectionLimits {
    /// A place for a client, within both limits.
    pub(super) fn admit(self: &Arc<Self>, ip: IpAddr, total_max: u32, client_max: u32) -> Result<Slot, Full> {
        let client = client_key(ip);
        let mut counts = self.0.lock();
        if counts.total >= total_max {
            return Err(Full::Total);
        }
        let count = counts.clients.entry(client).or_insert(0);
        if *count >= client_max {
            return Err(Full::Client);
        }
        *count += 1;
        counts.total += 1;
        Ok(Slot { limits: self.clone(), client })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = self.limits.0.lock();
        counts.total = counts.total.saturating_sub(1);
        if let Some(count) = counts.clients.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.clients.remove(&self.client);
            }
        }
    }
}

/// What counts as one client: an IPv4 address, or the /64 that one IPv6 host has for itself.
pub(super) fn client_key(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_both_and_gives_back() {
        let limits = Arc::new(ConnectionLimits::default());
        let ip = |s: &str| s.parse::<IpAddr>().expect("an address");
        let a = limits.admit(ip("192.0.2.1"), 3, 2).ok();
        let b = limits.admit(ip("::ffff:192.0.2.1"), 3, 2).ok();
        assert!(a.is_some() && b.is_some());
        assert_eq!(limits.admit(ip("192.0.2.1"), 3, 2).err(), Some(Full::Client));
        let c = limits.admit(ip("2001:db8::1"), 3, 1).ok();
        assert!(c.is_some());
        drop(a);
        assert_eq!(limits.admit(ip("2001:db8::2"), 3, 1).err(), Some(Full::Client));
        let d = limits.admit(ip("192.0.2.2"), 3, 1).ok();
        assert!(d.is_some());
        assert_eq!(limits.admit(ip("192.0.2.3"), 3, 1).err(), Some(Full::Total));
        drop((b, c, d));
        assert!(limits.0.lock().clients.is_empty());
    }
}
