//! Events become cells: pure, and the same however the log is cut into pieces.
//!
//! 1. Of an event only what counts is read, in place: no event is made of it,
//! 2. it is counted once, under all that tells it apart ([`Base`]): most events of a second share a handful of these,
//! 3. [`Fold::take`] gives each base out to the cells that it belongs to: three resolutions, each with the scopes and splits.

use std::borrow::Cow;
use std::hash::Hash;

use ahash::{AHashMap, RandomState};
use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};

use super::cell::{Cell, Counter, Reply};
use super::key::{Key, Resolution, Split, put_campaign, put_label, put_tenant};
use super::mask;
use crate::event::EventKind;
use crate::types::{MessageId, RowId, Timestamp};

/// What stands for no name: an outcome without a provider or a source.
pub const NONE: &str = "(none)";

/// The most groups of replies that are told apart before they are written; the rest counts as `(other)`.
const REPLIES_MAX: usize = 2_000;

/// What stands for names beyond the bound.
pub(super) const OTHER: &str = "(other)";

/// A text in place where it has no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        d.deserialize_str(Visitor)
    }
}

/// Of an event what counts.
#[derive(Deserialize)]
struct Slim<'a> {
    event: EventKind,
    timestamp: Timestamp,
    #[serde(borrow)]
    tenant: Text<'a>,
    #[serde(borrow, default)]
    message_id: Option<Text<'a>>,
    #[serde(default)]
    recipients: Option<u32>,
    #[serde(borrow, default)]
    campaign: Option<Text<'a>>,
    #[serde(borrow, default)]
    domain: Option<Text<'a>>,
    #[serde(borrow, default)]
    provider: Option<Text<'a>>,
    #[serde(borrow, default)]
    source: Option<Text<'a>>,
    #[serde(borrow, default)]
    smtp: Option<SlimReply<'a>>,
    #[serde(borrow, default)]
    reason: Option<Text<'a>>,
    #[serde(borrow, default)]
    category: Option<Text<'a>>,
    #[serde(default)]
    late: Option<bool>,
    #[serde(default)]
    took_ms: Option<u64>,
}

#[derive(Deserialize)]
struct SlimReply<'a> {
    code: u16,
    #[serde(borrow, default)]
    enhanced: Option<Text<'a>>,
    #[serde(borrow)]
    text: Text<'a>,
}

fn text<'t>(value: &'t Option<Text<'_>>) -> &'t str {
    value.as_ref().map_or("", |text| &text.0)
}

/// All that tells events apart.
#[derive(PartialEq, Eq, Hash)]
struct Place<S> {
    bucket: u32,
    tenant: S,
    /// The campaign that it names; empty for none.
    label: S,
    /// The number of the campaign whose row it is about.
    no: Option<u32>,
    /// Of one recipient, so it has what follows; or of a whole message.
    one: bool,
    provider: S,
    source: S,
    domain: S,
}

/// What was counted in one place.
struct Base {
    place: Place<Box<str>>,
    cell: Cell,
    /// Groups of replies by their names.
    replies: AHashMap<Box<str>, Cell>,
}

/// A cell to be added to what is stored.
pub(super) struct Delta {
    pub(super) split: Split,
    pub(super) name: String,
    pub(super) cell: Cell,
}

/// Counts events until it is written.
#[derive(Default)]
pub struct Fold {
    hashes: RandomState,
    by_hash: AHashMap<u64, usize>,
    bases: Vec<Base>,
    replies: usize,
}

impl Fold {
    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.bases.is_empty()
    }

    /// Counts an event, given as the JSON of the log. An error is what JSON says.
    pub fn event(&mut self, json: &[u8]) -> Result<(), serde_json::Error> {
        let event: Slim<'_> = serde_json::from_slice(json)?;
        let Some((counter, one)) = counter_of(event.event, event.late == Some(true)) else { return Ok(()) };
        let at = event.timestamp.as_millis();
        let message = event.message_id.as_ref().and_then(|id| id.0.parse::<MessageId>().ok());
        let row = message.and_then(RowId::of);
        let place = Place {
            bucket: Resolution::FiveMinutes.bucket(at),
            tenant: &*event.tenant.0,
            label: text(&event.campaign),
            no: row.map(|row| row.campaign.0),
            one,
            provider: if one { text(&event.provider) } else { "" },
            source: if one { text(&event.source) } else { "" },
            domain: if one { text(&event.domain) } else { "" },
        };
        let template = is_failure(event.event).then(|| reply_of(&event));
        let room = self.replies < REPLIES_MAX;
        let base = self.base(&place);
        base.cell.add(counter, if one { 1 } else { u64::from(event.recipients.unwrap_or(1)) });
        if counter == Counter::Delivered {
            let submitted =
                || message.filter(|_| row.is_none()).map(|id| at.saturating_sub(id.timestamp().as_millis()));
            if let Some(ms) = event.took_ms.or_else(submitted) {
                base.cell.times.add(ms);
            }
        }
        if is_failure(event.event) {
            let class = base.cell.class(event.category.as_ref().map_or("other", |c| &c.0));
            match counter {
                Counter::Bounced => class.bounced += 1,
                Counter::LateBounced => class.late += 1,
                Counter::Deferred => class.deferred += 1,
                _ => {}
            }
        }
        let mut made = 0;
        if let Some((name, reply)) = template.flatten() {
            let known = base.replies.contains_key(&*name);
            let name = if known || room { name } else { OTHER.into() };
            let cell = base.replies.entry(name).or_insert_with(|| {
                made = 1;
                Cell { reply: Some(Box::new(reply)), ..Cell::default() }
            });
            cell.add(counter, 1);
        }
        self.replies += made;
        Ok(())
    }

    fn base(&mut self, place: &Place<&str>) -> &mut Base {
        let mut hash = self.hashes.hash_one(place);
        loop {
            match self.by_hash.get(&hash) {
                Some(at) if self.bases[*at].place.is(place) => return &mut self.bases[*at],
                // Another one with the same hash: the next one is looked at.
                Some(_) => hash = hash.wrapping_add(1),
                None => break,
            }
        }
        let at = self.bases.len();
        self.by_hash.insert(hash, at);
        self.bases.push(Base { place: place.owned(), cell: Cell::default(), replies: AHashMap::new() });
        &mut self.bases[at]
    }

    /// What is to be added to which cell; nothing is counted any more then.
    pub(super) fn take(&mut self) -> AHashMap<Key, Delta> {
        let mut cells = AHashMap::new();
        self.by_hash.clear();
        self.replies = 0;
        for base in self.bases.drain(..) {
            for resolution in Resolution::ALL {
                base.give_out(resolution, &mut cells);
            }
        }
        cells
    }
}

impl Base {
    fn give_out(&self, resolution: Resolution, cells: &mut AHashMap<Key, Delta>) {
        let place = &self.place;
        let ms = u64::from(place.bucket) * Resolution::FiveMinutes.ms();
        let bucket = resolution.bucket(ms);
        let mut scopes: [Option<Vec<u8>>; 3] = [Some(vec![b'a']), None, None];
        let mut tenant = Vec::new();
        put_tenant(&mut tenant, &place.tenant);
        scopes[1] = Some(tenant);
        scopes[2] = match place.no {
            Some(no) => {
                let mut scope = Vec::new();
                put_campaign(&mut scope, crate::types::CampaignNo(no));
                Some(scope)
            }
            None if !place.label.is_empty() => {
                let mut scope = Vec::new();
                put_label(&mut scope, &place.tenant, &place.label);
                Some(scope)
            }
            None => None,
        };
        let fine = resolution == Resolution::FiveMinutes;
        for (i, scope) in scopes.iter().enumerate() {
            let Some(scope) = scope else { continue };
            let mut add = |split: Split, name: &str, cell: &Cell| {
                let mut prefix = Vec::with_capacity(scope.len() + 6 + name.len());
                prefix.push(resolution.byte());
                prefix.extend_from_slice(scope);
                prefix.push(split.byte());
                let new = || Delta { split, name: name.to_owned(), cell: Cell::default() };
                cells.entry(Key::new(prefix, bucket, name)).or_insert_with(new).cell.merge(cell);
            };
            add(Split::Total, "", &self.cell);
            if fine {
                continue;
            }
            if i == 0 {
                add(Split::Tenant, &place.tenant, &self.cell);
            }
            if i == 1 && !place.label.is_empty() {
                add(Split::Campaign, &place.label, &self.cell);
            }
            if place.one {
                let or_none = |name: &str| if name.is_empty() { NONE.to_owned() } else { name.to_owned() };
                add(Split::Provider, &or_none(&place.provider), &self.cell);
                add(Split::Source, &or_none(&place.source), &self.cell);
                add(Split::Domain, &or_none(&place.domain), &self.cell);
            }
            for (name, cell) in &self.replies {
                let provider = if place.provider.is_empty() { NONE } else { &*place.provider };
                match &**name {
                    OTHER => add(Split::Reply, OTHER, cell),
                    name => add(Split::Reply, &format!("{provider}\0{name}"), cell),
                }
            }
        }
    }
}

impl Place<&str> {
    fn owned(&self) -> Place<Box<str>> {
        Place {
            bucket: self.bucket,
            tenant: self.tenant.into(),
            label: self.label.into(),
            no: self.no,
            one: self.one,
            provider: self.provider.into(),
            source: self.source.into(),
            domain: self.domain.into(),
        }
    }
}

impl Place<Box<str>> {
    fn is(&self, other: &Place<&str>) -> bool {
        self.bucket == other.bucket
            && self.no == other.no
            && self.one == other.one
            && *self.tenant == *other.tenant
            && *self.label == *other.label
            && *self.provider == *other.provider
            && *self.source == *other.source
            && *self.domain == *other.domain
    }
}

/// What an event counts as, and whether it is about one recipient; `None` for what no report counts. What a mail reported later does not end a
/// recipient a second time, as in the counts of a campaign.
fn counter_of(kind: EventKind, late: bool) -> Option<(Counter, bool)> {
    Some(match kind {
        EventKind::Accepted => (Counter::Accepted, false),
        EventKind::Rejected => (Counter::Rejected, false),
        EventKind::Deferred if late => (Counter::LateDeferred, true),
        EventKind::Deferred => (Counter::Deferred, true),
        EventKind::Delivered => (Counter::Delivered, true),
        EventKind::Bounced if late => (Counter::LateBounced, true),
        EventKind::Bounced => (Counter::Bounced, true),
        EventKind::Failed => (Counter::Failed, true),
        EventKind::Expired => (Counter::Expired, true),
        EventKind::Suppressed => (Counter::Suppressed, true),
        EventKind::RenderingFailed => (Counter::RenderingFailed, true),
        EventKind::Cancelled | EventKind::Purged => (Counter::Cancelled, true),
        EventKind::Complained => (Counter::Complained, true),
        EventKind::Opened => (Counter::Opened, true),
        EventKind::Clicked => (Counter::Clicked, true),
        EventKind::Unsubscribed => (Counter::Unsubscribed, true),
        EventKind::AutoReplied => (Counter::AutoReplied, true),
        EventKind::Delayed
        | EventKind::Rerouted
        | EventKind::Adapted
        | EventKind::WarmupChanged
        | EventKind::Alert
        | EventKind::Suspended
        | EventKind::Resumed
        | EventKind::CampaignStarted
        | EventKind::CampaignPaused
        | EventKind::CampaignResumed
        | EventKind::CampaignCancelled
        | EventKind::CampaignHalted
        | EventKind::CampaignDone
        | EventKind::Gap => return None,
    })
}

fn is_failure(kind: EventKind) -> bool {
    matches!(kind, EventKind::Deferred | EventKind::Bounced | EventKind::Failed | EventKind::Expired)
}

/// The group of an event's reply: a name that is the same for all that are alike, and how it is shown.
fn reply_of(event: &Slim<'_>) -> Option<(Box<str>, Reply)> {
    let reason = text(&event.reason);
    let (code, enhanced, words) = match &event.smtp {
        Some(reply) => (reply.code, text(&reply.enhanced), &*reply.text.0),
        None => (0, "", reason),
    };
    if words.is_empty() {
        return None;
    }
    let template = mask::template(words, text(&event.domain));
    let kind = event.event.as_str();
    let mut digest = Sha256::new();
    for part in [kind, &code.to_string(), enhanced, &template] {
        digest.update(part.as_bytes());
        digest.update([0]);
    }
    let name: String = digest.finalize()[..8].iter().map(|b| format!("{b:02x}")).collect();
    let reply = Reply {
        event: kind.into(),
        code,
        enhanced: enhanced.into(),
        template: template.into(),
        example: mask::example(words).into(),
        source: text(&event.source).into(),
        category: text(&event.category).into(),
    };
    Some((name.into(), reply))
}
