//! Keeps the bucket's connections within what is permitted and wanted: by the coordinator, by operators, by age.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

use super::{BucketState, Lent, TICK};
use crate::bucket::recall::{Recall, RecallLevel, RecallReason};
use crate::bucket::server_conn::ServerConnId;
use crate::error::AcquireError;

/// Others wait: a connection that was idle for so long will not be needed the next moment.
const GIVE_BACK_AFTER: Duration = Duration::from_millis(200);

/// How often the coordinator is told at most, while slots are missing or not needed.
const SPEAK_EVERY: Duration = Duration::from_millis(50);

/// How long a sub-pool without connections is remembered, for [`crate::bucket::pool::Pool::warm`].
const FORGET_SUB_POOL: Duration = Duration::from_secs(600);

impl BucketState {
    /// Idle connections that a pause, a reconnect or a retirement has no use for are closed, lent ones asked back.
    pub(super) fn close_what_must_go(&mut self) {
        let handle = self.handle.clone();
        let standing = &handle.shared().standing;
        let paused = standing.paused().is_some();
        let all = standing.wants_connections_back();
        self.call_in_all();
        drop(self.pool.retire(|conn, _| all || !standing.is_fresh(conn.opened)));
        for lent in self.lent.values() {
            if paused {
                lent.recall.raise(RecallLevel::WhenClean, RecallReason::Paused);
            } else if !standing.is_fresh(lent.about.opened) {
                lent.recall.raise(RecallLevel::WhenClean, RecallReason::Reconnect);
            }
        }
    }

    /// An operator wants this connection closed, whatever runs on it.
    pub(super) fn close(&mut self, id: u64) -> bool {
        if let Some(lent) = self.lent.get(&ServerConnId(id)) {
            if let Some(conn) = lent.place.close() {
                drop((self.lent.remove(&conn.id), conn));
                return true;
            }
            lent.recall.raise(RecallLevel::Now, RecallReason::Killed);
            return true;
        }
        !self.pool.retire(|conn, _| conn.id.0 == id).is_empty()
    }

    /// Less may be permitted than is open: closes idle connections first, then asks for lent ones; what is overdue is
    /// closed at once, what serves nobody first.
    pub(super) fn shrink(&mut self) {
        let now = Instant::now();
        // What rests is as good as idle.
        self.let_rest(now);
        let slots = Arc::clone(&self.handle.shared().slots);
        let (surplus, reason) = slots.surplus(now);
        let mut idle = self.pool.idle().min(surplus as usize);
        let surplus = surplus as usize - idle;
        if idle > 0 {
            let doomed = self.pool.retire(|_, _| {
                let goes = idle > 0;
                idle -= usize::from(goes);
                goes
            });
            debug!(bucket = %self.handle.name(), closed = doomed.len(), "fewer connections are permitted");
        }
        if surplus > 0 || self.recalling {
            self.recall(surplus, reason);
        }
        let overdue = slots.overdue(now);
        if overdue > 0 {
            let left = overdue - slots.cut_short(overdue);
            warn!(bucket = %self.handle.name(), overdue, lent = left, "connections are closed: their slots are needed");
            for recall in self.lent_longest_first().take(left as usize) {
                recall.raise(RecallLevel::Now, reason);
            }
        }
    }

    /// Something was closed: fewer lent connections may be needed back.
    pub(super) fn shrink_on(&mut self) {
        if self.recalling {
            self.shrink();
        }
    }

    /// Asks for this many lent connections at their next clean boundary, those lent longest ago first, and for no
    /// more.
    pub(super) fn recall(&mut self, count: usize, reason: RecallReason) {
        for (nth, recall) in self.lent_longest_first().enumerate() {
            if nth < count {
                recall.raise(RecallLevel::WhenClean, reason);
            } else {
                recall.withdraw(RecallReason::QuotaShrank);
                recall.withdraw(RecallReason::LeaseEnds);
            }
        }
        self.recalling = count > 0;
    }

    pub(super) fn lent_longest_first(&mut self) -> impl Iterator<Item = Arc<Recall>> + use<> {
        self.lent_slots.retain(|slot| slot.strong_count() > 0);
        let mut lent: Vec<&Lent> = self.lent.values().collect();
        lent.sort_by_key(|lent| lent.since);
        let slots = self.lent_slots.iter().filter_map(Weak::upgrade);
        let recalls: Vec<_> = lent.into_iter().map(|lent| Arc::clone(&lent.recall)).chain(slots).collect();
        recalls.into_iter()
    }

    /// Others wait: whatever has been idle for a moment is given to them.
    pub(super) fn give_back_idle(&mut self, now: Instant) {
        if !self.handle.shared().slots.is_hungry() || self.pool.waiting() > 0 || self.pool.idle() == 0 {
            return;
        }
        drop(self.pool.retire(|_, since| now.duration_since(since) >= GIVE_BACK_AFTER));
    }

    /// Tells the coordinator when slots are missing or can be given back: at once when that begins, then now and then.
    pub(super) fn tell_coordinator(&mut self, now: Instant) {
        let shared = self.handle.shared();
        let demand = self.handle.demand(shared.slots.used());
        let quota = shared.slots.quota(now);
        let unneeded = quota > demand.used.max(demand.want);
        let speaks = demand.want > quota || (unneeded && shared.slots.is_hungry());
        if !speaks {
            self.spoke = None;
        } else if self.spoke.is_none_or(|spoke| now.duration_since(spoke) >= SPEAK_EVERY) {
            self.spoke = Some(now);
            shared.coordinator.look(&self.handle);
        }
    }

    /// Closes what died, what is too old, what was idle for too long; keeps the bucket warm.
    pub(super) fn tick(&mut self) {
        let now = Instant::now();
        drop(self.pool.leave_where(|_, _, waiter| waiter.is_gone()));
        let settings = self.handle.settings();
        if let Some(before) = now.checked_sub(settings.affinity) {
            self.call_in_since(before);
        }
        let mut may_go = self.pool.idle().saturating_sub(settings.min_idle as usize);
        let retired = self.pool.retire(|conn, since| {
            if !conn.is_usable(now) {
                return true;
            }
            // What was used a moment ago will need its buffers again.
            if now.duration_since(since) >= TICK
                && let Some(link) = conn.link()
            {
                link.shrink();
            }
            let stale = settings.idle_timeout.is_some_and(|limit| now.duration_since(since) >= limit);
            let goes = stale && may_go > 0;
            may_go -= usize::from(goes);
            goes
        });
        drop(retired);
        if let Some(before) = now.checked_sub(FORGET_SUB_POOL) {
            self.pool.forget_unused(before);
        }
        if self.handle.shared().slots.quota(now) < settings.max_connections {
            // The coordinator may have been away when we asked.
            self.handle.shared().coordinator.look(&self.handle);
        }
        self.shrink();
        self.keep_warm(now);
    }

    pub(super) fn keep_warm(&mut self, now: Instant) {
        let backed_off = self.backed_off_until.is_some_and(|until| now < until);
        let idle_wanted = !self.handle.shared().standing.wants_connections_back();
        let hungry = self.handle.shared().slots.is_hungry();
        if self.draining || backed_off || hungry || !idle_wanted || self.pool.waiting() > 0 {
            return;
        }
        let there = self.pool.idle_or_opening() + self.handle.shared().resting.count();
        let missing = (self.handle.settings().min_idle as usize).saturating_sub(there);
        for _ in 0..missing.min(self.handle.shared().slots.free(now) as usize) {
            let Some(key) = self.pool.warm() else { return };
            self.dial(key);
        }
    }

    pub(super) fn drain(&mut self) {
        self.draining = true;
        self.let_rest(Instant::now());
        drop(self.pool.retire(|_, _| true));
        for waiter in self.pool.leave_where(|_, _, _| true) {
            waiter.refuse(AcquireError::Draining);
        }
    }

    /// When idle connections have been idle for long enough to be given to others.
    pub(super) fn idle_ends(&self, now: Instant) -> Option<Instant> {
        let gives =
            self.pool.idle() > 0 && self.pool.waiting() == 0 && self.handle.shared().slots.is_hungry();
        gives.then_some(now + GIVE_BACK_AFTER)
    }
}
