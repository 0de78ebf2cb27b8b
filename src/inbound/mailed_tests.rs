//! Reports and mail for people, from the address to what is on disk.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;

use super::{Counted, Inbound, Parts, Returned, Target};
use crate::config::{ByteSize, Config, Durability, Storage};
use crate::links::Links;
use crate::metrics::{Registry, inbound::InboundMetrics, store::StoreMetrics};
use crate::queue::intake::Refusal;
use crate::seam::clock::Clock;
use crate::store::{Opened, StoreOptions};
use crate::suppression::Suppressions;
use crate::types::{Mailbox, Name, Timestamp};

const REPORT: &str = "<feedback><report_metadata><org_name>google.com</org_name><report_id>1</report_id><date_range><begin>1</begin><end>2</end>\
</date_range></report_metadata><policy_published><domain>acme.example</domain><p>none</p></policy_published><record><row>\
<source_ip>192.0.2.1</source_ip><count>3</count></row></record></feedback>";

/// An engine over a real store.
struct World {
    inbound: Inbound,
    config: Arc<ArcSwap<Config>>,
    opened: Opened,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new(bounces: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let clock = Clock::manual(Timestamp::from_millis(1_795_456_549_000));
        let registry = Registry::new();
        let storage = Storage { min_free: ByteSize(0), ..Storage::default() };
        let metrics = StoreMetrics::register(&registry);
        let options = StoreOptions::from_config(dir.path(), Durability::Os, &storage, clock.clone(), metrics);
        let opened = crate::store::open(options).expect("a store");
        let tenant = "name = 'acme'\ndomains = ['acme.example']\nbounce_domain = 'bounce.acme.example'";
        let config = Config {
            hostname: "mta1.acme.example".into(),
            tenants: vec![toml::from_str(tenant).expect("a tenant")],
            bounces: toml::from_str(bounces).expect("bounces"),
            ..Config::default()
        };
        let config = Arc::new(ArcSwap::from_pointee(config));
        let (reader, ledger) = (opened.reader.clone(), opened.ledger.clone());
        let links = Links::open(&reader, ledger.clone(), clock.clone()).await.expect("keys");
        let suppressions = Suppressions::open(reader.clone(), ledger.clone(), clock.clone()).await.expect("a list");
        let inbound = Inbound::new(Parts {
            config: config.clone(),
            clock,
            links,
            reader,
            rows: Arc::new(|_| Box::pin(async { Ok(None) })),
            ledger,
            suppressions,
            campaigns: Arc::new(|_| None),
            metrics: InboundMetrics::register(&registry),
        });
        Self { inbound, config, opened, _dir: dir }
    }

    fn target(&self, address: &str) -> Result<Target, Refusal> {
        self.inbound.target(&Mailbox::parse(address).expect("an address"))
    }

    /// The mail to this address, as a session would bring it; the code where it is refused.
    async fn bring(&self, address: &str, mail: &str) -> Result<(), u16> {
        let target = self.target(address).map_err(|refusal| refusal.code)?;
        let mail = Bytes::from(mail.replace('\n', "\r\n"));
        let returned = Returned { targets: vec![target], mail, client: None };
        self.inbound.take(returned).await.map_err(|refusal| refusal.code)
    }

    async fn reports(&self) -> usize {
        self.opened.reader.state("authreport/dmarc/", 100).await.expect("read").len()
    }

    /// Recipients that wait, by domain.
    async fn queued(&self) -> Vec<(String, u64)> {
        let queues = self.opened.reader.queues().await.expect("read");
        queues.iter().map(|queue| (queue.key.domain.to_string(), queue.count)).collect()
    }
}

fn mail(report: &str) -> String {
    format!(
        "From: noreply@google.com\nSubject: Report domain: acme.example\nContent-Type: text/xml; name=r.xml\n\n{report}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_kept_once_and_one_of_another_number_too() {
    let w = World::new("report_addresses = ['rua@elsewhere.example']").await;
    for address in ["dmarc-reports@bounce.acme.example", "TLS-Reports@bounce.acme.example", "rua@elsewhere.example"] {
        assert_eq!(w.bring(address, &mail(REPORT)).await, Ok(()), "{address}");
        assert_eq!(w.reports().await, 1, "{address}");
    }
    let another = REPORT.replace("<report_id>1", "<report_id>2");
    assert_eq!(w.bring("rua@elsewhere.example", &mail(&another)).await, Ok(()));
    assert_eq!(w.reports().await, 2);
    let foreign = REPORT.replace("acme.example", "nobody.example");
    assert_eq!(w.bring("rua@elsewhere.example", &mail(&foreign)).await, Ok(()));
    assert_eq!(w.reports().await, 2, "a domain of nobody here");
    assert!(w.queued().await.is_empty());
    assert_eq!(w.bring("other@elsewhere.example", &mail(REPORT)).await, Err(550));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_report_at_the_same_time_is_kept_once() {
    let w = World::new("").await;
    let text = mail(REPORT);
    let bring = || w.bring("dmarc-reports@bounce.acme.example", &text);
    let (a, b, c) = tokio::join!(bring(), bring(), bring());
    assert_eq!((a, b, c), (Ok(()), Ok(()), Ok(())));
    assert_eq!(w.reports().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cant_be_read_and_what_is_for_people_is_sent_on_whole() {
    let w = World::new("postmaster = 'ops@people.example'").await;
    let cut = &REPORT[..REPORT.len() / 2];
    assert_eq!(w.bring("dmarc-reports@bounce.acme.example", &mail(cut)).await, Ok(()));
    for address in ["postmaster@bounce.acme.example", "Postmaster@mta1.acme.example", "abuse@bounce.acme.example"] {
        assert_eq!(w.bring(address, "From: a@b.example\nSubject: hello\n\nhi\n").await, Ok(()), "{address}");
    }
    assert_eq!(w.queued().await, [("people.example".to_owned(), 4)]);
    assert_eq!(w.reports().await, 0);
    let looping = format!("{}\nhi\n", "Received: from somewhere\n".repeat(60));
    assert_eq!(w.bring("postmaster@bounce.acme.example", &looping).await, Err(554));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_postmaster_mail_for_him_waits_and_reports_do_not() {
    let w = World::new("").await;
    assert_eq!(w.bring("postmaster@bounce.acme.example", "From: a@b.example\n\nhi\n").await, Err(451));
    assert_eq!(w.bring("dmarc-reports@bounce.acme.example", &mail("<feedback>")).await, Ok(()));
    assert!(w.queued().await.is_empty());
    // The address for alerts is one of people, too; one that would come back here is not.
    let mut config = Config::clone(&w.config.load());
    config.alerts.mail_to = vec![Mailbox::parse("postmaster@mta1.acme.example").expect("an address")];
    w.config.store(Arc::new(config.clone()));
    assert_eq!(w.target("postmaster@bounce.acme.example").map_err(|r| r.code), Err(451));
    config.alerts.mail_to.push(Mailbox::parse("ops@people.example").expect("an address"));
    w.config.store(Arc::new(config));
    let tenant = Some(Name::parse("acme").expect("a name"));
    assert_eq!(w.target("postmaster@bounce.acme.example"), Ok(Target::Postmaster { tenant }));
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_do_not_fill_the_disk_or_the_postmasters_mailbox() {
    let w = World::new("postmaster = 'ops@people.example'").await;
    let mut codes = Vec::new();
    for _ in 0..50 {
        codes.push(w.bring("postmaster@bounce.acme.example", "From: a@b.example\n\nhi\n").await);
    }
    assert_eq!(codes.iter().filter(|code| code.is_ok()).count(), 30, "a tenth of the hour's at once");
    assert!(codes.ends_with(&[Err(451)]));
    w.inbound.fill_the_day();
    assert_eq!(w.bring("dmarc-reports@bounce.acme.example", &mail(REPORT)).await, Err(452));
    assert_eq!(w.reports().await, 0);
    assert_eq!(Counted::DmarcReport.as_str(), "dmarc_report");
}
