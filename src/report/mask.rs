//! Replies that are alike: what differs from one recipient to the next is masked, what is left is the template.
//!
//! 1. A reply is cut into words,
//! 2. addresses, IP addresses, numbers, ids, host names with numbers and the recipient's own domain become marks,
//! 3. codes that providers document (`[TSS04]`, `S3150`, `5.7.26`) are short, or have dots between single numbers: they stay.

use std::net::IpAddr;

/// The longest template, in characters.
const TEMPLATE_MAX: usize = 200;
/// The longest example, in characters.
const EXAMPLE_MAX: usize = 400;
/// From this length on a word of letters and digits is taken for an id.
const ID_MIN: usize = 7;

/// What a reply has in common with those that are alike. `domain` is the recipient's.
pub(super) fn template(text: &str, domain: &str) -> String {
    let masked = words(text, |word| {
        if !domain.is_empty() && word.eq_ignore_ascii_case(domain) { Some("<domain>") } else { mark(word) }
    });
    cut(&masked, TEMPLATE_MAX)
}

/// A reply as it may be shown and kept: without addresses of people.
pub(super) fn example(text: &str) -> String {
    cut(&words(text, |word| word.contains('@').then_some("<address>")), EXAMPLE_MAX)
}

/// The text with each word that `mask` answers for replaced; blanks are drawn together, controls go.
fn words(text: &str, mask: impl Fn(&str) -> Option<&'static str>) -> String {
    let mut out = String::with_capacity(text.len());
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '@' | '.' | '_' | '-' | '+' | '=' | '%' | ':' | '/');
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| is_word(c) != is_word(first)).unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        rest = after;
        if !is_word(first) {
            for c in part.chars() {
                match c {
                    c if c.is_whitespace() || c.is_control() => {
                        if !out.ends_with(' ') && !out.is_empty() {
                            out.push(' ');
                        }
                    }
                    c => out.push(c),
                }
            }
            continue;
        }
        // The point that ends a sentence, or a colon, is not of the word.
        let word = part.trim_end_matches(['.', ':', '-', '/']);
        let word_only = word.trim_start_matches(['.', ':', '-', '/']);
        match mask(word_only).filter(|_| !word_only.is_empty()) {
            Some(mark) => {
                out.push_str(&part[..word.len() - word_only.len()]);
                out.push_str(mark);
                out.push_str(&part[word.len()..]);
            }
            None => out.push_str(part),
        }
    }
    out.truncate(out.trim_end().len());
    out
}

fn mark(word: &str) -> Option<&'static str> {
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    if word.contains("://") {
        return None;
    }
    if word.contains('@') {
        return Some("<address>");
    }
    if word.parse::<IpAddr>().is_ok() {
        return Some("<ip>");
    }
    if digits == 0 {
        return None;
    }
    if digits == word.len() {
        return Some("<n>");
    }
    if is_enhanced(word) {
        return None;
    }
    if is_host(word) {
        return Some("<host>");
    }
    if word.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b':' | b'-' | b'/')) {
        return Some("<n>");
    }
    (word.len() >= ID_MIN).then_some("<id>")
}

/// `5.7.1`: a class, a subject, a detail (RFC 3463 §2).
fn is_enhanced(word: &str) -> bool {
    let mut parts = word.split('.');
    let short =
        |part: Option<&str>| part.is_some_and(|p| (1..=3).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_digit()));
    matches!(parts.next(), Some("2" | "4" | "5"))
        && short(parts.next())
        && short(parts.next())
        && parts.next().is_none()
}

/// A name with a dot whose last label is of letters: a host, not an id with a dot.
fn is_host(word: &str) -> bool {
    let Some((_, last)) = word.rsplit_once('.') else { return false };
    last.len() >= 2
        && last.bytes().all(|b| b.is_ascii_alphabetic())
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
}

fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}
