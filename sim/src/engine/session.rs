//! One logged-in connection: everything that T-SQL can see and change about it.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use rusqlite::ErrorCode;
use rusqlite::types::Value as Lite;

use super::catalog::{self, Object, ObjectType, Snapshot};
use super::cursor::Cursor;
use super::datum::Datum;
use super::emit::{Emit, Stop};
use super::functions;
use super::message_text::{SqlError, deadlock, no_database};
use super::parse::Name;
use super::prepared::Prepared;
use super::server::{Listed, Shared, lock};
use super::settings::Settings;
use super::storage::Storage;
use super::transaction::Transaction;
use super::types::SqlType;
use super::{BulkTarget, Cancel, Leftover, Outcome, Output, ResetReport, SessionOptions, SessionStateChange};

/// A session. It is used by one thread at a time; [`Cancel`] reaches it from others.
pub struct Session {
    pub(super) engine: Arc<Shared>,
    pub(super) spid: u16,
    pub(super) connection: Storage,
    pub(super) functions: Arc<functions::Context>,
    pub(super) options: SessionOptions,
    pub(super) settings: Settings,
    pub(super) database: String,
    pub(super) isolation: u8,
    pub(super) frames: Vec<Frame>,
    pub(super) transaction: Transaction,
    /// `@@IDENTITY`.
    pub(super) last_identity: Option<i64>,
    pub(super) row_count: i64,
    pub(super) error: i32,
    pub(super) context_info: Vec<u8>,
    pub(super) session_context: HashMap<String, (SqlType, Datum, bool)>,
    /// EXECUTE AS: names from the outside in.
    pub(super) security: Vec<String>,
    pub(super) app_role: Option<(String, i64)>,
    pub(super) identity_insert: Option<i64>,
    /// sp_xml_preparedocument: the handles.
    pub(super) xml_documents: BTreeSet<i64>,
    pub(super) next_document: i64,
    pub(super) prepared: HashMap<i64, Prepared>,
    pub(super) next_handle: i64,
    pub(super) cursors: HashMap<String, Cursor>,
    pub(super) fetch_status: i64,
    pub(super) cursor_rows: i64,
    /// Errors that CATCH blocks are handling, the innermost last.
    pub(super) caught: Vec<SqlError>,
    pub(super) try_depth: u32,
    pub(super) bulk: Option<BulkTarget>,
    pub(super) cancel: Cancel,
    pub(super) running_cancel: Arc<Mutex<Cancel>>,
    /// As after the login, and as the client believes it to be after a reset ([MS-TDS] 2.2.6.4).
    initial_state: SessionStateChange,
    /// What the client was told last.
    told_state: SessionStateChange,
    /// States that it was told of as not recoverable.
    told_unrecoverable: BTreeSet<u8>,
    pub(super) line: u32,
    pub(super) next_frame: u64,
    /// Objects of other sessions' kind: ##tables that this session made.
    pub(super) global_temps: Vec<Name>,
}

/// What one batch or procedure has to itself.
#[derive(Debug, Default)]
pub(super) struct Frame {
    pub(super) id: u64,
    pub(super) variables: HashMap<String, Variable>,
    pub(super) scope_identity: Option<i64>,
    /// A procedure's, or that of a text which is called like one: its temporary tables end with it.
    pub(super) is_called: bool,
    /// The procedure's name, empty in a batch.
    pub(super) procedure: String,
    /// Temporary tables made here that end here.
    pub(super) temporary: Vec<String>,
    pub(super) table_variables: Vec<String>,
    pub(super) local_cursors: HashMap<String, String>,
}

#[derive(Debug, Clone)]
pub(super) struct Variable {
    pub(super) ty: SqlType,
    pub(super) value: Datum,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("spid", &self.spid)
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

impl Session {
    pub(super) fn open(engine: Arc<Shared>, options: SessionOptions) -> Session {
        let settings = Settings::at_login(options.ansi_defaults, &options.language);
        let now = SystemTime::now();
        let database = options.database.clone();
        let spid = engine.enlist(Listed {
            options: options.clone(),
            login_time: now,
            database: database.clone(),
            isolation: 2,
            settings: settings.clone(),
            row_count: 0,
            open_transactions: 0,
            running: false,
            last_request: now,
            cancel: Cancel::new(),
            killed: false,
        });
        let connection = Storage::new(&engine);
        let functions = Arc::clone(&connection.functions);
        let running_cancel = Arc::clone(&connection.running);
        let mut session = Session {
            engine,
            spid,
            connection,
            functions,
            options,
            settings,
            database,
            isolation: 2,
            frames: Vec::new(),
            transaction: Transaction::default(),
            last_identity: None,
            row_count: 0,
            error: 0,
            context_info: Vec::new(),
            session_context: HashMap::new(),
            security: Vec::new(),
            app_role: None,
            identity_insert: None,
            xml_documents: BTreeSet::new(),
            next_document: 0,
            prepared: HashMap::new(),
            next_handle: 1,
            cursors: HashMap::new(),
            fetch_status: 0,
            cursor_rows: 0,
            caught: Vec::new(),
            try_depth: 0,
            bulk: None,
            cancel: Cancel::new(),
            running_cancel,
            initial_state: SessionStateChange::default(),
            told_state: SessionStateChange::default(),
            told_unrecoverable: BTreeSet::new(),
            line: 1,
            next_frame: 0,
            global_temps: Vec::new(),
        };
        session.settings_changed();
        session.initial_state = session.state_summary();
        session.told_state = session.initial_state.clone();
        session
    }

    /// The session's SPID.
    pub fn spid(&self) -> u16 {
        self.spid
    }
    /// The current database.
    pub fn database(&self) -> &str {
        &self.database
    }
    /// The current language.
    pub fn language(&self) -> &str {
        &self.settings.language
    }
    /// The descriptor of the open transaction.
    pub fn transaction(&self) -> Option<u64> {
        (self.transaction.count > 0).then_some(self.transaction.descriptor)
    }
    /// What the last `INSERT BULK` wants, until [`Session::bulk_insert`].
    pub fn bulk_target(&self) -> Option<&BulkTarget> {
        self.bulk.as_ref()
    }

    /// Runs a batch.
    pub fn batch(&mut self, text: &str, out: &mut dyn Output, cancel: &Cancel) -> Outcome {
        self.request(out, cancel, false, true, |session, emit| session.run_text(text, emit))
    }

    /// Runs one request: sets the scene, reports what is left of errors, writes the last DONE.
    pub(super) fn request(
        &mut self,
        out: &mut dyn Output,
        cancel: &Cancel,
        is_rpc: bool,
        last: bool,
        work: impl FnOnce(&mut Session, &mut Emit<'_>) -> Result<(), Stop>,
    ) -> Outcome {
        self.obey(cancel);
        if let Some(listed) = lock(&self.engine.sessions).get_mut(&self.spid) {
            listed.cancel = cancel.clone();
            listed.running = true;
            listed.last_request = SystemTime::now();
            if listed.killed {
                return Outcome::Killed;
            }
        }
        let server = self.engine.options.server_name.clone();
        let mut emit = Emit::new(out, is_rpc, &server);
        let frames = self.frames.len();
        self.try_depth = 0;
        self.caught.clear();
        let result = work(self, &mut emit);
        let result = match result {
            Err(Stop::Error(error)) => {
                (self.error, self.row_count) = (error.number, 0);
                self.report(*error, &mut emit, false).map_or_else(Err, |()| Ok(()))
            }
            other => other,
        };
        while self.frames.len() > frames {
            self.leave_frame();
        }
        let mut outcome = match result {
            Ok(()) | Err(Stop::Scope | Stop::Batch | Stop::Error(_)) => Outcome::Finished,
            Err(Stop::Cancelled) if cancel.is_killed() => Outcome::Killed,
            Err(Stop::Cancelled) => Outcome::Cancelled,
            Err(Stop::Gone) => Outcome::Stopped,
        };
        if outcome == Outcome::Finished && self.transaction.doomed {
            let error = SqlError::new(
                3998,
                16,
                1,
                "Uncommittable transaction is detected at the end of the batch. The transaction is rolled back.",
            );
            if emit.error(&error).is_err() || self.roll_back_all(&mut emit).is_err() {
                outcome = Outcome::Stopped;
            }
        }
        // The output may have been the first to see the attention.
        let stopped = outcome == Outcome::Cancelled || outcome == Outcome::Stopped && cancel.is_cancelled();
        if outcome == Outcome::Killed || stopped && self.settings.xact_abort {
            let _unheard = self.roll_back_all(&mut emit);
        }
        // SESSIONSTATE stands before a final DONE: what the others of many calls change is told with the last.
        let changed = if outcome == Outcome::Finished && last { self.tell_state() } else { None };
        if outcome == Outcome::Finished && emit.finish(changed.as_ref(), last).is_err() {
            outcome = Outcome::Stopped;
        }
        self.publish(false);
        outcome
    }

    /// From now on this flag stops what runs, also inside SQLite.
    fn obey(&mut self, cancel: &Cancel) {
        self.cancel = cancel.clone();
        *lock(&self.running_cancel) = cancel.clone();
    }

    /// Tells the others how this session stands.
    pub(super) fn publish(&self, running: bool) {
        if let Some(listed) = lock(&self.engine.sessions).get_mut(&self.spid) {
            listed.running = running;
            listed.database.clone_from(&self.database);
            listed.isolation = self.isolation;
            listed.settings = self.settings.clone();
            listed.row_count = self.row_count;
            listed.open_transactions = self.transaction.count;
        }
    }

    pub(super) fn settings_changed(&mut self) {
        self.functions.set_date_order(&self.settings.date_format);
        self.functions.date_first.store(self.settings.date_first, Ordering::Relaxed);
    }

    /// What RESETCONNECTION clears ([MS-TDS] 2.2.3.1.2). The isolation level stays; with `keep_transaction`
    /// (RESETCONNECTIONSKIPTRAN) so does the transaction.
    pub fn reset(&mut self, keep_transaction: bool, cancel: &Cancel) -> ResetReport {
        self.reset_but(keep_transaction, cancel, &[])
    }

    /// [`Session::reset`] of a server that leaves some things as they were.
    pub fn reset_but(&mut self, keep_transaction: bool, cancel: &Cancel, left: &[Leftover]) -> ResetReport {
        self.obey(cancel);
        let clears = |what| !left.contains(&what);
        let mut rolled_back = None;
        if !keep_transaction && self.transaction.count > 0 && clears(Leftover::Transaction) {
            rolled_back = Some(self.transaction.descriptor);
            self.abandon_transaction();
        }
        if clears(Leftover::Cursors) {
            self.cursors.clear();
        }
        if clears(Leftover::Prepared) {
            self.prepared.clear();
        }
        self.xml_documents.clear();
        if clears(Leftover::TemporaryTables) {
            self.drop_session_tables();
        }
        if clears(Leftover::ApplicationLocks) {
            self.engine.app_locks.release_all(self.spid, false);
        }
        if clears(Leftover::ContextInfo) {
            self.context_info.clear();
        }
        if clears(Leftover::SessionContext) {
            self.session_context.clear();
        }
        if clears(Leftover::Impersonation) {
            self.security.clear();
        }
        if clears(Leftover::IdentityInsert) {
            self.identity_insert = None;
        }
        if clears(Leftover::LastIdentity) {
            self.last_identity = None;
        }
        self.row_count = 0;
        self.error = 0;
        self.fetch_status = 0;
        self.cursor_rows = 0;
        self.bulk = None;
        if clears(Leftover::Database) {
            self.database = self.options.database.clone();
        }
        if clears(Leftover::Settings) {
            let language = std::mem::take(&mut self.settings.language);
            self.settings = Settings::at_login(self.options.ansi_defaults, &self.options.language);
            if !clears(Leftover::Language) {
                self.settings.language = language;
            }
        }
        self.settings_changed();
        self.told_state = self.initial_state.clone();
        self.told_unrecoverable.clear();
        self.publish(false);
        ResetReport { rolled_back, database: self.database.clone(), language: self.settings.language.clone() }
    }

    /// Whether an application role is set: SQL Server does not reset such a session, it ends it.
    pub fn has_application_role(&self) -> bool {
        self.app_role.is_some()
    }

    /// Back to READ COMMITTED, which SQL Server's reset does not do.
    pub fn reset_isolation(&mut self) {
        self.isolation = 2;
        self.publish(false);
    }

    /// Whether the next statement may begin a transaction by itself.
    pub fn begins_implicitly(&self) -> bool {
        self.settings.implicit_transactions && self.transaction.count == 0
    }

    /// Whether the end of this session may have to wait for others: it drops tables that they can see.
    pub fn ends_slowly(&self) -> bool {
        !self.global_temps.is_empty()
    }

    /// Drops everything temporary, as a closed connection does.
    fn drop_session_tables(&mut self) {
        if !self.connection.is_open() {
            return;
        }
        let own = catalog::list(&self.connection, "tempdb").unwrap_or_default();
        for object in own.iter().filter(|o| o.is_temporary()) {
            let _dropped = self.connection.execute_batch(&format!("DROP TABLE IF EXISTS {}", object.storage));
            let _forgotten = catalog::remove(&self.connection, object);
        }
        for name in std::mem::take(&mut self.global_temps) {
            let limit = self.engine.options.lock_wait;
            if self.engine.gate.acquire(self.spid, limit, &self.cancel) == super::gate::Waited::Granted {
                if let Ok(Some(object)) = catalog::find(&self.connection, "tempdb", "dbo", &name.name) {
                    let _dropped =
                        self.connection.execute_batch(&format!("DROP TABLE IF EXISTS {}", object.storage));
                    let _forgotten = catalog::remove(&self.connection, &object);
                }
                if self.transaction.lite != super::transaction::Lite::Writing {
                    self.engine.gate.release(self.spid);
                }
            }
        }
    }

    /// Everything that is not as at login, in SESSIONSTATE's terms. State ids (ours; a client must treat the values as
    /// opaque): 0 SET options, 1 language and date options, 2 isolation level, 3 ROWCOUNT, TEXTSIZE, LOCK_TIMEOUT, 4
    /// CONTEXT_INFO, 5 session context, 6 database. Not recoverable: a transaction, temporary tables, cursors, prepared
    /// handles, application locks, EXECUTE AS, an application role, IDENTITY_INSERT, XML documents.
    pub fn state_summary(&self) -> SessionStateChange {
        let text = |parts: &[String]| parts.join("\u{0}").into_bytes();
        let s = &self.settings;
        let mut context: Vec<String> =
            self.session_context.iter().map(|(k, v)| format!("{k}={:?}", v.1)).collect();
        context.sort();
        let temporary = self.connection.is_open() && catalog::has_temporary(&self.connection).unwrap_or(true);
        SessionStateChange {
            recoverable: self.transaction.count == 0
                && !temporary
                && self.global_temps.is_empty()
                && self.cursors.is_empty()
                && self.security.is_empty()
                && self.app_role.is_none()
                && self.identity_insert.is_none()
                && self.xml_documents.is_empty()
                && !self.engine.app_locks.holds_any(self.spid),
            states: vec![
                (0, s.bits().to_le_bytes()[..4].to_vec()),
                (1, text(&[s.language.clone(), s.date_format.clone(), s.date_first.to_string()])),
                (2, vec![self.isolation]),
                (3, text(&[s.rowcount.to_string(), s.textsize.to_string(), s.lock_timeout.to_string()])),
                (4, self.context_info.clone()),
                (5, text(&context)),
                (6, text(std::slice::from_ref(&self.database))),
            ],
        }
    }

    /// What the client is to be told now: states that have changed since it was told last, and whether they could be
    /// recovered, which counts for each state by itself.
    fn tell_state(&mut self) -> Option<SessionStateChange> {
        let now = self.state_summary();
        let recovers = now.recoverable && !self.told_unrecoverable.is_empty();
        let told = |state: &(u8, Vec<u8>)| {
            self.told_state.states.contains(state)
                && !(recovers && self.told_unrecoverable.contains(&state.0))
        };
        let mut states: Vec<_> = now.states.iter().filter(|state| !told(state)).cloned().collect();
        if states.is_empty() && !now.recoverable && self.told_unrecoverable.is_empty() {
            // No state of its own says so.
            states.extend(now.states.first().cloned());
        }
        if now.recoverable {
            self.told_unrecoverable.clear();
        } else {
            self.told_unrecoverable.extend(states.iter().map(|(id, _)| *id));
        }
        let change = SessionStateChange { recoverable: now.recoverable, states };
        self.told_state = now;
        (!change.states.is_empty()).then_some(change)
    }

    /// The innermost frame.
    pub(super) fn frame(&mut self) -> &mut Frame {
        if self.frames.is_empty() {
            self.enter_frame("");
        }
        let last = self.frames.len() - 1;
        &mut self.frames[last]
    }

    pub(super) fn enter_frame(&mut self, procedure: &str) {
        self.next_frame += 1;
        self.frames.push(Frame { id: self.next_frame, procedure: procedure.to_string(), ..Frame::default() });
    }

    /// Ends the innermost frame with its table variables and, for a procedure, its temporary tables.
    pub(super) fn leave_frame(&mut self) {
        let Some(frame) = self.frames.pop() else { return };
        for cursor in frame.local_cursors.values() {
            self.cursors.remove(cursor);
        }
        for name in frame.table_variables.iter().chain(&frame.temporary) {
            if let Ok(Some(object)) = catalog::find(&self.connection, "tempdb", "dbo", name) {
                let _dropped =
                    self.connection.execute_batch(&format!("DROP TABLE IF EXISTS {}", object.storage));
                let _forgotten = catalog::remove(&self.connection, &object);
            }
        }
    }

    pub(super) fn variable(&self, name: &str) -> Option<&Variable> {
        self.frames.last()?.variables.get(&name.to_ascii_lowercase())
    }

    pub(super) fn set_variable(&mut self, name: &str, value: Datum) {
        if let Some(variable) = self.frame().variables.get_mut(&name.to_ascii_lowercase()) {
            variable.value = value;
        }
    }

    pub(super) fn declare(&mut self, name: &str, ty: SqlType, value: Datum) {
        self.frame().variables.insert(name.to_ascii_lowercase(), Variable { ty, value });
    }

    /// A table, view or procedure by the name as it was written.
    pub(super) fn find_object(&self, name: &Name) -> Result<Option<Arc<Object>>, SqlError> {
        let found = if name.name.starts_with('@') {
            let stored = self
                .frames
                .last()
                .and_then(|f| f.table_variables.iter().find(|t| table_variable_matches(t, &name.name)));
            match stored {
                Some(stored) => catalog::find(&self.connection, "tempdb", "dbo", stored),
                None => {
                    return Err(SqlError::new(
                        1087,
                        15,
                        2,
                        format!("Must declare the table variable \"{}\".", name.name),
                    ));
                }
            }
        } else if name.name.starts_with('#') {
            catalog::find(&self.connection, "tempdb", "dbo", &name.name)
        } else {
            let database = if name.database.is_empty() {
                self.database.clone()
            } else {
                self.engine.database(&name.database).ok_or_else(|| no_database(&name.database))?
            };
            let schema = if name.schema.is_empty() { "dbo" } else { &name.schema };
            catalog::find(&self.connection, &database, schema, &name.name)
        };
        found.map_err(|error| self.storage_error(&error))
    }

    pub(super) fn find_table(&self, name: &Name) -> Result<Option<Arc<Object>>, SqlError> {
        Ok(self.find_object(name)?.filter(|o| o.kind != ObjectType::Procedure))
    }

    /// Makes the catalog visible to metadata functions.
    pub(super) fn load_snapshot(&self) -> Result<(), SqlError> {
        let wrong = |error: rusqlite::Error| self.storage_error(&error);
        let databases: Vec<(i64, String)> = lock(&self.engine.databases)
            .iter()
            .enumerate()
            .map(|(at, d)| (at as i64 + 1, d.clone()))
            .collect();
        let mut objects = Vec::new();
        for (_, database) in &databases {
            objects.extend(catalog::list(&self.connection, database).map_err(wrong)?);
        }
        let snapshot = Snapshot {
            database: self.database.clone(),
            schemas: catalog::schemas(&self.connection, &self.database).map_err(wrong)?,
            databases,
            objects,
            identities: lock(&self.engine.identities).iter().map(|(k, v)| (*k, *v)).collect(),
        };
        *lock(&self.functions.snapshot) = Arc::new(snapshot);
        Ok(())
    }

    /// Evaluates an SQLite expression that depends on no table.
    pub(super) fn evaluate_constant(
        &self,
        sql: &str,
        ty: SqlType,
        params: &[Lite],
    ) -> Result<Datum, SqlError> {
        let run = || -> rusqlite::Result<Datum> {
            let mut statement = self.connection.prepare_cached(&format!("SELECT {sql}"))?;
            let wanted = statement.parameter_count();
            for (at, value) in params.iter().take(wanted).enumerate() {
                statement.raw_bind_parameter(at + 1, value)?;
            }
            let mut rows = statement.raw_query();
            match rows.next()? {
                Some(row) => Ok(Datum::from_lite(row.get_ref(0)?, ty)),
                None => Ok(Datum::Null),
            }
        };
        run().map_err(|error| self.storage_error(&error))
    }

    /// What SQLite says, as SQL Server would.
    pub(super) fn storage_error(&self, error: &rusqlite::Error) -> SqlError {
        let text = error.to_string();
        if let Some(own) = SqlError::unsmuggle(&text) {
            return own;
        }
        if let rusqlite::Error::SqliteFailure(failure, message) = error {
            match failure.code {
                ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => return deadlock(self.spid),
                ErrorCode::TooBig => {
                    return SqlError::new(8152, 16, 10, "String or binary data would be truncated.");
                }
                ErrorCode::ConstraintViolation => {
                    return SqlError::new(
                        2627,
                        14,
                        1,
                        format!("Violation of a constraint: {}.", message.as_deref().unwrap_or("")),
                    );
                }
                _ => {}
            }
        }
        SqlError::new(50_502, 16, 1, format!("The stand-in's storage failed: {text}"))
    }

    /// As [`Session::storage_error`], but an interrupt is a cancel.
    pub(super) fn stop_for(&self, error: &rusqlite::Error) -> Stop {
        match error {
            rusqlite::Error::SqliteFailure(failure, _) if failure.code == ErrorCode::OperationInterrupted => {
                Stop::Cancelled
            }
            other => self.storage_error(other).into(),
        }
    }
}

/// Table variables are stored as `@name$frame`.
pub(super) fn table_variable_matches(stored: &str, name: &str) -> bool {
    stored.rsplit_once('$').is_some_and(|(own, _)| own.eq_ignore_ascii_case(name))
}

impl Drop for Session {
    fn drop(&mut self) {
        // Whoever stopped the last request does not stop this.
        self.obey(&Cancel::new());
        self.abandon_transaction();
        self.cursors.clear();
        self.drop_session_tables();
        self.engine.app_locks.release_all(self.spid, false);
        self.engine.gate.release(self.spid);
        lock(&self.engine.sessions).remove(&self.spid);
        self.connection.give_back();
    }
}
