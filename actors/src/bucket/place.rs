//! Where a server connection rests between two requests of the session that used it last: the session takes it up again
//! without asking, and the bucket takes it away as soon as anybody else needs it.
//!
//! ```text
//!            rest                    take
//! lease ───────────────▶ resting ───────────────▶ the bucket's idle connections
//!   ▲                       │
//!   └───────────────────────┘
//!            resume
//! ```
//!
//! A lease is asked for and comes home by messages; a session that goes on with the connection that nobody else wanted
//! meanwhile needs none.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// What of a bucket's resting connections both sides know. `K` is the key of a sub-pool, `C` a connection.
#[derive(Debug)]
pub(crate) struct Resting<K, C> {
    /// Nobody waits, and nothing speaks against letting connections rest.
    allowed: AtomicBool,
    count: AtomicUsize,
    /// Places at which something has come to rest and of which the bucket does not know yet.
    listed: Mutex<Vec<Arc<Place<K, C>>>>,
}

impl<K, C> Default for Resting<K, C> {
    fn default() -> Self {
        Self { allowed: AtomicBool::new(false), count: AtomicUsize::new(0), listed: Mutex::default() }
    }
}

/// One lease's place. Both the session and the bucket have it.
#[derive(Debug)]
pub(crate) struct Place<K, C> {
    key: K,
    all: Arc<Resting<K, C>>,
    state: Mutex<State<C>>,
}

#[derive(Debug)]
struct State<C> {
    rests: Option<(C, Instant)>,
    /// The bucket knows, or will as soon as it looks.
    listed: bool,
    /// Nothing rests here any more.
    closed: bool,
}

impl<K, C> Resting<K, C> {
    /// A place for a connection that is being lent.
    pub(crate) fn place(self: &Arc<Self>, key: K) -> Arc<Place<K, C>> {
        let state = State { rests: None, listed: false, closed: false };
        Arc::new(Place { key, all: Arc::clone(self), state: Mutex::new(state) })
    }

    /// How many connections rest.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// From now on connections may rest, or may not. True if that is news. What came to rest before it was forbidden is in
    /// [`Self::listed`] or was there before.
    pub(crate) fn allow(&self, allowed: bool) -> bool {
        if self.allowed.load(Ordering::Relaxed) == allowed {
            return false;
        }
        self.allowed.store(allowed, Ordering::SeqCst);
        // Whoever puts something to rest looks here afterwards, and we look there: one of both sees the other.
        fence(Ordering::SeqCst);
        true
    }

    /// Places that are new since the last look.
    fn listed(&self) -> Vec<Arc<Place<K, C>>> {
        std::mem::take(&mut *lock(&self.listed))
    }
}

/// The places that a bucket knows, those listed first in front. Some are empty: their sessions work.
#[derive(Debug)]
pub(crate) struct Places<K, C> {
    all: Arc<Resting<K, C>>,
    of: HashMap<K, VecDeque<Arc<Place<K, C>>>>,
}

/// How many places are looked at for the nearest connection.
const LOOK: usize = 16;

impl<K: Clone + Eq + Hash, C> Places<K, C> {
    pub(crate) fn new(all: Arc<Resting<K, C>>) -> Self {
        Self { all, of: HashMap::new() }
    }

    /// Takes a connection of this sub-pool that rests, and since when: of the first few the one of least `distance`.
    pub(crate) fn take(&mut self, key: &K, distance: impl Fn(&C) -> u8) -> Option<(C, Instant)> {
        if self.all.count() == 0 {
            return None;
        }
        self.hear();
        let places = self.of.get_mut(key)?;
        loop {
            let mut best: Option<(u8, usize)> = None;
            let (mut at, mut seen) = (0, 0);
            while at < places.len() && seen < LOOK && best.is_none_or(|(least, _)| least > 0) {
                match places[at].look(&distance) {
                    Some(distance) => {
                        if best.is_none_or(|(least, _)| distance < least) {
                            best = Some((distance, at));
                        }
                        (at, seen) = (at + 1, seen + 1);
                    }
                    None => drop(places.remove(at)),
                }
            }
            let place = places.remove(best?.1)?;
            // Its session may have taken it up in this moment.
            if let Some(taken) = place.take() {
                return Some(taken);
            }
        }
    }

    /// Takes all connections that rest since `before` or longer.
    pub(crate) fn take_since(&mut self, before: Instant) -> Vec<(C, Instant)> {
        self.hear();
        let mut taken = Vec::new();
        self.of.retain(|_, places| {
            places.retain(|place| match place.since() {
                Some(since) if since > before => true,
                _ => {
                    taken.extend(place.take());
                    false
                }
            });
            !places.is_empty()
        });
        taken
    }

    fn hear(&mut self) {
        for place in self.all.listed() {
            self.of.entry(place.key.clone()).or_default().push_back(place);
        }
    }
}

impl<K, C> Place<K, C> {
    /// Lets the connection rest. It comes back if the bucket wants it now.
    pub(crate) fn rest(self: &Arc<Self>, conn: C, now: Instant) -> Result<(), C> {
        if !self.all.allowed.load(Ordering::Relaxed) {
            return Err(conn);
        }
        let news = {
            let mut state = lock(&self.state);
            if state.closed {
                return Err(conn);
            }
            state.rests = Some((conn, now));
            self.all.count.fetch_add(1, Ordering::Relaxed);
            !std::mem::replace(&mut state.listed, true)
        };
        if news {
            lock(&self.all.listed).push(Arc::clone(self));
        }
        fence(Ordering::SeqCst);
        if !self.all.allowed.load(Ordering::SeqCst)
            && let Some(conn) = self.resume()
        {
            return Err(conn);
        }
        Ok(())
    }

    /// Takes the connection up again, if it still rests here.
    pub(crate) fn resume(&self) -> Option<C> {
        let (conn, _) = lock(&self.state).rests.take()?;
        self.all.count.fetch_sub(1, Ordering::Relaxed);
        Some(conn)
    }

    /// The bucket takes away what rests here, and since when, and the place with it. `None`: nothing rests here now, and
    /// the place is listed again when something does.
    fn take(&self) -> Option<(C, Instant)> {
        let mut state = lock(&self.state);
        state.listed = false;
        let taken = state.rests.take()?;
        state.closed = true;
        self.all.count.fetch_sub(1, Ordering::Relaxed);
        Some(taken)
    }

    /// How near the connection is that rests here. `None`: none does, and the place is listed again when one does.
    fn look(&self, distance: impl Fn(&C) -> u8) -> Option<u8> {
        let mut state = lock(&self.state);
        let found = state.rests.as_ref().map(|(conn, _)| distance(conn));
        state.listed = found.is_some();
        found
    }

    /// Since when something rests here.
    pub(crate) fn since(&self) -> Option<Instant> {
        lock(&self.state).rests.as_ref().map(|(_, since)| *since)
    }

    /// Nothing rests here from now on.
    pub(crate) fn close(&self) -> Option<C> {
        let mut state = lock(&self.state);
        state.closed = true;
        let (conn, _) = state.rests.take()?;
        self.all.count.fetch_sub(1, Ordering::Relaxed);
        Some(conn)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    type TestResting = Resting<&'static str, u32>;

    fn resting() -> Arc<TestResting> {
        let resting = Arc::new(Resting::default());
        resting.allow(true);
        resting
    }

    fn take(places: &mut Places<&'static str, u32>, key: &'static str) -> Option<u32> {
        places.take(&key, |_| 0).map(|(conn, _)| conn)
    }

    #[test]
    fn a_session_takes_up_what_it_let_rest() {
        let all = resting();
        let place = all.place("a");
        assert_eq!(place.rest(7, Instant::now()), Ok(()));
        assert_eq!(all.count(), 1);
        assert_eq!((place.resume(), place.resume(), all.count()), (Some(7), None, 0));
    }

    #[test]
    fn the_bucket_takes_what_rests_and_nothing_rests_there_again() {
        let all = resting();
        let (place, since) = (all.place("a"), Instant::now());
        place.rest(7, since).unwrap();
        let mut places = Places::new(Arc::clone(&all));
        assert_eq!(take(&mut places, "b"), None);
        assert_eq!(take(&mut places, "a"), Some(7));
        assert_eq!((place.resume(), all.count()), (None, 0));
        assert_eq!(place.rest(7, since), Err(7));
    }

    #[test]
    fn of_those_that_rest_the_nearest_is_taken_then_the_one_listed_first() {
        let all = resting();
        let held: Vec<_> = [30, 10, 20].map(|conn| (all.place("a"), conn)).into();
        for (place, conn) in &held {
            place.rest(*conn, Instant::now()).unwrap();
        }
        let mut places = Places::new(all);
        let distance = |conn: &u32| u8::from(*conn != 20);
        let taken: Vec<u32> =
            std::iter::from_fn(|| places.take(&"a", distance)).map(|(conn, _)| conn).collect();
        assert_eq!(taken, [20, 30, 10]);
    }

    #[test]
    fn a_place_whose_session_works_is_found_again_when_it_rests() {
        let all = resting();
        let (busy, quiet) = (all.place("a"), all.place("a"));
        busy.rest(1, Instant::now()).unwrap();
        quiet.rest(2, Instant::now()).unwrap();
        assert_eq!(busy.resume(), Some(1));
        let mut places = Places::new(all);
        assert_eq!(take(&mut places, "a"), Some(2));
        busy.rest(1, Instant::now()).unwrap();
        assert_eq!(take(&mut places, "a"), Some(1));
        assert_eq!(take(&mut places, "a"), None);
    }

    #[test]
    fn a_place_is_listed_once_until_it_is_found_empty() {
        let all = resting();
        let place = all.place("a");
        for _ in 0..3 {
            place.rest(7, Instant::now()).unwrap();
            place.resume().unwrap();
        }
        let listed = all.listed();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].take(), None, "its session works with it");
        place.rest(7, Instant::now()).unwrap();
        assert_eq!(all.listed().len(), 1);
    }

    #[test]
    fn what_rests_for_long_is_taken_and_the_rest_stays() {
        let all = resting();
        let (early, late) = (Instant::now(), Instant::now() + std::time::Duration::from_secs(1));
        let held = [all.place("a"), all.place("a"), all.place("b")];
        for (place, (conn, since)) in held.iter().zip([(1, early), (2, late), (3, early)]) {
            place.rest(conn, since).unwrap();
        }
        let mut places = Places::new(Arc::clone(&all));
        let mut taken: Vec<u32> = places.take_since(early).into_iter().map(|(conn, _)| conn).collect();
        taken.sort_unstable();
        assert_eq!((taken, all.count()), (vec![1, 3], 1));
        assert_eq!(held[1].resume(), Some(2));
    }

    #[test]
    fn nothing_rests_where_it_is_not_allowed_or_the_bucket_is_gone() {
        let all = Arc::new(Resting::default());
        let place = all.place("a");
        assert_eq!(place.rest(7, Instant::now()), Err(7));
        assert!(all.allow(true) && !all.allow(true));
        assert_eq!(place.rest(7, Instant::now()), Ok(()));
        assert_eq!(place.close(), Some(7));
        assert_eq!((place.rest(8, Instant::now()), all.count()), (Err(8), 0));
    }

    #[test]
    fn whoever_forbids_it_finds_all_that_rests() {
        for _ in 0..2_000 {
            let all = resting();
            let place = all.place("a");
            let session = std::thread::spawn({
                let place = Arc::clone(&place);
                move || place.rest(7, Instant::now())
            });
            all.allow(false);
            let found = all.listed().iter().filter_map(|place| place.take()).count();
            let came_back = usize::from(session.join().unwrap().is_err());
            let late = all.listed().iter().filter_map(|place| place.take()).count();
            assert_eq!((found + came_back, late), (1, 0), "one of both has it");
        }
    }
}
