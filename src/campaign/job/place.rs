//! Where a field stands in the text of a job: line and column, found by its path once a problem needs it.

use std::borrow::Cow;

use toml::de::{DeTable, DeValue};

use super::Format;

/// One step of a path: `schedule`, or `[2]`.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Step<'a> {
    Key(Cow<'a, str>),
    Index(usize),
}

/// Line and column, both from 1, the column in characters, of the value at a path; of the nearest one around it where it is not there.
pub fn of(text: &str, format: Format, path: &str) -> Option<(u32, u32)> {
    let steps = steps(path);
    let offset = match format {
        Format::Toml => in_toml(text, &steps)?,
        Format::Json => Json { text: text.as_bytes(), at: 0 }.find(&steps)?,
    };
    Some(line_and_column(text, offset))
}

/// Line and column of an offset in octets.
pub(super) fn line_and_column(text: &str, offset: usize) -> (u32, u32) {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = &text[..offset];
    let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
}

/// `a.b[2].c` as steps. A key with a dot in it is not found: then the table around it is told.
fn steps(path: &str) -> Vec<Step<'_>> {
    let mut out = Vec::new();
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let (key, rest) = part.split_once('[').unwrap_or((part, ""));
        if !key.is_empty() {
            out.push(Step::Key(key.into()));
        }
        let numbers = rest.split('[').filter_map(|n| n.trim_end_matches(']').parse().ok());
        out.extend(numbers.map(Step::Index));
    }
    out
}

fn in_toml(text: &str, steps: &[Step<'_>]) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let mut table = Some(document.get_ref());
    let mut value: Option<&DeValue<'_>> = None;
    let mut found = None;
    for step in steps {
        let next = match step {
            Step::Key(key) => {
                table.and_then(|t| t.iter().find(|(k, _)| k.get_ref() == key)).map(|(k, v)| (k.span().start, v))
            }
            Step::Index(index) => match value {
                Some(DeValue::Array(items)) => items.get(*index).map(|v| (v.span().start, v)),
                _ => None,
            },
        };
        let Some((offset, next)) = next else { break };
        found = Some(offset);
        value = Some(next.get_ref());
        table = match next.get_ref() {
            DeValue::Table(inner) => Some(inner),
            _ => None,
        };
    }
    found
}

/// Walks JSON that is known to be well-formed.
struct Json<'a> {
    text: &'a [u8],
    at: usize,
}

impl Json<'_> {
    fn find(&mut self, steps: &[Step<'_>]) -> Option<usize> {
        self.space();
        let mut found = None;
        for step in steps {
            let entered = match step {
                Step::Key(key) => self.enter_key(key),
                Step::Index(index) => self.enter_index(*index),
            };
            match entered {
                Some(offset) => found = Some(offset),
                None => break,
            }
        }
        found
    }

    /// Goes to the value of a key of the object here; answers where the key stands.
    fn enter_key(&mut self, key: &str) -> Option<usize> {
        self.expect(b'{')?;
        loop {
            self.space();
            let start = self.at;
            self.string()?;
            let name: Cow<'_, str> = serde_json::from_slice::<String>(self.text.get(start..self.at)?).ok()?.into();
            self.space();
            self.expect(b':')?;
            self.space();
            if name == key {
                return Some(start);
            }
            self.skip()?;
            self.space();
            self.expect(b',')?;
        }
    }

    fn enter_index(&mut self, index: usize) -> Option<usize> {
        self.expect(b'[')?;
        for _ in 0..index {
            self.space();
            self.skip()?;
            self.space();
            self.expect(b',')?;
        }
        self.space();
        (self.text.get(self.at)? != &b']').then_some(self.at)
    }

    /// Passes over one value, without recursion: depth is counted.
    fn skip(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match self.text.get(self.at)? {
                b'"' => self.string()?,
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.at += 1;
                }
                b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' => {
                    self.at += 1;
                    continue;
                }
                _ => {
                    let rest = &self.text[self.at..];
                    let end = rest.iter().position(|b| b",]} \t\r\n".contains(b)).unwrap_or(rest.len());
                    self.at += end.max(1);
                }
            }
            if depth == 0 {
                return Some(());
            }
        }
    }

    fn string(&mut self) -> Option<()> {
        self.expect(b'"')?;
        loop {
            match self.text.get(self.at)? {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        Some(())
    }

    fn expect(&mut self, octet: u8) -> Option<()> {
        (self.text.get(self.at)? == &octet).then(|| self.at += 1)
    }

    fn space(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }
}
