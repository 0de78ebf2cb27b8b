//! Making DKIM-Signature fields.
//!
//! 1. The message is split into fields and body; the body is hashed once,
//! 2. the signed fields are chosen, named in `h=` as often as they occur and once more, and put into canonical form once,
//! 3. for each key: its own field with an empty `b=`, in canonical form behind them, is signed and written out.

use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::canonical::{BodyHash, Field, relaxed_field, split};
use super::ring::Key;
use crate::types::{Domain, Timestamp};

/// Fields that are named once more than they occur, also where they don't occur at all: nobody can add one (RFC 6376
/// §8.15), which is how a signed mail is made to show another sender, subject or body.
const OVERSIGNED: [&str; 10] = [
    "From",
    "To",
    "Cc",
    "Subject",
    "Date",
    "Message-ID",
    "Reply-To",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
];

/// Fields that are named once more than they occur where they occur. A mailing list that adds its own List-* to a mail without
/// them must not break the signature.
const SIGNED_IF_PRESENT: [&str; 17] = [
    "Sender",
    "In-Reply-To",
    "References",
    "List-Id",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "List-Help",
    "List-Subscribe",
    "List-Post",
    "List-Owner",
    "List-Archive",
    "Feedback-ID",
    "CFBL-Address",
    "CFBL-Feedback-ID",
    "Auto-Submitted",
    "Content-Language",
    "Organization",
];

/// The most occurrences of one field that are signed. A header with more is not one that a mail program writes; the rest stays
/// unsigned, which verifiers accept.
const OCCURRENCES_MAX: usize = 32;

/// The length at which lines of the field are folded, in octets (RFC 5322 §2.1.1 asks for at most 78).
const LINE_MAX: usize = 76;

/// Why a message could not be signed. It must wait: it never goes unsigned.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("DKIM key of d={domain} s={selector}: {reason}")]
pub struct SignError {
    /// The signing domain.
    pub domain: Domain,
    /// The selector.
    pub selector: Box<str>,
    /// What is wrong with it.
    pub reason: Box<str>,
}

/// The DKIM-Signature fields of a message, one a key, each with its CRLF: they go before the message.
///
/// `message` is what is sent: a header and a body with CRLF line ends, as it will be on the wire before dot-stuffing. With
/// several keys all must succeed.
pub fn sign(message: &[u8], keys: &[Arc<Key>], now: Timestamp) -> Result<Vec<u8>, SignError> {
    let (fields, body) = split(message);
    sign_fields(&fields, [body], keys, now)
}

/// As [`sign()`], for a message in parts that are not put together: the header, which may have its empty line, and the body in pieces of
/// whole lines.
pub fn sign_parts<'a>(
    header: &[u8],
    body: impl IntoIterator<Item = &'a [u8]>,
    keys: &[Arc<Key>],
    now: Timestamp,
) -> Result<Vec<u8>, SignError> {
    sign_fields(&split(header).0, body, keys, now)
}

fn sign_fields<'a>(
    fields: &[Field<'_>],
    body: impl IntoIterator<Item = &'a [u8]>,
    keys: &[Arc<Key>],
    now: Timestamp,
) -> Result<Vec<u8>, SignError> {
    let error = |key: &Key, reason: &str| SignError {
        domain: key.domain.clone(),
        selector: key.selector.clone(),
        reason: reason.into(),
    };
    let mut out = Vec::with_capacity(1_024 * keys.len());
    if keys.is_empty() {
        return Ok(out);
    }
    for key in keys {
        // Before any work: no RSA signature is made that a broken second key throws away.
        key.private.as_ref().map_err(|reason| error(key, reason))?;
    }
    let mut body_hash = BodyHash::new();
    body.into_iter().for_each(|piece| body_hash.update(piece));
    let body_hash = STANDARD.encode(body_hash.finish());
    let (names, canonical) = signed_fields(fields);
    let mut fields_hash = Context::new(&SHA256);
    fields_hash.update(&canonical);
    for key in keys {
        let private = key.private.as_ref().map_err(|reason| error(key, reason))?;
        let value = unsigned_value(key, &names, &body_hash, now);
        let mut own = Vec::with_capacity(value.len() + 32);
        // RFC 6376 §3.7: the field itself comes last, with an empty `b=` and without its CRLF.
        relaxed_field(b"DKIM-Signature", value.as_bytes(), &mut own);
        let mut hash = fields_hash.clone();
        hash.update(&own);
        let signature = private.sign_digest(&hash.finish()).ok_or_else(|| error(key, "signing failed"))?;
        out.extend_from_slice(b"DKIM-Signature:");
        out.extend_from_slice(value.as_bytes());
        write_folded(&STANDARD.encode(signature), &mut out);
        out.extend_from_slice(b"\r\n");
    }
    Ok(out)
}

/// The names for `h=` and the canonical form of the fields that they stand for, in the same order.
///
/// RFC 6376 §5.4.2: of several fields with a name the first mention stands for the lowest; a mention beyond the last field
/// stands for nothing, and fails when somebody adds one.
fn signed_fields(fields: &[Field<'_>]) -> (Vec<&'static str>, Vec<u8>) {
    let mut names = Vec::with_capacity(40);
    let mut canonical = Vec::with_capacity(2_048);
    let always = OVERSIGNED.iter().map(|name| (*name, true));
    for (name, even_absent) in always.chain(SIGNED_IF_PRESENT.iter().map(|name| (*name, false))) {
        let mut present = false;
        let same = fields.iter().rev().filter(|field| field.name.eq_ignore_ascii_case(name.as_bytes()));
        let mut count = 0;
        for field in same {
            count += 1;
            if count > OCCURRENCES_MAX {
                break;
            }
            present = true;
            names.push(name);
            relaxed_field(field.name, field.value, &mut canonical);
            canonical.extend_from_slice(b"\r\n");
        }
        if (present || even_absent) && count <= OCCURRENCES_MAX {
            names.push(name);
        }
    }
    (names, canonical)
}

/// The value of the field up to and with `b=`, folded.
fn unsigned_value(key: &Key, names: &[&str], body_hash: &str, now: Timestamp) -> String {
    let mut value = format!(
        " v=1; a={}; c=relaxed/relaxed;\r\n\td={}; s={};\r\n\tt={};\r\n\th=",
        key.algorithm,
        key.domain,
        key.selector,
        now.as_secs()
    );
    let mut column = 3;
    for (i, name) in names.iter().enumerate() {
        // RFC 6376 §3.5: white space may stand around the colons of `h=`.
        if i > 0 {
            value.push(':');
            column += 1;
            if column + name.len() > LINE_MAX {
                value.push_str("\r\n\t ");
                column = 2;
            }
        }
        value.push_str(name);
        column += name.len();
    }
    value.push_str(";\r\n\tbh=");
    value.push_str(body_hash);
    value.push_str(";\r\n\tb=");
    value
}

fn write_folded(text: &str, out: &mut Vec<u8>) {
    let mut rest = text.as_bytes();
    let mut room = LINE_MAX - 3;
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(room));
        out.extend_from_slice(line);
        if !tail.is_empty() {
            out.extend_from_slice(b"\r\n\t ");
        }
        rest = tail;
        room = LINE_MAX - 2;
    }
}
