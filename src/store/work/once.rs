//! Changes with a condition that only the ledger can judge: once, and so many times within some days.

use std::time::Duration;

use super::{Change, Work, WorkError, keys};
use crate::store::TALLY_MAX;
use crate::types::Timestamp;

impl Work<'_> {
    pub(super) fn once(&mut self, key: &[u8], remember: Duration, changes: Vec<Change>) -> Result<(), WorkError> {
        let key = [keys::STATE_ONCE, key].concat();
        let until = self.state_now(&key)?.and_then(|value| value.first_chunk().map(|at| u64::from_be_bytes(*at)));
        if until.is_some_and(|until| until > self.now.as_millis()) {
            return Ok(());
        }
        self.put_expiring(key, self.now.after(remember), &[]);
        self.submit(changes)
    }

    pub(super) fn tally(
        &mut self,
        key: &[u8],
        at: u32,
        within: Duration,
        changes: Vec<Change>,
    ) -> Result<(), WorkError> {
        let key = [keys::STATE_TALLY, key].concat();
        let since = self.now.as_millis().saturating_sub(u64::try_from(within.as_millis()).unwrap_or(u64::MAX));
        let before = self.state_now(&key)?.unwrap_or_default();
        let (times, _) = before.get(8..).unwrap_or_default().as_chunks::<8>();
        let mut times: Vec<u64> = times.iter().map(|t| u64::from_be_bytes(*t)).filter(|t| *t > since).collect();
        times.push(self.now.as_millis());
        if times.len() >= at.clamp(1, TALLY_MAX) as usize {
            self.state.insert(key, None);
            return self.submit(changes);
        }
        let times: Vec<u8> = times.into_iter().flat_map(u64::to_be_bytes).collect();
        self.put_expiring(key, self.now.after(within), &times);
        Ok(())
    }

    /// A record of state as this batch leaves it.
    fn state_now(&self, key: &[u8]) -> Result<Option<Vec<u8>>, WorkError> {
        match self.state.get(key) {
            Some(written) => Ok(written.clone()),
            None => Ok(self.spaces.state.get(key)?.map(|value| value.to_vec())),
        }
    }

    /// A record that begins with the time until which it is kept.
    fn put_expiring(&mut self, key: Vec<u8>, until: Timestamp, rest: &[u8]) {
        let value = [&until.as_millis().to_be_bytes(), rest].concat();
        self.bytes += 2 * key.len() + value.len();
        self.state.insert(keys::expiry(until, &key), Some(Vec::new()));
        self.state.insert(key, Some(value));
    }
}
