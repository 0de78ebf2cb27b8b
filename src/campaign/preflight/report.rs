//! What a pre-flight check says: findings, each of a kind that `docs/preflight.md` explains.

use serde::Serialize;

use crate::campaign::ports::{self, Severity};

/// The most details of a finding; what is beyond is counted.
const DETAILS_MAX: usize = 20;

/// One thing that was found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// Its kind, one of [`CODES`]: stable, in kebab case.
    pub code: &'static str,
    /// Whether it blocks the start.
    pub severity: Severity,
    /// What is wrong, in one line.
    pub title: String,
    /// Why it matters.
    pub why: &'static str,
    /// What mends it; a DNS record stands as it is pasted into a zone file. Empty where there is nothing to mend.
    pub fix: String,
    /// Which sources, links, rows, …
    pub details: Vec<String>,
}

impl Finding {
    /// A finding of this kind.
    pub(super) fn new(
        severity: Severity,
        code: &'static str,
        title: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        let why = CODES.iter().find(|(known, _)| *known == code).map_or("", |(_, why)| why);
        Self { code, severity, title: title.into(), why, fix: fix.into(), details: Vec::new() }
    }

    /// With details; those beyond a bound are only counted.
    pub(super) fn details(mut self, details: impl IntoIterator<Item = String>) -> Self {
        let mut details = details.into_iter();
        self.details.extend(details.by_ref().take(DETAILS_MAX));
        match details.count() {
            0 => {}
            more => self.details.push(format!("and {} more", grouped(more as u64))),
        }
        self
    }
}

/// An error, a warning, or something that is only told.
pub(super) fn error(code: &'static str, title: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding::new(Severity::Error, code, title, fix)
}

pub(super) fn warning(code: &'static str, title: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding::new(Severity::Warning, code, title, fix)
}

pub(super) fn info(code: &'static str, title: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding::new(Severity::Info, code, title, fix)
}

/// The DNS did not answer: a warning, never an error.
pub(super) fn unknown(what: &str, why: &str) -> Finding {
    warning("dns-unknown", format!("{what} can't be told now: {why}"), "Run the check again.")
}

impl From<Finding> for ports::Finding {
    fn from(finding: Finding) -> Self {
        let mut message = finding.title;
        if !finding.details.is_empty() {
            message.push_str(": ");
            message.push_str(&finding.details.join("; "));
        }
        let given = |text: String| (!text.is_empty()).then_some(text);
        Self {
            severity: finding.severity,
            check: finding.code.to_owned(),
            message,
            why: given(finding.why.to_owned()),
            fix: given(finding.fix),
        }
    }
}

/// All that was found, the worst first.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Report {
    /// The findings: errors, warnings, the rest; each in the order of the checks.
    pub findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| finding.severity);
        Self { findings }
    }

    /// Whether a start must be forced.
    pub fn blocks(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// How many findings are of this severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

/// 1204 as `1,204`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Each kind of finding, and why it matters. `docs/preflight.md` has a section for each.
pub const CODES: &[(&str, &str)] = &[
    ("dns-not-checked", "The world's receivers are not asked to take this mail, so what the DNS says does not matter."),
    ("dns-unknown", "Without an answer nobody can say whether receivers will trust this mail."),
    (
        "source-not-public",
        "A translator decides which address the world sees, so SPF and PTR can't be checked from here.",
    ),
    ("spf-missing", "Gmail, Yahoo and Outlook.com refuse bulk mail whose return path has no SPF record."),
    ("spf-missing-source", "Mail from a source that SPF does not pass is refused or put into the spam folder."),
    ("spf-invalid", "A record with an error counts as none: every source fails."),
    ("spf-allows-everybody", "A record that ends in +all lets anybody send in your name, and receivers distrust it."),
    (
        "dkim-missing",
        "Unsigned bulk mail is refused by Gmail, Yahoo and Outlook.com, and DMARC rests on the signature.",
    ),
    (
        "dkim-key-unreadable",
        "Mail that a key should sign waits until the key is there: the campaign would stand still.",
    ),
    ("dkim-record-missing", "Receivers can't verify the signature without its record: it counts as none."),
    ("dkim-record-wrong", "Each signature fails against the record: the mail is worth less than an unsigned one."),
    ("dkim-not-aligned", "DMARC counts only a signature whose domain belongs to that of From."),
    ("dmarc-missing", "Gmail, Yahoo and Outlook.com require a DMARC record of those who send in bulk."),
    ("dmarc-invalid", "A record that can't be read counts as none."),
    ("dmarc-none", "With p=none others may send in your name; it is meant for the first weeks."),
    ("dmarc-not-aligned", "Neither SPF nor DKIM speaks for the domain of From, so DMARC fails for every message."),
    ("return-path-not-aligned", "DMARC rests on DKIM alone: a signature broken on the way fails it."),
    ("ptr-missing", "Large receivers refuse an address without a name (Gmail: 5.7.25)."),
    ("ptr-not-confirmed", "A name that does not lead back to the address counts as none."),
    ("ptr-not-ehlo", "Some receivers score a sender down whose EHLO name is not the name of its address."),
    ("ehlo-not-forward", "Receivers refuse an EHLO name that does not resolve to the client's address."),
    (
        "bounce-domain-missing",
        "Late bounces go to somebody else's mailbox: dead addresses are written to again and again.",
    ),
    ("bounce-mx-missing", "Late bounces get lost, and some receivers refuse a reverse-path that takes no mail."),
    ("bounce-mx-elsewhere", "Late bounces go to another host, and are neither counted nor suppressed."),
    ("from-domain-no-mail", "Receivers refuse mail whose sender can't be answered."),
    (
        "one-click-missing",
        "Gmail and Yahoo require one-click unsubscribe (RFC 8058); without it people press the spam button.",
    ),
    ("one-click-not-https", "RFC 8058 §3.1 wants an https URI: mailbox providers show no button for another one."),
    ("one-click-post-wrong", "Mailbox providers show the button only for this exact value (RFC 8058 §3.1)."),
    (
        "one-click-not-signed",
        "RFC 8058 §4: both fields must be under a valid DKIM signature, or the button is not shown.",
    ),
    ("unsubscribe-link-missing", "Laws ask for a visible way out, and who finds none presses the spam button."),
    (
        "html-clipped",
        "Gmail cuts HTML off at 102 KB, and with it the unsubscribe link and the tracking pixel at the end.",
    ),
    ("message-too-large", "Receivers refuse messages above their limit, and this node above its own."),
    ("message-large", "Many receivers refuse or delay large bulk mail, and each copy costs traffic."),
    ("text-missing", "HTML without a plain text is a mark of spam, and not readable for all."),
    ("text-empty", "An empty plain text says that it was made for a filter, not for a reader."),
    ("body-empty", "Nothing to read is surely a mistake."),
    ("alt-missing", "Images are off for many readers, and screen readers have nothing to read."),
    ("link-not-absolute", "There is no page in a mail that a relative link could be relative to."),
    ("link-not-http", "Mail programs open http(s), mailto and tel; the rest is dead or blocked."),
    ("link-http", "An unencrypted link is marked as unsafe by browsers, and scored down by filters."),
    ("link-placeholder", "A link that was never filled in leads nowhere."),
    ("link-no-host", "The host does not exist: the reader gets an error, and filters treat dead links as spam."),
    ("link-shortener", "Shorteners hide the target: block lists list them, and filters follow."),
    ("placeholder-left", "Readers see a template instead of their name."),
    ("subject-missing", "A mail without a subject is taken for spam, or for a mistake."),
    ("subject-long", "Mail programs cut off long subjects, phones after some 40 characters."),
    ("subject-capitals", "Capitals alone are a mark of spam."),
    ("from-name-address", "An address in the display name looks like phishing, and some receivers refuse it."),
    ("header-duplicate", "Fields that must stand once make receivers refuse the message (Gmail: 5.7.1)."),
    ("header-not-ascii", "Most receivers can't take raw non-ASCII in a header: it must be an encoded word (RFC 2047)."),
    ("header-line-long", "Lines of more than 998 octets are refused or broken (RFC 5322 §2.1.1)."),
    ("message-id-invalid", "Receivers refuse or score down mail without a proper Message-ID."),
    ("date-invalid", "Mail without a proper Date, or with one far off, is scored as spam."),
    ("to-missing", "Bulk mail that does not name its recipient looks like spam."),
    ("feedback-id-missing", "Gmail reports complaints by campaign only with a Feedback-ID."),
    ("feedback-id-invalid", "Gmail takes no more than four parts, the last of them the sender, of 5 to 15 characters."),
    ("attachment-executable", "Gmail and Outlook.com refuse these types altogether, and so does nearly every filter."),
    ("sample-unreadable", "What can't be parsed here will not be parsed by receivers."),
    ("rows-none", "There is nobody to send to."),
    ("rows-invalid", "A list with many invalid addresses is old or badly made: it will bounce."),
    ("rows-duplicate", "Many duplicates tell of a list that was joined from several: was everybody meant?"),
    ("rows-suppressed", "Many suppressed addresses tell of an old list: its complaints and spam traps come with it."),
    ("rows-role-accounts", "Addresses such as info@ and sales@ have many readers: they complain more often."),
    ("missing-variable", "The message is not what was meant for these recipients, or not sent to them at all."),
    ("render-errors", "These rows can't be made into messages: they would fail one by one."),
    ("spam-score", "Filters like this one stand before many mailboxes."),
    ("spam-unreachable", "The message was not judged."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, want) in [(0, "0"), (999, "999"), (1_204, "1,204"), (80_000, "80,000"), (1_000_000, "1,000,000")] {
            assert_eq!(grouped(number), want);
        }
    }

    #[test]
    fn every_code_is_documented_and_stands_once() {
        let docs = include_str!("../../../docs/preflight.md");
        for (i, (code, why)) in CODES.iter().enumerate() {
            assert!(docs.lines().any(|line| line == format!("### {code}")), "{code} is not in docs/preflight.md");
            assert!(!why.is_empty());
            assert!(CODES[..i].iter().all(|(other, _)| other != code), "{code} stands twice");
        }
        let documented = docs.lines().filter(|line| line.starts_with("### ")).count();
        assert_eq!(documented, CODES.len(), "docs/preflight.md explains what there is, and no more");
    }

    /// A misspelt code would have no reason: every one in the sources is in the table.
    #[test]
    fn every_code_in_the_sources_is_in_the_table() {
        let sources = [
            include_str!("mod.rs"),
            include_str!("authentication.rs"),
            include_str!("dmarc.rs"),
            include_str!("hosts.rs"),
            include_str!("message.rs"),
            include_str!("body.rs"),
            include_str!("rows.rs"),
            include_str!("spam.rs"),
            include_str!("report.rs"),
        ];
        for (code, _) in CODES {
            let quoted = format!("\"{code}\"");
            let uses: usize = sources.iter().map(|source| source.matches(&quoted).count()).sum();
            assert!(uses >= 2, "{code} is in the table and nothing says it");
        }
        for source in sources {
            for call in ["error(", "warning(", "info("] {
                for (at, _) in source.match_indices(call) {
                    let Some(code) = source[at + call.len()..].trim_start().strip_prefix('"') else { continue };
                    let code = code.split('"').next().unwrap_or_default();
                    // The text of an error type stands there too.
                    if !code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
                        continue;
                    }
                    assert!(CODES.iter().any(|(known, _)| *known == code), "{code} is not in CODES");
                }
            }
        }
    }
}
