//! What a campaign's row costs the ledger: its upload, and its way from a refill to its outcome.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use posthaste::config::{Durability, Storage};
use posthaste::event::{Event, EventKind};
use posthaste::metrics::{Registry, store::StoreMetrics};
use posthaste::seam::{clock::Clock, random};
use posthaste::store::{
    Change, NewRow, NewRows, News, Next, Opened, QueueEntry, Run, RunChange, Settle, Settled, StoreOptions,
    address_hash, open,
};
use posthaste::types::{CampaignNo, Class, Domain, Mailbox, Name, QueueId, QueueKey, Timestamp};

/// Octets of a row as `campaign` writes it.
const ROW_BYTES: usize = 200;
/// Rows in a submission.
const ROWS_A_TIME: u32 = 500;
/// Submissions under way at a time.
const SUBMITTERS: u32 = 4;
const DOMAINS: u64 = 1_000;
const WINDOW: usize = 512;
const CAMPAIGN: CampaignNo = CampaignNo(1);

type Failed = Box<dyn Error>;

/// Uploads so many rows, starts, settles them all, and prints what each part took.
pub(crate) fn run(rows: u32, durability: Durability, dir: &Path) -> Result<(), Failed> {
    let metrics = StoreMetrics::register(&Registry::new());
    let options = StoreOptions::from_config(dir, durability, &Storage::default(), Clock::system(), metrics.clone());
    let mut opened = open(options.clone())?;
    let keys = keys()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;

    let (cpu, began) = (super::cpu_seconds()?, Instant::now());
    runtime.block_on(upload(&opened, rows, &keys))?;
    told("uploaded", rows, cpu, began, dir)?;
    println!("  {} commits, mean {:.2} ms", metrics.commits.get(), mean_ms(&metrics));

    let now = Clock::system().now();
    let run = Run { accepted: now, due: now, expire_after: Duration::from_secs(345_600) };
    let began = Instant::now();
    let change = RunChange { campaign: CAMPAIGN, step: 0, run: Some(run) };
    runtime.block_on(opened.ledger.submit(vec![Change::Run(Box::new(change))]))?;
    println!("started after {:.2?}", began.elapsed());

    let (cpu, began) = (super::cpu_seconds()?, Instant::now());
    runtime.block_on(settle_all(&mut opened, now))?;
    told("read and settled", rows, cpu, began, dir)?;
    runtime.block_on(opened.ledger.shutdown());
    let Opened { ledger, reader, news, store, threads, .. } = opened;
    drop((ledger, reader, news, store));
    threads.join();
    println!("opened again: {:?}", open(options)?.report);
    Ok(())
}

fn told(what: &str, rows: u32, cpu: f64, began: Instant, dir: &Path) -> Result<(), Failed> {
    let (wall, used) = (began.elapsed().as_secs_f64(), super::cpu_seconds()? - cpu);
    println!(
        "{rows} rows {what} in {wall:.1} s, {:.0} a second, {:.1} µs CPU each; {} octets of disk each, {} MB resident",
        f64::from(rows) / wall,
        used * 1e6 / f64::from(rows),
        disk_bytes(dir)? / u64::from(rows),
        super::resident_mb()?,
    );
    Ok(())
}

fn mean_ms(metrics: &StoreMetrics) -> f64 {
    metrics.commit_seconds.get_sample_sum() * 1e3 / metrics.commits.get() as f64
}

fn keys() -> Result<Vec<Arc<QueueKey>>, Failed> {
    let key = |n: u64| -> Result<Arc<QueueKey>, Failed> {
        Ok(Arc::new(QueueKey {
            class: Class::Marketing,
            tenant: Name::parse("acme")?,
            campaign: Some(Name::parse("spring")?),
            pool: Name::parse("default")?,
            domain: Domain::parse(&format!("d{n}.example"))?,
        }))
    };
    (0..DOMAINS).map(key).collect()
}

/// As an upload comes: some domains have most of the rows. The hashing of the addresses is part of it.
async fn upload(opened: &Opened, rows: u32, keys: &[Arc<QueueKey>]) -> Result<(), Failed> {
    let mut waiting = tokio::task::JoinSet::new();
    let mut random = random::Seeded::new(1);
    for first in (0..rows).step_by(ROWS_A_TIME as usize) {
        let mut new = Vec::with_capacity(ROWS_A_TIME as usize);
        for seq in first..(first + ROWS_A_TIME).min(rows) {
            let domain = random.below(DOMAINS).min(random.below(DOMAINS)).min(random.below(DOMAINS));
            let queue = keys[domain as usize].clone();
            let mailbox = Mailbox::parse(&format!("user{seq}@{}", queue.domain))?;
            let value: Bytes = (0..ROW_BYTES).map(|_| b'a' + random.below(26) as u8).collect::<Vec<u8>>().into();
            new.push(NewRow { queue, slot: 0, seq, hash: address_hash(&mailbox), value });
        }
        if waiting.len() >= SUBMITTERS as usize
            && let Some(done) = waiting.join_next().await
        {
            done??;
        }
        let ledger = opened.ledger.clone();
        let change = Change::Rows(Box::new(NewRows { campaign: CAMPAIGN, step: 0, rows: new }));
        waiting.spawn(async move { ledger.submit(vec![change]).await });
    }
    while let Some(done) = waiting.join_next().await {
        done??;
    }
    Ok(())
}

/// Each queue in windows, as a scheduler that is always ready.
async fn settle_all(opened: &mut Opened, now: Timestamp) -> Result<(), Failed> {
    for queue in opened.reader.queues().await? {
        let mut after = None;
        loop {
            let page = opened.reader.refill(queue.id, after, WINDOW).await?;
            after = page.entries.last().map(|entry| entry.key).or(after);
            for entry in &page.entries {
                opened.ledger.settle(outcome(queue.id, entry, &queue.key, now)?)?;
            }
            let mut unsettled = page.entries.len();
            while unsettled > 0 {
                let news = opened.news.recv().await.ok_or("the ledger ended")?;
                unsettled -= news.iter().filter(|one| matches!(one, News::Settled { .. })).count();
            }
            if page.exhausted {
                break;
            }
        }
    }
    Ok(())
}

fn outcome(queue: QueueId, entry: &QueueEntry, of: &QueueKey, now: Timestamp) -> Result<Settle, Failed> {
    let mut event = Event::new(EventKind::Delivered, now, of.tenant.clone());
    event.message_id = Some(entry.key.delivery.message);
    event.recipient = Some(Mailbox::parse(&format!("user{}@{}", random::u128(), of.domain))?);
    event.domain = Some(of.domain.clone());
    event.attempt = Some(1);
    let (key, size, recipients, sent) = (entry.key, entry.size, entry.recipients, entry.sent);
    let settled = Settled { queue, key, size, recipients, sent, next: Next::Done, events: vec![event] };
    Ok(Settle { settled: vec![settled], owed: Vec::new(), changes: Vec::new() })
}

/// What the database takes on disk, its journals (64 MB each, whatever is in them) too.
fn disk_bytes(dir: &Path) -> Result<u64, Failed> {
    let mut bytes = 0;
    for item in std::fs::read_dir(dir)? {
        let item = item?;
        let meta = item.metadata()?;
        bytes += if meta.is_dir() { disk_bytes(&item.path())? } else { meta.len() };
    }
    Ok(bytes)
}
