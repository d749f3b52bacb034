//! The coordinator of proxies that share a Redis: it keeps a stake in every bucket, renews it, tells Redis what the
//! bucket needs and the bucket what it may use. It never waits for Redis itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_redis::redis::{PushInfo, PushKind, Value};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tdsbouncer_config::Redis as Settings;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::encoding;
use super::fence::Fence;
use super::redis::{Redis, RedisFailure};
use super::request::{Answer, Sync};
use super::stake::{Mode, Stake, Terms};
use super::timing::Timing;
use super::{CoordinatorMsg, Permission};
use crate::admin::CoordinatorRow;
use crate::bucket::BucketHandle;
use crate::metrics::Metrics;

/// What outlives the actor: the stakes are this process's, whatever crashes.
pub(crate) struct SharedEstate {
    redis: Redis,
    timing: Timing,
    expected: u32,
    /// `instance/incarnation`.
    member: String,
    stakes: Mutex<HashMap<String, Held>>,
    fence: Option<Fence>,
    metrics: Arc<Metrics>,
}

/// A bucket and the stake in it.
struct Held {
    bucket: BucketHandle,
    stake: Stake,
    /// What the bucket was told last, and how it stood with its ends.
    told: (Permission, [u32; 3]),
    mode: Mode,
    /// Redis does not answer, which was said.
    complained: bool,
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

    fn count<T>(&self, operation: &'static str, outcome: &Result<T, RedisFailure>) {
        self.metrics.coordinator_operation(operation, outcome.is_ok());
        if outcome.is_ok() {
            self.metrics.beat();
        }
    }

    fn stakes(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        self.stakes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many buckets stand how with Redis.
    pub(crate) fn modes(&self) -> Vec<(&'static str, usize)> {
        let (now, stakes) = (Instant::now(), self.stakes());
        let count = |mode| stakes.values().filter(|held| held.stake.mode(now) == mode).count();
        Mode::ALL.iter().map(|mode| (mode.name(), count(*mode))).collect()
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String =
        name.trim().chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')).collect();
    if name.is_empty() { "proxy".to_owned() } else { name }
}

pub(crate) struct SharedCoordinator;

pub(crate) struct SharedArgs(pub(crate) Arc<SharedEstate>);

pub(crate) struct SharedState {
    estate: Arc<SharedEstate>,
    myself: ActorRef<CoordinatorMsg>,
    _listener: EndsWithUs,
}

struct EndsWithUs(JoinHandle<()>);

impl Drop for EndsWithUs {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Actor for SharedCoordinator {
    type Msg = CoordinatorMsg;
    type State = SharedState;
    type Arguments = SharedArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<CoordinatorMsg>,
        SharedArgs(estate): SharedArgs,
    ) -> Result<SharedState, ActorProcessingErr> {
        // An answer to a request of the actor before this one is not coming any more.
        for held in estate.stakes().values_mut() {
            held.stake.failed(Instant::now());
        }
        let listener = tokio::spawn(listen(Arc::clone(&estate), myself.clone()));
        myself.send_interval(estate.timing.lease / 40, || CoordinatorMsg::Tick);
        Ok(SharedState { estate, myself, _listener: EndsWithUs(listener) })
    }

    async fn handle(
        &self,
        _: ActorRef<CoordinatorMsg>,
        message: CoordinatorMsg,
        state: &mut SharedState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            CoordinatorMsg::Look { bucket } => state.look(&bucket),
            CoordinatorMsg::Answered { bucket, seq, outcome } => state.answered(&bucket, seq, outcome),
            CoordinatorMsg::Woken(payload) => state.woken(&payload),
            CoordinatorMsg::Tick => state.tick(),
            CoordinatorMsg::Show(reply) => state.show(reply),
            CoordinatorMsg::Leave(reply) => state.leave(reply),
        }
        Ok(())
    }
}

impl SharedState {
    fn look(&self, bucket: &BucketHandle) {
        let mut stakes = self.estate.stakes();
        let name = bucket.name().to_string();
        let held = stakes.entry(name).or_insert_with(|| {
            let terms = Terms {
                timing: self.estate.timing,
                limit: bucket.settings().max_connections,
                expected: self.estate.expected,
            };
            Held {
                bucket: bucket.clone(),
                stake: Stake::new(self.estate.member.clone(), terms),
                told: Default::default(),
                mode: Mode::Joining,
                complained: false,
            }
        });
        held.stake.look();
        self.advance(held);
    }

    /// Tells Redis and the bucket what is to be told now.
    fn advance(&self, held: &mut Held) {
        let now = Instant::now();
        let Held { bucket, stake, .. } = held;
        let slots = &bucket.shared().slots;
        stake.configured(bucket.settings().max_connections);
        // What is promised to Redis and what the bucket may take change together.
        let (request, permission) = slots.renegotiate(|used| {
            let request = stake.request(now, bucket.demand(used));
            let permission = permission(stake, now, self.estate.timing);
            (permission, (request, permission))
        });
        let ends = [Duration::ZERO, permission.close, permission.notice]
            .map(|ahead| permission.allowance.at(now + ahead));
        let (before, ended) = &held.told;
        let same = before.target == permission.target && before.hungry == permission.hungry && *ended == ends;
        if !same {
            bucket.permission_changed();
        }
        held.told = (permission, ends);
        self.note_mode(held, now);
        if let Some(request) = request {
            self.send(held.bucket.name().to_string(), request);
        }
    }

    fn note_mode(&self, held: &mut Held, now: Instant) {
        let mode = held.stake.mode(now);
        if mode == held.mode {
            return;
        }
        let (bucket, usable) = (held.bucket.name(), held.stake.usable(now));
        match mode {
            Mode::Fallback | Mode::Cut => {
                warn!(%bucket, mode = mode.name(), usable, "without the coordinator")
            }
            _ => info!(%bucket, mode = mode.name(), usable, epoch = held.stake.epoch(), "coordinated"),
        }
        held.mode = mode;
    }

    fn send(&self, bucket: String, request: Sync) {
        let (estate, myself) = (Arc::clone(&self.estate), self.myself.clone());
        tokio::spawn(async move {
            let outcome = estate.redis.sync(&bucket, &request).await;
            estate.count("sync", &outcome);
            drop(myself.cast(CoordinatorMsg::Answered { bucket, seq: request.seq, outcome }));
        });
    }

    fn answered(&self, bucket: &str, seq: u64, outcome: Result<Answer, RedisFailure>) {
        let now = Instant::now();
        let mut stakes = self.estate.stakes();
        let Some(held) = stakes.get_mut(bucket) else { return };
        match outcome {
            Ok(answer) => {
                held.stake.answered(seq, answer, now);
                held.complained = false;
                if held.stake.has_twin() {
                    debug!(bucket, member = held.stake.id(), "another member has this instance's name");
                }
            }
            Err(why) => {
                if !std::mem::replace(&mut held.complained, true) {
                    warn!(bucket, %why, "no answer from Redis");
                }
                held.stake.unsent(seq, now);
            }
        }
        self.advance(held);
        self.set_fence(&stakes, now);
    }

    fn woken(&self, payload: &str) {
        let Some((bucket, wake)) = encoding::wake(payload) else {
            return warn!("a message on the wake channel that is none of ours");
        };
        let mut stakes = self.estate.stakes();
        if let Some(held) = stakes.get_mut(bucket) {
            held.stake.woken(&wake);
            self.advance(held);
        }
    }

    fn tick(&self) {
        let now = Instant::now();
        let mut stakes = self.estate.stakes();
        for held in stakes.values_mut() {
            self.advance(held);
        }
        self.set_fence(&stakes, now);
    }

    /// The process must not sleep longer than until the first moment at which something that it may have open, or may
    /// open, is not its own any more.
    fn set_fence(&self, stakes: &HashMap<String, Held>, now: Instant) {
        let Some(fence) = &self.estate.fence else { return };
        let end = |held: &Held| {
            let allowance = held.stake.allowance();
            let most = held.bucket.shared().slots.used().max(allowance.at(now + self.estate.timing.close()));
            allowance.ends_for(most, now)
        };
        // Whoever is awake has closed what it must not use: if not, it has this much time to do so.
        let least = now + self.estate.timing.close();
        fence.set(stakes.values().filter_map(end).min().map(|end| end.max(least)));
    }

    /// Every proxy as Redis knows it; where Redis does not answer, this one alone.
    fn show(&self, reply: RpcReplyPort<Option<Vec<CoordinatorRow>>>) {
        let now = Instant::now();
        let own: Vec<CoordinatorRow> = self.estate.stakes().values().map(|held| own_row(held, now)).collect();
        let estate = Arc::clone(&self.estate);
        tokio::spawn(async move {
            let mut rows = Vec::new();
            for own in own {
                let written = estate.redis.members(&own.bucket).await;
                estate.count("show", &written);
                let others = written.unwrap_or_default().into_iter();
                let others = others.filter(|other| other.member != estate.member);
                rows.extend(others.map(|other| CoordinatorRow {
                    kind: "redis",
                    state: if other.lapsed { "lapsed" } else { "other" }.to_owned(),
                    bucket: own.bucket.clone(),
                    instance: Some(other.member),
                    max_connections: own.max_connections,
                    quota: other.held as usize,
                    open: other.used as usize,
                    want: other.want as usize,
                    waiting: other.waiting as usize,
                    epoch: own.epoch,
                    round_trip: Some(Duration::from_micros(other.round_trip_us)),
                }));
                rows.push(own);
            }
            rows.sort_by(|a, b| (&a.bucket, &a.instance).cmp(&(&b.bucket, &b.instance)));
            drop(reply.send(Some(rows)));
        });
    }

    fn leave(&self, reply: RpcReplyPort<()>) {
        let now = Instant::now();
        let leaving: Vec<_> = (self.estate.stakes().iter_mut())
            .filter_map(|(bucket, held)| {
                let nothing = Permission::constant(0);
                let slots = &held.bucket.shared().slots;
                slots.renegotiate(|used| {
                    // What is open goes with the process, and its slots with the lease.
                    (nothing, (used == 0).then(|| (bucket.clone(), held.stake.leave(now))))
                })
            })
            .collect();
        if let Some(fence) = &self.estate.fence {
            fence.set(None);
        }
        self.estate.stakes().clear();
        let estate = Arc::clone(&self.estate);
        tokio::spawn(async move {
            let mut asking = tokio::task::JoinSet::new();
            for (bucket, request) in leaving {
                let estate = Arc::clone(&estate);
                asking.spawn(async move {
                    if let Err(why) = estate.redis.sync(&bucket, &request).await {
                        error!(bucket, %why, "slots are given back only when their lease ends");
                    }
                });
            }
            asking.join_all().await;
            drop(reply.send(()));
        });
    }
}

fn permission(stake: &Stake, now: Instant, timing: Timing) -> Permission {
    Permission {
        allowance: stake.allowance(),
        target: stake.target(now),
        hungry: stake.is_hungry(),
        notice: timing.notice(),
        close: timing.close(),
    }
}

fn own_row(held: &Held, now: Instant) -> CoordinatorRow {
    let used = held.bucket.shared().slots.used();
    let demand = held.bucket.demand(used);
    CoordinatorRow {
        kind: "redis",
        state: held.stake.mode(now).name().to_owned(),
        bucket: held.bucket.name().to_string(),
        instance: Some(held.stake.id().to_owned()),
        max_connections: held.stake.limit() as usize,
        quota: held.stake.usable(now) as usize,
        open: used as usize,
        want: demand.want as usize,
        waiting: demand.waiting as usize,
        epoch: held.stake.epoch(),
        round_trip: Some(held.stake.round_trip()),
    }
}

/// Keeps a subscription to the wake channel, for ever. What is missed is found at the next renewal.
async fn listen(estate: Arc<SharedEstate>, coordinator: ActorRef<CoordinatorMsg>) {
    loop {
        let (to, mut messages) = mpsc::unbounded_channel();
        let listening = estate.redis.listen(to).await;
        estate.count("listen", &listening);
        match listening {
            Ok(mut connection) => loop {
                match tokio::time::timeout(estate.timing.lease, messages.recv()).await {
                    Ok(Some(push)) if push.kind == PushKind::Disconnection => break,
                    Ok(Some(push)) => {
                        if let Some(payload) = payload(&push) {
                            drop(coordinator.cast(CoordinatorMsg::Woken(payload)));
                        }
                    }
                    Ok(None) => break,
                    // A connection that leads nowhere is as silent as one without news.
                    Err(_) => {
                        let ping = deadpool_redis::redis::cmd("PING");
                        let alive = ping.query_async::<Value>(&mut connection);
                        let alive = tokio::time::timeout(estate.redis.patience(), alive).await;
                        if !matches!(alive, Ok(Ok(_))) {
                            break;
                        }
                    }
                }
            },
            Err(why) => debug!(%why, "not listening"),
        }
        tokio::time::sleep(estate.timing.patience()).await;
    }
}

fn payload(push: &PushInfo) -> Option<String> {
    match (&push.kind, push.data.last()) {
        (PushKind::Message, Some(Value::BulkString(bytes))) => String::from_utf8(bytes.clone()).ok(),
        _ => None,
    }
}
