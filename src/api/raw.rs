//! A message that comes ready made (`message/rfc822`): its envelope, and line ends that can't smuggle.
//!
//! The envelope is in the query (`?from=…&to=…&to=…`) or, for long lists, in the header fields `Posthaste-From` and
//! `Posthaste-To` (comma-separated); the query wins. The header of the message is not read for recipients.

use axum::http::HeaderMap;
use bytes::Bytes;

use super::Problem;
use super::compose::steering;
use super::input::Params;
use crate::queue::intake::Steering;
use crate::types::{Mailbox, Name, ReversePath};

/// The envelope of a raw message.
pub struct RawEnvelope {
    /// The reverse-path.
    pub reverse_path: ReversePath,
    /// The recipients, each once.
    pub recipients: Vec<Mailbox>,
    /// What steers it.
    pub steering: Steering,
    /// Whose mail it is, with an admin key.
    pub tenant: Option<Name>,
}

/// Reads the envelope.
pub fn envelope(params: &mut Params, headers: &HeaderMap) -> Result<RawEnvelope, Problem> {
    let field = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let from = params.text("from")?.or_else(|| field("posthaste-from"));
    let Some(from) = from else {
        return Err(Problem::invalid("from", "a raw message needs its reverse-path: ?from=, empty for null"));
    };
    let reverse_path = reverse_path("from", &from)?;
    let mut to = params.all("to");
    if to.is_empty() {
        to.extend(headers.get_all("posthaste-to").iter().filter_map(|v| v.to_str().ok()).map(str::to_owned));
    }
    let mut seen = std::collections::HashSet::new();
    let mut recipients = Vec::new();
    for text in to.iter().flat_map(|list| split_list(list)) {
        let mailbox = Mailbox::parse(text).map_err(|e| Problem::invalid("to", format!("{text:?}: {e}")))?;
        if seen.insert(mailbox.canonical()) {
            recipients.push(mailbox);
        }
    }
    let mut tags = Vec::new();
    for text in params.all("tag") {
        tags.push(Name::parse(&text).map_err(|e| Problem::invalid("tag", format!("{text:?}: {e}")))?);
    }
    let campaign = params.parse("campaign", Name::parse)?;
    let pool = params.parse("pool", Name::parse)?;
    let class = params.get("class")?;
    let metadata = params.parse("metadata", |text| {
        serde_json::from_str::<serde_json::Map<_, _>>(text).map(|m| serde_json::Value::Object(m).to_string())
    })?;
    let steering = steering(campaign, tags, pool, class, metadata.map(String::into_boxed_str))?;
    Ok(RawEnvelope { reverse_path, recipients, steering, tenant: params.parse("tenant", Name::parse)? })
}

/// A reverse-path: empty or `<>` is null.
pub fn reverse_path(field: &str, text: &str) -> Result<ReversePath, Problem> {
    match text.trim() {
        "" | "<>" => Ok(ReversePath::Null),
        text => {
            let parsed = Mailbox::parse(text).map_err(|e| Problem::invalid(field, format!("{text:?}: {e}")))?;
            Ok(ReversePath::Mailbox(parsed))
        }
    }
}

/// Parts between commas that stand outside quotes.
fn split_list(list: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    list.split(move |c| {
        let was_escaped = escaped;
        escaped = c == '\\' && quoted && !was_escaped;
        if c == '"' && !was_escaped {
            quoted = !quoted;
        }
        c == ',' && !quoted
    })
    .map(str::trim)
    .filter(|part| !part.is_empty())
}

/// The body with CRLF line ends. A message whose line ends are all LF is converted; a bare CR, a NUL or a mixture is
/// refused with its line: what one server takes for a line end and the next one doesn't is how mail is smuggled.
pub fn with_crlf(body: Bytes) -> Result<Bytes, Problem> {
    let (mut line, mut crlf, mut lf, mut previous) = (1_usize, 0_usize, 0_usize, 0_u8);
    for (i, byte) in body.iter().enumerate() {
        match byte {
            0 => return Err(bad_octet(line, "a NUL octet")),
            b'\r' if body.get(i + 1) != Some(&b'\n') => return Err(bad_octet(line, "a CR without LF")),
            b'\n' => {
                *(if previous == b'\r' { &mut crlf } else { &mut lf }) += 1;
                if crlf > 0 && lf > 0 {
                    return Err(bad_octet(line, "another line end than the lines before: use CRLF, or LF, throughout"));
                }
                line += 1;
            }
            _ => {}
        }
        previous = *byte;
    }
    if lf == 0 {
        return Ok(body);
    }
    let mut out = Vec::with_capacity(body.len() + lf);
    for part in body.split_inclusive(|b| *b == b'\n') {
        match part.strip_suffix(b"\n") {
            Some(text) => {
                out.extend_from_slice(text);
                out.extend_from_slice(b"\r\n");
            }
            None => out.extend_from_slice(part),
        }
    }
    Ok(out.into())
}

fn bad_octet(line: usize, what: &str) -> Problem {
    Problem::invalid("body", format!("line {line} has {what}")).with("line", line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_are_made_crlf_or_refused() {
        let check = |given: &'static [u8], want: Option<&[u8]>| {
            let got = with_crlf(Bytes::from_static(given)).ok();
            assert_eq!(got.as_deref(), want, "{given:?}");
        };
        check(b"A: b\n\nx\n", Some(b"A: b\r\n\r\nx\r\n"));
        check(b"A: b\r\n\r\nx", Some(b"A: b\r\n\r\nx"));
        check(b"", Some(b""));
        // Smuggling: an end of data that only some servers see.
        check(b"x\r\n.\n", None);
        check(b"x\n.\r\n", None);
        check(b"x\r.\r\n", None);
        check(b"x\r\r\n.\r\r\n", None);
        check(b"x\r\n\0.\r\n", None);
        check(b"x\r", None);
    }

    #[test]
    fn lists_are_split_outside_quotes() {
        let parts: Vec<_> = split_list(r#"a@x.example, "b,\"c"@x.example ,,d@x.example"#).collect();
        assert_eq!(parts, ["a@x.example", r#""b,\"c"@x.example"#, "d@x.example"]);
    }
}
