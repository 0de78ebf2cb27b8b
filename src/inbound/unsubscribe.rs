//! An unsubscribe by its token, whether it came by a link or by mail.

use crate::event::{Event, EventKind};
use crate::links::UnsubscribeToken;
use crate::seam::clock::Clock;
use crate::store::Change;
use crate::suppression::{Reason, Scope, SuppressionError, Suppressions};
use crate::types::{Class, Name};

/// How an unsubscribe came.
#[derive(Clone, Debug)]
pub struct Unsubscribed<'a> {
    /// What the token says.
    pub token: &'a UnsubscribeToken,
    /// The campaign of its mail, where it is known.
    pub campaign: Option<Name>,
    /// By what: `one-click`, `page` or `mail`; in the event's reason.
    pub how: &'static str,
    /// `link` or `mail`; in the event's `via`.
    pub via: &'static str,
    /// What stands as the source of the entry.
    pub source: &'static str,
}

/// Stores an unsubscribe and its event together; `false` when it is there already.
///
/// # Errors
/// The store can't be read or written: nothing changed.
pub async fn unsubscribe(
    suppressions: &Suppressions,
    clock: &Clock,
    said: Unsubscribed<'_>,
) -> Result<bool, SuppressionError> {
    let Unsubscribed { token, campaign, how, via, source } = said;
    let scope = Scope::of(token.tenant.clone(), token.list.clone());
    if suppressions.find(&scope, Reason::Unsubscribe, &token.address).await?.is_some() {
        return Ok(false);
    }
    let mut entry = suppressions.entry(scope, Reason::Unsubscribe, &token.address, source);
    if let Some(campaign) = &campaign {
        entry.note = format!("campaign {campaign}").into();
    }
    let mut event = Event::new(EventKind::Unsubscribed, clock.now(), token.tenant.clone());
    event.message_id = token.message;
    event.campaign = campaign;
    event.class = Some(Class::Marketing);
    event.domain = Some(token.address.domain().clone());
    event.recipient = Some(token.address.clone());
    event.reason = Some(match &token.list {
        Some(list) => format!("{how}, list {list}").into(),
        None => how.into(),
    });
    event.via = Some(via.into());
    suppressions.submit(vec![suppressions.put(&entry), Change::Event(Box::new(event))]).await?;
    Ok(true)
}
