//! A report for a terminal: aligned columns, nothing that a terminal would obey.

use super::view::{Column, Figures, ReplyGroup, Report, Row, minute};

/// Rows of a table that are shown where there are more; the other forms have all.
const ROWS_MAX: usize = 40;

/// The columns of a table, with what each shows.
const COLUMNS: [Column; 12] = [
    ("ACCEPTED", |f| count(f.accepted)),
    ("DELIVERED", |f| count(f.delivered)),
    ("RATE", |f| percent(f.delivery_rate)),
    ("DEFERRED", |f| count(f.deferred)),
    ("BOUNCED", |f| count(f.bounced)),
    ("LATE", |f| count(f.late_bounces)),
    ("EXPIRED", |f| count(f.expired + f.failed)),
    ("SUPPR", |f| count(f.suppressed)),
    ("COMPL", |f| count(f.complained)),
    ("P50", |f| f.delivery_time.map_or("-".into(), |t| span(t.p50_ms))),
    ("P95", |f| f.delivery_time.map_or("-".into(), |t| span(t.p95_ms))),
    ("P99", |f| f.delivery_time.map_or("-".into(), |t| span(t.p99_ms))),
];

/// The report as lines.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    line(&mut out, &format!("{}: {}", report.title(), report.time()));
    let behind = report.as_of.behind;
    let lag = if behind > 0 { format!("; {behind} events are not counted yet") } else { String::new() };
    line(&mut out, &format!("counted up to event {}, {}{lag}", report.as_of.event, minute(report.as_of.at)));
    if let Some(campaign) = &report.campaign {
        let at = |label: &str, at: Option<crate::types::Timestamp>| at.map(|at| format!(", {label} {}", minute(at)));
        let (started, ended) = (at("started", campaign.started), at("ended", campaign.ended));
        let times = started.into_iter().chain(ended).collect::<String>();
        line(&mut out, &format!("{:?}: {}{times}, {} waiting", campaign.name, campaign.state, count(campaign.waiting)));
    }
    line(&mut out, "");
    if report.replies.is_none() || report.campaign.is_some() {
        totals(&mut out, &report.total);
    }
    if !report.compared.is_empty() {
        let own = report.campaign.as_ref().map_or("this", |c| &c.id);
        let own = Row { name: own.to_owned(), figures: report.total.clone() };
        let others = report.compared.iter().map(|c| Row { name: c.campaign.id.clone(), figures: c.total.clone() });
        table(&mut out, "COMPARED", &std::iter::once(own).chain(others).collect::<Vec<_>>());
    }
    for (by, rows) in report.tables() {
        table(&mut out, &by.to_uppercase(), rows);
    }
    classes(&mut out, &report.total);
    if let Some(groups) = &report.replies {
        replies(&mut out, groups);
    }
    out
}

fn totals(out: &mut String, f: &Figures) {
    let facts = [
        ("accepted", f.accepted),
        ("rejected", f.rejected),
        ("delivered", f.delivered),
        ("deferred (attempts)", f.deferred),
        ("bounced", f.bounced),
        ("bounced later", f.late_bounces),
        ("failed", f.failed),
        ("expired", f.expired),
        ("suppressed", f.suppressed),
        ("rendering failed", f.rendering_failed),
        ("cancelled", f.cancelled),
        ("complained", f.complained),
        ("unsubscribed", f.unsubscribed),
        ("opened", f.opened),
        ("clicked", f.clicked),
        ("auto-replied", f.auto_replied),
    ];
    for (name, n) in facts.into_iter().filter(|(name, n)| *n > 0 || matches!(*name, "delivered" | "bounced")) {
        line(out, &format!("  {name:<20} {:>12}", count(n)));
    }
    let rates =
        [("delivery rate", f.delivery_rate), ("bounce rate", f.bounce_rate), ("complaint rate", f.complaint_rate)];
    for (name, rate) in rates.into_iter().filter(|(_, rate)| rate.is_some()) {
        line(out, &format!("  {name:<20} {:>12}", percent(rate)));
    }
    if let Some(t) = f.delivery_time {
        let text = format!("{} / {} / {}", span(t.p50_ms), span(t.p95_ms), span(t.p99_ms));
        line(out, &format!("  {:<20} {text:>12}", "p50 / p95 / p99"));
    }
    line(out, "");
}

fn table(out: &mut String, by: &str, rows: &[Row]) {
    let used: Vec<_> = COLUMNS
        .iter()
        .filter(|(_, show)| rows.iter().any(|row| !matches!(show(&row.figures).as_str(), "0" | "-")))
        .collect();
    let mut lines = vec![std::iter::once(by.to_owned()).chain(used.iter().map(|c| c.0.to_owned())).collect::<Vec<_>>()];
    for row in rows.iter().take(ROWS_MAX) {
        lines.push(std::iter::once(clean(&row.name)).chain(used.iter().map(|c| (c.1)(&row.figures))).collect());
    }
    aligned(out, &lines);
    if rows.len() > ROWS_MAX {
        line(out, &format!("… and {} more: --format csv has all", rows.len() - ROWS_MAX));
    }
    line(out, "");
}

fn aligned(out: &mut String, lines: &[Vec<String>]) {
    let width = |column: usize| lines.iter().map(|l| l[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
    for cells in lines {
        let mut text = format!("{:<w$}", cells[0], w = widths[0]);
        for (cell, w) in cells[1..].iter().zip(&widths[1..]) {
            text.push_str(&format!("  {cell:>w$}"));
        }
        line(out, &text);
    }
}

fn classes(out: &mut String, f: &Figures) {
    if f.classes.is_empty() {
        return;
    }
    let mut rows: Vec<_> = f.classes.iter().collect();
    rows.sort_by_key(|(_, c)| std::cmp::Reverse((c.bounced + c.late_bounces, c.deferred)));
    let mut lines = vec![["CLASS", "BOUNCED", "LATE", "DEFERRED"].map(str::to_owned).to_vec()];
    lines.extend(
        rows.iter().map(|(name, c)| vec![clean(name), count(c.bounced), count(c.late_bounces), count(c.deferred)]),
    );
    aligned(out, &lines);
    line(out, "");
}

/// Groups of replies, each ready to be pasted into a mail to a provider's postmaster.
fn replies(out: &mut String, groups: &[ReplyGroup]) {
    for group in groups {
        line(
            out,
            &format!(
                "{:>9} × {} by {} ({})",
                count(group.count),
                group.event,
                clean(&group.provider),
                clean(&group.category)
            ),
        );
        line(out, &format!("            {}", group.reply(&group.template)));
        if !group.example.is_empty() && group.example != group.template {
            line(out, &format!("      e.g. {}", group.reply(&group.example)));
        }
    }
    if groups.is_empty() {
        line(out, "no replies but yes");
    }
}

impl ReplyGroup {
    /// A text of the group as the reply that it was.
    pub fn reply(&self, text: &str) -> String {
        let code = if self.code > 0 { format!("{} ", self.code) } else { String::new() };
        let enhanced = if self.enhanced.is_empty() || text.starts_with(&self.enhanced) {
            String::new()
        } else {
            format!("{} ", self.enhanced)
        };
        clean(&format!("{code}{enhanced}{text}"))
    }
}

/// A text of the world without controls and marks that turn the direction of a line.
pub(super) fn clean(text: &str) -> String {
    let bad = |c: char| {
        c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
    };
    text.chars().map(|c| if bad(c) { ' ' } else { c }).collect()
}

fn line(out: &mut String, text: &str) {
    out.push_str(text.trim_end());
    out.push('\n');
}

/// A number in groups of three.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A share in per cent; small ones with more places.
pub(super) fn percent(rate: Option<f64>) -> String {
    match rate {
        None => "-".into(),
        Some(rate) if rate > 0.0 && rate < 0.01 => format!("{:.3}%", rate * 100.0),
        Some(rate) => format!("{:.2}%", rate * 100.0),
    }
}

/// How long something took.
pub(super) fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..60_000 => format!("{:.1}s", ms as f64 / 1e3),
        60_000..3_600_000 => format!("{}m{:02}s", ms / 60_000, ms / 1_000 % 60),
        3_600_000..86_400_000 => format!("{}h{:02}m", ms / 3_600_000, ms / 60_000 % 60),
        _ => format!("{}d{}h", ms / 86_400_000, ms / 3_600_000 % 24),
    }
}
