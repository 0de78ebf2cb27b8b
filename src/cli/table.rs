//! Tables for people, and writing to standard output.

use std::io::{self, Write};

/// Prints `text` and a line end; an error, such as a closed pipe, is the caller's to handle.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// A table: columns as wide as their widest cell, two spaces between them.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<bool>,
}

impl Table {
    /// A table with these headings; a heading that begins with `>` stands over a column of numbers, set to the right.
    pub fn new(headings: &[&str]) -> Self {
        let right = headings.iter().map(|h| h.starts_with('>')).collect();
        let first = headings.iter().map(|h| h.trim_start_matches('>').to_owned()).collect();
        Self { rows: vec![first], right }
    }

    /// Adds a row; cells beyond the headings are left out.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut row: Vec<String> = cells.into_iter().take(self.right.len()).map(|cell| visible(&cell)).collect();
        row.resize(self.right.len(), String::new());
        self.rows.push(row);
    }

    /// Whether it has no rows but its headings.
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    /// The lines, without spaces at their ends.
    pub fn render(&self) -> String {
        let width = |i: usize| self.rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.right.len()).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (i, cell) in row.iter().enumerate() {
                if i > 0 {
                    line.push_str("  ");
                }
                let pad = " ".repeat(widths[i] - cell.chars().count());
                if self.right[i] {
                    line.push_str(&pad);
                }
                line.push_str(cell);
                if !self.right[i] {
                    line.push_str(&pad);
                }
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// What a remote said must not steer the terminal: controls become their escapes.
fn visible(text: &str) -> String {
    if !text.contains(char::is_control) {
        return text.to_owned();
    }
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_controls_are_shown() {
        let mut table = Table::new(&["domain", ">queued", "reply"]);
        table.row(["a.example".into(), "7".into(), "451 \u{1b}[2Jlater".into()]);
        table.row(["bücher.example".into(), "1200".into()]);
        let want =
            "domain          queued  reply\na.example            7  451 \\u{1b}[2Jlater\nbücher.example    1200\n";
        assert_eq!(table.render(), want);
    }
}
