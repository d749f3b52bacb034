//! What agrees with the other proxies on how many slots of each bucket this one may use. This file is what
//! buckets hold of it.

mod local;

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use ractor::ActorRef;

pub(crate) use local::LocalCoordinator;

use crate::bucket::BucketHandle;

/// Sent by buckets: one when they start, and one a second while they have less than they could use.
pub(crate) enum CoordinatorMsg {
    /// The bucket could use up to `slots` slots. The answer, now or later, is [`BucketHandle::quota_changed`].
    Want { bucket: BucketHandle, slots: u32 },
}

/// A typed handle that finds the coordinator's actor anew for each message.
#[derive(Clone, Default)]
pub(crate) struct CoordinatorHandle(Arc<ArcSwapOption<ActorRef<CoordinatorMsg>>>);

impl CoordinatorHandle {
    /// Asks for slots. If the coordinator is away the bucket asks again a second later.
    pub(crate) fn want(&self, bucket: &BucketHandle, slots: u32) {
        if let Some(actor) = &*self.0.load() {
            drop(actor.cast(CoordinatorMsg::Want { bucket: bucket.clone(), slots }));
        }
    }

    /// What kind of coordinator this is and how it is, for the admin view.
    pub(crate) fn describe(&self) -> (&'static str, String) {
        ("local", if self.0.load().is_some() { "ok" } else { "away" }.to_owned())
    }

    /// The supervisor started the actor, anew perhaps.
    pub(crate) fn started(&self, actor: ActorRef<CoordinatorMsg>) {
        self.0.store(Some(Arc::new(actor)));
    }
}
