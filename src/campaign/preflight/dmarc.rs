//! DMARC (RFC 9989): which record counts for a From domain, and what belongs together.
//!
//! The organisational domain is found by the tree walk of §4.10, so no public suffix list is needed: records are asked for from the
//! domain upwards, at most eight; `psd=n` ends at that domain, `psd=y` one below it, else the shortest name with a record is it.
//! Where there is no record at all, a domain is its own organisation, and one below another belongs to it.

use super::dns::{AskDns, OneText, one_text, tag};
use crate::types::Domain;

/// §4.10: the most questions of a walk.
const WALK_MAX: usize = 8;

/// What a record says, as far as senders need it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Record {
    /// Where it stands, without `_dmarc.`.
    pub at: String,
    /// `p`, or `sp` for a domain below: none, quarantine or reject, in lowercase.
    pub policy: String,
    /// `adkim=s`: the signing domain must be the same.
    pub strict_dkim: bool,
    /// `aspf=s`.
    pub strict_spf: bool,
}

/// The result of a walk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Walk {
    /// The organisational domain.
    pub organisation: String,
    /// The record that counts for the domain that was asked about.
    pub record: Option<Record>,
    /// A record that can't be used, and why.
    pub broken: Option<String>,
    /// Nobody could tell, and why.
    pub unknown: Option<String>,
}

/// §4.10: walks up from a domain.
pub(super) async fn walk(dns: &impl AskDns, domain: &Domain) -> Walk {
    let mut walk = Walk { organisation: domain.to_string(), record: None, broken: None, unknown: None };
    let labels: Vec<&str> = domain.as_str().split('.').collect();
    // §4.10.1: of a name with more than eight labels, the first question is for all of it, the next for its last seven.
    let mut starts = vec![0];
    starts.extend(labels.len().saturating_sub(WALK_MAX - 1).max(1)..labels.len());
    let mut candidate: Option<String> = None;
    let mut below = domain.to_string();
    for start in starts.into_iter().take(WALK_MAX) {
        let name = labels[start..].join(".");
        match one_text(dns, &format!("_dmarc.{name}"), "v=DMARC1").await {
            OneText::One(text) => {
                let psd = tag(&text, "psd").unwrap_or("u").to_ascii_lowercase();
                if walk.record.is_none() {
                    read(&text, &name, domain, &mut walk);
                }
                match psd.as_str() {
                    "n" => {
                        candidate = Some(name);
                        break;
                    }
                    "y" if start > 0 => {
                        candidate = Some(below);
                        break;
                    }
                    _ => candidate = Some(name.clone()),
                }
            }
            OneText::Several(n) => {
                walk.broken.get_or_insert(format!("_dmarc.{name} has {n} DMARC records: none counts"));
            }
            OneText::Unknown(why) => {
                walk.unknown.get_or_insert(why);
            }
            OneText::Missing => {}
        }
        below = name;
    }
    if let Some(candidate) = candidate {
        walk.organisation = candidate;
    }
    walk
}

/// Takes what a record says, or why it can't be used.
fn read(text: &str, name: &str, domain: &Domain, walk: &mut Walk) {
    let is_below = name != domain.as_str();
    let own = tag(text, "p").map(str::to_ascii_lowercase);
    let policy = if is_below { tag(text, "sp").map(str::to_ascii_lowercase).or(own) } else { own };
    let policy = policy.unwrap_or_default();
    if !matches!(policy.as_str(), "none" | "quarantine" | "reject") {
        walk.broken.get_or_insert(format!("_dmarc.{name} has no valid p= ({policy:?})"));
        return;
    }
    let strict = |key| tag(text, key).is_some_and(|value| value.eq_ignore_ascii_case("s"));
    let (strict_dkim, strict_spf) = (strict("adkim"), strict("aspf"));
    walk.record = Some(Record { at: name.to_owned(), policy, strict_dkim, strict_spf });
}

/// §4.4: whether a domain speaks for the From domain.
pub(super) async fn is_aligned(
    dns: &impl AskDns,
    from: &Domain,
    from_walk: &Walk,
    other: &Domain,
    strict: bool,
) -> bool {
    if from == other {
        return true;
    }
    if strict {
        return false;
    }
    let other_walk = walk(dns, other).await;
    // Without any record no walk can find the organisation; then only what certainly belongs together does.
    let nothing = |walk: &Walk| walk.organisation == *from.as_str() || walk.organisation == *other.as_str();
    from_walk.organisation == other_walk.organisation
        || (nothing(from_walk) && nothing(&other_walk) && (other.is_within(from) || from.is_within(other)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::dns::{Ask, Said};
    use super::*;

    fn zone(records: &[(&str, &str)]) -> HashMap<Ask, Said> {
        let said = |text: &str| Said::Texts(vec![text.to_owned()]);
        records.iter().map(|(name, text)| (Ask::Texts(format!("_dmarc.{name}")), said(text))).collect()
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
    }

    fn check(records: &[(&str, &str)], domain: &str, organisation: &str, policy: Option<&str>) {
        let domain = Domain::parse(domain).expect("valid");
        let walk = run(walk(&zone(records), &domain));
        assert_eq!(walk.organisation, organisation, "{domain} {records:?}");
        assert_eq!(walk.record.map(|record| record.policy).as_deref(), policy, "{domain} {records:?}");
    }

    #[test]
    fn the_tree_is_walked() {
        let own = ("acme.example", "v=DMARC1; p=reject; sp=none");
        check(&[own], "acme.example", "acme.example", Some("reject"));
        check(&[own], "news.acme.example", "acme.example", Some("none"));
        check(&[], "news.acme.example", "news.acme.example", None);
        check(&[own, ("example", "v=DMARC1; p=none; psd=y")], "a.acme.example", "acme.example", Some("none"));
        check(&[own, ("a.acme.example", "v=DMARC1;p=none;psd=n")], "b.a.acme.example", "a.acme.example", Some("none"));
        check(&[("acme.example", "v=DMARC1; p=nonsense")], "acme.example", "acme.example", None);
        check(&[own], "1.2.3.4.5.6.7.8.9.acme.example", "acme.example", Some("none"));
        // The root of a suffix is its own organisation when mail comes from it.
        check(&[("example", "v=DMARC1; p=none; psd=y")], "example", "example", Some("none"));
    }

    fn check_aligned(records: &[(&str, &str)], from: &str, other: &str, strict: bool, want: bool) {
        let (from, other) = (Domain::parse(from).expect("valid"), Domain::parse(other).expect("valid"));
        let dns = zone(records);
        let got = run(async { is_aligned(&dns, &from, &walk(&dns, &from).await, &other, strict).await });
        assert_eq!(got, want, "{from} {other}");
    }

    #[test]
    fn domains_of_one_organisation_are_aligned() {
        let own = [("acme.example", "v=DMARC1; p=none")];
        check_aligned(&own, "acme.example", "acme.example", true, true);
        check_aligned(&own, "news.acme.example", "bounce.acme.example", false, true);
        check_aligned(&own, "news.acme.example", "bounce.acme.example", true, false);
        check_aligned(&own, "acme.example", "other.example", false, false);
        check_aligned(&[], "acme.example", "bounce.acme.example", false, true);
        check_aligned(&[], "acme.example", "other.example", false, false);
        check_aligned(&[("example", "v=DMARC1; p=none; psd=y")], "acme.example", "other.example", false, false);
    }
}
