//! The world: lives of the process one after the other, on one clock.
//!
//! 1. the runtime's time is paused: it goes on when all wait,
//! 2. peers are served outside, the process within a set of tasks of its own: a crash drops that set,
//! 3. [`Life`] builds what `daemon::egress` builds, on the ledger in memory and the simulated network,
//! 4. when the plan is through all is put in order, and the world goes on until nothing waits any more, or for [`AFTER`].

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, watch};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep, sleep_until};

use super::clients::Client;
use super::disk::{self, Disk};
use super::log::Log;
use super::peers::{Mood, Moods, Receiver, Wire};
use super::plan::{DOMAINS, HOSTS, Names, Op, Plan, names_in_order};
use crate::config::Config;
use crate::daemon::SLEW_EVERY;
use crate::daemon::egress::{Lookup, Messages, count};
use crate::delivery::connection::{self, Connector, ConnectorParts};
use crate::delivery::router::Router;
use crate::delivery::tls::TlsConfigs;
use crate::delivery::trace::TraceHub;
use crate::delivery::{ContentMaker, Dispatcher, LocalFuture, OpenRequest, Resolution};
use crate::dkim::KeyRing;
use crate::metrics::Registry;
use crate::metrics::delivery::{DeliveryMetrics, DnsMetrics};
use crate::metrics::dkim::DkimMetrics;
use crate::metrics::intake::IntakeMetrics;
use crate::metrics::queue::QueueMetrics;
use crate::queue::admin::{AdminHandle, Command, Matcher};
use crate::queue::cache::ContentCache;
use crate::queue::content::StoredContent;
use crate::queue::egress::{Connect, Egress, EgressParts, Resolve, TraceSessions};
use crate::queue::intake::Intake;
use crate::queue::notify::Reports;
use crate::queue::scheduler::{AdminRecords, Scheduler, Start};
use crate::queue::sign::SignPool;
use crate::queue::testing::{domain, name};
use crate::seam::clock::Clock;
use crate::seam::dns::{Resolver, Zones};
use crate::seam::random::{self, Seeded};
use crate::store::{Ledger, Reader};
use crate::types::{Domain, Timestamp};

/// The wall clock when a run begins.
const START: Timestamp = Timestamp::from_millis(1_795_000_000_000);
/// How long the world goes on when all is in order again.
const AFTER: Duration = Duration::from_secs(9 * 3_600);
/// News, reads and commands that wait.
const CHANNEL: usize = 1_024;

/// What is left of a run.
pub(super) struct Outcome {
    pub log: Rc<Log>,
    pub disk: Rc<RefCell<Disk>>,
}

/// Runs a plan to its end.
pub(super) fn run(plan: &Plan) -> Outcome {
    random::simulated::set(Some(plan.seed ^ 0x5eed));
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
    let outcome = LocalSet::new().block_on(&runtime, World::live(plan));
    random::simulated::set(None);
    outcome
}

/// What needs no seed, once for all runs of a thread.
#[derive(Clone)]
struct Shared {
    tls: TlsConfigs,
    pool: Arc<SignPool>,
    queue: QueueMetrics,
    delivery: DeliveryMetrics,
    dkim: DkimMetrics,
    dns: DnsMetrics,
    intake: IntakeMetrics,
}

thread_local! {
    static SHARED: Shared = {
        let registry = Registry::new();
        let delivery = DeliveryMetrics::register(&registry);
        Shared {
            tls: TlsConfigs::new().expect("TLS"),
            pool: Arc::new(SignPool::with_threads(1).expect("a thread")),
            queue: QueueMetrics::register(&registry),
            dns: delivery.dns.clone(),
            delivery,
            dkim: DkimMetrics::register(&registry),
            intake: IntakeMetrics::register(&registry),
        }
    };
}

struct World {
    seed: u64,
    config: Arc<Config>,
    log: Rc<Log>,
    disk: Rc<RefCell<Disk>>,
    moods: Moods,
    zones: Arc<Mutex<Zones>>,
    dns_slow_ms: Rc<Cell<u64>>,
    arrivals: mpsc::UnboundedSender<(DuplexStream, usize)>,
    started: Instant,
    /// What the system's clock was set by since the start.
    jumped_ms: i64,
    lives: u32,
}

impl World {
    async fn live(plan: &Plan) -> Outcome {
        let (arrivals, incoming) = mpsc::unbounded_channel();
        let log = Rc::new(Log::new());
        let moods: Moods = Rc::new(RefCell::new(vec![Mood { latency_ms: 20, ..Mood::default() }; HOSTS]));
        spawn_local(receive(incoming, moods.clone(), log.clone(), plan.seed));
        let mut world = World {
            seed: plan.seed,
            config: Arc::new(plan.config.clone()),
            log,
            disk: Rc::default(),
            moods,
            zones: Arc::default(),
            dns_slow_ms: Rc::default(),
            arrivals,
            started: Instant::now(),
            jumped_ms: 0,
            lives: 0,
        };
        world.answer_names(&names_in_order());
        let mut ops = plan.ops.iter();
        loop {
            let process = LocalSet::new();
            let life = Life::new(&mut world);
            let pause = process.run_until(life.go_on(&mut world, &mut ops)).await;
            life.alive.set(false);
            drop(process);
            match pause {
                Some(pause) => sleep(Duration::from_millis(pause)).await,
                None => break,
            }
        }
        Outcome { log: world.log, disk: world.disk }
    }

    fn answer_names(&self, names: &Names) {
        let mut zones = Zones::new();
        for host in 0..HOSTS {
            zones = zones.address(&format!("mx{host}.test"), [10, 9, 9, host as u8].into());
        }
        for d in 0..DOMAINS as usize {
            zones = zones.mx(&format!("d{d}.test"), 10, &format!("mx{}.test", names.mx[d]));
        }
        for tenant in super::plan::TENANTS {
            zones = zones.mx(&format!("{tenant}.example"), 10, &format!("mx{}.test", HOSTS - 1));
        }
        for d in &names.failing {
            zones = zones.failing(&format!("d{d}.test"));
        }
        *self.zones.lock() = if names.broken { zones.broken() } else { zones };
        self.dns_slow_ms.set(names.slow_ms);
    }

    fn wall(&self) -> Timestamp {
        let ms = START.as_millis() + self.started.elapsed().as_millis() as u64;
        Timestamp::from_millis(ms.saturating_add_signed(self.jumped_ms))
    }
}

/// Serves what connects, outside of the process.
async fn receive(mut incoming: mpsc::UnboundedReceiver<(DuplexStream, usize)>, moods: Moods, log: Rc<Log>, seed: u64) {
    while let Some((pipe, number)) = incoming.recv().await {
        let dice = Seeded::new(seed.wrapping_mul(1_000_003) ^ number as u64);
        spawn_local(Receiver::new(pipe, number, moods.clone(), log.clone(), dice).serve());
    }
}

/// One life of the process.
struct Life {
    alive: Rc<Cell<bool>>,
    jumped_ms: Arc<AtomicI64>,
    clock: Clock,
    intake: Arc<Intake>,
    admin: AdminHandle,
    parts: Cell<Option<Parts>>,
    _stop: watch::Sender<bool>,
    _config: watch::Sender<Arc<Config>>,
}

/// What runs within the life's set of tasks.
struct Parts {
    egress: Egress,
    requests: crate::store::LedgerRequests,
    news: mpsc::Sender<Vec<crate::store::News>>,
    reads: mpsc::Receiver<crate::store::ReadRequest>,
}

impl Life {
    fn new(world: &mut World) -> Self {
        world.lives += 1;
        let shared = SHARED.with(Clone::clone);
        let seed = world.seed ^ (u64::from(world.lives) << 32);
        let jumped_ms = Arc::new(AtomicI64::new(0));
        let clock = Clock::simulated(world.wall(), jumped_ms.clone());
        let (ledger, requests) = Ledger::channel();
        let (reader, reads) = Reader::channel(CHANNEL);
        let (news, news_in) = mpsc::channel(CHANNEL);
        let (commands, commands_in) = mpsc::channel(CHANNEL);
        let (stop, stopping) = watch::channel(false);
        let (reloads, config_in) = watch::channel(world.config.clone());
        let config = Arc::new(ArcSwap::new(world.config.clone()));
        let intake = Arc::new(Intake::new(config.clone(), ledger.clone(), clock.clone(), shared.intake));
        let usage = intake.usage().clone();
        let mut records = AdminRecords::default();
        for (key, value) in &world.disk.borrow().state {
            if let Err(problem) = records.add(key, value) {
                world.log.fault(problem);
            }
        }
        let cache = Rc::new(ContentCache::new(world.config.storage.content_cache.0));
        let scheduler = Scheduler::new(Start {
            config: world.config.clone(),
            now: clock.now(),
            seed,
            rows: world.disk.borrow().queue_rows(),
            records,
            campaigns: Vec::new(),
            cache: cache.clone(),
            notifier: Rc::new(Reports { config: config.clone() }),
            returns: None,
            metrics: shared.queue,
        });
        let resolver = Resolver::simulated(world.zones.clone(), shared.dns);
        let (moods, log) = (world.moods.clone(), world.log.clone());
        let network = Wire { moods, log, life: world.lives, arrivals: world.arrivals.clone() };
        let connector = Rc::new(Connector::new(ConnectorParts {
            config: config.clone(),
            resolver: resolver.clone(),
            network: Box::new(network),
            tls: shared.tls,
            clock: clock.clone(),
            metrics: shared.delivery,
            trace: TraceHub::new(),
            shutdown: stopping,
            random: Seeded::new(seed ^ 1),
        }));
        let source = Messages { cache, reader: reader.clone() };
        let ring = Arc::new(ArcSwap::from_pointee(KeyRing::default()));
        let content = Rc::new(StoredContent::new(source, ring, shared.pool, clock.clone(), shared.dkim));
        let router = Lookup { router: Router::new(config, resolver), clock: clock.clone() };
        let dice = RefCell::new(Seeded::new(seed ^ 2));
        let egress = Egress::new(EgressParts {
            scheduler,
            clock: clock.clone(),
            ledger,
            load: Rc::new(reader.clone()),
            reader,
            resolver: Rc::new(SlowNames { router, slow_ms: world.dns_slow_ms.clone(), dice }),
            connect: Rc::new(Dial { connector, content, log: world.log.clone() }),
            trace: Rc::new(NoTrace),
            settling: Box::new(move |settle| count(&usage, settle)),
            news: news_in,
            commands: commands_in,
            config: config_in,
        });
        world.log.tell(|| format!("life {} begins at {}", world.lives, clock.now()));
        Self {
            alive: Rc::new(Cell::new(true)),
            jumped_ms,
            clock,
            intake,
            admin: AdminHandle(commands),
            parts: Cell::new(Some(Parts { egress, requests, news, reads })),
            _stop: stop,
            _config: reloads,
        }
    }

    /// Lives until the next crash (`Some`: the pause after it) or the end.
    async fn go_on<'a>(&self, world: &mut World, ops: &mut impl Iterator<Item = &'a (u64, Op)>) -> Option<u64> {
        let seed = world.seed ^ (u64::from(world.lives) << 40);
        if let Some(parts) = self.parts.take() {
            let (disk, log) = (world.disk.clone(), world.log.clone());
            spawn_local(disk::write(
                disk.clone(),
                parts.requests,
                parts.news,
                self.alive.clone(),
                Seeded::new(seed),
                log,
            ));
            spawn_local(disk::read(disk, parts.reads, Seeded::new(seed ^ 3)));
            let (task, log) = (spawn_local(parts.egress.run(std::future::pending())), world.log.clone());
            spawn_local(async move {
                let ended = task.await;
                log.fault(format!("the egress task ended: {ended:?}"));
            });
            let clock = self.clock.clone();
            spawn_local(async move {
                loop {
                    sleep(SLEW_EVERY).await;
                    clock.slew(SLEW_EVERY);
                }
            });
        }
        for (number, (at, op)) in ops.enumerate() {
            sleep_until(world.started + Duration::from_millis(*at)).await;
            if let Op::Crash(pause) = op {
                world.log.tell(|| "crash".into());
                return Some(*pause);
            }
            self.act(world, op.clone(), seed ^ (*at << 8) ^ number as u64);
        }
        self.put_in_order(world).await;
        None
    }

    fn act(&self, world: &mut World, op: Op, seed: u64) {
        let matcher = |d: u64| Matcher { domain: Some(domain(&format!("d{d}.test"))), ..Matcher::default() };
        let by = || "operator".to_owned();
        if !matches!(op, Op::HandIn(_)) {
            world.log.tell(|| format!("{op:?}"));
        }
        match op {
            Op::HandIn(mails) => {
                let (intake, clock, log) = (self.intake.clone(), self.clock.clone(), world.log.clone());
                spawn_local(Client { intake, clock, log, dice: Seeded::new(seed) }.hand_in(mails));
            }
            Op::Mood(host, mood) => world.moods.borrow_mut()[host] = mood,
            Op::Names(names) => world.answer_names(&names),
            Op::Jump(by_ms) => {
                world.jumped_ms += by_ms;
                self.jumped_ms.fetch_add(by_ms, Ordering::Relaxed);
            }
            Op::Crash(_) => {}
            Op::Suspend { domain, secs } => {
                let until = secs.map(|secs| self.clock.now().after(Duration::from_secs(secs)));
                let (matcher, reason) = (matcher(domain), "test".to_owned());
                self.command(move |reply| Command::Suspend { matcher, reason, by: by(), until, reply });
            }
            Op::ResumeAll => (1..DOMAINS).for_each(|d| {
                let matcher = Some(matcher(d));
                self.command(move |reply| Command::Resume { id: None, matcher, reply });
            }),
            Op::Retry => self.command(|reply| Command::Retry { matcher: Matcher::default(), reply }),
            Op::Purge { domain } => {
                let (matcher, reason) = (matcher(domain), "test".to_owned());
                self.command(move |reply| Command::Purge { matcher, reason, by: by(), reply });
            }
            Op::Reroute { domain } => {
                let (matcher, pool) = (matcher(domain), name("other"));
                self.command(move |reply| Command::Reroute { matcher, pool, by: by(), reply });
            }
        }
    }

    /// Whoever asks may find nothing that matches: that is an answer, too.
    fn command<T: 'static>(&self, make: impl FnOnce(crate::queue::admin::Reply<T>) -> Command + 'static) {
        let admin = self.admin.clone();
        spawn_local(async move { drop(admin.ask(make).await) });
    }

    async fn put_in_order(&self, world: &mut World) {
        world.answer_names(&names_in_order());
        world.moods.borrow_mut().fill(Mood { latency_ms: 20, ..Mood::default() });
        self.act(world, Op::ResumeAll, 0);
        let until = Instant::now() + AFTER;
        // What is being handed in now is not on disk yet.
        sleep(Duration::from_secs(60)).await;
        while !world.disk.borrow().rows.is_empty() && Instant::now() < until {
            sleep(Duration::from_secs(30)).await;
        }
    }
}

/// DNS that takes its time.
struct SlowNames {
    router: Lookup,
    slow_ms: Rc<Cell<u64>>,
    dice: RefCell<Seeded>,
}

impl Resolve for SlowNames {
    fn resolve<'a>(&'a self, domain: &'a Domain) -> LocalFuture<'a, Resolution> {
        Box::pin(async move {
            let ms = self.dice.borrow_mut().below(self.slow_ms.get());
            sleep(Duration::from_millis(ms)).await;
            self.router.resolve(domain).await
        })
    }
}

/// As the daemon's, but a panic of a connection is a fault of the run.
struct Dial {
    connector: Rc<Connector>,
    content: Rc<dyn ContentMaker>,
    log: Rc<Log>,
}

impl Connect for Dial {
    fn open(&self, request: OpenRequest, dispatcher: Rc<dyn Dispatcher>) {
        let task = spawn_local(connection::run(request, dispatcher, self.content.clone(), self.connector.clone()));
        let log = self.log.clone();
        spawn_local(async move {
            if let Err(error) = task.await {
                log.fault(format!("a connection: {error}"));
            }
        });
    }
}

struct NoTrace;

impl TraceSessions for NoTrace {
    fn watch(&self, _: Domain, _: mpsc::Sender<String>) {}
}
