//! What is said to a server before a session's request, so that its connection is in the state that the session has.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::BytesMut;
use tds::Dialect;
use tds::env_change::EnvChange;
use tds::message::write_message;
use tds::packet::{HEADER_LEN, PacketType, Status};
use tds::request::{AllHeaders, BeginTransaction, SqlBatch, TransactionRequest};

use super::asked::Asked;
use super::decide::Decided;
use super::receive::Incoming;
use super::state::{PooledState, Rules};
use super::transaction::Transaction;
use super::turn::{Own, OwnKind, Request};
use super::values::Values;
use crate::bucket::ServerConn;
use crate::bucket::state::Preparation;
use crate::mutant::Mutant;

/// A request and what goes before it.
pub(super) struct Prepared {
    pub(super) own: VecDeque<Own>,
    pub(super) request: Request,
    /// The session used the connection last, and nobody since.
    pub(super) continued: bool,
    /// The client's reset is acknowledged here.
    pub(super) answers_reset: bool,
}

/// Prepares a request for the connection that it is going to be sent on. `continued`: the session used it last, and nobody
/// since; `previous`: which values of its earlier requests are on it.
#[expect(clippy::too_many_arguments, reason = "the one place where session, connection and request meet")]
pub(super) fn prepare(
    state: &mut PooledState,
    conn: &mut ServerConn,
    asked: &mut Asked,
    incoming: Incoming,
    decided: Decided,
    mut continued: bool,
    previous: Values,
    rules: &Rules<'_>,
) -> Prepared {
    if asked.handles_by_text() && !conn.state.reals.is_empty() {
        // A number in a text must not meet what somebody else has prepared.
        (conn.state.dirty, continued) = (true, false);
    }
    let resets = incoming.status.asks_for_reset() && incoming.kind.can_reset();
    let answers_reset = resets && can_answer_reset(state, conn, continued);
    if answers_reset {
        state.client_reset();
    }
    let mut front = BytesMut::new();
    let keeps = incoming.status.contains(Status::RESET_CONNECTION_SKIP_TRAN);
    if resets && !keeps && matches!(state.transaction, Transaction::Virtual { .. }) {
        front = state.transaction.rolled_back();
        state.transaction = Transaction::None;
    }
    if answers_reset {
        EnvChange::ResetDone.write(&mut front);
    }
    if resets && !answers_reset {
        conn.state.reals.clear();
    }
    let own = requests(state, conn, continued, resets && !answers_reset, rules);
    if let Some(instead) = &decided.instead {
        asked.descriptor_at = AllHeaders::descriptor_offset(&instead[HEADER_LEN..]);
    }
    let request = Request {
        len: incoming.len,
        whole: incoming.whole,
        walker: incoming.walker,
        instead: decided.instead,
        clear_reset: answers_reset,
        front: (!front.is_empty()).then(|| front.freeze()),
        begin: decided.begin,
        previous,
    };
    Prepared { own, request, continued, answers_reset }
}

/// The requests to be sent. `continued`: the session used the connection last, and nobody since.
/// `client_resets`: the client's request carries a reset that the server does.
fn requests(
    state: &mut PooledState,
    conn: &mut ServerConn,
    continued: bool,
    client_resets: bool,
    rules: &Rules<'_>,
) -> VecDeque<Own> {
    let mut own = VecDeque::new();
    let dialect = conn.dialect;
    if !continued {
        let preparation = conn.state.prepare(&state.settings, client_resets, rules.always_reset);
        if let Preparation::Replay { reset, text, may_fail } = preparation {
            let (reset, text) = spoilt(reset, text, rules);
            let status = if reset { Status::RESET_CONNECTION } else { Status::NORMAL };
            let kind = if reset { OwnKind::Reset } else { OwnKind::Replay };
            let mut payload = BytesMut::new();
            SqlBatch::new(text).write(&mut payload, dialect);
            let bytes = message(PacketType::SQL_BATCH, status, &payload, rules);
            own.push_back(Own { bytes, kind, wait: may_fail || !conn.pipelines });
            conn.state.dirty &= !reset;
            if reset {
                conn.state.reals.clear();
            }
            conn.state.settings = Arc::clone(&state.settings);
        }
    }
    if continued && conn.state.settings != state.settings {
        // A transaction that no server saw left its isolation level.
        let mut payload = BytesMut::new();
        SqlBatch {
            headers: Some(state.transaction.server_headers()),
            ..SqlBatch::new(state.settings.replay_isolation())
        }
        .write(&mut payload, dialect);
        let bytes = message(PacketType::SQL_BATCH, Status::NORMAL, &payload, rules);
        own.push_back(Own { bytes, kind: OwnKind::Replay, wait: !conn.pipelines });
        conn.state.settings = Arc::clone(&state.settings);
        state.values.overwritten();
    }
    if let Transaction::Virtual { begin, .. } = &state.transaction {
        let bytes = begin_message(begin, &AllHeaders::autocommit(), dialect, rules);
        own.push_back(Own { bytes, kind: OwnKind::Begin, wait: true });
    }
    if let Some(begin) = state.nested.take()
        && state.transaction.is_open()
    {
        let bytes = begin_message(&begin, &state.transaction.server_headers(), dialect, rules);
        own.push_back(Own { bytes, kind: OwnKind::Nest, wait: true });
    }
    own
}

/// Whether a reset that the client asks for changes nothing: then the proxy acknowledges it.
fn can_answer_reset(state: &PooledState, conn: &ServerConn, continued: bool) -> bool {
    if !state.is_free() || conn.state.dirty || !conn.state.settings.is_reset() {
        return false;
    }
    // The isolation level stays the session's own: on another connection it has to be set.
    continued || *conn.state.settings == state.settings.after_reset()
}

/// As the rules have it, in all but tests that break them.
fn spoilt(reset: bool, text: String, rules: &Rules<'_>) -> (bool, String) {
    let is_asked_for = |mutant: Mutant| mutant.is_asked_for(rules.application);
    let isolation = |part: &&str| part.starts_with("SET TRANSACTION ISOLATION LEVEL");
    let text = if is_asked_for(Mutant::Isolation) {
        text.split(';').filter(|part| !isolation(part)).collect::<Vec<_>>().join(";")
    } else if is_asked_for(Mutant::Settings) {
        text.split(';').filter(isolation).collect()
    } else {
        text
    };
    (reset && !is_asked_for(Mutant::Reset), text)
}

fn begin_message(
    begin: &BeginTransaction,
    headers: &AllHeaders,
    dialect: Dialect,
    rules: &Rules<'_>,
) -> BytesMut {
    let mut payload = BytesMut::new();
    TransactionRequest::Begin(begin.clone()).write(&mut payload, headers, dialect);
    message(PacketType::TRANSACTION_MANAGER, Status::NORMAL, &payload, rules)
}

fn message(kind: PacketType, status: Status, payload: &[u8], rules: &Rules<'_>) -> BytesMut {
    let mut bytes = BytesMut::new();
    write_message(&mut bytes, kind, status, 0, rules.packet_size, payload);
    bytes
}
