//! Templates of a message, read once and rendered for each recipient.
//!
//! 1. Each part is read by the engine, and its names are checked against those that exist,
//! 2. two engines hold the same templates: a strict one, for which a missing variable is an error, and a lenient one, which leaves it blank,
//! 3. a rendering sees one object, the recipient; it has fuel and an end of its output,
//! 4. what is written is escaped by its part: HTML in HTML, nothing in text, no line ends in headers.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value};

use crate::template::error::position;
use crate::template::vars::{ROOT, Root};
use crate::template::{RenderError, TemplateError, Vars, filters, names, text};
use crate::types::Timestamp;

/// Steps that a part may take; each octet written costs a 64th. More is a loop that got out of hand: this is a few milliseconds.
pub const FUEL: u64 = 200_000;

/// Octets of a rendered part. Mail of this size is refused by many.
pub const OUTPUT_MAX: usize = 4 << 20;

/// Calls and loops within each other: a macro that calls itself ends here.
const DEPTH_MAX: usize = 64;

/// Missing names that are looked for in one row; a row that lacks more is told by these.
const MISSING_MAX: usize = 64;

/// What is done where a variable is missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnMissing {
    /// The recipient is left out, with an event.
    #[default]
    Skip,
    /// The campaign does not start.
    Error,
    /// Nothing stands in its place.
    Blank,
}

/// Limits and choices.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Steps that a part may take.
    pub fuel: u64,
    /// Octets of a part.
    pub output_max: usize,
    /// Whether [`Compiled::render`] leaves a missing variable blank; else it is [`RenderError::Missing`].
    pub on_missing: OnMissing,
}

impl Default for Options {
    fn default() -> Self {
        Self { fuel: FUEL, output_max: OUTPUT_MAX, on_missing: OnMissing::default() }
    }
}

/// The templates of a message.
#[derive(Clone, Copy, Default, Debug)]
pub struct Sources<'a> {
    /// The subject.
    pub subject: &'a str,
    /// The plain text. Without it, it is made from the HTML.
    pub text: Option<&'a str>,
    /// The HTML.
    pub html: Option<&'a str>,
    /// The line that stands beside the subject in lists of messages; it is escaped for HTML.
    pub preheader: Option<&'a str>,
    /// The display name of From.
    pub from_name: Option<&'a str>,
    /// Reply-To.
    pub reply_to: Option<&'a str>,
    /// More headers: name and template.
    pub headers: &'a [(String, String)],
}

/// A part of a message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Part {
    /// The subject.
    Subject,
    /// The plain text.
    Text,
    /// The HTML.
    Html,
    /// The preheader, as HTML.
    Preheader,
    /// The display name of From.
    FromName,
    /// Reply-To.
    ReplyTo,
    /// A header, by its place in [`Sources::headers`].
    Header(usize),
}

/// A rendered part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rendered {
    /// The text: of a header the value on one line, not encoded yet.
    pub text: String,
    /// A variable in a header had line ends or other control characters; each became a space.
    pub cleaned: bool,
}

/// The templates of a message, ready to render; shared among threads.
#[derive(Debug)]
pub struct Compiled {
    strict: Environment<'static>,
    lenient: Environment<'static>,
    parts: Vec<(Part, String)>,
    options: Options,
    needed: BTreeSet<String>,
    /// Whether a row that has all of `needed` can't lack anything.
    is_simple: bool,
    /// The text is made from the rendered HTML.
    text_of_html: bool,
}

impl Compiled {
    /// Reads templates.
    ///
    /// # Errors
    /// The first thing that is wrong: syntax, or the name of a filter, test or function that does not exist.
    pub fn new(sources: &Sources<'_>, options: &Options) -> Result<Self, TemplateError> {
        let mut compiled = Self {
            strict: environment(options, UndefinedBehavior::SemiStrict),
            lenient: environment(options, UndefinedBehavior::Chainable),
            parts: Vec::new(),
            options: *options,
            needed: BTreeSet::new(),
            is_simple: true,
            text_of_html: false,
        };
        compiled.add(Part::Subject, "subject".to_owned(), sources.subject)?;
        let optional = [
            (Part::Preheader, "preheader", sources.preheader),
            (Part::FromName, "from_name", sources.from_name),
            (Part::ReplyTo, "reply_to", sources.reply_to),
            (Part::Html, "html", sources.html),
            (Part::Text, "text", sources.text),
        ];
        for (part, name, source) in optional {
            if let Some(source) = source {
                compiled.add(part, name.to_owned(), source)?;
            }
        }
        for (i, (name, source)) in sources.headers.iter().enumerate() {
            compiled.add(Part::Header(i), format!("headers.{name}"), source)?;
        }
        if let (None, Some(html)) = (sources.text, sources.html) {
            // The HTML becomes the template of a text once, not once a recipient. Where tags and blocks cross so that this is no
            // template any more, each recipient's HTML is converted.
            let source = text::template_to_text(html);
            compiled.text_of_html = compiled.add(Part::Text, "text".to_owned(), &source).is_err();
        }
        Ok(compiled)
    }

    fn add(&mut self, part: Part, name: String, source: &str) -> Result<(), TemplateError> {
        let wrong = |offset: usize, message: String, hint| {
            let (line, column) = position(source, offset);
            TemplateError { part: name.clone(), line, column, message, hint }
        };
        let compile_error = |error: Error| {
            let offset =
                error.range().map_or_else(|| line_start(source, error.line().unwrap_or(1)), |range| range.start);
            wrong(offset, message_of(&error), None)
        };
        self.strict.add_template_owned(name.clone(), source.to_owned()).map_err(compile_error)?;
        let used = names::read(source).map_err(|(at, message, hint)| wrong(at, message, hint))?;
        self.lenient.add_template_owned(name.clone(), source.to_owned()).map_err(compile_error)?;
        let template = self.strict.get_template(&name).map_err(compile_error)?;
        for variable in template.undeclared_variables(true) {
            let is_function = names::FUNCTIONS.contains(&variable.as_str()) && used.called.contains(&variable);
            if !is_function || used.plain.contains(&variable) {
                self.needed.insert(variable);
            }
        }
        self.is_simple &= used.is_simple;
        self.parts.push((part, name));
        Ok(())
    }

    /// The parts that there are.
    pub fn parts(&self) -> impl Iterator<Item = Part> {
        self.parts.iter().map(|(part, _)| *part).chain(self.text_of_html.then_some(Part::Text))
    }

    /// Whether there is a part.
    pub fn has(&self, part: Part) -> bool {
        self.parts().any(|p| p == part)
    }

    /// The variables that the templates name, with dots where they name a field: `first_name`, `campaign.name`. Those behind
    /// `default` or a condition are among them.
    pub fn undeclared(&self) -> impl Iterator<Item = &str> {
        self.needed.iter().map(String::as_str)
    }

    /// The variables that a recipient lacks: what the strict engine stumbles over, so nothing behind `default`, `is defined` or an
    /// `if` that is false. Empty for a recipient who can be rendered as far as names go.
    pub fn missing(&self, vars: &Vars, now: Timestamp) -> Vec<String> {
        if self.is_simple && self.needed.iter().all(|name| vars.has(name)) {
            return Vec::new();
        }
        self.probe(vars, now)
    }

    /// As [`Compiled::missing`], always by rendering.
    pub fn probe(&self, vars: &Vars, now: Timestamp) -> Vec<String> {
        let mut missing: Vec<String> = Vec::new();
        for (_, name) in &self.parts {
            // Each round finds one name, and takes it as blank from then on.
            while missing.len() < MISSING_MAX {
                match self.run(&self.strict, name, &vars.root(now, &missing)) {
                    Err(RenderError::Missing { name, .. }) if !missing.contains(&name) => missing.push(name),
                    _ => break,
                }
            }
        }
        missing
    }

    /// Renders a part; an empty text for a part that there is not.
    ///
    /// # Errors
    /// A missing variable unless it may be blank, a limit, or a value that does not fit a filter.
    pub fn render(&self, part: Part, vars: &Vars, now: Timestamp) -> Result<Rendered, RenderError> {
        let env = if self.options.on_missing == OnMissing::Blank { &self.lenient } else { &self.strict };
        if part == Part::Text && self.text_of_html {
            let html = self.render(Part::Html, vars, now)?;
            return Ok(Rendered { text: text::html_to_text(&html.text), cleaned: false });
        }
        let Some((_, name)) = self.parts.iter().find(|(p, _)| *p == part) else {
            return Ok(Rendered { text: String::new(), cleaned: false });
        };
        let root = vars.root(now, &[]);
        let mut text = self.run(env, name, &root)?;
        if is_header(name) {
            // Line ends of the template itself fold nothing: the header is encoded later.
            text =
                text.split(['\r', '\n']).map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
        }
        Ok(Rendered { text, cleaned: root.is_cleaned() })
    }

    fn run(&self, env: &Environment<'_>, name: &str, root: &Arc<Root>) -> Result<String, RenderError> {
        let context = Value::from_dyn_object(Arc::clone(root));
        let max = self.options.output_max;
        let mut out = Limited { text: Vec::with_capacity(1024), max };
        let done =
            env.get_template(name).and_then(|template| template.render_captured_to(context, &mut out).map(|_| ()));
        match done {
            Ok(()) => String::from_utf8(out.text).map_err(|_| RenderError::Other {
                part: name.to_owned(),
                line: 0,
                message: "the output is not UTF-8".to_owned(),
            }),
            Err(error) => Err(render_error(name, max, &error)),
        }
    }
}

/// Output up to a limit.
struct Limited {
    text: Vec<u8>,
    max: usize,
}

impl io::Write for Limited {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        if self.text.len() + octets.len() > self.max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.text.extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn is_header(part: &str) -> bool {
    !matches!(part, "html" | "text" | "preheader")
}

fn environment(options: &Options, undefined: UndefinedBehavior) -> Environment<'static> {
    let mut env = Environment::new();
    env.set_undefined_behavior(undefined);
    env.set_fuel(Some(options.fuel));
    env.set_recursion_limit(DEPTH_MAX);
    // An undefined value then knows its name.
    env.set_debug(true);
    env.set_auto_escape_callback(|part| match part {
        "html" | "preheader" => AutoEscape::Html,
        "text" => AutoEscape::None,
        _ => AutoEscape::Custom("header".into()),
    });
    env.set_formatter(write_value);
    // It would print all that is known of a recipient.
    env.remove_global("debug");
    filters::install(&mut env);
    env
}

/// Writes a value as its part wants it.
fn write_value(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    if value.is_undefined() || value.is_none() {
        return Ok(());
    }
    let owned;
    let text = match value.as_str() {
        Some(text) => text,
        None => {
            owned = value.to_string();
            &owned
        }
    };
    match state.auto_escape() {
        AutoEscape::Html if !value.is_safe() => escape_html(out, text)?,
        AutoEscape::Custom(_) if text.contains(char::is_control) => {
            if let Some(root) = state.lookup(ROOT).and_then(|root| root.downcast_object::<Root>()) {
                root.note_cleaned();
            }
            clean_header(out, text)?;
        }
        _ => out.write_str(text)?,
    }
    Ok(())
}

/// The engine's own escapes `/` too, which makes links unreadable to those that check them.
fn escape_html(out: &mut Output, text: &str) -> std::fmt::Result {
    let mut from = 0;
    for (at, octet) in text.bytes().enumerate() {
        let escaped = match octet {
            b'<' => "&lt;",
            b'>' => "&gt;",
            b'&' => "&amp;",
            b'"' => "&quot;",
            b'\'' => "&#39;",
            _ => continue,
        };
        out.write_str(&text[from..at])?;
        out.write_str(escaped)?;
        from = at + 1;
    }
    out.write_str(&text[from..])
}

/// A run of control characters becomes one space: nothing that a recipient's data hold may begin a header of its own.
fn clean_header(out: &mut Output, text: &str) -> std::fmt::Result {
    let mut pieces = text.split(char::is_control).filter(|piece| !piece.is_empty());
    if let Some(first) = pieces.next() {
        out.write_str(first)?;
    }
    for piece in pieces {
        out.write_str(" ")?;
        out.write_str(piece)?;
    }
    Ok(())
}

fn render_error(part: &str, max: usize, error: &Error) -> RenderError {
    let part = part.to_owned();
    let line = error.line().unwrap_or(0);
    if let Some(name) = undefined_name(error) {
        return RenderError::Missing { name, part, line };
    }
    match error.kind() {
        ErrorKind::OutOfFuel => RenderError::Fuel { part },
        ErrorKind::WriteFailure => RenderError::TooLarge { part, max },
        _ => RenderError::Other { part, line, message: message_of(error) },
    }
}

/// The variable that an error is about: the engine says `` `name` is undefined ``.
fn undefined_name(error: &Error) -> Option<String> {
    let detail = error.detail().unwrap_or_default();
    match detail.split_once("` is undefined") {
        Some((before, _)) => before.rsplit_once('`').map(|(_, name)| name.to_owned()),
        None if error.kind() == ErrorKind::UndefinedError => Some("a value".to_owned()),
        None => None,
    }
}

fn message_of(error: &Error) -> String {
    match error.detail() {
        Some(detail) if error.kind() == ErrorKind::SyntaxError => detail.to_owned(),
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

fn line_start(source: &str, line: usize) -> usize {
    source.match_indices('\n').nth(line.wrapping_sub(2)).map_or(0, |(at, _)| at + 1)
}
