//! Erasure of a person: what the tenant's campaigns and queues have of an address goes.
//!
//! 1. Single messages that still wait for the person: the recipient is taken out of the queue, and with the last recipient the content goes,
//! 2. the rows of the address in every campaign of the tenant lose address and variables. Who was not sent to yet is not sent to, and what
//!    waits for another attempt is taken out: a `purged` event that names nobody. A row that is in an attempt ends as that does, since
//!    nobody can call it back; it is not tried again,
//! 3. the events about the address lose it, in steps that the ledger takes by itself, and those that attempts under way still write have none,
//! 4. what became of each row stays, known by a hash: the counts are still right, and an upload of the same list sends nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::error::CampaignError;
use super::super::model::FIRST_STEP;
use super::Campaigns;
use crate::event::{Event, EventKind};
use crate::queue::admin::CommandError;
use crate::store::{Change, SentStatus, address_hash};
use crate::types::{DeliveryId, Mailbox, MessageId, Name, RowId};

/// The most events in which messages to an address are looked for, the latest first.
const TRACED_MAX: usize = 100_000;

/// How often the queues are asked again when they carry out too many orders already, and after what time.
const AGAIN_MAX: u32 = 100;
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// What an erasure took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Erased {
    /// Rows of campaigns.
    pub rows: u64,
    /// Recipients of single messages that still waited.
    pub messages: u64,
}

impl Campaigns {
    /// Erases an address from all campaigns of a tenant, from its queues and from its events.
    pub async fn erase(&self, tenant: &Name, address: &Mailbox, by: &str) -> Result<Erased, CampaignError> {
        let hash = address_hash(address);
        // First: the events lead to the messages.
        let messages = self.erase_messages(tenant, address, by).await?;
        let mut rows = 0;
        for record in self.list(Some(tenant), None, None, usize::MAX) {
            let find = || self.parts().reader.sent(record.no, FIRST_STEP, vec![hash]);
            let Some(sent) = find().await?.into_iter().next().flatten() else { continue };
            let id = sent.row;
            let in_attempt = self.parts().ports.steer.in_flight(record.no).await?.contains(&id);
            let mut changes = vec![Change::EraseRow { id, hash, in_attempt }];
            if sent.status == SentStatus::Waiting && !in_attempt {
                let mut event = Event::new(EventKind::Purged, self.now(), tenant.clone());
                event.message_id = Some(id.message_id());
                event.campaign = Some(record.id.clone());
                event.reason = Some("the recipient was erased".into());
                changes.push(Change::Event(Box::new(event)));
            }
            // Before the row is empty: so it ends as purged, and not as one that can't be read.
            if in_attempt || sent.status == SentStatus::Queued {
                self.take_out(tenant, address, DeliveryId { message: id.message_id(), index: 0 }, by).await?;
            }
            self.parts().ledger.submit(changes).await?;
            rows += 1;
        }
        self.parts().ledger.submit(vec![Change::EraseEvents { tenant: tenant.clone(), hash }]).await?;
        let erased = &self.parts().metrics.erased;
        erased.with_label_values(&["row"]).inc_by(rows);
        erased.with_label_values(&["message"]).inc_by(messages);
        Ok(Erased { rows, messages })
    }

    /// Takes an address out of the single messages that wait for it; of how many.
    async fn erase_messages(&self, tenant: &Name, address: &Mailbox, by: &str) -> Result<u64, CampaignError> {
        let reader = &self.parts().reader;
        let events = reader.trace_address(Some(tenant.clone()), address.clone(), TRACED_MAX).await?;
        let mut ids: Vec<MessageId> = events.iter().filter_map(|event| event.message_id).collect();
        ids.retain(|id| RowId::of(*id).is_none());
        ids.sort_unstable();
        ids.dedup();
        let (canonical, mut count) = (address.canonical(), 0);
        for id in ids {
            // What is not there has ended.
            let Some(message) = reader.message(id).await? else { continue };
            let recipients = message.envelope.recipients.iter().zip(0..);
            for (_, index) in recipients.filter(|(r, _)| r.mailbox.canonical() == canonical) {
                self.take_out(tenant, address, DeliveryId { message: id, index }, by).await?;
                count += 1;
            }
        }
        Ok(count)
    }

    async fn take_out(&self, tenant: &Name, who: &Mailbox, what: DeliveryId, by: &str) -> Result<(), CampaignError> {
        for _ in 0..AGAIN_MAX {
            match self.parts().ports.steer.erase(tenant, who.domain(), what, by).await {
                // Too many orders are being carried out: each is over soon.
                Err(CommandError::Invalid(_)) => tokio::time::sleep(AGAIN_AFTER).await,
                done => return Ok(done?),
            }
        }
        Ok(self.parts().ports.steer.erase(tenant, who.domain(), what, by).await?)
    }
}
