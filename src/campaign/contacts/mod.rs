//! Audiences: contacts that are kept in the daemon, so that a campaign can say `audience = "customers"` instead of bringing a list.
//!
//! 1. An import streams NDJSON or CSV as an upload of recipients does (`import`), and upserts by address: attributes that are given
//!    replace those that are there, a null removes one, the others stay,
//! 2. attributes keep the types of JSON; the cells of a CSV file get the types that the import names, `age=number,since=date` (`types`),
//! 3. a campaign's start pours an audience into its rows ([`Contacts::pour`]),
//! 4. a contact is removed from one audience, or erased from all of a tenant's ([`Contacts::erase`]).
//!
//! A contact stands under tenant, audience and canonical address in [`Table::Contacts`], so an audience is one range in order of address.

mod import;
mod model;
mod types;

pub use import::{ImportDone, ImportError};
pub use model::Contact;
pub use types::{AttributeType, Types};

use std::sync::Arc;

use bytes::Bytes;

use crate::campaign::recipients::{BodyError, Chunks};
use crate::seam::clock::Clock;
use crate::store::{Change, Ledger, ReadError, Reader, SubmitError, Table};
use crate::types::{Mailbox, Name};

/// Contacts that are read at a time.
const PAGE: usize = 1_000;

/// The most audiences of a tenant that are listed.
pub const AUDIENCES_MAX: usize = 1_000;

/// The key of a contact: tenant, audience, canonical address, separated by zero octets, which stand in none of them.
pub fn key(tenant: &Name, audience: &Name, mailbox: &Mailbox) -> Vec<u8> {
    [prefix(tenant, audience).as_slice(), mailbox.canonical().as_bytes()].concat()
}

fn prefix(tenant: &Name, audience: &Name) -> Vec<u8> {
    [tenant.as_str().as_bytes(), b"\0", audience.as_str().as_bytes(), b"\0"].concat()
}

/// Why contacts could not be changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ContactsError {
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The change was not stored.
    #[error(transparent)]
    Submit(#[from] SubmitError),
}

/// A page of an audience.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ContactsPage {
    /// The contacts, in order of their canonical addresses.
    pub contacts: Vec<Contact>,
    /// The `after` of the next page; `None` at the end.
    pub next: Option<String>,
}

/// The audiences of all tenants; cheap to clone.
#[derive(Clone)]
pub struct Contacts(Arc<Inner>);

struct Inner {
    ledger: Ledger,
    reader: Reader,
    clock: Clock,
    /// Imports read and write: one at a time, so that none undoes another's change to the same contact.
    writing: tokio::sync::Mutex<()>,
}

impl Contacts {
    /// Over this store.
    pub fn new(ledger: Ledger, reader: Reader, clock: Clock) -> Self {
        Self(Arc::new(Inner { ledger, reader, clock, writing: tokio::sync::Mutex::new(()) }))
    }

    /// One contact.
    pub async fn get(&self, tenant: &Name, audience: &Name, mailbox: &Mailbox) -> Result<Option<Contact>, ReadError> {
        let found = self.0.reader.table_get(Table::Contacts, vec![key(tenant, audience, mailbox)]).await?;
        found.into_iter().next().flatten().map(|json| Contact::from_json(&json)).transpose()
    }

    /// Contacts of an audience, strictly after a canonical address, at most `limit`.
    pub async fn page(
        &self,
        tenant: &Name,
        audience: &Name,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ContactsPage, ReadError> {
        let prefix = prefix(tenant, audience);
        let after = after.map(|address| [prefix.as_slice(), address.as_bytes()].concat());
        let records = self.0.reader.table_scan(Table::Contacts, prefix.clone(), after, limit).await?;
        let next = match records.last() {
            Some((key, _)) if records.len() >= limit => {
                Some(String::from_utf8_lossy(&key[prefix.len().min(key.len())..]).into_owned())
            }
            Some(_) | None => None,
        };
        let contacts = records.iter().map(|(_, json)| Contact::from_json(json)).collect::<Result<_, _>>()?;
        Ok(ContactsPage { contacts, next })
    }

    /// The audiences of a tenant that have a contact: a jump from one to the next, not a scan.
    pub async fn audiences(&self, tenant: &Name) -> Result<Vec<Name>, ReadError> {
        let prefix = [tenant.as_str().as_bytes(), b"\0"].concat();
        let mut audiences = Vec::new();
        let mut after = None;
        while audiences.len() < AUDIENCES_MAX {
            let found = self.0.reader.table_scan(Table::Contacts, prefix.clone(), after, 1).await?;
            let Some((key, _)) = found.first() else { break };
            let rest = key.get(prefix.len()..).unwrap_or_default();
            let name = rest.split(|b| *b == 0).next().unwrap_or_default();
            // Behind the zero octet that ends the name: what follows belongs to the next audience.
            after = Some([&prefix, name, &[1]].concat());
            audiences.extend(std::str::from_utf8(name).ok().and_then(|name| Name::parse(name).ok()));
        }
        Ok(audiences)
    }

    /// Takes a contact out of an audience; whether it was there.
    pub async fn remove(&self, tenant: &Name, audience: &Name, mailbox: &Mailbox) -> Result<bool, ContactsError> {
        let _writing = self.0.writing.lock().await;
        let key = key(tenant, audience, mailbox);
        let found = self.0.reader.table_get(Table::Contacts, vec![key.clone()]).await?;
        if !found.iter().any(Option::is_some) {
            return Ok(false);
        }
        self.0.ledger.submit(vec![Change::Remove { table: Table::Contacts, key }]).await?;
        Ok(true)
    }

    /// Takes an address out of all audiences of a tenant; which these were. Its suppressions are erased by
    /// [`Suppressions::erase`](crate::suppression::Suppressions::erase).
    pub async fn erase(&self, tenant: &Name, mailbox: &Mailbox) -> Result<Vec<Name>, ContactsError> {
        let _writing = self.0.writing.lock().await;
        let audiences = self.audiences(tenant).await?;
        let keys: Vec<Vec<u8>> = audiences.iter().map(|audience| key(tenant, audience, mailbox)).collect();
        let found = self.0.reader.table_get(Table::Contacts, keys.clone()).await?;
        let there: Vec<bool> = found.iter().map(Option::is_some).collect();
        let taken = |(item, there): (Vec<u8>, &bool)| there.then_some(item);
        let keys = keys.into_iter().zip(&there).filter_map(taken);
        let changes: Vec<Change> = keys.map(|key| Change::Remove { table: Table::Contacts, key }).collect();
        if !changes.is_empty() {
            self.0.ledger.submit(changes).await?;
        }
        Ok(audiences.into_iter().zip(there).filter_map(|(name, there)| there.then_some(name)).collect())
    }

    /// Takes a whole audience away, in batches; how many contacts it had.
    pub async fn drop_audience(&self, tenant: &Name, audience: &Name) -> Result<u64, ContactsError> {
        let _writing = self.0.writing.lock().await;
        let (prefix, mut count) = (prefix(tenant, audience), 0);
        loop {
            let found = self.0.reader.table_scan(Table::Contacts, prefix.clone(), None, PAGE).await?;
            if found.is_empty() {
                return Ok(count);
            }
            count += found.len() as u64;
            let remove = |(key, _): (Bytes, Bytes)| Change::Remove { table: Table::Contacts, key: key.to_vec() };
            self.0.ledger.submit(found.into_iter().map(remove).collect()).await?;
        }
    }

    /// Sends an audience as rows of an upload: lines of NDJSON. Reading goes as fast as the rows are committed.
    pub async fn pour(&self, tenant: &Name, audience: &Name, chunks: Chunks) {
        let mut after: Option<String> = None;
        loop {
            let page = match self.page(tenant, audience, after.as_deref(), PAGE).await {
                Ok(page) => page,
                Err(error) => {
                    // An error means that the upload has ended by itself.
                    let _ = chunks.send(Err(BodyError::BrokenOff(error.to_string()))).await;
                    return;
                }
            };
            let mut lines = Vec::new();
            page.contacts.iter().for_each(|contact| contact.write_row(&mut lines));
            let filled = !lines.is_empty();
            if filled && chunks.send(Ok(lines.into())).await.is_err() {
                return;
            }
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        let _ = chunks.send(Ok(Bytes::new())).await;
    }
}
