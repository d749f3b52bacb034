//! How long everything lasts, as parts of one lease time. The reasons are in docs/coordinator.md.

use std::time::Duration;

/// The lease times that all proxies share, and what follows from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timing {
    /// How long Redis keeps the slots of a proxy that it does not hear of.
    pub(crate) lease: Duration,
    /// How long such a proxy may use its share, and Redis keeps it.
    pub(crate) fallback: Duration,
}

impl Timing {
    /// How often a lease is renewed.
    pub(crate) fn renew(self) -> Duration {
        self.lease / 5
    }

    /// How much earlier than it must be a lease is renewed along with others. Half of [`Self::renew`], so that all of a
    /// proxy's renewals soon travel together.
    pub(crate) fn early(self) -> Duration {
        self.renew() / 2
    }

    /// How often a proxy asks at most: what happens meanwhile travels together. Where slots are short everywhere they
    /// would otherwise go to and fro all the time; who has asked nothing for so long asks at once.
    pub(crate) fn pace(self) -> Duration {
        (self.lease / 100).min(Duration::from_millis(100))
    }

    /// How often a proxy looks what time has brought.
    pub(crate) fn tick(self) -> Duration {
        (self.lease / 40).min(Duration::from_millis(250))
    }

    /// How long an answer is waited for.
    pub(crate) fn patience(self) -> Duration {
        self.lease / 10
    }

    /// How long a proxy may use what it was granted, counted from before it asked. Shorter than Redis' lease by what
    /// clocks may differ and by the longest jump that Redis takes for time ([`Self::longest_gap`]).
    pub(crate) fn valid(self) -> Duration {
        self.lease * 6 / 10
    }

    /// How long before its end what may not be used any more is asked for at clean boundaries: when one renewal and
    /// its repetition failed.
    pub(crate) fn notice(self) -> Duration {
        self.lease / 5
    }

    /// How long before its end it is closed whatever runs on it, so that it is closed by the end.
    pub(crate) fn close(self) -> Duration {
        self.lease / 10
    }

    /// From then on a proxy without Redis may grow to its share: a request may be under way for one lease time, the
    /// lease it renews lasts another, then the others have [`Self::valid`] to make room.
    pub(crate) fn grow(self) -> Duration {
        self.lease * 4
    }

    /// How long a proxy may use its share, counted from before it last asked with success; a tenth less than Redis
    /// keeps it.
    pub(crate) fn keep(self) -> Duration {
        (self.fallback * 9 / 10).saturating_sub(self.longest_gap())
    }

    /// The longest time between two requests to a bucket that Redis takes for time that passed.
    pub(crate) fn longest_gap(self) -> Duration {
        self.lease * 3 / 10
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_ends_before_redis_gives_it_to_others_whatever_the_clocks_do() {
        let timing = Timing { lease: Duration::from_secs(10), fallback: Duration::from_secs(3600) };
        // Redis' clock may have jumped once, and both may differ by a tenth.
        assert!(timing.valid().mul_f64(1.1) < timing.lease - timing.longest_gap());
        assert!(timing.close() < timing.notice() && timing.notice() < timing.valid());
        // One renewal may be lost before anything is asked for.
        assert!(timing.renew() + timing.patience() < timing.valid() - timing.notice());
        assert!(timing.renew() < timing.longest_gap());
        assert!(timing.keep() < timing.fallback - timing.longest_gap());
    }
}
