//! Who may write: one session at a time holds the write lock of the stand-in, the others wait in order.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
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
}

#[derive(Debug, Default)]
struct State {
    holder: Option<u16>,
    /// Who waits, and how to wake it.
    queue: VecDeque<(u16, Cancel)>,
}

impl State {
    /// Gives the lock to `spid`, if it is free and nobody came before.
    fn grant(&mut self, spid: u16) -> bool {
        let free = self.holder.is_none() && self.queue.front().is_none_or(|first| first.0 == spid);
        if free {
            self.holder = Some(spid);
        }
        free
    }

    fn wake_first(&self) {
        if let (None, Some((_, first))) = (self.holder, self.queue.front()) {
            first.nudge();
        }
    }
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the lock until `limit` has passed.
    pub(super) fn acquire(&self, spid: u16, limit: Duration, cancel: &Cancel) -> Waited {
        {
            let mut state = self.state();
            if state.holder == Some(spid) || state.grant(spid) {
                return Waited::Granted;
            }
            state.queue.push_back((spid, cancel.clone()));
        }
        let deadline = Instant::now() + limit;
        let outcome = loop {
            let cancelled = cancel.rest(deadline);
            let mut state = self.state();
            if state.grant(spid) {
                break Waited::Granted;
            }
            if cancelled {
                break Waited::Cancelled;
            }
            if Instant::now() >= deadline {
                break Waited::TimedOut;
            }
            drop(state);
        };
        let mut state = self.state();
        state.queue.retain(|waiting| waiting.0 != spid);
        state.wake_first();
        outcome
    }

    /// Gives the lock back, if `spid` holds it.
    pub(super) fn release(&self, spid: u16) {
        let mut state = self.state();
        if state.holder == Some(spid) {
            state.holder = None;
            state.wake_first();
        }
    }

    /// Whom a session waits for.
    pub(super) fn blocker(&self, spid: u16) -> Option<u16> {
        let state = self.state();
        let waits = state.queue.iter().any(|waiting| waiting.0 == spid);
        state.holder.filter(|holder| *holder != spid && waits)
    }
}
