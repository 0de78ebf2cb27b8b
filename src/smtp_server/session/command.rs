//! Command lines: from the buffer to the handler of each verb.

use super::{Phase, Progress, RECIPIENTS_OVERSHOOT_MAX, Session, Step, Transaction};
use crate::config::ListenerRole;
use crate::queue::intake::Refusal;
use crate::smtp::command::{self, Command, MailFrom, RcptTo};
use crate::smtp::line::{self, AUTH_LINE_MAX, COMMAND_LINE_MAX, Line};
use crate::smtp::message_buffer::MessageBuffer;
use crate::smtp::reply::{Reply, write_multiline};
use crate::store::EnvelopeRecipient;
use crate::types::{Mailbox, Timestamp};

use super::message::Chunked;

/// The most recipients of one mail that comes back: it is about one.
const TARGETS_MAX: usize = 100;

impl Session {
    pub(super) fn feed_command(&mut self, input: &[u8], now: Timestamp) -> Progress {
        let is_auth = input.get(..5).is_some_and(|head| head.eq_ignore_ascii_case(b"AUTH "));
        let max = if is_auth { AUTH_LINE_MAX } else { COMMAND_LINE_MAX };
        let (line, len) = match line::find(input, max) {
            Line::Incomplete => return Progress::Step(0, Step::Input),
            Line::Complete { line, len } => (line, len),
            Line::TooLong => {
                self.close(Reply::new(500, "5.5.2", "The line is too long"), "malformed");
                return Progress::Used(0);
            }
            Line::Malformed => {
                let text = "A bare CR, a bare LF or a NUL: lines end with CRLF";
                self.close(Reply::new(500, "5.5.2", text), "malformed");
                return Progress::Used(0);
            }
        };
        self.since = now;
        let step = match command::parse(line) {
            Ok(command) => self.run(command, now),
            Err(refused) if refused.fatal => {
                self.close(refused.reply, "malformed");
                None
            }
            Err(refused) => {
                self.refuse(refused.reply);
                None
            }
        };
        if self.transaction.is_none() && step.is_none() && matches!(self.phase, Phase::Command) {
            // RSET and EHLO drop the chunks of a message that has begun.
            self.held.release();
        }
        self.end_if_draining();
        match step {
            Some(step) => Progress::Step(len, step),
            None => Progress::Used(len),
        }
    }

    fn run(&mut self, command: Command<'_>, now: Timestamp) -> Option<Step> {
        match command {
            Command::Mail(mail) => self.mail(mail),
            Command::Rcpt(rcpt) => self.rcpt(rcpt),
            Command::Data => self.data(now),
            Command::Bdat { size, last } => self.bdat(size, last, now),
            Command::Ehlo(name) => self.ehlo(name),
            Command::Helo(name) => {
                self.transaction = None;
                self.helo = Some((name.to_owned(), false));
                let hostname = self.policy.config.hostname.clone();
                self.answer(Reply::new(250, "", hostname));
            }
            Command::StartTls => return self.starttls(),
            Command::Auth { mechanism, initial } => return self.auth(mechanism, initial),
            Command::Rset => {
                self.transaction = None;
                self.answer(Reply::new(250, "2.0.0", "Ok"));
            }
            Command::Noop => self.answer(Reply::new(250, "2.0.0", "Ok")),
            // RFC 5321 §3.5.3: nothing is verified, and nobody learns who is here.
            Command::Vrfy => self.answer(Reply::new(252, "2.0.0", "Send it and see")),
            Command::Help => {
                let text = "EHLO HELO STARTTLS AUTH MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT";
                self.answer(Reply::new(214, "2.0.0", text));
            }
            Command::Quit => self.close(Reply::new(221, "2.0.0", "Bye"), "quit"),
        }
        None
    }

    fn ehlo(&mut self, name: &str) {
        // RFC 5321 §4.1.4: EHLO ends a transaction.
        self.transaction = None;
        self.helo = Some((name.to_owned(), true));
        self.policy = self.intake.policies().current();
        let config = self.policy.config.clone();
        let size = format!("SIZE {}", config.smtp.max_message_size.0);
        let mut lines = vec![config.hostname.as_str(), "PIPELINING", &size, "8BITMIME", "SMTPUTF8", "CHUNKING", "DSN"];
        lines.push("ENHANCEDSTATUSCODES");
        if self.listener.starttls && self.tls.is_none() {
            lines.push("STARTTLS");
        }
        if self.may_login() {
            lines.push("AUTH PLAIN LOGIN");
        }
        write_multiline(&mut self.out, 250, &lines);
    }

    fn starttls(&mut self) -> Option<Step> {
        if self.tls.is_some() {
            self.refuse(Reply::new(503, "5.5.1", "TLS is in use already"));
        } else if !self.listener.starttls {
            self.refuse(Reply::new(502, "5.5.1", "STARTTLS is not offered here"));
        } else if self.helo.is_none() {
            self.refuse(Reply::new(503, "5.5.1", "Say EHLO first"));
        } else {
            self.answer(Reply::new(220, "2.0.0", "Ready to start TLS"));
            self.phase = Phase::Driver;
            return Some(Step::StartTls);
        }
        None
    }

    fn mail(&mut self, mail: MailFrom) {
        if self.helo.is_none() {
            return self.refuse(Reply::new(503, "5.5.1", "Say EHLO first"));
        }
        if self.transaction.is_some() {
            return self.refuse(Reply::new(503, "5.5.1", "A transaction is open already"));
        }
        if !self.may_send() {
            // RFC 4954 §6.
            return self.refuse(Reply::new(530, "5.7.0", "Authentication required"));
        }
        self.policy = self.intake.policies().current();
        let limits = &self.policy.config.smtp;
        if self.messages >= limits.max_messages_per_connection {
            return self.close(Reply::new(421, "4.7.0", "Too many messages in one connection"), "limit");
        }
        if let Err(refusal) = self.intake.gate().check() {
            return self.refuse_with(refusal);
        }
        if mail.size.is_some_and(|size| size > limits.max_message_size.0) {
            // RFC 1870 §6.1.
            let text = format!("At most {} octets are accepted", limits.max_message_size.0);
            return self.refuse(Reply::new(552, "5.3.4", text));
        }
        if let Some(inbound) = &self.listener.inbound
            && let Err(refusal) = inbound.may(self.peer.ip())
        {
            return self.refuse_with(refusal);
        }
        let tenant = match self.tenant_of(&mail) {
            Ok(tenant) => tenant,
            Err(refusal) => return self.refuse_with(refusal),
        };
        self.transaction = Some(Transaction {
            policy: self.policy.clone(),
            mail,
            tenant,
            recipients: Vec::new(),
            targets: Vec::new(),
            overshoot: 0,
            chunked: Chunked::None,
        });
        self.answer(Reply::new(250, "2.1.0", "Ok"));
    }

    /// Whether this client may hand in mail at all.
    fn may_send(&self) -> bool {
        match self.listener.role {
            // The world returns bounces; it is at RCPT that it must know a return path.
            ListenerRole::Bounce => true,
            ListenerRole::Submission | ListenerRole::Relay => {
                let ip = self.peer.ip();
                self.login.is_some() || self.listener.relay_from.iter().any(|net| net.contains(&ip))
            }
        }
    }

    /// Whose mail this is, and whether its reverse-path is theirs. `None` where only the header will tell.
    fn tenant_of(&self, mail: &MailFrom) -> Result<Option<crate::types::Name>, crate::queue::intake::Refusal> {
        if self.listener.role == ListenerRole::Bounce {
            return Ok(None);
        }
        let login = self.login.as_ref().map(|(_, tenant)| tenant);
        self.policy.sender(login, &mail.reverse_path).map(|tenant| tenant.map(|t| t.name.clone()))
    }

    fn rcpt(&mut self, rcpt: RcptTo) {
        let hostname = &self.policy.config.hostname;
        let Some(transaction) = &mut self.transaction else {
            return self.refuse(Reply::new(503, "5.5.1", "Say MAIL first"));
        };
        if !matches!(transaction.chunked, Chunked::None) {
            return self.refuse(Reply::new(503, "5.5.1", "The message has begun already"));
        }
        // RFC 5321 §4.5.1: postmaster without a domain is ours.
        let mailbox = match rcpt.mailbox.ok_or(()).or_else(|()| Mailbox::parse(&format!("postmaster@{hostname}"))) {
            Ok(mailbox) => mailbox,
            Err(_) => return self.refuse(Reply::new(550, "5.1.1", "There is no postmaster here")),
        };
        if self.listener.role == ListenerRole::Bounce {
            return self.rcpt_returned(&mailbox);
        }
        if !mailbox.as_str().is_ascii() && !transaction.mail.smtputf8 {
            return self.refuse(Reply::new(553, "5.6.7", "The address needs SMTPUTF8 among the parameters of MAIL"));
        }
        if transaction.recipients.len() >= transaction.policy.config.smtp.max_recipients as usize {
            transaction.overshoot += 1;
            let reply = Reply::new(452, "4.5.3", "Too many recipients, send the rest in another transaction");
            if transaction.overshoot > RECIPIENTS_OVERSHOOT_MAX {
                return self.refuse(reply);
            }
            self.refused_total += 1;
            return self.answer(reply);
        }
        transaction.recipients.push(EnvelopeRecipient { mailbox, notify: rcpt.notify, orcpt: rcpt.orcpt });
        self.answer(Reply::new(250, "2.1.5", "Ok"));
    }

    /// A recipient of a mail that comes back: one of ours, or refused.
    fn rcpt_returned(&mut self, mailbox: &Mailbox) {
        let unknown = || Refusal::new(550, "5.1.1", 422, format!("<{mailbox}>: unknown bounce address"));
        let target = self.listener.inbound.as_ref().ok_or_else(unknown).and_then(|inbound| inbound.target(mailbox));
        let Some(transaction) = &mut self.transaction else { return };
        match target {
            Err(refusal) => self.refuse_with(refusal),
            Ok(_) if transaction.targets.len() >= TARGETS_MAX => {
                self.refused_total += 1;
                self.answer(Reply::new(452, "4.5.3", "Too many recipients, send the rest in another transaction"));
            }
            Ok(target) => {
                transaction.targets.push(target);
                self.answer(Reply::new(250, "2.1.5", "Ok"));
            }
        }
    }

    fn data(&mut self, now: Timestamp) {
        let Some(transaction) = &self.transaction else {
            return self.refuse(Reply::new(503, "5.5.1", "Say MAIL first"));
        };
        if !matches!(transaction.chunked, Chunked::None) {
            // RFC 3030 §2: DATA and BDAT don't mix.
            return self.refuse(Reply::new(503, "5.5.1", "The message has begun with BDAT"));
        }
        if transaction.has_no_recipient() {
            return self.refuse(Reply::new(554, "5.5.1", "No valid recipients"));
        }
        self.answer(Reply::new(354, "", "End data with <CR><LF>.<CR><LF>"));
        self.start_data(now);
    }

    pub(super) fn new_buffer(transaction: &Transaction) -> MessageBuffer {
        let size_max = usize::try_from(transaction.policy.config.smtp.max_message_size.0).unwrap_or(usize::MAX);
        MessageBuffer::new(transaction.mail.size, size_max)
    }
}
