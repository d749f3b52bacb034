//! Who is connected, who may connect, and the numbers that tests read at the server.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use tokio::sync::Notify;

use crate::engine::{ConnectionRow, Connections};

/// Numbers since the server started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections open now, from accept to close.
    pub open: usize,
    /// The most connections that were ever open at once.
    pub peak: usize,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections logged in now.
    pub logged_in: usize,
    /// Successful logins.
    pub logins: u64,
    /// Refused logins, for whatever reason.
    pub failed_logins: u64,
    /// Connections that met the connection limit (17809).
    pub over_limit: u64,
    /// Logins for which the memory did not suffice (701).
    pub out_of_memory: u64,
    /// Bytes that the logged-in connections cost now.
    pub memory_used: u64,
    /// Requests begun: batches, RPC messages, transaction manager requests, bulk loads.
    pub requests: u64,
    /// RESETCONNECTION and RESETCONNECTIONSKIPTRAN done.
    pub resets: u64,
    /// Attentions received.
    pub attentions: u64,
    /// Requests withdrawn by the ignore bit.
    pub ignored: u64,
    /// Connections closed because their bytes made no sense.
    pub protocol_errors: u64,
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before LOGINACK.
    LoggingIn,
    /// Logged in, waiting for a request.
    Idle,
    /// Running a request.
    Running,
}

/// One open connection, as seen from outside.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// `@@SPID`; 0 before the login.
    pub spid: u16,
    /// The other end.
    pub peer: SocketAddr,
    /// When it was accepted.
    pub since: Instant,
    /// What it is doing.
    pub phase: Phase,
    /// The login; empty before.
    pub user: String,
    /// The current database; empty before the login.
    pub database: String,
    /// LOGIN7's application name.
    pub application: String,
    /// Inside a transaction.
    pub in_transaction: bool,
    /// Requests begun.
    pub requests: u64,
    /// Resets done.
    pub resets: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) accepted: AtomicU64,
    pub(crate) logins: AtomicU64,
    pub(crate) failed_logins: AtomicU64,
    pub(crate) over_limit: AtomicU64,
    pub(crate) out_of_memory: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) resets: AtomicU64,
    pub(crate) attentions: AtomicU64,
    pub(crate) ignored: AtomicU64,
    pub(crate) protocol_errors: AtomicU64,
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// All open connections of one server.
#[derive(Debug)]
pub(crate) struct Registry {
    max_connections: AtomicUsize,
    memory_total: Option<u64>,
    memory_per_connection: u64,
    pub(crate) counters: Counters,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    peak: usize,
    logged_in: usize,
    memory_used: u64,
    next: u64,
    open: HashMap<u64, Arc<Entry>>,
}

/// What the registry knows of one connection.
#[derive(Debug)]
pub(crate) struct Entry {
    id: u64,
    spid: AtomicU16,
    peer: SocketAddr,
    since: Instant,
    since_date: SystemTime,
    facts: Mutex<Facts>,
    running: AtomicBool,
    pub(crate) in_transaction: AtomicBool,
    pub(crate) requests: AtomicU64,
    pub(crate) resets: AtomicU64,
    killed: AtomicBool,
    pub(crate) kill: Notify,
}

#[derive(Debug, Default)]
struct Facts {
    logged_in: bool,
    user: String,
    database: String,
    application: String,
    tds_version: u32,
    encrypted: bool,
}

/// What a login tells the registry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoginFacts<'a> {
    pub(crate) spid: u16,
    pub(crate) user: &'a str,
    pub(crate) database: &'a str,
    pub(crate) application: &'a str,
    pub(crate) tds_version: u32,
    pub(crate) encrypted: bool,
}

impl Registry {
    pub(crate) fn new(max_connections: usize, memory_total: Option<u64>, memory_per_connection: u64) -> Self {
        Self {
            max_connections: AtomicUsize::new(max_connections),
            memory_total,
            memory_per_connection,
            counters: Counters::default(),
            inner: Mutex::new(Inner { peak: 0, logged_in: 0, memory_used: 0, next: 0, open: HashMap::new() }),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn limit(&self, max_connections: usize) {
        self.max_connections.store(max_connections, Ordering::Relaxed);
    }

    /// Counts an accepted connection.
    pub(crate) fn accept(self: &Arc<Self>, peer: SocketAddr) -> Seat {
        let mut inner = self.inner();
        let id = inner.next;
        inner.next += 1;
        let entry = Arc::new(Entry {
            id,
            spid: AtomicU16::new(0),
            peer,
            since: Instant::now(),
            since_date: SystemTime::now(),
            facts: Mutex::default(),
            running: AtomicBool::new(false),
            in_transaction: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            resets: AtomicU64::new(0),
            killed: AtomicBool::new(false),
            kill: Notify::new(),
        });
        inner.open.insert(id, entry.clone());
        let open = inner.open.len();
        inner.peak = inner.peak.max(open);
        drop(inner);
        count(&self.counters.accepted);
        let over_limit = open > self.max_connections.load(Ordering::Relaxed);
        if over_limit {
            count(&self.counters.over_limit);
        }
        Seat { registry: self.clone(), entry, over_limit, memory: 0 }
    }

    pub(crate) fn stats(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let c = &self.counters;
        let inner = self.inner();
        Stats {
            open: inner.open.len(),
            peak: inner.peak,
            accepted: read(&c.accepted),
            logged_in: inner.logged_in,
            logins: read(&c.logins),
            failed_logins: read(&c.failed_logins),
            over_limit: read(&c.over_limit),
            out_of_memory: read(&c.out_of_memory),
            memory_used: inner.memory_used,
            requests: read(&c.requests),
            resets: read(&c.resets),
            attentions: read(&c.attentions),
            ignored: read(&c.ignored),
            protocol_errors: read(&c.protocol_errors),
        }
    }

    pub(crate) fn restart_peak(&self) {
        let mut inner = self.inner();
        inner.peak = inner.open.len();
    }

    pub(crate) fn connections(&self) -> Vec<ConnectionInfo> {
        let mut entries: Vec<_> = self.inner().open.values().cloned().collect();
        entries.sort_by_key(|entry| entry.id);
        entries.iter().map(|entry| entry.info()).collect()
    }

    /// Closes the connection of that session id; false if there is none.
    pub(crate) fn kill(&self, spid: u16) -> bool {
        let entry = self.inner().open.values().find(|entry| entry.spid() == spid).cloned();
        entry.inspect(|entry| entry.end()).is_some()
    }

    /// Closes every connection.
    pub(crate) fn kill_all(&self) {
        let entries: Vec<_> = self.inner().open.values().cloned().collect();
        for entry in entries {
            entry.end();
        }
    }
}

impl Entry {
    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spid(&self) -> u16 {
        self.spid.load(Ordering::Relaxed)
    }

    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Closes the connection as soon as its loop or its running request notices.
    pub(crate) fn end(&self) {
        self.killed.store(true, Ordering::Release);
        self.kill.notify_one();
    }

    /// True once somebody killed this connection.
    pub(crate) fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Acquire)
    }

    pub(crate) fn running(&self, running: bool) {
        self.running.store(running, Ordering::Relaxed);
    }

    pub(crate) fn in_database(&self, database: &str) {
        let mut facts = self.facts();
        if facts.database != database {
            database.clone_into(&mut facts.database);
        }
    }

    fn row(&self) -> ConnectionRow {
        let facts = self.facts();
        ConnectionRow {
            session_id: Some(self.spid()).filter(|&spid| spid > 0),
            connect_time: self.since_date,
            net_transport: "TCP".to_owned(),
            protocol_version: facts.tds_version,
            encrypted: facts.encrypted,
            client_net_address: self.peer.ip().to_string(),
            client_tcp_port: self.peer.port(),
        }
    }

    fn info(&self) -> ConnectionInfo {
        let facts = self.facts();
        ConnectionInfo {
            spid: self.spid(),
            peer: self.peer,
            since: self.since,
            phase: match (facts.logged_in, self.running.load(Ordering::Relaxed)) {
                (false, _) => Phase::LoggingIn,
                (true, false) => Phase::Idle,
                (true, true) => Phase::Running,
            },
            user: facts.user.clone(),
            database: facts.database.clone(),
            application: facts.application.clone(),
            in_transaction: self.in_transaction.load(Ordering::Relaxed),
            requests: self.requests.load(Ordering::Relaxed),
            resets: self.resets.load(Ordering::Relaxed),
        }
    }
}

impl Connections for Registry {
    fn list(&self) -> Vec<ConnectionRow> {
        let entries: Vec<_> = self.inner().open.values().cloned().collect();
        entries.iter().map(|entry| entry.row()).collect()
    }
}

/// One accepted connection's place; goes back when dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    registry: Arc<Registry>,
    pub(crate) entry: Arc<Entry>,
    /// There were more connections than allowed when this one came.
    pub(crate) over_limit: bool,
    memory: u64,
}

impl Seat {
    /// Takes the memory of one connection; false if it is used up.
    pub(crate) fn take_memory(&mut self) -> bool {
        let mut inner = self.registry.inner();
        let needed = self.registry.memory_per_connection;
        let fits = self.registry.memory_total.is_none_or(|total| inner.memory_used + needed <= total);
        if fits {
            inner.memory_used += needed;
            self.memory += needed;
        } else {
            count(&self.registry.counters.out_of_memory);
        }
        fits
    }

    pub(crate) fn logged_in(&self, login: LoginFacts<'_>) {
        *self.entry.facts() = Facts {
            logged_in: true,
            user: login.user.to_owned(),
            database: login.database.to_owned(),
            application: login.application.to_owned(),
            tds_version: login.tds_version,
            encrypted: login.encrypted,
        };
        self.entry.spid.store(login.spid, Ordering::Relaxed);
        self.registry.inner().logged_in += 1;
        count(&self.registry.counters.logins);
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.registry.counters
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let logged_in = self.entry.facts().logged_in;
        let mut inner = self.registry.inner();
        inner.open.remove(&self.entry.id);
        inner.memory_used -= self.memory;
        inner.logged_in -= usize::from(logged_in);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 1))
    }

    #[test]
    fn open_connections_and_their_peak_are_counted_from_accept_to_close() {
        let registry = Arc::new(Registry::new(2, None, 0));
        let first = registry.accept(peer());
        let second = registry.accept(peer());
        let third = registry.accept(peer());
        assert!(!second.over_limit && third.over_limit);
        drop(first);
        let stats = registry.stats();
        assert_eq!((stats.open, stats.peak, stats.over_limit), (2, 3, 1));
    }

    #[test]
    fn memory_comes_back_when_a_connection_closes() {
        let registry = Arc::new(Registry::new(10, Some(10), 6));
        let mut first = registry.accept(peer());
        let mut second = registry.accept(peer());
        assert!(first.take_memory());
        assert!(!second.take_memory());
        drop(first);
        assert!(second.take_memory());
        assert_eq!(registry.stats().memory_used, 6);
    }
}
