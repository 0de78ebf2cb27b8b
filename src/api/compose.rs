//! The JSON of a message, and how it becomes a [`Draft`]: parsed once, each value checked for what could inject.
//!
//! Header and mailbox are types: a CR, LF, NUL, another control or a Unicode line end in any value that ends up in the
//! header is an error that names the field. Encoding comes later, in `mime`, so a value can't become structure.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;

use super::Problem;
use super::ports::{Draft, DraftAttachment, Person};
use crate::queue::intake::Steering;
use crate::types::{Class, Mailbox, Name};

/// The most attachments of a message.
pub const ATTACHMENTS_MAX: usize = 100;
/// The most fields under `headers`.
pub const HEADERS_MAX: usize = 100;
/// The longest value of a header field, in octets: it is folded, RFC 5322 §2.1.1 limits lines, not fields.
pub const HEADER_VALUE_MAX: usize = 8_192;
/// The most tags.
pub const TAGS_MAX: usize = 10;
/// The largest metadata as compact JSON, in octets.
pub const METADATA_MAX: usize = 4_096;

/// The header fields that the message's own parts make, or that belong to the transport.
const RESERVED: [&str; 19] = [
    "from",
    "to",
    "cc",
    "bcc",
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
];

/// Body of `POST /v1/messages` with `application/json`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MessageRequest {
    /// Who writes: the From field, and the reverse-path unless `return_path` is given.
    #[schema(value_type = Object)]
    pub from: Address,
    /// One address or a list: `"a@b.example"`, `"Name <a@b.example>"` or `{"email": …, "name": …}`.
    #[serde(default, deserialize_with = "one_or_many")]
    #[schema(value_type = Vec<Object>)]
    pub to: Vec<Address>,
    /// As `to`.
    #[serde(default, deserialize_with = "one_or_many")]
    #[schema(value_type = Vec<Object>)]
    pub cc: Vec<Address>,
    /// As `to`; stands nowhere in the message.
    #[serde(default, deserialize_with = "one_or_many")]
    #[schema(value_type = Vec<Object>)]
    pub bcc: Vec<Address>,
    /// As `to`: where answers go.
    #[serde(default, deserialize_with = "one_or_many")]
    #[schema(value_type = Vec<Object>)]
    pub reply_to: Vec<Address>,
    /// Where notifications go, in place of `from`; an empty text is the null reverse-path.
    pub return_path: Option<String>,
    /// The subject.
    #[serde(default)]
    pub subject: String,
    /// The plain text. Text or HTML or both are needed.
    pub text: Option<String>,
    /// The HTML.
    pub html: Option<String>,
    /// Further header fields. Those that the message's parts make (From, Content-Type, …) are refused.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Files.
    #[serde(default)]
    pub attachments: Vec<Attachment>,
    /// At most 10 tags; they stand in each event.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub tags: Vec<Name>,
    /// Your own data, a JSON object of at most 4 KiB; it stands in `accepted` and terminal events.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<serde_json::Map<String, serde_json::Value>>,
    /// The campaign that it is counted for.
    #[schema(value_type = Option<String>)]
    pub campaign: Option<Name>,
    /// `transactional` or `marketing`; default is the tenant's.
    #[schema(value_type = Option<String>)]
    pub class: Option<Class>,
    /// The pool that sends it; default is the tenant's.
    #[schema(value_type = Option<String>)]
    pub pool: Option<Name>,
    /// Whose mail it is, with an admin key; default is the tenant of the sender's domain.
    #[schema(value_type = Option<String>)]
    pub tenant: Option<Name>,
}

/// A file of a message.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// Its file name.
    pub filename: String,
    /// Its media type.
    #[serde(default = "octet_stream")]
    pub content_type: String,
    /// Its octets in base64 (RFC 4648 §4).
    pub content: String,
    /// Its Content-ID, for `cid:` links in the HTML; it makes the file inline.
    pub content_id: Option<String>,
}

fn octet_stream() -> String {
    "application/octet-stream".into()
}

/// An address as it is given: a text, or an object with `email` and `name`.
#[derive(Clone, Debug)]
pub struct Address(pub Person);

impl Address {
    /// `a@b.example` or `Name <a@b.example>`.
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (name, mailbox) = match text.strip_suffix('>').and_then(|t| t.rsplit_once('<')) {
            Some((name, mailbox)) => (unquote(name.trim()), mailbox),
            None => (String::new(), text),
        };
        Self::new(Some(name), mailbox)
    }

    fn new(name: Option<String>, mailbox: &str) -> Result<Self, String> {
        let mailbox = Mailbox::parse(mailbox).map_err(|e| format!("{mailbox:?} is not an address: {e}"))?;
        let name = name.filter(|n| !n.is_empty());
        if let Some(reason) = name.as_deref().and_then(not_one_line) {
            return Err(format!("the name of {mailbox} {reason}"));
        }
        Ok(Self(Person { name, mailbox }))
    }
}

/// A display name without the quotes of a quoted-string (RFC 5322 §3.2.4).
fn unquote(name: &str) -> String {
    match name.strip_prefix('"').and_then(|n| n.strip_suffix('"')) {
        Some(inner) => {
            let mut out = String::with_capacity(inner.len());
            let mut chars = inner.chars();
            while let Some(c) = chars.next() {
                out.extend(if c == '\\' { chars.next() } else { Some(c) });
            }
            out
        }
        None => name.to_owned(),
    }
}

/// Reads texts and objects itself: an untagged enum would lose line, column and reason.
struct AddressVisitor;

impl<'de> Visitor<'de> for AddressVisitor {
    type Value = Address;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an address: a text, or an object with \"email\" and \"name\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Address, E> {
        Address::parse(text).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Address, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Object {
            email: String,
            name: Option<String>,
        }
        let object = Object::deserialize(de::value::MapAccessDeserializer::new(map))?;
        Address::new(object.name, &object.email).map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(AddressVisitor)
    }
}

fn one_or_many<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Address>, D::Error> {
    struct Many;
    impl<'de> Visitor<'de> for Many {
        type Value = Vec<Address>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an address or a list of addresses")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<Address>, E> {
            AddressVisitor.visit_str(text).map(|a| vec![a])
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vec<Address>, A::Error> {
            AddressVisitor.visit_map(map).map(|a| vec![a])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Address>, A::Error> {
            let mut all = Vec::new();
            while let Some(address) = seq.next_element()? {
                all.push(address);
            }
            Ok(all)
        }
    }
    d.deserialize_any(Many)
}

/// Why a text can't stand in a header field; `None` when it can.
pub fn not_one_line(text: &str) -> Option<String> {
    let bad = text.chars().find(|c| (c.is_control() && *c != '\t') || matches!(c, '\u{2028}' | '\u{2029}'))?;
    Some(format!("has the character {}, which can't stand in a header", bad.escape_unicode()))
}

fn one_line(field: &str, text: &str) -> Result<(), Problem> {
    match not_one_line(text) {
        Some(reason) => Err(Problem::invalid(field, reason)),
        None if text.len() > HEADER_VALUE_MAX => {
            Err(Problem::invalid(field, format!("longer than {HEADER_VALUE_MAX} octets")))
        }
        None => Ok(()),
    }
}

impl MessageRequest {
    /// All recipients, each once, in the order To, Cc, Bcc.
    pub fn recipients(&self) -> Vec<Mailbox> {
        let mut seen = std::collections::HashSet::new();
        let all = self.to.iter().chain(&self.cc).chain(&self.bcc);
        all.map(|a| &a.0.mailbox).filter(|m| seen.insert(m.canonical())).cloned().collect()
    }

    /// What steers it.
    pub fn steering(&self) -> Result<Steering, Problem> {
        let metadata =
            self.metadata.as_ref().map(|m| serde_json::Value::Object(m.clone()).to_string().into_boxed_str());
        steering(self.campaign.clone(), self.tags.clone(), self.pool.clone(), self.class, metadata)
    }

    /// The checked parts of the message.
    pub fn into_draft(self) -> Result<Draft, Problem> {
        if self.text.is_none() && self.html.is_none() {
            return Err(Problem::invalid("text", "a message needs text or html"));
        }
        one_line("subject", &self.subject)?;
        if self.headers.len() > HEADERS_MAX {
            return Err(Problem::invalid("headers", format!("more than {HEADERS_MAX}")));
        }
        for (name, value) in &self.headers {
            check_header(name, value)?;
        }
        if self.attachments.len() > ATTACHMENTS_MAX {
            return Err(Problem::invalid("attachments", format!("more than {ATTACHMENTS_MAX}")));
        }
        let attachments = self.attachments.into_iter().enumerate().map(|(i, a)| a.into_draft(i));
        let people = |all: Vec<Address>| all.into_iter().map(|a| a.0).collect();
        Ok(Draft {
            from: self.from.0,
            to: people(self.to),
            cc: people(self.cc),
            reply_to: people(self.reply_to),
            subject: self.subject,
            text: self.text,
            html: self.html,
            headers: self.headers.into_iter().collect(),
            attachments: attachments.collect::<Result<_, _>>()?,
        })
    }
}

/// Checks the bounds of what steers a message.
pub fn steering(
    campaign: Option<Name>,
    tags: Vec<Name>,
    pool: Option<Name>,
    class: Option<Class>,
    metadata: Option<Box<str>>,
) -> Result<Steering, Problem> {
    if tags.len() > TAGS_MAX {
        return Err(Problem::invalid("tags", format!("more than {TAGS_MAX}")));
    }
    if metadata.as_ref().is_some_and(|m| m.len() > METADATA_MAX) {
        return Err(Problem::invalid("metadata", format!("larger than {METADATA_MAX} octets")));
    }
    Ok(Steering { campaign, tags, pool, class, metadata })
}

fn check_header(name: &str, value: &str) -> Result<(), Problem> {
    let field = format!("headers.{name}");
    // RFC 5322 §3.6.8: printable ASCII but the colon.
    if name.is_empty() || name.len() > 77 || !name.bytes().all(|b| b.is_ascii_graphic() && b != b':') {
        return Err(Problem::invalid("headers", format!("{name:?} is not the name of a header field")));
    }
    let lower = name.to_ascii_lowercase();
    if lower.starts_with("x-posthaste-") {
        return Err(Problem::invalid(
            &field,
            "steering fields have members of their own: campaign, tags, pool, class, metadata",
        ));
    }
    if RESERVED.contains(&lower.as_str()) {
        return Err(Problem::invalid(&field, "this field is made from other members or by the server"));
    }
    one_line(&field, value)
}

impl Attachment {
    fn into_draft(self, index: usize) -> Result<DraftAttachment, Problem> {
        let field = |name: &str| format!("attachments[{index}].{name}");
        one_line(&field("filename"), &self.filename)?;
        if !is_media_type(&self.content_type) {
            return Err(Problem::invalid(
                &field("content_type"),
                format!("{:?} is not a media type", self.content_type),
            ));
        }
        let id_ok = |id: &str| {
            (1..=255).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic() && !b"<>\"".contains(&b))
        };
        if self.content_id.as_deref().is_some_and(|id| !id_ok(id)) {
            return Err(Problem::invalid(&field("content_id"), "1 to 255 printable ASCII characters without < > \""));
        }
        let mut encoded = self.content;
        encoded.retain(|c| !c.is_ascii_whitespace());
        let content =
            STANDARD.decode(encoded).map_err(|e| Problem::invalid(&field("content"), format!("not base64: {e}")))?;
        let inline = self.content_id.is_some();
        Ok(DraftAttachment {
            filename: self.filename,
            content_type: self.content_type,
            content: content.into(),
            content_id: self.content_id,
            inline,
        })
    }
}

/// `type/subtype` of RFC 2045 §5.1 with optional parameters, printable ASCII; `multipart` can't be a leaf.
fn is_media_type(text: &str) -> bool {
    let token = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b));
    let essence = text.split(';').next().unwrap_or_default().trim();
    let printable = text.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
    let halves = essence.split_once('/');
    text.len() <= 255
        && printable
        && halves.is_some_and(|(t, s)| token(t) && token(s) && !t.eq_ignore_ascii_case("multipart"))
}
