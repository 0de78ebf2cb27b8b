//! The store against a model: random changes from a seed, with restarts between them, and after each restart everything
//! that the store says must be what two maps in memory say.

use std::collections::{BTreeMap, BTreeSet};

use tempfile::tempdir;

use super::testing::{NOW, accept, entry, event, id, message, open_in, queue_key, settle, shut};
use super::{EntryKey, NewDelivery, News, Next, Opened, QueueEntry};
use crate::event::EventKind;
use crate::seam::random::Seeded;
use crate::types::{EventSeq, QueueKey};

const DOMAINS: [&str; 4] = ["a.example", "b.example", "c.example", "d.example"];

#[derive(Default)]
struct Model {
    /// What waits: by queue and place.
    entries: BTreeMap<(QueueKey, EntryKey), QueueEntry>,
    /// Messages with recipients left.
    left: BTreeMap<u64, u32>,
    gone: BTreeSet<u64>,
    events: u64,
    next: u64,
}

impl Model {
    /// One random change, given to the store and to the model.
    async fn step(&mut self, opened: &mut Opened, random: &mut Seeded) {
        match random.below(10) {
            0..4 => self.accept(opened, random).await,
            4 => self.settle_missing(opened),
            _ => self.settle_one(opened, random).await,
        }
    }

    async fn accept(&mut self, opened: &mut Opened, random: &mut Seeded) {
        let n = self.next;
        self.next += 1;
        let recipients: Vec<String> =
            (0..=random.below(3)).map(|i| format!("r{i}@{}", DOMAINS[random.below(4) as usize])).collect();
        let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
        let mut new = message(n, &recipients, b"a body");
        for delivery in &mut new.deliveries {
            delivery.entry.key.due = NOW.after(std::time::Duration::from_millis(random.below(50)));
            self.entries.insert((delivery.queue.clone(), delivery.entry.key), delivery.entry.clone());
        }
        self.left.insert(n, recipients.len() as u32);
        self.events += 1;
        opened.ledger.submit(accept(new)).await.expect("on disk");
    }

    fn settle_missing(&self, opened: &Opened) {
        let Some((_, known)) = self.entries.first_key_value() else { return };
        let missing = entry(1 << 40, 0, 5, known.size, 1);
        let told = vec![event(EventKind::Bounced, id(1 << 40), None)];
        opened.ledger.settle(settle(crate::types::QueueId(1), &missing, Next::Done, told)).expect("handed over");
    }

    async fn settle_one(&mut self, opened: &mut Opened, random: &mut Seeded) {
        if self.entries.is_empty() {
            return;
        }
        let nth = random.below(self.entries.len() as u64) as usize;
        let Some(((key, place), was)) = self.entries.iter().nth(nth).map(|(k, v)| (k.clone(), v.clone())) else {
            return;
        };
        let rows = opened.reader.queues().await.expect("readable");
        let queue = rows.iter().find(|row| *row.key == key).expect("a queue that holds something has a row").id;
        self.entries.remove(&(key.clone(), place));
        self.events += 1;
        let told = vec![event(EventKind::Deferred, was.key.delivery.message, None)];
        let again = QueueEntry {
            attempts: was.attempts + 1,
            key: EntryKey { due: NOW.after(std::time::Duration::from_millis(random.below(90))), ..place },
            ..was.clone()
        };
        let next = match random.below(4) {
            0 => {
                self.entries.insert((key, again.key), again.clone());
                Next::Retry(again)
            }
            1 => {
                let queue = queue_key(DOMAINS[random.below(4) as usize]);
                self.entries.insert((queue.clone(), again.key), again.clone());
                Next::Move(NewDelivery { queue, entry: again })
            }
            _ => {
                self.done(was.key);
                Next::Done
            }
        };
        opened.ledger.settle(settle(queue, &was, next, told)).expect("handed over");
        // The scheduler settles an entry once it is told of it: so does this test.
        loop {
            let news = opened.news.recv().await.expect("the ledger lives");
            if news.iter().any(|n| matches!(n, News::Settled { key, .. } if *key == place)) {
                return;
            }
        }
    }

    fn done(&mut self, key: EntryKey) {
        let Some(n) = (0..self.next).find(|n| id(*n) == key.delivery.message) else { return };
        if let Some(left) = self.left.get_mut(&n) {
            *left -= 1;
            if *left == 0 {
                self.left.remove(&n);
                self.gone.insert(n);
            }
        }
    }

    async fn compare(&self, opened: &Opened) {
        let rows = opened.reader.queues().await.expect("readable");
        let mut found = BTreeMap::new();
        for row in &rows {
            let mut after = None;
            let mut first_due = None;
            loop {
                let page = opened.reader.refill(row.id, after, 7).await.expect("readable");
                for entry in page.entries {
                    first_due = first_due.or(Some(entry.key.due));
                    after = Some(entry.key);
                    found.insert(((*row.key).clone(), entry.key), entry);
                }
                if page.exhausted {
                    break;
                }
            }
            assert!(row.next_due <= first_due.expect("a row has entries"), "a lower bound");
            let of_row = found.iter().filter(|((key, _), _)| *key == *row.key);
            let (count, bytes) = of_row.fold((0, 0), |(c, b), (_, e)| (c + 1, b + u64::from(e.size)));
            assert_eq!((row.count, row.bytes), (count, bytes), "{}", row.key);
        }
        assert_eq!(found, self.entries);
        for n in self.left.keys() {
            assert!(opened.reader.message(id(*n)).await.expect("readable").is_some(), "{n}");
        }
        for n in &self.gone {
            assert!(opened.reader.message(id(*n)).await.expect("readable").is_none(), "{n}");
        }
        assert_eq!(opened.reader.events_tail(), EventSeq(self.events));
        let several = self.left.keys().count();
        assert!(opened.reader.state("left/", 1_000).await.expect("readable").len() <= several);
    }
}

#[tokio::test]
async fn the_store_does_what_the_model_does() {
    for seed in 0..4 {
        let dir = tempdir().expect("a folder");
        let mut random = Seeded::new(seed);
        let mut model = Model::default();
        for _round in 0..4 {
            let mut opened = open_in(dir.path());
            assert!(opened.report.cut.is_none(), "seed {seed}: {:?}", opened.report);
            model.compare(&opened).await;
            for _ in 0..120 {
                model.step(&mut opened, &mut random).await;
            }
            shut(opened).await;
        }
        let opened = open_in(dir.path());
        model.compare(&opened).await;
        shut(opened).await;
    }
}
