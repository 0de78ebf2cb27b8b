//! The fields by which a message steers us; they are read and taken out.

use crate::types::{Class, Name};

/// The most tags of a message.
pub const TAGS_MAX: usize = 10;

/// The most octets of metadata.
pub const METADATA_MAX: usize = 4 << 10;

/// All of our fields begin so.
const PREFIX: &str = "X-Posthaste-";

/// What steers a message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Steering {
    /// `X-Posthaste-Campaign`.
    pub campaign: Option<Name>,
    /// `X-Posthaste-Tag`, several, separated by commas or in several fields; at most 10.
    pub tags: Vec<Name>,
    /// `X-Posthaste-Pool`.
    pub pool: Option<Name>,
    /// `X-Posthaste-Class`.
    pub class: Option<Class>,
    /// `X-Posthaste-Metadata`, a JSON object of at most 4 KiB.
    pub metadata: Option<Box<str>>,
}

/// Whether a field is one of ours, known or not.
pub(super) fn is_steering(name: &str) -> bool {
    name.get(..PREFIX.len()).is_some_and(|head| head.eq_ignore_ascii_case(PREFIX))
}

impl Steering {
    /// Reads one field. A field of ours that we don't know is refused: it would be a typing error that does nothing.
    pub(super) fn read(&mut self, name: &str, value: &str) -> Result<(), String> {
        let kind = &name[PREFIX.len()..];
        let is = |wanted: &str| kind.eq_ignore_ascii_case(wanted);
        if is("Campaign") {
            return once(&mut self.campaign, Name::parse(value).map_err(|e| e.to_string())?);
        }
        if is("Pool") {
            return once(&mut self.pool, Name::parse(value).map_err(|e| e.to_string())?);
        }
        if is("Class") {
            return once(&mut self.class, value.parse()?);
        }
        if is("Metadata") {
            return once(&mut self.metadata, parse_metadata(value)?);
        }
        if is("Tag") {
            for tag in value.split(',').map(str::trim).filter(|t| !t.is_empty()) {
                let tag = Name::parse(tag).map_err(|e| e.to_string())?;
                if !self.tags.contains(&tag) {
                    self.tags.push(tag);
                }
            }
            return if self.tags.len() > TAGS_MAX { Err(format!("at most {TAGS_MAX} tags")) } else { Ok(()) };
        }
        Err("not known: Campaign, Tag, Pool, Class or Metadata".into())
    }

    /// What the header says, and where it says nothing, what `outside` says.
    pub fn or(self, outside: Steering) -> Steering {
        Steering {
            campaign: self.campaign.or(outside.campaign),
            tags: if self.tags.is_empty() { outside.tags } else { self.tags },
            pool: self.pool.or(outside.pool),
            class: self.class.or(outside.class),
            metadata: self.metadata.or(outside.metadata),
        }
    }
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), String> {
    if slot.replace(value).is_some() { Err("there is more than one".into()) } else { Ok(()) }
}

fn parse_metadata(value: &str) -> Result<Box<str>, String> {
    if value.len() > METADATA_MAX {
        return Err(format!("at most {METADATA_MAX} octets"));
    }
    let raw: &serde_json::value::RawValue = serde_json::from_str(value).map_err(|e| format!("not JSON: {e}"))?;
    if raw.get().starts_with('{') { Ok(raw.get().into()) } else { Err("not a JSON object".into()) }
}
