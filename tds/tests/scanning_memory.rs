//! The response scanner keeps its memory from one response to the next, and announced lengths cost it nothing.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use bytes::BufMut;
use tds::col_metadata::{ColMetadata, Column};
use tds::done::{Done, DoneKind, DoneStatus};
use tds::env_change::EnvChange;
use tds::return_value::ReturnValue;
use tds::rpc::RpcReader;
use tds::scan::ResponseScanner;
use tds::session_state::SessionState;
use tds::token::TokenKind;
use tds::type_info::{Collation, MAX, TypeInfo};
use tds::value::Value;
use tds::{Dialect, TdsVersion, row};

const DIALECT: Dialect = Dialect { version: TdsVersion::V7_4, column_encryption: 0, data_classification: 0 };

/// What the responses of a busy connection are made of.
fn response() -> Vec<u8> {
    let columns = vec![
        Column::new("id", TypeInfo::IntN(4)),
        Column::new("name", TypeInfo::nvarchar(40, Collation::LATIN1)),
        Column::new("document", TypeInfo::nvarchar(MAX, Collation::LATIN1)),
        Column::new("xml", TypeInfo::Xml(None)),
    ];
    let values =
        [Value::Int(1), Value::String("a name".into()), Value::String("x".repeat(9000)), Value::Null];
    let mut out = Vec::new();
    EnvChange::BeginTransaction(1).write(&mut out);
    for _ in 0..2 {
        ColMetadata::new(columns.clone()).write(&mut out, DIALECT);
        for _ in 0..5 {
            row::write(&mut out, &columns, &values).unwrap();
            row::write_nbc(&mut out, &columns, &values).unwrap();
        }
        let status = DoneStatus::MORE.with(DoneStatus::COUNT);
        Done { kind: DoneKind::DoneInProc, status, current_command: 0xC1, rows: 10 }
            .write(&mut out, DIALECT.version);
    }
    out.put_u8(TokenKind::RETURN_STATUS.0);
    out.put_u32_le(0);
    ReturnValue::new(0, "@handle", TypeInfo::IntN(4), Value::Int(1)).write(&mut out, DIALECT).unwrap();
    EnvChange::CommitTransaction(1).write(&mut out);
    SessionState { sequence: 1, recoverable: true, data: &[9, 4, 0, 0, 0, 0] }.write(&mut out);
    let status = DoneStatus::FINAL;
    Done { kind: DoneKind::DoneProc, status, current_command: 0, rows: 0 }.write(&mut out, DIALECT.version);
    out
}

#[test]
fn after_the_first_response_nothing_is_allocated() {
    let bytes = response();
    let mut scanner = ResponseScanner::new(DIALECT);
    for len in [1, 7, 4088, bytes.len()] {
        let mut pass = || {
            scanner.restart();
            let mut events = 0;
            for piece in bytes.chunks(len) {
                scanner.feed(piece, |_| events += 1);
            }
            assert_eq!(events, 8);
        };
        pass();
        let used = allocation_counter::measure(pass);
        assert_eq!((used.count_total, used.bytes_total), (0, 0), "in pieces of {len}");
    }
}

#[test]
fn huge_announced_lengths_do_not_allocate() {
    let announced: &[&[u8]] = &[
        // SESSIONSTATE, FEDAUTHINFO and a feature of 4 GiB.
        &[0xE4, 0xFF, 0xFF, 0xFF, 0xFF, 0],
        &[0xEE, 0xFF, 0xFF, 0xFF, 0xFF, 0],
        &[0xAE, 1, 0xFF, 0xFF, 0xFF, 0xFF, 0],
        // 65,534 columns.
        &[0x81, 0xFE, 0xFF, 0],
        // A varbinary(max) value of 2^63 bytes with a chunk of 4 GiB.
        &[
            0x81, 1, 0, 0, 0, 0, 0, 0, 0, 0xA5, 0xFF, 0xFF, 0, 0xD1, 0, 0, 0, 0, 0, 0, 0, 0x80, 0xFF, 0xFF,
            0xFF, 0xFF, 0,
        ],
    ];
    for bytes in announced {
        let used = allocation_counter::measure(|| {
            ResponseScanner::new(DIALECT).feed(bytes, |_| {});
        });
        assert!(used.bytes_max < 1000, "{bytes:02X?}: {used:?}");
    }
    // An RPC whose parameter announces 2 GiB of image, and one with an endless name.
    let headers = [22, 0, 0, 0, 18, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
    let calls: &[&[u8]] = &[
        &[0xFF, 0xFF, 10, 0, 0, 0, 0, 0, 0x22, 0xFF, 0xFF, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0x7F, 1],
        &[0xFE, 0xFF, 1, 0],
    ];
    for call in calls {
        let payload = [&headers[..], call].concat();
        let used = allocation_counter::measure(|| {
            let mut reader = RpcReader::new(&payload, DIALECT).unwrap();
            assert!(reader.next_call().and_then(|_| reader.next_parameter()).is_err());
        });
        assert!(used.bytes_max < 1000, "{call:02X?}: {used:?}");
    }
}
