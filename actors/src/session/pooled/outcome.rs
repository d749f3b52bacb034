//! What follows from a request that has run, or could not be run to its end.

use std::sync::Arc;

use tds::request::BeginTransaction;
use tdsbouncer_config::UnknownProcedures;
use tokio::time::Instant;
use tracing::debug;

use super::super::client_conn::ClientIo;
use super::super::relay::RelayEnd;
use super::super::serve::{End, Session};
use super::super::verdict::Phase;
use super::asked::Asked;
use super::observer::{Reply, Told};
use super::transaction::{self, Transaction};
use super::turn::TurnEnd;
use super::{Pooled, state_of};
use crate::bucket::self_test::SessionRecovery;
use crate::bucket::state::ISOLATION;
use crate::bucket::witness::StateIds;
use crate::bucket::{Lease, ServerConn};
use crate::error::SessionError;
use crate::mutant::Mutant;

impl Pooled<'_> {
    /// The response went out whole: what it did, and whether the connection goes home.
    pub(super) fn settle(
        &mut self,
        io: &mut ClientIo,
        asked: &Asked,
        mut reply: Reply,
        begin: Option<BeginTransaction>,
    ) {
        let session = self.session;
        if let Some(exchange) = &mut io.exchange {
            exchange.forget_server();
        }
        self.tell(&reply);
        let rules = self.rules();
        let state = io.pooled.get_or_insert_default();
        let Some(conn) = self.lease.as_mut().and_then(Lease::conn) else { return };
        reply.told = told(session, conn);
        let ran = !reply.error && !reply.withdrawn;
        // The level stays, whoever begins the transaction.
        let level = asked.transaction.as_ref().and_then(transaction::begins).and_then(Transaction::isolation);
        // What begins later has not set it on this connection yet.
        let begins_later = begin.is_some();
        if let Some(level) = level.filter(|_| ran && !begins_later) {
            Arc::make_mut(&mut state.settings).set(ISOLATION, level);
        }
        if let Some(begin) = begin.filter(|_| ran && reply.ended.is_none()) {
            state.nested = Some(begin);
        }
        conn.state.last = Some((session.conn.id, conn.uses));
        state.uses = conn.uses;
        state.settle(asked, reply, &mut conn.state, rules, Instant::now());
        if let Some(level) = level.filter(|_| ran && begins_later) {
            Arc::make_mut(&mut state.settings).set(ISOLATION, level);
        }
        let held = !state.is_free() && !Mutant::Hold.is_asked_for(rules.application);
        if held || session.conn.checkpoint.is_held() {
            session.conn.checkpoint.hold(held);
            session.conn.show_holds(
                state.ledger.reasons().into_iter().map(|(reason, since)| (reason.name(), since)).collect(),
                &session.context.telemetry,
            );
        }
        // A transaction that was begun and is over holds nothing either.
        let lingers = asked.leaves_values && !session.login.bucket.settings().linger.is_zero();
        if !held && !lingers {
            self.give_back();
        }
    }

    /// What is told of the request that was answered.
    pub(super) fn tell(&self, reply: &Reply) {
        let clock = &self.session.conn.clock;
        clock.rows(reply.rows);
        if reply.withdrawn {
            clock.cancelled();
        } else if reply.error {
            clock.error(reply.number.unwrap_or(-1));
        }
    }

    /// The turn could not be ended.
    pub(super) async fn failed(
        &mut self,
        io: &mut ClientIo,
        end: TurnEnd,
        was_held: bool,
    ) -> Result<(), End> {
        self.drop_lease();
        self.session.conn.checkpoint.hold(false);
        let in_response = self.session.conn.checkpoint.phase() == Phase::Forwarding;
        let told = |error: SessionError, quietly| {
            Err(if in_response { End::Quiet(quietly) } else { End::Told(error) })
        };
        let lost = match end {
            TurnEnd::Relay(RelayEnd::ClientGone) => return Err(End::Quiet("the client left")),
            TurnEnd::Relay(RelayEnd::ClientStalled(how)) => return Err(End::Quiet(how)),
            TurnEnd::Relay(RelayEnd::ClientProtocol(malformed)) => {
                return told(SessionError::ClientProtocol(malformed), "the client broke the protocol");
            }
            TurnEnd::Relay(RelayEnd::Wished) => return told(SessionError::Killed, "closed by an operator"),
            TurnEnd::Relay(RelayEnd::Recalled(why)) => {
                return told(SessionError::Recalled(why), "the server connection was recalled");
            }
            TurnEnd::Relay(RelayEnd::AttentionUnanswered) => "it did not acknowledge an attention".to_owned(),
            TurnEnd::Relay(RelayEnd::ServerGone(why)) => why,
            TurnEnd::Relay(RelayEnd::ServerProtocol(malformed)) => malformed.to_string(),
            TurnEnd::ReadsPrevious if was_held => {
                return told(SessionError::PreviousValuesGone, "values of an earlier request were gone");
            }
            TurnEnd::ReadsPrevious => {
                state_of(io).lost_connection();
                return self.refuse(io, &SessionError::PreviousValuesGone).await;
            }
            TurnEnd::NotPrepared { why, sent: false } if !was_held => {
                let state = state_of(io);
                if state.transaction.is_open() {
                    // It was begun for this request only, and is gone with its connection.
                    return Err(End::Told(SessionError::ServerLost { why }));
                }
                state.lost_lease();
                return self.refuse(io, &SessionError::NotPrepared { why }).await;
            }
            TurnEnd::NotPrepared { why, .. } => why,
        };
        let state = state_of(io);
        if in_response || was_held || state.transaction.is_open() {
            return told(SessionError::ServerLost { why: lost }, "the server connection was lost");
        }
        debug!(session = %self.session.conn.id, why = lost, "a server connection was lost under a request");
        state.lost_connection();
        self.refuse(io, &SessionError::ServerLostUnderRequest { why: lost }).await
    }
}

/// What the server says of the session that has this connection.
fn told(session: &Session<'_>, conn: &ServerConn) -> Option<Told> {
    let witness = conn.witness.as_ref()?;
    let bucket = &session.login.bucket;
    let traits = bucket.shared().traits.load();
    let recovery = traits.as_ref().map_or(SessionRecovery::NotOffered, |traits| traits.session_recovery);
    if recovery == SessionRecovery::Silent {
        return None;
    }
    let context = traits.as_ref().map_or(StateIds::NONE, |traits| traits.context_states);
    Some(Told {
        recoverable: witness.is_recoverable(),
        has_context: witness.has_changed(context),
        context,
        // A text that nobody has read is as a procedure that nobody knows.
        everything: recovery == SessionRecovery::Tells
            && bucket.settings().unknown_procedures == UnknownProcedures::Share,
    })
}
