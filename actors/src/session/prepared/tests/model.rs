//! A server that prepares texts and says what it runs, and a proxy in front of several of them.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};
use tds::done::{Done, DoneKind, DoneStatus};
use tds::edit::Edit;
use tds::request::{AllHeaders, EnclavePackage};
use tds::return_value::ReturnValue;
use tds::rpc::{
    Call, CallOptions, Followed, Parameter, ProcId, Procedure, RpcFollower, RpcRequest, Separator,
};
use tds::scan::{ResponseScanner, Scanned};
use tds::server_message::ServerMessage;
use tds::token::TokenKind;
use tds::type_info::{Collation, TypeInfo};
use tds::value::Value;
use tds::{Dialect, TdsVersion};

use super::super::{Connection, Expectation, Limits, Means, Plan, RealHandles, Splice, Statements, read};

pub(super) const DIALECT: Dialect =
    Dialect { version: TdsVersion::V7_4, column_encryption: 0, data_classification: 0 };

/// A text that cannot be prepared.
pub(super) const BROKEN: u8 = 100;
/// A text whose handle is NULL.
pub(super) const WITHOUT_HANDLE: u8 = 101;
/// A text that fails after it was prepared.
pub(super) const HALF_BROKEN: u8 = 102;

/// A server connection.
#[derive(Debug, Default)]
pub(super) struct Server {
    last: i32,
    prepared: HashMap<i32, String>,
    pub(super) requests: usize,
}

impl Server {
    /// Answers an RPC message.
    pub(super) fn serve(&mut self, payload: &[u8]) -> Vec<u8> {
        self.requests += 1;
        let request = RpcRequest::read(payload, DIALECT).unwrap();
        let mut out = Vec::new();
        let count = request.calls.len();
        for (at, call) in request.calls.iter().enumerate() {
            let failed = self.call(call, &mut out);
            let mut status = if failed { DoneStatus::ERROR } else { DoneStatus::FINAL };
            if at + 1 < count {
                status = status.with(DoneStatus::MORE).with(DoneStatus::RPC_IN_BATCH);
            }
            Done { kind: DoneKind::DoneProc, status, current_command: 0xE0, rows: 0 }
                .write(&mut out, DIALECT.version);
        }
        out
    }

    /// True if the call failed.
    fn call(&mut self, call: &Call, out: &mut Vec<u8>) -> bool {
        let id = match &call.procedure {
            Procedure::Id(id) => *id,
            Procedure::Name(name) => match name.rsplit('.').next().and_then(ProcId::by_name) {
                Some(id) => id,
                None => return run(&format!("procedure {name}"), &call.parameters, 0, &[], out),
            },
        };
        let number = call.parameters.first().and_then(|first| first.value.as_i64()).map(|n| n as i32);
        let text =
            |at: usize| call.parameters.get(at).and_then(|p| p.value.as_str()).unwrap_or("").to_owned();
        match id {
            ProcId::PREPARE => match self.prepare(&text(2), out) {
                Some(handle) => status(&[(0, handle)], out),
                None => true,
            },
            ProcId::PREP_EXEC | ProcId::PREP_EXEC_RPC => {
                let (text, skip) = if id == ProcId::PREP_EXEC {
                    (text(2), 3)
                } else {
                    (format!("procedure {}", text(1)), 2)
                };
                let Some(handle) = self.prepare(&text, out) else { return true };
                if let Some(old) = number.filter(|old| handle != Value::Null && handle != Value::Int(*old)) {
                    self.prepared.remove(&old);
                }
                run(&text, &call.parameters, skip, &[(0, handle)], out)
            }
            ProcId::EXECUTE => match number.map(|number| (number, self.prepared.get(&number).cloned())) {
                Some((_, Some(text))) => run(&text, &call.parameters, 1, &[], out),
                Some((number, None)) => error(8179, &no_handle(number), out),
                None => error(214, "no handle", out),
            },
            ProcId::UNPREPARE => match number {
                Some(number) if self.prepared.remove(&number).is_some() => status(&[], out),
                Some(number) => error(8179, &no_handle(number), out),
                None => error(214, "no handle", out),
            },
            ProcId::EXECUTE_SQL if text(0).starts_with("declare") => status(&[], out),
            ProcId::EXECUTE_SQL => run(&text(0), &call.parameters, 2, &[], out),
            other => panic!("unexpected {other:?}"),
        }
    }

    fn prepare(&mut self, text: &str, out: &mut Vec<u8>) -> Option<Value> {
        if text.ends_with(" 100") {
            error(208, "no such object", out);
            return None;
        }
        if text.ends_with(" 101") {
            return Some(Value::Null);
        }
        self.last += 1;
        self.prepared.insert(self.last, text.to_owned());
        Some(Value::Int(self.last))
    }

    pub(super) fn forget(&mut self, number: i32) {
        self.prepared.remove(&number);
    }

    fn reset(&mut self) {
        self.prepared.clear();
        self.last = 0;
    }
}

fn no_handle(number: i32) -> String {
    format!("Could not find prepared statement with handle {number}.")
}

fn error(number: i32, text: &str, out: &mut Vec<u8>) -> bool {
    ServerMessage::error(number, 16, text, "model").write(out, DIALECT.version);
    true
}

fn status(outputs: &[(u16, Value)], out: &mut Vec<u8>) -> bool {
    out.put_u8(TokenKind::RETURN_STATUS.0);
    out.put_i32_le(0);
    for (ordinal, value) in outputs {
        let value = ReturnValue::new(*ordinal, "", TypeInfo::IntN(4), value.clone());
        value.write(out, DIALECT).unwrap();
    }
    false
}

/// Says what runs, and gives each output parameter a value.
fn run(text: &str, parameters: &[Parameter], skip: usize, first: &[(u16, Value)], out: &mut Vec<u8>) -> bool {
    let own = parameters.get(skip..).unwrap_or_default();
    let values: Vec<_> = own.iter().map(|parameter| &parameter.value).collect();
    let mut info = ServerMessage::error(50_000, 0, format!("{text} with {values:?}"), "model");
    info.is_error = false;
    info.write(out, DIALECT.version);
    let failed = text.ends_with(" 102") && error(547, "in the middle", out);
    let mut outputs = first.to_vec();
    for (at, parameter) in own.iter().enumerate() {
        if parameter.flags.contains(tds::rpc::ParamFlags::BY_REF) {
            outputs.push(((skip + at) as u16, Value::Int(1000 + at as i32)));
        }
    }
    status(&outputs, out);
    failed
}

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    Prepare,
    PrepExec,
    PrepExecRpc,
    Execute,
    Unprepare,
    Other,
}

/// One call of a request.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) deed: Deed,
    /// Which text.
    pub(super) text: u8,
    /// The handle.
    pub(super) number: Option<i32>,
    /// The statement's own parameters: whether each is an output parameter.
    pub(super) outputs: Vec<bool>,
    /// How handles and procedures are written.
    pub(super) style: u8,
}

fn nvarchar(text: String) -> Parameter {
    Parameter::new("", TypeInfo::nvarchar(4000, Collation::LATIN1), Value::String(text))
}

impl Ask {
    fn call(&self) -> Call {
        let id = match self.deed {
            Deed::Prepare => ProcId::PREPARE,
            Deed::PrepExec => ProcId::PREP_EXEC,
            Deed::PrepExecRpc => ProcId::PREP_EXEC_RPC,
            Deed::Execute => ProcId::EXECUTE,
            Deed::Unprepare => ProcId::UNPREPARE,
            Deed::Other => ProcId::EXECUTE_SQL,
        };
        let procedure = match self.style {
            1 => Procedure::Name(format!("sys.{}", id.name().unwrap().to_uppercase())),
            _ => Procedure::Id(id),
        };
        let value = self.number.map_or(Value::Null, Value::Int);
        let handle = match (self.style, self.number) {
            (1, Some(_)) => Parameter::new("@handle", TypeInfo::Int, value),
            (2, Some(number)) => Parameter::new("", TypeInfo::IntN(8), Value::BigInt(i64::from(number))),
            (3, _) => Parameter::new("@p", TypeInfo::IntN(4), value),
            _ => Parameter::new("", TypeInfo::IntN(4), value),
        };
        let mut parameters = match self.deed {
            Deed::Prepare | Deed::PrepExec => vec![
                handle.by_ref(),
                nvarchar(format!("@a int {}", self.outputs.len())),
                nvarchar(format!("text {}", self.text)),
            ],
            Deed::PrepExecRpc => vec![handle.by_ref(), nvarchar(format!("proc {}", self.text))],
            Deed::Execute | Deed::Unprepare => vec![handle],
            Deed::Other => vec![nvarchar(format!("other {}", self.text)), nvarchar("@a int".to_owned())],
        };
        if !matches!(self.deed, Deed::Prepare | Deed::Unprepare) {
            for (at, output) in self.outputs.iter().enumerate() {
                let parameter = Parameter::new("", TypeInfo::IntN(4), Value::Int(at as i32));
                parameters.push(if *output { parameter.by_ref() } else { parameter });
            }
        }
        Call {
            procedure,
            options: CallOptions(u16::from(self.style) & 1),
            enclave: EnclavePackage::default(),
            parameters,
            separator: None,
        }
    }
}

/// The payload of a message with these calls.
pub(super) fn message(asks: &[Ask]) -> Bytes {
    let mut calls: Vec<Call> = asks.iter().map(Ask::call).collect();
    let last = calls.len() - 1;
    for call in &mut calls[..last] {
        call.separator = Some(Separator::Batch);
    }
    let mut out = BytesMut::new();
    let request = RpcRequest { headers: Some(AllHeaders::in_transaction(7)), calls };
    request.write(&mut out, DIALECT).unwrap();
    out.freeze()
}

/// Server connections that clients share.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) connections: Vec<(Server, RealHandles)>,
    limit: usize,
}

impl Pool {
    pub(super) fn new(count: usize, limit: usize) -> Self {
        let connections = (0..count).map(|_| (Server::default(), RealHandles::new(limit))).collect();
        Self { connections, limit }
    }

    pub(super) fn reset(&mut self, on: usize) {
        let (server, reals) = &mut self.connections[on];
        server.reset();
        reals.clear();
    }
}

/// A client of the proxy, and beside it what a server of its own would say.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) statements: Statements,
    own: Server,
}

impl Default for Client {
    fn default() -> Self {
        let limits = Limits { count: 1000, bytes: 1 << 20 };
        Self { statements: Statements::new(limits), own: Server::default() }
    }
}

impl Client {
    /// The response to a request through the proxy, and the direct one.
    pub(super) fn request(&mut self, asks: &[Ask], pool: &mut Pool, on: usize) -> (String, String) {
        self.request_in_pieces(asks, None, pool, on)
    }

    /// The same where the message is sent in pieces of this length and only the first call, and so many bytes of the rest,
    /// are read before.
    pub(super) fn request_in_pieces(
        &mut self,
        asks: &[Ask],
        pieces: Option<(usize, usize)>,
        pool: &mut Pool,
        on: usize,
    ) -> (String, String) {
        let mut asks = asks.to_vec();
        let gives = |ask: &Ask| matches!(ask.deed, Deed::Prepare | Deed::PrepExec | Deed::PrepExecRpc);
        if let Some(first) = asks.iter().position(gives) {
            // What a handle will be is not known before it is given: nobody can mean it in the same message. And whether
            // sp_prepexec drops its old handle depends on how it ends.
            let mut gone = Vec::new();
            for (at, ask) in asks.iter_mut().enumerate() {
                if at > first {
                    ask.number =
                        ask.number.filter(|n| self.own.prepared.contains_key(n) && !gone.contains(n));
                }
                if gives(ask) || ask.deed == Deed::Unprepare {
                    gone.extend(ask.number);
                }
            }
        }
        let asks = &asks[..];
        let payload = message(asks);
        let direct = self.own.serve(&payload);
        if pool.connections[on].1.want_reset() {
            pool.reset(on);
        }
        let seen = self.proxied(&payload, pieces, pool, on);
        let (server, reals) = &pool.connections[on];
        assert!(server.prepared.len() <= reals.len() || reals.want_reset(), "a handle is not known of");
        assert!(reals.len() <= pool.limit + 4 * asks.len() + 8);
        (show(&seen), show(&direct))
    }

    fn proxied(
        &mut self,
        payload: &[u8],
        pieces: Option<(usize, usize)>,
        pool: &mut Pool,
        on: usize,
    ) -> Vec<u8> {
        let (server, reals) = &mut pool.connections[on];
        let mut follower = RpcFollower::new(DIALECT);
        let whole = payload;
        let piece = pieces.map_or(1, |(_, piece)| piece);
        let payload = match pieces {
            Some((more, _)) => &whole[..(end_of_first_call(whole) + more).min(whole.len())],
            None => whole,
        };
        let Some(calls) = read(payload, pieces.is_none(), DIALECT, &mut follower) else {
            return server.serve(payload);
        };
        if let Some(answer) = calls.answer(&mut self.statements) {
            return answer.to_vec();
        }
        let mut has_prepared = false;
        loop {
            let connection = Connection { reals, context: 1, has_prepared };
            match calls.plan(payload, &mut self.statements, connection) {
                Plan::PrepareFirst { payload, mut expects } => {
                    assert!(!has_prepared, "asked twice");
                    has_prepared = true;
                    let response = server.serve(&payload);
                    edit(&response, &mut expects, &mut self.statements, reals);
                    assert!(!expects.out_of_step());
                }
                Plan::Send(mut sending) => {
                    let mut changed = BytesMut::new();
                    Splice::apply(&sending.splices, &payload[..sending.len], &mut changed);
                    if sending.splices.iter().all(Splice::is_in_place) {
                        let mut in_place = payload[..sending.len].to_vec();
                        Splice::apply_in_place(&sending.splices, &mut in_place);
                        assert_eq!(in_place, changed);
                    }
                    if let Some(rest) = &mut sending.rest {
                        let mut means = Means {
                            follower: &mut follower,
                            statements: &mut self.statements,
                            connection: Connection { reals, context: 1, has_prepared },
                            expects: &mut sending.expects,
                        };
                        for piece in whole[payload.len()..].chunks(piece) {
                            rest.feed(piece, &mut means, &mut changed);
                        }
                        rest.finish(&mut means, &mut changed);
                    }
                    let response = server.serve(&changed);
                    let seen = edit(&response, &mut sending.expects, &mut self.statements, reals);
                    assert!(!sending.expects.out_of_step());
                    return seen;
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Where the first call's separator is, or the payload's end.
fn end_of_first_call(payload: &[u8]) -> usize {
    let mut end = payload.len();
    RpcFollower::new(DIALECT).feed(payload, |followed| {
        if let Followed::Separator { offset, .. } = followed {
            end = end.min(offset as usize);
        }
    });
    end
}

/// The response as the client is to see it.
pub(super) fn edit(
    response: &[u8],
    expects: &mut Expectation,
    statements: &mut Statements,
    reals: &mut RealHandles,
) -> Vec<u8> {
    let mut seen = Vec::new();
    let mut passed = 0;
    ResponseScanner::new(DIALECT).feed(response, |scanned: Scanned<'_>| {
        let (start, end) = (scanned.range.start as usize, scanned.range.end as usize);
        let edit = expects.on_event(&scanned, statements, reals);
        if edit != Edit::Keep {
            assert!(scanned.is_held());
            seen.extend_from_slice(&response[passed..start]);
            passed = end;
        }
        if let Edit::Replace(bytes) = edit {
            seen.extend_from_slice(&bytes);
        }
    });
    seen.extend_from_slice(&response[passed..]);
    seen
}

/// Tokens as text, for comparing.
pub(super) fn show(tokens: &[u8]) -> String {
    let mut reader = tds::read::Reader::new(tokens, "tokens");
    let mut out = String::new();
    while !reader.is_empty() {
        let line = match TokenKind(reader.u8().unwrap()) {
            TokenKind::RETURN_STATUS => format!("status {}", reader.u32().unwrap()),
            TokenKind::RETURN_VALUE => {
                let value = ReturnValue::read(&mut reader, DIALECT).unwrap();
                format!("value {} {:?}", value.ordinal, value.value)
            }
            TokenKind::ERROR => format!("error {}", ServerMessage::read(true, &mut reader).unwrap().text),
            TokenKind::INFO => format!("ran {}", ServerMessage::read(false, &mut reader).unwrap().text),
            TokenKind(byte) => {
                let kind = DoneKind::from_token(byte).unwrap();
                format!("{:?}", Done::read(kind, &mut reader, DIALECT.version).unwrap())
            }
        };
        out.push_str(&line);
        out.push('\n');
    }
    out
}
