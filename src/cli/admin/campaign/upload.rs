//! `campaign upload`: a list as a stream, with its progress.
//!
//! 1. `HEAD` says how many octets are on disk as rows: an upload that broke off goes on there,
//! 2. the file is read and sent piece by piece, so that its size does not matter,
//! 3. the answer has the counts, once all rows are on disk.

use std::io::IsTerminal;
use std::path::Path;

use anyhow::{Context, bail};
use hyper::StatusCode;
use serde_json::Value;

use super::Place;
use crate::cli::admin::human::{count, size};
use crate::cli::admin::{Client, Out};

/// Uploads a list. `append` begins a further one.
pub(super) async fn upload(
    id: &str,
    file: &Path,
    append: bool,
    place: &Place<'_>,
    client: &Client,
    out: &mut Out,
) -> anyhow::Result<()> {
    let path = place.of(id, "recipients", &[])?;
    let told = || file.display().to_string();
    let length = std::fs::metadata(file).with_context(told)?.len();
    let mut offset = 0;
    if !append {
        let head = client.head(&path).await?;
        let number = |name: &str| head.get(name)?.to_str().ok()?.parse::<u64>().ok();
        let complete = head.get("upload-complete").is_some_and(|v| v == "?1" || v == "true");
        offset = if complete { 0 } else { number("upload-offset").unwrap_or(0) };
        if !complete && offset == 0 && is_compressed(file) && !out.json {
            eprintln!(
                "a compressed list is sent from its beginning, also after a break: what is there already is not taken twice"
            );
        }
        if offset > length {
            bail!(
                "{}: {offset} octets of a list are uploaded already, and this file has {length}: is it the same one?",
                told()
            );
        }
    }
    let show = std::io::stderr().is_terminal() && !out.json;
    let progress = move |sent: u64| {
        if show {
            let share = sent.saturating_mul(100).checked_div(length).unwrap_or(100);
            eprint!("\r{share:>3} %  {} of {} sent ", size(sent), size(length));
        }
    };
    let headers = if append { Vec::new() } else { vec![("upload-offset", offset.to_string())] };
    let content_type = content_type(file);
    let answer = client.put_file(&path, file, offset, content_type, &headers, progress).await;
    if show {
        eprintln!();
    }
    let (status, body) = answer?;
    let answer: Value = serde_json::from_slice(&body).context("the daemon's answer is not JSON")?;
    if status == StatusCode::OK || status == StatusCode::CREATED || status == StatusCode::ACCEPTED {
        return told_counts(&answer, out);
    }
    bail!("the daemon answered {status}")
}

/// Whether a file is compressed, by its name: such an upload has no place to go on from.
fn is_compressed(file: &Path) -> bool {
    file.extension().is_some_and(|e| ["gz", "zst"].iter().any(|known| e.eq_ignore_ascii_case(known)))
}

/// The format by the file's name; the compression is found by its first octets.
fn content_type(file: &Path) -> &'static str {
    let name = file.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_ascii_lowercase();
    let name = name.trim_end_matches(".gz").trim_end_matches(".zst");
    match name.rsplit('.').next() {
        Some("csv" | "tsv") => "text/csv",
        Some("ndjson" | "jsonl" | "json") => "application/x-ndjson",
        _ => "application/octet-stream",
    }
}

fn told_counts(answer: &Value, out: &mut Out) -> anyhow::Result<()> {
    if out.json {
        return out.value(answer);
    }
    let counts = if answer["counts"].is_object() { &answer["counts"] } else { answer };
    let number = |name: &str| counts[name].as_u64().unwrap_or(0);
    let left: Vec<String> = ["invalid", "duplicate", "suppressed", "excluded", "role"]
        .iter()
        .filter(|name| number(name) > 0)
        .map(|name| format!("{} {name}", count(number(name))))
        .collect();
    let left = if left.is_empty() { String::new() } else { format!("; not taken: {}", left.join(", ")) };
    out.line(format!("{} rows read, {} taken{left}", count(number("read")), count(number("accepted"))))
}
