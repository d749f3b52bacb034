//! `show crashes`: the last crashes of actors; each is a bug.

use super::table::{Column, Kind, Row, millis};
use std::time::Duration;

/// One crash.
#[derive(Debug, Clone, Default)]
pub(crate) struct CrashRow {
    /// How long ago.
    pub(crate) ago: Duration,
    /// What kind of actor.
    pub(crate) actor: &'static str,
    /// Which: a session, a bucket.
    pub(crate) who: String,
    /// The panic's place, with its text where that cannot hold a client's values.
    pub(crate) why: String,
}

impl Row for CrashRow {
    const COLUMNS: &'static [Column<Self>] = &[
        ("ago", Kind::DurationMs, |row| millis(row.ago)),
        ("actor", Kind::Text, |row| row.actor.into()),
        ("who", Kind::Text, |row| (&*row.who).into()),
        ("why", Kind::Text, |row| (&*row.why).into()),
    ];
}
