//! Transactions: T-SQL's counting ones over SQLite's, and the ENVCHANGEs that tell of them.
//!
//! ```text
//!            BEGIN TRAN                 first write                COMMIT / ROLLBACK
//!   none ───────────────▶ open, idle ───────────────▶ writing ─────────────────────▶ none
//!                          │  reads see each commit    │ holds the write lock (main tables)
//!                          └─ temp table written ──▶ private ── main table written ──▶ writing
//! ```

use std::time::Duration;

use tds::env_change::EnvChange;

use super::emit::{Emit, Stop};
use super::gate::Waited;
use super::message_text::{SqlError, deadlock, lock_timeout};
use super::session::Session;
use super::{Cancel, IsolationLevel, Outcome, Output};

/// What SQLite has open for the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Lite {
    #[default]
    None,
    /// Only temporary tables were written: no lock is held.
    Private,
    /// The write lock is held.
    Writing,
}

/// A session's transaction.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    /// `@@TRANCOUNT`.
    pub(super) count: u32,
    pub(super) descriptor: u64,
    /// The outermost name.
    name: String,
    /// Savepoint names, and whether SQLite has a savepoint for them.
    savepoints: Vec<(String, bool)>,
    pub(super) lite: Lite,
    /// Only a rollback is possible (XACT_STATE() = -1).
    pub(super) doomed: bool,
    /// How deep in statements that have their own savepoint.
    statements: u32,
}

impl Session {
    /// BEGIN TRANSACTION.
    pub(super) fn begin_transaction(&mut self, name: &str, emit: &mut Emit<'_>) -> Result<(), Stop> {
        if self.transaction.count == 0 {
            self.transaction.descriptor = self.engine.new_transaction();
            self.transaction.name = name.to_string();
            self.transaction.count = 1;
            if self.options.transaction_env_changes {
                emit.env_change(&EnvChange::BeginTransaction(self.transaction.descriptor))?;
            }
        } else {
            self.transaction.count += 1;
        }
        Ok(())
    }

    /// COMMIT.
    pub(super) fn commit_transaction(&mut self, emit: &mut Emit<'_>) -> Result<(), Stop> {
        match self.transaction.count {
            0 => Err(SqlError::new(3902, 16, 1, "The COMMIT TRANSACTION request has no corresponding BEGIN TRANSACTION.").into()),
            _ if self.transaction.doomed => Err(SqlError::new(
                3930,
                16,
                1,
                "The current transaction cannot be committed and cannot support operations that write to the log file. Roll back the transaction.",
            )
            .into()),
            1 => {
                if self.transaction.lite != Lite::None {
                    self.connection.execute_batch("COMMIT").map_err(|e| self.stop_for(&e))?;
                }
                self.end_transaction();
                if self.options.transaction_env_changes {
                    emit.env_change(&EnvChange::CommitTransaction(self.transaction.descriptor))?;
                }
                Ok(())
            }
            _ => {
                self.transaction.count -= 1;
                Ok(())
            }
        }
    }

    fn end_transaction(&mut self) {
        self.transaction.count = 0;
        self.transaction.lite = Lite::None;
        self.transaction.doomed = false;
        self.transaction.savepoints.clear();
        self.transaction.statements = 0;
        self.engine.gate.release(self.spid);
        self.engine.app_locks.release_all(self.spid, true);
        if self.settings.cursor_close_on_commit {
            self.cursors.values_mut().for_each(super::cursor::Cursor::close);
        }
    }

    /// Rolls back without telling anyone.
    pub(super) fn abandon_transaction(&mut self) {
        if self.transaction.lite != Lite::None {
            let _rolled_back = self.connection.execute_batch("ROLLBACK");
        }
        self.end_transaction();
    }

    /// ROLLBACK of everything, with its ENVCHANGE.
    pub(super) fn roll_back_all(&mut self, emit: &mut Emit<'_>) -> Result<(), Stop> {
        if self.transaction.count == 0 {
            return Ok(());
        }
        self.abandon_transaction();
        if self.options.transaction_env_changes {
            emit.env_change(&EnvChange::RollbackTransaction(self.transaction.descriptor))?;
        }
        Ok(())
    }

    /// ROLLBACK, possibly to a savepoint.
    pub(super) fn rollback_transaction(&mut self, name: &str, emit: &mut Emit<'_>) -> Result<(), Stop> {
        if self.transaction.count == 0 {
            return Err(SqlError::new(
                3903,
                16,
                1,
                "The ROLLBACK TRANSACTION request has no corresponding BEGIN TRANSACTION.",
            )
            .into());
        }
        if name.is_empty() || name.eq_ignore_ascii_case(&self.transaction.name) && !self.has_savepoint(name) {
            return self.roll_back_all(emit);
        }
        let Some(at) = self.transaction.savepoints.iter().rposition(|s| s.0.eq_ignore_ascii_case(name))
        else {
            return Err(SqlError::new(
                6401,
                16,
                1,
                format!("Cannot roll back {name}. No transaction or savepoint of that name was found."),
            )
            .into());
        };
        if self.transaction.doomed {
            return Err(SqlError::new(3931, 16, 1, "The current transaction cannot be committed and cannot be rolled back to a savepoint. Roll back the entire transaction.").into());
        }
        self.transaction.savepoints.truncate(at + 1);
        if self.transaction.savepoints[at].1 {
            self.connection
                .execute_batch(&format!("ROLLBACK TO \"save{at}\""))
                .map_err(|e| self.stop_for(&e))?;
        } else if self.transaction.lite != Lite::None {
            // Nothing had been written when it was saved.
            self.connection.execute_batch("ROLLBACK").map_err(|e| self.stop_for(&e))?;
            self.transaction.lite = Lite::None;
            self.engine.gate.release(self.spid);
        }
        Ok(())
    }

    fn has_savepoint(&self, name: &str) -> bool {
        self.transaction.savepoints.iter().any(|s| s.0.eq_ignore_ascii_case(name))
    }

    /// SAVE TRANSACTION.
    pub(super) fn save_transaction(&mut self, name: &str) -> Result<(), Stop> {
        if self.transaction.count == 0 {
            return Err(SqlError::new(
                628,
                16,
                0,
                "Cannot issue SAVE TRANSACTION when there is no active transaction.",
            )
            .into());
        }
        let at = self.transaction.savepoints.len();
        let real = self.transaction.lite != Lite::None;
        if real {
            self.connection
                .execute_batch(&format!("SAVEPOINT \"save{at}\""))
                .map_err(|e| self.stop_for(&e))?;
        }
        self.transaction.savepoints.push((name.to_string(), real));
        Ok(())
    }

    /// How long a statement waits for a lock.
    pub(super) fn lock_limit(&self) -> (Duration, bool) {
        match self.settings.lock_timeout {
            limit if limit >= 0 => (Duration::from_millis(limit as u64), true),
            _ => (self.engine.options.lock_wait, false),
        }
    }

    fn take_gate(&mut self) -> Result<(), Stop> {
        let (limit, own) = self.lock_limit();
        match self.engine.gate.acquire(self.spid, limit, &self.cancel) {
            Waited::Granted => Ok(()),
            Waited::Cancelled => Err(Stop::Cancelled),
            Waited::TimedOut if own => Err(lock_timeout().into()),
            Waited::TimedOut => Err(deadlock(self.spid).into()),
        }
    }

    /// Runs a statement that writes, whole or not at all. `shared` says whether it writes more than temporary tables.
    pub(super) fn atomically<T>(
        &mut self,
        shared: bool,
        work: impl FnOnce(&mut Session) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        if self.transaction.doomed {
            return Err(SqlError::new(
                3930,
                16,
                1,
                "The current transaction cannot be committed and cannot support operations that write to the log file. Roll back the transaction.",
            )
            .into());
        }
        let nested = self.transaction.statements > 0;
        let own = self.transaction.count == 0 && !nested;
        if shared && self.transaction.lite != Lite::Writing {
            self.take_gate()?;
        }
        if self.transaction.lite == Lite::None {
            let begin = if shared { "BEGIN IMMEDIATE" } else { "BEGIN" };
            if let Err(error) = self.connection.execute_batch(begin) {
                self.engine.gate.release(self.spid);
                return Err(self.stop_for(&error));
            }
            self.transaction.lite = Lite::Private;
        }
        if shared {
            self.transaction.lite = Lite::Writing;
        }
        self.transaction.statements += 1;
        let depth = self.transaction.statements;
        let result = match self.connection.execute_batch(&format!("SAVEPOINT \"statement{depth}\"")) {
            Ok(()) => work(self),
            Err(error) => Err(self.stop_for(&error)),
        };
        if self.transaction.lite == Lite::None {
            // A rollback inside ended everything.
            return result;
        }
        self.transaction.statements = depth - 1;
        let close = match &result {
            Ok(_) => format!("RELEASE \"statement{depth}\""),
            Err(_) => format!("ROLLBACK TO \"statement{depth}\"; RELEASE \"statement{depth}\""),
        };
        let closed = self.connection.execute_batch(&close);
        if own && self.transaction.count == 0 {
            let end = if result.is_ok() { "COMMIT" } else { "ROLLBACK" };
            let ended = self.connection.execute_batch(end);
            self.transaction.lite = Lite::None;
            self.engine.gate.release(self.spid);
            if let Err(error) = ended {
                let _rolled_back = self.connection.execute_batch("ROLLBACK");
                return Err(self.stop_for(&error));
            }
        }
        closed.map_err(|e| self.stop_for(&e))?;
        result
    }

    /// SET IMPLICIT_TRANSACTIONS ON: the statement that comes begins a transaction.
    pub(super) fn begin_implicitly(&mut self, emit: &mut Emit<'_>) -> Result<(), Stop> {
        if self.settings.implicit_transactions && self.transaction.count == 0 {
            self.begin_transaction("", emit)?;
        }
        Ok(())
    }

    /// TM_BEGIN_XACT ([MS-TDS] 2.2.6.9).
    pub fn begin(
        &mut self,
        level: IsolationLevel,
        name: &str,
        out: &mut dyn Output,
        cancel: &Cancel,
    ) -> Outcome {
        let name = name.to_string();
        self.request(out, cancel, false, true, move |session, emit| {
            session.set_isolation(level);
            session.begin_transaction(&name, emit)?;
            session.row_count = 0;
            emit.done(0xD4, None, false)
        })
    }

    /// TM_COMMIT_XACT; with `then_begin` the next transaction begins at once.
    pub fn commit(
        &mut self,
        name: &str,
        then_begin: Option<(IsolationLevel, String)>,
        out: &mut dyn Output,
        cancel: &Cancel,
    ) -> Outcome {
        let _ = name;
        self.request(out, cancel, false, true, move |session, emit| {
            session.commit_transaction(emit)?;
            if let Some((level, name)) = then_begin {
                session.set_isolation(level);
                session.begin_transaction(&name, emit)?;
            }
            session.row_count = 0;
            emit.done(0xD5, None, false)
        })
    }

    /// TM_ROLLBACK_XACT; a name rolls back to that savepoint.
    pub fn rollback(
        &mut self,
        name: &str,
        then_begin: Option<(IsolationLevel, String)>,
        out: &mut dyn Output,
        cancel: &Cancel,
    ) -> Outcome {
        let name = name.to_string();
        self.request(out, cancel, false, true, move |session, emit| {
            session.rollback_transaction(&name, emit)?;
            if let Some((level, name)) = then_begin {
                session.set_isolation(level);
                session.begin_transaction(&name, emit)?;
            }
            session.row_count = 0;
            emit.done(0xD2, None, false)
        })
    }

    /// TM_SAVE_XACT.
    pub fn save(&mut self, name: &str, out: &mut dyn Output, cancel: &Cancel) -> Outcome {
        let name = name.to_string();
        self.request(out, cancel, false, true, move |session, emit| {
            session.save_transaction(&name)?;
            session.row_count = 0;
            emit.done(0xD3, None, false)
        })
    }

    fn set_isolation(&mut self, level: IsolationLevel) {
        if (1..=5).contains(&level.0) {
            self.isolation = level.0;
        }
    }
}
