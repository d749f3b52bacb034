//! One SQL Server instance: its databases, its sessions, its locks, its storage directory.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use rusqlite::Connection;

use super::applock::AppLocks;
use super::gate::Gate;
use super::message_text::SqlError;
use super::parse::{self, Stmt};
use super::session::Session;
use super::settings::find_language;
use super::storage::Spare;
use super::{Cancel, EngineError, EngineOptions, SessionOptions, catalog};

/// A stand-in SQL Server without its wire. Clones are the same server.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(super) shared: Arc<Shared>,
}

/// What all sessions share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: EngineOptions,
    pub(super) path: PathBuf,
    directory: PathBuf,
    pub(super) databases: Mutex<Vec<String>>,
    pub(super) gate: Gate,
    pub(super) app_locks: AppLocks,
    pub(super) next_object: AtomicI64,
    next_transaction: AtomicU64,
    pub(super) row_version: AtomicU64,
    /// Last identity value by object id.
    pub(super) identities: Mutex<HashMap<i64, i64>>,
    pub(super) sessions: Mutex<HashMap<u16, Listed>>,
    pub(super) started: SystemTime,
    /// Batches that were read before, by their text: programs repeat themselves.
    parsed: Mutex<HashMap<String, Arc<[Stmt]>>>,
    /// Connections that ended sessions left.
    pub(super) spare: Mutex<Vec<Spare>>,
    /// Keeps the files alive while no session is open.
    _keeper: Mutex<Connection>,
}

/// What other sessions may know of a session.
#[derive(Clone)]
pub(super) struct Listed {
    pub(super) options: SessionOptions,
    pub(super) login_time: SystemTime,
    pub(super) database: String,
    pub(super) isolation: u8,
    pub(super) settings: super::settings::Settings,
    pub(super) row_count: i64,
    pub(super) open_transactions: u32,
    pub(super) running: bool,
    pub(super) last_request: SystemTime,
    pub(super) cancel: Cancel,
    pub(super) killed: bool,
}

impl std::fmt::Debug for Listed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listed")
            .field("login", &self.options.login_name)
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

/// Batches remembered, and how long they may be in bytes.
const MAX_PARSED: usize = 1000;
const MAX_PARSED_TEXT: usize = 4096;

/// Waits no longer than this inside SQLite itself; our own gate keeps writers apart.
const SQLITE_BUSY: std::time::Duration = std::time::Duration::from_secs(5);

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine {
    /// Makes an instance with its system databases and those of the options.
    ///
    /// # Errors
    /// If the data directory or the database in it cannot be made.
    pub fn new(options: EngineOptions) -> Result<Engine, EngineError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let parent = options.data_dir.clone().unwrap_or_else(std::env::temp_dir);
        let directory = parent.join(format!(
            "tdsbouncer-sim-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        std::fs::create_dir_all(&directory)?;
        let path = directory.join("data.db");
        let sqlite = |error: rusqlite::Error| EngineError::Sqlite(error.to_string());
        let keeper = Connection::open(&path).map_err(sqlite)?;
        keeper.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;").map_err(sqlite)?;
        catalog::create_shared(&keeper).map_err(sqlite)?;
        let mut databases: Vec<String> = ["master", "tempdb", "model", "msdb"].map(str::to_string).to_vec();
        for name in &options.databases {
            if !databases.iter().any(|d| d.eq_ignore_ascii_case(name)) {
                databases.push(name.clone());
            }
        }
        Ok(Engine {
            shared: Arc::new(Shared {
                options,
                path,
                directory,
                databases: Mutex::new(databases),
                gate: Gate::default(),
                app_locks: AppLocks::default(),
                next_object: AtomicI64::new(1_000_000),
                next_transaction: AtomicU64::new(0x35_0000_0001),
                row_version: AtomicU64::new(2000),
                identities: Mutex::default(),
                sessions: Mutex::default(),
                started: SystemTime::now(),
                parsed: Mutex::default(),
                spare: Mutex::default(),
                _keeper: Mutex::new(keeper),
            }),
        })
    }

    /// Makes a database; one that exists is left as it is.
    ///
    /// # Errors
    /// None today; storage that fails would be reported here.
    pub fn create_database(&self, name: &str) -> Result<(), EngineError> {
        if self.database(name).is_none() {
            lock(&self.shared.databases).push(name.to_string());
        }
        Ok(())
    }

    /// The database's name as it was created, if there is such a database.
    pub fn database(&self, name: &str) -> Option<String> {
        self.shared.database(name)
    }

    /// `@@SERVERNAME`.
    pub fn server_name(&self) -> &str {
        &self.shared.options.server_name
    }

    /// How many sessions are open.
    pub fn session_count(&self) -> usize {
        lock(&self.shared.sessions).len()
    }

    /// Opens a session. Its database must exist; otherwise it starts in master.
    pub fn open_session(&self, options: SessionOptions) -> Session {
        let mut options = options;
        options.database = self.database(&options.database).unwrap_or_else(|| "master".into());
        options.language = find_language(&options.language).map_or("us_english", |l| l.0).to_string();
        Session::open(Arc::clone(&self.shared), options)
    }
}

impl Shared {
    pub(super) fn database(&self, name: &str) -> Option<String> {
        lock(&self.databases).iter().find(|d| d.eq_ignore_ascii_case(name)).cloned()
    }

    /// The statements of a batch, or the first mistake in it.
    pub(super) fn parse(&self, text: &str) -> Result<Arc<[Stmt]>, SqlError> {
        if let Some(known) = lock(&self.parsed).get(text) {
            return Ok(Arc::clone(known));
        }
        let statements: Arc<[Stmt]> = parse::batch(text)?.into();
        if text.len() <= MAX_PARSED_TEXT {
            let mut parsed = lock(&self.parsed);
            if parsed.len() >= MAX_PARSED {
                parsed.clear();
            }
            parsed.insert(text.to_string(), Arc::clone(&statements));
        }
        Ok(statements)
    }

    pub(super) fn new_transaction(&self) -> u64 {
        self.next_transaction.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn new_object(&self) -> i64 {
        self.next_object.fetch_add(16, Ordering::Relaxed)
    }

    /// The lowest SPID from 51 that nobody has, taken for `listed`.
    pub(super) fn enlist(&self, listed: Listed) -> u16 {
        let mut sessions = lock(&self.sessions);
        let spid = (51..u16::MAX).find(|spid| !sessions.contains_key(spid)).unwrap_or(u16::MAX);
        sessions.insert(spid, listed);
        spid
    }

    /// A connection to the data, with the session's own temporary schema.
    pub(super) fn connect(&self) -> rusqlite::Result<Connection> {
        let connection = Connection::open(&self.path)?;
        connection.busy_timeout(SQLITE_BUSY)?;
        connection.set_prepared_statement_cache_capacity(32);
        connection.execute_batch("PRAGMA synchronous = OFF; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -512; PRAGMA case_sensitive_like = OFF;")?;
        catalog::create_temporary(&connection)?;
        Ok(connection)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Unlinking under an open file is fine here: the keeper closes right after.
        let _gone = std::fs::remove_dir_all(&self.directory);
    }
}
