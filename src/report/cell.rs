//! A cell: what was counted of something in a time.
//!
//! On disk it is a version, the counters that are not 0, the classes, the times and the reply; numbers are LEB128.

use std::collections::BTreeMap;

use super::times::Times;

/// The version of a cell that this program writes and reads.
const VERSION: u8 = 1;

/// The most classes of a cell; the rest counts as `other`.
const CLASSES_MAX: usize = 48;

/// What is counted of events.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Counter {
    /// Recipients that were accepted.
    Accepted,
    /// Recipients that were refused at intake.
    Rejected,
    /// Taken by the remote.
    Delivered,
    /// Attempts that failed for now.
    Deferred,
    /// Refused for good by the remote in the session.
    Bounced,
    /// Reported as bounced by a mail, after the remote had taken it: these stand among the delivered too.
    LateBounced,
    /// Reported as delayed by a mail.
    LateDeferred,
    /// Given up by us.
    Failed,
    /// Given up: too old.
    Expired,
    /// Not sent: suppressed.
    Suppressed,
    /// Not sent: the content could not be made.
    RenderingFailed,
    /// Not sent: taken out by a cancel or an operator.
    Cancelled,
    /// Complaints.
    Complained,
    /// Opens.
    Opened,
    /// Clicks.
    Clicked,
    /// Unsubscribes.
    Unsubscribed,
    /// Answers of machines.
    AutoReplied,
}

impl Counter {
    /// How many there are.
    pub const COUNT: usize = Counter::AutoReplied as usize + 1;
}

/// Bounces and deferrals of one class.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Class {
    /// Bounced in the session.
    pub bounced: u64,
    /// Bounced later, by mail.
    pub late: u64,
    /// Deferred attempts.
    pub deferred: u64,
}

/// A group of replies that are alike.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reply {
    /// What they led to: `deferred`, `bounced` …
    pub event: Box<str>,
    /// The code; 0 where there was no reply.
    pub code: u16,
    /// The enhanced code.
    pub enhanced: Box<str>,
    /// What they have in common: numbers, ids and addresses masked.
    pub template: Box<str>,
    /// The first one, addresses masked.
    pub example: Box<str>,
    /// The source that got the example.
    pub source: Box<str>,
    /// Its class.
    pub category: Box<str>,
}

/// What was counted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cell {
    pub(super) counts: [u64; Counter::COUNT],
    pub(super) classes: BTreeMap<Box<str>, Class>,
    pub(super) times: Times,
    pub(super) reply: Option<Box<Reply>>,
}

impl Cell {
    /// A counter.
    pub fn get(&self, counter: Counter) -> u64 {
        self.counts[counter as usize]
    }

    /// Delivery times.
    pub fn times(&self) -> &Times {
        &self.times
    }

    /// Bounces and deferrals by class.
    pub fn classes(&self) -> &BTreeMap<Box<str>, Class> {
        &self.classes
    }

    /// The group of replies, in a cell of [`super::Split::Reply`].
    pub fn reply(&self) -> Option<&Reply> {
        self.reply.as_deref()
    }

    pub(super) fn add(&mut self, counter: Counter, by: u64) {
        self.counts[counter as usize] += by;
    }

    pub(super) fn class(&mut self, name: &str) -> &mut Class {
        let name = if self.classes.len() >= CLASSES_MAX && !self.classes.contains_key(name) { "other" } else { name };
        self.classes.entry(name.into()).or_default()
    }

    /// Adds all of another. Of two examples the first stays.
    pub fn merge(&mut self, other: &Cell) {
        for (mine, its) in self.counts.iter_mut().zip(&other.counts) {
            *mine += its;
        }
        for (name, its) in &other.classes {
            let mine = self.class(name);
            mine.bounced += its.bounced;
            mine.late += its.late;
            mine.deferred += its.deferred;
        }
        self.times.merge(&other.times);
        if self.reply.is_none() {
            self.reply.clone_from(&other.reply);
        }
    }

    /// As it is stored.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_number(&mut out, self.counts.iter().filter(|n| **n > 0).count() as u64);
        for (i, count) in self.counts.iter().enumerate().filter(|(_, n)| **n > 0) {
            put_number(&mut out, i as u64);
            put_number(&mut out, *count);
        }
        put_number(&mut out, self.classes.len() as u64);
        for (name, class) in &self.classes {
            put_text(&mut out, name);
            [class.bounced, class.late, class.deferred].iter().for_each(|n| put_number(&mut out, *n));
        }
        self.times.encode(&mut out);
        let Some(reply) = &self.reply else {
            out.push(0);
            return out;
        };
        out.push(1);
        put_number(&mut out, u64::from(reply.code));
        for text in [&reply.event, &reply.enhanced, &reply.template, &reply.example, &reply.source, &reply.category] {
            put_text(&mut out, text);
        }
        out
    }

    /// From what is stored; `None` when that is not readable.
    pub(super) fn decode(octets: &[u8]) -> Option<Self> {
        let mut from = Octets(octets);
        let mut cell = Self::default();
        if from.number()? != u64::from(VERSION) {
            return None;
        }
        for _ in 0..from.number()? {
            let at = usize::try_from(from.number()?).ok()?;
            *cell.counts.get_mut(at)? = from.number()?;
        }
        for _ in 0..from.number()? {
            let name = from.text()?;
            let class = Class { bounced: from.number()?, late: from.number()?, deferred: from.number()? };
            cell.classes.insert(name, class);
        }
        cell.times = Times::decode(&mut from)?;
        if from.number()? == 1 {
            cell.reply = Some(Box::new(Reply {
                code: u16::try_from(from.number()?).ok()?,
                event: from.text()?,
                enhanced: from.text()?,
                template: from.text()?,
                example: from.text()?,
                source: from.text()?,
                category: from.text()?,
            }));
        }
        from.0.is_empty().then_some(cell)
    }
}

pub(super) fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_number(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Octets that are read from the front, without trust.
pub(super) struct Octets<'a>(pub(super) &'a [u8]);

impl Octets<'_> {
    pub(super) fn number(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn text(&mut self) -> Option<Box<str>> {
        let len = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(std::str::from_utf8(text).ok()?.into())
    }
}
