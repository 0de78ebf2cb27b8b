//! One row: what was given, and what is kept of it.
//!
//! What is kept is a JSON object in a fixed form, `{"email":…,"name":…,"tz":…,"vars":{…},"metadata":{…}}`, without what was not given: the
//! template, the segment and the preview read it, whatever the row was uploaded as.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::types::{AddressHash, Mailbox};

/// A row that can be sent to.
#[derive(Clone, Debug)]
pub struct UploadRow {
    /// The address, as it was given.
    pub mailbox: Mailbox,
    /// By which `sent` knows it.
    pub hash: AddressHash,
    /// Quarter hours after the start at which it is due.
    pub slot: u8,
    /// Whether the zone that it names is unknown.
    pub unknown_zone: bool,
    /// The row in its fixed form.
    pub value: Bytes,
}

/// Why a row is not sent to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// It can't be read, or its address is none.
    Invalid,
    /// It is longer than [`ROW_BYTES_MAX`](super::limits::ROW_BYTES_MAX).
    TooLong,
    /// Its address is in the campaign already.
    Duplicate,
    /// Its address is on the suppression list.
    Suppressed,
    /// It is an address of a function, as `abuse@`: such never asked for marketing.
    RoleAccount,
    /// The segment does not select it, or `exclude` does.
    Excluded,
    /// The segment can't be worked out for it.
    SegmentFailed,
}

impl Reason {
    /// The reason as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Invalid => "invalid",
            Reason::TooLong => "too-long",
            Reason::Duplicate => "duplicate",
            Reason::Suppressed => "suppressed",
            Reason::RoleAccount => "role-account",
            Reason::Excluded => "excluded",
            Reason::SegmentFailed => "segment-failed",
        }
    }
}

/// A row that is not sent to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rejected {
    /// Why.
    pub reason: Reason,
    /// The address as it was given, as far as there was one.
    pub address: Box<str>,
    /// What is wrong, for people; empty where the reason says it.
    pub detail: Box<str>,
}

impl Rejected {
    /// A row that is not right.
    pub fn invalid(address: &str, detail: impl Into<String>) -> Self {
        Self::new(Reason::Invalid, address, detail)
    }

    /// A row that is not sent to; what is too long of it is cut.
    pub fn new(reason: Reason, address: &str, detail: impl Into<String>) -> Self {
        let detail: String = detail.into();
        Self {
            reason,
            address: cut(address, super::limits::REJECT_ADDRESS_MAX).into(),
            detail: cut(&detail, super::limits::REJECT_DETAIL_MAX).into(),
        }
    }
}

/// The beginning of a text, at most so many octets.
pub(super) fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// Where a row stands in what was uploaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Place {
    /// Its number in its part, from 1; the header and blank lines have none.
    pub row: u64,
    /// The line on which it begins, from 1.
    pub line: u64,
}

/// Local parts of functions rather than people: RFC 2142, and what nobody reads.
const ROLES: &[&str] = &[
    "abuse",
    "admin",
    "administrator",
    "bounce",
    "bounces",
    "daemon",
    "do-not-reply",
    "donotreply",
    "ftp",
    "hostmaster",
    "list",
    "list-owner",
    "list-request",
    "mailer-daemon",
    "mailerdaemon",
    "majordomo",
    "no-reply",
    "nobody",
    "noc",
    "noreply",
    "null",
    "postmaster",
    "root",
    "security",
    "spam",
    "sysadmin",
    "unsubscribe",
    "usenet",
    "uucp",
    "webmaster",
    "www",
];

/// Whether an address is that of a function. `info@` and `sales@` are not in the list: small firms have no other.
pub fn is_role_account(mailbox: &Mailbox) -> bool {
    let local = mailbox.local_part();
    // A detail after a plus belongs to the same box.
    let local = local.split_once('+').map_or(local, |(box_name, _)| box_name);
    local.len() <= 16 && ROLES.binary_search(&local.to_ascii_lowercase().as_str()).is_ok()
}

/// The parts of a row before they are checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given<'a> {
    /// The address, not parsed yet.
    pub email: &'a str,
    /// The name, if it is not blank.
    pub name: Option<&'a str>,
    /// The time zone, if it is not blank.
    pub tz: Option<&'a str>,
    /// The members of the object, without its braces.
    pub vars: &'a [u8],
    /// The members of the object, without its braces.
    pub metadata: &'a [u8],
}

/// Writes a row in its fixed form.
pub(super) fn write_value(out: &mut Vec<u8>, given: &Given<'_>) {
    out.extend_from_slice(b"{\"email\":");
    write_text(out, given.email);
    for (key, text) in [(&b",\"name\":"[..], given.name), (&b",\"tz\":"[..], given.tz)] {
        if let Some(text) = text {
            out.extend_from_slice(key);
            write_text(out, text);
        }
    }
    for (key, members) in [(&b",\"vars\":{"[..], given.vars), (&b",\"metadata\":{"[..], given.metadata)] {
        if !members.is_empty() {
            out.extend_from_slice(key);
            out.extend_from_slice(members);
            out.push(b'}');
        }
    }
    out.push(b'}');
}

/// Writes a text as a JSON string.
pub(super) fn write_text(out: &mut Vec<u8>, text: &str) {
    // Writing a text into memory can't fail.
    let _ = serde_json::to_writer(out, text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_sorted_and_found() {
        assert!(ROLES.is_sorted());
        let is = |text| is_role_account(&Mailbox::parse(text).expect("an address"));
        for yes in ["postmaster@x.example", "Abuse@x.example", "no-reply+17@x.example", "NoReply@x.example"] {
            assert!(is(yes), "{yes}");
        }
        for no in ["info@x.example", "abuser@x.example", "jane.postmaster@x.example"] {
            assert!(!is(no), "{no}");
        }
    }
}
