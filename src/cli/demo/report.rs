//! The live table, the closing summary, and whether the counts agree.

use std::io::{self, Write};
use std::time::Duration;

use super::setup::{PROVIDERS, Stage, provider_of, write_recipient};
use super::watch::{Tally, Watch};
use crate::sandbox::Snapshot;
use crate::sandbox::source::Progress;

/// The clock tick of `/proc`: 100 a second on every Linux.
const TICKS_PER_SECOND: u64 = 100;

/// What became of all mail.
pub(super) struct Report {
    rows: Vec<Row>,
    accepted_events: u64,
    refused: u64,
    elapsed: Duration,
    /// Of the daemon's threads; `None` where the system doesn't tell.
    cpu: Option<Duration>,
}

/// One provider.
#[derive(Default)]
pub(super) struct Row {
    pub name: &'static str,
    /// Messages that got their 250.
    pub accepted: u64,
    /// What the daemon's events say.
    pub tally: Tally,
    /// What the provider itself counted.
    pub seen: Snapshot,
    /// From the 250 to the arrival, of mail that was taken at the first try, sorted; microseconds.
    pub latencies_us: Vec<u64>,
}

impl Report {
    pub fn make(stage: &Stage, watch: &Watch, progress: &Progress, elapsed: Duration, cpu: Option<Duration>) -> Self {
        let mut rows: Vec<Row> = PROVIDERS.iter().map(|(name, _, _)| Row { name, ..Row::default() }).collect();
        for (number, row) in rows.iter_mut().enumerate() {
            row.tally = watch.tallies[number];
            row.seen = stage.sink().counters(number).snapshot();
        }
        let mut address = Vec::new();
        for number in 0.. {
            let Some(at) = progress.slot(number) else { break };
            let Some(accepted_us) = at else { continue };
            let provider = provider_of(number);
            let row = &mut rows[provider];
            row.accepted += 1;
            address.clear();
            write_recipient(number, &mut address);
            let counters = stage.sink().counters(provider);
            let Some(seen) = counters.recipient(&String::from_utf8_lossy(&address)) else { continue };
            if seen.tries == 1 && seen.taken == 1 {
                let arrived = counters.started() + Duration::from_micros(seen.first_taken_us);
                let accepted = progress.started() + Duration::from_micros(accepted_us);
                // The mail may arrive before the source has read its 250.
                row.latencies_us.push(arrived.saturating_duration_since(accepted).as_micros() as u64);
            }
        }
        rows.iter_mut().for_each(|row| row.latencies_us.sort_unstable());
        Self { rows, accepted_events: watch.accepted, refused: progress.refused(), elapsed, cpu }
    }

    #[cfg(test)]
    pub fn of(rows: Vec<Row>, accepted_events: u64) -> Self {
        Self { rows, accepted_events, refused: 0, elapsed: Duration::from_secs(1), cpu: None }
    }

    /// What does not agree; nothing when all is well.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let accepted: u64 = self.rows.iter().map(|row| row.accepted).sum();
        if self.refused > 0 {
            problems.push(format!("{} messages were refused at the door", self.refused));
        }
        if self.accepted_events != accepted {
            problems.push(format!("{} accepted events for {accepted} replies of 250", self.accepted_events));
        }
        for row in &self.rows {
            if row.tally.ended() != row.accepted {
                problems.push(format!("{}: {} accepted, {} ended", row.name, row.accepted, row.tally.ended()));
            }
            let arrived = row.seen.taken - row.seen.duplicates;
            if arrived != row.tally.delivered {
                problems.push(format!("{}: {} delivered events, but {arrived} arrived", row.name, row.tally.delivered));
            }
            if row.seen.duplicates > 0 && row.seen.dropped == 0 {
                problems.push(format!("{}: {} duplicates", row.name, row.seen.duplicates));
            }
            if row.seen.rejected < row.tally.bounced {
                problems.push(format!("{}: {} bounced, {} rejected", row.name, row.tally.bounced, row.seen.rejected));
            }
        }
        problems
    }

    /// The closing summary.
    pub fn render(&self) -> String {
        let seconds = self.elapsed.as_secs_f64().max(0.001);
        let heads =
            ["provider", "accepted", "delivered", "deferrals", "bounced", "given up", "connections", "p50", "p99"];
        let mut lines = vec![heads.map(String::from)];
        let mut all = Row { name: "all", ..Row::default() };
        for row in &self.rows {
            lines.push(row.cells());
            all.add(row);
        }
        all.latencies_us.sort_unstable();
        lines.push(all.cells());
        let mut text = format!("\n{}", table(&lines));
        text.push_str("\np50 and p99: from the 250 to the arrival, of mail that was taken at the first try.\n");
        text.push_str(&format!(
            "{} messages in {seconds:.1} s, retries included: {:.0} a second.\n",
            all.accepted,
            all.accepted as f64 / seconds
        ));
        if let Some(cpu) = self.cpu.filter(|_| all.accepted > 0) {
            let each_ms = cpu.as_secs_f64() * 1_000.0 / all.accepted as f64;
            text.push_str(&format!("CPU of the daemon: {:.2} s, {each_ms:.2} ms a message.\n", cpu.as_secs_f64()));
        }
        let problems = self.problems();
        if problems.is_empty() {
            text.push_str("The daemon's events and the providers' own counts agree.");
        } else {
            text.push_str(&format!("The counts do NOT agree:\n  {}", problems.join("\n  ")));
        }
        text
    }
}

impl Row {
    fn add(&mut self, row: &Row) {
        self.accepted += row.accepted;
        self.tally.delivered += row.tally.delivered;
        self.tally.deferred += row.tally.deferred;
        self.tally.bounced += row.tally.bounced;
        self.tally.given_up += row.tally.given_up;
        self.seen.connections += row.seen.connections;
        self.latencies_us.extend_from_slice(&row.latencies_us);
    }

    fn cells(&self) -> [String; 9] {
        [
            self.name.to_owned(),
            self.accepted.to_string(),
            self.tally.delivered.to_string(),
            self.tally.deferred.to_string(),
            self.tally.bounced.to_string(),
            self.tally.given_up.to_string(),
            self.seen.connections.to_string(),
            milliseconds(&self.latencies_us, 50),
            milliseconds(&self.latencies_us, 99),
        ]
    }
}

/// The percentile of a sorted list of microseconds, in milliseconds.
fn milliseconds(sorted_us: &[u64], percent: usize) -> String {
    let at = (sorted_us.len() * percent / 100).min(sorted_us.len().saturating_sub(1));
    sorted_us.get(at).map_or("-".into(), |us| format!("{:.1} ms", *us as f64 / 1_000.0))
}

/// Draws the progress; answers how many lines the next drawing has to go up.
pub(super) fn draw(
    stage: &Stage,
    watch: &Watch,
    progress: &Progress,
    elapsed: Duration,
    terminal: bool,
    lines_before: usize,
) -> io::Result<usize> {
    let sum = |of: fn(&Tally) -> u64| watch.tallies.iter().map(of).sum::<u64>();
    let line = format!(
        "{:5.1} s  {} accepted, {} delivered, {} deferrals, {} bounced, {} waiting",
        elapsed.as_secs_f64(),
        progress.accepted(),
        sum(|t| t.delivered),
        sum(|t| t.deferred),
        sum(|t| t.bounced),
        progress.accepted().saturating_sub(watch.ended()),
    );
    let mut out = io::stdout().lock();
    if !terminal {
        writeln!(out, "{line}")?;
        out.flush()?;
        return Ok(0);
    }
    let mut rows = vec![["provider", "delivered", "deferrals", "bounced", "open connections"].map(String::from)];
    for (number, (name, _, _)) in PROVIDERS.iter().enumerate() {
        let tally = watch.tallies[number];
        let open = stage.sink().counters(number).snapshot().open;
        let counts = [tally.delivered, tally.deferred, tally.bounced, open].map(|n| n.to_string());
        let [delivered, deferred, bounced, open] = counts;
        rows.push([name.to_string(), delivered, deferred, bounced, open]);
    }
    // Up to the first line of the drawing before, and clear from there (ECMA-48 CUU and ED).
    if lines_before > 0 {
        write!(out, "\x1b[{lines_before}A\x1b[J")?;
    }
    let text = format!("{line}\n{}", table(&rows));
    write!(out, "{text}")?;
    out.flush()?;
    Ok(text.lines().count())
}

/// Columns as wide as their widest cell; the first to the left, the others to the right.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: [usize; N] = std::array::from_fn(|i| rows.iter().map(|row| row[i].len()).max().unwrap_or(0));
    let mut text = String::new();
    for row in rows {
        for (i, cell) in row.iter().enumerate() {
            let gap = if i == 0 { "" } else { "  " };
            let width = widths[i];
            text.push_str(&if i == 0 { format!("{gap}{cell:<width$}") } else { format!("{gap}{cell:>width$}") });
        }
        text.push('\n');
    }
    text
}

/// CPU time of the daemon's threads so far: of all but those of the sandbox and the one that draws. Linux only.
pub(super) fn daemon_cpu() -> Option<Duration> {
    let mut ticks = 0;
    for task in std::fs::read_dir("/proc/self/task").ok()? {
        let task = task.ok()?;
        let own = task.file_name().to_string_lossy() == std::process::id().to_string();
        // A thread may end while we look.
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else { continue };
        let Some((name, rest)) = stat.rsplit_once(") ") else { continue };
        if own || name.contains("(sandbox-") {
            continue;
        }
        // proc(5): after the name come state … utime (12th) and stime (13th).
        let field = |n: usize| rest.split(' ').nth(n).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
        ticks += field(11) + field(12);
    }
    Some(Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND))
}
