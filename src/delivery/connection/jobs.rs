//! The jobs of a session: while their content is made, while their transactions are under way.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;

use super::local_failure;
use crate::delivery::{Failure, Job, NOT_TRIED, Outcome, WireMessage};
use crate::event::Severity;
use crate::smtp::client::{Body, Client, Mail, Rcpt, State};
use crate::types::Timestamp;

/// Content on its way from the maker.
pub(super) type MakingContent = Pin<Box<dyn Future<Output = Result<WireMessage, Failure>>>>;

/// A job that is not sent yet.
pub(super) struct Prepared {
    /// Shared with the future that makes its content.
    pub(super) job: Rc<Job>,
    pub(super) started: Timestamp,
    pub(super) content: Content,
}

pub(super) enum Content {
    Making(MakingContent),
    Made(WireMessage),
}

/// A job whose transactions are under way: one, or several where the peer limits recipients.
pub(super) struct Active {
    pub(super) job: Box<Job>,
    pub(super) started: Timestamp,
    /// Given away with the last transaction.
    pub(super) body: Option<Body>,
    pub(super) eight_bit: bool,
    pub(super) outcomes: Vec<Option<Outcome>>,
    /// The first recipient that is in no transaction yet.
    pub(super) next: usize,
    /// Transactions whose end has not come.
    pub(super) open: usize,
    pub(super) ambiguous: bool,
    pub(super) wire_size: u64,
}

/// Sends the next transaction of a job: all recipients that are left, or as many as the peer takes (RFC 9422).
pub(super) fn send_next(active: &mut Active, client: &mut Client) -> Range<usize> {
    let caps = *client.capabilities();
    let range = next_range(active, caps.rcpt_max, caps.rcpt_domain_max);
    let job = &active.job;
    let chosen: Vec<Rcpt<'_>> = job.recipients[range.clone()]
        .iter()
        .zip(&active.outcomes[range.clone()])
        .filter(|(_, outcome)| outcome.is_none())
        .map(|(r, _)| Rcpt { mailbox: &r.mailbox, notify: r.notify, orcpt: r.orcpt.as_deref() })
        .collect();
    let utf8 = job.smtputf8
        || job.reverse_path.mailbox().is_some_and(|m| m.needs_smtputf8())
        || chosen.iter().any(|r| r.mailbox.needs_smtputf8());
    let mail = Mail {
        reverse_path: &job.reverse_path,
        ret: job.ret,
        envid: job.envid.as_deref(),
        eight_bit: active.eight_bit,
        smtputf8: utf8,
    };
    let last = range.end == job.recipients.len();
    let body = if last { active.body.take() } else { active.body.clone() };
    if let Some(body) = body {
        client.send(&mail, chosen.into_iter(), body);
    }
    active.next = range.end;
    active.open += 1;
    range
}

/// The recipients of the next transaction; recipients that failed already ride in the range but not in the transaction.
fn next_range(active: &Active, rcpt_max: Option<u32>, domain_max: Option<u32>) -> Range<usize> {
    let total = active.job.recipients.len();
    if rcpt_max.is_none() && domain_max.is_none() {
        return active.next..total;
    }
    let rcpt_max = rcpt_max.unwrap_or(u32::MAX) as usize;
    let domain_max = domain_max.unwrap_or(u32::MAX) as usize;
    let mut domains: Vec<&str> = Vec::new();
    let mut count = 0;
    for i in active.next..total {
        if active.outcomes[i].is_some() {
            continue;
        }
        let domain = active.job.recipients[i].mailbox.domain().as_str();
        let new = !domains.contains(&domain);
        if count == rcpt_max || (new && domains.len() == domain_max) {
            return active.next..i;
        }
        count += 1;
        if new {
            domains.push(domain);
        }
    }
    active.next..total
}

/// The job is ours alone again once its content's future is gone.
pub(super) fn unshare(job: Rc<Job>) -> Box<Job> {
    Box::new(Rc::try_unwrap(job).unwrap_or_else(|shared| (*shared).clone()))
}

pub(super) fn not_tried() -> Failure {
    let failure = local_failure(
        State::Idle,
        Severity::Temporary,
        "4.4.2",
        "the session ended before the message was sent".to_owned(),
    );
    Failure { stage: NOT_TRIED, ..failure }
}

/// RFC 6531 §3.5: what needs SMTPUTF8 is not sent to a host without it.
pub(super) fn no_smtputf8() -> Failure {
    let text = "the message needs SMTPUTF8, which the host does not offer".to_owned();
    let mut failure = local_failure(State::Mail, Severity::Permanent, "5.6.7", text);
    failure.reply.code = 553;
    failure
}
