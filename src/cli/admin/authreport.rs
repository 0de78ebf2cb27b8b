//! `posthaste auth-report dmarc|tls|read`.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::json;

use super::client::with_query;
use super::human::count;
use super::out::{Table, printable};
use super::{Client, Connection, Out};
use crate::api::types::{DmarcReports, TlsReports};
use crate::cli::Exit;
use crate::feedback::auth::{AuthReport, MAIL_MAX, UNPACKED_MAX, read_file};
use crate::inbound::reports::{DmarcDomain, DmarcSource, DmarcSums, TlsDomain, TlsSums};

/// Shown by `posthaste auth-report --help`.
pub const EXAMPLES: &str = "Examples:
  posthaste auth-report dmarc
  posthaste auth-report dmarc acme.example --since 7d
  posthaste auth-report tls --json
  posthaste auth-report read report.eml google.com!acme.example!1795305600!1795391999.zip";

/// The most addresses of a domain in a table of files.
const FILE_LIMIT: usize = 50;
/// The longest text of a check in a table, in characters.
const CHECKS_MAX: usize = 80;

/// `auth-report` and its options.
#[derive(Args, Clone, Debug)]
pub struct AuthReportArgs {
    /// Where the daemon is.
    #[command(flatten)]
    pub connection: Connection,
    /// What to do.
    #[command(subcommand)]
    pub command: AuthReportCommand,
}

/// What can be shown of reports.
#[derive(Subcommand, Clone, Debug)]
pub enum AuthReportCommand {
    /// DMARC aggregates: for each sending domain who passes, who fails, from where
    Dmarc(Which),
    /// TLS reports: how senders fared with TLS towards our domains
    Tls(Which),
    /// Read files, without a daemon: mails, or reports as XML, JSON, gzip or zip; exits with 2 when one is not understood
    Read {
        /// Files with one mail or report each; `-` is standard input
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

/// Which reports.
#[derive(Args, Clone, Debug)]
pub struct Which {
    /// Only this domain and those below it
    pub domain: Option<String>,
    /// Reports that came so long ago at most, as 7d [default: 30d]
    #[arg(long)]
    pub since: Option<String>,
    /// Only this tenant's domains
    #[arg(long)]
    pub tenant: Option<String>,
    /// At most so many lines a domain
    #[arg(short = 'n', long, default_value_t = 20)]
    pub limit: usize,
}

/// Carries out a command.
pub async fn run(command: &AuthReportCommand, client: &Client, out: &mut Out) -> anyhow::Result<()> {
    let path = |kind: &str, which: &Which| {
        let limit = Some(which.limit.to_string());
        let query = [
            ("domain", which.domain.clone()),
            ("since", which.since.clone()),
            ("tenant", which.tenant.clone()),
            ("limit", limit),
        ];
        with_query(&format!("/v1/auth-reports/{kind}"), &query)
    };
    match command {
        AuthReportCommand::Dmarc(which) => {
            let answer: DmarcReports = client.get(&path("dmarc", which)).await?;
            if out.json {
                return out.value(&answer);
            }
            show_dmarc(&answer.domains, &format!("no DMARC report since {}", answer.since), out)
        }
        AuthReportCommand::Tls(which) => {
            let answer: TlsReports = client.get(&path("tls", which)).await?;
            if out.json {
                return out.value(&answer);
            }
            show_tls(&answer.domains, &format!("no TLS report since {}", answer.since), out)
        }
        AuthReportCommand::Read { files } => read(files, out).map(drop),
    }
}

/// Reads files and shows what is in them: with `--json` one object a file, else the sums of all.
pub fn read(files: &[PathBuf], out: &mut Out) -> anyhow::Result<Exit> {
    let (mut dmarc, mut tls, mut wrong) = (DmarcSums::default(), TlsSums::default(), Vec::new());
    for path in files {
        let file = path.display().to_string();
        match read_file(&octets(path)?) {
            Ok(reports) => {
                for report in reports {
                    if out.json {
                        out.line(serde_json::to_string(&match &report {
                            AuthReport::Dmarc(report) => json!({ "file": file, "kind": "dmarc", "report": report }),
                            AuthReport::Tls(report) => json!({ "file": file, "kind": "tls", "report": report }),
                        })?)?;
                    }
                    match &report {
                        AuthReport::Dmarc(report) => dmarc.add(report, None),
                        AuthReport::Tls(report) => tls.add(report, None),
                    }
                }
            }
            Err(error) if out.json => {
                out.line(json!({ "file": file, "error": error.to_string() }).to_string())?;
                wrong.push(file);
            }
            Err(error) => wrong.push(format!("{file}: {error}")),
        }
    }
    if !out.json {
        let (dmarc, tls) = (dmarc.finish(FILE_LIMIT, |_| None), tls.finish(FILE_LIMIT));
        if !dmarc.is_empty() {
            show_dmarc(&dmarc, "", out)?;
        }
        if !tls.is_empty() {
            show_tls(&tls, "", out)?;
        }
        wrong.iter().try_for_each(|line| out.line(printable(line)))?;
    }
    Ok(if wrong.is_empty() { Exit::Success } else { Exit::NotUnderstood })
}

/// The octets of a file; one that is larger than any report is cut, and so not understood.
fn octets(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut octets = Vec::new();
    let most = MAIL_MAX.max(UNPACKED_MAX) as u64 + 1;
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(most).read_to_end(&mut octets)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(most).read_to_end(&mut octets))
    };
    read.with_context(|| format!("can't read {}", path.display()))?;
    Ok(octets)
}

fn percent(part: u64, whole: u64) -> String {
    format!("{:.1} %", part as f64 * 100.0 / whole.max(1) as f64)
}

fn show_dmarc(domains: &[DmarcDomain], nothing: &str, out: &mut Out) -> anyhow::Result<()> {
    if domains.is_empty() {
        return out.line(nothing);
    }
    for domain in domains {
        let DmarcDomain { messages, pass, fail, .. } = *domain;
        out.head(&format!(
            "{}: {} messages, {} pass, {} fail; policy {}",
            printable(&domain.domain),
            count(messages),
            percent(pass, messages),
            count(fail),
            printable(&domain.policy)
        ))?;
        let orgs: Vec<String> =
            domain.orgs.iter().take(5).map(|org| format!("{} {}", printable(&org.org), count(org.messages))).collect();
        out.line(format!(
            "  {} reports: {}; aligned DKIM {}, SPF {}; quarantined {}, rejected {}",
            count(domain.reports),
            orgs.join(", "),
            percent(domain.dkim, messages),
            percent(domain.spf, messages),
            count(domain.quarantined),
            count(domain.rejected)
        ))?;
        let mut table = Table::new(&["FROM", "SOURCE", "#MESSAGES", "#FAIL", "#DKIM", "#SPF", "HEADER FROM", "CHECKS"]);
        domain.sources.iter().for_each(|source| table.row(row(source)));
        out.table(&table, "  nothing was seen")?;
        out.line("")?;
    }
    Ok(())
}

fn row(source: &DmarcSource) -> [String; 8] {
    let checks: Vec<String> = source
        .auth
        .iter()
        .map(|auth| match &auth.selector {
            Some(selector) => format!("{} {} ({selector}._domainkey.{})", auth.method, auth.result, auth.domain),
            None => format!("{} {} ({})", auth.method, auth.result, auth.domain),
        })
        .chain(source.reason.clone())
        .collect();
    [
        source.source_ip.map_or_else(|| "others".to_owned(), |ip| ip.to_string()),
        source.source.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
        count(source.messages),
        count(source.fail),
        count(source.dkim),
        count(source.spf),
        source.header_from.clone(),
        checks.join(", ").chars().take(CHECKS_MAX).collect(),
    ]
}

fn show_tls(domains: &[TlsDomain], nothing: &str, out: &mut Out) -> anyhow::Result<()> {
    if domains.is_empty() {
        return out.line(nothing);
    }
    for domain in domains {
        out.head(&format!(
            "{}: {} sessions, {} failed ({}); policy {}",
            printable(&domain.domain),
            count(domain.success.saturating_add(domain.failure)),
            count(domain.failure),
            percent(domain.failure, domain.success.saturating_add(domain.failure)),
            printable(&domain.policies.join(", "))
        ))?;
        let orgs: Vec<String> =
            domain.orgs.iter().take(5).map(|org| format!("{} {}", printable(&org.org), count(org.messages))).collect();
        out.line(format!("  {} reports: {}", count(domain.reports), orgs.join(", ")))?;
        if !domain.failures.is_empty() {
            let mut table = Table::new(&["#FAILED", "RESULT", "HOST", "ADDRESS", "FROM", "DETAIL"]);
            let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
            for f in &domain.failures {
                let detail: String = text(&f.detail).chars().take(CHECKS_MAX).collect();
                let (host, address, from) = (text(&f.receiving_mx), text(&f.receiving_ip), text(&f.sending_ip));
                table.row([count(f.count), f.result.clone(), host, address, from, detail]);
            }
            out.table(&table, "")?;
        }
        out.line("")?;
    }
    Ok(())
}
