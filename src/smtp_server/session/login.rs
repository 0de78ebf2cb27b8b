//! AUTH PLAIN and LOGIN (RFC 4954, RFC 4616): the exchange, not the check.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::{LOGIN_FAILURES_MAX, Phase, Progress, Session, Step};
use crate::config::ListenerRole;
use crate::smtp::command::Mechanism;
use crate::smtp::line::{self, AUTH_LINE_MAX, Line};
use crate::smtp::reply::Reply;
use crate::types::{Name, Timestamp};

/// Padding is asked for by RFC 4954 §4 and left out by some.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// "Username:" and "Password:".
const LOGIN_PROMPTS: [&str; 2] = ["VXNlcm5hbWU6", "UGFzc3dvcmQ6"];

/// A user name and a password that want to be checked. Its `Debug` form does not show the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user name.
    pub user: String,
    /// The password.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What a check came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LoginResult {
    /// It is this tenant's user.
    Ok {
        /// The user name.
        user: String,
        /// The tenant.
        tenant: Name,
    },
    /// Unknown user or wrong password: which one is told to nobody.
    Denied,
    /// It could not be checked now.
    Busy,
}

/// What an AUTH exchange waits for.
pub(super) enum AuthDialog {
    Plain,
    LoginUser,
    LoginPassword { user: String },
}

impl Session {
    /// Whether AUTH is offered. In clear only on loopback, where nobody listens who could not read our memory anyway.
    pub(super) fn may_login(&self) -> bool {
        self.listener.role != ListenerRole::Bounce && (self.tls.is_some() || self.peer.ip().is_loopback())
    }

    pub(super) fn auth(&mut self, mechanism: Mechanism, initial: Option<&str>) -> Option<Step> {
        if self.listener.role == ListenerRole::Bounce {
            self.refuse(Reply::new(502, "5.5.1", "AUTH is not offered here"));
        } else if !matches!(self.helo, Some((_, true))) {
            self.refuse(Reply::new(503, "5.5.1", "Say EHLO first"));
        } else if !self.may_login() {
            // RFC 4954 §6. The password may be in clear on the wire already; at least it is not used.
            self.refuse(Reply::new(538, "5.7.11", "Encryption required: say STARTTLS first"));
        } else if self.login.is_some() {
            self.refuse(Reply::new(503, "5.5.1", "Authenticated already"));
        } else if self.transaction.is_some() {
            self.refuse(Reply::new(503, "5.5.1", "AUTH is not allowed in a transaction"));
        } else {
            return self.auth_begins(mechanism, initial);
        }
        None
    }

    fn auth_begins(&mut self, mechanism: Mechanism, initial: Option<&str>) -> Option<Step> {
        let (dialog, prompt) = match mechanism {
            Mechanism::Plain => (AuthDialog::Plain, ""),
            Mechanism::Login => (AuthDialog::LoginUser, LOGIN_PROMPTS[0]),
        };
        match initial {
            // RFC 4954 §4: `=` is an initial response of no octets.
            Some(initial) => self.auth_response(dialog, if initial == "=" { "" } else { initial }),
            None => {
                self.prompt(dialog, prompt);
                None
            }
        }
    }

    fn prompt(&mut self, dialog: AuthDialog, prompt: &'static str) {
        self.phase = Phase::Auth(dialog);
        self.answer(Reply::new(334, "", prompt));
    }

    pub(super) fn feed_auth(&mut self, input: &[u8], now: Timestamp) -> Progress {
        let (line, len) = match line::find(input, AUTH_LINE_MAX) {
            Line::Incomplete => return Progress::Step(0, Step::Input),
            Line::Complete { line, len } => (line, len),
            Line::TooLong | Line::Malformed => {
                // RFC 4954 §4: 500 5.5.6.
                self.close(Reply::new(500, "5.5.6", "The line is too long or malformed"), "malformed");
                return Progress::Used(0);
            }
        };
        self.since = now;
        let Phase::Auth(dialog) = std::mem::replace(&mut self.phase, Phase::Command) else {
            return Progress::Used(0);
        };
        let step = match std::str::from_utf8(line) {
            Ok("*") => {
                self.refuse(Reply::new(501, "5.7.0", "Authentication cancelled"));
                None
            }
            Ok(response) => self.auth_response(dialog, response),
            Err(_) => {
                self.bad_response();
                None
            }
        };
        self.end_if_draining();
        match step {
            Some(step) => Progress::Step(len, step),
            None => Progress::Used(len),
        }
    }

    fn auth_response(&mut self, dialog: AuthDialog, response: &str) -> Option<Step> {
        let Some(text) = BASE64.decode(response).ok().and_then(|octets| String::from_utf8(octets).ok()) else {
            self.bad_response();
            return None;
        };
        let credentials = match dialog {
            AuthDialog::Plain => split_plain(&text),
            AuthDialog::LoginUser => {
                self.prompt(AuthDialog::LoginPassword { user: text }, LOGIN_PROMPTS[1]);
                return None;
            }
            AuthDialog::LoginPassword { user } => Some(Credentials { user, password: text }),
        };
        match credentials {
            Some(credentials) => {
                self.phase = Phase::Driver;
                Some(Step::Login(credentials))
            }
            None => {
                self.bad_response();
                None
            }
        }
    }

    fn bad_response(&mut self) {
        self.refuse(Reply::new(501, "5.5.2", "The response is not valid"));
    }

    /// The answer to [`Step::Login`].
    pub fn logged_in(&mut self, result: LoginResult, now: Timestamp) {
        self.phase = Phase::Command;
        self.since = now;
        match result {
            LoginResult::Ok { user, tenant } => {
                self.login = Some((user, tenant));
                self.answer(Reply::new(235, "2.7.0", "Authentication successful"));
            }
            LoginResult::Denied => {
                self.login_failures += 1;
                if self.login_failures >= LOGIN_FAILURES_MAX {
                    self.close(Reply::new(421, "4.7.0", "Too many failed logins"), "errors");
                } else {
                    self.refuse(Reply::new(535, "5.7.8", "Authentication credentials invalid"));
                }
            }
            LoginResult::Busy => {
                self.answer(Reply::new(454, "4.7.0", "Temporary authentication failure, try again later"));
            }
        }
        self.end_if_draining();
    }
}

/// RFC 4616 §2: `[authzid] NUL authcid NUL passwd`. Nobody acts for somebody else here.
fn split_plain(text: &str) -> Option<Credentials> {
    let mut parts = text.split('\0');
    let (authzid, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    let valid = parts.next().is_none() && !user.is_empty() && (authzid.is_empty() || authzid == user);
    valid.then(|| Credentials { user: user.to_owned(), password: password.to_owned() })
}
