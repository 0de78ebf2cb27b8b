//! The values of a job that have a form of their own: people, times, days, zones, files.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::types::{Mailbox, Timestamp};

/// An address with a display name: a text `Name <a@b.example>`, or an object with `email` and `name`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Person {
    /// The display name, unencoded, one line.
    pub name: Option<String>,
    /// The address.
    pub mailbox: Mailbox,
}

impl Person {
    /// A person with a checked name; an empty one is none.
    pub fn new(name: Option<&str>, mailbox: &str) -> Result<Self, String> {
        let mailbox = Mailbox::parse(mailbox).map_err(|e| format!("{mailbox:?} is not an address: {e}"))?;
        let name = name.map(str::trim).filter(|n| !n.is_empty());
        if let Some(reason) = name.and_then(not_one_line) {
            return Err(format!("the name of {mailbox} {reason}"));
        }
        Ok(Self { name: name.map(str::to_owned), mailbox })
    }
}

impl FromStr for Person {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        match text.strip_suffix('>').and_then(|t| t.rsplit_once('<')) {
            Some((name, mailbox)) => Self::new(Some(&unquote(name.trim())), mailbox),
            None => Self::new(None, text),
        }
    }
}

/// A display name without the quotes of a quoted-string (RFC 5322 §3.2.4).
fn unquote(name: &str) -> String {
    let Some(inner) = name.strip_prefix('"').and_then(|n| n.strip_suffix('"')) else { return name.to_owned() };
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        out.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    out
}

/// Why a text can't stand in a header field; `None` when it can.
pub fn not_one_line(text: &str) -> Option<String> {
    let bad = text.chars().find(|c| (c.is_control() && *c != '\t') || matches!(c, '\u{2028}' | '\u{2029}'))?;
    Some(format!("has the character {}, which can't stand in a header", bad.escape_unicode()))
}

impl Serialize for Person {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Form<'a> {
            email: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            name: Option<&'a str>,
        }
        Form { email: self.mailbox.as_str(), name: self.name.as_deref() }.serialize(s)
    }
}

impl<'de> Deserialize<'de> for Person {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Person;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address: a text, or an object with \"email\" and \"name\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Person, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Person, A::Error> {
                #[derive(Deserialize)]
                #[serde(deny_unknown_fields)]
                struct Object {
                    email: String,
                    name: Option<String>,
                }
                let object = Object::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Person::new(object.name.as_deref(), &object.email).map_err(de::Error::custom)
            }
        }
        d.deserialize_any(Visitor)
    }
}

/// Someone who gets a test: an address, alone or with variables of its own.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct TestRecipient {
    /// The address.
    pub email: Mailbox,
    /// Whose row the test is made from; without it that of the address, else the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_row: Option<Mailbox>,
    /// Variables that win over the row's.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub vars: serde_json::Map<String, serde_json::Value>,
}

impl<'de> Deserialize<'de> for TestRecipient {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = TestRecipient;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address, or an object with \"email\", \"as_row\" and \"vars\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<TestRecipient, E> {
                let email = mailbox(text).map_err(E::custom)?;
                Ok(TestRecipient { email, as_row: None, vars: serde_json::Map::new() })
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<TestRecipient, A::Error> {
                #[derive(Deserialize)]
                #[serde(deny_unknown_fields)]
                struct Object {
                    email: String,
                    as_row: Option<String>,
                    #[serde(default)]
                    vars: serde_json::Map<String, serde_json::Value>,
                }
                let object = Object::deserialize(de::value::MapAccessDeserializer::new(map))?;
                let email = mailbox(&object.email).map_err(de::Error::custom)?;
                let as_row = object.as_row.as_deref().map(mailbox).transpose().map_err(de::Error::custom)?;
                Ok(TestRecipient { email, as_row, vars: object.vars })
            }
        }
        d.deserialize_any(Visitor)
    }
}

fn mailbox(text: &str) -> Result<Mailbox, String> {
    Mailbox::parse(text.trim()).map_err(|e| format!("{text:?} is not an address: {e}"))
}

/// A file of a campaign.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobAttachment {
    /// Its file name.
    pub name: String,
    /// Its media type.
    #[serde(rename = "type", default = "octet_stream")]
    pub media_type: String,
    /// Its octets; base64 (RFC 4648 §4) where it is written.
    #[serde(with = "base64_octets")]
    pub content: Bytes,
    /// Its Content-ID without brackets, for `cid:` links of the HTML; it makes the file inline.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cid: Option<String>,
}

fn octet_stream() -> String {
    "application/octet-stream".into()
}

mod base64_octets {
    use super::*;

    pub fn serialize<S: Serializer>(octets: &Bytes, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD.encode(octets))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Bytes, D::Error> {
        let mut text = String::deserialize(d)?;
        text.retain(|c| !c.is_ascii_whitespace());
        STANDARD.decode(text).map(Bytes::from).map_err(|e| de::Error::custom(format!("not base64: {e}")))
    }
}

/// What becomes of a row that lacks a variable which its template names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnMissing {
    /// The row is not sent, with an event.
    #[default]
    Skip,
    /// The campaign does not start.
    Error,
    /// Nothing stands in its place.
    Blank,
}

/// When a campaign begins: a point in time, or a time that a clock on the wall shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At {
    /// With an offset: `2026-12-01T09:00:00+01:00`.
    Point(Timestamp),
    /// Without: `2026-12-01T09:00`, in the schedule's time zone.
    Local(jiff::civil::DateTime),
}

impl FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(at) = text.parse::<jiff::Timestamp>() {
            let ms = u64::try_from(at.as_millisecond()).map_err(|_| format!("{text:?} is before 1970"))?;
            return Ok(At::Point(Timestamp::from_millis(ms)));
        }
        let local = text.parse::<jiff::civil::DateTime>();
        local.map(At::Local).map_err(|_| {
            format!("{text:?} is not a time: 2026-12-01T09:00 in the schedule's time zone, or with an offset 2026-12-01T09:00+01:00")
        })
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Point(at) => at.fmt(f),
            At::Local(local) => local.fmt(f),
        }
    }
}

/// Whose clock a schedule goes by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Zone {
    /// The recipient's own (`tz` of the row; without one UTC).
    Recipient,
    /// A zone of the IANA database: `Europe/Berlin`.
    Fixed(jiff::tz::TimeZone),
}

impl FromStr for Zone {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("recipient") {
            return Ok(Zone::Recipient);
        }
        // `get` finds `UTC` and names whatever the case; a system's zone has no name and would not mean the same elsewhere.
        jiff::tz::TimeZone::get(text)
            .map(Zone::Fixed)
            .map_err(|_| format!("{text:?} is not a time zone: a name as Europe/Berlin or UTC, or \"recipient\""))
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Zone::Recipient => f.write_str("recipient"),
            Zone::Fixed(zone) => f.write_str(zone.iana_name().unwrap_or("UTC")),
        }
    }
}

/// A time of the day in minutes after midnight, up to 24:00.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TimeOfDay(pub u16);

impl FromStr for TimeOfDay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a time of the day: 00:00 to 24:00");
        let (hours, minutes) = text.split_once(':').ok_or_else(bad)?;
        let digits = |t: &str| (1..=2).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_digit());
        if !digits(hours) || minutes.len() != 2 || !digits(minutes) {
            return Err(bad());
        }
        let (hours, minutes): (u16, u16) = (hours.parse().map_err(|_| bad())?, minutes.parse().map_err(|_| bad())?);
        if minutes > 59 || hours > 24 || (hours == 24 && minutes > 0) {
            return Err(bad());
        }
        Ok(Self(hours * 60 + minutes))
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

/// Days of the week; bit 0 is Monday.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Days(pub u8);

/// The days as they are written.
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl Days {
    /// All seven.
    pub const ALL: Days = Days(0x7f);

    /// Whether a day is one of them.
    pub fn has(self, day: jiff::civil::Weekday) -> bool {
        self.0 & (1 << day.to_monday_zero_offset()) != 0
    }
}

impl Default for Days {
    fn default() -> Self {
        Self::ALL
    }
}

impl Serialize for Days {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(DAYS.iter().enumerate().filter(|(i, _)| self.0 & (1 << i) != 0).map(|(_, day)| day))
    }
}

impl<'de> Deserialize<'de> for Days {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(d)?;
        let mut days = 0;
        for name in &names {
            let short = name.to_ascii_lowercase();
            let full = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
            let found = (0..7).find(|i| DAYS[*i] == short || full[*i] == short);
            let bad = || de::Error::custom(format!("{name:?} is not a day: one of {}", DAYS.join(", ")));
            days |= 1 << found.ok_or_else(bad)?;
        }
        if days == 0 {
            return Err(de::Error::custom("no day at all: leave it out for all days"));
        }
        Ok(Self(days))
    }
}

/// Serde by the type's own text.
macro_rules! as_text {
    ($($type:ty),*) => { $(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(de::Error::custom)
            }
        }
    )* };
}

as_text!(At, Zone, TimeOfDay);
