//! `show sessions`: each client with what its session does.

use super::table::{Column, Kind, Row, address, millis, millis_if};
use std::net::SocketAddr;
use std::time::Duration;

/// One client.
#[derive(Debug, Clone, Default)]
pub(crate) struct SessionRow {
    /// Its number since the start of the proxy.
    pub(crate) id: u64,
    /// Its bucket, once it is known.
    pub(crate) bucket: Option<String>,
    /// What it does.
    pub(crate) state: &'static str,
    /// Its login name, once it is known.
    pub(crate) user: Option<String>,
    /// The database it named at login.
    pub(crate) database: Option<String>,
    /// The name its program gave itself.
    pub(crate) application: Option<String>,
    /// Where it comes from.
    pub(crate) address: Option<SocketAddr>,
    /// The version of TDS it speaks, as `7.4`.
    pub(crate) tds: Option<String>,
    /// `off`, `login`, `on`, `strict`.
    pub(crate) encryption: &'static str,
    /// How long it is connected.
    pub(crate) connected_for: Duration,
    /// How long it is in this state.
    pub(crate) state_for: Duration,
    /// For how long its request is under way, if one is.
    pub(crate) request_for: Option<Duration>,
    /// How long it waits for a server connection, if it does.
    pub(crate) waiting_for: Option<Duration>,
    /// The server connection lent to it.
    pub(crate) server: Option<u64>,
    /// How often its session crashed and was restarted.
    pub(crate) crashes: u32,
    /// Bytes received from it.
    pub(crate) bytes_in: u64,
    /// Bytes sent to it.
    pub(crate) bytes_out: u64,
}

impl Row for SessionRow {
    const COLUMNS: &'static [Column<Self>] = &[
        ("session", Kind::Number, |row| row.id.into()),
        ("bucket", Kind::Text, |row| row.bucket.as_deref().into()),
        ("state", Kind::Text, |row| row.state.into()),
        ("user", Kind::Text, |row| row.user.as_deref().into()),
        ("database", Kind::Text, |row| row.database.as_deref().into()),
        ("application", Kind::Text, |row| row.application.as_deref().into()),
        ("address", Kind::Text, |row| address(row.address)),
        ("tds", Kind::Text, |row| row.tds.as_deref().into()),
        ("encryption", Kind::Text, |row| row.encryption.into()),
        ("connected_for", Kind::DurationMs, |row| millis(row.connected_for)),
        ("state_for", Kind::DurationMs, |row| millis(row.state_for)),
        ("request_for", Kind::DurationMs, |row| millis_if(row.request_for)),
        ("waiting_for", Kind::DurationMs, |row| millis_if(row.waiting_for)),
        ("server", Kind::Number, |row| row.server.into()),
        ("crashes", Kind::Number, |row| row.crashes.into()),
        ("bytes_in", Kind::Bytes, |row| row.bytes_in.into()),
        ("bytes_out", Kind::Bytes, |row| row.bytes_out.into()),
    ];
}
