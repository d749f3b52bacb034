//! How many connections to a bucket's server exist: counted from before `connect` until after `close`, whoever
//! holds them and whatever crashes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::pool::Charged;
use super::recall::Recall;
use super::tenant::LeaseShare;

/// The slots of one bucket that this proxy uses. Lives longer than the bucket's actor.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    used: AtomicU32,
    closing: AtomicU32,
    quota: AtomicU32,
}

impl Slots {
    /// Slots that the coordinator lets this proxy use.
    pub(crate) fn quota(&self) -> u32 {
        self.quota.load(Ordering::Acquire)
    }

    /// Sets what the coordinator said. What is open beyond it is closed as it comes home.
    pub(crate) fn set_quota(&self, quota: u32) {
        self.quota.store(quota, Ordering::Release);
    }

    /// Slots in use: opening, open, closing.
    pub(crate) fn used(&self) -> u32 {
        self.used.load(Ordering::Acquire)
    }

    /// Slots whose connection is being closed.
    pub(crate) fn closing(&self) -> u32 {
        self.closing.load(Ordering::Acquire)
    }

    /// Slots that may be taken now.
    pub(crate) fn free(&self) -> u32 {
        self.quota().saturating_sub(self.used())
    }

    /// Takes a slot, if the quota allows. `on_free` runs when it comes back.
    pub(crate) fn take(self: &Arc<Self>, on_free: Arc<dyn OnFree>) -> Option<SlotPermit> {
        let quota = self.quota();
        let taken = self
            .used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| (used < quota).then_some(used + 1))
            .is_ok();
        taken.then(|| SlotPermit {
            slots: Arc::clone(self),
            on_free,
            closing: false,
            recall: Arc::default(),
            share: None,
        })
    }
}

/// Who wants to know that a slot came back.
pub(crate) trait OnFree: Send + Sync {
    /// A slot came back. Called from `drop`: posts a message and nothing else.
    fn slot_freed(&self);
}

/// The right to have one connection to the server. Dropping it gives the slot back: only after the server
/// has seen the connection close.
pub(crate) struct SlotPermit {
    slots: Arc<Slots>,
    on_free: Arc<dyn OnFree>,
    closing: bool,
    recall: Arc<Recall>,
    /// For whom it counts, where the slot itself is lent.
    share: Option<LeaseShare>,
}

impl Charged for SlotPermit {
    fn charge(&mut self, share: LeaseShare) {
        self.share = Some(share);
    }
}

impl SlotPermit {
    /// Raised when the slot is wanted back.
    pub(crate) fn recall(&self) -> &Arc<Recall> {
        &self.recall
    }

    /// From now on the connection is being closed.
    pub(crate) fn closing(&mut self) {
        if !self.closing {
            self.closing = true;
            self.slots.closing.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl Drop for SlotPermit {
    fn drop(&mut self) {
        // Before the bucket hears of it, so that it plans with what is true.
        self.share = None;
        if self.closing {
            self.slots.closing.fetch_sub(1, Ordering::AcqRel);
        }
        let before = self.slots.used.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0, "a slot came back twice");
        self.on_free.slot_freed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Counter(AtomicU32);

    impl OnFree for Counter {
        fn slot_freed(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn no_more_slots_are_taken_than_the_quota_has() {
        let (slots, freed) = (Arc::new(Slots::default()), Arc::new(Counter::default()));
        assert!(slots.take(freed.clone()).is_none(), "no quota yet");
        slots.set_quota(2);
        let first = slots.take(freed.clone());
        let second = slots.take(freed.clone());
        assert!(first.is_some() && second.is_some());
        assert!(slots.take(freed.clone()).is_none());
        drop(first);
        assert_eq!((slots.used(), freed.0.load(Ordering::Relaxed)), (1, 1));
        assert!(slots.take(freed).is_some());
    }

    #[test]
    fn a_closing_connection_keeps_its_slot() {
        let (slots, freed) = (Arc::new(Slots::default()), Arc::new(Counter::default()));
        slots.set_quota(1);
        let mut permit = slots.take(freed).unwrap();
        permit.closing();
        permit.closing();
        assert_eq!((slots.used(), slots.closing(), slots.free()), (1, 1, 0));
        drop(permit);
        assert_eq!((slots.used(), slots.closing(), slots.free()), (0, 0, 1));
    }

    #[test]
    fn a_quota_that_shrinks_takes_nothing_away_and_gives_nothing_new() {
        let (slots, freed) = (Arc::new(Slots::default()), Arc::new(Counter::default()));
        slots.set_quota(2);
        let _held = (slots.take(freed.clone()), slots.take(freed.clone()));
        slots.set_quota(1);
        assert_eq!(slots.free(), 0);
        assert!(slots.take(freed).is_none());
    }
}
