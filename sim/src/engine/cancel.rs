//! The request to stop: set by an attention, a KILL or a closed socket, seen between rows and while waiting.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

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
}

const CANCELLED: u8 = 1;
const KILLED: u8 = 2;

impl Cancel {
    /// A flag that is not set. Make one per request.
    pub fn new() -> Self {
        Self::default()
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
    }

    /// Whether the request is to stop.
    pub fn is_cancelled(&self) -> bool {
        self.shared.state.load(Ordering::Relaxed) != 0
    }

    pub(super) fn is_killed(&self) -> bool {
        self.shared.state.load(Ordering::Relaxed) & KILLED != 0
    }

    /// Waits until `deadline` or until the flag is set; true if it was set.
    pub(super) fn wait_until(&self, deadline: Instant) -> bool {
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
