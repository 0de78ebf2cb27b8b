//! The keeper of the cells: the only one that writes them.
//!
//! 1. It begins where the cells on disk end: their place in the log stands beside them,
//! 2. waits for a commit, then a second, so that a second of mail is one batch ([`EVERY`]); who waits for a report hurries it,
//! 3. reads the log by pages, folds them, and reads the cells that they touch,
//! 4. adds, keeps names within their bounds, and commits cells and place together,
//! 5. once an hour removes cells that are past their time.
//!
//! What fails is tried again from the place on disk: nothing is counted twice, nothing is left out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use tokio::sync::{Notify, watch};

use super::cell::Cell;
use super::fold::{Delta, Fold, OTHER};
use super::key::{Key, Resolution, head_len};
use super::query::Reports;
use crate::metrics::report::ReportMetrics;
use crate::seam::clock::Clock;
use crate::store::{Change, Ledger, ReadError, Reader, SubmitError, Table};
use crate::types::{EventSeq, Timestamp};

/// How long events gather before they are counted.
const EVERY: Duration = Duration::from_secs(1);
/// How long it waits after an error.
const AGAIN: Duration = Duration::from_secs(5);
/// Events that are read at a time: some 2 ms of folding, then others have their turn.
const PAGE: usize = 1_000;
/// The most events of one batch.
const EVENTS_MAX: usize = 20_000;
/// Cells that are read or removed at a time.
const CELLS: usize = 1_000;
/// The format of the cells, of their keys, and of what is counted into them: another one is counted anew from the log.
const FORMAT: u8 = 1;
/// Where the place in the log stands: format (1), sequence (8).
const PLACE: &[u8] = b"rollup/place";

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Submit(#[from] SubmitError),
}

/// Keeps the cells; see the module.
pub struct Keeper {
    ledger: Ledger,
    reader: Reader,
    clock: Clock,
    metrics: ReportMetrics,
    folded: watch::Sender<EventSeq>,
    hurry: Arc<Notify>,
    fold: Fold,
    /// The hour in which old cells were removed last.
    swept: u32,
}

impl Keeper {
    /// A keeper, and what reads its cells. Nothing is counted before [`Keeper::run`].
    pub fn new(ledger: Ledger, reader: Reader, clock: Clock, metrics: ReportMetrics) -> (Self, Reports) {
        let (folded, told) = watch::channel(EventSeq(0));
        let hurry = Arc::new(Notify::new());
        let reports = Reports::new(reader.clone(), told, hurry.clone(), clock.clone());
        (Self { ledger, reader, clock, metrics, folded, hurry, fold: Fold::default(), swept: 0 }, reports)
    }

    /// Counts until the store ends.
    pub async fn run(mut self) {
        let mut at = None;
        loop {
            match self.turn(&mut at).await {
                Ok(true) => {}
                Ok(false) | Err(Failure::Submit(SubmitError::ShuttingDown | SubmitError::Failed(_))) => return,
                Err(error) => {
                    // What was folded is not on disk: it is read again from there.
                    self.fold = Fold::default();
                    at = None;
                    tracing::warn!(%error, "reports lag behind the log");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    /// One batch; `false` when the store has ended.
    async fn turn(&mut self, at: &mut Option<EventSeq>) -> Result<bool, Failure> {
        let from = match *at {
            Some(from) => from,
            None => self.begin().await?,
        };
        *at = Some(from);
        self.folded.send_replace(from);
        let mut committed = self.reader.committed();
        let tail = self.reader.events_tail();
        self.metrics.lag.set(i64::try_from(tail.0.saturating_sub(from.0)).unwrap_or(i64::MAX));
        if tail <= from {
            // After a cut of the journal the log may end before the place; both go back together, so it never begins before it.
            if committed.wait_for(|seq| *seq > from).await.is_err() {
                return Ok(false);
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = self.hurry.notified() => {}
            }
        }
        let to = self.read(from).await?;
        if to > from {
            self.write(to).await?;
            *at = Some(to);
            self.folded.send_replace(to);
        }
        self.sweep().await?;
        Ok(true)
    }

    /// Where the cells on disk end; cells of another format are removed first.
    async fn begin(&mut self) -> Result<EventSeq, Failure> {
        let place = self.reader.state_get(PLACE).await?;
        let known = place.as_deref().and_then(|value| value.split_first());
        if let Some((&FORMAT, seq)) = known
            && let Ok(seq) = <[u8; 8]>::try_from(seq)
        {
            return Ok(EventSeq(u64::from_be_bytes(seq)));
        }
        if place.is_some() {
            tracing::info!("the reports are counted anew from the log: their format is another one");
        }
        loop {
            let cells = self.reader.table_scan(Table::Rollups, Vec::new(), None, CELLS).await?;
            if cells.is_empty() {
                return Ok(EventSeq(0));
            }
            self.remove(cells.into_iter().map(|(key, _)| key.to_vec()).collect()).await?;
        }
    }

    /// Folds what the log has after `from`; answers up to where.
    async fn read(&mut self, from: EventSeq) -> Result<EventSeq, Failure> {
        let (mut at, mut read) = (from, 0);
        while read < EVENTS_MAX {
            let page = self.reader.log(at, PAGE).await?;
            if let Some(gap) = page.gap {
                tracing::warn!(
                    from = gap.from.0,
                    to = gap.to.0,
                    "the reports miss events that are past their retention"
                );
                self.metrics.missed.inc_by(gap.to.0 - gap.from.0 + 1);
            }
            for json in &page.records {
                if let Err(error) = self.fold.event(json) {
                    self.metrics.unreadable.inc();
                    tracing::error!(%error, "an event can't be counted, the reports go without it");
                }
            }
            read += page.records.len();
            self.metrics.events.inc_by(page.records.len() as u64);
            at = page.next.max(at);
            if !page.more {
                break;
            }
            tokio::task::yield_now().await;
        }
        Ok(at)
    }

    /// Adds what was folded to the cells, in one batch with the place.
    async fn write(&mut self, to: EventSeq) -> Result<(), Failure> {
        let deltas = self.fold.take();
        let mut changes = self.changes(deltas).await?;
        self.metrics.cells.inc_by(changes.len() as u64);
        let place = [&[FORMAT], to.0.to_be_bytes().as_slice()].concat();
        changes.push(Change::PutState { key: PLACE.to_vec(), value: place });
        Ok(self.ledger.submit(changes).await?)
    }

    async fn changes(&self, deltas: AHashMap<Key, Delta>) -> Result<Vec<Change>, Failure> {
        // In order of key: neighbours on disk, and who is within a bound does not depend on a hash.
        let mut deltas: Vec<(Key, Delta)> = deltas.into_iter().collect();
        deltas.sort_by(|a, b| a.0.cmp(&b.0));
        let stored = self.get(deltas.iter().map(|(key, _)| key.0.clone()).collect()).await?;
        let mut cells: BTreeMap<Vec<u8>, Cell> = BTreeMap::new();
        let (mut fresh, mut beyond) = (Vec::new(), Vec::new());
        for ((key, delta), stored) in deltas.into_iter().zip(stored) {
            match stored {
                Some(mut cell) => {
                    cell.merge(&delta.cell);
                    cells.insert(key.0, cell);
                }
                None if delta.split.names_max() == u32::MAX || delta.name == OTHER => {
                    drop(cells.insert(key.0, delta.cell))
                }
                None => fresh.push((key, delta)),
            }
        }
        let counts: Vec<Vec<u8>> = fresh.iter().map(|(key, delta)| key.names(&delta.name)).collect();
        let mut names: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
        for (key, value) in counts.iter().zip(self.raw(counts.clone()).await?) {
            let known = value.and_then(|v| v.first_chunk().map(|n| u32::from_be_bytes(*n))).unwrap_or(0);
            names.insert(key.clone(), known);
        }
        for ((key, delta), count) in fresh.into_iter().zip(counts) {
            let count = names.entry(count).or_default();
            if *count < delta.split.names_max() {
                *count += 1;
                cells.insert(key.0, delta.cell);
            } else {
                beyond.push((key.renamed(&delta.name, OTHER), delta.cell));
            }
        }
        self.others(beyond, &mut cells).await?;
        let put = |key, value| Change::Put { table: Table::Rollups, key, value };
        let cells = cells.into_iter().map(|(key, cell)| put(key, cell.encode()));
        Ok(cells.chain(names.into_iter().map(|(key, n)| put(key, n.to_be_bytes().to_vec()))).collect())
    }

    /// What is beyond the bound of its names counts together.
    async fn others(&self, beyond: Vec<(Key, Cell)>, cells: &mut BTreeMap<Vec<u8>, Cell>) -> Result<(), Failure> {
        let wanted: Vec<Vec<u8>> =
            beyond.iter().map(|(key, _)| key.0.clone()).filter(|key| !cells.contains_key(key)).collect();
        for (key, stored) in wanted.iter().zip(self.get(wanted.clone()).await?) {
            cells.insert(key.clone(), stored.unwrap_or_default());
        }
        for (key, cell) in beyond {
            cells.entry(key.0).or_default().merge(&Cell { reply: None, ..cell });
        }
        Ok(())
    }

    async fn raw(&self, keys: Vec<Vec<u8>>) -> Result<Vec<Option<bytes::Bytes>>, Failure> {
        let mut found = Vec::with_capacity(keys.len());
        for keys in keys.chunks(CELLS) {
            found.extend(self.reader.table_get(Table::Rollups, keys.to_vec()).await?);
        }
        Ok(found)
    }

    async fn get(&self, keys: Vec<Vec<u8>>) -> Result<Vec<Option<Cell>>, Failure> {
        let read = |value: Option<bytes::Bytes>| {
            let cell = Cell::decode(&value?);
            if cell.is_none() {
                self.metrics.unreadable.inc();
                tracing::error!("a cell of the reports is not readable, it begins anew");
            }
            cell
        };
        Ok(self.raw(keys).await?.into_iter().map(read).collect())
    }

    async fn remove(&self, keys: Vec<Vec<u8>>) -> Result<(), Failure> {
        let remove = |key| Change::Remove { table: Table::Rollups, key };
        Ok(self.ledger.submit(keys.into_iter().map(remove).collect()).await?)
    }

    /// Removes cells that are past their time, once an hour.
    async fn sweep(&mut self) -> Result<(), Failure> {
        let now = self.clock.now();
        let hour = Resolution::Hour.bucket(now.as_millis());
        if self.swept == hour {
            return Ok(());
        }
        for resolution in Resolution::ALL {
            let Some(kept) = resolution.kept_ms() else { continue };
            let oldest = resolution.bucket(now.as_millis().saturating_sub(kept));
            self.sweep_range(vec![resolution.byte()], oldest).await?;
            self.sweep_range(vec![b'#', resolution.byte()], oldest).await?;
        }
        self.swept = hour;
        Ok(())
    }

    /// Jumps from one scope and split to the next: cells that stay are not read but for the first of each.
    async fn sweep_range(&self, prefix: Vec<u8>, oldest: u32) -> Result<(), Failure> {
        let skip = prefix.len() - 1;
        let mut after = None;
        loop {
            let found = self.reader.table_scan(Table::Rollups, prefix.clone(), after.take(), CELLS / 4).await?;
            let mut old = Vec::new();
            for (key, _) in &found {
                let head = head_len(&key[skip..]).map(|len| skip + len);
                let bucket = head.and_then(|at| Some(u32::from_be_bytes(*key.get(at..)?.first_chunk()?)));
                match (head, bucket) {
                    (Some(head), Some(bucket)) if bucket >= oldest => {
                        // Nothing after it in this range is old.
                        after = Some([&key[..head], &[0xff; 5]].concat());
                        break;
                    }
                    (_, Some(_)) => old.push(key.to_vec()),
                    // What is no cell is left alone.
                    (_, None) => {}
                }
            }
            if after.is_none() {
                after = found.last().map(|(key, _)| key.to_vec());
            }
            if !old.is_empty() {
                self.remove(old).await?;
            }
            if after.is_none() {
                return Ok(());
            }
        }
    }
}

/// When a bucket begins.
pub(super) fn begins(resolution: Resolution, bucket: u32) -> Timestamp {
    Timestamp::from_millis(u64::from(bucket) * resolution.ms())
}
