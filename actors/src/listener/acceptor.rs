//! Lets clients in, up to the limits, and hands each to its shard.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tracing::{debug, warn};

use super::Doors;
use crate::session::client_conn::ClientConn;
use crate::session::table::Admission;
use crate::wire::Socket;

/// How long to wait after the system would not give us a socket: it may have run out of them.
const PAUSE: Duration = Duration::from_millis(50);

pub(crate) struct Acceptor;

pub(crate) struct AcceptorArgs {
    pub(crate) doors: Arc<Doors>,
    /// Which of the doors.
    pub(crate) socket: usize,
}

/// Sent by itself, once.
pub(crate) struct Accept;

impl Actor for Acceptor {
    type Msg = Accept;
    type State = AcceptorArgs;
    type Arguments = AcceptorArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<Accept>,
        args: AcceptorArgs,
    ) -> Result<AcceptorArgs, ActorProcessingErr> {
        myself.cast(Accept)?;
        Ok(args)
    }

    /// One message for the whole life: it has no children, and nobody sends it anything else.
    async fn handle(
        &self,
        myself: ActorRef<Accept>,
        _: Accept,
        state: &mut AcceptorArgs,
    ) -> Result<(), ActorProcessingErr> {
        let mut closed = state.doors.closed.subscribe();
        tokio::select! {
            _ = closed.wait_for(|closed| *closed) => {}
            () = state.accept_all() => {}
        }
        myself.stop(None);
        Ok(())
    }
}

impl AcceptorArgs {
    async fn accept_all(&self) {
        let (listener, socket) = &self.doors.sockets[self.socket];
        loop {
            // A client that is not logged in costs a handshake: only so many at a time. The others wait in the
            // system's queue.
            let Ok(place) = Arc::clone(&self.doors.handshakes).acquire_owned().await else { return };
            let (stream, peer) = match socket.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(listener = listener.name, %error, "cannot accept");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let (id, admission) = self.doors.table.admit();
            if admission == Admission::Refused {
                self.doors.metrics.refused();
                debug!(%peer, "far too many clients: closed");
                continue;
            }
            if let Err(error) = self.prepare(&stream) {
                debug!(%peer, %error, "socket options");
            }
            let surplus = admission == Admission::Surplus;
            let conn =
                ClientConn::new(id, Socket::Tcp(stream), peer, Arc::clone(listener), Some(place), surplus);
            self.doors.metrics.accepted();
            self.doors.table.insert(conn);
            self.doors.shards[self.doors.table.shard_of(id)].accepted(id);
        }
    }

    fn prepare(&self, stream: &TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let times = self.doors.context().config.timeouts.client_keepalive;
        let keepalive =
            TcpKeepalive::new().with_time(times.idle).with_interval(times.interval).with_retries(times.count);
        SockRef::from(stream).set_tcp_keepalive(&keepalive)
    }
}
