//! Errors as problem details (RFC 9457): `type`, `title`, `status`, `detail`, `instance`, and what helps to mend it.
//!
//! 1. a handler answers with a [`Problem`], or the router with a bare 404 or 405,
//! 2. [`finish`] gives each the path as `instance` and writes it as `application/problem+json`.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::Api;
use super::ports::ControlError;
use crate::queue::admin::CommandError;
use crate::queue::intake::Refusal;
use crate::store::{ReadError, SubmitError};

/// The media type of a problem.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// How long a client should wait after a 429 or 503, in seconds.
const RETRY_AFTER_S: u64 = 5;

/// An error as an application sees it.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    kind: &'static str,
    detail: String,
    extra: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem of a kind (the last part of its `type`), with a sentence that says what is wrong and where.
    pub fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Self {
        Self { status, kind, detail: detail.into(), extra: Map::new(), headers: Vec::new() }
    }

    /// Adds a member.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extra.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a header field.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// 400: the request can't be read.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }

    /// 401: no key, or an unknown one. RFC 6750 §3 names the scheme.
    pub fn unauthorized(detail: impl Into<String>, known_bad: bool) -> Self {
        let challenge = if known_bad {
            "Bearer realm=\"posthaste\", error=\"invalid_token\""
        } else {
            "Bearer realm=\"posthaste\""
        };
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
            .header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
    }

    /// 403: the key may not do this.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// 404: nothing like it, or nothing that this key may see.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail)
    }

    /// 422: a value is wrong; `field` names it.
    pub fn invalid(field: &str, reason: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-value", format!("{field}: {reason}")).with("field", field)
    }

    /// 503: not now.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail).retry_after()
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Its JSON on one line, for a stream that has begun.
    pub fn into_text(self) -> String {
        String::from_utf8_lossy(&self.body(None)).into_owned()
    }

    fn retry_after(self) -> Self {
        self.header(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S))
    }

    fn body(&self, instance: Option<&str>) -> Vec<u8> {
        let mut members = Map::new();
        members.insert("type".into(), json!(format!("urn:posthaste:problem:{}", self.kind)));
        members.insert("title".into(), json!(title(self.kind, self.status)));
        members.insert("status".into(), json!(self.status.as_u16()));
        members.insert("detail".into(), json!(self.detail));
        if let Some(instance) = instance {
            members.insert("instance".into(), json!(instance));
        }
        members.extend(self.extra.clone());
        // Maps with text keys can always be written.
        serde_json::to_vec(&members).unwrap_or_default()
    }

    fn response(&self, instance: Option<&str>) -> Response {
        let mut response = Response::new(Body::from(self.body(instance)));
        *response.status_mut() = self.status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        for (name, value) in &self.headers {
            response.headers_mut().insert(name.clone(), value.clone());
        }
        response
    }
}

/// The title of a kind: short, the same for every occurrence (RFC 9457 §3.1.3).
fn title(kind: &str, status: StatusCode) -> &'static str {
    match kind {
        "invalid-json" => "The body is not the JSON that was expected",
        "invalid-value" => "A value is not valid",
        "unknown-parameter" => "A query parameter is not known",
        "idempotency-mismatch" => "The idempotency key was used with another body",
        "idempotency-busy" => "A request with this idempotency key is under way",
        "low-space" => "Too little disk space is left",
        "refused" => "The message was refused",
        "invalid-job" => "The job is not valid",
        "campaign-exists" => "A campaign with this id exists with another job",
        "campaign-busy" => "Another request works on this campaign",
        "wrong-state" => "The campaign is not in a state for this",
        "checks-failed" => "The checks found errors",
        "upload-offset" => "The upload goes on elsewhere",
        "not-ready" => "The server takes no mail now",
        _ => status.canonical_reason().unwrap_or("Error"),
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.response(None);
        response.extensions_mut().insert(self);
        response
    }
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::NotFound(_) => Problem::not_found(error.to_string()),
            CommandError::Invalid(reason) => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-value", reason),
            CommandError::Store(_) | CommandError::ShuttingDown => Problem::unavailable(error.to_string()),
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        Problem::unavailable(error.to_string())
    }
}

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::LowSpace { .. } => {
                Problem::new(StatusCode::INSUFFICIENT_STORAGE, "low-space", error.to_string()).retry_after()
            }
            SubmitError::Failed(_) | SubmitError::ShuttingDown => Problem::unavailable(error.to_string()),
        }
    }
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Refused(reason) => {
                Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "refused-by-daemon", reason)
            }
            ControlError::Failed(reason) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", reason),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = StatusCode::from_u16(refusal.http_status).unwrap_or(StatusCode::UNPROCESSABLE_ENTITY);
        let kind = if status == StatusCode::INSUFFICIENT_STORAGE { "low-space" } else { "refused" };
        let problem = Problem::new(status, kind, refusal.text.clone())
            .with("smtp", json!({ "code": refusal.code, "enhanced": refusal.enhanced, "text": refusal.text }));
        let problem = match refusal.field {
            Some(field) => problem.with("field", field),
            None => problem,
        };
        let later = matches!(status.as_u16(), 429 | 503 | 507);
        if later { problem.retry_after() } else { problem }
    }
}

/// The outermost layer: every error leaves as a problem that names its path; every answer is counted.
pub async fn finish(State(api): State<Api>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let started = std::time::Instant::now();
    let response = next.run(request).await;
    let response = match response.extensions().get::<Problem>() {
        Some(problem) => problem.response(Some(&path)),
        None if is_bare_error(&response) => {
            let status = response.status();
            let detail = match status {
                StatusCode::METHOD_NOT_ALLOWED => format!("{method} is not allowed for {path}"),
                _ => status.canonical_reason().unwrap_or("error").to_owned(),
            };
            let kind = if status == StatusCode::METHOD_NOT_ALLOWED { "method-not-allowed" } else { "error" };
            let mut problem = Problem::new(status, kind, detail);
            if let Some(allow) = response.headers().get(header::ALLOW) {
                problem = problem.header(header::ALLOW, allow.clone());
            }
            problem.response(Some(&path))
        }
        None => response,
    };
    api.metrics().http.observe(response.status().as_u16(), started.elapsed());
    response
}

/// Whether this is an error that the router or an extractor of its own made.
fn is_bare_error(response: &Response) -> bool {
    let status = response.status();
    let is_problem = response.headers().get(header::CONTENT_TYPE).is_some_and(|t| t == PROBLEM_JSON);
    (status.is_client_error() || status.is_server_error()) && !is_problem
}
