//! The root of the supervision tree. One child's crash restarts that child; too many crashes end the process, so
//! that whoever runs it starts a new one.

use std::collections::HashMap;
use std::sync::Arc;

use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::time::Instant;
use tracing::error;

use crate::admin::{AdminActor, AdminArgs};
use crate::bucket::{BucketSupervisor, Directory};
use crate::coordinator::{CoordinatorHandle, LocalCoordinator, SharedArgs, SharedCoordinator, SharedEstate};
use crate::host::Host;
use crate::listener::{Doors, ListenerSupervisor};
use crate::panics::{self, GaveUp};
use crate::policy::{self, CrashLog};
use crate::reload::{Reload, ReloadHandle, Reloading};

/// What the tree is made of; it outlives every actor in it.
pub(crate) struct Estate {
    pub(crate) doors: Arc<Doors>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) coordinator: CoordinatorHandle,
    /// What the coordinator shares with other proxies; `None`: this one is alone.
    pub(crate) shared: Option<Arc<SharedEstate>>,
    pub(crate) reloading: Reloading,
    pub(crate) reload: ReloadHandle,
    pub(crate) host: Arc<Host>,
    pub(crate) admin: AdminArgs,
}

pub(crate) struct Root;

/// Sent by itself: at the start, and after the back-off of a child that never escalates.
pub(crate) enum RootMsg {
    Start(Child),
}

/// The root's children, in the order in which they start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Child {
    Coordinator,
    Buckets,
    Reload,
    Admin,
    Listener,
}

impl Child {
    const ALL: [Self; 5] = [Self::Coordinator, Self::Buckets, Self::Reload, Self::Admin, Self::Listener];

    /// The proxy does its work without them: they are started again for ever, and never end it.
    fn never_escalates(self) -> bool {
        matches!(self, Self::Coordinator | Self::Reload | Self::Admin)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Buckets => "buckets",
            Self::Reload => "reload",
            Self::Admin => "admin",
            Self::Listener => "listener",
        }
    }
}

pub(crate) struct RootState {
    estate: Arc<Estate>,
    running: HashMap<ActorId, Child>,
    crashes: CrashLog,
    /// Crashes in a row, for the back-off.
    attempts: HashMap<&'static str, u32>,
}

impl Actor for Root {
    type Msg = RootMsg;
    type State = RootState;
    type Arguments = Arc<Estate>;

    async fn pre_start(
        &self,
        myself: ActorRef<RootMsg>,
        estate: Arc<Estate>,
    ) -> Result<RootState, ActorProcessingErr> {
        for child in Child::ALL {
            myself.cast(RootMsg::Start(child))?;
        }
        Ok(RootState {
            estate,
            running: HashMap::new(),
            crashes: CrashLog::default(),
            attempts: HashMap::new(),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<RootMsg>,
        message: RootMsg,
        state: &mut RootState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RootMsg::Start(child) => state.start(&myself, child).await,
        }
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<RootMsg>,
        event: SupervisionEvent,
        state: &mut RootState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(who, _, _) => {
                state.running.remove(&who.get_id());
                Ok(())
            }
            SupervisionEvent::ActorFailed(who, why) => {
                state.crashed(&myself, who.get_id(), &panics::reason(&why)).await
            }
            _ => Ok(()),
        }
    }
}

impl RootState {
    async fn start(&mut self, myself: &ActorRef<RootMsg>, child: Child) -> Result<(), ActorProcessingErr> {
        let cell = self.spawn(myself.get_cell(), child).await?;
        self.running.insert(cell.get_id(), child);
        Ok(())
    }

    async fn spawn(&self, root: ActorCell, child: Child) -> Result<ActorCell, ActorProcessingErr> {
        let estate = &self.estate;
        let cell = match child {
            Child::Coordinator => {
                let (actor, _) = match &estate.shared {
                    None => Actor::spawn_linked(None, LocalCoordinator, (), root).await?,
                    Some(shared) => {
                        let shared = SharedArgs(Arc::clone(shared));
                        Actor::spawn_linked(None, SharedCoordinator, shared, root).await?
                    }
                };
                estate.coordinator.started(actor.clone());
                actor.get_cell()
            }
            Child::Buckets => {
                let directory = Arc::clone(&estate.directory);
                Actor::spawn_linked(None, BucketSupervisor, directory, root).await?.0.get_cell()
            }
            Child::Reload => {
                let (actor, _) = Actor::spawn_linked(None, Reload, estate.reloading.clone(), root).await?;
                estate.reload.started(actor.clone());
                actor.get_cell()
            }
            Child::Admin => {
                Actor::spawn_linked(None, AdminActor, estate.admin.clone(), root).await?.0.get_cell()
            }
            Child::Listener => {
                let doors = Arc::clone(&estate.doors);
                Actor::spawn_linked(None, ListenerSupervisor, doors, root).await?.0.get_cell()
            }
        };
        Ok(cell)
    }

    async fn crashed(
        &mut self,
        myself: &ActorRef<RootMsg>,
        who: ActorId,
        why: &str,
    ) -> Result<(), ActorProcessingErr> {
        let Some(child) = self.running.remove(&who) else { return Ok(()) };
        error!(child = child.name(), why, "crashed");
        self.estate.doors.metrics.crash(child.name(), "", why);
        if child.never_escalates() {
            let attempt = self.attempts.entry(child.name()).or_default();
            let delay = policy::BACK_OFF.delay(*attempt);
            *attempt = attempt.saturating_add(1);
            myself.send_after(delay, move || RootMsg::Start(child));
            return Ok(());
        }
        if !self.crashes.crashed(Instant::now(), policy::ROOT) {
            return Err(GaveUp(format!("{} crashed too often", child.name())).into());
        }
        self.start(myself, child).await
    }
}
