//! The thread that reads a body: octets in, batches of rows out. All that costs CPU is done here, off the runtime.

use tokio::sync::mpsc;

use super::body::{ChunkReader, Compression};
use super::limits::{BATCH_BYTES_MAX, BATCH_ROWS_MAX, ROW_VALUE_BYTES_MAX};
use super::parse::{Format, Refusal, Rows, Shape};
use super::ports::{Selected, Target};
use super::row::{Given, Place, Reason, Rejected, UploadRow, is_role_account, write_value};
use super::upload::ChunksReceiver;
use super::zones::Zones;
use crate::store::address_hash;
use crate::types::Mailbox;

use std::sync::Arc;

/// What the ledger counts for a row beside its value.
const ROW_OVERHEAD: usize = 128;

/// What a rejected row takes about.
const REJECT_OVERHEAD: usize = 96;

/// A row, or why it is none.
pub(super) type Parsed = (Place, Result<UploadRow, Rejected>);

/// Rows that are committed together.
pub(super) type Batch = BatchOf<UploadRow>;

/// Rows of a kind that are committed together.
pub struct BatchOf<T> {
    /// The rows.
    pub rows: Vec<(Place, Result<T, Rejected>)>,
    /// The file up to the last of them.
    pub shape: Shape,
    /// Whether the body ends here, and how.
    pub end: Option<Result<(), Refusal>>,
}

/// How a body begins.
pub(super) enum Start {
    /// At its beginning.
    Fresh(Option<Compression>, Option<Format>),
    /// In the middle of a file of this shape.
    Middle(Shape),
}

/// Reads a body to its end, or until nobody wants its batches any more.
pub(super) fn read(chunks: ChunksReceiver, start: Start, target: &Arc<Target>, batches: &mpsc::Sender<Batch>) {
    let body = ChunkReader::new(chunks);
    let (opened, shape) = match start {
        Start::Fresh(compression, format) => (Rows::open(body, compression, format), Shape::default()),
        Start::Middle(shape) => (Rows::go_on(body, shape.clone()), shape),
    };
    let mut maker = Maker { target: target.clone(), zones: Zones::new(target.slots.clone()), value: Vec::new() };
    hand_over(opened, shape, batches, |given| {
        let row = maker.make(given)?;
        let size = row.value.len();
        Ok((row, size))
    });
}

/// Reads a body from its beginning into rows of any kind; `make` answers with a row and its size in octets. Blocks: it belongs on a thread
/// for that.
pub fn read_rows<T>(
    chunks: ChunksReceiver,
    compression: Option<Compression>,
    format: Option<Format>,
    batches: &mpsc::Sender<BatchOf<T>>,
    make: impl FnMut(&Given<'_>) -> Result<(T, usize), Rejected>,
) {
    let opened = Rows::open(ChunkReader::new(chunks), compression, format);
    hand_over(opened, Shape::default(), batches, make);
}

fn hand_over<T>(
    opened: Result<Rows, Refusal>,
    shape: Shape,
    batches: &mpsc::Sender<BatchOf<T>>,
    mut make: impl FnMut(&Given<'_>) -> Result<(T, usize), Rejected>,
) {
    let mut rows = match opened {
        Ok(rows) => rows,
        Err(refusal) => {
            // An error means that nobody waits for it.
            let _ = batches.blocking_send(BatchOf { rows: Vec::new(), shape, end: Some(Err(refusal)) });
            return;
        }
    };
    loop {
        let mut batch = Vec::with_capacity(BATCH_ROWS_MAX);
        let mut bytes = 0;
        let end = loop {
            if bytes >= BATCH_BYTES_MAX || batch.len() >= BATCH_ROWS_MAX {
                break None;
            }
            match rows.next_row(|given| make(&given)) {
                Ok(Some(row)) => {
                    let place = rows.shape().place;
                    bytes += match &row {
                        Ok((_, size)) => ROW_OVERHEAD + size,
                        Err(rejected) => REJECT_OVERHEAD + rejected.address.len() + rejected.detail.len(),
                    };
                    batch.push((place, row.map(|(row, _)| row)));
                }
                Ok(None) => break Some(Ok(())),
                Err(refusal) => break Some(Err(refusal)),
            }
        };
        let ended = end.is_some();
        let batch = BatchOf { rows: batch, shape: rows.shape().clone(), end };
        if batches.blocking_send(batch).is_err() || ended {
            return;
        }
    }
}

/// Makes rows of what was given.
pub(super) struct Maker {
    target: Arc<Target>,
    zones: Zones,
    value: Vec<u8>,
}

impl Maker {
    /// The row, or why it is not sent to; what needs the store is not asked here.
    fn make(&mut self, given: &Given<'_>) -> Result<UploadRow, Rejected> {
        let mailbox = match Mailbox::parse(given.email) {
            Ok(mailbox) => mailbox,
            Err(_) if given.email.is_empty() => return Err(Rejected::invalid("", "no address")),
            Err(why) => return Err(Rejected::invalid(given.email, why.to_string())),
        };
        if self.target.skip_role_accounts && is_role_account(&mailbox) {
            return Err(Rejected::new(Reason::RoleAccount, given.email, ""));
        }
        self.value.clear();
        write_value(&mut self.value, given);
        if self.value.len() > ROW_VALUE_BYTES_MAX {
            let detail = format!("{} octets with the names of its variables", self.value.len());
            return Err(Rejected::new(Reason::TooLong, given.email, detail));
        }
        match self.target.select.as_ref().map_or(Selected::In, |select| select.select(&self.value)) {
            Selected::In => {}
            Selected::Out => return Err(Rejected::new(Reason::Excluded, given.email, "")),
            Selected::Failed(why) => return Err(Rejected::new(Reason::SegmentFailed, given.email, why)),
        }
        let zone = self.zones.of(given.tz);
        Ok(UploadRow {
            hash: address_hash(&mailbox),
            slot: zone.slot,
            unknown_zone: !zone.known,
            value: bytes::Bytes::copy_from_slice(&self.value),
            mailbox,
        })
    }
}
