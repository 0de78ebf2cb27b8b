//! listmonk's `POST /webhooks/bounce`: bounces and complaints of its subscribers.
//!
//! `type` is `hard`, `soft` or `complaint`; listmonk's own settings say after how many of each something is done. A deferral is none: it is still tried.

use serde_json::Value;

use super::{Object, event_id, is_permanent, why};
use crate::event::{Event, EventKind};

pub(super) fn object(event: &Event) -> Option<Value> {
    let kind = match event.event {
        EventKind::Bounced if is_permanent(event) => "hard",
        EventKind::Bounced | EventKind::Expired => "soft",
        EventKind::Complained => "complaint",
        _ => return None,
    };
    let mut out = Object::default();
    out.put("email", event.recipient.as_ref()?.to_string());
    // listmonk names its campaigns by UUID and looks them up by it; another name would make it refuse the bounce.
    let uuid = event.campaign.as_ref().and_then(|name| name.as_str().parse::<uuid::Uuid>().ok());
    out.put_some("campaign_uuid", uuid.map(|uuid| uuid.to_string()));
    out.put("source", "posthaste");
    out.put("type", kind);
    let mut meta = Object::default();
    meta.put("id", event_id(event));
    meta.put("timestamp", event.timestamp.to_string());
    meta.put("reply", why(event));
    meta.put_some("message_id", event.message_id.map(|id| id.to_string()));
    meta.put_some("campaign", event.campaign.as_ref().map(|name| name.as_str()));
    meta.put_some("category", event.category.as_deref());
    // A text with JSON in it: so its documentation has it.
    out.put("meta", Value::from(meta).to_string());
    Some(out.into())
}
