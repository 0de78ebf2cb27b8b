//! `POST /v1/messages`: one message by HTTP, as JSON or ready made.
//!
//! 1. who asks may send; the daemon takes mail,
//! 2. the body is read, its idempotency key claimed,
//! 3. JSON is checked and composed, a raw message gets its envelope and line ends,
//! 4. intake decides and commits. 202 means: on disk, fsynced.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use bytes::Bytes;

use super::compose::MessageRequest;
use super::idempotency::{self, Claim, Known};
use super::input::{Params, media_type, parse_json, read_body, unsupported_media};
use super::ports::{ComposeError, Extra};
use super::types::MessageAccepted;
use super::{Answer, Api, Caller, Problem, raw};
use crate::queue::intake::{Client, Steering, Submission};
use crate::store::{EnvelopeRecipient, Via};
use crate::types::{Mailbox, Name, Notify, ReversePath};

/// The forms in which a message is taken.
const FORMS: &str = "application/json or message/rfc822";

/// Hand in a message.
///
/// With `application/json` the message is made from its parts. With `message/rfc822` the body is the message, and the
/// envelope is in the query (`from`, `to` several times, `campaign`, `tag`, `pool`, `class`, `metadata`) or in the header
/// fields `Posthaste-From` and `Posthaste-To`.
#[utoipa::path(
    post, path = "/v1/messages", tag = "messages",
    params(("Idempotency-Key" = Option<String>, Header, description = "A repetition within 72 h gets the first answer")),
    request_body(content(
        (MessageRequest = "application/json"),
        (String = "message/rfc822"),
    )),
    responses(
        (status = 202, description = "The message is on disk", body = MessageAccepted),
        (status = 409, description = "The idempotency key is being worked on", body = super::openapi::ProblemSchema),
        (status = 422, description = "A value is wrong, or the key was used with another body", body = super::openapi::ProblemSchema),
        (status = 429, description = "A quota of the tenant is used up", body = super::openapi::ProblemSchema),
        (status = 503, description = "No mail is taken now", body = super::openapi::ProblemSchema),
        (status = 507, description = "Too little disk space is left", body = super::openapi::ProblemSchema),
    )
)]
pub async fn post_message(State(api): State<Api>, caller: Caller, params: Params, request: Request) -> Answer {
    caller.may_send()?;
    let health = api.parts().control.health();
    if health.draining {
        return Err(Problem::unavailable("the server is draining: it takes no more mail"));
    }
    let (parts, body) = request.into_parts();
    let media = media_type(&parts.headers);
    if !matches!(media.as_str(), "application/json" | "message/rfc822") {
        return Err(unsupported_media(&media, FORMS));
    }
    let key = idempotency::key_of(&parts.headers)?;
    let received = read_body(&api, &parts.headers, body).await?;
    let query = parts.uri.query().unwrap_or_default();
    let claim = match key {
        None => None,
        Some(key) => {
            let hash = idempotency::body_hash(&[media.as_bytes(), query.as_bytes(), &received.bytes]);
            match idempotency::claim(&api, &caller, &key, &hash).await? {
                Known::Answered(answer) => return Ok(accepted(&answer, true)),
                Known::New(claim) => Some((claim, hash)),
            }
        }
    };
    let submission = match media.as_str() {
        "message/rfc822" => from_raw(&api, &caller, params, &parts.headers, received.bytes.clone())?,
        _ => from_json(&api, &caller, params, &received.bytes)?,
    };
    let answer = submit(&api, submission, claim).await?;
    Ok(accepted(&answer, false))
}

fn accepted(answer: &MessageAccepted, replayed: bool) -> axum::response::Response {
    let location = format!("/v1/messages/{}", answer.id);
    let mut response = (StatusCode::ACCEPTED, [(header::LOCATION, location)], axum::Json(answer)).into_response();
    if replayed {
        response.headers_mut().insert("idempotent-replayed", header::HeaderValue::from_static("true"));
    }
    response
}

/// Hands a message to intake, in a task of its own: a client that hangs up must not stop a commit half-way, nor make its key
/// free while the message may still be committed.
async fn submit(api: &Api, submission: Submission, claim: Option<(Claim, String)>) -> Result<MessageAccepted, Problem> {
    let recipients = submission.recipients.len();
    let api = api.clone();
    let work = tokio::spawn(async move {
        let (claim, hash) = claim.unzip();
        let claim = claim.map(Arc::new);
        let extra: Extra = match (claim.clone(), hash) {
            (Some(claim), Some(hash)) => {
                let now = api.now();
                Box::new(move |id| claim.record(&hash, &MessageAccepted { id, recipients }, now))
            }
            _ => Box::new(|_| Vec::new()),
        };
        let result = api.parts().intake.accept_with(submission, extra).await;
        // The key is free again only now, when the record is on disk or the message was refused.
        drop(claim);
        result
    });
    let done = work.await.map_err(|_| Problem::unavailable("intake ended unexpectedly"))??;
    Ok(MessageAccepted { id: done.id, recipients })
}

fn from_json(api: &Api, caller: &Caller, params: Params, body: &Bytes) -> Result<Submission, Problem> {
    params.finish()?;
    let request: MessageRequest = parse_json(body)?;
    let recipients = request.recipients();
    let reverse_path = match &request.return_path {
        Some(path) => raw::reverse_path("return_path", path)?,
        None => ReversePath::Mailbox(request.from.0.mailbox.clone()),
    };
    let (steering, tenant) = (request.steering()?, request.tenant.clone());
    let draft = request.into_draft()?;
    let message = api.parts().compose.compose(draft).map_err(|error| not_composed(api, error))?;
    submission(api, caller, tenant, reverse_path, recipients, steering, message)
}

/// Base64 makes a message larger than the body that it came in: too large is the same problem there.
fn not_composed(api: &Api, error: ComposeError) -> Problem {
    if error.too_large {
        let limit = api.config().smtp.max_message_size.0;
        return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", error.to_string()).with("limit", limit);
    }
    Problem::invalid(&error.field, error.reason)
}

fn from_raw(
    api: &Api,
    caller: &Caller,
    mut params: Params,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Submission, Problem> {
    let envelope = raw::envelope(&mut params, headers)?;
    params.finish()?;
    if body.is_empty() {
        return Err(Problem::invalid("body", "the message is empty"));
    }
    let message = raw::with_crlf(body)?;
    submission(api, caller, envelope.tenant, envelope.reverse_path, envelope.recipients, envelope.steering, message)
}

fn submission(
    api: &Api,
    caller: &Caller,
    tenant: Option<Name>,
    reverse_path: ReversePath,
    recipients: Vec<Mailbox>,
    steering: Steering,
    body: Bytes,
) -> Result<Submission, Problem> {
    let config = api.config();
    let most = config.smtp.max_recipients as usize;
    if recipients.is_empty() {
        return Err(Problem::invalid("to", "a message needs at least one recipient"));
    }
    if recipients.len() > most {
        let detail = format!("{} recipients are more than {most} (smtp.max_recipients)", recipients.len());
        return Err(Problem::invalid("to", detail).with("limit", most));
    }
    let size_max = config.smtp.max_message_size.0;
    if body.len() as u64 > size_max {
        let detail = format!("the message has {} octets, more than {size_max} (smtp.max_message_size)", body.len());
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail).with("limit", size_max));
    }
    let recipient = |mailbox| EnvelopeRecipient { mailbox, notify: Notify::Default, orcpt: None };
    Ok(Submission {
        tenant: caller.scope(tenant)?,
        via: Via::Http,
        client: Client {
            address: caller.peer.map(|p| p.ip()),
            helo: String::new(),
            user: Some(caller.name.clone()),
            protocol: "HTTP",
            tls: None,
        },
        reverse_path,
        ret: None,
        envid: None,
        // HTTP carries UTF-8 everywhere; whether a peer can take it is decided at delivery.
        smtputf8: true,
        recipients: recipients.into_iter().map(recipient).collect(),
        steering,
        body,
    })
}
