//! What comes in: bodies with a bound in size, time and memory; JSON and query parameters read strictly.
//!
//! 1. a body that is encoded (gzip) or of another media type is 415: nothing is decompressed, so nothing can explode,
//! 2. its size is announced or assumed to be the largest; that much of the common budget is taken, else 503,
//! 3. it is read: too large is 413, too slow 408,
//! 4. JSON is parsed into a type; an error names line, column, field, and for an unknown field the nearest known one.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use serde::de::DeserializeOwned;
use tokio::sync::OwnedSemaphorePermit;

use super::{Api, BODY_BYTES_MAX, Problem};
use crate::config::HumanDuration;
use crate::suppression::parse_time;
use crate::types::{Timestamp, nearest};

/// How long a body may take to come in; then 408.
const BODY_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a request waits for room among the bodies in memory; then 503.
const BODY_ROOM_TIMEOUT: Duration = Duration::from_secs(10);

/// The most query parameters of a request; more is 400.
const PARAMETERS_MAX: usize = 2_000;

/// Since or until when: a time, a date (its beginning), or how long ago, as `2h`.
pub fn past(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    match text.parse::<HumanDuration>() {
        Ok(ago) => Ok(Timestamp::from_millis(now.as_millis().saturating_sub(ago.0.as_millis() as u64))),
        Err(_) => parse_time(text).map_err(|e| format!("{e}, nor how long ago as 2h")),
    }
}

/// A body in memory, with its share of the budget.
pub struct Received {
    /// The octets.
    pub bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

/// Reads a body of at most `http.max_body`.
pub async fn read_body(api: &Api, headers: &HeaderMap, body: Body) -> Result<Received, Problem> {
    let limit = api.config().http.as_ref().map_or(crate::config::Http::default().max_body.0, |h| h.max_body.0);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(BODY_BYTES_MAX);
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        let given = String::from_utf8_lossy(encoding.as_bytes());
        let detail = format!("Content-Encoding {given:?} is not supported: send the body as it is");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-encoding", detail));
    }
    let too_large = || {
        let detail = format!("the body is larger than {limit} octets (http.max_body)");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail).with("limit", limit as u64)
    };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    if announced.is_some_and(|n: usize| n > limit) {
        return Err(too_large());
    }
    let share = u32::try_from(announced.unwrap_or(limit).max(1)).unwrap_or(u32::MAX);
    let room = tokio::time::timeout(BODY_ROOM_TIMEOUT, api.0.bodies.clone().acquire_many_owned(share)).await;
    let Ok(Ok(room)) = room else {
        return Err(Problem::unavailable("too many large requests at the same time"));
    };
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(Received { bytes: collected.to_bytes(), _room: room }),
        Ok(Err(e)) if e.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Ok(Err(e)) => Err(Problem::bad_request(format!("the body could not be read: {e}"))),
        Err(_) => {
            let detail = format!("the body did not come in {} s", BODY_TIMEOUT.as_secs());
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", detail))
        }
    }
}

/// The media type without its parameters, in lowercase; empty when none is given.
pub fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// 415, naming what is taken.
pub fn unsupported_media(given: &str, wanted: &str) -> Problem {
    let given = if given.is_empty() { "none" } else { given };
    let detail = format!("Content-Type {given:?} is not taken here: {wanted}");
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", detail)
}

/// Reads a body as JSON. A body without a media type is taken for JSON.
pub async fn read_json<T: DeserializeOwned>(api: &Api, request: Request) -> Result<T, Problem> {
    let (parts, body) = request.into_parts();
    let media = media_type(&parts.headers);
    if !matches!(media.as_str(), "" | "application/json") {
        return Err(unsupported_media(&media, "application/json"));
    }
    let received = read_body(api, &parts.headers, body).await?;
    parse_json(&received.bytes)
}

/// As [`read_json`], but an empty body is the default.
pub async fn read_json_or_default<T: DeserializeOwned + Default>(api: &Api, request: Request) -> Result<T, Problem> {
    let (parts, body) = request.into_parts();
    let received = read_body(api, &parts.headers, body).await?;
    if received.bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(T::default());
    }
    match media_type(&parts.headers).as_str() {
        "" | "application/json" => parse_json(&received.bytes),
        media => Err(unsupported_media(media, "application/json")),
    }
}

/// Parses JSON; an error names line, column and field. Syntax is 400, a value that does not fit 422.
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|e| {
        let path = e.path().to_string();
        json_problem(&path, &e.into_inner())
    })?;
    json.end().map_err(|e| json_problem(".", &e))?;
    Ok(parsed)
}

fn json_problem(path: &str, error: &serde_json::Error) -> Problem {
    use serde_json::error::Category;
    let status = match error.classify() {
        Category::Data => StatusCode::UNPROCESSABLE_ENTITY,
        Category::Io | Category::Syntax | Category::Eof => StatusCode::BAD_REQUEST,
    };
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let reason = text.strip_suffix(&place).unwrap_or(&text);
    let unknown = unknown_field(reason);
    // serde puts the unknown key itself at the end of the path.
    let field = if path == "." { unknown.as_ref().map(|(name, _)| name.as_str()) } else { Some(path) };
    let known = unknown.as_ref().and_then(|(name, known)| nearest(name, known.iter().map(String::as_str)));
    let reason = match (&unknown, known) {
        (Some((name, _)), Some(known)) => format!("unknown field `{name}`, did you mean `{known}`?"),
        _ => reason.to_owned(),
    };
    let of = field.map(|f| format!("{f}: ")).unwrap_or_default();
    let detail = format!("line {}, column {}: {of}{reason}", error.line(), error.column());
    let mut problem =
        Problem::new(status, "invalid-json", detail).with("line", error.line()).with("column", error.column());
    if let Some(field) = field {
        problem = problem.with("field", field);
    }
    match known {
        Some(known) => problem.with("nearest", known),
        None => problem,
    }
}

/// The name and the known ones in serde's "unknown field `x`, expected one of `a`, `b`".
fn unknown_field(reason: &str) -> Option<(String, Vec<String>)> {
    let rest = reason.strip_prefix("unknown field `")?;
    let (name, rest) = rest.split_once('`')?;
    let known = rest.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    Some((name.to_owned(), known))
}

/// The query parameters of a request; each is taken once by name, and what is left at the end is an error.
pub struct Params {
    pairs: Vec<(String, String)>,
    known: Vec<&'static str>,
}

impl FromRequestParts<Api> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        let pairs: Vec<(String, String)> = axum::extract::Query::try_from_uri(&parts.uri)
            .map(|q| q.0)
            .map_err(|e| Problem::bad_request(format!("the query can't be read: {e}")))?;
        if pairs.len() > PARAMETERS_MAX {
            return Err(Problem::bad_request(format!("more than {PARAMETERS_MAX} query parameters")));
        }
        Ok(Self { pairs, known: Vec::new() })
    }
}

impl Params {
    /// The value of a parameter that may be given once.
    pub fn text(&mut self, name: &'static str) -> Result<Option<String>, Problem> {
        let mut all = self.all(name);
        match all.len() {
            0 => Ok(None),
            1 => Ok(all.pop()),
            _ => Err(Problem::invalid(name, "given more than once").with("parameter", name)),
        }
    }

    /// All values of a parameter that may be given several times.
    pub fn all(&mut self, name: &'static str) -> Vec<String> {
        self.known.push(name);
        let (taken, left) = std::mem::take(&mut self.pairs).into_iter().partition(|(key, _)| key == name);
        self.pairs = left;
        let taken: Vec<(String, String)> = taken;
        taken.into_iter().map(|(_, value)| value).collect()
    }

    /// A parameter of a type.
    pub fn get<T: FromStr<Err: Display>>(&mut self, name: &'static str) -> Result<Option<T>, Problem> {
        self.parse(name, |text| text.parse())
    }

    /// A parameter that `parse` reads.
    pub fn parse<T, E: Display>(
        &mut self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Problem> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        parse(&text).map(Some).map_err(|e| Problem::invalid(name, format!("{text:?}: {e}")).with("parameter", name))
    }

    /// A number between 1 and `most`, or the default.
    pub fn limit(&mut self, name: &'static str, default: usize, most: usize) -> Result<usize, Problem> {
        match self.get::<usize>(name)? {
            None => Ok(default),
            Some(n) if (1..=most).contains(&n) => Ok(n),
            Some(n) => Err(Problem::invalid(name, format!("{n} is not between 1 and {most}")).with("parameter", name)),
        }
    }

    /// Whether a switch is on: `?all`, `?all=true` or `?all=1`.
    pub fn switch(&mut self, name: &'static str) -> Result<bool, Problem> {
        let parse = |text: &str| match text {
            "" | "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err("true or false"),
        };
        Ok(self.parse(name, parse)?.unwrap_or(false))
    }

    /// Refuses what no one took.
    pub fn finish(self) -> Result<(), Problem> {
        let Some((name, _)) = self.pairs.first() else { return Ok(()) };
        let near = nearest(name, self.known.iter().copied());
        let hint = match near {
            Some(near) => format!("did you mean {near}?"),
            None if self.known.is_empty() => "none is taken here".into(),
            None => format!("known are {}", self.known.join(", ")),
        };
        let problem = Problem::new(
            StatusCode::BAD_REQUEST,
            "unknown-parameter",
            format!("the query parameter {name:?} is not known: {hint}"),
        );
        let problem = problem.with("parameter", name.as_str());
        Err(match near {
            Some(near) => problem.with("nearest", near),
            None => problem,
        })
    }
}
