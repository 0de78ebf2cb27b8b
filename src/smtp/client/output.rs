//! What is to be written: commands in one buffer, bodies by reference, in order.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;

/// Once so many octets of commands are written, the buffer is moved together.
const COMPACT_AT: usize = 16 << 10;

/// Octets to be written, in order. Commands are copied into one buffer that is used again; bodies never are copied.
#[derive(Debug, Default)]
pub struct Output {
    text: Vec<u8>,
    segments: VecDeque<Segment>,
    written: u64,
    queued: u64,
}

#[derive(Debug)]
enum Segment {
    Text { start: usize, end: usize },
    Body(Bytes),
}

impl Output {
    /// Whether all is written.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Octets written since the beginning of the session.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Octets queued since the beginning of the session: the place at which the next one will stand.
    pub fn queued(&self) -> u64 {
        self.queued
    }

    /// Fills in slices to be written by one vectored write; how many.
    pub fn fill<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut n = 0;
        for (slot, segment) in slices.iter_mut().zip(&self.segments) {
            *slot = match segment {
                Segment::Text { start, end } => IoSlice::new(&self.text[*start..*end]),
                Segment::Body(bytes) => IoSlice::new(bytes),
            };
            n += 1;
        }
        n
    }

    /// So many octets were written.
    pub fn advance(&mut self, mut n: usize) {
        self.written += n as u64;
        while n > 0 {
            let Some(front) = self.segments.front_mut() else { return };
            let len = match front {
                Segment::Text { start, end } => *end - *start,
                Segment::Body(bytes) => bytes.len(),
            };
            if n >= len {
                n -= len;
                self.segments.pop_front();
                continue;
            }
            match front {
                Segment::Text { start, .. } => *start += n,
                Segment::Body(bytes) => {
                    let _ = bytes.split_to(n);
                }
            }
            n = 0;
        }
        if self.segments.is_empty() {
            self.text.clear();
        } else {
            self.compact();
        }
    }

    /// Everything that is queued, as one buffer: for tests.
    pub fn drain_to_vec(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        for segment in &self.segments {
            match segment {
                Segment::Text { start, end } => all.extend_from_slice(&self.text[*start..*end]),
                Segment::Body(bytes) => all.extend_from_slice(bytes),
            }
        }
        self.advance(all.len());
        all
    }

    /// Appends by `write` to the buffer of commands; what it wrote is given back for the trace.
    pub(super) fn command(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        let start = self.text.len();
        write(&mut self.text);
        let end = self.text.len();
        self.queued += (end - start) as u64;
        match self.segments.back_mut() {
            Some(Segment::Text { end: last, .. }) if *last == start => *last = end,
            _ if end > start => self.segments.push_back(Segment::Text { start, end }),
            _ => {}
        }
        &self.text[start..end]
    }

    /// Appends octets to the buffer of commands.
    pub(super) fn text(&mut self, bytes: &[u8]) {
        self.command(|out| out.extend_from_slice(bytes));
    }

    /// Appends a body by reference.
    pub(super) fn body(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.queued += bytes.len() as u64;
            self.segments.push_back(Segment::Body(bytes));
        }
    }

    /// Forgets what was not written: the session ends in the middle of something.
    pub(super) fn discard(&mut self) {
        self.segments.clear();
        self.text.clear();
        self.queued = self.written;
    }

    fn compact(&mut self) {
        let first = self.segments.iter().find_map(|s| match s {
            Segment::Text { start, .. } => Some(*start),
            Segment::Body(_) => None,
        });
        let first = first.unwrap_or(self.text.len());
        if first < COMPACT_AT {
            return;
        }
        self.text.drain(..first);
        for segment in &mut self.segments {
            if let Segment::Text { start, end } = segment {
                *start -= first;
                *end -= first;
            }
        }
    }
}
