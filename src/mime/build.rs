//! A message from its parts: what `POST /v1/messages` and our own tools give as fields becomes RFC 5322.
//!
//! 1. Every value is checked: no CR, LF or NUL gets into a header by any way ([`BuildError`] names the field),
//! 2. the structure follows from what is there: text, HTML, both (alternative), images within the HTML (related), attachments
//!    (mixed),
//! 3. names and subjects are encoded (RFC 2047), attachments are base64, text is what survives 7 bits.
//!
//! The result has CRLF line ends, no line above 998 octets and, unless an address has a non-ASCII local part, only ASCII.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use mail_builder::MessageBuilder;
use mail_builder::headers::HeaderType;
use mail_builder::headers::address::Address as HeaderAddress;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::message_id::MessageId;
use mail_builder::headers::raw::Raw;
use mail_builder::headers::text::Text;
use mail_builder::mime::{BodyPart, MimePart};

use super::encode::{LINE_MAX, base64_lines};
use crate::types::{Mailbox, Timestamp};

/// The most custom header fields of a message.
pub const HEADERS_MAX: usize = 100;

/// The most attachments of a message.
pub const ATTACHMENTS_MAX: usize = 100;

/// The longest value of a header field, subject, name or file name, in octets of UTF-8.
pub const VALUE_MAX: usize = 8_192;

/// A mailbox with the name that is shown.
#[derive(Clone, PartialEq, Debug)]
pub struct Address {
    /// The name, in plain text.
    pub name: Option<String>,
    /// The address.
    pub mailbox: Mailbox,
}

/// A file that goes with a message.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Attachment {
    /// Its name.
    pub filename: Option<String>,
    /// Its media type, with parameters if any: `application/pdf`.
    pub content_type: String,
    /// Its octets.
    pub content: Vec<u8>,
    /// With it the file is part of the HTML, which shows it by `cid:` and this.
    pub content_id: Option<String>,
}

/// A message as fields.
#[derive(Clone, PartialEq, Debug)]
pub struct Message {
    /// The author.
    pub from: Address,
    /// The addressees.
    pub to: Vec<Address>,
    /// Those who get a copy.
    pub cc: Vec<Address>,
    /// Those who get a copy that nobody sees: recipients, but not in the header.
    pub bcc: Vec<Address>,
    /// Where answers go.
    pub reply_to: Vec<Address>,
    /// The subject, in plain text.
    pub subject: Option<String>,
    /// The text.
    pub text: Option<String>,
    /// The text as HTML.
    pub html: Option<String>,
    /// Further fields of the header.
    pub headers: Vec<(String, String)>,
    /// Files.
    pub attachments: Vec<Attachment>,
}

/// A value that can't be part of a message.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct BuildError {
    /// The field, as in the JSON: `subject`, `to[2].name`, `headers.X-Mine`, `attachments[0].content`.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
    /// Whether it is only its size that is wrong.
    pub too_large: bool,
}

pub(super) fn error(field: impl Into<String>, reason: impl Into<String>) -> BuildError {
    BuildError { field: field.into(), reason: reason.into(), too_large: false }
}

impl Message {
    /// All who get the message: to, cc and bcc, each address once.
    pub fn recipients(&self) -> Vec<&Mailbox> {
        let mut seen = std::collections::HashSet::new();
        let all = self.to.iter().chain(&self.cc).chain(&self.bcc).map(|address| &address.mailbox);
        all.filter(|mailbox| seen.insert(mailbox.canonical())).collect()
    }

    /// The message as octets, of at most `size_max`. `message_id` is `local@domain`, without angle brackets.
    pub fn build(&self, date: Timestamp, message_id: &str, size_max: u64) -> Result<Bytes, BuildError> {
        let content: usize = self.attachments.iter().map(|a| a.content.len()).sum();
        let texts = self.text.as_ref().map_or(0, String::len) + self.html.as_ref().map_or(0, String::len);
        let too_large = || BuildError {
            too_large: true,
            ..error("message", format!("it would be larger than {size_max} octets (smtp.max_message_size)"))
        };
        // Base64 makes four octets of three: what is too large can be refused before it is made.
        if (content / 3 * 4 + texts) as u64 > size_max {
            return Err(too_large());
        }
        let mut builder = MessageBuilder::new()
            .header("Date", Raw::new(date.rfc5322()))
            .message_id(MessageId::new(message_id.to_owned()))
            .from(address("from", &self.from)?);
        for (name, field, list) in
            [("To", "to", &self.to), ("Cc", "cc", &self.cc), ("Reply-To", "reply_to", &self.reply_to)]
        {
            if !list.is_empty() {
                builder = builder.header(name, HeaderType::Address(addresses(field, list)?));
            }
        }
        for (i, bcc) in self.bcc.iter().enumerate() {
            address(&format!("bcc[{i}]"), bcc)?;
        }
        if self.to.is_empty() && self.cc.is_empty() {
            // RFC 5322 allows no recipient field at all, but some filters hold it against a mail.
            builder = builder.header("To", Raw::new("undisclosed-recipients:;"));
        }
        if let Some(subject) = &self.subject {
            check_text("subject", subject)?;
            builder = builder.subject(subject.as_str());
        }
        for (name, value) in self.checked_headers()? {
            // What is ASCII may be structured (List-Unsubscribe) and is only folded; other text is encoded.
            let value: HeaderType<'_> = if value.is_ascii() { Raw::new(value).into() } else { Text::new(value).into() };
            builder = builder.header(name, value);
        }
        let mut octets = Vec::new();
        builder.body(self.body()?).serialize(&mut octets);
        if !octets.ends_with(b"\r\n") {
            octets.extend_from_slice(b"\r\n");
        }
        if octets.len() as u64 > size_max {
            return Err(too_large());
        }
        if let Some(line) = octets.split(|b| *b == b'\n').find(|line| line.len() > LINE_MAX + 1) {
            let begin = String::from_utf8_lossy(&line[..line.len().min(40)]).into_owned();
            return Err(error("message", format!("the line that begins with {begin:?} is longer than 998 octets")));
        }
        Ok(octets.into())
    }

    fn body(&self) -> Result<MimePart<'_>, BuildError> {
        if self.attachments.len() > ATTACHMENTS_MAX {
            return Err(error("attachments", format!("at most {ATTACHMENTS_MAX}")));
        }
        let mut inline = Vec::new();
        let mut attached = Vec::new();
        for (i, attachment) in self.attachments.iter().enumerate() {
            let part = attachment.part(&format!("attachments[{i}]"))?;
            if attachment.content_id.is_some() && self.html.is_some() { inline.push(part) } else { attached.push(part) }
        }
        let text = self.text.as_deref().map(|text| text_part("text", "text/plain", text)).transpose()?;
        let html = self.html.as_deref().map(|html| text_part("html", "text/html", html)).transpose()?;
        let html = html.map(|html| match inline.is_empty() {
            true => html,
            false => {
                let related = ContentType::new("multipart/related").attribute("type", "text/html");
                let parts: Vec<MimePart<'_>> = std::iter::once(html).chain(inline).collect();
                MimePart::new(related, parts)
            }
        });
        let body = match (text, html) {
            (Some(text), Some(html)) => Some(MimePart::new("multipart/alternative", vec![text, html])),
            (text, html) => text.or(html),
        };
        match body {
            Some(body) if attached.is_empty() => Ok(body),
            None if attached.is_empty() => Err(error("text", "a message needs text, html or an attachment")),
            body => Ok(MimePart::new("multipart/mixed", body.into_iter().chain(attached).collect::<Vec<_>>())),
        }
    }

    fn checked_headers(&self) -> Result<Vec<(&str, &str)>, BuildError> {
        if self.headers.len() > HEADERS_MAX {
            return Err(error("headers", format!("at most {HEADERS_MAX}")));
        }
        let mut checked: Vec<(&str, &str)> = Vec::with_capacity(self.headers.len());
        for (name, value) in &self.headers {
            let field = || format!("headers.{}", name.escape_debug());
            // RFC 5322 §2.2: printable ASCII but the colon.
            if name.is_empty() || name.len() > 76 || !name.bytes().all(|b| b.is_ascii_graphic() && b != b':') {
                return Err(error(field(), "a name has 1 to 76 printable ASCII characters, without a colon"));
            }
            if is_reserved(name) {
                return Err(error(field(), "this field is made by the server or from a field of the message"));
            }
            if checked.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
                return Err(error(field(), "given twice"));
            }
            check_value(&field(), value)?;
            checked.push((name, value.trim()));
        }
        Ok(checked)
    }
}

/// Whether a field is not free: one that the message's own fields make, that decides on delivery, or that others trust.
pub fn is_reserved(name: &str) -> bool {
    const NAMES: [&str; 15] = [
        "From",
        "To",
        "Cc",
        "Bcc",
        "Sender",
        "Reply-To",
        "Subject",
        "Date",
        "Message-ID",
        "MIME-Version",
        "Return-Path",
        "Received",
        "DKIM-Signature",
        "Authentication-Results",
        "Delivered-To",
    ];
    const PREFIXES: [&str; 3] = ["Content-", "Resent-", "ARC-"];
    let begins = |prefix: &&str| name.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix));
    NAMES.iter().any(|other| other.eq_ignore_ascii_case(name)) || PREFIXES.iter().any(begins)
}

/// A value for a header: on one line, of text that nobody takes for a line end.
fn check_value(field: &str, value: &str) -> Result<(), BuildError> {
    if value.len() > VALUE_MAX {
        return Err(error(field, format!("longer than {VALUE_MAX} octets")));
    }
    let is_forbidden = |c: char| (c.is_control() && c != '\t') || matches!(c, '\u{2028}' | '\u{2029}');
    match value.chars().find(|c| is_forbidden(*c)) {
        Some(c) => Err(error(field, format!("the character U+{:04X} is not allowed", c as u32))),
        None => Ok(()),
    }
}

/// A value that is plain text: it is encoded here, so what looks encoded already would be shown as something else.
fn check_text(field: &str, text: &str) -> Result<(), BuildError> {
    check_value(field, text)?;
    if text.find("=?").is_some_and(|at| text[at + 2..].contains("?=")) {
        return Err(error(field, "give plain text; encoded words (RFC 2047) are made by the server"));
    }
    Ok(())
}

fn address<'x>(field: &str, address: &'x Address) -> Result<HeaderAddress<'x>, BuildError> {
    let name = address.name.as_deref().map(str::trim).filter(|name| !name.is_empty());
    if let Some(name) = name {
        check_text(&format!("{field}.name"), name)?;
    }
    // An ASCII local part at an internationalised domain needs no SMTPUTF8 when the domain is in A-labels.
    let mailbox = address.mailbox.for_wire(address.mailbox.needs_smtputf8());
    Ok(HeaderAddress::new_address(name, mailbox))
}

fn addresses<'x>(field: &str, list: &'x [Address]) -> Result<HeaderAddress<'x>, BuildError> {
    let list = list.iter().enumerate().map(|(i, item)| address(&format!("{field}[{i}]"), item));
    Ok(HeaderAddress::new_list(list.collect::<Result<_, _>>()?))
}

fn text_part<'x>(field: &str, media_type: &'static str, text: &'x str) -> Result<MimePart<'x>, BuildError> {
    if text.contains('\0') {
        return Err(error(field, "the character U+0000 is not allowed"));
    }
    // Whatever ends lines in the text, on the wire it is CRLF.
    let text: std::borrow::Cow<'x, str> = match text.contains('\r') {
        true => text.replace("\r\n", "\n").replace('\r', "\n").into(),
        false => text.into(),
    };
    Ok(MimePart::new(media_type, BodyPart::Text(text)))
}

impl Attachment {
    /// The octets of an attachment given in base64, with or without line ends; `field` is named in the error.
    pub fn decode(field: &str, base64: &str) -> Result<Vec<u8>, BuildError> {
        let bad = |e: base64::DecodeError| error(field, format!("not base64 (RFC 4648 §4): {e}"));
        if base64.bytes().any(|b| b.is_ascii_whitespace()) {
            let packed: String = base64.split_ascii_whitespace().collect();
            return STANDARD.decode(packed).map_err(bad);
        }
        STANDARD.decode(base64).map_err(bad)
    }

    /// The file as a part: its fields and its content in base64. `field` is named in the error.
    pub(super) fn part(&self, field: &str) -> Result<MimePart<'_>, BuildError> {
        let mut content_type = media_type(&format!("{field}.content_type"), &self.content_type)?;
        if let Some(name) = &self.filename {
            let field = format!("{field}.filename");
            check_text(&field, name)?;
            // Old mail programs look here only.
            content_type = content_type.attribute("name", name.as_str());
        }
        let mut disposition = ContentType::new(if self.content_id.is_some() { "inline" } else { "attachment" });
        if let Some(name) = &self.filename {
            disposition = disposition.attribute("filename", name.as_str());
        }
        let mut encoded = Vec::with_capacity(self.content.len() / 57 * 78 + 80);
        base64_lines(&self.content, &mut encoded);
        let mut part =
            MimePart::new(content_type, encoded).transfer_encoding("base64").header("Content-Disposition", disposition);
        if let Some(id) = &self.content_id {
            let ok = |b: u8| b.is_ascii_graphic() && !matches!(b, b'<' | b'>' | b'"' | b'(' | b')');
            if id.is_empty() || id.len() > 200 || !id.bytes().all(ok) {
                let reason = "1 to 200 printable ASCII characters, without spaces, quotes, brackets and parentheses";
                return Err(error(format!("{field}.content_id"), reason));
            }
            part = part.cid(id.as_str());
        }
        Ok(part)
    }
}

/// A media type with parameters (RFC 2045 §5.1), taken apart so that nothing else gets into the field.
fn media_type(field: &str, text: &str) -> Result<ContentType<'static>, BuildError> {
    check_value(field, text)?;
    let is_token =
        |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&b));
    let bad = || error(field, "not a media type as application/pdf or text/csv; charset=utf-8 (RFC 2045 §5.1)");
    let mut parts = text.split(';');
    let essence = parts.next().unwrap_or("").trim().to_ascii_lowercase();
    let (main, sub) = essence.split_once('/').ok_or_else(bad)?;
    if !is_token(main) || !is_token(sub) {
        return Err(bad());
    }
    if matches!(main, "multipart" | "message") {
        // RFC 2046 §5.2.1: these may not be base64.
        return Err(error(field, "multipart and message types can't be attached; use application/octet-stream"));
    }
    let mut content_type = ContentType::new(essence.clone());
    for parameter in parts {
        let (name, value) = parameter.split_once('=').ok_or_else(bad)?;
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
        if !is_token(&name) || value.is_empty() || value.contains(['"', '\\']) || name == "name" {
            return Err(bad());
        }
        content_type = content_type.attribute(name, value.to_owned());
    }
    Ok(content_type)
}

#[cfg(test)]
mod tests;
