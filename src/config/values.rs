//! Values with a unit: durations, sizes and rates, as an operator writes them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration: a number and `ms`, `s`, `m`, `h`, `d` or `w`; several parts add up (`1h30m`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HumanDuration(pub Duration);

impl HumanDuration {
    /// From whole seconds.
    pub const fn secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }
}

impl FromStr for HumanDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a duration: a number with ms, s, m, h, d or w, as \"5m\" or \"1h30m\"");
        let mut rest = text.trim();
        let mut total_ms: u64 = 0;
        if rest.is_empty() {
            return Err(bad());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
            let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
            rest = &rest[digits..];
            let unit_len = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let unit_ms = match &rest[..unit_len] {
                "ms" => 1,
                "s" => 1_000,
                "m" | "min" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                "w" => 604_800_000,
                _ => return Err(bad()),
            };
            total_ms = number.checked_mul(unit_ms).and_then(|ms| total_ms.checked_add(ms)).ok_or_else(bad)?;
            rest = &rest[unit_len..];
        }
        Ok(Self(Duration::from_millis(total_ms)))
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ms = self.0.as_millis() as u64;
        if ms == 0 {
            return f.pad("0s");
        }
        let mut text = String::new();
        for (unit, name) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")] {
            if ms >= unit {
                text.push_str(&format!("{}{name}", ms / unit));
                ms %= unit;
            }
        }
        f.pad(&text)
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A size in octets: a number, alone or with `KB`, `MB`, `GB` (thousands) or `KiB`, `MiB`, `GiB` (1,024s).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a size: a number, alone or with KB, MB, GB, KiB, MiB or GiB");
        let text_trimmed = text.trim();
        let digits = text_trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(text_trimmed.len());
        let number: u64 = text_trimmed[..digits].parse().map_err(|_| bad())?;
        let unit: u64 = match text_trimmed[digits..].trim() {
            "" | "B" => 1,
            "KB" | "kB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(bad()),
        };
        number.checked_mul(unit).map(Self).ok_or_else(bad)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            n if n >= 1 << 30 && n % (1 << 30) == 0 => format!("{}GiB", n >> 30),
            n if n >= 1 << 20 && n % (1 << 20) == 0 => format!("{}MiB", n >> 20),
            n if n >= 1 << 10 && n % (1 << 10) == 0 => format!("{}KiB", n >> 10),
            n => format!("{n}B"),
        };
        f.pad(&text)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(u64),
            Text(String),
        }
        match Form::deserialize(d).map_err(|_| serde::de::Error::custom("a size is a number or a text as \"25MiB\""))? {
            Form::Number(n) => Ok(Self(n)),
            Form::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

/// So many in a time: `100/s`, `600/min`, `5000/h`, `20000/d`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// In how long.
    pub per: Duration,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a rate: a number and /s, /min, /h or /d, as \"100/min\"");
        let (count, unit) = text.split_once('/').ok_or_else(bad)?;
        let count: u32 = count.trim().parse().map_err(|_| bad())?;
        let per = match unit.trim() {
            "s" | "sec" => Duration::from_secs(1),
            "m" | "min" => Duration::from_secs(60),
            "h" | "hour" => Duration::from_secs(3_600),
            "d" | "day" => Duration::from_secs(86_400),
            _ => return Err(bad()),
        };
        if count == 0 {
            return Err(format!("{text:?}: a rate of 0 would hold mail for ever; suspend the queue instead"));
        }
        Ok(Self { count, per })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per.as_secs() {
            1 => "s",
            60 => "min",
            3_600 => "h",
            _ => "d",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The most rates of one limit.
const RATES_MAX: usize = 4;

/// One rate, or several that hold at once: `"100/s"` or `["5/s", "2000/h"]`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rates(Vec<Rate>);

impl std::ops::Deref for Rates {
    type Target = [Rate];

    fn deref(&self) -> &[Rate] {
        &self.0
    }
}

impl FromIterator<Rate> for Rates {
    fn from_iter<T: IntoIterator<Item = Rate>>(rates: T) -> Self {
        Self(rates.into_iter().collect())
    }
}

impl Serialize for Rates {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(s),
            several => s.collect_seq(several),
        }
    }
}

impl<'de> Deserialize<'de> for Rates {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            One(String),
            Several(Vec<String>),
        }
        let expected = "a rate as \"100/min\", or an array of them";
        let texts = match Form::deserialize(d).map_err(|_| serde::de::Error::custom(expected))? {
            Form::One(text) => vec![text],
            Form::Several(texts) => texts,
        };
        if texts.is_empty() || texts.len() > RATES_MAX {
            return Err(serde::de::Error::custom(format!("one to {RATES_MAX} rates")));
        }
        let rates: Result<Vec<Rate>, String> = texts.iter().map(|text| text.parse()).collect();
        rates.map(Self).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!("1h30m".parse::<HumanDuration>(), Ok(HumanDuration::secs(5_400)));
        assert_eq!("4d".parse::<HumanDuration>().expect("valid").to_string(), "4d");
        assert!("5".parse::<HumanDuration>().is_err());
        assert!("99999999999999999999w".parse::<HumanDuration>().is_err());
        assert!("9999999999999999w".parse::<HumanDuration>().is_err());
    }

    #[test]
    fn sizes() {
        assert_eq!("25MiB".parse::<ByteSize>(), Ok(ByteSize(25 << 20)));
        assert_eq!("25 MB".parse::<ByteSize>(), Ok(ByteSize(25_000_000)));
        assert!("MB".parse::<ByteSize>().is_err());
    }

    #[test]
    fn rates() {
        assert_eq!("100/min".parse::<Rate>().expect("valid").to_string(), "100/min");
        assert!("0/s".parse::<Rate>().is_err());
    }
}
