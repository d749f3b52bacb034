//! How failed logins slow down further ones: by name and address together, and more patiently by address alone.

use super::aging::Aging;
use super::proof::folded;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How many failures of one address are free before the address as a whole is slowed down. Behind a load balancer
/// or a NAT an address is many clients, and one of them with an old password must not hold up the others.
const FREE_PER_ADDRESS: u32 = 32;

/// How much slower, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ThrottlePolicy {
    /// The delay after a first failure; it doubles with each further one.
    pub(crate) first: Duration,
    /// The longest delay.
    pub(crate) max: Duration,
    /// Without a further failure for so long, the count starts again.
    pub(crate) forget_after: Duration,
    /// Names with addresses, and addresses, remembered at most.
    pub(crate) tracked: usize,
}

/// The failures of all clients; shared by reference.
#[derive(Debug)]
pub(crate) struct Throttle(Mutex<Failures>);

impl Throttle {
    /// Nobody has failed yet.
    pub(crate) fn new(policy: ThrottlePolicy) -> Self {
        Self(Mutex::new(Failures::new(policy)))
    }

    /// Waits until this client may try its password, before it is looked up anywhere, memory included: otherwise
    /// who guesses fast could learn from an answer out of memory. Without failures it does not wait. The caller's
    /// login timeout bounds the wait; dropping it loses nothing. Says whether there was anything to wait for.
    pub(crate) async fn turn(&self, user: &str, address: IpAddr) -> bool {
        let mut waited = false;
        loop {
            let Some(wait) = self.lock().turn(user, address, Instant::now()) else { return waited };
            waited = true;
            sleep(wait).await;
        }
    }

    /// Counts a failed login; how long to hold back its refusal.
    #[must_use]
    pub(crate) fn failed(&self, user: &str, address: IpAddr) -> Duration {
        self.lock().failed(user, address, Instant::now())
    }

    /// A success of this name from this address clears what both together failed.
    pub(crate) fn succeeded(&self, user: &str, address: IpAddr) {
        self.lock().succeeded(user, address);
    }

    fn lock(&self) -> MutexGuard<'_, Failures> {
        // Each change is one call on one map: nothing is ever half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same, pure: time is an argument.
#[derive(Debug)]
struct Failures {
    policy: ThrottlePolicy,
    pairs: Aging<(Arc<str>, IpAddr), Pair>,
    /// By address: when its failures so far are paid for, at one per `first`.
    addresses: Aging<IpAddr, Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Pair {
    failures: u32,
    /// The next try is not before this.
    next: Instant,
}

impl Failures {
    fn new(policy: ThrottlePolicy) -> Self {
        let (tracked, age) = (policy.tracked, policy.forget_after);
        Self { pairs: Aging::new(tracked, age), addresses: Aging::new(tracked, age), policy }
    }

    /// How long to wait and ask again; none: go on. Whoever goes on takes the turn of a failing pair, so that many
    /// connections at once do not get many guesses.
    fn turn(&mut self, user: &str, address: IpAddr, now: Instant) -> Option<Duration> {
        let address = network(address);
        let patience = now + self.policy.first * FREE_PER_ADDRESS;
        let paid = self.addresses.get(&address, now).copied();
        let wait = paid.map_or(Duration::ZERO, |paid| paid.saturating_duration_since(patience));
        let Some(pair) = self.pairs.get_mut(&(folded(user), address), now) else {
            return (!wait.is_zero()).then_some(wait);
        };
        let wait = wait.max(pair.next.saturating_duration_since(now));
        if !wait.is_zero() {
            return Some(wait);
        }
        pair.next = now + delay(&self.policy, pair.failures);
        None
    }

    fn failed(&mut self, user: &str, address: IpAddr, now: Instant) -> Duration {
        let address = network(address);
        let key = (folded(user), address);
        let before = self.pairs.get(&key, now).map_or(0, |pair| pair.failures);
        let failures = before.saturating_add(1);
        let wait = delay(&self.policy, failures);
        self.pairs.put(key, Pair { failures, next: now + wait }, now);
        // Never so far ahead that an address waits longer than the longest delay.
        let limit = now + self.policy.first * FREE_PER_ADDRESS + self.policy.max;
        let paid = self.addresses.get(&address, now).copied().unwrap_or(now).max(now) + self.policy.first;
        self.addresses.put(address, paid.min(limit), now);
        wait
    }

    fn succeeded(&mut self, user: &str, address: IpAddr) {
        self.pairs.remove(&(folded(user), network(address)));
    }
}

/// The delay after so many failures.
fn delay(policy: &ThrottlePolicy, failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(31);
    policy.first.saturating_mul(1 << doublings).min(policy.max)
}

/// Who counts as one address: an IPv6 client usually has a whole /64 to choose from.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

    fn policy() -> ThrottlePolicy {
        ThrottlePolicy { first: ms(250), max: ms(8_000), forget_after: ms(600_000), tracked: 100 }
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn each_failure_doubles_the_delay_up_to_the_longest() {
        let (mut failures, mut now) = (Failures::new(policy()), Instant::now());
        for expected in [250, 500, 1_000, 2_000, 4_000, 8_000, 8_000] {
            assert_eq!(failures.turn("sa", HERE, now), None);
            assert_eq!(failures.failed("sa", HERE, now), ms(expected));
            assert_eq!(failures.turn("SA", HERE, now), Some(ms(expected)), "and the next try waits as long");
            now += ms(expected);
        }
    }

    #[test]
    fn a_failure_slows_down_neither_other_names_nor_other_addresses() {
        let (mut failures, now) = (Failures::new(policy()), Instant::now());
        failures.failed("sa", HERE, now);
        assert_eq!(failures.turn("anna", HERE, now), None);
        assert_eq!(failures.turn("sa", THERE, now), None);
    }

    #[test]
    fn a_success_clears_the_pair() {
        let (mut failures, now) = (Failures::new(policy()), Instant::now());
        failures.failed("sa", HERE, now);
        failures.failed("sa", HERE, now);
        failures.succeeded("Sa", HERE);
        assert_eq!(failures.turn("sa", HERE, now), None);
        assert_eq!(failures.failed("sa", HERE, now), ms(250));
    }

    #[test]
    fn of_many_connections_at_once_one_gets_the_turn_of_a_failing_pair() {
        let (mut failures, start) = (Failures::new(policy()), Instant::now());
        failures.failed("sa", HERE, start);
        let now = start + ms(250);
        let went_on = (0..100).filter(|_| failures.turn("sa", HERE, now).is_none()).count();
        assert_eq!(went_on, 1);
        assert_eq!(failures.turn("sa", HERE, now), Some(ms(250)));
        failures.succeeded("sa", HERE);
        let went_on = (0..100).filter(|_| failures.turn("sa", HERE, now).is_none()).count();
        assert_eq!(went_on, 100, "after a success nobody waits");
    }

    #[test]
    fn an_address_that_tries_many_names_is_slowed_down_as_a_whole_after_some_patience() {
        let (mut failures, now) = (Failures::new(policy()), Instant::now());
        for number in 0..FREE_PER_ADDRESS {
            assert_eq!(failures.turn(&format!("user{number}"), HERE, now), None, "{number}");
            failures.failed(&format!("user{number}"), HERE, now);
        }
        failures.failed("one more", HERE, now);
        assert_eq!(failures.turn("anna", HERE, now), Some(ms(250)));
        assert_eq!(failures.turn("anna", HERE, now + ms(250)), None);
        assert_eq!(failures.turn("anna", THERE, now), None);
        for number in 0..10_000 {
            failures.failed(&format!("user{number}"), HERE, now);
        }
        assert_eq!(failures.turn("anna", HERE, now), Some(ms(8_000)), "never longer than the longest delay");
    }

    #[test]
    fn one_client_with_an_old_password_does_not_slow_down_its_whole_load_balancer() {
        let (mut failures, mut now) = (Failures::new(policy()), Instant::now());
        for _ in 0..1_000 {
            while let Some(wait) = failures.turn("old", HERE, now) {
                now += wait;
            }
            failures.failed("old", HERE, now);
            assert_eq!(failures.turn("anna", HERE, now), None);
        }
    }

    #[test]
    fn failures_are_forgotten_after_a_quiet_while() {
        let (mut failures, now) = (Failures::new(policy()), Instant::now());
        for _ in 0..10 {
            failures.failed("sa", HERE, now);
        }
        assert_eq!(failures.failed("sa", HERE, now + ms(600_000)), ms(250));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut failures, now) = (Failures::new(policy()), Instant::now());
        for number in 0..1_000_u32 {
            failures.failed(&number.to_string(), IpAddr::V4(number.into()), now);
        }
        assert_eq!((failures.pairs.len(), failures.addresses.len()), (100, 100));
    }

    #[test]
    fn a_whole_ipv6_network_counts_as_one_address_and_a_mapped_one_as_its_ipv4() {
        let address = |text: &str| network(text.parse().unwrap());
        assert_eq!(address("2001:db8:1:2:3:4:5:6"), address("2001:db8:1:2::1"));
        assert_ne!(address("2001:db8:1:2::1"), address("2001:db8:1:3::1"));
        assert_eq!(address("::ffff:10.0.0.1"), HERE);
    }

    #[test]
    fn a_delay_of_zero_slows_nobody_down() {
        let mut failures = Failures::new(ThrottlePolicy { first: ms(0), max: ms(0), ..policy() });
        let now = Instant::now();
        for _ in 0..1_000 {
            assert_eq!(failures.failed("sa", HERE, now), ms(0));
            assert_eq!(failures.turn("sa", HERE, now), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_waits_as_long_as_the_failures_ask_for() {
        let throttle = Throttle::new(policy());
        let start = Instant::now();
        assert!(!throttle.turn("sa", HERE).await);
        assert_eq!(start.elapsed(), ms(0));
        assert_eq!(throttle.failed("sa", HERE), ms(250));
        assert_eq!(throttle.failed("sa", HERE), ms(500));
        assert!(throttle.turn("sa", HERE).await);
        assert!(start.elapsed() >= ms(500) && start.elapsed() < ms(510), "{:?}", start.elapsed());
        throttle.succeeded("sa", HERE);
        assert!(!throttle.turn("sa", HERE).await);
        assert!(start.elapsed() < ms(510));
    }
}
