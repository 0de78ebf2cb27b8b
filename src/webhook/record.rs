//! What is kept of an endpoint: its place in the log and how it is, one record in `state`, so that both change together.

use serde::{Deserialize, Serialize};

use crate::store::{Change, ReadError, Reader};
use crate::types::{EventSeq, Name, Timestamp};

/// What the keys begin with; the endpoint's name follows.
const PREFIX: &str = "webhook/";
/// The version of a record.
const VERSION: u8 = 1;

/// The durable part of an endpoint.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    v: u8,
    /// The last event that is done: taken, or not wanted.
    pub after: EventSeq,
    /// How often the place was set back: part of `webhook-id`, so that what is sent again by an operator's will is not taken for a repetition.
    #[serde(default)]
    pub replays: u32,
    /// Since when nothing was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Timestamp>,
    /// Since when it is given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_since: Option<Timestamp>,
}

impl Record {
    /// That of a new endpoint.
    pub fn new(after: EventSeq) -> Self {
        Self { v: VERSION, after, replays: 0, failing_since: None, dead_since: None }
    }

    /// What stands in the store; `None` for an endpoint that is new.
    pub async fn read(reader: &Reader, name: &Name) -> Result<Option<Self>, ReadError> {
        let Some(value) = reader.state_get(key(name)).await? else { return Ok(None) };
        match serde_json::from_slice::<Self>(&value) {
            Ok(record) if record.v == VERSION => Ok(Some(record)),
            Ok(_) | Err(_) => Err(ReadError(format!("the record of webhook {name} is not readable").into())),
        }
    }

    /// The change that keeps it.
    pub fn put(&self, name: &Name) -> Change {
        // A struct of numbers and texts can always be written.
        Change::PutState { key: key(name), value: serde_json::to_vec(self).unwrap_or_default() }
    }
}

fn key(name: &Name) -> Vec<u8> {
    [PREFIX.as_bytes(), name.as_str().as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_the_first_version_is_read() {
        let text = r#"{"v":1,"after":41,"replays":2,"failing_since":"2026-11-23T17:55:49.012Z"}"#;
        let record: Record = serde_json::from_str(text).expect("readable");
        assert_eq!((record.after, record.replays, record.dead_since), (EventSeq(41), 2, None));
        assert_eq!(serde_json::to_string(&record).expect("writable"), text);
    }
}
