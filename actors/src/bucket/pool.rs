//! Which waiter gets which server connection, when to dial and what to evict: the bucket's decisions, without I/O.
//!
//! Waiters are served in the order of their turns ([`super::turns`]: by arrival within a tenant, tenants in turn) over all
//! sub-pools of the bucket. A waiter is *covered* while
//! something that will serve it is under way: a dial or a reset in its sub-pool, or a closing that frees a slot.
//! Covered waiters let the ones behind them look for other resources, uncovered ones do not: nobody overtakes. Only
//! waiters of a tenant that has all it may have are passed over.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

use super::tenant::{LeaseShare, TenantRef};
use super::turns::Turns;

/// Where a waiter stands in the queue: by arrival, then by a running number.
pub(crate) type Ticket = (Instant, u64);

/// The key of a sub-pool, which also knows for which tenant it is asked.
pub(crate) trait OfTenant {
    /// Who waits.
    fn tenant(&self) -> &TenantRef;
}

/// What is lent counts for a tenant until it comes home.
pub(crate) trait Charged {
    /// From now on it counts for this one.
    fn charge(&mut self, share: LeaseShare);
}

/// What a waiter waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// A logged-in connection of its sub-pool.
    Borrow,
    /// Proof that the server accepts its credentials: a fresh login, never an idle connection.
    Verify,
    /// The bare right to open a connection that will never be shared.
    Slot,
}

struct Waiter<K, W> {
    key: K,
    want: Want,
    deadline: Instant,
    token: W,
}

struct Idle<C> {
    conn: C,
    since: Instant,
}

struct SubPool<C> {
    /// Most recently used last: it is lent first, so that surplus connections grow old and are closed.
    idle: VecDeque<Idle<C>>,
    /// Dials under way.
    opening: u32,
    /// Connections that came back and are being reset: soon idle.
    resetting: u32,
    last_used: Instant,
}

impl<C> SubPool<C> {
    fn arriving(&self) -> u32 {
        self.opening + self.resetting
    }
}

/// What the actor has to do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action<K, C, W> {
    /// Hand `conn` to this waiter.
    Lend { token: W, conn: C },
    /// Give this waiter a bare slot: the actor takes it from the ledger.
    LendSlot { token: W, share: LeaseShare },
    /// Open a connection of this sub-pool, for which a slot is free.
    Dial { key: K },
    /// Close this idle connection: its slot is needed.
    Evict { conn: C },
}

/// Idle connections and waiters of one bucket. `C` is a server connection, `W` what the actor answers a
/// waiter through.
pub(crate) struct Pool<K, C, W> {
    sub_pools: HashMap<K, SubPool<C>>,
    waiters: BTreeMap<Ticket, Waiter<K, W>>,
    turns: Turns<TenantRef>,
    /// By deadline, to wake up once and not once per waiter.
    deadlines: BTreeMap<(Instant, u64), Ticket>,
    next_number: u64,
    idle: usize,
    /// Dials and resets under way, in all sub-pools.
    opening: usize,
    resetting: usize,
}

/// What the bucket has to give when it plans.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Slots of the quota that nothing occupies.
    pub(crate) free: u32,
    /// Slots whose connection is being closed: soon free.
    pub(crate) closing: u32,
    /// False while the server is backed off after failures.
    pub(crate) may_dial: bool,
    /// The most that one tenant may have lent.
    pub(crate) of_tenant: usize,
}

/// What a sub-pool has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SubPoolCounts {
    pub(crate) idle: usize,
    pub(crate) opening: usize,
    pub(crate) resetting: usize,
}

/// A waiter, as it is shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting<'a, K> {
    pub(crate) key: &'a K,
    pub(crate) want: Want,
    pub(crate) since: Instant,
    pub(crate) deadline: Instant,
}

/// Why a waiter was not queued.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct QueueFull {
    /// How many wait already.
    pub(crate) waiting: usize,
}

/// A waiter whose time is up, and how many stood before it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Expired<W> {
    pub(crate) token: W,
    pub(crate) ahead: usize,
    pub(crate) waited: Duration,
}

impl<K: Clone + Eq + Hash + OfTenant, C: Charged, W> Pool<K, C, W> {
    pub(crate) fn new() -> Self {
        Self {
            sub_pools: HashMap::new(),
            waiters: BTreeMap::new(),
            turns: Turns::new(),
            deadlines: BTreeMap::new(),
            next_number: 0,
            idle: 0,
            opening: 0,
            resetting: 0,
        }
    }

    pub(crate) fn idle(&self) -> usize {
        self.idle
    }

    /// Idle connections of this sub-pool.
    pub(crate) fn idle_in(&self, key: &K) -> usize {
        self.sub_pools.get(key).map_or(0, |pool| pool.idle.len())
    }

    /// Idle connections and those that will be when their dial or reset ends well.
    pub(crate) fn idle_or_opening(&self) -> usize {
        let (opening, resetting) = self.arriving();
        self.idle + opening + resetting
    }

    /// Dials and resets under way.
    pub(crate) fn arriving(&self) -> (usize, usize) {
        (self.opening, self.resetting)
    }

    /// Since when the first waiter waits.
    pub(crate) fn oldest_waiter(&self) -> Option<Instant> {
        self.waiters.first_key_value().map(|((since, _), _)| *since)
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// Queues a waiter that came at `since` (kept over restarts of the bucket, so that nobody loses their place).
    pub(crate) fn enqueue(
        &mut self,
        key: K,
        want: Want,
        since: Instant,
        deadline: Instant,
        token: W,
    ) -> Ticket {
        let number = self.next_number;
        self.next_number += 1;
        let ticket = (since, number);
        self.deadlines.insert((deadline, number), ticket);
        self.turns.join(key.tenant(), key.tenant().weight(), ticket);
        self.waiters.insert(ticket, Waiter { key, want, deadline, token });
        ticket
    }

    /// True when nobody new may queue. A waiter that can be served at once never counts against the limit, so
    /// the caller asks after [`Self::plan`].
    pub(crate) fn over_limit(&self, limit: usize) -> Option<QueueFull> {
        (self.waiters.len() > limit).then(|| QueueFull { waiting: self.waiters.len() - 1 })
    }

    /// The same for the waiters of one tenant.
    pub(crate) fn over_tenant_limit(&self, tenant: &TenantRef, limit: usize) -> Option<QueueFull> {
        let waiting = self.turns.waiting(tenant);
        (waiting > limit).then(|| QueueFull { waiting: waiting - 1 })
    }

    /// Takes a waiter out: it gave up, or the caller refuses it.
    pub(crate) fn leave(&mut self, ticket: Ticket) -> Option<W> {
        let waiter = self.waiters.remove(&ticket)?;
        self.turns.leave(waiter.key.tenant(), ticket);
        self.deadlines.remove(&(waiter.deadline, ticket.1));
        Some(waiter.token)
    }

    /// Takes out everybody whom `affected` names: a dial that failed concerns them all.
    pub(crate) fn leave_where(&mut self, mut affected: impl FnMut(&K, Want, &W) -> bool) -> Vec<W> {
        let tickets: Vec<Ticket> = self
            .waiters
            .iter()
            .filter(|(_, waiter)| affected(&waiter.key, waiter.want, &waiter.token))
            .map(|(ticket, _)| *ticket)
            .collect();
        tickets.into_iter().filter_map(|ticket| self.leave(ticket)).collect()
    }

    /// Waiters whose deadline is not after `now`, with how many stood ahead of each.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Expired<W>> {
        let mut expired = Vec::new();
        while let Some((&(deadline, number), &ticket)) = self.deadlines.first_key_value() {
            if deadline > now {
                break;
            }
            self.deadlines.remove(&(deadline, number));
            if let Some(waiter) = self.waiters.remove(&ticket) {
                let tenant = waiter.key.tenant();
                let ahead = self.turns.ahead(tenant, ticket);
                self.turns.leave(tenant, ticket);
                let waited = now.saturating_duration_since(ticket.0);
                expired.push(Expired { token: waiter.token, ahead, waited });
            }
        }
        expired
    }

    /// When [`Self::expire`] has something to do next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first_key_value().map(|((deadline, _), _)| *deadline)
    }

    /// A connection is home, clean and checked, or was just opened; it has been idle since then.
    pub(crate) fn put_idle(&mut self, key: K, conn: C, since: Instant) {
        let sub_pool = self.sub_pool(key, since);
        let at = sub_pool.idle.iter().rposition(|idle| idle.since <= since).map_or(0, |at| at + 1);
        sub_pool.idle.insert(at, Idle { conn, since });
        sub_pool.last_used = sub_pool.last_used.max(since);
        self.idle += 1;
    }

    /// The dial of [`Action::Dial`] ended, well or badly.
    pub(crate) fn dial_ended(&mut self, key: &K) {
        if let Some(sub_pool) = self.sub_pools.get_mut(key) {
            let ended = sub_pool.opening.min(1);
            sub_pool.opening -= ended;
            self.opening -= ended as usize;
        }
    }

    /// A connection came home and is being reset; [`Self::reset_ended`] follows.
    pub(crate) fn reset_began(&mut self, key: K, now: Instant) {
        self.sub_pool(key, now).resetting += 1;
        self.resetting += 1;
    }

    /// The reset ended, well (then [`Self::put_idle`] follows) or badly.
    pub(crate) fn reset_ended(&mut self, key: &K) {
        if let Some(sub_pool) = self.sub_pools.get_mut(key) {
            let ended = sub_pool.resetting.min(1);
            sub_pool.resetting -= ended;
            self.resetting -= ended as usize;
        }
    }

    /// Plans one dial to keep the bucket warm: the most recently used sub-pool gets it.
    pub(crate) fn warm(&mut self) -> Option<K> {
        let (key, sub_pool) = self.sub_pools.iter_mut().max_by_key(|(_, sub_pool)| sub_pool.last_used)?;
        sub_pool.opening += 1;
        self.opening += 1;
        Some(key.clone())
    }

    /// Takes out idle connections that `doomed` names (dead, too old, idle for too long), oldest first.
    pub(crate) fn retire(&mut self, mut doomed: impl FnMut(&mut C, Instant) -> bool) -> Vec<C> {
        let mut retired = Vec::new();
        for sub_pool in self.sub_pools.values_mut() {
            let mut kept = VecDeque::with_capacity(sub_pool.idle.len());
            for mut idle in sub_pool.idle.drain(..) {
                if doomed(&mut idle.conn, idle.since) {
                    retired.push(idle.conn);
                } else {
                    kept.push_back(idle);
                }
            }
            sub_pool.idle = kept;
        }
        self.idle -= retired.len();
        retired
    }

    /// Forgets sub-pools that hold nothing and were not used since `before`.
    pub(crate) fn forget_unused(&mut self, before: Instant) {
        self.sub_pools
            .retain(|_, pool| !pool.idle.is_empty() || pool.arriving() > 0 || pool.last_used > before);
    }

    /// Each idle connection, for the admin view.
    pub(crate) fn each_idle(&self) -> impl Iterator<Item = (&C, Instant)> {
        self.sub_pools.values().flat_map(|pool| pool.idle.iter().map(|idle| (&idle.conn, idle.since)))
    }

    /// What each sub-pool has, for the admin view.
    pub(crate) fn each_sub_pool(&self) -> impl Iterator<Item = (&K, SubPoolCounts)> {
        self.sub_pools.iter().map(|(key, pool)| {
            let (opening, resetting) = (pool.opening as usize, pool.resetting as usize);
            (key, SubPoolCounts { idle: pool.idle.len(), opening, resetting })
        })
    }

    /// Each waiter in its order, for the admin view.
    pub(crate) fn each_waiter(&self) -> impl Iterator<Item = Waiting<'_, K>> {
        self.waiters.iter().map(|((since, _), waiter)| Waiting {
            key: &waiter.key,
            want: waiter.want,
            since: *since,
            deadline: waiter.deadline,
        })
    }

    /// A pause that began at `paused` is over `now`: what it took from each waiter's time is given back.
    pub(crate) fn postpone(&mut self, paused: Instant, now: Instant) {
        self.deadlines.clear();
        for (ticket, waiter) in &mut self.waiters {
            waiter.deadline += now.saturating_duration_since(ticket.0.max(paused));
            self.deadlines.insert((waiter.deadline, ticket.1), *ticket);
        }
    }

    /// Decides what happens next. A waiter that is `gone` is dropped; an idle connection that is not `usable` is
    /// evicted instead of lent. Of several the one is lent that is nearest to the waiter's wish.
    pub(crate) fn plan(
        &mut self,
        mut room: Room,
        now: Instant,
        gone: impl Fn(&W) -> bool,
        distance: impl Fn(&W, &C) -> u8,
        mut usable: impl FnMut(&mut C) -> bool,
    ) -> Vec<Action<K, C, W>> {
        let mut actions = Vec::new();
        // How many arrivals in each sub-pool earlier waiters already count on.
        let mut counted_on: HashMap<K, u32> = HashMap::new();
        // What each tenant leases and will lease when what it counts on arrives.
        #[expect(clippy::mutable_key_type, reason = "a tenant's name is hashed, which never changes")]
        let mut used: HashMap<TenantRef, usize> = HashMap::new();
        let mut walk = self.turns.walk();
        for _ in 0..self.reach(room) {
            let Some((ticket, tenant)) = walk.next(&self.turns) else { break };
            let Some(waiter) = self.waiters.get(&ticket) else { continue };
            if gone(&waiter.token) {
                self.leave(ticket);
                continue;
            }
            let (key, want) = (waiter.key.clone(), waiter.want);
            if want != Want::Verify && room.of_tenant < usize::MAX {
                let used = used.entry(tenant.clone()).or_insert_with(|| tenant.leases());
                if *used >= room.of_tenant {
                    walk.pass_over_tenant();
                    continue;
                }
                *used += 1;
            }
            if want == Want::Borrow
                && let Some(mut conn) =
                    self.take_idle(ticket, &key, now, &distance, &mut usable, &mut room, &mut actions)
            {
                conn.charge(tenant.lease());
                self.turns.served(&tenant);
                actions.extend(self.leave(ticket).map(|token| Action::Lend { token, conn }));
                continue;
            }
            if want != Want::Slot && self.covers(&key, want, &mut counted_on) {
                continue;
            }
            if want != Want::Slot && !room.may_dial {
                // The server is backed off: others may still be served from what is idle.
                continue;
            }
            if room.free > 0 {
                room.free -= 1;
                if want == Want::Slot {
                    self.turns.served(&tenant);
                    let share = tenant.lease();
                    actions.extend(self.leave(ticket).map(|token| Action::LendSlot { token, share }));
                } else {
                    self.sub_pool(key.clone(), now).opening += 1;
                    self.opening += 1;
                    *counted_on.entry(key.clone()).or_default() += 1;
                    actions.push(Action::Dial { key });
                }
            } else if room.closing > 0 {
                room.closing -= 1;
            } else if let Some(conn) = self.oldest_idle() {
                actions.push(Action::Evict { conn });
            } else {
                break;
            }
        }
        actions
    }

    /// Whether an arrival under way serves this waiter; if so it is counted on.
    fn covers(&self, key: &K, want: Want, counted_on: &mut HashMap<K, u32>) -> bool {
        let Some(sub_pool) = self.sub_pools.get(key) else { return false };
        if want == Want::Verify {
            // One login verifies for everybody of the sub-pool.
            return sub_pool.opening > 0;
        }
        let counted = counted_on.entry(key.clone()).or_default();
        let covered = *counted < sub_pool.arriving();
        *counted += u32::from(covered);
        covered
    }

    /// How far down the queue a resource could possibly be found: beyond it there is nothing left to give.
    fn reach(&self, room: Room) -> usize {
        // Many logins can count on one dial; a look at so many of them is enough for one plan.
        const LOGINS: usize = 64;
        match self.idle + self.opening + self.resetting + (room.free + room.closing) as usize {
            0 => 0,
            something => something + LOGINS,
        }
    }

    fn sub_pool(&mut self, key: K, now: Instant) -> &mut SubPool<C> {
        self.sub_pools.entry(key).or_insert_with(|| SubPool {
            idle: VecDeque::new(),
            opening: 0,
            resetting: 0,
            last_used: now,
        })
    }

    #[expect(clippy::too_many_arguments, reason = "one step of the plan, with all that the plan knows")]
    fn take_idle(
        &mut self,
        ticket: Ticket,
        key: &K,
        now: Instant,
        distance: &impl Fn(&W, &C) -> u8,
        usable: &mut impl FnMut(&mut C) -> bool,
        room: &mut Room,
        actions: &mut Vec<Action<K, C, W>>,
    ) -> Option<C> {
        let token = &self.waiters.get(&ticket)?.token;
        let sub_pool = self.sub_pools.get_mut(key)?;
        while let Some(at) = nearest(&sub_pool.idle, |conn| distance(token, conn)) {
            let Some(mut idle) = sub_pool.idle.remove(at) else { break };
            self.idle -= 1;
            if usable(&mut idle.conn) {
                sub_pool.last_used = now;
                return Some(idle.conn);
            }
            room.closing += 1;
            actions.push(Action::Evict { conn: idle.conn });
        }
        None
    }

    fn oldest_idle(&mut self) -> Option<C> {
        let sub_pool = self
            .sub_pools
            .values_mut()
            .filter(|pool| !pool.idle.is_empty())
            .min_by_key(|pool| pool.idle.front().map(|idle| idle.since))?;
        self.idle -= 1;
        sub_pool.idle.pop_front().map(|idle| idle.conn)
    }
}

/// How many idle connections are looked at for the nearest one, the most recently used first.
const LOOK: usize = 16;

/// The place of the nearest connection; of equally near ones, the one most recently used.
fn nearest<C>(idle: &VecDeque<Idle<C>>, distance: impl Fn(&C) -> u8) -> Option<usize> {
    let mut best = None;
    for (at, idle) in idle.iter().enumerate().rev().take(LOOK) {
        let this = distance(&idle.conn);
        if best.is_none_or(|(least, _)| this < least) {
            best = Some((this, at));
        }
        if this == 0 {
            break;
        }
    }
    best.map(|(_, at)| at)
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use super::*;

    type TestPool = Pool<&'static str, u32, &'static str>;
    type TestAction = Action<&'static str, u32, &'static str>;

    /// All keys of these tests are asked for by one tenant.
    impl OfTenant for &'static str {
        fn tenant(&self) -> &TenantRef {
            static ONLY: OnceLock<TenantRef> = OnceLock::new();
            ONLY.get_or_init(|| TenantRef::new("only", 1))
        }
    }

    impl Charged for u32 {
        fn charge(&mut self, _: LeaseShare) {}
    }

    const LONG: Duration = Duration::from_secs(60);

    fn room(free: u32) -> Room {
        Room { free, closing: 0, may_dial: true, of_tenant: usize::MAX }
    }

    fn wait(pool: &mut TestPool, key: &'static str, want: Want, token: &'static str) -> Ticket {
        let now = Instant::now();
        pool.enqueue(key, want, now, now + LONG, token)
    }

    fn plan(pool: &mut TestPool, room: Room) -> Vec<TestAction> {
        pool.plan(room, Instant::now(), |_| false, |_, _| 0, |_| true)
    }

    #[test]
    fn an_idle_connection_goes_to_the_first_who_came() {
        let mut pool = TestPool::new();
        wait(&mut pool, "a", Want::Borrow, "first");
        wait(&mut pool, "a", Want::Borrow, "second");
        pool.put_idle("a", 1, Instant::now());
        assert_eq!(plan(&mut pool, room(0)), [Action::Lend { token: "first", conn: 1 }]);
        assert_eq!(pool.waiting(), 1);
    }

    #[test]
    fn the_most_recently_used_connection_is_lent_first() {
        let mut pool = TestPool::new();
        pool.put_idle("a", 1, Instant::now());
        pool.put_idle("a", 2, Instant::now());
        wait(&mut pool, "a", Want::Borrow, "w");
        assert_eq!(plan(&mut pool, room(0)), [Action::Lend { token: "w", conn: 2 }]);
    }

    #[test]
    fn the_nearest_connection_is_lent_before_the_most_recently_used() {
        let mut pool = TestPool::new();
        for conn in [3, 1, 2] {
            pool.put_idle("a", conn, Instant::now());
        }
        wait(&mut pool, "a", Want::Borrow, "w");
        let distance = |_: &&str, conn: &u32| u8::try_from(*conn).unwrap();
        let actions = pool.plan(room(0), Instant::now(), |_| false, distance, |_| true);
        assert_eq!(actions, [Action::Lend { token: "w", conn: 1 }]);
    }

    #[test]
    fn one_dial_is_made_for_each_borrower_that_no_arrival_covers() {
        let mut pool = TestPool::new();
        wait(&mut pool, "a", Want::Borrow, "w1");
        wait(&mut pool, "a", Want::Borrow, "w2");
        assert_eq!(plan(&mut pool, room(5)), [Action::Dial { key: "a" }, Action::Dial { key: "a" }]);
        assert_eq!(plan(&mut pool, room(3)), [], "both are covered now");
        pool.dial_ended(&"a");
        assert_eq!(plan(&mut pool, room(3)), [Action::Dial { key: "a" }], "a failed dial is made again");
    }

    #[test]
    fn a_connection_that_is_being_reset_covers_a_borrower_but_not_a_login() {
        let mut pool = TestPool::new();
        pool.reset_began("a", Instant::now());
        wait(&mut pool, "a", Want::Borrow, "w1");
        assert_eq!(plan(&mut pool, room(5)), []);
        wait(&mut pool, "a", Want::Verify, "w2");
        assert_eq!(plan(&mut pool, room(5)), [Action::Dial { key: "a" }]);
    }

    #[test]
    fn one_dial_verifies_for_all_logins_of_a_sub_pool() {
        let mut pool = TestPool::new();
        wait(&mut pool, "a", Want::Verify, "w1");
        wait(&mut pool, "a", Want::Verify, "w2");
        assert_eq!(plan(&mut pool, room(5)), [Action::Dial { key: "a" }]);
        let told = pool.leave_where(|key, want, _| *key == "a" && want == Want::Verify);
        assert_eq!(told, ["w1", "w2"]);
    }

    #[test]
    fn a_login_is_never_answered_by_an_idle_connection() {
        let mut pool = TestPool::new();
        pool.put_idle("a", 1, Instant::now());
        wait(&mut pool, "a", Want::Verify, "w");
        assert_eq!(plan(&mut pool, room(0)), [Action::Evict { conn: 1 }]);
    }

    #[test]
    fn a_full_bucket_evicts_the_idle_connection_that_was_unused_longest() {
        let mut pool = TestPool::new();
        let start = Instant::now();
        pool.put_idle("b", 1, start);
        pool.put_idle("c", 2, start + Duration::from_secs(1));
        wait(&mut pool, "a", Want::Borrow, "w");
        assert_eq!(plan(&mut pool, room(0)), [Action::Evict { conn: 1 }]);
        let closing = Room { closing: 1, ..room(0) };
        assert_eq!(plan(&mut pool, closing), [], "one eviction for one waiter");
        assert_eq!(plan(&mut pool, room(1)), [Action::Dial { key: "a" }]);
    }

    #[test]
    fn nobody_overtakes_a_waiter_that_nothing_covers() {
        let mut pool = TestPool::new();
        wait(&mut pool, "a", Want::Borrow, "first");
        wait(&mut pool, "b", Want::Borrow, "second");
        pool.put_idle("b", 1, Instant::now());
        assert_eq!(plan(&mut pool, room(0)), [Action::Evict { conn: 1 }], "the slot is the first one's");
    }

    #[test]
    fn a_covered_waiter_does_not_hold_up_the_next() {
        let mut pool = TestPool::new();
        wait(&mut pool, "a", Want::Borrow, "first");
        assert_eq!(plan(&mut pool, room(1)), [Action::Dial { key: "a" }]);
        wait(&mut pool, "b", Want::Borrow, "second");
        pool.put_idle("b", 1, Instant::now());
        assert_eq!(plan(&mut pool, room(0)), [Action::Lend { token: "second", conn: 1 }]);
    }

    #[test]
    fn while_the_server_is_backed_off_idle_connections_are_lent_and_nothing_is_dialled() {
        let mut pool = TestPool::new();
        wait(&mut pool, "a", Want::Borrow, "w1");
        wait(&mut pool, "b", Want::Borrow, "w2");
        pool.put_idle("b", 1, Instant::now());
        let backed_off = Room { may_dial: false, ..room(5) };
        assert_eq!(plan(&mut pool, backed_off), [Action::Lend { token: "w2", conn: 1 }]);
    }

    #[test]
    fn a_dead_connection_is_never_lent() {
        let mut pool = TestPool::new();
        pool.put_idle("a", 1, Instant::now());
        pool.put_idle("a", 2, Instant::now());
        wait(&mut pool, "a", Want::Borrow, "w");
        let actions = pool.plan(room(0), Instant::now(), |_| false, |_, _| 0, |conn| *conn == 1);
        assert_eq!(actions, [Action::Evict { conn: 2 }, Action::Lend { token: "w", conn: 1 }]);
    }

    #[test]
    fn a_waiter_that_gives_up_leaves_the_queue() {
        let mut pool = TestPool::new();
        let ticket = wait(&mut pool, "a", Want::Borrow, "gone");
        wait(&mut pool, "a", Want::Borrow, "here");
        assert_eq!(pool.leave(ticket), Some("gone"));
        assert_eq!(pool.leave(ticket), None);
        pool.put_idle("a", 1, Instant::now());
        assert_eq!(plan(&mut pool, room(0)), [Action::Lend { token: "here", conn: 1 }]);
    }

    #[test]
    fn a_waiter_that_vanished_is_passed_over() {
        let mut pool = TestPool::new();
        wait(&mut pool, "a", Want::Borrow, "vanished");
        wait(&mut pool, "a", Want::Borrow, "here");
        pool.put_idle("a", 1, Instant::now());
        let actions = pool.plan(room(0), Instant::now(), |token| *token == "vanished", |_, _| 0, |_| true);
        assert_eq!(actions, [Action::Lend { token: "here", conn: 1 }]);
        assert_eq!(pool.waiting(), 0);
    }

    #[test]
    fn a_waiter_whose_time_is_up_learns_how_many_stood_ahead() {
        let mut pool = TestPool::new();
        let start = Instant::now();
        pool.enqueue("a", Want::Borrow, start, start + LONG, "patient");
        pool.enqueue("a", Want::Borrow, start, start + Duration::from_secs(1), "hasty");
        assert_eq!(pool.next_deadline(), Some(start + Duration::from_secs(1)));
        let expired = pool.expire(start + Duration::from_secs(2));
        assert_eq!(expired, [Expired { token: "hasty", ahead: 1, waited: Duration::from_secs(2) }]);
    }

    #[test]
    fn a_waiter_that_comes_back_after_a_crash_keeps_its_place() {
        let mut pool = TestPool::new();
        let start = Instant::now();
        pool.enqueue("a", Want::Borrow, start + Duration::from_secs(1), start + LONG, "later");
        pool.enqueue("a", Want::Borrow, start, start + LONG, "earlier");
        pool.put_idle("a", 1, start);
        assert_eq!(plan(&mut pool, room(0)), [Action::Lend { token: "earlier", conn: 1 }]);
    }

    #[test]
    fn a_slot_for_a_connection_of_its_own_needs_no_dial_of_ours() {
        let mut pool = TestPool::new();
        wait(&mut pool, "a", Want::Slot, "sspi");
        let share = "a".tenant().lease();
        assert_eq!(plan(&mut pool, room(1)), [Action::LendSlot { token: "sspi", share }]);
    }

    #[test]
    fn a_long_queue_costs_a_short_look() {
        let mut pool = TestPool::new();
        for _ in 0..10_000 {
            wait(&mut pool, "a", Want::Borrow, "w");
        }
        pool.put_idle("a", 1, Instant::now());
        assert!(pool.reach(room(0)) < 100);
        assert_eq!(plan(&mut pool, room(0)).len(), 1);
    }

    /// Keys of one sub-pool, asked for by several tenants.
    #[derive(Clone, Debug)]
    struct Of(TenantRef);

    impl PartialEq for Of {
        fn eq(&self, _: &Self) -> bool {
            true
        }
    }

    impl Eq for Of {}

    impl Hash for Of {
        fn hash<H: std::hash::Hasher>(&self, _: &mut H) {}
    }

    impl OfTenant for Of {
        fn tenant(&self) -> &TenantRef {
            &self.0
        }
    }

    /// A connection that keeps its share, as real ones do.
    #[derive(Debug, Default)]
    struct Conn(Option<LeaseShare>);

    impl Charged for Conn {
        fn charge(&mut self, share: LeaseShare) {
            self.0 = Some(share);
        }
    }

    struct Fair {
        pool: Pool<Of, Conn, &'static str>,
        storm: TenantRef,
        quiet: TenantRef,
    }

    impl Fair {
        fn new() -> Self {
            let (storm, quiet) = (TenantRef::new("storm", 1), TenantRef::new("quiet", 1));
            Self { pool: Pool::new(), storm, quiet }
        }

        fn wait(&mut self, tenant: &TenantRef, token: &'static str) -> Ticket {
            let now = Instant::now();
            self.pool.enqueue(Of(tenant.clone()), Want::Borrow, now, now + LONG, token)
        }

        /// Who gets one of so many idle connections, with so many for each tenant.
        fn lend(&mut self, idle: usize, of_tenant: usize) -> Vec<(&'static str, Conn)> {
            for _ in 0..idle {
                self.pool.put_idle(Of(self.quiet.clone()), Conn::default(), Instant::now());
            }
            let actions =
                self.pool.plan(Room { of_tenant, ..room(0) }, Instant::now(), |_| false, |_, _| 0, |_| true);
            let lent = actions.into_iter().filter_map(|action| match action {
                Action::Lend { token, conn } => Some((token, conn)),
                _ => None,
            });
            lent.collect()
        }
    }

    #[test]
    fn a_tenant_with_a_thousand_waiting_costs_another_one_turn() {
        let mut fair = Fair::new();
        for _ in 0..1000 {
            fair.wait(&fair.storm.clone(), "storm");
        }
        fair.wait(&fair.quiet.clone(), "quiet");
        let tokens: Vec<_> = fair.lend(2, usize::MAX).into_iter().map(|(token, _)| token).collect();
        assert_eq!(tokens, ["storm", "quiet"]);
    }

    #[test]
    fn a_tenant_that_has_all_it_may_have_is_passed_over_until_something_comes_home() {
        let mut fair = Fair::new();
        for _ in 0..3 {
            fair.wait(&fair.storm.clone(), "storm");
        }
        let lent = fair.lend(3, 2);
        assert_eq!((lent.len(), fair.storm.leases()), (2, 2), "two of three idle connections");
        fair.wait(&fair.quiet.clone(), "quiet");
        let others = fair.lend(0, 2);
        assert_eq!(
            others.iter().map(|(token, _)| *token).collect::<Vec<_>>(),
            ["quiet"],
            "nobody else is held up"
        );
        drop(lent);
        let next = fair.lend(1, 2);
        assert_eq!((next.len(), next[0].0, fair.storm.leases()), (1, "storm", 1));
    }

    #[test]
    fn a_tenant_dials_no_more_than_it_may_have() {
        let mut fair = Fair::new();
        for _ in 0..5 {
            fair.wait(&fair.storm.clone(), "storm");
        }
        let actions =
            fair.pool.plan(Room { of_tenant: 2, ..room(5) }, Instant::now(), |_| false, |_, _| 0, |_| true);
        assert_eq!(actions.iter().filter(|action| matches!(action, Action::Dial { .. })).count(), 2);
    }

    #[test]
    fn the_waiters_of_a_tenant_are_counted_apart() {
        let mut fair = Fair::new();
        for _ in 0..3 {
            fair.wait(&fair.storm.clone(), "storm");
        }
        let quiet = fair.wait(&fair.quiet.clone(), "quiet");
        let full = |fair: &Fair, tenant| fair.pool.over_tenant_limit(tenant, 2);
        assert_eq!(full(&fair, &fair.storm), Some(QueueFull { waiting: 2 }));
        assert_eq!(full(&fair, &fair.quiet), None);
        fair.pool.leave(quiet);
        assert_eq!(fair.pool.waiting(), 3);
    }
}
