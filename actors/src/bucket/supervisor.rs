//! Supervises the buckets: each is restarted by itself, and rests when it crashes too often. Buckets come and go with
//! the configuration.

use std::collections::HashMap;
use std::sync::Arc;

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tdsbouncer_config::BucketName;
use tokio::time::Instant;
use tracing::{error, info};

use super::actor::{BucketActor, BucketArgs};
use super::directory::Directory;
use crate::panics;
use crate::policy::{self, CrashLog};

pub(crate) struct BucketSupervisor;

/// Sent by itself (at the start, and when a bucket's rest is over) and by the directory, once for each new bucket.
pub(crate) enum BucketSupervisorMsg {
    Start(BucketName),
}

pub(crate) struct BucketSupervisorState {
    directory: Arc<Directory>,
    crashes: HashMap<BucketName, CrashLog>,
    running: HashMap<ActorId, BucketName>,
}

impl Actor for BucketSupervisor {
    type Msg = BucketSupervisorMsg;
    type State = BucketSupervisorState;
    type Arguments = Arc<Directory>;

    async fn pre_start(
        &self,
        myself: ActorRef<BucketSupervisorMsg>,
        directory: Arc<Directory>,
    ) -> Result<BucketSupervisorState, ActorProcessingErr> {
        // In this order: a bucket that is added meanwhile is told twice, and started once.
        directory.supervised_by(myself.clone());
        for bucket in &*directory.all() {
            myself.cast(BucketSupervisorMsg::Start(bucket.name().clone()))?;
        }
        Ok(BucketSupervisorState { directory, crashes: HashMap::new(), running: HashMap::new() })
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
            SupervisionEvent::ActorTerminated(who, _, _) => state.ended(&myself, who.get_id()).await,
            SupervisionEvent::ActorFailed(who, why) => {
                state.crashed(&myself, who.get_id(), &panics::reason(&why)).await
            }
            _ => Ok(()),
        }
    }
}

impl BucketSupervisorState {
    async fn start(
        &mut self,
        myself: &ActorRef<BucketSupervisorMsg>,
        name: BucketName,
    ) -> Result<(), ActorProcessingErr> {
        let Some(bucket) = self.directory.find(name.as_str()) else { return Ok(()) };
        if self.running.values().any(|running| *running == name) {
            return Ok(());
        }
        let args = BucketArgs { handle: bucket.clone() };
        let (actor, _) = Actor::spawn_linked(None, BucketActor, args, myself.get_cell()).await?;
        self.running.insert(actor.get_id(), name);
        bucket.started(actor);
        Ok(())
    }

    /// A bucket's actor ends by itself only when the bucket is retired and empty. If it was reinstated in this very
    /// moment, it goes on with a new actor.
    async fn ended(
        &mut self,
        myself: &ActorRef<BucketSupervisorMsg>,
        who: ActorId,
    ) -> Result<(), ActorProcessingErr> {
        let Some(name) = self.running.remove(&who) else { return Ok(()) };
        let Some(bucket) = self.directory.find(name.as_str()) else { return Ok(()) };
        if !bucket.shared().standing.is_retired() {
            return self.start(myself, name).await;
        }
        info!(bucket = %name, "the last of a retired bucket is gone");
        self.directory.remove(&name);
        self.crashes.remove(&name);
        Ok(())
    }

    async fn crashed(
        &mut self,
        myself: &ActorRef<BucketSupervisorMsg>,
        who: ActorId,
        why: &str,
    ) -> Result<(), ActorProcessingErr> {
        let Some(name) = self.running.remove(&who) else { return Ok(()) };
        let Some(bucket) = self.directory.find(name.as_str()) else { return Ok(()) };
        error!(bucket = %name, why, "bucket crashed");
        bucket.shared().metrics.crash("bucket", name.as_str(), why);
        let crashes = self.crashes.entry(name.clone()).or_default();
        if crashes.crashed(Instant::now(), policy::BUCKET) {
            return self.start(myself, name).await;
        }
        crashes.forget();
        bucket.rest(Instant::now() + policy::BUCKET_REST);
        myself.send_after(policy::BUCKET_REST, move || BucketSupervisorMsg::Start(name));
        Ok(())
    }
}
