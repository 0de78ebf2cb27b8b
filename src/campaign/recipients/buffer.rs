//! What was read of a body and not yet understood: never more than a row and a read's worth.

use std::io::{self, Read};

use super::limits::{READ_BYTES, ROW_BYTES_MAX};

/// A window on a stream of octets.
pub(super) struct RowBuffer {
    source: Box<dyn Read>,
    octets: Vec<u8>,
    start: usize,
    end: usize,
    last: bool,
}

impl RowBuffer {
    /// Nothing is read yet.
    pub(super) fn new(source: Box<dyn Read>) -> Self {
        Self { source, octets: vec![0; ROW_BYTES_MAX + READ_BYTES], start: 0, end: 0, last: false }
    }

    /// What is there.
    pub(super) fn octets(&self) -> &[u8] {
        &self.octets[self.start..self.end]
    }

    /// Whether nothing follows what is there.
    pub(super) fn last(&self) -> bool {
        self.last
    }

    /// Passes over what was understood.
    pub(super) fn consume(&mut self, len: usize) {
        self.start = (self.start + len).min(self.end);
    }

    /// Reads more. `false`: there is nothing more, or a whole row's worth and more is there already.
    pub(super) fn fill(&mut self) -> io::Result<bool> {
        if self.last || self.end - self.start > ROW_BYTES_MAX {
            return Ok(false);
        }
        if self.octets.len() - self.end < READ_BYTES / 2 || self.start == self.end {
            self.octets.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        loop {
            match self.source.read(&mut self.octets[self.end..]) {
                Ok(0) => {
                    self.last = true;
                    return Ok(false);
                }
                Ok(len) => {
                    self.end += len;
                    return Ok(true);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}
