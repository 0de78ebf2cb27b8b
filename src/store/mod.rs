//! The store: one fjall database, one writer.
//!
//! 1. An engine hands the ledger a set of [`Change`]s ([`NewMessage`], [`Settle`], an event, a record of state),
//! 2. the ledger thread takes all that has queued up, numbers the events, writes one atomic batch and syncs it once,
//! 3. then wakes all who waited, and tells the egress side what is newly queued and what is settled ([`News`]).
//!
//! Success means: on disk, fsynced (with `durability = "fsync"`). Only this module names fjall.

mod backup;
mod codec;
mod guard;
mod handle;
mod house;
mod keys;
mod ledger;
mod model;
#[cfg(test)]
mod once_tests;
mod open;
mod outbox;
#[cfg(test)]
mod random_tests;
mod reading;
mod records;
#[cfg(test)]
mod row_random_tests;
mod row_records;
#[cfg(test)]
mod row_tests;
mod spaces;
mod status;
mod steps;
mod table;
#[cfg(test)]
mod testing;
mod work;

pub use backup::{BackupError, BackupProgress, BackupReport, Store};
pub use codec::DecodeError;
pub use guard::{Space, SpaceProbe};
pub use handle::{
    EventGap, EventsPage, Ledger, LedgerRequest, LedgerRequests, LogPage, ReadError, ReadReply, ReadRequest, Reader,
    Refill, SUBMIT_BYTES_MAX, SUBMITS_MAX, StateRecord, SubmitError,
};
pub use keys::address_hash;
pub use model::{
    Change, EntryKey, Envelope, EnvelopeRecipient, NewDelivery, NewMessage, NewRow, NewRows, News, Next, QueueEntry,
    QueueRow, QueueRows, Row, Run, RunChange, RunCounts, Sent, SentStatus, Settle, Settled, StoredMessage, TALLY_MAX,
    Table, Via,
};
pub use open::{Cut, FORMAT, OpenError, OpenReport, Opened, StoreOptions, StoreThreads, open};
pub use status::StoreStatus;
