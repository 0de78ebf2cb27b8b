//! Changes: add, remove, erase.

use super::filter::fingerprint;
use super::record::{Entry, Reason, Scope, address_prefix};
use super::{SCAN_PAGE, SuppressionError, Suppressions};
use crate::store::{Change, Table};
use crate::types::{Mailbox, Name, Timestamp};

impl Suppressions {
    /// A new entry as of now, for good, without a note.
    pub fn entry(&self, scope: Scope, reason: Reason, address: &Mailbox, source: &str) -> Entry {
        Entry {
            scope,
            reason,
            address: Some(address.clone()),
            hash: self.hash(address),
            since: self.clock.now(),
            expires: None,
            source: source.into(),
            note: "".into(),
        }
    }

    /// The change that stores an entry, for a batch of the caller's own: an outcome, an unsubscribe with its event.
    ///
    /// From this call on the entry is looked for, whether the batch is committed or not.
    pub fn put(&self, entry: &Entry) -> Change {
        let tenant = entry.scope.tenant().map_or("", Name::as_str);
        self.shared.filter.insert(fingerprint(tenant, &entry.hash));
        Change::Put { table: Table::Suppressions, key: entry.key(), value: entry.encode() }
    }

    /// The change that removes an entry, for a batch of the caller's own.
    pub fn take(&self, entry: &Entry) -> Change {
        Change::Remove { table: Table::Suppressions, key: entry.key() }
    }

    /// The entry with this scope and reason, if there is one in force.
    pub async fn find(
        &self,
        scope: &Scope,
        reason: Reason,
        address: &Mailbox,
    ) -> Result<Option<Entry>, SuppressionError> {
        let wanted = self.entry(scope.clone(), reason, address, "");
        Ok(self.find_many(std::slice::from_ref(&wanted)).await?.pop().flatten())
    }

    /// What is there in place of each of these.
    pub(super) async fn find_many(&self, entries: &[Entry]) -> Result<Vec<Option<Entry>>, SuppressionError> {
        let known = |entry: &Entry| {
            let tenant = entry.scope.tenant().map_or("", Name::as_str);
            self.shared.filter.contains(fingerprint(tenant, &entry.hash))
        };
        let mut found = vec![None; entries.len()];
        let asked: Vec<usize> = (0..entries.len()).filter(|i| known(&entries[*i])).collect();
        if asked.is_empty() {
            return Ok(found);
        }
        let keys: Vec<Vec<u8>> = asked.iter().map(|i| entries[*i].key()).collect();
        let values = self.reader.table_get(Table::Suppressions, keys.clone()).await?;
        let now = self.clock.now();
        for ((i, key), value) in asked.into_iter().zip(keys).zip(values) {
            let there = value.and_then(|value| Entry::decode(&key, &value));
            found[i] = there.filter(|entry| entry.is_in_force(now));
        }
        Ok(found)
    }

    /// Adds an entry, or renews it: one that is there keeps its `since`. Answers what is stored and whether it is new.
    pub async fn add(&self, mut entry: Entry) -> Result<(Entry, bool), SuppressionError> {
        let there = self.find_many(std::slice::from_ref(&entry)).await?.pop().flatten();
        if let Some(there) = &there {
            entry.since = there.since;
        }
        let change = self.put(&entry);
        self.ledger.submit(vec![change]).await?;
        Ok((entry, there.is_none()))
    }

    /// Removes the entries of an address in exactly this scope, of one reason or of all. Answers those that were there.
    pub async fn remove(
        &self,
        scope: &Scope,
        reason: Option<Reason>,
        address: &Mailbox,
    ) -> Result<Vec<Entry>, SuppressionError> {
        let all = self.get(scope.tenant(), address).await?;
        let meant = |entry: &Entry| entry.scope == *scope && reason.is_none_or(|reason| entry.reason == reason);
        let meant: Vec<Entry> = all.into_iter().filter(meant).collect();
        if !meant.is_empty() {
            self.ledger.submit(meant.iter().map(|entry| self.take(entry)).collect()).await?;
        }
        Ok(meant)
    }

    /// Takes the plain address, source and note out of every entry of an address, of these tenants and of the node; the entries go on
    /// blocking by the keyed hash. Answers how many entries it concerned.
    pub async fn erase(&self, tenants: &[Name], address: &Mailbox) -> Result<usize, SuppressionError> {
        let hash = self.hash(address);
        let mut changes = Vec::new();
        for owner in tenants.iter().map(Some).chain([None]) {
            let prefix = address_prefix(owner, &hash);
            let records = self.reader.table_scan(Table::Suppressions, prefix, None, SCAN_PAGE).await?;
            for (key, value) in &records {
                if let Some(entry) = Entry::decode(key, value).filter(|entry| entry.address.is_some()) {
                    let erased = Entry { address: None, source: "".into(), note: "".into(), ..entry };
                    changes.push(self.put(&erased));
                }
            }
        }
        let count = changes.len();
        if count > 0 {
            self.ledger.submit(changes).await?;
        }
        Ok(count)
    }

    /// The time by which entries are made and judged.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Stores changes that [`Suppressions::put`] and [`Suppressions::take`] made, with whatever belongs to them, in one batch.
    pub async fn submit(&self, changes: Vec<Change>) -> Result<(), SuppressionError> {
        Ok(self.ledger.submit(changes).await?)
    }
}
