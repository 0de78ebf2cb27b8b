//! Rows as messages: the envelope from the sealed campaign, the octets of the row as the body.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;

use super::blueprint::RowHead;
use super::cache::FindSealed;
use crate::campaign::model::Sealed;
use crate::config::Config;
use crate::store::{Envelope, EnvelopeRecipient, ReadError, Reader, Row, StoredMessage, Via};
use crate::types::{Mailbox, Notify, ReversePath, RowId, SLOT_MILLIS, Timestamp};

/// The local part of return paths at a tenant's bounce domain.
pub const RETURN_LOCAL_PART: &str = "bounce";

/// Loads rows for the queue; cheap to clone.
#[derive(Clone)]
pub struct CampaignLoader {
    reader: Reader,
    find: FindSealed,
    config: Arc<ArcSwap<Config>>,
}

impl CampaignLoader {
    /// A loader.
    pub fn new(reader: Reader, find: FindSealed, config: Arc<ArcSwap<Config>>) -> Self {
        Self { reader, find, config }
    }

    /// The row as a message. `None` means that it will never be there: it was erased, its campaign was purged, or it can't be read. Its entry
    /// must end, not wait.
    ///
    /// # Errors
    /// The store could not be read: trying again could help.
    pub async fn load_row(&self, id: RowId) -> Result<Option<Arc<StoredMessage>>, ReadError> {
        let Some(sealed) = (self.find)(id.campaign) else { return Ok(None) };
        let row = self.reader.row(id).await?;
        Ok(self.made(&sealed, id, row))
    }

    /// Several rows by one read: waking the reader and being woken by it costs more than the read. The answers are in the order of the
    /// ids, as those of [`Self::load_row`].
    pub async fn load_rows(&self, ids: &[RowId]) -> Vec<Result<Option<Arc<StoredMessage>>, ReadError>> {
        let Ok(rows) = self.reader.rows_at(ids.to_vec()).await else {
            // One that can't be read must not keep the others.
            let mut each = Vec::with_capacity(ids.len());
            for id in ids {
                each.push(self.load_row(*id).await);
            }
            return each;
        };
        let made = |(id, row): (&RowId, Option<Row>)| {
            Ok((self.find)(id.campaign).and_then(|sealed| self.made(&sealed, *id, row)))
        };
        ids.iter().zip(rows).map(made).collect()
    }

    fn made(&self, sealed: &Sealed, id: RowId, row: Option<Row>) -> Option<Arc<StoredMessage>> {
        let message = self.message(sealed, id, row?.value);
        if message.is_none() {
            tracing::warn!(campaign = %sealed.id, row = %id, "a row of a campaign is not readable, it is not sent");
        }
        message.map(Arc::new)
    }

    /// A row with its envelope; `None` when its address can't be read.
    fn message(&self, sealed: &Sealed, id: RowId, row: Bytes) -> Option<StoredMessage> {
        let head = RowHead::parse(&row).ok()?;
        let mailbox = head.mailbox().ok()?;
        let job = &*sealed.job;
        let metadata = match head.metadata {
            Some(metadata) => Some(metadata.get().into()),
            None if job.metadata.is_empty() => None,
            None => serde_json::to_string(&job.metadata).ok().map(Into::into),
        };
        let config = self.config.load();
        let due = Timestamp::from_millis(sealed.due.as_millis().saturating_add(u64::from(id.slot) * SLOT_MILLIS));
        let expire_after = job.expire_after.unwrap_or(config.retry.expire_after);
        let envelope = Envelope {
            id: id.message_id(),
            tenant: sealed.tenant.clone(),
            class: job.class,
            campaign: Some(sealed.id.clone()),
            tags: job.tags.clone(),
            metadata,
            reverse_path: ReversePath::Mailbox(return_path(&config, sealed)),
            ret: None,
            envid: None,
            smtputf8: mailbox.needs_smtputf8() || job.from.mailbox.needs_smtputf8(),
            // Not NEVER: the peer would keep late bounces from us too. That we tell nobody of a row follows from `via`.
            recipients: vec![EnvelopeRecipient { mailbox, notify: Notify::Default, orcpt: None }],
            accepted: sealed.started,
            expires: due.after(expire_after.0),
            eight_bit: false,
            from_domain: Some(job.from.mailbox.domain().clone()),
            via: Via::Campaign,
            client: None,
        };
        Some(StoredMessage { envelope, body: row })
    }
}

/// Where late bounces go: to the tenant's bounce domain, else to the author.
fn return_path(config: &Config, sealed: &Sealed) -> Mailbox {
    let tenant = config.tenants.iter().find(|t| t.name == sealed.tenant);
    let ours = tenant.and_then(|t| t.bounce_domain.as_ref());
    let ours = ours.and_then(|domain| Mailbox::parse(&format!("{RETURN_LOCAL_PART}@{domain}")).ok());
    ours.unwrap_or_else(|| sealed.job.from.mailbox.clone())
}
