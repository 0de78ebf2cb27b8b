//! The delivery status of RFC 3464: a block of fields about the message, then one for each recipient.

use super::codes;
use super::mail::{Fields, Mail, fields, get};
use super::text::{addresses, mentioned};
use super::{Found, REPORTS_MAX};

/// What the delivery status of a mail says of each recipient; nothing where it has none.
pub fn reports(mail: &Mail) -> Vec<Found> {
    let Some(status) = &mail.status else { return Vec::new() };
    let blocks: Vec<Fields> = blocks(status);
    let reported_by = blocks.iter().find_map(|block| get(block, "reporting-mta")).map(typed);
    let mut found: Vec<Found> = Vec::new();
    for block in &blocks {
        let Some(recipient) = recipient(block) else { continue };
        if found.len() >= REPORTS_MAX {
            break;
        }
        let diagnostic = get(block, "diagnostic-code").map(typed).filter(|text| !text.is_empty());
        let status = get(block, "status").and_then(|s| codes::enhanced_in(s.trim()));
        let by = get(block, "remote-mta").map(typed).filter(|host| !host.is_empty() && !host.contains("unknown"));
        found.push(Found {
            phase: codes::phase_in(&mail.text).filter(|_| blocks.len() <= 2),
            context: mentioned(mail, &recipient),
            smtp_code: diagnostic.as_deref().and_then(codes::smtp_code_in),
            action: get(block, "action").map(word),
            reported_by: by.or_else(|| reported_by.clone()),
            recipient,
            status,
            diagnostic,
        });
    }
    // The same recipient may stand there by two names, or in two blocks: the failure is what counts.
    let mut kept: Vec<Found> = Vec::new();
    for one in found {
        match kept.iter_mut().find(|k| k.recipient.eq_ignore_ascii_case(&one.recipient)) {
            Some(there) if there.action.as_deref() != Some("failed") && one.action.as_deref() == Some("failed") => {
                *there = one
            }
            Some(there) if there.diagnostic.is_none() => {
                there.diagnostic = one.diagnostic;
                there.status = there.status.take().or(one.status);
            }
            Some(_) => {}
            None => kept.push(one),
        }
    }
    // Who was delivered to is no news beside who was not.
    if kept.iter().any(|k| matches!(k.action.as_deref(), Some("failed" | "delayed") | None)) {
        kept.retain(|k| matches!(k.action.as_deref(), Some("failed" | "delayed") | None));
    }
    kept
}

fn blocks(status: &str) -> Vec<Fields> {
    let mut blocks = vec![String::new()];
    for line in status.lines() {
        if line.trim().is_empty() {
            blocks.push(String::new());
        } else if let Some(block) = blocks.last_mut() {
            // Some write the recipients without an empty line between them.
            let next = line.get(..16).is_some_and(|head| head.eq_ignore_ascii_case("final-recipient:"));
            if next && block.to_ascii_lowercase().contains("final-recipient:") {
                blocks.push(String::new());
            }
            if let Some(block) = blocks.last_mut() {
                block.push_str(line);
                block.push('\n');
            }
        }
    }
    blocks.iter().filter(|block| !block.is_empty()).map(|block| fields(block)).collect()
}

/// The address that failed: the final one, which is the one that the reporting host knows; else the one that was given.
fn recipient(block: &Fields) -> Option<String> {
    let names = ["final-recipient", "x-actual-recipient", "original-recipient"];
    let of = |name: &str| addresses(&unxtext(&typed(get(block, name)?))).into_iter().next();
    names.iter().find_map(|name| of(name))
}

/// What stands behind the type: `rfc822; a@b`, `dns; mx.b`, `smtp; 550 no`.
fn typed(value: &str) -> String {
    match value.split_once(';') {
        Some((kind, rest)) if !kind.trim().contains(' ') && kind.len() < 24 => rest.trim().to_owned(),
        Some(_) | None => value.trim().to_owned(),
    }
}

/// Addresses of other types are written with `+3D` and the like (RFC 3461 §4).
fn unxtext(value: &str) -> String {
    if value.contains("+40") { value.replace("+40", "@") } else { value.to_owned() }
}

fn word(value: &str) -> String {
    let word: String =
        value.trim().chars().take_while(|c| c.is_ascii_alphabetic()).collect::<String>().to_ascii_lowercase();
    match word.as_str() {
        "fail" | "failure" | "failed" | "undeliverable" | "deliverable" | "expired" => "failed".to_owned(),
        "delay" | "deferred" | "delayed" => "delayed".to_owned(),
        _ => word,
    }
}
