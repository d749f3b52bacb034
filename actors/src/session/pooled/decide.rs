//! What of a request the proxy answers itself, and what it sends in the place of it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tds::message::write_message;
use tds::packet::{PacketType, Status};
use tds::request::BeginTransaction;

use super::super::client_conn::ClientIo;
use super::super::prepared;
use super::Pooled;
use super::asked::Asked;
use super::receive::Incoming;
use super::state::PooledState;
use super::transaction::{Alone, Step, Transaction};
use crate::bucket::state::ISOLATION;

/// What is decided about a request before it is sent.
#[derive(Default)]
pub(super) struct Decided {
    pub(super) instead: Option<BytesMut>,
    pub(super) begin: Option<BeginTransaction>,
}

impl Pooled<'_> {
    /// What of the request is answered here (`Err`: with these tokens), and what is sent instead of it.
    pub(super) fn decide(
        &mut self,
        io: &mut ClientIo,
        incoming: &Incoming,
        asked: &Asked,
    ) -> Result<Decided, Bytes> {
        let packet_size = self.session.login.packet_size;
        let state = io.pooled.get_or_insert_default();
        // With implicit transactions a BEGIN counts differently, and a reset comes first.
        if incoming.status.asks_for_reset() || !incoming.whole {
            return Ok(Decided::default());
        }
        let version = self.session.login.dialect.version;
        if let Some(handles) = &asked.unprepares
            && let Some(tokens) = prepared::answer_unprepares(handles, &mut state.statements, version)
        {
            return Err(tokens);
        }
        if let Some(tokens) = asked.handles.as_ref().and_then(|handles| handles.answer(&mut state.statements))
        {
            return Err(tokens);
        }
        let begins_implicitly = state.settings.begins_implicitly();
        // Nothing is won where the connection is held anyway, and what is held may end with a transaction: cursors do
        // under CURSOR_CLOSE_ON_COMMIT.
        let begins_really = begins_implicitly
            || (state.ledger.holds_more_than_transaction()
                && !matches!(state.transaction, Transaction::Virtual { .. }));
        let PooledState { transaction, descriptors, settings, .. } = &mut **state;
        let answered = match asked.alone {
            Some(Alone::Begin) if !begins_really => transaction.begin_by_text(descriptors),
            Some(Alone::Commit) => transaction.end_by_text(true, descriptors),
            Some(Alone::Rollback) => transaction.end_by_text(false, descriptors),
            _ => None,
        };
        if let Some(tokens) = answered {
            return Err(tokens.freeze());
        }
        let Some(request) = &asked.transaction else { return Ok(Decided::default()) };
        if begins_really {
            return Ok(Decided::default());
        }
        let step = transaction.step(request, descriptors);
        if let (Step::Answer(_), Transaction::Virtual { begin, .. }) = (&step, &*transaction)
            && let Some(level) = Transaction::isolation(begin)
        {
            Arc::make_mut(settings).set(ISOLATION, level);
        }
        match step {
            Step::Forward => Ok(Decided::default()),
            Step::Answer(tokens) => Err(tokens.freeze()),
            Step::EndAndBegin { instead, begin } => {
                let mut bytes = BytesMut::new();
                let mut payload = BytesMut::new();
                instead.write(&mut payload, &transaction.client_headers(), self.session.login.dialect);
                let (kind, status) = (PacketType::TRANSACTION_MANAGER, Status::NORMAL);
                write_message(&mut bytes, kind, status, 0, packet_size, &payload);
                Ok(Decided { instead: Some(bytes), begin: Some(begin) })
            }
        }
    }
}
