//! What an operator reads: the values, the likely cause, what to do.

use std::time::Duration;

use super::judge::{Finding, Level};
use super::{AlertName, Disk, FailingEndpoint, Held, Overdue, Stopped};
use crate::config::HumanDuration;
use crate::types::{Name, Timestamp};

/// A finding with its texts; `detail` is what the texts of its kind name.
pub(super) fn explained(
    name: AlertName,
    subject: String,
    tenant: Option<Name>,
    level: Level,
    summary: String,
    detail: &[&str],
) -> Finding {
    let (cause, fix) = texts(name, |at| detail.get(at).copied().unwrap_or(""));
    Finding { name, subject, tenant, level, after: Duration::ZERO, since: None, summary, cause, fix }
}

/// The likely cause and the fix.
fn texts<'a>(name: AlertName, detail: impl Fn(usize) -> &'a str) -> (String, String) {
    let (first, second, third) = (detail(0), detail(1), detail(2));
    match name {
        AlertName::BounceRate => (
            "A list with old, bought or mistyped addresses; or a provider that refuses the sender, which shows in the categories of the events."
                .into(),
            format!(
                "See what was refused: posthaste events tail --tenant {first} --event bounced. Pause the campaign that it comes from \
                 (posthaste campaign list, posthaste campaign pause), and clean its list before it goes on; where the provider names a block list \
                 or a policy, ask there."
            ),
        ),
        AlertName::ComplaintRate => (
            "Mail to people who did not ask for it or forgot that they did, too much of it, or an unsubscribe link that is hard to find."
                .into(),
            format!(
                "See which campaign is complained about: posthaste events tail --tenant {first} --event complained. Pause it. Providers block senders \
                 above 0.3 %; send to those who opened or clicked lately first."
            ),
        ),
        AlertName::DeferralRate => (
            format!("{second} slows {first} down: more mail than its reputation allows, a new address, or content that it distrusts."),
            "See what it answers: posthaste events tail --event deferred. The controller slows down by itself; send less there or spread it over \
             more sources (pools), and see posthaste queue explain for what holds now."
                .into(),
        ),
        AlertName::QueueAge => (
            match second {
                "" => "More mail than can be sent to this domain, or a daemon that is overloaded.".into(),
                held => format!("It waits for: {held}."),
            },
            format!("posthaste queue explain --domain {first} says which limit, and where it is set."),
        ),
        AlertName::DiskFree => (
            "A backlog that grows, a long retention of events, or something else on the same disk.".into(),
            "Free space under data_dir, or shorten storage.event_retention; posthaste queue summary shows the backlog. Below storage.min_free intake \
             refuses mail."
                .into(),
        ),
        AlertName::SourceHeld => (
            format!("{second} refuses {first} for now: {third}"),
            "posthaste queue explain shows the hold and the rule behind it. Read the provider's reply; where it names a block list, ask there to be \
             taken off before more is sent. It goes on when the hold ends, or by posthaste queue retry."
                .into(),
        ),
        AlertName::MailStopped => (
            "A reply that a rule takes for final until somebody looked: mostly a block of the sender.".into(),
            format!("Settle what the reply asks for, then: posthaste queue resume --id {first}."),
        ),
        AlertName::WebhookFailing => (
            "The receiver is down, refuses the request, or its address or certificate changed.".into(),
            format!("posthaste webhook test {first} tries it once. Nothing is lost: events wait in the log as long as they are kept."),
        ),
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

pub(super) fn share(name: AlertName, part: u64, whole: u64, limit: f64, window: HumanDuration) -> String {
    let share = part as f64 / whole.max(1) as f64;
    let what = match name {
        AlertName::BounceRate => "recipients bounced",
        AlertName::ComplaintRate => "delivered mails were complained about",
        _ => "attempts were deferred",
    };
    // A complaint in a thousand is much: one digit more.
    let (share, limit) = match name {
        AlertName::ComplaintRate => (format!("{:.2} %", share * 100.0), format!("{:.2} %", limit * 100.0)),
        _ => (percent(share), percent(limit)),
    };
    format!("{part} of {whole} {what} within {window}: {share}, threshold {limit}")
}

pub(super) fn overdue(overdue: &Overdue, age: Duration, limit: HumanDuration) -> String {
    let Overdue { tenant, domain, count, .. } = overdue;
    format!("mail of {tenant} to {domain} is due for {} ({count} recipients), threshold {limit}", minutes(age))
}

pub(super) fn disk(disk: Disk, limit: f64) -> String {
    let share = disk.free as f64 / disk.total.max(1) as f64;
    format!("{} of the disk ({} MiB) are free, threshold {}", percent(share), disk.free >> 20, percent(limit))
}

pub(super) fn held(held: &Held) -> String {
    let until = match held.until {
        Timestamp::NEVER => "an operator goes on".to_owned(),
        until => until.to_string(),
    };
    format!("{} sends nothing to {} until {until}: {}", held.source, held.provider, held.reason)
}

pub(super) fn stopped(stopped: &Stopped) -> String {
    format!("suspension {}: {}", stopped.id, stopped.reason)
}

pub(super) fn webhook(hook: &FailingEndpoint, now: Timestamp) -> String {
    format!("webhook {} takes nothing for {}: {}", hook.name, minutes(now.since(hook.since)), hook.error)
}

/// A duration in whole minutes, or seconds where it is less.
fn minutes(age: Duration) -> HumanDuration {
    let seconds = age.as_secs();
    HumanDuration::secs(if seconds < 60 { seconds } else { seconds / 60 * 60 })
}
