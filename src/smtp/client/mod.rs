//! The client's side of SMTP (RFC 5321), sans-I/O: octets go in, octets and events come out.
//!
//! 1. [`Client::new`] waits for the greeting, says EHLO (HELO where EHLO is refused), asks for STARTTLS where it may and
//!    is offered, logs in where it has credentials: [`Event::StartTls`], then [`Event::Ready`] or [`Event::Closed`],
//! 2. [`Client::send`] takes a transaction; how it is written depends on what the peer offers:
//!    - CHUNKING and PIPELINING: MAIL, RCPT and BDAT LAST at once, and the next transaction right behind it, up to a depth,
//!    - PIPELINING: MAIL, RCPT and DATA at once, and behind the data the next transaction's MAIL, RCPT and DATA,
//!    - neither: one command at a time,
//! 3. [`Event::Done`] gives a [`Verdict`] for each recipient; transactions end in the order in which they were sent,
//! 4. [`Client::quit`] ends the session; [`Client::lost`] settles what is open when the connection broke.
//!
//! The driver writes what [`Output`] holds, feeds what it reads to [`Client::input`], and asks [`Client::state`] how long
//! it may wait and what that is called. A reply is a value of bounded size; "not enough octets yet" is one too.

mod capabilities;
mod data;
mod handshake;
mod machine;
mod output;
mod reply;
mod state;
mod transaction;

#[cfg(test)]
mod tests;

pub use capabilities::Capabilities;
pub use data::{Body, BodyError, stuff_into};
pub use machine::{Client, Event, Fault, LostBy, Settings, TlsUse, Verdict};
pub use output::Output;
pub use reply::{LINE_MAX, LINES_MAX, REPLY_MAX, Reply, ReplyError, ReplyParser, TEXT_MAX};
pub use state::State;
pub use transaction::{Mail, Rcpt};
