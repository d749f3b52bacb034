//! Which logins a bucket's server accepted lately, and what it answered: later ones like them need no server.

use super::aging::Aging;
use super::proof::{Principal, Proof, folded};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The verified logins of one bucket: by `K`, the key of a sub-pool (DESIGN 6.2), the answer `R` that the server
/// gave to such a login. Shared by reference; no call waits or does I/O.
///
/// A login counts from the moment the server was *asked*, not from its answer: whatever is known of the principal
/// since then, a failure or another password, is newer.
#[derive(Debug)]
pub(crate) struct VerifiedLogins<K, R>(Mutex<Inner<K, R>>);

#[derive(Debug)]
struct Inner<K, R> {
    logins: Aging<Arc<K>, Login<R>>,
    /// By name without case. A login without its principal here does not count.
    principals: Aging<Arc<str>, Known>,
}

#[derive(Debug)]
struct Login<R> {
    principal: Principal,
    asked: Instant,
    response: Arc<R>,
}

/// What is known of a principal.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// The password last accepted, and when the server was asked.
    accepted: Option<(Proof, Instant)>,
    /// When a login last failed.
    failed: Option<Instant>,
}

impl<K: Hash + Eq, R> VerifiedLogins<K, R> {
    /// Remembers at most `limit` logins, each for `ttl`; without a ttl: none.
    pub(crate) fn new(limit: usize, ttl: Option<Duration>) -> Self {
        let ttl = ttl.unwrap_or_default();
        Self(Mutex::new(Inner { logins: Aging::new(limit, ttl), principals: Aging::new(limit, ttl) }))
    }

    /// New bounds, after the configuration changed.
    pub(crate) fn set_bounds(&self, limit: usize, ttl: Option<Duration>, now: Instant) {
        let (mut inner, ttl) = (self.lock(), ttl.unwrap_or_default());
        inner.logins.set_bounds(limit, ttl, now);
        inner.principals.set_bounds(limit, ttl, now);
    }

    /// The server's answer to a login of this key, if it gave one to this principal and nothing speaks against it.
    pub(crate) fn lookup(&self, key: &K, principal: &Principal, now: Instant) -> Option<Arc<R>> {
        let inner = self.lock();
        let login = inner.logins.get(key, now)?;
        let known = inner.principals.get(&*folded(principal.user()), now)?;
        let counts = login.principal == *principal && known.vouches(principal.proof(), login.asked);
        counts.then(|| Arc::clone(&login.response))
    }

    /// Remembers that the server, asked at `asked`, accepted this login with this answer.
    pub(crate) fn remember(&self, key: K, principal: &Principal, response: Arc<R>, asked: Instant, now: Instant) {
        let mut inner = self.lock();
        let user = folded(principal.user());
        let mut known = inner.principals.get(&*user, now).copied().unwrap_or_default();
        if known.accepted.is_none_or(|(_, when)| when <= asked) {
            known.accepted = Some((principal.proof(), asked));
        }
        if !known.vouches(principal.proof(), asked) {
            return;
        }
        inner.principals.put(user, known, now);
        let login = Login { principal: principal.clone(), asked, response };
        inner.logins.put(Arc::new(key), login, asked);
    }

    /// A login of this name failed: its verified ones count no more, nor those that were asked for before `now`
    /// and are answered later.
    pub(crate) fn forget_principal(&self, user: &str, now: Instant) {
        let mut inner = self.lock();
        let user = folded(user);
        let accepted = inner.principals.get(&*user, now).and_then(|known| known.accepted);
        inner.principals.put(user, Known { accepted, failed: Some(now) }, now);
    }

    /// Forgets everything: the bucket's server is another one now.
    pub(crate) fn clear(&self) {
        let mut inner = self.lock();
        inner.logins.clear();
        inner.principals.clear();
    }

    /// How many logins are held.
    pub(crate) fn len(&self) -> usize {
        self.lock().logins.len()
    }

    fn lock(&self) -> MutexGuard<'_, Inner<K, R>> {
        // No call of ours leaves the maps half changed, and a missing entry only costs a login at the server.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Whether a login with this password, asked for at that moment, still counts.
    fn vouches(&self, proof: Proof, asked: Instant) -> bool {
        self.accepted.is_some_and(|(accepted, _)| accepted == proof)
            && self.failed.is_none_or(|failed| failed < asked)
    }
}

#[cfg(test)]
mod tests {
    use super::super::ProofKey;
    use super::*;

    const TTL: Duration = Duration::from_secs(300);
    const MOMENT: Duration = Duration::from_millis(1);

    struct Bench {
        key: ProofKey,
        logins: VerifiedLogins<(String, &'static str), &'static str>,
        now: Instant,
    }

    impl Bench {
        fn new(limit: usize) -> Self {
            let logins = VerifiedLogins::new(limit, Some(TTL));
            Self { key: ProofKey::random(), logins, now: Instant::now() }
        }

        fn accepted(&mut self, user: &str, password: &str, profile: &'static str) {
            self.accepted_when_asked_at(self.now, user, password, profile);
        }

        fn accepted_when_asked_at(&mut self, asked: Instant, user: &str, password: &str, profile: &'static str) {
            let principal = self.key.principal(user, password.as_bytes());
            self.now += MOMENT;
            self.logins.remember((user.into(), profile), &principal, Arc::new("hello"), asked, self.now);
        }

        fn failed(&mut self, user: &str) {
            self.now += MOMENT;
            self.logins.forget_principal(user, self.now);
            self.now += MOMENT;
        }

        fn known(&self, user: &str, password: &str, profile: &'static str) -> bool {
            let principal = self.key.principal(user, password.as_bytes());
            self.logins.lookup(&(user.into(), profile), &principal, self.now).is_some()
        }
    }

    #[test]
    fn only_the_same_name_password_and_profile_are_answered_from_memory() {
        let mut bench = Bench::new(100);
        bench.accepted("anna", "secret", "7.4");
        assert!(bench.known("anna", "secret", "7.4"));
        for (user, password, profile) in
            [("anna", "other", "7.4"), ("anna", "secret", "7.1"), ("ben", "secret", "7.4"), ("ANNA", "secret", "7.4")]
        {
            assert!(!bench.known(user, password, profile), "{user} {password} {profile}");
        }
    }

    #[test]
    fn a_login_is_answered_from_memory_until_its_time_is_over_however_often_it_is_used() {
        let mut bench = Bench::new(100);
        bench.accepted("anna", "secret", "7.4");
        let asked = bench.now - MOMENT;
        for _ in 0..3 {
            bench.now += TTL / 4;
            assert!(bench.known("anna", "secret", "7.4"));
        }
        bench.now = asked + TTL;
        assert!(!bench.known("anna", "secret", "7.4"));
    }

    #[test]
    fn a_failed_login_forgets_every_login_of_that_name_and_nobody_elses() {
        let mut bench = Bench::new(100);
        bench.accepted("anna", "secret", "7.4");
        bench.accepted("anna", "secret", "7.1");
        bench.accepted("ben", "secret", "7.4");
        bench.failed("ANNA");
        assert!(!bench.known("anna", "secret", "7.4") && !bench.known("anna", "secret", "7.1"));
        assert!(bench.known("ben", "secret", "7.4"));
        bench.accepted("anna", "secret", "7.4");
        assert!(bench.known("anna", "secret", "7.4"), "asked after the failure, it counts again");
        assert!(!bench.known("anna", "secret", "7.1"), "the other answer is still older than the failure");
    }

    #[test]
    fn a_success_that_was_asked_for_before_a_failure_is_not_remembered() {
        let mut bench = Bench::new(100);
        let asked = bench.now;
        bench.failed("anna");
        bench.accepted_when_asked_at(asked, "anna", "secret", "7.4");
        assert!(!bench.known("anna", "secret", "7.4"));
    }

    #[test]
    fn a_success_with_another_password_forgets_the_former_one() {
        let mut bench = Bench::new(100);
        let before = bench.now;
        bench.accepted("anna", "old", "7.4");
        bench.accepted("anna", "new", "7.1");
        assert!(!bench.known("anna", "old", "7.4"));
        assert!(bench.known("anna", "new", "7.1"));
        bench.accepted_when_asked_at(before, "anna", "old", "8.0");
        assert!(!bench.known("anna", "old", "8.0"), "a late answer to the old password changes nothing");
        assert!(bench.known("anna", "new", "7.1"));
    }

    #[test]
    fn a_key_that_two_principals_share_gives_neither_the_answer_of_the_other() {
        let (key, now) = (ProofKey::random(), Instant::now());
        let logins = VerifiedLogins::new(10, Some(TTL));
        let (anna, ben) = (key.principal("anna", b"a"), key.principal("ben", b"b"));
        logins.remember((), &anna, Arc::new("anna's"), now, now);
        assert!(logins.lookup(&(), &ben, now).is_none());
        logins.remember((), &ben, Arc::new("ben's"), now, now);
        assert!(logins.lookup(&(), &anna, now).is_none());
    }

    #[test]
    fn the_number_of_logins_is_bounded_and_the_oldest_goes() {
        let mut bench = Bench::new(3);
        for user in ["a", "b", "c", "d"] {
            bench.accepted(user, "x", "7.4");
        }
        assert_eq!(bench.logins.len(), 3);
        assert!(!bench.known("a", "x", "7.4") && bench.known("d", "x", "7.4"));
    }

    #[test]
    fn without_a_ttl_nothing_is_remembered() {
        let mut bench = Bench::new(100);
        bench.accepted("anna", "secret", "7.4");
        bench.logins.set_bounds(100, None, bench.now);
        assert!(!bench.known("anna", "secret", "7.4"));
        bench.accepted("anna", "secret", "7.4");
        assert!(!bench.known("anna", "secret", "7.4"));
        assert_eq!(bench.logins.len(), 0);
    }
}
