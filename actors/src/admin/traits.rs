//! `show traits`: what was found out about each bucket's server, and the pool mode that follows.

use super::table::{Column, Kind, Row, millis_if};
use std::time::Duration;

/// One bucket's server.
#[derive(Debug, Clone, Default)]
pub(crate) struct TraitsRow {
    /// The bucket.
    pub(crate) bucket: String,
    /// Its `pool_mode`.
    pub(crate) wanted: &'static str,
    /// The mode that is in force with this server.
    pub(crate) mode: &'static str,
    /// Why that is not the one that is wanted.
    pub(crate) reason: Option<String>,
    /// `measured`, `assumed`, or `not yet`.
    pub(crate) origin: &'static str,
    /// How long ago it was measured.
    pub(crate) age: Option<Duration>,
    /// The server's version.
    pub(crate) version: Option<String>,
    /// The version of TDS that the measured login spoke.
    pub(crate) tds: Option<String>,
    /// Which transactions are signalled.
    pub(crate) signals: String,
    /// `acknowledged` or `not acknowledged`.
    pub(crate) reset: &'static str,
    /// What a reset leaves behind, as far as it is known.
    pub(crate) leaves: String,
    /// `yes`, `not behind a reset` or `no`.
    pub(crate) pipelines: &'static str,
    /// What became of SESSIONRECOVERY.
    pub(crate) session_state: &'static str,
    /// What is not as with SQL Server, and why that is believed.
    pub(crate) notes: String,
}

impl Row for TraitsRow {
    const COLUMNS: &'static [Column<Self>] = &[
        ("bucket", Kind::Text, |row| (&*row.bucket).into()),
        ("pool_mode", Kind::Text, |row| row.wanted.into()),
        ("mode", Kind::Text, |row| row.mode.into()),
        ("reason", Kind::Text, |row| row.reason.as_deref().into()),
        ("origin", Kind::Text, |row| row.origin.into()),
        ("age", Kind::DurationMs, |row| millis_if(row.age)),
        ("version", Kind::Text, |row| row.version.as_deref().into()),
        ("tds", Kind::Text, |row| row.tds.as_deref().into()),
        ("signals", Kind::Text, |row| (&*row.signals).into()),
        ("reset", Kind::Text, |row| row.reset.into()),
        ("reset_leaves", Kind::Text, |row| (&*row.leaves).into()),
        ("pipelines", Kind::Text, |row| row.pipelines.into()),
        ("session_state", Kind::Text, |row| row.session_state.into()),
        ("notes", Kind::Text, |row| (&*row.notes).into()),
    ];
}
