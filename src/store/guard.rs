//! The guard thread: looks four times a second how much space is left, and whether a commit hangs.
//!
//! It is a thread of its own, since both looks are about a disk that may not answer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::status::Shared;

/// How often it looks. A disk takes at most a gigabyte or so between two looks: `storage.min_free` is to be above that.
const LOOK: Duration = Duration::from_millis(250);

/// A commit that takes longer hangs for good: the database waits for a worker that never comes.
const COMMIT_MILLIS_MAX: u64 = 30_000;

/// Fewer inodes than this are too few: a journal and a dozen tables may be made at any moment.
const INODES_MIN: u64 = 1_000;

/// The space of a file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// Octets that an unprivileged process may still write.
    pub free: u64,
    /// Octets in all.
    pub total: u64,
    /// Inodes free; meaningless where `inodes` is 0.
    pub inodes_free: u64,
    /// Inodes in all; 0 where the file system does not count them.
    pub inodes: u64,
}

/// Where the guard learns of the space: the file system, or a test.
#[derive(Clone)]
pub enum SpaceProbe {
    /// `statvfs` of this folder.
    FileSystem(PathBuf),
    /// Whatever this says.
    Given(Arc<dyn Fn() -> Space + Send + Sync>),
}

impl SpaceProbe {
    /// Looks.
    pub fn look(&self) -> std::io::Result<Space> {
        match self {
            SpaceProbe::FileSystem(folder) => file_system(folder),
            SpaceProbe::Given(given) => Ok(given()),
        }
    }
}

fn file_system(folder: &Path) -> std::io::Result<Space> {
    let stat = rustix::fs::statvfs(folder)?;
    Ok(Space {
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
        total: stat.f_blocks.saturating_mul(stat.f_frsize),
        inodes_free: stat.f_favail,
        inodes: stat.f_files,
    })
}

/// Whether there is too little. What was low stays so until a sixteenth more than the limit is free: no flapping.
pub(super) fn is_low(space: Space, min_free: u64, was_low: bool) -> bool {
    let limit = if was_low { min_free.saturating_add(min_free / 16) } else { min_free };
    space.free < limit || (space.inodes > 0 && space.inodes_free < INODES_MIN)
}

/// Looks until the other end of `stop` is dropped.
pub(super) fn run(probe: &SpaceProbe, shared: &Shared, min_free: u64, stop: &Receiver<()>) {
    let mut low = look(probe, shared, min_free, false);
    while stop.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
        low = look(probe, shared, min_free, low);
        if shared.commit_millis() > COMMIT_MILLIS_MAX {
            shared.fail("a commit has been hanging for 30 seconds");
        }
    }
}

/// Looks once and tells the rest of the store.
pub(super) fn look(probe: &SpaceProbe, shared: &Shared, min_free: u64, was_low: bool) -> bool {
    match probe.look() {
        Ok(space) => {
            let low = is_low(space, min_free, was_low);
            shared.set_free(space.free, low);
            low
        }
        Err(error) => {
            tracing::warn!(%error, "can't tell how much disk space is left");
            was_low
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(free: u64, inodes_free: u64, inodes: u64) -> Space {
        Space { free, total: 1 << 40, inodes_free, inodes }
    }

    #[test]
    fn low_is_low_until_a_sixteenth_more_is_free() {
        assert!(!is_low(space(1_600, 5_000, 9_000), 1_600, false));
        assert!(is_low(space(1_599, 5_000, 9_000), 1_600, false));
        assert!(is_low(space(1_699, 5_000, 9_000), 1_600, true));
        assert!(!is_low(space(1_700, 5_000, 9_000), 1_600, true));
    }

    #[test]
    fn inodes_run_out_too_where_they_are_counted() {
        assert!(is_low(space(u64::MAX, 999, 9_000), 1_600, false));
        assert!(!is_low(space(u64::MAX, 0, 0), 1_600, false));
    }

    #[test]
    fn the_file_system_answers() {
        let dir = tempfile::tempdir().expect("a folder");
        let space = SpaceProbe::FileSystem(dir.path().to_owned()).look().expect("it answers");
        assert!(space.free > 0 && space.free <= space.total);
    }
}
