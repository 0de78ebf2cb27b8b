//! The started campaigns, as the egress thread knows them: from a row's number to what it is rendered from.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::model::Sealed;
use crate::types::CampaignNo;

/// All sealed campaigns whose rows may be sent; cheap to clone.
///
/// Reading takes no lock, so that the egress thread may ask at each attempt; writing copies the map, which is done a few times a campaign.
#[derive(Clone, Default)]
pub struct Sealings(Arc<ArcSwap<HashMap<CampaignNo, Arc<Sealed>>>>);

impl Sealings {
    /// The campaign with this number; `None` when it was not started, or has ended.
    pub fn get(&self, no: CampaignNo) -> Option<Arc<Sealed>> {
        self.0.load().get(&no).cloned()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.load().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn insert(&self, sealed: Arc<Sealed>) {
        self.0.rcu(|all| {
            let mut all = HashMap::clone(all);
            all.insert(sealed.no, Arc::clone(&sealed));
            all
        });
    }

    pub(super) fn remove(&self, no: CampaignNo) {
        self.0.rcu(|all| {
            let mut all = HashMap::clone(all);
            all.remove(&no);
            all
        });
    }
}
