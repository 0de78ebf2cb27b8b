//! The mailboxes of a From field (RFC 5322 §3.4), for the check of sender domains and the alignment of DKIM.
//!
//! Comments nest without limit in the grammar, so they are counted, never recursed into.

use crate::types::{AddressError, Mailbox};

/// The most mailboxes of a From field. Real ones have one.
const MAILBOXES_MAX: usize = 50;

/// Why a From field is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum FromError {
    #[error("it has no address")]
    Empty,
    #[error("it has more than {MAILBOXES_MAX} addresses")]
    TooMany,
    #[error("a comment, quoted string or bracket is not closed")]
    Unclosed,
    #[error("{0}")]
    Address(#[from] AddressError),
}

/// The mailboxes of an unfolded From value, at least one. Groups (RFC 6854) count with their members.
pub(super) fn mailboxes(value: &str) -> Result<Vec<Mailbox>, FromError> {
    let mut found = Vec::new();
    let mut chars = value.chars();
    // The current mailbox: what stands outside of brackets, and what stands in them.
    let (mut plain, mut angle) = (String::new(), None);
    while let Some(c) = chars.next() {
        match c {
            '(' => skip_comment(&mut chars)?,
            '"' => take_quoted(&mut chars, &mut plain)?,
            '<' => angle = Some(take_angle(&mut chars)?),
            ':' if angle.is_none() => plain.clear(),
            ',' | ';' => finish(&mut plain, &mut angle, &mut found)?,
            _ => plain.push(c),
        }
    }
    finish(&mut plain, &mut angle, &mut found)?;
    if found.is_empty() { Err(FromError::Empty) } else { Ok(found) }
}

fn finish(plain: &mut String, angle: &mut Option<String>, found: &mut Vec<Mailbox>) -> Result<(), FromError> {
    let address = angle.take();
    let text = address.as_deref().unwrap_or(plain).trim();
    if text.is_empty() && address.is_none() {
        plain.clear();
        return Ok(());
    }
    if text.contains('\u{fffd}') {
        return Err(AddressError::LocalPart.into());
    }
    if found.len() == MAILBOXES_MAX {
        return Err(FromError::TooMany);
    }
    found.push(Mailbox::parse(text)?);
    plain.clear();
    Ok(())
}

fn skip_comment(chars: &mut std::str::Chars<'_>) -> Result<(), FromError> {
    let mut depth = 1_usize;
    while let Some(c) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Ok(());
        }
    }
    Err(FromError::Unclosed)
}

fn take_quoted(chars: &mut std::str::Chars<'_>, out: &mut String) -> Result<(), FromError> {
    out.push('"');
    while let Some(c) = chars.next() {
        out.push(c);
        match c {
            '\\' => out.extend(chars.next()),
            '"' => return Ok(()),
            _ => {}
        }
    }
    Err(FromError::Unclosed)
}

fn take_angle(chars: &mut std::str::Chars<'_>) -> Result<String, FromError> {
    let mut out = String::new();
    while let Some(c) = chars.next() {
        match c {
            '>' => return Ok(out),
            '(' => skip_comment(chars)?,
            '"' => take_quoted(chars, &mut out)?,
            _ => out.push(c),
        }
    }
    Err(FromError::Unclosed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, want: Result<&[&str], FromError>) {
        let got = mailboxes(value);
        let got = got.as_ref().map(|list| list.iter().map(Mailbox::as_str).collect::<Vec<_>>()).map_err(|e| *e);
        assert_eq!(got, want.map(<[_]>::to_vec), "{value:?}");
    }

    #[test]
    fn finds_the_mailboxes() {
        check(" a@b.example", Ok(&["a@b.example"]));
        check(" \"Doe, Jane <x@y>\" <a@b.example>", Ok(&["a@b.example"]));
        check(" Jane (a <x@y.example>, (nested)) Doe <a@b.example>, c@d.example", Ok(&["a@b.example", "c@d.example"]));
        check(" Team: a@b.example, C <c@d.example>;", Ok(&["a@b.example", "c@d.example"]));
        check(" \"q u\"@b.example", Ok(&["\"q u\"@b.example"]));
        check(" M\u{fc}ller <a@b.example>", Ok(&["a@b.example"]));
    }

    #[test]
    fn refuses_what_has_no_sender() {
        check("", Err(FromError::Empty));
        check(" undisclosed:;", Err(FromError::Empty));
        check(" a@b.example (never closed", Err(FromError::Unclosed));
        check(" <a@b.example", Err(FromError::Unclosed));
        check(" <>", Err(FromError::Address(AddressError::Form)));
        check(" Jane Doe", Err(FromError::Address(AddressError::Form)));
        check(" <a@\u{fffd}.example>", Err(FromError::Address(AddressError::LocalPart)));
    }

    #[test]
    fn many_open_comments_cost_no_stack() {
        check(&"(".repeat(200_000), Err(FromError::Unclosed));
    }
}
