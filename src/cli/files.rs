//! Making files and folders that may hold secrets.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use anyhow::Context;

/// The mode of a file that holds a secret: its owner's alone.
pub(super) const SECRET: u32 = 0o600;

/// Makes a folder and those above it where they are missing, closed to the world.
pub(super) fn make_folder(dir: &Path) -> anyhow::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let made = DirBuilder::new().recursive(true).mode(0o750).create(dir);
    made.with_context(|| format!("can't make the folder {}", dir.display()))
}

/// Writes a file that must not be there yet, with its mode from the start; success means: on disk.
pub(super) fn write_new(path: &Path, mode: u32, text: &str) -> anyhow::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = file.with_context(|| format!("can't make {}", path.display()))?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.with_context(|| format!("can't write {}", path.display()))
}
