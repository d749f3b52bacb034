//! Follows an RPC message whose payload comes in pieces, and says where its calls and parameters begin.
//!
//! What [`super::RpcReader`] does with a message that lies in one piece, this does with one that streams through: values
//! are passed over in strides, and nothing is kept but a part that was cut in two.

mod part;

use super::{ProcId, Separator};
use crate::scan::{Cell, Walk};
use crate::{Dialect, Malformed};
use part::{Next, Part, Table};

/// Follows one message after the other. Memory is kept from one to the next.
#[derive(Debug)]
pub struct RpcFollower {
    dialect: Dialect,
    state: State,
    /// Payload bytes seen since the message began.
    offset: u64,
    /// Bytes of a part that did not come in one piece.
    held: Vec<u8>,
    /// How long `held` must grow before it is worth another look.
    wanted: usize,
    table: Table,
    walk: Walk,
}

#[derive(Debug)]
enum State {
    /// Something that has to be whole to be understood.
    Part(Part),
    /// So many bytes up to the next part.
    Skip(u64, Part),
    /// Inside a value; then the next part.
    Value(Cell, Part),
    /// Inside a row of a table; then the next part.
    Row(Part),
    /// Given up.
    Lost(Malformed),
}

/// What begins or ends. Offsets count payload bytes from the beginning of the message, ALL_HEADERS included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followed<'a> {
    /// A call begins.
    Call {
        /// Where its name or number begins.
        offset: u64,
        /// What is called.
        callee: Callee<'a>,
        /// Where its first parameter begins.
        parameters: u64,
    },
    /// A parameter of the current call begins: its name, flags and type have come.
    Parameter {
        /// Where its name begins.
        offset: u64,
    },
    /// The current call ends, and another one may begin.
    Separator {
        /// Where the separator's byte is.
        offset: u64,
        /// Which one.
        separator: Separator,
    },
}

/// What an RPC calls, as the wire has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callee<'a> {
    /// A built-in procedure by its number.
    Id(ProcId),
    /// A procedure by its name, in UTF-16LE.
    Name(&'a [u8]),
}

/// The longest part that is held, in bytes: room for the type of an XML parameter with a schema of the longest name.
const MAX_HELD: usize = 1 << 18;

impl RpcFollower {
    /// Begins before the first byte of a message's payload.
    pub fn new(dialect: impl Into<Dialect>) -> Self {
        let dialect = dialect.into();
        Self {
            dialect,
            state: State::Part(Part::first(dialect)),
            offset: 0,
            held: Vec::new(),
            wanted: 0,
            table: Table::default(),
            walk: Walk::default(),
        }
    }

    /// Begins before the first byte of the next message's payload.
    pub fn restart(&mut self) {
        self.state = State::Part(Part::first(self.dialect));
        self.offset = 0;
        self.held.clear();
        self.walk = Walk::default();
    }

    /// Takes the next payload bytes and reports what begins or ends in them, in order. After it was lost, nothing more
    /// is reported.
    pub fn feed(&mut self, payload: &[u8], mut on_event: impl FnMut(Followed<'_>)) {
        let mut rest = payload;
        while !rest.is_empty() {
            if let Err(why) = self.advance(&mut rest, &mut on_event) {
                self.state = State::Lost(why);
            }
        }
    }

    /// True where a well-formed message may end.
    pub fn may_end(&self) -> bool {
        matches!(self.state, State::Part(Part::Call | Part::Parameter)) && self.held.is_empty()
    }

    /// Why the message cannot be followed any further, if that is so.
    pub fn lost(&self) -> Option<&Malformed> {
        match &self.state {
            State::Lost(why) => Some(why),
            _ => None,
        }
    }

    /// Payload bytes seen since the message began.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Where the call begins whose name or number has not come whole yet; none inside a call whose beginning was reported.
    pub fn unreported_call(&self) -> Option<u64> {
        match self.state {
            State::Part(Part::Call) => Some(self.offset - self.held.len() as u64),
            _ => None,
        }
    }

    fn advance(
        &mut self,
        rest: &mut &[u8],
        on_event: &mut impl FnMut(Followed<'_>),
    ) -> Result<(), Malformed> {
        match self.state {
            State::Part(part) => self.part(part, rest, on_event)?,
            State::Skip(left, then) => {
                let now = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
                self.consume(rest, now);
                let left = left - now as u64;
                self.state = if left == 0 { State::Part(then) } else { State::Skip(left, then) };
            }
            State::Lost(_) => self.consume(rest, rest.len()),
            State::Value(..) | State::Row(_) => {}
        }
        // A value or row may be empty: it must not wait for input.
        let (walked, then) = match self.state {
            State::Value(cell, then) => (self.walk.walk(&[cell], None, rest)?, then),
            State::Row(then) => (self.walk.walk(self.table.cells(), None, rest)?, then),
            _ => return Ok(()),
        };
        let (consumed, complete) = walked;
        self.consume(rest, consumed);
        if complete {
            self.state = State::Part(then);
        }
        Ok(())
    }

    fn consume(&mut self, rest: &mut &[u8], len: usize) {
        self.offset += len as u64;
        *rest = &rest[len..];
    }

    /// Looks at a part as soon as it is whole; until then its bytes are held.
    fn part(
        &mut self,
        part: Part,
        rest: &mut &[u8],
        on_event: &mut impl FnMut(Followed<'_>),
    ) -> Result<(), Malformed> {
        if self.held.is_empty() {
            let input = *rest;
            return match part.look(input, self.offset, self.dialect, &mut self.table, on_event) {
                Ok((len, next)) => {
                    self.consume(rest, len);
                    self.go_on(next);
                    Ok(())
                }
                Err(Malformed::Truncated { missing, .. }) => {
                    self.want(input.len(), missing)?;
                    self.held.extend_from_slice(input);
                    self.consume(rest, input.len());
                    Ok(())
                }
                Err(why) => Err(why),
            };
        }
        let now = (self.wanted - self.held.len()).min(rest.len());
        self.held.extend_from_slice(&rest[..now]);
        self.consume(rest, now);
        if self.held.len() < self.wanted {
            return Ok(());
        }
        let start = self.offset - self.held.len() as u64;
        match part.look(&self.held, start, self.dialect, &mut self.table, on_event) {
            Ok((len, next)) => {
                debug_assert_eq!(len, self.held.len(), "no more is held than the part needs");
                self.held.clear();
                self.go_on(next);
                Ok(())
            }
            Err(Malformed::Truncated { missing, .. }) => self.want(self.held.len(), missing),
            Err(why) => Err(why),
        }
    }

    fn want(&mut self, have: usize, missing: usize) -> Result<(), Malformed> {
        self.wanted = have.saturating_add(missing);
        if self.wanted > MAX_HELD {
            return Err(Malformed::TooLong { what: "a part of an RPC request", limit: MAX_HELD });
        }
        Ok(())
    }

    fn go_on(&mut self, next: Next) {
        self.state = match next {
            Next::Part(part) | Next::Skip(0, part) => State::Part(part),
            Next::Skip(len, part) => State::Skip(len, part),
            Next::Value(cell, then) => State::Value(cell, then),
            Next::Row(then) => State::Row(then),
        };
    }
}
