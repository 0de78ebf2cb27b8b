//! What the check before the start looks for in HTML.

use crate::template::error::position;
use crate::template::html::{Piece, Pieces, attribute, decode};

/// A link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Where it goes; a template's blocks stay as they are.
    pub url: String,
    /// What is clicked on; of an image its `alt`.
    pub text: String,
    /// The line, from 1.
    pub line: usize,
}

/// An image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Image {
    /// Its source.
    pub src: String,
    /// The line, from 1.
    pub line: usize,
}

/// The links of HTML, or of its template, in their order: `a` and `area` with an `href`.
pub fn links(html: &str) -> Vec<Link> {
    let mut found: Vec<Link> = Vec::new();
    let mut is_open = false;
    walk(html, |at, piece| match piece {
        Piece::Open(name, attributes) if is(name, "a") || is(name, "area") => {
            is_open = false;
            if let Some(url) = attribute(attributes, "href") {
                is_open = is(name, "a");
                found.push(Link { url: url.trim().to_owned(), text: String::new(), line: at });
            }
        }
        Piece::Close(name) if is(name, "a") => is_open = false,
        Piece::Open(name, attributes) if is_open && is(name, "img") => {
            add(&mut found, &attribute(attributes, "alt").unwrap_or_default());
        }
        Piece::Text(text) if is_open => add(&mut found, &decode(text)),
        Piece::Block(block) if is_open => add(&mut found, block),
        _ => {}
    });
    found
}

fn add(found: &mut [Link], text: &str) {
    let Some(link) = found.last_mut() else { return };
    for word in text.split_whitespace() {
        if !link.text.is_empty() {
            link.text.push(' ');
        }
        link.text.push_str(word);
    }
}

/// Images without an `alt`: an empty one is right for an ornament. Images of one pixel, which count openings, need none.
pub fn images_without_alt(html: &str) -> Vec<Image> {
    let mut found = Vec::new();
    walk(html, |line, piece| {
        if let Piece::Open(name, attributes) = piece
            && is(name, "img")
            && attribute(attributes, "alt").is_none()
            && attribute(attributes, "width").as_deref() != Some("1")
        {
            found.push(Image { src: attribute(attributes, "src").unwrap_or_default().into_owned(), line });
        }
    });
    found
}

fn is(name: &str, wanted: &str) -> bool {
    name.eq_ignore_ascii_case(wanted)
}

/// Each piece with its line.
fn walk<'h>(html: &'h str, mut f: impl FnMut(usize, Piece<'h>)) {
    let pieces = Pieces::new(html, true);
    let (mut line, mut counted) = (1, 0);
    for piece in pieces {
        // A piece says itself where it begins: `at` may have passed a comment before it.
        let word = match piece {
            Piece::Text(word) | Piece::Block(word) | Piece::Open(word, _) | Piece::Close(word) => word,
        };
        let start = (word.as_ptr() as usize).saturating_sub(html.as_ptr() as usize);
        line += position(&html[counted..], start.saturating_sub(counted)).0 - 1;
        counted = start.max(counted);
        f(line, piece);
    }
}
