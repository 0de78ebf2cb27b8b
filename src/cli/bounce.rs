//! `posthaste bounce read`: what came back, as the daemon understands it.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;

use super::admin::{Out, Table};
use super::{Exit, print};
use crate::bounce::classify::Rules;
use crate::bounce::read::{Kind, MAIL_MAX, Reading, Report, read_with};

/// Read bounces, complaints and answers of machines.
#[derive(clap::Subcommand, Debug)]
pub(super) enum BounceCommand {
    Read(ReadMails),
}

/// Say what mails that came back mean, one line a recipient.
///
/// Reads RFC 3464 delivery status notifications, the bounces of mailers that know no RFC 3464, feedback reports (RFC 5965), vacation notices and
/// unsubscribes. Each file is one mail; `-` is standard input. Nothing is changed, and no daemon is asked.
///
/// Exits with 0 when every mail was understood, with 2 when one was not: it is listed with the kind `other`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  posthaste bounce read bounce.eml
  posthaste bounce read --json Maildir/new/* | jq -r 'select(.suppress) | .recipient'")]
pub(super) struct ReadMails {
    /// Files with one mail each.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// JSON, one object a line.
    #[arg(long)]
    json: bool,
    /// A file of rules in place of those that come with the program; see config/bounce-rules.toml.
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
}

impl BounceCommand {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let BounceCommand::Read(read) = self;
        read.run()
    }
}

/// One recipient, as it is printed.
#[derive(Serialize)]
struct Line<'a> {
    file: String,
    recipient: Option<&'a str>,
    action: Option<&'a str>,
    status: Option<&'a str>,
    smtp_code: Option<u16>,
    diagnostic: Option<&'a str>,
    class: Option<&'static str>,
    fault: Option<&'static str>,
    permanent: bool,
    suppress: bool,
    kind: &'static str,
    reported_by: Option<&'a str>,
    original_message_id: Option<&'a str>,
    rule: Option<&'a str>,
}

impl ReadMails {
    fn run(self) -> anyhow::Result<Exit> {
        let own = match &self.rules {
            None => None,
            Some(path) => {
                let text = std::fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
                let rules = Rules::parse(&text).with_context(|| path.display().to_string())?;
                if let Some(wrong) = rules.misunderstood().first() {
                    anyhow::bail!("{}: an example is not understood by its rule: {wrong}", path.display());
                }
                Some(rules)
            }
        };
        let rules = own.as_ref().unwrap_or_else(|| Rules::built_in());
        let mut exit = Exit::Success;
        let mut rows = Vec::new();
        for path in &self.files {
            let reading = read_with(&octets(path)?, rules);
            if reading.kind == Kind::Other {
                exit = Exit::NotUnderstood;
            }
            let file = path.display().to_string();
            for line in lines(&reading, &file) {
                if self.json {
                    print(&serde_json::to_string(&line)?)?;
                } else {
                    rows.push(row(&line));
                }
            }
        }
        if !self.json {
            let mut table = Table::new(&[
                "RECIPIENT",
                "KIND",
                "STATUS",
                "#CODE",
                "CLASS",
                "FAULT",
                "HARD",
                "SUPPRESS",
                "DIAGNOSTIC",
            ]);
            rows.into_iter().for_each(|row| table.row(row));
            Out::stdout(false).table(&table, "nothing")?;
        }
        Ok(exit)
    }
}

/// The mail; what is beyond the limit is not looked at by the daemon either.
fn octets(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut octets = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(MAIL_MAX as u64).read_to_end(&mut octets)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MAIL_MAX as u64).read_to_end(&mut octets))
    };
    read.with_context(|| format!("can't read {}", path.display()))?;
    Ok(octets)
}

fn lines<'a>(reading: &'a Reading, file: &str) -> Vec<Line<'a>> {
    let line = |report: Option<&'a Report>| {
        let told = report.filter(|r| matches!(r.kind, Kind::Bounce | Kind::Deferral | Kind::Complaint));
        Line {
            file: file.to_owned(),
            recipient: report.map(|r| r.recipient.as_str()).filter(|r| !r.is_empty()),
            action: report.and_then(|r| r.action.as_deref()),
            status: report.and_then(|r| r.status.as_deref()),
            smtp_code: report.and_then(|r| r.smtp_code),
            diagnostic: report.and_then(|r| r.diagnostic.as_deref()),
            class: told.map(|r| r.verdict.category.as_str()),
            fault: told.map(|r| r.verdict.fault.as_str()),
            permanent: told.is_some_and(|r| r.verdict.permanent),
            suppress: told.is_some_and(|r| r.verdict.suppress),
            kind: report.map_or(reading.kind, |r| r.kind).as_str(),
            reported_by: report.and_then(|r| r.reported_by.as_deref()),
            original_message_id: reading.original_message_id.as_deref(),
            rule: told.and_then(|r| r.rule.as_deref()),
        }
    };
    match reading.reports.is_empty() {
        true => vec![line(None)],
        false => reading.reports.iter().map(|report| line(Some(report))).collect(),
    }
}

fn row(line: &Line<'_>) -> Vec<String> {
    let text = |text: Option<&str>| text.unwrap_or("-").to_owned();
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let diagnostic: String = line.diagnostic.unwrap_or("-").chars().take(60).collect();
    vec![
        text(line.recipient),
        line.kind.to_owned(),
        text(line.status),
        line.smtp_code.map_or_else(|| "-".to_owned(), |code| code.to_string()),
        text(line.class),
        text(line.fault),
        yes(line.permanent),
        yes(line.suppress),
        diagnostic,
    ]
}
