//! The accounting file: the columns of PowerMTA's `acct.csv`, which deliverability tools read (RFC 4180, with a header line).

use std::collections::HashMap;
use std::net::IpAddr;

use super::human::time;
use crate::event::{Event, EventKind};
use crate::types::MessageId;

/// The columns.
pub const HEADER: &str = "type,timeLogged,timeQueued,orig,rcpt,orcpt,dsnAction,dsnStatus,dsnDiag,dsnMta,bounceCat,srcType,srcMta,\
dlvType,dlvSourceIp,dlvDestinationIp,dlvEsmtpAvailable,dlvSize,vmta,jobId,envId";

/// The most messages whose sender is remembered; the oldest half is forgotten then, and `orig` stays empty for those.
const SENDERS_MAX: usize = 200_000;

/// Writes rows; remembers from `accepted` what later events of a message lack.
#[derive(Default)]
pub struct Accounting {
    accepted: HashMap<MessageId, Origin>,
}

struct Origin {
    sender: String,
    via: String,
    client: String,
}

impl Accounting {
    /// The row of an event; `None` where the file has no type for it.
    pub fn row(&mut self, event: &Event) -> Option<String> {
        if event.event == EventKind::Accepted
            && let Some(id) = event.message_id
        {
            self.remember(id, event);
        }
        let kind = match (event.event, event.remote) {
            (EventKind::Accepted, _) => "r",
            (EventKind::Delivered, _) => "d",
            (EventKind::Deferred, _) => "t",
            // Remote bounces came back later as a message; in the session the reply is there.
            (EventKind::Bounced, Some(true)) if event.late == Some(true) || event.smtp.is_none() => "rb",
            (EventKind::Bounced | EventKind::Failed | EventKind::Expired, _) => "b",
            (EventKind::Complained, _) => "f",
            (
                EventKind::Rejected
                | EventKind::Delayed
                | EventKind::Suppressed
                | EventKind::RenderingFailed
                | EventKind::Cancelled
                | EventKind::Purged
                | EventKind::Rerouted
                | EventKind::Opened
                | EventKind::Clicked
                | EventKind::Unsubscribed
                | EventKind::AutoReplied
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
                | EventKind::Gap,
                _,
            ) => return None,
        };
        let text = |t: Option<&str>| t.unwrap_or_default().to_owned();
        let origin = event.message_id.and_then(|id| self.accepted.get(&id));
        let orig = text(event.sender.as_deref().or(origin.map(|o| o.sender.as_str())));
        let (status, diagnostic) = status(event);
        let action = match kind {
            "d" => "relayed",
            "t" => "delayed",
            "b" | "rb" => "failed",
            _ => "",
        };
        let destination = event.mx.as_deref().and_then(address_in).map(|ip| ip.to_string()).unwrap_or_default();
        let fields = [
            kind.to_owned(),
            time(event.timestamp),
            event.message_id.map(|id| time(id.timestamp())).unwrap_or_default(),
            orig,
            event.recipient.as_ref().map(|r| r.to_string()).unwrap_or_default(),
            String::new(),
            action.to_owned(),
            status.clone(),
            diagnostic,
            text(event.mx.as_deref()),
            if matches!(kind, "b" | "rb") { category(event, &status).to_owned() } else { String::new() },
            text(event.via.as_deref().or(origin.map(|o| o.via.as_str()))),
            text(event.client.as_deref().or(origin.map(|o| o.client.as_str()))),
            if event.mx.is_some() { "smtp".into() } else { String::new() },
            event.source_ip.map(|ip| ip.to_string()).unwrap_or_default(),
            destination,
            String::new(),
            event.size.map(|s| s.to_string()).unwrap_or_default(),
            text(event.source.as_ref().or(event.pool.as_ref()).map(|n| n.as_str())),
            text(event.campaign.as_ref().map(|c| c.as_str())),
            event.message_id.map(|id| id.to_string()).unwrap_or_default(),
        ];
        Some(fields.iter().map(|f| quoted(f)).collect::<Vec<_>>().join(","))
    }

    fn remember(&mut self, id: MessageId, event: &Event) {
        if self.accepted.len() >= SENDERS_MAX {
            let mut ids: Vec<MessageId> = self.accepted.keys().copied().collect();
            ids.sort_unstable();
            ids.iter().take(SENDERS_MAX / 2).for_each(|id| drop(self.accepted.remove(id)));
        }
        let text = |t: &Option<Box<str>>| t.as_deref().unwrap_or_default().to_owned();
        let origin = Origin { sender: text(&event.sender), via: text(&event.via), client: text(&event.client) };
        self.accepted.insert(id, origin);
    }
}

/// `dsnStatus` and `dsnDiag`.
fn status(event: &Event) -> (String, String) {
    match &event.smtp {
        Some(reply) if reply.code != 0 => {
            let guess = || format!("{}.0.0", reply.code / 100);
            let status = reply.enhanced.as_deref().map_or_else(guess, str::to_owned);
            (status, format!("smtp;{} {}", reply.code, reply.text))
        }
        Some(reply) => (of_kind(event.event).into(), reply.text.to_string()),
        None => (of_kind(event.event).into(), event.reason.as_deref().unwrap_or_default().to_owned()),
    }
}

/// The status where no peer gave one (RFC 3463).
fn of_kind(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Delivered => "2.0.0",
        EventKind::Deferred => "4.4.1",
        EventKind::Expired => "4.4.7",
        EventKind::Bounced | EventKind::Failed => "5.0.0",
        _ => "",
    }
}

/// The category of a bounce, by its status (RFC 3463 §3).
fn category(event: &Event, status: &str) -> &'static str {
    if event.event == EventKind::Expired {
        return "message-expired";
    }
    let text = event.smtp.as_ref().map(|r| r.text.to_ascii_lowercase()).unwrap_or_default();
    if text.contains("spam") || text.contains("blacklist") || text.contains("blocklist") {
        return "spam-related";
    }
    match status.split_once('.').map_or("", |(_, rest)| rest) {
        "1.1" | "1.0" | "1.3" | "1.6" => "bad-mailbox",
        "1.2" | "1.10" => "bad-domain",
        "1.7" | "1.8" => "invalid-sender",
        "2.1" => "inactive-mailbox",
        "2.2" | "2.3" => "quota-issues",
        "4.1" | "4.2" => "no-answer-from-host",
        "4.3" | "4.4" | "4.6" => "routing-errors",
        rest if rest.starts_with("5.") => "protocol-errors",
        rest if rest.starts_with("6.") => "content-related",
        rest if rest.starts_with("7.") => "policy-related",
        _ => "other",
    }
}

/// The address in `mx.example.com [192.0.2.1]`, or in any form that sets it apart.
fn address_in(mx: &str) -> Option<IpAddr> {
    mx.split(|c: char| !(c.is_ascii_hexdigit() || c == '.' || c == ':')).find_map(|part| {
        let bare = part.trim_matches(':');
        part.parse()
            .ok()
            .or_else(|| bare.parse().ok())
            .or_else(|| Some(bare.parse::<std::net::SocketAddr>().ok()?.ip()))
    })
}

/// RFC 4180 §2: quoted where it has a comma or a quote; line ends and other controls are gone before.
fn quoted(field: &str) -> String {
    let field = super::out::printable(field);
    if field.contains([',', '"']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field }
}
