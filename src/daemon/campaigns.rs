//! Campaigns in this daemon: the engine with its ports, and what the egress thread needs of them.
//!
//! 1. [`open`] reads the campaigns before anything is sent, and gives the controls that the scheduler begins with,
//! 2. the ports are small adapters: the scheduler's commands ([`Scheduler`]), the check before a start ([`Checks`]); upload and content bring
//!    their own,
//! 3. the egress thread loads rows and renders them by [`ForEgress`].

use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;

use super::people::People;
use crate::campaign::contacts::Contacts;
use crate::campaign::content::{
    CampaignLoader, ContentPort, FindSealed, JobSelect, MessageIdKey, Outside, Target, test::Tester,
};
use crate::campaign::model::CampaignHead;
use crate::campaign::ports::{self, Check, Content, Finding, Fut, PreviewRequest, Severity, Steer};
use crate::campaign::preflight::{Preflight, RowFacts, Sample, Scorers};
use crate::campaign::recipients::{Recipients, RecipientsPort};
use crate::campaign::{Campaigns, Parts, Sealings};
use crate::config::Config;
use crate::delivery::LocalFuture;
use crate::dkim::{self, KeyRing};
use crate::metrics::Metrics;
use crate::queue::admin::{AdminHandle, CampaignControl, Changed, Command, CommandError, Hold, Matcher};
use crate::queue::egress::{LoadMessage, Loaded};
use crate::queue::intake::Intake;
use crate::seam::clock::Clock;
use crate::seam::dns::{Resolver, ResolverOptions, Zones};
use crate::store::{Ledger, Reader, StoredMessage};
use crate::types::{CampaignNo, DeliveryId, Domain, MessageId, Name, RowId};

/// What campaigns are made of.
pub(super) struct Needs<'a> {
    pub(super) config: Arc<ArcSwap<Config>>,
    pub(super) ring: Arc<ArcSwap<KeyRing>>,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) ledger: Ledger,
    pub(super) reader: Reader,
    pub(super) intake: Arc<Intake>,
    pub(super) queues: AdminHandle,
    pub(super) people: &'a People,
}

/// What the egress thread needs.
pub(super) struct ForEgress {
    pub(super) controls: Vec<CampaignControl>,
    pub(super) find: FindSealed,
    pub(super) outside: Outside,
    pub(super) suppressions: crate::suppression::Suppressions,
}

/// Opens all campaigns. Blocking.
pub(super) fn open(needs: Needs<'_>) -> anyhow::Result<(Campaigns, ForEgress)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(open_now(needs))
}

async fn open_now(needs: Needs<'_>) -> anyhow::Result<(Campaigns, ForEgress)> {
    let Needs { config, ring, clock, metrics, ledger, reader, intake, queues, people } = needs;
    let key = MessageIdKey::open(&reader, &ledger).await.context("the key of Message-IDs")?;
    let outside = Outside { links: people.links.clone(), key, config: config.clone() };
    let suppressions = people.suppressions.clone();
    let contacts = Contacts::new(ledger.clone(), reader.clone(), clock.clone());
    let recipients = Recipients::new(ledger.clone(), reader.clone(), clock.clone(), Arc::new(suppressions.clone()))
        .counted(metrics.campaign.clone());
    let compile_clock = clock.clone();
    let compile = Arc::new(move |head: &CampaignHead| JobSelect::compile(&head.job, compile_clock.now()));
    let uploads: Arc<dyn ports::Recipients> =
        Arc::new(RecipientsPort::new(recipients, contacts, config.clone(), clock.clone(), compile));
    let tester = Tester { intake, outside: outside.clone(), clock: clock.clone() };
    let content = ContentPort::new(reader.clone(), tester, clock.clone());
    let counted = metrics.campaign.clone();
    let checks = Checks {
        config: config.clone(),
        ring,
        clock: clock.clone(),
        metrics,
        content: content.clone(),
        recipients: uploads.clone(),
        outside: outside.clone(),
    };
    let ports = ports::Ports {
        steer: Arc::new(Scheduler(queues)),
        recipients: uploads,
        check: Arc::new(checks),
        content: Arc::new(content),
    };
    let sealings = Sealings::default();
    let parts = Parts { config, clock, ledger, reader, ports, sealings: sealings.clone(), metrics: counted };
    let (campaigns, controls) = Campaigns::open(parts).await.context("the campaigns")?;
    let find: FindSealed = Arc::new(move |no| sealings.get(no));
    let controls = controls.into_iter().map(control).collect();
    Ok((campaigns, ForEgress { controls, find, outside, suppressions }))
}

/// The scheduler's commands.
struct Scheduler(AdminHandle);

/// The engine's words as the scheduler's. Its priorities begin with 0.
fn control(control: ports::CampaignControl) -> CampaignControl {
    let ports::CampaignControl { tenant, campaign, rate, priority, hold } = control;
    let hold = hold.map(|hold| {
        let (kind, reason) = match hold.reason {
            ports::HoldKind::Paused => (crate::shaping::HoldKind::Paused, "by an operator"),
            ports::HoldKind::Window => (crate::shaping::HoldKind::Window, "outside its hours"),
            ports::HoldKind::Halted => (crate::shaping::HoldKind::Halted, "by its own condition"),
        };
        Hold { reason: reason.into(), kind, until: hold.until }
    });
    CampaignControl { tenant, campaign, rate, priority: priority.saturating_sub(1).min(9), hold }
}

impl Steer for Scheduler {
    fn set(&self, asked: ports::CampaignControl) -> Fut<'_, Result<u64, CommandError>> {
        let control = control(asked);
        Box::pin(self.0.ask(move |reply| Command::SetCampaign { control, reply }))
    }

    fn in_flight(&self, campaign: CampaignNo) -> Fut<'_, Result<Vec<RowId>, CommandError>> {
        let all = self.0.ask(|reply| Command::InFlight { reply });
        Box::pin(async move {
            let rows = all.await?.into_iter().filter_map(|delivery| RowId::of(delivery.message));
            Ok(rows.filter(|row| row.campaign == campaign).collect())
        })
    }

    fn erase(&self, tenant: &Name, domain: &Domain, what: DeliveryId, by: &str) -> Fut<'_, Result<(), CommandError>> {
        let matcher = Matcher {
            tenant: Some(tenant.clone()),
            domain: Some(domain.clone()),
            message: Some(what.message),
            recipient: Some(what.index),
            ..Matcher::default()
        };
        let (by, reason) = (by.to_owned(), "the recipient was erased".to_owned());
        let done = self.0.ask(move |reply| Command::Purge { matcher, reason, by, reply });
        Box::pin(async move { done.await.map(drop) })
    }

    fn cancel(&self, tenant: &Name, campaign: &Name, by: &str, reason: &str) -> Fut<'_, Result<Changed, CommandError>> {
        let matcher = Matcher { tenant: Some(tenant.clone()), campaign: Some(campaign.clone()), ..Matcher::default() };
        let (by, reason) = (by.to_owned(), reason.to_owned());
        Box::pin(self.0.ask(move |reply| Command::Cancel { matcher, reason, by, reply }))
    }
}

/// The check before a start.
struct Checks {
    config: Arc<ArcSwap<Config>>,
    ring: Arc<ArcSwap<KeyRing>>,
    clock: Clock,
    metrics: Arc<Metrics>,
    content: ContentPort,
    recipients: Arc<dyn ports::Recipients>,
    outside: Outside,
}

/// A rendered row, as it would be sent.
struct Rendered {
    of: String,
    raw: Vec<u8>,
    html: String,
    text: String,
}

impl Check for Checks {
    fn check(&self, campaign: Arc<CampaignHead>) -> Fut<'_, Vec<Finding>> {
        Box::pin(async move {
            self.look(campaign).await.unwrap_or_else(|reason| {
                vec![Finding {
                    severity: Severity::Error,
                    check: "check-failed".into(),
                    message: format!("the check could not be made: {reason}"),
                    why: None,
                    fix: Some("Run it again; the daemon's log may say more.".into()),
                }]
            })
        })
    }
}

impl Checks {
    async fn look(&self, campaign: Arc<CampaignHead>) -> Result<Vec<Finding>, String> {
        let config = self.config.load_full();
        let tenant = config.tenants.iter().find(|tenant| tenant.name == campaign.tenant);
        let tenant = tenant.ok_or_else(|| format!("the tenant {} is not configured any more", campaign.tenant))?;
        let ring = self.ring.load_full();
        let rows = self.facts(&campaign).await?;
        let rendered = self.samples(&campaign, &ring).await?;
        let samples: Vec<Sample<'_>> = rendered
            .iter()
            .map(|r| Sample {
                of: &r.of,
                raw: &r.raw,
                html: Some(r.html.as_str()).filter(|html| !html.is_empty()),
                text: Some(r.text.as_str()).filter(|text| !text.is_empty()),
            })
            .collect();
        let preflight = Preflight {
            config: &config,
            tenant,
            ring: &ring,
            class: campaign.job.class,
            pool: &campaign.pool,
            from: &campaign.job.from.mailbox,
            samples: &samples,
            rows: &rows,
            on_missing: campaign.job.on_missing,
            size_max: config.smtp.max_message_size.0,
            now: self.clock.now(),
        };
        let options = ResolverOptions {
            servers: config.dns.resolvers.clone(),
            timeout: config.dns.timeout.0,
            cache_size: config.dns.cache_size,
            max_concurrent: config.dns.max_concurrent,
        };
        let metrics = self.metrics.delivery.dns.clone();
        // Without any resolver all questions are told as unanswered.
        let resolver = Resolver::new(&options, metrics.clone())
            .unwrap_or_else(|_| Resolver::fixed(Zones::new().broken(), metrics));
        let report = preflight.run(&resolver, &Scorers(&config.check)).await;
        Ok(report.findings.into_iter().map(Finding::from).collect())
    }

    async fn facts(&self, campaign: &Arc<CampaignHead>) -> Result<RowFacts, String> {
        let counters = self.recipients.counters(campaign.clone()).await.map_err(|e| e.to_string())?;
        let missing = self.content.missing(campaign.clone()).await.map_err(|e| e.to_string())?;
        Ok(RowFacts {
            rows: counters.accepted,
            invalid: counters.invalid,
            duplicates: counters.duplicate,
            suppressed: counters.suppressed,
            role_accounts: counters.role,
            missing: missing.into_iter().map(|m| (m.variable, m.rows)).collect(),
            render_errors: 0,
            render_examples: Vec::new(),
        })
    }

    /// The first row and the worst ones, signed as they would be.
    async fn samples(&self, campaign: &Arc<CampaignHead>, ring: &KeyRing) -> Result<Vec<Rendered>, String> {
        let worst = PreviewRequest { worst: true, ..PreviewRequest::default() };
        let worst = self.content.preview(campaign.clone(), worst).await.map_err(|e| e.to_string())?;
        let mut rows = Vec::new();
        for name in ["longest", "blankest"] {
            let row = &worst[name]["source"];
            if row.is_object() && !rows.contains(row) {
                rows.push(row.clone());
            }
        }
        let blueprint = self.content.blueprint(campaign).await.map_err(|e| e.to_string())?;
        let (outside, now) = (self.outside.clone(), self.clock.now());
        let from = campaign.job.from.mailbox.domain().clone();
        let keys = ring.for_message(Some(&from), None, now);
        let made = tokio::task::spawn_blocking(move || {
            let mut samples = Vec::new();
            for row in rows {
                let of = row["email"].as_str().unwrap_or_default().to_owned();
                // What can't be rendered is among the facts of the rows.
                let Ok(drawn) = blueprint.draw(&Target::shown(row.to_string().as_bytes()), &outside) else { continue };
                let (html, text) = (drawn.html.clone(), drawn.text.clone());
                let octets = blueprint.assemble(drawn).concat();
                let mut raw = dkim::sign(&octets, &keys, now).unwrap_or_default();
                raw.extend_from_slice(&octets);
                samples.push(Rendered { of, raw, html, text });
            }
            samples
        });
        made.await.map_err(|e| e.to_string())
    }
}

/// Loads what the queues hold: rows by the campaigns' loader, messages from the store.
pub(super) struct Loader {
    pub(super) rows: CampaignLoader,
    pub(super) reader: Reader,
}

impl LoadMessage for Loader {
    fn load(&self, id: MessageId) -> LocalFuture<'_, Result<Option<Arc<StoredMessage>>, String>> {
        Box::pin(async move {
            let loaded = match RowId::of(id) {
                Some(row) => self.rows.load_row(row).await,
                None => self.reader.message(id).await,
            };
            loaded.map_err(|error| error.to_string())
        })
    }

    fn load_rows<'a>(&'a self, ids: &'a [RowId]) -> LocalFuture<'a, Vec<Loaded>> {
        Box::pin(async move {
            let loaded = self.rows.load_rows(ids).await;
            loaded.into_iter().map(|one| one.map_err(|error| error.to_string())).collect()
        })
    }
}
