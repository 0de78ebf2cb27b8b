//! A report as a page: one file, charts as SVG, no script, nothing from elsewhere; it prints well.
//!
//! All that comes from outside (names, domains, replies) passes [`esc`]; a test holds a hostile reply against it.

use std::fmt::Write as _;

use super::text::{clean, count, percent, span};
use super::view::{Column, Figures, ReplyGroup, Report, Row, Series, minute};
use crate::types::Timestamp;

/// Rows of a table that are shown; CSV and JSON have all.
const ROWS_MAX: usize = 60;
/// The size of the chart of a time series, in its own units.
const SIZE: (f64, f64) = (860.0, 190.0);

const STYLE: &str = "\
:root{--ink:#1c2430;--dim:#5d6b7d;--line:#d9dfe7;--ok:#2f7d55;--wait:#c9922e;--bad:#b83a3a;--late:#7a3ab8}\
body{font:14px/1.45 system-ui,-apple-system,'Segoe UI',sans-serif;color:var(--ink);margin:2rem auto;max-width:960px;padding:0 1rem}\
h1{font-size:1.5rem;margin:0}h2{font-size:1.05rem;margin:1.8rem 0 .5rem}p.dim,.dim{color:var(--dim)}\
.tiles{display:flex;flex-wrap:wrap;gap:.7rem;margin:1rem 0}.tile{border:1px solid var(--line);border-radius:6px;padding:.5rem .8rem;min-width:7.2rem}\
.tile b{display:block;font-size:1.25rem;font-variant-numeric:tabular-nums}.tile span{color:var(--dim);font-size:.85rem}\
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}th,td{text-align:right;padding:.25rem .5rem;border-bottom:1px solid var(--line)}\
th:first-child,td:first-child{text-align:left;overflow-wrap:anywhere}th{color:var(--dim);font-weight:600;font-size:.85rem}\
svg{width:100%;height:auto;display:block}svg text{font:11px system-ui,sans-serif;fill:var(--dim)}\
.key i{display:inline-block;width:.75rem;height:.75rem;border-radius:2px;margin:0 .3rem 0 .9rem;vertical-align:-1px}\
pre{background:#f4f6f9;border:1px solid var(--line);border-radius:6px;padding:.5rem .7rem;margin:.2rem 0 .9rem;white-space:pre-wrap;overflow-wrap:anywhere;font-size:12.5px}\
@media print{body{margin:0;max-width:none;font-size:11px}h2,tr,.tile,pre{break-inside:avoid}h2{break-after:avoid}pre{background:none}\
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}";

/// The columns of a table, with what each shows.
const COLUMNS: [Column; 11] = [
    ("accepted", |f| count(f.accepted)),
    ("delivered", |f| count(f.delivered)),
    ("rate", |f| percent(f.delivery_rate)),
    ("deferred", |f| count(f.deferred)),
    ("bounced", |f| count(f.bounced)),
    ("late", |f| count(f.late_bounces)),
    ("given up", |f| count(f.expired + f.failed)),
    ("suppressed", |f| count(f.suppressed)),
    ("complaints", |f| count(f.complained)),
    ("p50", |f| f.delivery_time.map_or("-".into(), |t| span(t.p50_ms))),
    ("p95", |f| f.delivery_time.map_or("-".into(), |t| span(t.p95_ms))),
];

/// The report as a page.
pub fn render(report: &Report) -> String {
    let mut out = String::with_capacity(32 << 10);
    let title = esc(&report.title());
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>{title}</title>\
         <style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n"
    );
    head(&mut out, report);
    if report.replies.is_none() || report.campaign.is_some() {
        tiles(&mut out, &report.total);
    }
    if let Some(series) = report.series.as_ref().filter(|series| !series.points.is_empty()) {
        chart(&mut out, series);
    }
    if !report.compared.is_empty() {
        let own = report.campaign.as_ref().map_or("this one", |c| &c.id);
        let own = Row { name: own.to_owned(), figures: report.total.clone() };
        let others = report.compared.iter().map(|c| Row { name: c.campaign.id.clone(), figures: c.total.clone() });
        table(&mut out, "Compared", &std::iter::once(own).chain(others).collect::<Vec<_>>());
    }
    for (by, rows) in report.tables() {
        table(&mut out, &format!("By {by}"), rows);
    }
    classes(&mut out, &report.total);
    if let Some(groups) = &report.replies {
        replies(&mut out, groups);
    }
    out.push_str("</body></html>\n");
    out
}

fn head(out: &mut String, report: &Report) {
    let behind = report.as_of.behind;
    let lag = if behind > 0 { format!(", {} events are not counted yet", count(behind)) } else { String::new() };
    let _ = writeln!(
        out,
        "<p class=\"dim\">{} · counted up to event {} on {}{lag}</p>",
        esc(&report.time()),
        report.as_of.event,
        minute(report.as_of.at)
    );
    let Some(campaign) = &report.campaign else { return };
    let at = |label: &str, at: Option<Timestamp>| at.map_or(String::new(), |at| format!(" · {label} {}", minute(at)));
    let _ = writeln!(
        out,
        "<p><b>{}</b> · {}{}{} · {} waiting</p>",
        esc(&campaign.name),
        esc(&campaign.state),
        at("started", campaign.started),
        at("ended", campaign.ended),
        count(campaign.waiting)
    );
}

fn tiles(out: &mut String, f: &Figures) {
    let mut tiles = vec![("accepted", count(f.accepted)), ("delivered", count(f.delivered))];
    tiles.push(("delivery rate", percent(f.delivery_rate)));
    let shown = [
        ("deferred attempts", f.deferred),
        ("bounced", f.bounced),
        ("bounced later", f.late_bounces),
        ("failed", f.failed),
        ("expired", f.expired),
        ("suppressed", f.suppressed),
        ("rendering failed", f.rendering_failed),
        ("cancelled", f.cancelled),
        ("rejected", f.rejected),
        ("complaints", f.complained),
        ("unsubscribed", f.unsubscribed),
        ("opened", f.opened),
        ("clicked", f.clicked),
        ("auto-replied", f.auto_replied),
    ];
    tiles.extend(shown.into_iter().filter(|(_, n)| *n > 0).map(|(name, n)| (name, count(n))));
    tiles.extend(f.complaint_rate.map(|rate| ("complaint rate", percent(Some(rate)))));
    if let Some(t) = f.delivery_time {
        tiles.extend([("p50", span(t.p50_ms)), ("p95", span(t.p95_ms)), ("p99", span(t.p99_ms))]);
    }
    out.push_str("<div class=\"tiles\">");
    for (name, value) in tiles {
        let _ = write!(out, "<div class=\"tile\"><b>{value}</b><span>{name}</span></div>");
    }
    out.push_str("</div>\n");
}

/// Bars a step: delivered, deferred, bounced, given up, one on the other.
fn chart(out: &mut String, series: &Series) {
    let (width, height) = SIZE;
    let most = series.points.iter().map(|p| p.delivered + p.deferred + p.bounced + p.late_bounces + p.given_up).max();
    let most = most.unwrap_or(0).max(1);
    let step = width / series.points.len() as f64;
    let _ = write!(
        out,
        "<h2>In time, by {}</h2><p class=\"key dim\"><i style=\"background:var(--ok)\"></i>delivered\
         <i style=\"background:var(--wait)\"></i>deferred<i style=\"background:var(--bad)\"></i>bounced or given up\
         <i style=\"background:var(--late)\"></i>bounced later</p>\
         <svg viewBox=\"0 0 {width} {}\" role=\"img\" aria-label=\"time series\">",
        esc(&series.resolution),
        height + 34.0
    );
    for line in 0..=4 {
        let y = 14.0 + height * f64::from(line) / 4.0;
        let value = most - most * line as u64 / 4;
        let _ = write!(
            out,
            "<line x1=\"0\" x2=\"{width}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#d9dfe7\"/><text x=\"2\" y=\"{:.1}\">{}</text>",
            y - 2.0,
            count(value)
        );
    }
    for (i, point) in series.points.iter().enumerate() {
        let parts = [
            (point.delivered, "--ok"),
            (point.deferred, "--wait"),
            (point.bounced + point.given_up, "--bad"),
            (point.late_bounces, "--late"),
        ];
        let mut y = 14.0 + height;
        for (n, colour) in parts.into_iter().filter(|(n, _)| *n > 0) {
            let tall = height * n as f64 / most as f64;
            y -= tall;
            let _ = write!(
                out,
                "<rect x=\"{:.2}\" y=\"{y:.2}\" width=\"{:.2}\" height=\"{tall:.2}\" fill=\"var({colour})\"><title>{}: {}</title></rect>",
                i as f64 * step,
                (step * 0.9).min(40.0),
                minute(point.at),
                count(n)
            );
        }
    }
    let ends = [(0.0, "start", series.points.first()), (width, "end", series.points.last())];
    for (x, anchor, point) in ends {
        let Some(point) = point else { continue };
        let _ = write!(
            out,
            "<text x=\"{x}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            height + 30.0,
            minute(point.at)
        );
    }
    out.push_str("</svg>\n");
}

fn table(out: &mut String, heading: &str, rows: &[Row]) {
    let _ = write!(out, "<h2>{}</h2>", esc(heading));
    if rows.is_empty() {
        out.push_str("<p class=\"dim\">nothing yet</p>\n");
        return;
    }
    let used: Vec<_> = COLUMNS
        .iter()
        .filter(|(_, show)| rows.iter().any(|row| !matches!(show(&row.figures).as_str(), "0" | "-")))
        .collect();
    out.push_str("<table><thead><tr><th></th>");
    for (name, _) in &used {
        let _ = write!(out, "<th>{name}</th>");
    }
    out.push_str("<th>share</th></tr></thead><tbody>\n");
    for row in rows.iter().take(ROWS_MAX) {
        let _ = write!(out, "<tr><td>{}</td>", esc(&row.name));
        for (_, show) in &used {
            let _ = write!(out, "<td>{}</td>", show(&row.figures));
        }
        let _ = writeln!(out, "<td>{}</td></tr>", bar(&row.figures));
    }
    out.push_str("</tbody></table>\n");
    if rows.len() > ROWS_MAX {
        let _ = writeln!(out, "<p class=\"dim\">and {} more</p>", count((rows.len() - ROWS_MAX) as u64));
    }
}

/// How the recipients of a row ended, as one bar.
fn bar(f: &Figures) -> String {
    let parts = [(f.delivered, "--ok"), (f.bounced + f.failed + f.expired, "--bad")];
    let all = parts.iter().map(|p| p.0).sum::<u64>().max(1) as f64;
    let mut out = "<svg viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\" style=\"width:90px;height:9px;display:inline-block\">".to_owned();
    let mut x = 0.0;
    for (n, colour) in parts {
        let wide = 100.0 * n as f64 / all;
        let _ = write!(out, "<rect x=\"{x:.2}\" y=\"0\" width=\"{wide:.2}\" height=\"10\" fill=\"var({colour})\"/>");
        x += wide;
    }
    out.push_str("</svg>");
    out
}

fn classes(out: &mut String, f: &Figures) {
    if f.classes.is_empty() {
        return;
    }
    let mut rows: Vec<_> = f.classes.iter().collect();
    rows.sort_by_key(|(_, c)| std::cmp::Reverse((c.bounced + c.late_bounces, c.deferred)));
    out.push_str("<h2>By class</h2><table><thead><tr><th></th><th>bounced</th><th>bounced later</th><th>deferred</th></tr></thead><tbody>\n");
    for (name, c) in rows {
        let numbers = [c.bounced, c.late_bounces, c.deferred].map(count);
        let _ = writeln!(out, "<tr><td>{}</td><td>{}</td></tr>", esc(name), numbers.join("</td><td>"));
    }
    out.push_str("</tbody></table>\n");
}

fn replies(out: &mut String, groups: &[ReplyGroup]) {
    out.push_str("<h2>Replies</h2>\n");
    if groups.is_empty() {
        out.push_str("<p class=\"dim\">nothing but yes</p>\n");
    }
    for group in groups {
        let _ = writeln!(
            out,
            "<div><b>{}</b> × {} by <b>{}</b> <span class=\"dim\">{}</span><pre>{}</pre></div>",
            count(group.count),
            esc(&group.event),
            esc(&group.provider),
            esc(&group.category),
            esc(&group.reply(if group.example.is_empty() { &group.template } else { &group.example }))
        );
    }
}

/// A text of the world as text of a page, also within an attribute.
fn esc(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in clean(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}
