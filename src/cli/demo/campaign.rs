//! The second act: a campaign, from the list to the report, over the API that `posthaste campaign` uses.
//!
//! 1. The job is submitted and a list uploaded, with a broken row and a doubled one in it,
//! 2. a test goes to the shop, and the check says what receivers would object to,
//! 3. it is started, paused amid (nothing more goes out than what was in flight), and resumed,
//! 4. and at its end the daemon's counts are compared with what the providers counted.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hyper::Method;
use serde_json::{Value, json};

use super::say;
use super::setup::{PROVIDERS, Stage, provider_of};
use crate::cli::admin::{Client, Connection};

/// The campaign's id.
const ID: &str = "spring";
/// How long it may take before it is called a failure.
const TIME_MAX: Duration = Duration::from_secs(120);
/// How long the pause is looked at.
const PAUSE: Duration = Duration::from_millis(700);
/// What may still come in after the pause was answered: what was in flight is on its way for so long.
const LANDING: Duration = Duration::from_millis(500);

/// The act.
pub(super) struct Act<'a> {
    stage: &'a Stage,
    client: Client,
    recipients: u64,
}

impl<'a> Act<'a> {
    /// An act with so many recipients.
    pub fn new(stage: &'a Stage, recipients: u64) -> anyhow::Result<Self> {
        let socket = stage.folder().join("data").join("control.sock");
        let connection = Connection { socket: Some(socket), ..Connection::default() };
        Ok(Self { stage, client: Client::new(&connection)?, recipients })
    }

    /// Plays it; what does not agree, if anything.
    pub async fn play(&self) -> anyhow::Result<Vec<String>> {
        let began = Instant::now();
        let taken_before = self.taken();
        self.post("", &job()).await?;
        let counts = self.upload().await?;
        say(&format!(
            "\nA campaign: {} rows uploaded in {:.1} s, {} taken, {} invalid, {} doubled.",
            number(&counts, "read"),
            began.elapsed().as_secs_f64(),
            number(&counts, "accepted"),
            number(&counts, "invalid"),
            number(&counts, "duplicate"),
        ))?;
        let check = self.post("check", &json!({})).await?;
        let found = |severity: &str| {
            check["findings"].as_array().into_iter().flatten().filter(|f| f["severity"] == severity).count()
        };
        say(&format!("The check found {} errors and {} warnings.", found("error"), found("warning")))?;
        let test = self.post("test", &json!({})).await?;
        let tested = test["messages"].as_array().map_or(0, Vec::len) as u64;
        self.post("start", &json!({})).await?;
        let paused = self.pause_amid().await?;
        self.post("resume", &json!({ "reason": "the price is right" })).await?;
        let last = self.until_done(began).await?;
        self.report(&last, &paused, began, self.taken() - taken_before, tested)
    }

    async fn upload(&self) -> anyhow::Result<Value> {
        let file = self.stage.folder().join("customers.csv");
        let (recipients, path) = (self.recipients, file.clone());
        let written = tokio::task::spawn_blocking(move || write_list(&path, recipients)).await?;
        written.with_context(|| file.display().to_string())?;
        let path = format!("/v1/campaigns/{ID}/recipients?tenant=shop");
        let (_, body) = self.client.put_file(&path, &file, 0, "text/csv", &[], |_| {}).await?;
        let answer: Value = serde_json::from_slice(&body)?;
        Ok(if answer["counts"].is_object() { answer["counts"].clone() } else { answer })
    }

    /// Pauses when a part is out, and looks whether anything still goes out then.
    async fn pause_amid(&self) -> anyhow::Result<Paused> {
        let end = Instant::now() + TIME_MAX;
        loop {
            let counts = self.get().await?["counts"].clone();
            let waiting = number(&counts, "waiting");
            if waiting < self.recipients * 3 / 4 || waiting == 0 {
                break;
            }
            ensure!(Instant::now() < end, "the campaign does not begin");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let answer = self.post("pause", &json!({ "reason": "is the price right?" })).await?;
        tokio::time::sleep(LANDING).await;
        let at_pause = self.taken();
        tokio::time::sleep(PAUSE).await;
        let paused = Paused { in_flight: number(&answer, "in_flight"), at_pause, later: self.taken() };
        let went = paused.later - paused.at_pause;
        say(&format!(
            "Paused with {} in flight; in the next {} ms {went} went out. Resumed.",
            paused.in_flight,
            PAUSE.as_millis()
        ))?;
        Ok(paused)
    }

    async fn until_done(&self, began: Instant) -> anyhow::Result<Value> {
        let terminal = std::io::stdout().is_terminal();
        loop {
            let campaign = self.get().await?;
            let counts = &campaign["counts"];
            if terminal {
                let (total, waiting) = (number(counts, "total"), number(counts, "waiting"));
                write!(std::io::stdout(), "\r{} of {total} ended ", total - waiting.min(total))?;
            }
            if campaign["state"] == "done" {
                if terminal {
                    writeln!(std::io::stdout())?;
                }
                return Ok(campaign);
            }
            ensure!(
                began.elapsed() < TIME_MAX,
                "after {} s the campaign is {}",
                began.elapsed().as_secs(),
                campaign["state"]
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn report(
        &self,
        last: &Value,
        paused: &Paused,
        began: Instant,
        taken: u64,
        tested: u64,
    ) -> anyhow::Result<Vec<String>> {
        let counts = &last["counts"];
        let mut problems = Vec::new();
        let (total, delivered) = (number(counts, "total"), number(counts, "delivered"));
        let ended: u64 = ["delivered", "bounced", "failed", "expired", "suppressed", "rendering_failed"]
            .iter()
            .map(|n| number(counts, n))
            .sum();
        if total != self.recipients {
            problems.push(format!("campaign: {} recipients, {total} rows", self.recipients));
        }
        if ended != total {
            problems.push(format!("campaign: {total} rows, {ended} ended"));
        }
        // The test went to the shop's own host, which is not among the providers.
        if taken != delivered {
            problems.push(format!("campaign: {delivered} delivered, {taken} arrived at the providers"));
        }
        if paused.later != paused.at_pause {
            problems.push(format!("campaign: {} went out while it was paused", paused.later - paused.at_pause));
        }
        let seconds = began.elapsed().as_secs_f64();
        say(&format!(
            "Campaign {ID}: {total} recipients in {seconds:.1} s, the pause included: {delivered} delivered, {} bounced, {} deferrals; {tested} test.",
            number(counts, "bounced"),
            number(counts, "deferred"),
        ))?;
        Ok(problems)
    }

    /// What the providers took, each message once.
    fn taken(&self) -> u64 {
        (0..PROVIDERS.len())
            .map(|n| self.stage.sink().counters(n).snapshot())
            .map(|seen| seen.taken.saturating_sub(seen.duplicates))
            .sum()
    }

    async fn get(&self) -> anyhow::Result<Value> {
        self.client.get(&format!("/v1/campaigns/{ID}?tenant=shop")).await
    }

    async fn post(&self, what: &str, body: &Value) -> anyhow::Result<Value> {
        let path = if what.is_empty() {
            "/v1/campaigns?tenant=shop".to_owned()
        } else {
            format!("/v1/campaigns/{ID}/{what}?tenant=shop")
        };
        self.client.send(Method::POST, &path, body).await.with_context(|| format!("campaign {what}"))
    }
}

/// What a pause did.
struct Paused {
    in_flight: u64,
    at_pause: u64,
    later: u64,
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or(0)
}

fn job() -> Value {
    json!({
        "id": ID,
        "from": "The Shop <news@shop.demo.example>",
        "subject": "{{ first_name }}, spring is here in {{ town }}",
        "text": "Dear {{ first_name }},\n\nall bulbs are 20 % off in {{ town }} this week.\n\nYour shop\n\n{{ unsubscribe_url }}\n",
        "html": "<html><body><p>Dear {{ first_name }},</p><p>all bulbs are <b>20 % off</b> in {{ town }} this week.</p>\
                 <p>Your shop</p><p><a href=\"{{ unsubscribe_url }}\">Unsubscribe</a></p></body></html>",
        "list": "news",
        "tags": ["spring"],
        "segment": "age >= 18",
        "test_recipients": ["boss@shop.demo.example"],
    })
}

/// Writes the list: so many good rows, one that is broken, one that comes twice.
fn write_list(path: &std::path::Path, recipients: u64) -> std::io::Result<()> {
    const TOWNS: [&str; 4] = ["Lyon", "Zürich", "Kraków", "Oslo"];
    let mut out = std::io::BufWriter::new(std::fs::File::create(path)?);
    writeln!(out, "email,first_name,town,age")?;
    for number in 0..recipients {
        let provider = provider_of(number);
        let domain = PROVIDERS[provider].1;
        let town = TOWNS[number as usize % TOWNS.len()];
        let sub = if provider == PROVIDERS.len() - 1 { format!("d{}.", number % 10) } else { String::new() };
        writeln!(out, "customer{number}@{sub}{domain},Zoë {number},{town},{}", 18 + number % 60)?;
    }
    writeln!(out, "not an address,Nobody,Lyon,44")?;
    writeln!(out, "customer0@{},Zoë again,Lyon,44", PROVIDERS[provider_of(0)].1)?;
    out.flush()
}
