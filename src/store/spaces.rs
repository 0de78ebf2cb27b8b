//! The keyspaces: which there are, how each is set up, and the days of the event log.
//!
//! A keyspace's options are frozen when it is made: a change of layout is a new keyspace and a resumable copy.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use fjall::config::CompressionPolicy;
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions};

use super::{Table, keys};
use crate::types::EventSeq;

/// What journals may take before the memtables that pin the oldest are flushed. It bounds the replay at a start.
const JOURNALS_BYTES_MAX: u64 = 128 << 20;

/// Values larger than this lie apart from their keys, so that a compaction of the keys does not move bodies.
const SEPARATE_BYTES: u32 = 1 << 10;

const MEMTABLE_CONTENT: u64 = 32 << 20;
/// Keys come in about their order, so that the path to where they go stays in the processor's cache.
const MEMTABLE_ORDERED: u64 = 16 << 20;
/// Keys come in no order: what a memtable has beyond the cache costs a miss a step.
const MEMTABLE_SCATTERED: u64 = 4 << 20;

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
    /// The days of the event log, oldest first.
    pub(super) days: ArcSwap<Vec<Arc<Day>>>,
    /// The lock of the data folder, held as long as anything of the database is.
    pub(super) lock: Option<std::fs::File>,
}

/// One UTC day of the event log.
pub(super) struct Day {
    /// Since 1970-01-01.
    pub(super) number: u32,
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
        let days = ArcSwap::default();
        let spaces = Self { db, content, queue, queues, state, rows, sent, contacts, suppressions, days, lock: None };
        spaces.find_days()?;
        Ok(spaces)
    }

    fn find_days(&self) -> fjall::Result<()> {
        let names = self.db.list_keyspace_names();
        let mut numbers: Vec<u32> =
            names.iter().filter_map(|name| name.strip_prefix("events.")?.parse().ok()).collect();
        numbers.sort_unstable();
        let mut days = Vec::with_capacity(numbers.len());
        for number in numbers {
            let (events, trace) = self.day_spaces(number)?;
            let first = match events.first_key_value() {
                Some(guard) => keys::parse_event(&guard.key()?).unwrap_or_default(),
                // A day without events: it ends where it begins, and no reader looks into it.
                None => EventSeq(u64::MAX),
            };
            days.push(Arc::new(Day { number, first, events, trace }));
        }
        self.days.store(Arc::new(days));
        Ok(())
    }

    fn day_spaces(&self, number: u32) -> fjall::Result<(Keyspace, Keyspace)> {
        let (events, trace) = (format!("events.{number}"), format!("trace.{number}"));
        let events = self.db.keyspace(&events, || options_of(&events))?;
        let trace = self.db.keyspace(&trace, || options_of(&trace))?;
        Ok((events, trace))
    }

    /// The day of the log that is written now: `number`, or the newest there is, whatever the clock says. `first` is the
    /// next event's sequence, for a day that begins.
    pub(super) fn day(&self, number: u32, first: EventSeq) -> fjall::Result<Arc<Day>> {
        let days = self.days.load_full();
        if let Some(newest) = days.last()
            && newest.number >= number
        {
            // A day that was made and not written to before a restart begins with the next event.
            if newest.first != EventSeq(u64::MAX) {
                return Ok(newest.clone());
            }
        }
        let number = days.last().map_or(number, |newest| newest.number.max(number));
        let (events, trace) = self.day_spaces(number)?;
        let day = Arc::new(Day { number, first, events, trace });
        let mut longer: Vec<_> = days.iter().filter(|d| d.number != number).cloned().collect();
        longer.push(day.clone());
        self.days.store(Arc::new(longer));
        Ok(day)
    }

    /// Drops the days before `oldest`, whole; answers how many. The newest day stays.
    pub(super) fn drop_days_before(&self, oldest: u32) -> fjall::Result<usize> {
        let days = self.days.load_full();
        let keep_from = days.iter().position(|d| d.number >= oldest).unwrap_or(days.len().saturating_sub(1));
        if keep_from == 0 {
            return Ok(0);
        }
        // Readers see them gone first; who still holds one keeps its files until it is done.
        self.days.store(Arc::new(days[keep_from..].to_vec()));
        for day in &days[..keep_from] {
            self.db.delete_keyspace(day.events.clone())?;
            self.db.delete_keyspace(day.trace.clone())?;
        }
        Ok(keep_from)
    }

    /// The keyspace of a table.
    pub(super) fn table(&self, table: Table) -> &Keyspace {
        match table {
            Table::Contacts => &self.contacts,
            Table::Suppressions => &self.suppressions,
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
        ];
        let mut all: Vec<_> = fixed.into_iter().map(|(name, space)| (name.to_owned(), space.clone())).collect();
        for day in self.days.load().iter() {
            all.push((format!("events.{}", day.number), day.events.clone()));
            all.push((format!("trace.{}", day.number), day.trace.clone()));
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
        "queue" | "queues" | "state" | "sent" | "contacts" | "suppressions" => Kind::Scattered,
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
        Kind::Ordered | Kind::Rows => base.max_memtable_size(MEMTABLE_ORDERED),
        Kind::Scattered => base.max_memtable_size(MEMTABLE_SCATTERED),
    }
}
