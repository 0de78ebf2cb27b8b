//! The text of a job as a [`Job`]: strict, and all problems at once.
//!
//! 1. The text becomes a tree; a syntax error is the only problem then,
//! 2. each field of the tree is read into its type by itself, so that one bad value does not hide the next,
//! 3. what is left in the tree is unknown: each is named with the nearest known field,
//! 4. problems get their place in the text.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Exclude, Job, PRIORITY_DEFAULT, Problem, Schedule, StopIf, Window, place};
use crate::types::{Class, nearest};

/// The largest text of a job, in octets, with its attachments in base64; a larger one is a problem.
pub const JOB_BYTES_MAX: usize = 32 << 20;

/// The most problems that are told; what comes after them is counted.
const PROBLEMS_MAX: usize = 100;

/// How a job is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// TOML.
    Toml,
    /// JSON.
    Json,
}

/// Parses and checks a job. With problems there is no job; each names its field and, where it has one, its place.
pub fn parse(text: &str, format: Format) -> Result<Job, Vec<Problem>> {
    if text.len() > JOB_BYTES_MAX {
        return Err(vec![Problem::new("", format!("the job is larger than {JOB_BYTES_MAX} octets"))]);
    }
    let tree = tree(text, format).map_err(|problem| vec![problem])?;
    let (job, mut problems) = read(tree);
    if let Some(job) = &job {
        problems.extend(job.problems());
    }
    for problem in problems.iter_mut().filter(|p| p.line.is_none() && !p.field.is_empty()) {
        if let Some((line, column)) = place::of(text, format, &problem.field) {
            (problem.line, problem.column) = (Some(line), Some(column));
        }
    }
    problems.sort_by_key(|p| p.line.unwrap_or(0));
    if problems.len() > PROBLEMS_MAX {
        let more = problems.len() - PROBLEMS_MAX;
        problems.truncate(PROBLEMS_MAX);
        problems.push(Problem::new("", format!("and {more} more problems")));
    }
    match job {
        Some(job) if problems.is_empty() => Ok(job),
        Some(_) | None => Err(problems),
    }
}

/// Puts the contents of `text_file`, `html_file` and `attachments[].file` into the tree of a job, for who has the files: `read`
/// gives the octets of a file. Answers the job as JSON; unknown fields are left for [`parse`] to tell.
pub fn inline_files(
    text: &str,
    format: Format,
    read: &dyn Fn(&str) -> Result<Vec<u8>, String>,
) -> Result<String, Vec<Problem>> {
    use base64::Engine;
    let mut tree = tree(text, format).map_err(|problem| vec![problem])?;
    let mut problems = Vec::new();
    for name in ["text", "html"] {
        let key = format!("{name}_file");
        let Some(Value::String(file)) = tree.remove(&key) else { continue };
        if tree.contains_key(name) {
            problems.push(Problem::new(&key, format!("{name} is given, too")).fix("keep one of them"));
        }
        match read(&file).and_then(|octets| String::from_utf8(octets).map_err(|_| format!("{file} is not UTF-8"))) {
            Ok(content) => drop(tree.insert(name.into(), Value::String(content))),
            Err(reason) => problems.push(Problem::new(&key, reason)),
        }
    }
    let attachments = tree.get_mut("attachments").and_then(Value::as_array_mut);
    for (i, attachment) in attachments.into_iter().flatten().enumerate() {
        let Some(map) = attachment.as_object_mut() else { continue };
        let Some(Value::String(file)) = map.remove("file") else { continue };
        let field = format!("attachments[{i}].file");
        if map.contains_key("content") {
            problems.push(Problem::new(&field, "content is given, too").fix("keep one of them"));
        }
        match read(&file) {
            Ok(octets) => {
                let encoded = base64::engine::general_purpose::STANDARD.encode(octets);
                map.insert("content".into(), Value::String(encoded));
                let name = file.rsplit('/').next().unwrap_or(&file).to_owned();
                map.entry("name").or_insert(Value::String(name));
            }
            Err(reason) => problems.push(Problem::new(field, reason)),
        }
    }
    for problem in &mut problems {
        if let Some((line, column)) = place::of(text, format, &problem.field) {
            (problem.line, problem.column) = (Some(line), Some(column));
        }
    }
    if problems.is_empty() { Ok(Value::Object(tree).to_string()) } else { Err(problems) }
}

fn tree(text: &str, format: Format) -> Result<Map<String, Value>, Problem> {
    let value = match format {
        Format::Json => serde_json::from_str::<Value>(text).map_err(|e| {
            let reason = e.to_string();
            let cut = format!(" at line {} column {}", e.line(), e.column());
            let reason = reason.strip_suffix(&cut).unwrap_or(&reason).to_owned();
            let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            Problem::new("", format!("not JSON: {reason}")).at(number(e.line()), number(e.column()))
        })?,
        Format::Toml => text.parse::<toml::Table>().map(|table| json(toml::Value::Table(table))).map_err(|e| {
            let (line, column) = place::line_and_column(text, e.span().map_or(0, |span| span.start));
            Problem::new("", format!("not TOML: {}", e.message().trim())).at(line, column)
        })?,
    };
    match value {
        Value::Object(map) => Ok(map),
        _ => Err(Problem::new("", "a job is an object: {\"from\": …, \"subject\": …}")),
    }
}

/// TOML as JSON; times become texts.
fn json(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(n) => Value::from(n),
        toml::Value::Float(n) => Value::from(n),
        toml::Value::Boolean(b) => Value::Bool(b),
        toml::Value::Datetime(at) => Value::String(at.to_string()),
        toml::Value::Array(items) => Value::Array(items.into_iter().map(json).collect()),
        toml::Value::Table(table) => Value::Object(table.into_iter().map(|(k, v)| (k, json(v))).collect()),
    }
}

/// The fields of one table, taken one by one; what is left at the end is unknown.
struct Fields<'a> {
    map: Map<String, Value>,
    path: String,
    known: Vec<&'static str>,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Fields<'a> {
    fn new(map: Map<String, Value>, path: &str, problems: &'a mut Vec<Problem>) -> Self {
        Self { map, path: path.to_owned(), known: Vec::new(), problems }
    }

    fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn raw(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.map.remove(name).filter(|value| !value.is_null())
    }

    /// A field; `None` when it is not there or was wrong, which is told.
    fn take<T: DeserializeOwned>(&mut self, name: &'static str) -> Option<T> {
        let value = self.raw(name)?;
        let path = self.path(name);
        typed(value, &path, self.problems)
    }

    fn or_default<T: DeserializeOwned + Default>(&mut self, name: &'static str) -> T {
        self.take(name).unwrap_or_default()
    }

    fn needed<T: DeserializeOwned>(&mut self, name: &'static str, fix: &str) -> Option<T> {
        if self.map.get(name).is_none_or(Value::is_null) {
            self.known.push(name);
            self.map.remove(name);
            let path = self.path(name);
            self.problems.push(Problem::new(path, "is missing").fix(fix));
            return None;
        }
        self.take(name)
    }

    /// A list; each item is read by itself.
    fn list<T: DeserializeOwned>(&mut self, name: &'static str) -> Vec<T> {
        let path = self.path(name);
        match self.raw(name) {
            None => Vec::new(),
            Some(Value::Array(items)) => {
                let items = items.into_iter().enumerate();
                items.filter_map(|(i, item)| typed(item, &format!("{path}[{i}]"), self.problems)).collect()
            }
            Some(_) => {
                self.problems.push(Problem::new(path, "is not a list"));
                Vec::new()
            }
        }
    }

    /// A value alone, or a list.
    fn one_or_many<T: DeserializeOwned>(&mut self, name: &'static str) -> Vec<T> {
        match self.map.get(name) {
            Some(Value::Array(_)) | None => self.list(name),
            Some(_) => self.take(name).into_iter().collect(),
        }
    }

    /// A table whose fields `read` takes.
    fn table<T>(&mut self, name: &'static str, read: impl FnOnce(&mut Fields<'_>) -> Option<T>) -> Option<T> {
        let path = self.path(name);
        match self.raw(name)? {
            Value::Object(map) => {
                let mut fields = Fields::new(map, &path, self.problems);
                let value = read(&mut fields);
                fields.finish();
                value
            }
            _ => {
                self.problems.push(Problem::new(path, "is not a table"));
                None
            }
        }
    }

    fn finish(self) {
        for name in self.map.keys() {
            let path = if self.path.is_empty() { name.clone() } else { format!("{}.{name}", self.path) };
            let fix = match nearest(name, self.known.iter().copied()) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("known are {}", self.known.join(", ")),
            };
            self.problems.push(Problem::new(path, "is not a known field").fix(fix));
        }
    }
}

/// A value of a type; an error names the path below `path`.
fn typed<T: DeserializeOwned>(value: Value, path: &str, problems: &mut Vec<Problem>) -> Option<T> {
    match serde_path_to_error::deserialize(value) {
        Ok(value) => Some(value),
        Err(error) => {
            let below = error.path().to_string();
            let reason = error.into_inner().to_string();
            problems.push(wrong(path, &below, &reason));
            None
        }
    }
}

fn wrong(path: &str, below: &str, reason: &str) -> Problem {
    let field = match below {
        "." => path.to_owned(),
        below if below.starts_with('[') => format!("{path}{below}"),
        below => format!("{path}.{below}"),
    };
    if !reason.starts_with("unknown field `") {
        return Problem::new(field, reason);
    }
    let names: Vec<&str> = reason.split('`').skip(1).step_by(2).collect();
    let (unknown, known) = names.split_first().map_or(("", &[][..]), |(first, rest)| (*first, rest));
    // The unknown name stands at the end of the path already, where the path is known at all.
    let field = if field.ends_with(unknown) { field } else { format!("{field}.{unknown}") };
    let fix = match nearest(unknown, known.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("known are {}", known.join(", ")),
    };
    Problem::new(field, "is not a known field").fix(fix)
}

const FILE_FIX: &str =
    "`posthaste campaign submit` reads the file and sends its content; by HTTP the content itself is given";

fn read(tree: Map<String, Value>) -> (Option<Job>, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut f = Fields::new(tree, "", &mut problems);
    let from = f.needed("from", "who writes: \"Name <news@example.com>\"");
    let subject = f.needed("subject", "say what the mail is about");
    for name in ["text_file", "html_file"] {
        if f.raw(name).is_some() {
            f.problems.push(Problem::new(name, "files can't be read here").fix(FILE_FIX));
        }
    }
    let job = Job {
        id: f.take("id"),
        name: f.take("name"),
        // A stand-in where there is none: with a problem the job is never given out.
        from: from.unwrap_or_else(nobody),
        reply_to: f.one_or_many("reply_to"),
        subject: subject.unwrap_or_else(|| "-".to_owned()),
        preheader: f.take("preheader"),
        text: f.take("text"),
        html: f.take("html"),
        headers: f.or_default("headers"),
        attachments: f.list("attachments"),
        class: f.take("class").unwrap_or(Class::Marketing),
        pool: f.take("pool"),
        list: f.take("list"),
        tags: f.list("tags"),
        metadata: f.or_default("metadata"),
        variables: f.or_default("variables"),
        audience: f.take("audience"),
        segment: f.take("segment"),
        exclude: f.table("exclude", exclude).unwrap_or_default(),
        schedule: f.table("schedule", schedule).unwrap_or_default(),
        rate: f.take("rate"),
        expire_after: f.take("expire_after"),
        on_missing: f.or_default("on_missing"),
        test_recipients: f.list("test_recipients"),
        stop_if: f.table("stop_if", stop_if),
        priority: f.take("priority").unwrap_or(PRIORITY_DEFAULT),
        public_url: f.take("public_url"),
    };
    f.finish();
    (Some(job), problems)
}

fn nobody() -> super::Person {
    let mailbox = crate::types::Mailbox::parse("nobody@invalid.example").expect("a valid address");
    super::Person { name: None, mailbox }
}

fn exclude(f: &mut Fields<'_>) -> Option<Exclude> {
    Some(Exclude { expression: f.take("expression"), campaigns: f.list("campaigns"), lists: f.list("lists") })
}

fn schedule(f: &mut Fields<'_>) -> Option<Schedule> {
    Some(Schedule {
        at: f.take("at"),
        window: f.table("window", window),
        time_zone: f.take("time_zone"),
        spread: f.take("spread"),
    })
}

/// A window as it stands in a job; [`super::parse()`] and a change of a running campaign read it alike.
fn window(f: &mut Fields<'_>) -> Option<Window> {
    let days = f.or_default("days");
    let (from, to) = (f.needed("from", "as \"09:00\""), f.needed("to", "as \"18:00\""));
    Some(Window { days, from: from?, to: to? })
}

fn stop_if(f: &mut Fields<'_>) -> Option<StopIf> {
    Some(StopIf {
        hard_bounce_rate: f.take("hard_bounce_rate"),
        deferral_rate: f.take("deferral_rate"),
        complaint_rate: f.take("complaint_rate"),
        minimum: f.take("minimum"),
    })
}
