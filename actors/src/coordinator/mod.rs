//! What agrees with the other proxies on how many slots of each bucket this one may use. This file is what
//! buckets hold of it; docs/coordinator.md says how Redis is used.

mod allowance;
mod encoding;
mod estate;
mod fence;
mod keys;
#[cfg(test)]
mod ledger;
mod listen;
mod local;
mod redis;
mod request;
mod rule;
mod shared;
#[cfg(test)]
mod simulation;
mod stake;
#[cfg(test)]
mod sync_test;
mod timing;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use ractor::rpc::CallResult;
use ractor::{ActorRef, RpcReplyPort};

pub(crate) use allowance::Allowance;
pub(crate) use estate::SharedEstate;
pub(crate) use local::LocalCoordinator;
pub(crate) use shared::{SharedArgs, SharedCoordinator};
pub(crate) use stake::Use;

use crate::admin::CoordinatorRow;
use crate::bucket::BucketHandle;
use redis::RedisFailure;
use request::{Answer, Asked};

/// Sent by buckets (one when they start, one a second while they have less than they could use, and whenever clients
/// begin to wait or slots can be given back), by the coordinator itself (one `Ask` at a time), by its own requests (one
/// outcome each), by its listener, by operators and by the drain.
pub(crate) enum CoordinatorMsg {
    /// The bucket's use of its slots changed. The answer, now or later, is [`BucketHandle::permit`].
    Look { bucket: BucketHandle },
    /// What happened to buckets is to be told to Redis now.
    Ask,
    /// What Redis answered to a batch of requests.
    Answered {
        batch: u64,
        asked: Asked<String>,
        outcome: Result<Vec<Result<Answer, RedisFailure>>, RedisFailure>,
    },
    /// A message of the wake channel.
    Woken(String),
    /// The wake channel is listened to, perhaps in another Redis than before.
    Listening,
    /// Time passed.
    Tick,
    /// What is known of every proxy and bucket; nothing where there is only one.
    Show(RpcReplyPort<Option<Vec<CoordinatorRow>>>),
    /// No slot will be used any more.
    Leave(RpcReplyPort<()>),
}

/// What a bucket may do with slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Permission {
    /// How many slots may be used, and until when.
    pub(crate) allowance: Allowance,
    /// How many should be used at most: others wait.
    pub(crate) target: u32,
    /// Others wait: what lies idle is closed.
    pub(crate) hungry: bool,
    /// How long before their end slots are asked back at clean boundaries.
    pub(crate) notice: Duration,
    /// How long before their end connections are closed whatever runs on them; zero: never.
    pub(crate) close: Duration,
}

impl Permission {
    /// So many slots for ever.
    pub(crate) const fn constant(slots: u32) -> Self {
        let allowance = Allowance::constant(slots);
        Self { allowance, target: slots, hungry: false, notice: Duration::ZERO, close: Duration::ZERO }
    }
}

/// A typed handle that finds the coordinator's actor anew for each message.
#[derive(Clone, Default)]
pub(crate) struct CoordinatorHandle {
    actor: Arc<ArcSwapOption<ActorRef<CoordinatorMsg>>>,
    shared: Arc<AtomicBool>,
}

impl CoordinatorHandle {
    /// Has the coordinator look at the bucket. If it is away the bucket asks again a second later.
    pub(crate) fn look(&self, bucket: &BucketHandle) {
        if let Some(actor) = &*self.actor.load() {
            drop(actor.cast(CoordinatorMsg::Look { bucket: bucket.clone() }));
        }
    }

    /// Every proxy and bucket, as far as the coordinator knows; `None` where there is only this one.
    pub(crate) async fn rows(&self) -> Option<Vec<CoordinatorRow>> {
        self.ask(CoordinatorMsg::Show, Duration::from_secs(4)).await.flatten()
    }

    /// This proxy is alone.
    pub(crate) fn is_local(&self) -> bool {
        !self.shared.load(Ordering::Relaxed)
    }

    /// Other proxies are asked.
    pub(crate) fn is_shared(&self) {
        self.shared.store(true, Ordering::Relaxed);
    }

    /// Gives everything back. The caller made sure that nothing is used any more.
    pub(crate) async fn leave(&self) {
        self.ask(CoordinatorMsg::Leave, Duration::from_secs(2)).await;
    }

    async fn ask<T: Send + 'static>(
        &self,
        message: impl FnOnce(RpcReplyPort<T>) -> CoordinatorMsg,
        patience: Duration,
    ) -> Option<T> {
        let actor = self.actor.load_full()?;
        match actor.call(message, Some(patience)).await {
            Ok(CallResult::Success(answer)) => Some(answer),
            _ => None,
        }
    }

    /// The supervisor started the actor, anew perhaps.
    pub(crate) fn started(&self, actor: ActorRef<CoordinatorMsg>) {
        self.actor.store(Some(Arc::new(actor)));
    }
}
