//! What an unsubscribe token says, in as few octets as it can.
//!
//! Version and flags (1), tenant (length 1, text), message (a row as numbers of variable length, or 16 octets), list (length 1, text), and
//! the address up to the end.

use crate::types::{CampaignNo, Mailbox, MessageId, Name, QueueId, RowId};

/// The version, in the upper half of the first octet.
const VERSION: u8 = 1 << 4;
const TEST: u8 = 1;
const LIST: u8 = 2;
const ROW: u8 = 4;
const MESSAGE: u8 = 8;

/// What an unsubscribe needs to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnsubscribeToken {
    /// Whose mail it was.
    pub tenant: Name,
    /// The mail: a message's id, or that of a campaign's row ([`RowId::message_id`]), which also says the campaign.
    pub message: Option<MessageId>,
    /// The list that is left; `None`: all marketing mail of the tenant.
    pub list: Option<Name>,
    /// Who.
    pub address: Mailbox,
    /// A test send: the link shows its page and does nothing.
    pub test: bool,
}

impl UnsubscribeToken {
    pub(super) fn encode(&self) -> Vec<u8> {
        let row = self.message.and_then(RowId::of);
        let mut flags = VERSION;
        flags |= if self.test { TEST } else { 0 };
        flags |= if self.list.is_some() { LIST } else { 0 };
        flags |= match (self.message, row) {
            (Some(_), Some(_)) => ROW,
            (Some(_), None) => MESSAGE,
            (None, _) => 0,
        };
        let address = self.address.as_str();
        // Room for the tag too, so that sealing does not move it.
        let mut out = Vec::with_capacity(1 + 65 + 20 + 65 + address.len() + 17);
        out.push(flags);
        put_name(&mut out, &self.tenant);
        match (self.message, row) {
            (_, Some(row)) => {
                for number in [row.campaign.0, u32::from(row.step), row.queue.0, u32::from(row.slot), row.seq] {
                    put_number(&mut out, number);
                }
            }
            (Some(id), None) => out.extend_from_slice(&id.to_bytes()),
            (None, None) => {}
        }
        if let Some(list) = &self.list {
            put_name(&mut out, list);
        }
        out.extend_from_slice(address.as_bytes());
        out
    }

    pub(super) fn decode(octets: &[u8]) -> Option<Self> {
        let (flags, mut rest) = octets.split_first()?;
        if flags & 0xf0 != VERSION {
            return None;
        }
        let tenant = take_name(&mut rest)?;
        let message = match flags & (ROW | MESSAGE) {
            0 => None,
            ROW => Some(take_row(&mut rest)?.message_id()),
            MESSAGE => {
                let (id, after) = rest.split_first_chunk()?;
                rest = after;
                Some(MessageId::from_bytes(*id))
            }
            _ => return None,
        };
        let list = if flags & LIST == 0 { None } else { Some(take_name(&mut rest)?) };
        let address = Mailbox::parse(std::str::from_utf8(rest).ok()?).ok()?;
        Some(Self { tenant, message, list, address, test: flags & TEST != 0 })
    }
}

fn put_name(out: &mut Vec<u8>, name: &Name) {
    // A name has at most 64 octets.
    out.push(name.as_str().len() as u8);
    out.extend_from_slice(name.as_str().as_bytes());
}

fn take_name(rest: &mut &[u8]) -> Option<Name> {
    let (len, after) = rest.split_first()?;
    let (name, after) = after.split_at_checked(usize::from(*len))?;
    *rest = after;
    Name::parse(std::str::from_utf8(name).ok()?).ok()
}

/// Seven bits an octet, the lowest first; the upper bit says that more follow.
fn put_number(out: &mut Vec<u8>, mut number: u32) {
    while number > 0x7f {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(rest: &mut &[u8]) -> Option<u32> {
    let mut number = 0_u64;
    for shift in (0..35).step_by(7) {
        let (octet, after) = rest.split_first()?;
        *rest = after;
        number |= u64::from(octet & 0x7f) << shift;
        if octet & 0x80 == 0 {
            return u32::try_from(number).ok();
        }
    }
    None
}

fn take_row(rest: &mut &[u8]) -> Option<RowId> {
    Some(RowId {
        campaign: CampaignNo(take_number(rest)?),
        step: u8::try_from(take_number(rest)?).ok()?,
        queue: QueueId(take_number(rest)?),
        slot: u8::try_from(take_number(rest)?).ok()?,
        seq: take_number(rest)?,
    })
}
