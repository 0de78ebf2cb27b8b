//! What can be wrong with a template, an expression or a row, said to the person who wrote it.

/// A template or an expression that can't be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{part}, line {line}, column {column}: {message}{}", .hint.as_deref().map(|h| format!("; {h}")).unwrap_or_default())]
pub struct TemplateError {
    /// Where it stands: `subject`, `text`, `html`, `headers.X-Name`, `segment`.
    pub part: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What was probably meant.
    pub hint: Option<String>,
}

/// A part that can't be made for a recipient.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RenderError {
    /// A variable is used that the recipient does not have.
    #[error("{name} is missing (line {line} of {part})")]
    Missing {
        /// Its name as the template says it: `first_name`, `vars.town`.
        name: String,
        /// The part.
        part: String,
        /// The line of its use.
        line: usize,
    },
    /// The template took more steps than it may: probably a loop without end.
    #[error("{part} takes more steps than a template may")]
    Fuel {
        /// The part.
        part: String,
    },
    /// The part is larger than it may be.
    #[error("{part} is larger than {max} octets")]
    TooLarge {
        /// The part.
        part: String,
        /// The limit.
        max: usize,
    },
    /// A filter or an operation does not fit the recipient's values.
    #[error("{part}, line {line}: {message}")]
    Other {
        /// The part.
        part: String,
        /// The line; 0 when it is not known.
        line: usize,
        /// What is wrong.
        message: String,
    },
}

/// A row that is no JSON object of the known form.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the row can't be read: {0}")]
pub struct RowError(pub String);

/// The line and column (both from 1, the column in characters) of an offset.
pub(super) fn position(source: &str, offset: usize) -> (usize, usize) {
    let before = source.get(..offset).unwrap_or(source);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}
