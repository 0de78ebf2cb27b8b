//! A job file and the files that it names, as one request.

use std::path::Path;

use anyhow::{Context, bail};
use hyper::Method;
use serde_json::Value;

use super::Place;
use crate::campaign::job::{Format, Problem, inline_files, parse, place_of};
use crate::cli::admin::Client;
use crate::cli::admin::out::printable;

/// The largest file that a job may name, in octets.
const FILE_MAX: u64 = 32 << 20;

/// Sends a job; what is wrong with it is told with its place in the file.
pub(super) async fn submit(path: &Path, place: &Place<'_>, client: &Client) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let format = match path.extension().and_then(|e| e.to_str()) {
        Some("json") => Format::Json,
        Some("toml") => Format::Toml,
        _ if text.trim_start().starts_with('{') => Format::Json,
        _ => Format::Toml,
    };
    let folder = path.parent().unwrap_or(Path::new("."));
    let read = |name: &str| -> Result<Vec<u8>, String> {
        let file = folder.join(name);
        let size = std::fs::metadata(&file).map_err(|e| format!("{}: {e}", file.display()))?.len();
        if size > FILE_MAX {
            return Err(format!("{}: larger than {FILE_MAX} octets", file.display()));
        }
        std::fs::read(&file).map_err(|e| format!("{}: {e}", file.display()))
    };
    let told = |problems: Vec<Problem>| {
        let line = |mut problem: Problem| {
            // A template's own lines are those of its file; all else stands in the job.
            if let Some((line, column)) = place_of(&text, format, &problem.field).filter(|_| problem.line.is_none()) {
                (problem.line, problem.column) = (Some(line), Some(column));
            }
            format!("{}:{}", path.display(), printable(&problem.to_string()))
        };
        problems.into_iter().map(line).collect::<Vec<_>>().join("\n")
    };
    let body = match inline_files(&text, format, &read) {
        Ok(body) => body,
        Err(problems) => bail!("{}", told(problems)),
    };
    // Looked at here first: the daemon does not know the file, and its places are those of the problems.
    if let Err(mut problems) = parse(&body, Format::Json) {
        problems.iter_mut().for_each(|p| (p.line, p.column) = (None, None));
        bail!("{}", told(problems));
    }
    client.call(Method::POST, &place.all(), Some(body.into_bytes())).await
}
