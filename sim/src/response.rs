//! How the engine's answers become tokens, tokens packets, and packets a stream that waits for slow readers.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use tds::Dialect;
use tds::col_metadata::{ColMetadata, Column};
use tds::done::{Done, DoneKind, DoneStatus};
use tds::env_change::EnvChange;
use tds::packet::{HEADER_LEN, PacketHeader, PacketType, Status};
use tds::return_value::ReturnValue;
use tds::server_message::ServerMessage;
use tds::session_state::{SessionState, State};
use tds::token::TokenKind;
use tds::type_info::TypeInfo;
use tds::value::{Unfit, Value};
use tds::{row, write};

use crate::down_level;
use crate::engine::{BrowseColumn, Output, SessionStateChange, Watch};
use crate::watcher::Watcher;
use crate::wire::{FLUSH_AT, SharedWire, lock};

/// DONE's current command for COMMIT and ROLLBACK, as SQL Server sends it.
const COMMIT: u16 = 0xD5;
const ROLLBACK: u16 = 0xD2;

/// What a login fixed about every response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Format {
    pub(crate) dialect: Dialect,
    /// Bytes of a full packet, header included.
    pub(crate) packet_size: usize,
    pub(crate) spid: u16,
    /// SESSIONRECOVERY was acknowledged.
    pub(crate) session_recovery: bool,
}

/// What a fault does to one response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Harm {
    /// Tokens end after so many bytes.
    pub(crate) cut: Option<Cut>,
    /// Wait before each packet.
    pub(crate) packet_delay: Option<Duration>,
    /// Bytes in a second.
    pub(crate) pace: Option<u32>,
    /// Transactions go unannounced.
    pub(crate) hide_transactions: bool,
    /// So do rollbacks by an error.
    pub(crate) hide_error_rollbacks: bool,
    /// The open transaction, whose end is announced wherever something inside it ends.
    pub(crate) signal_inner_ends: Option<u64>,
    /// What becomes of SESSIONSTATE.
    pub(crate) session_state: StateHarm,
    /// Rows have more bytes than their metadata says.
    pub(crate) long_rows: bool,
}

/// What a fault does to SESSIONSTATE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum StateHarm {
    #[default]
    None,
    /// It is never sent.
    Silent,
    /// It calls everything recoverable.
    Recoverable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) after: usize,
    pub(crate) then: AfterCut,
}

/// What comes where a response was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterCut {
    Close,
    Silence,
    Garbage,
}

/// One response on its way. It never holds more than a few packets.
#[derive(Debug)]
pub(crate) struct Response<'a> {
    wire: &'a SharedWire,
    watcher: &'a Arc<Watcher>,
    format: Format,
    harm: Harm,
    tokens: BytesMut,
    /// As the client was told.
    columns: ColMetadata,
    engine_columns: Vec<Column>,
    packet_id: u8,
    /// Bytes of tokens that have become packets.
    packed: usize,
    /// SESSIONSTATE's number.
    state_sequence: &'a mut u32,
    /// The cut was reached, or the socket failed: nothing more is written.
    over: bool,
    unfit: Option<Unfit>,
    /// An error was told.
    erred: bool,
}

impl<'a> Response<'a> {
    pub(crate) fn new(
        wire: &'a SharedWire,
        watcher: &'a Arc<Watcher>,
        format: Format,
        harm: Harm,
        state_sequence: &'a mut u32,
    ) -> Self {
        Self {
            wire,
            watcher,
            format,
            harm,
            tokens: BytesMut::new(),
            columns: ColMetadata::default(),
            engine_columns: Vec::new(),
            packet_id: 0,
            packed: 0,
            state_sequence,
            over: false,
            unfit: None,
            erred: false,
        }
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// What could not be written by the type it was announced with.
    pub(crate) fn unfit(&self) -> String {
        self.unfit.map(|unfit| unfit.to_string()).unwrap_or_default()
    }

    /// Whether a fault cuts the response at its very end.
    pub(crate) fn harmed_at_end(&mut self) -> Option<AfterCut> {
        self.cut_here();
        self.harmed()
    }

    /// The response was cut short by a fault: true where silence follows.
    pub(crate) fn harmed(&self) -> Option<AfterCut> {
        self.harm.cut.filter(|_| self.over).map(|cut| cut.then)
    }

    /// A DONE of its own.
    pub(crate) fn plain_done(&mut self, status: DoneStatus, current_command: u16) {
        let done = Done { kind: DoneKind::Done, status, current_command, rows: 0 };
        done.write(&mut self.tokens, self.format.dialect.version);
    }

    /// An ERROR and its DONE.
    pub(crate) fn refuse(&mut self, message: &ServerMessage) {
        message.write(&mut self.tokens, self.format.dialect.version);
        self.plain_done(DoneStatus::ERROR, 0);
    }

    /// The answer to an attention ([MS-TDS] 2.2.1.7).
    pub(crate) fn acknowledge_attention(&mut self) {
        self.plain_done(DoneStatus::ATTENTION, 0);
    }

    /// The last packet of the message; the output is still to be flushed.
    pub(crate) fn finish(mut self) -> std::io::Result<()> {
        self.end_message()
    }

    /// The last packet of the message, and behind it the acknowledgement of an attention in a message of its own, as SQL
    /// Server does: drivers (tedious) wait for the end of the one before they look for the other.
    pub(crate) fn finish_and_acknowledge(mut self, times: usize) -> std::io::Result<()> {
        for _ in 0..times {
            self.end_message()?;
            self.packet_id = 0;
            self.acknowledge_attention();
        }
        self.end_message()
    }

    fn end_message(&mut self) -> std::io::Result<()> {
        self.cut_here();
        let room = self.room();
        while self.tokens.len() > room {
            self.packet(room, false)?;
        }
        if self.over {
            return self.finish_harmed();
        }
        let rest = self.tokens.len();
        self.packet(rest, true)
    }

    /// A response that a fault cut: what is left goes out in a packet that does not end the message.
    fn finish_harmed(&mut self) -> std::io::Result<()> {
        if self.harm.cut.is_some_and(|cut| cut.then == AfterCut::Garbage) {
            self.tokens.put_bytes(0, 16);
            let rest = self.tokens.len();
            return self.packet(rest, true);
        }
        // The header announces more than comes: the reader is left in the middle of a packet.
        let announced = self.tokens.len() + 16;
        self.header(announced, false);
        lock(self.wire).output.unsplit(self.tokens.split());
        Ok(())
    }

    fn room(&self) -> usize {
        self.format.packet_size - HEADER_LEN
    }

    /// Bytes of tokens so far.
    fn total(&self) -> usize {
        self.packed + self.tokens.len()
    }

    fn cut_here(&mut self) {
        if let Some(cut) = self.harm.cut
            && !self.over
            && self.total() >= cut.after
        {
            self.tokens.truncate(cut.after.saturating_sub(self.packed));
            self.over = true;
        }
    }

    /// After each token: full packets go out.
    fn told(&mut self) -> ControlFlow<()> {
        if self.harm.cut.is_some() {
            self.cut_here();
            if self.over {
                return ControlFlow::Break(());
            }
        }
        let room = self.room();
        if self.tokens.len() <= room {
            return ControlFlow::Continue(());
        }
        while self.tokens.len() > room {
            if self.packet(room, false).is_err() {
                return ControlFlow::Break(());
            }
        }
        if self.watcher.look() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn header(&mut self, payload: usize, last: bool) {
        self.packet_id = self.packet_id.wrapping_add(1);
        let header = PacketHeader {
            kind: PacketType::RESPONSE,
            status: if last { Status::END_OF_MESSAGE } else { Status::NORMAL },
            // At most the packet size, which is below 2^16.
            length: u16::try_from(payload + HEADER_LEN).unwrap_or(u16::MAX),
            spid: self.format.spid,
            id: self.packet_id,
            window: 0,
        };
        lock(self.wire).output.put_slice(&header.encode());
    }

    /// Makes a packet of the first `payload` bytes; sends when there is enough to send.
    fn packet(&mut self, payload: usize, last: bool) -> std::io::Result<()> {
        self.header(payload, last);
        let chunk = self.tokens.split_to(payload);
        self.packed += payload;
        let waiting = {
            let mut wire = lock(self.wire);
            wire.output.put_slice(&chunk);
            wire.output.len()
        };
        drop(chunk);
        if self.harm.packet_delay.is_some() || self.harm.pace.is_some() {
            return self.trickle();
        }
        if waiting >= FLUSH_AT && !last { self.watcher.flush() } else { Ok(()) }
    }

    /// Sends what is there as slowly as the fault says.
    fn trickle(&mut self) -> std::io::Result<()> {
        let step = Duration::from_millis(50);
        if let Some(delay) = self.harm.packet_delay {
            self.watcher.sleep(delay);
        }
        let Some(per_second) = self.harm.pace else { return self.watcher.flush() };
        let portion = usize::try_from(per_second / 20).unwrap_or(1).max(1);
        let mut rest = lock(self.wire).output.split();
        while !rest.is_empty() && !self.watcher.gone() {
            let portion = rest.split_to(portion.min(rest.len()));
            lock(self.wire).output.put_slice(&portion);
            self.watcher.flush()?;
            self.watcher.sleep(step);
        }
        Ok(())
    }
}

impl Output for Response<'_> {
    fn columns(&mut self, columns: &[Column]) -> ControlFlow<()> {
        let version = self.format.dialect.version;
        let shown = columns.iter().map(|column| down_level::column(column, version)).collect();
        self.columns = ColMetadata { columns: shown, ..ColMetadata::default() };
        self.columns.write(&mut self.tokens, self.format.dialect);
        self.engine_columns = columns.to_vec();
        self.told()
    }

    fn row(&mut self, values: &[Value]) -> ControlFlow<()> {
        let start = self.tokens.len();
        let values = down_level::row(values, &self.engine_columns, self.format.dialect.version);
        match row::write(&mut self.tokens, &self.columns.columns, &values) {
            Ok(()) => {
                if self.harm.long_rows {
                    self.tokens.put_u32_le(1);
                }
                self.told()
            }
            Err(unfit) => {
                self.tokens.truncate(start);
                self.unfit = Some(unfit);
                ControlFlow::Break(())
            }
        }
    }

    fn order(&mut self, ordinals: &[u16]) -> ControlFlow<()> {
        self.tokens.put_u8(TokenKind::ORDER.0);
        self.tokens.put_u16_le(u16::try_from(ordinals.len() * 2).unwrap_or(u16::MAX));
        for ordinal in ordinals {
            self.tokens.put_u16_le(*ordinal);
        }
        self.told()
    }

    fn browse_info(&mut self, tables: &[String], columns: &[BrowseColumn]) -> ControlFlow<()> {
        let mut body = BytesMut::new();
        for table in tables {
            if self.format.dialect.version.generation() >= 1 {
                body.put_u8(1);
            }
            write::us_varchar(&mut body, table);
        }
        self.tokens.put_u8(TokenKind::TAB_NAME.0);
        self.tokens.put_u16_le(u16::try_from(body.len()).unwrap_or(u16::MAX));
        self.tokens.put_slice(&body);
        body.clear();
        for column in columns {
            body.put_slice(&[column.column, column.table, column.status]);
            if let Some(name) = &column.base_name {
                write::b_varchar(&mut body, name);
            }
        }
        self.tokens.put_u8(TokenKind::COL_INFO.0);
        self.tokens.put_u16_le(u16::try_from(body.len()).unwrap_or(u16::MAX));
        self.tokens.put_slice(&body);
        self.told()
    }

    fn done(&mut self, done: Done) -> ControlFlow<()> {
        if let Some(descriptor) = self.harm.signal_inner_ends {
            match done.current_command {
                COMMIT => EnvChange::CommitTransaction(descriptor).write(&mut self.tokens),
                ROLLBACK => EnvChange::RollbackTransaction(descriptor).write(&mut self.tokens),
                _ => {}
            }
        }
        done.write(&mut self.tokens, self.format.dialect.version);
        self.told()
    }

    fn message(&mut self, message: &ServerMessage) -> ControlFlow<()> {
        self.erred |= message.is_error;
        message.write(&mut self.tokens, self.format.dialect.version);
        self.told()
    }

    fn env_change(&mut self, change: &EnvChange) -> ControlFlow<()> {
        let of_transaction = change.opens_transaction() || change.ends_transaction();
        let hidden = self.harm.hide_transactions || self.harm.hide_error_rollbacks && self.erred;
        let known = self.format.dialect.is_7_2_or_later() && !hidden;
        if change.ends_transaction() {
            self.harm.signal_inner_ends = None;
        }
        if known || !of_transaction {
            change.write(&mut self.tokens);
        }
        self.told()
    }

    fn return_status(&mut self, status: i32) -> ControlFlow<()> {
        self.tokens.put_u8(TokenKind::RETURN_STATUS.0);
        self.tokens.put_i32_le(status);
        self.told()
    }

    fn return_value(
        &mut self,
        ordinal: u16,
        name: &str,
        type_info: &TypeInfo,
        value: &Value,
    ) -> ControlFlow<()> {
        let value = ReturnValue::new(ordinal, name, type_info.clone(), value.clone());
        match value.write(&mut self.tokens, self.format.dialect) {
            Ok(()) => self.told(),
            Err(_) => ControlFlow::Break(()),
        }
    }

    fn session_state(&mut self, change: &SessionStateChange) -> ControlFlow<()> {
        let told = self.harm.session_state != StateHarm::Silent;
        if self.format.session_recovery && told && !change.states.is_empty() {
            let mut data = Vec::new();
            for (id, value) in &change.states {
                State { id: *id, value }.write(&mut data);
            }
            let recoverable = change.recoverable || self.harm.session_state == StateHarm::Recoverable;
            let state = SessionState { sequence: *self.state_sequence, recoverable, data: &data };
            state.write(&mut self.tokens);
            *self.state_sequence = self.state_sequence.saturating_add(1);
        }
        self.told()
    }
}
