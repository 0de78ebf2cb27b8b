//! Tests: a campaign's message sent to those who look at it before its start.
//!
//! 1. Each test recipient names a row whose data it is made from, or gets that of its own address, or the first of the list; variables of its own win,
//! 2. the message is rendered as the row's would be, but to the test recipient, with `[TEST]` before the subject and links that do nothing,
//! 3. it is submitted like any message: tagged `test`, without the campaign, so no count and no report sees it.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::Outside;
use super::blueprint::{Blueprint, ContentError, Target};
use crate::campaign::job::TestRecipient;
use crate::mime::submission::Steering;
use crate::queue::intake::{Client, Intake, Refusal, Submission};
use crate::seam::clock::Clock;
use crate::store::{EnvelopeRecipient, Via};
use crate::types::{Mailbox, MessageId, Name, Notify, ReversePath, Timestamp};

/// The tag of tests in events.
pub const TEST_TAG: &str = "test";

/// The most recipients of one test.
pub const TEST_RECIPIENTS_MAX: usize = 50;

/// Why a test was not sent.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TestError {
    /// The message can't be made from this row.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// It was refused at the door, as any message could be.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// One test that is on its way.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct TestSent {
    /// Who gets it.
    pub to: String,
    /// Its id, as its events have it.
    pub message_id: MessageId,
}

/// A row with other variables: those of `vars` win.
///
/// # Errors
/// When the row is no JSON object.
pub fn row_with(row: &[u8], vars: &Map<String, Value>) -> Result<Vec<u8>, ContentError> {
    if vars.is_empty() {
        return Ok(row.to_vec());
    }
    let bad = |error: serde_json::Error| ContentError::Row(error.to_string());
    let mut object: Map<String, Value> = serde_json::from_slice(row).map_err(bad)?;
    let old = object.entry("vars").or_insert_with(|| Value::Object(Map::new()));
    match old {
        Value::Object(old) => old.extend(vars.iter().map(|(name, value)| (name.clone(), value.clone()))),
        other => *other = Value::Object(vars.clone()),
    }
    serde_json::to_vec(&object).map_err(bad)
}

/// The row of somebody of whom nothing is known but the address.
pub fn bare_row(address: &Mailbox) -> Vec<u8> {
    serde_json::json!({ "email": address.as_str() }).to_string().into_bytes()
}

impl Blueprint {
    /// The octets of a test made from a row.
    ///
    /// # Errors
    /// As [`Blueprint::draw`].
    pub fn test_message(
        &self,
        row: &[u8],
        to: &TestRecipient,
        outside: &Outside,
        now: Timestamp,
    ) -> Result<Bytes, ContentError> {
        let row = row_with(row, &to.vars)?;
        let drawn = self.draw(&Target { row: &row, id: None, test: Some((&to.email, now)) }, outside)?;
        Ok(self.assemble(drawn).concat().into())
    }
}

/// Sends tests.
#[derive(Clone)]
pub struct Tester {
    /// The door for messages.
    pub intake: Arc<Intake>,
    /// Links, keys, configuration.
    pub outside: Outside,
    /// The clock.
    pub clock: Clock,
}

impl Tester {
    /// Sends one test made from a row. `by` is who asked: the name of an API key.
    ///
    /// # Errors
    /// When the message can't be made, or the door refuses it.
    pub async fn send(
        &self,
        blueprint: &Blueprint,
        row: &[u8],
        to: &TestRecipient,
        by: Option<String>,
    ) -> Result<TestSent, TestError> {
        let sealed = blueprint.sealed();
        let body = blueprint.test_message(row, to, &self.outside, self.clock.now())?;
        let steering = Steering {
            campaign: None,
            tags: Name::parse(TEST_TAG).into_iter().chain(sealed.job.tags.iter().cloned()).take(10).collect(),
            pool: sealed.job.pool.clone(),
            class: Some(sealed.job.class),
            metadata: None,
        };
        let submission = Submission {
            tenant: Some(sealed.tenant.clone()),
            via: Via::Http,
            client: Client { user: by, protocol: "HTTP", ..Client::default() },
            reverse_path: ReversePath::Mailbox(sealed.job.from.mailbox.clone()),
            ret: None,
            envid: None,
            smtputf8: to.email.needs_smtputf8() || sealed.job.from.mailbox.needs_smtputf8(),
            recipients: vec![EnvelopeRecipient { mailbox: to.email.clone(), notify: Notify::Default, orcpt: None }],
            steering,
            body,
        };
        let accepted = self.intake.accept(submission).await?;
        Ok(TestSent { to: to.email.as_str().to_owned(), message_id: accepted.id })
    }
}
