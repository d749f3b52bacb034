//! Who may write: one session at a time holds the write lock of the stand-in, the others wait in order.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Cancel;

/// How waiting for a lock ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    Granted,
    TimedOut,
    Cancelled,
}

/// The write lock.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    bell: Condvar,
}

#[derive(Debug, Default)]
struct State {
    holder: Option<u16>,
    queue: VecDeque<u16>,
}

impl Gate {
    /// Waits for the lock until `limit` has passed.
    pub(super) fn acquire(&self, spid: u16, limit: Duration, cancel: &Cancel) -> Waited {
        let deadline = Instant::now() + limit;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.holder == Some(spid) {
            return Waited::Granted;
        }
        state.queue.push_back(spid);
        let outcome = loop {
            if state.holder.is_none() && state.queue.front() == Some(&spid) {
                state.holder = Some(spid);
                break Waited::Granted;
            }
            if cancel.is_cancelled() {
                break Waited::Cancelled;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break Waited::TimedOut;
            }
            // Short turns, so that a cancel from another thread is seen soon.
            let (again, _) = self
                .bell
                .wait_timeout(state, left.min(Duration::from_millis(20)))
                .unwrap_or_else(PoisonError::into_inner);
            state = again;
        };
        state.queue.retain(|waiting| *waiting != spid);
        self.bell.notify_all();
        outcome
    }

    /// Gives the lock back, if `spid` holds it.
    pub(super) fn release(&self, spid: u16) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.holder == Some(spid) {
            state.holder = None;
            self.bell.notify_all();
        }
    }

    /// Whom a session waits for.
    pub(super) fn blocker(&self, spid: u16) -> Option<u16> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.holder.filter(|holder| *holder != spid && state.queue.contains(&spid))
    }
}
