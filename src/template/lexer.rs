//! The words of a Jinja expression, with their places: for segments, and to check the names that templates use.

/// What a word is.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Kind {
    /// A name or a keyword.
    Name,
    /// A text, unescaped.
    Text(String),
    /// An integer.
    Int(i64),
    /// A number with a point or an exponent.
    Float(f64),
    /// An operator or a bracket.
    Sign,
}

/// A word.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Token<'s> {
    pub(super) kind: Kind,
    /// As it stands in the source.
    pub(super) word: &'s str,
    /// Where it begins, in octets.
    pub(super) at: usize,
}

/// A place, and what is wrong there.
pub(super) type Wrong = (usize, String);

/// Signs of two characters come before their first character alone.
const SIGNS: [&str; 27] = [
    "==", "!=", "<=", ">=", "//", "**", "%}", "}}", "<", ">", "=", "+", "-", "*", "/", "%", "~", "|", ".", ",", ":",
    "(", ")", "[", "]", "{", "}",
];

/// The next word at or after `at`; `None` at the end.
pub(super) fn next(source: &str, at: usize) -> Result<Option<Token<'_>>, Wrong> {
    let rest = source.get(at..).unwrap_or("");
    let skipped = rest.len() - rest.trim_start().len();
    let (at, rest) = (at + skipped, &rest[skipped..]);
    let Some(first) = rest.chars().next() else { return Ok(None) };
    let token = |kind, len: usize| Ok(Some(Token { kind, word: &rest[..len], at }));
    if first.is_alphabetic() || first == '_' {
        let len = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        return token(Kind::Name, len);
    }
    if first.is_ascii_digit() {
        let (kind, len) = number(rest).ok_or_else(|| (at, "this number can't be read".to_owned()))?;
        return token(kind, len);
    }
    if matches!(first, '"' | '\'') {
        let (text, len) = text(rest, first).ok_or_else(|| (at, "this text has no closing quote".to_owned()))?;
        return token(Kind::Text(text), len);
    }
    match SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
        Some(sign) => token(Kind::Sign, sign.len()),
        None => Err((at, format!("`{first}` has no meaning here"))),
    }
}

fn number(rest: &str) -> Option<(Kind, usize)> {
    let digits = |from: usize| {
        rest[from..].find(|c: char| !(c.is_ascii_digit() || c == '_')).map_or(rest.len(), |len| from + len)
    };
    let mut len = digits(0);
    let mut is_float = false;
    if rest[len..].starts_with('.') && rest[len + 1..].starts_with(|c: char| c.is_ascii_digit()) {
        is_float = true;
        len = digits(len + 1);
    }
    if rest[len..].starts_with(['e', 'E']) {
        let sign = usize::from(rest[len + 1..].starts_with(['+', '-']));
        let end = digits(len + 1 + sign);
        if end > len + 1 + sign {
            is_float = true;
            len = end;
        }
    }
    let digits = rest[..len].replace('_', "");
    let kind = if is_float { Kind::Float(digits.parse().ok()?) } else { Kind::Int(digits.parse().ok()?) };
    Some((kind, len))
}

fn text(rest: &str, quote: char) -> Option<(String, usize)> {
    let mut out = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => match chars.next()?.1 {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' => out.push('\r'),
                other => out.push(other),
            },
            c if c == quote => return Some((out, at + 1)),
            c => out.push(c),
        }
    }
    None
}

/// Where a block of a template ends that begins at `at`, by its closing mark: behind `}}`, `%}` or `#}`; the marks in texts do
/// not count. The end of the source when it is never closed.
pub(super) fn block_end(source: &str, at: usize) -> usize {
    let rest = &source[at..];
    if rest.starts_with("{#") {
        return rest.find("#}").map_or(source.len(), |end| at + end + 2);
    }
    let close = if rest.starts_with("{{") { "}}" } else { "%}" };
    let mut depth = 0_usize;
    let mut from = at + 2;
    while let Ok(Some(token)) = next(source, from) {
        from = token.at + token.word.len();
        match token.word {
            word if token.kind == Kind::Sign && word == close && depth == 0 => return from,
            // `}}` also closes two objects.
            "}}" => depth = depth.saturating_sub(2),
            "{" => depth += 1,
            "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    // A character without meaning: the template's own parser says so.
    rest[2..].find(close).map_or(source.len(), |end| at + 2 + end + 2)
}

/// The next block at or after `from`: where it begins.
pub(super) fn next_block(source: &str, from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at += memchr::memchr(b'{', &source.as_bytes()[at..])?;
        if matches!(source.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#')) {
            return Some(at);
        }
        at += 1;
    }
}
