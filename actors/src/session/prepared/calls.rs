//! Reads what a request does with prepared handles. Requests that do nothing with them cost a walk over their parameters.

use std::sync::Arc;

use bytes::Bytes;
use tds::rpc::{Followed, ParamFlags, RawParameter, RpcFollower, RpcReader, Separator};
use tds::type_info::TypeInfo;
use tds::value::Value;
use tds::{Dialect, Malformed};

use super::answer;
use super::handle::{Handle, Number};
use super::procedure::HandleProcedure;
use super::statement::{Kind, Statement};
use super::statements::{Prepared, Statements, TooManyStatements};

/// The calls of a request, or of its beginning, some of which deal in handles.
#[derive(Debug)]
pub(crate) struct Calls {
    pub(super) dialect: Dialect,
    /// Where ALL_HEADERS end.
    pub(super) headers_end: usize,
    /// False if more of the message is to come.
    pub(super) is_whole: bool,
    /// What lies behind is left to [`super::Rest`]: the payload's end, or the beginning of a call that is cut off.
    pub(super) end: usize,
    /// That call, if its beginning was seen.
    pub(super) watched: Option<Watched>,
    pub(super) calls: Vec<Call>,
}

/// One call.
#[derive(Debug)]
pub(super) struct Call {
    /// Where it begins in the payload.
    pub(super) offset: usize,
    /// Where its end was found: before the separator, or where the payload ends.
    pub(super) end: usize,
    /// Options and enclave package, as the wire has them.
    pub(super) manner: Bytes,
    pub(super) deed: Deed,
}

/// What a call does with handles.
#[derive(Debug)]
pub(super) enum Deed {
    Nothing,
    Prepares {
        handle: Handle,
        /// None if it is longer than what is at hand.
        statement: Option<Arc<Statement>>,
        /// The old handle, if there is one, is dropped.
        replaces: bool,
    },
    Executes {
        handle: Handle,
        /// An output parameter may be too long to have its ordinal changed when it comes back.
        long_output: bool,
    },
    Unprepares {
        handle: Handle,
    },
}

/// Reads a request, or the beginning of one. None if it does nothing with handles, which is known of a whole one only.
/// `follower` is left behind the payload: [`super::Rest`] wants it there.
///
/// From TDS 7.2 on; sessions of older versions keep their connection, and their handles are real.
pub(crate) fn read(
    payload: &[u8],
    is_whole: bool,
    dialect: Dialect,
    follower: &mut RpcFollower,
) -> Option<Calls> {
    let mut deals = false;
    let mut last = None;
    follower.restart();
    follower.feed(payload, |followed| match followed {
        Followed::Call { offset, callee, .. } => {
            let procedure = HandleProcedure::of(callee);
            deals |= procedure.is_some();
            last = procedure.map(|procedure| Watched::new(procedure, offset));
        }
        Followed::Parameter { .. } => {
            last = last.and_then(Watched::after_parameter);
        }
        Followed::Separator { .. } => last = None,
    });
    if is_whole && !deals || !dialect.is_7_2_or_later() {
        return None;
    }
    let end = payload.len();
    let mut calls = Calls { dialect, headers_end: 0, is_whole, end, watched: None, calls: Vec::new() };
    // What the server will refuse goes to the server; what it would be is read as far as it can be.
    let _cut_off = calls.read(payload);
    if !is_whole {
        calls.cut(last, follower.unreported_call());
    }
    Some(calls)
}

/// A call whose handle, and statement, are awaited.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watched {
    /// Where it begins.
    pub(super) offset: u64,
    /// How many parameters have to be there.
    wanted: usize,
}

impl Watched {
    pub(super) fn new(procedure: HandleProcedure, offset: u64) -> Self {
        Self { offset, wanted: procedure.parameters() }
    }

    /// None if that was the beginning of the first one that is not awaited.
    pub(super) fn after_parameter(self) -> Option<Self> {
        self.wanted.checked_sub(1).map(|wanted| Self { wanted, ..self })
    }
}

impl Calls {
    /// Leaves out the call that is cut off, but for the first of the message: that is as long as what is looked at.
    fn cut(&mut self, watched: Option<Watched>, unreported: Option<u64>) {
        let at = watched.map(|watched| watched.offset).or(unreported);
        let Some(at) = at.and_then(|at| usize::try_from(at).ok()).filter(|at| *at > self.headers_end) else {
            return;
        };
        (self.end, self.watched) = (at, watched);
        self.calls.retain(|call| call.offset < at);
    }

    /// One call that stands behind empty ALL_HEADERS, as far as it is there.
    pub(super) fn of_one(payload: &[u8], dialect: Dialect) -> Self {
        let mut calls = Self {
            dialect,
            headers_end: 0,
            is_whole: false,
            end: payload.len(),
            watched: None,
            calls: Vec::new(),
        };
        let _cut_off = calls.read(payload);
        calls
    }

    fn read(&mut self, payload: &[u8]) -> Result<(), Malformed> {
        let mut reader = RpcReader::new(payload, self.dialect)?;
        self.headers_end = reader.position();
        while let Some(head) = reader.next_call()? {
            let (name, callee) = callee(payload, head.offset);
            let manner = payload.get(name..head.parameters_offset).unwrap_or_default();
            self.calls.push(Call {
                offset: head.offset,
                end: payload.len(),
                manner: Bytes::copy_from_slice(manner),
                deed: Deed::Nothing,
            });
            let read = match callee.and_then(HandleProcedure::of) {
                Some(procedure) => {
                    let (deed, read) = Deed::read(procedure, &mut reader);
                    if let Some(call) = self.calls.last_mut() {
                        call.deed = deed;
                    }
                    read
                }
                None => Ok(()),
            };
            read?;
            while reader.next_parameter()?.is_some() {}
            if let Some(call) = self.calls.last_mut() {
                call.end = reader.position() - usize::from(reader.separator().is_some());
                if reader.separator() == Some(Separator::NoExec) {
                    // The server answers it with an error and does nothing.
                    call.deed = Deed::Nothing;
                }
            }
        }
        Ok(())
    }

    /// The statements that it prepares, by the number of the call.
    pub(crate) fn prepared(&self, call: usize) -> Option<&Arc<Statement>> {
        match &self.calls.get(call)?.deed {
            Deed::Prepares { statement, .. } => statement.as_ref(),
            _ => None,
        }
    }

    /// The statements that it executes; none for one that could not be remembered.
    pub(crate) fn executed<'a>(
        &'a self,
        statements: &'a Statements,
    ) -> impl Iterator<Item = Option<&'a Arc<Statement>>> {
        self.calls.iter().filter_map(|call| match &call.deed {
            Deed::Executes { handle, .. } => match handle.number() {
                Number::Is(number) => match statements.get(number)? {
                    Prepared::Anywhere(statement) => Some(Some(statement)),
                    Prepared::Here(_) => Some(None),
                },
                _ => None,
            },
            _ => None,
        })
    }

    /// Whether the session has room for what the request prepares.
    pub(crate) fn fit(&self, statements: &Statements) -> Result<(), TooManyStatements> {
        let (mut count, mut bytes) = (0, 0);
        for call in &self.calls {
            if let Deed::Prepares { statement, .. } = &call.deed {
                count += 1;
                bytes += statement.as_ref().map_or(0, |statement| statement.size());
            }
        }
        if count == 0 { Ok(()) } else { statements.room_for(count, bytes) }
    }

    /// The answer to a request that needs no server: nothing but sp_unprepare of statements that any connection could
    /// have. The statements are gone then.
    pub(crate) fn answer(&self, statements: &mut Statements) -> Option<Bytes> {
        if !self.is_whole || self.calls.is_empty() {
            return None;
        }
        let mut gone = Vec::with_capacity(self.calls.len());
        for call in &self.calls {
            let Deed::Unprepares { handle } = &call.deed else { return None };
            let Number::Is(number) = handle.number() else { return None };
            if gone.contains(&number) || !matches!(statements.get(number)?, Prepared::Anywhere(_)) {
                return None;
            }
            gone.push(number);
        }
        for number in &gone {
            statements.remove(*number);
        }
        Some(answer::unprepared(gone.len(), self.dialect.version))
    }
}

/// Where the name or number of a call ends, and what it is.
fn callee(payload: &[u8], offset: usize) -> (usize, Option<tds::rpc::Callee<'_>>) {
    let unit = |at: usize| payload.get(at..at + 2).map_or(0, |pair| u16::from_le_bytes([pair[0], pair[1]]));
    match unit(offset) {
        u16::MAX => (offset + 4, Some(tds::rpc::Callee::Id(tds::rpc::ProcId(unit(offset + 2))))),
        chars => {
            let end = offset + 2 + 2 * usize::from(chars);
            (end, payload.get(offset + 2..end).map(tds::rpc::Callee::Name))
        }
    }
}

impl Deed {
    /// What is known of a call when its parameters end or the payload does.
    fn read(procedure: HandleProcedure, reader: &mut RpcReader<'_>) -> (Self, Result<(), Malformed>) {
        let start = reader.position();
        let handle = match reader.next_parameter() {
            Ok(Some(first)) => Handle::read(&first, start),
            Ok(None) => return (Self::Nothing, Ok(())),
            Err(error) => return (Self::Nothing, Err(error)),
        };
        match procedure {
            HandleProcedure::Execute => {
                let mut long_output = false;
                let read = each(reader, |parameter| long_output |= is_long_output(parameter));
                (Self::Executes { handle, long_output }, read)
            }
            HandleProcedure::Unprepare => (Self::Unprepares { handle }, Ok(())),
            HandleProcedure::Prepare | HandleProcedure::PrepExec | HandleProcedure::PrepExecRpc => {
                let kind = match procedure {
                    HandleProcedure::PrepExecRpc => Kind::Procedure,
                    _ => Kind::Text,
                };
                let (statement, read) = match read_statement(kind, reader) {
                    Ok(statement) => (statement.map(Arc::new), Ok(())),
                    Err(error) => (None, Err(error)),
                };
                let replaces = procedure != HandleProcedure::Prepare;
                (Self::Prepares { handle, statement, replaces }, read)
            }
        }
    }
}

/// `@params, @stmt`, or the procedure's name; what comes behind them is the statement's own.
fn read_statement(kind: Kind, reader: &mut RpcReader<'_>) -> Result<Option<Statement>, Malformed> {
    let Some(second) = reader.next_parameter()? else { return Ok(None) };
    let unnamed = |parameter: &RawParameter<'_>| Bytes::copy_from_slice(parameter.unnamed);
    if kind == Kind::Procedure {
        let name = match second.read()? {
            Value::String(name) if name.len() <= LONGEST_NAME => name,
            _ => return Ok(None),
        };
        let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        // What may come back too long can be had by its real handle only.
        let mut long_output = false;
        let _cut_off = each(reader, |parameter| long_output |= is_long_output(parameter));
        return Ok((!long_output).then(|| Statement::new(kind, name.into(), unnamed(&second))));
    }
    let Some(third) = reader.next_parameter()? else { return Ok(None) };
    // By name they may come the other way round.
    let (params, text) =
        if second.name.eq_ignore_ascii_case("@stmt") { (third, second) } else { (second, third) };
    Ok(Some(Statement::new(kind, unnamed(&params), unnamed(&text))))
}

fn each(
    reader: &mut RpcReader<'_>,
    mut on_parameter: impl FnMut(&RawParameter<'_>),
) -> Result<(), Malformed> {
    while let Some(parameter) = reader.next_parameter()? {
        on_parameter(&parameter);
    }
    Ok(())
}

/// Names of procedures that an RPC can call have at most 523 characters.
const LONGEST_NAME: usize = 523;

/// Longer than what the response scanner keeps of a return value, perhaps.
fn is_long_output(parameter: &RawParameter<'_>) -> bool {
    let type_info = &parameter.type_info;
    parameter.flags.contains(ParamFlags::BY_REF)
        && (type_info.is_plp() || type_info.is_text_or_image() || matches!(type_info, TypeInfo::Table(_)))
}
