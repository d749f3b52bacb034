//! The request to stop: set by an attention, a KILL or a closed socket, seen between rows and while waiting.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Looks out for an attention on the engine's own thread, so that a small request needs no second thread.
pub trait Watch: Send + Sync + std::fmt::Debug {
    /// Looks without waiting; true: stop.
    fn look(&self) -> bool;
    /// Waits until `deadline`, an attention or a [`Watch::wake`]; true: stop.
    fn wait(&self, deadline: Instant) -> bool;
    /// Ends a running [`Watch::wait`] early; from any thread.
    fn wake(&self);
}

/// A flag that one thread sets and the engine's thread obeys. Clones share the flag.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: AtomicU8,
    lock: Mutex<()>,
    bell: Condvar,
    watch: Option<Arc<dyn Watch>>,
}

/// The longest that a nudge can go unnoticed where no [`Watch`] remembers it.
const MOMENT: Duration = Duration::from_millis(20);

const CANCELLED: u8 = 1;
const KILLED: u8 = 2;

impl Cancel {
    /// A flag that is not set. Make one per request.
    pub fn new() -> Self {
        Self::default()
    }

    /// A flag that also obeys `watch`, which is asked on the engine's thread: in [`Cancel::is_cancelled`] and while
    /// waiting.
    pub fn watched(watch: Arc<dyn Watch>) -> Self {
        Self { shared: Arc::new(Shared { watch: Some(watch), ..Shared::default() }) }
    }

    /// Asks the running request to stop; safe from any thread, at any time.
    pub fn cancel(&self) {
        self.raise(CANCELLED);
    }

    /// As [`Cancel::cancel`], and the session must end.
    pub(super) fn kill(&self) {
        self.raise(KILLED);
    }

    fn raise(&self, bit: u8) {
        self.shared.state.fetch_or(bit, Ordering::SeqCst);
        let _held = self.shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.bell.notify_all();
        if let Some(watch) = &self.shared.watch {
            watch.wake();
        }
    }

    /// Whether the request is to stop.
    pub fn is_cancelled(&self) -> bool {
        self.shared.state.load(Ordering::Relaxed) != 0
            || self.watch().is_some_and(|watch| self.obey(watch.look()))
    }

    fn watch(&self) -> Option<&Arc<dyn Watch>> {
        self.shared.watch.as_ref()
    }

    fn obey(&self, stop: bool) -> bool {
        if stop {
            self.shared.state.fetch_or(CANCELLED, Ordering::SeqCst);
        }
        stop
    }

    pub(super) fn is_killed(&self) -> bool {
        self.shared.state.load(Ordering::Relaxed) & KILLED != 0
    }

    /// Ends a running [`Cancel::rest`] early; from any thread.
    pub(super) fn nudge(&self) {
        let _held = self.shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.bell.notify_all();
        if let Some(watch) = &self.shared.watch {
            watch.wake();
        }
    }

    /// Waits once, until `deadline`, a [`Cancel::nudge`] or the flag: whoever waits for something looks again then. The
    /// thread is not the runtime's meanwhile. True if the flag was set.
    pub(super) fn rest(&self, deadline: Instant) -> bool {
        if self.is_cancelled() {
            return true;
        }
        if let Some(watch) = self.watch() {
            return self.obey(watch.wait(deadline));
        }
        let held = self.shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
        // A nudge may have come before the lock was had: no longer than a moment.
        let left = deadline.saturating_duration_since(Instant::now()).min(MOMENT);
        drop(self.shared.bell.wait_timeout(held, left).unwrap_or_else(PoisonError::into_inner));
        self.is_cancelled()
    }

    /// Waits until `deadline` or until the flag is set; true if it was set.
    pub(super) fn wait_until(&self, deadline: Instant) -> bool {
        if let Some(watch) = self.watch() {
            loop {
                if self.is_cancelled() || self.obey(watch.wait(deadline)) {
                    return true;
                }
                if Instant::now() >= deadline {
                    return self.is_cancelled();
                }
            }
        }
        let mut held = self.shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if self.is_cancelled() {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let (again, _) = self
                .shared
                .bell
                .wait_timeout(held, left.min(Duration::from_secs(3600)))
                .unwrap_or_else(PoisonError::into_inner);
            held = again;
        }
    }
}
