//! From what came in on standard input to an envelope and the octets to send.

use mail_parser::{Address, MessageParser};

use crate::types::Mailbox;

/// What the arguments ask for.
pub(super) struct Asked<'a> {
    pub from: Option<&'a str>,
    pub full_name: Option<&'a str>,
    pub recipients: &'a [String],
    pub read_recipients: bool,
    /// Whether a line with a single dot ends the message.
    pub dot_ends: bool,
}

/// An envelope and its message, with CRLF line ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Prepared {
    /// The reverse-path; empty for null.
    pub from: String,
    pub recipients: Vec<String>,
    pub data: Vec<u8>,
    pub is_8bit: bool,
    pub needs_smtputf8: bool,
}

/// Makes the envelope and the message; an error is in words for the user.
pub(super) fn prepare(raw: &[u8], asked: &Asked<'_>) -> Result<Prepared, String> {
    let text = lines(raw, asked.dot_ends);
    let (fields, body) = split(&text);
    let header: Vec<u8> = fields.concat();
    let parsed = MessageParser::default().parse_headers(header.as_slice());
    let parsed = parsed.as_ref();
    let mut recipients: Vec<String> = asked.recipients.to_vec();
    if asked.read_recipients {
        for address in [parsed.and_then(|m| m.to()), parsed.and_then(|m| m.cc()), parsed.and_then(|m| m.bcc())] {
            recipients.extend(addresses(address));
        }
    }
    if recipients.is_empty() {
        return Err("no recipients: name them, or use -t and a To field".into());
    }
    let mut needs_smtputf8 = false;
    for recipient in &recipients {
        let mailbox = Mailbox::parse(recipient).map_err(|e| format!("recipient {recipient:?}: {e}"))?;
        needs_smtputf8 |= !mailbox.as_str().is_ascii();
    }
    let from = match asked.from.map(|from| from.trim_start_matches('<').trim_end_matches('>')) {
        Some(from) => from.to_owned(),
        None => addresses(parsed.and_then(|m| m.from())).next().ok_or("no sender: use -f, or a From field")?,
    };
    if !from.is_empty() {
        let mailbox = Mailbox::parse(&from).map_err(|e| format!("sender {from:?}: {e}"))?;
        needs_smtputf8 |= !mailbox.as_str().is_ascii();
    }
    let mut data = Vec::with_capacity(text.len() + 100);
    if !fields.iter().any(|field| is_named(field, "from")) {
        if from.is_empty() {
            return Err("no From field, and no sender to make one of".into());
        }
        data.extend_from_slice(from_field(asked.full_name, &from)?.as_bytes());
    }
    for field in fields.iter().filter(|field| !(asked.read_recipients && is_named(field, "bcc"))) {
        data.extend_from_slice(field);
    }
    data.extend_from_slice(b"\r\n");
    data.extend_from_slice(body);
    let is_8bit = !data.is_ascii();
    dedupe(&mut recipients);
    Ok(Prepared { from, recipients, data, is_8bit, needs_smtputf8 })
}

/// The text with CRLF at each line end; a lone LF is a line end here, as in any Unix file.
fn lines(raw: &[u8], dot_ends: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len() + raw.len() / 32);
    for line in raw.split_inclusive(|b| *b == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if dot_ends && text == b"." {
            break;
        }
        out.extend_from_slice(text);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Header fields, each with its continuation lines and line ends, and the body. An mbox `From ` line is left out. Where
/// a line is no field the body has begun: a message without header fields is all body.
fn split(text: &[u8]) -> (Vec<Vec<u8>>, &[u8]) {
    let mut fields: Vec<Vec<u8>> = Vec::new();
    let mut at = 0;
    for line in text.split_inclusive(|b| *b == b'\n') {
        if line == b"\r\n" {
            return (fields, &text[at + line.len()..]);
        }
        let name = line.split(|b| *b == b':').next().unwrap_or(b"");
        let is_field = name.len() < line.len() && !name.is_empty() && name.iter().all(|b| (33..=126).contains(b));
        match line[0] {
            b' ' | b'\t' if !fields.is_empty() => {
                if let Some(last) = fields.last_mut() {
                    last.extend_from_slice(line);
                }
            }
            _ if at == 0 && line.starts_with(b"From ") => {}
            _ if is_field => fields.push(line.to_vec()),
            _ => return (fields, &text[at..]),
        }
        at += line.len();
    }
    (fields, &[])
}

fn is_named(field: &[u8], name: &str) -> bool {
    field.split(|b| *b == b':').next().is_some_and(|found| found.eq_ignore_ascii_case(name.as_bytes()))
}

fn addresses(address: Option<&Address<'_>>) -> impl Iterator<Item = String> {
    address.into_iter().flat_map(|address| address.iter()).filter_map(|addr| addr.address()).map(str::to_owned)
}

/// Two spellings of one address get one copy.
fn dedupe(recipients: &mut Vec<String>) {
    let mut seen = std::collections::HashSet::new();
    recipients.retain(|recipient| Mailbox::parse(recipient).is_ok_and(|mailbox| seen.insert(mailbox.canonical())));
}

fn from_field(name: Option<&str>, address: &str) -> Result<String, String> {
    match name {
        None => Ok(format!("From: {address}\r\n")),
        Some(name) if name.chars().any(char::is_control) => Err("the full name has control characters".into()),
        Some(name) if !name.is_ascii() => Err("the full name is not ASCII: write the From field yourself".into()),
        Some(name) => {
            let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
            Ok(format!("From: \"{quoted}\" <{address}>\r\n"))
        }
    }
}
