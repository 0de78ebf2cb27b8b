//! How much one client may bring back: a bucket each, for a bounded number of clients.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use parking_lot::Mutex;

use crate::config::Rate;
use crate::shaping::Bucket;
use crate::types::Timestamp;

/// Clients that are remembered: about 100 octets each. Beyond it all those whose bucket is full again are forgotten; and where none is, all are.
const CLIENTS_MAX: usize = 10_000;

/// The buckets, by client; an IPv6 client is its /64, of which one machine has any number of addresses.
#[derive(Default)]
pub(super) struct Rates(Mutex<HashMap<IpAddr, Bucket>>);

impl Rates {
    /// Takes one from the client's bucket; `false` when it is empty.
    pub(super) fn take(&self, client: IpAddr, rate: Rate, now: Timestamp) -> bool {
        let mut clients = self.0.lock();
        if clients.len() >= CLIENTS_MAX {
            clients.retain(|_, bucket| !bucket.is_full(rate, now));
            if clients.len() >= CLIENTS_MAX {
                clients.clear();
            }
        }
        let bucket = clients.entry(network(client)).or_default();
        let may = bucket.ready_at(rate, now) <= now;
        if may {
            bucket.take(rate, now);
        }
        may
    }
}

fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
    }
}
