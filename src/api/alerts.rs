//! `GET /v1/alerts`: what is wrong now.

use axum::extract::State;

use super::input::Params;
use super::types::Alerts;
use super::{Answer, Api, Caller, json};
use crate::types::Name;

/// The alerts that fire, and those that soon may. A tenant's key sees its own.
#[utoipa::path(
    get, path = "/v1/alerts", tag = "alerts",
    params(("tenant" = Option<String>, Query, description = "Only those about this tenant's mail")),
    responses((status = 200, body = Alerts))
)]
pub async fn get_alerts(State(api): State<Api>, caller: Caller, mut params: Params) -> Answer {
    let tenant = caller.scope(params.parse("tenant", Name::parse)?)?;
    params.finish()?;
    let mut alerts = Vec::clone(&api.parts().alerts.load());
    alerts.retain(|alert| tenant.is_none() || alert.tenant == tenant);
    json(&Alerts { alerts })
}
