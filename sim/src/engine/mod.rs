//! The T-SQL engine of the stand-in: what SQL Server would do and answer, without the wire.
//!
//! One [`Engine`] is one SQL Server instance: databases, tables, procedures, locks, and the list of sessions. One
//! [`Session`] is one logged-in connection's state. Both are synchronous: every call blocks until the batch has ended,
//! a lock was waited for, or the [`Output`] has taken the row, so the caller runs them on a thread that may block.
//!
//! The wire half owns sockets, framing, logins' passwords, attention and the reset bit; the engine owns everything that
//! T-SQL can see. What crosses the boundary are the types of the `tds` crate.
//!
//! ```text
//!   wire                                engine
//!   LOGIN7 accepted   ── open_session ─▶ Session (database, language, options of the login)
//!   SQLBatch          ── batch ────────▶ columns / row* / done… into Output
//!   RPC               ── call ─────────▶ …, return_status, return_value, done_proc
//!   TM request        ── begin / commit / rollback / save
//!   reset bit         ── reset ────────▶ ResetReport: what to acknowledge
//!   attention         ── Cancel::cancel (from another thread) ─▶ Outcome::Cancelled
//!   socket closed     ── drop(Session)  rolls back, releases locks, drops #tables
//! ```

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tds::col_metadata::Column;
use tds::done::Done;
use tds::env_change::EnvChange;
use tds::server_message::ServerMessage;
use tds::type_info::TypeInfo;
use tds::value::Value;

mod applock;
mod bind;
mod bulk;
mod call;
mod cancel;
mod catalog;
mod convert;
mod cursor;
mod datetime;
mod datum;
mod ddl;
mod decimal;
mod dml;
mod emit;
mod functions;
mod gate;
mod globals;
mod leftover;
mod message_text;
mod metadata;
mod parse;
mod prepared;
mod procedures;
mod run;
mod server;
mod session;
mod settings;
mod storage;
mod system_views;
mod transaction;
mod types;
mod wire_types;

#[cfg(test)]
mod tests;

pub use cancel::{Cancel, Watch};
pub use leftover::Leftover;
pub use server::Engine;
pub use session::Session;

/// How an [`Engine`] presents itself and where it keeps its data.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// `@@SERVERNAME` and the server name in messages.
    pub server_name: String,
    /// Databases that exist beside master, tempdb, model and msdb.
    pub databases: Vec<String>,
    /// Where the temporary data directory is made; the system's temporary directory if `None`. It is removed with the
    /// engine.
    pub data_dir: Option<PathBuf>,
    /// The longest a statement waits for another session's write lock when `LOCK_TIMEOUT` is -1; then error 1205.
    pub lock_wait: Duration,
    /// Where `sys.dm_exec_connections` comes from; without it one row is made up per session.
    pub connections: Option<Arc<dyn Connections>>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions {
            server_name: "SIM".into(),
            databases: Vec::new(),
            data_dir: None,
            lock_wait: Duration::from_secs(30),
            connections: None,
        }
    }
}

/// The wire half's list of open connections, for `sys.dm_exec_connections`.
pub trait Connections: Send + Sync + std::fmt::Debug {
    /// Every open connection, also those still logging in (`session_id` is `None` then).
    fn list(&self) -> Vec<ConnectionRow>;
}

/// One row of `sys.dm_exec_connections`.
#[derive(Debug, Clone)]
pub struct ConnectionRow {
    /// The session's SPID, `None` before the login is done.
    pub session_id: Option<u16>,
    /// When the socket was accepted.
    pub connect_time: SystemTime,
    /// `TCP`, or `Shared memory` for in-process tests.
    pub net_transport: String,
    /// The TDS version as the four bytes of LOGINACK read as a number (0x74000004 for TDS 7.4).
    pub protocol_version: u32,
    /// Whether the whole connection is encrypted (`encrypt_option`).
    pub encrypted: bool,
    /// The peer's IP address.
    pub client_net_address: String,
    /// The peer's TCP port.
    pub client_tcp_port: u16,
}

/// What a login says about its session ([MS-TDS] 2.2.6.4).
#[derive(Clone)]
pub struct SessionOptions {
    /// The login's name (`SUSER_SNAME()`, `ORIGINAL_LOGIN()`).
    pub login_name: String,
    /// Whether the login is a member of sysadmin; its user in every database is then `dbo`.
    pub sysadmin: bool,
    /// LOGIN7 HostName.
    pub host_name: String,
    /// LOGIN7 AppName.
    pub program_name: String,
    /// LOGIN7 CltIntName.
    pub client_interface_name: String,
    /// LOGIN7 ClientPID.
    pub host_process_id: u32,
    /// The database to start in; empty for master. It must exist (see [`Engine::database`]).
    pub database: String,
    /// LOGIN7 Language; empty for us_english. An unknown one falls back to us_english.
    pub language: String,
    /// LOGIN7 fODBC / OLE DB: ANSI options are on as for ODBC (QUOTED_IDENTIFIER, ANSI_NULLS and so on). Without it they
    /// are off as for DB-Library.
    pub ansi_defaults: bool,
    /// TDS 7.1 and older: no transaction ENVCHANGEs are produced.
    pub transaction_env_changes: bool,
    /// The peer's address for `sys.dm_exec_connections`.
    pub client_net_address: String,
    /// Called once, from the killer's thread, when somebody runs `KILL` on this session; must not block. The session's
    /// running request is cancelled by the engine.
    pub on_kill: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Default for SessionOptions {
    fn default() -> Self {
        SessionOptions {
            login_name: "sa".into(),
            sysadmin: true,
            host_name: String::new(),
            program_name: String::new(),
            client_interface_name: String::new(),
            host_process_id: 0,
            database: String::new(),
            language: String::new(),
            ansi_defaults: true,
            transaction_env_changes: true,
            client_net_address: "127.0.0.1".into(),
            on_kill: None,
        }
    }
}

/// How a request ended. Only [`Outcome::Finished`] has written its final DONE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was said, the final DONE or DONEPROC included.
    Finished,
    /// [`Cancel`] was seen (also between rows); no final DONE was written: the wire half acknowledges the attention. The
    /// transaction stays as it is unless XACT_ABORT is on (then the engine has rolled back and said so).
    Cancelled,
    /// The [`Output`] answered `Break`: nobody is listening any more.
    Stopped,
    /// `KILL` hit this session: close the connection. The transaction has been rolled back.
    Killed,
    /// An error of class 20 or more was written (with its final DONE): close the connection.
    Fatal,
}

/// Where results go, in wire order. Calls may block (backpressure); `Break` from any of them ends the request with
/// [`Outcome::Stopped`].
///
/// The engine writes every DONE, DONEINPROC and DONEPROC with its right bits; the wire half adds only what an attention
/// or a reset needs, and may turn `DONEINPROC` details as its TDS version asks.
pub trait Output {
    /// COLMETADATA. A new result set begins; rows until the next `done` belong to it.
    fn columns(&mut self, columns: &[Column]) -> ControlFlow<()>;
    /// ROW (or NBCROW): one value per column of the last `columns`, each fitting that column's type.
    fn row(&mut self, values: &[Value]) -> ControlFlow<()>;
    /// ORDER: the ordinals (from 1) of the columns the result is ordered by. Sent after `columns`.
    fn order(&mut self, ordinals: &[u16]) -> ControlFlow<()>;
    /// TABNAME and COLINFO of a result with browse information (server cursors). The default drops it.
    fn browse_info(&mut self, _tables: &[String], _columns: &[BrowseColumn]) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
    /// DONE, DONEPROC or DONEINPROC, by its kind. Where MORE is not set this is the end of the request.
    fn done(&mut self, done: Done) -> ControlFlow<()>;
    /// ERROR or INFO. Server and procedure name, line number are filled in.
    fn message(&mut self, message: &ServerMessage) -> ControlFlow<()>;
    /// ENVCHANGE: database, language, collation, transaction begin, commit, rollback.
    fn env_change(&mut self, change: &EnvChange) -> ControlFlow<()>;
    /// RETURNSTATUS of the procedure that was called.
    fn return_status(&mut self, status: i32) -> ControlFlow<()>;
    /// RETURNVALUE: an output parameter. `ordinal` counts the request's parameters from 0.
    fn return_value(
        &mut self,
        ordinal: u16,
        name: &str,
        type_info: &TypeInfo,
        value: &Value,
    ) -> ControlFlow<()>;
    /// The session state changed during this request; called right before the final DONE. The wire half writes
    /// SESSIONSTATE if it was negotiated.
    fn session_state(&mut self, change: &SessionStateChange) -> ControlFlow<()>;
}

/// One column of COLINFO ([MS-TDS] 2.2.7.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrowseColumn {
    /// Ordinal of the column in the result, from 1.
    pub column: u8,
    /// Ordinal of its table in TABNAME, from 1; 0 for an expression.
    pub table: u8,
    /// Status bits: expression 4, key 8, hidden 0x10, different name 0x20.
    pub status: u8,
    /// The base column's name if it differs.
    pub base_name: Option<String>,
}

/// What SESSIONSTATE says ([MS-TDS] 2.2.7.21).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionStateChange {
    /// fRecoverable: no temp table, cursor, transaction, application lock, security context or other state that only
    /// this connection has.
    pub recoverable: bool,
    /// The changed states: id and opaque value. Ids are listed in [`Session::state_summary`].
    pub states: Vec<(u8, Vec<u8>)>,
}

/// What a reset did, for the wire half to say: first the rollback (if any), then ENVCHANGE 18.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResetReport {
    /// The descriptor of the transaction that was rolled back: ENVCHANGE 10 with it as the old value.
    pub rolled_back: Option<u64>,
    /// The session's database and language again, as at login. SQL Server sends no ENVCHANGE for them.
    pub database: String,
    /// The language as at login.
    pub language: String,
}

/// The procedure an RPC names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Procedure {
    /// By well-known number: 1-9 cursors, 10 sp_executesql … 15 sp_unprepare ([MS-TDS] 2.2.6.6).
    Id(u16),
    /// By name, with or without database and schema, brackets or quotes.
    Name(String),
}

/// One parameter of an RPC.
#[derive(Debug, Clone)]
pub struct Param {
    /// With its `@`; empty for a parameter by position.
    pub name: String,
    /// fByRefValue: an output parameter.
    pub by_ref: bool,
    /// fDefaultValue: use the procedure's default.
    pub default: bool,
    /// The type it was sent with.
    pub type_info: TypeInfo,
    /// The value it was sent with.
    pub value: Value,
}

/// Where an `INSERT BULK` wants its rows: what the BulkLoad message's COLMETADATA must match.
#[derive(Debug, Clone)]
pub struct BulkTarget {
    /// Database, schema, table.
    pub table: [String; 3],
    /// The statement's columns, in its order.
    pub columns: Vec<Column>,
}

/// Isolation levels of a TM begin request ([MS-TDS] 2.2.6.9); 0 keeps the session's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IsolationLevel(pub u8);

/// Why an engine could not be made.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The data directory cannot be made.
    #[error("the stand-in's data directory cannot be made: {0}")]
    DataDir(#[from] std::io::Error),
    /// SQLite refuses.
    #[error("sqlite: {0}")]
    Sqlite(String),
}
