//! What operators want of a bucket now: paused, closed to new clients, its connections replaced. It outlives the
//! bucket's actor, so that a crash undoes no command.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Everything that commands changed. All moments are given, none is read.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    state: Mutex<State>,
    /// Nothing is out of the ordinary: most questions, several for each lease, need no lock.
    special: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    paused: Option<Instant>,
    /// When earlier pauses began and ended: enough to say how much of any recent wait was pause.
    last_pause: Option<(Instant, Instant)>,
    disabled: bool,
    draining: bool,
    retired: bool,
    /// Connections opened before this are not lent any more.
    fresh_since: Option<Instant>,
}

impl Standing {
    /// False if it was paused before.
    pub(super) fn pause(&self, now: Instant) -> bool {
        self.change(|state| {
            let changed = state.paused.is_none();
            state.paused.get_or_insert(now);
            changed
        })
    }

    /// When the pause that ends here began.
    pub(super) fn resume(&self, now: Instant) -> Option<Instant> {
        self.change(|state| {
            let since = state.paused.take()?;
            state.last_pause = Some((since, now));
            Some(since)
        })
    }

    /// Since when it is paused.
    pub(crate) fn paused(&self) -> Option<Instant> {
        self.special()?.paused
    }

    /// How much of the time since `since` was pause.
    pub(super) fn paused_since(&self, since: Instant, now: Instant) -> Duration {
        let state = self.lock();
        let part = |(from, to): (Instant, Instant)| to.saturating_duration_since(from.max(since));
        let last = state.last_pause.map_or(Duration::ZERO, part);
        last + state.paused.map_or(Duration::ZERO, |from| part((from, now)))
    }

    /// Whether new clients may come in. False if it was so before.
    pub(crate) fn disable(&self, disabled: bool) -> bool {
        self.change(|state| {
            let changed = state.disabled != disabled || (!disabled && state.draining);
            state.disabled = disabled;
            state.draining &= disabled;
            changed
        })
    }

    /// No new clients, and those that are there leave when nothing of theirs is under way.
    pub(crate) fn drain(&self) -> bool {
        self.change(|state| {
            let changed = !state.draining;
            (state.disabled, state.draining) = (true, true);
            changed
        })
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.lock().draining
    }

    pub(super) fn reconnect(&self, now: Instant) {
        self.change(|state| state.fresh_since = Some(now));
    }

    /// Whether a connection opened at this moment may still be lent.
    pub(super) fn is_fresh(&self, opened: Instant) -> bool {
        self.special().is_none_or(|state| state.fresh_since.is_none_or(|since| opened >= since))
    }

    /// Whether no connection is to stay where it is: the bucket is paused, or going away.
    pub(super) fn wants_connections_back(&self) -> bool {
        self.special().is_some_and(|state| state.paused.is_some() || state.retired)
    }

    pub(super) fn retire(&self) {
        self.change(|state| state.retired = true);
    }

    /// It stands in the configuration again.
    pub(crate) fn reinstate(&self) {
        self.change(|state| state.retired = false);
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.special().is_some_and(|state| state.retired)
    }

    /// Whether new clients are refused.
    pub(super) fn is_closed(&self) -> bool {
        let state = self.lock();
        state.disabled || state.draining || state.retired
    }

    /// One word for the admin view; none when all is as usual.
    pub(super) fn word(&self) -> Option<&'static str> {
        let state = self.lock();
        match &*state {
            State { paused: Some(_), .. } => Some("paused"),
            State { retired: true, .. } => Some("leaving"),
            State { draining: true, .. } => Some("draining"),
            State { disabled: true, .. } => Some("disabled"),
            _ => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let outcome = change(&mut state);
        let State { paused, disabled, draining, retired, fresh_since, .. } = &*state;
        let special = paused.is_some() || *disabled || *draining || *retired || fresh_since.is_some();
        self.special.store(special, Ordering::Release);
        outcome
    }

    /// What there is to know, if anything is out of the ordinary.
    fn special(&self) -> Option<MutexGuard<'_, State>> {
        self.special.load(Ordering::Acquire).then(|| self.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn only_the_part_of_a_wait_that_was_pause_is_given_back() {
        let (standing, start) = (Standing::default(), Instant::now());
        assert!(standing.pause(start + 10 * SECOND));
        assert!(!standing.pause(start + 11 * SECOND), "it is paused already");
        let now = start + 15 * SECOND;
        assert_eq!(standing.paused_since(start, now), 5 * SECOND);
        assert_eq!(standing.paused_since(start + 12 * SECOND, now), 3 * SECOND);
        assert_eq!(standing.resume(now), Some(start + 10 * SECOND));
        assert_eq!(standing.resume(now), None);
        let later = start + 60 * SECOND;
        assert_eq!(standing.paused_since(start, later), 5 * SECOND);
        assert_eq!(standing.paused_since(start + 20 * SECOND, later), Duration::ZERO);
    }

    #[test]
    fn who_is_drained_is_closed_until_enabled() {
        let standing = Standing::default();
        assert!(!standing.is_closed());
        assert!(standing.drain());
        assert_eq!((standing.is_closed(), standing.word()), (true, Some("draining")));
        assert!(standing.disable(false));
        assert_eq!((standing.is_closed(), standing.word()), (false, None));
        assert!(standing.disable(true));
        assert!(!standing.disable(true));
        assert_eq!((standing.is_closed(), standing.word()), (true, Some("disabled")));
    }

    #[test]
    fn connections_from_before_a_reconnect_are_stale() {
        let (standing, start) = (Standing::default(), Instant::now());
        assert!(standing.is_fresh(start));
        standing.reconnect(start + SECOND);
        assert!(!standing.is_fresh(start) && standing.is_fresh(start + SECOND));
    }
}
