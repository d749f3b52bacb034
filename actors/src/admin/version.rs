//! `show version`: which program this is, and since when it runs.

use super::table::{Column, Kind, Row, millis};
use std::time::Duration;

/// The program.
#[derive(Debug, Clone, Default)]
pub(crate) struct VersionRow {
    /// Its version, as `0.1.0`.
    pub(crate) version: &'static str,
    /// How long it runs.
    pub(crate) uptime: Duration,
}

impl Row for VersionRow {
    const COLUMNS: &'static [Column<Self>] = &[
        ("program", Kind::Text, |_| "tdsbouncer".into()),
        ("version", Kind::Text, |row| row.version.into()),
        ("pid", Kind::Number, |_| std::process::id().into()),
        ("uptime", Kind::DurationMs, |row| millis(row.uptime)),
    ];
}
