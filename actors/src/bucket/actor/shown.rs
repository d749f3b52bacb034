//! What the bucket shows of itself: counts for health and metrics, rows for the admin view.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use tokio::time::Instant;

use super::BucketState;
use crate::admin::{PoolRow, ServerRow, WaiterRow};
use crate::bucket::key::SubPool;
use crate::bucket::pool::{SubPoolCounts, Waiting, Want};

impl BucketState {
    pub(super) fn publish(&self) {
        let shared = self.handle.shared();
        shared.counts.idle.store(self.pool.idle(), Ordering::Relaxed);
        shared.counts.waiting.store(self.pool.waiting(), Ordering::Relaxed);
        shared.counts.hungry.store(shared.slots.is_hungry(), Ordering::Relaxed);
        *shared.counts.oldest.lock().unwrap_or_else(PoisonError::into_inner) = self.pool.oldest_waiter();
        let (opening, resetting) = self.pool.arriving();
        shared.counts.opening.store(opening, Ordering::Relaxed);
        shared.counts.resetting.store(resetting, Ordering::Relaxed);
        debug_assert!(self.pool.idle() <= shared.slots.used() as usize, "an idle connection holds its slot");
    }

    pub(super) fn list(&self) -> Vec<ServerRow> {
        let name = self.handle.name();
        let idle = self.pool.each_idle().map(|(conn, since)| {
            let idle_for = Some(since.elapsed());
            ServerRow { idle_for, ..conn.about().row(name, "idle") }
        });
        let lent = self.lent.values().map(|lent| match lent.place.since() {
            Some(since) => ServerRow { idle_for: Some(since.elapsed()), ..lent.about.row(name, "idle") },
            None => lent.about.row(name, "leased"),
        });
        idle.chain(lent).collect()
    }

    pub(super) fn pool_rows(&self) -> Vec<PoolRow> {
        #[expect(clippy::mutable_key_type, reason = "a sub-pool's key never changes")]
        let mut counts: HashMap<SubPool, (SubPoolCounts, usize)> = HashMap::new();
        for (key, pool) in self.pool.each_sub_pool() {
            counts.entry(key.clone()).or_default().0 = pool;
        }
        for lent in self.lent.values() {
            let of = counts.entry(SubPool(Arc::clone(&lent.about.template))).or_default();
            match lent.place.since() {
                Some(_) => of.0.idle += 1,
                None => of.1 += 1,
            }
        }
        #[expect(clippy::mutable_key_type, reason = "a sub-pool's key never changes")]
        let mut waiting: HashMap<&SubPool, usize> = HashMap::new();
        for waiter in self.pool.each_waiter() {
            *waiting.entry(waiter.key).or_default() += 1;
        }
        let row = |(key, (pool, leased)): (SubPool, (SubPoolCounts, usize))| PoolRow {
            bucket: self.handle.name().to_string(),
            user: key.0.login.user_name.clone(),
            database: key.0.database.clone(),
            tds: key.0.login.tds_version.to_string(),
            idle: pool.idle,
            opening: pool.opening,
            resetting: pool.resetting,
            leased,
            waiting: waiting.get(&key).copied().unwrap_or(0),
        };
        counts.into_iter().map(row).collect()
    }

    pub(super) fn waiter_rows(&self) -> Vec<WaiterRow> {
        let (bucket, now) = (self.handle.name().to_string(), Instant::now());
        let row = |(place, waiter): (usize, Waiting<'_, SubPool>)| WaiterRow {
            bucket: bucket.clone(),
            place: place + 1,
            user: waiter.key.0.login.user_name.clone(),
            database: waiter.key.0.database.clone(),
            application: waiter.key.0.application.clone(),
            wants: match waiter.want {
                Want::Borrow => "connection",
                Want::Verify => "login",
                Want::Slot => "own connection",
            },
            waiting_for: now.saturating_duration_since(waiter.since),
            time_left: (!self.is_paused()).then(|| waiter.deadline.saturating_duration_since(now)),
        };
        self.pool.each_waiter().enumerate().map(row).collect()
    }
}
