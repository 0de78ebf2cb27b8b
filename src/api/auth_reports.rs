//! `GET /v1/auth-reports/dmarc|tls`: what receivers say of our domains, summed up.
//!
//! Reports are read day by day, so what is in memory is one day's and the sums.

use axum::extract::State;
use serde::de::DeserializeOwned;

use super::input::Params;
use super::types::{DmarcReports, TlsReports};
use super::{Answer, Api, Caller, Problem, json};
use crate::config::HumanDuration;
use crate::feedback::auth::DmarcReport;
use crate::inbound::reports::{DAY_REPORTS_MAX, DmarcSums, ReportKind, Stored, TlsSums, day_prefix};
use crate::types::{Domain, Name, Timestamp};

/// How far back where nothing is said.
const SINCE_DEFAULT: HumanDuration = HumanDuration::secs(30 * 86_400);
/// The most days: each is a read.
const DAYS_MAX: u32 = 400;
/// Addresses, or failures, of a domain where nothing is said.
const LIMIT_DEFAULT: usize = 50;
/// The most of them.
const LIMIT_MAX: usize = 10_000;

/// What a call asks for.
struct Query {
    tenant: Option<Name>,
    domain: Option<Domain>,
    days: u32,
    limit: usize,
}

impl Query {
    fn read(caller: &Caller, mut params: Params) -> Result<Self, Problem> {
        let tenant = caller.scope(params.parse("tenant", Name::parse)?)?;
        let domain = params.parse("domain", Domain::parse)?;
        let since = params.get::<HumanDuration>("since")?.unwrap_or(SINCE_DEFAULT);
        let limit = params.limit("limit", LIMIT_DEFAULT, LIMIT_MAX)?;
        params.finish()?;
        let days = u32::try_from(since.0.as_secs().div_ceil(86_400)).unwrap_or(u32::MAX).max(1);
        if days > DAYS_MAX {
            return Err(Problem::invalid("since", format!("{since} is more than {DAYS_MAX} days")));
        }
        Ok(Self { tenant, domain, days, limit })
    }

    fn wants(&self, tenant: &Name) -> bool {
        self.tenant.as_ref().is_none_or(|own| own == tenant)
    }

    /// Whether this domain is asked for, or one above it.
    fn is_about(&self, domain: &str) -> bool {
        self.domain.as_ref().is_none_or(|asked| Domain::parse(domain).is_ok_and(|domain| domain.is_within(asked)))
    }
}

/// Gives each stored report of the last days to `take`; answers the first day.
async fn each<R: DeserializeOwned>(
    api: &Api,
    kind: ReportKind,
    query: &Query,
    mut take: impl FnMut(&Stored<R>),
) -> Result<String, Problem> {
    let today = api.now().day();
    let first = today.saturating_sub(query.days - 1);
    for day in first..=today {
        let records = api.parts().read.state(day_prefix(kind, day).into_bytes(), DAY_REPORTS_MAX).await?;
        for (_, value) in records {
            let Some(stored) = Stored::<R>::decode(&value) else { continue };
            if query.wants(&stored.tenant) {
                take(&stored);
            }
        }
    }
    let begins = Timestamp::from_millis(u64::from(first) * 86_400_000).rfc3339();
    Ok(begins.split('T').next().unwrap_or_default().to_owned())
}

/// DMARC aggregates: for each sending domain who passes, who fails, from where.
#[utoipa::path(
    get, path = "/v1/auth-reports/dmarc", tag = "auth-reports",
    params(
        ("domain" = Option<String>, Query, description = "Only this domain and those below it"),
        ("since" = Option<String>, Query, description = "Reports that came so long ago at most (default 30d, most 400d)"),
        ("limit" = Option<usize>, Query, description = "At most so many addresses of a domain (default 50)"),
        ("tenant" = Option<String>, Query, description = "Only this tenant's domains"),
    ),
    responses((status = 200, body = DmarcReports))
)]
pub async fn get_dmarc(State(api): State<Api>, caller: Caller, params: Params) -> Answer {
    let query = Query::read(&caller, params)?;
    let mut sums = DmarcSums::default();
    let since = each(&api, ReportKind::Dmarc, &query, |stored: &Stored<DmarcReport>| {
        if query.is_about(&stored.report.domain) {
            sums.add_stored(stored);
        }
    })
    .await?;
    let config = api.config();
    let ours = |ip| config.sources.iter().find(|source| source.address == Some(ip)).map(|source| source.name.clone());
    json(&DmarcReports { since, domains: sums.finish(query.limit, ours) })
}

/// TLS reports: for each domain of ours how senders fared with TLS towards it.
#[utoipa::path(
    get, path = "/v1/auth-reports/tls", tag = "auth-reports",
    params(
        ("domain" = Option<String>, Query, description = "Only this domain and those below it"),
        ("since" = Option<String>, Query, description = "Reports that came so long ago at most (default 30d, most 400d)"),
        ("limit" = Option<usize>, Query, description = "At most so many failures of a domain (default 50)"),
        ("tenant" = Option<String>, Query, description = "Only this tenant's domains"),
    ),
    responses((status = 200, body = TlsReports))
)]
pub async fn get_tls(State(api): State<Api>, caller: Caller, params: Params) -> Answer {
    let query = Query::read(&caller, params)?;
    let mut sums = TlsSums::default();
    let since = each(&api, ReportKind::Tls, &query, |stored| sums.add_stored(stored)).await?;
    let mut domains = sums.finish(query.limit);
    domains.retain(|domain| query.is_about(&domain.domain));
    json(&TlsReports { since, domains })
}
