//! Writing to standard output.

use std::io::{self, Write};

/// Prints `text` and a line end; an error, such as a closed pipe, is the caller's to handle.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()
}
