//! The coordinator of proxies that share a Redis: it keeps a stake in every bucket, renews it, tells Redis what the
//! bucket needs and the bucket what it may use. It never waits for Redis itself.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::estate::{Asks, SharedEstate};
use super::listen::listen;
use super::redis::RedisFailure;
use super::request::{Answer, Asked, Sync, to_each};
use super::{CoordinatorMsg, Permission, encoding};
use crate::admin::CoordinatorRow;
use crate::bucket::BucketHandle;

/// Reasons for which Redis did not answer that are said until it does.
const COMPLAINTS: usize = 8;

pub(crate) struct SharedCoordinator;

pub(crate) struct SharedArgs(pub(crate) Arc<SharedEstate>);

pub(crate) struct SharedState {
    estate: Arc<SharedEstate>,
    myself: ActorRef<CoordinatorMsg>,
    /// Buckets to which something happened since Redis was asked last.
    pending: HashSet<String>,
    /// [`CoordinatorMsg::Ask`] is on its way.
    will_ask: bool,
    /// The batch under way and when it was sent. Meanwhile what happens is gathered for the next one.
    flight: Option<(u64, Instant)>,
    /// The same until then.
    paced_until: Option<Instant>,
    batches: u64,
    /// Why Redis does not answer, as far as it was said: each reason once.
    complaints: HashSet<String>,
    listener: EndsWithUs,
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
        let listener = EndsWithUs(tokio::spawn(listen(Arc::clone(&estate), myself.clone())));
        myself.send_interval(estate.timing.tick(), || CoordinatorMsg::Tick);
        Ok(SharedState {
            estate,
            myself,
            pending: HashSet::new(),
            will_ask: false,
            flight: None,
            paced_until: None,
            batches: 0,
            complaints: HashSet::new(),
            listener,
        })
    }

    async fn handle(
        &self,
        _: ActorRef<CoordinatorMsg>,
        message: CoordinatorMsg,
        state: &mut SharedState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            CoordinatorMsg::Look { bucket } => state.look(&bucket),
            CoordinatorMsg::Ask => state.ask(),
            CoordinatorMsg::Answered { batch, asked, outcome } => state.answered(batch, asked, outcome),
            CoordinatorMsg::Woken(payload) => state.woken(&payload),
            CoordinatorMsg::Listening => state.rouse(),
            CoordinatorMsg::Tick => state.tick(),
            CoordinatorMsg::Show(reply) => state.show(reply),
            CoordinatorMsg::Leave(reply) => state.leave(reply),
        }
        Ok(())
    }
}

impl SharedState {
    fn look(&mut self, bucket: &BucketHandle) {
        let mut stakes = self.estate.stakes();
        self.estate.held(&mut stakes, bucket).stake.look();
        drop(stakes);
        self.ask_soon(bucket.name().to_string());
    }

    fn ask_soon(&mut self, bucket: String) {
        self.pending.insert(bucket);
        let now = Instant::now();
        if self.will_ask || self.flies(now) {
            return;
        }
        self.will_ask = true;
        match self.paced_until.filter(|until| now < *until) {
            // What is already in the mailbox is asked for together.
            None => self.will_ask = self.myself.cast(CoordinatorMsg::Ask).is_ok(),
            Some(until) => drop(self.myself.send_after(until - now, || CoordinatorMsg::Ask)),
        }
    }

    /// One batch at a time, so that what happens meanwhile travels together. A cluster has no batches: each stake waits
    /// for its own answer only.
    fn flies(&self, now: Instant) -> bool {
        // The errand always answers, unless it crashes.
        let recent = |(_, sent): (u64, Instant)| now < sent + self.estate.timing.patience() * 2;
        self.flight.is_some_and(recent) && self.estate.redis.takes_batches()
    }

    fn may_ask(&self, now: Instant) -> bool {
        !self.flies(now) && self.paced_until.is_none_or(|until| now >= until)
    }

    /// Tells the buckets to which something happened, and Redis, what is to be told now.
    fn ask(&mut self) {
        self.will_ask = false;
        let now = Instant::now();
        if self.flies(now) {
            return;
        }
        let pending = std::mem::take(&mut self.pending);
        let mut stakes = self.estate.stakes();
        let requests = pending.into_iter().filter_map(|bucket| {
            let request = stakes.get_mut(&bucket)?.advance(now, self.estate.timing, Asks::Yes);
            request.map(|request| (bucket, request))
        });
        let requests = requests.collect();
        drop(stakes);
        self.send(requests, now);
    }

    /// Time passed: what is permitted may end, and leases are renewed, all together.
    fn tick(&mut self) {
        let now = Instant::now();
        let mut stakes = self.estate.stakes();
        let asks = match (self.may_ask(now), stakes.values().any(|held| held.stake.is_due(now))) {
            (false, _) => Asks::No,
            (true, false) => Asks::Yes,
            (true, true) => Asks::Along,
        };
        let requests = stakes.iter_mut().filter_map(|(bucket, held)| {
            let request = held.advance(now, self.estate.timing, asks);
            request.map(|request| (bucket.clone(), request))
        });
        let requests = requests.collect();
        self.estate.set_fence(&stakes, now);
        drop(stakes);
        self.send(requests, now);
    }

    fn send(&mut self, requests: Vec<(String, Sync)>, now: Instant) {
        if requests.is_empty() {
            return;
        }
        self.paced_until = Some(now + self.estate.timing.pace());
        if self.estate.redis.takes_batches() {
            self.flight = Some((self.batches + 1, now));
            return self.send_batch(requests);
        }
        for request in requests {
            self.send_batch(vec![request]);
        }
    }

    fn send_batch(&mut self, requests: Vec<(String, Sync)>) {
        self.batches += 1;
        let (estate, myself, batch) = (Arc::clone(&self.estate), self.myself.clone(), self.batches);
        tokio::spawn(async move {
            let outcome = estate.redis.sync(&requests).await;
            estate.count("sync", &outcome);
            let asked = requests.into_iter().map(|(bucket, request)| (bucket, request.seq)).collect();
            drop(myself.cast(CoordinatorMsg::Answered { batch, asked, outcome }));
        });
    }

    fn answered(
        &mut self,
        batch: u64,
        asked: Asked<String>,
        outcome: Result<Vec<Result<Answer, RedisFailure>>, RedisFailure>,
    ) {
        let now = Instant::now();
        self.flight.take_if(|(number, _)| *number == batch);
        let buckets: Vec<String> = asked.iter().map(|(bucket, _)| bucket.clone()).collect();
        let estate = Arc::clone(&self.estate);
        let mut stakes = estate.stakes();
        let mut new_life = false;
        match outcome {
            Ok(answers) => {
                if !self.complaints.is_empty() {
                    self.complaints.clear();
                    info!("Redis answers");
                }
                for (bucket, seq, answer) in to_each(asked, answers) {
                    let Some(held) = stakes.get_mut(&bucket) else { continue };
                    match answer {
                        Ok(answer) => {
                            new_life |= held.stake.answered(seq, answer, now);
                            if held.stake.has_twin() {
                                debug!(
                                    bucket,
                                    member = held.stake.id(),
                                    "another member has this instance's name"
                                );
                            }
                        }
                        Err(why) => {
                            warn!(bucket, %why, "Redis failed at one bucket");
                            held.stake.unsent(seq, now);
                        }
                    }
                }
            }
            Err(why) => {
                if self.complaints.len() < COMPLAINTS && self.complaints.insert(why.to_string()) {
                    warn!(%why, buckets = buckets.len(), "no answer from Redis");
                }
                for (bucket, seq) in asked {
                    if let Some(held) = stakes.get_mut(&bucket) {
                        held.stake.unsent(seq, now);
                    }
                }
            }
        }
        for bucket in &buckets {
            if let Some(held) = stakes.get_mut(bucket) {
                held.advance(now, estate.timing, Asks::No);
            }
        }
        estate.set_fence(&stakes, now);
        drop(stakes);
        if new_life {
            // The old one may live on, cut off, and would be listened to for ever.
            let listening = listen(Arc::clone(&self.estate), self.myself.clone());
            self.listener = EndsWithUs(tokio::spawn(listening));
            self.rouse();
        }
        buckets.into_iter().for_each(|bucket| self.ask_soon(bucket));
    }

    fn woken(&mut self, payload: &str) {
        let Some((bucket, wake)) = encoding::wake(payload) else {
            return warn!("a message on the wake channel that is none of ours");
        };
        let mut stakes = self.estate.stakes();
        let Some(held) = stakes.get_mut(bucket) else { return };
        held.stake.woken(&wake);
        held.advance(Instant::now(), self.estate.timing, Asks::No);
        drop(stakes);
        self.ask_soon(bucket.to_owned());
    }

    /// Redis may live another life. Buckets without use look too, so that it settles before a client comes.
    fn rouse(&self) {
        let mut stakes = self.estate.stakes();
        stakes.values_mut().for_each(|held| held.stake.rouse());
    }

    /// Every proxy as Redis knows it; where Redis does not answer, this one alone.
    fn show(&self, reply: RpcReplyPort<Option<Vec<CoordinatorRow>>>) {
        let now = Instant::now();
        let stakes = self.estate.stakes();
        let there = stakes.values().filter(|held| !held.bucket.is_gone());
        let own: Vec<CoordinatorRow> = there.map(|held| held.row(now)).collect();
        drop(stakes);
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
        let leaving: Vec<(String, Sync)> = (self.estate.stakes().iter_mut())
            .filter_map(|(bucket, held)| {
                let nothing = Permission::constant(0);
                let slots = &held.bucket.shared().slots;
                slots.renegotiate(|used| {
                    // What is open goes with the process, and its slots with the lease.
                    (nothing, (used == 0).then(|| (bucket.clone(), held.stake.leave(now))))
                })
            })
            .collect();
        self.estate.forget_all();
        let estate = Arc::clone(&self.estate);
        tokio::spawn(async move {
            let batches = match estate.redis.takes_batches() {
                true => vec![leaving],
                false => leaving.into_iter().map(|one| vec![one]).collect(),
            };
            let mut asking = tokio::task::JoinSet::new();
            for batch in batches.into_iter().filter(|batch| !batch.is_empty()) {
                let estate = Arc::clone(&estate);
                asking.spawn(async move {
                    if let Err(why) = estate.redis.sync(&batch).await {
                        error!(%why, "slots are given back only when their lease ends");
                    }
                });
            }
            asking.join_all().await;
            drop(reply.send(()));
        });
    }
}
