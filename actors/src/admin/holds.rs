//! `show holds`: each session that keeps a server connection between requests, and why.

use super::table::{Column, Kind, Row, millis};
use std::time::Duration;

/// One hold.
#[derive(Debug, Clone, Default)]
pub(crate) struct HoldRow {
    /// The session that holds.
    pub(crate) session: u64,
    /// Its bucket.
    pub(crate) bucket: String,
    /// The server connection that it holds.
    pub(crate) server: Option<u64>,
    /// Its login name.
    pub(crate) user: String,
    /// The database it named at login.
    pub(crate) database: String,
    /// The name its program gave itself.
    pub(crate) application: String,
    /// Why, one word each.
    pub(crate) reasons: String,
    /// For how long.
    pub(crate) held_for: Duration,
    /// What the session does.
    pub(crate) state: &'static str,
}

impl Row for HoldRow {
    const COLUMNS: &'static [Column<Self>] = &[
        ("session", Kind::Number, |row| row.session.into()),
        ("bucket", Kind::Text, |row| (&*row.bucket).into()),
        ("server", Kind::Number, |row| row.server.into()),
        ("reasons", Kind::Text, |row| (&*row.reasons).into()),
        ("held_for", Kind::DurationMs, |row| millis(row.held_for)),
        ("state", Kind::Text, |row| row.state.into()),
        ("user", Kind::Text, |row| (&*row.user).into()),
        ("database", Kind::Text, |row| (&*row.database).into()),
        ("application", Kind::Text, |row| (&*row.application).into()),
    ];
}
