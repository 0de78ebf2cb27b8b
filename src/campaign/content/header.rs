//! The header of a campaign's message.
//!
//! What is the same for all recipients is written once: From, Reply-To, List-ID, Feedback-ID, Precedence. The rest is written for each, From
//! and Reply-To too where a display name is a template. Addresses are never one: who sends was checked against the tenant's domains.

use crate::campaign::job::{Job, Person};
use crate::campaign::model::Sealed;
use crate::links::{Links, UnsubscribeToken};
use crate::mime::build::Address;
use crate::mime::field;
use crate::types::{Class, Domain, Mailbox};

/// Who feedback of Gmail's Postmaster Tools is about, by its `a:b:c:SenderId`.
const SENDER_ID: &str = "posthaste";

/// Addresses longer than this stand in tokens in their canonical form, so that a link stays below the length of a line.
const TOKEN_ADDRESS_MAX: usize = 254;

pub(super) fn address(person: &Person) -> Address {
    Address { name: person.name.clone(), mailbox: person.mailbox.clone() }
}

/// Whether a display name is a template.
pub(super) fn is_template(person: &Person) -> bool {
    person.name.as_ref().is_some_and(|name| ["{{", "{%", "{#"].iter().any(|begin| name.contains(begin)))
}

/// From and Reply-To, and the fields that come last.
pub(super) struct Fixed {
    /// Those of From and Reply-To that are the same for all.
    pub(super) first: Vec<u8>,
    pub(super) last: Vec<u8>,
}

impl Fixed {
    pub(super) fn new(sealed: &Sealed) -> Self {
        let job = &*sealed.job;
        let has = |name: &str| job.headers.keys().any(|given| given.eq_ignore_ascii_case(name));
        let (mut first, mut last) = (Vec::new(), Vec::new());
        if !is_template(&job.from) {
            field::write_addresses("From", [&address(&job.from)], &mut first);
        }
        if !job.reply_to.is_empty() && !job.reply_to.iter().any(is_template) {
            let list: Vec<Address> = job.reply_to.iter().map(address).collect();
            field::write_addresses("Reply-To", &list, &mut first);
        }
        if let Some(list) = &job.list
            && !has("List-ID")
        {
            // RFC 2919 §2: a name below a domain of the list's owner.
            let value = format!("<{list}.{}>", job.from.mailbox.domain());
            field::write_raw("List-ID", &value, &mut last);
        }
        if !has("Feedback-ID") {
            let value = format!("{}:{}:{}:{SENDER_ID}", sealed.id, sealed.tenant, job.class);
            field::write_raw("Feedback-ID", &value, &mut last);
        }
        if job.class == Class::Marketing && !has("Precedence") {
            // No RFC has it, but vacation programs look for it: a million recipients would send as many notices of absence.
            field::write_ours("Precedence", "bulk", &mut last);
        }
        Self { first, last }
    }
}

/// How a recipient leaves: the link for people and the fields for mail programs.
pub(super) struct Unsubscribe {
    pub(super) url: Option<String>,
    mailto: Option<String>,
}

impl Unsubscribe {
    /// `token.address` is who; `base` the public URL; `bounce_domain` the tenant's.
    pub(super) fn new(
        links: &Links,
        base: Option<&str>,
        bounce_domain: Option<&Domain>,
        mut token: UnsubscribeToken,
    ) -> Self {
        if token.address.as_str().len() > TOKEN_ADDRESS_MAX
            && let Ok(short) = Mailbox::parse(&token.address.canonical())
        {
            token.address = short;
        }
        Self {
            url: base.map(|base| links.unsubscribe_url(base, &token)),
            mailto: bounce_domain.map(|domain| links.unsubscribe_mailto(domain, &token)),
        }
    }

    /// Writes List-Unsubscribe (RFC 2369 §3.2) and List-Unsubscribe-Post (RFC 8058 §3.1), where there is a way.
    pub(super) fn write(&self, job: &Job, out: &mut Vec<u8>) {
        if job.class != Class::Marketing {
            return;
        }
        let ways: Vec<&str> = [&self.url, &self.mailto].into_iter().flatten().map(String::as_str).collect();
        if ways.is_empty() {
            return;
        }
        // Each on a line of its own: a link can't be folded. The https link comes first: some look at the first only.
        out.extend_from_slice(b"List-Unsubscribe:");
        for (i, way) in ways.iter().enumerate() {
            out.extend_from_slice(if i == 0 { b" <" } else { b",\r\n <" });
            out.extend_from_slice(way.as_bytes());
            out.push(b'>');
        }
        out.extend_from_slice(b"\r\n");
        if self.url.as_deref().is_some_and(|url| url.starts_with("https:")) {
            // RFC 8058 §3.1: one-click needs an HTTPS link.
            field::write_ours("List-Unsubscribe-Post", "List-Unsubscribe=One-Click", out);
        }
    }
}
