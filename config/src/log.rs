//! What is logged and how.

use crate::mirror;

pub use crate::mirror::LogFormat;

/// The log, on standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Text for people, JSON for machines.
    pub format: LogFormat,
    /// Levels by target, as `info,tdsbouncer_actors=debug`.
    pub filter: String,
}

impl Default for Log {
    fn default() -> Self {
        Self::from(&mirror::Log::default())
    }
}

impl From<&mirror::Log> for Log {
    fn from(from: &mirror::Log) -> Self {
        Self { format: from.format, filter: from.filter.clone() }
    }
}
