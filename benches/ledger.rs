//! What a message costs the ledger: submitters that accept a 4 KB message, and settle it once it is on disk.
//!
//! `cargo bench --bench ledger -- [SUBMITTERS] [CYCLES] [WORKERS] [fsync|os] [DIR]`, by default 64 submitters, 100,000 cycles, 3 workers
//! of the database, with sync, in a folder that is removed afterwards. Prints cycles a second, and CPU per cycle of the whole process:
//! ledger, flushes and compactions, and of the ten seconds after the last cycle, since compaction put off is not saved.
//!
//! `… -- backlog RECIPIENTS DIR` queues so many recipients and leaves them; `… -- restart 0 DIR` opens that folder again, refills
//! a window of each queue, and prints how long it took and the resident memory.
//!
//! `… -- rows ROWS [fsync|os] [DIR]` uploads a campaign of so many rows of 200 octets, starts it, and settles each row once.

#![allow(clippy::print_stdout, reason = "a bench prints what it found")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use posthaste::config::{Durability, Storage};
use posthaste::event::{Event, EventKind};
use posthaste::metrics::{Registry, store::StoreMetrics};
use posthaste::seam::{clock::Clock, random};
use posthaste::store::{
    Change, EntryKey, Envelope, EnvelopeRecipient, Ledger, NewDelivery, NewMessage, News, Next, QueueEntry, Settle,
    Settled, StoreOptions, StoredMessage, Via, open,
};
use posthaste::types::{Class, DeliveryId, Domain, Mailbox, MessageId, Name, Notify, QueueKey, ReversePath, Timestamp};

#[path = "ledger/rows.rs"]
mod rows;

const BODY_BYTES: usize = 4_096;
const DOMAINS: u64 = 1_000;
const SETTLE_FOR: Duration = Duration::from_secs(10);

type Failed = Box<dyn Error>;

fn main() -> Result<(), Failed> {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let arg = |n: usize, or: &str| args.get(n).cloned().unwrap_or_else(|| or.to_owned());
    match args.first().map(String::as_str) {
        Some("backlog") => return backlog(arg(1, "1000000").parse()?, arg(2, "backlog").as_ref()),
        Some("rows") => {
            let scratch = tempfile::tempdir()?;
            let dir = args.get(3).map_or(scratch.path().to_owned(), Into::into);
            let durability = if arg(2, "fsync") == "os" { Durability::Os } else { Durability::Fsync };
            return rows::run(arg(1, "1000000").parse()?, durability, &dir);
        }
        Some("restart") => return restart(arg(2, "backlog").as_ref()),
        _ => {}
    }
    let submitters: u64 = arg(0, "64").parse()?;
    let cycles: u64 = arg(1, "100000").parse()?;
    let scratch = tempfile::tempdir()?;
    let dir = args.get(4).map_or(scratch.path().to_owned(), Into::into);
    let metrics = StoreMetrics::register(&Registry::new());
    let durability = if arg(3, "fsync") == "os" { Durability::Os } else { Durability::Fsync };
    let mut options =
        StoreOptions::from_config(&dir, durability, &Storage::default(), Clock::system(), metrics.clone());
    options.workers = arg(2, "3").parse()?;
    let opened = open(options)?;
    let (ledger, mut news) = (opened.ledger.clone(), opened.news);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (cpu, began) = (cpu_seconds()?, Instant::now());
    let done = Arc::new(AtomicU64::new(0));
    runtime.block_on(async {
        let shape = Arc::new(Shape::new()?);
        for n in 0..submitters {
            let (ledger, shape) = (ledger.clone(), shape.clone());
            tokio::spawn(async move {
                for i in (n..cycles).step_by(submitters as usize) {
                    if ledger.submit(vec![Change::Accept(Box::new(shape.message(i)))]).await.is_err() {
                        return;
                    }
                }
            });
        }
        while done.load(Ordering::Relaxed) < cycles {
            let Some(news) = news.recv().await else { return Err("the ledger ended".into()) };
            for one in news {
                match one {
                    News::Queued { queue, entry, .. } => settle(&ledger, queue, &entry, &shape)?,
                    News::Settled { .. } => {
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    News::Dirty { .. } | News::Run { .. } => {
                        return Err("the bench was too slow to read its news".into());
                    }
                }
            }
        }
        Ok::<(), Failed>(())
    })?;
    let (wall, used) = (began.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
    std::thread::sleep(SETTLE_FOR);
    let with_rest = cpu_seconds()? - cpu;
    let per = |seconds: f64| seconds * 1e6 / cycles as f64;
    println!(
        "{submitters} submitters: {:.0} cycles/s, {:.1} µs CPU a cycle, {:.1} with the ten seconds after; {} commits, {:.1} requests each, mean {:.2} ms",
        cycles as f64 / wall,
        per(used),
        per(with_rest),
        metrics.commits.get(),
        metrics.commit_requests.get_sample_sum() / metrics.commits.get() as f64,
        metrics.commit_seconds.get_sample_sum() * 1e3 / metrics.commits.get() as f64,
    );
    runtime.block_on(ledger.shutdown());
    Ok(())
}

/// Queues so many recipients and ends as a `kill -9` would.
fn backlog(recipients: u64, dir: &Path) -> Result<(), Failed> {
    let metrics = StoreMetrics::register(&Registry::new());
    let options = StoreOptions::from_config(dir, Durability::Os, &Storage::default(), Clock::system(), metrics.clone());
    let opened = open(options)?;
    let shape = Shape::new()?;
    let (cpu, began) = (cpu_seconds()?, Instant::now());
    let mut news = opened.news;
    std::thread::spawn(move || while news.blocking_recv().is_some() {});
    tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
        for first in (0..recipients).step_by(100) {
            let changes = (first..first + 100).map(|n| Change::Accept(Box::new(shape.message(n)))).collect();
            opened.ledger.submit(changes).await?;
        }
        Ok::<(), Failed>(())
    })?;
    let (wall, used) = (began.elapsed(), cpu_seconds()? - cpu);
    println!(
        "{recipients} queued in {wall:.1?}, {:.1} µs CPU each; {} MB resident",
        used * 1e6 / recipients as f64,
        resident_mb()?
    );
    std::process::abort()
}

/// Opens it again, as a start does: the rows, then a window of each queue.
fn restart(dir: &Path) -> Result<(), Failed> {
    let metrics = StoreMetrics::register(&Registry::new());
    let options = StoreOptions::from_config(dir, Durability::Os, &Storage::default(), Clock::system(), metrics);
    let began = Instant::now();
    let opened = open(options)?;
    println!("open after {:.2?}: {:?}; {} MB resident", began.elapsed(), opened.report, resident_mb()?);
    tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
        let mut entries = 0;
        for row in &opened.queues {
            let page = opened.reader.refill(row.id, None, 32).await?;
            entries += page.entries.len();
            if let Some(first) = page.entries.first() {
                opened.reader.message(first.key.delivery.message).await?;
            }
        }
        println!(
            "{entries} entries and a message of each queue after {:.2?}; {} MB resident",
            began.elapsed(),
            resident_mb()?
        );
        opened.ledger.shutdown().await;
        Ok::<(), Failed>(())
    })
}

/// Resident memory (proc(5), `VmRSS`).
fn resident_mb() -> Result<u64, Failed> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? / 1024)
}

/// What all messages share.
struct Shape {
    tenant: Name,
    pool: Name,
    domains: Vec<Domain>,
    sender: ReversePath,
    bodies: Vec<Bytes>,
    now: Timestamp,
}

impl Shape {
    fn new() -> Result<Self, Failed> {
        let domains = (0..DOMAINS).map(|n| Domain::parse(&format!("d{n}.example"))).collect::<Result<_, _>>()?;
        let mut random = random::Seeded::new(1);
        let body = |_| (0..BODY_BYTES).map(|_| random.below(256) as u8).collect::<Vec<u8>>().into();
        Ok(Self {
            tenant: Name::parse("acme")?,
            pool: Name::parse("default")?,
            domains,
            sender: ReversePath::Mailbox(Mailbox::parse("bounce@acme.example")?),
            bodies: (0..64).map(body).collect(),
            now: Clock::system().now(),
        })
    }

    fn message(&self, n: u64) -> NewMessage {
        let domain = &self.domains[(n % DOMAINS) as usize];
        let mailbox = Mailbox::parse(&format!("user{n}@{domain}")).expect("a mailbox by its making");
        let id = MessageId::new(self.now, random::u128());
        let body = self.bodies[(n % 64) as usize].clone();
        let entry = QueueEntry {
            key: EntryKey { due: self.now, delivery: DeliveryId { message: id, index: 0 } },
            accepted: self.now,
            expires: self.now.after(Duration::from_secs(345_600)),
            attempts: 0,
            first_try: None,
            last_try: None,
            last_reply: None,
            size: body.len() as u32,
            recipients: 1,
            delay_noticed: false,
            sent: None,
        };
        let queue = QueueKey {
            class: Class::Transactional,
            tenant: self.tenant.clone(),
            campaign: None,
            pool: self.pool.clone(),
            domain: domain.clone(),
        };
        let envelope = Envelope {
            id,
            tenant: self.tenant.clone(),
            class: Class::Transactional,
            campaign: None,
            tags: Vec::new(),
            metadata: None,
            reverse_path: self.sender.clone(),
            ret: None,
            envid: None,
            recipients: vec![EnvelopeRecipient { mailbox, notify: Notify::Default, orcpt: None }],
            accepted: self.now,
            expires: entry.expires,
            smtputf8: false,
            eight_bit: false,
            from_domain: None,
            via: Via::Smtp,
            client: None,
        };
        let mut event = Event::new(EventKind::Accepted, self.now, self.tenant.clone());
        event.message_id = Some(id);
        event.recipients = Some(1);
        event.size = Some(body.len() as u64);
        event.sender = Some("bounce@acme.example".into());
        let message = Arc::new(StoredMessage { envelope, body });
        NewMessage { message, deliveries: vec![NewDelivery { queue, entry }], event }
    }
}

fn settle(ledger: &Ledger, queue: posthaste::types::QueueId, entry: &QueueEntry, shape: &Shape) -> Result<(), Failed> {
    let mut event = Event::new(EventKind::Delivered, shape.now, shape.tenant.clone());
    event.message_id = Some(entry.key.delivery.message);
    event.recipient = Some(Mailbox::parse("user@d1.example")?);
    event.domain = Some(shape.domains[1].clone());
    event.mx = Some("mx1.d1.example [192.0.2.1]".into());
    event.attempt = Some(1);
    let (key, size, recipients) = (entry.key, entry.size, entry.recipients);
    let settled = Settled { queue, key, size, recipients, sent: None, next: Next::Done, events: vec![event] };
    Ok(ledger.settle(Settle { settled: vec![settled], owed: Vec::new(), changes: Vec::new() })?)
}

/// User and system time of this process (proc(5): fields 14 and 15 of `stat`, in hundredths of a second).
fn cpu_seconds() -> Result<f64, Failed> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |n: usize| fields.get(n).and_then(|f| f.parse::<f64>().ok()).ok_or("no such field");
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}
