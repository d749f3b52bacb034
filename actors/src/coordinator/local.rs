//! The coordinator of a proxy that is alone: every bucket's limit is all its own.

use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::CoordinatorMsg;

pub(crate) struct LocalCoordinator;

impl Actor for LocalCoordinator {
    type Msg = CoordinatorMsg;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<CoordinatorMsg>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _: ActorRef<CoordinatorMsg>,
        message: CoordinatorMsg,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        match message {
            CoordinatorMsg::Want { bucket, slots } => {
                let limit = bucket.settings().max_connections;
                bucket.quota_changed(slots.min(limit));
            }
        }
        Ok(())
    }
}
