//! A session: one client, from accept to close, as an actor that may crash without its client losing the
//! connection.

mod answer;
mod chunk;
pub(crate) mod client_conn;
pub(crate) mod context;
mod dedicated;
mod log_in;
mod pooled;
pub(crate) mod prepared;
mod relay;
mod serve;
pub(crate) mod table;
pub(crate) mod verdict;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use client_conn::ClientConn;
pub(crate) use client_conn::SessionId;
use context::SessionContext;
use log_in::{LoginEnd, log_in, say_farewell};
use serve::{End, serve};
use verdict::Verdict;

use crate::error::{Answer, Fault, SessionError};

pub(crate) struct Session;

pub(crate) struct SessionArgs {
    pub(crate) conn: Arc<ClientConn>,
    pub(crate) context: Arc<SessionContext>,
    /// The session before this one on the same connection crashed, or was killed with its shard.
    pub(crate) crashed: bool,
}

/// Sent once, by the shard that starts the session.
pub(crate) struct Serve;

impl Actor for Session {
    type Msg = Serve;
    type State = Option<SessionArgs>;
    type Arguments = SessionArgs;

    async fn pre_start(
        &self,
        _: ActorRef<Serve>,
        args: SessionArgs,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(Some(args))
    }

    /// The whole session is one message: bytes are not messages. Who wants something of it raises a wish in its
    /// [`client_conn::Control`]; a kill interrupts it anywhere.
    async fn handle(
        &self,
        myself: ActorRef<Serve>,
        _: Serve,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(args) = state.take() {
            // On the heap, so that the actor is small once its session rests.
            Box::pin(run(&args)).await;
        }
        myself.stop(None);
        Ok(())
    }
}

async fn run(args: &SessionArgs) {
    let SessionArgs { conn, context, crashed } = args;
    // A session that was killed may still be on its way out: only with its lock does its checkpoint stand still.
    let mut io = Arc::clone(&conn.io).lock_owned().await;
    let begun = conn.begun.swap(true, Ordering::AcqRel);
    let after_crash = (*crashed && begun).then(|| conn.crashed(Instant::now()));
    if after_crash == Some(Verdict::Close) {
        return;
    }
    if conn.login.get().is_none()
        && let Err(end) = Box::pin(log_in(conn, context, &mut io)).await
    {
        match end {
            LoginEnd::Told(error) => log_error(conn, &error),
            LoginEnd::Silent(why) => debug!(session = %conn.id, peer = %conn.peer, why, "no login"),
            LoginEnd::Served => {}
        }
        return;
    }
    let Some(login) = conn.login.get() else { return };
    debug!(session = %conn.id, user = login.user, bucket = %login.bucket.name(), "serving");
    match serve(conn, context, &mut io, login, after_crash).await {
        End::Quiet(why) => debug!(session = %conn.id, why, "session ended"),
        End::Told(error) => {
            log_error(conn, &error);
            context.metrics.session_error(error.label());
            say_farewell(context, &mut io, &error, login.template.client_version).await;
        }
    }
}

fn log_error(conn: &ClientConn, error: &SessionError) {
    match error.fault() {
        Fault::Client => info!(session = %conn.id, peer = %conn.peer, %error, "refused"),
        Fault::Outside => warn!(session = %conn.id, peer = %conn.peer, %error, "session ended"),
        Fault::Ours => tracing::error!(session = %conn.id, peer = %conn.peer, %error, "session ended"),
    }
}
