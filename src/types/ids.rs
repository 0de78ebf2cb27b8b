//! Identifiers: what they are made of, how they sort, and how they are written.

use std::fmt;
use std::str::FromStr;

use crate::types::Timestamp;

/// A message, from its acceptance to its last event: a UUID version 7 (RFC 9562 §5.7).
///
/// Its first 48 bits are the time of acceptance in milliseconds, so ids sort by time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(u128);

impl MessageId {
    /// An id for a message accepted at `now`; `random` gives the 74 random bits.
    pub fn new(now: Timestamp, random: u128) -> Self {
        let time = u128::from(now.as_millis() & 0xffff_ffff_ffff) << 80;
        let rand = random & 0x0fff_3fff_ffff_ffff_ffff;
        Self(time | (0x7 << 76) | (0x2 << 62) | rand)
    }

    /// The sixteen bytes by which the store keys the message.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The id with these sixteen bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// When the message was accepted, to the millisecond.
    pub fn timestamp(self) -> Timestamp {
        Timestamp::from_millis((self.0 >> 80) as u64)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_u128(self.0).hyphenated().fmt(f)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MessageId {
    type Err = uuid::Error;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Ok(Self(s.parse::<uuid::Uuid>()?.as_u128()))
    }
}

impl serde::Serialize for MessageId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for MessageId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One recipient of one message: the unit that is queued, tried and settled.
///
/// `index` is the recipient's place in the envelope, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DeliveryId {
    /// The message.
    pub message: MessageId,
    /// The recipient's place in the message's envelope, from 0.
    pub index: u32,
}

impl DeliveryId {
    /// The twenty bytes that stand in a queue key.
    pub fn to_bytes(self) -> [u8; 20] {
        let mut bytes = [0; 20];
        bytes[..16].copy_from_slice(&self.message.to_bytes());
        bytes[16..].copy_from_slice(&self.index.to_be_bytes());
        bytes
    }

    /// The id with these twenty bytes.
    pub fn from_bytes(bytes: [u8; 20]) -> Self {
        let mut message = [0; 16];
        message.copy_from_slice(&bytes[..16]);
        let mut index = [0; 4];
        index.copy_from_slice(&bytes[16..]);
        Self { message: MessageId::from_bytes(message), index: u32::from_be_bytes(index) }
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.message, self.index)
    }
}

/// The number by which the store knows a queue; given by the ledger, never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct QueueId(pub u32);

/// The place of an event in the log: given in commit order, from 1, without reuse.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct EventSeq(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_id_is_a_version_7_uuid_that_keeps_its_time() {
        let now = Timestamp::from_millis(1_795_000_000_123);
        let id = MessageId::new(now, u128::MAX);
        let uuid: uuid::Uuid = id.to_string().parse().expect("hyphenated form");
        assert_eq!(uuid.get_version_num(), 7);
        assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
        assert_eq!(id.timestamp(), now);
        assert_eq!(MessageId::from_bytes(id.to_bytes()), id);
    }

    #[test]
    fn delivery_id_bytes_round_trip_and_sort_by_message_first() {
        let a = DeliveryId { message: MessageId::new(Timestamp::from_millis(1), 7), index: 9 };
        let b = DeliveryId { message: MessageId::new(Timestamp::from_millis(2), 7), index: 0 };
        assert_eq!(DeliveryId::from_bytes(a.to_bytes()), a);
        assert!(a.to_bytes() < b.to_bytes());
    }
}
