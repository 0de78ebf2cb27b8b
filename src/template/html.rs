//! HTML as it is found in mail, read in one pass: tags, texts and their places. Nothing is an error, and time grows with length.

use std::borrow::Cow;

use crate::template::lexer;

/// A piece of HTML.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Piece<'h> {
    /// Text between tags, entities not decoded.
    Text(&'h str),
    /// A block of a template: `{{ name }}`, `{% if x %}`, `{# … #}`.
    Block(&'h str),
    /// A tag that opens: its name as written, and its attributes.
    Open(&'h str, &'h str),
    /// A tag that closes.
    Close(&'h str),
}

/// Reads HTML piece by piece.
pub(super) struct Pieces<'h> {
    html: &'h str,
    at: usize,
    /// Blocks of a template are pieces of their own, and hide tags and quotes.
    is_template: bool,
    /// The element whose text has no tags: `script`, `style`.
    raw: Option<&'h str>,
}

impl<'h> Pieces<'h> {
    pub(super) fn new(html: &'h str, is_template: bool) -> Self {
        Self { html, at: 0, is_template, raw: None }
    }

    /// Where the next piece begins.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    fn is_block(&self, at: usize) -> bool {
        let bytes = &self.html.as_bytes()[at..];
        self.is_template && bytes[0] == b'{' && matches!(bytes.get(1), Some(b'{' | b'%' | b'#'))
    }

    /// Where a tag that begins at `start` ends: behind its `>`.
    fn tag_end(&self, start: usize) -> usize {
        let bytes = self.html.as_bytes();
        let mut at = start;
        let mut quote = None;
        while at < bytes.len() {
            if self.is_block(at) {
                at = lexer::block_end(self.html, at);
                continue;
            }
            match (bytes[at], quote) {
                (b'>', None) => return at + 1,
                // A quote opens a value only behind `=`; elsewhere it is somebody's slip.
                (q @ (b'"' | b'\''), None) if self.html[start..at].trim_end().ends_with('=') => quote = Some(q),
                (q, Some(open)) if q == open => quote = None,
                _ => {}
            }
            at += 1;
        }
        bytes.len()
    }

    fn text_end(&self) -> usize {
        let bytes = self.html.as_bytes();
        let mut at = self.at;
        loop {
            let Some(found) = memchr::memchr2(b'<', b'{', &bytes[at..]) else { return bytes.len() };
            at += found;
            if self.is_block(at) || is_tag(&bytes[at..]) {
                return at;
            }
            at += 1;
        }
    }

    /// The end of the text of an element without tags.
    fn raw_end(&self, name: &str) -> usize {
        let rest = &self.html.as_bytes()[self.at..];
        let is_close = |at: &usize| {
            rest[at + 1..].first() == Some(&b'/')
                && rest.get(at + 2..at + 2 + name.len()).is_some_and(|n| n.eq_ignore_ascii_case(name.as_bytes()))
        };
        memchr::memchr_iter(b'<', rest).find(is_close).map_or(self.html.len(), |at| self.at + at)
    }
}

fn is_tag(bytes: &[u8]) -> bool {
    bytes[0] == b'<' && bytes.get(1).is_some_and(|b| b.is_ascii_alphabetic() || matches!(b, b'/' | b'!' | b'?'))
}

impl<'h> Iterator for Pieces<'h> {
    type Item = Piece<'h>;

    fn next(&mut self) -> Option<Piece<'h>> {
        loop {
            let start = self.at;
            if start >= self.html.len() {
                return None;
            }
            if let Some(name) = self.raw.take() {
                self.at = self.raw_end(name);
                continue;
            }
            let bytes = &self.html.as_bytes()[start..];
            if self.is_block(start) {
                self.at = lexer::block_end(self.html, start);
                return Some(Piece::Block(&self.html[start..self.at]));
            }
            if !is_tag(bytes) {
                self.at = self.text_end();
                return Some(Piece::Text(&self.html[start..self.at]));
            }
            if bytes.starts_with(b"<!--") {
                self.at = self.html[start..].find("-->").map_or(self.html.len(), |end| start + end + 3);
                continue;
            }
            self.at = self.tag_end(start + 1);
            let inner = self.html[start + 1..self.at].trim_end_matches('>');
            if inner.starts_with(['!', '?']) {
                continue;
            }
            if let Some(name) = inner.strip_prefix('/') {
                return Some(Piece::Close(name.trim()));
            }
            let name_len = inner.find(|c: char| c.is_whitespace() || matches!(c, '/' | '{')).unwrap_or(inner.len());
            let (name, attributes) = inner.split_at(name_len);
            if name.eq_ignore_ascii_case("script") || name.eq_ignore_ascii_case("style") {
                self.raw = Some(name);
            }
            return Some(Piece::Open(name, attributes));
        }
    }
}

/// The value of an attribute, entities decoded; `None` when it is not there.
pub(super) fn attribute<'h>(attributes: &'h str, wanted: &str) -> Option<Cow<'h, str>> {
    let mut rest = attributes;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '/');
        if rest.is_empty() {
            return None;
        }
        if rest.starts_with("{{") || rest.starts_with("{%") || rest.starts_with("{#") {
            rest = &rest[lexer::block_end(rest, 0)..];
            continue;
        }
        let name_len = rest.find(|c: char| c.is_whitespace() || matches!(c, '=' | '/')).unwrap_or(rest.len()).max(1);
        // A name may begin with `=`, by HTML's own rules; it must only not stop the reading.
        let name_len =
            rest.char_indices().map(|(at, c)| at + c.len_utf8()).find(|at| *at >= name_len).unwrap_or(rest.len());
        let name = &rest[..name_len];
        rest = rest[name_len..].trim_start();
        let mut value = "";
        if let Some(after) = rest.strip_prefix('=') {
            let after = after.trim_start();
            let quote = after.chars().next().filter(|c| matches!(c, '"' | '\''));
            let end = value_end(after, quote);
            value = &after[usize::from(quote.is_some()).min(end)..end];
            rest = after.get(end + usize::from(quote.is_some())..).unwrap_or("");
        }
        if name.eq_ignore_ascii_case(wanted) {
            return Some(decode(value));
        }
    }
}

/// Where a value ends: at its quote, or without one at white space; blocks of a template belong to it.
fn value_end(text: &str, quote: Option<char>) -> usize {
    let mut at = usize::from(quote.is_some());
    while let Some(c) = text[at..].chars().next() {
        if c == '{' && matches!(text.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#')) {
            at = lexer::block_end(text, at);
            continue;
        }
        if quote.map_or(c.is_whitespace(), |quote| c == quote) {
            break;
        }
        at += c.len_utf8();
    }
    at
}

/// Names of entities that mail has; others stay as they are written.
const ENTITIES: [(&str, &str); 48] = [
    ("amp", "&"),
    ("lt", "<"),
    ("gt", ">"),
    ("quot", "\""),
    ("apos", "'"),
    ("nbsp", "\u{a0}"),
    ("copy", "©"),
    ("reg", "®"),
    ("trade", "™"),
    ("euro", "€"),
    ("pound", "£"),
    ("yen", "¥"),
    ("cent", "¢"),
    ("hellip", "…"),
    ("mdash", "—"),
    ("ndash", "–"),
    ("lsquo", "‘"),
    ("rsquo", "’"),
    ("ldquo", "“"),
    ("rdquo", "”"),
    ("sbquo", "‚"),
    ("bdquo", "„"),
    ("laquo", "«"),
    ("raquo", "»"),
    ("middot", "·"),
    ("bull", "•"),
    ("deg", "°"),
    ("sect", "§"),
    ("auml", "ä"),
    ("ouml", "ö"),
    ("uuml", "ü"),
    ("Auml", "Ä"),
    ("Ouml", "Ö"),
    ("Uuml", "Ü"),
    ("szlig", "ß"),
    ("eacute", "é"),
    ("egrave", "è"),
    ("agrave", "à"),
    ("ccedil", "ç"),
    ("times", "×"),
    ("rarr", "→"),
    ("larr", "←"),
    ("zwnj", ""),
    ("zwj", ""),
    ("shy", ""),
    ("ensp", " "),
    ("emsp", " "),
    ("thinsp", "\u{2009}"),
];

/// The longest name of an entity, with `&` and `;`.
const ENTITY_LEN_MAX: usize = 12;

/// Decodes entities.
pub(super) fn decode(text: &str) -> Cow<'_, str> {
    if memchr::memchr(b'&', text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'&', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let len = rest.bytes().take(ENTITY_LEN_MAX).position(|b| b == b';');
        match len.and_then(|len| Some((len, entity(&rest[1..len])?))) {
            Some((len, decoded)) => {
                out.push_str(&decoded);
                rest = &rest[len + 1..];
            }
            None => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

fn entity(name: &str) -> Option<Cow<'static, str>> {
    if let Some(number) = name.strip_prefix('#') {
        let code = match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16).ok()?,
            None => number.parse().ok()?,
        };
        return char::from_u32(code).filter(|c| !c.is_control() || c.is_whitespace()).map(|c| c.to_string().into());
    }
    ENTITIES.iter().find(|(known, _)| *known == name).map(|(_, text)| Cow::Borrowed(*text))
}
