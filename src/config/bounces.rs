//! What comes back: bounces, complaints, unsubscribes by mail.

use serde::{Deserialize, Serialize};

use super::{HumanDuration, Rate};

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
}

impl Default for Bounces {
    fn default() -> Self {
        Self {
            suppress: true,
            soft_limit: 5,
            soft_within: HumanDuration::secs(30 * 86_400),
            client_rate: Rate { count: 600, per: std::time::Duration::from_secs(60) },
        }
    }
}
