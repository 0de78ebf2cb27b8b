//! Addresses: domains as lowercase A-labels, mailboxes as they were given.
//!
//! Two addresses are the same when their domains (as lowercase A-labels) and their local parts in
//! lowercase are the same; an address is sent as it was given.

use std::fmt;
use std::sync::Arc;

/// Why a text is not an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No `@`, or nothing on one side of it.
    #[error("an address is local-part@domain")]
    Form,
    /// The local part is neither a dot-string nor a quoted-string (RFC 5321 §4.1.2), or longer than 64 octets.
    #[error("the local part is not valid (RFC 5321 §4.1.2)")]
    LocalPart,
    /// The domain is not a host name: a bad label, a trailing dot, or longer than 253 octets.
    #[error("the domain is not a valid host name")]
    Domain,
    /// An address literal such as `[127.0.0.1]`.
    #[error("address literals are not accepted")]
    Literal,
    /// `%`, `!` or `@` in the local part: an old way to ask a relay to route on.
    #[error("routed addresses are not accepted")]
    Routed,
}

/// A mail domain as lowercase A-labels (RFC 5890), without a trailing dot; never an address literal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain(Arc<str>);

impl Domain {
    /// Parses a domain given as A-labels or U-labels, in any case.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.starts_with('[') {
            return Err(AddressError::Literal);
        }
        if text.is_empty() || text.len() > 1000 || text.ends_with('.') {
            return Err(AddressError::Domain);
        }
        if is_plain_host(text.as_bytes()) && !text.contains("xn--") {
            return Ok(Self(text.into()));
        }
        let ascii =
            idna::domain_to_ascii_cow(text.as_bytes(), idna::AsciiDenyList::STD3).map_err(|_| AddressError::Domain)?;
        if is_plain_host(ascii.as_bytes()) { Ok(Self(ascii.as_ref().into())) } else { Err(AddressError::Domain) }
    }

    /// The domain as lowercase A-labels.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is `other` or a subdomain of it.
    pub fn is_within(&self, other: &Domain) -> bool {
        self.0.strip_suffix(&*other.0).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

/// Labels of 1 to 63 lowercase letters, digits, hyphens (and underscores, which real mail domains
/// have), at most 253 octets, and not all digits: that would be an IPv4 address.
fn is_plain_host(text: &[u8]) -> bool {
    let label_ok = |label: &[u8]| {
        !label.is_empty()
            && label.len() <= 63
            && label.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
            && label[0] != b'-'
            && label[label.len() - 1] != b'-'
    };
    text.len() <= 253
        && text.split(|b| *b == b'.').all(label_ok)
        && !text.rsplit(|b| *b == b'.').next().is_some_and(|last| last.iter().all(u8::is_ascii_digit))
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::borrow::Borrow<str> for Domain {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl serde::Serialize for Domain {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Domain {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// A mailbox, `local-part@domain` (RFC 5321 §4.1.2, RFC 6531 §3.3), as it was given, with its parsed domain.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Mailbox {
    text: Arc<str>,
    at: u16,
    domain: Domain,
}

impl Mailbox {
    /// Parses a mailbox without angle brackets.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let at = text.rfind('@').ok_or(AddressError::Form)?;
        let (local, domain) = (&text[..at], &text[at + 1..]);
        if local.is_empty() || domain.is_empty() {
            return Err(AddressError::Form);
        }
        if local.starts_with('@') {
            return Err(AddressError::Routed);
        }
        check_local(local)?;
        let domain = Domain::parse(domain)?;
        // RFC 5321 §4.5.3.1.1: a local part of at most 64 octets keeps `at` in a u16.
        Ok(Self { text: text.into(), at: at as u16, domain })
    }

    /// The address as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The local part as it was given, with its quotes if it has them.
    pub fn local_part(&self) -> &str {
        &self.text[..usize::from(self.at)]
    }

    /// The domain, as lowercase A-labels.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Whether the local part needs SMTPUTF8 (RFC 6531 §3.3): a domain alone never does.
    pub fn needs_smtputf8(&self) -> bool {
        !self.local_part().is_ascii()
    }

    /// The address for a peer: as given where it is ASCII or `utf8` was agreed, else with the domain as A-labels.
    pub fn for_wire(&self, utf8: bool) -> std::borrow::Cow<'_, str> {
        if utf8 || self.text.is_ascii() {
            std::borrow::Cow::Borrowed(&self.text)
        } else {
            std::borrow::Cow::Owned(format!("{}@{}", self.local_part(), self.domain))
        }
    }

    /// The form by which addresses are compared: local part in lowercase, domain as lowercase A-labels.
    pub fn canonical(&self) -> String {
        format!("{}@{}", self.local_part().to_lowercase(), self.domain)
    }
}

/// Dot-string or quoted-string; UTF-8 is allowed in both (RFC 6531 §3.3).
fn check_local(local: &str) -> Result<(), AddressError> {
    if local.len() > 64 {
        return Err(AddressError::LocalPart);
    }
    if let Some(inner) = local.strip_prefix('"') {
        let inner = inner.strip_suffix('"').ok_or(AddressError::LocalPart)?;
        let mut escaped = false;
        for c in inner.chars() {
            match c {
                '@' | '%' | '!' => return Err(AddressError::Routed),
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => return Err(AddressError::LocalPart),
                _ => {}
            }
            if is_forbidden(c) {
                return Err(AddressError::LocalPart);
            }
        }
        return if escaped { Err(AddressError::LocalPart) } else { Ok(()) };
    }
    if local.contains(['@', '%', '!']) {
        return Err(AddressError::Routed);
    }
    let atom_ok = |atom: &str| {
        !atom.is_empty()
            && atom.chars().all(|c| {
                c.is_ascii_alphanumeric() || "#$&'*+-/=?^_`{|}~".contains(c) || (!c.is_ascii() && !is_forbidden(c))
            })
    };
    if local.split('.').all(atom_ok) { Ok(()) } else { Err(AddressError::LocalPart) }
}

/// Controls and the Unicode line ends: they would end a line for somebody.
fn is_forbidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl serde::Serialize for Mailbox {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.text)
    }
}

impl<'de> serde::Deserialize<'de> for Mailbox {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// The reverse-path of an envelope (RFC 5321 §4.1.2): a mailbox, or null for mail that gets no answer.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ReversePath {
    /// `<>`: notifications. A message with it never causes another one.
    Null,
    /// Where notifications go.
    Mailbox(Mailbox),
}

impl ReversePath {
    /// The mailbox, unless null.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            ReversePath::Null => None,
            ReversePath::Mailbox(mailbox) => Some(mailbox),
        }
    }
}

impl fmt::Display for ReversePath {
    /// The address without brackets; nothing for null.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.mailbox().map_or("", Mailbox::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, want: Result<&str, AddressError>) {
        let got = Mailbox::parse(text);
        assert_eq!(got.as_ref().map(Mailbox::canonical).map_err(|e| *e), want.map(str::to_owned), "{text:?}");
    }

    #[test]
    fn accepts_what_the_rfc_allows() {
        check("Jane.Doe+x@Example.COM", Ok("jane.doe+x@example.com"));
        check("\"a b\"@example.com", Ok("\"a b\"@example.com"));
        check("müller@bücher.example", Ok("müller@xn--bcher-kva.example"));
        check("x@xn--bcher-kva.example", Ok("x@xn--bcher-kva.example"));
        check("a@_dmarc.example", Ok("a@_dmarc.example"));
    }

    #[test]
    fn refuses_relay_tricks_and_injection() {
        use AddressError::*;
        check("u%v@us.example", Err(Routed));
        check("\"u@v\"@us.example", Err(Routed));
        check("@us.example:u@v.example", Err(Routed));
        check("v!u", Err(Form));
        check("v!u@us.example", Err(Routed));
        check("u@v@us.example", Err(Routed));
        check("u@[127.0.0.1]", Err(Literal));
        check("u@us.example.", Err(Domain));
        check("u@127.0.0.1", Err(Domain));
        check("a@b>\r\nRCPT TO:<v@t.example", Err(Routed));
        check("a\r\n@t.example", Err(LocalPart));
        check("\"a\u{2028}\"@t.example", Err(LocalPart));
        check("a@b\u{85}.example", Err(Domain));
        check("..a@t.example", Err(LocalPart));
        check("a@-t.example", Err(Domain));
    }

    #[test]
    fn wire_form_follows_what_was_agreed() {
        let m = Mailbox::parse("info@bücher.example").expect("valid");
        assert!(!m.needs_smtputf8());
        assert_eq!(m.for_wire(false), "info@xn--bcher-kva.example");
        assert_eq!(m.for_wire(true), "info@bücher.example");
    }

    #[test]
    fn subdomains() {
        let d = |s| Domain::parse(s).expect("valid");
        assert!(d("a.example.com").is_within(&d("example.com")));
        assert!(d("example.com").is_within(&d("example.com")));
        assert!(!d("badexample.com").is_within(&d("example.com")));
    }
}
