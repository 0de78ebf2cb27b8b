//! What becomes of a connection that is opened: dead hosts, hosts that leave, and what this host lacks.

use std::collections::VecDeque;

use super::*;

/// A host that takes so many messages within a minute, and answers with a reply to more.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    pub limit: usize,
    pub reply: SmtpReply,
    taken: VecDeque<Timestamp>,
    /// When each attempt was, and whether it was refused.
    pub attempts: Vec<(Timestamp, bool)>,
}

impl Meter {
    pub(crate) fn new(limit: usize, reply: SmtpReply) -> Self {
        Self { limit, reply, taken: VecDeque::new(), attempts: Vec::new() }
    }

    fn refuses(&mut self, now: Timestamp) -> bool {
        while self.taken.front().is_some_and(|at| now.since(*at) >= Duration::from_secs(60)) {
            self.taken.pop_front();
        }
        let refuses = self.taken.len() >= self.limit;
        if !refuses {
            self.taken.push_back(now);
        }
        self.attempts.push((now, refuses));
        refuses
    }
}

impl World {
    /// What a domain's host says against a recipient.
    pub(super) fn answer(&mut self, domain: &Domain) -> Option<SmtpReply> {
        if let Some(reply) = self.says.get(domain.as_str()) {
            return Some(reply.clone());
        }
        let now = self.now;
        let meter = self.meters.get_mut(domain.as_str())?;
        meter.refuses(now).then(|| meter.reply.clone())
    }

    pub(super) fn connected(&mut self, conn: ConnectionId) {
        let Some(c) = self.conns.get(&conn) else { return };
        let host = c.request.plan.name.to_string();
        let domain = host.trim_start_matches("mx.").to_owned();
        let dead = self.tempers.get(&domain).is_some_and(|t| t.dead_until > self.now);
        let trouble = self.troubles.get(c.request.source.name.as_str()).filter(|(_, until)| *until > self.now);
        if let Some((stage, _)) = trouble {
            let mut failure = failure(Severity::Temporary, "this host lacks it", false);
            failure.stage = stage;
            self.conns.remove(&conn);
            return self.scheduler.closed(self.now, conn, Some(failure));
        }
        if dead {
            self.conns.remove(&conn);
            let failure = failure(Severity::Temporary, "connection refused", false);
            return self.scheduler.closed(self.now, conn, Some(failure));
        }
        self.scheduler.opened(self.now, conn, &testing::peer(&host));
        self.carry_out();
        if self.tempers.get(&domain).is_some_and(|t| t.leaves_until > self.now) {
            return self.leave(conn, &host);
        }
        self.ask(conn);
    }

    /// The peer closes; a job that was made ready meanwhile goes back.
    fn leave(&mut self, conn: ConnectionId, host: &str) {
        let peer = testing::peer(host);
        let closed = failure(Severity::Temporary, "the peer closed the connection before any mail", false);
        if let Work::Job(job) = self.scheduler.next(self.now, conn, &peer) {
            let outcomes = vec![Outcome::Failed(Failure { stage: NOT_TRIED, ..closed.clone() }); job.recipients.len()];
            let (started, ended) = (self.now, self.now);
            let report = JobReport { job, outcomes, ambiguous: false, wire_size: 0, started, ended };
            self.scheduler.report(self.now, conn, &peer, report);
        }
        self.conns.remove(&conn);
        self.scheduler.closed(self.now, conn, Some(closed));
    }
}
