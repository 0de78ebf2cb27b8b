//! The words that all layers share: identifiers, addresses, queue keys and times.
//!
//! Everything here is parsed once, at the edge, into a type that can only hold a valid value;
//! no later code checks it again.

mod address;
mod dsn;
mod ids;
mod mailbox;
mod name;
mod nearest;
mod queue_key;
mod row;
mod time;

pub use address::is_private_address;
pub use dsn::{Notify, Ret};
pub use ids::{DeliveryId, EventSeq, MessageId, QueueId};
pub use mailbox::{AddressError, Domain, Mailbox, ReversePath};
pub use name::{Name, NameError};
pub use nearest::nearest;
pub use queue_key::{Class, QueueKey};
pub use row::{AddressHash, CampaignNo, RowId, SLOT_MILLIS};
pub use time::{Millis, Timestamp};
