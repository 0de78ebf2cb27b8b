//! The buffer into which a message comes in: one allocation where the client says the size, and room in front for the
//! fields that intake adds, so that the body is written once and never moved.

/// Octets kept free in front of a message for the fields that intake puts there.
pub const HEADROOM: usize = 1_024;

/// What is allocated before the first octet when the client gives no SIZE.
const CAPACITY_DEFAULT: usize = 8 << 10;

/// The most that is allocated on the word of a SIZE parameter alone; from there the buffer grows with what comes.
const CAPACITY_TRUSTED_MAX: usize = 256 << 10;

/// A message that is coming in.
#[derive(Debug)]
pub struct MessageBuffer {
    octets: Vec<u8>,
    len_max: usize,
    /// Octets that came after the limit was reached; they are counted, not kept.
    dropped: usize,
}

impl MessageBuffer {
    /// An empty buffer for a message of at most `len_max` octets; `size_hint` is what the client announced.
    pub fn new(size_hint: Option<u64>, len_max: usize) -> Self {
        let hint = size_hint.map_or(CAPACITY_DEFAULT, |n| usize::try_from(n).unwrap_or(usize::MAX));
        let mut octets = Vec::with_capacity(hint.min(CAPACITY_TRUSTED_MAX).min(len_max) + HEADROOM);
        octets.resize(HEADROOM, 0);
        Self { octets, len_max, dropped: 0 }
    }

    /// Adds octets; what goes over the limit is dropped, and what was kept is given back.
    pub fn push(&mut self, octets: &[u8]) {
        if self.dropped > 0 || self.len() + octets.len() > self.len_max {
            self.dropped += octets.len();
            if self.octets.capacity() > HEADROOM {
                self.octets = Vec::new();
            }
        } else {
            self.octets.extend_from_slice(octets);
        }
    }

    /// Octets of the message so far.
    pub fn len(&self) -> usize {
        self.octets.len().saturating_sub(HEADROOM)
    }

    /// Whether nothing has come yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && self.dropped == 0
    }

    /// Octets that came after the limit was passed; 0 while the message fits.
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    /// The buffer, with [`HEADROOM`] free octets in front of the message; `None` when the message was too large.
    pub fn into_octets(self) -> Option<Vec<u8>> {
        (self.dropped == 0).then_some(self.octets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_headroom_and_a_limit() {
        let mut buffer = MessageBuffer::new(Some(u64::MAX), 10);
        buffer.push(b"12345");
        buffer.push(b"67890");
        assert_eq!((buffer.len(), buffer.dropped()), (10, 0));
        buffer.push(b"x");
        assert_eq!(buffer.dropped(), 1);
        buffer.push(b"yz");
        assert_eq!(buffer.dropped(), 3);
        assert!(buffer.into_octets().is_none());

        let mut small = MessageBuffer::new(None, 10);
        small.push(b"abc");
        assert_eq!(&small.into_octets().expect("it fits")[HEADROOM..], b"abc");
    }
}
