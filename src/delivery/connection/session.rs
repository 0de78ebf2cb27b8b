//! A ready session: jobs in, outcomes out.
//!
//! Each turn: take the machine's news and report what ended, ask the dispatcher for jobs, drive the making of content, hand the machine
//! what is ready, write and read. Everything is one poll function: no task is woken to wake another one.

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::io::Io;
use super::jobs::{Active, Content, MakingContent, Prepared, no_smtputf8, not_tried, send_next, unshare};
use super::open::Ready;
use super::{Connector, SESSION_SOFT_MAX, local_failure, shutdown};
use crate::delivery::trace::SessionTrace;
use crate::delivery::{
    ConnectionId, ContentMaker, Dispatcher, Failure, Job, JobReport, Outcome, Peer, PeerLimits, Work,
};
use crate::event::Severity;
use crate::smtp::client::{Body, Client, Event, LostBy, State, Verdict};
use crate::types::Timestamp;

/// The most jobs whose content is made ahead of its sending, where the peer takes commands ahead.
const AHEAD_MAX: usize = 2;

/// Works until the session ends; why, where something went wrong.
pub(super) async fn run(
    conn: ConnectionId,
    ready: Ready,
    dispatcher: Rc<dyn Dispatcher>,
    content: Rc<dyn ContentMaker>,
    shared: Rc<Connector>,
) -> Option<Failure> {
    let wake = dispatcher.wake_handle(conn);
    let mut woken = std::pin::pin!(wake.notified());
    let mut stop = std::pin::pin!(shutdown(shared.shutdown.clone()));
    let mut session = Session::new(conn, ready, dispatcher, content, shared);
    woken.as_mut().enable();
    std::future::poll_fn(|cx| {
        loop {
            if let Poll::Ready(failure) = session.poll(cx) {
                return Poll::Ready(failure);
            }
            if session.told_idle && woken.as_mut().poll(cx).is_ready() {
                woken.set(wake.notified());
                woken.as_mut().enable();
                session.told_idle = false;
                continue;
            }
            if !session.stopping && stop.as_mut().poll(cx).is_ready() {
                session.stop_now();
                continue;
            }
            return Poll::Pending;
        }
    })
    .await
}

struct Session {
    conn: ConnectionId,
    client: Client,
    io: Io,
    peer: Peer,
    limits: PeerLimits,
    dispatcher: Rc<dyn Dispatcher>,
    content: Rc<dyn ContentMaker>,
    shared: Rc<Connector>,
    idle: std::time::Duration,
    prepared: VecDeque<Prepared>,
    active: VecDeque<Active>,
    /// The recipients of the transactions that are open, in their order.
    transactions: VecDeque<Range<usize>>,
    /// Jobs that were given out to us.
    taken: u64,
    /// The dispatcher has nothing until it wakes us or a job ends.
    told_idle: bool,
    /// No more jobs are asked for; QUIT follows what is open.
    stopping: bool,
    ended: Option<Option<Failure>>,
    trace: SessionTrace,
}

impl Session {
    fn new(
        conn: ConnectionId,
        ready: Ready,
        dispatcher: Rc<dyn Dispatcher>,
        content: Rc<dyn ContentMaker>,
        shared: Rc<Connector>,
    ) -> Self {
        let Ready { client, io, peer } = ready;
        let caps = client.capabilities();
        let limits =
            PeerLimits { eight_bit: caps.eight_bit, smtputf8: caps.smtputf8, size_max: caps.size.unwrap_or(0) };
        let idle = shared.config.load().delivery.idle_timeout.0;
        Self {
            conn,
            client,
            io,
            peer,
            limits,
            dispatcher,
            content,
            shared,
            idle,
            prepared: VecDeque::new(),
            active: VecDeque::new(),
            transactions: VecDeque::new(),
            taken: 0,
            told_idle: false,
            stopping: false,
            ended: None,
            trace: SessionTrace::default(),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Failure>> {
        loop {
            self.take_news();
            if let Some(failure) = self.ended.take() {
                return Poll::Ready(failure);
            }
            loop {
                let taken = self.taken;
                self.ask();
                self.make(cx);
                self.send();
                if self.taken == taken {
                    break;
                }
            }
            self.pass_trace();
            let empty = self.prepared.is_empty() && self.active.is_empty();
            if self.stopping && empty {
                self.client.quit();
            }
            // While content is made the peer waits for us, and the dispatcher's idle time is not running.
            let idle = if empty { self.idle } else { State::Idle.timeout() };
            match self.io.poll(cx, &mut self.client, idle) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(LostBy::Timeout)) if empty && self.client.state() == State::Idle && !self.stopping => {
                    self.stopping = true;
                    self.io.moved();
                }
                Poll::Ready(Err(lost)) => {
                    let left = self.left_before_mail(&lost);
                    self.client.lost(&lost);
                    if left.is_some() {
                        self.take_news();
                        self.ended = Some(left);
                    }
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// A peer that leaves after EHLO, before it saw any mail: harmless for the machine, since nothing was open, but a host that always
    /// does so would be asked again at once, and nobody told why the mail waits.
    fn left_before_mail(&self, lost: &LostBy) -> Option<Failure> {
        let idle = self.client.state() == State::Idle && self.client.transactions() == 0 && !self.stopping;
        let text = match lost {
            LostBy::Closed => "the peer closed the connection before any mail".to_owned(),
            LostBy::Network(error) => format!("the connection broke before any mail: {error}"),
            LostBy::Timeout | LostBy::Abandoned(_) => return None,
        };
        idle.then(|| local_failure(State::Hello, Severity::Temporary, "4.4.2", text))
    }

    /// Ends the taking of jobs: what is not on its way goes back.
    fn stop_now(&mut self) {
        self.stopping = true;
        while let Some(prepared) = self.prepared.pop_front() {
            self.give_back(prepared);
        }
    }

    /// What the machine has to tell.
    fn take_news(&mut self) {
        while let Some(event) = self.client.event() {
            match event {
                Event::Done { verdicts, ambiguous, wire_size } => self.transaction_done(verdicts, ambiguous, wire_size),
                Event::Closed(fault) => self.end(fault.map(Failure::from)),
                // Both belong to the opening.
                Event::Ready | Event::StartTls => {}
            }
        }
    }

    fn transaction_done(&mut self, verdicts: Vec<Verdict>, ambiguous: bool, wire_size: u64) {
        let (Some(range), Some(active)) = (self.transactions.pop_front(), self.active.front_mut()) else { return };
        active.open = active.open.saturating_sub(1);
        active.ambiguous |= ambiguous;
        active.wire_size += wire_size;
        let mut verdicts = verdicts.into_iter();
        for outcome in active.outcomes[range].iter_mut().filter(|o| o.is_none()) {
            *outcome = verdicts.next().map(|verdict| match verdict {
                Verdict::Delivered(reply) => Outcome::Delivered(reply),
                Verdict::Failed(fault) => Outcome::Failed(fault.into()),
            });
        }
        if active.open == 0 && active.next == active.job.recipients.len() {
            self.finish_front();
        }
    }

    /// Reports the first active job; recipients without an outcome were not tried.
    fn finish_front(&mut self) {
        let Some(active) = self.active.pop_front() else { return };
        let outcomes = active.outcomes.into_iter().map(|o| o.unwrap_or_else(|| Outcome::Failed(not_tried()))).collect();
        self.report(active.job, outcomes, active.ambiguous, active.wire_size, active.started);
    }

    fn report(&mut self, job: Box<Job>, outcomes: Vec<Outcome>, ambiguous: bool, wire_size: u64, started: Timestamp) {
        let ended = self.shared.clock.now();
        let metrics = &self.shared.metrics;
        metrics.attempt_seconds.observe(ended.since(started).as_secs_f64());
        metrics.bytes_sent.inc_by(wire_size);
        if ambiguous {
            metrics.ambiguous.inc();
        }
        self.told_idle = false;
        let report = JobReport { job, outcomes, ambiguous, wire_size, started, ended };
        self.dispatcher.report(self.conn, &self.peer, report);
    }

    fn report_all(&mut self, job: Box<Job>, failure: &Failure, started: Timestamp) {
        let outcomes = vec![Outcome::Failed(failure.clone()); job.recipients.len()];
        self.report(job, outcomes, false, 0, started);
    }

    fn give_back(&mut self, prepared: Prepared) {
        let Prepared { job, started, content } = prepared;
        // The future holds the job too.
        drop(content);
        self.report_all(unshare(job), &not_tried(), started);
    }

    /// The session is over: every job that is left gets its report.
    fn end(&mut self, failure: Option<Failure>) {
        if self.client.chunking_refused() {
            self.shared.remember_unchunked(self.peer.address);
        }
        while !self.active.is_empty() {
            self.finish_front();
        }
        self.transactions.clear();
        while let Some(prepared) = self.prepared.pop_front() {
            self.give_back(prepared);
        }
        self.pass_trace();
        self.ended = Some(failure);
    }

    /// Asks for jobs, as many as may be made ready now.
    fn ask(&mut self) {
        let caps = self.client.capabilities();
        let ahead = if caps.pipelining { AHEAD_MAX } else { 1 };
        while !self.stopping && !self.told_idle && self.prepared.len() < ahead {
            if self.mail_max_reached() || self.io.age() > SESSION_SOFT_MAX {
                self.stopping = true;
                return;
            }
            match self.dispatcher.next(self.conn, &self.peer) {
                Work::Job(job) => {
                    self.taken += 1;
                    self.prepare(job);
                }
                Work::Idle => self.told_idle = true,
                Work::Close => self.stopping = true,
            }
        }
    }

    /// RFC 9422 §4.1: MAILMAX is the most transactions of a session.
    fn mail_max_reached(&self) -> bool {
        let planned = self.client.transactions() as usize + self.prepared.len();
        self.client.capabilities().mail_max.is_some_and(|max| planned >= max as usize)
    }

    /// Begins the making of a job's content, unless the peer can't take it at all.
    fn prepare(&mut self, job: Box<Job>) {
        let started = self.shared.clock.now();
        if self.shared.trace.is_active() {
            self.client.set_trace(true);
            let watchers = self.shared.trace.take(job.recipients.iter().map(|r| r.mailbox.domain()));
            self.trace.add_watchers(watchers);
        }
        if let Some(failure) = self.impossible(&job) {
            return self.report_all(job, &failure, started);
        }
        let job = Rc::new(*job);
        let (maker, shared_job, limits) = (self.content.clone(), job.clone(), self.limits);
        let future: MakingContent = Box::pin(async move { maker.make(&shared_job, limits).await });
        self.prepared.push_back(Prepared { job, started, content: Content::Making(future) });
    }

    /// What this peer can't take whatever its content will be.
    fn impossible(&self, job: &Job) -> Option<Failure> {
        if job.recipients.is_empty() {
            return Some(not_tried());
        }
        let utf8 = job.smtputf8 || job.reverse_path.mailbox().is_some_and(|m| m.needs_smtputf8());
        if utf8 && !self.limits.smtputf8 {
            return Some(no_smtputf8());
        }
        self.too_large(job.size)
    }

    /// RFC 1870 §6.1: a message beyond the peer's limit is not sent.
    fn too_large(&self, size: u64) -> Option<Failure> {
        let max = self.limits.size_max;
        (max > 0 && size > max).then(|| {
            let text = format!("the message has {size} octets, the host takes {max}");
            let mut failure = local_failure(State::Mail, Severity::Permanent, "5.3.4", text);
            failure.reply.code = 552;
            failure
        })
    }

    /// Drives the making of content; one that failed is reported.
    fn make(&mut self, cx: &mut Context<'_>) {
        let mut i = 0;
        while i < self.prepared.len() {
            let done = match &mut self.prepared[i].content {
                Content::Made(_) => None,
                Content::Making(future) => match future.as_mut().poll(cx) {
                    Poll::Pending => None,
                    Poll::Ready(result) => Some(result),
                },
            };
            match done {
                Some(Ok(message)) => {
                    self.prepared[i].content = Content::Made(message);
                    // The peer waited for us, not we for it.
                    if self.client.state() == State::Idle {
                        self.io.moved();
                    }
                }
                Some(Err(failure)) => {
                    if let Some(Prepared { job, started, content }) = self.prepared.remove(i) {
                        drop(content);
                        self.report_all(unshare(job), &failure, started);
                    }
                    continue;
                }
                None => {}
            }
            i += 1;
        }
    }

    /// Hands the machine what is ready, as far as it takes it.
    fn send(&mut self) {
        while self.client.can_send() {
            if let Some(active) = self.active.back_mut()
                && active.next < active.job.recipients.len()
            {
                let range = send_next(active, &mut self.client);
                self.transactions.push_back(range);
                self.shared.metrics.transactions.inc();
                continue;
            }
            if !matches!(self.prepared.front(), Some(Prepared { content: Content::Made(_), .. })) {
                return;
            }
            let Some(prepared) = self.prepared.pop_front() else { return };
            self.activate(prepared);
        }
    }

    /// The job's content is made: what is known of the peer is held against it, then it is sent.
    fn activate(&mut self, prepared: Prepared) {
        let Prepared { job, started, content } = prepared;
        let job = unshare(job);
        let Content::Made(message) = content else { return self.report_all(job, &not_tried(), started) };
        let eight_bit = message.eight_bit;
        let body = match Body::new(message.parts) {
            Ok(body) => body,
            Err(error) => {
                let failure = local_failure(State::Body, Severity::Permanent, "5.6.0", error.to_string());
                return self.report_all(job, &failure, started);
            }
        };
        if let Some(failure) = self.too_large(body.wire_size()) {
            return self.report_all(job, &failure, started);
        }
        if eight_bit && !self.limits.eight_bit {
            let text = "the message is 8-bit and the host does not take that".to_owned();
            let failure = local_failure(State::Mail, Severity::Permanent, "5.6.3", text);
            return self.report_all(job, &failure, started);
        }
        let utf8 = self.limits.smtputf8;
        let known = |r: &crate::delivery::JobRecipient| {
            (!utf8 && r.mailbox.needs_smtputf8()).then(|| Outcome::Failed(no_smtputf8()))
        };
        let outcomes: Vec<Option<Outcome>> = job.recipients.iter().map(known).collect();
        if outcomes.iter().all(Option::is_some) {
            return self.report_all(job, &no_smtputf8(), started);
        }
        self.active.push_back(Active {
            job,
            started,
            body: Some(body),
            eight_bit,
            outcomes,
            next: 0,
            open: 0,
            ambiguous: false,
            wire_size: 0,
        });
    }

    fn pass_trace(&mut self) {
        let lines = self.client.trace_lines();
        if !lines.is_empty() {
            self.trace.lines(lines);
            if !self.trace.is_watched() && !self.shared.trace.is_active() {
                self.client.set_trace(false);
            }
        }
    }
}

impl Drop for Session {
    /// A task that is dropped with jobs in hand still reports them.
    fn drop(&mut self) {
        if self.active.is_empty() && self.prepared.is_empty() {
            return;
        }
        self.client.lost(&LostBy::Abandoned("the delivery engine ended"));
        self.take_news();
        self.end(None);
    }
}
