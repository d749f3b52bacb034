//! What the response to a request will say about handles, and what of it the client is to see.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use tds::done::{Done, DoneKind, DoneStatus};
use tds::edit::Edit;
use tds::scan::{Event, RawReturnValue, Scanned};
use tds::token::TokenKind;
use tds::type_info::TypeInfo;
use tds::value::Value;

use super::real_handles::RealHandles;
use super::statement::Statement;
use super::statements::{Prepared, Statements};

/// Follows one response, call by call.
#[derive(Debug, Default)]
pub(crate) struct Expectation {
    context: u64,
    /// What is left of the message's calls, the current one first; equal ones in one entry.
    calls: VecDeque<(Expected, usize)>,
    /// The handle that the current call gives has come.
    has_come: bool,
    /// Virtual handles that this response gave.
    given: Vec<i32>,
    out_of_step: bool,
}

/// What a call's answer brings.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expected {
    /// Nothing about handles.
    Nothing,
    /// Nothing for the client: the call is the proxy's own, and drops this handle.
    OwnUnprepare(i32),
    /// A client's call drops this handle.
    Unprepares(i32),
    /// A client's call uses this handle.
    Uses(i32),
    /// A new handle for the client; none that is known if the statement could not be remembered.
    Gives {
        statement: Option<Arc<Statement>>,
        /// The client's old handle, gone when there is a new one.
        replaces: Option<i32>,
        /// The server's old handle, gone at the same time.
        frees: Option<i32>,
    },
    /// A new handle that the client did not ask for; its own output parameters come so much later in the list.
    Learns { statement: Arc<Statement>, shift: i16 },
    /// No handle; the client's own output parameters come so much later in the list, or earlier.
    Shifted(i16),
}

/// The server has no such handle, or not for the database and settings at hand.
const NO_SUCH_HANDLE: [i32; 2] = [8179, 586];

impl Expectation {
    /// `context`: the fingerprint of the database and settings that handles depend on.
    pub(super) fn new(context: u64) -> Self {
        Self { context, ..Self::default() }
    }

    /// One more call.
    pub(super) fn push(&mut self, expected: Expected) {
        match self.calls.back_mut() {
            Some((last, count)) if *last == expected => *count += 1,
            _ => self.calls.push_back((expected, 1)),
        }
    }

    /// True if the response did not fit the request: its handles were taken back, and the connection is of no use to others
    /// until it is reset.
    pub(crate) fn out_of_step(&self) -> bool {
        self.out_of_step
    }

    /// A token of the response. What it is to become can only be done to tokens that are held
    /// ([`Scanned::is_held`]).
    pub(crate) fn on_event(
        &mut self,
        scanned: &Scanned<'_>,
        statements: &mut Statements,
        reals: &mut RealHandles,
    ) -> Edit {
        let Some((current, _)) = self.calls.front() else { return Edit::Keep };
        match &scanned.event {
            Event::ReturnStatus(_) if matches!(current, Expected::OwnUnprepare(_)) => Edit::Drop,
            Event::Message { is_error: true, number, .. } if NO_SUCH_HANDLE.contains(number) => {
                if let Expected::Uses(real) = *current {
                    reals.forget(real);
                }
                Edit::Keep
            }
            Event::ReturnValue(value) => self.return_value(value, statements, reals),
            Event::Done(done) => self.done(*done, statements, reals),
            Event::Lost(_) => {
                self.broken_off(reals);
                Edit::Keep
            }
            _ => Edit::Keep,
        }
    }

    /// The response ended early, or nobody reads it any more: handles may have been made that nobody knows.
    pub(crate) fn broken_off(&mut self, reals: &mut RealHandles) {
        for (expected, _) in std::mem::take(&mut self.calls) {
            match expected {
                Expected::Gives { frees, .. } if !self.has_come => did_not_come(frees, reals),
                Expected::Learns { .. } if !self.has_come => reals.lose(),
                Expected::OwnUnprepare(real) | Expected::Unprepares(real) => reals.forget(real),
                _ => {}
            }
            self.has_come = false;
        }
    }

    fn return_value(
        &mut self,
        value: &RawReturnValue<'_>,
        statements: &mut Statements,
        reals: &mut RealHandles,
    ) -> Edit {
        let (Some((current, _)), Some(ordinal)) = (self.calls.front(), value.ordinal()) else {
            return Edit::Keep;
        };
        match current.clone() {
            Expected::Gives { statement, replaces, frees } if ordinal == 0 => {
                self.gives(value, statement, replaces, frees, statements, reals)
            }
            Expected::Learns { statement, .. } if ordinal == 0 => {
                self.has_come = true;
                if let Some(real) = handle(value) {
                    reals.learn(self.context, Some(&statement), real);
                }
                Edit::Drop
            }
            Expected::Learns { shift, .. } | Expected::Shifted(shift) => {
                match value.bytes {
                    Some(bytes) => shifted(bytes, ordinal.wrapping_add_signed(-shift)),
                    // It has been passed on already.
                    None => {
                        self.out_of_step = true;
                        Edit::Keep
                    }
                }
            }
            _ => Edit::Keep,
        }
    }

    fn gives(
        &mut self,
        value: &RawReturnValue<'_>,
        statement: Option<Arc<Statement>>,
        replaces: Option<i32>,
        frees: Option<i32>,
        statements: &mut Statements,
        reals: &mut RealHandles,
    ) -> Edit {
        let twice = std::mem::replace(&mut self.has_come, true);
        let Some(real) = handle(value) else {
            // A failed prepare gives NULL, and has dropped the old handle or has not.
            frees.into_iter().for_each(|freed| reals.disown(freed));
            return Edit::Keep;
        };
        if twice {
            // Two handles from one call: this is the answer to another one, and which is not known.
            self.fall_out_of_step(statements, reals);
            return numbered(value, statements.next());
        }
        if let Some(freed) = frees {
            reals.forget(freed);
        }
        if let Some(replaced) = replaces {
            statements.remove(replaced);
        }
        let prepared = match statement {
            Some(statement) => Prepared::Anywhere(reals.shared(self.context, statement)),
            None => Prepared::Here(real),
        };
        match &prepared {
            Prepared::Anywhere(statement) => reals.learn(self.context, Some(statement), real),
            Prepared::Here(_) => reals.learn(self.context, None, real),
        }
        if statements.room_for(1, prepared.size()).is_err() {
            // Late in a long message: nothing stands behind the number, and the server will say so.
            return numbered(value, statements.next());
        }
        let given = statements.add(prepared);
        self.given.push(given);
        numbered(value, given)
    }

    fn done(&mut self, done: Done, statements: &mut Statements, reals: &mut RealHandles) -> Edit {
        let is_final = done.is_final();
        // Procedures that the call itself calls end without the bit.
        let ends_call = is_final || done.status.contains(DoneStatus::RPC_IN_BATCH);
        if done.kind != DoneKind::DoneProc && !is_final || !ends_call {
            return Edit::Keep;
        }
        let Some((current, count)) = self.calls.front_mut() else { return Edit::Keep };
        let edit = match *current {
            Expected::OwnUnprepare(real) => {
                reals.forget(real);
                if is_final { Edit::Keep } else { Edit::Drop }
            }
            Expected::Unprepares(real) => {
                reals.forget(real);
                Edit::Keep
            }
            Expected::Gives { frees, .. } if !self.has_come => {
                did_not_come(frees, reals);
                Edit::Keep
            }
            Expected::Learns { .. } if !self.has_come => {
                reals.lose();
                Edit::Keep
            }
            Expected::Gives { .. } | Expected::Learns { .. } => Edit::Keep,
            Expected::Nothing | Expected::Uses(_) | Expected::Shifted(_) => Edit::Keep,
        };
        self.has_come = false;
        *count -= 1;
        if *count == 0 {
            self.calls.pop_front();
        }
        if is_final {
            let ended_early = !self.calls.is_empty();
            let failed = done.status.contains(DoneStatus::ERROR)
                || done.status.contains(DoneStatus::SERVER_ERROR)
                || done.acknowledges_attention();
            if ended_early && !failed {
                self.fall_out_of_step(statements, reals);
            }
            self.broken_off(reals);
        }
        edit
    }

    /// Nobody knows which handle belongs to which statement: none of this response is worth anything.
    fn fall_out_of_step(&mut self, statements: &mut Statements, reals: &mut RealHandles) {
        self.out_of_step = true;
        for given in self.given.drain(..) {
            if let Some(Prepared::Anywhere(statement)) = statements.remove(given)
                && let Some(real) = reals.find(self.context, &statement)
            {
                reals.disown(real);
            }
        }
        reals.lose();
    }
}

/// A new handle may have been made, and the old one dropped for it: neither is of use.
fn did_not_come(frees: Option<i32>, reals: &mut RealHandles) {
    frees.into_iter().for_each(|freed| reals.disown(freed));
    reals.lose();
}

/// The handle in a return value; none for NULL, and for what is no handle.
fn handle(value: &RawReturnValue<'_>) -> Option<i32> {
    match value.read()?.ok()?.value {
        Value::Int(number) if number != 0 => Some(number),
        _ => None,
    }
}

/// The token with another number in it.
fn numbered(value: &RawReturnValue<'_>, number: i32) -> Edit {
    let is_int = |type_info: &TypeInfo| matches!(type_info, TypeInfo::Int | TypeInfo::IntN(4));
    match (value.bytes, value.read()) {
        // The four bytes of an int are the token's last.
        (Some(bytes), Some(Ok(read))) if is_int(&read.type_info) && bytes.len() > 4 => {
            let mut token = token(&bytes[..bytes.len() - 4]);
            token.put_i32_le(number);
            Edit::Replace(token.freeze())
        }
        _ => Edit::Keep,
    }
}

/// The token with another ordinal.
fn shifted(bytes: &[u8], ordinal: u16) -> Edit {
    let mut token = token(&ordinal.to_le_bytes());
    token.put_slice(bytes.get(2..).unwrap_or_default());
    Edit::Replace(token.freeze())
}

fn token(bytes: &[u8]) -> BytesMut {
    let mut token = BytesMut::with_capacity(bytes.len() + 5);
    token.put_u8(TokenKind::RETURN_VALUE.0);
    token.put_slice(bytes);
    token
}
