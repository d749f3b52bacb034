//! `show tenants`: clients by tenant, which is the database that they name at login: who uses how much.

use super::table::{Column, Kind, Row, millis};
use std::time::Duration;

/// One tenant at one bucket.
#[derive(Debug, Clone, Default)]
pub(crate) struct TenantRow {
    /// Its name.
    pub(crate) tenant: String,
    /// The bucket.
    pub(crate) bucket: String,
    /// Its clients.
    pub(crate) clients: usize,
    /// Those with a request under way at the server.
    pub(crate) running: usize,
    /// Those that wait for a server connection.
    pub(crate) waiting: usize,
    /// Server connections that it uses.
    pub(crate) servers: usize,
    /// The longest present wait among them.
    pub(crate) longest_wait: Duration,
    /// Bytes received from clients that are connected now.
    pub(crate) bytes_in: u64,
    /// Bytes sent to them.
    pub(crate) bytes_out: u64,
}

impl Row for TenantRow {
    const COLUMNS: &'static [Column<Self>] = &[
        ("tenant", Kind::Text, |row| (&*row.tenant).into()),
        ("bucket", Kind::Text, |row| (&*row.bucket).into()),
        ("clients", Kind::Number, |row| row.clients.into()),
        ("running", Kind::Number, |row| row.running.into()),
        ("waiting", Kind::Number, |row| row.waiting.into()),
        ("servers", Kind::Number, |row| row.servers.into()),
        ("longest_wait", Kind::DurationMs, |row| millis(row.longest_wait)),
        ("bytes_in", Kind::Bytes, |row| row.bytes_in.into()),
        ("bytes_out", Kind::Bytes, |row| row.bytes_out.into()),
    ];
}
