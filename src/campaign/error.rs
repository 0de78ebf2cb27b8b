//! Why a campaign did not do what it was asked for.

use super::job::Problem;
use super::model::State;
use super::ports::{ContentError, Finding, Severity, UploadError};
use super::state::Action;
use crate::queue::admin::CommandError;
use crate::store::{ReadError, SubmitError};

/// Why not. Nothing was changed, unless it says so.
#[derive(Debug, thiserror::Error)]
pub enum CampaignError {
    /// There is none with this id.
    #[error("there is no campaign {0}")]
    NotFound(String),
    /// Another job has this id.
    #[error("campaign {id} exists with another job: {} {}", .differs.join(", "), if .differs.len() == 1 { "differs" } else { "differ" })]
    Exists {
        /// The id.
        id: String,
        /// The fields that differ.
        differs: Vec<String>,
    },
    /// The job is wrong: all that is wrong with it.
    #[error("{}", several(.0))]
    Problems(Vec<Problem>),
    /// It makes no sense in this state.
    #[error("campaign {id} is {state}: it can't be {}{}", .action.participle(), hint(*.state, *.action))]
    Illegal {
        /// The id.
        id: String,
        /// Its state.
        state: State,
        /// What was asked.
        action: Action,
    },
    /// The checks found errors.
    #[error("the checks found {} {}: mend them, or start with a reason to force it", errors(.0), if errors(.0) == 1 { "error" } else { "errors" })]
    Checks(Vec<Finding>),
    /// It can't be started, not even by force.
    #[error("{0}")]
    Empty(String),
    /// A value of the request is wrong.
    #[error("{field}: {reason}")]
    Invalid {
        /// The field.
        field: String,
        /// Why.
        reason: String,
    },
    /// Recipients are being uploaded; it can be asked again.
    #[error("an upload to campaign {0} is under way")]
    Busy(String),
    /// A bound is reached.
    #[error("{0}")]
    TooMany(String),
    /// What is on disk can't be read.
    #[error("the record of a campaign can't be read: {0}")]
    Damaged(String),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] SubmitError),
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The scheduler did not take it; the change itself is on disk.
    #[error("{0}")]
    Scheduler(#[from] CommandError),
    /// The upload refused it.
    #[error(transparent)]
    Upload(#[from] UploadError),
    /// Preview, test or scan refused it.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The task that did it ended.
    #[error("the daemon is shutting down")]
    Ended,
}

fn errors(findings: &[Finding]) -> usize {
    findings.iter().filter(|f| f.severity == Severity::Error).count()
}

fn several(problems: &[Problem]) -> String {
    match problems {
        [] => "the job is wrong".into(),
        [one] => one.to_string(),
        [first, rest @ ..] => format!("{first}; and {} more", rest.len()),
    }
}

/// What to do instead, where that helps.
fn hint(state: State, action: Action) -> &'static str {
    match (action, state) {
        (Action::Edit | Action::Upload, state) if state.is_live() => {
            ": make a new one, or change its rate, window or priority"
        }
        (Action::Edit | Action::Upload, _) => ": make a new one",
        (Action::Start, State::Halted) => ": resume it with a reason",
        (Action::Start, State::Cancelled) => ": make a new one",
        (Action::Delete, _) => ": cancel it first",
        (Action::Pause | Action::Resume, State::Draft | State::Uploading | State::Checking) => ": it was not started",
        _ => "",
    }
}
