//! What is printed: lines, aligned tables, or JSON. Bold heads only on a terminal; never a control character of a remote's text.

use std::io::{IsTerminal, Write};

use serde::Serialize;

/// Where a command prints.
pub struct Out {
    /// JSON for programs instead of tables.
    pub json: bool,
    bold: bool,
    sink: Box<dyn Write + Send>,
}

impl Out {
    /// Standard output; bold heads where it is a terminal and `NO_COLOR` is not set.
    pub fn stdout(json: bool) -> Self {
        let bold = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { json, bold, sink: Box::new(std::io::stdout()) }
    }

    /// Anywhere else, without bold.
    pub fn to(json: bool, sink: Box<dyn Write + Send>) -> Self {
        Self { json, bold: false, sink }
    }

    /// One line. The text must be clean already.
    pub fn line(&mut self, text: impl AsRef<str>) -> anyhow::Result<()> {
        self.bytes(text.as_ref().as_bytes())?;
        self.bytes(b"\n")
    }

    /// A head: bold on a terminal.
    pub fn head(&mut self, text: &str) -> anyhow::Result<()> {
        if self.bold { self.line(format!("\x1b[1m{text}\x1b[0m")) } else { self.line(text) }
    }

    /// Octets as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(self.sink.write_all(bytes)?)
    }

    /// Gives what is buffered to the reader.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        Ok(self.sink.flush()?)
    }

    /// JSON, indented.
    pub fn value(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        self.line(serde_json::to_string_pretty(value)?)
    }

    /// A table; with nothing in it, `nothing`.
    pub fn table(&mut self, table: &Table, nothing: &str) -> anyhow::Result<()> {
        if table.rows.is_empty() {
            return self.line(nothing);
        }
        let lines = table.render();
        self.head(&lines[0])?;
        lines[1..].iter().try_for_each(|line| self.line(line))
    }
}

/// How a column is aligned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Align {
    /// Texts.
    Left,
    /// Numbers.
    Right,
}

/// A table of texts.
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns. A name that begins with `#` is a column of numbers.
    pub fn new(columns: &[&'static str]) -> Self {
        let column = |name: &&'static str| match name.strip_prefix('#') {
            Some(name) => (name, Align::Right),
            None => (*name, Align::Left),
        };
        Self { columns: columns.iter().map(column).collect(), rows: Vec::new() }
    }

    /// Adds a row: as many cells as there are columns.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|c| printable(&c)).collect());
    }

    /// The lines: first the names, then the rows, two blanks between columns, no blanks at the end.
    pub fn render(&self) -> Vec<String> {
        let width = |s: &str| s.chars().count();
        let mut widths: Vec<usize> = self.columns.iter().map(|(name, _)| width(name)).collect();
        for row in &self.rows {
            for (w, cell) in widths.iter_mut().zip(row) {
                *w = (*w).max(width(cell));
            }
        }
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut out = String::new();
            for ((cell, w), (_, align)) in cells.zip(&widths).zip(&self.columns) {
                let pad = " ".repeat(w.saturating_sub(width(cell)));
                match align {
                    Align::Left => out.extend([cell, &pad, "  "]),
                    Align::Right => out.extend([&pad, cell, "  "]),
                }
            }
            out.truncate(out.trim_end().len());
            out
        };
        let mut lines = vec![line(&mut self.columns.iter().map(|(name, _)| *name))];
        lines.extend(self.rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
        lines
    }
}

/// A text of several lines, as a problem with its hint: the line ends stay, other controls do not.
pub fn printable_lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

/// A text without controls: a remote's reply may hold escapes meant for this terminal.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => out.push(' '),
            // Directional marks can make a line read as another one.
            c if c.is_control()
                || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}') =>
            {
                out.extend(c.escape_unicode());
            }
            c => out.push(c),
        }
    }
    out
}
