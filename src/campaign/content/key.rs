//! The key under which Message-IDs are made: the same id at each attempt, and none that others could foretell.

use aws_lc_rs::hmac;

use crate::seam::random;
use crate::store::{Change, Ledger, ReadError, Reader, SubmitError};
use crate::types::{CampaignNo, Domain, Mailbox};

/// `state`: version (1), key (32).
const STATE_KEY: &[u8] = b"key/message-id";
/// The version of that record.
const KEY_VERSION: u8 = 1;

/// Why there is no key.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyError {
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The new key was not stored.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// What is stored is no key: with another one, retries would have other Message-IDs.
    #[error("the record key/message-id of the store is not readable: restore it from a backup")]
    Format,
}

/// The key of Message-IDs; cheap to clone.
#[derive(Clone, Debug)]
pub struct MessageIdKey(hmac::Key);

impl MessageIdKey {
    /// Reads the key; makes it at the first start. `Ok` means that it is on disk.
    pub async fn open(reader: &Reader, ledger: &Ledger) -> Result<Self, KeyError> {
        let key = match reader.state_get(STATE_KEY).await? {
            Some(value) => match value.split_first() {
                Some((&KEY_VERSION, key)) => <[u8; 32]>::try_from(key).map_err(|_| KeyError::Format)?,
                _ => return Err(KeyError::Format),
            },
            None => {
                let mut key = [0; 32];
                random::fill(&mut key);
                let value = [&[KEY_VERSION], key.as_slice()].concat();
                ledger.submit(vec![Change::PutState { key: STATE_KEY.to_vec(), value }]).await?;
                key
            }
        };
        Ok(Self::new(&key))
    }

    /// With these octets.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The Message-ID of a row, without angle brackets: 128 bits of HMAC-SHA256 of campaign, step and recipient. `salt` is for tests only, of which
    /// one recipient gets several.
    pub fn message_id(&self, no: CampaignNo, step: u8, to: &Mailbox, salt: Option<u64>, at: &Domain) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&no.0.to_be_bytes());
        context.update(&[step, u8::from(salt.is_some())]);
        context.update(&salt.unwrap_or(0).to_be_bytes());
        context.update(to.canonical().as_bytes());
        let tag = context.sign();
        let mut id = String::with_capacity(33 + at.as_str().len());
        for octet in &tag.as_ref()[..16] {
            for digit in [octet >> 4, octet & 15] {
                id.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
            }
        }
        id.push('@');
        id.push_str(at.as_str());
        id
    }
}
