//! What clients and peers saw: the ground truth of a run, written by nobody who is under test.

use std::cell::RefCell;
use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::types::MessageId;

/// Real milliseconds of the simulation since its start: no jump moves them.
pub(super) type Ms = u64;

/// What a client knows of one message.
#[derive(Debug)]
pub(super) struct Sent {
    pub recipients: Vec<String>,
    /// The id of the 250, with its time; `None` where it never came.
    pub acknowledged: Option<(MessageId, Ms)>,
}

/// A message that a peer took for a recipient.
#[derive(Debug)]
pub(super) struct Taken {
    pub tag: String,
    pub recipient: String,
    /// Whether the peer got rid of its 250.
    pub replied: bool,
}

/// A reply for good.
#[derive(Debug)]
pub(super) struct Refused {
    pub host: usize,
    /// One recipient; `None`: all of the transaction, or the whole session.
    pub recipient: Option<String>,
}

/// From where to where, and by which life of the process: limits hold for each source and host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Place {
    pub life: u32,
    pub source: Option<u8>,
    pub host: usize,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Line {
    pub place: Place,
    pub opened: Ms,
    pub closed: Option<Ms>,
    /// When each MAIL came.
    pub mails: Vec<Ms>,
}

/// Everything that was seen.
pub(super) struct Log {
    started: Instant,
    pub sent: RefCell<BTreeMap<String, Sent>>,
    pub taken: RefCell<Vec<Taken>>,
    pub refused: RefCell<Vec<Refused>>,
    pub lines: RefCell<Vec<Line>>,
    /// When connections were tried: those that were refused too.
    pub tries: RefCell<Vec<(Ms, Place)>>,
    /// What must never happen, seen by the world itself.
    pub faults: RefCell<Vec<String>>,
    /// All that happened, for the comparison of two runs.
    pub story: RefCell<Vec<String>>,
}

impl Log {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            sent: RefCell::default(),
            taken: RefCell::default(),
            refused: RefCell::default(),
            lines: RefCell::default(),
            tries: RefCell::default(),
            faults: RefCell::default(),
            story: RefCell::default(),
        }
    }

    pub(super) fn now(&self) -> Ms {
        self.started.elapsed().as_millis() as Ms
    }

    pub(super) fn fault(&self, what: String) {
        self.faults.borrow_mut().push(format!("{} ms: {what}", self.now()));
    }

    pub(super) fn tell(&self, what: impl FnOnce() -> String) {
        let line = format!("{} {}", self.now(), what());
        self.story.borrow_mut().push(line);
    }
}
