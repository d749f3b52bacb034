//! The console's answers as tokens: result sets, messages, and the DONEs between them.

use bytes::BytesMut;
use serde_json::Value as Json;
use tds::Dialect;
use tds::col_metadata::{ColMetadata, Column, ColumnFlags};
use tds::done::{Done, DoneKind, DoneStatus};
use tds::env_change::EnvChange;
use tds::return_value::ReturnValue;
use tds::row;
use tds::server_message::ServerMessage;
use tds::type_info::{Collation, TypeInfo};
use tds::value::Value;

use super::statement::Selected;
use crate::admin::{Kind, Table};
use crate::error::SERVER_NAME;

/// The longest text of a cell, in characters: what `nvarchar(4000)` holds, so that every client can show it.
const LONGEST_TEXT: u16 = 4000;

/// A RETURNSTATUS of success ([MS-TDS] 2.2.7.18).
const RETURN_STATUS: [u8; 5] = [0x79, 0, 0, 0, 0];

/// CurCmd of a SELECT.
const SELECT: u16 = 0xC1;

/// A response that grows. Each statement ends with a DONE; the last one of all says that nothing follows.
pub(super) struct Tokens {
    dialect: Dialect,
    out: BytesMut,
    in_procedure: bool,
    /// The DONE of the last statement, not yet written: only the next one shows whether more follows.
    pending: Option<Done>,
}

impl Tokens {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self { dialect, out: BytesMut::new(), in_procedure: false, pending: None }
    }

    /// What follows is the answer to a procedure's call.
    pub(super) fn in_procedure(&mut self) {
        self.in_procedure = true;
    }

    pub(super) fn table(&mut self, table: &Table) {
        let columns: Vec<Column> =
            table.columns.iter().map(|head| column(&name(head.name, head.kind), head.kind)).collect();
        let rows = table.rows.iter().map(|row| row.iter().map(value).collect());
        self.rows(columns, rows);
    }

    pub(super) fn value(&mut self, selected: Selected) {
        let (kind, value) = match selected {
            Selected::Number(number) => (Kind::Number, Value::BigInt(number)),
            Selected::Text(text) => (Kind::Text, text_value(&text)),
        };
        self.rows(vec![column("", kind)], std::iter::once(vec![value]));
    }

    fn rows(&mut self, columns: Vec<Column>, rows: impl Iterator<Item = Vec<Value>>) {
        self.flush(true);
        let mut count = 0;
        let metadata = ColMetadata::new(columns);
        metadata.write(&mut self.out, self.dialect);
        for cells in rows {
            let before = self.out.len();
            if row::write(&mut self.out, &metadata.columns, &cells).is_err() {
                debug_assert!(false, "each kind of cell has its type");
                self.out.truncate(before);
                continue;
            }
            count += 1;
        }
        self.pending =
            Some(Done { kind: self.kind(), status: DoneStatus::COUNT, current_command: SELECT, rows: count });
    }

    pub(super) fn error(&mut self, number: i32, class: u8, text: &str) {
        self.errors(&[ServerMessage::error(number, class, format!("tdsbouncer: {text}"), SERVER_NAME)]);
    }

    pub(super) fn errors(&mut self, messages: &[ServerMessage]) {
        self.flush(true);
        for message in messages {
            message.write(&mut self.out, self.dialect.version);
        }
        self.pending = Some(self.plain(DoneStatus::ERROR));
    }

    pub(super) fn change(&mut self, change: &EnvChange) {
        change.write(&mut self.out);
    }

    /// A statement without rows.
    pub(super) fn done(&mut self) {
        self.flush(true);
        self.pending = Some(self.plain(DoneStatus::FINAL));
    }

    /// The acknowledgement of an attention: every answer was whole when it was sent.
    pub(super) fn attention(&mut self) {
        self.pending = Some(self.plain(DoneStatus::ATTENTION));
    }

    /// The handle of a prepared text, for the client that wants one.
    pub(super) fn handle(&mut self, handle: i32) {
        self.flush(true);
        let value = ReturnValue::new(0, "", TypeInfo::IntN(4), Value::Int(handle));
        let written = value.write(&mut self.out, self.dialect);
        debug_assert!(written.is_ok(), "an int fits its type");
    }

    /// The whole response.
    pub(super) fn finish(mut self) -> BytesMut {
        if self.in_procedure {
            self.flush(true);
            self.out.extend_from_slice(&RETURN_STATUS);
            let done = Done { kind: DoneKind::DoneProc, ..self.plain(DoneStatus::FINAL) };
            done.write(&mut self.out, self.dialect.version);
        } else {
            if self.pending.is_none() {
                self.pending = Some(self.plain(DoneStatus::FINAL));
            }
            self.flush(false);
        }
        self.out
    }

    fn flush(&mut self, more: bool) {
        if let Some(mut done) = self.pending.take() {
            if more {
                done.status = done.status.with(DoneStatus::MORE);
            }
            done.write(&mut self.out, self.dialect.version);
        }
    }

    fn plain(&self, status: DoneStatus) -> Done {
        Done { kind: self.kind(), status, current_command: 0, rows: 0 }
    }

    fn kind(&self) -> DoneKind {
        if self.in_procedure { DoneKind::DoneInProc } else { DoneKind::Done }
    }
}

/// Numbers of time say their unit.
fn name(name: &str, kind: Kind) -> String {
    match kind {
        Kind::DurationMs => format!("{name}_ms"),
        _ => name.to_owned(),
    }
}

fn column(name: &str, kind: Kind) -> Column {
    let type_info = match kind {
        Kind::Text => TypeInfo::nvarchar(LONGEST_TEXT, Collation::LATIN1),
        Kind::Number | Kind::DurationMs | Kind::Bytes => TypeInfo::IntN(8),
    };
    Column::new(name, type_info).with_flags(ColumnFlags::NULLABLE)
}

fn value(cell: &Json) -> Value {
    match cell {
        Json::Null => Value::Null,
        Json::Number(number) => number.as_i64().map_or(Value::BigInt(i64::MAX), Value::BigInt),
        Json::String(text) => text_value(text),
        other => text_value(&other.to_string()),
    }
}

/// Cut to what the type holds, in units of UTF-16.
fn text_value(text: &str) -> Value {
    let mut units = 0;
    let kept = text.chars().take_while(|letter| {
        units += letter.len_utf16();
        units <= usize::from(LONGEST_TEXT)
    });
    Value::String(kept.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tds::TdsVersion;

    #[test]
    fn only_the_last_done_says_that_nothing_follows() {
        let mut tokens = Tokens::new(Dialect::of(TdsVersion::V7_4));
        tokens.done();
        tokens.error(102, 15, "x");
        let out = tokens.finish();
        assert_eq!(out[..3], [0xFD, 0x01, 0], "DONE with more");
        assert_eq!(out[13], 0xAA, "the error");
        assert_eq!(out[out.len() - 13..][..3], [0xFD, 0x02, 0], "DONE with an error, and nothing more");
    }

    #[test]
    fn an_answer_to_a_call_ends_with_a_status_and_doneproc() {
        let mut tokens = Tokens::new(Dialect::of(TdsVersion::V7_4));
        tokens.in_procedure();
        tokens.value(Selected::Number(1));
        let out = tokens.finish();
        assert_eq!(out[0], 0x81);
        assert_eq!(out[out.len() - 18..][..5], RETURN_STATUS);
        assert_eq!(out[out.len() - 13..][..3], [0xFE, 0, 0]);
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let Value::String(text) = text_value(&"\u{1F600}".repeat(3000)) else { panic!("a text") };
        assert_eq!(text.encode_utf16().count(), 4000);
    }
}
