//! A store in memory for the tests of uploads and contacts: rows, `sent`, state and tables, over the channels of the real one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::store::{
    Change, Ledger, LedgerRequest, LedgerRequests, ReadRequest, Reader, Row, Sent, SentStatus, SubmitError, Table,
};
use crate::types::{AddressHash, CampaignNo, QueueId, RowId};

/// What the store has.
#[derive(Default)]
pub(crate) struct Memory {
    pub rows: BTreeMap<RowId, Row>,
    pub sent: BTreeMap<(CampaignNo, u8, AddressHash), Sent>,
    pub state: BTreeMap<Vec<u8>, Vec<u8>>,
    pub contacts: BTreeMap<Vec<u8>, Vec<u8>>,
    pub queues: Vec<String>,
    pub commits: usize,
    /// From this commit on all are refused.
    pub refuse_from: Option<usize>,
    /// How long a commit takes.
    pub takes: Duration,
}

impl Memory {
    fn apply(&mut self, change: Change) {
        match change {
            Change::PutState { key, value } => drop(self.state.insert(key, value)),
            Change::RemoveState { key } => drop(self.state.remove(&key)),
            Change::Put { table: Table::Contacts, key, value } => drop(self.contacts.insert(key, value)),
            Change::Remove { table: Table::Contacts, key } => drop(self.contacts.remove(&key)),
            Change::Rows(new) => {
                for row in new.rows {
                    let queue = row.queue.to_string();
                    let number = self.queues.iter().position(|q| *q == queue).unwrap_or_else(|| {
                        self.queues.push(queue);
                        self.queues.len() - 1
                    });
                    let id = RowId {
                        campaign: new.campaign,
                        step: new.step,
                        queue: QueueId(number as u32),
                        slot: row.slot,
                        seq: row.seq,
                    };
                    let sent = Sent { row: id, status: SentStatus::Waiting };
                    let twice = self.sent.insert((new.campaign, new.step, row.hash), sent);
                    assert!(twice.is_none(), "an address was uploaded twice");
                    let before = self.rows.insert(id, Row { id, hash: row.hash, value: row.value });
                    assert!(before.is_none(), "a sequence was used twice");
                }
            }
            other => panic!("not for these tests: {other:?}"),
        }
    }

    /// The rows as text, in the order of the upload.
    pub fn values(&self) -> Vec<String> {
        let mut rows: Vec<&Row> = self.rows.values().collect();
        rows.sort_by_key(|row| row.id.seq);
        rows.iter().map(|row| String::from_utf8_lossy(&row.value).into_owned()).collect()
    }
}

/// The handles of a store in memory.
pub(crate) struct FakeStore {
    pub memory: Arc<Mutex<Memory>>,
    pub ledger: Ledger,
    pub reader: Reader,
}

impl FakeStore {
    /// Serves it on the current runtime.
    pub fn new() -> Self {
        let memory = Arc::new(Mutex::new(Memory::default()));
        let (ledger, requests) = Ledger::channel();
        let (reader, reads) = Reader::channel(64);
        tokio::spawn(serve_ledger(memory.clone(), requests));
        tokio::spawn(serve_reader(memory.clone(), reads));
        Self { memory, ledger, reader }
    }
}

async fn serve_ledger(memory: Arc<Mutex<Memory>>, mut requests: LedgerRequests) {
    while let Some(request) = requests.submits.recv().await {
        let LedgerRequest::Submit { changes, reply, .. } = request else { continue };
        let takes = memory.lock().takes;
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        let mut memory = memory.lock();
        memory.commits += 1;
        let refused = memory.refuse_from.is_some_and(|from| memory.commits >= from);
        let answer = match refused {
            true => Err(SubmitError::LowSpace { free: 1, min_free: 2 }),
            false => {
                changes.into_iter().for_each(|change| memory.apply(change));
                Ok(())
            }
        };
        let _ = reply.send(answer);
    }
}

async fn serve_reader(memory: Arc<Mutex<Memory>>, mut reads: tokio::sync::mpsc::Receiver<ReadRequest>) {
    let octets = |v: &Vec<u8>| Bytes::from(v.clone());
    while let Some(request) = reads.recv().await {
        let memory = memory.lock();
        match request {
            ReadRequest::StateGet { key, reply } => drop(reply.send(Ok(memory.state.get(&key).map(octets)))),
            ReadRequest::Sent { campaign, step, hashes, reply } => {
                let sent = hashes.iter().map(|hash| memory.sent.get(&(campaign, step, *hash)).copied()).collect();
                drop(reply.send(Ok(sent)));
            }
            ReadRequest::Rows { campaign, after, limit, reply } => {
                let later = |row: &&Row| row.id.campaign == campaign && after.is_none_or(|after| row.id > after);
                drop(reply.send(Ok(memory.rows.values().filter(later).take(limit).cloned().collect())));
            }
            ReadRequest::TableGet { table: Table::Contacts, keys, reply } => {
                drop(reply.send(Ok(keys.iter().map(|key| memory.contacts.get(key).map(octets)).collect())));
            }
            ReadRequest::TableScan { table: Table::Contacts, prefix, after, limit, reply } => {
                let later = |(key, _): &(&Vec<u8>, _)| {
                    key.starts_with(&prefix) && after.as_ref().is_none_or(|after| *key > after)
                };
                let found = memory.contacts.iter().filter(later).take(limit);
                drop(reply.send(Ok(found.map(|(key, value)| (octets(key), octets(value))).collect())));
            }
            other => panic!("not for these tests: {other:?}"),
        }
    }
}
