//! Mailgun's webhooks: `{"signature": {…}, "event-data": {…}}`, one event a request.
//!
//! The signature in the body is the hexadecimal HMAC-SHA256 of timestamp and token under the signing key: here the text of the first secret.

use serde_json::{Value, json};

use super::{Object, event_id, is_permanent, metadata, why};
use crate::config::WebhookSecret;
use crate::event::{Event, EventKind};
use crate::seam::random;
use crate::types::Timestamp;
use crate::webhook::sign::hmac_sha256;

pub(super) fn object(event: &Event) -> Option<Value> {
    let name = match event.event {
        EventKind::Accepted => "accepted",
        EventKind::Rejected => "rejected",
        EventKind::Delivered => "delivered",
        EventKind::Deferred
        | EventKind::Bounced
        | EventKind::Failed
        | EventKind::Expired
        | EventKind::Suppressed
        | EventKind::RenderingFailed => "failed",
        EventKind::Complained => "complained",
        EventKind::Opened => "opened",
        EventKind::Clicked => "clicked",
        EventKind::Unsubscribed => "unsubscribed",
        _ => return None,
    };
    let mut out = Object::default();
    out.put("event", name);
    out.put("id", event_id(event));
    out.put("timestamp", event.timestamp.as_millis() as f64 / 1_000.0);
    out.put_some("recipient", event.recipient.as_ref().map(ToString::to_string));
    out.put_some("recipient-domain", event.domain.as_ref().map(|domain| domain.as_str()));
    if name == "failed" {
        let temporary = event.event == EventKind::Deferred || !is_permanent(event);
        out.put("severity", if temporary { "temporary" } else { "permanent" });
        out.put(
            "reason",
            match event.event {
                EventKind::Bounced => "bounce",
                EventKind::Expired => "old",
                EventKind::Suppressed => "suppress-bounce",
                _ => "generic",
            },
        );
    }
    out.put(
        "log-level",
        match name {
            "failed" if event.event != EventKind::Deferred => "error",
            "failed" | "complained" | "rejected" => "warn",
            _ => "info",
        },
    );
    if matches!(name, "failed" | "delivered") {
        out.put("delivery-status", delivery_status(event));
    }
    let mut headers = Object::default();
    headers.put_some("message-id", event.message_id.map(|id| id.to_string()));
    headers.put_some("from", event.sender.as_deref());
    let mut message = json!({ "headers": Value::from(headers), "attachments": [] });
    if let Some(size) = event.size {
        message["size"] = size.into();
    }
    out.put("message", message);
    let mut envelope = Object::default();
    envelope.put("transport", "smtp");
    envelope.put_some("sender", event.sender.as_deref());
    envelope.put_some("sending-ip", event.source_ip.map(|ip| ip.to_string()));
    envelope.put_some("targets", event.recipient.as_ref().map(ToString::to_string));
    out.put("envelope", Value::from(envelope));
    out.put("tags", event.tags.iter().map(|tag| tag.as_str()).collect::<Vec<_>>());
    let campaigns: Vec<Value> =
        event.campaign.iter().map(|name| json!({ "id": name.as_str(), "name": name.as_str() })).collect();
    out.put("campaigns", campaigns);
    out.put("user-variables", metadata(event).unwrap_or_default());
    Some(out.into())
}

fn delivery_status(event: &Event) -> Value {
    let mut status = Object::default();
    status.put_some("attempt-no", event.attempt);
    status.put("code", event.smtp.as_ref().map_or(0, |reply| reply.code));
    status.put_some("enhanced-code", event.smtp.as_ref().and_then(|reply| reply.enhanced.as_deref()));
    status.put("message", why(event));
    status.put("description", event.category.as_deref().unwrap_or_default());
    status.put_some("mx-host", event.mx.as_deref());
    status.put("tls", event.tls.is_some());
    status.put_some("retry-seconds", event.retry_at.map(|at| at.since(event.timestamp).as_secs()));
    status.into()
}

pub(super) fn body(piece: &[u8], secrets: &[WebhookSecret], now: Timestamp) -> Vec<u8> {
    let mut octets = [0_u8; 25];
    random::fill(&mut octets);
    let token = data_encoding::HEXLOWER.encode(&octets);
    let timestamp = now.as_secs().to_string();
    let key = secrets.first().map_or(b"".as_slice(), |secret| secret.text.as_bytes());
    let tag = data_encoding::HEXLOWER.encode(&hmac_sha256(key, &[timestamp.as_bytes(), token.as_bytes()]));
    let head = format!(
        "{{\"signature\":{{\"timestamp\":\"{timestamp}\",\"token\":\"{token}\",\"signature\":\"{tag}\"}},\"event-data\":"
    );
    [head.as_bytes(), piece, b"}"].concat()
}
