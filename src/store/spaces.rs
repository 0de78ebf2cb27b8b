//! The keyspaces: which there are, how each is set up, and the days of the event log.
//!
//! A keyspace's options are frozen when it is made: a change of layout is a new keyspace and a resumable copy.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use fjall::config::{BlockSizePolicy, CompressionPolicy};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions};

use super::{Table, keys};
use crate::types::EventSeq;

/// What journals may take before the memtables that pin the oldest are flushed. It bounds the replay at a start.
const JOURNALS_BYTES_MAX: u64 = 128 << 20;

/// Values larger than this lie apart from their keys, so that a compaction of the keys does not move bodies.
const SEPARATE_BYTES: u32 = 1 << 10;

const MEMTABLE_CONTENT: u64 = 32 << 20;
/// Keys come in about their order, so that the path to where they go stays in the processor's cache.
const MEMTABLE_ORDERED: u64 = 8 << 20;
/// Rows stay: what is flushed in large pieces is moved less often.
const MEMTABLE_ROWS: u64 = 16 << 20;
/// Blocks of what is read in its order, many records at a time: they compress better than small ones.
const BLOCK_SCANNED: u32 = 16 << 10;
/// Keys come in no order: what a memtable has beyond the cache costs a miss a step.
const MEMTABLE_SCATTERED: u64 = 4 << 20;

/// So many days the newest day may be ahead of the clock and is still written to.
const BEHIND_MAX: u32 = 1;
/// The most days of one number.
const RUNS_MAX: u32 = 16;
/// A day that is further ahead of the one before it is not believed at once.
const LEAP_MAX: u32 = 2;

/// The database and its keyspaces.
pub(super) struct Spaces {
    pub(super) db: Database,
    pub(super) content: Keyspace,
    pub(super) queue: Keyspace,
    pub(super) queues: Keyspace,
    pub(super) state: Keyspace,
    pub(super) rows: Keyspace,
    pub(super) sent: Keyspace,
    pub(super) contacts: Keyspace,
    pub(super) suppressions: Keyspace,
    pub(super) rollups: Keyspace,
    /// The days of the event log in the order of their events, oldest first.
    pub(super) days: ArcSwap<Vec<Arc<Day>>>,
    /// The lock of the data folder, held as long as anything of the database is.
    pub(super) lock: Option<std::fs::File>,
}

/// Which day of the log: part of its keyspaces' names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Label {
    /// Since 1970-01-01, by the clock when it began.
    pub(super) number: u32,
    /// Which one of this number: more than 0 only after the clock came back from far ahead.
    pub(super) run: u32,
}

impl Label {
    fn parse(text: &str) -> Option<Self> {
        let (number, run) = text.split_once('.').unwrap_or((text, "0"));
        Some(Self { number: number.parse().ok()?, run: run.parse().ok()? })
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.run {
            0 => write!(f, "{}", self.number),
            run => write!(f, "{}.{run}", self.number),
        }
    }
}

/// One UTC day of the event log. Where the clock jumped, numbers are out of order; sequences never are.
pub(super) struct Day {
    pub(super) label: Label,
    /// No event of this day has a lower sequence.
    pub(super) first: EventSeq,
    pub(super) events: Keyspace,
    pub(super) trace: Keyspace,
}

impl Spaces {
    /// Opens the database in `folder`, or makes it.
    pub(super) fn open(folder: &Path, cache: u64, workers: usize) -> fjall::Result<Self> {
        let db = Database::builder(folder)
            .cache_size(cache)
            .worker_threads(workers)
            .max_journaling_size(JOURNALS_BYTES_MAX)
            .journal_compression(CompressionType::None)
            // The ledger says how each batch is persisted.
            .manual_journal_persist(true)
            .open()?;
        let content = db.keyspace("content", || options_of("content"))?;
        let queue = db.keyspace("queue", || options_of("queue"))?;
        let queues = db.keyspace("queues", || options_of("queues"))?;
        let state = db.keyspace("state", || options_of("state"))?;
        let rows = db.keyspace("rows", || options_of("rows"))?;
        let sent = db.keyspace("sent", || options_of("sent"))?;
        let contacts = db.keyspace("contacts", || options_of("contacts"))?;
        let suppressions = db.keyspace("suppressions", || options_of("suppressions"))?;
        let rollups = db.keyspace("rollups", || options_of("rollups"))?;
        let days = ArcSwap::default();
        let spaces =
            Self { db, content, queue, queues, state, rows, sent, contacts, suppressions, rollups, days, lock: None };
        spaces.find_days()?;
        Ok(spaces)
    }

    fn find_days(&self) -> fjall::Result<()> {
        let names = self.db.list_keyspace_names();
        let labels = names.iter().filter_map(|name| Label::parse(name.strip_prefix("events.")?));
        let mut days = Vec::new();
        for label in labels {
            let (events, trace) = self.day_spaces(label)?;
            // One that was made and not written to is taken when its label comes again.
            if let Some(guard) = events.first_key_value() {
                let first = keys::parse_event(&guard.key()?).unwrap_or_default();
                days.push(Arc::new(Day { label, first, events, trace }));
            }
        }
        days.sort_by_key(|day| day.first);
        self.days.store(Arc::new(days));
        Ok(())
    }

    fn day_spaces(&self, label: Label) -> fjall::Result<(Keyspace, Keyspace)> {
        let (events, trace) = (format!("events.{label}"), format!("trace.{label}"));
        let events = self.db.keyspace(&events, || options_of(&events))?;
        let trace = self.db.keyspace(&trace, || options_of(&trace))?;
        Ok((events, trace))
    }

    /// The day of the log that is written now, `number` by the clock. `first` is the next event's sequence, for a day that begins.
    ///
    /// A clock that is a little before the newest day writes on in that. One that has come back from far ahead begins a day anew, so that
    /// what is written now does not stand, nor is kept, with the far day.
    pub(super) fn day(&self, number: u32, first: EventSeq) -> fjall::Result<Arc<Day>> {
        let days = self.days.load_full();
        if let Some(newest) = days.last()
            && (number..=number.saturating_add(BEHIND_MAX)).contains(&newest.label.number)
        {
            return Ok(newest.clone());
        }
        let unused = |label: &Label| days.iter().all(|day| day.label != *label);
        let label = (0..RUNS_MAX).map(|run| Label { number, run }).find(unused);
        let Some(label) = label.or(days.is_empty().then_some(Label { number, run: 0 })) else {
            // A clock that goes back and forth for ever makes no more keyspaces.
            return Ok(days[days.len() - 1].clone());
        };
        let (events, trace) = self.day_spaces(label)?;
        let day = Arc::new(Day { label, first, events, trace });
        let mut longer = days.to_vec();
        longer.push(day.clone());
        self.days.store(Arc::new(longer));
        Ok(day)
    }

    /// Drops the days that ended before the day `oldest` began, whole; answers how many. The newest day stays. `today` is what the clock says.
    ///
    /// A day ends when the next one begins: by its own number alone, what was written under a clock that ran behind (1970 before the
    /// first contact with a time server) went with the first good one. A number that lies ahead of today is known to be wrong,
    /// and what came after says when it was.
    pub(super) fn drop_days_before(&self, oldest: u32, today: u32) -> fjall::Result<usize> {
        let days = self.days.load_full();
        let mut ends = Vec::with_capacity(days.len());
        let mut after: Option<u32> = None;
        for day in days.iter().rev() {
            ends.push(after);
            let number = day.label.number;
            after = Some(after.filter(|_| number > today.saturating_add(BEHIND_MAX)).unwrap_or(number));
        }
        let over = |end: &&Option<u32>| end.is_some_and(|end| end <= oldest);
        let dropped = ends.iter().rev().take_while(over).count();
        if dropped == 0 {
            return Ok(0);
        }
        // Readers see them gone first; who still holds one keeps its files until it is done.
        self.days.store(Arc::new(days[dropped..].to_vec()));
        for day in &days[..dropped] {
            self.db.delete_keyspace(day.events.clone())?;
            self.db.delete_keyspace(day.trace.clone())?;
        }
        Ok(dropped)
    }

    /// The day up to which the log vouches for the clock, at a start: the newest day's number, unless that is far ahead of the day before it
    /// in the log. The machine was off so long, or its clock is wrong; only time tells.
    pub(super) fn believed_day(&self) -> Option<u32> {
        let days = self.days.load();
        let newest = days.last()?.label.number;
        let before = days.len().checked_sub(2).map_or(newest, |at| days[at].label.number);
        Some(if newest > before.saturating_add(LEAP_MAX) { before } else { newest })
    }

    /// The keyspace of a table.
    pub(super) fn table(&self, table: Table) -> &Keyspace {
        match table {
            Table::Contacts => &self.contacts,
            Table::Suppressions => &self.suppressions,
            Table::Rollups => &self.rollups,
        }
    }

    /// All keyspaces by name, for a copy.
    pub(super) fn all(&self) -> Vec<(String, Keyspace)> {
        let fixed = [
            ("content", &self.content),
            ("queue", &self.queue),
            ("queues", &self.queues),
            ("rows", &self.rows),
            ("sent", &self.sent),
            ("contacts", &self.contacts),
            ("suppressions", &self.suppressions),
            ("rollups", &self.rollups),
        ];
        let mut all: Vec<_> = fixed.into_iter().map(|(name, space)| (name.to_owned(), space.clone())).collect();
        for day in self.days.load().iter() {
            all.push((format!("events.{}", day.label), day.events.clone()));
            all.push((format!("trace.{}", day.label), day.trace.clone()));
        }
        all.push(("state".to_owned(), self.state.clone()));
        all
    }
}

/// How a keyspace is used.
#[derive(Clone, Copy)]
enum Kind {
    /// Bodies: large values.
    Content,
    /// Small values whose keys grow.
    Ordered,
    /// Rows of campaigns: their keys come in the order of the upload, which is none, but there are many at once.
    Rows,
    /// Small values whose keys come in no order.
    Scattered,
}

/// The options of a keyspace by its name.
pub(super) fn options_of(name: &str) -> KeyspaceCreateOptions {
    options(match name {
        "content" => Kind::Content,
        "queue" | "queues" | "state" | "sent" | "contacts" | "suppressions" | "rollups" => Kind::Scattered,
        "rows" => Kind::Rows,
        name if name.starts_with("trace.") => Kind::Scattered,
        _ => Kind::Ordered,
    })
}

fn options(kind: Kind) -> KeyspaceCreateOptions {
    let base = KeyspaceCreateOptions::default().manual_journal_persist(true);
    match kind {
        // Mail is mostly gone before its memtable is flushed: compressing it would be work for nothing.
        Kind::Content => base
            .max_memtable_size(MEMTABLE_CONTENT)
            .data_block_compression_policy(CompressionPolicy::disabled())
            .with_kv_separation(Some(
                KvSeparationOptions::default().separation_threshold(SEPARATE_BYTES).compression(CompressionType::None),
            )),
        // The database compresses from its third level on. What comes in order is never moved there, only hung in; rows are moved late.
        Kind::Ordered => packed(base).max_memtable_size(MEMTABLE_ORDERED),
        Kind::Rows => packed(base).max_memtable_size(MEMTABLE_ROWS),
        Kind::Scattered => base.max_memtable_size(MEMTABLE_SCATTERED),
    }
}

/// Compressed from the first level on: what stays, and is read by pages.
fn packed(base: KeyspaceCreateOptions) -> KeyspaceCreateOptions {
    base.data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
        .data_block_size_policy(BlockSizePolicy::all(BLOCK_SCANNED))
}

#[cfg(test)]
mod tests;
