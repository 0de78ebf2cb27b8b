//! The pages: plain HTML, readable without style, script or colours; no address on them, since links are forwarded.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;

use crate::links::UnsubscribeToken;

/// What every answer carries.
const HEADERS: [(HeaderName, &str); 7] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("x-robots-tag"), "noindex, nofollow"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
];

const STYLE: &str = "body{font:1.1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:12vh auto;padding:0 1rem}\
button{font:inherit;padding:.6rem 1.2rem}:root{color-scheme:light dark}";

fn answer(status: StatusCode, media: &'static str, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A line for programs.
pub(super) fn plain(status: StatusCode, text: &str) -> Response {
    answer(status, "text/plain; charset=utf-8", text.to_owned())
}

fn html(status: StatusCode, title: &str, body: &str) -> Response {
    let text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"robots\" content=\"noindex\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    );
    answer(status, "text/html; charset=utf-8", text)
}

/// What is left: a name has only letters, digits, `.`, `_` and `-`, so nothing of it needs to be escaped.
fn what(token: &UnsubscribeToken) -> String {
    match &token.list {
        Some(list) => format!("the list <strong>{list}</strong>"),
        None => format!("the mailings of <strong>{}</strong>", token.tenant),
    }
}

/// A form with one button. The token opened, so it has only the characters of base64url.
fn button(path: &str, label: &str) -> String {
    format!(
        "<form method=\"post\" action=\"{path}\">\n<input type=\"hidden\" name=\"confirm\" value=\"yes\">\n\
         <button type=\"submit\">{label}</button>\n</form>"
    )
}

pub(super) fn confirm(token: &str, opened: &UnsubscribeToken) -> Response {
    let test = if opened.test { "<p><em>This link is from a test mail: nothing will change.</em></p>\n" } else { "" };
    let body = format!(
        "{test}<p>You will get no more mail from {}.</p>\n{}",
        what(opened),
        button(&format!("/u/{token}"), "Unsubscribe")
    );
    html(StatusCode::OK, "Unsubscribe?", &body)
}

pub(super) fn done(token: &str, opened: &UnsubscribeToken) -> Response {
    let body = format!(
        "<p>You will get no more mail from {}. What is on its way now may still arrive.</p>\n<p>Was it a mistake?</p>\n{}",
        what(opened),
        button(&format!("/u/{token}/undo"), "Stay subscribed")
    );
    html(StatusCode::OK, "You are unsubscribed", &body)
}

pub(super) fn undone(token: &str) -> Response {
    let body =
        format!("<p>The unsubscribe was taken back.</p>\n{}", button(&format!("/u/{token}"), "Unsubscribe again"));
    html(StatusCode::OK, "You stay subscribed", &body)
}

pub(super) fn test() -> Response {
    html(StatusCode::OK, "This was a test", "<p>The link is from a test mail: nothing was changed.</p>")
}

pub(super) fn not_found() -> Response {
    let body = "<p>This link is not known here. Was all of it copied? The mail has another one: \
                most mail programs offer “Unsubscribe” beside the sender.</p>";
    html(StatusCode::NOT_FOUND, "Nothing is here", body)
}

pub(super) fn later() -> Response {
    let body = "<p>It could not be stored just now. Please try again in some minutes.</p>";
    let mut response = html(StatusCode::SERVICE_UNAVAILABLE, "Please try again", body);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
    response
}
