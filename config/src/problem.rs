//! What is wrong with a configuration, said so that the operator can mend it: key path, value, reason, hint, line.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// One thing to mend: `buckets[3].max_connections = 0: must be at least 1 (line 41)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key path, as `buckets[3].max_connections`; empty for the file as a whole.
    pub path: String,
    /// The value as it stands in the file; none for missing keys, tables and secrets.
    pub value: Option<String>,
    /// What is wrong, in lower case.
    pub what: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The line in the file, counted from 1.
    pub line: Option<usize>,
}

impl Problem {
    pub(crate) fn new(path: impl Into<String>, what: impl Into<String>) -> Self {
        Self { path: path.into(), value: None, what: what.into(), hint: None, line: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        match (&*self.path, &self.value) {
            ("", _) => {}
            (path, Some(value)) => write!(f, "{path} = {value}: ")?,
            (path, None) => write!(f, "{path}: ")?,
        }
        f.write_str(&self.what)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// Every problem of one configuration, in the order of the file; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file itself could not be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Unreadable {
        /// The file asked for.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file was read and is wrong.
    #[error(transparent)]
    Wrong(#[from] Problems),
}
