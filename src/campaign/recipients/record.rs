//! The progress of an upload: one record, written in the batch of the rows that it counts, so it is never out of step with them.
//!
//! It stands under [`keys::upload`] and can be read as [`UploadCounters`] by whoever needs no more. Rejected rows stand below it, in
//! chunks that are compressed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::limits::REJECTS_KEPT_MAX;
use super::parse::Shape;
use super::row::{Place, Reason, Rejected};
use crate::campaign::model::{UploadCounters, keys};
use crate::types::{CampaignNo, Timestamp};

/// How many kinds of mistakes of a segment are told apart; further ones are counted together.
const FAILURE_KINDS_MAX: usize = 20;

/// How many rows are named for each kind.
const FAILURE_ROWS_MAX: usize = 5;

/// What is known of an upload.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct UploadRecord {
    /// The counts that all know.
    #[serde(flatten)]
    pub counters: UploadCounters,
    /// Rows that are too long.
    #[serde(default)]
    pub too_long: u64,
    /// Rows for which the segment can't be worked out.
    #[serde(default)]
    pub segment_failed: u64,
    /// Rows that came a second time with a part that was sent again from its beginning.
    #[serde(default)]
    pub repeated: u64,
    /// Rows that name a time zone that is not known; they are sent by the campaign's.
    #[serde(default)]
    pub unknown_zones: u64,
    /// Rejected rows that are kept with their reason: the first million.
    #[serde(default)]
    pub rejects_kept: u64,
    /// Rejected rows that are only counted.
    #[serde(default)]
    pub rejects_dropped: u64,
    /// Mistakes of the segment, each with its first rows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failures: BTreeMap<Box<str>, Failures>,
    /// The number of the part, from 1: each `PUT` without `Upload-Offset` begins one. 0: nothing was uploaded.
    #[serde(default)]
    pub part: u32,
    /// When it came on last.
    #[serde(default)]
    pub updated: Timestamp,
    /// Chunks of rejected rows.
    #[serde(default)]
    pub(super) chunks: u64,
    /// Rows up to this number of this part came before.
    #[serde(default)]
    pub(super) repeats: u64,
    /// The file of this part.
    #[serde(default)]
    pub(super) shape: Shape,
}

/// A mistake of the segment.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Failures {
    /// How many rows have it.
    pub rows: u64,
    /// The first of them.
    pub first: Vec<u64>,
}

impl UploadRecord {
    /// Its key.
    pub(super) fn key(campaign: CampaignNo) -> Vec<u8> {
        keys::upload(campaign)
    }

    /// From what is stored.
    pub(super) fn from_json(json: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(json).map_err(|e| format!("the record of the upload is not readable: {e}"))
    }

    /// As it is stored.
    pub(super) fn to_json(&self) -> Vec<u8> {
        // It is made of numbers, texts and maps with text keys: it can always be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// How the file of the part that is not complete is written: CSV or NDJSON; `None` when there is none.
    pub fn format(&self) -> Option<super::Format> {
        self.shape.format
    }

    /// Whether a part was begun and has not come to its end.
    pub fn is_open(&self) -> bool {
        self.part > 0 && !self.counters.complete
    }

    /// Counts a rejected row.
    pub(super) fn count(&mut self, place: Place, rejected: &Rejected) {
        let counters = &mut self.counters;
        match rejected.reason {
            Reason::Invalid => counters.invalid += 1,
            // Told apart beside the counters, in whose words each row that is not taken has a place.
            Reason::TooLong => {
                counters.invalid += 1;
                self.too_long += 1;
            }
            Reason::Duplicate => counters.duplicate += 1,
            Reason::Suppressed => counters.suppressed += 1,
            Reason::RoleAccount => counters.role += 1,
            Reason::Excluded => counters.excluded += 1,
            Reason::SegmentFailed => {
                counters.excluded += 1;
                self.segment_failed += 1;
                let new = !self.failures.contains_key(&rejected.detail);
                let kind = if new && self.failures.len() >= FAILURE_KINDS_MAX {
                    "other".into()
                } else {
                    rejected.detail.clone()
                };
                let kind = self.failures.entry(kind).or_default();
                kind.rows += 1;
                if kind.first.len() < FAILURE_ROWS_MAX {
                    kind.first.push(place.row);
                }
            }
        }
    }

    /// Whether one more rejected row is kept.
    pub(super) fn keeps_reject(&mut self) -> bool {
        let keeps = self.rejects_kept < REJECTS_KEPT_MAX;
        *(if keeps { &mut self.rejects_kept } else { &mut self.rejects_dropped }) += 1;
        keeps
    }
}

/// A rejected row as it is kept and given out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reject {
    /// The part of the upload.
    pub part: u32,
    /// Its number in the part, from 1, the header not counted.
    pub row: u64,
    /// The line in the part on which it ends.
    pub line: u64,
    /// The address as it was given; empty where there was none.
    pub address: Box<str>,
    /// Why.
    pub reason: Reason,
    /// What is wrong, for people.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub detail: Box<str>,
}

/// The key of a chunk of rejected rows.
pub(super) fn chunk_key(campaign: CampaignNo, chunk: u64) -> Vec<u8> {
    [keys::upload(campaign), format!("/reject/{chunk:016x}").into_bytes()].concat()
}

/// Rejected rows as a chunk.
pub(super) fn encode_chunk(rejects: &[Reject]) -> Vec<u8> {
    let mut lines = Vec::new();
    for reject in rejects {
        // Texts and numbers can always be written.
        let _ = serde_json::to_writer(&mut lines, reject);
        lines.push(b'\n');
    }
    // Compression into memory fails for want of memory only; then the lines stand as they are, which begin with a brace.
    zstd::bulk::compress(&lines, 1).unwrap_or(lines)
}

/// The rejected rows of a chunk.
pub(super) fn decode_chunk(octets: &[u8]) -> Result<Vec<Reject>, String> {
    /// More than a batch of rejects ever is.
    const CHUNK_BYTES_MAX: usize = 16 << 20;
    let lines = match octets.first() {
        Some(b'{') => octets.to_vec(),
        Some(_) | None => zstd::bulk::decompress(octets, CHUNK_BYTES_MAX).map_err(|e| e.to_string())?,
    };
    let read = |line: &[u8]| serde_json::from_slice(line).map_err(|e| e.to_string());
    lines.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(read).collect()
}
