//! All routes with their documentation: what is served and what is documented is one list.
//!
//! The schemas of types from lower layers stand here, since those layers know no HTTP; a test compares them with what
//! is really written.

use serde_json::Value;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Info, OpenApi, SecurityRequirement};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{
    Api, admin, alerts, auth_reports, campaigns, contacts, events, health, messages, queues, reports, suppressions,
    trace, webhooks,
};

/// Every route of the API but `/v1/openapi.json` itself.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::default()
        .routes(routes!(messages::post_message))
        .routes(routes!(trace::get_message))
        .routes(routes!(trace::get_raw))
        .routes(routes!(trace::get_trace))
        .routes(routes!(events::get_events))
        .routes(routes!(events::ack_events))
        .routes(routes!(events::get_cursors))
        .routes(routes!(events::delete_cursor))
        .routes(routes!(queues::get_queues))
        .routes(routes!(queues::show_queues))
        .routes(routes!(queues::explain_queues))
        .routes(routes!(queues::retry_queues))
        .routes(routes!(queues::purge_queues))
        .routes(routes!(queues::reroute_queues))
        .routes(routes!(queues::get_suspensions, queues::post_suspension, queues::delete_suspensions))
        .routes(routes!(queues::delete_suspension))
        .routes(routes!(contacts::get_audiences))
        .routes(routes!(contacts::put_contacts, contacts::get_contacts))
        .routes(routes!(contacts::get_contact, contacts::delete_contact))
        .routes(routes!(
            suppressions::get_suppressions,
            suppressions::post_suppression,
            suppressions::delete_suppression
        ))
        .routes(routes!(suppressions::import_suppressions))
        .routes(routes!(suppressions::export_suppressions))
        .routes(routes!(alerts::get_alerts))
        .routes(routes!(auth_reports::get_dmarc))
        .routes(routes!(auth_reports::get_tls))
        .routes(routes!(webhooks::get_webhooks))
        .routes(routes!(webhooks::test_webhook))
        .routes(routes!(webhooks::replay_webhook))
        .routes(routes!(webhooks::resume_webhook))
        .routes(routes!(campaigns::get_campaigns, campaigns::post_campaign))
        .routes(routes!(
            campaigns::get_campaign,
            campaigns::put_campaign,
            campaigns::patch_campaign,
            campaigns::delete_campaign
        ))
        .routes(routes!(campaigns::get_job))
        .routes(routes!(campaigns::start_campaign))
        .routes(routes!(campaigns::pause_campaign))
        .routes(routes!(campaigns::resume_campaign))
        .routes(routes!(campaigns::cancel_campaign))
        .routes(routes!(campaigns::check_campaign))
        .routes(routes!(campaigns::preview_campaign))
        .routes(routes!(campaigns::test_campaign))
        .routes(routes!(campaigns::get_campaign_events))
        .routes(routes!(campaigns::progress::get_progress))
        .routes(routes!(reports::get_campaign_report))
        .routes(routes!(reports::get_report))
        .routes(routes!(reports::get_timeline))
        .routes(routes!(campaigns::recipients::put_recipients, campaigns::recipients::head_recipients))
        .routes(routes!(campaigns::recipients::get_rejects))
        .routes(routes!(admin::get_status))
        .routes(routes!(admin::post_reload))
        .routes(routes!(admin::post_backup))
        .routes(routes!(admin::post_drain))
        .routes(routes!(admin::trace_smtp))
        .routes(routes!(health::get_metrics))
        .routes(routes!(health::get_healthz))
        .routes(routes!(health::get_readyz))
}

/// The document as JSON, with title and the bearer scheme.
pub fn document(mut api: OpenApi) -> Value {
    api.info = Info::new("Posthaste", env!("CARGO_PKG_VERSION"));
    api.info.description = Some(
        "Errors are problem details (RFC 9457). Keys: `Authorization: Bearer KEY`; on the control socket the daemon's user and root need none.".into(),
    );
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    api.components.get_or_insert_default().add_security_scheme("key", SecurityScheme::Http(bearer));
    api.security = Some(vec![SecurityRequirement::new("key", Vec::<String>::new())]);
    serde_json::to_value(&api).unwrap_or_default()
}

/// A problem (RFC 9457).
#[derive(ToSchema)]
#[schema(as = Problem)]
#[allow(dead_code)]
pub struct ProblemSchema {
    /// A URN that names the kind, for programs.
    r#type: String,
    /// The kind, for people.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What is wrong, and where.
    detail: String,
    /// The path of the request.
    instance: String,
    /// The member or parameter that is meant.
    field: Option<String>,
    /// The line in the body.
    line: Option<u64>,
    /// The column in the body.
    column: Option<u64>,
    /// The known name that an unknown one is nearest to.
    nearest: Option<String>,
    /// Why no mail is taken.
    reasons: Option<Vec<String>>,
}

/// What is meant; all that is given must match.
#[derive(ToSchema)]
#[schema(as = Match)]
#[allow(dead_code)]
pub struct MatchSchema {
    /// The tenant.
    tenant: Option<String>,
    /// The recipients' domain.
    domain: Option<String>,
    /// The campaign.
    campaign: Option<String>,
    /// The pool.
    pool: Option<String>,
    /// `transactional` or `marketing`.
    class: Option<String>,
    /// One message.
    message: Option<String>,
    /// Accepted before this time.
    older_than: Option<String>,
}

/// The same in a query.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)]
pub struct MatchParams {
    /// The tenant.
    tenant: Option<String>,
    /// The recipients' domain.
    domain: Option<String>,
    /// The campaign.
    campaign: Option<String>,
    /// The pool.
    pool: Option<String>,
    /// `transactional` or `marketing`.
    class: Option<String>,
    /// One message.
    message: Option<String>,
    /// Accepted before this time (RFC 3339).
    older_than: Option<String>,
}

/// One event of the log.
#[derive(ToSchema)]
#[schema(as = Event)]
#[allow(dead_code)]
pub struct EventSchema {
    /// Its place in the log.
    id: u64,
    /// `accepted`, `deferred`, `delivered`, `bounced`, …
    event: String,
    /// When (RFC 3339).
    timestamp: String,
    /// Whose mail.
    tenant: String,
    /// The message.
    message_id: Option<String>,
    /// The recipient.
    recipient: Option<String>,
    /// The reverse-path; empty for null.
    sender: Option<String>,
    /// How many recipients, in `accepted`.
    recipients: Option<u32>,
    /// Octets.
    size: Option<u64>,
    /// The campaign.
    campaign: Option<String>,
    /// The class.
    class: Option<String>,
    /// Tags.
    tags: Option<Vec<String>>,
    /// The submitter's own data.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
    /// The recipient's domain.
    domain: Option<String>,
    /// The mailbox provider.
    provider: Option<String>,
    /// The host that was tried.
    mx: Option<String>,
    /// The source.
    source: Option<String>,
    /// Its address.
    source_ip: Option<String>,
    /// The pool.
    pool: Option<String>,
    /// Protocol and cipher suite.
    tls: Option<String>,
    /// Which attempt, from 1.
    attempt: Option<u32>,
    /// How long it took since its acceptance, in milliseconds, in `delivered`.
    took_ms: Option<u64>,
    /// When it will be tried again.
    retry_at: Option<String>,
    /// What the peer said: `code`, `enhanced`, `text`.
    #[schema(value_type = Option<Object>)]
    smtp: Option<Value>,
    /// `permanent` or `temporary`.
    severity: Option<String>,
    /// Why, where it is not the peer who says it.
    reason: Option<String>,
    /// Whether the remote said so.
    remote: Option<bool>,
    /// How it came in.
    via: Option<String>,
    /// From whom.
    client: Option<String>,
    /// In `alert`: `name`, `state` (`firing`, `repeated`, `resolved`), `subject`, `since`, `cause`, `fix`.
    #[schema(value_type = Option<Object>)]
    alert: Option<Value>,
}

/// One queue.
#[derive(ToSchema)]
#[schema(as = Queue)]
#[allow(dead_code)]
pub struct QueueSchema {
    /// `transactional` or `marketing`.
    class: String,
    /// The tenant.
    tenant: String,
    /// The campaign.
    campaign: Option<String>,
    /// The pool.
    pool: String,
    /// The recipients' domain.
    domain: String,
    /// Recipients that wait.
    count: u64,
    /// Octets of their messages.
    bytes: u64,
    /// When the oldest was accepted; a bound.
    oldest: String,
    /// When the next is due.
    next_due: String,
    /// The site.
    site: Option<String>,
    /// The provider.
    provider: Option<String>,
    /// What holds it now.
    held_by: Option<String>,
    /// Until when.
    held_until: Option<String>,
}

/// One recipient that waits.
#[derive(ToSchema)]
#[schema(as = Entry)]
#[allow(dead_code)]
pub struct EntrySchema {
    /// The message.
    message_id: String,
    /// Its place in the envelope.
    index: u32,
    /// The address.
    recipient: Option<String>,
    /// The reverse-path.
    sender: Option<String>,
    /// When it was accepted.
    accepted: String,
    /// When it is due.
    due: String,
    /// When it is given up.
    expires: String,
    /// Attempts so far.
    attempts: u32,
    /// How the last one ended.
    last_reply: Option<String>,
    /// Octets.
    size: u32,
}

/// A hold on queues.
#[derive(ToSchema)]
#[schema(as = Suspension)]
#[allow(dead_code)]
pub struct SuspensionSchema {
    /// Its number.
    id: u64,
    /// What it holds.
    r#match: MatchSchema,
    /// Why.
    reason: String,
    /// Who said so.
    by: String,
    /// Since when.
    since: String,
    /// Until when.
    until: Option<String>,
}

/// What was changed.
#[derive(ToSchema)]
#[schema(as = Changed)]
#[allow(dead_code)]
pub struct ChangedSchema {
    /// Queues that matched.
    queues: u64,
    /// Recipients that were changed.
    recipients: u64,
    /// Recipients in an attempt, which could not be stopped.
    in_flight: u64,
}

/// A finished backup.
#[derive(ToSchema)]
#[schema(as = Backup)]
#[allow(dead_code)]
pub struct BackupSchema {
    /// Where it is.
    dir: String,
    /// Octets.
    bytes: u64,
    /// The last event in it.
    last_sequence: u64,
}

/// An alert.
#[derive(ToSchema)]
#[schema(as = Alert)]
#[allow(dead_code)]
pub struct AlertSchema {
    /// `bounce_rate`, `complaint_rate`, `deferral_rate`, `queue_age`, `disk_free`, `source_held`, `mail_stopped`, `webhook_failing`.
    name: String,
    /// `firing` or `pending`.
    state: String,
    /// What it is about.
    subject: String,
    /// Whose mail, where it is one tenant's.
    tenant: Option<String>,
    /// Since when.
    since: String,
    /// When it was told last.
    told: Option<String>,
    /// The values.
    summary: String,
    /// The likely cause.
    cause: String,
    /// What to do.
    fix: String,
}
