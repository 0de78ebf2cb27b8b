//! Bounds what one client can try: requests that hit nothing, not those that do.
//!
//! The one-click of a large provider comes from few addresses, thousands in an hour after a campaign. A limit on requests would lose some; a
//! limit on misses stops who guesses or scans, and nobody else.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use parking_lot::Mutex;

use crate::seam::clock::Clock;
use crate::types::Timestamp;

/// Misses that a client has at once.
const MISSES_MAX: f64 = 30.0;
/// Misses that come back in a second.
const PER_SECOND: f64 = 0.5;
/// Clients that are remembered; then those that have recovered are forgotten, and if there are none, all.
const CLIENTS_MAX: usize = 10_000;

/// Misses by client.
pub(super) struct Misses {
    clock: Clock,
    clients: Mutex<HashMap<IpAddr, (f64, Timestamp)>>,
}

impl Misses {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, clients: Mutex::default() }
    }

    /// Whether the client has misses left.
    pub(super) fn may(&self, client: IpAddr) -> bool {
        let now = self.clock.now();
        self.clients.lock().get(&network(client)).is_none_or(|known| left(*known, now) >= 1.0)
    }

    /// One miss.
    pub(super) fn note(&self, client: IpAddr) {
        let now = self.clock.now();
        let mut clients = self.clients.lock();
        if clients.len() >= CLIENTS_MAX {
            clients.retain(|_, known| left(*known, now) < MISSES_MAX);
            if clients.len() >= CLIENTS_MAX {
                clients.clear();
            }
        }
        let known = clients.entry(network(client)).or_insert((MISSES_MAX, now));
        *known = (left(*known, now) - 1.0, now);
    }
}

fn left((misses, at): (f64, Timestamp), now: Timestamp) -> f64 {
    (misses + now.since(at).as_secs_f64() * PER_SECOND).min(MISSES_MAX)
}

/// A client is an IPv4 address or an IPv6 network of 64 bits: within one it can take any address.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
    }
}
