//! `show servers`: each server connection, lent or not.

use super::table::{Column, Kind, Row, millis, millis_if};
use std::time::Duration;

/// One server connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServerRow {
    /// Its number since the start of the proxy.
    pub(crate) id: u64,
    /// Its bucket.
    pub(crate) bucket: String,
    /// `idle`, `leased`, `opening`, `resetting`, `closing`.
    pub(crate) state: &'static str,
    /// The login name that opened it.
    pub(crate) user: String,
    /// The database named at its login.
    pub(crate) database: String,
    /// The program's name given at its login.
    pub(crate) application: String,
    /// The version of TDS spoken on it, as `7.4`.
    pub(crate) tds: String,
    /// How long it is open.
    pub(crate) age: Duration,
    /// How long nobody used it, if it is idle.
    pub(crate) idle_for: Option<Duration>,
    /// How often it was lent.
    pub(crate) uses: u64,
    /// The session it is lent to.
    pub(crate) session: Option<u64>,
    /// The server's number for it.
    pub(crate) spid: Option<u16>,
    /// `off`, `on`, `strict`.
    pub(crate) encryption: &'static str,
}

impl Row for ServerRow {
    const COLUMNS: &'static [Column<Self>] = &[
        ("server", Kind::Number, |row| row.id.into()),
        ("bucket", Kind::Text, |row| (&*row.bucket).into()),
        ("state", Kind::Text, |row| row.state.into()),
        ("user", Kind::Text, |row| (&*row.user).into()),
        ("database", Kind::Text, |row| (&*row.database).into()),
        ("application", Kind::Text, |row| (&*row.application).into()),
        ("tds", Kind::Text, |row| (&*row.tds).into()),
        ("encryption", Kind::Text, |row| row.encryption.into()),
        ("age", Kind::DurationMs, |row| millis(row.age)),
        ("idle_for", Kind::DurationMs, |row| millis_if(row.idle_for)),
        ("uses", Kind::Number, |row| row.uses.into()),
        ("session", Kind::Number, |row| row.session.into()),
        ("spid", Kind::Number, |row| row.spid.into()),
    ];
}
