//! What is written is what is read, for everything that has both directions.

mod generated;

use bytes::BytesMut;
use generated::request::{all_headers, enclave, headers, rpc_request};
use proptest::collection::vec;
use proptest::prelude::*;
use tds::col_metadata::ColMetadata;
use tds::done::{Done, DoneKind, DoneStatus};
use tds::read::Reader;
use tds::request::bulk_load::{BulkItem, BulkReader};
use tds::request::{BeginTransaction, IsolationLevel, SqlBatch, TransactionRequest};
use tds::return_value::ReturnValue;
use tds::rpc::{RpcReader, RpcRequest};
use tds::type_info::{Place, TypeInfo};
use tds::value::Value;
use tds::{Dialect, Malformed, row, value};

fn transaction_request() -> impl Strategy<Value = TransactionRequest> {
    let name = || "\\PC{0,30}";
    let begin = || {
        (any::<u8>(), name())
            .prop_map(|(level, name)| BeginTransaction { isolation: IsolationLevel(level), name })
    };
    prop_oneof![
        vec(any::<u8>(), 0..40).prop_map(TransactionRequest::GetDtcAddress),
        vec(any::<u8>(), 0..40).prop_map(TransactionRequest::Propagate),
        begin().prop_map(TransactionRequest::Begin),
        Just(TransactionRequest::Promote),
        (name(), proptest::option::of(begin()))
            .prop_map(|(name, begin)| TransactionRequest::Commit { name, begin }),
        (name(), proptest::option::of(begin()))
            .prop_map(|(name, begin)| TransactionRequest::Rollback { name, begin }),
        name().prop_map(|name| TransactionRequest::Save { name }),
        (10u16.., vec(any::<u8>(), 0..9))
            .prop_map(|(kind, payload)| TransactionRequest::Other { kind, payload }),
    ]
}

/// Panics where what is whole in `bytes` differs from `request`.
fn compare(bytes: &[u8], dialect: Dialect, request: &RpcRequest) -> Result<(), Malformed> {
    let mut reader = RpcReader::new(bytes, dialect)?;
    for call in &request.calls {
        let Some(head) = reader.next_call()? else { return Ok(()) };
        assert_eq!(head.procedure, call.procedure);
        for parameter in &call.parameters {
            let Some(raw) = reader.next_parameter()? else { return Ok(()) };
            assert_eq!(&raw.parameter()?, parameter);
        }
    }
    Ok(())
}

/// A type, a value of it, and how they are spoken.
fn typed_value() -> impl Strategy<Value = (Dialect, TypeInfo, Value)> {
    generated::dialect()
        .prop_flat_map(|dialect| (Just(dialect), generated::type_info(dialect, false)))
        .prop_flat_map(|(dialect, type_info)| {
            let value = generated::value(&type_info);
            (Just(dialect), Just(type_info), value)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn types_and_values((dialect, type_info, value) in typed_value()) {
        let mut out = Vec::new();
        type_info.write(&mut out, dialect);
        value.write(&mut out, &type_info).unwrap();
        let mut reader = Reader::new(&out, "a test");
        prop_assert_eq!(&TypeInfo::read(&mut reader, dialect, Place::Column).unwrap(), &type_info);
        let mut skipping = reader;
        prop_assert_eq!(&Value::read(&mut reader, &type_info).unwrap(), &value);
        prop_assert!(reader.is_empty());
        value::skip(&mut skipping, &type_info).unwrap();
        prop_assert!(skipping.is_empty());

        let mut cell = Vec::new();
        value.write_cell(&mut cell, &type_info).unwrap();
        let mut reader = Reader::new(&cell, "a test");
        prop_assert_eq!(&Value::read_cell(&mut reader, &type_info).unwrap(), &value);
        prop_assert!(reader.is_empty());
    }

    #[test]
    fn a_type_and_value_cut_anywhere_are_truncated((dialect, type_info, value) in typed_value()) {
        let mut out = Vec::new();
        type_info.write(&mut out, dialect);
        value.write(&mut out, &type_info).unwrap();
        for end in 0..out.len() {
            let mut reader = Reader::new(&out[..end], "a test");
            let read = TypeInfo::read(&mut reader, dialect, Place::Column)
                .and_then(|type_info| Value::read(&mut reader, &type_info));
            prop_assert!(matches!(read, Err(Malformed::Truncated { .. })), "{} of {}", end, out.len());
        }
    }

    #[test]
    fn any_bytes_are_a_value_or_an_error(
        bytes in vec(any::<u8>(), 0..200),
        dialect in generated::dialect(),
    ) {
        for place in [Place::Column, Place::Parameter] {
            let mut reader = Reader::new(&bytes, "a test");
            if let Ok(type_info) = TypeInfo::read(&mut reader, dialect, place) {
                let mut skipping = reader;
                let skipped = value::skip(&mut skipping, &type_info);
                if Value::read(&mut reader, &type_info).is_ok() {
                    prop_assert!(skipped.is_ok());
                    prop_assert_eq!(reader.position(), skipping.position());
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn result_sets(
        (dialect, (metadata, rows)) in
            generated::dialect().prop_flat_map(|dialect| (Just(dialect), generated::result_set(dialect))),
    ) {
        let mut out = Vec::new();
        metadata.write(&mut out, dialect);
        let mut reader = Reader::new(&out[1..], "a test");
        prop_assert_eq!(ColMetadata::read(&mut reader, dialect), Ok(Some(metadata.clone())));
        prop_assert!(reader.is_empty());
        let columns = &metadata.columns;
        for row in rows {
            let (mut plain, mut nbc) = (Vec::new(), Vec::new());
            row::write(&mut plain, columns, &row).unwrap();
            row::write_nbc(&mut nbc, columns, &row).unwrap();
            for (bytes, is_nbc) in [(&plain, false), (&nbc, true)] {
                let mut reader = Reader::new(&bytes[1..], "a test");
                let mut skipping = reader;
                let read = if is_nbc { row::read_nbc } else { row::read };
                prop_assert_eq!(&read(&mut reader, columns).unwrap(), &row);
                prop_assert!(reader.is_empty());
                let skip = if is_nbc { row::skip_nbc } else { row::skip };
                skip(&mut skipping, columns).unwrap();
                prop_assert!(skipping.is_empty());
            }
        }
    }

    #[test]
    fn return_values(
        (dialect, token) in generated::dialect()
            .prop_flat_map(|dialect| (Just(dialect), generated::return_value(dialect))),
    ) {
        let mut out = Vec::new();
        token.write(&mut out, dialect).unwrap();
        let mut reader = Reader::new(&out[1..], "a test");
        prop_assert_eq!(ReturnValue::read(&mut reader, dialect), Ok(token));
        prop_assert!(reader.is_empty());
    }

    #[test]
    fn procedure_calls((dialect, request) in rpc_request()) {
        let mut out = Vec::new();
        request.write(&mut out, dialect).unwrap();
        prop_assert_eq!(&RpcRequest::read(&out, dialect).unwrap(), &request);
    }

    #[test]
    fn a_call_can_be_put_together_again_from_its_raw_parameters((dialect, request) in rpc_request()) {
        let mut out = Vec::new();
        request.write(&mut out, dialect).unwrap();
        let mut reader = RpcReader::new(&out, dialect).unwrap();
        let mut at = None;
        while let Some(head) = reader.next_call().unwrap() {
            if let Some(at) = at.replace(head.offset) {
                prop_assert!(at < head.offset);
            }
            let mut end = head.parameters_offset;
            while let Some(raw) = reader.next_parameter().unwrap() {
                prop_assert_eq!(&out[end..end + raw.bytes.len()], raw.bytes);
                prop_assert!(raw.bytes.ends_with(raw.unnamed));
                end += raw.bytes.len();
            }
            prop_assert_eq!(end + usize::from(reader.separator().is_some()), reader.position());
        }
        prop_assert_eq!(reader.position(), out.len());
    }

    #[test]
    fn the_beginning_of_a_call_says_what_it_holds((dialect, request) in rpc_request(), cut: prop::sample::Index) {
        let mut out = Vec::new();
        request.write(&mut out, dialect).unwrap();
        let cut = cut.index(out.len());
        match compare(&out[..cut], dialect, &request) {
            Ok(()) | Err(Malformed::Truncated { .. }) => {}
            Err(error) => prop_assert!(false, "{error:?}"),
        }
    }

    #[test]
    fn batches(
        (dialect, headers, enclave) in generated::dialect()
            .prop_flat_map(|dialect| (Just(dialect), headers(dialect), enclave(dialect))),
        text in "\\PC{0,200}",
    ) {
        let batch = SqlBatch { headers, enclave, text };
        let mut out = Vec::new();
        batch.write(&mut out, dialect);
        prop_assert_eq!(&SqlBatch::read(&out, dialect).unwrap(), &batch);
        let offset = SqlBatch::text_offset(&out, dialect).unwrap();
        prop_assert_eq!(out.len() - offset, batch.text.encode_utf16().count() * 2);
    }

    #[test]
    fn transaction_requests(
        dialect in generated::dialect(),
        headers in all_headers(),
        request in transaction_request(),
    ) {
        let mut out = Vec::new();
        request.write(&mut out, &headers, dialect);
        let expected = (dialect.is_7_2_or_later().then_some(headers), request);
        prop_assert_eq!(TransactionRequest::read(&out, dialect), Ok(expected));
    }

    #[test]
    fn bulk_loads_in_any_chunking(
        (dialect, (metadata, rows)) in generated::dialect()
            .prop_flat_map(|dialect| (Just(dialect), generated::result_set(dialect)))
            .prop_filter("no columns, no rows", |(_, (metadata, _))| !metadata.columns.is_empty())
            .prop_filter("refused", |(_, (metadata, _))| {
                metadata.columns.iter().all(|column| column.type_info != TypeInfo::Null)
            }),
        chunks in vec(1usize..50, 1..20),
    ) {
        let mut metadata = metadata;
        for table in metadata.columns.iter_mut().filter_map(|column| column.table.as_mut()) {
            *table = vec![table.join("_")];
        }
        let mut out = Vec::new();
        metadata.write_of_bulk_load(&mut out, dialect);
        for row in &rows {
            row::write(&mut out, &metadata.columns, row).unwrap();
        }
        let done = Done { kind: DoneKind::Done, status: DoneStatus::FINAL, current_command: 0, rows: 0 };
        done.write(&mut out, dialect.version);
        let mut expected = vec![BulkItem::Columns(metadata)];
        expected.extend(rows.into_iter().map(BulkItem::Row));
        expected.push(BulkItem::Done(done));

        let mut reader = BulkReader::new(dialect, out.len());
        let (mut input, mut rest, mut found) = (BytesMut::new(), &out[..], Vec::new());
        for len in chunks.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at((*len).min(rest.len()));
            input.extend_from_slice(now);
            rest = later;
            while let Some(item) = reader.read(&mut input).unwrap() {
                found.push(item);
            }
        }
        prop_assert!(input.is_empty());
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn any_bytes_are_requests_or_errors(bytes in vec(any::<u8>(), 0..300), dialect in generated::dialect()) {
        let _ = RpcRequest::read(&bytes, dialect);
        let _ = SqlBatch::read(&bytes, dialect);
        let _ = TransactionRequest::read(&bytes, dialect);
        let mut input = BytesMut::from(&bytes[..]);
        let mut reader = BulkReader::new(dialect, 1000);
        while let Ok(Some(_)) = reader.read(&mut input) {}
    }
}
