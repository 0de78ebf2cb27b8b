//! Erasure of a person: what campaigns have of an address goes.
//!
//! 1. The rows of the address in every campaign of the tenant lose address and variables; who was not sent to yet is not sent to, with a
//!    `purged` event that names nobody,
//! 2. the events about the address lose it, in steps that the ledger takes by itself,
//! 3. what became of each row stays, known by a hash: the counts are still right, and an upload of the same list sends nothing.

use super::super::error::CampaignError;
use super::super::model::FIRST_STEP;
use super::Campaigns;
use crate::event::{Event, EventKind};
use crate::store::{Change, SentStatus, address_hash};
use crate::types::{Mailbox, Name};

impl Campaigns {
    /// Erases an address from all campaigns of a tenant and from its events; answers how many rows it had.
    pub async fn erase(&self, tenant: &Name, address: &Mailbox) -> Result<u64, CampaignError> {
        let hash = address_hash(address);
        let mut rows = 0;
        for record in self.list(Some(tenant), None, None, usize::MAX) {
            let found = self.parts().reader.sent(record.no, FIRST_STEP, vec![hash]).await?;
            let Some(sent) = found.into_iter().next().flatten() else { continue };
            let mut changes = vec![Change::EraseRow { id: sent.row, hash }];
            if sent.status == SentStatus::Waiting {
                let mut event = Event::new(EventKind::Purged, self.now(), tenant.clone());
                event.message_id = Some(sent.row.message_id());
                event.campaign = Some(record.id.clone());
                event.reason = Some("the recipient was erased".into());
                changes.push(Change::Event(Box::new(event)));
            }
            self.parts().ledger.submit(changes).await?;
            rows += 1;
        }
        self.parts().ledger.submit(vec![Change::EraseEvents { tenant: tenant.clone(), hash }]).await?;
        Ok(rows)
    }
}
