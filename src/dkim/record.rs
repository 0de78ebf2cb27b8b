//! The record that publishes a key (RFC 6376 §3.6).

use super::Algorithm;
use crate::types::Domain;

/// The longest character-string of a TXT record, in octets (RFC 1035 §3.3).
pub const TXT_STRING_MAX: usize = 255;

/// What is to be published in DNS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DnsRecord {
    /// The owner name, without a final dot: `s1._domainkey.acme.example`.
    pub name: String,
    /// The value as one text: `v=DKIM1; k=rsa; p=…`. What most web forms of DNS hosters want.
    pub value: String,
    /// One line for a zone file, the value split into strings of at most [`TXT_STRING_MAX`] octets.
    pub zone_line: String,
}

/// The record for a key: `public_base64` is the public half as [`super::PrivateKey::public_base64`] gives it.
pub fn dns_record(selector: &str, domain: &Domain, algorithm: Algorithm, public_base64: &str) -> DnsRecord {
    let name = format!("{selector}._domainkey.{domain}");
    let value = format!("v=DKIM1; k={}; p={public_base64}", algorithm.key_type());
    let mut strings = Vec::new();
    let mut rest = value.as_str();
    while !rest.is_empty() {
        // The value is ASCII, so any place is good for a cut.
        let (head, tail) = rest.split_at(rest.len().min(TXT_STRING_MAX));
        strings.push(format!("\"{head}\""));
        rest = tail;
    }
    let strings = if strings.len() == 1 { strings.remove(0) } else { format!("( {} )", strings.join(" ")) };
    DnsRecord { zone_line: format!("{name}. IN TXT {strings}"), name, value }
}
