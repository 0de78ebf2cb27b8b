//! The body of an upload as a plain stream of octets: decompressed, UTF-16 made UTF-8, with the bounds of [`super::limits`].
//!
//! 1. Chunks come over a bounded channel ([`ChunkReader`]): the connection is read as fast as rows are committed,
//! 2. gzip and zstd are known by `Content-Encoding`, else by their magic octets (RFC 1952 §2.3.1, RFC 8878 §3.1.1), and watched for bombs,
//! 3. a byte order mark tells UTF-16, which is turned into UTF-8; that of UTF-8 is taken off.

use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

use super::limits::{DECOMPRESSED_BYTES_MAX, RATIO_FREE_BYTES, RATIO_MAX, READ_BYTES, ZSTD_WINDOW_LOG_MAX};

/// How a body is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    /// RFC 1952; several members may follow each other.
    Gzip,
    /// RFC 8878; several frames may follow each other.
    Zstd,
}

/// Why a body can't be read any further. It travels inside an [`io::Error`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BodyError {
    /// The client went away, or sent less than it announced.
    #[error("the upload broke off: {0}")]
    BrokenOff(String),
    /// The compressed data is damaged or cut short.
    #[error("the {0} data is damaged or cut short: {1}")]
    Compressed(&'static str, String),
    /// It becomes too large.
    #[error("the body becomes too large when decompressed: {0} octets from {1}")]
    Bomb(u64, u64),
}

impl From<BodyError> for io::Error {
    fn from(error: BodyError) -> Self {
        io::Error::other(error)
    }
}

/// Reads the chunks of a body that another task receives; blocks, so it stands on a thread for blocking.
pub struct ChunkReader {
    chunks: mpsc::Receiver<Result<Bytes, BodyError>>,
    current: Bytes,
    ended: bool,
}

impl ChunkReader {
    /// Reads from this channel. The end is said by an empty chunk: a channel that closes without it broke off.
    pub fn new(chunks: mpsc::Receiver<Result<Bytes, BodyError>>) -> Self {
        Self { chunks, current: Bytes::new(), ended: false }
    }
}

impl Read for ChunkReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.chunks.blocking_recv() {
                Some(Ok(chunk)) if chunk.is_empty() => self.ended = true,
                Some(Ok(chunk)) => self.current = chunk,
                Some(Err(error)) => return Err(error.into()),
                None => return Err(BodyError::BrokenOff("the connection ended".into()).into()),
            }
        }
        let len = self.current.len().min(out.len());
        self.current.copy_to_slice(&mut out[..len]);
        Ok(len)
    }
}

/// What the first octets of a body tell of its encoding; they are taken off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// Nothing: ASCII, UTF-8 or Windows-1252.
    #[default]
    None,
    /// The mark of UTF-8.
    Utf8,
    /// UTF-16, the little end first.
    Utf16Le,
    /// UTF-16, the big end first.
    Utf16Be,
}

impl Mark {
    /// The octets of the mark.
    pub(super) fn octets(self) -> usize {
        match self {
            Mark::None => 0,
            Mark::Utf8 => 3,
            Mark::Utf16Le | Mark::Utf16Be => 2,
        }
    }

    /// Whether the text is UTF-16.
    pub fn is_utf16(self) -> bool {
        matches!(self, Mark::Utf16Le | Mark::Utf16Be)
    }
}

/// A body, ready to be split into rows.
pub struct Plain {
    /// The octets: UTF-8, or an encoding that has ASCII in it.
    pub octets: Box<dyn Read>,
    /// What the first octets told.
    pub mark: Mark,
    /// How it is compressed.
    pub compression: Option<Compression>,
}

/// Opens a body. `announced` is its `Content-Encoding`. `middle` says that it goes on in the middle of a file that began with that mark, and
/// was not compressed: then there is neither magic nor mark.
pub fn open(body: impl Read + 'static, announced: Option<Compression>, middle: Option<Mark>) -> io::Result<Plain> {
    if let Some(mark) = middle {
        let octets: Box<dyn Read> = if mark.is_utf16() { FromUtf16::boxed(body, mark) } else { Box::new(body) };
        return Ok(Plain { octets, mark, compression: None });
    }
    let (head, body) = peek(body, 4)?;
    let compression = announced.or_else(|| magic(&head));
    let plain: Box<dyn Read> = match compression {
        None => Box::new(body),
        Some(Compression::Gzip) => {
            let (counted, came) = Counted::new(body);
            let inner = flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(READ_BYTES, counted));
            Box::new(Watched { inner, what: "gzip", came, made: 0 })
        }
        Some(Compression::Zstd) => {
            let (counted, came) = Counted::new(body);
            let mut inner = zstd::stream::read::Decoder::new(counted)?;
            inner.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(Watched { inner, what: "zstd", came, made: 0 })
        }
    };
    let (head, plain) = peek(plain, 3)?;
    let mark = match head[..] {
        [0xef, 0xbb, 0xbf] => Mark::Utf8,
        [0xff, 0xfe, ..] => Mark::Utf16Le,
        [0xfe, 0xff, ..] => Mark::Utf16Be,
        _ => Mark::None,
    };
    let mut plain = plain;
    plain.read_exact(&mut [0; 3][..mark.octets()])?;
    let octets: Box<dyn Read> = if mark.is_utf16() { FromUtf16::boxed(plain, mark) } else { Box::new(plain) };
    Ok(Plain { octets, mark, compression })
}

fn magic(head: &[u8]) -> Option<Compression> {
    match head {
        [0x1f, 0x8b, ..] => Some(Compression::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Compression::Zstd),
        _ => None,
    }
}

/// The first octets, fewer only at the end, and all of them again.
fn peek<R: Read>(mut body: R, len: usize) -> io::Result<(Vec<u8>, impl Read + use<R>)> {
    let mut head = vec![0; len];
    let mut have = 0;
    while have < len {
        match body.read(&mut head[have..]) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    head.truncate(have);
    Ok((head.clone(), Read::chain(io::Cursor::new(head), body)))
}

/// Counts what is read.
struct Counted<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R> Counted<R> {
    fn new(inner: R) -> (Self, Arc<AtomicU64>) {
        let count = Arc::new(AtomicU64::new(0));
        (Self { inner, count: count.clone() }, count)
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(out)?;
        self.count.fetch_add(len as u64, Ordering::Relaxed);
        Ok(len)
    }
}

/// A decompressor that is stopped when it makes too much of too little, and whose errors say what they are.
struct Watched<R> {
    inner: R,
    what: &'static str,
    came: Arc<AtomicU64>,
    made: u64,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let len = match self.inner.read(out) {
            Ok(len) => len,
            // The connection's own error comes through the decompressor as it is.
            Err(e) if e.get_ref().is_some_and(|inner| inner.is::<BodyError>()) => return Err(e),
            Err(e) => return Err(BodyError::Compressed(self.what, e.to_string()).into()),
        };
        self.made += len as u64;
        let came = self.came.load(Ordering::Relaxed);
        let bomb = self.made > RATIO_FREE_BYTES && self.made / RATIO_MAX > came;
        if bomb || self.made > DECOMPRESSED_BYTES_MAX {
            return Err(BodyError::Bomb(self.made, came).into());
        }
        Ok(len)
    }
}

/// UTF-16 as UTF-8. A lone surrogate becomes U+FFFD, as one unit: so the length in UTF-16 of what was read is the length of what came.
struct FromUtf16<R> {
    inner: R,
    decoder: encoding_rs::Decoder,
    raw: Vec<u8>,
    raw_at: usize,
    text: Vec<u8>,
    text_at: usize,
    ended: bool,
}

impl<R: Read + 'static> FromUtf16<R> {
    fn boxed(inner: R, mark: Mark) -> Box<dyn Read> {
        let encoding = if mark == Mark::Utf16Be { encoding_rs::UTF_16BE } else { encoding_rs::UTF_16LE };
        Box::new(Self {
            inner,
            decoder: encoding.new_decoder_without_bom_handling(),
            raw: Vec::new(),
            raw_at: 0,
            text: Vec::new(),
            text_at: 0,
            ended: false,
        })
    }
}

impl<R: Read> FromUtf16<R> {
    /// Decodes the next piece.
    fn refill(&mut self) -> io::Result<()> {
        /// UTF-16 that is decoded at a time; as UTF-8 it is at most one and a half times as long.
        const PIECE: usize = 16 << 10;
        if self.raw_at == self.raw.len() {
            self.raw.resize(PIECE, 0);
            let len = self.inner.read(&mut self.raw)?;
            self.raw.truncate(len);
            self.raw_at = 0;
            self.ended = len == 0;
        }
        self.text.resize(2 * PIECE, 0);
        let (_, read, written, _) = self.decoder.decode_to_utf8(&self.raw[self.raw_at..], &mut self.text, self.ended);
        self.raw_at += read;
        self.text.truncate(written);
        self.text_at = 0;
        Ok(())
    }
}

impl<R: Read> Read for FromUtf16<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.text_at == self.text.len() && !self.ended {
            self.refill()?;
        }
        let len = (self.text.len() - self.text_at).min(out.len());
        out[..len].copy_from_slice(&self.text[self.text_at..self.text_at + len]);
        self.text_at += len;
        Ok(len)
    }
}
