//! `show coordinator`: who shares out each bucket's limit, and what each proxy has of it.

use std::time::Duration;

use super::table::{Column, Kind, Row, millis_if};

/// One proxy's part of one bucket.
#[derive(Debug, Clone, Default)]
pub(crate) struct CoordinatorRow {
    /// `local`, `redis`.
    pub(crate) kind: &'static str,
    /// How it stands: of this proxy `ok` (local), or `joining`, `normal`, `reconciling`, `fallback`, `cut`; of others
    /// `lapsed` when they were not heard of, or `other`.
    pub(crate) state: String,
    /// The bucket.
    pub(crate) bucket: String,
    /// The proxy: its instance name and, behind a slash, which of its processes. Nothing where there is only one.
    pub(crate) instance: Option<String>,
    /// The bucket's limit in force, over all proxies.
    pub(crate) max_connections: usize,
    /// The proxy's part of it.
    pub(crate) quota: usize,
    /// What of it is in use.
    pub(crate) open: usize,
    /// How many connections it has work for.
    pub(crate) want: usize,
    /// Clients that wait there.
    pub(crate) waiting: usize,
    /// How often the bucket had to be reconciled.
    pub(crate) epoch: u64,
    /// How long the last answer took.
    pub(crate) round_trip: Option<Duration>,
}

impl Row for CoordinatorRow {
    const COLUMNS: &'static [Column<Self>] = &[
        ("kind", Kind::Text, |row| row.kind.into()),
        ("state", Kind::Text, |row| (&*row.state).into()),
        ("bucket", Kind::Text, |row| (&*row.bucket).into()),
        ("instance", Kind::Text, |row| row.instance.as_deref().into()),
        ("max_connections", Kind::Number, |row| row.max_connections.into()),
        ("quota", Kind::Number, |row| row.quota.into()),
        ("open", Kind::Number, |row| row.open.into()),
        ("want", Kind::Number, |row| row.want.into()),
        ("waiting", Kind::Number, |row| row.waiting.into()),
        ("epoch", Kind::Number, |row| row.epoch.into()),
        ("round_trip", Kind::DurationMs, |row| millis_if(row.round_trip)),
    ];
}
