//! Backup while the daemon runs: a copy of one moment, which a daemon can be started on.
//!
//! 1. A snapshot of all keyspaces is taken: what is accepted later is not in the copy, what is settled later still is;
//! 2. each is copied, sorted, into a new database in `<target>/store.partial`;
//! 3. that is synced, closed, and renamed to `<target>/store`: a copy that was broken off can't be taken for a whole one.
//!
//! To restore, put `store` into an empty data folder and start: mail that was delivered after the backup is sent again.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fjall::{CompressionType, Database, Keyspace, PersistMode, Readable, Snapshot};

use super::open::DATABASE_FOLDER;
use super::spaces::{Spaces, options_of};
use super::status::Shared;

/// How often the progress is told.
const PROGRESS_EVERY: u64 = 4 << 20;

/// The store, for backups; cheap to clone. It keeps the database open.
#[derive(Clone)]
pub struct Store {
    spaces: Arc<Spaces>,
    shared: Arc<Shared>,
}

/// How far a backup is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BackupProgress {
    /// Records copied.
    pub records: u64,
    /// Octets of their keys and values.
    pub bytes: u64,
    /// Octets that the store takes on disk: about what there is to copy, more while dead records wait for compaction.
    pub of_bytes: u64,
}

/// What was copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BackupReport {
    /// Records.
    pub records: u64,
    /// Octets of their keys and values.
    pub bytes: u64,
    /// How long it took.
    pub took: Duration,
}

/// Why a backup was not made.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The target already holds a store.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// The target can't be written.
    #[error("{}: {error}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The store can't be read, or the copy can't be written.
    #[error("the copy failed: {0}")]
    Copy(#[from] fjall::Error),
}

impl Store {
    pub(super) fn new(spaces: Arc<Spaces>, shared: Arc<Shared>) -> Self {
        Self { spaces, shared }
    }

    /// Octets free on its file system, as of the guard's last look, a quarter of a second ago; `None` before its first.
    pub fn free_bytes(&self) -> Option<u64> {
        self.shared.free_bytes()
    }

    #[cfg(test)]
    pub(super) fn spaces(&self) -> &Spaces {
        &self.spaces
    }

    /// Copies the store into `target/store` while it is in use. Blocking: for a thread that may block. `progress` is called
    /// every few megabytes; when it answers `false`, the copy is broken off and what there is of it removed.
    ///
    /// A target on the same file system takes the store's size again; look at the free space before.
    pub fn backup(
        &self,
        target: &Path,
        mut progress: impl FnMut(BackupProgress) -> bool,
    ) -> Result<Option<BackupReport>, BackupError> {
        let began = Instant::now();
        let (whole, partial) = (target.join(DATABASE_FOLDER), target.join("store.partial"));
        if whole.exists() {
            return Err(BackupError::Exists(whole));
        }
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error| BackupError::Folder { path, error }
        };
        if partial.exists() {
            std::fs::remove_dir_all(&partial).map_err(at(&partial))?;
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&partial).map_err(at(&partial))?;
        let Some(copied) = self.copy(&partial, &mut progress)? else {
            std::fs::remove_dir_all(&partial).map_err(at(&partial))?;
            return Ok(None);
        };
        std::fs::rename(&partial, &whole).map_err(at(&whole))?;
        File::open(target).and_then(|folder| folder.sync_all()).map_err(at(target))?;
        Ok(Some(BackupReport { records: copied.records, bytes: copied.bytes, took: began.elapsed() }))
    }

    fn copy(
        &self,
        folder: &Path,
        progress: &mut impl FnMut(BackupProgress) -> bool,
    ) -> Result<Option<BackupProgress>, BackupError> {
        // The keyspaces before the snapshot: a day that comes later has nothing in it that the snapshot could see.
        let spaces = self.spaces.all();
        let snapshot = self.spaces.db.snapshot();
        let db = Database::builder(folder)
            .worker_threads(1)
            .journal_compression(CompressionType::None)
            .manual_journal_persist(true)
            .open()?;
        let mut done = BackupProgress { of_bytes: self.spaces.db.disk_space()?, ..BackupProgress::default() };
        for (name, from) in spaces {
            let to = db.keyspace(&name, || options_of(&name))?;
            if !copy_space(&snapshot, &from, &to, &mut done, progress)? {
                return Ok(None);
            }
        }
        db.persist(PersistMode::SyncAll)?;
        Ok(Some(done))
    }
}

/// Copies one keyspace in order of key, past journal and memtable. Answers whether to go on.
fn copy_space(
    snapshot: &Snapshot,
    from: &Keyspace,
    to: &Keyspace,
    done: &mut BackupProgress,
    progress: &mut impl FnMut(BackupProgress) -> bool,
) -> fjall::Result<bool> {
    let mut ingestion = to.start_ingestion()?;
    let mut told = done.bytes;
    for guard in snapshot.iter(from) {
        let (key, value) = guard.into_inner()?;
        done.records += 1;
        done.bytes += (key.len() + value.len()) as u64;
        ingestion.write(key, value)?;
        if done.bytes - told >= PROGRESS_EVERY {
            told = done.bytes;
            if !progress(*done) {
                return Ok(false);
            }
        }
    }
    ingestion.finish()?;
    Ok(true)
}

#[cfg(test)]
mod tests;
