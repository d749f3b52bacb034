//! A shard: supervises its part of the sessions, gives each crash its verdict, adopts its clients when it is
//! itself restarted.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, ActorRuntime, SupervisionEvent};
use tracing::warn;

use super::Doors;
use crate::panics;
use crate::session::client_conn::{ClientConn, SessionId};
use crate::session::{Serve, Session, SessionArgs};

/// Sent by acceptors: one for each client they let in, bounded by the limit on clients.
pub(crate) enum ShardMsg {
    /// A client whose row is in the session table.
    Accepted(SessionId),
    /// The shard was restarted: its clients' sessions ended with the old one.
    Adopt,
}

/// A handle that finds the shard's actor anew for each message.
#[derive(Clone, Default)]
pub(crate) struct ShardHandle(Arc<ArcSwapOption<ActorRef<ShardMsg>>>);

impl ShardHandle {
    /// A client came in. If the shard is away it adopts the client when it is back.
    pub(crate) fn accepted(&self, id: SessionId) {
        if let Some(actor) = &*self.0.load() {
            drop(actor.cast(ShardMsg::Accepted(id)));
        }
    }

    /// The supervisor started the actor, anew perhaps.
    pub(crate) fn started(&self, actor: ActorRef<ShardMsg>) {
        // In this order: whoever is accepted from now on gets its own message, whoever came before is adopted.
        self.0.store(Some(Arc::new(actor.clone())));
        drop(actor.cast(ShardMsg::Adopt));
    }
}

pub(crate) struct Shard;

pub(crate) struct ShardArgs {
    pub(crate) index: usize,
    pub(crate) doors: Arc<Doors>,
}

pub(crate) struct ShardState {
    args: ShardArgs,
    myself: ActorRef<ShardMsg>,
    sessions: HashMap<ActorId, SessionId>,
    /// The same the other way round: nobody is served twice.
    served: HashMap<SessionId, ActorId>,
}

impl Actor for Shard {
    type Msg = ShardMsg;
    type State = ShardState;
    type Arguments = ShardArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<ShardMsg>,
        args: ShardArgs,
    ) -> Result<ShardState, ActorProcessingErr> {
        Ok(ShardState { args, myself, sessions: HashMap::new(), served: HashMap::new() })
    }

    async fn handle(
        &self,
        _: ActorRef<ShardMsg>,
        message: ShardMsg,
        state: &mut ShardState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ShardMsg::Accepted(id) => state.accepted(id),
            ShardMsg::Adopt => state.adopt(),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<ShardMsg>,
        event: SupervisionEvent,
        state: &mut ShardState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(who, _, _) => state.ended(who.get_id()),
            SupervisionEvent::ActorFailed(who, why) => state.crashed(who.get_id(), &panics::reason(&why)),
            _ => {}
        }
        Ok(())
    }
}

impl ShardState {
    fn accepted(&mut self, id: SessionId) {
        if self.served.contains_key(&id) {
            return;
        }
        if let Some(conn) = self.args.doors.table.find(id) {
            self.start(conn, false);
        }
    }

    /// Every client of this shard that nobody serves: its session ended with the shard before this one.
    fn adopt(&mut self) {
        for conn in self.args.doors.table.of_shard(self.args.index) {
            if !self.served.contains_key(&conn.id) {
                self.start(conn, true);
            }
        }
    }

    fn start(&mut self, conn: Arc<ClientConn>, crashed: bool) {
        crate::crash_test::point("shard", conn.login.get().map_or("", |login| &login.template.application));
        let id = conn.id;
        let args = SessionArgs { conn, context: self.args.doors.context(), crashed };
        let started = ActorRuntime::spawn_linked_instant(None, Session, args, self.myself.get_cell());
        match started {
            Ok((actor, _)) if actor.cast(Serve).is_ok() => {
                self.sessions.insert(actor.get_id(), id);
                self.served.insert(id, actor.get_id());
            }
            _ => self.args.doors.table.remove(id),
        }
    }

    fn ended(&mut self, who: ActorId) {
        if let Some(id) = self.sessions.remove(&who) {
            self.served.remove(&id);
            self.args.doors.table.remove(id);
        }
    }

    fn crashed(&mut self, who: ActorId, why: &str) {
        let Some(id) = self.sessions.remove(&who) else { return };
        self.served.remove(&id);
        self.args.doors.metrics.crash("session", &id.to_string(), why);
        if let Some(conn) = self.args.doors.table.find(id) {
            warn!(session = %id, phase = conn.checkpoint.phase().name(), why, "session crashed");
            self.args.doors.metrics.restart("session");
            self.start(conn, true);
        }
    }
}
