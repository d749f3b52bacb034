//! One piece of I/O as a supervised child of a bucket: a dial or a reset. It runs once and ends; if it panics the
//! bucket learns it as the crash of a child.

use std::pin::Pin;

use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, ActorRuntime};

/// What the errand does; it reports its outcome by a message of its own.
pub(crate) type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Errand;

/// Sent once, by [`run`], to itself.
struct Go;

impl Actor for Errand {
    type Msg = Go;
    type State = Option<Work>;
    type Arguments = Work;

    async fn pre_start(&self, _: ActorRef<Go>, work: Work) -> Result<Self::State, ActorProcessingErr> {
        Ok(Some(work))
    }

    async fn handle(
        &self,
        myself: ActorRef<Go>,
        _: Go,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(work) = state.take() {
            work.await;
        }
        myself.stop(None);
        Ok(())
    }
}

/// Starts `work` under `parent` without waiting for it. `None`: it could not be started, and was dropped.
pub(crate) fn run(parent: ActorCell, work: Work) -> Option<ActorId> {
    let (errand, _) = ActorRuntime::spawn_linked_instant(None, Errand, work, parent).ok()?;
    let id = errand.get_id();
    errand.cast(Go).ok().map(|()| id)
}
