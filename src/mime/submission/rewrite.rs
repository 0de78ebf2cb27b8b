//! Writing the fields that we add, and putting the message together.

use std::fmt::Write as _;
use std::net::IpAddr;

use bytes::{Buf, Bytes, BytesMut};

use super::Parsed;
use crate::types::{Mailbox, MessageId, Timestamp};

/// What `Received` tells.
#[derive(Clone, Debug)]
pub struct Trace<'a> {
    /// Our name.
    pub hostname: &'a str,
    /// What the client called itself; empty when it did not.
    pub helo: &'a str,
    /// Its address.
    pub address: Option<IpAddr>,
    /// The protocol (RFC 3848).
    pub protocol: &'a str,
    /// Protocol and cipher suite.
    pub tls: Option<&'a str>,
    /// The message.
    pub id: MessageId,
    /// The recipient, when there is one only: RFC 5321 §7.6 warns of telling recipients of one another.
    pub recipient: Option<&'a Mailbox>,
    /// When.
    pub now: Timestamp,
}

/// `Received` (RFC 5321 §4.4), and Date and Message-ID where the header has none (RFC 6409 §8.2, §8.3).
///
/// The login's name is not told: it is half of a credential.
pub fn trace_fields(trace: &Trace<'_>, parsed: &Parsed) -> String {
    let mut out = String::with_capacity(512);
    let date = trace.now.rfc5322();
    // Writing into a String can't fail.
    let _ = write_received(&mut out, trace, &date);
    if !parsed.has_date {
        let _ = write!(out, "Date: {date}\r\n");
    }
    if !parsed.has_message_id {
        let _ = write!(out, "Message-ID: <{}@{}>\r\n", trace.id, trace.hostname);
    }
    out
}

fn write_received(out: &mut String, trace: &Trace<'_>, date: &str) -> std::fmt::Result {
    out.push_str("Received: ");
    match trace.address.map(|a| a.to_canonical()) {
        Some(IpAddr::V4(a)) if trace.helo.is_empty() => write!(out, "from [{a}]\r\n\t")?,
        Some(IpAddr::V6(a)) if trace.helo.is_empty() => write!(out, "from [IPv6:{a}]\r\n\t")?,
        Some(IpAddr::V4(a)) => write!(out, "from {} ([{a}])\r\n\t", trace.helo)?,
        Some(IpAddr::V6(a)) => write!(out, "from {} ([IPv6:{a}])\r\n\t", trace.helo)?,
        None => {}
    }
    write!(out, "by {} with {} id {}", trace.hostname, trace.protocol, trace.id)?;
    if let Some(tls) = trace.tls {
        write!(out, "\r\n\t({tls})")?;
    }
    if let Some(recipient) = trace.recipient {
        write!(out, "\r\n\tfor <{}>", recipient.for_wire(false))?;
    }
    write!(out, ";\r\n\t{date}\r\n")
}

/// Puts `front` before the message and takes out what has to go.
///
/// `octets` holds the message behind `headroom` free octets. Where the front fits in there and nobody else holds the
/// buffer, only the header is written; else the message is copied once.
pub fn assemble(octets: Bytes, headroom: usize, parsed: &Parsed, front: &[u8]) -> Bytes {
    let removed: usize = parsed.remove.iter().map(ExactSizeIterator::len).sum();
    if front.len() > headroom + removed {
        return copy(&octets[headroom..], parsed, front);
    }
    match octets.try_into_mut() {
        Ok(octets) => in_place(octets, headroom, parsed, front),
        Err(octets) => copy(&octets[headroom..], parsed, front),
    }
}

/// Moves the kept parts of the header towards the body, from its end, and writes the front before them.
fn in_place(mut octets: BytesMut, headroom: usize, parsed: &Parsed, front: &[u8]) -> Bytes {
    let mut write_end = headroom + parsed.header_len;
    let mut read_end = write_end;
    for gap in parsed.remove.iter().rev() {
        let kept = headroom + gap.end..read_end;
        write_end -= kept.len();
        read_end = headroom + gap.start;
        octets.copy_within(kept, write_end);
    }
    if !parsed.remove.is_empty() {
        write_end -= read_end - headroom;
        octets.copy_within(headroom..read_end, write_end);
    } else {
        write_end = headroom;
    }
    let start = write_end - front.len();
    octets[start..write_end].copy_from_slice(front);
    octets.advance(start);
    octets.freeze()
}

fn copy(message: &[u8], parsed: &Parsed, front: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(front.len() + message.len());
    out.extend_from_slice(front);
    let mut at = 0;
    for gap in &parsed.remove {
        out.extend_from_slice(&message[at..gap.start]);
        at = gap.end;
    }
    out.extend_from_slice(&message[at..]);
    out.into()
}
