//! SendGrid's event webhook: an array of flat objects; the submitter's own data stands among the fields, as there.

use serde_json::Value;

use super::{Object, event_id, metadata, why};
use crate::event::{Event, EventKind};

pub(super) fn object(event: &Event) -> Option<Value> {
    let (name, kind) = match event.event {
        EventKind::Accepted => ("processed", None),
        EventKind::Delivered => ("delivered", None),
        EventKind::Deferred => ("deferred", None),
        // `blocked` is SendGrid's word for a refusal that is not the address's fault.
        EventKind::Bounced => {
            let blames_address = matches!(event.fault.as_deref(), None | Some("recipient" | "domain"));
            ("bounce", Some(if blames_address { "bounce" } else { "blocked" }))
        }
        EventKind::Expired | EventKind::Failed => ("bounce", Some("blocked")),
        EventKind::Suppressed | EventKind::Rejected | EventKind::RenderingFailed => ("dropped", None),
        EventKind::Complained => ("spamreport", None),
        EventKind::Opened => ("open", None),
        EventKind::Clicked => ("click", None),
        EventKind::Unsubscribed => ("unsubscribe", None),
        _ => return None,
    };
    // The submitter's data first: what the form itself says wins.
    let mut out = Object(metadata(event).unwrap_or_default());
    out.put_some("email", event.recipient.as_ref().map(ToString::to_string));
    out.put("timestamp", event.timestamp.as_secs());
    out.put("event", name);
    out.put("sg_event_id", event_id(event));
    out.put_some("sg_message_id", event.message_id.map(|id| id.to_string()));
    out.put_some("smtp-id", event.message_id.map(|id| format!("<{id}>")));
    let tags: Vec<&str> = event.tags.iter().map(|tag| tag.as_str()).collect();
    if !tags.is_empty() {
        out.put("category", tags);
    }
    out.put_some("type", kind);
    let said = why(event);
    if !said.is_empty() {
        let field = if matches!(name, "delivered" | "deferred") { "response" } else { "reason" };
        out.put(field, said);
    }
    out.put_some("status", event.smtp.as_ref().and_then(|reply| reply.enhanced.as_deref()));
    out.put_some("bounce_classification", event.category.as_deref().filter(|_| name == "bounce"));
    // A text, as there.
    out.put_some("attempt", event.attempt.map(|attempt| attempt.to_string()));
    out.put_some("ip", event.source_ip.map(|ip| ip.to_string()));
    if matches!(name, "delivered" | "bounce" | "deferred") {
        out.put("tls", u8::from(event.tls.is_some()));
    }
    Some(out.into())
}
