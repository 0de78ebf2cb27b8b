//! Recipients and replies in text that was written for people.
//!
//! An address that stands at a place for recipients begins a report, and the words up to the next one are about it: that is how nearly all mailers
//! write, whatever else they say. The addresses to which the bounce itself came, and those of machines, are none.

use std::sync::LazyLock;

use regex::Regex;

use super::mail::{Mail, get};
use super::{Found, REPORTS_MAX, codes};

/// The most lines of words that are kept of one recipient.
const LINES_MAX: usize = 40;

#[expect(clippy::expect_used, reason = "the patterns are constants, which the tests compile")]
fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a valid pattern")
}

/// The addresses in a text, in their order, without what stands around them.
pub fn addresses(text: &str) -> Vec<String> {
    static ADDRESS: LazyLock<Regex> = LazyLock::new(|| {
        pattern(
            r#"(?:"[^"\s]{1,64}"|[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\-]{1,128})@(?:[A-Za-z0-9](?:[A-Za-z0-9_.\-]{0,250}[A-Za-z0-9])?)"#,
        )
    });
    ADDRESS
        .find_iter(text)
        .map(|found| found.as_str().trim_start_matches(['.', '\'', '`', '=', '*', '/']).to_owned())
        .filter(|address| address.len() > 3 && !address.starts_with('@'))
        .collect()
}

/// Whether the mail says by itself that it is a bounce: then no sign of a machine's answer makes it one.
pub fn is_surely_bounce(mail: &Mail) -> bool {
    let from = mail.from.as_deref().unwrap_or_default().to_ascii_lowercase();
    let subject = mail.subject.as_deref().unwrap_or_default().to_ascii_lowercase();
    let by = ["mailer-daemon", "postmaster", "mail-daemon", "mailerdaemon", "maildaemon"]
        .iter()
        .any(|who| from.starts_with(who));
    let words = [
        "undeliver",
        "delivery status",
        "delivery fail",
        "failure notice",
        "returned mail",
        "mail delivery",
        "delivery notification",
        "non remis",
        "unzustellbar",
        "mail system error",
        "could not be delivered",
    ];
    mail.field("x-failed-recipients").is_some()
        || words.iter().any(|word| subject.contains(word))
        || by && !subject.starts_with("auto")
}

/// The words of the text that speak of an address: its line, and those that follow it.
pub fn mentioned(mail: &Mail, address: &str) -> String {
    let lines: Vec<&str> = mail.text.lines().collect();
    let wanted = address.to_ascii_lowercase();
    let at = lines.iter().position(|line| line.to_ascii_lowercase().contains(&wanted));
    let Some(at) = at else { return join(lines.iter().take(LINES_MAX).copied()) };
    let own =
        |line: &&&str| addresses(line).iter().all(|a| a.eq_ignore_ascii_case(address) || !is_recipient_line(line));
    let about = join(lines[at..].iter().take(1).chain(lines[at + 1..].iter().take_while(own)).take(LINES_MAX).copied());
    if about.len() > address.len() + 12 { about } else { join(lines.iter().take(LINES_MAX).copied()) }
}

/// Whether an address of this line is one that a report begins with.
fn is_recipient_line(line: &str) -> bool {
    static PLACE: LazyLock<Regex> = LazyLock::new(|| {
        pattern(concat!(
            r"(?i)^[\s>*\-]*(?:",
            r#"["'(\[]?<?[^\s<>@"]+@[^\s<>@]+?>?["')\]]?\s*(?:[:;,(\[]|-{1,3} |\.\.\.|$)"#,
            r"|(?:>>> )?rcpt to:?\s*<?\S+@",
            r"|[245]\d\d[ -](?:[245]\.\d\.\d{1,3} )?<[^\s<>@]+@[^\s<>@]+>(?:\.\.\.|:)",
            r"|<?[^\s<>@]+@[^\s<>@]+>?\s+(?:invalid|unknown|mailbox|user|does|is|was|error|failed|rejected|not|\[)",
            r"|(?:failed |final |original |intended |delivery )*(?:recipient|rcpt|to|address|adresse|e-?mail|user|mailbox|destinataire|empf.nger|an)(?:\(s\)|s|\(es\)|es)?(?: address| name)?\s*[:=]\s*\S*@",
            r"|.{0,120}\b(?:deliver(?:ed|y|ing)?|undeliverable|reach|send|sent|failed|message|mail|e-?mail|wasn.t|couldn.t|not) (?:it |this |the |your |message |mail |e-?mail |was |been |be |could |not |delivered |addressed |intended |sent )*(?:to|for|at)\b(?: the| this| following| recipients?| address(?:es)?| user|:|\s)*[<\x22']?[^\s<>@]+@",
            r"|<[^\s<>@]+@[^\s<>@]+>\s",
            r"|.{0,60}\b(?:user|recipient|mailbox|account|address)\b.{0,20}<?[^\s<>@]+@[^\s<>@]+>?.{0,20}\b(?:unknown|not|rejected|invalid|does|exceed|full|is)\b",
            r")"
        ))
    });
    PLACE.is_match(line)
}

/// What the text tells of each recipient.
pub fn reports(mail: &Mail) -> Vec<Found> {
    let ours = own_addresses(mail);
    let is_ours = |address: &str| ours.iter().any(|own| own.eq_ignore_ascii_case(address)) || is_machine(address);
    let failed: Vec<String> = mail
        .field("x-failed-recipients")
        .or_else(|| mail.field("x-failed-recipient"))
        .map(addresses)
        .unwrap_or_default();
    let mut found: Vec<Found> = Vec::new();
    if !failed.is_empty() {
        for address in failed.into_iter().take(REPORTS_MAX) {
            add(&mut found, address.clone(), mentioned(mail, &address));
        }
    } else {
        scan(&mail.text, is_ours, &mut found);
    }
    if found.is_empty() && is_failure(mail) {
        let named = addresses(&mail.text).into_iter().find(|a| !is_ours(a));
        let to = || {
            mail.original("x-envelope-to")
                .or_else(|| mail.original("to"))
                .and_then(|to| addresses(to).into_iter().next())
        };
        let of_fields = || {
            ["x-original-to", "x-mailer-recipient", "x-actual-recipient", "x-recipient"]
                .iter()
                .find_map(|n| get(&mail.fields, n))
                .and_then(|v| addresses(v).into_iter().next())
        };
        if let Some(address) = named.or_else(to).or_else(of_fields) {
            add(&mut found, address, join(mail.text.lines().take(LINES_MAX)));
        }
    }
    let whole = join(mail.text.lines().take(LINES_MAX));
    let alone = found.len() == 1;
    for one in &mut found {
        // A list of addresses with the reason in front of it, or behind it.
        if one.context.len() < one.recipient.len() + 12 {
            one.context.clone_from(&whole);
        }
        one.diagnostic = reply_in(&one.context);
        if one.diagnostic.is_none() && alone {
            // The reason stands in front of the list.
            one.diagnostic = reply_in(&whole);
        }
    }
    found
}

fn scan(text: &str, is_ours: impl Fn(&str) -> bool, found: &mut Vec<Found>) {
    let mut current: Option<usize> = None;
    for line in text.lines() {
        let named = addresses(line).into_iter().find(|a| !is_ours(a));
        match named {
            Some(address) if is_recipient_line(line) => {
                let there = found.iter().position(|f| f.recipient.eq_ignore_ascii_case(&address));
                current = Some(there.unwrap_or_else(|| {
                    found.push(Found { recipient: address, ..Found::default() });
                    found.len() - 1
                }));
                if found.len() >= REPORTS_MAX {
                    return;
                }
            }
            Some(_) | None => {}
        }
        if let Some(one) = current.and_then(|at| found.get_mut(at))
            && one.context.lines().count() < LINES_MAX
        {
            one.context.push_str(line.trim());
            one.context.push('\n');
        }
    }
}

fn add(found: &mut Vec<Found>, recipient: String, context: String) {
    if !found.iter().any(|f| f.recipient.eq_ignore_ascii_case(&recipient)) {
        found.push(Found { recipient, context, ..Found::default() });
    }
}

/// Whether a text without any recipient speaks of a failure.
fn is_failure(mail: &Mail) -> bool {
    let text = format!("{} {}", mail.subject.as_deref().unwrap_or_default(), mail.text).to_ascii_lowercase();
    let words = [
        "undeliver",
        "not be delivered",
        "n't be delivered",
        "delivery fail",
        "failed to deliver",
        "unable to deliver",
        "returned mail",
        "failure notice",
        "delivery status",
        "rejected",
        "user unknown",
        "could not deliver",
        "not delivered",
        "delivery error",
        "mail delivery",
        "bounced",
        "non-delivery",
        "mailbox full",
        "unknown user",
        "failure",
        "mail system error",
    ];
    is_surely_bounce(mail) || words.iter().any(|word| text.contains(word))
}

/// The addresses to which the bounce itself came: the sender of what failed.
fn own_addresses(mail: &Mail) -> Vec<String> {
    let own = ["to", "cc", "delivered-to", "x-original-to", "reply-to", "from", "return-path", "sender"];
    let mut ours: Vec<String> = own.iter().filter_map(|name| mail.field(name)).flat_map(addresses).collect();
    ours.extend(
        ["from", "return-path", "sender", "reply-to"].iter().filter_map(|name| mail.original(name)).flat_map(addresses),
    );
    // Who wrote to himself is a recipient all the same.
    if let Some(to) = mail.original("to").map(addresses) {
        let sent: Vec<String> =
            ["from", "return-path"].iter().filter_map(|n| mail.original(n)).flat_map(addresses).collect();
        ours.retain(|own| {
            !to.iter().any(|t| t.eq_ignore_ascii_case(own)) || sent.iter().any(|s| s.eq_ignore_ascii_case(own))
        });
    }
    ours
}

fn is_machine(address: &str) -> bool {
    let local = address.split('@').next().unwrap_or_default().to_ascii_lowercase();
    matches!(
        local.as_str(),
        "postmaster"
            | "mailer-daemon"
            | "post_master"
            | "mail-daemon"
            | "abuse"
            | "support"
            | "helpdesk"
            | "noreply"
            | "no-reply"
    ) || address.ends_with(".gif")
        || address.ends_with(".png")
        || address.ends_with(".jpg")
}

/// What a mailer quotes from the remote host, behind words of its own.
static QUOTED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)(?:error that the other server returned was|response (?:from the remote server )?was|remote (?:server|host) (?:said|returned|responded with|replied))\s*:?\s*(.{8,600})",
    )
});

/// The reply of a remote host in the words about a recipient; what it said last is what counts.
fn reply_in(context: &str) -> Option<String> {
    let lines: Vec<&str> = context.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let replied = lines.iter().rposition(|line| line.starts_with("<<<"));
    if let Some(at) = replied {
        return Some(lines[at].trim_start_matches(['<', ' ']).to_owned());
    }
    let joined = context.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some(quoted) = QUOTED.captures(&joined).and_then(|found| found.get(1)) {
        return Some(quoted.as_str().to_owned());
    }
    let at = lines.iter().position(|line| codes::smtp_code_in(line).is_some() || codes::enhanced_in(line).is_some())?;
    // A line of a transcript is whole by itself; what a mailer words itself goes on.
    let whole =
        lines[at].len() > 8 && lines[at].bytes().take(3).all(|b| b.is_ascii_digit()) && lines[at].contains("...");
    Some(join(lines[at..].iter().take(if whole { 1 } else { 6 }).copied()))
}

fn join<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    lines.map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}
