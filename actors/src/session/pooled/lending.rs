//! How a session comes by its server connection, and how it parts with it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::super::client_conn::ClientIo;
use super::super::serve::{End, Waited};
use super::super::verdict::Phase;
use super::asked::Asked;
use super::values::Values;
use super::{Pooled, state_of};
use crate::bucket::Lease;
use crate::bucket::state::Wish as ConnWish;
use crate::error::SessionError;
use crate::mutant::Mutant;

impl<'a> Pooled<'a> {
    /// Makes sure that there is a connection in hand. False if the request was answered otherwise.
    pub(super) async fn borrow(&mut self, io: &mut ClientIo, asked: &Asked) -> Result<bool, End> {
        let session = self.session;
        let state = state_of(io);
        let had_one = self.lease.is_some();
        if !had_one && !self.resume() {
            let wish = ConnWish {
                session: session.conn.id,
                settings: Arc::clone(&state.settings),
                uses: state.uses,
            };
            session.conn.checkpoint.enter(Phase::Waiting);
            match session.wait_for_lease(io, Some(wish)).await? {
                Waited::Lease(lease) => {
                    session.conn.server.store(lease.id().map_or(0, |id| id.0), Ordering::Relaxed);
                    self.lease = Some(*lease);
                }
                Waited::ClientGone => return Err(End::Quiet("the client left while it waited")),
                Waited::Withdrawn => {
                    session.say_withdrawn(io).await?;
                    return Ok(false);
                }
                Waited::Refused(error) => {
                    session.refused(io, error).await?;
                    return Ok(false);
                }
            }
        }
        let shares_handles = self.lease.as_ref().is_some_and(Lease::has_handles);
        if asked.handles_by_text() && shares_handles && !state_of(io).is_free() {
            self.refuse(io, &SessionError::HandlesByText).await?;
            return Ok(false);
        }
        if !self.previous(io).contains(asked.reads_previous) && !self.is_asked_for(Mutant::PreviousValues) {
            if !had_one {
                self.give_back_untouched();
            }
            self.refuse(io, &SessionError::PreviousValuesGone).await?;
            return Ok(false);
        }
        Ok(true)
    }

    /// Takes up the connection again that it used last, if that still rests.
    pub(super) fn resume(&mut self) -> bool {
        self.lease = self.rested.take().and_then(|rested| rested.resume(Instant::now()));
        let Some(lease) = &self.lease else { return false };
        let conn = self.session.conn;
        conn.server.store(lease.id().map_or(0, |id| id.0), Ordering::Relaxed);
        self.session.login.bucket.shared().metrics.waited(Duration::ZERO);
        true
    }

    /// Whether the connection in hand is as this session left it.
    pub(super) fn is_continued(&self, io: &mut ClientIo) -> bool {
        let uses = state_of(io).uses;
        self.lease.as_ref().is_some_and(|lease| lease.is_continued(self.session.conn.id, uses))
    }

    /// Values of the session's earlier requests that are on the connection in hand.
    pub(super) fn previous(&self, io: &mut ClientIo) -> Values {
        if !self.is_continued(io) {
            return Values::NONE;
        }
        let state = state_of(io);
        let mut values = state.values;
        if self.lease.as_ref().is_some_and(|lease| !lease.has_settings(&state.settings)) {
            // What sets them goes first.
            values.overwritten();
        }
        values
    }

    /// The connection is the session's no longer; what becomes of it is the caller's to say.
    pub(super) fn take_lease(&mut self) -> Option<Lease> {
        let lease = self.lease.take()?;
        self.session.conn.server.store(0, Ordering::Relaxed);
        Some(lease)
    }

    /// The connection may serve others: as it is, its state is known.
    pub(super) fn give_back(&mut self) {
        let Some(lease) = self.take_lease() else { return };
        let conn = self.session.conn;
        if conn.checkpoint.is_held() {
            conn.checkpoint.hold(false);
            conn.show_holds(Vec::new(), &self.session.context.telemetry);
        }
        self.rested = lease.rest(Instant::now());
    }

    /// Nothing was sent on it.
    pub(super) fn give_back_untouched(&mut self) {
        if let Some(lease) = self.take_lease() {
            drop(lease);
        }
    }

    /// Nobody knows what is on it: it is closed.
    pub(super) fn drop_lease(&mut self) {
        if let Some(lease) = self.take_lease() {
            self.session.conn.show_holds(Vec::new(), &self.session.context.telemetry);
            drop(lease);
        }
    }

    /// The session is over: what it held is reset and goes home.
    pub(super) fn leave(&mut self, io: &mut ClientIo) {
        let Some(lease) = self.lease.take() else { return };
        self.session.conn.show_holds(Vec::new(), &self.session.context.telemetry);
        let state = state_of(io);
        if state.is_free() {
            lease.keep();
        } else if state.ledger.outlives_reset() {
            drop(lease);
        } else {
            lease.reset();
        }
    }
}
