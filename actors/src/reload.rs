//! Looks now and then whether files that may change have changed: certificates and the users file.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tracing::{info, warn};

use crate::session::context::SessionContext;

/// Never more often than this, whatever the configuration says.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);

pub(crate) struct Reload;

/// Sent by its own timer, one after the other.
pub(crate) struct Look;

pub(crate) struct ReloadState {
    context: Arc<SessionContext>,
    every: Duration,
    /// The last complaint of each file, so that each is made once.
    complaints: HashMap<String, String>,
}

impl Actor for Reload {
    type Msg = Look;
    type State = ReloadState;
    type Arguments = Arc<SessionContext>;

    async fn pre_start(
        &self,
        myself: ActorRef<Look>,
        context: Arc<SessionContext>,
    ) -> Result<ReloadState, ActorProcessingErr> {
        let intervals = context.config.listeners.iter().map(|listener| listener.tls.reload_interval);
        let every = intervals.min().unwrap_or(Duration::from_secs(60)).max(AT_MOST_EVERY);
        myself.send_after(every, || Look);
        Ok(ReloadState { context, every, complaints: HashMap::new() })
    }

    async fn handle(
        &self,
        myself: ActorRef<Look>,
        _: Look,
        state: &mut ReloadState,
    ) -> Result<(), ActorProcessingErr> {
        let context = Arc::clone(&state.context);
        // Files may be on a slow disk.
        let looked = tokio::task::spawn_blocking(move || look(&context)).await?;
        for (what, outcome) in looked {
            state.report(what, outcome);
        }
        myself.send_after(state.every, || Look);
        Ok(())
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

impl ReloadState {
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
