//! Dates as rows have them: RFC 3339, ISO 8601 without a zone, a date alone, or seconds since 1970.

use jiff::civil;
use jiff::tz::TimeZone;

use crate::types::Timestamp;

/// A moment as a row says it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum When {
    /// A point in time.
    Instant(jiff::Timestamp),
    /// A date, or a date with a time, without a zone.
    Civil(civil::DateTime),
}

/// Seconds since 1970 above this are milliseconds: the year 5138 in the one, 1973 in the other.
const SECONDS_MAX: f64 = 1e11;

/// Reads a moment; `None` when it is none.
pub(super) fn parse(text: &str) -> Option<When> {
    let text = text.trim();
    if let Some(date) = plain_date(text) {
        return Some(When::Civil(date.to_datetime(civil::Time::midnight())));
    }
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Some(When::Instant(at));
    }
    // `20261123` is a date of ISO 8601 too; numbers of seconds have other lengths.
    if text.len() != 8
        && let Some(number) = number(text)
    {
        let seconds = if number.abs() >= SECONDS_MAX { number / 1000.0 } else { number };
        return jiff::Timestamp::from_millisecond((seconds * 1000.0) as i64).ok().map(When::Instant);
    }
    text.parse::<civil::DateTime>().ok().map(When::Civil)
}

/// A number written in digits, with sign, point and exponent; not `inf`, `nan` or blanks.
pub(super) fn number(text: &str) -> Option<f64> {
    let bytes = text.as_bytes();
    let first = *bytes.first()?;
    // A quick look refuses most words.
    if !(first.is_ascii_digit() || matches!(first, b'-' | b'+' | b'.')) || !bytes[bytes.len() - 1].is_ascii_digit() {
        return None;
    }
    text.parse::<f64>().ok().filter(|n| n.is_finite())
}

/// `2026-11-23`, which most rows have, without the full parser.
fn plain_date(text: &str) -> Option<civil::Date> {
    let bytes: &[u8; 10] = text.as_bytes().try_into().ok()?;
    if bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let digits = |from: usize, to: usize| {
        bytes[from..to].iter().try_fold(0_i16, |n, b| b.is_ascii_digit().then(|| n * 10 + i16::from(b - b'0')))
    };
    civil::Date::new(digits(0, 4)?, i8::try_from(digits(5, 7)?).ok()?, i8::try_from(digits(8, 10)?).ok()?).ok()
}

impl When {
    /// The date: of a point in time, that in UTC.
    pub(super) fn date(self) -> civil::Date {
        match self {
            When::Instant(at) => at.to_zoned_datetime(TimeZone::UTC).date(),
            When::Civil(at) => at.date(),
        }
    }
}

/// The date of `now`, in UTC.
pub(super) fn today(now: Timestamp) -> civil::Date {
    instant(now).to_zoned_datetime(TimeZone::UTC).date()
}

/// `now` as jiff has it.
pub(super) fn instant(now: Timestamp) -> jiff::Timestamp {
    let ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX)
}

/// Whole days from `when` to `now`, by the calendar in UTC: negative when it is to come.
pub(super) fn days_since(when: When, now: Timestamp) -> i64 {
    day_number(today(now)) - day_number(when.date())
}

/// Whole years from a birthday to `now`; a birthday on 29 February is on 1 March of other years.
pub(super) fn age(birthday: When, now: Timestamp) -> i64 {
    let (born, today) = (birthday.date(), today(now));
    let before = (today.month(), today.day()) < (born.month(), born.day());
    i64::from(today.year()) - i64::from(born.year()) - i64::from(before)
}

/// Days since 1970-01-01 (the civil calendar, by eras of 400 years).
fn day_number(date: civil::Date) -> i64 {
    let (year, month, day) = (i64::from(date.year()), i64::from(date.month()), i64::from(date.day()));
    // The year begins in March, so that the leap day is its last.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        let at: jiff::Timestamp = text.parse().expect("a time");
        Timestamp::from_millis(u64::try_from(at.as_millisecond()).expect("after 1970"))
    }

    fn days(text: &str, now: &str) -> Option<i64> {
        parse(text).map(|when| days_since(when, at(now)))
    }

    #[test]
    fn each_form_of_a_date_is_read() {
        let now = "2026-11-23T12:00:00Z";
        for text in [
            "2026-11-20",
            "2026-11-20T23:59:59Z",
            "2026-11-21T01:00:00+02:00",
            "2026-11-20T10:00:00",
            "2026-11-20 10:00",
            "20261120",
            "1795132800",
            "1795132800000",
            " 2026-11-20 ",
        ] {
            assert_eq!(days(text, now), Some(3), "{text}");
        }
        for text in ["", "soon", "2026-13-01", "2026-02-30", "23.11.2026", "nan", "1e400"] {
            assert_eq!(days(text, now), None, "{text}");
        }
    }

    #[test]
    fn days_and_ages_by_the_calendar() {
        assert_eq!(days("1970-01-01", "1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(days("2000-02-28", "2000-03-01T00:00:00Z"), Some(2));
        assert_eq!(days("1900-01-01", "2000-01-01T00:00:00Z"), Some(36_524));
        assert_eq!(days("2026-12-01", "2026-11-23T23:59:59Z"), Some(-8));
        let age_of = |born, now| age(parse(born).expect("a date"), at(now));
        assert_eq!(age_of("1990-11-23", "2026-11-23T00:00:00Z"), 36);
        assert_eq!(age_of("1990-11-24", "2026-11-23T00:00:00Z"), 35);
        assert_eq!(age_of("2000-02-29", "2001-02-28T00:00:00Z"), 0);
        assert_eq!(age_of("2000-02-29", "2001-03-01T00:00:00Z"), 1);
    }
}
