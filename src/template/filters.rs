//! Filters, tests and functions beside the engine's own. `docs/templates.md` shows each with an example.
//!
//! Those that take a text refuse a missing value in the strict engine, and leave it blank in the lenient one.

use std::borrow::Cow;

use jiff::tz::TimeZone;
use minijinja::{Environment, Error, ErrorKind, State, Value};

use crate::template::dates::{self, When};
use crate::template::locale;
use crate::template::vars::{ROOT, Root};
use crate::types::Timestamp;

/// Digits behind the point.
const DECIMALS_MAX: usize = 12;

/// Adds them all.
pub(super) fn install(env: &mut Environment<'_>) {
    env.add_filter("date", date);
    env.add_filter("number", number);
    env.add_filter("currency", currency);
    env.add_filter("salutation", salutation);
    env.add_filter("first_word", |text: Cow<'_, str>| text.split_whitespace().next().unwrap_or("").to_owned());
    env.add_filter("truncate", truncate);
    env.add_filter("nl2br", nl2br);
    env.add_filter("days_since", days_since);
    env.add_filter("days_until", days_until);
    env.add_filter("age", age);
    env.add_function("days_since", days_since);
    env.add_function("days_until", days_until);
    env.add_function("age", age);
    env.add_function("now", |state: &State| Ok::<_, Error>(now_of(state)?.rfc3339()));
    env.add_test("missing", |value: &Value| {
        value.is_undefined() || value.is_none() || value.as_str().is_some_and(str::is_empty)
    });
    env.add_test("containing", |text: Cow<'_, str>, part: Cow<'_, str>| text.contains(&*part));
    env.add_test("matching", matching);
}

fn invalid(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

fn with_root<R>(state: &State, f: impl FnOnce(&Root) -> R) -> Result<R, Error> {
    let root = state.lookup(ROOT).and_then(|root| root.downcast_object::<Root>());
    root.map(|root| f(&root)).ok_or_else(|| invalid("there is no time here"))
}

fn now_of(state: &State) -> Result<Timestamp, Error> {
    with_root(state, |root| root.now)
}

fn moment(text: &str) -> Result<Option<When>, Error> {
    // Blank only in the lenient engine: the strict one has refused it.
    if text.is_empty() {
        return Ok(None);
    }
    dates::parse(text)
        .map(Some)
        .ok_or_else(|| invalid(format!("\"{text}\" is no date: write 2026-11-23, or 2026-11-23T09:30:00Z")))
}

fn days_since(state: &State, when: Cow<'_, str>) -> Result<Value, Error> {
    let now = now_of(state)?;
    Ok(moment(&when)?.map(|when| Value::from(dates::days_since(when, now))).unwrap_or_default())
}

fn days_until(state: &State, when: Cow<'_, str>) -> Result<Value, Error> {
    let now = now_of(state)?;
    Ok(moment(&when)?.map(|when| Value::from(-dates::days_since(when, now))).unwrap_or_default())
}

fn age(state: &State, birthday: Cow<'_, str>) -> Result<Value, Error> {
    let now = now_of(state)?;
    Ok(moment(&birthday)?.map(|birthday| Value::from(dates::age(birthday, now))).unwrap_or_default())
}

/// A point in time is shown in the zone given, else in the recipient's, else in UTC; a date without a zone stays as it is.
fn date(
    state: &State,
    when: Cow<'_, str>,
    format: Option<Cow<'_, str>>,
    tz: Option<Cow<'_, str>>,
    language: Option<Cow<'_, str>>,
) -> Result<String, Error> {
    let Some(when) = moment(&when)? else { return Ok(String::new()) };
    let zoned = match when {
        When::Civil(at) => at.to_zoned_datetime(TimeZone::UTC).map_err(|e| invalid(e.to_string()))?,
        When::Instant(at) => {
            let zone = match tz {
                Some(name) if !name.is_empty() => {
                    zone(&name).ok_or_else(|| invalid(format!("there is no time zone \"{name}\"")))?
                }
                _ => with_root(state, |root| root.tz().and_then(zone))?.unwrap_or(TimeZone::UTC),
            };
            at.to_zoned_datetime(zone)
        }
    };
    let format = format.unwrap_or(Cow::Borrowed("%Y-%m-%d"));
    let language = language.unwrap_or(Cow::Borrowed("en"));
    let format = locale::localised(&format, &language, zoned.date())
        .ok_or_else(|| invalid(format!("there are no names of months in \"{language}\": {}", locale::KNOWN)))?;
    jiff::fmt::strtime::format(format.as_bytes(), &zoned).map_err(|e| invalid(format!("the date's format: {e}")))
}

fn zone(name: &str) -> Option<TimeZone> {
    TimeZone::get(name).ok()
}

fn figure(text: &str) -> Result<Option<f64>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    dates::number(text.trim()).map(Some).ok_or_else(|| invalid(format!("\"{text}\" is no number")))
}

fn number(
    figure_text: Cow<'_, str>,
    decimals: Option<usize>,
    thousands: Option<Cow<'_, str>>,
    point: Option<Cow<'_, str>>,
) -> Result<String, Error> {
    let Some(figure) = figure(&figure_text)? else { return Ok(String::new()) };
    let (thousands, point) = (thousands.as_deref().unwrap_or(","), point.as_deref().unwrap_or("."));
    Ok(locale::number(figure, decimals.unwrap_or(0).min(DECIMALS_MAX), thousands, point))
}

fn currency(figure_text: Cow<'_, str>, code: Cow<'_, str>, language: Option<Cow<'_, str>>) -> Result<String, Error> {
    let Some(figure) = figure(&figure_text)? else { return Ok(String::new()) };
    let language = language.unwrap_or(Cow::Borrowed("en"));
    locale::currency(figure, &code, &language)
        .ok_or_else(|| invalid(format!("amounts can't be written in \"{language}\": {}", locale::KNOWN)))
}

/// `known` with the name for `%s`, or `unknown` where there is no name.
fn salutation(name: &Value, known: Cow<'_, str>, unknown: Cow<'_, str>) -> String {
    if name.is_undefined() || name.is_none() {
        return unknown.into_owned();
    }
    let name = name.to_string();
    if name.trim().is_empty() { unknown.into_owned() } else { known.replace("%s", name.trim()) }
}

/// At most `length` characters with the end, cut at a word where there is one.
fn truncate(text: Cow<'_, str>, length: usize, end: Option<Cow<'_, str>>) -> String {
    if text.chars().count() <= length {
        return text.into_owned();
    }
    let end = end.as_deref().unwrap_or("…");
    let room = length.saturating_sub(end.chars().count());
    let cut = text.char_indices().nth(room).map_or(text.len(), |(at, _)| at);
    let kept = &text[..cut];
    let is_word_end = text[cut..].starts_with(char::is_whitespace);
    let kept = if is_word_end { kept } else { kept.rfind(char::is_whitespace).map_or(kept, |at| &kept[..at]) };
    format!("{}{end}", kept.trim_end())
}

/// Line ends as `<br>`, the rest escaped.
fn nl2br(text: Cow<'_, str>) -> Value {
    let escaped = minijinja::HtmlEscape(&text).to_string();
    Value::from_safe_string(escaped.replace("\r\n", "\n").replace('\n', "<br>\n"))
}

fn matching(text: Cow<'_, str>, pattern: Cow<'_, str>) -> Result<bool, Error> {
    Ok(super::segment::pattern(&pattern).map_err(invalid)?.is_match(&text))
}
