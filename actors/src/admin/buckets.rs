//! `show buckets`: each SQL Server with its limit, its connections and who waits for them.

use super::table::{Column, Kind, Row};

/// One bucket.
#[derive(Debug, Clone, Default)]
pub(crate) struct BucketRow {
    /// Its name in the configuration.
    pub(crate) name: String,
    /// Where its server is: host and port.
    pub(crate) host: String,
    /// `session` or `transaction`.
    pub(crate) mode: &'static str,
    /// `ok`, `unreachable`, `resting`, `draining`, ...
    pub(crate) state: &'static str,
    /// Its limit, over all proxies.
    pub(crate) max_connections: usize,
    /// This proxy's part of it.
    pub(crate) quota: usize,
    /// Connections that occupy a slot, in whatever state.
    pub(crate) open: usize,
    /// Those that wait to be lent.
    pub(crate) idle: usize,
    /// Those that are lent.
    pub(crate) leased: usize,
    /// Those that are being reset.
    pub(crate) resetting: usize,
    /// Those that are being opened.
    pub(crate) opening: usize,
    /// Those that are being closed.
    pub(crate) closing: usize,
    /// Clients that wait for one.
    pub(crate) waiting: usize,
    /// Clients that are logged in.
    pub(crate) clients: usize,
    /// Logins that can be answered from memory.
    pub(crate) verified_logins: usize,
    /// Why the last attempt to connect failed, unless one succeeded since.
    pub(crate) last_error: Option<String>,
}

impl Row for BucketRow {
    const COLUMNS: &'static [Column<Self>] = &[
        ("bucket", Kind::Text, |row| (&*row.name).into()),
        ("host", Kind::Text, |row| (&*row.host).into()),
        ("mode", Kind::Text, |row| row.mode.into()),
        ("state", Kind::Text, |row| row.state.into()),
        ("max_connections", Kind::Number, |row| row.max_connections.into()),
        ("quota", Kind::Number, |row| row.quota.into()),
        ("open", Kind::Number, |row| row.open.into()),
        ("idle", Kind::Number, |row| row.idle.into()),
        ("leased", Kind::Number, |row| row.leased.into()),
        ("resetting", Kind::Number, |row| row.resetting.into()),
        ("opening", Kind::Number, |row| row.opening.into()),
        ("closing", Kind::Number, |row| row.closing.into()),
        ("waiting", Kind::Number, |row| row.waiting.into()),
        ("clients", Kind::Number, |row| row.clients.into()),
        ("verified_logins", Kind::Number, |row| row.verified_logins.into()),
        ("last_error", Kind::Text, |row| row.last_error.as_deref().into()),
    ];
}
