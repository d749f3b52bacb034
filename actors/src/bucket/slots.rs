//! How many connections to a bucket's server exist: counted from before `connect` until after `close`, whoever
//! holds them and whatever crashes.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::time::Instant;

use super::pool::Charged;
use super::recall::{Recall, RecallLevel, RecallReason};
use super::tenant::LeaseShare;
use crate::coordinator::Permission;

/// The slots of one bucket that this proxy uses. Lives longer than the bucket's actor.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    used: AtomicU32,
    closing: AtomicU32,
    permission: Mutex<Permission>,
    holders: Mutex<Vec<Weak<Holder>>>,
}

/// What is known of one slot in use.
#[derive(Debug, Default)]
struct Holder {
    recall: Arc<Recall>,
    /// Its connection is open and somebody's, or ready to be.
    open: AtomicBool,
    closing: AtomicBool,
}

impl Slots {
    /// Slots that the coordinator lets this proxy use now.
    pub(crate) fn quota(&self, now: Instant) -> u32 {
        self.permission().allowance.at(now)
    }

    /// What the coordinator said. What is open beyond it is closed as it comes home.
    pub(crate) fn permit(&self, permission: Permission) {
        *self.permission() = permission;
    }

    /// Agrees on a new permission with the coordinator, who is told how many slots are in use; none is taken
    /// meanwhile.
    pub(crate) fn renegotiate<T>(&self, agree: impl FnOnce(u32) -> (Permission, T)) -> T {
        let mut permission = self.permission();
        let (agreed, outcome) = agree(self.used());
        *permission = agreed;
        outcome
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
    pub(crate) fn free(&self, now: Instant) -> u32 {
        Self::limit(&self.permission(), now).saturating_sub(self.used())
    }

    /// Others wait: what lies idle is to be closed.
    pub(crate) fn is_hungry(&self) -> bool {
        self.permission().hungry
    }

    /// Slots that must be given back at a clean boundary, and why: others wait, or the time of what is open runs out.
    pub(crate) fn surplus(&self, now: Instant) -> (u32, RecallReason) {
        let permission = *self.permission();
        let soon = permission.allowance.at(now + permission.notice);
        let reason = if soon < permission.allowance.at(now) {
            RecallReason::LeaseEnds
        } else {
            RecallReason::QuotaShrank
        };
        let staying = self.used().saturating_sub(self.closing());
        (staying.saturating_sub(permission.target.min(soon)), reason)
    }

    /// Slots whose time is up: their connections are to be closed at once.
    pub(crate) fn overdue(&self, now: Instant) -> u32 {
        let permission = *self.permission();
        if permission.close.is_zero() {
            return 0;
        }
        self.used().saturating_sub(permission.allowance.at(now + permission.close))
    }

    /// Has connections closed without ceremony that serve nobody: those being opened or closed, `count` at most.
    /// Returns how many.
    pub(crate) fn cut_short(&self, count: u32) -> u32 {
        let mut cut = 0;
        for holder in self.holders().iter().filter_map(Weak::upgrade) {
            let serves = holder.open.load(Ordering::Acquire) && !holder.closing.load(Ordering::Acquire);
            if cut < count && !serves {
                holder.recall.raise(RecallLevel::Now, RecallReason::LeaseEnds);
                cut += 1;
            }
        }
        cut
    }

    /// Nothing is taken whose time is about to be up.
    fn limit(permission: &Permission, now: Instant) -> u32 {
        permission.target.min(permission.allowance.at(now + permission.close))
    }

    /// Takes a slot, if the quota allows. `on_free` runs when it comes back.
    pub(crate) fn take(self: &Arc<Self>, on_free: Arc<dyn OnFree>) -> Option<SlotPermit> {
        {
            let permission = self.permission();
            if self.used() >= Self::limit(&permission, Instant::now()) {
                return None;
            }
            self.used.fetch_add(1, Ordering::AcqRel);
        }
        let holder = Arc::<Holder>::default();
        let mut holders = self.holders();
        holders.retain(|holder| holder.strong_count() > 0);
        holders.push(Arc::downgrade(&holder));
        Some(SlotPermit { slots: Arc::clone(self), on_free, holder, share: None })
    }

    fn permission(&self) -> MutexGuard<'_, Permission> {
        self.permission.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holders(&self) -> MutexGuard<'_, Vec<Weak<Holder>>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
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
    holder: Arc<Holder>,
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
        &self.holder.recall
    }

    /// From now on the connection can be used.
    pub(crate) fn opened(&self) {
        self.holder.open.store(true, Ordering::Release);
    }

    /// From now on the connection is being closed.
    pub(crate) fn closing(&mut self) {
        if !self.holder.closing.swap(true, Ordering::AcqRel) {
            self.slots.closing.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl Drop for SlotPermit {
    fn drop(&mut self) {
        // Before the bucket hears of it, so that it plans with what is true.
        self.share = None;
        if self.holder.closing.load(Ordering::Acquire) {
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
        slots.permit(Permission::constant(2));
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
        slots.permit(Permission::constant(1));
        let mut permit = slots.take(freed).unwrap();
        permit.closing();
        permit.closing();
        assert_eq!((slots.used(), slots.closing(), slots.free(Instant::now())), (1, 1, 0));
        drop(permit);
        assert_eq!((slots.used(), slots.closing(), slots.free(Instant::now())), (0, 0, 1));
    }

    #[test]
    fn a_quota_that_shrinks_takes_nothing_away_and_gives_nothing_new() {
        let (slots, freed) = (Arc::new(Slots::default()), Arc::new(Counter::default()));
        slots.permit(Permission::constant(2));
        let _held = (slots.take(freed.clone()), slots.take(freed.clone()));
        slots.permit(Permission::constant(1));
        assert_eq!(slots.free(Instant::now()), 0);
        assert!(slots.take(freed).is_none());
    }

    #[test]
    fn nothing_is_taken_while_a_permission_is_agreed_on_and_nothing_beyond_its_target() {
        let (slots, freed) = (Arc::new(Slots::default()), Arc::new(Counter::default()));
        slots.permit(Permission::constant(3));
        let _held = slots.take(freed.clone());
        let used = slots.renegotiate(|used| (Permission { target: 2, ..Permission::constant(3) }, used));
        assert_eq!((used, slots.quota(Instant::now()), slots.free(Instant::now())), (1, 3, 1));
        let _second = slots.take(freed.clone());
        assert!(slots.take(freed).is_none(), "others wait");
    }

    #[test]
    fn what_serves_nobody_is_cut_short_first() {
        let (slots, freed) = (Arc::new(Slots::default()), Arc::new(Counter::default()));
        slots.permit(Permission::constant(3));
        let (open, opening, mut closing) = (
            slots.take(freed.clone()).unwrap(),
            slots.take(freed.clone()).unwrap(),
            slots.take(freed).unwrap(),
        );
        open.opened();
        closing.opened();
        closing.closing();
        slots.permit(Permission::constant(0));
        assert_eq!(
            (slots.overdue(Instant::now()), slots.surplus(Instant::now())),
            (0, (2, RecallReason::QuotaShrank))
        );
        let close = std::time::Duration::from_millis(1);
        slots.permit(Permission { close, ..Permission::constant(0) });
        assert_eq!(slots.overdue(Instant::now()), 3);
        assert_eq!(slots.cut_short(3), 2);
        assert_eq!(open.recall().level(), RecallLevel::None);
        assert_eq!([opening.recall().level(), closing.recall().level()], [RecallLevel::Now; 2]);
    }
}
