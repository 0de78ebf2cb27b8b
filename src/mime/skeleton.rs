//! The structure of a message that goes to many: fixed once, filled for each recipient.
//!
//! 1. [`Skeleton::new`] lays out the parts (text, HTML, both, images within the HTML, files) with the same nesting as
//!    [`build`](super::build), and encodes the files once; they are shared by all messages,
//! 2. for each recipient [`Skeleton::assemble`] takes the fields of the header and the two bodies, chooses the transfer encoding of each
//!    body by its octets, and gives the message as parts for a vectored write.
//!
//! The same input gives the same octets: boundaries come from a seed, not from chance, so a retry sends what was sent at first. The
//! result is 7-bit, has CRLF line ends, and no line above 998 octets.

use bytes::Bytes;
use memchr::{memchr, memchr2_iter, memmem};

use super::build::{ATTACHMENTS_MAX, Attachment, BuildError, error};
use super::encode::{base64_lines, is_plain_text, quoted_printable};

/// Fixed octets of at least this many are sent from where they are; fewer are copied, since each part of a write costs too.
const SHARE_MIN: usize = 4_096;

/// What every boundary begins with. Neither quoted-printable nor base64 can contain it (RFC 2045 §6.7 item 1).
const BOUNDARY_PREFIX: &str = "=_";

/// The structure of a message and its fixed parts.
#[derive(Clone, Debug)]
pub struct Skeleton {
    pieces: Vec<Piece>,
    /// Octets of the fixed pieces.
    fixed: usize,
}

#[derive(Clone, Debug)]
enum Piece {
    Fixed(Bytes),
    Text,
    Html,
}

/// The bodies of one message, with any line ends. What the skeleton has no place for is not looked at.
#[derive(Clone, Copy, Default, Debug)]
pub struct Bodies<'a> {
    /// The plain text.
    pub text: &'a str,
    /// The HTML.
    pub html: &'a str,
}

/// A message as octets.
#[derive(Clone, Debug)]
pub struct Assembled {
    /// The parts, in order; each of them ends with whole lines.
    pub parts: Vec<Bytes>,
    /// Where the body begins within the first part: behind the empty line.
    pub body_at: usize,
    /// The length of all parts.
    pub size: u64,
}

impl Assembled {
    /// The header with its empty line, and what the first part has of the body.
    pub fn split(&self) -> (&[u8], &[u8]) {
        self.parts.first().map_or((&[], &[]), |first| first.split_at(self.body_at.min(first.len())))
    }

    /// The octets in one piece.
    pub fn concat(&self) -> Vec<u8> {
        self.parts.concat()
    }
}

enum Node {
    Text,
    Html,
    Multi(&'static str, Vec<Node>),
    File(Bytes),
}

impl Skeleton {
    /// A skeleton with a text, an HTML part, or both, and these files. `seed` makes the boundaries: one per version of a campaign.
    ///
    /// # Errors
    /// When there is nothing to send, or a file has a bad name, type or id; names the field as `attachments[0].filename`.
    pub fn new(seed: [u8; 16], text: bool, html: bool, attachments: &[Attachment]) -> Result<Self, BuildError> {
        if attachments.len() > ATTACHMENTS_MAX {
            return Err(error("attachments", format!("at most {ATTACHMENTS_MAX}")));
        }
        let (mut inline, mut attached) = (Vec::new(), Vec::new());
        for (i, attachment) in attachments.iter().enumerate() {
            let mut octets = Vec::with_capacity(attachment.content.len() / 57 * 78 + 512);
            attachment.part(&format!("attachments[{i}]"))?.write_part(&mut octets);
            octets.extend_from_slice(b"\r\n");
            let list = if html && attachment.content_id.is_some() { &mut inline } else { &mut attached };
            list.push(Node::File(octets.into()));
        }
        let html = html.then(|| match inline.is_empty() {
            true => Node::Html,
            false => Node::Multi("related", std::iter::once(Node::Html).chain(inline).collect()),
        });
        let body = match (text.then_some(Node::Text), html) {
            (Some(text), Some(html)) => Some(Node::Multi("alternative", vec![text, html])),
            (text, html) => text.or(html),
        };
        let root = match body {
            Some(body) if attached.is_empty() => body,
            None if attached.is_empty() => return Err(error("text", "a message needs text, html or an attachment")),
            body => Node::Multi("mixed", body.into_iter().chain(attached).collect()),
        };
        let mut layout = Layout { seed, boundaries: 0, open: b"MIME-Version: 1.0\r\n".to_vec(), pieces: Vec::new() };
        layout.node(root);
        layout.close();
        let fixed = layout.pieces.iter().map(|p| if let Piece::Fixed(octets) = p { octets.len() } else { 0 }).sum();
        Ok(Self { pieces: layout.pieces, fixed })
    }

    /// The message with this header (whole fields with CRLF, without those of MIME, which the skeleton has) and these bodies.
    pub fn assemble(&self, header: Vec<u8>, bodies: Bodies<'_>) -> Assembled {
        let mut open = header;
        open.reserve(self.fixed.min(2 * SHARE_MIN) + (bodies.text.len() + bodies.html.len()) / 16 * 17 + 256);
        let mut parts = Vec::with_capacity(4);
        let mut body_at = 0;
        for piece in &self.pieces {
            match piece {
                Piece::Fixed(octets) if octets.len() >= SHARE_MIN && body_at > 0 => {
                    parts.push(Bytes::from(std::mem::take(&mut open)));
                    parts.push(octets.clone());
                }
                Piece::Fixed(octets) => {
                    if body_at == 0
                        && let Some(end) = memmem::find(octets, b"\r\n\r\n")
                    {
                        body_at = open.len() + end + 4;
                    }
                    open.extend_from_slice(octets);
                }
                Piece::Text => write_leaf("text/plain", bodies.text, &mut body_at, &mut open),
                Piece::Html => write_leaf("text/html", bodies.html, &mut body_at, &mut open),
            }
        }
        if !open.is_empty() {
            parts.push(open.into());
        }
        parts.retain(|part| !part.is_empty());
        let size = parts.iter().map(|part| part.len() as u64).sum();
        Assembled { parts, body_at, size }
    }
}

/// A skeleton while it is laid out.
struct Layout {
    seed: [u8; 16],
    boundaries: usize,
    open: Vec<u8>,
    pieces: Vec<Piece>,
}

impl Layout {
    fn node(&mut self, node: Node) {
        match node {
            Node::Text => self.slot(Piece::Text),
            Node::Html => self.slot(Piece::Html),
            Node::File(octets) => {
                if octets.len() >= SHARE_MIN {
                    self.close();
                    self.pieces.push(Piece::Fixed(octets));
                } else {
                    self.open.extend_from_slice(&octets);
                }
            }
            Node::Multi(kind, children) => self.multipart(kind, children),
        }
    }

    fn multipart(&mut self, kind: &str, children: Vec<Node>) {
        let mut boundary = BOUNDARY_PREFIX.to_owned();
        for octet in self.seed {
            boundary.push_str(&format!("{octet:02x}"));
        }
        boundary.push_str(&format!(".{}", self.boundaries));
        self.boundaries += 1;
        // RFC 2387 §3.1: the type of what is shown first.
        let of = if kind == "related" { " type=\"text/html\";" } else { "" };
        let field = format!("Content-Type: multipart/{kind};{of}\r\n\tboundary=\"{boundary}\"\r\n\r\n");
        self.open.extend_from_slice(field.as_bytes());
        for child in children {
            self.open.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
            let has_crlf = matches!(child, Node::File(_));
            self.node(child);
            // RFC 2046 §5.1.1: this CRLF belongs to the delimiter that follows.
            if !has_crlf {
                self.open.extend_from_slice(b"\r\n");
            }
        }
        self.open.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    }

    fn slot(&mut self, piece: Piece) {
        self.close();
        self.pieces.push(piece);
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.pieces.push(Piece::Fixed(std::mem::take(&mut self.open).into()));
        }
    }
}

/// Writes the fields and the content of a text part. Its content ends with CRLF unless it is empty.
fn write_leaf(media_type: &str, text: &str, body_at: &mut usize, out: &mut Vec<u8>) {
    let text = crlf(text);
    let encoding = Encoding::of(&text);
    for piece in ["Content-Type: ", media_type, "; charset=utf-8\r\nContent-Transfer-Encoding: ", encoding.name()] {
        out.extend_from_slice(piece.as_bytes());
    }
    out.extend_from_slice(b"\r\n\r\n");
    if *body_at == 0 {
        *body_at = out.len();
    }
    match encoding {
        Encoding::SevenBit => out.extend_from_slice(&text),
        Encoding::QuotedPrintable => quoted_printable(&text, out),
        Encoding::Base64 => {
            base64_lines(&text, out);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// The text with CRLF for every line end, and one at its end.
fn crlf(text: &str) -> Vec<u8> {
    let octets = text.as_bytes();
    let mut out = Vec::with_capacity(octets.len() + octets.len() / 32 + 2);
    let mut begin = 0;
    for at in memchr2_iter(b'\r', b'\n', octets) {
        if at < begin {
            // The LF of a CRLF that is written already.
            continue;
        }
        out.extend_from_slice(&octets[begin..at]);
        out.extend_from_slice(b"\r\n");
        begin = at + if octets[at..].starts_with(b"\r\n") { 2 } else { 1 };
    }
    if begin < octets.len() {
        out.extend_from_slice(&octets[begin..]);
        out.extend_from_slice(b"\r\n");
    }
    out
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Encoding {
    SevenBit,
    QuotedPrintable,
    Base64,
}

impl Encoding {
    fn of(text: &[u8]) -> Self {
        // A line that looks like a delimiter would end the part; a recipient's own variable could try that.
        let like_a_boundary = || memmem::find(text, b"--=_").is_some();
        if is_plain_text(text) && !like_a_boundary() {
            return Encoding::SevenBit;
        }
        // Sums of one octet, which can't overflow in a chunk: the compiler makes vectors of them.
        let in_chunk =
            |chunk: &[u8]| chunk.iter().fold(0_u8, |sum, octet| sum + u8::from(!octet.is_ascii() || *octet == b'='));
        let encoded: usize = text.chunks(usize::from(u8::MAX)).map(|chunk| usize::from(in_chunk(chunk))).sum();
        // Quoted-printable makes 3 octets of one, base64 4 of three: the shorter, on the whole. NUL is no text for anybody.
        if encoded * 5 > text.len() || memchr(0, text).is_some() { Encoding::Base64 } else { Encoding::QuotedPrintable }
    }

    fn name(self) -> &'static str {
        match self {
            Encoding::SevenBit => "7bit",
            Encoding::QuotedPrintable => "quoted-printable",
            Encoding::Base64 => "base64",
        }
    }
}

#[cfg(test)]
mod tests;
