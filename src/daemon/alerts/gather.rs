//! What there is to see, from those who count and hold it anyway.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Watch;
use crate::alert::{Disk, Held, Observed, Overdue, PathCounts, Stopped, TenantCounts};
use crate::metrics::counted;
use crate::queue::admin::{Command, Trouble};
use crate::store::SpaceProbe;
use crate::types::Name;

/// How long the scheduler may take for an answer; then nothing is judged this time.
const TROUBLE_TIMEOUT: Duration = Duration::from_secs(10);

impl Watch {
    /// What there is to see now; `None` when some of it can't be found out: that must end no alert.
    pub(super) async fn gather(&self) -> Option<Observed> {
        let asked = self.hands.queues.ask(|reply| Command::Trouble { reply });
        let trouble = tokio::time::timeout(TROUBLE_TIMEOUT, asked).await;
        let Trouble { overdue, held, stopped } = trouble.ok()?.ok()?;
        let disk = Some(self.disk().await?);
        Some(Observed {
            tenants: self.tenants(),
            paths: self.paths(),
            overdue: overdue.map(|queue| Overdue {
                since: queue.next_due,
                tenant: queue.key.tenant,
                domain: queue.key.domain.to_string(),
                count: queue.count,
                held_by: queue.held_by,
            }),
            disk,
            held: held
                .into_iter()
                .map(|path| Held {
                    source: path.source.to_string(),
                    provider: path.provider,
                    until: path.until,
                    reason: path.reason,
                })
                .collect(),
            stopped: stopped
                .into_iter()
                .map(|s| Stopped { id: s.id, tenant: s.matcher.tenant, reason: s.reason })
                .collect(),
            webhooks: self.failing(),
        })
    }

    fn tenants(&self) -> Vec<(Name, TenantCounts)> {
        let mut tenants: BTreeMap<Name, TenantCounts> = BTreeMap::new();
        let mut of = |labels: &[String], add: &dyn Fn(&mut TenantCounts, &str)| {
            if let [tenant, what] = labels
                && let Ok(tenant) = Name::parse(tenant)
            {
                add(tenants.entry(tenant).or_default(), what);
            }
        };
        for (labels, count) in counted(&self.metrics.queue.tenants, &["tenant", "outcome"]) {
            of(&labels, &|counts, outcome| match outcome {
                "delivered" => counts.delivered += count,
                _ => counts.bounced += count,
            });
        }
        for (labels, count) in counted(&self.metrics.inbound.tenants, &["tenant", "kind"]) {
            of(&labels, &|counts, kind| match kind {
                "complaint" => counts.complained += count,
                _ => counts.late_bounces += count,
            });
        }
        tenants.into_iter().collect()
    }

    /// The outcomes of each source at each provider. What matches no provider is many domains that have nothing to do with each other: of them no
    /// share says anything.
    fn paths(&self) -> Vec<PathCounts> {
        let mut paths: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
        let queue = &self.metrics.queue;
        for (counters, is_deferred) in [(&queue.delivered, false), (&queue.bounced, false), (&queue.deferred, true)] {
            for (labels, count) in counted(counters, &["source", "provider"]) {
                let Ok([source, provider]) = <[String; 2]>::try_from(labels) else { continue };
                if provider == crate::config::OTHER {
                    continue;
                }
                let entry = paths.entry((source, provider)).or_default();
                entry.0 += count;
                entry.1 += if is_deferred { count } else { 0 };
            }
        }
        let path = |((source, provider), (attempts, deferred))| PathCounts { source, provider, attempts, deferred };
        paths.into_iter().map(path).collect()
    }

    /// The file system is asked on a thread that may block: one on a network can hang.
    async fn disk(&self) -> Option<Disk> {
        let config = self.hands.config.load_full();
        let probe = SpaceProbe::FileSystem(config.data_dir.clone());
        let space = tokio::task::spawn_blocking(move || probe.look()).await.ok()?.ok()?;
        Some(Disk { free: space.free, total: space.total, min_free: config.storage.min_free.0 })
    }
}
