//! A mail in its parts: header, text for people, report for programs, and the header of what it encloses.

use std::sync::LazyLock;

use mail_parser::decoders::html::html_to_text;
use mail_parser::{Message, MessageParser, MimeHeaders, PartType};
use regex::Regex;

/// The most parts that are looked at.
const PARTS_MAX: usize = 200;
/// The most header fields of one header that are looked at.
const FIELDS_MAX: usize = 500;
/// The longest text that is looked at, in octets.
const TEXT_MAX: usize = 64 << 10;

/// Header fields: lowercase names, unfolded values, in their order.
pub type Fields = Vec<(String, String)>;

/// A mail in its parts.
#[derive(Debug, Default)]
pub struct Mail {
    /// Its own header.
    pub fields: Fields,
    /// Its subject, decoded.
    pub subject: Option<String>,
    /// The address of its author.
    pub from: Option<String>,
    /// All text for people, in order, without what is enclosed.
    pub text: String,
    /// The `message/delivery-status` of RFC 3464.
    pub status: Option<String>,
    /// The `message/feedback-report` of RFC 5965.
    pub feedback: Option<String>,
    /// The header of the message that it encloses.
    pub original: Fields,
}

impl Mail {
    /// Takes a mail apart. What can't be read is left out.
    pub fn parse(octets: &[u8]) -> Self {
        // An mbox line in front is no part of the header.
        let octets = match octets.strip_prefix(b"From ") {
            Some(rest) => rest.iter().position(|b| *b == b'\n').map_or(rest, |end| &rest[end + 1..]),
            None => octets,
        };
        let head = String::from_utf8_lossy(&octets[..head_len(octets)]).into_owned();
        let mut mail = Self { fields: fields(&head), ..Self::default() };
        let Some(message) = MessageParser::default().parse(octets) else {
            mail.text = cut(&String::from_utf8_lossy(octets));
            return mail;
        };
        mail.subject = message.subject().map(str::to_owned).or_else(|| mail.field("subject").map(str::to_owned));
        mail.from = message.from().and_then(|a| a.first()).and_then(|a| a.address()).map(str::to_owned);
        mail.take_parts(&message);
        if mail.text.trim().is_empty() && mail.status.is_none() && mail.feedback.is_none() {
            // Its structure is broken: what is there is better than nothing.
            let body = String::from_utf8_lossy(&octets[head_len(octets)..]).into_owned();
            mail.add_text(&body);
        }
        mail.cut_enclosed();
        mail.cut_at_separator();
        mail.find_status_in_text();
        mail
    }

    fn take_parts(&mut self, message: &Message<'_>) {
        for part in message.parts.iter().take(PARTS_MAX) {
            let kind = part
                .content_type()
                .map(|t| (t.ctype().to_ascii_lowercase(), t.subtype().unwrap_or_default().to_ascii_lowercase()));
            let kind = kind.as_ref().map(|(main, sub)| (main.as_str(), sub.as_str()));
            match (&part.body, kind) {
                (_, Some(("message", "delivery-status" | "global-delivery-status"))) => {
                    add(&mut self.status, part.contents())
                }
                (_, Some(("message", "feedback-report"))) => add(&mut self.feedback, part.contents()),
                (
                    _,
                    Some(
                        ("text", "rfc822-headers" | "rfc822-header") | ("message", "rfc822-headers" | "global-headers"),
                    ),
                ) => {
                    self.enclose(&String::from_utf8_lossy(part.contents()));
                }
                (PartType::Message(inner), _) => self.enclose(&head_of(
                    &inner.raw_message
                        [inner.raw_message.len().min(inner.parts.first().map_or(0, |p| p.offset_header as usize))..],
                )),
                (_, Some(("message", _))) => self.enclose(&head_of(part.contents())),
                (PartType::Text(text), _) if self.text.len() < TEXT_MAX => {
                    // A part without a content type may be what is enclosed, put there without the header of a part.
                    let own: Vec<String> = part.headers.iter().map(|h| h.name.as_str().to_ascii_lowercase()).collect();
                    let enclosed = kind.is_none() && own.iter().any(|n| n == "received" || n == "message-id");
                    if enclosed && part.offset_header > 0 {
                        let head = &message.raw_message[part.offset_header as usize..part.offset_body as usize];
                        self.enclose(&String::from_utf8_lossy(head));
                    } else {
                        self.add_text(text);
                    }
                }
                (PartType::Html(html), _) if self.text.trim().is_empty() => self.add_text(&html_to_text(&cut(html))),
                _ => {}
            }
        }
    }

    fn add_text(&mut self, text: &str) {
        let text = cut(text).replace("\r\n", "\n");
        // Somebody forwards what he got.
        let quoted = text.lines().filter(|line| line.starts_with('>')).count();
        let bare = |line: &str| line.strip_prefix("> ").or_else(|| line.strip_prefix('>')).unwrap_or(line).to_owned();
        match quoted * 3 > text.lines().filter(|line| !line.trim().is_empty()).count() {
            true => self.text.extend(text.lines().map(|line| bare(line) + "\n")),
            false => self.text.push_str(&text),
        }
        self.text.push('\n');
    }

    fn enclose(&mut self, head: &str) {
        if self.original.is_empty() {
            self.original = fields(head);
        }
    }

    /// Many mailers put what they return into the text: its header begins where several fields of a message follow one another.
    fn cut_enclosed(&mut self) {
        static FIELD: LazyLock<Regex> = LazyLock::new(|| {
            Regex::new(r"^(?:> ?)?([A-Za-z][A-Za-z0-9-]{1,40}):(?: |\t|$|[^/\s])").expect("a valid pattern")
        });
        const KNOWN: [&str; 8] =
            ["received", "from", "to", "subject", "date", "message-id", "return-path", "mime-version"];
        let lines: Vec<&str> = self.text.lines().collect();
        let name = |line: &str| FIELD.captures(line).map(|found| found[1].to_ascii_lowercase());
        let mut at = 0;
        while at < lines.len() {
            let Some(first) = name(lines[at]) else {
                at += 1;
                continue;
            };
            let block = lines[at..]
                .iter()
                .take_while(|line| name(line).is_some() || line.starts_with([' ', '\t', '>']))
                .count();
            let names: Vec<String> = lines[at..at + block].iter().filter_map(|line| name(line)).collect();
            let known = KNOWN.iter().filter(|known| names.iter().any(|n| n == *known)).count();
            let begins = KNOWN.contains(&first.as_str())
                || first.starts_with("x-")
                || first.ends_with("signature")
                || first.ends_with("spf");
            if known >= 3
                && begins
                && names
                    .iter()
                    .any(|n| matches!(n.as_str(), "received" | "message-id" | "mime-version" | "return-path"))
            {
                let head: Vec<&str> = lines[at..at + block].iter().map(|l| l.strip_prefix("> ").unwrap_or(l)).collect();
                let head = head.join("\n");
                let text = lines[..at].join("\n");
                self.enclose(&head);
                self.text = text;
                return;
            }
            at += block.max(1);
        }
    }

    /// What stands behind a line that says so is the message that came back.
    fn cut_at_separator(&mut self) {
        static LINE: LazyLock<Regex> = LazyLock::new(|| {
            Regex::new(concat!(
                r"(?i)^[-=\s*_#+>]*(?:below this line is|(?:this|included|attached|here) is a copy of|(?:your |the )?(?:original|returned|unsent|undelivered|following) message",
                r"(?: (?:follows|headers?|is attached|below)|[-=\s*_#:.]*$)|message headers? follow|header of (?:the |your )?(?:original )?message|copy of (?:the )?(?:original )?message|original message$)"
            ))
            .expect("a valid pattern")
        });
        let at = self.text.lines().position(|line| LINE.is_match(line)).filter(|at| *at > 0);
        if let Some(at) = at {
            self.text = self.text.lines().take(at).collect::<Vec<_>>().join("\n");
        }
    }

    /// Mailers and archives that break the structure leave the delivery status in the text.
    fn find_status_in_text(&mut self) {
        if self.status.is_some() {
            return;
        }
        let field =
            |line: &str| line.trim_start().get(..16).is_some_and(|head| head.eq_ignore_ascii_case("final-recipient:"));
        let lines: Vec<&str> = self.text.lines().collect();
        let Some(at) = lines.iter().position(|line| field(line)) else { return };
        let from =
            lines[..at].iter().rposition(|line| line.trim_start().to_ascii_lowercase().starts_with("reporting-mta:"));
        let status: Vec<&str> =
            lines[from.unwrap_or(at)..].iter().map(|line| if field(line) { line.trim_start() } else { line }).collect();
        self.status = Some(status.join("\n"));
        self.text = lines[..from.unwrap_or(at)].join("\n");
    }

    /// The first field of this (lowercase) name.
    pub fn field(&self, name: &str) -> Option<&str> {
        get(&self.fields, name)
    }

    /// The first field of this (lowercase) name in the message that it encloses.
    pub fn original(&self, name: &str) -> Option<&str> {
        get(&self.original, name)
    }

    /// The Message-ID of the message that it is about.
    pub fn original_message_id(&self) -> Option<String> {
        let replied = || self.field("in-reply-to").or_else(|| self.field("references"));
        let text = self.original("message-id").or_else(replied)?;
        let from = text.find('<')?;
        let to = text[from..].find('>')?;
        Some(text[from..=from + to].to_owned())
    }

    /// The addresses that may be the return path of what it encloses.
    pub fn return_paths(&self) -> Vec<String> {
        let names = ["return-path", "x-envelope-from", "errors-to", "sender", "x-original-return-path"];
        names.iter().filter_map(|name| self.original(name)).flat_map(super::text::addresses).collect()
    }

    /// The host that sends it.
    pub fn reported_by(&self) -> Option<String> {
        let from = self.from.as_deref().or_else(|| self.field("return-path"))?;
        let domain = from.rsplit_once('@')?.1.trim_end_matches('>').trim();
        (!domain.is_empty()).then(|| domain.to_owned())
    }

    /// Whether it asks to be taken off a list: by the subject, or by where it goes.
    pub fn is_unsubscribe(&self) -> bool {
        let to = self.field("to").unwrap_or_default().to_ascii_lowercase();
        let subject = self.subject.as_deref().unwrap_or_default().trim().to_ascii_lowercase();
        let asks = subject.starts_with("unsubscribe") || subject == "remove" || subject.starts_with("list-unsubscribe");
        let addressed = super::text::addresses(&to).iter().any(|a| a.starts_with("unsubscribe"));
        self.status.is_none() && (asks || addressed)
    }

    /// Whether it tells of a delay only.
    pub fn is_delay_notice(&self) -> bool {
        let subject = self.subject.as_deref().unwrap_or_default().to_ascii_lowercase();
        let words = [
            "delayed",
            "delay)",
            "(delay",
            "warning: could not send",
            "still being retried",
            "delivery delay",
            "warning: message",
        ];
        let delayed = words.iter().any(|word| subject.contains(word));
        let text = self.text.to_ascii_lowercase();
        let still = [
            "you do not need to resend",
            "will continue to",
            "still trying",
            "will be retried",
            "not been delivered yet",
            "will keep trying",
            "no action is required",
        ];
        delayed && !text.contains("permanent")
            || still.iter().any(|word| text.contains(word)) && !text.contains("given up")
    }
}

fn add(to: &mut Option<String>, octets: &[u8]) {
    let text = String::from_utf8_lossy(&octets[..octets.len().min(TEXT_MAX)]).replace("\r\n", "\n");
    match to {
        Some(there) if there.len() < TEXT_MAX => {
            there.push_str("\n\n");
            there.push_str(&text);
        }
        Some(_) => {}
        None => *to = Some(text),
    }
}

fn head_of(octets: &[u8]) -> String {
    String::from_utf8_lossy(&octets[..head_len(octets)]).into_owned()
}

/// The length of a header: up to the first empty line.
fn head_len(octets: &[u8]) -> usize {
    let mut start = 0;
    for (at, _) in octets.iter().enumerate().filter(|(_, b)| **b == b'\n') {
        let line = &octets[start..at];
        if line.is_empty() || line == b"\r" {
            return start;
        }
        start = at + 1;
    }
    octets.len()
}

/// The fields of a header.
pub fn fields(head: &str) -> Fields {
    let mut fields: Fields = Vec::new();
    for line in head.lines() {
        match (line.starts_with([' ', '\t']), fields.last_mut()) {
            (true, Some((_, value))) => {
                if value.len() < TEXT_MAX {
                    value.push(' ');
                    value.push_str(line.trim());
                }
            }
            _ => {
                if fields.len() >= FIELDS_MAX {
                    break;
                }
                if let Some((name, value)) =
                    line.split_once(':').filter(|(name, _)| !name.is_empty() && !name.contains(' '))
                {
                    fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
                }
            }
        }
    }
    fields
}

/// The first field of this name.
pub fn get<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    fields.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
