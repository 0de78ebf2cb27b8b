//! The message: DATA and BDAT, from the first octet to the submission.

use bytes::Bytes;

use super::{DISCARD_OCTETS_MAX, Phase, Progress, Session, Step};
use crate::config::ListenerRole;
use crate::inbound::Returned;
use crate::queue::intake::{Client, Steering, Submission};
use crate::smtp::bdat::BdatReceiver;
use crate::smtp::data::{DataReceiver, Received};
use crate::smtp::message_buffer::MessageBuffer;
use crate::smtp::reply::Reply;
use crate::store::Via;
use crate::types::Timestamp;

/// How far a message in chunks is.
pub(super) enum Chunked {
    /// No chunk yet.
    None,
    /// Some have come; absent while one is coming in.
    Some(Option<BdatReceiver>),
    /// One was refused: nothing but RSET, EHLO or QUIT helps (RFC 3030 §2).
    Failed,
}

/// A chunk that is coming in.
pub(super) struct Chunk {
    size: u64,
    left: u64,
    last: bool,
    fate: Fate,
}

enum Fate {
    Keep(BdatReceiver),
    /// Its octets are read, so that they are not taken for commands, and then this is answered.
    Discard(Reply),
}

impl Session {
    pub(super) fn start_data(&mut self, now: Timestamp) {
        let Some(transaction) = &self.transaction else { return };
        self.phase = Phase::Data(Box::new(DataReceiver::new(Self::new_buffer(transaction))));
        self.data.start(now);
    }

    pub(super) fn feed_data(&mut self, input: &[u8], now: Timestamp) -> Progress {
        let Phase::Data(receiver) = &mut self.phase else { return Progress::Used(0) };
        if input.is_empty() {
            return Progress::Step(0, Step::Input);
        }
        let received = receiver.feed(input);
        let dropped = receiver.message().dropped() as u64;
        match received {
            Received::More => {
                if dropped > DISCARD_OCTETS_MAX {
                    self.close(too_large(), "limit");
                } else {
                    if dropped > 0 {
                        self.held.release();
                    }
                    self.took(input.len(), now);
                }
                Progress::Used(input.len())
            }
            Received::Malformed => {
                self.close_malformed_message();
                Progress::Used(input.len())
            }
            Received::End(used) => match std::mem::replace(&mut self.phase, Phase::Command) {
                Phase::Data(receiver) => self.finish(receiver.into_message(), used, now),
                Phase::Command | Phase::Auth(_) | Phase::Chunk(_) | Phase::Driver | Phase::Closed(_) => {
                    Progress::Used(used)
                }
            },
        }
    }

    pub(super) fn bdat(&mut self, size: u64, last: bool, now: Timestamp) {
        let fate = self.fate_of_chunk(size);
        match fate {
            Fate::Discard(reply) if size > DISCARD_OCTETS_MAX => self.close(reply, "limit"),
            fate => {
                self.phase = Phase::Chunk(Chunk { size, left: size, last, fate });
                self.data.start(now);
            }
        }
    }

    /// Whether a chunk that was announced is kept.
    fn fate_of_chunk(&mut self, size: u64) -> Fate {
        let out_of_order = |text| Fate::Discard(Reply::new(503, "5.5.1", text));
        let Some(transaction) = &mut self.transaction else { return out_of_order("Say MAIL first") };
        if transaction.has_no_recipient() {
            return Fate::Discard(Reply::new(554, "5.5.1", "No valid recipients"));
        }
        let receiver = match &mut transaction.chunked {
            Chunked::Failed => return out_of_order("A chunk was refused: say RSET"),
            Chunked::Some(receiver) => receiver.take(),
            Chunked::None => None,
        };
        let receiver = receiver.unwrap_or_else(|| BdatReceiver::new(Self::new_buffer(transaction)));
        let total = (receiver.message().len() as u64).checked_add(size);
        if total.is_none_or(|total| total > transaction.policy.config.smtp.max_message_size.0) {
            return Fate::Discard(too_large());
        }
        Fate::Keep(receiver)
    }

    pub(super) fn feed_chunk(&mut self, input: &[u8], now: Timestamp) -> Progress {
        let Phase::Chunk(chunk) = &mut self.phase else { return Progress::Used(0) };
        let take = usize::try_from(chunk.left).unwrap_or(usize::MAX).min(input.len());
        if take == 0 && chunk.left > 0 {
            return Progress::Step(0, Step::Input);
        }
        if let Fate::Keep(receiver) = &mut chunk.fate
            && receiver.feed(&input[..take]).is_err()
        {
            self.close_malformed_message();
            return Progress::Used(take);
        }
        chunk.left -= take as u64;
        if matches!(chunk.fate, Fate::Discard(_)) {
            self.held.release();
        }
        if chunk.left > 0 {
            self.took(take, now);
            return Progress::Used(take);
        }
        match std::mem::replace(&mut self.phase, Phase::Command) {
            Phase::Chunk(chunk) => self.end_chunk(chunk, take, now),
            Phase::Command | Phase::Auth(_) | Phase::Data(_) | Phase::Driver | Phase::Closed(_) => Progress::Used(take),
        }
    }

    fn end_chunk(&mut self, chunk: Chunk, used: usize, now: Timestamp) -> Progress {
        self.since = now;
        match chunk.fate {
            Fate::Discard(reply) => {
                if chunk.last {
                    self.transaction = None;
                } else if let Some(transaction) = &mut self.transaction {
                    transaction.chunked = Chunked::Failed;
                }
                self.refuse(reply);
                self.end_if_draining();
            }
            Fate::Keep(receiver) if chunk.last => match receiver.finish() {
                Ok(message) => return self.finish(message, used, now),
                Err(_) => self.close_malformed_message(),
            },
            Fate::Keep(receiver) => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.chunked = Chunked::Some(Some(receiver));
                }
                self.answer(Reply::new(250, "2.0.0", format!("{} octets received", chunk.size)));
            }
        }
        Progress::Used(used)
    }

    /// All octets are here: submits them, or says why not.
    fn finish(&mut self, message: MessageBuffer, used: usize, now: Timestamp) -> Progress {
        self.since = now;
        let Some(transaction) = self.transaction.take() else { return Progress::Used(used) };
        let Some(octets) = message.into_octets() else {
            self.held.release();
            self.refuse(too_large());
            self.end_if_draining();
            return Progress::Used(used);
        };
        self.phase = Phase::Driver;
        if self.listener.role == ListenerRole::Bounce {
            let (targets, client) = (transaction.targets, Some(self.peer.ip()));
            let returned = Returned { targets, mail: Bytes::from(octets), client };
            return Progress::Step(used, Step::Return(Box::new(returned)));
        }
        let client = Client {
            address: Some(self.peer.ip()),
            helo: self.helo.as_ref().map(|(name, _)| name.clone()).unwrap_or_default(),
            user: self.login.as_ref().map(|(user, _)| user.clone()),
            protocol: self.protocol(transaction.mail.smtputf8),
            tls: self.tls.as_deref().map(str::to_owned),
        };
        let submission = Submission {
            tenant: transaction.tenant,
            via: Via::Smtp,
            client,
            reverse_path: transaction.mail.reverse_path,
            ret: transaction.mail.ret,
            envid: transaction.mail.envid,
            smtputf8: transaction.mail.smtputf8,
            recipients: transaction.recipients,
            steering: Steering::default(),
            body: Bytes::from(octets),
        };
        Progress::Step(used, Step::Submit(Box::new(submission)))
    }

    /// The protocol as `Received` names it (RFC 3848, RFC 6531 §4.3).
    fn protocol(&self, smtputf8: bool) -> &'static str {
        let esmtp = self.helo.as_ref().is_some_and(|(_, esmtp)| *esmtp);
        match (smtputf8, self.tls.is_some(), self.login.is_some()) {
            (true, true, true) => "UTF8SMTPSA",
            (true, true, false) => "UTF8SMTPS",
            (true, false, true) => "UTF8SMTPA",
            (true, false, false) => "UTF8SMTP",
            (false, true, true) => "ESMTPSA",
            (false, true, false) => "ESMTPS",
            (false, false, true) => "ESMTPA",
            (false, false, false) if esmtp => "ESMTP",
            (false, false, false) => "SMTP",
        }
    }
}

fn too_large() -> Reply {
    Reply::new(552, "5.3.4", "The message is too large")
}
