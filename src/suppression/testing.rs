//! A store in memory: the channels' other ends, served by a thread.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::Suppressions;
use crate::event::Event;
use crate::seam::clock::Clock;
use crate::store::{Change, Ledger, LedgerRequest, ReadRequest, Reader};

/// What is in it.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) table: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) state: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) events: Vec<Event>,
    /// Requests to the readers.
    pub(crate) reads: usize,
    /// Submissions.
    pub(crate) commits: usize,
}

/// The handles of a store in memory.
pub(crate) fn store() -> (Ledger, Reader, Arc<Mutex<Memory>>) {
    let memory = Arc::new(Mutex::new(Memory::default()));
    let (ledger, mut submits) = Ledger::channel();
    let (reader, mut reads) = Reader::channel(64);
    let shared = memory.clone();
    std::thread::spawn(move || {
        while let Some(request) = submits.submits.blocking_recv() {
            if let LedgerRequest::Submit { changes, reply, .. } = request {
                apply(&mut shared.lock(), changes);
                let _ = reply.send(Ok(()));
            }
        }
    });
    let shared = memory.clone();
    std::thread::spawn(move || {
        while let Some(request) = reads.blocking_recv() {
            answer(&mut shared.lock(), request);
        }
    });
    (ledger, reader, memory)
}

/// Suppressions over a store in memory.
pub(crate) fn suppressions(clock: Clock) -> (Suppressions, Arc<Mutex<Memory>>) {
    let (ledger, reader, memory) = store();
    (Suppressions::with_key(reader, ledger, clock, &[7; 32]), memory)
}

fn apply(memory: &mut Memory, changes: Vec<Change>) {
    memory.commits += 1;
    for change in changes {
        match change {
            Change::Put { key, value, .. } => drop(memory.table.insert(key, value)),
            Change::Remove { key, .. } => drop(memory.table.remove(&key)),
            Change::PutState { key, value } => drop(memory.state.insert(key, value)),
            Change::RemoveState { key } => drop(memory.state.remove(&key)),
            Change::Event(event) => memory.events.push(*event),
            _ => {}
        }
    }
}

fn page(map: &BTreeMap<Vec<u8>, Vec<u8>>, prefix: &[u8], after: Option<Vec<u8>>, limit: usize) -> Vec<(Bytes, Bytes)> {
    let meant = map.iter().filter(|(k, _)| k.starts_with(prefix) && after.as_ref().is_none_or(|after| *k > after));
    meant.take(limit).map(|(k, v)| (k.clone().into(), v.clone().into())).collect()
}

fn answer(memory: &mut Memory, request: ReadRequest) {
    memory.reads += 1;
    match request {
        ReadRequest::TableGet { keys, reply, .. } => {
            let found = keys.iter().map(|key| memory.table.get(key).cloned().map(Bytes::from)).collect();
            let _ = reply.send(Ok(found));
        }
        ReadRequest::TableScan { prefix, after, limit, reply, .. } => {
            let _ = reply.send(Ok(page(&memory.table, &prefix, after, limit)));
        }
        ReadRequest::StateGet { key, reply } => {
            let _ = reply.send(Ok(memory.state.get(&key).cloned().map(Bytes::from)));
        }
        ReadRequest::State { prefix, limit, reply } => {
            let _ = reply.send(Ok(page(&memory.state, &prefix, None, limit)));
        }
        other => panic!("nothing answers {other:?}"),
    }
}
