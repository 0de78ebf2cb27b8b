//! A contact.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::store::ReadError;
use crate::types::Timestamp;

/// Somebody in an audience.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Contact {
    /// The address, as it was given last.
    pub email: String,
    /// The name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The time zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tz: Option<String>,
    /// What is known: the variables of a row. Dates are texts in the form of ISO 8601.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub attributes: Map<String, Value>,
    /// When it was first imported.
    pub created: Timestamp,
    /// When it was last imported.
    pub updated: Timestamp,
}

impl Contact {
    /// From what is stored.
    pub(super) fn from_json(json: &[u8]) -> Result<Self, ReadError> {
        serde_json::from_slice(json).map_err(|e| ReadError(format!("a contact is not readable: {e}").into()))
    }

    /// As it is stored.
    pub(super) fn to_json(&self) -> Vec<u8> {
        // It is made of texts and of values that were read as JSON: it can always be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// As a row of an upload, on a line.
    pub(super) fn write_row(&self, out: &mut Vec<u8>) {
        #[derive(Serialize)]
        struct Line<'a> {
            email: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            name: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            tz: Option<&'a str>,
            vars: &'a Map<String, Value>,
        }
        let line =
            Line { email: &self.email, name: self.name.as_deref(), tz: self.tz.as_deref(), vars: &self.attributes };
        // As above.
        let _ = serde_json::to_writer(&mut *out, &line);
        out.push(b'\n');
    }

    /// Takes over what a later import gives: a null removes an attribute, what is not given stays.
    pub(super) fn merge(&mut self, newer: Contact) {
        self.email = newer.email;
        self.name = newer.name.or(self.name.take());
        self.tz = newer.tz.or(self.tz.take());
        self.updated = newer.updated;
        for (name, value) in newer.attributes {
            match value {
                Value::Null => drop(self.attributes.remove(&name)),
                value => drop(self.attributes.insert(name, value)),
            }
        }
    }
}
