//! What each tenant uses: recipients and octets queued, recipients a day, submission rate.
//!
//! 1. Intake takes its share before the commit and gives it back when the commit fails.
//! 2. The daemon adds at start what stands in the queues, and the queue engine takes off what it settles and adds
//!    what it makes (notifications).
//! 3. The count of a day survives a crash as a reservation ahead of use: a record of state under `quota/`, written in
//!    the batch that passes it. After a crash the reservation counts as used: we under-send, never exceed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::Refusal;
use crate::config::{Quota, Rate, Tenant};
use crate::store::Change;
use crate::types::{Name, Timestamp};

/// The records of state that hold the day counts: `quota/<tenant>/<day>`, the day as its number since 1970-01-01.
pub const QUOTA_PREFIX: &str = "quota/";

/// The version of such a record: this octet, then the reservation as a little-endian u64.
const RECORD_VERSION: u8 = 1;

/// The usage of all tenants; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct UsageTable(Arc<RwLock<HashMap<Name, Arc<TenantUsage>>>>);

impl UsageTable {
    /// The usage of one tenant; keep it where it is needed often.
    pub fn tenant(&self, name: &Name) -> Arc<TenantUsage> {
        if let Some(usage) = self.0.read().get(name) {
            return usage.clone();
        }
        self.0.write().entry(name.clone()).or_default().clone()
    }

    /// These were queued, by somebody else than intake.
    pub fn add(&self, tenant: &Name, recipients: u64, bytes: u64) {
        self.tenant(tenant).add(recipients, bytes);
    }

    /// These are not queued any more.
    pub fn sub(&self, tenant: &Name, recipients: u64, bytes: u64) {
        self.tenant(tenant).sub(recipients, bytes);
    }

    /// Takes a record of state that a start has read. `false` when it is not one of ours.
    pub fn restore(&self, key: &[u8], value: &[u8], now: Timestamp) -> bool {
        let parsed = std::str::from_utf8(key)
            .ok()
            .and_then(|k| k.strip_prefix(QUOTA_PREFIX)?.rsplit_once('/'))
            .and_then(|(tenant, day)| Some((Name::parse(tenant).ok()?, day.parse::<u32>().ok()?)));
        let (Some((tenant, day)), Some((&RECORD_VERSION, count))) = (parsed, value.split_first()) else { return false };
        let Ok(count) = count.try_into().map(u64::from_le_bytes) else { return false };
        let usage = self.tenant(&tenant);
        let mut state = usage.day.lock();
        if day == now.day() && (state.day < day || state.count < count) {
            *state = Day { day, count, reserved: count, stale: std::mem::take(&mut state.stale) };
        } else if day != now.day() {
            state.stale.push(key.to_vec());
        }
        true
    }
}

/// What one tenant uses.
#[derive(Debug, Default)]
pub struct TenantUsage {
    recipients: AtomicU64,
    bytes: AtomicU64,
    day: Mutex<Day>,
    rate: Mutex<Bucket>,
    /// Bounds the `rejected` events.
    pub(super) rejected: Mutex<Bucket>,
}

#[derive(Debug, Default)]
struct Day {
    day: u32,
    count: u64,
    /// How much of the day is on disk as used.
    reserved: u64,
    /// Records of days that are over.
    stale: Vec<Vec<u8>>,
}

/// A share that was taken: part of it must be made durable with the message.
#[derive(Debug, Default)]
pub(super) struct Share {
    pub(super) changes: Vec<Change>,
    recipients: u64,
    bytes: u64,
    /// What the day's reservation is once the changes are on disk.
    reserves: Option<(u32, u64)>,
}

impl TenantUsage {
    /// Recipients and octets queued.
    pub fn queued(&self) -> (u64, u64) {
        (self.recipients.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// These were queued.
    pub fn add(&self, recipients: u64, bytes: u64) {
        self.recipients.fetch_add(recipients, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// These are not queued any more. Never below zero: a start that counts late must not turn 1 into 2^64.
    pub fn sub(&self, recipients: u64, bytes: u64) {
        for (counter, n) in [(&self.recipients, recipients), (&self.bytes, bytes)] {
            let _ = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |v| Some(v.saturating_sub(n)));
        }
    }

    /// Takes a share for a message with so many recipients and so many octets for all of them together.
    pub(super) fn take(&self, tenant: &Tenant, recipients: u64, bytes: u64, now: Timestamp) -> Result<Share, Refusal> {
        let mut share = Share { recipients, bytes, ..Share::default() };
        self.add(recipients, bytes);
        if let Err(refusal) = self.check(tenant, recipients, now, &mut share) {
            self.sub(recipients, bytes);
            return Err(refusal);
        }
        Ok(share)
    }

    fn check(&self, tenant: &Tenant, recipients: u64, now: Timestamp, share: &mut Share) -> Result<(), Refusal> {
        let Quota { queued_messages, queued_bytes, per_day, submission_rate } = &tenant.quota;
        let (queued, queued_octets) = self.queued();
        if let Some(max) = queued_messages.filter(|max| queued > *max) {
            let text = format!("tenant {}: the quota of {max} queued recipients is used up", tenant.name);
            return Err(Refusal::new(452, "4.3.1", 429, text));
        }
        if let Some(max) = queued_bytes.filter(|max| queued_octets > max.0) {
            let text = format!("tenant {}: the quota of {max} queued is used up", tenant.name);
            return Err(Refusal::new(452, "4.3.1", 429, text));
        }
        if let Some(rate) = submission_rate
            && !self.rate.lock().take(*rate, recipients, now)
        {
            let text = format!("tenant {}: more than {rate} recipients are submitted", tenant.name);
            return Err(Refusal::new(451, "4.7.1", 429, text));
        }
        if let Some(max) = per_day {
            self.day.lock().take(tenant, recipients, *max, now, share)?;
        }
        Ok(())
    }

    /// The message is on disk, and with it what the share reserved.
    pub(super) fn committed(&self, share: &Share) {
        if let Some((day, reserved)) = share.reserves {
            let mut state = self.day.lock();
            if state.day == day {
                state.reserved = state.reserved.max(reserved);
            }
        }
    }

    /// The message was not stored: the share comes back. What the rate took does not: trying costs too.
    pub(super) fn give_back(&self, tenant: &Tenant, share: &Share, now: Timestamp) {
        self.sub(share.recipients, share.bytes);
        if tenant.quota.per_day.is_some() {
            let mut state = self.day.lock();
            if state.day == now.day() {
                state.count = state.count.saturating_sub(share.recipients);
            }
        }
    }
}

impl Day {
    fn take(&mut self, tenant: &Tenant, n: u64, max: u64, now: Timestamp, share: &mut Share) -> Result<(), Refusal> {
        let today = now.day();
        if self.day != today {
            if self.reserved > 0 {
                self.stale.push(record_key(&tenant.name, self.day));
            }
            *self = Day { day: today, count: 0, reserved: 0, stale: std::mem::take(&mut self.stale) };
        }
        if self.count + n > max {
            let text = format!("tenant {}: the quota of {max} recipients a day (UTC) is used up", tenant.name);
            return Err(Refusal::new(452, "4.7.1", 429, text));
        }
        self.count += n;
        if self.count > self.reserved {
            // Every message until the commit writes the reservation, so none depends on another one's batch. Whole
            // blocks, so that the order in which they are committed does not matter inside one.
            let block = (max / 100).clamp(10, 10_000);
            let reserved = (self.count.div_ceil(block) * block).min(max.max(self.count));
            let mut value = vec![RECORD_VERSION];
            value.extend_from_slice(&reserved.to_le_bytes());
            share.changes.push(Change::PutState { key: record_key(&tenant.name, today), value });
            share.changes.extend(self.stale.drain(..).map(|key| Change::RemoveState { key }));
            share.reserves = Some((today, reserved));
        }
        Ok(())
    }
}

fn record_key(tenant: &Name, day: u32) -> Vec<u8> {
    format!("{QUOTA_PREFIX}{tenant}/{day}").into_bytes()
}

/// A token bucket that holds one period's worth.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// Tokens used, and when that was so; it flows off with time.
    used: f64,
    at: Timestamp,
}

impl Bucket {
    /// Takes `n`. A bucket that is empty of use takes any number, so that no message waits for ever.
    pub(super) fn take(&mut self, rate: Rate, n: u64, now: Timestamp) -> bool {
        let per_ms = f64::from(rate.count) / rate.per.as_millis().max(1) as f64;
        self.used = (self.used - now.since(self.at).as_millis() as f64 * per_ms).max(0.0);
        self.at = now;
        // Half a token of tolerance: the sum of many small flows is not exact.
        if self.used > 0.5 && self.used + n as f64 > f64::from(rate.count) + 0.5 {
            return false;
        }
        self.used += n as f64;
        true
    }
}
