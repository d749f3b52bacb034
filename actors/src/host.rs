//! What the proxy needs of the program around it, and what operators want of that program.

use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

type SetLog = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// How an operator wants the proxy to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Drain until `timeouts.drain`, then end who is still there.
    Drain,
    /// Let no new clients in, and end when the last one has left, however long that takes.
    WaitForClients,
}

/// The program around the proxy.
pub(crate) struct Host {
    log: Mutex<Option<SetLog>>,
    shutdown: watch::Sender<Option<Shutdown>>,
}

impl Default for Host {
    fn default() -> Self {
        Self { log: Mutex::default(), shutdown: watch::Sender::new(None) }
    }
}

impl Host {
    /// How the filter of the log is changed.
    pub(crate) fn log_is_set_by(&self, set: SetLog) {
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = Some(set);
    }

    /// Changes the filter of the log.
    pub(crate) fn set_log(&self, filter: &str) -> Result<(), String> {
        let set = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        match &*set {
            Some(set) => set(filter),
            None => Err("this program's log cannot be changed".to_owned()),
        }
    }

    pub(crate) fn shut_down(&self, how: Shutdown) {
        self.shutdown.send_replace(Some(how));
    }

    /// Returns once an operator wants the program to end. Cancel safe.
    pub(crate) async fn shutdown_wanted(&self) -> Shutdown {
        let mut wanted = self.shutdown.subscribe();
        loop {
            if let Some(how) = *wanted.borrow_and_update() {
                return how;
            }
            // The sender lives as long as we do.
            if wanted.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
