//! The content as the campaign engine and the API ask it: problems of a job, a scan for missing variables, previews and tests.
//!
//! 1. A draft is compiled as a start would seal it; what can't be compiled is a problem with its place,
//! 2. rows are read in pages and looked at on blocking threads, so that a scan of a million rows stalls nobody,
//! 3. a preview takes the row of an address, a row that is given, or the worst of the list; a segment is counted over all rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::blueprint::{Blueprint, BlueprintError, Target};
use super::test::{TEST_RECIPIENTS_MAX, TestError, Tester, bare_row};
use crate::campaign::job::{Job, Problem, TestRecipient};
use crate::campaign::model::{CampaignHead, FIRST_STEP, Sealed};
use crate::campaign::ports::{Content, ContentError, Fut, Missing, PreviewRequest};
use crate::campaign::recipients::{Select, Selected};
use crate::seam::clock::Clock;
use crate::store::{ReadError, Reader, Row, address_hash};
use crate::template::{Segment, SegmentError, TemplateError};
use crate::types::{CampaignNo, Mailbox, MessageId, Name, RowId, Timestamp};

/// Rows that a scan reads at a time.
const PAGE: usize = 2_000;

/// Rows that a preview of a segment shows.
const SAMPLES: usize = 5;

/// Different mistakes of a segment that are told, with the rows that they concern counted.
const MISTAKES_MAX: usize = 20;

/// Row numbers that are told of each mistake.
const ROWS_TOLD_MAX: usize = 5;

/// Rows that are looked at for the worst ones.
const WORST_SEEN_MAX: usize = 200_000;

/// The port of `campaign::ports`.
#[derive(Clone)]
pub struct ContentPort {
    reader: Reader,
    tester: Tester,
    clock: Clock,
}

impl ContentPort {
    /// Over the store, and the door by which tests go out.
    pub fn new(reader: Reader, tester: Tester, clock: Clock) -> Self {
        Self { reader, tester, clock }
    }

    /// A campaign as a start would seal it now.
    pub async fn blueprint(&self, campaign: &CampaignHead) -> Result<Arc<Blueprint>, ContentError> {
        let now = self.clock.now();
        let sealed = Arc::new(Sealed {
            no: campaign.no,
            tenant: campaign.tenant.clone(),
            id: campaign.id.clone(),
            pool: campaign.pool.clone(),
            job: campaign.job.clone(),
            version: campaign.version,
            started: now,
            due: now,
        });
        let made = tokio::task::spawn_blocking(move || Blueprint::new(sealed)).await.map_err(broken)?;
        made.map(Arc::new).map_err(|error| ContentError::Invalid(vec![problem_of(error)]))
    }

    /// Calls `look` with each page of rows on a blocking thread, until it answers that it has seen enough.
    async fn scan<S: Send + 'static>(
        &self,
        no: CampaignNo,
        mut state: S,
        look: impl Fn(&mut S, &[Row]) -> bool + Send + Sync + Clone + 'static,
    ) -> Result<S, ContentError> {
        let mut after: Option<RowId> = None;
        loop {
            let rows = self.reader.rows(no, after, PAGE).await.map_err(unreadable)?;
            let Some(last) = rows.last() else { return Ok(state) };
            after = Some(last.id);
            let is_last = rows.len() < PAGE;
            let look = look.clone();
            let done = tokio::task::spawn_blocking(move || {
                let goes_on = look(&mut state, &rows);
                (state, goes_on)
            });
            let goes_on;
            (state, goes_on) = done.await.map_err(broken)?;
            if is_last || !goes_on {
                return Ok(state);
            }
        }
    }

    async fn row_of(&self, no: CampaignNo, address: &Mailbox) -> Result<Option<Row>, ContentError> {
        let found = self.reader.sent(no, FIRST_STEP, vec![address_hash(address)]).await.map_err(unreadable)?;
        match found.into_iter().next().flatten() {
            Some(sent) => self.reader.row(sent.row).await.map_err(unreadable),
            None => Ok(None),
        }
    }

    async fn first_row(&self, no: CampaignNo) -> Result<Option<Row>, ContentError> {
        Ok(self.reader.rows(no, None, 1).await.map_err(unreadable)?.into_iter().next())
    }

    async fn preview_row(&self, campaign: &CampaignHead, row: &[u8], id: Option<RowId>) -> Result<Value, ContentError> {
        let blueprint = self.blueprint(campaign).await?;
        let target = Target { row, id, test: None };
        let preview = blueprint.preview(&target, &self.tester.outside).map_err(|e| told(&e))?;
        serde_json::to_value(preview).map_err(|e| ContentError::Unavailable(e.to_string()))
    }

    /// The longest message and the one with the most blanks.
    async fn worst(&self, campaign: &CampaignHead) -> Result<Value, ContentError> {
        #[derive(Default)]
        struct Worst {
            seen: usize,
            longest: Option<(usize, Row)>,
            blankest: Option<(usize, Row)>,
        }
        let blueprint = self.blueprint(campaign).await?;
        let (inside, outside) = (blueprint.clone(), self.tester.outside.clone());
        let worst = self.scan(campaign.no, Worst::default(), move |worst, rows| {
            for row in rows {
                worst.seen += 1;
                if worst.longest.as_ref().is_none_or(|(len, _)| row.value.len() > *len) {
                    worst.longest = Some((row.value.len(), row.clone()));
                }
                let blanks = inside.missing(&Target::shown(&row.value), &outside).map_or(0, |names| names.len());
                if blanks > 0 && worst.blankest.as_ref().is_none_or(|(most, _)| blanks > *most) {
                    worst.blankest = Some((blanks, row.clone()));
                }
            }
            worst.seen < WORST_SEEN_MAX
        });
        let worst = worst.await?;
        let show = |row: Option<(usize, Row)>| {
            let (_, row) = row?;
            let shown = match blueprint.preview(&Target::shown(&row.value), &self.tester.outside) {
                Ok(preview) => serde_json::to_value(preview).unwrap_or_default(),
                Err(error) => json!({ "problem": error.to_string() }),
            };
            let source: Value = serde_json::from_slice(&row.value).unwrap_or_default();
            Some(
                json!({ "row": row.id.seq + 1, "recipient": address_in(&row.value), "source": source, "preview": shown }),
            )
        };
        Ok(json!({ "seen": worst.seen, "longest": show(worst.longest), "blankest": show(worst.blankest) }))
    }

    /// How many rows an expression selects, a few of them, and what is wrong with others.
    async fn count(&self, campaign: &CampaignHead, expression: &str) -> Result<Value, ContentError> {
        #[derive(Default)]
        struct Count {
            rows: u64,
            selected: u64,
            sample: Vec<Value>,
            missing: crate::template::Missing,
            mistakes: BTreeMap<String, (u64, Vec<u32>)>,
        }
        let segment = Segment::compile(expression).map_err(|e| ContentError::Invalid(vec![template("segment", &e)]))?;
        let (segment, now) = (Arc::new(segment), self.clock.now());
        let inside = segment.clone();
        let count = self.scan(campaign.no, Count::default(), move |count, rows| {
            for row in rows {
                count.rows += 1;
                match inside.eval_counting(&row.value, now, &mut count.missing) {
                    Ok(true) => {
                        count.selected += 1;
                        if count.sample.len() < SAMPLES {
                            count.sample.push(serde_json::from_slice(&row.value).unwrap_or_default());
                        }
                    }
                    Ok(false) => {}
                    Err(error) => {
                        let known = count.mistakes.len() < MISTAKES_MAX;
                        let words = words(&error);
                        if known || count.mistakes.contains_key(&words) {
                            let (rows, told) = count.mistakes.entry(words).or_default();
                            *rows += 1;
                            if told.len() < ROWS_TOLD_MAX {
                                told.push(row.id.seq + 1);
                            }
                        }
                    }
                }
            }
            true
        });
        let count = count.await?;
        let mistakes: Vec<Value> = count
            .mistakes
            .into_iter()
            .map(|(message, (rows, first))| json!({ "message": message, "rows": rows, "first": first }))
            .collect();
        let missing: Map<String, Value> =
            count.missing.counts(&segment).map(|(name, rows)| (name.to_owned(), rows.into())).collect();
        Ok(json!({
            "rows": count.rows,
            "selected": count.selected,
            "sample": count.sample,
            "missing": missing,
            "problems": mistakes,
        }))
    }

    /// The row that a test is made from: that of its `as`, of its own address, or the first of the list.
    async fn row_for(&self, campaign: &CampaignHead, to: &TestRecipient) -> Result<Vec<u8>, ContentError> {
        let wanted = to.as_row.as_ref();
        if let Some(row) = self.row_of(campaign.no, wanted.unwrap_or(&to.email)).await? {
            return Ok(row.value.to_vec());
        }
        if let Some(wanted) = wanted {
            return Err(ContentError::NotFound(format!("{wanted} is not among the recipients of {}", campaign.id)));
        }
        Ok(self.first_row(campaign.no).await?.map_or_else(|| bare_row(&to.email), |row| row.value.to_vec()))
    }
}

impl Content for ContentPort {
    fn problems(&self, job: &Job) -> Vec<Problem> {
        let mut problems = Vec::new();
        let name = |text: &str| Name::parse(text).ok();
        if let (Some(tenant), Some(id), Some(pool)) = (name("draft"), name("draft"), name("draft")) {
            let (no, job) = (CampaignNo(0), Arc::new(job.clone()));
            let (version, started, due) = (0, Timestamp::ZERO, Timestamp::ZERO);
            let sealed = Sealed { no, tenant, id, pool, job, version, started, due };
            problems.extend(Blueprint::new(Arc::new(sealed)).err().map(problem_of));
        }
        let expressions = [("segment", &job.segment), ("exclude.expression", &job.exclude.expression)];
        for (field, expression) in expressions {
            let Some(expression) = expression else { continue };
            problems.extend(Segment::compile(expression).err().map(|error| template(field, &error)));
        }
        problems
    }

    fn missing(&self, campaign: Arc<CampaignHead>) -> Fut<'_, Result<Vec<Missing>, ContentError>> {
        Box::pin(async move {
            let blueprint = self.blueprint(&campaign).await?;
            let outside = self.tester.outside.clone();
            let (counts, of) = self
                .scan(campaign.no, (BTreeMap::<String, u64>::new(), 0_u64), move |(counts, of), rows| {
                    for row in rows {
                        *of += 1;
                        for name in blueprint.missing(&Target::shown(&row.value), &outside).unwrap_or_default() {
                            *counts.entry(name).or_default() += 1;
                        }
                    }
                    true
                })
                .await?;
            Ok(counts.into_iter().map(|(variable, rows)| Missing { variable, rows, of }).collect())
        })
    }

    fn preview(&self, campaign: Arc<CampaignHead>, request: PreviewRequest) -> Fut<'_, Result<Value, ContentError>> {
        Box::pin(async move {
            if let Some(expression) = &request.segment {
                return self.count(&campaign, expression).await;
            }
            if request.worst {
                return self.worst(&campaign).await;
            }
            if let Some(row) = request.row {
                return self.preview_row(&campaign, Value::Object(row).to_string().as_bytes(), None).await;
            }
            if let Some(address) = &request.address {
                let Some(row) = self.row_of(campaign.no, address).await? else {
                    let text = format!("{address} is not among the recipients of {}", campaign.id);
                    return Err(ContentError::NotFound(text));
                };
                return self.preview_row(&campaign, &row.value, Some(row.id)).await;
            }
            match self.first_row(campaign.no).await? {
                Some(row) => self.preview_row(&campaign, &row.value, Some(row.id)).await,
                None => Err(ContentError::NotFound(format!("{} has no recipients yet; give a row", campaign.id))),
            }
        })
    }

    fn test(
        &self,
        campaign: Arc<CampaignHead>,
        to: Vec<TestRecipient>,
        by: String,
    ) -> Fut<'_, Result<Vec<MessageId>, ContentError>> {
        Box::pin(async move {
            let to = if to.is_empty() { campaign.job.test_recipients.clone() } else { to };
            let wrong = |text: String| ContentError::Invalid(vec![Problem::new("test_recipients", text)]);
            if to.is_empty() {
                return Err(wrong("there is nobody to send a test to".into()));
            }
            if to.len() > TEST_RECIPIENTS_MAX {
                return Err(wrong(format!("a test has at most {TEST_RECIPIENTS_MAX} recipients")));
            }
            let blueprint = self.blueprint(&campaign).await?;
            let mut ids = Vec::with_capacity(to.len());
            for recipient in &to {
                let row = self.row_for(&campaign, recipient).await?;
                let sent = self.tester.send(&blueprint, &row, recipient, Some(by.clone())).await;
                ids.push(sent.map_err(|error| refused(&recipient.email, error))?.message_id);
            }
            Ok(ids)
        })
    }

    // Blueprints are compiled by the first row that asks, on the threads that sign.
    fn sealed(&self, _: &Arc<Sealed>) {}

    fn ended(&self, _: CampaignNo) {}
}

/// A job's segment and exclusion as the upload asks them.
pub struct JobSelect {
    segment: Option<Segment>,
    exclude: Option<Segment>,
    now: Timestamp,
}

impl JobSelect {
    /// Compiles both; `None` where a job has neither. An error is a sentence with its place.
    pub fn compile(job: &Job, now: Timestamp) -> Result<Option<Arc<dyn Select>>, String> {
        let compile = |field: &str, text: &Option<String>| {
            let compiled = text.as_deref().map(Segment::compile).transpose();
            compiled.map_err(|error| template(field, &error).to_string())
        };
        let segment = compile("segment", &job.segment)?;
        let exclude = compile("exclude.expression", &job.exclude.expression)?;
        if segment.is_none() && exclude.is_none() {
            return Ok(None);
        }
        Ok(Some(Arc::new(Self { segment, exclude, now })))
    }
}

impl Select for JobSelect {
    fn select(&self, row: &[u8]) -> Selected {
        let holds = |segment: &Option<Segment>, without: bool| {
            segment.as_ref().map_or(Ok(without), |segment| segment.eval_row(row, self.now))
        };
        match (holds(&self.segment, true), holds(&self.exclude, false)) {
            (Ok(true), Ok(false)) => Selected::In,
            (Ok(_), Ok(_)) => Selected::Out,
            (Err(error), _) | (_, Err(error)) => Selected::Failed(words(&error).into()),
        }
    }
}

fn words(error: &SegmentError) -> String {
    error.to_string()
}

fn address_in(row: &[u8]) -> Option<String> {
    let row: Value = serde_json::from_slice(row).ok()?;
    Some(row["email"].as_str()?.to_owned())
}

pub(super) fn problem_of(error: BlueprintError) -> Problem {
    match error {
        BlueprintError::Template(error) => {
            let field = match error.part.strip_prefix("headers.Reply-To[") {
                Some(place) => format!("reply_to[{place}"),
                None if error.part == "from_name" => "from".to_owned(),
                None => error.part.clone(),
            };
            template(&field, &error)
        }
        BlueprintError::Build(error) => Problem::new(error.field, error.reason),
    }
}

fn template(field: &str, error: &TemplateError) -> Problem {
    let text = format!("line {}, column {}: {}", error.line, error.column, error.message);
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let problem = Problem::new(field, text).at(number(error.line), number(error.column));
    match &error.hint {
        Some(hint) => problem.fix(hint.clone()),
        None => problem,
    }
}

fn told(error: &super::blueprint::ContentError) -> ContentError {
    ContentError::Invalid(vec![Problem::new("", error.to_string())])
}

fn refused(to: &Mailbox, error: TestError) -> ContentError {
    match error {
        TestError::Content(error) => told(&error),
        TestError::Refused(refusal) => ContentError::Invalid(vec![Problem::new("", format!("{to}: {refusal}"))]),
    }
}

fn unreadable(error: ReadError) -> ContentError {
    ContentError::Unavailable(error.to_string())
}

fn broken(error: tokio::task::JoinError) -> ContentError {
    ContentError::Unavailable(error.to_string())
}
