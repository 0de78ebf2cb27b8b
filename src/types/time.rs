//! Points in time, as parameters: nothing outside `seam` asks a clock.

use std::fmt;
use std::time::Duration;

/// A duration in milliseconds where a plain number is needed.
pub type Millis = u64;

/// A point in time: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The earliest time: due at once.
    pub const ZERO: Timestamp = Timestamp(0);
    /// A time that never comes.
    pub const NEVER: Timestamp = Timestamp(u64::MAX);

    /// From milliseconds since the epoch.
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the epoch.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// The time `d` later; [`Timestamp::NEVER`] when that can't be written.
    pub fn after(self, d: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long from `earlier` to this time; zero when it is not later.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The number of the UTC day since 1970-01-01.
    pub const fn day(self) -> u32 {
        (self.0 / 86_400_000) as u32
    }

    /// As RFC 3339 text in UTC with milliseconds: `2026-11-23T17:55:49.012Z`.
    pub fn rfc3339(self) -> String {
        self.utc().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
    }

    /// As the date-time of a message header, RFC 5322 §3.3, in UTC.
    pub fn rfc5322(self) -> String {
        self.utc().strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
    }

    fn utc(self) -> jiff::Timestamp {
        // The largest time that jiff can write is in the year 9999.
        let ms = i64::try_from(self.0).unwrap_or(i64::MAX).min(253_402_207_199_999);
        jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.rfc3339())
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.rfc3339())
    }
}

impl<'de> serde::Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        let at: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        Ok(Self(u64::try_from(at.as_millisecond()).unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_both_forms() {
        let at = Timestamp::from_millis(1_795_456_549_012);
        assert_eq!(at.rfc3339(), "2026-11-23T17:55:49.012Z");
        assert_eq!(at.rfc5322(), "Mon, 23 Nov 2026 17:55:49 +0000");
        let json = serde_json::to_string(&at).expect("a string");
        assert_eq!(serde_json::from_str::<Timestamp>(&json).expect("the same"), at);
    }

    #[test]
    fn never_stays_never() {
        assert_eq!(Timestamp::NEVER.after(Duration::from_secs(1)), Timestamp::NEVER);
        assert!(Timestamp::NEVER.rfc3339().starts_with("9999"));
    }
}
