//! `show stats`: what each bucket did since the start of the proxy.

use super::table::{Column, Kind, Row};

/// One bucket's counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct StatsRow {
    /// Its name.
    pub(crate) bucket: String,
    /// Requests passed on.
    pub(crate) requests: u64,
    /// Requests that clients broke off.
    pub(crate) attentions: u64,
    /// Server connections lent.
    pub(crate) leases: u64,
    /// Idle connections closed for others.
    pub(crate) evictions: u64,
    /// Requests that took longer than `telemetry.slow`.
    pub(crate) slow: u64,
    /// Bytes relayed to the server.
    pub(crate) bytes_to_server: u64,
    /// Bytes relayed to clients.
    pub(crate) bytes_to_client: u64,
}

impl Row for StatsRow {
    const COLUMNS: &'static [Column<Self>] = &[
        ("bucket", Kind::Text, |row| (&*row.bucket).into()),
        ("requests", Kind::Number, |row| row.requests.into()),
        ("slow", Kind::Number, |row| row.slow.into()),
        ("attentions", Kind::Number, |row| row.attentions.into()),
        ("leases", Kind::Number, |row| row.leases.into()),
        ("evictions", Kind::Number, |row| row.evictions.into()),
        ("bytes_to_server", Kind::Bytes, |row| row.bytes_to_server.into()),
        ("bytes_to_client", Kind::Bytes, |row| row.bytes_to_client.into()),
    ];
}
