//! Who may send what: the config, indexed once a reload.

use std::sync::Arc;

use ahash::AHashMap;
use arc_swap::ArcSwap;
use prometheus::IntCounter;

use super::{Refusal, TenantUsage, UsageTable};
use crate::config::{Config, Tenant};
use crate::metrics::intake::IntakeMetrics;
use crate::types::{Class, Domain, Mailbox, Name, ReversePath};

/// The policy in force, made anew when the config was swapped.
pub struct Policies {
    config: Arc<ArcSwap<Config>>,
    current: ArcSwap<Policy>,
    usage: UsageTable,
    metrics: IntakeMetrics,
}

impl Policies {
    /// The policy of this config.
    pub fn new(config: Arc<ArcSwap<Config>>, usage: UsageTable, metrics: IntakeMetrics) -> Self {
        let current = ArcSwap::from_pointee(Policy::new(config.load_full(), &usage, &metrics));
        Self { config, current, usage, metrics }
    }

    /// The policy in force. A pointer comparison, unless the config was swapped since the last call.
    pub fn current(&self) -> Arc<Policy> {
        let policy = self.current.load();
        let config = self.config.load();
        if Arc::ptr_eq(&policy.config, &config) {
            return arc_swap::Guard::into_inner(policy);
        }
        // Two callers may both make it; they make the same.
        let fresh = Arc::new(Policy::new(arc_swap::Guard::into_inner(config), &self.usage, &self.metrics));
        self.current.store(fresh.clone());
        fresh
    }
}

/// The config as intake and the SMTP server ask it.
pub struct Policy {
    /// The config that it was made of.
    pub config: Arc<Config>,
    tenants: Vec<TenantPolicy>,
    by_name: AHashMap<Name, usize>,
    by_domain: AHashMap<Domain, usize>,
    /// The first tenant with `"*"`.
    any_domain: Option<usize>,
    users: AHashMap<String, (usize, Arc<str>)>,
    default_pool: Name,
    accepted: AHashMap<(Name, Class), Accepted>,
}

struct TenantPolicy {
    domains: Vec<Domain>,
    any: bool,
    usage: Arc<TenantUsage>,
}

/// Handles of the counters of one pool and class.
#[derive(Clone)]
pub(super) struct Accepted {
    pub(super) messages: IntCounter,
    pub(super) recipients: IntCounter,
}

impl Policy {
    fn new(config: Arc<Config>, usage: &UsageTable, metrics: &IntakeMetrics) -> Self {
        // The loader gives a config without pools one named so; this is for a config made by hand.
        let default_pool = match config.pools.first() {
            Some(pool) => pool.name.clone(),
            None => Name::parse("default").expect("a valid name"),
        };
        let mut policy = Policy {
            tenants: Vec::with_capacity(config.tenants.len()),
            by_name: AHashMap::new(),
            by_domain: AHashMap::new(),
            any_domain: None,
            users: AHashMap::new(),
            accepted: AHashMap::new(),
            default_pool,
            config: config.clone(),
        };
        for (at, tenant) in config.tenants.iter().enumerate() {
            policy.add_tenant(at, tenant, usage.tenant(&tenant.name));
        }
        let pools = config.pools.iter().map(|p| &p.name).chain(config.pools.is_empty().then_some(&policy.default_pool));
        policy.accepted = pools
            .flat_map(|pool| [Class::Transactional, Class::Marketing].map(|class| (pool.clone(), class)))
            .map(|(pool, class)| {
                let labels = [class.as_str(), pool.as_str()];
                let accepted = Accepted {
                    messages: metrics.accepted_messages.with_label_values(&labels),
                    recipients: metrics.accepted_recipients.with_label_values(&labels),
                };
                ((pool, class), accepted)
            })
            .collect();
        policy
    }

    fn add_tenant(&mut self, at: usize, tenant: &Tenant, usage: Arc<TenantUsage>) {
        let any = tenant.domains.iter().any(|d| d == "*");
        if any {
            self.any_domain.get_or_insert(at);
        }
        // The loader refuses a domain that is none; one that slips through covers nothing.
        let domains: Vec<Domain> = tenant.domains.iter().filter_map(|d| Domain::parse(d).ok()).collect();
        for domain in domains.iter().chain(&tenant.bounce_domain) {
            self.by_domain.entry(domain.clone()).or_insert(at);
        }
        for user in &tenant.smtp_users {
            self.users.entry(user.name.clone()).or_insert_with(|| (at, user.password_hash.as_str().into()));
        }
        self.by_name.insert(tenant.name.clone(), at);
        self.tenants.push(TenantPolicy { domains, any, usage });
    }

    /// The tenant and the password's hash of a login.
    pub fn user(&self, name: &str) -> Option<(&Tenant, &Arc<str>)> {
        self.users.get(name).map(|(at, hash)| (&self.config.tenants[*at], hash))
    }

    /// A hash that some login has: what an unknown user's password is checked against, so that it takes the same time.
    pub fn any_hash(&self) -> Option<&Arc<str>> {
        self.users.values().next().map(|(_, hash)| hash)
    }

    /// The tenant with this name.
    pub fn tenant(&self, name: &Name) -> Option<&Tenant> {
        self.by_name.get(name).map(|at| &self.config.tenants[*at])
    }

    /// The tenant of mail from this domain that comes without a login: the most exact domain wins.
    pub fn tenant_of_domain(&self, domain: &Domain) -> Option<&Tenant> {
        let mut suffix = domain.as_str();
        loop {
            if let Some(at) = self.by_domain.get(suffix) {
                return Some(&self.config.tenants[*at]);
            }
            match suffix.split_once('.') {
                Some((_, parent)) => suffix = parent,
                None => return self.any_domain.map(|at| &self.config.tenants[at]),
            }
        }
    }

    /// Whether the tenant may send from this domain; `what` names the address that it is part of.
    pub fn check_sender(&self, tenant: &Tenant, domain: &Domain, what: &str) -> Result<(), Refusal> {
        let Some(policy) = self.by_name.get(&tenant.name).map(|at| &self.tenants[*at]) else {
            return Err(unknown_tenant(&tenant.name));
        };
        let is_return_path = what == REVERSE_PATH && tenant.bounce_domain.as_ref().is_some_and(|b| domain.is_within(b));
        if policy.any || is_return_path || policy.domains.iter().any(|own| domain.is_within(own)) {
            return Ok(());
        }
        let text = format!("{what}: tenant {} may not send from the domain {domain}", tenant.name);
        Err(Refusal::new(550, "5.7.1", 403, text))
    }

    pub(super) fn usage(&self, tenant: &Tenant) -> Option<&Arc<TenantUsage>> {
        self.by_name.get(&tenant.name).map(|at| &self.tenants[*at].usage)
    }

    /// The pool of a message: the one it names, where the tenant may use that, else the tenant's. `by_header` tells whether a field of the
    /// header named it, or the request around it.
    pub(super) fn pool(&self, wanted: Option<&Name>, by_header: bool, tenant: &Tenant) -> Result<Name, Refusal> {
        let own = tenant.pool.as_ref().unwrap_or(&self.default_pool);
        let Some(wanted) = wanted.filter(|wanted| *wanted != own) else { return Ok(own.clone()) };
        let (place, field) = if by_header { ("X-Posthaste-Pool", None) } else { ("pool", Some("pool")) };
        let refusal = match &tenant.pools {
            // Nothing is told of pools that the tenant may not use, not even whether there are such.
            Some(pools) if !pools.contains(wanted) => {
                let allowed: Vec<&str> =
                    std::iter::once(own).chain(pools.iter().filter(|p| *p != own)).map(Name::as_str).collect();
                let allowed = allowed.join(", ");
                let text = format!("{place}: tenant {} may not use pool {wanted}, only {allowed}", tenant.name);
                Refusal::new(550, "5.7.1", 403, text)
            }
            Some(_) | None if self.accepted.contains_key(&(wanted.clone(), Class::Transactional)) => {
                return Ok(wanted.clone());
            }
            Some(_) | None => Refusal::new(550, "5.6.0", 422, format!("{place}: there is no pool {wanted}")),
        };
        Err(Refusal { field, ..refusal })
    }

    pub(super) fn accepted(&self, pool: &Name, class: Class) -> Option<&Accepted> {
        self.accepted.get(&(pool.clone(), class))
    }
}

/// What [`Policy::check_sender`] calls the reverse-path.
const REVERSE_PATH: &str = "reverse-path";

pub(super) fn unknown_tenant(name: &Name) -> Refusal {
    Refusal::new(550, "5.7.1", 403, format!("tenant {name} is not known"))
}

impl Policy {
    /// Whose mail with this reverse-path is, as far as the envelope tells, and whether they may use it: the login's
    /// tenant, or without a login the tenant of the domain. `None` for a null reverse-path without a login.
    pub fn sender(&self, login: Option<&Name>, reverse_path: &ReversePath) -> Result<Option<&Tenant>, Refusal> {
        let domain = reverse_path.mailbox().map(Mailbox::domain);
        let tenant = match (login, domain) {
            (Some(name), _) => self.tenant(name).ok_or_else(|| unknown_tenant(name))?,
            (None, None) => return Ok(None),
            (None, Some(domain)) => self.tenant_of_domain(domain).ok_or_else(|| no_tenant(domain))?,
        };
        if let Some(domain) = domain {
            self.check_sender(tenant, domain, REVERSE_PATH)?;
        }
        Ok(Some(tenant))
    }
}

pub(super) fn no_tenant(domain: &Domain) -> Refusal {
    Refusal::new(550, "5.7.1", 403, format!("no tenant sends from the domain {domain}"))
}
