//! Reports: of a campaign, by provider, source, domain, tenant; replies; the timeline of a recipient.
//!
//! 1. Who asks is held to his tenant; a campaign is a job's, or what single messages name,
//! 2. the counters come up with what was committed before the question,
//! 3. the answer is JSON, or with `?format=` text, CSV or a page that needs nothing else.

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;

use super::campaigns::{campaigns, target};
use super::input::{Params, past};
use super::{Answer, Api, Caller, Problem, json};
use crate::campaign::CampaignView;
use crate::event::Event;
use crate::report::view::{CampaignFacts, Compared, Figures, Report};
use crate::report::{Range, ReportError, Reports, Scope, Split, csv, html, text, timeline};
use crate::types::{EventSeq, Mailbox, Name, Timestamp};

/// Groups of replies where nothing is said.
const REPLIES_DEFAULT: usize = 50;
/// Groups of replies in the report of a campaign.
const CAMPAIGN_REPLIES: usize = 25;
/// The most groups of replies.
const REPLIES_MAX: usize = 2_000;
/// The most campaigns to compare with.
const COMPARED_MAX: usize = 20;
/// Events of a recipient in a page where nothing is said.
const EVENTS_DEFAULT: usize = 500;
/// The most events of a recipient that are looked at: the newest.
const EVENTS_MAX: usize = 10_000;

/// In which form.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Text,
    Html,
    Csv,
}

impl Format {
    fn of(params: &mut Params) -> Result<Self, Problem> {
        let parse = |text: &str| match text {
            "json" => Ok(Format::Json),
            "text" => Ok(Format::Text),
            "html" => Ok(Format::Html),
            "csv" => Ok(Format::Csv),
            _ => Err("json, text, html or csv"),
        };
        Ok(params.parse("format", parse)?.unwrap_or(Format::Json))
    }

    fn answer(self, report: &Report) -> Answer {
        let (media, body) = match self {
            Format::Json => return json(report),
            Format::Text => ("text/plain; charset=utf-8", text::render(report)),
            Format::Html => ("text/html; charset=utf-8", html::render(report)),
            Format::Csv => ("text/csv; charset=utf-8; header=present", csv::render(report)),
        };
        let policy = "default-src 'none'; style-src 'unsafe-inline'";
        let headers = [
            (header::CONTENT_TYPE, media),
            (header::CACHE_CONTROL, "no-store"),
            (header::CONTENT_SECURITY_POLICY, policy),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        Ok((headers, body).into_response())
    }
}

impl From<ReportError> for Problem {
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::Read(error) => error.into(),
            ReportError::TooLong => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "too-long", error.to_string()),
        }
    }
}

fn reports(api: &Api) -> Result<&Reports, Problem> {
    api.parts().reports.as_ref().ok_or_else(|| Problem::unavailable("reports are not served by this daemon"))
}

fn range(params: &mut Params, now: Timestamp) -> Result<Range, Problem> {
    let time = |text: &str| past(text, now);
    let range = Range { since: params.parse("since", time)?, until: params.parse("until", time)? };
    match (range.since, range.until) {
        (Some(since), Some(until)) if since >= until => Err(Problem::invalid("until", "it is not after since")),
        _ => Ok(range),
    }
}

fn facts(view: &CampaignView) -> CampaignFacts {
    CampaignFacts {
        id: view.id.to_string(),
        tenant: view.tenant.to_string(),
        name: view.name.clone(),
        state: view.state.to_string(),
        started: view.started,
        ended: view.ended,
        waiting: view.counts.waiting,
    }
}

/// What was counted of a campaign. Its rows are accepted with its start, and what a cancel takes out makes no event a row: both are its own counts.
async fn total(reports: &Reports, view: &CampaignView) -> Result<Figures, Problem> {
    let mut figures = Figures::of(&reports.total(&Scope::Campaign(view.no), Range::default()).await?);
    figures.accepted = view.counts.total;
    figures.cancelled = view.counts.cancelled;
    Ok(figures)
}

/// What became of a campaign.
///
/// Its figures are those of `GET /v1/campaigns/{id}`, broken down.
#[utoipa::path(
    get, path = "/v1/campaigns/{id}/report", tag = "reports",
    params(
        ("id" = String, Path, description = "Its id"),
        ("tenant" = Option<String>, Query, description = "Whose it is"),
        ("compare" = Option<Vec<String>>, Query, description = "Other campaigns of the tenant to compare with; may be repeated (most 20)"),
        ("format" = Option<String>, Query, description = "`json` (default), `text`, `html` or `csv`"),
    ),
    responses((status = 200, body = Object), (status = 404, body = super::openapi::ProblemSchema))
)]
pub async fn get_campaign_report(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    mut params: Params,
) -> Answer {
    let asked = params.parse("tenant", Name::parse)?;
    let format = Format::of(&mut params)?;
    let compare = params.all("compare");
    params.finish()?;
    if compare.len() > COMPARED_MAX {
        return Err(Problem::invalid("compare", format!("more than {COMPARED_MAX} campaigns")));
    }
    let (tenant, id) = target(&api, &caller, &id, asked)?;
    let (campaigns, reports) = (campaigns(&api)?, reports(&api)?);
    // First its own counts, then the counters: so that these have counted at least as much.
    let view = campaigns.view(&tenant, &id).await?;
    let as_of = reports.fresh().await;
    let (scope, all) = (Scope::Campaign(view.no), Range::default());
    let mut compared = Vec::new();
    for other in compare {
        let other = Name::parse(&other).map_err(|e| Problem::invalid("compare", format!("{other:?}: {e}")))?;
        let view = campaigns.view(&tenant, &other).await?;
        compared.push(Compared { campaign: facts(&view), total: total(reports, &view).await? });
    }
    let report = Report {
        report: "campaign".into(),
        as_of,
        tenant: Some(tenant.to_string()),
        label: Some(id.to_string()),
        since: view.started,
        until: view.ended,
        campaign: Some(facts(&view)),
        counts: serde_json::to_value(view.counts).ok(),
        total: total(reports, &view).await?,
        compared,
        providers: Some(reports.table(&scope, Split::Provider, all).await?),
        sources: Some(reports.table(&scope, Split::Source, all).await?),
        domains: Some(reports.table(&scope, Split::Domain, all).await?),
        series: Some(reports.series(&scope, all).await?),
        replies: Some(reports.replies(&scope, all, None, CAMPAIGN_REPLIES).await?),
        ..Report::default()
    };
    format.answer(&report)
}

/// Whose mail a report is about.
async fn scope(
    api: &Api,
    caller: &Caller,
    tenant: Option<Name>,
    campaign: Option<&Name>,
) -> Result<(Option<Name>, Scope), Problem> {
    let tenant = caller.scope(tenant)?;
    let Some(campaign) = campaign else {
        let scope = tenant.clone().map_or(Scope::All, Scope::Tenant);
        return Ok((tenant, scope));
    };
    if let Some(campaigns) = &api.parts().campaigns {
        let tenant = match tenant.clone() {
            Some(tenant) => Some(tenant),
            None => <[Name; 1]>::try_from(campaigns.tenants_of(campaign)).ok().map(|[tenant]| tenant),
        };
        if let Some(tenant) = tenant
            && let Ok(head) = campaigns.head(&tenant, campaign).await
        {
            return Ok((Some(tenant), Scope::Campaign(head.no)));
        }
    }
    // What single messages name need not be known.
    let tenant = tenant.ok_or_else(|| Problem::invalid("tenant", format!("whose campaign {campaign}? ?tenant=")))?;
    Ok((Some(tenant.clone()), Scope::Label(tenant, campaign.clone())))
}

/// What became of mail, broken down: `summary`, `providers`, `sources`, `domains`, `tenants`, `campaigns` or `replies`.
#[utoipa::path(
    get, path = "/v1/reports/{by}", tag = "reports",
    params(
        ("by" = String, Path, description = "`summary`, `providers`, `sources`, `domains`, `tenants`, `campaigns` or `replies`"),
        ("since" = Option<String>, Query, description = "From this time on (RFC 3339, a day, or how long ago, as `7d`); hours count whole, days where hours are not kept any more"),
        ("until" = Option<String>, Query, description = "Before this time"),
        ("tenant" = Option<String>, Query, description = "Only this tenant's mail"),
        ("campaign" = Option<String>, Query, description = "Only mail of this campaign"),
        ("provider" = Option<String>, Query, description = "Only replies of this provider"),
        ("limit" = Option<usize>, Query, description = "At most so many groups of replies (default 50, most 2000)"),
        ("format" = Option<String>, Query, description = "`json` (default), `text`, `html` or `csv`"),
    ),
    responses((status = 200, body = Object), (status = 404, body = super::openapi::ProblemSchema))
)]
pub async fn get_report(State(api): State<Api>, caller: Caller, Path(by): Path<String>, mut params: Params) -> Answer {
    let words = ["summary", "providers", "sources", "domains", "tenants", "campaigns", "replies"];
    if !words.contains(&&*by) {
        return Err(Problem::not_found(format!("there is no report {by:?}: known are {}", words.join(", "))));
    }
    let format = Format::of(&mut params)?;
    let range = range(&mut params, api.now())?;
    let tenant = params.parse("tenant", Name::parse)?;
    let campaign = params.parse("campaign", Name::parse)?;
    let (mut provider, mut limit) = (None, REPLIES_DEFAULT);
    if by == "replies" {
        provider = params.text("provider")?;
        limit = params.limit("limit", REPLIES_DEFAULT, REPLIES_MAX)?;
    }
    params.finish()?;
    let reports = reports(&api)?;
    let (tenant, scope) = scope(&api, &caller, tenant, campaign.as_ref()).await?;
    match (&*by, &scope) {
        ("tenants", Scope::Tenant(_) | Scope::Label(..) | Scope::Campaign(_)) => {
            return Err(Problem::invalid("tenant", "the report by tenant is of all mail, for the node's keys"));
        }
        ("campaigns", Scope::All | Scope::Label(..) | Scope::Campaign(_)) => {
            return Err(Problem::invalid("tenant", "the report by campaign is of one tenant's mail: ?tenant="));
        }
        _ => {}
    }
    let as_of = reports.fresh().await;
    let mut report = Report {
        report: by.clone(),
        as_of,
        tenant: tenant.as_ref().map(ToString::to_string),
        label: campaign.as_ref().map(ToString::to_string),
        since: range.since,
        until: range.until,
        total: Figures::of(&reports.total(&scope, range).await?),
        ..Report::default()
    };
    let rows = |split| reports.table(&scope, split, range);
    match &*by {
        "providers" => report.providers = Some(rows(Split::Provider).await?),
        "sources" => report.sources = Some(rows(Split::Source).await?),
        "domains" => report.domains = Some(rows(Split::Domain).await?),
        "tenants" => report.tenants = Some(rows(Split::Tenant).await?),
        "campaigns" => report.campaigns = Some(rows(Split::Campaign).await?),
        "replies" => report.replies = Some(reports.replies(&scope, range, provider.as_deref(), limit).await?),
        _ => {}
    }
    if by != "replies" {
        report.series = Some(reports.series(&scope, range).await?);
    }
    format.answer(&report)
}

/// Everything that happened to one recipient, oldest first.
#[utoipa::path(
    get, path = "/v1/contacts/{address}/timeline", tag = "reports",
    params(
        ("address" = String, Path, description = "The address"),
        ("tenant" = Option<String>, Query, description = "Only this tenant's mail"),
        ("after" = Option<u64>, Query, description = "The `next` of the page before"),
        ("limit" = Option<usize>, Query, description = "At most so many events (default 500, most 10000). Of an address with more, the newest 10000 are looked at, and `truncated` says so"),
        ("format" = Option<String>, Query, description = "`json` (default) or `text`"),
    ),
    responses((status = 200, body = Object))
)]
pub async fn get_timeline(
    State(api): State<Api>,
    caller: Caller,
    Path(address): Path<String>,
    mut params: Params,
) -> Answer {
    let address = Mailbox::parse(&address).map_err(|e| Problem::invalid("address", format!("{address:?}: {e}")))?;
    let tenant = params.parse("tenant", Name::parse)?;
    let after = params.get::<u64>("after")?.unwrap_or(0);
    let limit = params.limit("limit", EVENTS_DEFAULT, EVENTS_MAX)?;
    let format = Format::of(&mut params)?;
    params.finish()?;
    let tenant = caller.scope(tenant)?;
    let mut events = api.parts().read.trace_address(tenant, address.clone(), EVENTS_MAX).await?;
    let truncated = events.len() >= EVENTS_MAX;
    events.sort_by_key(|event: &Event| event.seq);
    events.retain(|event| event.seq.0 > after);
    let more = events.len() > limit;
    events.truncate(limit);
    let next: Option<EventSeq> = events.last().filter(|_| more).map(|event| event.seq);
    let timeline = timeline::Timeline { address: address.to_string(), events, next, truncated };
    match format {
        Format::Json => json(&timeline),
        Format::Text => {
            Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], timeline::render(&timeline)).into_response())
        }
        Format::Html | Format::Csv => Err(Problem::invalid("format", "a timeline is json or text")),
    }
}
