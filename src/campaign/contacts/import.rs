//! The import of contacts: rows as in an upload of recipients, each upserted by its address.
//!
//! Every batch is read, merged and written as one; what was written stays when the body breaks off, and sending it again changes nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::{Contact, Contacts, ContactsError, Types, key};
use crate::campaign::recipients::{BatchOf, ChunksReceiver, Input, Reason, Refusal, Reject, Rejected, read_rows};
use crate::store::{Change, ReadError, SubmitError, Table};
use crate::types::{Mailbox, Name};

/// The rejected rows that the answer names; further ones are only counted.
pub const REJECTS_TOLD_MAX: usize = 1_000;

/// What an import came to.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ImportDone {
    /// Rows that were read.
    pub read: u64,
    /// Contacts that are new.
    pub created: u64,
    /// Contacts that were there.
    pub updated: u64,
    /// Rows that are not right.
    pub invalid: u64,
    /// The first of them.
    pub rejects: Vec<Reject>,
}

/// Why an import did not come to its end; what it counts is on disk.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The body can't be read any further.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store could not be written.
    #[error(transparent)]
    Store(#[from] SubmitError),
}

impl From<ContactsError> for ImportError {
    fn from(error: ContactsError) -> Self {
        match error {
            ContactsError::Read(error) => ImportError::Read(error),
            ContactsError::Submit(error) => ImportError::Store(error),
        }
    }
}

/// A row on its way.
struct Row {
    mailbox: Mailbox,
    name: Option<String>,
    tz: Option<String>,
    attributes: Map<String, Value>,
}

impl Contacts {
    /// Takes a body into an audience: the counts, and why it ended early if it did.
    pub async fn import(
        &self,
        tenant: &Name,
        audience: &Name,
        types: Types,
        input: Input,
        body: ChunksReceiver,
    ) -> (ImportDone, Option<ImportError>) {
        let (sender, batches) = mpsc::channel(2);
        tokio::task::spawn_blocking(move || {
            read_rows(body, input.compression, input.format, &sender, |given| {
                let invalid = |why: String| Rejected::invalid(given.email, why);
                let mailbox = Mailbox::parse(given.email).map_err(|e| invalid(e.to_string()))?;
                let json = [b"{", given.vars, b"}"].concat();
                let mut attributes = serde_json::from_slice(&json).map_err(|e| invalid(e.to_string()))?;
                types.apply(&mut attributes).map_err(invalid)?;
                let size = given.vars.len() + given.email.len();
                let (name, tz) = (given.name.map(str::to_owned), given.tz.map(str::to_owned));
                Ok((Row { mailbox, name, tz, attributes }, size))
            });
        });
        let mut done = ImportDone::default();
        let error = self.take_all(tenant, audience, batches, &mut done).await.err();
        (done, error)
    }

    async fn take_all(
        &self,
        tenant: &Name,
        audience: &Name,
        mut batches: mpsc::Receiver<BatchOf<Row>>,
        done: &mut ImportDone,
    ) -> Result<(), ImportError> {
        while let Some(batch) = batches.recv().await {
            let mut rows = Vec::with_capacity(batch.rows.len());
            let mut rejected = Vec::new();
            let read = batch.rows.len() as u64;
            for (place, row) in batch.rows {
                match row {
                    Ok(row) => rows.push(row),
                    Err(Rejected { reason, address, detail }) => {
                        debug_assert!(matches!(reason, Reason::Invalid | Reason::TooLong));
                        rejected.push(Reject { part: 1, row: place.row, line: place.line, address, reason, detail });
                    }
                }
            }
            let (created, updated) = self.upsert(tenant, audience, rows).await?;
            done.read += read;
            done.created += created;
            done.updated += updated;
            done.invalid += rejected.len() as u64;
            let room = REJECTS_TOLD_MAX.saturating_sub(done.rejects.len());
            done.rejects.extend(rejected.into_iter().take(room));
            match batch.end {
                None => {}
                Some(Ok(())) => return Ok(()),
                Some(Err(refusal)) => return Err(refusal.into()),
            }
        }
        Err(Refusal::BrokenOff("the reading of the body ended".into()).into())
    }

    async fn upsert(&self, tenant: &Name, audience: &Name, rows: Vec<Row>) -> Result<(u64, u64), ContactsError> {
        if rows.is_empty() {
            return Ok((0, 0));
        }
        let inner = &self.0;
        let _writing = inner.writing.lock().await;
        let now = inner.clock.now();
        let keys: Vec<Vec<u8>> = rows.iter().map(|row| key(tenant, audience, &row.mailbox)).collect();
        let found = inner.reader.table_get(Table::Contacts, keys.clone()).await?;
        let mut contacts: BTreeMap<Vec<u8>, Contact> = BTreeMap::new();
        for (key, found) in keys.iter().zip(found) {
            if let Some(json) = found {
                contacts.insert(key.clone(), Contact::from_json(&json)?);
            }
        }
        let (mut created, mut updated) = (0, 0);
        for (key, row) in keys.into_iter().zip(rows) {
            let Row { mailbox, name, tz, attributes } = row;
            let email = mailbox.as_str().to_owned();
            let newer = Contact { email, name, tz, attributes, created: now, updated: now };
            match contacts.get_mut(&key) {
                Some(contact) => {
                    updated += 1;
                    contact.merge(newer);
                }
                None => {
                    created += 1;
                    let mut contact = Contact { attributes: Map::new(), ..newer.clone() };
                    contact.merge(newer);
                    contacts.insert(key, contact);
                }
            }
        }
        let put =
            |(key, contact): (Vec<u8>, Contact)| Change::Put { table: Table::Contacts, key, value: contact.to_json() };
        inner.ledger.submit(contacts.into_iter().map(put).collect()).await?;
        Ok((created, updated))
    }
}

#[cfg(test)]
#[path = "import_tests.rs"]
mod tests;
