//! The parameters of MAIL and RCPT (RFC 5321 §4.1.2 `esmtp-param`), each checked against its own RFC.

use super::reply::Reply;
use super::xtext;
use crate::types::{Notify, Ret};

/// The most parameters of one command; all that we offer are seven.
const PARAMS_MAX: usize = 16;

/// The longest ENVID in characters (RFC 3461 §4.4).
const ENVID_MAX: usize = 100;

/// The longest ORCPT in characters (RFC 3461 §4.2).
const ORCPT_MAX: usize = 500;

/// The parameters of one command; each is taken out once, and what is left at the end is unknown.
pub(super) struct Params<'a> {
    left: Vec<(&'a str, Option<&'a str>)>,
}

impl<'a> Params<'a> {
    /// Splits ` KEY=value KEY`.
    pub(super) fn split(tail: &'a str) -> Result<Self, Reply> {
        let mut left: Vec<(&str, Option<&str>)> = Vec::new();
        for word in tail.split(' ').filter(|w| !w.is_empty()) {
            let (key, value) = word.split_once('=').map_or((word, None), |(k, v)| (k, Some(v)));
            let key_ok = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            let value_ok = value.is_none_or(|v| !v.is_empty() && v.bytes().all(|b| matches!(b, b'!'..=b'~')));
            if !key_ok || !value_ok || left.len() == PARAMS_MAX {
                return Err(Reply::new(501, "5.5.4", "The parameters are not valid"));
            }
            if left.iter().any(|(k, _)| k.eq_ignore_ascii_case(key)) {
                return Err(Reply::new(501, "5.5.4", format!("{key} is given twice")));
            }
            left.push((key, value));
        }
        Ok(Self { left })
    }

    /// Takes a parameter's value out; an empty one where there is none, which no check accepts.
    pub(super) fn take(&mut self, key: &str) -> Option<&'a str> {
        let at = self.left.iter().position(|(k, _)| k.eq_ignore_ascii_case(key))?;
        Some(self.left.swap_remove(at).1.unwrap_or(""))
    }

    /// Takes a parameter without value out.
    pub(super) fn take_flag(&mut self, key: &str) -> Result<bool, Reply> {
        match self.take(key) {
            None => Ok(false),
            Some("") => Ok(true),
            Some(_) => Err(Reply::new(501, "5.5.4", format!("{key} takes no value"))),
        }
    }

    /// RFC 5321 §4.1.1.11: 555 for a parameter that is not known.
    pub(super) fn finish(self) -> Result<(), Reply> {
        match self.left.first() {
            None => Ok(()),
            Some((key, _)) => Err(Reply::new(555, "5.5.4", format!("Parameter {key} is not known"))),
        }
    }
}

fn bad(text: &'static str) -> Reply {
    Reply::new(501, "5.5.4", text)
}

/// RFC 1870 §4: 1 to 20 digits. What is larger than a u64 is larger than any limit.
pub(super) fn size(value: &str) -> Result<u64, Reply> {
    if value.is_empty() || value.len() > 20 || !value.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad("SIZE is a number of octets"));
    }
    Ok(value.parse().unwrap_or(u64::MAX))
}

/// RFC 6152: whether the body is 8-bit.
pub(super) fn body(value: &str) -> Result<bool, Reply> {
    match value {
        _ if value.eq_ignore_ascii_case("7BIT") => Ok(false),
        _ if value.eq_ignore_ascii_case("8BITMIME") => Ok(true),
        _ => Err(bad("BODY is 7BIT or 8BITMIME")),
    }
}

/// RFC 3461 §4.3.
pub(super) fn ret(value: &str) -> Result<Ret, Reply> {
    match value {
        _ if value.eq_ignore_ascii_case("FULL") => Ok(Ret::Full),
        _ if value.eq_ignore_ascii_case("HDRS") => Ok(Ret::Headers),
        _ => Err(bad("RET is FULL or HDRS")),
    }
}

/// RFC 3461 §4.4.
pub(super) fn envid(value: &str) -> Result<Box<str>, Reply> {
    if value.is_empty() || value.len() > ENVID_MAX || xtext::decode(value).is_none() {
        return Err(bad("ENVID is xtext of at most 100 characters"));
    }
    Ok(value.into())
}

/// RFC 3461 §4.2: an address type and an address in xtext.
pub(super) fn orcpt(value: &str) -> Result<Box<str>, Reply> {
    let ok = value.len() <= ORCPT_MAX
        && value.split_once(';').is_some_and(|(kind, address)| {
            !kind.is_empty()
                && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !address.is_empty()
                && xtext::decode(address).is_some()
        });
    if ok { Ok(value.into()) } else { Err(bad("ORCPT is type;address in xtext, at most 500 characters")) }
}

/// RFC 4954 §5: who first submitted it. We trust nobody's word for it, so it is checked and forgotten.
pub(super) fn auth(value: &str) -> Result<(), Reply> {
    if value == "<>" || (!value.is_empty() && xtext::decode(value).is_some()) {
        Ok(())
    } else {
        Err(bad("AUTH is <> or a mailbox in xtext"))
    }
}

/// RFC 3461 §4.1: `NEVER` alone, or a list.
pub(super) fn notify(value: &str) -> Result<Notify, Reply> {
    if value.eq_ignore_ascii_case("NEVER") {
        return Ok(Notify::Never);
    }
    let (mut success, mut failure, mut delay) = (false, false, false);
    for word in value.split(',') {
        match word {
            _ if word.eq_ignore_ascii_case("SUCCESS") => success = true,
            _ if word.eq_ignore_ascii_case("FAILURE") => failure = true,
            _ if word.eq_ignore_ascii_case("DELAY") => delay = true,
            _ => return Err(bad("NOTIFY is NEVER, or a list of SUCCESS, FAILURE and DELAY")),
        }
    }
    Ok(Notify::On { success, failure, delay })
}
