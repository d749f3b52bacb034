//! `show pools`: each sub-pool, the server connections that are interchangeable for a client.

use super::table::{Column, Kind, Row};

/// One sub-pool.
#[derive(Debug, Clone, Default)]
pub(crate) struct PoolRow {
    /// Its bucket.
    pub(crate) bucket: String,
    /// The login name of its connections.
    pub(crate) user: String,
    /// The database named at their login.
    pub(crate) database: String,
    /// The version of TDS spoken on them.
    pub(crate) tds: String,
    /// Connections that wait to be lent.
    pub(crate) idle: usize,
    /// Those that are lent.
    pub(crate) leased: usize,
    /// Those that are being opened.
    pub(crate) opening: usize,
    /// Those that are being reset.
    pub(crate) resetting: usize,
    /// Clients that wait for one.
    pub(crate) waiting: usize,
}

impl Row for PoolRow {
    const COLUMNS: &'static [Column<Self>] = &[
        ("bucket", Kind::Text, |row| (&*row.bucket).into()),
        ("user", Kind::Text, |row| (&*row.user).into()),
        ("database", Kind::Text, |row| (&*row.database).into()),
        ("tds", Kind::Text, |row| (&*row.tds).into()),
        ("idle", Kind::Number, |row| row.idle.into()),
        ("leased", Kind::Number, |row| row.leased.into()),
        ("opening", Kind::Number, |row| row.opening.into()),
        ("resetting", Kind::Number, |row| row.resetting.into()),
        ("waiting", Kind::Number, |row| row.waiting.into()),
    ];
}
