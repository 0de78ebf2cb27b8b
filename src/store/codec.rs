//! The octets of a record: small, versioned, read without trust.
//!
//! A record begins with its version. Numbers are LEB128, texts are a length and UTF-8, an optional value is a 0, or a
//! 1 and the value. Whatever is wrong with stored octets is a [`DecodeError`]: never a panic, never a guess.

/// Why stored octets could not be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// The record ends too early.
    #[error("the record is cut short")]
    Short,
    /// Written by a newer Posthaste.
    #[error("the record has version {found}, this program knows up to {known}")]
    Version {
        /// What was found.
        found: u8,
        /// The newest that is known.
        known: u8,
    },
    /// A field holds what was never written.
    #[error("the record's {0} is not valid")]
    Field(&'static str),
    /// There is more than the record's version has.
    #[error("the record has {0} octets too many")]
    Trailing(usize),
}

/// Writes a record.
#[derive(Debug, Default)]
pub(super) struct Encoder(Vec<u8>);

impl Encoder {
    /// A record of this version, with room for `capacity` octets.
    pub(super) fn new(version: u8, capacity: usize) -> Self {
        let mut out = Vec::with_capacity(capacity);
        out.push(version);
        Self(out)
    }

    pub(super) fn byte(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    pub(super) fn flag(&mut self, value: bool) -> &mut Self {
        self.byte(u8::from(value))
    }

    pub(super) fn number(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    /// Octets whose length the reader knows.
    pub(super) fn raw(&mut self, octets: &[u8]) -> &mut Self {
        self.0.extend_from_slice(octets);
        self
    }

    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.number(text.len() as u64).raw(text.as_bytes())
    }

    pub(super) fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) -> &mut Self {
        match value {
            None => self.byte(0),
            Some(value) => {
                self.byte(1);
                write(self, value);
                self
            }
        }
    }

    pub(super) fn optional_text(&mut self, text: Option<&str>) -> &mut Self {
        self.option(text, |e, text| {
            e.text(text);
        })
    }

    /// How much is written.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Overwrites four octets with a number in network order.
    pub(super) fn patch_u32(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Reads a record.
#[derive(Debug)]
pub(super) struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    /// Reads the version, which must not be newer than `known`.
    pub(super) fn new(octets: &'a [u8], known: u8) -> Result<Self, DecodeError> {
        let mut decoder = Self(octets);
        match decoder.byte()? {
            0 => Err(DecodeError::Field("version")),
            found if found > known => Err(DecodeError::Version { found, known }),
            _ => Ok(decoder),
        }
    }

    /// Reads a part of a record, whose version was read with the whole.
    pub(super) fn bare(octets: &'a [u8]) -> Self {
        Self(octets)
    }

    pub(super) fn byte(&mut self) -> Result<u8, DecodeError> {
        let (first, rest) = self.0.split_first().ok_or(DecodeError::Short)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn flag(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Field(field)),
        }
    }

    pub(super) fn number(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Field("number"))
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        u32::try_from(self.number()?).map_err(|_| DecodeError::Field(field))
    }

    pub(super) fn raw(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(DecodeError::Short)?;
        self.0 = rest;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.raw(N)?);
        Ok(array)
    }

    pub(super) fn text(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        let len = usize::try_from(self.number()?).map_err(|_| DecodeError::Short)?;
        std::str::from_utf8(self.raw(len)?).map_err(|_| DecodeError::Field(field))
    }

    pub(super) fn option<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.flag(field)? { read(self).map(Some) } else { Ok(None) }
    }

    pub(super) fn optional_text(&mut self, field: &'static str) -> Result<Option<Box<str>>, DecodeError> {
        self.option(field, |d| Ok(d.text(field)?.into()))
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Trailing(self.0.len())) }
    }
}
