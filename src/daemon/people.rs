//! What concerns people rather than messages: who is not sent to, and the links by which they say so.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tracing::warn;

use super::Hands;
use super::campaigns::ForEgress;
use crate::campaign::Campaigns;
use crate::campaign::content::CampaignLoader;
use crate::inbound::{self, Inbound};
use crate::links::Links;
use crate::metrics::Metrics;
use crate::seam::clock::Clock;
use crate::store::{Ledger, Opened};
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

    /// The engine that reads what comes back.
    pub(super) fn inbound(
        &self,
        hands: &Hands,
        clock: &Clock,
        metrics: &Metrics,
        ledger: &Ledger,
        campaigns: &Campaigns,
        rows: &ForEgress,
    ) -> Inbound {
        let names = campaigns.clone();
        let loader = CampaignLoader::new(hands.reader.clone(), rows.find.clone(), hands.config.clone());
        let rows: inbound::FindRow = Arc::new(move |id| {
            let loader = loader.clone();
            Box::pin(async move {
                let message = loader.load_row(id).await?;
                Ok(message.and_then(|m| m.envelope.recipients.first().map(|r| r.mailbox.clone())))
            })
        });
        Inbound::new(inbound::Parts {
            config: hands.config.clone(),
            clock: clock.clone(),
            links: self.links.clone(),
            reader: hands.reader.clone(),
            rows,
            ledger: ledger.clone(),
            suppressions: self.suppressions.clone(),
            campaigns: Arc::new(move |no| names.name_of(no).map(|(_, id)| id)),
            metrics: metrics.inbound.clone(),
        })
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
