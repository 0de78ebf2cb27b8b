//! Reports are kept once, belong to whose domain they are about, go after their time, and sum up right.

use super::*;
use crate::config::Tenant;
use crate::feedback::auth::{AuthReport, read_file};

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn config(tenants: &[(&str, &[&str], Option<&str>)]) -> Config {
    let tenant = |(tenant, domains, bounce): &(&str, &[&str], Option<&str>)| Tenant {
        name: name(tenant),
        domains: domains.iter().map(|d| (*d).to_owned()).collect(),
        bounce_domain: bounce.map(|d| Domain::parse(d).expect("a domain")),
        pool: None,
        pools: None,
        class: crate::types::Class::Transactional,
        smtp_users: Vec::new(),
        api_keys: Vec::new(),
        quota: crate::config::Quota::default(),
    };
    Config { tenants: tenants.iter().map(tenant).collect(), ..Config::default() }
}

fn dmarc(org: &str, end: u64, p: &str, rows: &[(&str, u64, bool, bool, &str)]) -> DmarcReport {
    let row = |(ip, count, dkim, spf, disposition): &(&str, u64, bool, bool, &str)| {
        let pass = |is: bool| if is { "pass" } else { "fail" };
        format!(
            "<record><row><source_ip>{ip}</source_ip><count>{count}</count><policy_evaluated><disposition>{disposition}</disposition>\
             <dkim>{}</dkim><spf>{}</spf></policy_evaluated></row><identifiers><header_from>acme.example</header_from></identifiers></record>",
            pass(*dkim),
            pass(*spf)
        )
    };
    let rows: String = rows.iter().map(row).collect();
    let xml = format!(
        "<feedback><report_metadata><org_name>{org}</org_name><report_id>{end}</report_id><date_range><begin>1</begin><end>{end}</end>\
         </date_range></report_metadata><policy_published><domain>acme.example</domain><p>{p}</p></policy_published>{rows}</feedback>"
    );
    match read_file(xml.as_bytes()).expect("valid").remove(0) {
        AuthReport::Dmarc(report) => report,
        AuthReport::Tls(_) => panic!("no DMARC report"),
    }
}

#[test]
fn a_report_belongs_to_the_tenant_with_the_longest_domain() {
    let config = config(&[
        ("any", &["*"], None),
        ("acme", &["acme.example"], Some("bounce.acme.example")),
        ("shop", &["shop.acme.example"], None),
    ]);
    let owner = |domain: &str| owner_of(&config, domain).map(|name| name.to_string());
    assert_eq!(owner("acme.example").as_deref(), Some("acme"));
    assert_eq!(owner("news.acme.example").as_deref(), Some("acme"));
    assert_eq!(owner("shop.acme.example").as_deref(), Some("shop"));
    assert_eq!(owner("notacme.example").as_deref(), Some("any"));
    assert_eq!(owner("not a domain"), None);
    let strict = self::config(&[("acme", &["acme.example"], None)]);
    assert_eq!(owner_of(&strict, "other.example"), None, "a domain of nobody here");
}

#[test]
fn the_same_report_has_one_identity() {
    let of = |org, id, domain| identity(ReportKind::Dmarc, org, id, domain);
    assert_eq!(of("Google.com", "1", "a.example"), of("google.com", "1", "a.example"));
    assert_ne!(of("google.com", "1", "a.example"), of("google.com", "1", "b.example"));
    assert_ne!(of("google.com", "11", "a.example"), of("google.com1", "1", "a.example"));
    assert_ne!(of("google.com", "1", "a.example"), identity(ReportKind::Tls, "google.com", "1", "a.example"));
}

#[test]
fn what_is_kept_can_be_read_and_stands_under_the_day_of_its_arrival() {
    let now = Timestamp::from_millis(20_780 * 86_400_000 + 5);
    let report = dmarc("google.com", u64::MAX, "none", &[("192.0.2.1", 3, true, false, "none")]);
    let id = identity(ReportKind::Dmarc, &report.org, &report.report_id, &report.domain);
    let (size, change) =
        kept(ReportKind::Dmarc, id.clone(), name("acme"), report.clone(), Duration::from_secs(1), now).expect("kept");
    let Change::Once { key, changes, .. } = change else { panic!("not once") };
    assert_eq!(key, id);
    let [Change::PutState { key, value }] = &changes[..] else { panic!("not one record") };
    assert!(key.starts_with(b"authreport/dmarc/00020780/"), "{}", String::from_utf8_lossy(key));
    assert_eq!(size, value.len() as u64);
    let stored = Stored::<DmarcReport>::decode(value).expect("readable");
    assert_eq!((stored.tenant, stored.received, stored.report), (name("acme"), now, report));
    assert!(Stored::<DmarcReport>::decode(b"{}").is_none());
}

#[test]
fn sums_tell_who_passes_who_fails_and_from_where() {
    let mut sums = DmarcSums::default();
    let ours = ("192.0.2.1", 100, true, true, "none");
    let google = dmarc("google.com", 10, "none", &[ours, ("203.0.113.9", 4, false, false, "reject")]);
    let yahoo = dmarc(
        "Yahoo",
        20,
        "reject",
        &[("192.0.2.1", 50, false, true, "none"), ("203.0.113.9", 1, false, false, "quarantine")],
    );
    sums.add(&yahoo, None);
    sums.add(&google, Some(&name("acme")));
    let found = sums.finish(10, |ip| (ip.to_string() == "192.0.2.1").then(|| name("ip1")));
    let domain = &found[0];
    assert_eq!((domain.reports, domain.messages, domain.pass, domain.fail), (2, 155, 150, 5));
    assert_eq!((domain.dkim, domain.spf, domain.quarantined, domain.rejected), (100, 150, 1, 4));
    assert_eq!(domain.policy, "reject", "that of the report that ends last, whichever came last");
    let orgs: Vec<(&str, u64, u64)> = domain.orgs.iter().map(|o| (o.org.as_str(), o.messages, o.fail)).collect();
    assert_eq!(orgs, [("google.com", 104, 4), ("Yahoo", 51, 1)]);
    let source = |at: usize| {
        let s = &domain.sources[at];
        (s.source_ip.map(|ip| ip.to_string()), s.source.clone(), s.messages, s.fail)
    };
    assert_eq!(source(0), (Some("203.0.113.9".into()), None, 5, 5));
    assert_eq!(source(1), (Some("192.0.2.1".into()), Some(name("ip1")), 150, 0));
}

#[test]
fn numbers_of_strangers_do_not_overflow() {
    let mut sums = DmarcSums::default();
    for _ in 0..3 {
        sums.add(&dmarc("evil", 1, "none", &[("192.0.2.1", u64::MAX, false, false, "reject")]), None);
    }
    assert_eq!(sums.finish(1, |_| None)[0].messages, u64::MAX);
}

#[tokio::test]
async fn old_reports_are_removed_and_young_ones_stay() {
    let dir = tempfile::tempdir().expect("a folder");
    let day = |day: u64| Timestamp::from_millis(day * 86_400_000);
    let metrics = crate::metrics::store::StoreMetrics::register(&crate::metrics::Registry::new());
    let storage = crate::config::Storage { min_free: crate::config::ByteSize(0), ..Default::default() };
    let clock = crate::seam::clock::Clock::manual(day(200));
    let durability = crate::config::Durability::Os;
    let options = crate::store::StoreOptions::from_config(dir.path(), durability, &storage, clock, metrics);
    let opened = crate::store::open(options).expect("a store");
    for at in [100, 101, 150, 199, 200] {
        let report = dmarc("google.com", at, "none", &[]);
        let id = identity(ReportKind::Dmarc, &report.org, &report.report_id, &report.domain);
        let made =
            kept(ReportKind::Dmarc, id, name("acme"), report, Duration::from_secs(86_400), day(at)).expect("kept");
        opened.ledger.submit(vec![made.1]).await.expect("stored");
    }
    let retention = Duration::from_secs(50 * 86_400);
    assert_eq!(sweep(&opened.reader, &opened.ledger, retention, day(200)).await, Ok(2));
    let left = opened.reader.state("authreport/dmarc/", 100).await.expect("read");
    assert_eq!(left.len(), 3);
    assert_eq!(sweep(&opened.reader, &opened.ledger, retention, day(200)).await, Ok(0));
}
