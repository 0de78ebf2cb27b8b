//! Return paths: the address to which late bounces come back says which recipient of which message they are about (VERP).
//!
//! The local part is `b-` and base32 (RFC 4648 §6, lowercase, as some hosts change the case of local parts) of
//! `key id (1), day (2), message id (16), address tag (4), code (8)`: 52 characters, of 64 that RFC 5321 §4.5.3.1.1 allows. The code covers the
//! tenant too. The day is that of the attempt, in days since 1970; two weeks later the address is not known any more, so that one that was
//! harvested from a mail is of no use for long. The address tag is the beginning of the recipient's hash: it tells apart the recipients of one
//! message, and what it belongs to is looked up among them.

use data_encoding::{BASE32_NOPAD, Encoding, Specification};
use std::sync::LazyLock;

use super::ring::{CODE_LEN, Ring};
use crate::store::address_hash;
use crate::types::{AddressHash, Domain, Mailbox, MessageId, Name, Timestamp};

/// What the local part of a return path begins with.
pub const RETURN_PATH_PREFIX: &str = "b-";

/// How long bounces come back to a return path, in days (DESIGN: two weeks; RFC 5321 §4.5.4.1 lets peers try for 4 to 5 days).
pub const RETURN_PATH_DAYS: u16 = 14;

/// What the codes are for.
const PURPOSE: &[u8] = b"return path 1";
/// Key id, day, message, tag and code.
const LEN: usize = 1 + 2 + 16 + TAG_LEN + CODE_LEN;
/// The length of an address tag.
const TAG_LEN: usize = 4;
/// How far into the future a return path may lie, in days: the clock of a node may have been set back.
const AHEAD_DAYS: u16 = 1;

/// Base32 in lowercase, which reads both cases.
static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification: Specification = BASE32_NOPAD.specification();
    specification.symbols = specification.symbols.to_ascii_lowercase();
    specification.translate.from.push_str("ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    specification.translate.to.push_str("abcdefghijklmnopqrstuvwxyz");
    specification.encoding().expect("the alphabet of RFC 4648 in lowercase is valid")
});

/// What a return path says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReturnPath {
    /// The message, or a campaign's row.
    pub message: MessageId,
    /// The beginning of the recipient's address hash.
    pub tag: [u8; TAG_LEN],
}

impl ReturnPath {
    /// The return path of a recipient of a message.
    pub fn of(message: MessageId, recipient: &Mailbox) -> Self {
        Self { message, tag: tag_of(address_hash(recipient)) }
    }

    /// Whether this is the recipient that it speaks of.
    pub fn is_of(&self, recipient: &Mailbox) -> bool {
        self.tag == tag_of(address_hash(recipient))
    }

    /// The octets of message and tag: what a report about it is known by.
    pub fn to_bytes(self) -> [u8; 16 + TAG_LEN] {
        let mut octets = [0; 16 + TAG_LEN];
        octets[..16].copy_from_slice(&self.message.to_bytes());
        octets[16..].copy_from_slice(&self.tag);
        octets
    }
}

fn tag_of(hash: AddressHash) -> [u8; TAG_LEN] {
    let mut tag = [0; TAG_LEN];
    tag.copy_from_slice(&hash[..TAG_LEN]);
    tag
}

/// Why an address is not taken for a return path.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReturnPathError {
    /// It does not look like one.
    #[error("not a return path")]
    Foreign,
    /// It looks like one, but we did not make it: tampered, another tenant's, or of another node's keys.
    #[error("not a return path of ours")]
    Forged,
    /// We made it, too long ago.
    #[error("the return path has expired")]
    Expired,
}

impl Ring {
    pub(super) fn return_path(&self, tenant: &Name, path: ReturnPath, now: Timestamp) -> String {
        let day = day_of(now).to_be_bytes();
        let octets = path.to_bytes();
        let (id, code) = self.code(PURPOSE, &[tenant.as_str().as_bytes(), &[0], &day, &octets]);
        let mut all = [0; LEN];
        all[0] = id;
        all[1..3].copy_from_slice(&day);
        all[3..LEN - CODE_LEN].copy_from_slice(&octets);
        all[LEN - CODE_LEN..].copy_from_slice(&code);
        format!("{RETURN_PATH_PREFIX}{}", BASE32.encode(&all))
    }

    pub(super) fn open_return_path(
        &self,
        tenant: &Name,
        local_part: &str,
        now: Timestamp,
    ) -> Result<ReturnPath, ReturnPathError> {
        let head =
            local_part.get(..RETURN_PATH_PREFIX.len()).filter(|head| head.eq_ignore_ascii_case(RETURN_PATH_PREFIX));
        let text = head.and(local_part.get(RETURN_PATH_PREFIX.len()..)).ok_or(ReturnPathError::Foreign)?;
        let octets = BASE32.decode(text.as_bytes()).map_err(|_| ReturnPathError::Forged)?;
        let octets: &[u8; LEN] = octets.as_slice().try_into().map_err(|_| ReturnPathError::Forged)?;
        let (day, path, code) = (&octets[1..3], &octets[3..LEN - CODE_LEN], octets.last_chunk::<CODE_LEN>());
        let code = code.ok_or(ReturnPathError::Forged)?;
        if !self.made(octets[0], PURPOSE, &[tenant.as_str().as_bytes(), &[0], day, path], code) {
            return Err(ReturnPathError::Forged);
        }
        let (day, today) = (u16::from_be_bytes([octets[1], octets[2]]), day_of(now));
        if today > day.saturating_add(RETURN_PATH_DAYS) || day > today.saturating_add(AHEAD_DAYS) {
            return Err(ReturnPathError::Expired);
        }
        let (mut message, mut tag) = ([0; 16], [0; TAG_LEN]);
        message.copy_from_slice(&path[..16]);
        tag.copy_from_slice(&path[16..]);
        Ok(ReturnPath { message: MessageId::from_bytes(message), tag })
    }
}

/// Days since 1970; two octets last until 2149.
fn day_of(now: Timestamp) -> u16 {
    u16::try_from(now.as_millis() / 86_400_000).unwrap_or(u16::MAX)
}

impl super::Links {
    /// The return path of one recipient of a message that is sent now, at the tenant's bounce domain. About a microsecond.
    pub fn return_path(&self, tenant: &Name, bounce_domain: &Domain, path: ReturnPath, now: Timestamp) -> Mailbox {
        let local = self.ring.load().return_path(tenant, path, now);
        Mailbox::parse(&format!("{local}@{bounce_domain}"))
            .expect("letters, digits and a hyphen at a domain are an address")
    }

    /// What a local part at the tenant's bounce domain says.
    ///
    /// # Errors
    /// It is not one of ours, or was one once.
    pub fn open_return_path(
        &self,
        tenant: &Name,
        local_part: &str,
        now: Timestamp,
    ) -> Result<ReturnPath, ReturnPathError> {
        self.ring.load().open_return_path(tenant, local_part, now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::links::Links;

    const NOW: Timestamp = Timestamp::from_millis(1_795_456_549_012);

    fn days(n: u64) -> Duration {
        Duration::from_secs(n * 86_400)
    }

    fn name(text: &str) -> Name {
        Name::parse(text).expect("a name")
    }

    #[test]
    fn a_return_path_says_which_recipient_for_two_weeks() {
        let links = Links::ephemeral();
        let recipient = Mailbox::parse("Jane.Doe@Example.com").expect("an address");
        let path = ReturnPath::of(MessageId::new(NOW, u128::MAX), &recipient);
        let domain = Domain::parse("bounce.acme.example").expect("a domain");
        let address = links.return_path(&name("acme"), &domain, path, NOW);
        let local = address.local_part().to_owned();
        assert!(local.len() <= 64, "{local}");
        let open = |tenant: &str, local: &str, now| links.open_return_path(&name(tenant), local, now);
        assert_eq!(open("acme", &local, NOW), Ok(path));
        assert_eq!(
            open("acme", &local.to_uppercase(), NOW.after(days(14))),
            Ok(path),
            "the case may get lost on the way"
        );
        assert_eq!(open("acme", &local, NOW.after(days(15))), Err(ReturnPathError::Expired));
        assert_eq!(open("beta", &local, NOW), Err(ReturnPathError::Forged), "it is the tenant's own");
        assert!(path.is_of(&Mailbox::parse("jane.doe@example.COM").expect("an address")));
        assert!(!path.is_of(&Mailbox::parse("john@example.com").expect("an address")));
        for other in ["", "b-", "b-aaaa", "postmaster", "unsubscribe", "é-"] {
            assert!(open("acme", other, NOW).is_err(), "{other}");
        }
    }

    #[test]
    fn no_octet_of_it_can_be_changed() {
        let links = Links::ephemeral();
        let recipient = Mailbox::parse("a@b.example").expect("an address");
        let path = ReturnPath::of(MessageId::new(NOW, 7), &recipient);
        let domain = Domain::parse("bounce.acme.example").expect("a domain");
        let address = links.return_path(&name("acme"), &domain, path, NOW);
        let octets = BASE32.decode(&address.local_part().as_bytes()[2..]).expect("base32");
        for place in 0..octets.len() {
            let mut changed = octets.clone();
            changed[place] ^= 1;
            let local = format!("b-{}", BASE32.encode(&changed));
            assert_eq!(links.open_return_path(&name("acme"), &local, NOW), Err(ReturnPathError::Forged), "{place}");
        }
        assert_eq!(
            Links::ephemeral().open_return_path(&name("acme"), address.local_part(), NOW),
            Err(ReturnPathError::Forged)
        );
    }
}
