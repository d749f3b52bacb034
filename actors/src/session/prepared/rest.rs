//! Changes the rest of a message that was too long to be read as a whole, as it streams through: drivers send thousands of
//! calls of sp_execute in one.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use tds::Dialect;
use tds::rpc::{Followed, RpcFollower};

use super::calls::{Calls, Watched};
use super::expectation::{Expectation, Expected};
use super::plan::{Connection, Draft};
use super::procedure::HandleProcedure;
use super::rewrite::Splice;
use super::statement::Statement;
use super::statements::Statements;

/// What is left of a message.
#[derive(Debug)]
pub(crate) struct Rest {
    dialect: Dialect,
    /// Bytes that are not sent before more is known.
    held: BytesMut,
    /// The call that they begin with, if it deals in handles.
    watched: Option<Watched>,
    /// Real handles that the message drops.
    freed: Vec<i32>,
    /// Statements that ran, each once.
    executed: Vec<Arc<Statement>>,
}

/// What the rest of a message is changed with.
pub(crate) struct Means<'a> {
    /// As [`super::read`] left it, and fed by [`Rest`] alone.
    pub(crate) follower: &'a mut RpcFollower,
    pub(crate) statements: &'a mut Statements,
    /// Nothing can be prepared before any more.
    pub(crate) connection: Connection<'a>,
    pub(crate) expects: &'a mut Expectation,
}

/// A call that is longer than that before it is known is sent as far as it is known: a statement that goes on is not
/// remembered.
const LONGEST: usize = 64 << 10;

/// What becomes of the bytes up to an offset.
enum Found {
    /// They have nothing to do with handles; then a call begins that has, perhaps.
    Call(u64, Option<Watched>),
    /// They are all that is to be known of the watched call.
    Known(u64),
}

impl Rest {
    /// `held`: the beginning of the rest, which `watched` begins with.
    pub(super) fn new(dialect: Dialect, held: &[u8], watched: Option<Watched>, freed: Vec<i32>) -> Self {
        Self { dialect, held: BytesMut::from(held), watched, freed, executed: Vec::new() }
    }

    /// The statements that ran.
    pub(crate) fn executed(&self) -> &[Arc<Statement>] {
        &self.executed
    }

    /// Takes the next bytes of the payload and puts what can be sent behind what is in `out`.
    pub(crate) fn feed(&mut self, payload: &[u8], means: &mut Means<'_>, out: &mut BytesMut) {
        let from = means.follower.offset() - self.held.len() as u64;
        let mut watched = self.watched;
        let mut found = Vec::new();
        means.follower.feed(payload, |followed| match followed {
            Followed::Call { offset, callee, .. } => {
                watched = HandleProcedure::of(callee).map(|procedure| Watched::new(procedure, offset));
                found.push(Found::Call(offset, watched));
            }
            Followed::Parameter { offset } => {
                if let Some(before) = watched {
                    watched = before.after_parameter();
                    if watched.is_none() {
                        found.push(Found::Known(offset));
                    }
                }
            }
            Followed::Separator { offset, .. } => {
                if watched.take().is_some() {
                    found.push(Found::Known(offset));
                }
            }
        });
        let joined;
        let bytes = if self.held.is_empty() {
            payload
        } else {
            self.held.put_slice(payload);
            joined = std::mem::take(&mut self.held);
            &joined[..]
        };
        let upto = |offset: u64| usize::try_from(offset - from).map_or(bytes.len(), |at| at.min(bytes.len()));
        let mut at = 0;
        for found in found {
            match found {
                Found::Call(offset, watched) => {
                    out.put_slice(&bytes[at..upto(offset)]);
                    at = upto(offset);
                    if watched.is_none() {
                        means.expects.push(Expected::Nothing);
                    }
                }
                Found::Known(offset) => {
                    self.call(&bytes[at..upto(offset)], means, out);
                    at = upto(offset);
                }
            }
        }
        self.watched = watched;
        let keep = match watched {
            Some(_) if bytes.len() - at > LONGEST => {
                self.watched = None;
                self.call(&bytes[at..], means, out);
                bytes.len()
            }
            Some(_) => at,
            None => {
                let keep = means.follower.unreported_call().map_or(bytes.len(), upto);
                out.put_slice(&bytes[at..keep]);
                keep
            }
        };
        self.held = BytesMut::from(&bytes[keep..]);
    }

    /// The payload has ended.
    pub(crate) fn finish(&mut self, means: &mut Means<'_>, out: &mut BytesMut) {
        let held = std::mem::take(&mut self.held);
        match self.watched.take() {
            Some(_) => self.call(&held, means, out),
            None => out.put_slice(&held),
        }
    }

    /// A call that deals in handles, as far as it has to be known.
    fn call(&mut self, bytes: &[u8], means: &mut Means<'_>, out: &mut BytesMut) {
        let mut payload = Vec::with_capacity(NO_HEADERS.len() + bytes.len());
        payload.put_slice(&NO_HEADERS);
        payload.put_slice(bytes);
        let calls = Calls::of_one(&payload, self.dialect);
        let connection = Connection { has_prepared: true, ..means.connection };
        let mut draft = Draft::new(&calls, means.statements, connection, means.expects);
        draft.freed = std::mem::take(&mut self.freed);
        match calls.calls.first() {
            Some(call) => draft.call(call),
            None => draft.nothing(),
        }
        let Draft { splices, dropped, freed, executed, .. } = draft;
        if let Some(executed) = executed
            && !self.executed.iter().rev().any(|known| Arc::ptr_eq(known, &executed))
        {
            self.executed.push(executed);
        }
        self.freed = freed;
        for handle in dropped {
            means.statements.remove(handle);
        }
        let mut changed = BytesMut::with_capacity(payload.len());
        Splice::apply(&splices, &payload, &mut changed);
        out.put_slice(changed.get(NO_HEADERS.len()..).unwrap_or_default());
    }
}

/// ALL_HEADERS without any.
const NO_HEADERS: [u8; 4] = [4, 0, 0, 0];
