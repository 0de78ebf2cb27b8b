//! What the events say of the cause: which kinds of bounces, complaints or deferrals there were most of.

use std::collections::BTreeMap;

use super::{Alert, AlertName};
use crate::event::{Event, EventKind};

/// The kinds that are named.
const NAMED_MAX: usize = 3;
/// The longest name of a kind, in characters.
const KIND_MAX: usize = 60;

/// A sentence about the kinds of events behind an alert, as "Of the last 40 bounces: bad-mailbox 92 %, spam-related 8 %."; `None` for alerts of
/// other things, and where there are none.
pub fn tally(alert: &Alert, events: &[Event]) -> Option<String> {
    let (kind, word) = match alert.name {
        AlertName::BounceRate => (EventKind::Bounced, "bounces"),
        AlertName::ComplaintRate => (EventKind::Complained, "complaints"),
        AlertName::DeferralRate => (EventKind::Deferred, "deferrals"),
        AlertName::QueueAge
        | AlertName::DiskFree
        | AlertName::SourceHeld
        | AlertName::MailStopped
        | AlertName::WebhookFailing => return None,
    };
    let is_about = |event: &&Event| {
        let of_path = || {
            let source = event.source.as_ref().map_or("", |source| source.as_str());
            format!("{source} to {}", event.provider.as_deref().unwrap_or("")) == alert.subject
        };
        event.event == kind && alert.tenant.as_ref().map_or_else(of_path, |tenant| event.tenant == *tenant)
    };
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for event in events.iter().filter(is_about) {
        *kinds.entry(kind_of(alert.name, event)).or_default() += 1;
    }
    let all: usize = kinds.values().sum();
    let mut kinds: Vec<(String, usize)> = kinds.into_iter().collect();
    kinds.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let named: Vec<String> =
        kinds.iter().take(NAMED_MAX).map(|(kind, n)| format!("{kind} {} %", (n * 100).div_ceil(all))).collect();
    (all > 0).then(|| format!("Of the last {all} {word}: {}.", named.join(", ")))
}

/// By what events are told apart: complaints by the campaign that they are about, deferrals by what the peer said, bounces by their category.
fn kind_of(name: AlertName, event: &Event) -> String {
    let category = || event.category.as_deref().unwrap_or("other").to_owned();
    let said = || event.smtp.as_ref().map(|reply| reply.to_string()).filter(|reply| !reply.is_empty());
    let kind = match name {
        AlertName::ComplaintRate => {
            event.campaign.as_ref().map_or_else(|| "no campaign".to_owned(), |c| format!("campaign {c}"))
        }
        AlertName::DeferralRate => said().map_or_else(category, |reply| format!("{reply:?}")),
        _ => category(),
    };
    kind.chars().take(KIND_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::AlertState;
    use crate::event::SmtpReply;
    use crate::types::{Name, Timestamp};

    fn name(text: &str) -> Name {
        Name::parse(text).expect("a name")
    }

    fn event(kind: EventKind, tenant: &str, category: &str) -> Event {
        let mut event = Event::new(kind, Timestamp::ZERO, name(tenant));
        event.category = Some(category.into());
        event.source = Some(name("ip1"));
        event.provider = Some("google".into());
        event.smtp = Some(SmtpReply { code: 421, enhanced: Some("4.7.28".into()), text: "slow down".into() });
        event
    }

    fn alert(name: AlertName, subject: &str, tenant: Option<&str>) -> Alert {
        let tenant = tenant.map(self::name);
        let text = String::new;
        let (state, since) = (AlertState::Firing, Timestamp::ZERO);
        Alert {
            name,
            state,
            subject: subject.into(),
            tenant,
            since,
            told: None,
            summary: text(),
            cause: text(),
            fix: text(),
        }
    }

    #[test]
    fn tells_what_there_is_most_of_and_of_nobody_else() {
        let mut events = vec![event(EventKind::Bounced, "acme", "bad-mailbox"); 3];
        events.push(event(EventKind::Bounced, "acme", "spam-related"));
        events.extend(vec![event(EventKind::Bounced, "other", "quota-issues"); 9]);
        events.push(event(EventKind::Deferred, "acme", "rate"));
        let told = |a: Alert| tally(&a, &events);
        assert_eq!(
            told(alert(AlertName::BounceRate, "acme", Some("acme"))).as_deref(),
            Some("Of the last 4 bounces: bad-mailbox 75 %, spam-related 25 %.")
        );
        assert_eq!(
            told(alert(AlertName::DeferralRate, "ip1 to google", None)).as_deref(),
            Some("Of the last 1 deferrals: \"421 4.7.28 slow down\" 100 %.")
        );
        assert_eq!(told(alert(AlertName::DeferralRate, "ip2 to google", None)), None);
        assert_eq!(told(alert(AlertName::ComplaintRate, "acme", Some("acme"))), None);
        assert_eq!(told(alert(AlertName::DiskFree, "node", None)), None);
    }
}
