//! Application locks: sp_getapplock, sp_releaseapplock, APPLOCK_MODE.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Cancel;
use super::gate::Waited;

/// A lock mode of sp_getapplock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Shared,
    Update,
    IntentShared,
    IntentExclusive,
    Exclusive,
}

impl Mode {
    pub(super) fn parse(name: &str) -> Option<Mode> {
        Some(match name.to_ascii_lowercase().as_str() {
            "shared" => Mode::Shared,
            "update" => Mode::Update,
            "intentshared" => Mode::IntentShared,
            "intentexclusive" => Mode::IntentExclusive,
            "exclusive" => Mode::Exclusive,
            _ => return None,
        })
    }
    pub(super) fn name(self) -> &'static str {
        match self {
            Mode::Shared => "Shared",
            Mode::Update => "Update",
            Mode::IntentShared => "IntentShared",
            Mode::IntentExclusive => "IntentExclusive",
            Mode::Exclusive => "Exclusive",
        }
    }
    fn compatible(self, other: Mode) -> bool {
        use Mode::*;
        match (self, other) {
            (Exclusive, _) | (_, Exclusive) => false,
            (IntentShared, _) | (_, IntentShared) => true,
            (IntentExclusive, IntentExclusive) => true,
            (IntentExclusive, _) | (_, IntentExclusive) => false,
            (Update, Update) => false,
            _ => true,
        }
    }
}

#[derive(Debug, Clone)]
struct Held {
    database: String,
    resource: String,
    spid: u16,
    mode: Mode,
    /// Owned by the transaction rather than by the session.
    transaction: bool,
    count: u32,
}

/// Every application lock of the instance.
#[derive(Debug, Default)]
pub(super) struct AppLocks {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    held: Vec<Held>,
    /// How to wake who waits, by session.
    waiting: Vec<(u16, Cancel)>,
}

impl State {
    fn take(&mut self, spid: u16, database: &str, resource: &str, mode: Mode, transaction: bool) {
        let own = self.held.iter_mut().find(|h| {
            h.spid == spid
                && h.database == database
                && h.resource == resource
                && h.mode == mode
                && h.transaction == transaction
        });
        match own {
            Some(own) => own.count += 1,
            None => self.held.push(Held {
                database: database.into(),
                resource: resource.into(),
                spid,
                mode,
                transaction,
                count: 1,
            }),
        }
    }

    fn wake_all(&self) {
        self.waiting.iter().for_each(|waiting| waiting.1.nudge());
    }
}

impl AppLocks {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a lock; the flag says whether it had to wait.
    #[expect(clippy::too_many_arguments, reason = "sp_getapplock has as many")]
    pub(super) fn acquire(
        &self,
        spid: u16,
        database: &str,
        resource: &str,
        mode: Mode,
        transaction: bool,
        limit: Duration,
        cancel: &Cancel,
    ) -> (Waited, bool) {
        let deadline = Instant::now() + limit;
        let mut had_to_wait = false;
        let waited = loop {
            // In this order: whoever has just been told to stop, or is late, may still find the lock free.
            let late = had_to_wait && (cancel.rest(deadline) || Instant::now() >= deadline);
            let mut state = self.state();
            let blocked = state.held.iter().any(|h| {
                h.spid != spid && h.database == database && h.resource == resource && !h.mode.compatible(mode)
            });
            if !blocked {
                state.take(spid, database, resource, mode, transaction);
                break Waited::Granted;
            }
            if late {
                break if cancel.is_cancelled() { Waited::Cancelled } else { Waited::TimedOut };
            }
            if !had_to_wait {
                state.waiting.push((spid, cancel.clone()));
                had_to_wait = true;
            }
        };
        if had_to_wait {
            self.state().waiting.retain(|waiting| waiting.0 != spid);
        }
        (waited, had_to_wait)
    }

    /// Gives one hold back; false if there was none.
    pub(super) fn release(&self, spid: u16, database: &str, resource: &str, transaction: bool) -> bool {
        let mut state = self.state();
        let held = &mut state.held;
        let Some(at) = held.iter().position(|h| {
            h.spid == spid && h.database == database && h.resource == resource && h.transaction == transaction
        }) else {
            return false;
        };
        held[at].count -= 1;
        if held[at].count == 0 {
            held.remove(at);
            state.wake_all();
        }
        true
    }

    /// Gives back what a session's transaction owns, or everything of the session.
    pub(super) fn release_all(&self, spid: u16, only_transaction: bool) {
        let mut state = self.state();
        let before = state.held.len();
        state.held.retain(|h| h.spid != spid || only_transaction && !h.transaction);
        if state.held.len() < before {
            state.wake_all();
        }
    }

    /// The mode in which a session holds a resource.
    pub(super) fn mode(&self, spid: u16, database: &str, resource: &str, transaction: bool) -> Option<Mode> {
        let state = self.state();
        state
            .held
            .iter()
            .find(|h| {
                h.spid == spid
                    && h.database == database
                    && h.resource == resource
                    && h.transaction == transaction
            })
            .map(|h| h.mode)
    }

    /// Whether a session holds any lock as its session.
    pub(super) fn holds_any(&self, spid: u16) -> bool {
        self.state().held.iter().any(|h| h.spid == spid)
    }
}
