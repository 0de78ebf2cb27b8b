//! What is printed of campaigns: one, all, the progress, the findings of a check.

use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Duration;

use serde_json::Value;

use super::seconds;
use crate::cli::admin::human::count;
use crate::cli::admin::out::{Table, printable, printable_lines};
use crate::cli::admin::{Client, Out};

/// The width of the progress bar.
const BAR: u64 = 32;

/// The counts that are shown, in this order.
const COUNTS: [&str; 11] = [
    "total",
    "delivered",
    "bounced",
    "failed",
    "expired",
    "suppressed",
    "rendering_failed",
    "cancelled",
    "deferred",
    "complained",
    "waiting",
];

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or(0)
}

/// One campaign.
pub(super) fn one(campaign: &Value, out: &mut Out) -> anyhow::Result<()> {
    if out.json {
        return out.value(campaign);
    }
    let mut line = format!("{}  {}", text(campaign, "id"), text(campaign, "state"));
    if !text(campaign, "reason").is_empty() {
        let _ = write!(line, ": {}", text(campaign, "reason"));
    }
    out.head(&printable(&line))?;
    for name in ["name", "tenant", "created", "started", "due", "ended"] {
        if !text(campaign, name).is_empty() {
            out.line(printable(&format!("  {name:<10} {}", text(campaign, name))))?;
        }
    }
    for name in ["in_flight", "rows"] {
        if let Some(n) = campaign[name].as_u64() {
            out.line(format!("  {name:<10} {}", count(n)))?;
        }
    }
    if let Some(hold) = campaign["hold"].as_object() {
        let word = |name: &str| hold.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let until = word("until");
        let until = if until.is_empty() { until } else { format!(" until {until}") };
        out.line(printable(&format!("  held       {}{until}", word("reason"))))?;
    }
    counts(&campaign["counts"], out)?;
    uploaded(&campaign["upload"], out)
}

fn counts(counts: &Value, out: &mut Out) -> anyhow::Result<()> {
    let total = number(counts, "total");
    for name in COUNTS {
        let n = number(counts, name);
        if n > 0 || matches!(name, "total" | "delivered" | "waiting") {
            let share = if total > 0 && !matches!(name, "total" | "deferred") {
                format!("  {:>5.1} %", n as f64 * 100.0 / total as f64)
            } else {
                String::new()
            };
            out.line(format!("  {name:<17} {:>12}{share}", count(n)))?;
        }
    }
    Ok(())
}

fn uploaded(upload: &Value, out: &mut Out) -> anyhow::Result<()> {
    let left: Vec<String> = ["invalid", "duplicate", "suppressed", "excluded", "role"]
        .iter()
        .filter(|name| number(upload, name) > 0)
        .map(|name| format!("{} {name}", count(number(upload, name))))
        .collect();
    if left.is_empty() {
        return Ok(());
    }
    out.line(format!("  of {} rows uploaded, not taken: {}", count(number(upload, "read")), left.join(", ")))
}

/// The answer to a start.
pub(super) fn started(answer: &Value, out: &mut Out) -> anyhow::Result<()> {
    if out.json {
        return out.value(answer);
    }
    one(answer, out)?;
    let estimate = &answer["estimate"];
    if let Some(time) = seconds(&estimate["seconds"]) {
        out.line(format!("  estimate   {time} for {} recipients", count(number(estimate, "rows"))))?;
    }
    let findings = if answer["findings"].is_array() { &answer["findings"] } else { &answer["check"]["findings"] };
    print_findings(findings, out)
}

/// All campaigns.
pub(super) fn list(answer: &Value, out: &mut Out) -> anyhow::Result<()> {
    if out.json {
        return out.value(answer);
    }
    let mut table = Table::new(&["ID", "STATE", "TENANT", "#TOTAL", "#DELIVERED", "#BOUNCED", "#WAITING", "CREATED"]);
    for campaign in answer["campaigns"].as_array().into_iter().flatten() {
        let counts = &campaign["counts"];
        table.row([
            text(campaign, "id").to_owned(),
            text(campaign, "state").to_owned(),
            text(campaign, "tenant").to_owned(),
            count(number(counts, "total")),
            count(number(counts, "delivered")),
            count(number(counts, "bounced")),
            count(number(counts, "waiting")),
            text(campaign, "created").to_owned(),
        ]);
    }
    out.table(&table, "no campaigns")
}

/// The progress until the campaign has ended.
pub(super) async fn watch(path: &str, every: Duration, client: &Client, out: &mut Out) -> anyhow::Result<()> {
    let terminal = std::io::stderr().is_terminal() && !out.json;
    let mut last = String::new();
    loop {
        let campaign: Value = client.get(path).await?;
        let state = text(&campaign, "state").to_owned();
        let line = bar(&campaign);
        if terminal {
            eprint!("\r\x1b[2K{line}");
        } else if out.json {
            out.line(serde_json::to_string(&campaign)?)?;
            out.flush()?;
        } else if line != last {
            out.line(&line)?;
            out.flush()?;
        }
        last = line;
        if matches!(state.as_str(), "done" | "cancelled" | "halted") {
            if terminal {
                eprintln!();
            }
            one(&campaign, out)?;
            anyhow::ensure!(state != "halted", "the campaign was halted: {}", text(&campaign, "reason"));
            return Ok(());
        }
        tokio::time::sleep(every).await;
    }
}

fn bar(campaign: &Value) -> String {
    let counts = &campaign["counts"];
    let (total, waiting) = (number(counts, "total"), number(counts, "waiting"));
    let ended = total.saturating_sub(waiting);
    let filled = ended.saturating_mul(BAR).checked_div(total).unwrap_or(0);
    let bar: String = (0..BAR).map(|i| if i < filled { '#' } else { '.' }).collect();
    let share = if total == 0 { 0.0 } else { ended as f64 * 100.0 / total as f64 };
    let rate = campaign["rates"]["ended_per_second"].as_f64();
    let rate = rate.map_or(String::new(), |rate| format!("  {rate:.0}/s"));
    let eta = text(campaign, "eta");
    let eta = if eta.is_empty() { String::new() } else { format!("  done about {eta}") };
    let bounced = number(counts, "bounced");
    format!(
        "{} [{bar}] {share:>5.1} %  {} of {}  {} bounced{rate}{eta}",
        text(campaign, "state"),
        count(ended),
        count(total),
        count(bounced)
    )
}

/// The findings of a check; errors make the command fail.
pub(super) fn findings(answer: &Value, out: &mut Out) -> anyhow::Result<()> {
    let findings = &answer["findings"];
    let errors = findings.as_array().into_iter().flatten().filter(|f| text(f, "severity") == "error").count();
    if out.json {
        out.value(answer)?;
    } else {
        print_findings(findings, out)?;
        if errors == 0 {
            out.line("ready to start")?;
        }
    }
    anyhow::ensure!(errors == 0, "{errors} errors: a start needs --force and a reason");
    Ok(())
}

fn print_findings(findings: &Value, out: &mut Out) -> anyhow::Result<()> {
    for finding in findings.as_array().into_iter().flatten() {
        let title = text(finding, "message");
        out.head(&printable(&format!("{}: {title} [{}]", text(finding, "severity"), text(finding, "check"))))?;
        for name in ["why", "fix"] {
            if !text(finding, name).is_empty() {
                out.line(format!("  {name}: {}", printable_lines(text(finding, name)).replace('\n', "\n       ")))?;
            }
        }
    }
    Ok(())
}

/// A message, or whom a segment selects.
pub(super) fn preview(answer: &Value, part: &str, out: &mut Out) -> anyhow::Result<()> {
    if out.json {
        return out.value(answer);
    }
    if let Some(selected) = answer["count"].as_u64().or(answer["selected"].as_u64()) {
        out.line(format!("{} of {} rows", count(selected), count(number(answer, "rows"))))?;
        for row in answer["sample"].as_array().into_iter().flatten() {
            out.line(printable(&row.to_string()))?;
        }
        for problem in answer["problems"].as_array().into_iter().flatten() {
            out.line(printable(&format!("warning: {problem}")))?;
        }
        return Ok(());
    }
    if matches!(part, "all" | "headers") {
        match &answer["headers"] {
            Value::Array(headers) => {
                for header in headers {
                    let (name, value) = (text(header, "name"), text(header, "value"));
                    out.line(printable(&format!("{name}: {value}")))?;
                }
            }
            headers => out.line(printable_lines(headers.as_str().unwrap_or_default()))?,
        }
    }
    for name in ["text", "html"] {
        let content = text(answer, name);
        if !content.is_empty() && (part == "all" || part == name) {
            if part == "all" {
                out.head(&format!("\n--- {name} ---"))?;
            }
            out.line(printable_lines(content))?;
        }
    }
    for warning in answer["warnings"].as_array().into_iter().flatten() {
        out.line(printable(&format!("warning: {}", warning.as_str().unwrap_or_default())))?;
    }
    Ok(())
}

/// The answer to a test.
pub(super) fn test(answer: &Value, out: &mut Out) -> anyhow::Result<()> {
    if out.json {
        return out.value(answer);
    }
    for message in answer["messages"].as_array().into_iter().flatten() {
        out.line(printable(&format!("on its way: {}", message.as_str().unwrap_or_default())))?;
    }
    Ok(())
}
