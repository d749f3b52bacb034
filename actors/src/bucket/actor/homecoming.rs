//! What becomes of a connection that comes home, or is called in from where it rests.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;
use tracing::{debug, warn};

use super::{BucketMsg, BucketState, Errand};
use crate::bucket::key::SubPool;
use crate::bucket::recall::RecallLevel;
use crate::bucket::reset::{ResetError, reset};
use crate::bucket::server_conn::Wear;
use crate::bucket::state::ConnState;
use crate::bucket::{ServerConn, errand, self_test};

impl BucketState {
    pub(super) fn take_back(&mut self, conn: Box<ServerConn>, wear: Wear) {
        self.handle.shared().counts.leased.fetch_sub(1, Ordering::Relaxed);
        self.came_home(conn, wear, Instant::now());
    }

    /// A connection that rests and is near is taken from its session: a waiter is going to ask for one.
    pub(super) fn call_in(&mut self, key: &SubPool, distance: impl Fn(&ServerConn) -> u8) {
        // One of the bucket's own does as well.
        if self.pool.idle_in(key) == 0
            && let Some((conn, since)) = self.places.take(key, |conn| distance(conn))
        {
            self.came_home(conn, Wear::Known, since);
        }
    }

    /// Takes everything that rests.
    pub(super) fn call_in_all(&mut self) {
        self.call_in_since(Instant::now());
    }

    pub(super) fn call_in_since(&mut self, before: Instant) {
        for (conn, since) in self.places.take_since(before) {
            self.came_home(conn, Wear::Known, since);
        }
    }

    /// Says whether connections may rest with their sessions. Where somebody waits, or connections are to be closed or given
    /// to others, they come home.
    pub(super) fn let_rest(&mut self, now: Instant) {
        let settings = self.handle.settings();
        let shared = self.handle.shared();
        let allowed = self.pool.waiting() == 0
            && !self.draining
            && !settings.affinity.is_zero()
            && settings.tenants.max_connections.is_none()
            && !shared.slots.is_hungry()
            && shared.slots.surplus(now).0 == 0
            && !shared.standing.wants_connections_back()
            && self_test::reset_is_complete(&self.handle);
        if shared.resting.allow(allowed) && !allowed {
            self.call_in_all();
            self.carry_out_plan(now);
        }
    }

    pub(super) fn came_home(&mut self, mut conn: Box<ServerConn>, wear: Wear, since: Instant) {
        self.lent.remove(&conn.id);
        conn.share = None;
        let recalled = conn.recall().level() > RecallLevel::None;
        let now = Instant::now();
        let over_quota = self.handle.shared().slots.surplus(now).0 > 0;
        let standing = &self.handle.shared().standing;
        let stale = standing.wants_connections_back() || !standing.is_fresh(conn.opened);
        let unwanted = self.draining || over_quota || recalled || stale || conn.is_expired(now);
        if unwanted || wear == Wear::Tainted {
            debug!(bucket = %self.handle.name(), conn = %conn.id, ?wear, "closed as it came home");
            drop(conn);
            return self.shrink_on();
        }
        let key = SubPool(Arc::clone(&conn.template));
        // What only a reset would take away must not reach the next client where a reset does not.
        let needs_reset = wear == Wear::Used || wear == Wear::Known && !conn.state.is_fresh();
        if needs_reset && !self_test::reset_is_complete(&self.handle) {
            debug!(bucket = %self.handle.name(), conn = %conn.id, "closed: the server's reset leaves too much");
            return;
        }
        if matches!(wear, Wear::Untouched | Wear::Known) {
            return self.put_idle(key, conn, since);
        }
        self.pool.reset_began(key.clone(), now);
        let (myself, timeout) = (self.myself.clone(), self.handle.settings().reset_timeout);
        let work = Box::pin(async move {
            let outcome = match tokio::time::timeout(timeout, reset(&mut conn)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(ResetError::Timeout { waited: timeout }),
            };
            drop(myself.cast(BucketMsg::Reset { conn, outcome }));
        });
        match errand::run(self.myself.get_cell(), work) {
            Some(id) => drop(self.errands.insert(id, Errand::Reset(key))),
            None => self.pool.reset_ended(&key),
        }
    }

    pub(super) fn was_reset(&mut self, mut conn: Box<ServerConn>, outcome: Result<(), ResetError>) {
        let key = SubPool(Arc::clone(&conn.template));
        self.pool.reset_ended(&key);
        self.handle.shared().metrics.reset(outcome.is_ok());
        match outcome {
            Ok(()) if !self.draining && !self.is_paused() => {
                conn.state = ConnState::default();
                self.put_idle(key, conn, Instant::now());
            }
            Ok(()) => {}
            Err(why) => warn!(bucket = %self.handle.name(), conn = %conn.id, %why, "discarded: not reset"),
        }
    }

    pub(super) fn put_idle(&mut self, key: SubPool, conn: Box<ServerConn>, since: Instant) {
        if self.is_paused() {
            // Opened for nobody: it came while the pause began.
            return;
        }
        self.pool.put_idle(key, conn, since);
    }
}
