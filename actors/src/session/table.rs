//! Who is connected: the client connections, held where no crash of an actor can reach them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::client_conn::{ClientConn, SessionId, Wish};

/// How many clients over the limit are let in just to be told so; more are closed without a word.
const SURPLUS: usize = 256;

/// The session table, in as many parts as there are shards.
pub(crate) struct SessionTable {
    parts: Vec<Mutex<HashMap<SessionId, Arc<ClientConn>>>>,
    next: AtomicU64,
    clients: AtomicUsize,
    max_clients: AtomicUsize,
}

/// Whether a new client may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// As one of the clients.
    Welcome,
    /// To be told that there are too many.
    Surplus,
    /// Not at all.
    Refused,
}

impl SessionTable {
    pub(crate) fn new(shards: usize, max_clients: usize) -> Self {
        Self {
            parts: (0..shards.max(1)).map(|_| Mutex::default()).collect(),
            next: AtomicU64::new(1),
            clients: AtomicUsize::new(0),
            max_clients: AtomicUsize::new(max_clients),
        }
    }

    pub(crate) fn shards(&self) -> usize {
        self.parts.len()
    }

    /// Counts a new client in, unless there are far too many.
    pub(crate) fn admit(&self) -> (SessionId, Admission) {
        let id = SessionId(self.next.fetch_add(1, Ordering::Relaxed));
        let before = self.clients.fetch_add(1, Ordering::AcqRel);
        let max_clients = self.max_clients.load(Ordering::Relaxed);
        let admission = if before < max_clients {
            Admission::Welcome
        } else if before < max_clients.saturating_add(SURPLUS) {
            Admission::Surplus
        } else {
            self.clients.fetch_sub(1, Ordering::AcqRel);
            Admission::Refused
        };
        (id, admission)
    }

    /// Another limit, for clients that come from now on.
    pub(crate) fn set_max_clients(&self, max_clients: usize) {
        self.max_clients.store(max_clients, Ordering::Relaxed);
    }

    /// Which shard supervises a session.
    pub(crate) fn shard_of(&self, id: SessionId) -> usize {
        usize::try_from(id.0).unwrap_or(0) % self.parts.len()
    }

    pub(crate) fn insert(&self, conn: Arc<ClientConn>) {
        self.part(self.shard_of(conn.id)).insert(conn.id, conn);
    }

    pub(crate) fn find(&self, id: SessionId) -> Option<Arc<ClientConn>> {
        self.part(self.shard_of(id)).get(&id).cloned()
    }

    /// The session ended for good.
    pub(crate) fn remove(&self, id: SessionId) {
        let removed = self.part(self.shard_of(id)).remove(&id);
        if removed.is_some() {
            self.clients.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// The rows of one shard: what it adopts when it is restarted.
    pub(crate) fn of_shard(&self, shard: usize) -> Vec<Arc<ClientConn>> {
        self.part(shard).values().cloned().collect()
    }

    /// Every client, for the admin view and for draining.
    pub(crate) fn all(&self) -> Vec<Arc<ClientConn>> {
        (0..self.parts.len()).flat_map(|shard| self.of_shard(shard)).collect()
    }

    /// Clients connected now.
    pub(crate) fn clients(&self) -> usize {
        self.clients.load(Ordering::Acquire)
    }

    /// Tells every session what is wanted of it.
    pub(crate) fn wish(&self, wish: Wish) {
        for conn in self.all() {
            conn.control.raise(wish);
        }
    }

    fn part(&self, shard: usize) -> std::sync::MutexGuard<'_, HashMap<SessionId, Arc<ClientConn>>> {
        self.parts[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_clients_over_the_limit_are_told_and_the_rest_is_turned_away() {
        let table = SessionTable::new(2, 3);
        let admissions: Vec<Admission> = (0..3 + SURPLUS + 1).map(|_| table.admit().1).collect();
        assert!(admissions[..3].iter().all(|a| *a == Admission::Welcome));
        assert!(admissions[3..3 + SURPLUS].iter().all(|a| *a == Admission::Surplus));
        assert_eq!(admissions[3 + SURPLUS], Admission::Refused);
        assert_eq!(table.clients(), 3 + SURPLUS);
    }
}
