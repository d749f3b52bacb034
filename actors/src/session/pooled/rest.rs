//! A session between two requests: with a server connection in hand or without one.

use std::time::Duration;

use super::super::client_conn::{ClientIo, Wish};
use super::super::serve::End;
use super::holds::Reason;
use super::{Pooled, state_of};
use crate::bucket::Lease;
use crate::bucket::recall::RecallLevel;
use crate::error::{Answer, SessionError};
use crate::wire::IdleCheck;

/// What ended a rest with a server connection in hand.
pub(super) enum Woken {
    Client,
    Server,
    Overdue,
    /// The client did nothing for too long (timeouts.client_idle).
    Idle,
    /// The bucket wants it back, as soon as nothing of the session is on it.
    Recalled,
}

impl<'a> Pooled<'a> {
    /// Rests until the client begins a request. An attention without one is acknowledged here.
    pub(super) async fn await_request(&mut self, io: &mut ClientIo) -> Result<(), End> {
        loop {
            if self.session.request_begins(io).await? {
                return Ok(());
            }
            if !io.link.input.is_empty() {
                self.session.fill(io).await?;
                continue;
            }
            if self.lease.is_none() {
                self.rest(io).await?;
                continue;
            }
            match self.rest_with_lease(io).await? {
                Woken::Client => self.session.fill(io).await?,
                Woken::Server => self.server_spoke(io)?,
                Woken::Overdue => self.overdue(io)?,
                Woken::Recalled => self.give_back(),
                Woken::Idle => return Err(End::Quiet("idle for too long (timeouts.client_idle)")),
            }
        }
    }

    /// Rests without a connection; after a while without buffers, too.
    pub(super) async fn rest(&mut self, io: &mut ClientIo) -> Result<(), End> {
        if let Some(check) = &mut self.check {
            tokio::select! {
                biased;
                () = io.link.readable() => return self.session.fill(io).await,
                () = self.session.conn.control.wanted(Wish::Drain) => {}
                () = check.as_mut() => {}
            }
        }
        self.check = None;
        self.reader = None;
        self.scratch = Vec::new();
        self.session.rest(io).await?;
        self.session.fill(io).await
    }

    pub(super) async fn rest_with_lease(&mut self, io: &mut ClientIo) -> Result<Woken, End> {
        let patience = self.patience(io);
        let session = self.session;
        let recall = self.lease.as_ref().and_then(Lease::recall).unwrap_or_default();
        let Some(server) = self.lease.as_mut().and_then(Lease::link) else { return Ok(Woken::Server) };
        let free = state_of(io).is_free();
        if !free {
            crate::crash_test::point("held-idle", &session.login.template.application);
        }
        let clean = async {
            if free { recall.wanted(RecallLevel::WhenClean).await } else { std::future::pending().await }
        };
        let overdue = async {
            match patience {
                Some((limit, woken)) => {
                    tokio::time::sleep(limit).await;
                    woken
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = session.conn.control.wanted(Wish::End) => Err(End::Told(SessionError::Killed)),
            why = recall.wanted(RecallLevel::Now) => Err(End::Told(SessionError::Recalled(why))),
            _ = clean => Ok(Woken::Recalled),
            () = io.link.readable() => Ok(Woken::Client),
            () = server.readable() => Ok(Woken::Server),
            woken = overdue => Ok(woken),
        }
    }

    /// How long a session may do nothing with its connection, and what is the matter then.
    pub(super) fn patience(&self, io: &mut ClientIo) -> Option<(Duration, Woken)> {
        let settings = self.session.login.bucket.settings();
        let state = state_of(io);
        if state.is_free() {
            return Some((settings.linger, Woken::Overdue));
        }
        let in_transaction = settings.idle_in_transaction_timeout.filter(|_| state.transaction.is_open());
        let held = [in_transaction, settings.hold_timeout].into_iter().flatten().min();
        match (held, self.session.context.config.timeouts.client_idle) {
            (Some(held), Some(idle)) if idle < held => Some((idle, Woken::Idle)),
            (Some(held), _) => Some((held, Woken::Overdue)),
            (None, idle) => idle.map(|idle| (idle, Woken::Idle)),
        }
    }

    /// A server that says something unasked closes the connection, or is not to be trusted.
    pub(super) fn server_spoke(&mut self, io: &mut ClientIo) -> Result<(), End> {
        // A socket may be called readable without a reason: only a look at it tells.
        let quiet =
            |lease: &mut Lease| lease.link().is_some_and(|link| link.check_idle() == IdleCheck::Quiet);
        if self.lease.as_mut().is_some_and(quiet) {
            return Ok(());
        }
        self.drop_lease();
        if state_of(io).is_free() {
            return Ok(());
        }
        let why = "the server closed it while the session rested".to_owned();
        Err(End::Told(SessionError::ServerLost { why }))
    }

    pub(super) fn overdue(&mut self, io: &mut ClientIo) -> Result<(), End> {
        let state = state_of(io);
        if state.is_free() {
            self.give_back();
            return Ok(());
        }
        let held: Vec<Reason> = state.ledger.reasons().into_iter().map(|(reason, _)| reason).collect();
        let names = held.iter().map(|reason| reason.name()).collect::<Vec<_>>().join(", ");
        let error = SessionError::HeldTooLong { holds: names };
        tracing::warn!(session = %self.session.conn.id, %error, "a hold ended");
        self.session.context.metrics.session_error(error.label());
        if held.iter().any(|reason| *reason != Reason::Transaction) {
            // More than a reset can make good: the session has lost what it relied on.
            return Err(End::Told(error));
        }
        // Nothing but the transaction was on it: the reset rolls it back.
        if let Some(lease) = self.take_lease() {
            lease.reset();
        }
        let rolled_back = state.transaction.rolled_back();
        state.lost_connection();
        state.overdue = Some((error, rolled_back));
        self.session.conn.checkpoint.hold(false);
        self.session.conn.show_holds(Vec::new(), &self.session.context.telemetry);
        Ok(())
    }
}
