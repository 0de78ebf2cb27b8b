//! Effects: what an outcome changes. Pure: outcome and what is known of the recipient in, next state out.
//!
//! ```text
//! delivered ────────────────────────────────────────────────→ done (relayed notice where asked and owed)
//! failed for good ──→ done (bounced by the remote, failed by us; failure notice)
//! not to be sent ───→ done (suppressed, or its rendering failed; no notice)
//! failed for now ───→ before its end: deferred, tried again at the earlier of the schedule's time and its end
//!                └──→ at or after its end: expired (failure notice)
//! ```
//!
//! The attempt at a recipient's end is its last. What waits past its end without an attempt of its own expires too, unless we
//! were down when it ended: then it gets one attempt first.

use std::time::Duration;

use crate::config::Retry;
use crate::event::Severity;
use crate::types::{Notify, Timestamp};

/// What is known of a recipient when an attempt at it ended.
#[derive(Clone, Copy, Debug)]
pub struct Tried {
    /// When it was accepted.
    pub accepted: Timestamp,
    /// When it is given up.
    pub expires: Timestamp,
    /// Attempts, this one included.
    pub attempts: u32,
    /// Whether a notice of delay was sent.
    pub delay_noticed: bool,
    /// What the submitter wants to be told.
    pub notify: Notify,
    /// Whether the reverse-path is null: then nobody is told anything (RFC 5321 §4.5.5).
    pub null_reverse_path: bool,
}

/// How an attempt ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// The peer took it.
    Delivered {
        /// The peer takes DSN parameters, so it also takes over the duty to report success.
        peer_reports: bool,
    },
    /// It did not work.
    Failed {
        /// Whether trying again could help.
        severity: Severity,
        /// Whether the remote said so.
        remote: bool,
    },
    /// It is not to be sent, or its content can't be made: nothing was tried.
    Unsent,
}

/// A notification that is owed (RFC 3464).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Notice {
    /// It failed, for good.
    Failure,
    /// It has not worked yet.
    Delay,
    /// It went to a host that does not report (RFC 3461 §5.2.2).
    Relayed,
}

/// What becomes of a recipient.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Done: delivered.
    Delivered,
    /// It waits.
    Deferred {
        /// When it is tried again.
        retry_at: Timestamp,
    },
    /// Done: refused for good by the remote.
    Bounced,
    /// Done: given up by us.
    Failed,
    /// Done: too old.
    Expired,
    /// Done: it was not to be sent, or could not be made. Nobody is told: the submitter's list or template is at fault, and events say so.
    Unsent,
}

/// The effect of an attempt, and the notice that it owes.
///
/// `jitter` is a random number in 0..=2000 that varies the delay by up to 10 % both ways.
pub fn effect(retry: &Retry, tried: &Tried, ending: Ending, now: Timestamp, jitter: u64) -> (Effect, Option<Notice>) {
    let tell = !tried.null_reverse_path;
    let failure = (tell && tried.notify.failure()).then_some(Notice::Failure);
    match ending {
        Ending::Delivered { peer_reports } => {
            // RFC 3461 §5.2.2: we report "relayed" only where the next host takes no DSN parameters.
            let owed = tell && tried.notify.success() && !peer_reports;
            (Effect::Delivered, owed.then_some(Notice::Relayed))
        }
        Ending::Unsent => (Effect::Unsent, None),
        Ending::Failed { severity: Severity::Permanent, remote } => {
            (if remote { Effect::Bounced } else { Effect::Failed }, failure)
        }
        Ending::Failed { severity: Severity::Temporary, .. } if now >= tried.expires => (Effect::Expired, failure),
        Ending::Failed { severity: Severity::Temporary, .. } => {
            let after = retry_delay(retry, tried.attempts, jitter);
            let retry_at = now.after(after).min(tried.expires).max(now.after(Duration::from_millis(1)));
            let late = retry.delay_notice_after.0;
            let delayed = late > Duration::ZERO && now >= tried.accepted.after(late);
            let owed = tell && tried.notify.delay() && !tried.delay_noticed && delayed;
            (Effect::Deferred { retry_at }, owed.then_some(Notice::Delay))
        }
    }
}

/// The delay after attempt number `attempts` (from 1); the schedule's last delay repeats.
pub fn retry_delay(retry: &Retry, attempts: u32, jitter: u64) -> Duration {
    let at = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
    let base = retry.schedule.get(at).or(retry.schedule.last()).map_or(RETRY_DEFAULT, |d| d.0);
    let ms = u64::try_from(base.as_millis()).unwrap_or(u64::MAX / 2_0000);
    Duration::from_millis((ms.saturating_mul(9_000 + jitter.min(2_000)) / 10_000).max(1))
}

/// The delay where the schedule is empty.
const RETRY_DEFAULT: Duration = Duration::from_secs(60);

/// How long after its end a recipient that nothing holds may still get its last attempt: it was due in time and only waited in line.
pub const LAST_ATTEMPT_GRACE: Duration = Duration::from_secs(15 * 60);

/// Whether a recipient has become too old while it waited, so that it gets no further attempt.
///
/// `held`: something holds it (an operator, a host that is down), so that no attempt is near. `up_since`: when this process
/// began; what ended before that gets one attempt first, unless it is held.
pub fn is_overdue(expires: Timestamp, held: bool, up_since: Timestamp, now: Timestamp) -> bool {
    if held { expires <= now } else { up_since < expires && expires.after(LAST_ATTEMPT_GRACE) <= now }
}

/// How long a site is left alone after `failures` failed connections in a row: from 30 s (or the first retry delay, if that is
/// shorter), doubled each time, up to 10 min (or the longest retry delay).
pub fn host_back_off(retry: &Retry, failures: u32) -> Duration {
    let first = retry.schedule.first().map_or(BACK_OFF_FIRST, |d| d.0.min(BACK_OFF_FIRST));
    let most =
        retry.schedule.iter().map(|d| d.0).max().map_or(BACK_OFF_MAX, |d| d.clamp(first, BACK_OFF_MAX.max(first)));
    let factor = 1_u32 << failures.saturating_sub(1).min(16);
    first.saturating_mul(factor).clamp(Duration::from_millis(100), most.max(Duration::from_millis(100)))
}

/// The first back-off of a dead host.
const BACK_OFF_FIRST: Duration = Duration::from_secs(30);
/// The longest.
const BACK_OFF_MAX: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HumanDuration;

    const ACCEPTED: Timestamp = Timestamp::from_millis(1_795_000_000_000);
    const MIDDLE: u64 = 1_000;

    fn tried(attempts: u32) -> Tried {
        Tried {
            accepted: ACCEPTED,
            expires: ACCEPTED.after(Duration::from_secs(4 * 86_400)),
            attempts,
            delay_noticed: false,
            notify: Notify::Default,
            null_reverse_path: false,
        }
    }

    fn soft() -> Ending {
        Ending::Failed { severity: Severity::Temporary, remote: true }
    }

    fn at(secs: u64) -> Timestamp {
        ACCEPTED.after(Duration::from_secs(secs))
    }

    #[test]
    fn the_schedule_is_followed_and_its_last_delay_repeats() {
        let retry = Retry::default();
        let secs = |n, jitter| retry_delay(&retry, n, jitter).as_secs();
        assert_eq!(
            [1, 2, 3, 4, 5, 6, 7, 99].map(|n| secs(n, MIDDLE)),
            [60, 300, 1_200, 3_600, 7_200, 14_400, 14_400, 14_400]
        );
        assert_eq!((secs(1, 0), secs(1, 2_000), secs(1, u64::MAX)), (54, 66, 66));
    }

    #[test]
    fn the_last_attempt_is_at_the_end_and_then_it_expires() {
        let retry = Retry::default();
        let near_end = at(4 * 86_400 - 60);
        let mut t = tried(30);
        t.delay_noticed = true;
        assert_eq!(effect(&retry, &t, soft(), near_end, MIDDLE), (Effect::Deferred { retry_at: t.expires }, None));
        assert_eq!(effect(&retry, &t, soft(), t.expires, MIDDLE), (Effect::Expired, Some(Notice::Failure)));
    }

    #[test]
    fn a_delay_is_told_once_and_only_to_who_wants_it() {
        let retry = Retry::default();
        let late = at(4 * 3_600);
        let notice = |t: &Tried, now| effect(&retry, t, soft(), now, MIDDLE).1;
        assert_eq!(notice(&tried(5), at(3_600)), None);
        assert_eq!(notice(&tried(5), late), Some(Notice::Delay));
        assert_eq!(notice(&Tried { delay_noticed: true, ..tried(5) }, late), None);
        assert_eq!(notice(&Tried { notify: Notify::Never, ..tried(5) }, late), None);
        assert_eq!(notice(&Tried { null_reverse_path: true, ..tried(5) }, late), None);
        let failure_only = Notify::On { success: false, failure: true, delay: false };
        assert_eq!(notice(&Tried { notify: failure_only, ..tried(5) }, late), None);
    }

    #[test]
    fn nobody_is_told_of_a_failure_under_never_or_a_null_reverse_path() {
        let hard = |remote| Ending::Failed { severity: Severity::Permanent, remote };
        let run = |t: &Tried, ending| effect(&Retry::default(), t, ending, ACCEPTED, MIDDLE);
        assert_eq!(run(&tried(1), hard(true)), (Effect::Bounced, Some(Notice::Failure)));
        assert_eq!(run(&tried(1), hard(false)), (Effect::Failed, Some(Notice::Failure)));
        assert_eq!(run(&Tried { notify: Notify::Never, ..tried(1) }, hard(true)).1, None);
        assert_eq!(run(&Tried { null_reverse_path: true, ..tried(1) }, hard(true)).1, None);
        assert_eq!(run(&tried(1), Ending::Unsent), (Effect::Unsent, None));
    }

    #[test]
    fn success_is_told_only_when_asked_and_the_peer_does_not() {
        let run = |notify, peer_reports| {
            let t = Tried { notify, ..tried(1) };
            effect(&Retry::default(), &t, Ending::Delivered { peer_reports }, ACCEPTED, MIDDLE).1
        };
        let asked = Notify::On { success: true, failure: true, delay: false };
        assert_eq!(run(asked, false), Some(Notice::Relayed));
        assert_eq!(run(asked, true), None);
        assert_eq!(run(Notify::Default, false), None);
    }

    #[test]
    fn what_waits_past_its_end_expires_but_a_downtime_grants_one_attempt() {
        let end = at(100);
        assert!(is_overdue(end, true, ACCEPTED, end), "held: at once");
        assert!(!is_overdue(end, false, ACCEPTED, end), "its last attempt is due now");
        assert!(is_overdue(end, false, ACCEPTED, end.after(LAST_ATTEMPT_GRACE)));
        assert!(!is_overdue(end, false, end.after(Duration::from_secs(1)), at(1_000_000)), "we were down");
    }

    #[test]
    fn back_off_doubles_within_its_bounds_and_follows_short_schedules() {
        let secs = |n| host_back_off(&Retry::default(), n).as_secs();
        assert_eq!([1, 2, 3, 4, 5, 6, 60].map(secs), [30, 60, 120, 240, 480, 600, 600]);
        let quick = Retry { schedule: vec![HumanDuration::secs(1), HumanDuration::secs(2)], ..Retry::default() };
        assert_eq!([1, 2, 3].map(|n| host_back_off(&quick, n).as_secs()), [1, 2, 2]);
    }
}
