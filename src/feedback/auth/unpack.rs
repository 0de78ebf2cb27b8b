//! gzip and zip, up to a limit: a bomb costs what the limit costs.
//!
//! A zip is read from its front, one entry after the other, up to the first file. Its directory at the end is not asked: what it says of sizes is as
//! little to be believed as anything in there, and a report is the only file in it.

use std::io::Read;

use flate2::bufread::{DeflateDecoder, MultiGzDecoder};

use super::{ReportError, UNPACKED_MAX};

/// The length of a local file header (APPNOTE 4.3.7).
const HEADER_LEN: usize = 30;
/// The most entries that are passed over: folders.
const ENTRIES_MAX: usize = 8;
/// Bits of the flags: encrypted; sizes stand behind the data.
const ENCRYPTED: u16 = 1;
const SIZES_BEHIND: u16 = 1 << 3;

/// Unpacks gzip.
pub(super) fn gzip(octets: &[u8]) -> Result<Vec<u8>, ReportError> {
    limited(MultiGzDecoder::new(octets))
}

/// Unpacks the first file of a zip.
pub(super) fn zip(octets: &[u8]) -> Result<Vec<u8>, ReportError> {
    let bad = |why: &str| ReportError::Packed(format!("zip: {why}"));
    let mut rest = octets;
    for _ in 0..ENTRIES_MAX {
        let header = rest.get(..HEADER_LEN).ok_or_else(|| bad("cut off"))?;
        if !header.starts_with(b"PK\x03\x04") {
            return Err(bad("no file in it"));
        }
        let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize;
        let (flags, method, packed) = (half(6), half(8), word(18));
        let (name_len, extra_len) = (half(26) as usize, half(28) as usize);
        let name = rest.get(HEADER_LEN..HEADER_LEN + name_len).ok_or_else(|| bad("cut off"))?;
        let data = rest.get(HEADER_LEN + name_len + extra_len..).ok_or_else(|| bad("cut off"))?;
        if flags & ENCRYPTED != 0 {
            return Err(bad("encrypted"));
        }
        if name.ends_with(b"/") {
            rest = data.get(packed..).ok_or_else(|| bad("cut off"))?;
            continue;
        }
        return match method {
            0 if flags & SIZES_BEHIND != 0 => Err(bad("a stored file of unknown size")),
            0 => limited(data.get(..packed).ok_or_else(|| bad("cut off"))?),
            8 => limited(DeflateDecoder::new(data)),
            other => Err(bad(&format!("method {other} is not known"))),
        };
    }
    Err(bad("only folders in it"))
}

fn limited(packed: impl Read) -> Result<Vec<u8>, ReportError> {
    let mut octets = Vec::new();
    // One more than allowed tells that there is more.
    let read = packed.take(UNPACKED_MAX as u64 + 1).read_to_end(&mut octets);
    read.map_err(|e| ReportError::Packed(e.to_string()))?;
    if octets.len() > UNPACKED_MAX {
        return Err(ReportError::TooLarge(format!("{UNPACKED_MAX} octets unpacked")));
    }
    Ok(octets)
}
