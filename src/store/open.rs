//! Opening the store.
//!
//! 1. the folder (0700) and its lock: two daemons never share one,
//! 2. the database replays its journal; the format must be one that this program knows,
//! 3. what the ledger knew last is compared with the event log and with the mark: a cut journal is reported,
//! 4. the rows of the queues and the runs of campaigns are read, not the backlog,
//! 5. the threads start: ledger, readers, guard.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fjall::PersistMode;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::guard::{self, SpaceProbe};
use super::house::{House, Mark};
use super::ledger::{LedgerThread, Pace, Taken};
use super::outbox::Outbox;
use super::records::{self, Last};
use super::spaces::Spaces;
use super::status::{Shared, StoreStatus};
use super::steps::Steps;
use super::table::{self, Places, QueueTable};
use super::{DecodeError, EntryKey, Ledger, News, QueueRow, Reader, Store, keys, reading, row_records};
use crate::config::{Durability, Storage};
use crate::metrics::store::StoreMetrics;
use crate::seam::clock::Clock;
use crate::types::EventSeq;

/// The format of the whole store that this program writes. An older one is migrated at the opening, a newer one refused.
pub const FORMAT: u32 = 1;

/// The folder of the database in the data folder.
pub(super) const DATABASE_FOLDER: &str = "store";

/// Commits whose news may wait for the egress side; then queues are marked dirty.
const NEWS_MAX: usize = 256;

/// Requests that may wait for the reader threads; then readers wait for room.
const READS_MAX: usize = 256;

/// Reader threads: one may be in a long scan while the other serves the scheduler.
const READERS: usize = 2;

/// Threads of the database that flush and compact. With its default of two on two cores, one of them spins.
const WORKERS: usize = 3;

/// What the store is opened with.
#[derive(Clone)]
pub struct StoreOptions {
    /// The data folder; the database lies in `store` in it.
    pub dir: PathBuf,
    /// What a commit promises.
    pub durability: Durability,
    /// Octets for cached blocks.
    pub cache: u64,
    /// How long events are kept, in whole days (UTC), at least one.
    pub event_retention: Duration,
    /// Octets free below which mail is refused.
    pub min_free: u64,
    /// Where the space is looked up.
    pub space: SpaceProbe,
    /// The clock.
    pub clock: Clock,
    /// The metrics.
    pub metrics: StoreMetrics,
    /// Commits whose news may wait for the egress side.
    pub news_max: usize,
    /// Threads of the database that flush and compact.
    pub workers: usize,
}

impl StoreOptions {
    /// The options that the config asks for.
    pub fn from_config(
        dir: &Path,
        durability: Durability,
        storage: &Storage,
        clock: Clock,
        metrics: StoreMetrics,
    ) -> Self {
        Self {
            dir: dir.to_owned(),
            durability,
            cache: storage.cache.0,
            event_retention: storage.event_retention.0,
            min_free: storage.min_free.0,
            space: SpaceProbe::FileSystem(dir.to_owned()),
            clock,
            metrics,
            news_max: NEWS_MAX,
            workers: WORKERS,
        }
    }
}

/// The store, open.
pub struct Opened {
    /// The way to the writer.
    pub ledger: Ledger,
    /// The way to the readers.
    pub reader: Reader,
    /// What happened at each commit, for the egress side.
    pub news: mpsc::Receiver<Vec<News>>,
    /// The queues that hold something.
    pub queues: Vec<QueueRow>,
    /// How the store is: the daemon watches it.
    pub status: watch::Receiver<StoreStatus>,
    /// For backups.
    pub store: Store,
    /// What was found.
    pub report: OpenReport,
    /// To wait for the end.
    pub threads: StoreThreads,
}

/// What was found at the opening.
#[derive(Clone, PartialEq, Debug)]
pub struct OpenReport {
    /// Whether it was made anew.
    pub created: bool,
    /// The last event.
    pub last: EventSeq,
    /// Something that was on disk is not there any more.
    pub cut: Option<Cut>,
    /// Queues that hold something.
    pub queues: u64,
    /// Recipients in them.
    pub recipients: u64,
    /// How long it took.
    pub took: Duration,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// Commits that are gone: the journal was damaged, or somebody put an older copy of the folder in place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// At least so many commits. 0 where only events are missing.
    pub commits: u64,
    /// At least so many events.
    pub events: u64,
}

/// Why the store can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder can't be made or used.
    #[error("{}: {error}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Another daemon has it.
    #[error("{} is in use by another posthaste{}", dir.display(), pid.map(|p| format!(" (pid {p})")).unwrap_or_default())]
    Locked {
        /// The data folder.
        dir: PathBuf,
        /// Who has it, if it said so.
        pid: Option<u32>,
    },
    /// It was written by a newer program.
    #[error("the store has format {found}, this program knows up to {FORMAT}: it was written by a newer posthaste")]
    Newer {
        /// Its format.
        found: u32,
    },
    /// A record without which mail would be lost from sight is not readable.
    #[error("the store is damaged: {what}: {error}")]
    Damaged {
        /// Which record.
        what: String,
        /// What is wrong with it.
        error: DecodeError,
    },
    /// The database can't be opened.
    #[error("the store can't be opened: {0}")]
    Database(Arc<str>),
    /// A thread can't be started.
    #[error("a thread of the store can't be started: {0}")]
    Thread(std::io::Error),
}

impl From<fjall::Error> for OpenError {
    fn from(error: fjall::Error) -> Self {
        OpenError::Database(error.to_string().into())
    }
}

/// The store's threads. They end after [`Ledger::shutdown`], and when all handles (`ledger`, `reader`, `store`) are dropped.
pub struct StoreThreads {
    ledger: JoinHandle<()>,
    others: Vec<JoinHandle<()>>,
}

impl StoreThreads {
    /// Waits for the ledger thread: all it was given is on disk then. The rest ends with the process.
    pub fn join_ledger(self) {
        // A panic in it was caught and told as a failure already.
        let _ = self.ledger.join();
    }

    /// Waits for all threads; only once all handles are dropped. Then the folder is free.
    pub fn join(self) {
        let _ = self.ledger.join();
        for thread in self.others {
            let _ = thread.join();
        }
    }
}

/// Opens the store, or makes it. Blocking: it may replay up to 128 MiB of journal.
pub fn open(options: StoreOptions) -> Result<Opened, OpenError> {
    let began = Instant::now();
    let lock = lock_folder(&options.dir)?;
    let folder = options.dir.join(DATABASE_FOLDER);
    make_folder(&folder)?;
    let mut spaces = Spaces::open(&folder, options.cache, options.workers)?;
    spaces.lock = Some(lock);
    let created = check_format(&spaces)?;
    let mark_path = options.dir.join("ledger.mark");
    let (mark, marked) = Mark::open(&mark_path).map_err(|error| OpenError::Folder { path: mark_path, error })?;
    let (last, cut) = find_last(&spaces, if created { None } else { marked })?;
    let rows = read_rows(&spaces)?;
    let steps = read_steps(&spaces)?;
    let run_of = |row: &QueueRow| row.rows.and_then(|rows| steps.run((rows.campaign, rows.step)));
    let queues: Vec<QueueRow> = rows.iter().map(|(row, _, places)| table::told(row, places, run_of(row))).collect();
    let table = QueueTable::new(rows, last.next_queue);
    let totals = table.totals();
    let report = OpenReport {
        created,
        last: last.seq,
        cut,
        queues: totals.queues,
        recipients: totals.entries,
        took: began.elapsed(),
        warnings: warnings(&options),
    };
    if let Some(Cut { commits, events }) = cut {
        tracing::error!(commits, events, "the journal was cut: what was on disk before is gone, mail may be lost");
    }
    start(options, Arc::new(spaces), mark, last, (table, steps), queues, report)
}

fn warnings(options: &StoreOptions) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Ok(space) = options.space.look()
        && space.total < options.min_free
    {
        let (min_free, total) = (options.min_free, space.total);
        warnings.push(format!("storage.min_free is {min_free} octets, the whole file system has {total}"));
    }
    warnings
}

fn start(
    options: StoreOptions,
    spaces: Arc<Spaces>,
    mark: Mark,
    last: Last,
    (table, steps): (QueueTable, Steps),
    queues: Vec<QueueRow>,
    report: OpenReport,
) -> Result<Opened, OpenError> {
    let (ledger, requests) = Ledger::channel();
    let shared = Arc::new(Shared::new(options.metrics.clone(), requests.failed.clone(), options.min_free));
    let (committed, committed_rx) = watch::channel(last.seq);
    let (reader, reads) = Reader::with_committed(READS_MAX, committed_rx);
    let (news_tx, news) = mpsc::channel(options.news_max.max(1));
    guard::look(&options.space, &shared, options.min_free, false);
    let status = shared.watch();
    let store = Store::new(spaces.clone(), shared.clone());

    let (stop_guard, stopped) = std::sync::mpsc::channel();
    let mut others = Vec::with_capacity(1 + READERS);
    let (probe, guarded, min_free) = (options.space, shared.clone(), options.min_free);
    others.push(spawn("store-guard", move || guard::run(&probe, &guarded, min_free, &stopped))?);
    let reads = Arc::new(Mutex::new(reads));
    for _ in 0..READERS {
        let (spaces, reads, metrics) = (spaces.clone(), reads.clone(), options.metrics.clone());
        others.push(spawn("store-reader", move || reading::run(&spaces, &reads, &metrics))?);
    }
    let days = options.event_retention.as_secs().div_ceil(86_400).clamp(1, 36_500) as u32;
    let house = House::new(mark, days, spaces.believed_day(), options.clock.now());
    let thread = LedgerThread {
        spaces,
        shared: shared.clone(),
        requests,
        table,
        steps,
        last,
        outbox: Outbox::new(news_tx),
        committed,
        clock: options.clock,
        mode: match options.durability {
            Durability::Fsync => PersistMode::SyncData,
            Durability::Os => PersistMode::Buffer,
        },
        house,
        taken: Taken::default(),
        pace: Pace::new(),
    };
    let ledger_thread = spawn("ledger", move || {
        let _stop_guard = stop_guard;
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| thread.run()));
        if ran.is_err() {
            shared.fail("the ledger thread panicked");
        }
    })?;
    let threads = StoreThreads { ledger: ledger_thread, others };
    Ok(Opened { ledger, reader, news, queues, status, store, report, threads })
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(OpenError::Thread)
}

/// Makes a folder that only we can look into.
fn make_folder(path: &Path) -> Result<(), OpenError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.and_then(|()| std::fs::set_permissions(path, Permissions::from_mode(0o700)))
        .map_err(|error| OpenError::Folder { path: path.to_owned(), error })
}

/// Takes the lock of the data folder. It is held by the open file, so a crash gives it back.
fn lock_folder(dir: &Path) -> Result<File, OpenError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| OpenError::Folder { path, error }
    };
    // An existing folder keeps its mode: the control socket in it may be meant for a group.
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at(dir))?;
    let path = dir.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(at(&path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            return Err(OpenError::Locked { dir: dir.to_owned(), pid: pid.trim().parse().ok() });
        }
        Err(std::fs::TryLockError::Error(error)) => return Err(at(&path)(error)),
    }
    let told = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    told.map_err(at(&path))?;
    Ok(file)
}

/// Checks the format, or writes it into a new store. Answers whether it is new.
fn check_format(spaces: &Spaces) -> Result<bool, OpenError> {
    let Some(value) = spaces.state.get(keys::STATE_FORMAT)? else {
        let mut batch = spaces.db.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&spaces.state, keys::STATE_FORMAT, records::encode_count(FORMAT));
        batch.commit()?;
        return Ok(true);
    };
    let found = records::decode_count(&value).map_err(damaged("the format"))?;
    if found > FORMAT { Err(OpenError::Newer { found }) } else { Ok(false) }
}

fn damaged(what: impl Into<String>) -> impl FnOnce(DecodeError) -> OpenError {
    let what = what.into();
    move |error| OpenError::Damaged { what, error }
}

/// What the ledger knew last, and what is gone of what it once knew.
fn find_last(spaces: &Spaces, marked: Option<Last>) -> Result<(Last, Option<Cut>), OpenError> {
    let read = |key: &[u8]| -> Result<Option<Last>, OpenError> {
        let value = spaces.state.get(key)?;
        value.map(|v| records::decode_last(&v).map_err(damaged("the last commit"))).transpose()
    };
    let known = read(keys::STATE_LAST)?.unwrap_or_default();
    // After a cut the numbers go on behind those that were given: there is no event up to this one.
    let told = read(keys::STATE_CUT)?.unwrap_or_default();
    let mut newest = EventSeq(0);
    for day in spaces.days.load().iter() {
        if let Some(guard) = day.events.last_key_value() {
            newest = newest.max(keys::parse_event(&guard.key()?).unwrap_or_default());
        }
    }
    let marked = marked.unwrap_or_default();
    let commits = marked.commit.saturating_sub(known.commit);
    let seq = known.seq.max(newest).max(marked.seq);
    // Without any event, retention may have dropped the day of the last one: that says nothing.
    let behind_log = if newest > EventSeq(0) { known.seq.0.saturating_sub(newest.max(told.seq).0) } else { 0 };
    let missing = behind_log.max(marked.seq.0.saturating_sub(known.seq.max(newest).0));
    let last = Last { commit: known.commit.max(marked.commit), seq, next_queue: known.next_queue };
    if commits == 0 && missing == 0 && newest <= known.seq {
        return Ok((last, None));
    }
    let mut batch = spaces.db.batch().durability(Some(PersistMode::SyncAll));
    batch.insert(&spaces.state, keys::STATE_CUT, records::encode_last(last));
    batch.insert(&spaces.state, keys::STATE_LAST, records::encode_last(last));
    batch.commit()?;
    Ok((last, Some(Cut { commits, events: missing })))
}

/// The steps of campaigns, and the purges that a crash broke off.
fn read_steps(spaces: &Spaces) -> Result<Steps, OpenError> {
    let mut steps = Steps::default();
    let step_of = |kind: &[u8], key: &[u8]| {
        keys::parse_step(kind, key).ok_or_else(|| damaged("a campaign's number")(DecodeError::Short))
    };
    for guard in spaces.state.prefix(keys::STATE_RUN) {
        let (key, value) = guard.into_inner()?;
        let step = step_of(keys::STATE_RUN, &key)?;
        steps.load_run(step, row_records::decode_run(&value).map_err(damaged("how a campaign is sent"))?);
    }
    for guard in spaces.state.prefix(keys::STATE_COUNTS) {
        let (key, value) = guard.into_inner()?;
        let step = step_of(keys::STATE_COUNTS, &key)?;
        steps.load_counts(step, row_records::decode_counts(&value).map_err(damaged("a campaign's counts"))?);
    }
    for guard in spaces.state.prefix(keys::STATE_PURGE) {
        let (key, value) = guard.into_inner()?;
        let campaign = keys::parse_purge(&key).ok_or_else(|| damaged("a campaign's number")(DecodeError::Short))?;
        let purge = row_records::decode_purge(&value).map_err(damaged("how far a purge is"))?;
        steps.set_purge(campaign, Some(purge));
    }
    Ok(steps)
}

/// The rows of the queues with their watermarks.
fn read_rows(spaces: &Spaces) -> Result<Vec<(QueueRow, EntryKey, Places)>, OpenError> {
    let mut rows = Vec::new();
    for guard in spaces.queues.iter() {
        let (key, value) = guard.into_inner()?;
        let id = keys::parse_queue(&key).ok_or_else(|| damaged("a queue's number")(DecodeError::Short))?;
        rows.push(records::decode_row(id, &value).map_err(damaged(format!("queue {}", id.0)))?);
    }
    Ok(rows)
}
