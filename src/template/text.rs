//! Plain text from HTML: what a reader without HTML gets.
//!
//! 1. The pieces of HTML fill a paragraph with words; white space between them collapses,
//! 2. a block element ends the paragraph, which is wrapped, behind its marks of list and quotation,
//! 3. a link stands behind its text as `<url>`; scripts, styles, the head and what is hidden have no place.
//!
//! For a template its blocks are words too, so that the text is a template again.

use crate::template::html::{Piece, Pieces, attribute, decode};

/// The longest line, but for words that are longer.
const WIDTH: usize = 76;

/// How wide the output of a block of a template is taken to be.
const BLOCK_WIDTH: usize = 10;

/// Lists and quotations within each other that are shown as such.
const DEPTH_MAX: usize = 8;

/// Plain text from HTML, in lines of at most 76 characters where words allow it.
pub fn html_to_text(html: &str) -> String {
    tidy(&convert(html, false))
}

/// The template of a text from the template of HTML.
pub(super) fn template_to_text(html: &str) -> String {
    convert(html, true).trim().to_owned()
}

/// No blank lines at the ends, none twice, no white space at the ends of lines.
pub(super) fn tidy(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut blanks = 0;
    for line in text.lines().map(str::trim_end) {
        if line.is_empty() {
            blanks += 1;
            continue;
        }
        if !out.is_empty() {
            out.push_str(if blanks > 0 { "\n\n" } else { "\n" });
        }
        blanks = 0;
        out.push_str(line);
    }
    if !out.is_empty() {
        out.push('\n');
    }
    out
}

#[derive(Default)]
struct Word {
    text: String,
    width: usize,
    /// Only statements of a template, which leave nothing behind.
    is_statement: bool,
}

#[derive(Clone, Copy)]
enum Nest {
    Bullets,
    Numbers(usize),
    Quote,
}

#[derive(Default)]
struct Writer {
    out: String,
    words: Vec<Word>,
    /// Whether the next text joins the last word.
    joins: bool,
    /// Line ends owed before the next paragraph: 1 or 2.
    gap: usize,
    /// Statements of a template between paragraphs: they go before the gap, so that it is repeated or left out with what it parts.
    statements: String,
    nests: Vec<Nest>,
    /// The mark of a list's item that the next paragraph begins with.
    mark: Option<String>,
    preformatted: usize,
    links: Vec<(String, usize)>,
}

fn convert(html: &str, is_template: bool) -> String {
    let mut writer = Writer::default();
    let mut pieces = Pieces::new(html, is_template);
    let mut skipped: Option<(&str, usize)> = None;
    // Where a hidden element is never closed, hiding would lose all the rest: then nothing more is taken as hidden.
    while let Some(piece) = pieces.next() {
        if let Some((name, depth)) = &mut skipped {
            match piece {
                Piece::Open(open, attributes) if open.eq_ignore_ascii_case(name) && !attributes.ends_with('/') => {
                    *depth += 1
                }
                Piece::Close(close) if close.eq_ignore_ascii_case(name) => *depth -= 1,
                // Statements are kept: an `endif` may close what began before.
                Piece::Block(block) if block.starts_with("{%") => writer.block(block),
                _ => {}
            }
            if *depth == 0 {
                skipped = None;
            }
            continue;
        }
        match piece {
            Piece::Text(text) => writer.text(&decode(text)),
            Piece::Block(block) => writer.block(block),
            Piece::Open(name, attributes) => {
                let name_lower = name.to_ascii_lowercase();
                let hides = matches!(&*name_lower, "head" | "title" | "noscript" | "select" | "svg" | "object")
                    || (!is_void(&name_lower) && is_hidden(attributes));
                if hides && closes(html, pieces.at(), name) {
                    skipped = Some((name, 1));
                } else {
                    writer.open(&name_lower, attributes);
                }
            }
            Piece::Close(name) => writer.close(&name.to_ascii_lowercase()),
        }
    }
    writer.end_paragraph();
    writer.out + &writer.statements
}

fn is_void(name: &str) -> bool {
    matches!(name, "img" | "br" | "hr" | "input" | "meta" | "link" | "col" | "wbr")
}

fn is_hidden(attributes: &str) -> bool {
    attribute(attributes, "style").is_some_and(|style| {
        let style: String = style.chars().filter(|c| !c.is_whitespace()).collect();
        style.to_ascii_lowercase().contains("display:none")
    })
}

/// Whether an element is closed somewhere. One look at the end of the document bounds the time: the last closing tag of that name.
fn closes(html: &str, from: usize, name: &str) -> bool {
    let rest = &html.as_bytes()[from..];
    memchr::memrchr_iter(b'<', rest).any(|at| {
        rest.get(at + 1) == Some(&b'/')
            && rest.get(at + 2..at + 2 + name.len()).is_some_and(|n| n.eq_ignore_ascii_case(name.as_bytes()))
    })
}

impl Writer {
    fn text(&mut self, text: &str) {
        if self.preformatted > 0 {
            for (i, line) in text.split('\n').enumerate() {
                if i > 0 {
                    self.line_end(1);
                }
                self.word(line.trim_end(), line.chars().count());
            }
            return;
        }
        let is_space = |c: char| c.is_ascii_whitespace();
        if text.starts_with(is_space) {
            self.joins = false;
        }
        // Characters without width only fill the line beside the subject.
        let shown: String = text
            .chars()
            .filter(|c| !matches!(c, '\u{200b}'..='\u{200f}' | '\u{feff}' | '\u{ad}' | '\u{34f}'))
            .collect();
        let mut words = shown.split(is_space).filter(|word| !word.is_empty()).peekable();
        while let Some(word) = words.next() {
            self.word(word, word.chars().count());
            self.joins = words.peek().is_none();
        }
        if text.ends_with(is_space) {
            self.joins = false;
        }
    }

    fn word(&mut self, text: &str, width: usize) {
        match self.words.last_mut() {
            Some(last) if self.joins => {
                last.text.push_str(text);
                last.width += width;
                last.is_statement = false;
            }
            _ => self.words.push(Word { text: text.to_owned(), width, is_statement: false }),
        }
        self.joins = true;
    }

    fn block(&mut self, block: &str) {
        if block.starts_with("{#") {
            return;
        }
        if block.starts_with("{{") {
            return self.word(block, BLOCK_WIDTH);
        }
        match self.words.last_mut() {
            Some(last) if self.joins => last.text.push_str(block),
            _ => self.words.push(Word { text: block.to_owned(), width: 0, is_statement: true }),
        }
        self.joins = true;
    }

    fn open(&mut self, name: &str, attributes: &str) {
        match name {
            "br" => self.line_end(1),
            "hr" => {
                self.line_end(2);
                self.word("----------", 10);
                self.line_end(2);
            }
            "img" => {
                if let Some(alt) = attribute(attributes, "alt").filter(|alt| !alt.trim().is_empty()) {
                    self.text(&alt);
                }
            }
            "a" => {
                let url = attribute(attributes, "href").unwrap_or_default().trim().to_owned();
                self.links.truncate(DEPTH_MAX);
                self.links.push((url, self.words.len()));
            }
            "td" | "th" => {
                if self.words.last().is_some_and(|word| !word.is_statement) {
                    self.joins = false;
                    self.word("", 0);
                    self.joins = false;
                }
            }
            "li" => {
                self.line_end(1);
                self.mark = Some(match self.nests.last_mut() {
                    Some(Nest::Numbers(n)) => {
                        *n += 1;
                        format!("{n}. ")
                    }
                    _ => "- ".to_owned(),
                });
            }
            "ul" | "ol" | "blockquote" => {
                let is_inner = self.nests.iter().any(|nest| !matches!(nest, Nest::Quote));
                self.line_end(if is_inner && name != "blockquote" { 1 } else { 2 });
                if self.nests.len() < DEPTH_MAX {
                    self.nests.push(match name {
                        "ul" => Nest::Bullets,
                        "ol" => Nest::Numbers(0),
                        _ => Nest::Quote,
                    });
                }
            }
            "pre" => {
                self.line_end(2);
                self.preformatted += 1;
            }
            _ => self.line_end(gap_of(name)),
        }
    }

    fn close(&mut self, name: &str) {
        match name {
            "a" => self.close_link(),
            "ul" | "ol" | "blockquote" => {
                self.line_end(1);
                self.nests.pop();
                let is_inner = self.nests.iter().any(|nest| !matches!(nest, Nest::Quote));
                self.line_end(if is_inner { 1 } else { 2 });
            }
            "pre" => {
                self.line_end(2);
                self.preformatted = self.preformatted.saturating_sub(1);
            }
            "li" => {
                self.line_end(1);
                self.mark = None;
            }
            _ => self.line_end(gap_of(name)),
        }
    }

    fn close_link(&mut self) {
        let Some((url, from)) = self.links.pop() else { return };
        let scheme = url.split(':').next().unwrap_or("").to_ascii_lowercase();
        if !(matches!(&*scheme, "http" | "https" | "mailto" | "tel") || url.starts_with("{{")) {
            return;
        }
        let from = from.min(self.words.len());
        let text = self.words[from..].iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
        let shown = url.strip_prefix("mailto:").or_else(|| url.strip_prefix("tel:")).unwrap_or(&url);
        if text.trim() != shown && text.trim() != url {
            self.joins = false;
            let width = shown.chars().count() + 2;
            self.word(&format!("<{shown}>"), width);
        }
    }

    /// Ends the paragraph where there is one, and owes line ends.
    fn line_end(&mut self, gap: usize) {
        if gap == 0 {
            return;
        }
        let had_words = !self.words.is_empty();
        self.end_paragraph();
        self.gap = if had_words || self.preformatted == 0 { self.gap.max(gap) } else { self.gap + gap };
    }

    fn end_paragraph(&mut self) {
        let words = std::mem::take(&mut self.words);
        self.joins = false;
        for link in &mut self.links {
            link.1 = 0;
        }
        if words.iter().all(|word| word.is_statement || word.text.is_empty()) {
            self.statements.extend(words.into_iter().map(|word| word.text));
            return;
        }
        self.out.push_str(&std::mem::take(&mut self.statements));
        if !self.out.is_empty() {
            self.out.push_str(&"\n".repeat(self.gap.clamp(1, 2)));
        }
        self.gap = 0;
        let (first, rest) = self.prefixes();
        self.out.push_str(&first);
        let mut column = first.chars().count();
        let begin = column;
        let mut is_first = true;
        for word in words {
            if !is_first && column > begin && column + 1 + word.width > WIDTH && self.preformatted == 0 {
                self.out.push('\n');
                self.out.push_str(&rest);
                column = begin;
            } else if !is_first {
                self.out.push(' ');
                column += 1;
            }
            is_first = false;
            self.out.push_str(&word.text);
            column += word.width;
        }
    }

    /// What stands before the first line of a paragraph, and before its others.
    fn prefixes(&mut self) -> (String, String) {
        let mut rest = String::new();
        for nest in &self.nests {
            rest.push_str(match nest {
                Nest::Quote => "> ",
                Nest::Bullets => "  ",
                Nest::Numbers(_) => "   ",
            });
        }
        let mut first = rest.clone();
        if let Some(mark) = self.mark.take() {
            let len = first.len().saturating_sub(mark.len());
            first.truncate(len);
            first.push_str(&mark);
        }
        (first, rest)
    }
}

/// The line ends around an element: 2 for a paragraph, 1 for a block, 0 for what stands in a line.
fn gap_of(name: &str) -> usize {
    match name {
        "p" | "h1" | "h2" | "h3" | "h4" | "h5" | "h6" | "table" | "dl" | "figure" | "fieldset" => 2,
        "div" | "tr" | "section" | "article" | "header" | "footer" | "main" | "nav" | "aside" | "address"
        | "center" | "form" | "dt" | "dd" | "caption" | "figcaption" | "tbody" | "thead" | "body" => 1,
        _ => 0,
    }
}
