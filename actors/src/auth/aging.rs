//! A map that is bounded twice: an entry counts for so long, and when there are too many, the oldest goes.

use std::borrow::Borrow;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;
use tokio::time::Instant;

/// Entries with their time stamps. Putting an entry again makes it the youngest. Every call is O(1), amortized.
#[derive(Debug)]
pub(super) struct Aging<K, V> {
    entries: HashMap<K, Stamped<V>>,
    /// Keys in the order of their stamps. A key that was put again or removed leaves its former place behind,
    /// known by a serial that its entry no longer has.
    order: VecDeque<(u64, K)>,
    serial: u64,
    limit: usize,
    age: Duration,
}

#[derive(Debug)]
struct Stamped<V> {
    serial: u64,
    at: Instant,
    value: V,
}

impl<K: Hash + Eq + Clone, V> Aging<K, V> {
    /// At most `limit` entries, each for `age`. A limit or an age of zero keeps nothing.
    pub(super) fn new(limit: usize, age: Duration) -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), serial: 0, limit, age }
    }

    /// The entry, unless it is too old.
    pub(super) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q, now: Instant) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let entry = self.entries.get(key)?;
        (now.saturating_duration_since(entry.at) < self.age).then_some(&entry.value)
    }

    /// The entry, unless it is too old; its stamp stays.
    pub(super) fn get_mut<Q: Hash + Eq + ?Sized>(&mut self, key: &Q, now: Instant) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let entry = self.entries.get_mut(key)?;
        (now.saturating_duration_since(entry.at) < self.age).then_some(&mut entry.value)
    }

    /// Puts an entry in the place of any former one, stamped `now`.
    pub(super) fn put(&mut self, key: K, value: V, now: Instant) {
        self.serial += 1;
        self.order.push_back((self.serial, key.clone()));
        self.entries.insert(key, Stamped { serial: self.serial, at: now, value });
        self.let_go(now);
    }

    /// Takes an entry out.
    pub(super) fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        self.entries.remove(key);
        self.compact();
    }

    /// How many entries are held, those included that are too old and not yet let go.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn let_go(&mut self, now: Instant) {
        while let Some((serial, key)) = self.order.pop_front() {
            let Some(entry) = self.entries.get(&key).filter(|entry| entry.serial == serial) else { continue };
            let old = now.saturating_duration_since(entry.at) >= self.age;
            if !old && self.entries.len() <= self.limit {
                self.order.push_front((serial, key));
                break;
            }
            self.entries.remove(&key);
        }
        self.compact();
    }

    /// Left-behind places never outnumber the entries by much.
    fn compact(&mut self) {
        if self.order.len() > 2 * self.entries.len() + 16 {
            let entries = &self.entries;
            self.order.retain(|(serial, key)| entries.get(key).is_some_and(|entry| entry.serial == *serial));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_secs(10);

    #[test]
    fn an_entry_counts_until_its_age_and_no_longer() {
        let (mut map, start) = (Aging::new(10, AGE), Instant::now());
        map.put("a", 1, start);
        assert_eq!(map.get("a", start + AGE - Duration::from_nanos(1)), Some(&1));
        assert_eq!(map.get("a", start + AGE), None);
        map.put("b", 2, start + AGE);
        assert_eq!(map.len(), 1, "what is too old is let go when something comes");
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let (mut map, now) = (Aging::new(2, AGE), Instant::now());
        for (key, value) in [("a", 1), ("b", 2), ("a", 3), ("c", 4)] {
            map.put(key, value, now);
        }
        assert_eq!((map.get("a", now), map.get("b", now), map.get("c", now)), (Some(&3), None, Some(&4)));
    }

    #[test]
    fn putting_and_removing_for_ever_holds_no_memory() {
        let (mut map, now) = (Aging::new(100, AGE), Instant::now());
        for round in 0..10_000_u32 {
            map.put(round % 7, round, now);
            map.remove(&(round % 3));
            assert!(map.len() <= 7 && map.order.len() <= 2 * 7 + 17);
        }
        for round in 0..10_000_u32 {
            map.put(round, round, now);
            assert!(map.len() <= 100 && map.order.len() <= 2 * 100 + 17);
        }
    }

    #[test]
    fn a_bound_of_zero_keeps_nothing() {
        let now = Instant::now();
        for (limit, age) in [(0, AGE), (5, Duration::ZERO)] {
            let mut map = Aging::new(limit, age);
            map.put("a", 1, now);
            assert_eq!((map.get("a", now), map.len()), (None, 0));
        }
    }
}
