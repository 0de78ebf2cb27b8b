//! Everything that happened to one recipient, oldest first, for people.

use serde::{Deserialize, Serialize};

use super::text::clean;
use crate::event::Event;
use crate::types::EventSeq;

/// The events of one address.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Timeline {
    /// The address.
    pub address: String,
    /// What happened, oldest first.
    pub events: Vec<Event>,
    /// The `after` of the next page, where there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next: Option<EventSeq>,
    /// Whether there are older events than those that are looked at.
    pub truncated: bool,
}

/// What an event says, in one line: the reply, or the reason.
pub fn words(event: &Event) -> String {
    let mut words = Vec::new();
    words.extend(event.provider.as_ref().map(|p| format!("[{p}]")));
    words.extend(event.category.as_ref().map(|c| format!("({c})")));
    words.extend(event.smtp.as_ref().map(ToString::to_string).or_else(|| event.reason.as_deref().map(str::to_owned)));
    if event.suppress == Some(true) {
        words.push("→ suppressed from now on".into());
    }
    if event.late == Some(true) {
        words.push("(by mail)".into());
    }
    clean(&words.join(" "))
}

/// As lines for a terminal.
pub fn render(timeline: &Timeline) -> String {
    let mut out = format!("{}: {} events\n", clean(&timeline.address), timeline.events.len());
    if timeline.truncated {
        out.push_str("older events are not shown\n");
    }
    for event in &timeline.events {
        let campaign = event.campaign.as_ref().map_or("-", |c| c.as_str());
        let line = format!(
            "{}  {:<16} {:<12} {:<16} {}",
            event.timestamp.rfc3339(),
            event.event.as_str(),
            event.tenant,
            campaign,
            words(event)
        );
        out.push_str(line.trim_end());
        out.push('\n');
    }
    if let Some(next) = timeline.next {
        out.push_str(&format!("… and more: --after {}\n", next.0));
    }
    out
}
