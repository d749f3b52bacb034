//! Looks now and then whether files that may change have changed: certificates, the users file, the configuration. And
//! at once when a signal or an operator says so.

mod apply;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use ractor::rpc::CallResult;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tdsbouncer_config::Config;
use tracing::{info, warn};

use crate::admin::DoneRow;
use crate::bucket::Directory;
use crate::coordinator::CoordinatorHandle;
use crate::host::Host;
use crate::listener::Doors;
use crate::session::context::SessionContext;

/// Never more often than this, whatever the configuration says.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);

/// How long reading all files may take whoever asks for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a reload changes.
#[derive(Clone)]
pub(crate) struct Reloading {
    pub(crate) doors: Arc<Doors>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) coordinator: CoordinatorHandle,
    pub(crate) host: Arc<Host>,
}

pub(crate) struct Reload;

/// Sent by its own timer, one after the other; by operators and signals, each of which waits for the answer.
pub(crate) enum ReloadMsg {
    Look,
    Now(RpcReplyPort<Result<Vec<DoneRow>, String>>),
}

pub(crate) struct ReloadState {
    reloading: Reloading,
    every: Duration,
    /// The last complaint of each file, so that each is made once.
    complaints: HashMap<String, String>,
    /// The configuration file as it was when it was last read; nothing before the first look.
    seen: Option<String>,
}

/// A handle that finds the actor anew for each request.
#[derive(Clone, Default)]
pub(crate) struct ReloadHandle(Arc<ArcSwapOption<ActorRef<ReloadMsg>>>);

impl ReloadHandle {
    /// The supervisor started the actor, anew perhaps.
    pub(crate) fn started(&self, actor: ActorRef<ReloadMsg>) {
        self.0.store(Some(Arc::new(actor)));
    }

    /// Reads the configuration file again. Says what changed and what needs a restart.
    pub(crate) async fn reload(&self) -> Result<Vec<DoneRow>, String> {
        let Some(actor) = self.0.load_full() else { return Err("not started yet".to_owned()) };
        match actor.call(ReloadMsg::Now, Some(PATIENCE)).await {
            Ok(CallResult::Success(answer)) => answer,
            Ok(CallResult::Timeout) => Err(format!("not read within {PATIENCE:?}")),
            _ => Err("the reload crashed; the log says why".to_owned()),
        }
    }
}

impl Actor for Reload {
    type Msg = ReloadMsg;
    type State = ReloadState;
    type Arguments = Reloading;

    async fn pre_start(
        &self,
        myself: ActorRef<ReloadMsg>,
        reloading: Reloading,
    ) -> Result<ReloadState, ActorProcessingErr> {
        let context = reloading.doors.context();
        let intervals = context.config.listeners.iter().map(|listener| listener.tls.reload_interval);
        let every = intervals.min().unwrap_or(Duration::from_secs(60)).max(AT_MOST_EVERY);
        myself.send_after(every, || ReloadMsg::Look);
        Ok(ReloadState { reloading, every, complaints: HashMap::new(), seen: None })
    }

    /// It awaits the disk: it has no children, and nobody but operators waits for it.
    async fn handle(
        &self,
        myself: ActorRef<ReloadMsg>,
        message: ReloadMsg,
        state: &mut ReloadState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ReloadMsg::Look => {
                state.look().await?;
                myself.send_after(state.every, || ReloadMsg::Look);
            }
            ReloadMsg::Now(reply) => {
                let outcome = state.reload().await;
                drop(reply.send(outcome));
            }
        }
        Ok(())
    }
}

/// Files may be on a slow disk.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|_| "reading crashed; the log says where".to_owned())
}

impl ReloadState {
    async fn look(&mut self) -> Result<(), ActorProcessingErr> {
        let context = self.reloading.doors.context();
        for (what, outcome) in aside(move || look(&context)).await? {
            self.report(what, outcome);
        }
        self.look_at_configuration().await;
        Ok(())
    }

    /// The file is taken when its text is another than before, and the same in two looks: whoever writes it may not
    /// be done.
    async fn look_at_configuration(&mut self) {
        let Some(path) = self.path() else { return };
        let Ok(Ok(text)) = aside(move || std::fs::read_to_string(path)).await else { return };
        let Some(seen) = self.seen.replace(text) else { return };
        if self.seen.as_ref() == Some(&seen) {
            return;
        }
        let outcome = self.reload().await;
        if let Ok(rows) = &outcome {
            for row in rows {
                info!(what = row.what, outcome = row.outcome, "the configuration file changed");
            }
        }
        self.report("configuration".to_owned(), outcome.map(|rows| !rows.is_empty()));
    }

    async fn reload(&mut self) -> Result<Vec<DoneRow>, String> {
        let path = self.path().ok_or("this proxy was not started from a configuration file")?;
        let reading = path.clone();
        let (text, config) =
            aside(move || (std::fs::read_to_string(&reading).ok(), Config::load(&reading))).await?;
        self.seen = text;
        let config = config.map_err(|why| format!("{}: nothing was changed:\n{why}", path.display()))?;
        for warning in &config.warnings {
            warn!(file = %path.display(), "{warning}");
        }
        let reloading = self.reloading.clone();
        aside(move || apply::apply(&reloading, Arc::new(config))).await?.map_err(|why| why.to_string())
    }

    fn path(&self) -> Option<PathBuf> {
        self.reloading.doors.context().config.source.as_deref().map(Path::to_owned)
    }

    fn report(&mut self, what: String, outcome: Result<bool, String>) {
        match outcome {
            Ok(changed) => {
                self.complaints.remove(&what);
                if changed {
                    info!(what, "reloaded");
                }
            }
            Err(why) if self.complaints.get(&what) == Some(&why) => {}
            Err(why) => {
                warn!(what, why, "cannot be reloaded: the old one stays");
                self.complaints.insert(what, why);
            }
        }
    }
}

fn look(context: &SessionContext) -> Vec<(String, Result<bool, String>)> {
    let mut looked: Vec<_> = (context.certificates.iter())
        .map(|(listener, certificates)| {
            (format!("certificate of listener {listener}"), certificates.reload().map_err(|e| e.to_string()))
        })
        .collect();
    looked.push(("users file".to_owned(), context.users.reload().map_err(|e| e.to_string())));
    looked
}
