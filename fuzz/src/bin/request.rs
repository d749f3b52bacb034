//! Requests: calls, batches, transaction requests and bulk loads. What is read is written and read again as the same;
//! bulk loads give the same items in any chunking.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use tds::request::bulk_load::BulkReader;
use tds::request::{AllHeaders, SqlBatch, TransactionRequest};
use tds::rpc::{RpcReader, RpcRequest};
use tds::{Dialect, TdsVersion};

fn dialect(choice: u8) -> Dialect {
    let plain = |version| Dialect { version, column_encryption: 0, data_classification: 0 };
    match choice % 5 {
        0 => plain(TdsVersion::V7_0),
        1 => plain(TdsVersion::V7_1_SP1),
        2 => plain(TdsVersion::V7_2),
        3 => Dialect { column_encryption: 2, ..plain(TdsVersion::V7_4) },
        _ => plain(TdsVersion::V7_4),
    }
}

fn rpc(payload: &[u8], dialect: Dialect) {
    let mut raw = 0;
    if let Ok(mut reader) = RpcReader::new(payload, dialect) {
        while let Ok(Some(_)) = reader.next_call() {
            while let Ok(Some(parameter)) = reader.next_parameter() {
                assert!(parameter.bytes.len() > parameter.unnamed.len());
                raw += 1;
            }
        }
    }
    let Ok(request) = RpcRequest::read(payload, dialect) else { return };
    assert_eq!(request.calls.iter().map(|call| call.parameters.len()).sum::<usize>(), raw);
    let mut out = vec![];
    if request.write(&mut out, dialect).is_ok() {
        let again = RpcRequest::read(&out, dialect).expect("what was written");
        // Not compared as values: NaN differs from itself.
        let mut twice = vec![];
        again.write(&mut twice, dialect).expect("what was read");
        assert_eq!(out, twice);
    }
}

fn batch(payload: &[u8], dialect: Dialect) {
    let Ok(batch) = SqlBatch::read(payload, dialect) else { return };
    assert!(SqlBatch::text_offset(payload, dialect).is_ok());
    let mut out = vec![];
    batch.write(&mut out, dialect);
    assert_eq!(SqlBatch::read(&out, dialect), Ok(batch));
}

fn transaction(payload: &[u8], dialect: Dialect) {
    let Ok((headers, request)) = TransactionRequest::read(payload, dialect) else { return };
    let mut out = vec![];
    request.write(&mut out, headers.as_ref().unwrap_or(&AllHeaders::default()), dialect);
    assert_eq!(TransactionRequest::read(&out, dialect), Ok((headers, request)));
}

/// The items as text, and whether it ended with an error.
fn bulk_load(payload: &[u8], dialect: Dialect, chunk: usize) -> (Vec<String>, bool) {
    let mut reader = BulkReader::new(dialect, 1 << 16);
    let (mut input, mut items) = (BytesMut::new(), vec![]);
    for piece in payload.chunks(chunk) {
        input.extend_from_slice(piece);
        loop {
            match reader.read(&mut input) {
                Ok(Some(item)) => items.push(format!("{item:?}")),
                Ok(None) => break,
                Err(_) => return (items, true),
            }
        }
    }
    (items, false)
}

fuzz_target!(|data: &[u8]| {
    let [first, second, payload @ ..] = data else { return };
    let dialect = dialect(*first);
    match first >> 6 {
        0 => rpc(payload, dialect),
        1 => batch(payload, dialect),
        2 => transaction(payload, dialect),
        _ => {
            let whole = bulk_load(payload, dialect, payload.len().max(1));
            assert_eq!(bulk_load(payload, dialect, usize::from(*second) + 1), whole);
        }
    }
});
