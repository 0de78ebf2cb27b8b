//! Reports: what became of all mail, from counters that are kept as events are committed.
//!
//! 1. [`Keeper`] reads the event log behind its commits and folds each event into [`Cell`]s ([`fold`]): counts, classes of bounces, delivery
//!    times and replies, by time, by whose mail it is ([`Scope`]) and by what it is broken down ([`Split`]),
//! 2. once a second it adds what it folded to the cells on disk, in one batch with the place in the log up to which they count: so cells are
//!    exact against the log, also after a crash, which only repeats what was not written; nothing of it is on the way of a message,
//! 3. a format that this program does not know is thrown away and counted anew from the log,
//! 4. [`Reports`] reads cells, never events: a report costs what it shows, however much was sent ([`query`]),
//! 5. a report is values ([`view`]), and from these text, CSV or a page for people ([`text`], [`csv`], [`html`]).
//!
//! Cells of 5 minutes are kept for 7 days, those of an hour for 90 days, those of a day for ever.

mod cell;
pub mod csv;
mod fold;
pub mod html;
mod keeper;
mod key;
mod mask;
pub mod query;
pub mod text;
pub mod timeline;
mod times;
pub mod view;

#[cfg(test)]
mod tests;

pub use cell::{Cell, Counter};
pub use fold::Fold;
pub use keeper::Keeper;
pub use key::{Key, Resolution, Scope, Split};
pub use query::{Range, ReportError, Reports};
pub use times::Times;
