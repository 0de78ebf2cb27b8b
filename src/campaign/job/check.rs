//! What no single value of a job can show: bounds, what excludes each other, what makes no sense together.

use super::values::not_one_line;
use super::{At, Job, Problem, Schedule, StopIf, Zone};
use crate::types::Class;

/// The longest subject, preheader or name, in octets, as a template.
pub const LINE_MAX: usize = 2_000;
/// The longest text or HTML, in octets, as a template.
pub const BODY_MAX: usize = 4 << 20;
/// The most fields under `headers`.
pub const HEADERS_MAX: usize = 100;
/// The longest value of a header field, in octets.
pub const HEADER_VALUE_MAX: usize = 8_192;
/// The most attachments.
pub const ATTACHMENTS_MAX: usize = 50;
/// The most octets of all attachments.
pub const ATTACHMENT_BYTES_MAX: usize = 20 << 20;
/// The most tags.
pub const TAGS_MAX: usize = 10;
/// The largest metadata as compact JSON, in octets.
pub const METADATA_MAX: usize = 4_096;
/// The largest global variables as compact JSON, in octets.
pub const VARIABLES_MAX: usize = 256 << 10;
/// The longest expression, in octets.
pub const EXPRESSION_MAX: usize = 8_192;
/// The most campaigns or lists that are excluded.
pub const EXCLUDED_MAX: usize = 50;
/// The most test recipients.
pub const TEST_RECIPIENTS_MAX: usize = 50;
/// The most Reply-To addresses.
pub const REPLY_TO_MAX: usize = 10;
/// The longest spread.
pub const SPREAD_MAX: std::time::Duration = std::time::Duration::from_secs(30 * 86_400);
/// The longest expiry.
pub const EXPIRE_MAX: std::time::Duration = std::time::Duration::from_secs(30 * 86_400);
/// The shortest expiry: shorter than that not even a second attempt is made.
pub const EXPIRE_MIN: std::time::Duration = std::time::Duration::from_secs(60);
/// The highest priority.
pub const PRIORITY_MAX: u8 = 10;
/// The longest public URL, in octets.
pub const URL_MAX: usize = 255;

/// The header fields that a job's own parts make, or that belong to the server or the transport.
const RESERVED: [&str; 24] = [
    "from",
    "to",
    "cc",
    "bcc",
    "date",
    "message-id",
    "reply-to",
    "subject",
    "sender",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "content-disposition",
    "content-id",
    "return-path",
    "received",
    "dkim-signature",
    "authentication-results",
    "delivered-to",
    "resent-to",
    "resent-from",
    "list-unsubscribe",
    "list-unsubscribe-post",
    "feedback-id",
];

impl Job {
    /// All that is wrong with it; nothing when it can be taken.
    pub fn problems(&self) -> Vec<Problem> {
        let mut out = Vec::new();
        self.check_lines(&mut out);
        self.check_content(&mut out);
        self.check_headers(&mut out);
        self.check_attachments(&mut out);
        self.check_selection(&mut out);
        self.check_sending(&mut out);
        check_schedule(&self.schedule, &mut out);
        if let Some(stop) = &self.stop_if {
            check_stop_if(stop, &mut out);
        }
        out
    }

    fn check_lines(&self, out: &mut Vec<Problem>) {
        if self.subject.trim().is_empty() {
            out.push(Problem::new("subject", "is empty").fix("say what the mail is about"));
        }
        let lines =
            [("subject", Some(&self.subject)), ("preheader", self.preheader.as_ref()), ("name", self.name.as_ref())];
        for (field, text) in lines.into_iter().filter_map(|(field, text)| Some((field, text?))) {
            check_line(field, text, LINE_MAX, out);
        }
        if self.reply_to.len() > REPLY_TO_MAX {
            out.push(too_many("reply_to", self.reply_to.len(), REPLY_TO_MAX));
        }
    }

    fn check_content(&self, out: &mut Vec<Problem>) {
        if self.text.is_none() && self.html.is_none() {
            out.push(Problem::new("html", "neither html nor text is given").fix("give at least one of them"));
        }
        for (field, body) in [("text", &self.text), ("html", &self.html)] {
            match body {
                Some(body) if body.trim().is_empty() => out.push(Problem::new(field, "is empty")),
                Some(body) if body.len() > BODY_MAX => out.push(too_large(field, body.len(), BODY_MAX)),
                Some(_) | None => {}
            }
        }
        let metadata = serde_json::to_string(&self.metadata).map_or(0, |json| json.len());
        if metadata > METADATA_MAX {
            out.push(too_large("metadata", metadata, METADATA_MAX));
        }
        let variables = serde_json::to_string(&self.variables).map_or(0, |json| json.len());
        if variables > VARIABLES_MAX {
            out.push(too_large("variables", variables, VARIABLES_MAX));
        }
        for name in self.variables.keys().filter(|name| !is_identifier(name)) {
            let field = format!("variables.{name}");
            out.push(
                Problem::new(field, "is not a name that a template can use")
                    .fix("letters, digits and _, no digit first"),
            );
        }
    }

    fn check_headers(&self, out: &mut Vec<Problem>) {
        if self.headers.len() > HEADERS_MAX {
            out.push(too_many("headers", self.headers.len(), HEADERS_MAX));
        }
        for (name, value) in &self.headers {
            let field = format!("headers.{name}");
            let lower = name.to_ascii_lowercase();
            // RFC 5322 §3.6.8: printable ASCII but the colon.
            if name.is_empty() || name.len() > 77 || !name.bytes().all(|b| b.is_ascii_graphic() && b != b':') {
                out.push(Problem::new("headers", format!("{name:?} is not the name of a header field")));
            } else if RESERVED.contains(&lower.as_str()) || lower.starts_with("x-posthaste-") {
                let fix = "leave it out: it is made from other fields or by the server";
                out.push(Problem::new(&field, "can't be set by a job").fix(fix));
            }
            check_line(&field, value, HEADER_VALUE_MAX, out);
        }
    }

    fn check_attachments(&self, out: &mut Vec<Problem>) {
        if self.attachments.len() > ATTACHMENTS_MAX {
            out.push(too_many("attachments", self.attachments.len(), ATTACHMENTS_MAX));
        }
        let octets: usize = self.attachments.iter().map(|a| a.content.len()).sum();
        if octets > ATTACHMENT_BYTES_MAX {
            let fix = "put large files behind a link: every recipient gets them all";
            out.push(too_large("attachments", octets, ATTACHMENT_BYTES_MAX).fix(fix));
        }
        let mut cids = std::collections::HashSet::new();
        for (i, attachment) in self.attachments.iter().enumerate() {
            let field = |name: &str| format!("attachments[{i}].{name}");
            if attachment.name.trim().is_empty() {
                out.push(Problem::new(field("name"), "is empty").fix("as \"prices.pdf\""));
            }
            check_line(&field("name"), &attachment.name, 255, out);
            if !is_media_type(&attachment.media_type) {
                let message = format!("{:?} is not a media type", attachment.media_type);
                out.push(Problem::new(field("type"), message).fix("as \"application/pdf\""));
            }
            let Some(cid) = &attachment.cid else { continue };
            let ok =
                (1..=255).contains(&cid.len()) && cid.bytes().all(|b| b.is_ascii_graphic() && !b"<>\"".contains(&b));
            if !ok {
                out.push(Problem::new(field("cid"), "1 to 255 printable ASCII characters without < > \""));
            } else if !cids.insert(cid) {
                out.push(
                    Problem::new(field("cid"), format!("{cid:?} is given twice")).fix("each cid stands for one file"),
                );
            }
        }
    }

    fn check_selection(&self, out: &mut Vec<Problem>) {
        for (field, expression) in [("segment", &self.segment), ("exclude.expression", &self.exclude.expression)] {
            match expression {
                Some(text) if text.trim().is_empty() => {
                    out.push(Problem::new(field, "is empty").fix("leave it out to take all"));
                }
                Some(text) if text.len() > EXPRESSION_MAX => out.push(too_large(field, text.len(), EXPRESSION_MAX)),
                Some(_) | None => {}
            }
        }
        for (field, names) in [("exclude.campaigns", &self.exclude.campaigns), ("exclude.lists", &self.exclude.lists)] {
            if names.len() > EXCLUDED_MAX {
                out.push(too_many(field, names.len(), EXCLUDED_MAX));
            }
        }
        if self.id.is_some() && self.exclude.campaigns.iter().any(|id| Some(id) == self.id.as_ref()) {
            out.push(
                Problem::new("exclude.campaigns", "names the campaign itself")
                    .fix("leave it out: nobody gets a campaign twice"),
            );
        }
    }

    fn check_sending(&self, out: &mut Vec<Problem>) {
        if self.tags.len() > TAGS_MAX {
            out.push(too_many("tags", self.tags.len(), TAGS_MAX));
        }
        if self.test_recipients.len() > TEST_RECIPIENTS_MAX {
            out.push(too_many("test_recipients", self.test_recipients.len(), TEST_RECIPIENTS_MAX));
        }
        if !(1..=PRIORITY_MAX).contains(&self.priority) {
            out.push(Problem::new("priority", format!("{} is not between 1 and {PRIORITY_MAX}", self.priority)));
        }
        if let Some(expire) = self.expire_after
            && !(EXPIRE_MIN..=EXPIRE_MAX).contains(&expire.0)
        {
            out.push(Problem::new("expire_after", format!("{expire} is not between 1m and 30d")));
        }
        if let Some(url) = &self.public_url
            && !is_base_url(url)
        {
            let fix = "as \"https://links.example.com\", without a path of its own or a query";
            out.push(Problem::new("public_url", format!("{url:?} is not the address of a server")).fix(fix));
        }
        if self.class == Class::Transactional && self.list.is_some() {
            let fix = "leave list out, or make it class marketing";
            out.push(Problem::new("list", "transactional mail has no list: nobody can unsubscribe from it").fix(fix));
        }
    }
}

/// Checks a schedule by itself: a change of a running campaign is checked by the same rules.
pub fn check_schedule(schedule: &Schedule, out: &mut Vec<Problem>) {
    let recipient = schedule.time_zone == Some(Zone::Recipient);
    match schedule.at {
        Some(At::Point(_)) if recipient => {
            let fix = "give the time without an offset, as 2026-12-01T09:00: each gets it when his own clock shows it";
            out.push(Problem::new("schedule.at", "a point in time is the same for all time zones").fix(fix));
        }
        None if recipient => {
            let fix = "give at as 2026-12-01T09:00: each gets it when his own clock shows it";
            out.push(Problem::new("schedule.time_zone", "the recipient's time zone needs schedule.at").fix(fix));
        }
        Some(At::Point(_) | At::Local(_)) | None => {}
    }
    if let Some(window) = &schedule.window {
        if recipient {
            let fix =
                "give the window a time zone of its own (Europe/Berlin), or leave it out: at holds for each recipient";
            out.push(Problem::new("schedule.window", "can't go by the recipient's time zone").fix(fix));
        }
        if window.from == window.to {
            out.push(
                Problem::new("schedule.window.to", "is the same as from: the window is never open")
                    .fix("00:00 to 24:00 is the whole day"),
            );
        }
        if window.from.0 >= 24 * 60 {
            out.push(
                Problem::new("schedule.window.from", "24:00 begins no window").fix("00:00 is the begin of the day"),
            );
        }
    }
    if let Some(spread) = schedule.spread
        && (spread.0.is_zero() || spread.0 > SPREAD_MAX)
    {
        out.push(Problem::new("schedule.spread", format!("{spread} is not between 1s and 30d")));
    }
}

fn check_stop_if(stop: &StopIf, out: &mut Vec<Problem>) {
    let rates = [
        ("stop_if.hard_bounce_rate", stop.hard_bounce_rate),
        ("stop_if.deferral_rate", stop.deferral_rate),
        ("stop_if.complaint_rate", stop.complaint_rate),
    ];
    for (field, rate) in rates {
        if rate.is_some_and(|rate| !(rate > 0.0 && rate <= 1.0)) {
            out.push(Problem::new(field, "is not above 0 and at most 1").fix("5 % is 0.05"));
        }
    }
    if rates.iter().all(|(_, rate)| rate.is_none()) {
        let fix = "give hard_bounce_rate, deferral_rate or complaint_rate";
        out.push(Problem::new("stop_if", "names no rate, so it never stops").fix(fix));
    }
    if stop.minimum == Some(0) {
        out.push(Problem::new("stop_if.minimum", "0 would stop at the first refusal").fix("give at least 1"));
    }
}

fn check_line(field: &str, text: &str, most: usize, out: &mut Vec<Problem>) {
    if let Some(reason) = not_one_line(text) {
        out.push(Problem::new(field, reason).fix("write it on one line"));
    }
    if text.len() > most {
        out.push(too_large(field, text.len(), most));
    }
}

fn too_large(field: &str, octets: usize, most: usize) -> Problem {
    Problem::new(field, format!("has {octets} octets, more than {most}"))
}

fn too_many(field: &str, count: usize, most: usize) -> Problem {
    Problem::new(field, format!("has {count} entries, more than {most}"))
}

fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    let first = chars.next().is_some_and(|c| c.is_alphabetic() || c == '_');
    first && name.len() <= 64 && chars.all(|c| c.is_alphanumeric() || c == '_')
}

/// `type/subtype` of RFC 2045 §5.1 with optional parameters, printable ASCII; `multipart` can't be a leaf.
fn is_media_type(text: &str) -> bool {
    let token = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b));
    let essence = text.split(';').next().unwrap_or_default().trim();
    let printable = text.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
    let halves = essence.split_once('/');
    let leaf = halves.is_some_and(|(t, s)| token(t) && token(s) && !t.eq_ignore_ascii_case("multipart"));
    text.len() <= 255 && printable && leaf
}

/// `https://host[:port][/path]` without query, fragment, user or controls.
fn is_base_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let plain = text.bytes().all(|b| b.is_ascii_graphic() && !b"?#@\"<>\\".contains(&b));
    let host = rest.and_then(|rest| rest.split(['/', ':']).next());
    text.len() <= URL_MAX && plain && host.is_some_and(|host| crate::types::Domain::parse(host).is_ok())
}
