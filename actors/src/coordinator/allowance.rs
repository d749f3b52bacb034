//! What may be used until when, if nobody says anything else: a falling staircase.

use tokio::time::Instant;

/// How many demands to shrink are remembered, each with its own end.
pub(super) const MUSTS: usize = 3;

/// What may be used until when, in steps; after them nothing, or as much as at last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Allowance {
    pub(super) steps: [Option<(Instant, u32)>; MUSTS + 2],
    pub(super) last: u32,
}

impl Allowance {
    /// The same for ever.
    pub(crate) const fn constant(quota: u32) -> Self {
        Self { steps: [None; MUSTS + 2], last: quota }
    }

    /// What may be used at `now`.
    pub(crate) fn at(&self, now: Instant) -> u32 {
        let step = self.steps.iter().flatten().find(|(until, _)| now < *until);
        step.map_or(self.last, |(_, quota)| *quota)
    }

    /// When, from `now` on, less than `used` may be used for the first time; `None`: never.
    pub(crate) fn ends_for(&self, used: u32, now: Instant) -> Option<Instant> {
        let mut from = now;
        for (until, quota) in self.steps.iter().flatten().filter(|(until, _)| now < *until) {
            if *quota < used {
                return Some(from);
            }
            from = *until;
        }
        (self.last < used).then_some(from)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_staircase_says_what_may_be_used_and_when_it_ends() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut steps = [None; MUSTS + 2];
        (steps[0], steps[MUSTS], steps[MUSTS + 1]) = (Some((at(2), 9)), Some((at(6), 5)), Some((at(30), 3)));
        let allowance = Allowance { steps, last: 0 };
        assert_eq!([0, 1, 2, 5, 6, 29, 30].map(|second| allowance.at(at(second))), [9, 9, 5, 5, 3, 3, 0]);
        assert_eq!(allowance.ends_for(9, now), Some(at(2)));
        assert_eq!(allowance.ends_for(4, now), Some(at(6)));
        assert_eq!(allowance.ends_for(1, now), Some(at(30)));
        assert_eq!(allowance.ends_for(0, now), None);
        assert_eq!(allowance.ends_for(10, now), Some(now));
    }
}
