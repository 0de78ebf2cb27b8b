//! The header and the structure of a sample: what receivers require of each field, and what one-click unsubscribe needs.

use mail_parser::{Message, MessageParser, MimeHeaders};

use super::dns::tag;
use super::report::{Finding, error, grouped, warning};
use super::{Preflight, Sample};
use crate::mime::encode::LINE_MAX;
use crate::types::{Class, Domain};

/// From this size on a message is called large, in octets.
const LARGE: usize = 1 << 20;
/// The longest subject that is not called long, in characters.
const SUBJECT_MAX: usize = 120;
/// A subject with fewer letters may be in capitals: `SALE`.
const CAPITALS_MIN: usize = 8;
/// How far Date may be off: an hour ahead of a start, a day behind it. A schedule's own time is `now`.
const DATE_OFF_MAX_SECS: u64 = 86_400;

/// Types that Gmail and Outlook.com block, as file name extensions.
const EXECUTABLE: &[&str] = &[
    "ade", "adp", "apk", "appx", "bat", "cab", "chm", "cmd", "com", "cpl", "dll", "dmg", "exe", "hta", "ins", "iso",
    "isp", "jar", "js", "jse", "lib", "lnk", "mde", "msc", "msi", "msix", "msp", "mst", "nsh", "pif", "ps1", "reg",
    "scr", "sct", "sh", "shb", "sys", "vb", "vbe", "vbs", "vhd", "vxd", "wsc", "wsf", "wsh", "xll",
];

/// A field as it stands: its name, its unfolded value.
struct Field {
    name: String,
    value: String,
    is_ascii: bool,
    longest_line: usize,
}

/// Judges a sample's header and structure.
pub(super) fn check(check: &Preflight<'_>, sample: &Sample<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    let fields = fields(sample.raw);
    let Some(message) = MessageParser::new().parse(sample.raw).filter(|_| !fields.is_empty()) else {
        return vec![of(sample, error("sample-unreadable", "the message can't be parsed", "Look at its preview."))];
    };
    found.extend(size(check, sample));
    found.extend(fields_once(&fields));
    found.extend(subject(&message));
    found.extend(from_name(check, &message));
    found.extend(identity(check, &message, &fields));
    found.extend(attachments(&message));
    if check.class == Class::Marketing {
        found.extend(one_click(check, &fields));
        found.extend(feedback_id(&fields));
    }
    found.into_iter().map(|finding| of(sample, finding)).collect()
}

/// Names the sample, where the finding says nothing more exact.
pub(super) fn of(sample: &Sample<'_>, finding: Finding) -> Finding {
    if finding.details.is_empty() { finding.details([sample.of.to_owned()]) } else { finding }
}

fn size(check: &Preflight<'_>, sample: &Sample<'_>) -> Option<Finding> {
    let octets = sample.raw.len();
    let title = format!("the message has {} octets", grouped(octets as u64));
    if octets as u64 > check.size_max {
        return Some(error("message-too-large", format!("{title} of {} at most", grouped(check.size_max)), SMALLER));
    }
    (octets > LARGE).then(|| warning("message-large", title, SMALLER))
}

const SMALLER: &str = "Link to images and files instead of attaching them.";

/// RFC 5322 §3.6: fields that may stand once; and the form of all lines.
fn fields_once(fields: &[Field]) -> Vec<Finding> {
    const ONCE: [&str; 11] = [
        "From",
        "Sender",
        "Reply-To",
        "To",
        "Cc",
        "Message-ID",
        "Subject",
        "Date",
        "List-Unsubscribe",
        "List-Unsubscribe-Post",
        "Content-Type",
    ];
    let mut found = Vec::new();
    for name in ONCE {
        let count = fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).count();
        if count > 1 {
            found.push(error(
                "header-duplicate",
                format!("{name} stands {count} times"),
                "Take it out of the job's headers.",
            ));
        }
    }
    for field in fields {
        if !field.is_ascii {
            let title = format!("{} has raw non-ASCII octets", field.name);
            found.push(error("header-not-ascii", title, "Encode it as RFC 2047 has it; an address needs A-labels."));
        }
        if field.longest_line > LINE_MAX {
            let title = format!("{} has a line of {} octets", field.name, field.longest_line);
            found.push(error("header-line-long", title, "Shorten the value, or give it spaces to fold at."));
        }
    }
    found
}

fn subject(message: &Message<'_>) -> Vec<Finding> {
    let subject = message.subject().unwrap_or("").trim();
    let mut found = Vec::new();
    let length = subject.chars().count();
    if length == 0 {
        found.push(error("subject-missing", "the subject is empty", "Write one."));
    }
    if length > SUBJECT_MAX {
        let title = format!("the subject has {length} characters");
        found.push(warning("subject-long", title, "Say the most important in the first 40."));
    }
    let letters = || subject.chars().filter(|c| c.is_alphabetic());
    if letters().count() >= CAPITALS_MIN && letters().any(char::is_uppercase) && !letters().any(char::is_lowercase) {
        found.push(warning("subject-capitals", "the subject is all in capitals", "Write it as a sentence."));
    }
    found
}

fn from_name(check: &Preflight<'_>, message: &Message<'_>) -> Option<Finding> {
    let name = message.from()?.first()?.name()?;
    let is_own = name.trim().eq_ignore_ascii_case(check.from.as_str());
    (name.contains('@') && !is_own).then(|| {
        let title = format!("the display name of From has an address in it: {name:?}");
        warning("from-name-address", title, "Use the name of a person or company.")
    })
}

/// Message-ID, Date and To.
fn identity(check: &Preflight<'_>, message: &Message<'_>, fields: &[Field]) -> Vec<Finding> {
    let mut found = Vec::new();
    let id = value(fields, "Message-ID").unwrap_or("").trim();
    let inner = id.strip_prefix('<').and_then(|id| id.strip_suffix('>'));
    let is_id = inner.and_then(|id| id.split_once('@')).is_some_and(|(left, right)| {
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && !b"<>@".contains(&b));
        plain(left) && plain(right)
    });
    if !is_id {
        found.push(error(
            "message-id-invalid",
            format!("Message-ID is {id:?}"),
            "Leave it out of the job: it is made.",
        ));
    }
    let date = message.date().filter(|date| date.is_valid()).map(mail_parser::DateTime::to_timestamp);
    let fix = "Leave Date out of the job's headers: it is made.";
    match date.and_then(|secs| u64::try_from(secs).ok()) {
        None => found.push(error("date-invalid", "Date is missing or can't be read", fix)),
        Some(secs) if secs.abs_diff(check.now.as_secs()) > DATE_OFF_MAX_SECS => {
            let date = value(fields, "Date").unwrap_or("").trim();
            found.push(warning("date-invalid", format!("Date is more than a day off: {date}"), fix));
        }
        Some(_) => {}
    }
    if message.to().and_then(|to| to.first()).and_then(|to| to.address()).is_none() {
        found.push(warning("to-missing", "To names no address", "Leave To out of the job's headers: it is made."));
    }
    found
}

fn attachments(message: &Message<'_>) -> Option<Finding> {
    let names = message.attachments().filter_map(|part| part.attachment_name());
    let is_bad = |name: &&str| {
        let extension = name.trim_end_matches(['.', ' ']).rsplit_once('.').map(|(_, extension)| extension);
        extension.is_some_and(|extension| EXECUTABLE.iter().any(|bad| extension.eq_ignore_ascii_case(bad)))
    };
    let bad: Vec<String> = names.filter(is_bad).map(str::to_owned).collect();
    (!bad.is_empty()).then(|| {
        let title = "an attachment is of a type that receivers refuse";
        error("attachment-executable", title, "Put it on a web page, and link to that.").details(bad)
    })
}

/// RFC 8058: both fields, their values, and both under a signature of the From domain's.
fn one_click(check: &Preflight<'_>, fields: &[Field]) -> Vec<Finding> {
    let mut found = Vec::new();
    let local = check.not_to_the_world().is_some();
    let (uris, post) = (value(fields, "List-Unsubscribe"), value(fields, "List-Unsubscribe-Post"));
    let (Some(uris), Some(post)) = (uris, post) else {
        let fix = match &check.config.public {
            Some(_) => "Take List-Unsubscribe out of the job's headers: both fields are made.",
            None => "Add [public] with address and url: the daemon then makes and serves both.",
        };
        let title = "List-Unsubscribe and List-Unsubscribe-Post are not both there";
        // Without receivers nobody misses the button.
        return vec![if local {
            warning("one-click-missing", title, fix)
        } else {
            error("one-click-missing", title, fix)
        }];
    };
    if !bracketed(uris).any(|uri| uri.get(..8).is_some_and(|head| head.eq_ignore_ascii_case("https://"))) {
        let title = format!("List-Unsubscribe has no https URI: {}", uris.trim());
        let fix = "Make the url of [public] an https one, with a TLS proxy before it.";
        found.push(match local {
            true => warning("one-click-not-https", title, fix),
            false => error("one-click-not-https", title, fix),
        });
    }
    if post.trim() != "List-Unsubscribe=One-Click" {
        let title = format!("List-Unsubscribe-Post is {:?}", post.trim());
        found.push(error("one-click-post-wrong", title, "It must be exactly List-Unsubscribe=One-Click."));
    }
    let signatures: Vec<&Field> = fields.iter().filter(|f| f.name.eq_ignore_ascii_case("DKIM-Signature")).collect();
    let covers = |field: &&Field| {
        let signed = tag(&field.value, "h").unwrap_or("");
        let has = |name: &str| signed.split(':').any(|signed| signed.trim().eq_ignore_ascii_case(name));
        let domain = tag(&field.value, "d").and_then(|domain| Domain::parse(domain).ok());
        let from = check.from.domain();
        // Where no signature is of From's own domain, one of another counts: alignment is told elsewhere.
        let own = domain.is_some_and(|domain| domain.is_within(from) || from.is_within(&domain));
        (own, has("List-Unsubscribe") && has("List-Unsubscribe-Post"))
    };
    let judged: Vec<(bool, bool)> = signatures.iter().map(covers).collect();
    let any_own = judged.iter().any(|(own, _)| *own);
    if !judged.iter().any(|(own, covers)| *covers && (*own || !any_own)) {
        let title = "no DKIM signature of From's domain covers List-Unsubscribe and List-Unsubscribe-Post";
        let fix = "Give [[dkim]] a key for the domain of From: it signs both.";
        found.push(match local {
            true => warning("one-click-not-signed", title, fix),
            false => error("one-click-not-signed", title, fix),
        });
    }
    found
}

/// What stands in `<` and `>` (RFC 2369 §2).
pub(super) fn bracketed(value: &str) -> impl Iterator<Item = &str> {
    value.split('<').skip(1).filter_map(|rest| rest.split_once('>')).map(|(uri, _)| uri.trim())
}

fn feedback_id(fields: &[Field]) -> Option<Finding> {
    let Some(id) = value(fields, "Feedback-ID").map(str::trim) else {
        let fix = "Add the header Feedback-ID: campaign:customer:type:sender, the last the same in all mail.";
        return Some(warning("feedback-id-missing", "there is no Feedback-ID", fix));
    };
    let parts: Vec<&str> = id.split(':').collect();
    let sender = parts.last().map_or(0, |sender| sender.trim().chars().count());
    (parts.len() > 4 || !(5..=15).contains(&sender)).then(|| {
        let fix = "campaign:customer:type:sender, the last of 5 to 15 characters.";
        warning("feedback-id-invalid", format!("Feedback-ID is {id:?}"), fix)
    })
}

/// The value of the first field with this name.
fn value<'f>(fields: &'f [Field], name: &str) -> Option<&'f str> {
    fields.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value.as_str())
}

/// The unfolded value of a sample's first field with this name.
pub(super) fn field_of(raw: &[u8], name: &str) -> Option<String> {
    fields(raw).into_iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
}

/// The fields of a header, unfolded.
fn fields(raw: &[u8]) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::new();
    for line in raw.split(|b| *b == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        let text = String::from_utf8_lossy(line);
        match (line[0], fields.last_mut()) {
            (b' ' | b'\t', Some(field)) => {
                field.value.push_str(&text);
                field.is_ascii &= line.is_ascii();
                field.longest_line = field.longest_line.max(line.len());
            }
            _ => {
                let Some((name, value)) = text.split_once(':') else { continue };
                fields.push(Field {
                    name: name.trim_end().to_owned(),
                    value: value.to_owned(),
                    is_ascii: line.is_ascii(),
                    longest_line: line.len(),
                });
            }
        }
    }
    fields
}
