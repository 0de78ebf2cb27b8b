//! `posthaste campaign …`: a campaign from the job to the report.
//!
//! 1. `submit` sends the job with the files that it names, uploads the recipients, and starts it where that is asked,
//! 2. `upload` streams a list and goes on where an earlier upload broke off,
//! 3. `start`, `pause`, `resume`, `cancel` and `set` steer; `status --watch` shows how far it is.

mod job;
mod show;
mod upload;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};

use super::client::with_query;
use super::{Client, Connection, Out};
use crate::config::{HumanDuration, Rate};
use crate::types::Name;

/// Shown by `posthaste campaign --help`.
pub const EXAMPLES: &str = "Examples:
  posthaste campaign submit spring.toml --recipients customers.csv --start --watch
  posthaste campaign submit spring.toml              a draft; then:
  posthaste campaign upload spring customers.csv.gz  goes on where it broke off
  posthaste campaign check spring                    what receivers would object to
  posthaste campaign preview spring --as ada@example.com
  posthaste campaign preview spring --segment 'town == \"Lyon\" and age >= 30'
  posthaste campaign test spring
  posthaste campaign start spring
  posthaste campaign pause spring --reason \"wrong price\"
  posthaste campaign set spring --rate 200/s
  posthaste campaign status spring --watch
  posthaste campaign rejects spring --csv > rejects.csv";

/// How often `--watch` asks.
const WATCH_EVERY: Duration = Duration::from_millis(500);

/// `campaign` and its options.
#[derive(Args, Clone, Debug)]
pub struct CampaignArgs {
    /// Where the daemon is.
    #[command(flatten)]
    pub connection: Connection,
    /// Whose campaign; needed where there are several tenants and no tenant's key
    #[arg(long, global = true, value_parser = name)]
    pub tenant: Option<Name>,
    /// What to do.
    #[command(subcommand)]
    pub command: CampaignCommand,
}

/// What can be done with campaigns.
#[derive(Subcommand, Clone, Debug)]
pub enum CampaignCommand {
    /// Make a campaign of a job file (TOML or JSON); the same job twice is one campaign
    Submit {
        /// The job
        job: PathBuf,
        /// The recipients: CSV or NDJSON, plain, gzip or zstd
        #[arg(long, value_name = "FILE")]
        recipients: Option<PathBuf>,
        /// Start it
        #[arg(long)]
        start: bool,
        /// Start it although its check found errors, for this reason; it stands in the event
        #[arg(long, value_name = "REASON")]
        force: Option<String>,
        /// Show how far it is until it ends
        #[arg(long)]
        watch: bool,
    },
    /// Upload recipients: CSV or NDJSON, plain, gzip or zstd
    Upload {
        /// The campaign
        id: String,
        /// The list
        file: PathBuf,
        /// Begin a further list, rather than go on where the last upload broke off
        #[arg(long)]
        append: bool,
    },
    /// Check it, seal it and send it
    Start {
        /// The campaign
        id: String,
        /// Although its check found errors, for this reason; it stands in the event
        #[arg(long, value_name = "REASON")]
        force: Option<String>,
        /// Show how far it is until it ends
        #[arg(long)]
        watch: bool,
    },
    /// Hold it at once; says how many are in an attempt
    Pause(Change),
    /// Go on
    Resume(Change),
    /// End it: what was not sent is not sent any more
    Cancel(Change),
    /// Change it while it runs
    Set {
        /// The campaign
        id: String,
        /// At most so many messages a time, as 200/s or 10000/h; `none` for no limit
        #[arg(long, value_parser = rate)]
        rate: Option<Setting<Rate>>,
        /// Its share against other campaigns, 1 to 10
        #[arg(long)]
        priority: Option<u8>,
        /// The hours in which it is sent, as 09:00-18:00; `none` for all
        #[arg(long, value_parser = hours)]
        window: Option<Setting<(String, String)>>,
    },
    /// How far it is
    Status {
        /// The campaign
        id: String,
        /// Until it ends
        #[arg(long)]
        watch: bool,
    },
    /// All campaigns, the newest first
    List,
    /// What became of it: counts, shares, delivery times, by provider, source and domain, in time, with the replies
    Report {
        /// The campaign
        id: String,
        /// In which form
        #[arg(long, value_enum, default_value_t)]
        format: super::report::Format,
        /// Beside this one; may be repeated
        #[arg(long, value_name = "ID", num_args = 1..)]
        compare: Vec<String>,
    },
    /// A message as somebody would get it, or whom a segment selects
    Preview {
        /// The campaign
        id: String,
        /// The recipient whose data is used
        #[arg(long = "as", value_name = "ADDRESS")]
        recipient: Option<String>,
        /// Count whom an expression selects, and show five of them
        #[arg(long, value_name = "EXPRESSION", conflicts_with = "recipient")]
        segment: Option<String>,
        /// Which part to print: headers, text, html or raw
        #[arg(long, default_value = "all")]
        part: String,
    },
    /// Send it to the test recipients, marked `[TEST]`
    Test {
        /// The campaign
        id: String,
        /// To these instead of the job's test recipients
        #[arg(long, value_name = "ADDRESS")]
        to: Vec<String>,
    },
    /// Check it as a start does: DNS, headers, content, data
    Check {
        /// The campaign
        id: String,
    },
    /// The rows that were not taken, with their numbers and reasons
    Rejects {
        /// The campaign
        id: String,
        /// As CSV
        #[arg(long)]
        csv: bool,
    },
    /// Remove all that is kept of a campaign that has ended, but its events
    Delete {
        /// The campaign
        id: String,
    },
}

/// A change of state.
#[derive(Args, Clone, Debug)]
pub struct Change {
    /// The campaign
    id: String,
    /// Why; it stands in the event
    #[arg(long)]
    reason: Option<String>,
}

/// A value, or none.
#[derive(Clone, Debug, PartialEq)]
pub enum Setting<T> {
    /// None.
    Off,
    /// This.
    To(T),
}

fn name(text: &str) -> Result<Name, String> {
    Name::parse(text).map_err(|e| e.to_string())
}

fn rate(text: &str) -> Result<Setting<Rate>, String> {
    match text {
        "none" => Ok(Setting::Off),
        text => text.parse().map(Setting::To),
    }
}

fn hours(text: &str) -> Result<Setting<(String, String)>, String> {
    match (text, text.split_once('-')) {
        ("none", _) => Ok(Setting::Off),
        (_, Some((from, to))) => Ok(Setting::To((from.trim().to_owned(), to.trim().to_owned()))),
        _ => Err("expected hours as 09:00-18:00, or none".into()),
    }
}

/// A campaign's path in the API.
struct Place<'a> {
    tenant: &'a Option<Name>,
}

impl Place<'_> {
    fn all(&self) -> String {
        with_query("/v1/campaigns", &[("tenant", self.tenant.as_ref().map(ToString::to_string))])
    }

    fn of(&self, id: &str, what: &str, pairs: &[(&str, Option<String>)]) -> anyhow::Result<String> {
        let id = Name::parse(id).map_err(|e| anyhow::anyhow!("{id:?} is no id of a campaign: {e}"))?;
        let mut all = vec![("tenant", self.tenant.as_ref().map(ToString::to_string))];
        all.extend(pairs.iter().cloned());
        let what = if what.is_empty() { String::new() } else { format!("/{what}") };
        Ok(with_query(&format!("/v1/campaigns/{id}{what}"), &all))
    }
}

/// Carries out a command.
pub async fn run(args: &CampaignArgs, client: &Client, out: &mut Out) -> anyhow::Result<()> {
    let place = Place { tenant: &args.tenant };
    match &args.command {
        CampaignCommand::Submit { job, recipients, start, force, watch } => {
            let made = job::submit(job, &place, client).await?;
            let id = made["id"].as_str().unwrap_or_default().to_owned();
            let is_open = matches!(made["state"].as_str(), Some("draft" | "uploading"));
            if !is_open {
                return already(&made, &id, out);
            }
            if let Some(file) = recipients {
                upload::upload(&id, file, false, &place, client, out).await?;
            }
            if *start || force.is_some() {
                return begin(&id, force.as_deref(), *watch, &place, client, out).await;
            }
            show::one(&client.get(&place.of(&id, "", &[])?).await?, out)
        }
        CampaignCommand::Upload { id, file, append } => upload::upload(id, file, *append, &place, client, out).await,
        CampaignCommand::Start { id, force, watch } => begin(id, force.as_deref(), *watch, &place, client, out).await,
        CampaignCommand::Pause(change) => steer("pause", change, &place, client, out).await,
        CampaignCommand::Resume(change) => steer("resume", change, &place, client, out).await,
        CampaignCommand::Cancel(change) => steer("cancel", change, &place, client, out).await,
        CampaignCommand::Set { id, rate, priority, window } => {
            let body = settings(rate.as_ref(), *priority, window.as_ref())?;
            let answer: Value = client.send(Method::PATCH, &place.of(id, "", &[])?, &body).await?;
            show::one(&answer, out)
        }
        CampaignCommand::Status { id, watch } => match watch {
            true => show::watch(&place.of(id, "", &[])?, WATCH_EVERY, client, out).await,
            false => show::one(&client.get(&place.of(id, "", &[])?).await?, out),
        },
        CampaignCommand::List => show::list(&client.get(&place.all()).await?, out),
        CampaignCommand::Report { id, format, compare } => {
            let mut pairs = vec![("format", Some(format.of(out).to_owned()))];
            pairs.extend(compare.iter().map(|other| ("compare", Some(other.clone()))));
            super::report::print(&place.of(id, "report", &pairs)?, client, out).await
        }
        CampaignCommand::Preview { id, recipient, segment, part } => {
            let mut body = json!({});
            recipient.iter().for_each(|r| body["address"] = json!(r));
            segment.iter().for_each(|s| body["segment"] = json!(s));
            let answer: Value = client.send(Method::POST, &place.of(id, "preview", &[])?, &body).await?;
            show::preview(&answer, part, out)
        }
        CampaignCommand::Test { id, to } => {
            let body = if to.is_empty() { json!({}) } else { json!({ "to": to }) };
            let answer: Value = client.send(Method::POST, &place.of(id, "test", &[])?, &body).await?;
            show::test(&answer, out)
        }
        CampaignCommand::Check { id } => {
            let answer: Value = client.send(Method::POST, &place.of(id, "check", &[])?, &json!({})).await?;
            show::findings(&answer, out)
        }
        CampaignCommand::Rejects { id, csv } => rejects(id, *csv, &place, client, out).await,
        CampaignCommand::Delete { id } => {
            client.bytes(Method::DELETE, &place.of(id, "", &[])?, None).await?;
            out.line(format!("{id} is removed; its events stay as long as the log keeps them"))
        }
    }
}

/// A campaign that was submitted before, and has gone further: nothing is sent again.
fn already(made: &Value, id: &str, out: &mut Out) -> anyhow::Result<()> {
    if out.json {
        return out.value(made);
    }
    let state = made["state"].as_str().unwrap_or("unknown");
    out.line(format!("{id} was submitted before and is {state}: nothing is uploaded or sent again"))?;
    show::one(made, out)
}

async fn begin(
    id: &str,
    force: Option<&str>,
    watch: bool,
    place: &Place<'_>,
    client: &Client,
    out: &mut Out,
) -> anyhow::Result<()> {
    let body = force.map_or(json!({}), |reason| json!({ "force": reason }));
    let answer: Value = client.send(Method::POST, &place.of(id, "start", &[])?, &body).await?;
    show::started(&answer, out)?;
    if watch { show::watch(&place.of(id, "", &[])?, WATCH_EVERY, client, out).await } else { Ok(()) }
}

async fn steer(verb: &str, change: &Change, place: &Place<'_>, client: &Client, out: &mut Out) -> anyhow::Result<()> {
    let body = change.reason.as_ref().map_or(json!({}), |reason| json!({ "reason": reason }));
    let answer: Value = client.send(Method::POST, &place.of(&change.id, verb, &[])?, &body).await?;
    show::one(&answer, out)
}

fn settings(
    rate: Option<&Setting<Rate>>,
    priority: Option<u8>,
    window: Option<&Setting<(String, String)>>,
) -> anyhow::Result<Value> {
    let mut body = serde_json::Map::new();
    if let Some(rate) = rate {
        let value = match rate {
            Setting::Off => Value::Null,
            Setting::To(rate) => serde_json::to_value(rate)?,
        };
        body.insert("rate".into(), value);
    }
    if let Some(priority) = priority {
        body.insert("priority".into(), priority.into());
    }
    if let Some(window) = window {
        let value = match window {
            Setting::Off => Value::Null,
            Setting::To((from, to)) => json!({ "from": from, "to": to }),
        };
        body.insert("window".into(), value);
    }
    anyhow::ensure!(!body.is_empty(), "nothing to change: give --rate, --priority or --window");
    Ok(Value::Object(body))
}

/// All rows that were not taken, page by page.
async fn rejects(id: &str, csv: bool, place: &Place<'_>, client: &Client, out: &mut Out) -> anyhow::Result<()> {
    if csv {
        out.line("row,address,reason")?;
    }
    let mut after = None;
    loop {
        let path = place.of(id, "rejects", &[("after", after)])?;
        let page = client.open(Method::GET, &path, None).await?;
        let next = page.headers().get("posthaste-next").and_then(|v| v.to_str().ok()).map(str::to_owned);
        let lines = http_body_util::BodyExt::collect(page.into_body()).await?.to_bytes();
        if !csv {
            out.bytes(&lines)?;
        } else {
            for line in lines.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
                let reject: Value = serde_json::from_slice(line)?;
                let cell = |value: &Value| {
                    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    // A quote is doubled; a formula of a spreadsheet must not begin a cell.
                    let safe = if text.starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text };
                    format!("\"{}\"", safe.replace('"', "\"\""))
                };
                out.line(format!("{},{},{}", reject["row"], cell(&reject["address"]), cell(&reject["reason"])))?;
            }
        }
        match next {
            Some(next) if !lines.is_empty() => after = Some(next),
            _ => return Ok(()),
        }
    }
}

/// How long something took or takes, from seconds.
fn seconds(value: &Value) -> Option<HumanDuration> {
    value.as_u64().map(HumanDuration::secs)
}
