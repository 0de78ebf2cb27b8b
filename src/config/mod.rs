//! Configuration: what an operator writes, parsed strictly into types.
//!
//! 1. [`load()`] reads the file and what it includes, refuses unknown keys (with line, column and the nearest key),
//! 2. checks what no single value can show (dangling names, clashing listeners, readable keys),
//! 3. and gives a [`Config`] that the engines share behind an `ArcSwap`; a reload swaps it whole or not at all.
//!
//! Each field's doc comment is its documentation: `posthaste config reference` is made from it.

mod adaptation;
mod alerts;
mod bounces;
mod check;
mod delivery;
mod hosts;
mod limits;
mod load;
mod node;
mod problem;
mod providers;
mod read;
pub mod reference;
mod reload;
mod rules;
mod smtp;
mod source;
mod tenants;
mod values;
mod webhooks;

pub use adaptation::Adaptation;
pub use alerts::Alerts;
pub use bounces::{Bounces, SOFT_LIMIT_MAX};
pub use delivery::{
    Delivery, DkimAlgorithm, DkimKey, Dns, LimitRule, Pool, PoolSource, Provider, Retry, Route, Shaping, Source,
    TlsPolicy,
};
pub use hosts::{RouteHost, RouteTarget};
pub use limits::{SendLimit, SendLimits};
pub use load::{Environment, Places, load, load_with, load_with_places};
pub use node::{ApiKey, Check, Durability, Http, Log, LogFormat, Public, Role, Storage, Tls};
pub use problem::{ConfigErrors, KeyPath, Problem, Step, Warning};
pub use providers::{OTHER, built_in, is_host_within};
pub use reload::{InUse, ReloadError, ReloadReport, plan_reload};
pub use rules::{
    ActionKind, NAMED_GROUPS, Phase, RULES_MAX, ReplyClass, ReplyRule, RuleAction, RuleScope, TreatAs, compile_pattern,
};
pub use smtp::{Listener, ListenerRole, ListenerTls, Smtp};
pub use tenants::{Quota, SmtpUser, Tenant};
pub use values::{ByteSize, HumanDuration, Rate, Rates};
pub use webhooks::{
    WEBHOOK_BATCH_MAX, WEBHOOK_TIMEOUT_MAX_S, WEBHOOKS_MAX, Webhook, WebhookFormat, WebhookSecret, WebhookTarget,
    parse_webhook_secrets,
};

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::types::Name;

/// The whole configuration of a node.
#[derive(Clone, PartialEq, Debug, Deserialize, Default, Serialize)]
#[serde(default)]
pub struct Config {
    /// The name of this host: in `Received`, in the greeting, as EHLO name of sources without their own. Should have
    /// an A or AAAA record that points back here.
    pub hostname: String,
    /// The folder of the store, the control socket and the keys that the daemon makes. Only the daemon's user may read it.
    pub data_dir: PathBuf,
    /// What a 250 or 202 promises. `fsync`: on disk. `os`: handed to the operating system, so it survives a crash of
    /// the process but not of the machine; about three times the throughput on slow disks.
    pub durability: Durability,
    /// More files to read, relative to this one; a key given twice is an error.
    pub include: Vec<PathBuf>,
    /// The SMTP server: who may hand in mail and how much.
    pub smtp: Smtp,
    /// The certificate of the SMTP listeners.
    pub tls: Option<Tls>,
    /// The HTTP API, metrics and health.
    pub http: Option<Http>,
    /// The public listener for unsubscribe and tracking links.
    pub public: Option<Public>,
    /// Those who send. With none, a tenant `default` with every domain is assumed.
    pub tenants: Vec<Tenant>,
    /// The DKIM keys.
    pub dkim: Vec<DkimKey>,
    /// Local addresses to send from. With none, one named `default` that leaves the address to the system.
    pub sources: Vec<Source>,
    /// Weighted groups of sources. With none, one named `default` with all sources.
    pub pools: Vec<Pool>,
    /// When a deferred recipient is tried again, and when it is given up.
    pub retry: Retry,
    /// Where mail for a domain goes instead of its MX: `example.com`, `*.example.com` (subdomains only) or `*` (all others).
    pub routes: BTreeMap<String, Route>,
    /// Who answers DNS questions.
    pub dns: Dns,
    /// The outgoing side.
    pub delivery: Delivery,
    /// Limits of connections and rates towards the receivers.
    pub shaping: Shaping,
    /// How fast the node, its tenants and its pools may send.
    pub limits: SendLimits,
    /// Bounces and complaints.
    pub bounces: Bounces,
    /// Mailbox providers, by name: whose hosts they are, and what holds towards them. `posthaste providers list` shows the built-in ones.
    pub providers: BTreeMap<Name, Provider>,
    /// How rates and connections follow what providers answer.
    pub adaptation: Adaptation,
    /// What replies mean and make happen, beside the built-in rules (`posthaste rules list` shows all).
    pub rules: Vec<ReplyRule>,
    /// What is watched, and who is told.
    pub alerts: Alerts,
    /// Who is told of events, by POST.
    pub webhooks: Vec<Webhook>,
    /// The check before a campaign's start.
    pub check: Check,
    /// The store: space and retention.
    pub storage: Storage,
    /// The log.
    pub log: Log,
}

impl Config {
    /// The tenant with this name.
    pub fn tenant(&self, name: &Name) -> Option<&Tenant> {
        self.tenants.iter().find(|t| t.name == *name)
    }
}
