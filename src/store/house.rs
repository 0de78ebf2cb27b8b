//! What the ledger does beside its commits.
//!
//! - Each second it leaves a mark of its last commit in a file beside the database, so that a start sees when the
//!   journal was cut: the database itself opens with what is left of a damaged journal and says nothing.
//! - Each minute it drops days of events that are past the retention (by a clock that the log vouches for, or that has run for a day: see
//!   [`House::today`]), finds records of state that have expired, and flushes
//!   keyspaces that are written seldom: their memtables would pin journals for ever.

use std::fs::{File, OpenOptions, Permissions};
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use fjall::Keyspace;

use super::keys;
use super::records::Last;
use super::spaces::Spaces;
use super::status::Shared;
use crate::types::{EventSeq, Timestamp};

/// How often the seldom work is done.
const SELDOM: Duration = Duration::from_secs(60);

/// The most expired records that are removed at a time; the rest waits for the next minute.
const EXPIRED_MAX: usize = 2_000;

/// After so long a clock is believed that is far ahead of the log.
const BELIEVED_AFTER: Duration = Duration::from_secs(24 * 3_600);

/// The house's things.
pub(super) struct House {
    mark: Mark,
    marked: u64,
    retention_days: u32,
    next_seldom: Instant,
    started: Timestamp,
    /// The newest day that the log vouched for at the start.
    believed: Option<u32>,
    expire_now: bool,
    /// The commit at the last look, and whether all was flushed since.
    idle_at: u64,
    flushed_at: u64,
    last_commit: u64,
}

impl House {
    pub(super) fn new(mark: Mark, retention_days: u32, believed: Option<u32>, now: Timestamp) -> Self {
        Self {
            mark,
            marked: 0,
            retention_days,
            next_seldom: Instant::now() + SELDOM,
            started: now,
            believed,
            expire_now: false,
            idle_at: 0,
            flushed_at: 0,
            last_commit: 0,
        }
    }

    /// Leaves the mark, as far as it has changed.
    pub(super) fn mark(&mut self, last: Last) {
        self.last_commit = last.commit;
        if self.marked != last.commit {
            self.marked = last.commit;
            self.mark.write(last);
        }
    }

    /// Does the seldom work when it is due.
    pub(super) fn tick(&mut self, spaces: &Spaces, shared: &Shared, now: Timestamp) -> fjall::Result<()> {
        if Instant::now() < self.next_seldom {
            return Ok(());
        }
        self.next_seldom = Instant::now() + SELDOM;
        self.expire_now = true;
        let dropped = self.drop_days(spaces, now)?;
        if dropped > 0 {
            tracing::info!(days = dropped, "dropped events past the retention");
        }
        let journals = spaces.db.journal_count();
        shared.metrics.journals.set(journals as i64);
        shared.metrics.disk_bytes.set(i64::try_from(spaces.db.disk_space()?).unwrap_or(i64::MAX));
        self.unpin(spaces, journals)
    }

    /// Drops the days past the retention; answers how many.
    pub(super) fn drop_days(&self, spaces: &Spaces, now: Timestamp) -> fjall::Result<usize> {
        let today = self.today(now);
        spaces.drop_days_before(today.saturating_sub(self.retention_days), today)
    }

    /// The day that retention counts from. A daemon that was started under a clock weeks ahead would drop the whole log within a minute: for
    /// a day it counts from where the log ends. After a long downtime that keeps events a day longer, no more.
    fn today(&self, now: Timestamp) -> u32 {
        match self.believed {
            Some(believed) if now.since(self.started) < BELIEVED_AFTER => now.day().min(believed.saturating_add(1)),
            _ => now.day(),
        }
    }

    pub(super) fn unpin(&mut self, spaces: &Spaces, journals: usize) -> fjall::Result<()> {
        let idle = self.idle_at == self.last_commit;
        self.idle_at = self.last_commit;
        if idle {
            // Nothing was written for a minute: flush everything once, and what is dead is given back.
            if self.flushed_at != self.last_commit {
                self.flushed_at = self.last_commit;
                flush(spaces.all().iter().map(|(_, space)| space))?;
            }
        } else if journals > 1 {
            let days = spaces.days.load();
            let old = days.iter().rev().skip(1).flat_map(|day| [&day.events, &day.trace]);
            let seldom = [&spaces.queues, &spaces.state, &spaces.rows, &spaces.sent, &spaces.contacts];
            flush(seldom.into_iter().chain([&spaces.suppressions, &spaces.rollups]).chain(old))?;
        }
        Ok(())
    }

    /// The keys of records that have expired, and of what says so; a bounded number, once a minute.
    pub(super) fn expired(&mut self, spaces: &Spaces, now: Timestamp) -> fjall::Result<Vec<Vec<u8>>> {
        if !std::mem::take(&mut self.expire_now) {
            return Ok(Vec::new());
        }
        expired(spaces, now)
    }
}

pub(super) fn expired(spaces: &Spaces, now: Timestamp) -> fjall::Result<Vec<Vec<u8>>> {
    let mut expired = Vec::new();
    for guard in spaces.state.prefix(keys::STATE_EXPIRY).take(EXPIRED_MAX) {
        let key = guard.key()?;
        match keys::parse_expiry(&key) {
            Some((at, _)) if at > now => break,
            Some((_, record)) if !is_renewed(spaces, record, now)? => expired.push(record.to_vec()),
            Some(_) | None => {}
        }
        expired.push(key.to_vec());
    }
    Ok(expired)
}

/// Whether a record that says itself how long it lasts was written again since: then a later expiry speaks of it.
fn is_renewed(spaces: &Spaces, record: &[u8], now: Timestamp) -> fjall::Result<bool> {
    if !record.starts_with(keys::STATE_ONCE) && !record.starts_with(keys::STATE_TALLY) {
        return Ok(false);
    }
    let until = spaces.state.get(record)?.and_then(|value| value.first_chunk().map(|at| u64::from_be_bytes(*at)));
    Ok(until.is_some_and(|until| until > now.as_millis()))
}

fn flush<'a>(spaces: impl Iterator<Item = &'a Keyspace>) -> fjall::Result<()> {
    for space in spaces {
        space.rotate_memtable()?;
    }
    Ok(())
}

/// The file that says which commit was the last.
///
/// It is written after the sync of that commit and never synced itself: it may lag, it never leads. So a database that
/// knows less than the mark has lost something.
pub(super) struct Mark(Option<File>);

impl Mark {
    /// Opens or makes the file; answers what it says, if it says anything.
    pub(super) fn open(path: &Path) -> std::io::Result<(Self, Option<Last>)> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        // One that was made before has the mode of its time.
        file.set_permissions(Permissions::from_mode(0o600))?;
        let mut text = String::new();
        // What is not readable was torn by a crash of the machine: then there is nothing to compare with.
        let _ = file.read_to_string(&mut text);
        let mut numbers = text.split_whitespace().map(str::parse::<u64>);
        let last = match (numbers.next(), numbers.next()) {
            (Some(Ok(commit)), Some(Ok(seq))) => Some(Last { commit, seq: EventSeq(seq), next_queue: 0 }),
            _ => None,
        };
        Ok((Self(Some(file)), last))
    }

    pub(super) fn write(&mut self, last: Last) {
        let Some(file) = &self.0 else { return };
        let text = format!("{:020} {:020}\n", last.commit, last.seq.0);
        if let Err(error) = file.write_all_at(text.as_bytes(), 0) {
            tracing::warn!(%error, "the mark of the last commit can't be written, a cut journal would go unseen");
            self.0 = None;
        }
    }
}
