//! What the rows say: shares of what is not sent to, variables that are missing, rows that can't be rendered.

use serde::{Deserialize, Serialize};

use super::report::{Finding, error, grouped, info, warning};
use crate::campaign::job::OnMissing;

/// From this share on, in percent, what is usual becomes a warning.
const SHARE_WARN_PERCENT: u64 = 5;

/// Counts over the rows of a campaign.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RowFacts {
    /// Rows that would be sent.
    pub rows: u64,
    /// Rows with an invalid address: not sent.
    pub invalid: u64,
    /// Rows whose address was there before: not sent.
    pub duplicates: u64,
    /// Rows whose address is suppressed: not sent.
    pub suppressed: u64,
    /// Rows to role accounts such as `info@`: of the rows that would be sent, or refused by the upload.
    pub role_accounts: u64,
    /// Of each variable that some rows lack: how many.
    pub missing: Vec<(String, u64)>,
    /// Rows that can't be rendered.
    pub render_errors: u64,
    /// What the renderer said of some of them.
    pub render_examples: Vec<String>,
}

/// Judges the counts.
pub(super) fn check(facts: &RowFacts, on_missing: OnMissing) -> Vec<Finding> {
    let mut found = Vec::new();
    if facts.rows == 0 {
        found.push(error("rows-none", "no row would be sent", "Upload recipients, or widen the segment."));
    }
    let all = facts.rows + facts.invalid + facts.duplicates + facts.suppressed;
    let mut share = |code, count: u64, what: &str, fix: &str| {
        if count == 0 {
            return;
        }
        let title = format!("{} of {} rows {what}", grouped(count), grouped(all));
        let is_large = count.saturating_mul(100) >= all.saturating_mul(SHARE_WARN_PERCENT);
        found.push(if is_large { warning(code, title, fix) } else { info(code, title, fix) });
    };
    share(
        "rows-invalid",
        facts.invalid,
        "have an invalid address",
        "Look at the rejected rows, and mend their source.",
    );
    share("rows-duplicate", facts.duplicates, "name an address again", "Nothing: each address gets the mail once.");
    share("rows-suppressed", facts.suppressed, "are suppressed", "Take them out of the list: they are not sent to.");
    share("rows-role-accounts", facts.role_accounts, "are role accounts", "Write to people who asked for it.");
    for (variable, rows) in facts.missing.iter().filter(|(_, rows)| *rows > 0) {
        let title = format!("{variable} missing in {} of {}", grouped(*rows), grouped(facts.rows));
        let fix = format!("Fill it in, or give a value in the template: {{{{ {variable} | default(\"…\") }}}}.");
        found.push(match on_missing {
            OnMissing::Error => error("missing-variable", title, fix),
            OnMissing::Skip => warning("missing-variable", format!("{title}: these are not sent"), fix),
            OnMissing::Blank => warning("missing-variable", format!("{title}: blank there"), fix),
        });
    }
    if facts.render_errors > 0 {
        let title = format!("{} rows can't be rendered", grouped(facts.render_errors));
        let fix = "Mend the template, or the rows; `posthaste campaign preview --as ADDRESS` shows one.";
        found.push(error("render-errors", title, fix).details(facts.render_examples.iter().cloned()));
    }
    found
}
