//! The safety rules by name, so that the simulation can break each of them and must notice.

/// A rule without which the limit can be exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), expect(dead_code, reason = "some rules are kept by Redis, the bucket or the kernel"))]
pub(crate) enum Rule {
    /// A lease is counted from before its request was sent, not from the answer.
    LeaseFromSending,
    /// What the lease no longer covers is not used.
    LeaseEnds,
    /// After a pause the clock is looked at before anything is used.
    ClockBeforeUse,
    /// The kernel ends a proxy that sleeps past the end of what it uses.
    Fence,
    /// An answer that its replicas do not confirm is no answer.
    Confirmed,
    /// What is given back is not used from the moment at which the request is sent.
    PromiseBeforeSending,
    /// An answer to an earlier request is no answer.
    OwnAnswersOnly,
    /// An answer is about the bucket that was asked about, whatever else was asked with it.
    ToEachItsOwn,
    /// Only who holds nothing takes leave of a bucket.
    LeaveWithNothing,
    /// Without Redis a proxy grows to its share only after everybody else has made room.
    GrowLate,
    /// A proxy that may grow says so in each request, so that its share is kept for it.
    ClaimShare,
    /// What must be given up is not renewed.
    MustShrink,
    /// A proxy that Redis has not heard of for as long as it may use its share uses nothing.
    KeepEnds,
    /// A Redis that lost its memory grants nothing until old leases are over.
    SettleNewLife,
    /// A silence, or a clock that jumps, is no time that passed.
    SettleSilence,
    /// Requests are taken in their order.
    SequenceOnly,
    /// A request that was long under way is not taken.
    NoOldRequests,
    /// The share of a proxy whose lease ended is kept for it.
    KeepShare,
    /// So are the shares of proxies that a new life does not know yet.
    KeepUnknownShares,
    /// Nothing is granted beyond what is free.
    OnlyWhatIsFree,
}

/// Whether the rule is kept: always, but for the simulation that breaks it.
#[cfg(not(test))]
pub(super) const fn keeps(_: Rule) -> bool {
    true
}

#[cfg(test)]
pub(super) use broken::{keeps, with_broken};

#[cfg(test)]
mod broken {
    use std::cell::Cell;

    use super::Rule;

    thread_local! {
        static BROKEN: Cell<Option<Rule>> = const { Cell::new(None) };
    }

    pub(in super::super) fn keeps(rule: Rule) -> bool {
        BROKEN.get() != Some(rule)
    }

    /// Runs `what` on this thread without the rule.
    pub(in super::super) fn with_broken<T>(rule: Rule, what: impl FnOnce() -> T) -> T {
        BROKEN.set(Some(rule));
        let outcome = what();
        BROKEN.set(None);
        outcome
    }
}
