//! Supervises the buckets: each is restarted by itself, and rests when it crashes too often.

use std::collections::HashMap;

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::time::Instant;
use tracing::error;

use super::BucketHandle;
use super::actor::{BucketActor, BucketArgs};
use crate::policy::{self, CrashLog};

pub(crate) struct BucketSupervisor;

/// Sent by itself: at the start, and when a bucket's rest is over.
pub(crate) enum BucketSupervisorMsg {
    Start(usize),
}

pub(crate) struct BucketSupervisorState {
    buckets: Vec<(BucketHandle, CrashLog)>,
    running: HashMap<ActorId, usize>,
}

impl Actor for BucketSupervisor {
    type Msg = BucketSupervisorMsg;
    type State = BucketSupervisorState;
    type Arguments = Vec<BucketHandle>;

    async fn pre_start(
        &self,
        myself: ActorRef<BucketSupervisorMsg>,
        buckets: Vec<BucketHandle>,
    ) -> Result<BucketSupervisorState, ActorProcessingErr> {
        for bucket in 0..buckets.len() {
            myself.cast(BucketSupervisorMsg::Start(bucket))?;
        }
        let buckets = buckets.into_iter().map(|bucket| (bucket, CrashLog::default())).collect();
        Ok(BucketSupervisorState { buckets, running: HashMap::new() })
    }

    async fn handle(
        &self,
        myself: ActorRef<BucketSupervisorMsg>,
        message: BucketSupervisorMsg,
        state: &mut BucketSupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            BucketSupervisorMsg::Start(bucket) => state.start(&myself, bucket).await,
        }
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<BucketSupervisorMsg>,
        event: SupervisionEvent,
        state: &mut BucketSupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(who, _, _) => {
                state.running.remove(&who.get_id());
                Ok(())
            }
            SupervisionEvent::ActorFailed(who, why) => {
                state.crashed(&myself, who.get_id(), &why.to_string()).await
            }
            _ => Ok(()),
        }
    }
}

impl BucketSupervisorState {
    async fn start(
        &mut self,
        myself: &ActorRef<BucketSupervisorMsg>,
        index: usize,
    ) -> Result<(), ActorProcessingErr> {
        let Some((bucket, _)) = self.buckets.get(index) else { return Ok(()) };
        let args = BucketArgs { handle: bucket.clone() };
        let (actor, _) = Actor::spawn_linked(None, BucketActor, args, myself.get_cell()).await?;
        self.running.insert(actor.get_id(), index);
        bucket.started(actor);
        Ok(())
    }

    async fn crashed(
        &mut self,
        myself: &ActorRef<BucketSupervisorMsg>,
        who: ActorId,
        why: &str,
    ) -> Result<(), ActorProcessingErr> {
        let Some(index) = self.running.remove(&who) else { return Ok(()) };
        let Some((bucket, crashes)) = self.buckets.get_mut(index) else { return Ok(()) };
        error!(bucket = %bucket.name(), why, "bucket crashed");
        bucket.shared().metrics.crash("bucket");
        if crashes.crashed(Instant::now(), policy::BUCKET) {
            return self.start(myself, index).await;
        }
        crashes.forget();
        bucket.rest(Instant::now() + policy::BUCKET_REST);
        myself.send_after(policy::BUCKET_REST, move || BucketSupervisorMsg::Start(index));
        Ok(())
    }
}
