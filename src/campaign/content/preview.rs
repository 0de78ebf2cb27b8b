//! A message as people look at it before it is sent.

use mail_parser::MessageParser;
use serde::Serialize;

use super::Outside;
use super::blueprint::{Blueprint, ContentError, Target};

/// Octets of HTML beyond which Gmail shows a link to the rest instead of it.
pub const GMAIL_CLIPS_AT: usize = 102 * 1_024;

/// A message for people: what is written, and what is odd about it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Preview {
    /// The fields of the header, in their order, decoded, on one line each.
    pub headers: Vec<PreviewField>,
    /// The subject.
    pub subject: String,
    /// The plain text, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The HTML, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub html: Option<String>,
    /// Octets of the message as it is sent, without a signature.
    pub size: u64,
    /// Variables that the row lacks and that were left blank.
    pub blanks: Vec<String>,
    /// What is odd, for people.
    pub warnings: Vec<String>,
}

/// A field of the header.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PreviewField {
    /// Its name.
    pub name: String,
    /// Its value, decoded.
    pub value: String,
}

impl Blueprint {
    /// A row as it would be sent.
    ///
    /// # Errors
    /// As [`Blueprint::draw`]: what is wrong with the row would keep it from being sent too.
    pub fn preview(&self, target: &Target<'_>, outside: &Outside) -> Result<Preview, ContentError> {
        let drawn = self.draw_with(target, outside, true)?;
        let blanks = self.missing(target, outside)?;
        let job = &self.sealed().job;
        let mut warnings: Vec<String> = Vec::new();
        for part in &drawn.cleaned {
            warnings.push(format!("a variable in {part} has line ends or control characters; each became a space"));
        }
        for name in &blanks {
            warnings.push(format!("{name} is missing and left blank"));
        }
        if drawn.subject.trim().is_empty() {
            warnings.push("the subject is empty".to_owned());
        }
        if drawn.html.len() > GMAIL_CLIPS_AT {
            warnings.push(format!("the HTML has {} octets; Gmail clips it behind {GMAIL_CLIPS_AT}", drawn.html.len()));
        }
        let is_there = |text: &str| (!text.trim().is_empty()).then(|| text.to_owned());
        let (subject, text, html) = (drawn.subject.clone(), is_there(&drawn.text), is_there(&drawn.html));
        if job.html.is_some() && text.is_none() {
            warnings.push("the plain text is empty: those who read without HTML see nothing".to_owned());
        }
        let assembled = self.assemble(drawn);
        Ok(Preview {
            headers: fields(assembled.split().0),
            subject,
            text,
            html,
            size: assembled.size,
            blanks,
            warnings,
        })
    }
}

/// The fields of a header, decoded.
fn fields(header: &[u8]) -> Vec<PreviewField> {
    let text = String::from_utf8_lossy(header);
    let parsed = MessageParser::new().parse_headers(header);
    let unfolded = text.replace("\r\n ", " ").replace("\r\n\t", " ");
    let mut fields: Vec<PreviewField> = Vec::new();
    for (name, value) in unfolded.split("\r\n").filter_map(|line| line.split_once(": ")) {
        let decoded = match name {
            "Subject" => parsed.as_ref().and_then(|m| m.subject()).map(str::to_owned),
            "From" | "To" | "Reply-To" if value.contains("=?") => {
                let list = parsed.as_ref().and_then(|m| m.header(name)).and_then(|v| v.as_address());
                list.map(|list| list.iter().map(shown).collect::<Vec<_>>().join(", "))
            }
            _ if value.contains("=?") => decoded_text(value),
            _ => None,
        };
        fields.push(PreviewField { name: name.to_owned(), value: decoded.unwrap_or_else(|| value.to_owned()) });
    }
    fields
}

fn shown(address: &mail_parser::Addr<'_>) -> String {
    match (address.name(), address.address()) {
        (Some(name), Some(address)) => format!("{name} <{address}>"),
        (None, Some(address)) => address.to_owned(),
        (name, None) => name.unwrap_or_default().to_owned(),
    }
}

fn decoded_text(value: &str) -> Option<String> {
    let field = format!("Subject: {value}\r\n\r\n");
    MessageParser::new().parse_headers(field.as_bytes())?.subject().map(str::to_owned)
}
