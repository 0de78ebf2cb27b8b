//! Delivery status notifications (RFC 3464; RFC 6533 for international addresses).
//!
//! 1. The header: From MAILER-DAEMON, To the reverse-path, Auto-Submitted (RFC 3834), the reference to the original,
//! 2. part one for people: which recipient, what the server said, what helps,
//! 3. part two for programs: `message/delivery-status`,
//! 4. part three: the original, whole where RET=FULL asked for it and something failed, else its header.
//!
//! Who gets one at all is decided before: never a null reverse-path, and only what NOTIFY asks for. Everything that comes from
//! outside (replies, ENVID, ORCPT, the original's header) is printed so that it can't end a line or a part.
//!
//! A report to an address with an ASCII local part is ASCII throughout, but for a returned message with an 8-bit body; one to an
//! international address uses the `message/global` forms and needs SMTPUTF8.

use bytes::Bytes;

use super::{words, xtext};
use crate::event::SmtpReply;
use crate::mime::encode::{is_plain_text, quoted_printable};
use crate::types::{Mailbox, Ret, Timestamp};

/// The largest message that is returned whole, in octets; of a larger one the header is.
pub const FULL_MAX: usize = 1 << 20;

/// How much of a header is returned, in octets; it is cut at the end of a line.
pub const HEADER_MAX: usize = 64 << 10;

/// The length at which fields are folded and text is wrapped.
const WRAP: usize = 76;

/// What became of a recipient (RFC 3464 §2.3.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Action {
    /// Given up, or refused for good.
    Failed,
    /// Still being tried.
    Delayed,
    /// Delivered.
    Delivered,
    /// Handed to a server that does not report.
    Relayed,
    /// Handed to a mailing list.
    Expanded,
}

impl Action {
    /// The value of the field.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Failed => "failed",
            Action::Delayed => "delayed",
            Action::Delivered => "delivered",
            Action::Relayed => "relayed",
            Action::Expanded => "expanded",
        }
    }

    /// The class of the status code that goes with it.
    fn class(self) -> u8 {
        match self {
            Action::Failed => b'5',
            Action::Delayed => b'4',
            Action::Delivered | Action::Relayed | Action::Expanded => b'2',
        }
    }
}

/// One recipient of a report.
#[derive(Clone, Debug)]
pub struct Recipient<'a> {
    /// `ORCPT`, in xtext with its type, as the submitter gave it.
    pub orcpt: Option<&'a str>,
    /// The address that was tried.
    pub mailbox: &'a Mailbox,
    /// What became of it.
    pub action: Action,
    /// The last reply: the peer's, or our own words.
    pub reply: Option<&'a SmtpReply>,
    /// Whether the peer said it.
    pub remote: bool,
    /// The host that was tried.
    pub host: Option<&'a str>,
    /// The last attempt.
    pub last_attempt: Option<Timestamp>,
    /// Until when it will be tried; for [`Action::Delayed`].
    pub retry_until: Option<Timestamp>,
}

/// All that a report is made from.
#[derive(Clone, Debug)]
pub struct Report<'a> {
    /// Our name: Reporting-MTA, and the domain of MAILER-DAEMON.
    pub hostname: &'a str,
    /// The reverse-path of the original.
    pub to: &'a Mailbox,
    /// The report's Message-ID, without angle brackets; also the stuff of its boundary, so it must be new and unguessable.
    pub message_id: &'a str,
    /// When the report is made.
    pub now: Timestamp,
    /// `ENVID` of the original, in xtext.
    pub envid: Option<&'a str>,
    /// When the original was accepted.
    pub arrival: Timestamp,
    /// `RET` of the original.
    pub ret: Option<Ret>,
    /// The original.
    pub original: &'a [u8],
    /// Those it tells of: at least one; at most those of one transaction.
    pub recipients: &'a [Recipient<'a>],
}

/// A report, ready to be queued.
#[derive(Clone, PartialEq, Debug)]
pub struct Dsn {
    /// RFC 5322 with CRLF line ends.
    pub octets: Bytes,
    /// Whether it needs SMTPUTF8.
    pub smtputf8: bool,
    /// Whether it needs 8BITMIME.
    pub eight_bit: bool,
}

/// Writes a report.
pub fn write(report: &Report<'_>) -> Dsn {
    // What is worst names the report: `Action` is ordered so.
    let action = report.recipients.iter().map(|r| r.action).min().unwrap_or(Action::Failed);
    let global = report.to.needs_smtputf8();
    let boundary = boundary(report.message_id);
    let mut out = Vec::with_capacity(4_096);
    write_header(report, action, &boundary, &mut out);
    write_for_people(report, action, &boundary, &mut out);
    write_for_programs(report, global, &boundary, &mut out);
    write_original(report, action, global, &boundary, &mut out);
    out.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    let eight_bit = !out.is_ascii();
    Dsn { octets: out.into(), smtputf8: global, eight_bit }
}

/// The status code of a recipient: the peer's where it is one and its class agrees, else what the SMTP code stands for.
pub fn status(action: Action, reply: Option<&SmtpReply>) -> String {
    let class = char::from(action.class());
    let given = reply.and_then(|reply| reply.enhanced.as_deref()).filter(|text| is_status(text));
    match given {
        Some(text) if text.starts_with(class) => text.to_owned(),
        // A deferral that was tried until it expired: its reason stands, under the class of what became of it.
        Some(text) if text.starts_with('4') && action == Action::Failed => format!("5{}", &text[1..]),
        // RFC 3463 §2: the class must agree with what happened; a peer that says otherwise is not believed.
        Some(_) | None => format!("{class}.0.0"),
    }
}

/// `class.subject.detail` (RFC 3463 §2).
fn is_status(text: &str) -> bool {
    let mut parts = text.split('.');
    let class_ok = matches!(parts.next(), Some("2" | "4" | "5"));
    let number_ok =
        |part: Option<&str>| part.is_some_and(|p| matches!(p.len(), 1..=3) && p.bytes().all(|b| b.is_ascii_digit()));
    class_ok && number_ok(parts.next()) && number_ok(parts.next()) && parts.next().is_none()
}

fn boundary(message_id: &str) -> String {
    // RFC 2046 §5.1.1: at most 70 characters of a small set. `=_` can't occur in quoted-printable.
    let unique: String = message_id.chars().filter(char::is_ascii_alphanumeric).take(56).collect();
    format!("=_dsn_{unique}")
}

fn write_header(report: &Report<'_>, action: Action, boundary: &str, out: &mut Vec<u8>) {
    let to = report.to.for_wire(report.to.needs_smtputf8());
    let mut field = |name: &str, value: &str| write_field(name, value, out);
    field("From", &format!("Mail Delivery System <MAILER-DAEMON@{}>", report.hostname));
    field("To", &format!("<{to}>"));
    field("Subject", words::subject(action));
    field("Date", &report.now.rfc5322());
    field("Message-ID", &format!("<{}>", report.message_id));
    if let Some(id) = original_message_id(report.original) {
        field("In-Reply-To", &id);
        field("References", &id);
    }
    // RFC 3834 §5: so that no responder answers it.
    field("Auto-Submitted", "auto-replied");
    field("MIME-Version", "1.0");
    out.extend_from_slice(
        format!("Content-Type: multipart/report; report-type=delivery-status;\r\n boundary=\"{boundary}\"\r\n\r\n")
            .as_bytes(),
    );
}

fn write_for_people(report: &Report<'_>, action: Action, boundary: &str, out: &mut Vec<u8>) {
    let mut text = format!("This is the mail system at {}.\r\n\r\n{}", report.hostname, words::opening(action));
    if let Some(subject) = field_of(header_of(report.original), "Subject") {
        let subject: String = mail_parser::MessageParser::new()
            .parse_headers([b"Subject: ", subject, b"\r\n\r\n"].concat().as_slice())
            .and_then(|m| m.subject().map(|s| s.chars().filter(|c| !c.is_control()).take(200).collect()))
            .unwrap_or_default();
        if !subject.is_empty() {
            text.push_str(&format!("\r\n    Subject: {subject}"));
        }
    }
    text.push_str(&format!("\r\n    Sent:    {}\r\n", report.arrival.rfc5322()));
    for recipient in report.recipients {
        text.push_str(&format!("\r\n<{}>\r\n", recipient.mailbox));
        wrap(&words::happened(recipient), &mut text);
        wrap(words::advice(&status(recipient.action, recipient.reply), recipient.action), &mut text);
        if let (Action::Delayed, Some(until)) = (recipient.action, recipient.retry_until) {
            wrap(&format!("It is tried until {}.", until.rfc5322()), &mut text);
        }
    }
    text.push_str("\r\nThe technical details and the message, or its header, are attached.\r\n");
    out.extend_from_slice(format!("--{boundary}\r\nContent-Description: Notification\r\n").as_bytes());
    write_text_part("text/plain; charset=utf-8", text.as_bytes(), out);
}

/// The type, the transfer encoding that the text needs, and the text.
fn write_text_part(content_type: &str, text: &[u8], out: &mut Vec<u8>) {
    let plain = is_plain_text(text);
    let encoding = if plain { "7bit" } else { "quoted-printable" };
    out.extend_from_slice(
        format!("Content-Type: {content_type}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n").as_bytes(),
    );
    if plain { out.extend_from_slice(text) } else { quoted_printable(text, out) }
}

fn write_for_programs(report: &Report<'_>, global: bool, boundary: &str, out: &mut Vec<u8>) {
    let (kind, encoding) = if global { ("global-delivery-status", "8bit") } else { ("delivery-status", "7bit") };
    out.extend_from_slice(
        format!(
            "\r\n--{boundary}\r\nContent-Description: Delivery report\r\nContent-Type: message/{kind}\r\n\
             Content-Transfer-Encoding: {encoding}\r\n\r\n"
        )
        .as_bytes(),
    );
    write_field("Reporting-MTA", &format!("dns; {}", report.hostname), out);
    if let Some(envid) = report.envid {
        write_field("Original-Envelope-Id", &xtext::decode(envid), out);
    }
    write_field("Arrival-Date", &report.arrival.rfc5322(), out);
    for recipient in report.recipients {
        out.extend_from_slice(b"\r\n");
        write_recipient(recipient, global, out);
    }
}

fn write_recipient(recipient: &Recipient<'_>, global: bool, out: &mut Vec<u8>) {
    if let Some((kind, address)) = recipient.orcpt.and_then(|orcpt| orcpt.split_once(';'))
        && !kind.is_empty()
        && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    {
        write_field("Original-Recipient", &format!("{kind}; {}", xtext::decode(address)), out);
    }
    write_field("Final-Recipient", &final_recipient(recipient.mailbox, global), out);
    write_field("Action", recipient.action.as_str(), out);
    write_field("Status", &status(recipient.action, recipient.reply), out);
    if let (true, Some(host)) = (recipient.remote, recipient.host) {
        write_field("Remote-MTA", &format!("dns; {}", printable(host)), out);
    }
    if let Some(reply) = recipient.reply {
        let enhanced = reply.enhanced.as_deref().map_or(String::new(), |e| format!("{e} "));
        let text = if recipient.remote && reply.code > 0 {
            format!("smtp; {} {enhanced}{}", reply.code, reply.text)
        } else {
            // RFC 3464 §2.1.2: a type beginning with X- for words that are no SMTP reply.
            format!("x-posthaste; {enhanced}{}", reply.text)
        };
        write_field("Diagnostic-Code", &printable(&text), out);
    }
    if let Some(at) = recipient.last_attempt {
        write_field("Last-Attempt-Date", &at.rfc5322(), out);
    }
    if let (Action::Delayed, Some(until)) = (recipient.action, recipient.retry_until) {
        write_field("Will-Retry-Until", &until.rfc5322(), out);
    }
}

/// RFC 6533 §3: an international address as it is in the global form, else escaped in ASCII.
fn final_recipient(mailbox: &Mailbox, global: bool) -> String {
    if !mailbox.needs_smtputf8() {
        return format!("rfc822; {}", mailbox.for_wire(false));
    }
    if global {
        return format!("utf-8; {mailbox}");
    }
    let escape = |c: char| match c {
        // RFC 6533 §3, utf-8-addr-xtext: these have a meaning there.
        '+' | '=' | '\\' => format!("\\x{{{:02X}}}", c as u32),
        '!'..='~' => c.to_string(),
        _ => format!("\\x{{{:X}}}", c as u32),
    };
    format!("utf-8; {}@{}", mailbox.local_part().chars().map(escape).collect::<String>(), mailbox.domain())
}

fn write_original(report: &Report<'_>, action: Action, global: bool, boundary: &str, out: &mut Vec<u8>) {
    let header = header_of(report.original);
    let ascii = header.is_ascii();
    // RFC 3461 §4.3: the whole message only where a failure is among what is reported.
    let full = report.ret == Some(Ret::Full)
        && action == Action::Failed
        && report.original.len() <= FULL_MAX
        && header.len() <= HEADER_MAX
        && (ascii || global);
    out.extend_from_slice(format!("\r\n--{boundary}\r\n").as_bytes());
    if full {
        let kind = if ascii { "rfc822" } else { "global" };
        let encoding = if report.original.is_ascii() { "7bit" } else { "8bit" };
        out.extend_from_slice(
            format!(
                "Content-Description: Undelivered message\r\nContent-Type: message/{kind}\r\n\
                 Content-Transfer-Encoding: {encoding}\r\n\r\n"
            )
            .as_bytes(),
        );
        out.extend_from_slice(report.original);
        return;
    }
    let header = &header[..cut(header, HEADER_MAX)];
    out.extend_from_slice(b"Content-Description: Message header\r\n");
    match (ascii, global) {
        (true, _) => write_text_part("text/rfc822-headers", header, out),
        (false, true) => write_text_part("message/global-headers", header, out),
        (false, false) => write_text_part("text/rfc822-headers; charset=utf-8", header, out),
    }
}

/// The fields of a message, without the empty line behind them.
fn header_of(message: &[u8]) -> &[u8] {
    if message.starts_with(b"\r\n") {
        return &[];
    }
    memchr::memmem::find(message, b"\r\n\r\n").map_or(message, |at| &message[..at + 2])
}

/// The raw value of the first field with this name.
fn field_of<'a>(header: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut at = 0;
    while at < header.len() {
        let mut end = at;
        loop {
            end += memchr::memchr(b'\n', &header[end..]).map_or(header.len() - end, |lf| lf + 1);
            if !matches!(header.get(end), Some(b' ' | b'\t')) {
                break;
            }
        }
        let field = &header[at..end];
        if field.get(name.len()) == Some(&b':') && field[..name.len()].eq_ignore_ascii_case(name.as_bytes()) {
            return Some(field[name.len() + 1..].trim_ascii());
        }
        at = end;
    }
    None
}

/// The original's Message-ID with its brackets, where it is one that can be repeated.
fn original_message_id(original: &[u8]) -> Option<String> {
    let value = std::str::from_utf8(field_of(header_of(original), "Message-ID")?).ok()?;
    let inner = value.strip_prefix('<')?.strip_suffix('>')?;
    let ok =
        inner.len() <= 500 && inner.contains('@') && inner.bytes().all(|b| b.is_ascii_graphic() && !b"<>".contains(&b));
    ok.then(|| value.to_owned())
}

/// How much of `octets`, at most `max`, ends with a line end.
fn cut(octets: &[u8], max: usize) -> usize {
    if octets.len() <= max { octets.len() } else { memchr::memrchr(b'\n', &octets[..max]).map_or(0, |lf| lf + 1) }
}

/// ASCII on one line: what a field of the report can hold.
fn printable(text: &str) -> String {
    text.chars().map(|c| if matches!(c, ' '..='~') { c } else { '?' }).collect()
}

/// A field, folded at spaces so that its lines stay within [`WRAP`] where there are spaces. A CR or LF in the value becomes `?`.
fn write_field(name: &str, value: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.push(b':');
    let mut column = name.len() + 1;
    for word in value.split(' ').filter(|word| !word.is_empty()) {
        if column + 1 + word.len() > WRAP && column > name.len() + 1 {
            out.extend_from_slice(b"\r\n");
            column = 0;
        }
        out.push(b' ');
        out.extend(word.bytes().map(|b| if matches!(b, b'\r' | b'\n' | 0) { b'?' } else { b }));
        column += 1 + word.len();
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends a sentence in lines of at most [`WRAP`], indented.
fn wrap(sentence: &str, text: &mut String) {
    let mut column = 0;
    for word in sentence.split_whitespace() {
        // A word of a reply can be as long as the reply; bidirectional and other controls could disguise the rest.
        let word: String = word.chars().filter(|c| !c.is_control() && !is_disguise(*c)).collect();
        let width = word.chars().count();
        if column == 0 {
            text.push_str("    ");
            column = 4;
        } else if column + 1 + width > WRAP {
            text.push_str("\r\n    ");
            column = 4;
        } else {
            text.push(' ');
            column += 1;
        }
        text.push_str(&word);
        column += width;
    }
    if column > 0 {
        text.push_str("\r\n");
    }
}

/// Characters that change the direction of what follows, or end a line for somebody.
fn is_disguise(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests;
