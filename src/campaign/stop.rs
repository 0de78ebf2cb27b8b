//! When a campaign stops by itself: pure.

use super::job::StopIf;
use super::model::{Counts, StopBase};

/// The smallest sample where the job names none.
pub const MINIMUM_DEFAULT: u64 = 200;

/// Why it must stop now; `None` when it may go on. `base` is what was counted before it was resumed by force.
pub fn why(stop: &StopIf, counts: &Counts, base: StopBase) -> Option<String> {
    let minimum = stop.minimum.unwrap_or(MINIMUM_DEFAULT);
    let delivered = counts.delivered.saturating_sub(base.delivered);
    // Who bounced late stands among the delivered, too.
    let late = counts.late_bounces;
    let bounced = (counts.bounced + late).saturating_sub(base.bounced);
    let deferred = counts.deferred.saturating_sub(base.deferred);
    let complained = counts.complained.saturating_sub(base.complained);
    let other = (counts.failed + counts.expired).saturating_sub(base.other);
    let ended = delivered + (bounced + other).saturating_sub(late);
    let attempts = delivered + bounced + deferred;
    let rules = [
        ("hard bounce rate", stop.hard_bounce_rate, bounced, ended, "recipients"),
        ("deferral rate", stop.deferral_rate, deferred, attempts, "attempts"),
        ("complaint rate", stop.complaint_rate, complained, delivered, "delivered"),
    ];
    rules.into_iter().find_map(|(name, limit, part, whole, of)| {
        let limit = limit?;
        let rate = part as f64 / whole.max(1) as f64;
        let percent = |share: f64| format!("{:.2} %", share * 100.0);
        (whole >= minimum && rate > limit)
            .then(|| format!("{name} {} is above {}: {part} of {whole} {of}", percent(rate), percent(limit)))
    })
}

/// What a resume by force starts to count from.
pub fn base(counts: &Counts) -> StopBase {
    StopBase {
        delivered: counts.delivered,
        bounced: counts.bounced + counts.late_bounces,
        deferred: counts.deferred,
        complained: counts.complained,
        other: counts.failed + counts.expired,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(delivered: u64, bounced: u64, deferred: u64, complained: u64) -> Counts {
        Counts { delivered, bounced, deferred, complained, ..Counts::default() }
    }

    const RULES: StopIf = StopIf {
        hard_bounce_rate: Some(0.05),
        deferral_rate: Some(0.5),
        complaint_rate: Some(0.003),
        minimum: Some(100),
    };

    #[test]
    fn stops_above_a_rate_and_not_before_the_sample_is_large_enough() {
        let now = |c: Counts| why(&RULES, &c, StopBase::default());
        assert_eq!(now(counts(95, 5, 0, 0)), None, "5 % is not above 5 %");
        assert_eq!(
            now(counts(94, 6, 0, 0)).as_deref(),
            Some("hard bounce rate 6.00 % is above 5.00 %: 6 of 100 recipients")
        );
        assert_eq!(now(counts(0, 99, 0, 0)), None, "99 are no sample");
        assert_eq!(
            now(counts(60, 0, 61, 0)).as_deref(),
            Some("deferral rate 50.41 % is above 50.00 %: 61 of 121 attempts")
        );
        assert_eq!(
            now(counts(200, 0, 0, 1)).as_deref(),
            Some("complaint rate 0.50 % is above 0.30 %: 1 of 200 delivered")
        );
        assert_eq!(why(&StopIf::default(), &counts(0, 1_000, 1_000, 0), StopBase::default()), None);
    }

    #[test]
    fn a_resume_by_force_starts_a_new_sample() {
        let halted = counts(94, 6, 0, 0);
        assert_eq!(why(&RULES, &halted, base(&halted)), None);
        assert!(why(&RULES, &counts(100, 100, 0, 0), base(&halted)).is_some());
    }
}
