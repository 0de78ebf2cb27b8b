//! Live traces: the lines of the next session that carries mail to a domain, for `posthaste trace smtp DOMAIN`.
//!
//! A session asks one atomic counter whether anybody watches; while somebody does, sessions keep their lines, and the
//! one that gets a recipient of the domain sends them, from its greeting on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::types::Domain;

/// The most watches at a time; further ones are refused.
const WATCHES_MAX: usize = 64;

/// Those who watch; cheap to clone.
#[derive(Clone, Default)]
pub struct TraceHub(Arc<Inner>);

#[derive(Default)]
struct Inner {
    count: AtomicUsize,
    watches: Mutex<Vec<(Domain, mpsc::Sender<String>)>>,
}

impl TraceHub {
    /// A hub that nobody watches.
    pub fn new() -> Self {
        Self::default()
    }

    /// Copies the next session with mail for `domain` to `lines`; a line that finds no room is dropped. `false` when too
    /// many watch already.
    pub fn watch(&self, domain: Domain, lines: mpsc::Sender<String>) -> bool {
        let mut watches = self.0.watches.lock();
        watches.retain(|(_, sender)| !sender.is_closed());
        let room = watches.len() < WATCHES_MAX;
        if room {
            watches.push((domain, lines));
        }
        self.0.count.store(watches.len(), Ordering::Relaxed);
        room
    }

    /// Whether anybody watches: cheap.
    pub fn is_active(&self) -> bool {
        self.0.count.load(Ordering::Relaxed) > 0
    }

    /// Takes the watches of these domains: the session that asks is theirs.
    pub fn take<'a>(&self, domains: impl Iterator<Item = &'a Domain> + Clone) -> Vec<mpsc::Sender<String>> {
        let mut watches = self.0.watches.lock();
        let mut taken = Vec::new();
        watches.retain(|(domain, sender)| {
            if sender.is_closed() {
                return false;
            }
            let mine = domains.clone().any(|d| d == domain);
            if mine {
                taken.push(sender.clone());
            }
            !mine
        });
        self.0.count.store(watches.len(), Ordering::Relaxed);
        taken
    }
}

/// One session's lines: kept until somebody's domain turns up, then sent.
#[derive(Default)]
pub(super) struct SessionTrace {
    kept: Vec<String>,
    watchers: Vec<mpsc::Sender<String>>,
}

/// The most lines that are kept before a domain turns up.
const KEPT_MAX: usize = 200;

impl SessionTrace {
    pub(super) fn add_watchers(&mut self, watchers: Vec<mpsc::Sender<String>>) {
        for watcher in &watchers {
            for line in &self.kept {
                let _ = watcher.try_send(line.clone());
            }
        }
        self.watchers.extend(watchers);
    }

    pub(super) fn lines(&mut self, lines: Vec<String>) {
        for line in lines {
            for watcher in &self.watchers {
                let _ = watcher.try_send(line.clone());
            }
            if self.kept.len() < KEPT_MAX {
                self.kept.push(line);
            }
        }
        self.watchers.retain(|w| !w.is_closed());
    }

    pub(super) fn is_watched(&self) -> bool {
        !self.watchers.is_empty()
    }
}
