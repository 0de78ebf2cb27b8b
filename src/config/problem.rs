//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::PathBuf;

/// One step of a [`KeyPath`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Step {
    /// A key of a table.
    Key(String),
    /// The place in an array, from 0.
    Index(usize),
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Step::Key(key.to_owned())
    }
}

impl From<String> for Step {
    fn from(key: String) -> Self {
        Step::Key(key)
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Step::Index(index)
    }
}

/// The way to a value: `tenants[0].pool`. Keys that are not bare are quoted, as TOML does it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct KeyPath(pub Vec<Step>);

impl KeyPath {
    /// This path, one step further.
    pub fn join(&self, step: impl Into<Step>) -> Self {
        let mut steps = self.0.clone();
        steps.push(step.into());
        Self(steps)
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    let dot = if i == 0 { "" } else { "." };
                    let bare =
                        !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
                    if bare { write!(f, "{dot}{key}")? } else { write!(f, "{dot}{key:?}")? }
                }
            }
        }
        Ok(())
    }
}

/// A path from keys and indices: `at!["tenants", 0, "pool"]`.
macro_rules! at {
    ($($step:expr),* $(,)?) => {
        $crate::config::KeyPath(vec![$($crate::config::Step::from($step)),*])
    };
}
pub(crate) use at;

/// Something that an operator has to mend, or should.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The file in which it stands.
    pub file: PathBuf,
    /// The line, from 1; 0 where no place in the file can be told.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// The way to the key; empty where none can be told.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What would mend it.
    pub hint: Option<String>,
}

/// A problem that does not keep the daemon from running.
pub type Warning = Problem;

impl fmt::Display for Problem {
    /// `file:line:column: key: message`, and the hint on a line of its own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "\n    hint: {hint}")?;
        }
        Ok(())
    }
}

/// Why a configuration was refused: everything that could be found at once, in the order of files and lines.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigErrors {
    /// What is wrong; never empty.
    pub errors: Vec<Problem>,
    /// What should be mended too.
    pub warnings: Vec<Warning>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.errors.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

#[cfg(test)]
mod tests {
    #[test]
    fn paths_are_written_as_toml_does() {
        assert_eq!(at!["routes", "*.example", "hosts", 1usize].to_string(), "routes.\"*.example\".hosts[1]");
    }
}
