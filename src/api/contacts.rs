//! Audiences: import, pages, one contact, erasure.

use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;

use super::input::Params;
use super::recipients::{BodyChunks, upload_request};
use super::{Answer, Api, Caller, Problem, json};
use crate::campaign::Erased;
use crate::campaign::contacts::{Contact, ContactsError, ImportDone, ImportError, Types};
use crate::campaign::ports::{Chunks, UploadError};
use crate::campaign::recipients::{BodyError, Refusal, chunks, input_of};
use crate::types::{Mailbox, Name};

/// Contacts in a page where nothing is said.
const PAGE_DEFAULT: usize = 100;
/// The most contacts in a page.
const PAGE_MAX: usize = 10_000;

/// A page of an audience.
#[derive(Serialize)]
struct Page {
    contacts: Vec<Contact>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Whose audience is meant: a tenant's key has its own, the node's keys name one.
fn tenant(caller: &Caller, params: &mut Params) -> Result<Name, Problem> {
    let asked = params.parse("tenant", Name::parse)?;
    caller.scope(asked)?.ok_or_else(|| Problem::invalid("tenant", "whose? A key of the node must say ?tenant="))
}

fn audience(text: &str) -> Result<Name, Problem> {
    Name::parse(text).map_err(|e| Problem::invalid("audience", format!("{text:?}: {e}")))
}

fn address(text: &str) -> Result<Mailbox, Problem> {
    Mailbox::parse(text).map_err(|e| Problem::invalid("address", format!("{text:?}: {e}")))
}

impl From<ContactsError> for Problem {
    fn from(error: ContactsError) -> Self {
        match error {
            ContactsError::Read(error) => error.into(),
            ContactsError::Submit(error) => error.into(),
        }
    }
}

/// The audiences of a tenant.
#[utoipa::path(
    get, path = "/v1/contacts", tag = "contacts",
    params(("tenant" = Option<String>, Query, description = "Whose, with a key of the node")),
    responses((status = 200, description = "`audiences`: their names"))
)]
pub async fn get_audiences(State(api): State<Api>, caller: Caller, mut params: Params) -> Answer {
    let tenant = tenant(&caller, &mut params)?;
    params.finish()?;
    json(&serde_json::json!({ "audiences": api.parts().contacts.audiences(&tenant).await? }))
}

/// Import contacts (NDJSON or CSV, gzip or zstd), upserted by address.
#[utoipa::path(
    put, path = "/v1/contacts/{audience}", tag = "contacts",
    params(
        ("audience" = String, Path, description = "Its name"),
        ("tenant" = Option<String>, Query, description = "Whose, with a key of the node"),
        ("types" = Option<String>, Query, description = "Types of CSV columns: age=number,since=date,tags=list,vip=bool"),
    ),
    responses(
        (status = 200, description = "`read`, `created`, `updated`, `invalid` and the first `rejects`: on disk"),
        (status = 422, description = "The body is no list; what came before is on disk", body = super::openapi::ProblemSchema),
    )
)]
pub async fn put_contacts(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    mut params: Params,
    request: Request,
) -> Answer {
    caller.may_send()?;
    let (tenant, audience) = (tenant(&caller, &mut params)?, audience(&name)?);
    let types: Types = params.get("types")?.unwrap_or_default();
    params.finish()?;
    let (parts, body) = request.into_parts();
    let asked = upload_request(&parts.headers, &caller.name)?;
    if asked.offset.is_some_and(|offset| offset > 0) || !asked.complete {
        return Err(Problem::invalid("Upload-Offset", "an import is sent whole: sending it again changes nothing"));
    }
    let input = crate::campaign::recipients::Input { offset: None, ..input_of(&asked)? };
    let (sender, receiver) = chunks();
    let mut body = BodyChunks::new(body);
    let pump = async move {
        loop {
            let chunk = match body.next().await {
                Some(Ok(chunk)) if chunk.is_empty() => continue,
                Some(chunk) => chunk.map_err(BodyError::BrokenOff),
                None => Ok(bytes::Bytes::new()),
            };
            let ends = chunk.as_ref().map_or(true, bytes::Bytes::is_empty);
            // An error means that the import has ended: it refused the body.
            if sender.send(chunk).await.is_err() || ends {
                return;
            }
        }
    };
    let ((done, error), ()) =
        tokio::join!(api.parts().contacts.import(&tenant, &audience, types, input, receiver), pump);
    match error {
        None => json(&done),
        Some(error) => Err(import_problem(error, &done)),
    }
}

fn import_problem(error: ImportError, done: &ImportDone) -> Problem {
    let problem: Problem = match error {
        ImportError::Refused(Refusal::Unreadable(why)) => UploadError::Invalid(why).into(),
        ImportError::Refused(Refusal::Bomb(why)) => UploadError::TooLarge(why).into(),
        ImportError::Refused(Refusal::BrokenOff(why)) => UploadError::Broken(why).into(),
        ImportError::Read(error) => error.into(),
        ImportError::Store(error) => error.into(),
    };
    problem.with("read", done.read).with("created", done.created).with("updated", done.updated)
}

/// A page of an audience.
#[utoipa::path(
    get, path = "/v1/contacts/{audience}", tag = "contacts",
    params(
        ("audience" = String, Path, description = "Its name"),
        ("tenant" = Option<String>, Query, description = "Whose, with a key of the node"),
        ("after" = Option<String>, Query, description = "The `next` of the page before"),
        ("limit" = Option<usize>, Query, description = "At most so many (default 100)"),
    ),
    responses((status = 200, description = "`contacts`, and `next` unless this is the end"))
)]
pub async fn get_contacts(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    mut params: Params,
) -> Answer {
    let (tenant, audience) = (tenant(&caller, &mut params)?, audience(&name)?);
    let after = params.text("after")?;
    let limit = params.limit("limit", PAGE_DEFAULT, PAGE_MAX)?;
    params.finish()?;
    let page = api.parts().contacts.page(&tenant, &audience, after.as_deref(), limit).await?;
    json(&Page { contacts: page.contacts, next: page.next })
}

/// One contact.
#[utoipa::path(
    get, path = "/v1/contacts/{audience}/{address}", tag = "contacts",
    params(
        ("audience" = String, Path, description = "The audience"),
        ("address" = String, Path, description = "The address"),
        ("tenant" = Option<String>, Query, description = "Whose, with a key of the node"),
    ),
    responses((status = 200, description = "The contact"), (status = 404, body = super::openapi::ProblemSchema))
)]
pub async fn get_contact(
    State(api): State<Api>,
    caller: Caller,
    Path((name, mailbox)): Path<(String, String)>,
    mut params: Params,
) -> Answer {
    let (tenant, audience, mailbox) = (tenant(&caller, &mut params)?, audience(&name)?, address(&mailbox)?);
    params.finish()?;
    match api.parts().contacts.get(&tenant, &audience, &mailbox).await? {
        Some(contact) => json(&contact),
        None => Err(Problem::not_found(format!("{mailbox} is not in the audience {audience}"))),
    }
}

/// Take a contact out of an audience; with `erase` out of all that is kept of the tenant: audiences, rows of campaigns, events, and single
/// messages that still wait. A suppression stays, by a keyed hash.
#[utoipa::path(
    delete, path = "/v1/contacts/{audience}/{address}", tag = "contacts",
    params(
        ("audience" = String, Path, description = "The audience"),
        ("address" = String, Path, description = "The address"),
        ("tenant" = Option<String>, Query, description = "Whose, with a key of the node"),
        ("erase" = Option<bool>, Query, description = "Out of all audiences"),
    ),
    responses(
        (status = 200, description = "`audiences`: where it was; `campaign_rows` and `messages` that were erased"),
        (status = 404, body = super::openapi::ProblemSchema),
    )
)]
pub async fn delete_contact(
    State(api): State<Api>,
    caller: Caller,
    Path((name, mailbox)): Path<(String, String)>,
    mut params: Params,
) -> Answer {
    caller.may_send()?;
    let (tenant, audience, mailbox) = (tenant(&caller, &mut params)?, audience(&name)?, address(&mailbox)?);
    let erase = params.switch("erase")?;
    params.finish()?;
    let contacts = &api.parts().contacts;
    let audiences = match erase {
        // Whoever asks to be erased need not be in this audience, or in any.
        true => contacts.erase(&tenant, &mailbox).await?,
        false if contacts.remove(&tenant, &audience, &mailbox).await? => vec![audience],
        false => return Err(Problem::not_found(format!("{mailbox} is not in the audience {audience}"))),
    };
    let mut taken = Erased::default();
    if erase {
        if let Some(campaigns) = &api.parts().campaigns {
            taken = campaigns.erase(&tenant, &mailbox, &caller.name).await?;
        }
        // Last: a suppression keeps only its keyed hash, and goes on holding mail back.
        let erased = api.parts().suppressions.erase(std::slice::from_ref(&tenant), &mailbox).await;
        erased.map_err(|error| Problem::unavailable(error.to_string()))?;
    }
    let body = serde_json::json!({ "audiences": audiences, "erased": erase, "campaign_rows": taken.rows, "messages": taken.messages });
    Ok((StatusCode::OK, [(header::CACHE_CONTROL, "no-store")], axum::Json(body)).into_response())
}
