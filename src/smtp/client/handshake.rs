//! From the greeting to ready: EHLO, STARTTLS, AUTH.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::machine::{AuthStep, Client, Event, Expect, Fault, Phase, TlsUse};
use super::{Capabilities, Reply, State};

impl Client {
    pub(super) fn say_hello(&mut self) {
        let line = format!("EHLO {}", self.settings.ehlo);
        self.say(&line, Expect::Ehlo);
    }

    pub(super) fn on_handshake_reply(&mut self, expect: Expect, reply: &Reply) {
        match expect {
            Expect::Greeting if reply.is_ok() => self.say_hello(),
            Expect::Greeting => self.close(Some(Fault::session(State::Greeting, reply))),
            Expect::Ehlo if reply.is_ok() => {
                self.caps = Capabilities::parse(reply);
                self.caps.chunking &= self.settings.chunking;
                self.after_hello();
            }
            // RFC 5321 §3.2: a server of old knows HELO only. Without EHLO there is neither STARTTLS nor AUTH.
            Expect::Ehlo if reply.class() == 5 && self.settings.tls != TlsUse::Must => {
                let line = format!("HELO {}", self.settings.ehlo);
                self.say(&line, Expect::Helo);
            }
            Expect::Helo if reply.is_ok() => self.after_hello(),
            Expect::Ehlo | Expect::Helo => self.close(Some(Fault::session(State::Hello, reply))),
            Expect::StartTls => self.on_starttls_reply(reply),
            Expect::Auth(step) => self.on_auth_reply(step, reply),
            Expect::Reset
            | Expect::Mail
            | Expect::Rcpt
            | Expect::Data
            | Expect::DataEnd
            | Expect::Chunk
            | Expect::Quit => {}
        }
    }

    fn after_hello(&mut self) {
        if !self.encrypted {
            match self.settings.tls {
                TlsUse::IfOffered | TlsUse::Must if self.caps.starttls => {
                    return self.say("STARTTLS", Expect::StartTls);
                }
                TlsUse::Must => {
                    let fault = Fault::local(State::Hello, "4.7.4", "TLS is required but not offered by the peer");
                    return self.close(Some(fault));
                }
                TlsUse::IfOffered | TlsUse::Never | TlsUse::Implicit => {}
            }
        }
        if self.settings.credentials.is_some() { self.begin_auth() } else { self.ready() }
    }

    fn on_starttls_reply(&mut self, reply: &Reply) {
        if reply.is_ok() {
            self.phase = Phase::Tls;
            self.push_event(Event::StartTls);
        } else if self.settings.tls == TlsUse::Must {
            let mut fault = Fault::session(State::StartTls, reply);
            fault.reply.text = format!("TLS is required but was refused: {}", fault.reply.text).into();
            self.close(Some(fault));
        } else if self.settings.credentials.is_some() {
            self.begin_auth();
        } else {
            // RFC 3207 §4: the client decides whether to go on; opportunistic means that it does.
            self.ready();
        }
    }

    fn begin_auth(&mut self) {
        let Some(credentials) = self.settings.credentials.clone() else { return self.ready() };
        if !self.encrypted && !self.settings.auth_in_clear {
            let fault = Fault::local(State::Auth, "4.7.11", "AUTH needs TLS, which the peer does not offer");
            return self.close(Some(fault));
        }
        if self.caps.auth_plain {
            let response = BASE64.encode(format!("\0{}\0{}", credentials.0, credentials.1));
            self.say_masked(&format!("AUTH PLAIN {response}"), "AUTH PLAIN ****", Expect::Auth(AuthStep::Plain));
        } else if self.caps.auth_login {
            self.say("AUTH LOGIN", Expect::Auth(AuthStep::Login));
        } else {
            let fault = Fault::local(State::Auth, "4.7.0", "the peer offers neither AUTH PLAIN nor AUTH LOGIN");
            self.close(Some(fault));
        }
    }

    fn on_auth_reply(&mut self, step: AuthStep, reply: &Reply) {
        let Some(credentials) = self.settings.credentials.clone() else { return self.ready() };
        if reply.is_ok() {
            return self.ready();
        }
        let (next, secret) = match (step, reply.class()) {
            // A server that ignores the initial response asks for it again (RFC 4954 §4).
            (AuthStep::Plain, 3) => {
                (AuthStep::PlainResponse, BASE64.encode(format!("\0{}\0{}", credentials.0, credentials.1)))
            }
            (AuthStep::Login, 3) => (AuthStep::LoginUser, BASE64.encode(&credentials.0)),
            (AuthStep::LoginUser, 3) => (AuthStep::LoginPassword, BASE64.encode(&credentials.1)),
            // A refused log-in is a fault of the configuration: the mail waits until it is mended.
            (
                AuthStep::Plain
                | AuthStep::PlainResponse
                | AuthStep::Login
                | AuthStep::LoginUser
                | AuthStep::LoginPassword,
                _,
            ) => return self.close(Some(Fault::session(State::Auth, reply))),
        };
        self.say_masked(&secret, "****", Expect::Auth(next));
    }

    fn ready(&mut self) {
        self.phase = Phase::Ready;
        self.push_event(Event::Ready);
    }
}
