//! The event log as it is stored: for readers that look at little of each event.

use std::ops::Bound;

use bytes::Bytes;
use fjall::Readable;

use super::{PAGE_BYTES_MAX, Read, View};
use crate::store::handle::LogPage;
use crate::store::{keys, records};
use crate::types::EventSeq;

impl View<'_> {
    pub(super) fn log(&self, after: EventSeq, limit: usize) -> Read<LogPage> {
        let mut page = LogPage { next: after, gap: self.gap(after), ..LogPage::default() };
        let mut bytes = 0;
        for (index, day) in self.days.iter().enumerate() {
            // A day ends where the next one begins.
            if self.days.get(index + 1).is_some_and(|next| next.first.0 <= after.0.saturating_add(1)) {
                continue;
            }
            let from = Bound::Excluded(keys::event(page.next));
            for guard in self.at.range(&day.events, (from, Bound::Unbounded)) {
                if page.records.len() >= limit || bytes >= PAGE_BYTES_MAX {
                    page.more = true;
                    return Ok(page);
                }
                let (key, value) = guard.into_inner()?;
                page.next = keys::parse_event(&key).unwrap_or(page.next);
                bytes += value.len();
                let value = Bytes::from(value);
                if let Some(json) = self.readable("event", records::event_json(&value).map(<[u8]>::len)) {
                    page.records.push(value.slice(value.len() - json..));
                }
            }
        }
        Ok(page)
    }
}
