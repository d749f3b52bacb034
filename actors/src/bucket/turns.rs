//! Whose turn it is: waiters of one tenant go in order of arrival, tenants in turn, each by its weight.
//!
//! Every tenant that waits has a *pass*, and the lowest one goes first; being served raises it by the tenant's stride,
//! which is the smaller the greater its weight (stride scheduling). Who comes new begins where the others are: nobody
//! saves up turns while away, and nobody pays for having waited long.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet};
use std::hash::Hash;
use std::ops::Bound::{Excluded, Unbounded};

use super::pool::Ticket;

/// What a turn of weight 1 costs.
const STRIDE: u64 = 1 << 20;

/// Where a tenant stands: by its pass, then by who of it waits longest.
type Place = (u64, Ticket);

/// The lines in which tenants wait. `T` names a tenant.
pub(crate) struct Turns<T> {
    lines: HashMap<T, Line>,
    /// Each line's first waiter, the one whose turn it is first.
    order: BTreeMap<Place, T>,
    /// The pass of who was served last: where newcomers begin.
    now: u64,
}

struct Line {
    pass: u64,
    stride: u64,
    waiting: BTreeSet<Ticket>,
}

impl Line {
    fn place(&self) -> Option<Place> {
        self.waiting.first().map(|first| (self.pass, *first))
    }
}

impl<T: Clone + Eq + Hash> Turns<T> {
    pub(crate) fn new() -> Self {
        Self { lines: HashMap::new(), order: BTreeMap::new(), now: 0 }
    }

    /// A waiter of `tenant` joins. A weight of 0 counts as 1.
    pub(crate) fn join(&mut self, tenant: &T, weight: u32, ticket: Ticket) {
        let stride = STRIDE / u64::from(weight.max(1));
        let now = self.now;
        self.change(tenant, Some(Line { pass: now, stride, waiting: BTreeSet::new() }), |line| {
            line.stride = stride;
            line.waiting.insert(ticket);
        });
    }

    /// A waiter leaves, served or not.
    pub(crate) fn leave(&mut self, tenant: &T, ticket: Ticket) {
        self.change(tenant, None, |line| {
            line.waiting.remove(&ticket);
        });
    }

    /// A waiter of `tenant` is served: the tenant has had its turn.
    pub(crate) fn served(&mut self, tenant: &T) {
        if let Some(line) = self.lines.get(tenant) {
            self.now = self.now.max(line.pass);
        }
        self.change(tenant, None, |line| line.pass += line.stride);
    }

    /// How many of `tenant` wait.
    pub(crate) fn waiting(&self, tenant: &T) -> usize {
        self.lines.get(tenant).map_or(0, |line| line.waiting.len())
    }

    /// About how many will be served before this waiter if all stay: those of its own line, and of each other line as many,
    /// by its weight.
    pub(crate) fn ahead(&self, tenant: &T, ticket: Ticket) -> usize {
        let Some(own) = self.lines.get(tenant) else { return 0 };
        let before = own.waiting.range(..ticket).count();
        let until = own.pass.saturating_add(own.stride.saturating_mul(before as u64));
        let others = self.lines.iter().filter(|(name, _)| *name != tenant).map(|(_, line)| {
            let turns = until.checked_sub(line.pass).map_or(0, |gap| gap / line.stride.max(1) + 1);
            // On equal passes the one who came first goes first.
            let tie = u64::from(line.place() > Some((until, ticket)) && turns > 0 && line.pass == until);
            usize::try_from(turns - tie).unwrap_or(usize::MAX).min(line.waiting.len())
        });
        before + others.sum::<usize>()
    }

    /// Walks the waiters in the order of their turns, as it is if each of them is served. Waiters may be served and leave
    /// while it goes on; nobody joins.
    pub(crate) fn walk(&self) -> Walk<T> {
        Walk { begun: HashSet::new(), next: BinaryHeap::new(), names: Vec::new(), cursor: None, last: None }
    }

    fn change(&mut self, tenant: &T, new: Option<Line>, change: impl FnOnce(&mut Line)) {
        if let Some(line) = new {
            self.lines.entry(tenant.clone()).or_insert(line);
        }
        let Some(line) = self.lines.get_mut(tenant) else { return };
        let before = line.place();
        change(line);
        let after = line.place();
        if before != after {
            if let Some(place) = before {
                self.order.remove(&place);
            }
            match after {
                Some(place) => drop(self.order.insert(place, tenant.clone())),
                None => drop(self.lines.remove(tenant)),
            }
        }
        debug_assert_eq!(self.order.len(), self.lines.len(), "each line has one place");
    }
}

/// Where a walk is.
pub(crate) struct Walk<T> {
    /// Tenants of whom somebody was seen: the others are still in the turns' own order.
    begun: HashSet<T>,
    /// Who is next of those, if all who were seen are served.
    next: BinaryHeap<Reverse<(Place, usize)>>,
    names: Vec<T>,
    /// How far the turns' own order was seen.
    cursor: Option<Place>,
    last: Option<(Place, usize)>,
}

impl<T: Clone + Eq + Hash> Walk<T> {
    /// The next waiter, and its tenant.
    pub(crate) fn next(&mut self, turns: &Turns<T>) -> Option<(Ticket, T)> {
        self.follow(turns);
        let from = self.cursor.map_or(Unbounded, Excluded);
        let fresh = turns.order.range((from, Unbounded)).find(|(_, tenant)| !self.begun.contains(*tenant));
        let seen = self.next.peek().map(|Reverse((place, _))| *place);
        let (place, at) = match (fresh, seen) {
            (Some((place, _)), Some(seen)) if seen < *place => self.next.pop()?.0,
            (None, _) => self.next.pop()?.0,
            (Some((place, tenant)), _) => {
                self.cursor = Some(*place);
                self.begun.insert(tenant.clone());
                self.names.push(tenant.clone());
                (*place, self.names.len() - 1)
            }
        };
        self.last = Some((place, at));
        Some((place.1, self.names[at].clone()))
    }

    /// Nobody else of the last waiter's tenant is wanted.
    pub(crate) fn pass_over_tenant(&mut self) {
        self.last = None;
    }

    /// Puts who stands behind the last one in line.
    fn follow(&mut self, turns: &Turns<T>) {
        let Some(((pass, ticket), at)) = self.last.take() else { return };
        let Some(line) = turns.lines.get(&self.names[at]) else { return };
        if let Some(behind) = line.waiting.range((Excluded(ticket), Unbounded)).next() {
            self.next.push(Reverse(((pass + line.stride, *behind), at)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::time::Instant;

    use super::*;

    fn ticket(start: Instant, number: u64) -> Ticket {
        (start + Duration::from_millis(number), number)
    }

    /// Serves everybody in turn: the numbers in their order.
    fn serve_all(turns: &mut Turns<char>) -> Vec<u64> {
        let mut order = Vec::new();
        while let Some((ticket, tenant)) = turns.walk().next(turns) {
            turns.served(&tenant);
            turns.leave(&tenant, ticket);
            order.push(ticket.1);
        }
        assert!(turns.lines.is_empty() && turns.order.is_empty());
        order
    }

    fn with(waiters: &[(char, u32)]) -> Turns<char> {
        let (start, mut turns) = (Instant::now(), Turns::new());
        for (number, (tenant, weight)) in (0..).zip(waiters) {
            turns.join(tenant, *weight, ticket(start, number));
        }
        turns
    }

    #[test]
    fn one_tenant_is_served_in_order_of_arrival() {
        assert_eq!(serve_all(&mut with(&[('a', 1); 4])), [0, 1, 2, 3]);
    }

    #[test]
    fn tenants_take_turns_however_many_of_one_came_first() {
        let waiters = [('a', 1), ('a', 1), ('a', 1), ('b', 1), ('b', 1), ('c', 1)];
        assert_eq!(serve_all(&mut with(&waiters)), [0, 3, 5, 1, 4, 2]);
    }

    #[test]
    fn a_weight_of_three_is_three_turns_to_one() {
        let mut waiters = [('a', 3); 9].to_vec();
        waiters.extend([('b', 1); 3]);
        let order = serve_all(&mut with(&waiters));
        for quarter in order[..8].chunks(4) {
            assert_eq!(quarter.iter().filter(|number| **number < 9).count(), 3, "{order:?}");
        }
    }

    #[test]
    fn a_newcomer_waits_for_one_turn_of_each_and_no_more() {
        let start = Instant::now();
        let mut turns = with(&[('a', 1); 100]);
        for _ in 0..50 {
            let (ticket, tenant) = turns.walk().next(&turns).unwrap();
            turns.served(&tenant);
            turns.leave(&tenant, ticket);
        }
        turns.join(&'b', 1, ticket(start, 1000));
        assert!(turns.ahead(&'b', ticket(start, 1000)) <= 1);
        let first_two = [turns.walk().next(&turns).unwrap().1, {
            let mut walk = turns.walk();
            walk.next(&turns);
            walk.next(&turns).unwrap().1
        }];
        assert!(first_two.contains(&'b'), "{first_two:?}");
    }

    #[test]
    fn who_was_away_has_not_saved_up_turns() {
        let start = Instant::now();
        let mut turns = with(&[('a', 1), ('a', 1), ('a', 1), ('a', 1)]);
        let (first, tenant) = turns.walk().next(&turns).unwrap();
        turns.served(&tenant);
        turns.leave(&tenant, first);
        for number in 10..13 {
            turns.join(&'b', 1, ticket(start, number));
        }
        let order = serve_all(&mut turns);
        let early = order[..4].iter().filter(|number| **number >= 10).count();
        assert_eq!(early, 2, "two of each, not three of the newcomer: {order:?}");
    }

    #[test]
    fn a_tenant_that_is_passed_over_holds_up_nobody() {
        let turns = with(&[('a', 1), ('a', 1), ('b', 1), ('b', 1)]);
        let (mut walk, mut seen) = (turns.walk(), Vec::new());
        while let Some((ticket, tenant)) = walk.next(&turns) {
            if tenant == 'a' {
                walk.pass_over_tenant();
            } else {
                seen.push(ticket.1);
            }
        }
        assert_eq!(seen, [2, 3]);
    }

    proptest! {
        /// The walk says the order in which everybody would be served, and names everybody once.
        #[test]
        fn a_walk_is_the_order_of_service(waiters in prop::collection::vec((0u8..5, 1u32..4), 0..40)) {
            let waiters: Vec<(char, u32)> =
                waiters.into_iter().map(|(tenant, _)| (char::from(b'a' + tenant), u32::from(tenant) + 1)).collect();
            let mut turns = with(&waiters);
            let (mut walk, mut seen) = (turns.walk(), Vec::new());
            while let Some((ticket, tenant)) = walk.next(&turns) {
                prop_assert_eq!(turns.ahead(&tenant, ticket).abs_diff(seen.len()) <= 5, true);
                seen.push(ticket.1);
            }
            prop_assert_eq!(&seen, &serve_all(&mut turns));
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..waiters.len() as u64).collect::<Vec<_>>());
        }

        /// Serving while walking changes nothing of the order.
        #[test]
        fn serving_some_while_walking_keeps_the_order(
            waiters in prop::collection::vec(0u8..4, 1..30),
            serve in prop::collection::vec(any::<bool>(), 30),
        ) {
            let waiters: Vec<(char, u32)> = waiters.into_iter().map(|tenant| (char::from(b'a' + tenant), 1)).collect();
            let untouched = with(&waiters);
            let (mut walk, mut expected) = (untouched.walk(), Vec::new());
            while let Some((ticket, _)) = walk.next(&untouched) {
                expected.push(ticket.1);
            }
            let mut turns = with(&waiters);
            let (mut walk, mut seen) = (turns.walk(), Vec::new());
            while let Some((ticket, tenant)) = walk.next(&turns) {
                if serve[seen.len()] {
                    turns.served(&tenant);
                    turns.leave(&tenant, ticket);
                }
                seen.push(ticket.1);
            }
            prop_assert_eq!(seen, expected);
        }
    }
}
