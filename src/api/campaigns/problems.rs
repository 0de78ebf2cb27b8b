//! What a campaign refuses, as problems of HTTP.

use axum::http::StatusCode;
use serde_json::json;

use crate::api::Problem;
use crate::campaign::CampaignError;
use crate::campaign::ports::{ContentError, UploadError};

impl From<CampaignError> for Problem {
    fn from(error: CampaignError) -> Self {
        let text = error.to_string();
        match error {
            CampaignError::NotFound(_) => Problem::not_found(text),
            CampaignError::Exists { differs, .. } => {
                Problem::new(StatusCode::CONFLICT, "campaign-exists", text).with("differs", differs)
            }
            CampaignError::Problems(problems) => invalid_job(text, &problems),
            CampaignError::Illegal { state, .. } => {
                Problem::new(StatusCode::CONFLICT, "wrong-state", text).with("state", state.as_str())
            }
            CampaignError::Checks(findings) => {
                Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "checks-failed", text).with("findings", json!(findings))
            }
            CampaignError::Empty(_) => Problem::invalid("recipients", text),
            CampaignError::Invalid { field, reason } => Problem::invalid(&field, reason),
            CampaignError::Busy(_) => Problem::new(StatusCode::CONFLICT, "campaign-busy", text),
            CampaignError::TooMany(_) => Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many", text),
            CampaignError::Damaged(_) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", text),
            CampaignError::Store(error) => error.into(),
            CampaignError::Read(error) => error.into(),
            CampaignError::Scheduler(error) => error.into(),
            CampaignError::Upload(error) => upload(error),
            CampaignError::Content(ContentError::NotFound(_)) => Problem::not_found(text),
            CampaignError::Content(ContentError::Invalid(problems)) => invalid_job(text, &problems),
            CampaignError::Content(ContentError::Unavailable(_)) | CampaignError::Ended => Problem::unavailable(text),
        }
    }
}

/// All problems of a job in one; `field`, `line` and `column` are those of the first, for who looks at one only.
fn invalid_job(text: String, problems: &[crate::campaign::job::Problem]) -> Problem {
    let mut problem =
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-job", text).with("problems", json!(problems));
    let Some(first) = problems.first() else { return problem };
    if !first.field.is_empty() {
        problem = problem.with("field", first.field.as_str());
    }
    if let (Some(line), Some(column)) = (first.line, first.column) {
        problem = problem.with("line", line).with("column", column);
    }
    problem
}

fn upload(error: UploadError) -> Problem {
    error.into()
}
