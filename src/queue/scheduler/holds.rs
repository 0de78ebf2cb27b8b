//! Holds: a source that can't open connections for a fault of this host (its address is missing, descriptors have run out).
//!
//! ```text
//! free → held (no connection is opened from it, other sources of the pool go on) → at its end one probe → free, or held for twice as long
//! ```
//!
//! Nobody is charged an attempt, and no destination is blamed: mail waits as it does for a limit.

use std::time::Duration;

use super::{Scheduler, SiteId};
use crate::delivery::{ConnectionId, Failure};
use crate::shaping::SourceTrouble;
use crate::types::Timestamp;

/// The first hold and the longest. Descriptors come back by themselves as connections end; an address needs somebody.
const EXHAUSTED_FIRST: Duration = Duration::from_secs(1);
const EXHAUSTED_MAX: Duration = Duration::from_secs(30);
const ADDRESS_FIRST: Duration = Duration::from_secs(10);
const ADDRESS_MAX: Duration = Duration::from_secs(300);

/// While a probe is under way the others wait this long; then one more may try, since the probe's host may be slow.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// A source that is held, or on probation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    trouble: SourceTrouble,
    until: Timestamp,
    /// Holds in a row.
    times: u32,
    /// The connection that finds out whether it is over.
    probe: Option<ConnectionId>,
}

/// How long a source is held the n-th time in a row.
fn hold_for(trouble: SourceTrouble, times: u32) -> Duration {
    let (first, most) = match trouble {
        SourceTrouble::Address => (ADDRESS_FIRST, ADDRESS_MAX),
        SourceTrouble::Exhausted => (EXHAUSTED_FIRST, EXHAUSTED_MAX),
    };
    first.saturating_mul(1 << times.saturating_sub(1).min(16)).min(most)
}

impl Scheduler {
    /// What keeps a source from opening connections, and until when.
    pub(super) fn source_hold(&self, source: usize) -> Option<(SourceTrouble, Timestamp)> {
        let hold = self.sources.get(source)?.hold.as_ref()?;
        (hold.until > self.now).then_some((hold.trouble, hold.until))
    }

    /// When a source may open connections again.
    pub(super) fn source_held_until(&self, source: usize) -> Timestamp {
        self.source_hold(source).map_or(Timestamp::ZERO, |(_, until)| until)
    }

    /// A connection is opened from a source: after a hold it is the probe.
    pub(super) fn note_probe(&mut self, source: usize, conn: ConnectionId) {
        let until = self.now.after(PROBE_EVERY);
        if let Some(hold) = self.sources.get_mut(source).and_then(|s| s.hold.as_mut()) {
            hold.probe = Some(conn);
            hold.until = until;
        }
    }

    /// A connection reached its host, or found it dead: either way the source works.
    pub(super) fn free_source(&mut self, source: usize) {
        if let Some(hold) = self.sources.get_mut(source).and_then(|s| s.hold.take()) {
            let name = self.sources[source].source.name.as_str();
            tracing::info!(target: "posthaste::queue", source = name, after = hold.times, "the source can be used again");
        }
    }

    /// A connection could not even be tried. Those that were under way when the hold began tell nothing new.
    pub(super) fn hold_source(&mut self, source: usize, conn: ConnectionId, trouble: SourceTrouble, failure: &Failure) {
        let now = self.now;
        let Some(state) = self.sources.get_mut(source) else { return };
        let times = match &state.hold {
            None => 1,
            Some(hold) if hold.probe == Some(conn) => hold.times.saturating_add(1),
            Some(_) => return,
        };
        let held = hold_for(trouble, times);
        state.hold = Some(Hold { trouble, until: now.after(held), times, probe: None });
        let name = state.source.name.as_str();
        self.metrics.source_holds.with_label_values(&[name, trouble.label()]).inc();
        tracing::warn!(
            target: "posthaste::queue",
            source = name,
            seconds = held.as_secs(),
            error = %failure.reply.text,
            "source held: {}",
            trouble.words()
        );
    }

    /// An operator wants it tried now.
    pub(super) fn free_sources_of(&mut self, site: SiteId) {
        let paths = self.site(site).map(|s| s.paths.iter().map(|p| p.source).collect::<Vec<_>>());
        for source in paths.unwrap_or_default() {
            if let Some(state) = self.sources.get_mut(source) {
                state.hold = None;
            }
        }
    }
}
