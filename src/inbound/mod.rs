//! What comes back: bounces, complaints, machines' answers and unsubscribes by mail.
//!
//! 1. A session of a `bounce` listener asks [`Inbound::target`] for each recipient: our own return paths and addresses at a tenant's bounce domain are
//!    taken, anything else is refused in the session, so no backscatter is made and none is stored;
//! 2. the whole mail comes to [`Inbound::take`], which reads it (`crate::bounce::read`) and finds the message that it is about ([`origin`]);
//! 3. what it says becomes an event, a suppression and a count in one batch ([`effects`]), once for each thing said of a recipient, however often
//!    the mail comes;
//! 4. reports on authentication are kept ([`reports`]), and what is for people is sent on to them (`mailed`);
//! 5. 250 means: that batch is on disk. Nothing is kept of the mail itself, and nobody is ever answered by mail.
//!
//! Nothing changes without a token of ours: the return path that it came to, or one in the mail that it encloses. A token says only that somebody had
//! that mail. That is enough: who has it is its recipient, or whom the recipient's host let have it.

mod effects;
mod mailed;
#[cfg(test)]
mod mailed_tests;
mod origin;
mod rate;
pub mod reports;
mod said;
mod target;
#[cfg(test)]
mod tests;
mod unsubscribe;

pub use effects::Counted;
pub use origin::FindRow;
pub use target::{COMPLAINTS_LOCAL_PARTS, POSTMASTER_LOCAL_PART, REPORTS_LOCAL_PARTS, Target};
pub use unsubscribe::{Unsubscribed, unsubscribe};

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;

use crate::config::Config;
use crate::links::Links;
use crate::metrics::inbound::InboundMetrics;
use crate::queue::intake::Refusal;
use crate::seam::clock::Clock;
use crate::store::{Ledger, Reader};
use crate::suppression::Suppressions;
use crate::types::{CampaignNo, Name};
use rate::Rates;

/// Mail up to this size is read on the thread of its session, larger mail on one of the runtime's own.
const INLINE_MAX: usize = 64 << 10;

/// The name of a campaign by its number, for events; `None` when it is gone.
pub type CampaignNames = Arc<dyn Fn(CampaignNo) -> Option<Name> + Send + Sync>;

/// What the engine is made of.
pub struct Parts {
    /// The config in force.
    pub config: Arc<ArcSwap<Config>>,
    /// The time.
    pub clock: Clock,
    /// Reads tokens.
    pub links: Links,
    /// Finds the messages that are spoken of.
    pub reader: Reader,
    /// Finds the recipient of a campaign's row.
    pub rows: FindRow,
    /// Where events go.
    pub ledger: Ledger,
    /// Where suppressions are made.
    pub suppressions: Suppressions,
    /// Names of campaigns.
    pub campaigns: CampaignNames,
    /// What is counted.
    pub metrics: InboundMetrics,
}

/// A mail that came back.
#[derive(Debug)]
pub struct Returned {
    /// To whom of us; at least one.
    pub targets: Vec<Target>,
    /// The mail, CRLF line ends.
    pub mail: Bytes,
    /// Who brought it.
    pub client: Option<IpAddr>,
}

/// The engine; shared by all sessions.
pub struct Inbound {
    parts: Parts,
    rates: Rates,
    /// Who reads reports now.
    readers: tokio::sync::Semaphore,
    taken: parking_lot::Mutex<mailed::Taken>,
}

impl std::fmt::Debug for Inbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbound").finish_non_exhaustive()
    }
}

impl Inbound {
    /// An engine.
    pub fn new(parts: Parts) -> Self {
        let readers = tokio::sync::Semaphore::new(mailed::READERS_MAX);
        Self { parts, rates: Rates::default(), readers, taken: parking_lot::Mutex::default() }
    }

    /// Whether a client may bring another mail now; at MAIL.
    ///
    /// # Errors
    /// It brought too many: 451 4.7.1.
    pub fn may(&self, client: IpAddr) -> Result<(), Refusal> {
        let rate = self.parts.config.load().bounces.client_rate;
        if self.rates.take(client, rate, self.parts.clock.now()) {
            return Ok(());
        }
        self.parts.metrics.refused("rate");
        Err(Refusal::new(451, "4.7.1", 429, format!("Too many messages from you: at most {rate}")))
    }

    /// Reads a mail and makes what it says durable.
    ///
    /// # Errors
    /// The store can't be read or written: the peer tries again.
    pub async fn take(&self, returned: Returned) -> Result<(), Refusal> {
        let Returned { targets, mail, client } = returned;
        let mut reading = None;
        for target in targets {
            let counted = match &target {
                Target::Reports { tenant } => self.report(tenant.as_ref(), &mail).await?,
                Target::Postmaster { tenant } => {
                    self.forward(tenant.as_ref(), &mail, "mail for the postmaster").await?
                }
                Target::Return { .. } | Target::Complaints { .. } | Target::Unsubscribes { .. } => {
                    let reading = match &reading {
                        Some(reading) => reading,
                        None => reading.insert(read(mail.clone()).await),
                    };
                    let counted = self.one(&target, reading).await.map_err(|error| self.store_failed(&error))?;
                    self.or_people(&target, counted, &mail).await?
                }
            };
            self.parts.metrics.mail(counted.as_str());
            tracing::debug!(client = ?client, to = target.as_str(), became = counted.as_str(), "mail came back");
        }
        Ok(())
    }
}

impl Inbound {
    /// What somebody writes to abuse and that is no report of a feedback loop is for people.
    async fn or_people(&self, target: &Target, counted: Counted, mail: &Bytes) -> Result<Counted, Refusal> {
        match target {
            Target::Complaints { tenant }
                if counted == Counted::Unread && Self::people(&self.parts.config.load()).is_some() =>
            {
                self.forward(Some(tenant), mail, "mail for abuse").await
            }
            _ => Ok(counted),
        }
    }
}

async fn read(mail: Bytes) -> crate::bounce::read::Reading {
    if mail.len() <= INLINE_MAX {
        return crate::bounce::read::read(&mail);
    }
    let task = tokio::task::spawn_blocking(move || crate::bounce::read::read(&mail));
    // A reader that fails must not make the peer try for days.
    task.await.unwrap_or_default()
}
