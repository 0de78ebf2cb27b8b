//! Header fields written one by one: text encoded (RFC 2047), addresses, and structured values folded (RFC 5322 §2.2.3).
//!
//! No value can become structure: what ends a line for somebody (controls, the Unicode line ends) becomes one space, whoever let it in.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mail_builder::headers::Header;
use mail_builder::headers::address::Address as HeaderAddress;
use mail_builder::headers::raw::Raw;
use mail_builder::headers::text::Text;

use super::build::{Address, VALUE_MAX};

/// Octets of text in one encoded word: 60 characters of base64, which with its frame stays below 75 (RFC 2047 §2).
const WORD_OCTETS_MAX: usize = 45;

/// Whether a character may end a line for somebody, or is no text at all.
fn breaks(c: char) -> bool {
    (c.is_control() && c != '\t') || matches!(c, '\u{2028}' | '\u{2029}')
}

/// The value on one line, without white space at its ends, and no longer than [`VALUE_MAX`]; each run of what can't stand in it as one
/// space. The second says whether something was replaced or cut.
pub fn one_line(value: &str) -> (Cow<'_, str>, bool) {
    let trimmed = value.trim();
    let short = trimmed.len() <= VALUE_MAX;
    let simple = |b: u8| matches!(b, b' '..=b'~' | b'\t');
    if short && (trimmed.bytes().all(simple) || !trimmed.contains(breaks)) {
        return (Cow::Borrowed(trimmed), false);
    }
    let mut out = String::with_capacity(trimmed.len().min(VALUE_MAX));
    let mut replaced = false;
    for c in trimmed.chars() {
        if out.len() + c.len_utf8() > VALUE_MAX {
            break;
        }
        if !breaks(c) {
            out.push(c);
            replaced = false;
        } else if !replaced {
            out.push(' ');
            replaced = true;
        }
    }
    out.truncate(out.trim_end().len());
    (Cow::Owned(out), true)
}

/// Appends `name: ` and the text, encoded where it is not plain ASCII. Says whether something had to be replaced.
pub fn write_text(name: &str, value: &str, out: &mut Vec<u8>) -> bool {
    let (value, replaced) = one_line(value);
    begin(name, out);
    // Text that looks encoded would be shown as something else.
    if value.contains("=?") {
        write_words(&value, out);
    } else {
        Text::new(value).write_header(out, name.len() + 2);
    }
    replaced
}

/// Appends `name: ` and a structured value as it is, only folded; a value that is not ASCII is taken as text. Says whether something had
/// to be replaced.
pub fn write_raw(name: &str, value: &str, out: &mut Vec<u8>) -> bool {
    let (value, replaced) = one_line(value);
    // A word that no line can hold can't be folded, only encoded.
    if !value.is_ascii() || value.split([' ', '\t']).any(|word| word.len() > super::encode::LINE_MAX - 80) {
        return write_text(name, &value, out) | replaced;
    }
    begin(name, out);
    Raw::new(value).write_header(out, name.len() + 2);
    replaced
}

/// Appends `name: ` and addresses. Says whether something in a name had to be replaced.
pub fn write_addresses<'a>(name: &str, list: impl IntoIterator<Item = &'a Address>, out: &mut Vec<u8>) -> bool {
    let mut any = false;
    let list = list.into_iter().map(|address| {
        let (shown, replaced) = one_line(address.name.as_deref().unwrap_or(""));
        any |= replaced;
        // A name that looks encoded would be shown as something else; that it is gone harms less.
        let shown = if shown.contains("=?") { Cow::Owned(shown.replace("=?", "= ?")) } else { shown };
        let mailbox = &address.mailbox;
        let shown = (!shown.is_empty()).then_some(shown);
        HeaderAddress::new_address(shown, mailbox.for_wire(mailbox.needs_smtputf8()))
    });
    let list: Vec<HeaderAddress<'_>> = list.collect();
    begin(name, out);
    HeaderAddress::new_list(list).write_header(out, name.len() + 2);
    any
}

/// Appends `name: value` as it is. For what we made ourselves: the value has no line end but folds, and is ASCII.
pub fn write_ours(name: &str, value: &str, out: &mut Vec<u8>) {
    begin(name, out);
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn begin(name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
}

/// Text as encoded words, one a line.
fn write_words(text: &str, out: &mut Vec<u8>) {
    let mut rest = text;
    loop {
        let mut end = rest.len().min(WORD_OCTETS_MAX);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (word, tail) = rest.split_at(end);
        out.extend_from_slice(b"=?utf-8?B?");
        out.extend_from_slice(STANDARD.encode(word).as_bytes());
        out.extend_from_slice(b"?=\r\n");
        if tail.is_empty() {
            return;
        }
        out.push(b' ');
        rest = tail;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Mailbox;
    use mail_parser::MessageParser;

    fn text(value: &str) -> (String, String) {
        let mut out = Vec::new();
        write_text("Subject", value, &mut out);
        let octets = String::from_utf8(out).expect("ASCII");
        let parsed = MessageParser::new()
            .parse(format!("{octets}\r\n").as_bytes())
            .expect("a header")
            .subject()
            .map(str::to_owned);
        (octets, parsed.unwrap_or_default())
    }

    #[test]
    fn text_comes_back_on_short_ascii_lines() {
        let long = "Grüße aus Łódź — ".repeat(40);
        for value in
            ["", "Hello", "Grüße, Jürgen!", "日本語の件名です", "=?utf-8?q?x?= is no word", "a =?b ü", long.trim()]
        {
            let (octets, parsed) = text(value);
            assert_eq!(parsed, value, "{octets}");
            assert!(octets.is_ascii() && octets.ends_with("\r\n"));
            assert!(octets.split("\r\n").all(|line| line.len() <= 78), "{octets}");
        }
        let words = "word ".repeat(60);
        assert!(text(&words).0.split("\r\n").all(|line| line.len() <= 78));
    }

    #[test]
    fn no_value_begins_another_field() {
        for evil in ["a\r\nBcc: v@t.example", "a\nb", "a\rb", "a\u{2028}b", "a\u{85}b", "a\0b", "a\r\n\r\n<html>"] {
            let mut out = Vec::new();
            assert!(write_text("Subject", evil, &mut out), "{evil:?}");
            assert!(write_raw("X-Mine", evil, &mut out), "{evil:?}");
            let from = Address { name: Some(evil.into()), mailbox: Mailbox::parse("a@b.example").expect("valid") };
            assert!(write_addresses("To", [&from], &mut out));
            let octets = String::from_utf8(out).expect("ASCII");
            let fields = octets.split("\r\n").filter(|line| !line.is_empty() && !line.starts_with(' ')).count();
            assert_eq!(fields, 3, "{octets:?}");
            assert!(!octets.replace("\r\n", "").contains(['\r', '\n', '\0']), "{octets:?}");
            assert!(!octets.contains("\r\n\r\n"), "{octets:?}");
        }
    }

    #[test]
    fn addresses_are_encoded_and_quoted() {
        let address =
            |name: &str, to: &str| Address { name: Some(name.into()), mailbox: Mailbox::parse(to).expect("valid") };
        let mut out = Vec::new();
        let list = [
            address("Jürgen Ä.", "j@t.example"),
            address("Doe, \"Jane\"", "d@t.example"),
            address("", "x@bücher.example"),
        ];
        write_addresses("To", &list, &mut out);
        out.extend_from_slice(b"\r\n");
        let parsed = MessageParser::new().parse(&out).expect("a header");
        let got: Vec<_> =
            parsed.to().expect("a field").iter().map(|a| (a.name().unwrap_or(""), a.address().unwrap_or(""))).collect();
        let want = [("Jürgen Ä.", "j@t.example"), ("Doe, \"Jane\"", "d@t.example"), ("", "x@xn--bcher-kva.example")];
        assert_eq!(got, want, "{}", String::from_utf8_lossy(&out));
        assert!(out.is_ascii());
    }

    #[test]
    fn a_word_too_long_for_a_line_is_encoded() {
        let mut out = Vec::new();
        write_raw("X-Long", &"x".repeat(5_000), &mut out);
        assert!(out.split(|b| *b == b'\n').all(|line| line.len() <= 998));
        let text = "ü".repeat(VALUE_MAX);
        let (long, was_cut) = one_line(&text);
        assert!(was_cut && long.len() <= VALUE_MAX);
    }
}
