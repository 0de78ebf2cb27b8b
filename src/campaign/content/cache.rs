//! Blueprints of the campaigns that are being sent, on the egress thread.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use ahash::AHashMap;
use tokio::sync::OnceCell;

use super::blueprint::{Blueprint, BlueprintError};
use crate::campaign::model::Sealed;
use crate::queue::sign::{PoolEnded, SignPool};
use crate::types::CampaignNo;

/// Finds a started campaign by its number, without waiting; `None` for one that is not known (any more).
pub type FindSealed = Arc<dyn Fn(CampaignNo) -> Option<Arc<Sealed>> + Send + Sync>;

/// The most campaigns that are kept ready. One more costs a compilation, and again when the one that it took the place of goes on.
const BLUEPRINTS_MAX: usize = 64;

/// Blueprints by campaign.
pub(super) struct Blueprints {
    find: FindSealed,
    pool: Arc<SignPool>,
    known: RefCell<AHashMap<CampaignNo, Rc<Slot>>>,
    uses: Cell<u64>,
}

struct Slot {
    sealed: Arc<Sealed>,
    used: Cell<u64>,
    blueprint: OnceCell<Result<Arc<Blueprint>, BlueprintError>>,
}

impl Blueprints {
    pub(super) fn new(find: FindSealed, pool: Arc<SignPool>) -> Self {
        Self { find, pool, known: RefCell::default(), uses: Cell::new(0) }
    }

    /// The blueprint of a campaign; `None` when there is no such campaign. The first to ask has it compiled, others wait for that.
    pub(super) async fn get(
        &self,
        no: CampaignNo,
    ) -> Result<Option<Result<Arc<Blueprint>, BlueprintError>>, PoolEnded> {
        let Some(sealed) = (self.find)(no) else { return Ok(None) };
        let slot = self.slot(sealed);
        let compiled = slot.blueprint.get_or_try_init(|| {
            let sealed = slot.sealed.clone();
            self.pool.run(move || Blueprint::new(sealed).map(Arc::new))
        });
        Ok(Some(compiled.await?.clone()))
    }

    fn slot(&self, sealed: Arc<Sealed>) -> Rc<Slot> {
        let use_no = self.uses.get() + 1;
        self.uses.set(use_no);
        let mut known = self.known.borrow_mut();
        if let Some(slot) = known.get(&sealed.no)
            && (Arc::ptr_eq(&slot.sealed, &sealed)
                || (slot.sealed.version, slot.sealed.started) == (sealed.version, sealed.started))
        {
            slot.used.set(use_no);
            return slot.clone();
        }
        if known.len() >= BLUEPRINTS_MAX && !known.contains_key(&sealed.no) {
            let oldest = known.iter().min_by_key(|(_, slot)| slot.used.get()).map(|(no, _)| *no);
            oldest.map(|no| known.remove(&no));
        }
        let slot = Rc::new(Slot { sealed: sealed.clone(), used: Cell::new(use_no), blueprint: OnceCell::new() });
        known.insert(sealed.no, slot.clone());
        slot
    }
}
