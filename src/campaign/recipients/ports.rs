//! What an upload asks of others: which rows are selected, which addresses are suppressed. Tests stand in for both.

use std::pin::Pin;
use std::sync::Arc;

use super::zones::SlotPlan;
use crate::campaign::job::{At, Job, Zone};
use crate::campaign::model::{CampaignHead, FIRST_STEP};
use crate::store::ReadError;
use crate::types::{CampaignNo, Class, Mailbox, Name, QueueKey, Timestamp};

/// A boxed future of a trait's method.
pub type Fut<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a segment says of a row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Selected {
    /// It is in.
    In,
    /// It is out.
    Out,
    /// It can't be worked out: why, in the same words for all rows of the same kind of mistake.
    Failed(Box<str>),
}

/// A compiled segment, with what is excluded. Called for each row, on the parser's thread.
pub trait Select: Send + Sync {
    /// Whether a row, as it is stored, is selected.
    fn select(&self, row: &[u8]) -> Selected;
}

/// The suppression list, as an upload asks it.
pub trait Screen: Send + Sync {
    /// Why each of the addresses is not sent to, in the order asked; `None` for those that are.
    fn suppressed<'a>(
        &'a self,
        target: &'a Target,
        addresses: &'a [Mailbox],
    ) -> Fut<'a, Result<Vec<Option<Box<str>>>, ReadError>>;
}

/// Nobody is suppressed.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoScreen;

impl Screen for NoScreen {
    fn suppressed<'a>(
        &'a self,
        _: &'a Target,
        addresses: &'a [Mailbox],
    ) -> Fut<'a, Result<Vec<Option<Box<str>>>, ReadError>> {
        Box::pin(std::future::ready(Ok(vec![None; addresses.len()])))
    }
}

/// The campaign that rows are uploaded to.
#[derive(Clone)]
pub struct Target {
    /// Its number.
    pub campaign: CampaignNo,
    /// The step.
    pub step: u8,
    /// Whose it is.
    pub tenant: Name,
    /// Its id.
    pub id: Name,
    /// Its class.
    pub class: Class,
    /// The pool that sends it.
    pub pool: Name,
    /// The list that its recipients are subscribed to.
    pub list: Option<Name>,
    /// How rows get their slots.
    pub slots: SlotPlan,
    /// Whether addresses of functions (`abuse@`) are left out.
    pub skip_role_accounts: bool,
    /// Which rows are selected; `None`: all.
    pub select: Option<Arc<dyn Select>>,
    /// Who was delivered to in these campaigns is left out.
    pub exclude_campaigns: Vec<CampaignNo>,
    /// Who is in these audiences is left out.
    pub exclude_audiences: Vec<Name>,
}

impl Target {
    /// The target that a campaign's job describes. `pool` is the job's, else the tenant's; `exclude_campaigns` are the numbers of
    /// `exclude.campaigns`. Marketing leaves role accounts out.
    pub fn of(
        head: &CampaignHead,
        pool: Name,
        now: Timestamp,
        select: Option<Arc<dyn Select>>,
        exclude_campaigns: Vec<CampaignNo>,
    ) -> Self {
        Self {
            campaign: head.no,
            step: FIRST_STEP,
            tenant: head.tenant.clone(),
            id: head.id.clone(),
            class: head.job.class,
            pool,
            list: head.job.list.clone(),
            slots: slots_of(&head.job, now),
            skip_role_accounts: head.job.class == Class::Marketing,
            select,
            exclude_campaigns,
            exclude_audiences: head.job.exclude.lists.clone(),
        }
    }

    /// The queue of a row.
    pub(super) fn queue(&self, mailbox: &Mailbox) -> QueueKey {
        QueueKey {
            class: self.class,
            tenant: self.tenant.clone(),
            campaign: Some(self.id.clone()),
            pool: self.pool.clone(),
            domain: mailbox.domain().clone(),
        }
    }
}

/// How the rows of a job get their slots: by the recipient's clock only where the schedule says so.
pub fn slots_of(job: &Job, now: Timestamp) -> SlotPlan {
    match &job.schedule.time_zone {
        Some(Zone::Recipient) => {
            // A start that is days away may be on the other side of a change to summer time.
            let at = match &job.schedule.at {
                None => now,
                Some(At::Point(at)) => *at,
                Some(At::Local(local)) => in_utc(*local).unwrap_or(now),
            };
            SlotPlan::ByZone { at, fallback: "UTC".into() }
        }
        Some(Zone::Fixed(_)) | None => SlotPlan::Together,
    }
}

fn in_utc(local: jiff::civil::DateTime) -> Option<Timestamp> {
    let at = jiff::tz::TimeZone::UTC.to_timestamp(local).ok()?.as_millisecond();
    u64::try_from(at).ok().map(Timestamp::from_millis)
}
