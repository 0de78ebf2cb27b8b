//! What a delivery leaves behind beyond its queue: the return path of each recipient, and what a refusal says of the recipient.
//!
//! 1. A tenant with a bounce domain has its mail sent under a return path of its own a recipient (VERP), so that a late bounce says which recipient
//!    of which message it is about, whatever its author wrote into it;
//! 2. recipients then no longer share a transaction, since MAIL has one reverse-path;
//! 3. a refusal is understood by the same rules as a bounce that comes by mail ([`Returns::judge`]): its event says whose fault it is, and a recipient
//!    that does not exist goes onto the suppression list in the batch that settles it,
//! 4. what was submitted keeps its own reverse-path in the store: notifications of ours (RFC 3464) go there as before.

use std::cell::RefCell;
use std::sync::Arc;

use ahash::AHashMap;

use crate::bounce::classify::{Phase, Reply, Rules};
use crate::config::Config;
use crate::delivery::Failure;
use crate::event::{Event, EventKind};
use crate::links::{Links, ReturnPath};
use crate::store::{Change, Envelope, address_hash};
use crate::suppression::{Entry, Reason, Scope, Suppressions};
use crate::types::{Domain, Mailbox, Name, ReversePath, Timestamp};

/// The tag of test sends: their recipients are colleagues, who are not suppressed for what comes back.
pub const TEST_TAG: &str = "test";

/// The longest note of a suppression, in characters.
const NOTE_MAX: usize = 300;

/// Makes return paths and judges refusals. Lives on the egress thread.
pub struct Returns {
    links: Links,
    suppressions: Suppressions,
    rules: &'static Rules,
    domains: RefCell<BounceDomains>,
}

/// The bounce domains of a config, by tenant.
struct BounceDomains {
    config: Arc<Config>,
    of: AHashMap<Name, Domain>,
}

impl BounceDomains {
    fn of(config: &Arc<Config>) -> Self {
        let of = config.tenants.iter().filter_map(|t| Some((t.name.clone(), t.bounce_domain.clone()?))).collect();
        Self { config: config.clone(), of }
    }
}

impl Returns {
    /// With the keys of `links`, and with `suppressions` for those that do not exist.
    pub fn new(links: Links, suppressions: Suppressions, config: &Arc<Config>) -> Self {
        Self { links, suppressions, rules: Rules::built_in(), domains: RefCell::new(BounceDomains::of(config)) }
    }

    /// The domain to which bounces of a message come back; `None` where they go to its own reverse-path.
    pub fn domain(&self, config: &Arc<Config>, envelope: &Envelope) -> Option<Domain> {
        if !matches!(envelope.reverse_path, ReversePath::Mailbox(_)) {
            return None;
        }
        let mut domains = self.domains.borrow_mut();
        if !Arc::ptr_eq(&domains.config, config) {
            *domains = BounceDomains::of(config);
        }
        domains.of.get(&envelope.tenant).cloned()
    }

    /// Says in an event what a failure means; answers what follows from it beside: a suppression, or one more soft bounce.
    pub fn judge(&self, config: &Config, failure: &Failure, event: &mut Event) -> Vec<Change> {
        let reply = Reply {
            code: failure.reply.code,
            enhanced: failure.reply.enhanced.as_deref(),
            text: &failure.reply.text,
            provider: event.provider.as_deref(),
            phase: phase_of(failure.stage),
        };
        let verdict = self.rules.classify(&reply);
        event.category = Some(verdict.category.as_str().into());
        event.fault = Some(verdict.fault.as_str().into());
        let ended = matches!(event.event, EventKind::Bounced | EventKind::Expired | EventKind::Failed);
        let Some(recipient) = event.recipient.clone().filter(|_| ended && failure.remote) else { return Vec::new() };
        let acts = config.bounces.suppress && !is_test(event);
        let bounced = event.event == EventKind::Bounced;
        let suppressing = acts && bounced && verdict.suppress;
        event.suppress = bounced.then_some(suppressing);
        let note =
            || format!("{}: {}", verdict.category.as_str(), failure.reply).chars().take(NOTE_MAX).collect::<String>();
        if suppressing {
            return vec![self.suppressions.put(&self.entry(event, &recipient, "bounce in the session", &note()))];
        }
        let at = config.bounces.soft_limit;
        if acts && verdict.soft && at > 0 {
            let entry = self.suppressions.put(&self.entry(event, &recipient, "soft bounces", &note()));
            let (key, within) = (soft_key(&event.tenant, &recipient), config.bounces.soft_within.0);
            return vec![Change::Tally { key, at, within, changes: vec![entry] }];
        }
        Vec::new()
    }

    fn entry(&self, event: &Event, recipient: &Mailbox, source: &str, note: &str) -> Entry {
        let scope = Scope::Tenant(event.tenant.clone());
        let mut entry = self.suppressions.entry(scope, Reason::HardBounce, recipient, source);
        entry.note = note.into();
        entry
    }

    /// The return path of one recipient at this domain.
    pub fn return_path(
        &self,
        domain: &Domain,
        envelope: &Envelope,
        recipient: &Mailbox,
        now: Timestamp,
    ) -> ReversePath {
        let path = ReturnPath::of(envelope.id, recipient);
        ReversePath::Mailbox(self.links.return_path(&envelope.tenant, domain, path, now))
    }
}

/// Whether an event is about a test send.
pub fn is_test(event: &Event) -> bool {
    event.campaign.is_none() && event.tags.iter().any(|tag| tag.as_str() == TEST_TAG)
}

/// What soft bounces of an address are counted under.
pub fn soft_key(tenant: &Name, recipient: &Mailbox) -> Vec<u8> {
    [b"soft/", address_hash(recipient).as_slice(), tenant.as_str().as_bytes()].concat()
}

/// What was refused, by the name of the state that delivery gives it.
fn phase_of(stage: &str) -> Option<Phase> {
    let has = |word: &str| stage.contains(word);
    match () {
        () if has("RCPT") => Some(Phase::Rcpt),
        () if has("MAIL") => Some(Phase::Mail),
        () if has("DATA") || has("BDAT") || has("message") => Some(Phase::Data),
        () if has("connect") || has("greeting") || has("EHLO") || has("HELO") || has("TLS") || has("AUTH") => {
            Some(Phase::Connect)
        }
        () => None,
    }
}
