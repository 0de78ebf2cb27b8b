//! The content of a campaign: from a row to the octets that a peer gets.
//!
//! 1. A started campaign is read once into a [`Blueprint`]: compiled templates, the header that is the same for all, the structure of its parts
//!    with its files encoded,
//! 2. the queue asks the [`CampaignLoader`] for a row; its envelope comes from the sealed campaign, its octets are the row itself,
//! 3. at the attempt [`CampaignContent`] looks whether the address is suppressed by now, renders the row, puts the message together, and signs it,
//! 4. what can't be made ends the row ([`RENDERING`](crate::delivery::RENDERING), [`SUPPRESSED`](crate::delivery::SUPPRESSED)): trying again
//!    would give the same,
//! 5. [`Blueprint::preview`] shows the same message to people, and [tests](mod@test) send it to those who look at it before the start.
//!
//! The same row gives the same message at every attempt: Date is the time at which the row is due, Message-ID a keyed hash of campaign, step and
//! recipient, boundaries come from the version, `now()` of the templates is the start. Only the DKIM signature follows the key of
//! the day, and a token of a link the newest key of its ring.

mod blueprint;
mod cache;
mod header;
mod key;
mod loader;
mod maker;
mod port;
mod preview;
pub mod test;

pub use blueprint::{Blueprint, BlueprintError, ContentError, Drawn, Target};
pub use cache::FindSealed;
pub use key::{KeyError, MessageIdKey};
pub use loader::CampaignLoader;
pub use maker::{CampaignContent, ContentParts};
pub use port::{ContentPort, JobSelect};
pub use preview::{GMAIL_CLIPS_AT, Preview, PreviewField};

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::Config;
use crate::links::Links;
use crate::types::{Domain, Name};

/// What a message takes from outside its campaign; cheap to clone.
#[derive(Clone, Debug)]
pub struct Outside {
    /// Makes the tokens of unsubscribe links.
    pub links: Links,
    /// The key of Message-IDs.
    pub key: MessageIdKey,
    /// The node's public URL and the tenants' bounce domains.
    pub config: Arc<ArcSwap<Config>>,
}

impl Outside {
    /// The URL in front of links, for jobs that bring none of their own.
    fn public_url(&self) -> Option<String> {
        self.config.load().public.as_ref().map(|public| public.url.clone())
    }

    /// Where a tenant's late bounces and mailed unsubscribes go.
    fn bounce_domain(&self, tenant: &Name) -> Option<Domain> {
        self.config.load().tenants.iter().find(|t| t.name == *tenant)?.bounce_domain.clone()
    }
}

#[cfg(test)]
mod tests;
