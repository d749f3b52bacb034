//! Which logins a bucket's server accepted lately, and what it answered: later ones like them need no server.

use super::aging::Aging;
use super::proof::{Proof, folded};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The key of a sub-pool (DESIGN 6.2), as far as this file looks into it. Equal only for the same name, letter by
/// letter, and the same proof.
pub(crate) trait LoginKey: Hash + Eq + Clone {
    /// The login name as the client wrote it.
    fn user(&self) -> &str;
    /// The proof of the password.
    fn proof(&self) -> Proof;
}

/// The verified logins of one bucket: by key of the sub-pool, the answer `R` that the server gave to such a login.
/// Shared by reference; no call waits or does I/O.
///
/// A login counts from the moment the server was *asked*, not from its answer: whatever is known of the name since
/// then, a failure or another password, is newer.
#[derive(Debug)]
pub(crate) struct VerifiedLogins<K, R>(Mutex<Logins<K, R>>);

impl<K: LoginKey, R> VerifiedLogins<K, R> {
    /// Remembers at most `limit` logins, each for `ttl`; without a ttl: none.
    pub(crate) fn new(limit: usize, ttl: Option<Duration>) -> Self {
        Self(Mutex::new(Logins::new(limit, ttl.unwrap_or_default())))
    }

    /// The server's answer to a login of this key, if it gave one lately and nothing speaks against it.
    pub(crate) fn lookup(&self, key: &K) -> Option<Arc<R>> {
        self.lock().lookup(key, Instant::now())
    }

    /// Remembers that the server accepted this login with this answer. `asked` is when connecting began.
    pub(crate) fn remember(&self, key: &K, response: Arc<R>, asked: Instant) {
        self.lock().remember(key, response, asked, Instant::now());
    }

    /// A login of this name failed: its verified ones count no more, nor those that were asked for before now and
    /// are answered later.
    pub(crate) fn forget_principal(&self, user: &str) {
        self.lock().forget_principal(user, Instant::now());
    }

    /// How many logins are held.
    pub(crate) fn len(&self) -> usize {
        self.lock().logins.len()
    }

    fn lock(&self) -> MutexGuard<'_, Logins<K, R>> {
        // No call of ours leaves the maps half changed, and a missing entry only costs a login at the server.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same, pure: time is an argument.
#[derive(Debug)]
struct Logins<K, R> {
    logins: Aging<Arc<K>, Login<R>>,
    /// By name without case. A login without its name here does not count.
    names: Aging<Arc<str>, Known>,
}

#[derive(Debug)]
struct Login<R> {
    asked: Instant,
    response: Arc<R>,
}

/// What is known of a name.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// The password last accepted, and when the server was asked.
    accepted: Option<(Proof, Instant)>,
    /// When a login last failed.
    failed: Option<Instant>,
}

impl<K: LoginKey, R> Logins<K, R> {
    fn new(limit: usize, ttl: Duration) -> Self {
        Self { logins: Aging::new(limit, ttl), names: Aging::new(limit, ttl) }
    }

    fn lookup(&self, key: &K, now: Instant) -> Option<Arc<R>> {
        let login = self.logins.get(key, now)?;
        let known = self.names.get(&*folded(key.user()), now)?;
        known.vouches(key.proof(), login.asked).then(|| Arc::clone(&login.response))
    }

    fn remember(&mut self, key: &K, response: Arc<R>, asked: Instant, now: Instant) {
        let user = folded(key.user());
        let mut known = self.names.get(&*user, now).copied().unwrap_or_default();
        if known.accepted.is_none_or(|(_, when)| when <= asked) {
            known.accepted = Some((key.proof(), asked));
        }
        if known.vouches(key.proof(), asked) {
            self.names.put(user, known, now);
            self.logins.put(Arc::new(key.clone()), Login { asked, response }, asked);
        }
    }

    fn forget_principal(&mut self, user: &str, now: Instant) {
        let user = folded(user);
        let accepted = self.names.get(&*user, now).and_then(|known| known.accepted);
        self.names.put(user, Known { accepted, failed: Some(now) }, now);
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

    #[derive(Debug, Clone, PartialEq, Eq, Hash)]
    struct Key {
        user: String,
        proof: Proof,
        profile: &'static str,
    }

    impl LoginKey for Key {
        fn user(&self) -> &str {
            &self.user
        }

        fn proof(&self) -> Proof {
            self.proof
        }
    }

    struct Bench {
        key: ProofKey,
        logins: Logins<Key, &'static str>,
        now: Instant,
    }

    impl Bench {
        fn new(limit: usize) -> Self {
            Self { key: ProofKey::random(), logins: Logins::new(limit, TTL), now: Instant::now() }
        }

        fn key(&self, user: &str, password: &str, profile: &'static str) -> Key {
            Key { user: user.into(), proof: self.key.proof(user, password.as_bytes()), profile }
        }

        fn accepted(&mut self, user: &str, password: &str, profile: &'static str) {
            self.accepted_when_asked_at(self.now, user, password, profile);
        }

        fn accepted_when_asked_at(
            &mut self,
            asked: Instant,
            user: &str,
            password: &str,
            profile: &'static str,
        ) {
            self.now += MOMENT;
            let key = self.key(user, password, profile);
            self.logins.remember(&key, Arc::new("hello"), asked, self.now);
        }

        fn failed(&mut self, user: &str) {
            self.now += MOMENT;
            self.logins.forget_principal(user, self.now);
            self.now += MOMENT;
        }

        fn known(&self, user: &str, password: &str, profile: &'static str) -> bool {
            self.logins.lookup(&self.key(user, password, profile), self.now).is_some()
        }
    }

    #[test]
    fn only_the_same_name_password_and_profile_are_answered_from_memory() {
        let mut bench = Bench::new(100);
        bench.accepted("anna", "secret", "7.4");
        assert!(bench.known("anna", "secret", "7.4"));
        for (user, password, profile) in [
            ("anna", "other", "7.4"),
            ("anna", "secret", "7.1"),
            ("ben", "secret", "7.4"),
            ("ANNA", "secret", "7.4"),
        ] {
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
    fn the_number_of_logins_is_bounded_and_the_oldest_goes() {
        let mut bench = Bench::new(3);
        for user in ["a", "b", "c", "d"] {
            bench.accepted(user, "x", "7.4");
        }
        assert_eq!(bench.logins.logins.len(), 3);
        assert!(!bench.known("a", "x", "7.4") && bench.known("d", "x", "7.4"));
    }

    #[test]
    fn what_is_shared_answers_as_what_is_pure_and_without_a_ttl_remembers_nothing() {
        let (bench, logins) = (Bench::new(0), VerifiedLogins::new(10, Some(TTL)));
        let key = bench.key("anna", "secret", "7.4");
        logins.remember(&key, Arc::new("hello"), Instant::now());
        assert_eq!(logins.lookup(&key).as_deref(), Some(&"hello"));
        logins.forget_principal("Anna");
        assert_eq!((logins.lookup(&key), logins.len()), (None, 1));
        let without_a_ttl = VerifiedLogins::new(10, None);
        without_a_ttl.remember(&key, Arc::new("hello"), Instant::now());
        assert_eq!((without_a_ttl.lookup(&key), without_a_ttl.len()), (None, 0));
    }
}
