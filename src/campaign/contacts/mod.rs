//! Audiences: contacts that are kept in the daemon.

use crate::types::{Mailbox, Name};

/// The key of a contact: tenant, audience, canonical address, separated by zero octets, which stand in none of them.
pub fn key(tenant: &Name, audience: &Name, mailbox: &Mailbox) -> Vec<u8> {
    [tenant.as_str().as_bytes(), b"\0", audience.as_str().as_bytes(), b"\0", mailbox.canonical().as_bytes()].concat()
}
