//! What a client asks for, before it is bytes: handles and transactions are the run's own, so the same script can run
//! at two servers that number them differently.

use bytes::BytesMut;
use tds::Dialect;
use tds::col_metadata::{ColMetadata, Column, ColumnFlags};
use tds::done::{Done, DoneKind, DoneStatus};
use tds::packet::PacketType;
use tds::request::{AllHeaders, SqlBatch, TransactionRequest};
use tds::row;
use tds::rpc::{Call, CallOptions, Parameter, ProcId, Procedure, RpcRequest, Separator};
use tds::type_info::{Collation, TypeInfo};
use tds::value::Value;

/// A prepared statement or cursor of the script, whatever number a server gives it.
pub type Slot = u32;

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    Batch(String),
    Rpc(Vec<Invocation>),
    Transaction(TransactionRequest),
    /// The rows that an INSERT BULK announced, as `n int, s nvarchar(20)`.
    Rows(Vec<i32>),
}

/// One call of an RPC message.
#[derive(Clone, Debug, PartialEq)]
pub struct Invocation {
    pub procedure: Called,
    pub args: Vec<Arg>,
    /// The handle that its first output parameter brings.
    pub yields: Option<Slot>,
    /// Behind it stands NoExecFlag: it must not run.
    pub skipped: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Called {
    Id(ProcId),
    Name(String),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Arg {
    Int(i32),
    Null,
    Text(String),
    /// What the server said for this slot.
    Handle(Slot),
    /// An output parameter.
    Out(Box<Arg>),
    Named(&'static str, Box<Arg>),
}

impl Arg {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub fn out(self) -> Self {
        Self::Out(Box::new(self))
    }

    pub fn named(self, name: &'static str) -> Self {
        Self::Named(name, Box::new(self))
    }

    fn handle(&self) -> Option<Slot> {
        match self {
            Self::Handle(slot) => Some(*slot),
            Self::Out(arg) | Self::Named(_, arg) => arg.handle(),
            _ => None,
        }
    }

    fn parameter(&self, handle: &impl Fn(Slot) -> i32) -> Parameter {
        match self {
            Self::Int(n) => Parameter::new("", TypeInfo::IntN(4), Value::Int(*n)),
            Self::Null => Parameter::new("", TypeInfo::IntN(4), Value::Null),
            Self::Text(text) => {
                let info = TypeInfo::nvarchar(4000, Collation::LATIN1);
                Parameter::new("", info, Value::String(text.clone()))
            }
            Self::Handle(slot) => Parameter::new("", TypeInfo::IntN(4), Value::Int(handle(*slot))),
            Self::Out(arg) => arg.parameter(handle).by_ref(),
            Self::Named(name, arg) => Parameter { name: (*name).to_owned(), ..arg.parameter(handle) },
        }
    }
}

impl Invocation {
    pub fn id(id: ProcId, args: Vec<Arg>) -> Self {
        Self { procedure: Called::Id(id), args, yields: None, skipped: false }
    }

    pub fn name(name: impl Into<String>, args: Vec<Arg>) -> Self {
        Self { procedure: Called::Name(name.into()), args, yields: None, skipped: false }
    }

    pub fn yields(self, slot: Slot) -> Self {
        Self { yields: Some(slot), ..self }
    }

    fn call(&self, handle: &impl Fn(Slot) -> i32) -> Call {
        let procedure = match &self.procedure {
            Called::Id(id) => Procedure::Id(*id),
            Called::Name(name) => Procedure::Name(name.clone()),
        };
        Call {
            procedure,
            options: CallOptions::default(),
            enclave: tds::request::EnclavePackage::default(),
            parameters: self.args.iter().map(|arg| arg.parameter(handle)).collect(),
            separator: self.skipped.then_some(Separator::NoExec),
        }
    }
}

impl Ask {
    pub fn call(call: Invocation) -> Self {
        Self::Rpc(vec![call])
    }

    pub fn kind(&self) -> PacketType {
        match self {
            Self::Batch(_) => PacketType::SQL_BATCH,
            Self::Rpc(_) => PacketType::RPC,
            Self::Transaction(_) => PacketType::TRANSACTION_MANAGER,
            Self::Rows(_) => PacketType::BULK_LOAD,
        }
    }

    /// The handle that this request brings.
    pub fn yields(&self) -> Option<Slot> {
        match self {
            Self::Rpc(calls) => calls.iter().find_map(|call| call.yields),
            _ => None,
        }
    }

    /// The handles in whose place this request brings others.
    pub fn replaces(&self) -> Vec<Slot> {
        let Self::Rpc(calls) = self else { return Vec::new() };
        let replaces = |call: &&Invocation| matches!(call.procedure, Called::Id(ProcId::PREP_EXEC));
        calls.iter().filter(replaces).filter_map(|call| call.args.first().and_then(Arg::handle)).collect()
    }

    /// The handles that end with this request.
    pub fn ends(&self) -> Vec<Slot> {
        let Self::Rpc(calls) = self else { return Vec::new() };
        let ending = [ProcId::UNPREPARE, ProcId::CURSOR_CLOSE, ProcId::CURSOR_UNPREPARE, ProcId::PREP_EXEC];
        let ends = |call: &&Invocation| {
            !call.skipped && matches!(call.procedure, Called::Id(id) if ending.contains(&id))
        };
        calls.iter().filter(ends).filter_map(|call| call.args.first().and_then(Arg::handle)).collect()
    }

    /// The message, without packet headers.
    pub fn payload(&self, dialect: Dialect, transaction: u64, handle: impl Fn(Slot) -> i32) -> BytesMut {
        let mut out = BytesMut::new();
        let headers = AllHeaders::in_transaction(transaction);
        match self {
            Self::Batch(text) => {
                let headers = dialect.is_7_2_or_later().then_some(headers);
                SqlBatch { headers, ..SqlBatch::new(text) }.write(&mut out, dialect);
            }
            Self::Rpc(calls) => {
                let calls = calls.iter().map(|call| call.call(&handle)).collect();
                let request = RpcRequest { headers: Some(headers), calls };
                request.write(&mut out, dialect).expect("arguments fit their types");
            }
            Self::Transaction(request) => request.write(&mut out, &headers, dialect),
            Self::Rows(rows) => write_rows(&mut out, rows, dialect),
        }
        out
    }
}

fn write_rows(out: &mut BytesMut, rows: &[i32], dialect: Dialect) {
    let text = TypeInfo::nvarchar(20, Collation::LATIN1);
    let columns = vec![
        Column::new("n", TypeInfo::IntN(4)).with_flags(ColumnFlags::NULLABLE),
        Column::new("s", text).with_flags(ColumnFlags::NULLABLE),
    ];
    let columns = ColMetadata::new(columns);
    columns.write_of_bulk_load(out, dialect);
    for n in rows {
        let values = [Value::Int(*n), Value::String(format!("row {n}"))];
        row::write(out, &columns.columns, &values).expect("values fit their types");
    }
    let done =
        Done { kind: DoneKind::Done, status: DoneStatus::FINAL, current_command: 0, rows: rows.len() as u64 };
    done.write(out, dialect.version);
}
