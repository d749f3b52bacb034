//! What the answerer says to which request, made once.

use std::io;

use bytes::{BufMut, BytesMut};
use tds::col_metadata::{ColMetadata, Column};
use tds::done::{Done, DoneKind, DoneStatus};
use tds::env_change::EnvChange;
use tds::packet::{HEADER_LEN, PacketHeader, PacketType, Status};
use tds::request::{SqlBatch, TransactionRequest};
use tds::type_info::{Collation, TypeInfo};
use tds::value::Value;
use tds::{Dialect, TdsVersion, row};
use tdsbouncer_loadgen::wire::Wire;

const DIALECT: Dialect = Dialect { version: TdsVersion::V7_4, column_encryption: 0, data_classification: 0 };
/// Bytes of a packet, header included: what most drivers agree on.
const PACKET: usize = 4096;
/// Bytes of rows that are made once and sent again and again.
const BLOCK: usize = 1 << 20;

pub(crate) struct Answers {
    /// One row with one number.
    one: Vec<u8>,
    /// A procedure's: a row, a return status.
    called: Vec<u8>,
    large: Vec<Large>,
}

/// The packets of a result of any length: beginning, rows as often as wanted, end.
struct Large {
    name: &'static str,
    begin: Vec<u8>,
    block: Vec<u8>,
    end: Vec<u8>,
}

impl Answers {
    pub(crate) fn new() -> Self {
        Self {
            one: one_row(&Done {
                kind: DoneKind::Done,
                status: DoneStatus::COUNT,
                current_command: 0xC1,
                rows: 1,
            }),
            called: called(),
            large: vec![large("narrow", narrow()), large("wide", wide())],
        }
    }

    /// Answers one request. Known are `SELECT 1`, `ROWS <shape> <MiB>`, calls, and what begins and ends
    /// transactions; whatever else is asked has no rows.
    pub(crate) async fn send(
        &self,
        request: &[u8],
        kind: PacketType,
        reset: bool,
        transaction: &mut u64,
        wire: &mut Wire,
    ) -> io::Result<()> {
        let mut tokens = Vec::with_capacity(64);
        if reset {
            EnvChange::ResetDone.write(&mut tokens);
            if *transaction != 0 {
                *transaction = 0;
            }
        }
        match kind {
            PacketType::RPC => tokens.extend_from_slice(&self.called),
            PacketType::TRANSACTION_MANAGER => {
                let (_, asked) = TransactionRequest::read(request, DIALECT).map_err(io::Error::other)?;
                match asked {
                    TransactionRequest::Begin(_) => begin(transaction, &mut tokens),
                    TransactionRequest::Commit { .. } | TransactionRequest::Rollback { .. } => {
                        end(transaction, &mut tokens);
                    }
                    _ => {}
                }
                done(&mut tokens);
            }
            PacketType::SQL_BATCH => {
                let text = &request[SqlBatch::text_offset(request, DIALECT).map_err(io::Error::other)?..];
                if starts_with(text, "SELECT 1") {
                    tokens.extend_from_slice(&self.one);
                } else if starts_with(text, "ROWS ") {
                    return self.send_large(text, wire).await;
                } else {
                    if starts_with(text, "BEGIN TRAN") {
                        begin(transaction, &mut tokens);
                    } else if starts_with(text, "COMMIT") || starts_with(text, "ROLLBACK") {
                        end(transaction, &mut tokens);
                    }
                    done(&mut tokens);
                }
            }
            _ => done(&mut tokens),
        }
        let mut out = BytesMut::with_capacity(tokens.len() + HEADER_LEN);
        packet(&mut out, &tokens, Status::END_OF_MESSAGE);
        wire.send(&out).await
    }

    async fn send_large(&self, text: &[u8], wire: &mut Wire) -> io::Result<()> {
        let text: String = text.chunks(2).map(|unit| char::from(unit[0])).collect();
        let mut words = text.split(' ').skip(1);
        let (shape, count) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let unknown = || io::Error::other("no such rows");
        let large = self.large.iter().find(|large| large.name == shape).ok_or_else(unknown)?;
        let count: u32 = count.parse().map_err(io::Error::other)?;
        wire.send(&large.begin).await?;
        for _ in 0..count {
            wire.send(&large.block).await?;
        }
        wire.send(&large.end).await
    }
}

fn starts_with(text: &[u8], words: &str) -> bool {
    text.len() >= 2 * words.len()
        && words.bytes().zip(text.chunks_exact(2)).all(|(wanted, unit)| unit == [wanted, 0])
}

fn begin(transaction: &mut u64, tokens: &mut Vec<u8>) {
    *transaction = 7;
    EnvChange::BeginTransaction(7).write(tokens);
}

fn end(transaction: &mut u64, tokens: &mut Vec<u8>) {
    if *transaction != 0 {
        EnvChange::CommitTransaction(*transaction).write(tokens);
        *transaction = 0;
    }
}

fn done(tokens: &mut Vec<u8>) {
    let done = Done { kind: DoneKind::Done, status: DoneStatus::FINAL, current_command: 0, rows: 0 };
    done.write(tokens, DIALECT.version);
}

fn one_row(done: &Done) -> Vec<u8> {
    let metadata = ColMetadata::new(vec![Column::new("n", TypeInfo::Int)]);
    let mut out = Vec::new();
    metadata.write(&mut out, DIALECT);
    row::write(&mut out, &metadata.columns, &[Value::Int(1)]).expect("a number is a number");
    done.write(&mut out, DIALECT.version);
    out
}

fn called() -> Vec<u8> {
    let more = DoneStatus::COUNT.with(DoneStatus::MORE);
    let mut out = one_row(&Done { kind: DoneKind::DoneInProc, status: more, current_command: 0xC1, rows: 1 });
    out.put_u8(0x79);
    out.put_u32_le(0);
    let end = Done { kind: DoneKind::DoneProc, status: DoneStatus::FINAL, current_command: 0xE0, rows: 0 };
    end.write(&mut out, DIALECT.version);
    out
}

fn narrow() -> (Vec<Column>, Vec<Value>) {
    let columns = vec![
        Column::new("id", TypeInfo::IntN(4)),
        Column::new("name", TypeInfo::nvarchar(20, Collation::LATIN1)),
        Column::new("at", TypeInfo::DateTime2(7)),
    ];
    let values = vec![
        Value::Int(7),
        Value::String("a short name".into()),
        Value::DateTime2 { days: 738_000, ticks: 430_000_000_000 },
    ];
    (columns, values)
}

/// 31 columns, among them one long value: 2,408 bytes a row, a length of which few rows fill whole packets.
fn wide() -> (Vec<Column>, Vec<Value>) {
    const ROW: usize = 2408;
    let (columns, values) = narrow();
    let mut wide = (vec![columns; 10].concat(), vec![values; 10].concat());
    wide.0.push(Column::new("note", TypeInfo::varbinary(4000)));
    wide.1.push(Value::Bytes(Vec::new()));
    let short = row_bytes(&wide.0, &wide.1).len();
    wide.1[30] = Value::Bytes(vec![0xFD; ROW - short]);
    wide
}

fn row_bytes(columns: &[Column], values: &[Value]) -> Vec<u8> {
    let mut out = Vec::new();
    row::write(&mut out, columns, values).expect("the values fit");
    out
}

/// Packets are filled to the last byte, as servers do: rows begin anywhere in them.
fn large(name: &'static str, (columns, values): (Vec<Column>, Vec<Value>)) -> Large {
    let metadata = ColMetadata::new(columns);
    let mut head = Vec::new();
    metadata.write(&mut head, DIALECT);
    let one = row_bytes(&metadata.columns, &values);
    let payload = PACKET - HEADER_LEN;
    // As many rows as fill whole packets, so that the block can be sent again and again.
    let rows = one.repeat(payload / greatest_common_divisor(one.len(), payload));
    let times = (BLOCK / rows.len()).max(1);
    let mut block = BytesMut::new();
    for chunk in rows.repeat(times).chunks(payload) {
        packet(&mut block, chunk, Status::NORMAL);
    }
    let (mut begin, mut end, mut tail) = (BytesMut::new(), BytesMut::new(), Vec::new());
    packet(&mut begin, &head, Status::NORMAL);
    done(&mut tail);
    packet(&mut end, &tail, Status::END_OF_MESSAGE);
    Large { name, begin: begin.to_vec(), block: block.to_vec(), end: end.to_vec() }
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

fn packet(out: &mut BytesMut, payload: &[u8], status: Status) {
    let header = PacketHeader {
        kind: PacketType::RESPONSE,
        status,
        length: u16::try_from(payload.len() + HEADER_LEN).unwrap_or(u16::MAX),
        spid: 51,
        id: 1,
        window: 0,
    };
    out.put_slice(&header.encode());
    out.put_slice(payload);
}
