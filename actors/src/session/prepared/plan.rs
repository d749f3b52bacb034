//! Decides how a request that deals in handles is sent on the connection at hand.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::calls::{Call, Calls, Deed};
use super::expectation::{Expectation, Expected};
use super::handle::{Handle, Number};
use super::real_handles::RealHandles;
use super::rest::Rest;
use super::rewrite::{self, Splice};
use super::statement::{Kind, Statement};
use super::statements::{Prepared, Statements, TooManyStatements};

/// The server connection at hand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connection<'a> {
    /// What is prepared on it.
    pub(crate) reals: &'a RealHandles,
    /// The fingerprint of the database and settings that handles depend on: database, default schema, ANSI_NULLS,
    /// QUOTED_IDENTIFIER (error 586).
    pub(crate) context: u64,
    /// What [`Plan::PrepareFirst`] asked for was done for this request.
    pub(crate) has_prepared: bool,
}

/// What to do with the request.
#[derive(Debug)]
pub(crate) enum Plan {
    /// It is sent, perhaps changed.
    Send(Sending),
    /// A request of the proxy's own goes first, and the client sees nothing of its response; then the plan is made again.
    PrepareFirst {
        /// An RPC message's payload; its ALL_HEADERS are the client's.
        payload: Bytes,
        expects: Expectation,
    },
    /// It is not sent: the session would have too many statements.
    Refuse(TooManyStatements),
    /// It is not sent: calls would have to be replaced that are too many, or that have output parameters too long to be
    /// told apart then. Only where the server could not prepare a statement again.
    Unfit,
}

/// How a request is sent, and what comes of it.
#[derive(Debug)]
pub(crate) struct Sending {
    /// How many bytes of the payload are sent now: all that [`super::read`] was given, but for a call that is cut off.
    pub(crate) len: usize,
    /// What changes in them, in order.
    pub(crate) splices: Vec<Splice>,
    /// What the response brings.
    pub(crate) expects: Expectation,
    /// Changes the rest of a message that is not whole: it is fed what [`super::read`] was not given.
    pub(crate) rest: Option<Rest>,
}

/// The most bytes that a request may grow by.
const MAX_GROWTH: usize = 1 << 20;

impl Calls {
    /// Decides. Statements that the request drops are gone if it is to be sent.
    pub(crate) fn plan(
        &self,
        payload: &[u8],
        statements: &mut Statements,
        connection: Connection<'_>,
    ) -> Plan {
        let mut expects = Expectation::new(connection.context);
        let mut draft = Draft::new(self, statements, connection, &mut expects);
        for call in &self.calls {
            draft.call(call);
        }
        let Draft { splices, missing, dropped, freed, added, growth, unfit, .. } = draft;
        if added.0 > 0
            && let Err(too_many) = statements.room_for(added.0, added.1)
        {
            return Plan::Refuse(too_many);
        }
        if !missing.is_empty() {
            let headers = payload.get(..self.headers_end).unwrap_or_default();
            let texts = missing.iter().map(|statement| &**statement);
            let payload = rewrite::prepare_all(headers, texts, self.dialect);
            let mut expects = Expectation::new(connection.context);
            for statement in missing {
                expects.push(Expected::Learns { statement, shift: 0 });
            }
            return Plan::PrepareFirst { payload, expects };
        }
        if unfit || growth > MAX_GROWTH {
            return Plan::Unfit;
        }
        for handle in dropped {
            statements.remove(handle);
        }
        let held = payload.get(self.end..).unwrap_or_default();
        let rest = (!self.is_whole).then(|| Rest::new(self.dialect, held, self.watched, freed));
        Plan::Send(Sending { len: self.end, splices, expects, rest })
    }
}

/// A plan in the making.
pub(super) struct Draft<'a> {
    calls: &'a Calls,
    statements: &'a Statements,
    connection: Connection<'a>,
    pub(super) splices: Vec<Splice>,
    expects: &'a mut Expectation,
    /// Statements that have to be prepared on the connection before.
    missing: Vec<Arc<Statement>>,
    /// The client's handles that the message drops.
    pub(super) dropped: Vec<i32>,
    /// The server's handles that the message drops.
    pub(super) freed: Vec<i32>,
    pub(super) executed: Option<Arc<Statement>>,
    /// How many statements may come, and of how many bytes.
    added: (usize, usize),
    growth: usize,
    unfit: bool,
}

impl<'a> Draft<'a> {
    pub(super) fn new(
        calls: &'a Calls,
        statements: &'a Statements,
        connection: Connection<'a>,
        expects: &'a mut Expectation,
    ) -> Self {
        Self {
            calls,
            statements,
            connection,
            splices: Vec::new(),
            expects,
            missing: Vec::new(),
            dropped: Vec::new(),
            freed: Vec::new(),
            executed: None,
            added: (0, 0),
            growth: 0,
            unfit: false,
        }
    }

    /// A call that cannot be read.
    pub(super) fn nothing(&mut self) {
        self.expects.push(Expected::Nothing);
    }

    pub(super) fn call(&mut self, call: &Call) {
        let expected = match &call.deed {
            Deed::Nothing => Expected::Nothing,
            Deed::Prepares { handle, statement, replaces } => {
                self.prepare(handle, statement.as_ref(), *replaces)
            }
            Deed::Executes { handle, long_output } => self.execute(call, handle, *long_output),
            Deed::Unprepares { handle } => self.unprepare(call, handle),
        };
        self.expects.push(expected);
    }

    fn prepare(&mut self, handle: &Handle, statement: Option<&Arc<Statement>>, replaces: bool) -> Expected {
        let statement = statement.cloned();
        self.added.0 += 1;
        self.added.1 += statement.as_ref().map_or(0, |statement| statement.size());
        let number = match handle.number() {
            Number::Is(number) => Some(number),
            Number::Null | Number::Odd => None,
        };
        let old = number.filter(|number| replaces && self.known(*number).is_some());
        // What sp_prepexec finds in its handle, it drops: the last handle of the same statement is the one to be dropped.
        let frees = match number.and_then(|number| self.known(number)) {
            Some(Prepared::Here(real)) if replaces => Some(*real),
            _ if replaces => statement.as_ref().and_then(|statement| self.real(statement)),
            _ => None,
        };
        match frees {
            Some(real) => {
                self.freed.push(real);
                self.splice(handle.say(real));
            }
            // No number of the client's means anything to the server.
            None if handle.number() != Number::Null && number != Some(0) => self.splice(handle.say(0)),
            None => {}
        }
        Expected::Gives { statement, replaces: old, frees }
    }

    fn execute(&mut self, call: &Call, handle: &Handle, long_output: bool) -> Expected {
        let statement = match self.client_handle(call, handle) {
            Ok(Prepared::Here(real)) => {
                self.splice(handle.say(real));
                return Expected::Uses(real);
            }
            Ok(Prepared::Anywhere(statement)) => statement,
            Err(expected) => return expected,
        };
        self.executed = Some(Arc::clone(&statement));
        if let Some(real) = self.real(&statement) {
            self.splice(handle.say(real));
            return Expected::Uses(real);
        }
        let alone = self.calls.is_whole && self.calls.calls.len() == 1;
        let can_prepare_first = statement.kind() == Kind::Text && !self.connection.has_prepared;
        if can_prepare_first && (!alone || long_output) {
            if !self.missing.contains(&statement) {
                self.missing.push(statement);
            }
            return Expected::Nothing;
        }
        self.unfit |= long_output;
        let mut bytes = BytesMut::new();
        let learns = alone && !self.connection.reals.is_full();
        let shift = if learns {
            rewrite::prepare_and_execute(&statement, &call.manner, &mut bytes)
        } else {
            rewrite::execute_once(&statement, &call.manner, &mut bytes)
        };
        self.splice(Splice { range: call.offset..handle.end(), bytes: bytes.freeze() });
        if learns { Expected::Learns { statement, shift } } else { Expected::Shifted(shift) }
    }

    fn unprepare(&mut self, call: &Call, handle: &Handle) -> Expected {
        let real = match self.client_handle(call, handle) {
            Ok(Prepared::Here(real)) => Some(real),
            Ok(Prepared::Anywhere(statement)) => self.real(&statement),
            Err(expected) => return expected,
        };
        if let Number::Is(number) = handle.number() {
            self.dropped.push(number);
        }
        match real {
            Some(real) => {
                self.freed.push(real);
                self.splice(handle.say(real));
                Expected::Unprepares(real)
            }
            None => {
                let mut bytes = BytesMut::new();
                rewrite::nothing(self.calls.dialect, &mut bytes);
                self.splice(Splice { range: call.offset..call.end, bytes: bytes.freeze() });
                Expected::Nothing
            }
        }
    }

    /// What the client's handle stands for. If for nothing, the server is to say so, and to nobody's harm: a number that is
    /// a real handle is first made none.
    fn client_handle(&mut self, call: &Call, handle: &Handle) -> Result<Prepared, Expected> {
        let number = match handle.number() {
            Number::Null => return Err(Expected::Nothing),
            Number::Odd => {
                self.splice(handle.say(0));
                return Err(Expected::Nothing);
            }
            Number::Is(number) => number,
        };
        if let Some(prepared) = self.known(number) {
            return Ok(prepared.clone());
        }
        if self.connection.reals.has(number) && !self.freed.contains(&number) {
            let mut bytes = BytesMut::new();
            rewrite::unprepare_before(number, self.calls.dialect, &mut bytes);
            self.splice(Splice { range: call.offset..call.offset, bytes: bytes.freeze() });
            self.expects.push(Expected::OwnUnprepare(number));
            self.freed.push(number);
        } else if self.connection.reals.has_lost() {
            // Perhaps just this one: the error says another number then.
            self.splice(handle.say(0));
        }
        Err(Expected::Nothing)
    }

    /// What stands behind a number of the client's at this point of the message.
    fn known(&self, number: i32) -> Option<&Prepared> {
        self.statements.get(number).filter(|_| !self.dropped.contains(&number))
    }

    /// The statement's real handle on the connection at this point of the message.
    fn real(&self, statement: &Arc<Statement>) -> Option<i32> {
        let real = self.connection.reals.find(self.connection.context, statement);
        real.filter(|real| !self.freed.contains(real))
    }

    fn splice(&mut self, splice: Splice) {
        self.growth += splice.bytes.len().saturating_sub(splice.range.len());
        self.splices.push(splice);
    }
}
