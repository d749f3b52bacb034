//! The admin actor: owns the task that accepts operators, and through it every operator's connection.
//!
//! The actor itself never waits, so that its supervisor can stop it at any time. Everything it started ends with
//! its state; the socket is its maker's, and a successor goes on with it.

use super::connection::serve;
use super::request::Door;
use super::socket::AdminSocket;
use super::{Source, request};
use crate::panics::GaveUp;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tdsbouncer_config::Admin;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tracing::{debug, error, warn};

/// Operators connected at the same time; each may hold an answer of some megabytes.
const MOST_CONNECTIONS: usize = 16;

/// The pause after a failed accept: out of file descriptors, mostly, and trying at once would not help.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Answers operators.
#[derive(Debug)]
pub(crate) struct AdminActor;

/// What the actor needs that outlives it.
#[derive(Clone)]
pub(crate) struct AdminArgs {
    /// Where operators come in.
    pub(crate) socket: Arc<AdminSocket>,
    /// Where those come in who show a token.
    pub(crate) port: Option<Arc<TcpListener>>,
    /// Which token gives which right.
    pub(crate) settings: Arc<Admin>,
    /// Where answers come from.
    pub(crate) source: Arc<dyn Source>,
}

/// Sent by the accepting task's guard, once: nobody else has anything to say to this actor.
#[derive(Debug)]
pub(crate) enum AdminMsg {
    /// The accepting task ended, which it does only by a panic.
    StoppedAccepting,
}

/// The actor's own: what it started, ended when it is dropped.
pub(crate) struct AdminState {
    args: AdminArgs,
    accepting: Option<EndsWithUs>,
}

impl Actor for AdminActor {
    type Msg = AdminMsg;
    type State = AdminState;
    type Arguments = AdminArgs;

    async fn pre_start(
        &self,
        _myself: ActorRef<AdminMsg>,
        args: AdminArgs,
    ) -> Result<AdminState, ActorProcessingErr> {
        Ok(AdminState { args, accepting: None })
    }

    async fn post_start(
        &self,
        myself: ActorRef<AdminMsg>,
        state: &mut AdminState,
    ) -> Result<(), ActorProcessingErr> {
        let told = TellsWhenDropped(myself);
        let args = state.args.clone();
        state.accepting = Some(EndsWithUs(tokio::spawn(async move {
            let _told = told;
            accept(&args).await;
        })));
        Ok(())
    }

    async fn handle(
        &self,
        _myself: ActorRef<AdminMsg>,
        msg: AdminMsg,
        _state: &mut AdminState,
    ) -> Result<(), ActorProcessingErr> {
        match msg {
            AdminMsg::StoppedAccepting => {
                Err(GaveUp("the admin socket is not served any more".to_owned()).into())
            }
        }
    }
}

/// Accepts for ever. Dropping it ends every connection.
async fn accept(args: &AdminArgs) {
    let mut connections = JoinSet::new();
    let AdminArgs { socket, port, settings, source } = args;
    loop {
        tokio::select! {
            Some(ended) = connections.join_next() => note(ended),
            accepted = socket.accept() => match accepted {
                Ok(stream) if connections.len() >= MOST_CONNECTIONS => {
                    // The send buffer of a new socket has room for this; if it has not, a close says enough.
                    drop(stream.try_write(&request::refusal("too many admin connections")));
                }
                Ok(stream) => {
                    let source = Arc::clone(source);
                    connections.spawn(async move {
                        if let Err(why) = serve(stream, Door::Socket, &*source).await {
                            debug!(%why, "admin connection ended");
                        }
                    });
                }
                Err(why) => {
                    warn!(%why, "admin connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            accepted = accept_tcp(port.as_deref()) => match accepted {
                Ok((stream, _)) if connections.len() >= MOST_CONNECTIONS => {
                    drop(stream.try_write(&request::refusal("too many admin connections")));
                }
                Ok((stream, peer)) => {
                    let (source, settings) = (Arc::clone(source), Arc::clone(settings));
                    connections.spawn(async move {
                        if let Err(why) = serve(stream, Door::Port(&settings), &*source).await {
                            debug!(%peer, %why, "admin connection ended");
                        }
                    });
                }
                Err(why) => {
                    warn!(%why, "admin connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

/// Never returns where there is no port.
async fn accept_tcp(port: Option<&TcpListener>) -> std::io::Result<(TcpStream, SocketAddr)> {
    match port {
        Some(port) => port.accept().await,
        None => std::future::pending().await,
    }
}

fn note(ended: Result<(), JoinError>) {
    if ended.is_err_and(|why| why.is_panic()) {
        // The panic hook has told where; this operator sees a close, the others nothing.
        error!("admin connection crashed");
    }
}

struct EndsWithUs(JoinHandle<()>);

impl Drop for EndsWithUs {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct TellsWhenDropped(ActorRef<AdminMsg>);

impl Drop for TellsWhenDropped {
    fn drop(&mut self) {
        // If the actor is gone, it ended the task itself.
        drop(self.0.cast(AdminMsg::StoppedAccepting));
    }
}

#[cfg(test)]
mod tests {
    use super::super::stand_in::OneOfEach;
    use super::super::{DoneRow, Later, Order, Subject, Table};
    use super::*;
    use std::path::{Path, PathBuf};
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
    use tokio::net::UnixStream;

    struct Bench {
        args: AdminArgs,
        path: PathBuf,
        _folder: tempfile::TempDir,
    }

    fn bench(source: impl Source) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let socket = Arc::new(AdminSocket::bind(&path, 0o600).unwrap());
        let settings = Arc::new(tdsbouncer_config::Config::of(vec![], vec![]).admin);
        let args = AdminArgs { socket, port: None, settings, source: Arc::new(source) };
        Bench { args, path, _folder: folder }
    }

    async fn ask(path: &Path, question: &str) -> String {
        let mut stream = BufReader::new(UnixStream::connect(path).await.unwrap());
        stream.write_all(format!("{question}\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_line(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn an_operator_asks_over_the_socket_and_gets_a_table() {
        let bench = bench(OneOfEach);
        let (actor, running) = Actor::spawn(None, AdminActor, bench.args.clone()).await.unwrap();
        assert!(ask(&bench.path, r#"{"show":"buckets"}"#).await.contains("orders"));
        actor.stop(None);
        running.await.unwrap();
    }

    #[tokio::test]
    async fn stopping_the_actor_ends_its_connections_and_a_successor_goes_on_with_the_socket() {
        let bench = bench(OneOfEach);
        for _ in 0..3 {
            let (actor, running) = Actor::spawn(None, AdminActor, bench.args.clone()).await.unwrap();
            assert!(ask(&bench.path, r#"{"show":"version"}"#).await.contains("1.2.3"));
            let mut idle = UnixStream::connect(&bench.path).await.unwrap();
            idle.write_all(b"{\"show\":\"version\"}\n").await.unwrap();
            let mut first = [0; 1];
            idle.read_exact(&mut first).await.unwrap();
            actor.stop(None);
            running.await.unwrap();
            drop(idle.read_to_end(&mut Vec::new()).await);
        }
        drop(bench.args);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!bench.path.exists(), "the socket's file goes with its last owner");
    }

    #[tokio::test]
    async fn one_connection_too_many_is_told_so_and_the_others_go_on() {
        let bench = bench(OneOfEach);
        let (actor, running) = Actor::spawn(None, AdminActor, bench.args.clone()).await.unwrap();
        let mut first = Vec::new();
        for _ in 0..MOST_CONNECTIONS {
            first.push(UnixStream::connect(&bench.path).await.unwrap());
        }
        assert_eq!(ask(&bench.path, "").await, "{\"error\":\"too many admin connections\"}\n");
        let mut one = BufReader::new(first.pop().unwrap());
        one.write_all(b"{\"show\":\"version\"}\n").await.unwrap();
        let mut answer = String::new();
        one.read_line(&mut answer).await.unwrap();
        assert!(answer.contains("1.2.3"), "{answer}");
        actor.stop(None);
        running.await.unwrap();
    }

    /// A source with a bug.
    struct Panics;

    impl Source for Panics {
        fn show(&self, subject: Subject) -> Later<'_, Table> {
            assert!(subject != Subject::Buckets, "a bug");
            OneOfEach.show(subject)
        }
        fn perform(&self, order: Order) -> Later<'_, Result<Vec<DoneRow>, String>> {
            OneOfEach.perform(order)
        }
    }

    #[tokio::test]
    async fn a_panic_while_answering_ends_that_connection_only() {
        let bench = bench(Panics);
        let (actor, running) = Actor::spawn(None, AdminActor, bench.args.clone()).await.unwrap();
        assert_eq!(ask(&bench.path, r#"{"show":"buckets"}"#).await, "");
        assert!(ask(&bench.path, r#"{"show":"version"}"#).await.contains("1.2.3"));
        actor.stop(None);
        running.await.unwrap();
    }
}
