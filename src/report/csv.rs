//! A report for a spreadsheet: RFC 4180, one header, a column that says what each line is of.

use super::view::{Column, Figures, Report};

/// The columns of figures.
const COLUMNS: [Column; 21] = [
    ("accepted", |f| f.accepted.to_string()),
    ("rejected", |f| f.rejected.to_string()),
    ("delivered", |f| f.delivered.to_string()),
    ("deferred", |f| f.deferred.to_string()),
    ("bounced", |f| f.bounced.to_string()),
    ("late_bounces", |f| f.late_bounces.to_string()),
    ("failed", |f| f.failed.to_string()),
    ("expired", |f| f.expired.to_string()),
    ("suppressed", |f| f.suppressed.to_string()),
    ("rendering_failed", |f| f.rendering_failed.to_string()),
    ("cancelled", |f| f.cancelled.to_string()),
    ("complained", |f| f.complained.to_string()),
    ("opened", |f| f.opened.to_string()),
    ("clicked", |f| f.clicked.to_string()),
    ("unsubscribed", |f| f.unsubscribed.to_string()),
    ("delivery_rate", |f| rate(f.delivery_rate)),
    ("bounce_rate", |f| rate(f.bounce_rate)),
    ("complaint_rate", |f| rate(f.complaint_rate)),
    ("p50_ms", |f| f.delivery_time.map_or(String::new(), |t| t.p50_ms.to_string())),
    ("p95_ms", |f| f.delivery_time.map_or(String::new(), |t| t.p95_ms.to_string())),
    ("p99_ms", |f| f.delivery_time.map_or(String::new(), |t| t.p99_ms.to_string())),
];

/// The report as CSV. The one on replies has columns of its own.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    if let Some(replies) = report.replies.as_ref().filter(|_| report.campaign.is_none()) {
        row(
            &mut out,
            ["provider", "event", "count", "late", "code", "enhanced", "category", "source", "template", "example"],
        );
        for r in replies {
            let (count, late, code) = (r.count.to_string(), r.late.to_string(), r.code.to_string());
            let texts = [
                &*r.provider,
                &r.event,
                &count,
                &late,
                &code,
                &r.enhanced,
                &r.category,
                &r.source,
                &r.template,
                &r.example,
            ];
            row(&mut out, texts);
        }
        return out;
    }
    row(&mut out, ["by", "name"].into_iter().chain(COLUMNS.iter().map(|c| c.0)));
    let mut figures = |by: &str, name: &str, f: &Figures| {
        let values: Vec<String> = COLUMNS.iter().map(|c| (c.1)(f)).collect();
        row(&mut out, [by, name].into_iter().chain(values.iter().map(String::as_str)));
    };
    figures("total", report.campaign.as_ref().map_or("", |c| &c.id), &report.total);
    for other in &report.compared {
        figures("compared", &other.campaign.id, &other.total);
    }
    for (by, rows) in report.tables() {
        rows.iter().for_each(|row| figures(by, &row.name, &row.figures));
    }
    for (name, class) in &report.total.classes {
        let (bounced, late_bounces, deferred) = (class.bounced, class.late_bounces, class.deferred);
        figures("class", name, &Figures { bounced, late_bounces, deferred, ..Figures::default() });
    }
    for point in report.series.iter().flat_map(|s| &s.points) {
        let f = Figures {
            accepted: point.accepted,
            delivered: point.delivered,
            deferred: point.deferred,
            bounced: point.bounced,
            late_bounces: point.late_bounces,
            failed: point.given_up,
            complained: point.complained,
            ..Figures::default()
        };
        figures("time", &point.at.rfc3339(), &f);
    }
    out
}

fn rate(rate: Option<f64>) -> String {
    rate.map_or(String::new(), |rate| format!("{rate:.6}"))
}

fn row<'a>(out: &mut String, cells: impl IntoIterator<Item = &'a str>) {
    for (i, cell) in cells.into_iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        // A formula of a spreadsheet must not begin a cell.
        let formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
        if formula || cell.contains([',', '"', '\n', '\r']) {
            out.push('"');
            if formula {
                out.push('\'');
            }
            out.push_str(&cell.replace('"', "\"\""));
            out.push('"');
        } else {
            out.push_str(cell);
        }
    }
    out.push_str("\r\n");
}
