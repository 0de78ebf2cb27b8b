//! The egress task, with a store, a router and connections that are stood in for.

use std::cell::RefCell;

use super::*;
use crate::config::Config;
use crate::delivery::Outcome;
use crate::event::EventKind;
use crate::event::{Event, SmtpReply};
use crate::metrics::Registry;
use crate::metrics::queue::QueueMetrics;
use crate::queue::admin::{AdminHandle, Suspension};
use crate::queue::cache::ContentCache;
use crate::queue::notice::Silent;
use crate::queue::scheduler::{AdminRecords, Start};
use crate::queue::testing;
use crate::store::{LedgerRequest, LedgerRequests, Next, QueueEntry, ReadRequest, Refill};
use crate::types::{Class, QueueKey};

struct OneHost;

impl Resolve for OneHost {
    fn resolve<'a>(&'a self, _: &'a Domain) -> LocalFuture<'a, Resolution> {
        Box::pin(async { Resolution::Plan(testing::plan("mx.a.example", Timestamp::NEVER)) })
    }
}

/// A peer that takes everything.
struct Taker {
    taken: Rc<Cell<u32>>,
    quits: Rc<Cell<u32>>,
}

impl Connect for Taker {
    fn open(&self, request: OpenRequest, dispatcher: Rc<dyn Dispatcher>) {
        let (taken, quits) = (self.taken.clone(), self.quits.clone());
        tokio::task::spawn_local(async move {
            let peer = testing::peer("mx.a.example");
            let wake = dispatcher.wake_handle(request.conn);
            dispatcher.opened(request.conn, &peer);
            loop {
                match dispatcher.next(request.conn, &peer) {
                    Work::Job(job) => {
                        tokio::task::yield_now().await;
                        taken.set(taken.get() + job.recipients.len() as u32);
                        let reply = SmtpReply { code: 250, enhanced: None, text: "ok".into() };
                        let outcomes = job.recipients.iter().map(|_| Outcome::Delivered(reply.clone())).collect();
                        let (started, ended, wire_size) = (Timestamp::ZERO, Timestamp::ZERO, job.size);
                        let report = JobReport { job, outcomes, ambiguous: false, wire_size, started, ended };
                        dispatcher.report(request.conn, &peer, report);
                    }
                    Work::Idle => wake.notified().await,
                    Work::Close => break,
                }
            }
            quits.set(quits.get() + 1);
            dispatcher.closed(request.conn, None);
        });
    }
}

struct NoTrace;

impl TraceSessions for NoTrace {
    fn watch(&self, _: Domain, _: mpsc::Sender<String>) {}
}

/// Commits at once, in memory.
async fn serve_ledger(mut requests: LedgerRequests, news: mpsc::Sender<Vec<News>>, events: Rc<RefCell<Vec<Event>>>) {
    loop {
        tokio::select! {
            Some(request) = requests.submits.recv() => {
                if let LedgerRequest::Submit { reply, .. } = request {
                    drop(reply.send(Ok(())));
                }
            }
            Some(request) = requests.settles.recv() => {
                if let LedgerRequest::Settle(settle) = request {
                    let mut told = Vec::new();
                    for settled in settle.settled {
                        assert_eq!(settled.next, Next::Done);
                        events.borrow_mut().extend(settled.events);
                        told.push(News::Settled { queue: settled.queue, key: settled.key });
                    }
                    news.send(told).await.expect("the egress task listens");
                }
            }
            else => return,
        }
    }
}

async fn serve_reader(mut requests: mpsc::Receiver<ReadRequest>, held: QueueEntry) {
    while let Some(request) = requests.recv().await {
        match request {
            ReadRequest::Refill { reply, .. } => {
                drop(reply.send(Ok(Refill { entries: vec![held.clone()], exhausted: true })));
            }
            ReadRequest::Message { reply, .. } => drop(reply.send(Ok(None))),
            other => panic!("the egress task asks for no such thing: {other:?}"),
        }
    }
}

fn queued(n: u64, key: &Arc<QueueKey>, now: Timestamp) -> News {
    let message = testing::message(n, now, &[&format!("u{n}@{}", key.domain)], 500);
    let entry = testing::entry(&message, 0);
    News::Queued { queue: QueueId(1), key: key.clone(), entry, message: Some(message) }
}

#[tokio::test(flavor = "current_thread")]
async fn mail_flows_commands_are_answered_and_the_end_is_clean() {
    tokio::task::LocalSet::new().run_until(scenario()).await;
}

async fn scenario() {
    let clock = Clock::system();
    let now = clock.now();
    let config = Arc::new(Config::default());
    let scheduler = Scheduler::new(Start {
        config: config.clone(),
        now,
        seed: 1,
        rows: Vec::new(),
        records: AdminRecords::default(),
        campaigns: Vec::new(),
        cache: Rc::new(ContentCache::new(1 << 20)),
        notifier: Rc::new(Silent),
        returns: None,
        metrics: QueueMetrics::register(&Registry::new()),
    });
    let (ledger, requests) = Ledger::channel();
    let (reader, reads) = Reader::channel(16);
    let (news, news_rx) = mpsc::channel(16);
    let (commands, commands_rx) = mpsc::channel(16);
    let (_config, config_rx) = watch::channel(config);
    let (taken, quits, events) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)), Rc::default());
    let key = Arc::new(testing::queue_key("acme", Class::Transactional, &testing::domain("a.example")));
    let held = testing::message(7_777, now, &["held@a.example"], 100);
    tokio::task::spawn_local(serve_ledger(requests, news.clone(), Rc::clone(&events)));
    tokio::task::spawn_local(serve_reader(reads, testing::entry(&held, 0)));
    let egress = Egress::new(EgressParts {
        scheduler,
        clock,
        ledger,
        load: Rc::new(reader.clone()),
        reader,
        resolver: Rc::new(OneHost),
        connect: Rc::new(Taker { taken: taken.clone(), quits: quits.clone() }),
        trace: Rc::new(NoTrace),
        news: news_rx,
        commands: commands_rx,
        config: config_rx,
        settling: Box::new(|_| ()),
    });
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let task = tokio::task::spawn_local(egress.run(async move { drop(stopped.await) }));
    news.send((0..200).map(|n| queued(n, &key, now)).collect()).await.expect("open");
    while taken.get() < 200 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let admin = AdminHandle(commands);
    let make = |reply| Command::Suspend {
        matcher: Matcher { tenant: Some(testing::name("acme")), ..Matcher::default() },
        reason: "test".into(),
        by: "test".into(),
        until: None,
        reply,
    };
    let suspension: Suspension = admin.ask(make).await.expect("suspended");
    news.send(vec![queued(900, &key, now)]).await.expect("open");
    let summary = admin.ask(|reply| Command::Summary { top: 3, reply }).await.expect("answered");
    assert_eq!((summary.recipients, summary.suspensions.len()), (1, 1));
    assert_eq!(summary.held, [("suspended".to_owned(), 1)]);
    let shown = admin.ask(|reply| Command::Show { matcher: Matcher::default(), limit: 9, reply }).await.expect("read");
    assert_eq!(shown[0].message_id, held.envelope.id);
    admin.ask(|reply| Command::Resume { id: Some(suspension.id), matcher: None, reply }).await.expect("resumed");
    while taken.get() < 201 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    stop.send(()).expect("it runs");
    assert!(task.await.expect("no panic"), "all was finished and on disk");
    assert!(quits.get() >= 1, "idle connections say QUIT at once");
    assert_eq!(events.borrow().iter().filter(|e: &&Event| e.event == EventKind::Delivered).count(), 201);
}
