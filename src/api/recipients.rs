//! Uploads of rows as HTTP has them: a body that is read as fast as its rows are committed, and what its header fields say of it.
//!
//! `Upload-Offset` is where a body begins in its part (without it a new part begins), `Upload-Complete: ?0` says that more is to come. The
//! answers tell both back, so that a client that lost its connection asks with `HEAD` and goes on.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::BodyExt;

use super::Problem;
use super::input::media_type;
use crate::campaign::model::UploadCounters;
use crate::campaign::ports::{Chunks, Fut, UploadError, UploadRequest};

/// Where an upload stands.
pub const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");

/// Whether it has come to its end: `?1` or `?0`.
pub const UPLOAD_COMPLETE: HeaderName = HeaderName::from_static("upload-complete");

/// How long a body may stand still; then the upload breaks off, what came is kept.
const IDLE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(120);

/// A request's body as chunks.
pub struct BodyChunks(Body);

impl BodyChunks {
    /// Over this body.
    pub fn new(body: Body) -> Self {
        Self(body)
    }
}

impl Chunks for BodyChunks {
    fn next(&mut self) -> Fut<'_, Option<Result<Bytes, String>>> {
        Box::pin(async move {
            loop {
                match tokio::time::timeout(IDLE_TIMEOUT, self.0.frame()).await {
                    Err(_) => return Some(Err(format!("nothing came for {} s", IDLE_TIMEOUT.as_secs()))),
                    Ok(None) => return None,
                    Ok(Some(Err(error))) => return Some(Err(error.to_string())),
                    Ok(Some(Ok(frame))) => {
                        // Trailers say nothing of rows.
                        if let Ok(data) = frame.into_data() {
                            return Some(Ok(data));
                        }
                    }
                }
            }
        })
    }
}

/// What a request says of its body.
pub fn upload_request(headers: &HeaderMap, by: &str) -> Result<UploadRequest, Problem> {
    let text = |name: &HeaderName| headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim);
    let offset = match headers.contains_key(UPLOAD_OFFSET) {
        false => None,
        true => match text(&UPLOAD_OFFSET).and_then(|v| v.parse().ok()) {
            Some(offset) => Some(offset),
            None => return Err(Problem::bad_request("Upload-Offset is a number of octets")),
        },
    };
    let complete = match text(&UPLOAD_COMPLETE) {
        None | Some("?1") => true,
        Some("?0") => false,
        Some(other) => return Err(Problem::bad_request(format!("Upload-Complete is ?1 or ?0, not {other:?}"))),
    };
    let encoding = text(&header::CONTENT_ENCODING).map(str::to_owned);
    Ok(UploadRequest { offset, complete, media_type: media_type(headers), encoding, by: by.to_owned() })
}

/// The answer with where the upload stands.
pub fn upload_answer(counters: &UploadCounters, body: impl IntoResponse) -> Response {
    let mut response = body.into_response();
    let complete = HeaderValue::from_static(if counters.complete { "?1" } else { "?0" });
    response.headers_mut().insert(UPLOAD_OFFSET, HeaderValue::from(counters.offset));
    response.headers_mut().insert(UPLOAD_COMPLETE, complete);
    // RFC 9110 §9.3.2: what is cached of a HEAD would be wrong after the next row.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl From<UploadError> for Problem {
    fn from(error: UploadError) -> Self {
        let text = error.to_string();
        match error {
            UploadError::Offset { expected, .. } => Problem::new(StatusCode::CONFLICT, "upload-offset", text)
                .with("offset", expected)
                .header(UPLOAD_OFFSET, expected.into()),
            UploadError::Busy(_) => Problem::new(StatusCode::CONFLICT, "upload-busy", text),
            UploadError::Invalid(_) => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-value", text),
            UploadError::Media(_) => Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", text),
            UploadError::TooLarge(_) => Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", text),
            UploadError::Broken(_) => Problem::bad_request(text),
            UploadError::Store(error) => error.into(),
            UploadError::Read(error) => error.into(),
        }
    }
}
