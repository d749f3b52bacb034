//! What a proxy has agreed on with the others, bucket by bucket: it outlives the actor that keeps it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tdsbouncer_config::Redis as Settings;
use tokio::time::Instant;
use tracing::{info, warn};

use super::Permission;
use super::fence::Fence;
use super::redis::{Redis, RedisFailure};
use super::request::Sync;
use super::stake::{Mode, Stake, Terms};
use super::timing::Timing;
use crate::admin::CoordinatorRow;
use crate::bucket::BucketHandle;
use crate::metrics::Metrics;

/// What outlives the actor: the stakes are this process's, whatever crashes.
pub(crate) struct SharedEstate {
    pub(super) redis: Redis,
    pub(super) timing: Timing,
    expected: u32,
    /// `instance/incarnation`.
    pub(super) member: String,
    stakes: Mutex<HashMap<String, Held>>,
    fence: Option<Fence>,
    metrics: Arc<Metrics>,
}

/// A bucket and the stake in it.
pub(super) struct Held {
    pub(super) bucket: BucketHandle,
    pub(super) stake: Stake,
    /// What the bucket was told last, and how it stood with its ends.
    told: (Permission, [u32; 3]),
    mode: Mode,
}

impl SharedEstate {
    pub(crate) fn new(settings: &Settings, metrics: Arc<Metrics>) -> Result<Arc<Self>, RedisFailure> {
        let timing = Timing { lease: settings.lease_time, fallback: settings.fallback_time };
        let instance = settings.instance.clone().unwrap_or_else(host_name);
        let member = format!("{instance}/{:016x}", rand::random::<u64>());
        Ok(Arc::new(Self {
            redis: Redis::new(settings.clone(), timing.patience())?,
            timing,
            expected: settings.expected_instances,
            member,
            stakes: Mutex::default(),
            fence: settings.fence.then(Fence::start),
            metrics,
        }))
    }

    pub(super) fn count<T>(&self, operation: &'static str, outcome: &Result<T, RedisFailure>) {
        self.metrics.coordinator_operation(operation, outcome.is_ok());
        if outcome.is_ok() {
            self.metrics.beat();
        }
    }

    pub(super) fn stakes(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        self.stakes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bucket and the stake in it; a stake is taken when the bucket first asks.
    pub(super) fn held<'a>(
        &self,
        stakes: &'a mut HashMap<String, Held>,
        bucket: &BucketHandle,
    ) -> &'a mut Held {
        let held = stakes.entry(bucket.name().to_string()).or_insert_with(|| {
            let terms = Terms {
                timing: self.timing,
                limit: bucket.settings().max_connections,
                expected: self.expected,
            };
            Held {
                bucket: bucket.clone(),
                stake: Stake::new(self.member.clone(), terms),
                told: Default::default(),
                mode: Mode::Joining,
            }
        });
        // Taken away by a reload, and brought back by another.
        if held.bucket.is_gone() {
            held.bucket = bucket.clone();
        }
        held
    }

    /// The process must not sleep longer than until the first moment at which something that it may have open, or may
    /// open, is not its own any more.
    pub(super) fn set_fence(&self, stakes: &HashMap<String, Held>, now: Instant) {
        let Some(fence) = &self.fence else { return };
        let end = |held: &Held| {
            let allowance = held.stake.allowance();
            let most = held.bucket.shared().slots.used().max(allowance.at(now + self.timing.close()));
            allowance.ends_for(most, now)
        };
        // Whoever is awake has closed what it must not use: if not, it has this much time to do so.
        let least = now + self.timing.close();
        fence.set(stakes.values().filter_map(end).min().map(|end| end.max(least)));
    }

    /// From now on nothing is this process's any more.
    pub(super) fn forget_all(&self) {
        if let Some(fence) = &self.fence {
            fence.set(None);
        }
        self.stakes().clear();
    }

    /// How many buckets stand how with Redis.
    pub(crate) fn modes(&self) -> Vec<(&'static str, usize)> {
        let (now, stakes) = (Instant::now(), self.stakes());
        let there = |held: &&Held| !held.bucket.is_gone();
        let count = |mode| stakes.values().filter(there).filter(|held| held.stake.mode(now) == mode).count();
        Mode::ALL.iter().map(|mode| (mode.name(), count(*mode))).collect()
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String =
        name.trim().chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')).collect();
    if name.is_empty() { "proxy".to_owned() } else { name }
}

/// Whether a stake may ask something now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    /// Another request is under way.
    No,
    Yes,
    /// Others renew: what would soon be due goes along.
    Along,
}

impl Held {
    /// Tells the bucket what it may do now; returns what is to be told to Redis.
    pub(super) fn advance(&mut self, now: Instant, timing: Timing, asks: Asks) -> Option<Sync> {
        let Self { bucket, stake, .. } = self;
        let slots = &bucket.shared().slots;
        stake.configured(bucket.settings().max_connections);
        stake.retired(bucket.is_gone());
        // What is promised to Redis and what the bucket may take change together.
        let (request, permission) = slots.renegotiate(|used| {
            let request = match asks {
                Asks::No => None,
                Asks::Yes | Asks::Along => stake.request(now, bucket.demand(used), asks == Asks::Along),
            };
            let permission = permission(stake, now, timing);
            (permission, (request, permission))
        });
        let ends = [Duration::ZERO, permission.close, permission.notice]
            .map(|ahead| permission.allowance.at(now + ahead));
        let (before, ended) = &self.told;
        let same = before.target == permission.target && before.hungry == permission.hungry && *ended == ends;
        if !same {
            bucket.permission_changed();
        }
        self.told = (permission, ends);
        self.note_mode(now);
        request
    }

    fn note_mode(&mut self, now: Instant) {
        let mode = self.stake.mode(now);
        if mode == self.mode {
            return;
        }
        let (bucket, usable) = (self.bucket.name(), self.stake.usable(now));
        match mode {
            Mode::Fallback | Mode::Cut => {
                warn!(%bucket, mode = mode.name(), usable, "without the coordinator")
            }
            _ => info!(%bucket, mode = mode.name(), usable, epoch = self.stake.epoch(), "coordinated"),
        }
        self.mode = mode;
    }

    /// This proxy's row of `show coordinator`.
    pub(super) fn row(&self, now: Instant) -> CoordinatorRow {
        let used = self.bucket.shared().slots.used();
        let demand = self.bucket.demand(used);
        CoordinatorRow {
            kind: "redis",
            state: self.stake.mode(now).name().to_owned(),
            bucket: self.bucket.name().to_string(),
            instance: Some(self.stake.id().to_owned()),
            max_connections: self.stake.limit() as usize,
            quota: self.stake.usable(now) as usize,
            open: used as usize,
            want: demand.want as usize,
            waiting: demand.waiting as usize,
            epoch: self.stake.epoch(),
            round_trip: Some(self.stake.round_trip()),
        }
    }
}

fn permission(stake: &Stake, now: Instant, timing: Timing) -> Permission {
    Permission {
        allowance: stake.allowance(),
        target: stake.target(now),
        hungry: stake.is_hungry(now),
        notice: timing.notice(),
        close: timing.close(),
    }
}
