//! What concerns people rather than messages: who is not sent to, and the links by which they say so.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tracing::warn;

use super::Hands;
use crate::campaign::Campaigns;
use crate::links::Links;
use crate::metrics::Metrics;
use crate::seam::clock::Clock;
use crate::store::Opened;
use crate::suppression::Suppressions;
use crate::tracking;

/// How often expired suppressions are removed.
const SWEEP_EVERY: Duration = Duration::from_secs(86_400);
/// How often the number of fingerprints is told.
const TELL_EVERY: Duration = Duration::from_secs(15);

/// The handles; cheap to clone.
#[derive(Clone)]
pub(super) struct People {
    pub(super) suppressions: Suppressions,
    pub(super) links: Links,
}

/// Reads both from the store, before anything is taken or sent. Blocking.
pub(super) fn open(opened: &Opened, clock: &Clock) -> anyhow::Result<People> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let (reader, ledger) = (&opened.reader, &opened.ledger);
    runtime.block_on(async {
        let links = Links::open(reader, ledger.clone(), clock.clone()).await.context("the keys of links")?;
        let suppressions = Suppressions::open(reader.clone(), ledger.clone(), clock.clone()).await;
        Ok(People { suppressions: suppressions.context("the suppressions")?, links })
    })
}

impl People {
    /// What the public listener is made of.
    pub(super) fn public(
        &self,
        hands: &Hands,
        clock: &Clock,
        metrics: &Metrics,
        campaigns: &Campaigns,
    ) -> tracking::Parts {
        let campaigns = campaigns.clone();
        tracking::Parts {
            config: hands.config.clone(),
            clock: clock.clone(),
            links: self.links.clone(),
            suppressions: self.suppressions.clone(),
            campaigns: Arc::new(move |no| campaigns.name_of(no).map(|(_, id)| id)),
            metrics: metrics.tracking.clone(),
        }
    }

    /// Removes what has expired, once a day, and tells how many there are.
    pub(super) async fn keep(self, metrics: Arc<Metrics>) {
        let mut rounds = 0_u64;
        loop {
            metrics.suppression.fingerprints.set(self.suppressions.fingerprints() as i64);
            tokio::time::sleep(TELL_EVERY).await;
            rounds += 1;
            if rounds.is_multiple_of(SWEEP_EVERY.as_secs() / TELL_EVERY.as_secs())
                && let Err(error) = self.suppressions.sweep().await
            {
                warn!(%error, "expired suppressions were not removed");
            }
        }
    }
}
