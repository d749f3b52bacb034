//! `show coordinator`: who shares out each bucket's limit, and what this proxy has of it.

use super::table::{Column, Kind, Row};

/// One bucket's share.
#[derive(Debug, Clone, Default)]
pub(crate) struct CoordinatorRow {
    /// `local`, `redis`.
    pub(crate) kind: &'static str,
    /// How the coordinator is.
    pub(crate) state: String,
    /// The bucket.
    pub(crate) bucket: String,
    /// Its limit, over all proxies.
    pub(crate) max_connections: usize,
    /// This proxy's part of it.
    pub(crate) quota: usize,
    /// What of it is in use.
    pub(crate) open: usize,
}

impl Row for CoordinatorRow {
    const COLUMNS: &'static [Column<Self>] = &[
        ("kind", Kind::Text, |row| row.kind.into()),
        ("state", Kind::Text, |row| (&*row.state).into()),
        ("bucket", Kind::Text, |row| (&*row.bucket).into()),
        ("max_connections", Kind::Number, |row| row.max_connections.into()),
        ("quota", Kind::Number, |row| row.quota.into()),
        ("open", Kind::Number, |row| row.open.into()),
    ];
}
