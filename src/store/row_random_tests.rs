//! Campaigns' rows against a model: random uploads, outcomes and ends of runs from a seed, with restarts between them. After each
//! restart every address, every queue and every count must be what the model says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tempfile::tempdir;

use super::testing::{NOW, event, mailbox, name, open_in, queue_key, shut};
use super::{
    Change, EntryKey, NewDelivery, NewRow, NewRows, News, Next, Opened, QueueEntry, Run, RunChange, RunCounts,
    SentStatus, Settle, Settled, address_hash,
};
use crate::event::EventKind;
use crate::seam::random::Seeded;
use crate::types::{CampaignNo, QueueId, QueueKey, RowId};

const DOMAINS: [&str; 3] = ["a.example", "b.example", "c.example"];
const CAMPAIGN: CampaignNo = CampaignNo(3);
const STEP: u8 = 2;

/// Where a row is.
#[derive(Clone, Debug)]
enum Place {
    Fresh,
    Dropped,
    /// In the queue of this domain, at this place.
    Queued(usize, EntryKey),
    Ended(EventKind),
}

#[derive(Clone, Debug)]
struct ModelRow {
    domain: usize,
    slot: u8,
    size: u32,
    place: Place,
}

#[derive(Default)]
struct Model {
    rows: BTreeMap<u32, ModelRow>,
    events: BTreeMap<EventKind, u64>,
    running: bool,
    /// Entries that were read while the run was on: they may be settled after its end.
    in_flight: Vec<(QueueId, QueueEntry)>,
}

fn key_of(domain: usize) -> QueueKey {
    QueueKey { campaign: Some(name("spring")), ..queue_key(DOMAINS[domain]) }
}

fn hash(seq: u32) -> [u8; 16] {
    address_hash(&mailbox(&format!("r{seq}@x.example")))
}

fn run() -> Run {
    Run { accepted: NOW, due: NOW, expire_after: Duration::from_secs(600) }
}

impl Model {
    async fn step(&mut self, opened: &mut Opened, random: &mut Seeded) {
        match random.below(12) {
            0..2 => self.upload(opened, random).await,
            2 => self.read(opened, random).await,
            _ => self.settle(opened, random).await,
        }
    }

    async fn upload(&mut self, opened: &Opened, random: &mut Seeded) {
        let mut rows = Vec::new();
        for _ in 0..random.below(20) {
            let seq = self.rows.len() as u32;
            let (domain, slot, size) = (random.below(3) as usize, random.below(3) as u8, random.below(50) as u32);
            let value = Bytes::from(vec![1; size as usize]);
            rows.push(NewRow { queue: Arc::new(key_of(domain)), slot, seq, hash: hash(seq), value });
            self.rows.insert(seq, ModelRow { domain, slot, size, place: Place::Fresh });
        }
        let new = NewRows { campaign: CAMPAIGN, step: STEP, rows };
        opened.ledger.submit(vec![Change::Rows(Box::new(new))]).await.expect("on disk");
    }

    async fn change(&mut self, opened: &Opened, on: bool) {
        let change = RunChange { campaign: CAMPAIGN, step: STEP, run: on.then(run) };
        opened.ledger.submit(vec![Change::Run(Box::new(change))]).await.expect("on disk");
        self.running = on;
        for row in self.rows.values_mut().filter(|_| !on) {
            if matches!(row.place, Place::Fresh) {
                row.place = Place::Dropped;
            }
        }
    }

    /// Takes a page of a queue into flight.
    async fn read(&mut self, opened: &Opened, random: &mut Seeded) {
        let queues = opened.reader.queues().await.expect("readable");
        if queues.is_empty() {
            return;
        }
        let queue = queues[random.below(queues.len() as u64) as usize].id;
        let page = opened.reader.refill(queue, None, 1 + random.below(9) as usize).await.expect("readable");
        for entry in page.entries {
            if !self.in_flight.iter().any(|(_, e)| e.key == entry.key) {
                self.in_flight.push((queue, entry));
            }
        }
    }

    async fn settle(&mut self, opened: &mut Opened, random: &mut Seeded) {
        if self.in_flight.is_empty() {
            return self.read(opened, random).await;
        }
        let (queue, entry) = self.in_flight.swap_remove(random.below(self.in_flight.len() as u64) as usize);
        let seq = RowId::of(entry.key.delivery.message).expect("a row").seq;
        let row = self.rows.get_mut(&seq).expect("uploaded");
        let due = NOW.after(Duration::from_millis(random.below(3_000_000)));
        let again = QueueEntry { key: EntryKey { due, ..entry.key }, attempts: entry.attempts + 1, ..entry.clone() };
        let here = match row.place {
            Place::Queued(domain, _) => domain,
            _ => row.domain,
        };
        let (kind, next) = match random.below(5) {
            0 => {
                row.place = Place::Queued(here, again.key);
                (EventKind::Deferred, Next::Retry(again))
            }
            1 => {
                let domain = random.below(3) as usize;
                row.place = Place::Queued(domain, again.key);
                (EventKind::Rerouted, Next::Move(NewDelivery { queue: key_of(domain), entry: again }))
            }
            n => {
                let kind = if n == 2 { EventKind::Bounced } else { EventKind::Delivered };
                row.place = Place::Ended(kind);
                (kind, Next::Done)
            }
        };
        *self.events.entry(kind).or_default() += 1;
        let told = event(kind, entry.key.delivery.message, None);
        let (key, size, recipients, sent) = (entry.key, entry.size, entry.recipients, entry.sent);
        let settled = Settled { queue, key, size, recipients, sent, next, events: vec![told] };
        // Sometimes the same outcome twice: the second changes nothing.
        for _ in 0..=random.below(2) {
            let settle = Settle { settled: vec![settled.clone()], owed: Vec::new(), changes: Vec::new() };
            opened.ledger.settle(settle).expect("handed over");
            if matches!(settled.next, Next::Retry(_) | Next::Move(_)) {
                break;
            }
        }
        loop {
            let news = opened.news.recv().await.expect("the ledger lives");
            if news.iter().any(|n| matches!(n, News::Settled { key: of, .. } if *of == key)) {
                return;
            }
        }
    }

    async fn compare(&self, opened: &Opened, seed: u64) {
        let mut want: BTreeMap<usize, Vec<(EntryKey, u32)>> = BTreeMap::new();
        let mut sizes: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
        let queues = opened.reader.queues().await.expect("readable");
        let mut counts =
            RunCounts { rows: self.rows.len() as u64, events: self.events.clone(), ..RunCounts::default() };
        let sent = opened.reader.sent(CAMPAIGN, STEP, self.rows.keys().map(|seq| hash(*seq)).collect()).await;
        for ((seq, row), sent) in self.rows.iter().zip(sent.expect("readable")) {
            let sent = sent.expect("uploaded");
            let due = NOW.after(Duration::from_millis(u64::from(row.slot) * crate::types::SLOT_MILLIS));
            let id = RowId { campaign: CAMPAIGN, step: STEP, queue: sent.row.queue, slot: row.slot, seq: *seq };
            assert_eq!(sent.row, id);
            let status = match row.place {
                Place::Fresh => {
                    let delivery = crate::types::DeliveryId { message: id.message_id(), index: 0 };
                    if self.running {
                        want.entry(row.domain).or_default().push((EntryKey { due, delivery }, *seq));
                    }
                    counts.fresh += 1;
                    SentStatus::Waiting
                }
                Place::Dropped => {
                    counts.dropped += 1;
                    SentStatus::Waiting
                }
                Place::Queued(domain, key) => {
                    want.entry(domain).or_default().push((key, *seq));
                    counts.queued += 1;
                    SentStatus::Queued
                }
                Place::Ended(kind) => SentStatus::Ended(kind, NOW),
            };
            assert_eq!(sent.status, status, "seed {seed}, row {seq}");
            let domain = match row.place {
                Place::Fresh => row.domain,
                Place::Queued(domain, _) => domain,
                Place::Dropped | Place::Ended(_) => continue,
            };
            let size = sizes.entry(domain).or_default();
            *size = (size.0 + 1, size.1 + u64::from(row.size));
        }
        let (on, found) = opened.reader.run(CAMPAIGN, STEP).await.expect("readable");
        assert_eq!((on.is_some(), found), (self.running, counts), "seed {seed}");
        assert_eq!(queues.len(), sizes.len(), "seed {seed}: those that hold something");
        for queue in queues {
            let domain = (0..3).find(|domain| key_of(*domain) == *queue.key).expect("one of ours");
            assert_eq!((queue.count, queue.bytes), sizes[&domain], "seed {seed}, {}", queue.key);
            let mut entries: Vec<QueueEntry> = Vec::new();
            loop {
                let after = entries.last().map(|entry| entry.key);
                let page = opened.reader.refill(queue.id, after, 4).await.expect("readable");
                entries.extend(page.entries);
                if page.exhausted {
                    break;
                }
            }
            let mut want = want.remove(&domain).unwrap_or_default();
            want.sort_unstable();
            let found: Vec<_> = entries
                .iter()
                .map(|entry| (entry.key, RowId::of(entry.key.delivery.message).expect("a row").seq))
                .collect();
            assert_eq!(found, want, "seed {seed}, {}", queue.key);
            assert!(entries.first().is_none_or(|first| queue.next_due <= first.key.due), "a lower bound");
        }
        assert!(want.values().all(Vec::is_empty), "seed {seed}: {want:?}");
    }
}

#[tokio::test]
async fn rows_do_what_the_model_does() {
    for seed in 0..8 {
        let dir = tempdir().expect("a folder");
        let mut random = Seeded::new(seed);
        let mut model = Model::default();
        for round in 0..5 {
            let mut opened = open_in(dir.path());
            assert!(opened.report.cut.is_none(), "seed {seed}: {:?}", opened.report);
            assert_eq!(opened.queues, opened.reader.queues().await.expect("readable"));
            model.in_flight.clear();
            if round == 1 {
                model.change(&opened, true).await;
            }
            for n in 0..100 {
                if round == 4 && n == 50 {
                    model.change(&opened, false).await;
                    model.compare(&opened, seed).await;
                }
                // Before the start rows are only uploaded, after the end none are.
                match (round, model.running) {
                    (0, _) => model.upload(&opened, &mut random).await,
                    (_, true) => model.step(&mut opened, &mut random).await,
                    (_, false) => model.settle(&mut opened, &mut random).await,
                }
            }
            model.compare(&opened, seed).await;
            shut(opened).await;
        }
        let opened = open_in(dir.path());
        model.compare(&opened, seed).await;
        shut(opened).await;
    }
}
