//! Application locks: sp_getapplock, sp_releaseapplock, APPLOCK_MODE.

use std::sync::{Condvar, Mutex, PoisonError};
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
    held: Mutex<Vec<Held>>,
    bell: Condvar,
}

impl AppLocks {
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
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let mut had_to_wait = false;
        loop {
            let blocked = held.iter().any(|h| {
                h.spid != spid && h.database == database && h.resource == resource && !h.mode.compatible(mode)
            });
            if !blocked {
                let own = held.iter_mut().find(|h| {
                    h.spid == spid
                        && h.database == database
                        && h.resource == resource
                        && h.mode == mode
                        && h.transaction == transaction
                });
                match own {
                    Some(own) => own.count += 1,
                    None => held.push(Held {
                        database: database.into(),
                        resource: resource.into(),
                        spid,
                        mode,
                        transaction,
                        count: 1,
                    }),
                }
                return (Waited::Granted, had_to_wait);
            }
            had_to_wait = true;
            if cancel.is_cancelled() {
                return (Waited::Cancelled, true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return (Waited::TimedOut, true);
            }
            let (again, _) = self
                .bell
                .wait_timeout(held, left.min(Duration::from_millis(20)))
                .unwrap_or_else(PoisonError::into_inner);
            held = again;
        }
    }

    /// Gives one hold back; false if there was none.
    pub(super) fn release(&self, spid: u16, database: &str, resource: &str, transaction: bool) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = held.iter().position(|h| {
            h.spid == spid && h.database == database && h.resource == resource && h.transaction == transaction
        }) else {
            return false;
        };
        held[at].count -= 1;
        if held[at].count == 0 {
            held.remove(at);
            self.bell.notify_all();
        }
        true
    }

    /// Gives back what a session's transaction owns, or everything of the session.
    pub(super) fn release_all(&self, spid: u16, only_transaction: bool) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|h| h.spid != spid || only_transaction && !h.transaction);
        self.bell.notify_all();
    }

    /// The mode in which a session holds a resource.
    pub(super) fn mode(&self, spid: u16, database: &str, resource: &str, transaction: bool) -> Option<Mode> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.iter()
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
        self.held.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|h| h.spid == spid)
    }
}
