//! A campaign as its messages are made from: everything that can be done once is done here once.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::Deserialize;

use super::Outside;
use super::header::{Fixed, Unsubscribe, address, is_template};
use crate::campaign::job::{OnMissing, Person};
use crate::campaign::model::Sealed;
use crate::links::UnsubscribeToken;
use crate::mime::build::{Address, Attachment, BuildError};
use crate::mime::field;
use crate::mime::skeleton::{Assembled, Bodies, Skeleton};
use crate::template::{self, Compiled, Globals, Part, RenderError, Sources, TemplateError, Vars};
use crate::types::{Mailbox, MessageId, RowId, SLOT_MILLIS, Timestamp};

/// What stands in front of the subject of a test.
pub const TEST_MARK: &str = "[TEST] ";

/// Octets of a header: the first guess of its size.
const HEADER_OCTETS: usize = 2_048;

/// Why a campaign can't be made into messages at all.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BlueprintError {
    /// A template can't be read.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// There is nothing to send, or a file is not right.
    #[error(transparent)]
    Build(#[from] BuildError),
}

/// Why a row can't be made into a message. Trying again gives the same.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ContentError {
    /// The row can't be read.
    #[error("the row can't be read: {0}")]
    Row(String),
    /// A template can't be rendered for it.
    #[error(transparent)]
    Render(#[from] RenderError),
}

impl ContentError {
    /// The variable that is missing, where that is why.
    pub fn missing(&self) -> Option<&str> {
        match self {
            ContentError::Render(RenderError::Missing { name, .. }) => Some(name),
            ContentError::Render(_) | ContentError::Row(_) => None,
        }
    }
}

/// Which row is rendered, and for whom.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The row: `{"email", "name"?, "tz"?, "vars"?, "metadata"?}`.
    pub row: &'a [u8],
    /// Where it stands; `None` for what is not in the store: a row that is only looked at.
    pub id: Option<RowId>,
    /// Who gets it in place of the row's address, and when the test was asked for; its links do nothing.
    pub test: Option<(&'a Mailbox, Timestamp)>,
}

impl<'a> Target<'a> {
    /// A row that is only looked at.
    pub fn shown(row: &'a [u8]) -> Self {
        Self { row, id: None, test: None }
    }
}

/// A message before it is put together.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// The fields of the header with their CRLFs, but for those of MIME.
    pub header: Vec<u8>,
    /// The subject.
    pub subject: String,
    /// The plain text.
    pub text: String,
    /// The HTML.
    pub html: String,
    /// Parts of the header in which a variable had line ends or other controls.
    pub cleaned: Vec<String>,
}

/// What is read of a row besides its variables.
#[derive(Deserialize)]
pub(super) struct RowHead<'a> {
    #[serde(borrow)]
    email: Cow<'a, str>,
    #[serde(default)]
    name: Option<String>,
    #[serde(borrow, default)]
    pub(super) metadata: Option<&'a serde_json::value::RawValue>,
}

impl<'a> RowHead<'a> {
    pub(super) fn parse(row: &'a [u8]) -> Result<Self, ContentError> {
        serde_json::from_slice(row).map_err(|error| ContentError::Row(error.to_string()))
    }

    pub(super) fn mailbox(&self) -> Result<Mailbox, ContentError> {
        Mailbox::parse(&self.email).map_err(|error| ContentError::Row(error.to_string()))
    }
}

/// A sealed campaign, ready to render; shared among threads.
pub struct Blueprint {
    sealed: Arc<Sealed>,
    templates: Compiled,
    globals: Arc<Globals>,
    header_names: Vec<String>,
    /// The templates of the display names of Reply-To, where they are.
    reply_names: Vec<Option<Part>>,
    fixed: Fixed,
    skeleton: Skeleton,
    /// Octets that a message takes of its own, as far as the templates tell.
    own_octets: usize,
    /// What a rendering costs in microseconds, by the latest ones; 0 before the first.
    cost: AtomicU32,
}

impl std::fmt::Debug for Blueprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let campaign = &self.sealed.id;
        f.debug_struct("Blueprint")
            .field("campaign", campaign)
            .field("version", &self.sealed.version)
            .finish_non_exhaustive()
    }
}

impl Blueprint {
    /// Reads a campaign's job. For large files this takes milliseconds: not for the egress thread.
    ///
    /// # Errors
    /// The first thing that is wrong with a template or a file; a job that was checked has none.
    pub fn new(sealed: Arc<Sealed>) -> Result<Self, BlueprintError> {
        let job = &*sealed.job;
        let mut headers: Vec<(String, String)> = job.headers.iter().map(|(n, v)| (n.clone(), v.clone())).collect();
        let header_names = headers.iter().map(|(name, _)| name.clone()).collect();
        // The names of Reply-To come behind the headers, each a template of its own.
        let mut reply_names = Vec::new();
        for (i, person) in job.reply_to.iter().enumerate() {
            let name = person.name.clone().filter(|_| is_template(person));
            reply_names.push(name.as_ref().map(|_| Part::Header(headers.len())));
            headers.extend(name.map(|name| (format!("Reply-To[{i}]"), name)));
        }
        let sources = Sources {
            subject: &job.subject,
            text: job.text.as_deref(),
            html: job.html.as_deref(),
            preheader: job.preheader.as_deref(),
            from_name: job.from.name.as_deref().filter(|_| is_template(&job.from)),
            headers: &headers,
            ..Sources::default()
        };
        let on_missing = match job.on_missing {
            OnMissing::Skip => template::OnMissing::Skip,
            OnMissing::Error => template::OnMissing::Error,
            OnMissing::Blank => template::OnMissing::Blank,
        };
        let templates = Compiled::new(&sources, &template::Options { on_missing, ..Default::default() })?;
        let mut globals = Globals::new();
        for (name, value) in &job.variables {
            globals.set(name, value);
        }
        let about = serde_json::json!({ "id": sealed.id, "name": job.name.as_deref().unwrap_or(sealed.id.as_str()), "list": job.list });
        globals.set("campaign", &about);
        let attachments: Vec<Attachment> = job.attachments.iter().map(attachment).collect();
        let skeleton = Skeleton::new(seed(&sealed), templates.has(Part::Text), job.html.is_some(), &attachments)?;
        let html = job.html.as_ref().map_or(0, String::len);
        let own_octets = HEADER_OCTETS + html * 2 + job.text.as_ref().map_or(html, String::len);
        Ok(Self {
            templates,
            globals: Arc::new(globals),
            header_names,
            reply_names,
            fixed: Fixed::new(&sealed),
            skeleton,
            own_octets,
            cost: AtomicU32::new(0),
            sealed,
        })
    }

    /// The campaign.
    pub fn sealed(&self) -> &Arc<Sealed> {
        &self.sealed
    }

    /// Octets of memory that the making of a message with a row of this size takes, about.
    pub fn octets_for(&self, row: usize) -> usize {
        self.own_octets + 2 * row
    }

    /// What making a message costs in microseconds, by the latest; `None` before the first.
    pub fn cost_us(&self) -> Option<u32> {
        match self.cost.load(Ordering::Relaxed) {
            0 => None,
            cost => Some(cost),
        }
    }

    /// Notes what making a message took.
    pub(super) fn note_cost(&self, took: std::time::Duration) {
        let took = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1);
        let old = self.cost.load(Ordering::Relaxed);
        // An eighth of each: one that was interrupted weighs little. Two threads at a time may lose one of their notes.
        let new = if old == 0 { took } else { old - old / 8 + took / 8 };
        self.cost.store(new.max(1), Ordering::Relaxed);
    }

    /// The variables of a row, with those that we add: `unsubscribe_url`.
    ///
    /// # Errors
    /// When the row can't be read.
    pub fn vars(&self, target: &Target<'_>, outside: &Outside) -> Result<Vars, ContentError> {
        let mailbox = RowHead::parse(target.row)?.mailbox()?;
        self.vars_with(target.row, &self.unsubscribe(target, &mailbox, outside, true))
    }

    fn vars_with(&self, row: &[u8], unsubscribe: &Unsubscribe) -> Result<Vars, ContentError> {
        let mut vars = Vars::parse(row, &self.globals).map_err(|error| ContentError::Row(error.0))?;
        if let Some(url) = &unsubscribe.url {
            vars.set("unsubscribe_url", url);
        }
        Ok(vars)
    }

    /// The variables that a row lacks: for the scan before the start and for previews.
    ///
    /// # Errors
    /// When the row can't be read.
    pub fn missing(&self, target: &Target<'_>, outside: &Outside) -> Result<Vec<String>, ContentError> {
        Ok(self.templates.missing(&self.vars(target, outside)?, self.sealed.started))
    }

    fn unsubscribe(&self, target: &Target<'_>, address: &Mailbox, outside: &Outside, inert: bool) -> Unsubscribe {
        let token = UnsubscribeToken {
            tenant: self.sealed.tenant.clone(),
            message: target.id.map(RowId::message_id),
            list: self.sealed.job.list.clone(),
            address: address.clone(),
            // What is only shown must do nothing either.
            test: inert || target.test.is_some() || target.id.is_none(),
        };
        let node = match &self.sealed.job.public_url {
            Some(_) => None,
            None => outside.public_url(),
        };
        let base = self.sealed.job.public_url.as_deref().or(node.as_deref());
        Unsubscribe::new(&outside.links, base, outside.bounce_domain(&self.sealed.tenant).as_ref(), token)
    }

    /// Renders a row: all texts and the header.
    ///
    /// # Errors
    /// A row that can't be read, a missing variable that may not be blank, a limit of the templates.
    pub fn draw(&self, target: &Target<'_>, outside: &Outside) -> Result<Drawn, ContentError> {
        self.draw_with(target, outside, false)
    }

    /// As [`Blueprint::draw`]; `inert` links do nothing: who looks at somebody's mail must not unsubscribe him.
    pub(super) fn draw_with(&self, target: &Target<'_>, outside: &Outside, inert: bool) -> Result<Drawn, ContentError> {
        let head = RowHead::parse(target.row)?;
        let address = head.mailbox()?;
        let unsubscribe = self.unsubscribe(target, &address, outside, inert);
        let vars = self.vars_with(target.row, &unsubscribe)?;
        let mut cleaned = Vec::new();
        let mut subject = self.render(Part::Subject, &vars, "subject", &mut cleaned)?;
        let html = self.html(&vars, &mut cleaned)?;
        let text = self.render(Part::Text, &vars, "text", &mut cleaned)?;
        if target.test.is_some() {
            subject.insert_str(0, TEST_MARK);
        }
        let to = Address { name: head.name, mailbox: target.test.map_or(address, |(to, _)| to.clone()) };
        let mut header = Vec::with_capacity(HEADER_OCTETS + text.len() + html.len() * 17 / 16);
        let people = self.people(&vars, &mut cleaned)?;
        self.write_first(target, &to, &subject, &people, outside, &mut header);
        unsubscribe.write(&self.sealed.job, &mut header);
        for (i, name) in self.header_names.iter().enumerate() {
            let value = self.render(Part::Header(i), &vars, name, &mut cleaned)?;
            if !value.trim().is_empty() && field::write_raw(name, &value, &mut header) {
                cleaned.push(name.clone());
            }
        }
        header.extend_from_slice(&self.fixed.last);
        Ok(Drawn { header, subject, text, html, cleaned })
    }

    /// Puts a rendered message together.
    pub fn assemble(&self, drawn: Drawn) -> Assembled {
        self.skeleton.assemble(drawn.header, Bodies { text: &drawn.text, html: &drawn.html })
    }

    /// From and Reply-To, as far as their names are templates.
    fn people(&self, vars: &Vars, cleaned: &mut Vec<String>) -> Result<Vec<u8>, ContentError> {
        let (job, mut out) = (&self.sealed.job, Vec::new());
        // A name that is empty for somebody is none.
        let named = |person: &Person, name: String| {
            let name = Some(name.trim().to_owned()).filter(|name| !name.is_empty());
            Address { name, ..address(person) }
        };
        if self.templates.has(Part::FromName) {
            let from = named(&job.from, self.render(Part::FromName, vars, "from", cleaned)?);
            if field::write_addresses("From", [&from], &mut out) {
                cleaned.push("from".into());
            }
        }
        if self.reply_names.iter().any(Option::is_some) {
            let mut list = Vec::with_capacity(job.reply_to.len());
            for (person, part) in job.reply_to.iter().zip(&self.reply_names) {
                list.push(match part {
                    Some(part) => named(person, self.render(*part, vars, "reply_to", cleaned)?),
                    None => address(person),
                });
            }
            if field::write_addresses("Reply-To", &list, &mut out) {
                cleaned.push("reply_to".into());
            }
        }
        Ok(out)
    }

    fn write_first(
        &self,
        target: &Target<'_>,
        to: &Address,
        subject: &str,
        people: &[u8],
        outside: &Outside,
        out: &mut Vec<u8>,
    ) {
        let (slot, step) = target.id.map_or((0, crate::campaign::model::FIRST_STEP), |id| (id.slot, id.step));
        let due = self.sealed.due.as_millis().saturating_add(u64::from(slot) * SLOT_MILLIS);
        let date = target.test.map_or(Timestamp::from_millis(due), |(_, now)| now);
        field::write_ours("Date", &date.rfc5322(), out);
        out.extend_from_slice(people);
        out.extend_from_slice(&self.fixed.first);
        field::write_addresses("To", [to], out);
        field::write_text("Subject", subject, out);
        let salt = target.test.map(|(_, now)| now.as_millis());
        let domain = self.sealed.job.from.mailbox.domain();
        let id = outside.key.message_id(self.sealed.no, step, &to.mailbox, salt, domain);
        out.extend_from_slice(b"Message-ID: <");
        out.extend_from_slice(id.as_bytes());
        out.extend_from_slice(b">\r\n");
    }

    fn render(&self, part: Part, vars: &Vars, name: &str, cleaned: &mut Vec<String>) -> Result<String, ContentError> {
        let rendered = self.templates.render(part, vars, self.sealed.started)?;
        if rendered.cleaned {
            cleaned.push(name.to_owned());
        }
        Ok(rendered.text)
    }

    /// The HTML with the preheader as its first, hidden text.
    fn html(&self, vars: &Vars, cleaned: &mut Vec<String>) -> Result<String, ContentError> {
        let mut html = self.render(Part::Html, vars, "html", cleaned)?;
        if self.sealed.job.html.is_none() || self.sealed.job.preheader.is_none() {
            return Ok(html);
        }
        let preheader = self.render(Part::Preheader, vars, "preheader", cleaned)?;
        let hidden =
            format!("<div style=\"display:none;max-height:0;overflow:hidden;mso-hide:all\">{}</div>", preheader.trim());
        html.insert_str(behind_body_tag(&html), &hidden);
        Ok(html)
    }
}

/// Where the text of an HTML document begins: behind its body tag, or at its start where it has none.
fn behind_body_tag(html: &str) -> usize {
    let octets = html.as_bytes();
    let begin = ["<body", "<BODY"].iter().find_map(|tag| memchr::memmem::find(octets, tag.as_bytes()));
    begin.and_then(|at| memchr::memchr(b'>', &octets[at..]).map(|end| at + end + 1)).unwrap_or(0)
}

fn attachment(given: &crate::campaign::job::JobAttachment) -> Attachment {
    Attachment {
        filename: Some(given.name.clone()),
        content_type: given.media_type.clone(),
        content: given.content.to_vec(),
        content_id: given.cid.clone(),
    }
}

/// What boundaries are made of: the same for all messages of a version, another one for the next.
fn seed(sealed: &Sealed) -> [u8; 16] {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    context.update(b"posthaste boundary");
    context.update(&sealed.no.0.to_be_bytes());
    context.update(&sealed.version.to_be_bytes());
    let mut seed = [0; 16];
    seed.copy_from_slice(&context.finish().as_ref()[..16]);
    seed
}

/// The id of a row's message, for what is known by it.
pub(super) fn row_of(message: MessageId) -> Option<RowId> {
    RowId::of(message)
}
