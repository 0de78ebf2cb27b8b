//! What comes back: bounces, complaints, unsubscribes by mail.

use serde::{Deserialize, Serialize};

use super::{HumanDuration, Rate};
use crate::types::Mailbox;

/// The most soft bounces that are counted.
pub const SOFT_LIMIT_MAX: u32 = 100;

/// What is done with mail that comes back to a `bounce` listener, and with refusals in the session.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Bounces {
    /// Whether addresses that do not exist, or whose owners complained, are put on the suppression list. Events tell it in either case.
    pub suppress: bool,
    /// After how many soft bounces (a full mailbox, an inactive one) within `soft_within` an address is suppressed, one a message; `0` never
    /// does.
    pub soft_limit: u32,
    /// The time in which soft bounces count.
    pub soft_within: HumanDuration,
    /// How many mails one client may bring to a `bounce` listener; beyond that 451 4.7.1.
    pub client_rate: Rate,
    /// Who gets what comes to `postmaster@` a bounce domain or the host name, what people write to `abuse@`, and reports that can't be read. It is sent
    /// on by the daemon's own queues. Without it the first of `alerts.mail_to`, else such mail is put off (451).
    pub postmaster: Option<Mailbox>,
    /// Addresses to which DMARC and TLS reports come beside `dmarc-reports@` and `tls-reports@` each bounce domain.
    pub report_addresses: Vec<Mailbox>,
    /// How long reports are kept, in whole days. A large sender gets some MB of them a month.
    pub report_retention: HumanDuration,
}

impl Default for Bounces {
    fn default() -> Self {
        Self {
            suppress: true,
            soft_limit: 5,
            soft_within: HumanDuration::secs(30 * 86_400),
            client_rate: Rate { count: 600, per: std::time::Duration::from_secs(60) },
            postmaster: None,
            report_addresses: Vec::new(),
            report_retention: HumanDuration::secs(180 * 86_400),
        }
    }
}
