//! What a request's bytes ask for, and asking the engine for it.

use tds::Malformed;
use tds::done::DoneStatus;
use tds::env_change::EnvChange;
use tds::message::Message;
use tds::packet::{PacketType, Status};
use tds::request::{AllHeaders, BeginTransaction, SqlBatch, TransactionRequest};
use tds::rpc::{ParamFlags, RpcRequest, Separator};
use tds::server_message::ServerMessage;

use crate::connection::End;
use crate::engine::{Cancel, IsolationLevel, Leftover, Outcome, Output, Param, Procedure, Session};
use crate::fault::{Fault, Faults};
use crate::fault_call::FaultCall;
use crate::options::ServerKind;
use crate::refusal;
use crate::response::{Format, Response};
use crate::server::Shared;

/// A request that has been read.
pub(crate) enum Request {
    Batch(String),
    Calls(Vec<Call>),
    Transaction(TransactionRequest),
}

/// One call of an RPC message.
pub(crate) struct Call {
    procedure: Procedure,
    params: Vec<Param>,
    /// The NoExecFlag stands behind it: it is answered with an error, and not executed ([MS-TDS] 2.2.6.6).
    skipped: bool,
}

impl Request {
    /// Whether it is a call of sp_cursorfetch.
    pub(crate) fn fetches(&self) -> bool {
        match self {
            Self::Calls(calls) => calls.iter().any(|call| match &call.procedure {
                Procedure::Id(id) => *id == tds::rpc::ProcId::CURSOR_FETCH.0,
                Procedure::Name(name) => name.eq_ignore_ascii_case("sp_cursorfetch"),
            }),
            _ => false,
        }
    }
}

/// Reads a request's payload.
pub(crate) fn read(
    message: &Message,
    format: Format,
    lenient: bool,
) -> Result<(Option<AllHeaders>, Request), Malformed> {
    let dialect = format.dialect;
    match message.kind {
        PacketType::SQL_BATCH => {
            let batch = SqlBatch::read(&message.payload, dialect)?;
            Ok((batch.headers, Request::Batch(batch.text)))
        }
        PacketType::RPC => match RpcRequest::read(&message.payload, dialect) {
            Ok(rpc) => Ok((rpc.headers, Request::Calls(rpc.calls.into_iter().map(call).collect()))),
            Err(_) if lenient && message.ignored => Ok((None, Request::Calls(Vec::new()))),
            Err(malformed) => Err(malformed),
        },
        _ => {
            let (headers, request) = TransactionRequest::read(&message.payload, dialect)?;
            Ok((headers, Request::Transaction(request)))
        }
    }
}

fn call(call: tds::rpc::Call) -> Call {
    let procedure = match call.procedure {
        tds::rpc::Procedure::Id(id) => Procedure::Id(id.0),
        tds::rpc::Procedure::Name(name) => Procedure::Name(name),
    };
    let params = call.parameters.into_iter().map(|parameter| Param {
        name: parameter.name,
        by_ref: parameter.flags.contains(ParamFlags::BY_REF),
        default: parameter.flags.contains(ParamFlags::DEFAULT),
        type_info: parameter.type_info,
        value: parameter.value,
    });
    Call { procedure, params: params.collect(), skipped: call.separator == Some(Separator::NoExec) }
}

/// A request must name the transaction it belongs to ([MS-TDS] 2.2.5.3.2).
pub(crate) fn wrong_transaction(
    shared: &Shared,
    session: &Session,
    headers: Option<&AllHeaders>,
) -> Option<ServerMessage> {
    let named = headers?.transaction?.descriptor;
    let open = session.transaction();
    // Babelfish does not look at it, and its clients were not told about all transactions.
    if shared.options.kind == ServerKind::Babelfish {
        return None;
    }
    match (named, open) {
        (0, None) => None,
        (0, Some(_)) => Some(refusal::no_descriptor(&shared.options)),
        (named, Some(open)) if named == open => None,
        (named, _) => Some(refusal::wrong_descriptor(&shared.options, named)),
    }
}

/// Resets the session and acknowledges it ([MS-TDS] 2.2.3.1.2).
pub(crate) fn reset_session(
    session: &mut Session,
    response: &mut Response<'_>,
    status: Status,
    fault: Option<Fault>,
    kind: ServerKind,
    cancel: &Cancel,
) {
    let keep_transaction = status.contains(Status::RESET_CONNECTION_SKIP_TRAN);
    let mut left = Vec::new();
    if let Some(Fault::ResetLeaves(what)) = fault {
        left.push(what);
    }
    if kind == ServerKind::Babelfish {
        left.extend([Leftover::SessionContext, Leftover::ContextInfo, Leftover::IdentityInsert]);
    }
    if fault != Some(Fault::ResetLeavesEverything) {
        let report = session.reset_but(keep_transaction, cancel, &left);
        if let Some(descriptor) = report.rolled_back {
            let change = EnvChange::RollbackTransaction(descriptor);
            let _ = response.env_change(&change);
        }
    }
    if fault == Some(Fault::ResetClearsIsolation) {
        session.reset_isolation();
    }
    if kind == ServerKind::Babelfish || fault == Some(Fault::ResetAcknowledgedLate) {
        response.plain_done(DoneStatus::MORE, 0);
    }
    if fault != Some(Fault::ResetNotAcknowledged) && response.format().dialect.is_7_2_or_later() {
        let _ = response.env_change(&EnvChange::ResetDone);
    }
}

/// Runs a request on its session.
pub(crate) fn run(
    session: &mut Session,
    request: Request,
    response: &mut Response<'_>,
    cancel: &Cancel,
    shared: &Shared,
    faults: &mut Option<Box<Faults>>,
) -> Result<Outcome, End> {
    Ok(match request {
        Request::Batch(text) => match FaultCall::parse(&text) {
            Some(call) => {
                arm(call, response, shared, faults);
                Outcome::Finished
            }
            None => session.batch(&text, response, cancel),
        },
        Request::Calls(calls) => {
            let count = calls.len();
            let mut outcome = Outcome::Finished;
            for (at, call) in calls.into_iter().enumerate() {
                let last = at + 1 == count;
                outcome = if call.skipped {
                    session.skip_call(last, response, cancel)
                } else {
                    session.call(&call.procedure, call.params, last, response, cancel)
                };
                if outcome != Outcome::Finished {
                    break;
                }
            }
            if count == 0 {
                response.plain_done(DoneStatus::FINAL, 0);
            }
            outcome
        }
        Request::Transaction(request) => transaction(session, request, response, cancel, shared)?,
    })
}

fn transaction(
    session: &mut Session,
    request: TransactionRequest,
    response: &mut Response<'_>,
    cancel: &Cancel,
    shared: &Shared,
) -> Result<Outcome, End> {
    let next =
        |begin: Option<BeginTransaction>| begin.map(|begin| (IsolationLevel(begin.isolation.0), begin.name));
    Ok(match request {
        TransactionRequest::Begin(begin) => {
            session.begin(IsolationLevel(begin.isolation.0), &begin.name, response, cancel)
        }
        TransactionRequest::Commit { name, begin } => session.commit(&name, next(begin), response, cancel),
        TransactionRequest::Rollback { name, begin } => {
            session.rollback(&name, next(begin), response, cancel)
        }
        TransactionRequest::Save { name } => session.save(&name, response, cancel),
        // Leaving a distributed transaction that one is not in.
        TransactionRequest::Propagate(cookie) if cookie.is_empty() => {
            response.plain_done(DoneStatus::FINAL, 0);
            Outcome::Finished
        }
        TransactionRequest::GetDtcAddress(_)
        | TransactionRequest::Propagate(_)
        | TransactionRequest::Promote => {
            response.refuse(&refusal::no_distributed_transactions(&shared.options));
            Outcome::Finished
        }
        TransactionRequest::Other { kind, .. } => {
            let what = "a transaction manager request's type";
            return Err(Malformed::Value { what, value: u64::from(kind) }.into());
        }
    })
}

fn arm(call: FaultCall, response: &mut Response<'_>, shared: &Shared, own: &mut Option<Box<Faults>>) {
    match call {
        FaultCall::Arm { fault, times, everywhere } => {
            let faults = if everywhere { &shared.faults } else { &**own.get_or_insert_default() };
            match times {
                Some(times) => faults.arm_times(fault, times),
                None => faults.arm(fault),
            }
            response.plain_done(DoneStatus::FINAL, 0);
        }
        FaultCall::Clear => {
            *own = None;
            shared.faults.clear();
            response.plain_done(DoneStatus::FINAL, 0);
        }
        FaultCall::Unknown(text) => response.refuse(&refusal::unknown_fault(&shared.options, &text)),
    }
}
