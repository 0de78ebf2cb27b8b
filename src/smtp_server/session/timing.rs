//! When a session gives up waiting, by what it waits for.

use super::{Phase, Session, Step};
use crate::smtp::reply::Reply;
use crate::types::Timestamp;

use std::time::Duration;

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// Over how long the rate of a message is measured.
const RATE_WINDOW: Duration = Duration::from_secs(60);

/// How fast a message comes in.
#[derive(Default)]
pub(super) struct DataClock {
    last: Timestamp,
    window_start: Timestamp,
    window_octets: u64,
}

impl DataClock {
    pub(super) fn start(&mut self, now: Timestamp) {
        *self = Self { last: now, window_start: now, window_octets: 0 };
    }

    fn window_end(&self) -> Timestamp {
        self.window_start.after(RATE_WINDOW)
    }
}

impl Session {
    /// When [`Session::timeout`] is due; it only moves forth within one phase. While the driver is at work it does not
    /// count, but for the last words before a handshake or the end.
    pub fn deadline(&self) -> Timestamp {
        let limits = &self.policy.config.smtp;
        let phase = match &self.phase {
            Phase::Command | Phase::Auth(_) => self.since.after(limits.command_timeout.0),
            Phase::Data(_) | Phase::Chunk(_) => self.data.last.after(limits.data_timeout.0).min(self.data.window_end()),
            Phase::Driver | Phase::Closed(_) => self.since.after(HANDSHAKE_TIMEOUT),
        };
        phase.min(self.started.after(limits.session_timeout.0)).min(self.ends_at.unwrap_or(Timestamp::NEVER))
    }

    /// Looks whether something is over, and ends the session if so.
    pub fn timeout(&mut self, now: Timestamp) -> Step {
        let limits = &self.policy.config.smtp;
        let over = |at: Timestamp, limit: Duration| now >= at.after(limit);
        let why = if self.ends_at.is_some_and(|at| now >= at) {
            Some(("shutdown", "4.3.2", "Shutting down, come back later"))
        } else if over(self.started, limits.session_timeout.0) {
            Some(("timeout", "4.4.2", "The session has lasted too long"))
        } else {
            match &self.phase {
                Phase::Command | Phase::Auth(_) if over(self.since, limits.command_timeout.0) => {
                    Some(("timeout", "4.4.2", "No command came in time"))
                }
                Phase::Data(_) | Phase::Chunk(_) if over(self.data.last, limits.data_timeout.0) => {
                    Some(("timeout", "4.4.2", "No data came in time"))
                }
                Phase::Data(_) | Phase::Chunk(_) => self.rate(now),
                Phase::Driver if over(self.since, HANDSHAKE_TIMEOUT) => {
                    Some(("timeout", "4.4.2", "No handshake came in time"))
                }
                Phase::Command | Phase::Auth(_) | Phase::Driver | Phase::Closed(_) => None,
            }
        };
        if let Some((why, enhanced, text)) = why {
            self.close(Reply::new(421, enhanced, text), why);
        }
        match self.phase {
            Phase::Closed(why) => Step::Close(why),
            Phase::Command | Phase::Auth(_) | Phase::Data(_) | Phase::Chunk(_) | Phase::Driver => Step::Input,
        }
    }

    /// Octets of a message came.
    pub(super) fn took(&mut self, octets: usize, now: Timestamp) {
        self.data.last = now;
        self.data.window_octets += octets as u64;
        if let Some((why, enhanced, text)) = self.rate(now) {
            self.close(Reply::new(421, enhanced, text), why);
        } else if !self.held.add(octets) {
            self.close(Reply::new(421, "4.3.2", "Too many messages at a time, try again later"), "memory");
        }
    }

    /// At the end of a window: whether enough came in it.
    fn rate(&mut self, now: Timestamp) -> Option<(&'static str, &'static str, &'static str)> {
        if now < self.data.window_end() {
            return None;
        }
        let wanted = u64::from(self.policy.config.smtp.min_data_rate) * RATE_WINDOW.as_secs();
        let slow = self.data.window_octets < wanted;
        self.data.window_start = now;
        self.data.window_octets = 0;
        slow.then_some(("slow", "4.4.2", "The data comes too slowly"))
    }
}
