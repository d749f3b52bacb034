//! How many bytes of response per second does the scanner follow, by the shape of the rows?
//!
//! The question behind it: is following every response affordable next to reading and writing its bytes? Each
//! response has 4 MiB and comes in the payloads of packets of 4,096 bytes, as most clients negotiate them.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tds::col_metadata::{ColMetadata, Column};
use tds::done::{Done, DoneKind, DoneStatus};
use tds::scan::{Event, ResponseScanner};
use tds::type_info::{Collation, MAX, TypeInfo};
use tds::value::{Value, plp};
use tds::{Dialect, TdsVersion, row};

const DIALECT: Dialect = Dialect { version: TdsVersion::V7_4, column_encryption: 0, data_classification: 0 };
const RESPONSE: usize = 4 << 20;
const PACKET_PAYLOAD: usize = 4096 - 8;

/// A response of one result set, whose rows `write` appends one by one.
fn response(columns: Vec<Column>, mut write: impl FnMut(&mut Vec<u8>, &[Column])) -> Vec<u8> {
    let mut out = Vec::with_capacity(RESPONSE + (1 << 20));
    let metadata = ColMetadata::new(columns);
    metadata.write(&mut out, DIALECT);
    let mut rows = 0;
    while out.len() < RESPONSE {
        write(&mut out, &metadata.columns);
        rows += 1;
    }
    let done = Done { kind: DoneKind::Done, status: DoneStatus::COUNT, current_command: 0xC1, rows };
    done.write(&mut out, DIALECT.version);
    out
}

fn rows_of(columns: Vec<Column>, values: &[Value], nbc: bool) -> Vec<u8> {
    response(columns, |out, columns| {
        let write = if nbc { row::write_nbc } else { row::write };
        write(out, columns, values).expect("the values fit");
    })
}

fn shapes() -> Vec<(&'static str, Vec<u8>)> {
    let fixed = || vec![Column::new("id", TypeInfo::Int), Column::new("n", TypeInfo::BigInt)];
    let narrow = || {
        vec![
            Column::new("id", TypeInfo::IntN(4)),
            Column::new("name", TypeInfo::nvarchar(20, Collation::LATIN1)),
            Column::new("at", TypeInfo::DateTime2(7)),
        ]
    };
    let narrow_values = [
        Value::Int(7),
        Value::String("a short name".into()),
        Value::DateTime2 { days: 738_000, ticks: 430_000_000_000 },
    ];
    let wide: Vec<Column> = (0..10).flat_map(|_| narrow()).collect();
    let wide_values: Vec<Value> = (0..10).flat_map(|_| narrow_values.clone()).collect();
    let mut mostly_null = vec![Value::Null; 30];
    mostly_null[3] = Value::Int(1);
    let max = vec![Column::new("document", TypeInfo::VarBinary(MAX))];
    let chunk = vec![0xFD; 8000];
    vec![
        ("narrow fixed rows", rows_of(fixed(), &[Value::Int(1), Value::BigInt(2)], false)),
        ("narrow rows", rows_of(narrow(), &narrow_values, false)),
        ("wide rows", rows_of(wide.clone(), &wide_values, false)),
        ("wide rows of nulls", rows_of(wide, &mostly_null, true)),
        ("chunked values", {
            let document = chunk.repeat(20);
            response(max, |out, _| {
                out.push(0xD1);
                plp::write_unknown_length(out, &document, chunk.len());
            })
        }),
    ]
}

fn scan(c: &mut Criterion) {
    let mut group = c.benchmark_group("scan");
    for (name, bytes) in shapes() {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(name), &bytes, |b, bytes| {
            let mut scanner = ResponseScanner::new(DIALECT);
            b.iter(|| {
                let mut rows = 0;
                for payload in bytes.chunks(PACKET_PAYLOAD) {
                    scanner.feed(black_box(payload), |scanned| {
                        if let Event::Done(done) = scanned.event {
                            rows = done.rows;
                        }
                    });
                }
                assert!(scanner.is_between_tokens() && rows > 0);
                scanner.restart();
                rows
            });
        });
    }
    group.finish();
}

criterion_group!(benches, scan);
criterion_main!(benches);
