//! Suppression: the addresses that are not sent to, and why.
//!
//! 1. [`Suppressions::open`] at the start: the key of the address hashes (made at the first one), then every record is read once and
//!    its fingerprint kept in memory ([`filter`](self)); what has expired is removed,
//! 2. a check asks the fingerprints first: no hit, as nearly always, costs about a microsecond and no lock; only a hit reads the store,
//! 3. an entry is made by an operator, an import, an unsubscribe link, or in the batch of an outcome ([`Suppressions::put`]), and its
//!    fingerprint is there before its commit: there is no time at which it is on disk and not seen,
//! 4. after an erasure only the keyed hash of the address is left, and it goes on working.
//!
//! What an entry blocks ([`Reason::blocks`]):
//! - a hard bounce, a complaint and a manual entry block both classes, as with SES, SendGrid, Mailgun and Postmark: a mailbox that is
//!   not there, or somebody who reported us, is not to be sent anything, or the reputation of all other mail pays for it;
//! - an unsubscribe blocks marketing only: a receipt or a password must reach whoever left a newsletter.
//!
//! How far it reaches ([`Scope`]): the whole node, one tenant, or one of a tenant's lists.
//!
//! Each reason is a record of its own, so that none hides or outlives another, and a write needs no read before it.

mod change;
mod filter;
mod import;
mod record;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod text;

pub use import::{ImportError, ImportOptions, ImportReport, Importer, RowError};
pub use record::{Entry, Reason, Scope, TEXT_MAX};
pub use text::{CSV_HEADER, RECORD_LEN_MAX, Records, RecordsError, csv_line, parse_time};

use std::sync::Arc;

use aws_lc_rs::hmac;
use tracing::{info, warn};

use crate::seam::clock::Clock;
use crate::seam::random;
use crate::store::{Change, Ledger, ReadError, Reader, SubmitError, Table};
use crate::types::{AddressHash, Class, Mailbox, Name, Timestamp};
use filter::Filter;

/// `state`: the key under which addresses are hashed: version (1), key (32).
const STATE_KEY: &[u8] = b"key/suppression";
/// The version of that record.
const KEY_VERSION: u8 = 1;
/// Records that are read at a time by a start, a sweep or a filtered page.
const SCAN_PAGE: usize = 10_000;
/// Expired records that are removed in one commit.
const SWEEP_BATCH: usize = 1_000;

/// Why something of the suppressions could not be done.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SuppressionError {
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The change was not stored.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The key under which addresses are hashed is not readable: no entry could be found any more.
    #[error("the record key/suppression of the store is not readable: restore it from a backup")]
    Key,
}

/// What speaks against an address: the widest scope and, within it, the weightiest reason that blocks the class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// How far the entry reaches: `global`, `tenant` or `list`.
    pub scope: &'static str,
    /// Why it was made.
    pub reason: Reason,
    /// When.
    pub since: Timestamp,
}

impl std::fmt::Display for Verdict {
    /// As it stands in an event: `unsubscribe (list) since 2026-11-23T17:55:49.012Z`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}) since {}", self.reason, self.scope, self.since.rfc3339())
    }
}

/// Which entries are meant; all that is given must match.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Filtered {
    /// Whose.
    pub of: Owner,
    /// Only those of this list.
    pub list: Option<Name>,
    /// Only those with this reason.
    pub reason: Option<Reason>,
}

/// Whose entries are meant.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Owner {
    /// Everybody's.
    #[default]
    All,
    /// Those of the node: the global ones.
    Node,
    /// A tenant's, of all its lists.
    Tenant(Name),
}

/// A page of entries. They are in no order that means anything, but always in the same.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<Vec<u8>>,
}

/// The suppressions of a node; cheap to clone.
#[derive(Clone)]
pub struct Suppressions {
    reader: Reader,
    ledger: Ledger,
    clock: Clock,
    shared: Arc<Shared>,
}

struct Shared {
    key: hmac::Key,
    filter: Filter,
}

impl std::fmt::Debug for Suppressions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Suppressions").field("fingerprints", &self.shared.filter.len()).finish_non_exhaustive()
    }
}

impl Suppressions {
    /// Reads the key (or makes it) and the fingerprints of all entries; removes those that have expired. About a second a million.
    pub async fn open(reader: Reader, ledger: Ledger, clock: Clock) -> Result<Self, SuppressionError> {
        let key = match reader.state_get(STATE_KEY).await? {
            Some(value) => parse_key(&value).ok_or(SuppressionError::Key)?,
            None => {
                let mut key = [0; 32];
                random::fill(&mut key);
                let value = [&[KEY_VERSION], key.as_slice()].concat();
                ledger.submit(vec![Change::PutState { key: STATE_KEY.to_vec(), value }]).await?;
                key
            }
        };
        let suppressions = Self::with_key(reader, ledger, clock, &key);
        let removed = suppressions.sweep().await?;
        info!(addresses = suppressions.shared.filter.len(), expired = removed, "suppressions read");
        Ok(suppressions)
    }

    /// With this key and no fingerprints yet: [`Suppressions::sweep`] reads them.
    pub fn with_key(reader: Reader, ledger: Ledger, clock: Clock, key: &[u8; 32]) -> Self {
        let shared = Shared { key: hmac::Key::new(hmac::HMAC_SHA256, key), filter: Filter::default() };
        Self { reader, ledger, clock, shared: Arc::new(shared) }
    }

    /// Reads every record once: its fingerprint is kept, and it is removed when it has expired. Answers how many were removed.
    /// The daemon does this at its start and once a day.
    pub async fn sweep(&self) -> Result<usize, SuppressionError> {
        let (mut after, mut removed) = (None, 0);
        loop {
            let page = self.reader.table_scan(Table::Suppressions, Vec::new(), after.take(), SCAN_PAGE).await?;
            let now = self.clock.now();
            let mut old = Vec::new();
            for (key, value) in &page {
                match record::expires(value) {
                    Some(Some(at)) if at <= now => {
                        old.push(Change::Remove { table: Table::Suppressions, key: key.to_vec() })
                    }
                    Some(_) => {
                        if let Some((tenant, hash)) = record::owner_and_hash(key) {
                            self.shared.filter.insert(filter::fingerprint(tenant, &hash));
                        }
                    }
                    None => {
                        warn!(key = %record::printable_key(key), "a suppression is not readable, it blocks nothing")
                    }
                }
            }
            removed += old.len();
            while !old.is_empty() {
                let rest = old.split_off(old.len().min(SWEEP_BATCH));
                self.ledger.submit(std::mem::replace(&mut old, rest)).await?;
            }
            match page.last() {
                Some((key, _)) if page.len() == SCAN_PAGE => after = Some(key.to_vec()),
                Some(_) | None => return Ok(removed),
            }
        }
    }

    /// How many fingerprints are in memory.
    pub fn fingerprints(&self) -> usize {
        self.shared.filter.len()
    }

    /// The hash by which an address is known: HMAC-SHA256 of its canonical form, 128 bits.
    pub fn hash(&self, address: &Mailbox) -> AddressHash {
        let tag = hmac::sign(&self.shared.key, address.canonical().as_bytes());
        let mut hash = AddressHash::default();
        hash.copy_from_slice(&tag.as_ref()[..16]);
        hash
    }

    /// Whether the store must be asked about this address: `false` means that nothing speaks against it, for sure.
    ///
    /// Nothing waits and nothing is locked: about a microsecond, and nothing at all while there are no suppressions.
    pub fn maybe(&self, tenant: &Name, address: &Mailbox) -> bool {
        !self.shared.filter.is_empty() && self.maybe_hash(tenant, &self.hash(address))
    }

    fn maybe_hash(&self, tenant: &Name, hash: &AddressHash) -> bool {
        let filter = &self.shared.filter;
        filter.contains(filter::fingerprint(tenant.as_str(), hash)) || filter.contains(filter::fingerprint("", hash))
    }

    /// Whether an address may be sent mail of this class: `None` means yes.
    pub async fn check(
        &self,
        tenant: &Name,
        list: Option<&Name>,
        class: Class,
        address: &Mailbox,
    ) -> Result<Option<Verdict>, ReadError> {
        Ok(self.check_many(tenant, list, class, [address]).await?.pop().flatten())
    }

    /// As [`Suppressions::check`] for many addresses, answered in their order. Those without a hit cost no read; the others cost one
    /// request to the readers together.
    pub async fn check_many<'a>(
        &self,
        tenant: &Name,
        list: Option<&Name>,
        class: Class,
        addresses: impl IntoIterator<Item = &'a Mailbox>,
    ) -> Result<Vec<Option<Verdict>>, ReadError> {
        let mut verdicts = Vec::new();
        let (mut asked, mut keys) = (Vec::new(), Vec::new());
        let none = self.shared.filter.is_empty();
        for address in addresses {
            verdicts.push(None);
            if none {
                continue;
            }
            let hash = self.hash(address);
            if self.maybe_hash(tenant, &hash) {
                asked.push(verdicts.len() - 1);
                keys.extend(record::blocking_keys(tenant, list, class, &hash));
            }
        }
        if asked.is_empty() {
            return Ok(verdicts);
        }
        let per_address = keys.len() / asked.len();
        let found = self.reader.table_get(Table::Suppressions, keys.clone()).await?;
        let now = self.clock.now();
        for (at, values) in asked.into_iter().zip(keys.chunks(per_address).zip(found.chunks(per_address))) {
            verdicts[at] = values.0.iter().zip(values.1).find_map(|(key, value)| {
                let entry = Entry::decode(key, value.as_ref()?)?;
                let verdict = Verdict { scope: entry.scope.as_str(), reason: entry.reason, since: entry.since };
                entry.is_in_force(now).then_some(verdict)
            });
        }
        Ok(verdicts)
    }

    /// All entries of one owner for an address, those of every list, expired ones left out.
    pub async fn get(&self, owner: Option<&Name>, address: &Mailbox) -> Result<Vec<Entry>, ReadError> {
        self.of_hash(owner, &self.hash(address)).await
    }

    async fn of_hash(&self, owner: Option<&Name>, hash: &AddressHash) -> Result<Vec<Entry>, ReadError> {
        let prefix = record::address_prefix(owner, hash);
        let records = self.reader.table_scan(Table::Suppressions, prefix, None, SCAN_PAGE).await?;
        let now = self.clock.now();
        let entries = records.iter().filter_map(|(key, value)| Entry::decode(key, value));
        Ok(entries.filter(|entry| entry.is_in_force(now)).collect())
    }

    /// A page of at most `limit` entries after the key that the page before named; expired ones are left out.
    ///
    /// With a filter that passes little a page may have fewer entries, or none, and still a next one: a page reads at most 10,000 records.
    pub async fn list(&self, which: &Filtered, after: Option<Vec<u8>>, limit: usize) -> Result<Page, ReadError> {
        let prefix = match &which.of {
            Owner::All => Vec::new(),
            Owner::Node => record::owner_prefix(None),
            Owner::Tenant(tenant) => record::owner_prefix(Some(tenant)),
        };
        // A key of somebody else's must not lead there.
        let after = after.filter(|after| after.starts_with(&prefix));
        let plain = which.list.is_none() && which.reason.is_none();
        let read = if plain { limit.min(SCAN_PAGE) } else { SCAN_PAGE };
        let records = self.reader.table_scan(Table::Suppressions, prefix, after, read).await?;
        let now = self.clock.now();
        let mut page = Page::default();
        for (key, value) in &records {
            if page.entries.len() == limit {
                return Ok(page);
            }
            page.next = Some(key.to_vec());
            let Some(entry) = Entry::decode(key, value).filter(|entry| entry.is_in_force(now)) else { continue };
            let meant = which.list.as_ref().is_none_or(|list| entry.scope.list() == Some(list))
                && which.reason.is_none_or(|reason| entry.reason == reason);
            if meant {
                page.entries.push(entry);
            }
        }
        if records.len() < read {
            page.next = None;
        }
        Ok(page)
    }
}

fn parse_key(value: &[u8]) -> Option<[u8; 32]> {
    let (version, key) = value.split_first()?;
    (*version == KEY_VERSION).then_some(key)?.try_into().ok()
}
