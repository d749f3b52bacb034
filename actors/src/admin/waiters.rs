//! `show waiters`: each client that waits for a server connection, in its order.

use super::table::{Column, Kind, Row, millis, millis_if};
use std::time::Duration;

/// One waiter.
#[derive(Debug, Clone, Default)]
pub(crate) struct WaiterRow {
    /// Its bucket.
    pub(crate) bucket: String,
    /// Its place in the bucket's queue, from 1.
    pub(crate) place: usize,
    /// Its login name.
    pub(crate) user: String,
    /// The database it named at login.
    pub(crate) database: String,
    /// The name its program gave itself.
    pub(crate) application: String,
    /// `connection`, `login` (its password is to be checked) or `own connection`.
    pub(crate) wants: &'static str,
    /// How long it waits.
    pub(crate) waiting_for: Duration,
    /// How long it will go on waiting; nothing while the bucket is paused.
    pub(crate) time_left: Option<Duration>,
}

impl Row for WaiterRow {
    const COLUMNS: &'static [Column<Self>] = &[
        ("bucket", Kind::Text, |row| (&*row.bucket).into()),
        ("place", Kind::Number, |row| row.place.into()),
        ("user", Kind::Text, |row| (&*row.user).into()),
        ("database", Kind::Text, |row| (&*row.database).into()),
        ("application", Kind::Text, |row| (&*row.application).into()),
        ("wants", Kind::Text, |row| row.wants.into()),
        ("waiting_for", Kind::DurationMs, |row| millis(row.waiting_for)),
        ("time_left", Kind::DurationMs, |row| millis_if(row.time_left)),
    ];
}
