//! Campaigns over a store and ports in memory, for tests.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::super::job::{Format, Problem, TestRecipient, parse};
use super::super::model::UploadCounters;
use super::super::ports::*;
use super::*;
use crate::queue::admin::{Changed, CommandError};
use crate::store::{LedgerRequest, ReadRequest};
use crate::types::{DeliveryId, Domain, EventSeq, MessageId, QueueId, RowId};

#[derive(Default)]
pub struct Disk {
    pub state: BTreeMap<Vec<u8>, Vec<u8>>,
    pub events: Vec<Event>,
    pub runs: BTreeMap<u32, Run>,
    pub counts: BTreeMap<u32, RunCounts>,
    pub commits: usize,
    pub largest: usize,
}

pub struct World {
    pub disk: Arc<Mutex<Disk>>,
    pub committed: tokio::sync::watch::Sender<EventSeq>,
    pub clock: Clock,
    pub fake: Arc<Fake>,
    pub campaigns: Campaigns,
    pub metrics: CampaignMetrics,
    pub controls: Vec<CampaignControl>,
}

/// All ports at once.
#[derive(Default)]
pub struct Fake {
    pub told: Mutex<Vec<CampaignControl>>,
    pub cancelled: Mutex<Vec<String>>,
    pub findings: Mutex<Vec<Finding>>,
    pub in_flight: AtomicU64,
    pub ended: Mutex<Vec<u32>>,
}

impl Steer for Fake {
    fn set(&self, control: CampaignControl) -> Fut<'_, Result<u64, CommandError>> {
        self.told.lock().push(control);
        Box::pin(async { Ok(self.in_flight.load(Ordering::Relaxed)) })
    }

    fn in_flight(&self, campaign: CampaignNo) -> Fut<'_, Result<Vec<RowId>, CommandError>> {
        let row = move |seq| RowId { campaign, step: FIRST_STEP, queue: QueueId(1), slot: 0, seq };
        let count = self.in_flight.load(Ordering::Relaxed) as u32;
        Box::pin(async move { Ok((0..count).map(row).collect()) })
    }

    fn erase(&self, _: &Name, _: &Domain, what: DeliveryId, _: &str) -> Fut<'_, Result<(), CommandError>> {
        self.cancelled.lock().push(what.to_string());
        Box::pin(async { Ok(()) })
    }

    fn cancel(&self, _: &Name, campaign: &Name, _: &str, _: &str) -> Fut<'_, Result<Changed, CommandError>> {
        self.cancelled.lock().push(campaign.to_string());
        Box::pin(async { Ok(Changed { in_flight: self.in_flight.load(Ordering::Relaxed), ..Changed::default() }) })
    }
}

impl Recipients for Fake {
    fn upload<'a>(
        &'a self,
        _: Arc<CampaignHead>,
        _: UploadRequest,
        _: Box<dyn Chunks + 'a>,
    ) -> Fut<'a, Result<UploadCounters, UploadError>> {
        Box::pin(async { Ok(UploadCounters::default()) })
    }

    fn counters(&self, _: Arc<CampaignHead>) -> Fut<'_, Result<UploadCounters, UploadError>> {
        Box::pin(async { Ok(UploadCounters::default()) })
    }

    fn select(&self, _: Arc<CampaignHead>) -> Fut<'_, Result<UploadCounters, UploadError>> {
        Box::pin(async { Ok(UploadCounters::default()) })
    }

    fn rejects(&self, _: Arc<CampaignHead>, _: u64, _: usize) -> Fut<'_, Result<Option<(Bytes, u64)>, UploadError>> {
        Box::pin(async { Ok(None) })
    }

    fn forget(&self, _: Arc<CampaignHead>) -> Fut<'_, Result<Vec<Change>, UploadError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

impl Check for Fake {
    fn check(&self, _: Arc<CampaignHead>) -> Fut<'_, Vec<Finding>> {
        Box::pin(async { self.findings.lock().clone() })
    }
}

impl Content for Fake {
    fn problems(&self, job: &Job) -> Vec<Problem> {
        let broken = job.subject.contains("{{ broken");
        broken.then(|| Problem::new("subject", "the template does not end").at(1, 7)).into_iter().collect()
    }

    fn missing(&self, _: Arc<CampaignHead>) -> Fut<'_, Result<Vec<Missing>, ContentError>> {
        Box::pin(async { Ok(vec![Missing { variable: "first_name".into(), rows: 3, of: 10 }]) })
    }

    fn preview(&self, _: Arc<CampaignHead>, _: PreviewRequest) -> Fut<'_, Result<serde_json::Value, ContentError>> {
        Box::pin(async { Ok(serde_json::Value::Null) })
    }

    fn test(
        &self,
        _: Arc<CampaignHead>,
        _: Vec<TestRecipient>,
        _: String,
    ) -> Fut<'_, Result<Vec<MessageId>, ContentError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn sealed(&self, _: &Arc<Sealed>) {}

    fn ended(&self, no: CampaignNo) {
        self.ended.lock().push(no.0);
    }
}

pub fn apply(disk: &mut Disk, changes: Vec<Change>) {
    disk.commits += 1;
    disk.largest = disk.largest.max(changes.len());
    for change in changes {
        match change {
            Change::PutState { key, value } => drop(disk.state.insert(key, value)),
            Change::RemoveState { key } => drop(disk.state.remove(&key)),
            Change::Event(event) => disk.events.push(*event),
            Change::PurgeCampaign(no) => drop(disk.counts.remove(&no.0)),
            Change::Run(change) => match change.run {
                Some(run) => drop(disk.runs.insert(change.campaign.0, run)),
                None => {
                    disk.runs.remove(&change.campaign.0);
                    let counts = disk.counts.entry(change.campaign.0).or_default();
                    counts.dropped += counts.fresh;
                    counts.fresh = 0;
                }
            },
            Change::Accept(_)
            | Change::Rows(_)
            | Change::Put { .. }
            | Change::Remove { .. }
            | Change::Once { .. }
            | Change::Tally { .. }
            | Change::EraseRow { .. }
            | Change::EraseEvents { .. } => {}
        }
    }
}

pub fn store(disk: &Arc<Mutex<Disk>>, committed: &tokio::sync::watch::Sender<EventSeq>) -> (Ledger, Reader) {
    let (ledger, mut requests) = Ledger::channel();
    let (reader, mut reads) = Reader::with_committed(64, committed.subscribe());
    let (written, told) = (Arc::clone(disk), committed.clone());
    tokio::spawn(async move {
        while let Some(request) = requests.submits.recv().await {
            let LedgerRequest::Submit { changes, reply, .. } = request else { continue };
            apply(&mut written.lock(), changes);
            told.send_modify(|seq| seq.0 += 1);
            let _ = reply.send(Ok(()));
        }
    });
    let read = Arc::clone(disk);
    tokio::spawn(async move {
        while let Some(request) = reads.recv().await {
            let disk = read.lock();
            match request {
                ReadRequest::State { prefix, limit, reply } => {
                    let found = disk.state.iter().filter(|(key, _)| key.starts_with(&prefix)).take(limit);
                    let found = found.map(|(k, v)| (Bytes::copy_from_slice(k), Bytes::copy_from_slice(v)));
                    let _ = reply.send(Ok(found.collect()));
                }
                ReadRequest::StateGet { key, reply } => {
                    let _ = reply.send(Ok(disk.state.get(&key).map(|v| Bytes::copy_from_slice(v))));
                }
                ReadRequest::Run { campaign, reply, .. } => {
                    let counts = disk.counts.get(&campaign.0).cloned().unwrap_or_default();
                    let _ = reply.send(Ok((disk.runs.get(&campaign.0).copied(), counts)));
                }
                other => panic!("not asked by campaigns: {other:?}"),
            }
        }
    });
    (ledger, reader)
}

pub fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

pub fn job(more: &str) -> Job {
    let text = format!("from = \"news@acme.example\"\nsubject = \"s\"\ntext = \"t\"\n{more}\n");
    parse(&text, Format::Toml).expect("a good job")
}

impl World {
    pub async fn new() -> Self {
        let disk = Arc::new(Mutex::new(Disk::default()));
        // A Monday, 17:55:49 UTC.
        Self::over(disk, Clock::manual(Timestamp::from_millis(1_795_456_549_000))).await
    }

    pub async fn over(disk: Arc<Mutex<Disk>>, clock: Clock) -> Self {
        let committed = tokio::sync::watch::Sender::new(EventSeq(0));
        let (ledger, reader) = store(&disk, &committed);
        let fake = Arc::new(Fake::default());
        let mut config = Config::default();
        let tenant = r#"{"name":"acme","domains":["acme.example"],"pool":"bulk"}"#;
        config.tenants.push(serde_json::from_str(tenant).expect("a tenant"));
        let ports = Ports { steer: fake.clone(), recipients: fake.clone(), check: fake.clone(), content: fake.clone() };
        let config = Arc::new(ArcSwap::from_pointee(config));
        let metrics = CampaignMetrics::register(&crate::metrics::Registry::new());
        let sealings = Sealings::default();
        let parts = Parts { config, clock: clock.clone(), ledger, reader, ports, sealings, metrics: metrics.clone() };
        let (campaigns, controls) = Campaigns::open(parts).await.expect("a readable store");
        Self { disk, committed, clock, fake, campaigns, metrics, controls }
    }

    /// The process ends and another begins on the same disk.
    pub async fn restart(self) -> Self {
        Self::over(self.disk, self.clock).await
    }

    pub async fn create(&self, job: Job) -> Result<Created, CampaignError> {
        self.campaigns.create(name("acme"), job, "me".into(), Box::new(|_| Vec::new())).await
    }

    /// A campaign with rows, ready to start.
    pub async fn ready(&self, id: &str, rows: u64, more: &str) -> CampaignNo {
        let no = self.create(job(&format!("id = \"{id}\"\n{more}"))).await.expect("created").record.no;
        self.disk.lock().counts.insert(no.0, RunCounts { rows, fresh: rows, ..RunCounts::default() });
        no
    }

    pub async fn start(&self, id: &str, force: Option<&str>) -> Result<Started, CampaignError> {
        self.campaigns.start(name("acme"), name(id), force.map(str::to_owned), "me".into()).await
    }

    pub fn state(&self, id: &str) -> State {
        self.campaigns.entry(&name("acme"), &name(id)).expect("there").record().state
    }

    pub fn settle(&self, no: CampaignNo, kind: EventKind, count: u64) {
        let mut disk = self.disk.lock();
        let counts = disk.counts.entry(no.0).or_default();
        counts.fresh -= count;
        *counts.events.entry(kind).or_default() += count;
    }

    pub fn events(&self) -> Vec<String> {
        let show = |e: &Event| {
            let reason = e.reason.as_ref().map_or(String::new(), |r| format!(" {r}"));
            format!("{} {}{reason}", e.event.as_str(), e.recipients.unwrap_or(0))
        };
        self.disk.lock().events.iter().map(show).collect()
    }

    pub fn last_told(&self) -> CampaignControl {
        self.fake.told.lock().last().cloned().expect("the scheduler was told")
    }
}
