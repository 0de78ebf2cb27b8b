//! The place of a campaign's recipient in the store, and the message id that says it.

use std::fmt;

use crate::types::MessageId;

/// The number of a campaign in the store: given when it is made, never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct CampaignNo(pub u32);

/// 128 bits of the canonical form of an address: what `sent` and `trace` know it by.
pub type AddressHash = [u8; 16];

/// One recipient of a campaign: where its row stands.
///
/// As a [`MessageId`] it is a UUID version 8 (RFC 9562 §5.8), so that a row waits, is tried and is traced as any message, although
/// its message is made at the attempt only. The order of the ids is the order of these fields: rows of one queue sort by slot, then by
/// sequence.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RowId {
    /// The campaign.
    pub campaign: CampaignNo,
    /// The step of the campaign: 0 is its first mail.
    pub step: u8,
    /// The queue that the row was uploaded to: class, tenant, campaign, pool, domain.
    pub queue: crate::types::QueueId,
    /// Quarter hours after the start at which it is due ([`SLOT_MILLIS`]): 0 unless the schedule goes by the recipient's time zone.
    pub slot: u8,
    /// Its number among the rows of the campaign, from 0, in the order of the upload.
    pub seq: u32,
}

/// The length of a slot in milliseconds: time zones differ by quarter hours.
pub const SLOT_MILLIS: u64 = 15 * 60 * 1_000;

const VERSION: u128 = 0x8;
const VARIANT: u128 = 0x2;

impl RowId {
    /// The row as the id of its message.
    pub fn message_id(self) -> MessageId {
        // 112 bits of place, after 10 zero bits, in the 122 bits that a version 8 leaves free: 48, 12 and 62 of them.
        let place = (u128::from(self.campaign.0) << 80)
            | (u128::from(self.step) << 72)
            | (u128::from(self.queue.0) << 40)
            | (u128::from(self.slot) << 32)
            | u128::from(self.seq);
        let (high, middle, low) = (place >> 74, (place >> 62) & 0xfff, place & ((1 << 62) - 1));
        let value = (high << 80) | (VERSION << 76) | (middle << 64) | (VARIANT << 62) | low;
        MessageId::from_bytes(value.to_be_bytes())
    }

    /// The row that an id stands for; `None` for the id of a message.
    pub fn of(id: MessageId) -> Option<Self> {
        let value = u128::from_be_bytes(id.to_bytes());
        if (value >> 76) & 0xf != VERSION || (value >> 62) & 0x3 != VARIANT {
            return None;
        }
        let place = ((value >> 80) << 74) | (((value >> 64) & 0xfff) << 62) | (value & ((1 << 62) - 1));
        Some(Self {
            campaign: CampaignNo((place >> 80) as u32),
            step: (place >> 72) as u8,
            queue: crate::types::QueueId((place >> 40) as u32),
            slot: (place >> 32) as u8,
            seq: place as u32,
        })
    }
}

impl fmt::Display for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.message_id(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{QueueId, Timestamp};

    fn row(campaign: u32, step: u8, queue: u32, slot: u8, seq: u32) -> RowId {
        RowId { campaign: CampaignNo(campaign), step, queue: QueueId(queue), slot, seq }
    }

    #[test]
    fn a_row_is_a_version_8_uuid_and_comes_back_whole() {
        for row in [row(0, 0, 0, 0, 0), row(u32::MAX, u8::MAX, u32::MAX, u8::MAX, u32::MAX), row(7, 1, 70_000, 104, 9)]
        {
            let uuid: uuid::Uuid = row.to_string().parse().expect("hyphenated form");
            assert_eq!(uuid.get_version_num(), 8);
            assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
            assert_eq!(RowId::of(row.message_id()), Some(row));
        }
    }

    #[test]
    fn ids_sort_as_rows_do() {
        let rows =
            [row(1, 0, 0, 0, u32::MAX), row(1, 0, 0, 1, 0), row(1, 0, 1, 0, 0), row(1, 1, 0, 0, 0), row(2, 0, 0, 0, 0)];
        assert!(rows.windows(2).all(|pair| pair[0].message_id() < pair[1].message_id()));
    }

    #[test]
    fn the_id_of_a_message_is_no_row() {
        assert_eq!(RowId::of(MessageId::new(Timestamp::from_millis(1_795_000_000_123), u128::MAX)), None);
    }
}
