//! When a campaign's rows are due, and when its window is open: pure, by the clock of a time zone.
//!
//! Times of the day are civil: a window of 09:00 to 18:00 is nine hours on every day, but a change of the clock inside the
//! window makes it longer or shorter by that. A time that a clock skips is that of the same distance after the gap; one that it shows
//! twice is the first of the two.

use std::time::Duration;

use jiff::ToSpan;
use jiff::civil::{Date, DateTime};
use jiff::tz::{Offset, TimeZone};

use super::job::{At, Schedule, Window, Zone};
use crate::config::Rate;
use crate::types::{SLOT_MILLIS, Timestamp};

/// The zone that is ahead of all others, in hours: slot 0 of a schedule by the recipient's clock.
const FIRST_ZONE_HOURS: i8 = 14;

/// The highest slot: UTC−12 is 26 hours behind UTC+14. A clock that skips `at` may add a little.
pub const SLOT_MAX: u8 = 112;

/// How far ahead a window is looked for: a week and what the ends of it need.
const LOOK_AHEAD_DAYS: i32 = 9;

/// The time as jiff knows it; what it can't write is the end of its time.
fn instant(at: Timestamp) -> jiff::Timestamp {
    i64::try_from(at.as_millis())
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .unwrap_or(jiff::Timestamp::MAX)
}

fn timestamp(at: jiff::Timestamp) -> Timestamp {
    Timestamp::from_millis(u64::try_from(at.as_millisecond()).unwrap_or(0))
}

/// A civil time in a zone. Outside of what jiff can write: never.
fn civil(zone: &TimeZone, at: DateTime) -> Timestamp {
    zone.to_ambiguous_timestamp(at).compatible().map_or(Timestamp::NEVER, timestamp)
}

/// When the rows of slot 0 are due for a start at `now`: never before it.
pub fn first_due(schedule: &Schedule, now: Timestamp) -> Timestamp {
    let at = match (schedule.at, &schedule.time_zone) {
        (None, _) => now,
        (Some(At::Point(at)), _) => at,
        (Some(At::Local(at)), Some(Zone::Fixed(zone))) => civil(zone, at),
        (Some(At::Local(at)), None) => civil(&TimeZone::UTC, at),
        // The slots count from here, also when the first of them have passed: those are due at once.
        (Some(At::Local(at)), Some(Zone::Recipient)) => return slot_zero(at),
    };
    at.max(now)
}

/// When the first clock of the world shows this time.
fn slot_zero(at: DateTime) -> Timestamp {
    civil(&TimeZone::fixed(Offset::constant(FIRST_ZONE_HOURS)), at)
}

/// The slot of a recipient in this zone: 0 unless the schedule goes by the recipient's clock. A zone that is not known counts as UTC.
pub fn slot(schedule: &Schedule, zone: Option<&str>) -> u8 {
    let (Some(At::Local(at)), Some(Zone::Recipient)) = (schedule.at, &schedule.time_zone) else { return 0 };
    let zone = zone.and_then(|name| TimeZone::get(name.trim()).ok()).unwrap_or(TimeZone::UTC);
    let after = civil(&zone, at).since(slot_zero(at));
    let slots = after.as_millis() / u128::from(SLOT_MILLIS);
    u8::try_from(slots).unwrap_or(SLOT_MAX).min(SLOT_MAX)
}

/// Whether a window is open, and until when it stays so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opening {
    /// It is open, at least until then.
    Open(Timestamp),
    /// It opens then.
    Closed(Timestamp),
}

/// Whether a window is open at `now` by the clock of a zone.
pub fn opening(window: &Window, zone: &TimeZone, now: Timestamp) -> Opening {
    let today = zone.to_datetime(instant(now)).date();
    let mut open_until: Option<Timestamp> = None;
    // An opening of yesterday may last until today.
    for day in -1..=LOOK_AHEAD_DAYS {
        let Some((from, to)) = today.checked_add(day.days()).ok().and_then(|date| on(window, zone, date)) else {
            continue;
        };
        match open_until {
            // What follows without a gap is one opening: 00:00 to 24:00 never closes at midnight.
            Some(until) if from <= until => open_until = Some(until.max(to)),
            Some(until) => return Opening::Open(until),
            None if to <= now => {}
            None if from <= now => open_until = Some(to),
            None => return Opening::Closed(from),
        }
    }
    // No day at all can't be parsed; a window without an end in sight is looked at again then.
    let later = now.after(Duration::from_secs(7 * 86_400));
    open_until.map_or(Opening::Closed(later), Opening::Open)
}

/// The opening that begins on a date; none on other days, or where a change of the clock leaves nothing of it.
fn on(window: &Window, zone: &TimeZone, date: Date) -> Option<(Timestamp, Timestamp)> {
    if !window.days.has(date.weekday()) {
        return None;
    }
    let time = |date: Date, minutes: u16| {
        let (hour, minute) = (i8::try_from(minutes / 60).ok()?, i8::try_from(minutes % 60).ok()?);
        let date = if hour == 24 { date.tomorrow().ok()? } else { date };
        Some(civil(zone, date.at(hour % 24, minute, 0, 0)))
    };
    let last = if window.to <= window.from { date.tomorrow().ok()? } else { date };
    let (from, to) = (time(date, window.from.0)?, time(last, window.to.0)?);
    (from < to).then_some((from, to))
}

/// The rate at which `rows` take as long as `spread`: in the unit that keeps it exact enough, rounded up.
pub fn spread_rate(rows: u64, spread: Duration) -> Rate {
    let millis = spread.as_millis().max(1);
    let in_time = |seconds: u64| (u128::from(rows) * u128::from(seconds) * 1_000).div_ceil(millis);
    // The smallest unit with at least ten in it: rounding up is then an error of less than a tenth.
    let seconds = [1, 60, 3_600].into_iter().find(|seconds| in_time(*seconds) >= 10).unwrap_or(86_400);
    let count = u32::try_from(in_time(seconds)).unwrap_or(u32::MAX).max(1);
    Rate { count, per: Duration::from_secs(seconds) }
}

/// The slower of two rates.
pub fn slower(a: Option<Rate>, b: Option<Rate>) -> Option<Rate> {
    let (Some(x), Some(y)) = (a, b) else { return a.or(b) };
    let faster = u128::from(x.count) * y.per.as_millis() > u128::from(y.count) * x.per.as_millis();
    Some(if faster { y } else { x })
}

/// How long `rows` take at a rate.
pub fn takes(rows: u64, rate: Rate) -> Duration {
    let millis = u128::from(rows) * rate.per.as_millis() / u128::from(rate.count.max(1));
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

/// When `work` of open time is over that begins at `start`: hours in which the window is closed do not count.
pub fn finish(window: Option<&Window>, zone: &TimeZone, start: Timestamp, work: Duration) -> Timestamp {
    /// The most openings that are counted one by one; what takes longer is given as if the window were always open from then on.
    const OPENINGS_MAX: usize = 1_000;
    let Some(window) = window else { return start.after(work) };
    let (mut at, mut left) = (start, work);
    for _ in 0..OPENINGS_MAX {
        match opening(window, zone, at) {
            Opening::Closed(from) => at = from,
            Opening::Open(until) => {
                let open = until.since(at);
                if open >= left {
                    break;
                }
                left -= open;
                at = until;
            }
        }
    }
    at.after(left)
}

#[cfg(test)]
mod tests {
    use super::super::job::{Days, TimeOfDay};
    use super::*;

    fn at(text: &str) -> Timestamp {
        timestamp(text.parse().expect("a time"))
    }

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).expect("a zone")
    }

    fn window(from: &str, to: &str, days: u8) -> Window {
        let time = |text: &str| text.parse::<TimeOfDay>().expect("a time of the day");
        Window { days: Days(days), from: time(from), to: time(to) }
    }

    #[track_caller]
    fn check(window: &Window, now: &str, want: &str) {
        let got = match opening(window, &zone("Europe/Berlin"), at(now)) {
            Opening::Open(until) => format!("open until {until}"),
            Opening::Closed(until) => format!("closed until {until}"),
        };
        assert_eq!(got, want, "at {now}");
    }

    #[test]
    fn a_window_follows_the_clock_over_the_change_of_time() {
        let w = window("09:00", "18:00", 0x7f);
        check(&w, "2026-03-28T08:00:00Z", "open until 2026-03-28T17:00:00.000Z");
        // The clock goes forward in the night to the 29th.
        check(&w, "2026-03-28T17:00:00Z", "closed until 2026-03-29T07:00:00.000Z");
        check(&w, "2026-03-29T07:00:00Z", "open until 2026-03-29T16:00:00.000Z");
        // And back in the night to October 25th.
        check(&w, "2026-10-24T16:00:00Z", "closed until 2026-10-25T08:00:00.000Z");
    }

    #[test]
    fn a_window_that_the_clock_skips_or_repeats() {
        // 02:00 to 03:00 does not exist on this day: the next one is a day later.
        check(&window("02:00", "03:00", 0x7f), "2026-03-29T00:30:00Z", "closed until 2026-03-30T00:00:00.000Z");
        // 02:30 is skipped to 03:30: the opening is short, but there.
        check(&window("01:00", "02:30", 0x7f), "2026-03-29T00:59:59Z", "open until 2026-03-29T01:30:00.000Z");
        // 02:00 to 03:00 is two hours long when the clock goes back.
        check(&window("02:00", "03:00", 0x7f), "2026-10-25T00:00:00Z", "open until 2026-10-25T02:00:00.000Z");
    }

    #[test]
    fn days_nights_and_whole_days() {
        // 2026-11-23 is a Monday; Monday to Friday.
        check(&window("09:00", "17:00", 0x1f), "2026-11-27T16:00:00Z", "closed until 2026-11-30T08:00:00.000Z");
        check(&window("22:00", "06:00", 0x01), "2026-11-24T04:00:00Z", "open until 2026-11-24T05:00:00.000Z");
        check(&window("22:00", "06:00", 0x01), "2026-11-24T05:00:00Z", "closed until 2026-11-30T21:00:00.000Z");
        check(&window("00:00", "24:00", 0x03), "2026-11-23T12:00:00Z", "open until 2026-11-24T23:00:00.000Z");
        assert!(matches!(
            opening(&window("00:00", "24:00", 0x7f), &TimeZone::UTC, at("2026-11-23T00:00:00Z")),
            Opening::Open(_)
        ));
    }

    fn schedule(at: &str, zone: &str) -> Schedule {
        let zone = Some(zone).filter(|z| !z.is_empty()).map(|z| z.parse().expect("a zone"));
        Schedule { at: Some(at.parse().expect("a time")), time_zone: zone, ..Schedule::default() }
    }

    #[test]
    fn a_start_is_due_by_the_clock_of_its_zone_and_never_before_now() {
        let now = at("2026-06-01T00:00:00Z");
        let due = |when: &str, zone: &str| first_due(&schedule(when, zone), now).to_string();
        assert_eq!(first_due(&Schedule::default(), now), now);
        assert_eq!(due("2026-07-01T09:00", "Europe/Berlin"), "2026-07-01T07:00:00.000Z");
        assert_eq!(due("2026-12-01T09:00", "Europe/Berlin"), "2026-12-01T08:00:00.000Z");
        assert_eq!(due("2026-12-01T09:00", ""), "2026-12-01T09:00:00.000Z");
        assert_eq!(due("2026-12-01T09:00:00+05:00", "Europe/Berlin"), "2026-12-01T04:00:00.000Z");
        assert_eq!(due("2025-12-01T09:00", "Europe/Berlin"), "2026-06-01T00:00:00.000Z");
    }

    #[test]
    fn everyone_gets_it_when_his_own_clock_shows_the_time() {
        let s = schedule("2026-07-01T09:00", "recipient");
        let zero = first_due(&s, at("2026-06-01T00:00:00Z"));
        assert_eq!(zero, at("2026-06-30T19:00:00Z"), "09:00 in Kiritimati");
        let due = |zone: Option<&str>| zero.after(Duration::from_millis(u64::from(slot(&s, zone)) * SLOT_MILLIS));
        assert_eq!(slot(&s, Some("Pacific/Kiritimati")), 0);
        assert_eq!(due(Some("Europe/Berlin")), at("2026-07-01T07:00:00Z"));
        assert_eq!(due(Some("Asia/Kathmandu")), at("2026-07-01T03:15:00Z"));
        assert_eq!(due(Some("America/New_York")), at("2026-07-01T13:00:00Z"));
        assert_eq!(due(Some("Etc/GMT+12")), at("2026-07-01T21:00:00Z"));
        assert_eq!(due(None), at("2026-07-01T09:00:00Z"));
        assert_eq!(due(Some("Nowhere/Land")), at("2026-07-01T09:00:00Z"));
        assert_eq!(slot(&schedule("2026-07-01T09:00", "Europe/Berlin"), Some("Asia/Tokyo")), 0);
    }

    #[test]
    fn rates_of_a_spread() {
        let six_hours = Duration::from_secs(6 * 3_600);
        assert_eq!(spread_rate(100_000, six_hours).to_string(), "278/min");
        assert_eq!(spread_rate(1_000_000, six_hours).to_string(), "47/s");
        assert_eq!(spread_rate(7, six_hours).to_string(), "28/d");
        let rate = |text: &str| Some(text.parse::<Rate>().expect("a rate"));
        assert_eq!(slower(rate("10/s"), rate("500/min")), rate("500/min"));
        assert_eq!(slower(None, rate("1/s")), rate("1/s"));
        assert_eq!(takes(600, "10/s".parse().expect("a rate")), Duration::from_secs(60));
    }

    #[test]
    fn a_forecast_counts_open_hours_only() {
        let w = window("09:00", "10:00", 0x7f);
        let end = finish(Some(&w), &TimeZone::UTC, at("2026-11-23T09:30:00Z"), Duration::from_secs(2 * 3_600));
        assert_eq!(end, at("2026-11-25T09:30:00Z"));
    }
}
