//! The store: one fjall database, one writer.
//!
//! 1. An engine hands the ledger a set of [`Change`]s ([`NewMessage`], [`Settle`], an event, a record of state),
//! 2. the ledger thread takes all that has queued up, numbers the events, writes one atomic batch and syncs it once,
//! 3. then wakes all who waited, and tells the egress side what is newly queued and what is settled ([`News`]).
//!
//! Success means: on disk, fsynced (with `durability = "fsync"`). Only this module names fjall.

mod handle;
mod model;

pub use handle::{
    Ledger, LedgerRequest, LedgerRequests, ReadError, ReadRequest, Reader, Refill, SUBMIT_BYTES_MAX, SUBMITS_MAX,
    SubmitError,
};
pub use model::{
    Change, EntryKey, Envelope, EnvelopeRecipient, NewDelivery, NewMessage, News, Next, QueueEntry, QueueRow, Settle,
    Settled, StoredMessage, Via,
};
