//! The byte-exact examples of [MS-TDS] section 4 for tokens and requests.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use bytes::BytesMut;
use tds::col_metadata::{ColMetadata, Column, ColumnFlags};
use tds::done::{Done, DoneKind, DoneStatus};
use tds::read::Reader;
use tds::request::bulk_load::{BulkItem, BulkReader};
use tds::request::{AllHeaders, SqlBatch, TransactionDescriptor, TransactionRequest};
use tds::rpc::{Call, CallOptions, ParamFlags, Parameter, Procedure, RpcRequest, TableColumn, TableType};
use tds::scan::{Event, ResponseScanner};
use tds::token::TokenKind;
use tds::type_info::{CharInfo, Collation, TypeInfo};
use tds::value::Value;
use tds::{Dialect, TdsVersion, row};

const DIALECT: Dialect = Dialect { version: TdsVersion::V7_4, column_encryption: 0, data_classification: 0 };

/// The payload of the one packet that these hexadecimal digits are.
fn payload(hex: &str) -> Vec<u8> {
    let digits: Vec<&str> = hex.split_whitespace().collect();
    let bytes: Vec<u8> = digits.iter().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    assert_eq!(usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), bytes.len());
    bytes[8..].to_vec()
}

/// The examples' header: its number means what it says in big endian, which is not how the wire has it.
fn example_headers() -> AllHeaders {
    let transaction = TransactionDescriptor { descriptor: 1 << 56, outstanding_requests: 0 };
    AllHeaders { transaction: Some(transaction), ..AllHeaders::default() }
}

#[test]
fn a_batch_4_6() {
    let bytes = payload(
        "01 01 00 5C 00 00 01 00 16 00 00 00 12 00 00 00
         02 00 00 00 00 00 00 00 00 01 00 00 00 00 0A 00
         73 00 65 00 6C 00 65 00 63 00 74 00 20 00 27 00
         66 00 6F 00 6F 00 27 00 20 00 61 00 73 00 20 00
         27 00 62 00 61 00 72 00 27 00 0A 00 20 00 20 00
         20 00 20 00 20 00 20 00 20 00 20 00",
    );
    let batch = SqlBatch::read(&bytes, DIALECT).unwrap();
    assert_eq!(batch.headers, Some(example_headers()));
    assert_eq!(batch.text, "\nselect 'foo' as 'bar'\n        ");
    assert_eq!(SqlBatch::text_offset(&bytes[..22], DIALECT), Ok(22));
    let mut out = Vec::new();
    batch.write(&mut out, DIALECT);
    assert_eq!(out, bytes);
}

#[test]
fn a_result_set_4_7() {
    let bytes = payload(
        "04 01 00 33 00 00 01 00 81 01 00 00 00 00 00 20
         00 A7 03 00 09 04 D0 00 34 03 62 00 61 00 72 00
         D1 03 00 66 6F 6F FD 10 00 C1 00 01 00 00 00 00
         00 00 00",
    );
    let info = CharInfo { max_len: 3, collation: Collation::LATIN1 };
    let column = Column::new("bar", TypeInfo::VarChar(info)).with_flags(ColumnFlags::COMPUTED);
    let metadata = ColMetadata::new(vec![column]);
    let done = Done { kind: DoneKind::Done, status: DoneStatus::COUNT, current_command: 0xC1, rows: 1 };

    let mut reader = Reader::new(&bytes, "a test");
    assert_eq!(reader.u8(), Ok(TokenKind::COL_METADATA.0));
    assert_eq!(ColMetadata::read(&mut reader, DIALECT), Ok(Some(metadata.clone())));
    assert_eq!(reader.u8(), Ok(TokenKind::ROW.0));
    assert_eq!(row::read(&mut reader, &metadata.columns), Ok(vec![Value::String("foo".into())]));

    let mut out = Vec::new();
    metadata.write(&mut out, DIALECT);
    row::write(&mut out, &metadata.columns, &[Value::String("foo".into())]).unwrap();
    done.write(&mut out, DIALECT.version);
    assert_eq!(out, bytes);
    assert_eq!(scanned(&bytes), [Event::Done(done)]);
}

#[test]
fn a_procedure_call_4_8() {
    let bytes = payload(
        "03 01 00 2F 00 00 01 00 16 00 00 00 12 00 00 00
         02 00 00 00 00 00 00 00 00 01 00 00 00 00 04 00
         66 00 6F 00 6F 00 33 00 00 00 00 02 26 02 00",
    );
    let parameter =
        Parameter { flags: ParamFlags::DEFAULT, ..Parameter::new("", TypeInfo::IntN(2), Value::Null) };
    let request = RpcRequest {
        headers: Some(example_headers()),
        ..RpcRequest::one(Procedure::Name("foo3".into()), vec![parameter])
    };
    assert_eq!(RpcRequest::read(&bytes, DIALECT).as_ref(), Ok(&request));
    let mut out = Vec::new();
    request.write(&mut out, DIALECT).unwrap();
    assert_eq!(out, bytes);
}

#[test]
fn a_procedures_response_4_9() {
    let bytes = payload(
        "04 01 00 27 00 00 01 00 FF 11 00 C1 00 01 00 00
         00 00 00 00 00 79 00 00 00 00 FE 00 00 E0 00 00
         00 00 00 00 00 00 00",
    );
    let more = DoneStatus::MORE.with(DoneStatus::COUNT);
    let in_proc = Done { kind: DoneKind::DoneInProc, status: more, current_command: 0xC1, rows: 1 };
    let done = Done { kind: DoneKind::DoneProc, status: DoneStatus::FINAL, current_command: 0xE0, rows: 0 };
    assert_eq!(scanned(&bytes), [Event::Done(in_proc), Event::ReturnStatus(0), Event::Done(done)]);
}

#[test]
fn a_bulk_load_4_12() {
    let bytes = payload(
        "07 01 00 26 00 00 01 00 81 01 00 00 00 00 00 05
         00 32 02 63 00 31 00 D1 00 FD 00 00 00 00 00 00
         00 00 00 00 00 00",
    );
    let flags = ColumnFlags::NULLABLE.with(ColumnFlags::READ_WRITE);
    let columns = ColMetadata::new(vec![Column::new("c1", TypeInfo::Bit).with_flags(flags)]);
    let done = Done { kind: DoneKind::Done, status: DoneStatus::FINAL, current_command: 0, rows: 0 };
    let mut reader = BulkReader::new(DIALECT, 1000);
    let mut input = BytesMut::from(&bytes[..]);
    assert_eq!(reader.read(&mut input), Ok(Some(BulkItem::Columns(columns))));
    assert_eq!(reader.read(&mut input), Ok(Some(BulkItem::Row(vec![Value::Bit(false)]))));
    assert_eq!(reader.read(&mut input), Ok(Some(BulkItem::Done(done))));
    assert_eq!(reader.read(&mut input), Ok(None));
    assert!(input.is_empty());
}

/// The example says that it promotes a transaction, but its type is 16 hexadecimal instead of 6: it shows what a type
/// that nobody knows looks like.
#[test]
fn a_transaction_manager_request_4_13() {
    let bytes = payload(
        "0E 01 00 20 00 00 01 00 16 00 00 00
         12 00 00 00 02 00 00 00 00 00 00 00
         00 01 00 00 00 00 16 00",
    );
    let (headers, request) = TransactionRequest::read(&bytes, DIALECT).unwrap();
    assert_eq!(headers, Some(example_headers()));
    assert_eq!(request, TransactionRequest::Other { kind: 0x16, payload: vec![] });
    let mut out = Vec::new();
    request.write(&mut out, &example_headers(), DIALECT);
    assert_eq!(out, bytes);
}

#[test]
fn a_table_valued_parameter_4_14() {
    let bytes = payload(
        "03 01 00 52 00 00 01 00 16 00 00 00
         12 00 00 00 02 00 00 00 00 00 00 00
         00 00 00 00 00 01 03 00 66 00 6F 00
         6F 00 00 00 00 00 F3 00 03 64 00 62
         00 6F 00 07 74 00 76 00 70 00 74 00
         79 00 70 00 65 00 01 00 00 00 00 00
         00 00 26 01 00 00 01 01 02 00",
    );
    let column = TableColumn {
        user_type: 0,
        flags: ColumnFlags::default(),
        type_info: TypeInfo::IntN(1),
        name: String::new(),
    };
    let table = TableType {
        schema: "dbo".into(),
        name: "tvptype".into(),
        columns: Some(vec![column]),
        ..TableType::default()
    };
    let rows = Value::Table(vec![vec![Value::TinyInt(2)]]);
    let transaction = TransactionDescriptor { descriptor: 0, outstanding_requests: 1 << 24 };
    let request = RpcRequest {
        headers: Some(AllHeaders { transaction: Some(transaction), ..AllHeaders::default() }),
        calls: vec![Call {
            procedure: Procedure::Name("foo".into()),
            options: CallOptions::default(),
            enclave: Default::default(),
            parameters: vec![Parameter::new("", TypeInfo::Table(Box::new(table)), rows)],
            separator: None,
        }],
    };
    assert_eq!(RpcRequest::read(&bytes, DIALECT).as_ref(), Ok(&request));
    let mut out = Vec::new();
    request.write(&mut out, DIALECT).unwrap();
    assert_eq!(out, bytes);
}

#[test]
fn sparse_columns_4_15() {
    let bytes = payload(
        "04 01 01 B9 00 00 01 00 81 02 00 00 00 00 00 09 00
         26 04 02 69 00 64 00 00 00 00 00 0B 04 F1 00 11 73
         00 70 00 61 00 72 00 73 00 65 00 50 00 72 00 6F 00
         70 00 65 00 72 00 74 00 79 00 53 00 65 00 74 00 D1
         04 01 00 00 00 FE FF FF FF FF FF FF FF 7A 00 00 00
         3C 00 73 00 70 00 61 00 72 00 73 00 65 00 50 00 72
         00 6F 00 70 00 31 00 3E 00 31 00 30 00 30 00 30 00
         3C 00 2F 00 73 00 70 00 61 00 72 00 73 00 65 00 50
         00 72 00 6F 00 70 00 31 00 3E 00 3C 00 73 00 70 00
         61 00 72 00 73 00 65 00 50 00 72 00 6F 00 70 00 32
         00 3E 00 66 00 6F 00 6F 00 3C 00 2F 00 73 00 70 00
         61 00 72 00 73 00 65 00 50 00 72 00 6F 00 70 00 32
         00 3E 00 00 00 00 00 D1 04 02 00 00 00 FE FF FF FF
         FF FF FF FF 3E 00 00 00 3C 00 73 00 70 00 61 00 72
         00 73 00 65 00 50 00 72 00 6F 00 70 00 31 00 3E 00
         31 00 30 00 30 00 30 00 3C 00 2F 00 73 00 70 00 61
         00 72 00 73 00 65 00 50 00 72 00 6F 00 70 00 31
         00 3E 00 00 00 00 00 D1 04 03 00 00 00 FE FF FF
         FF FF FF FF FF 3E 00 00 00 3C 00 73 00 70 00 61
         00 72 00 73 00 65 00 50 00 72 00 6F 00 70 00 32
         00 3E 00 61 00 62 00 63 00 64 00 3C 00 2F 00 73
         00 70 00 61 00 72 00 73 00 65 00 50 00 72 00 6F
         00 70 00 32 00 3E 00 00 00 00 00 D2 02 04 04 00
         00 00 D2 02 04 05 00 00 00 D2 02 04 06 00 00 00
         D2 02 04 07 00 00 00 D2 02 04 08 00 00 00 D2 02
         04 09 00 00 00 D2 02 04 0A 00 00 00 FD 10 00 C1
         00 0A 00 00 00 00 00 00 00",
    );
    let mut reader = Reader::new(&bytes, "a test");
    assert_eq!(reader.u8(), Ok(TokenKind::COL_METADATA.0));
    let columns = ColMetadata::read(&mut reader, DIALECT).unwrap().unwrap().columns;
    assert_eq!(columns[0].name, "id");
    assert_eq!(columns[1].name, "sparsePropertySet");
    assert_eq!(columns[1].type_info, TypeInfo::Xml(None));
    assert!(columns[1].flags.contains(ColumnFlags::SPARSE_COLUMN_SET));
    let mut rows = Vec::new();
    loop {
        match TokenKind(reader.u8().unwrap()) {
            TokenKind::ROW => rows.push(row::read(&mut reader, &columns).unwrap()),
            TokenKind::NBC_ROW => rows.push(row::read_nbc(&mut reader, &columns).unwrap()),
            _ => break,
        }
    }
    let xml = |text: &str| Value::Xml(text.into());
    let expected = [
        xml("<sparseProp1>1000</sparseProp1><sparseProp2>foo</sparseProp2>"),
        xml("<sparseProp1>1000</sparseProp1>"),
        xml("<sparseProp2>abcd</sparseProp2>"),
    ];
    assert_eq!(rows.len(), 10);
    for (at, row) in rows.iter().enumerate() {
        assert_eq!(row[0], Value::Int(at as i32 + 1));
        assert_eq!(row[1], expected.get(at).cloned().unwrap_or_default());
    }
    let done = Done { kind: DoneKind::Done, status: DoneStatus::COUNT, current_command: 0xC1, rows: 10 };
    assert_eq!(scanned(&bytes), [Event::Done(done)]);

    let mut nbc = Vec::new();
    row::write_nbc(&mut nbc, &columns, &rows[9]).unwrap();
    assert!(bytes.windows(nbc.len()).any(|window| window == nbc));
}

#[test]
fn a_session_state_4_18() {
    let bytes = payload(
        "04 01 00 32 00 00 01 00 FD 01 00 BE 00 00 00 00
         00 00 00 00 00 E4 0B 00 00 00 01 00 00 00 01 09
         04 FF FF FF FF FD 00 00 FD 00 00 00 00 00 00 00
         00 00",
    );
    let events = scanned(&bytes);
    let Event::SessionState(state) = &events[1] else { panic!("{events:?}") };
    assert_eq!((state.sequence, state.recoverable, state.data), (1, true, &[9, 4, 255, 255, 255, 255][..]));
}

/// What the scanner reports, which must be the same in one piece and byte by byte.
fn scanned(bytes: &[u8]) -> Vec<Event<'static>> {
    let mut whole = Vec::new();
    let mut scanner = ResponseScanner::new(DIALECT);
    scanner.feed(bytes, |scanned| whole.push(owned(scanned.event)));
    assert!(scanner.is_between_tokens());
    let mut pieces = Vec::new();
    scanner.restart();
    for byte in bytes {
        scanner.feed(&[*byte], |scanned| pieces.push(owned(scanned.event)));
    }
    assert!(scanner.is_between_tokens());
    assert_eq!(whole, pieces);
    whole
}

/// The tests may leak: nothing here lives long.
fn owned(event: Event<'_>) -> Event<'static> {
    match event {
        Event::Done(done) => Event::Done(done),
        Event::ReturnStatus(status) => Event::ReturnStatus(status),
        Event::SessionState(state) => Event::SessionState(tds::session_state::SessionState {
            data: state.data.to_vec().leak(),
            ..state
        }),
        other => panic!("not in these examples: {other:?}"),
    }
}

/// Examples 4.4, 4.5, 4.17 and 4.21: the payload of each packet.
#[test]
fn login_responses_4_4_to_4_21() {
    let examples = [
        include_str!("logins/4_4_response.hex"),
        include_str!("logins/4_5_response_fed_auth.hex"),
        include_str!("logins/4_17_response_session_recovery.hex"),
        include_str!("logins/4_21_response_azure.hex"),
    ];
    for (at, hex) in examples.into_iter().enumerate() {
        let bytes = payload(hex);
        let mut found = Vec::new();
        let mut scanner = ResponseScanner::new(DIALECT);
        for piece in bytes.chunks(7) {
            scanner.feed(piece, |scanned| {
                found.push(match scanned.event {
                    Event::LoginAck => "login acknowledged",
                    Event::FeatureExtAck => "features",
                    Event::EnvChange(_) => "change",
                    Event::Message { is_error: false, .. } => "info",
                    Event::Done(_) => "done",
                    other => panic!("example {at}: {other:?}"),
                });
            });
        }
        assert!(scanner.is_between_tokens());
        assert!(found.contains(&"login acknowledged"), "example {at}");
        assert_eq!(found.contains(&"features"), at > 0, "example {at}");
        assert_eq!(found.last(), Some(&"done"), "example {at}");
    }
}
