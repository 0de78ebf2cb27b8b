//! Campaigns of the simulated world: rows that the reader gives as entries while their campaign runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashSet;

use super::{World, Write};
use crate::queue::testing;
use crate::store::{EntryKey, News, QueueEntry, QueueRows, Run, StoredMessage, Via};
use crate::types::{
    CampaignNo, Class, DeliveryId, MessageId, Notify, QueueId, QueueKey, RowId, SLOT_MILLIS, Timestamp,
};

/// Octets of a row.
const ROW_BYTES: usize = 120;

/// A campaign in the ledger.
#[derive(Default)]
pub(crate) struct SimCampaign {
    name: String,
    run: Option<Run>,
    /// Rows that were never settled, with their addresses.
    fresh: BTreeMap<QueueId, BTreeMap<(u8, u32), RowId>>,
    addresses: BTreeMap<RowId, String>,
    queues: BTreeMap<QueueId, QueueKey>,
    /// Rows whose run ended before they were settled.
    pub dropped: AHashSet<RowId>,
}

impl World {
    /// Uploads rows; they are on disk at once. The slot of each is its place modulo `slots`.
    pub(crate) fn upload(&mut self, no: u32, name: &str, to: &[String], slots: u32) {
        for address in to {
            let mailbox = crate::types::Mailbox::parse(address).expect("a valid mailbox");
            let mut key = testing::queue_key("acme", Class::Marketing, mailbox.domain());
            key.campaign = Some(testing::name(name));
            let queue = self.queue_id(&key);
            let campaign = self.campaigns.entry(CampaignNo(no)).or_default();
            campaign.name = name.to_owned();
            let seq = campaign.addresses.len() as u32;
            let slot = (seq % slots.max(1)) as u8;
            let row = RowId { campaign: CampaignNo(no), step: 0, queue, slot, seq };
            campaign.addresses.insert(row, address.clone());
            campaign.fresh.entry(queue).or_default().insert((slot, seq), row);
            campaign.queues.insert(queue, key);
        }
    }

    /// Begins a run that is due now, or ends it; told at its commit.
    pub(crate) fn run_campaign(&mut self, no: u32, running: bool, expire_after: Duration) {
        let run = running.then_some(Run { accepted: self.now, due: self.now, expire_after });
        self.write(Write::Run { campaign: CampaignNo(no), run });
    }

    pub(super) fn commit_run(&mut self, no: CampaignNo, run: Option<Run>, news: &mut Vec<News>) {
        let campaign = self.campaigns.get_mut(&no).expect("uploaded before");
        if run.is_none() {
            let fresh = std::mem::take(&mut campaign.fresh);
            campaign.dropped.extend(fresh.into_values().flat_map(BTreeMap::into_values));
        }
        // Told again, it goes on as it began.
        campaign.run = run.map(|new| campaign.run.unwrap_or(new));
        let queues: Vec<QueueId> = campaign.queues.keys().copied().collect();
        let queues = queues.into_iter().map(|id| self.queue_row(id)).collect();
        news.push(News::Run { campaign: no, running: run.is_some(), queues });
    }

    /// What a queue has of rows that were never settled, as entries; and whose they are.
    pub(super) fn fresh(&self, queue: QueueId) -> (Vec<QueueEntry>, Option<QueueRows>) {
        let found = self.campaigns.iter().find(|(_, c)| c.queues.contains_key(&queue));
        let Some((no, campaign)) = found else { return (Vec::new(), None) };
        let fresh = campaign.fresh.get(&queue).map_or(0, BTreeMap::len) as u64;
        let rows = QueueRows { campaign: *no, step: 0, fresh, running: campaign.run.is_some() };
        let Some(run) = campaign.run else { return (Vec::new(), Some(rows)) };
        let entries = campaign.fresh.get(&queue).into_iter().flat_map(BTreeMap::values).map(|row| entry(*row, &run));
        (entries.collect(), Some(rows))
    }

    /// Rows of a queue behind a cursor that are settled and stand before one that is not: what a page has to look at in vain.
    pub(super) fn done_behind(&self, queue: QueueId, after: Option<EntryKey>) -> u64 {
        let Some(campaign) = self.campaigns.values().find(|c| c.queues.contains_key(&queue)) else { return 0 };
        let (Some(run), Some(fresh)) = (&campaign.run, campaign.fresh.get(&queue)) else { return 0 };
        let behind = |row: &RowId| after.is_none_or(|after| entry(*row, run).key > after);
        let Some(first) = fresh.values().find(|row| behind(row)) else { return 0 };
        let rows = campaign.addresses.keys().filter(|row| row.queue == queue && *row < first && behind(row));
        rows.filter(|row| !fresh.contains_key(&(row.slot, row.seq))).count() as u64
    }

    /// Takes a row out that is settled for the first time; answers whether it was there.
    pub(super) fn settle_fresh(&mut self, queue: QueueId, key: &EntryKey) -> bool {
        let Some(row) = RowId::of(key.delivery.message) else { return false };
        let Some(campaign) = self.campaigns.get_mut(&row.campaign) else { return false };
        let fresh = campaign.fresh.get_mut(&queue).is_some_and(|rows| rows.remove(&(row.slot, row.seq)).is_some());
        fresh || campaign.dropped.remove(&row)
    }

    /// A row as the loader of the campaign engine gives it.
    pub(super) fn read_row(&self, id: MessageId) -> Option<Arc<StoredMessage>> {
        let row = RowId::of(id)?;
        let campaign = self.campaigns.get(&row.campaign)?;
        let to = campaign.addresses.get(&row)?;
        let mut message = (*testing::message(0, Timestamp::ZERO, &[to], ROW_BYTES)).clone();
        message.envelope.id = id;
        message.envelope.via = Via::Campaign;
        message.envelope.class = Class::Marketing;
        message.envelope.campaign = Some(testing::name(&campaign.name));
        message.envelope.tags = vec![testing::name("news")];
        message.envelope.metadata = Some("{\"customer\":7}".into());
        // Not as the engine does it: the scheduler must tell nobody, whatever stands here.
        message.envelope.recipients[0].notify = Notify::Default;
        Some(Arc::new(message))
    }
}

fn entry(row: RowId, run: &Run) -> QueueEntry {
    let due = run.due.after(Duration::from_millis(u64::from(row.slot) * SLOT_MILLIS));
    let mut sent = [0; 16];
    sent[..4].copy_from_slice(&row.seq.to_be_bytes());
    QueueEntry {
        key: EntryKey { due, delivery: DeliveryId { message: row.message_id(), index: 0 } },
        accepted: run.accepted,
        expires: due.after(run.expire_after),
        attempts: 0,
        first_try: None,
        last_try: None,
        last_reply: None,
        size: ROW_BYTES as u32,
        recipients: 1,
        delay_noticed: false,
        sent: Some(sent),
    }
}
