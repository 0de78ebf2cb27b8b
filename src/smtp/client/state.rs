//! What a session waits for: how long it may, and what people call it.

use std::time::Duration;

/// What the client waits for now.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum State {
    /// The TCP connection.
    Connecting,
    /// The 220.
    Greeting,
    /// The reply to EHLO or HELO.
    Hello,
    /// The reply to STARTTLS.
    StartTls,
    /// The end of the TLS handshake.
    Handshake,
    /// A reply within AUTH.
    Auth,
    /// The reply to RSET.
    Reset,
    /// The reply to MAIL.
    Mail,
    /// The reply to RCPT.
    Rcpt,
    /// The 354.
    Data,
    /// Room in the connection for the message.
    Body,
    /// The final reply to a message.
    DataEnd,
    /// The reply to QUIT.
    Quit,
    /// Work.
    Idle,
    /// Nothing: the session is over.
    Closed,
}

impl State {
    /// All states, in the order of a session.
    pub const ALL: [State; 15] = [
        State::Connecting,
        State::Greeting,
        State::Hello,
        State::StartTls,
        State::Handshake,
        State::Auth,
        State::Reset,
        State::Mail,
        State::Rcpt,
        State::Data,
        State::Body,
        State::DataEnd,
        State::Quit,
        State::Idle,
        State::Closed,
    ];

    /// The longest wait without progress. RFC 5321 §4.5.3.2 gives the least that a client must grant.
    pub const fn timeout(self) -> Duration {
        Duration::from_secs(match self {
            // The driver takes `delivery.connect_timeout`; this is its default.
            State::Connecting => 60,
            // RFC 5321 §4.5.3.2.1: 5 min for the initial 220.
            State::Greeting => 300,
            State::Hello => 300,
            State::StartTls => 120,
            State::Handshake => 60,
            State::Auth => 300,
            State::Reset => 120,
            // RFC 5321 §4.5.3.2.2 and .3: 5 min for MAIL, 5 min for RCPT.
            State::Mail => 300,
            State::Rcpt => 300,
            // RFC 5321 §4.5.3.2.4: 2 min for the 354.
            State::Data => 120,
            // RFC 5321 §4.5.3.2.5: 3 min for a block of data to be taken.
            State::Body => 180,
            // RFC 5321 §4.5.3.2.6: 10 min for the final reply; less makes duplicates (RFC 1047).
            State::DataEnd => 600,
            // The mail is settled: QUIT is a courtesy.
            State::Quit => 5,
            // The driver takes `delivery.idle_timeout`; this bounds the making of content.
            State::Idle => 600,
            State::Closed => 0,
        })
    }

    /// The name for people: in events, notifications and logs.
    pub const fn name(self) -> &'static str {
        match self {
            State::Connecting => "connecting",
            State::Greeting => "waiting for the greeting",
            State::Hello => "sending EHLO",
            State::StartTls => "sending STARTTLS",
            State::Handshake => "in the TLS handshake",
            State::Auth => "logging in",
            State::Reset => "sending RSET",
            State::Mail => "sending MAIL",
            State::Rcpt => "sending RCPT",
            State::Data => "sending DATA",
            State::Body => "sending the message",
            State::DataEnd => "sending end of data: the message may be sent twice",
            State::Quit => "sending QUIT",
            State::Idle => "idle",
            State::Closed => "closed",
        }
    }
}
