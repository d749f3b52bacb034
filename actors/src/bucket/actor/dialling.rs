//! Opens server connections for waiters, and says what went wrong where none could be opened.

use std::sync::Arc;

use rand::RngExt;
use tdsbouncer_config::BucketAuth;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{BucketMsg, BucketState, Errand, Waiter};
use crate::bucket::dial::{DialError, Dialled};
use crate::bucket::key::SubPool;
use crate::bucket::pool::Want;
use crate::bucket::recall::RecallLevel;
use crate::bucket::slots::SlotPermit;
use crate::bucket::{ServerConn, errand, self_test};
use crate::error::AcquireError;
use crate::policy::BackOff;

impl BucketState {
    pub(super) fn take_slot(&self) -> Option<SlotPermit> {
        self.handle.shared().slots.take(Arc::new(self.handle.clone()))
    }

    pub(super) fn dial(&mut self, key: SubPool) {
        let Some(permit) = self.take_slot() else {
            debug_assert!(false, "only the bucket takes slots, and it planned with what is free");
            self.pool.dial_ended(&key);
            return;
        };
        let (myself, handle, template) = (self.myself.clone(), self.handle.clone(), Arc::clone(&key.0));
        let (told, recall) = (key.clone(), Arc::clone(permit.recall()));
        let work = Box::pin(async move {
            let outcome = tokio::select! {
                outcome = self_test::open(&handle, &template, permit) => outcome.map(Box::new),
                why = recall.wanted(RecallLevel::Now) => Err(DialError::Recalled(why)),
            };
            drop(myself.cast(BucketMsg::Dialled { key: told, outcome }));
        });
        match errand::run(self.myself.get_cell(), work) {
            Some(id) => drop(self.errands.insert(id, Errand::Dial(key))),
            None => self.pool.dial_ended(&key),
        }
    }

    pub(super) fn dialled(&mut self, key: &SubPool, outcome: Result<Box<Dialled>, DialError>) {
        self.pool.dial_ended(key);
        let shared = self.handle.shared();
        shared.metrics.dial(outcome.is_ok());
        match outcome {
            Ok(dialled) => {
                self.failures = 0;
                self.backed_off_until = None;
                shared.note_failure(None);
                let response = Arc::new(dialled.response);
                shared.verified.remember(&key.0.key, Arc::clone(&response), dialled.asked);
                shared.metrics.connected(dialled.asked.elapsed());
                for waiter in self.pool.leave_where(|of, want, _| of == key && want == Want::Verify) {
                    if let Waiter::Verify(reply) = waiter {
                        drop(reply.send(Ok(Arc::clone(&response))));
                    }
                }
                let conn = self.with_expiry(dialled.conn);
                self.put_idle(key.clone(), conn, Instant::now());
            }
            Err(error) if self.is_paused() => {
                shared.metrics.dial_failed(error.label());
                info!(bucket = %self.handle.name(), %error, "no server connection while paused");
            }
            // Clients did nothing wrong, and must not read about a login that is not theirs.
            Err(DialError::Refused { messages })
                if matches!(self.handle.settings().auth, BucketAuth::Service { .. }) =>
            {
                warn!(bucket = %self.handle.name(), ?messages, "the server refused the service login");
                shared.metrics.dial_failed("login_refused");
                self.dial_failed("it refuses the bucket's service login");
            }
            Err(DialError::Refused { messages }) => {
                shared.metrics.dial_failed("login_refused");
                self.refused(key, messages);
            }
            // The server did nothing wrong.
            Err(DialError::Recalled(why)) => {
                debug!(bucket = %self.handle.name(), %why, "a dial was given up");
            }
            Err(error) => {
                shared.metrics.dial_failed(error.label());
                self.dial_failed(&error.to_string());
            }
        }
    }

    pub(super) fn with_expiry(&self, mut conn: Box<ServerConn>) -> Box<ServerConn> {
        let settings = self.handle.settings();
        conn.expires = settings.max_lifetime.map(|lifetime| {
            let early = if settings.lifetime_jitter > 0.0 {
                rand::rng().random_range(0.0..settings.lifetime_jitter)
            } else {
                0.0
            };
            conn.opened + lifetime.mul_f64(1.0 - early)
        });
        conn
    }

    /// The server does not want this login. Everybody with the same credentials would hear the same.
    pub(super) fn refused(&mut self, key: &SubPool, messages: Vec<tds::server_message::ServerMessage>) {
        let shared = self.handle.shared();
        let numbers: Vec<i32> = messages.iter().map(|message| message.number).collect();
        info!(bucket = %self.handle.name(), user = %key.0.key.user, ?numbers, "the server refused a login");
        shared.verified.forget_principal(&key.0.key.user);
        let error = AcquireError::Refused(messages);
        for waiter in self.pool.leave_where(|of, want, _| of == key && want != Want::Slot) {
            waiter.refuse(error.clone());
        }
    }

    /// The server cannot be reached: back off. Whoever nothing can serve before the next attempt is told so.
    pub(super) fn dial_failed(&mut self, why: &str) {
        let settings = self.handle.settings();
        let back_off =
            BackOff { first: settings.reconnect_backoff.min, most: settings.reconnect_backoff.max };
        let pause = back_off.delay(self.failures);
        warn!(bucket = %settings.name, why, ?pause, failures = self.failures + 1, "cannot open a server connection");
        self.failures = self.failures.saturating_add(1);
        self.backed_off_until = Some(Instant::now() + pause);
        self.handle.shared().note_failure(Some(why.to_owned()));
        let nothing_open = self.handle.shared().slots.used() <= self.handle.shared().slots.closing();
        let error = self.unreachable();
        if nothing_open {
            for waiter in self.pool.leave_where(|_, _, _| true) {
                waiter.refuse(error.clone());
            }
        }
    }

    pub(super) fn errand_crashed(&mut self, errand: &Errand, why: &str) {
        warn!(bucket = %self.handle.name(), why, "an errand crashed");
        self.handle.shared().metrics.crash("errand", self.handle.name().as_str(), why);
        match errand {
            Errand::Dial(key) => {
                self.pool.dial_ended(key);
                self.dial_failed("internal error while connecting");
            }
            Errand::Reset(key) => self.pool.reset_ended(key),
        }
    }
}
