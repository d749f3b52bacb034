//! Supervises how clients come in: shards first, acceptors after them (rest_for_one).

mod acceptor;
mod shard;

use std::collections::HashMap;
use std::net::Shutdown;
use std::sync::Arc;

use arc_swap::ArcSwap;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use socket2::SockRef;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tracing::{error, warn};

pub(crate) use shard::ShardHandle;

use crate::metrics::Metrics;
use crate::panics::{self, GaveUp};
use crate::policy::{self, CrashLog};
use crate::session::context::SessionContext;
use crate::session::table::SessionTable;
use acceptor::{Acceptor, AcceptorArgs};
use shard::{Shard, ShardArgs};
use tdsbouncer_config::Listener;

/// What must outlive the listener's actors: held by `main`.
pub(crate) struct Doors {
    pub(crate) sockets: Vec<(Arc<Listener>, Arc<TcpListener>)>,
    pub(crate) table: Arc<SessionTable>,
    pub(crate) shards: Vec<ShardHandle>,
    /// What sessions need; a reload puts another one in its place, for those that begin then.
    pub(crate) context: ArcSwap<SessionContext>,
    pub(crate) metrics: Arc<Metrics>,
    /// Places for clients that are still logging in.
    pub(crate) handshakes: Arc<Semaphore>,
    /// True once no more clients are wanted.
    pub(crate) closed: watch::Sender<bool>,
}

impl Doors {
    /// From now on the system refuses whoever connects, and a balancer in front tries another proxy. Without this they
    /// would wait in the system's queue, accepted by nobody, until the process ends.
    pub(crate) fn stop_listening(&self) {
        for (listener, socket) in &self.sockets {
            if let Err(error) = SockRef::from(&**socket).shutdown(Shutdown::Both) {
                warn!(listener = listener.name, %error, "cannot stop listening");
            }
        }
    }

    /// What a session that begins now needs.
    pub(crate) fn context(&self) -> Arc<SessionContext> {
        self.context.load_full()
    }
}

pub(crate) struct ListenerSupervisor;

/// Sent once, by itself: starts everybody.
pub(crate) enum ListenerMsg {
    Start,
}

pub(crate) struct ListenerState {
    doors: Arc<Doors>,
    children: HashMap<ActorId, Child>,
    crashes: CrashLog,
}

#[derive(Clone, Copy, Debug)]
enum Child {
    Shard(usize),
    /// Which socket it accepts from.
    Acceptor(usize),
}

impl Actor for ListenerSupervisor {
    type Msg = ListenerMsg;
    type State = ListenerState;
    type Arguments = Arc<Doors>;

    async fn pre_start(
        &self,
        myself: ActorRef<ListenerMsg>,
        doors: Arc<Doors>,
    ) -> Result<ListenerState, ActorProcessingErr> {
        myself.cast(ListenerMsg::Start)?;
        Ok(ListenerState { doors, children: HashMap::new(), crashes: CrashLog::default() })
    }

    async fn handle(
        &self,
        myself: ActorRef<ListenerMsg>,
        message: ListenerMsg,
        state: &mut ListenerState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ListenerMsg::Start => state.start_all(&myself).await,
        }
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<ListenerMsg>,
        event: SupervisionEvent,
        state: &mut ListenerState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(who, _, _) => {
                state.children.remove(&who.get_id());
                Ok(())
            }
            SupervisionEvent::ActorFailed(who, why) => {
                state.restart(&myself, who.get_id(), &panics::reason(&why)).await
            }
            _ => Ok(()),
        }
    }
}

impl ListenerState {
    async fn start_all(&mut self, myself: &ActorRef<ListenerMsg>) -> Result<(), ActorProcessingErr> {
        for shard in 0..self.doors.table.shards() {
            self.start_shard(myself, shard).await?;
        }
        let sockets: Vec<usize> = (self.doors.sockets.iter().enumerate())
            .flat_map(|(socket, (listener, _))| std::iter::repeat_n(socket, listener.acceptors))
            .collect();
        for socket in sockets {
            self.start_acceptor(myself, socket).await?;
        }
        Ok(())
    }

    async fn start_shard(
        &mut self,
        myself: &ActorRef<ListenerMsg>,
        shard: usize,
    ) -> Result<(), ActorProcessingErr> {
        let args = ShardArgs { index: shard, doors: Arc::clone(&self.doors) };
        let (actor, _) = Actor::spawn_linked(None, Shard, args, myself.get_cell()).await?;
        self.children.insert(actor.get_id(), Child::Shard(shard));
        self.doors.shards[shard].started(actor);
        Ok(())
    }

    async fn start_acceptor(
        &mut self,
        myself: &ActorRef<ListenerMsg>,
        socket: usize,
    ) -> Result<(), ActorProcessingErr> {
        let args = AcceptorArgs { doors: Arc::clone(&self.doors), socket };
        let (actor, _) = Actor::spawn_linked(None, Acceptor, args, myself.get_cell()).await?;
        self.children.insert(actor.get_id(), Child::Acceptor(socket));
        Ok(())
    }

    /// A shard adopts its clients when it starts, an acceptor finds shards by their handles: neither needs the
    /// others to be restarted with it.
    async fn restart(
        &mut self,
        myself: &ActorRef<ListenerMsg>,
        who: ActorId,
        why: &str,
    ) -> Result<(), ActorProcessingErr> {
        let Some(child) = self.children.remove(&who) else { return Ok(()) };
        error!(?child, why, "crashed");
        if !self.crashes.crashed(Instant::now(), policy::LISTENER) {
            return Err(GaveUp(format!("{child:?} crashed too often")).into());
        }
        match child {
            Child::Shard(shard) => {
                self.doors.metrics.crash("shard", &shard.to_string(), why);
                self.start_shard(myself, shard).await
            }
            Child::Acceptor(socket) => {
                self.doors.metrics.crash("acceptor", &socket.to_string(), why);
                self.start_acceptor(myself, socket).await
            }
        }
    }
}
