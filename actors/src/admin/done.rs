//! What a command did: one row for each thing that it concerned.

use super::table::{Column, Kind, Row};

/// One thing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DoneRow {
    /// What was changed: a bucket, a session, a key of the configuration.
    pub(crate) what: String,
    /// What happened to it.
    pub(crate) outcome: String,
}

impl DoneRow {
    pub(crate) fn new(what: impl ToString, outcome: impl Into<String>) -> Self {
        Self { what: what.to_string(), outcome: outcome.into() }
    }
}

impl Row for DoneRow {
    const COLUMNS: &'static [Column<Self>] = &[
        ("what", Kind::Text, |row| (&*row.what).into()),
        ("outcome", Kind::Text, |row| (&*row.outcome).into()),
    ];
}
