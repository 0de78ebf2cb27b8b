//! The SMTP server: sessions of those who hand in mail.
//!
//! 1. [`Server::bind`] opens the listeners and loads the certificate,
//! 2. [`Server::run`] takes connections, within the limits of all and of one client ([`limits`]),
//! 3. each connection is one task ([`driver`]), which moves octets between its socket and a [`Session`],
//! 4. the session, a machine without sockets or clock, answers and says what it needs: TLS, a login checked
//!    ([`auth`]), a message taken ([`crate::queue::intake::Intake`]), the end.
//!
//! 250 after the data means: on disk, fsynced.
//!
//! A reload reaches limits, tenants and logins at the next transaction or login, and the certificate at the next
//! handshake ([`ServerHandle::reload_tls`]). The listeners themselves (address, role, `tls`, `relay_from`) are read at start.
//!
//! On a listener with the role `bounce`, mail is taken only for return paths that we know; there are none yet, so every
//! recipient is refused with 550 5.1.1 and no backscatter is made.

pub mod auth;
mod driver;
mod limits;
mod server;
mod session;
mod tls;

#[cfg(test)]
mod tests;

pub use auth::{Authenticator, HashError, hash_password};
pub use server::{BindError, Server, ServerHandle};
pub use session::{Credentials, ListenerInfo, LoginResult, Peer, Session, Step};
pub use tls::{TlsError, load as load_tls};
