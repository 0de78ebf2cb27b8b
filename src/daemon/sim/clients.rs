//! Applications that hand mail in: octets in random pieces through the server's session, which takes them as from a socket.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::log::{Log, Sent};
use crate::config::{Listener, ListenerRole, ListenerTls};
use crate::queue::intake::Intake;
use crate::seam::clock::Clock;
use crate::seam::random::Seeded;
use crate::smtp::message_buffer::HEADROOM;
use crate::smtp_server::{ListenerInfo, Peer, Session, Step};
use crate::types::MessageId;

/// One message to hand in.
#[derive(Clone, Debug)]
pub(super) struct Mail {
    pub tag: String,
    pub tenant: &'static str,
    pub marketing: bool,
    pub recipients: Vec<String>,
}

/// The body that belongs to a tag; with lines that begin with dots, and of another length for each.
pub(super) fn body_of(tag: &str) -> String {
    let times = 1 + tag.bytes().map(usize::from).sum::<usize>() % 17;
    format!(".{tag}\r\n..\r\n{}.end\r\n", "A line of some length, so that there is something.\r\n".repeat(times))
}

/// The tag in the header of a message; a notification has it only within.
pub(super) fn tag_of(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let (text, _) = text.split_once("\r\n\r\n")?;
    let (_, rest) = text.split_once("\r\nX-Tag: ")?;
    Some(rest.split("\r\n").next()?.to_owned())
}

/// A session of a client: hands in all of `mails`, one after the other.
pub(super) struct Client {
    pub intake: Arc<Intake>,
    pub clock: Clock,
    pub log: Rc<Log>,
    pub dice: Seeded,
}

impl Client {
    pub(super) async fn hand_in(mut self, mails: Vec<Mail>) {
        let listener = Listener {
            address: ([127, 0, 0, 1], 587).into(),
            role: ListenerRole::Relay,
            tls: ListenerTls::None,
            relay_from: vec!["127.0.0.0/8".parse().expect("a network")],
        };
        let info = Arc::new(ListenerInfo::new(0, &listener, false));
        let peer = Peer { address: ([127, 0, 0, 1], 40_000).into() };
        let mut session = Session::new(self.intake.clone(), info, peer, None, self.clock.now());
        let mut pending = Vec::new();
        self.say(&mut session, &mut pending, b"EHLO app.example\r\n").await;
        let pipelines = self.dice.below(2) == 0;
        for mail in mails {
            let marketing = if mail.marketing { "X-Posthaste-Class: marketing\r\n" } else { "" };
            let (from, tag) = (mail.tenant, &mail.tag);
            let message = format!(
                "From: <app@{from}.example>\r\nSubject: simulated\r\n{marketing}X-Tag: {tag}\r\n\r\n{}",
                body_of(tag)
            );
            let sent = Sent { recipients: mail.recipients.clone(), acknowledged: None };
            self.log.sent.borrow_mut().insert(mail.tag.clone(), sent);
            let mut commands = vec![format!("MAIL FROM:<app@{from}.example>\r\n")];
            commands.extend(mail.recipients.iter().map(|to| format!("RCPT TO:<{to}>\r\n")));
            let last = if self.dice.below(2) == 0 {
                commands.push("DATA\r\n".into());
                message.replace("\r\n.", "\r\n..") + ".\r\n"
            } else {
                format!("BDAT {} LAST\r\n{message}", message.len())
            };
            if pipelines {
                commands = vec![commands.concat()];
            }
            for command in commands {
                self.say(&mut session, &mut pending, command.as_bytes()).await;
            }
            let reply = self.say(&mut session, &mut pending, last.as_bytes()).await;
            let id = reply.rsplit("queued as ").next().and_then(|id| id.trim().parse::<MessageId>().ok());
            let now = self.log.now();
            match id {
                Some(id) => {
                    self.log.tell(|| format!("{tag} is {id}"));
                    self.log.sent.borrow_mut().entry(mail.tag).and_modify(|s| s.acknowledged = Some((id, now)));
                }
                None => self.log.fault(format!("{tag} was not taken: {reply:?}")),
            }
        }
        self.say(&mut session, &mut pending, b"QUIT\r\n").await;
    }

    /// Gives octets in pieces; answers what the session said meanwhile.
    async fn say(&mut self, session: &mut Session, pending: &mut Vec<u8>, octets: &[u8]) -> String {
        let mut rest = octets;
        while !rest.is_empty() {
            let most = if self.dice.below(4) == 0 { 5 } else { 2_000 };
            let (piece, behind) = rest.split_at(rest.len().min(1 + self.dice.below(most) as usize));
            rest = behind;
            pending.extend_from_slice(piece);
            if self.dice.below(8) == 0 {
                tokio::time::sleep(Duration::from_millis(self.dice.below(400))).await;
            }
            loop {
                let (used, step) = session.feed(pending, self.clock.now());
                pending.drain(..used);
                match step {
                    Step::Input => break,
                    Step::Submit(submission) => {
                        let result = self.intake.accept_with_headroom(*submission, HEADROOM).await;
                        session.submitted(result, self.clock.now());
                    }
                    Step::Close(_) => return String::from_utf8_lossy(&session.take_output()).into_owned(),
                    Step::StartTls | Step::Login(_) => self.log.fault("the session wants what nobody asked for".into()),
                }
            }
        }
        String::from_utf8_lossy(&session.take_output()).into_owned()
    }
}
