//! The coordinator of a proxy that is alone: every bucket's limit is all its own.

use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::{CoordinatorMsg, Permission};

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
            CoordinatorMsg::Look { bucket } => {
                bucket.permit(Permission::constant(bucket.settings().max_connections));
            }
            // There are no others to be shown.
            CoordinatorMsg::Show(reply) => drop(reply.send(None)),
            CoordinatorMsg::Leave(reply) => drop(reply.send(())),
            CoordinatorMsg::Ask
            | CoordinatorMsg::Answered { .. }
            | CoordinatorMsg::Woken(_)
            | CoordinatorMsg::Listening
            | CoordinatorMsg::Tick => {}
        }
        Ok(())
    }
}
