//! Puts results into an [`Output`] with the right DONE bits: the last one of a response must say that it is the last.

use std::ops::ControlFlow;

use tds::done::{Done, DoneKind, DoneStatus};
use tds::env_change::EnvChange;
use tds::server_message::ServerMessage;
use tds::value::Value;

use super::datum::Datum;
use super::message_text::SqlError;
use super::wire_types::OutColumn;
use super::{Output, SessionStateChange};

/// Why running stopped.
#[derive(Debug)]
pub(super) enum Stop {
    /// An error that nobody has reported or caught yet.
    Error(Box<SqlError>),
    /// Reported; the procedure or batch level is over.
    Scope,
    /// Reported; the whole batch is over.
    Batch,
    Cancelled,
    /// The output does not want more.
    Gone,
}

impl From<SqlError> for Stop {
    fn from(error: SqlError) -> Stop {
        Stop::Error(Box::new(error))
    }
}

/// Rows that INSERT … EXEC collects instead of sending.
#[derive(Debug, Default)]
pub(super) struct Captured {
    pub(super) columns: Vec<OutColumn>,
    pub(super) rows: Vec<Vec<Datum>>,
}

/// The way to the output; DONEs are held back until it is known whether more follows.
pub(super) struct Emit<'o> {
    out: &'o mut dyn Output,
    pending: Option<Done>,
    /// Inside how many procedures.
    pub(super) depth: u32,
    pub(super) is_rpc: bool,
    pub(super) capture: Option<Captured>,
    pub(super) failed: bool,
    pub(super) server: String,
}

fn flow(result: ControlFlow<()>) -> Result<(), Stop> {
    match result {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Stop::Gone),
    }
}

impl<'o> Emit<'o> {
    pub(super) fn new(out: &'o mut dyn Output, is_rpc: bool, server: &str) -> Emit<'o> {
        Emit {
            out,
            pending: None,
            depth: 0,
            is_rpc,
            capture: None,
            failed: false,
            server: server.to_string(),
        }
    }

    fn flush(&mut self) -> Result<(), Stop> {
        match self.pending.take() {
            Some(mut done) => {
                done.status = done.status.with(DoneStatus::MORE);
                flow(self.out.done(done))
            }
            None => Ok(()),
        }
    }

    pub(super) fn columns(&mut self, columns: &[OutColumn]) -> Result<(), Stop> {
        if let Some(capture) = &mut self.capture {
            capture.columns = columns.to_vec();
            return Ok(());
        }
        self.flush()?;
        let wire: Vec<_> = columns.iter().map(OutColumn::wire).collect();
        flow(self.out.columns(&wire))
    }

    pub(super) fn order(&mut self, ordinals: &[u16]) -> Result<(), Stop> {
        if self.capture.is_some() || ordinals.is_empty() { Ok(()) } else { flow(self.out.order(ordinals)) }
    }

    pub(super) fn row(&mut self, columns: &[OutColumn], row: &[Datum]) -> Result<(), Stop> {
        if let Some(capture) = &mut self.capture {
            if capture.rows.len() >= 5_000_000 {
                return Err(SqlError::new(
                    701,
                    17,
                    1,
                    "There is insufficient system memory in resource pool 'default' to run this query.",
                )
                .into());
            }
            capture.rows.push(row.to_vec());
            return Ok(());
        }
        let values: Vec<Value> =
            columns.iter().zip(row).map(|(column, value)| value.to_value(column.ty)).collect();
        flow(self.out.row(&values))
    }

    /// The end of a statement.
    pub(super) fn done(&mut self, command: u16, rows: Option<i64>, failed: bool) -> Result<(), Stop> {
        if self.capture.is_some() {
            return Ok(());
        }
        self.flush()?;
        let mut status = DoneStatus::FINAL;
        if rows.is_some() {
            status = status.with(DoneStatus::COUNT);
        }
        if failed {
            status = status.with(DoneStatus::ERROR);
        }
        let kind = if self.depth > 0 { DoneKind::DoneInProc } else { DoneKind::Done };
        self.pending =
            Some(Done { kind, status, current_command: command, rows: rows.unwrap_or(0).max(0) as u64 });
        if kind == DoneKind::DoneInProc {
            // The procedure's own DONEPROC always follows.
            self.flush()?;
        }
        Ok(())
    }

    /// The end of a procedure that a batch called.
    pub(super) fn done_proc(&mut self) -> Result<(), Stop> {
        if self.capture.is_some() {
            return Ok(());
        }
        self.flush()?;
        self.pending = Some(Done {
            kind: DoneKind::DoneProc,
            status: DoneStatus::FINAL,
            current_command: 0xE0,
            rows: 0,
        });
        Ok(())
    }

    pub(super) fn error(&mut self, error: &SqlError) -> Result<(), Stop> {
        self.failed = true;
        self.message(error, true)
    }

    pub(super) fn message(&mut self, error: &SqlError, is_error: bool) -> Result<(), Stop> {
        self.flush()?;
        flow(self.out.message(&ServerMessage {
            is_error,
            number: error.number,
            state: error.state,
            class: error.class,
            text: error.text.clone(),
            server: self.server.clone(),
            procedure: error.procedure.clone(),
            line: error.line.max(1),
        }))
    }

    pub(super) fn env_change(&mut self, change: &EnvChange) -> Result<(), Stop> {
        self.flush()?;
        flow(self.out.env_change(change))
    }

    pub(super) fn return_status(&mut self, status: i32) -> Result<(), Stop> {
        if self.capture.is_some() {
            return Ok(());
        }
        self.flush()?;
        flow(self.out.return_status(status))
    }

    pub(super) fn return_value(
        &mut self,
        ordinal: u16,
        name: &str,
        ty: super::types::SqlType,
        value: &Datum,
    ) -> Result<(), Stop> {
        self.flush()?;
        let info = super::wire_types::type_info(ty, true);
        flow(self.out.return_value(ordinal, name, &info, &value.to_value(ty)))
    }

    /// The end of the request.
    pub(super) fn finish(&mut self, state: Option<&SessionStateChange>, last: bool) -> Result<(), Stop> {
        let mut done = match self.pending.take() {
            Some(done) if !self.is_rpc => done,
            Some(mut done) => {
                done.status = done.status.with(DoneStatus::MORE);
                flow(self.out.done(done))?;
                Done { kind: DoneKind::DoneProc, status: DoneStatus::FINAL, current_command: 0xE0, rows: 0 }
            }
            None => {
                let (kind, command) =
                    if self.is_rpc { (DoneKind::DoneProc, 0xE0) } else { (DoneKind::Done, 0xFD) };
                Done { kind, status: DoneStatus::FINAL, current_command: command, rows: 0 }
            }
        };
        if self.failed && self.is_rpc {
            done.status = done.status.with(DoneStatus::ERROR);
        }
        if !last {
            done.status = done.status.with(DoneStatus::MORE).with(DoneStatus::RPC_IN_BATCH);
        } else if let Some(state) = state {
            flow(self.out.session_state(state))?;
        }
        flow(self.out.done(done))
    }
}
