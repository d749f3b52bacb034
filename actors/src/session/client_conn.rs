//! A client's connection: what must survive a crash of the session that serves it.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Poll;
use std::time::Duration;

use atomic_waker::AtomicWaker;
use tds::Dialect;
use tds::exchange::Exchange;
use tdsbouncer_config::Listener;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::pooled::state::PooledState;
use super::verdict::{Phase, Verdict, verdict};
use crate::bucket::key::LoginTemplate;
use crate::bucket::{BucketClient, BucketHandle};
use crate::policy::{self, CrashLog};
use crate::telemetry::{RequestClock, Telemetry, Traced};
use crate::wire::{Link, Socket};

/// Counts sessions of this process, for logs and the admin view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SessionId(pub(crate) u64);

impl std::fmt::Display for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "c{}", self.0)
    }
}

/// One client connection, from accept to close. The session table holds it as well as the session, so a panic
/// in the session leaves the socket open.
pub(crate) struct ClientConn {
    pub(crate) id: SessionId,
    pub(crate) peer: SocketAddr,
    pub(crate) listener: Arc<Listener>,
    pub(crate) accepted: Instant,
    /// The bytes. Locked by the one session that serves this client; a crash unlocks it.
    pub(crate) io: Arc<tokio::sync::Mutex<ClientIo>>,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) control: Control,
    /// Once the login response is on its way.
    pub(crate) login: OnceLock<LoggedIn>,
    /// A session has begun to serve it.
    pub(crate) begun: AtomicBool,
    /// Over the proxy's limit: it is let in only to be told so.
    pub(crate) surplus: bool,
    pub(crate) crashes: AtomicU32,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    /// The number of the server connection in use, 0 for none: for the admin view.
    pub(crate) server: AtomicU64,
    /// How far its request has come.
    pub(crate) clock: RequestClock,
    /// The traced request that its holds began with.
    hold_trace: Mutex<Option<Traced>>,
    /// What the session holds its server connection for, and since when: for the admin view.
    holds: Mutex<Vec<(&'static str, Instant)>>,
    crash_log: Mutex<CrashLog>,
    /// Its place among those that are still logging in.
    handshake: Mutex<Option<OwnedSemaphorePermit>>,
}

/// What a session knows once its client is logged in.
pub(crate) struct LoggedIn {
    pub(crate) bucket: BucketHandle,
    pub(crate) template: Arc<LoginTemplate>,
    pub(crate) user: String,
    pub(crate) encryption: &'static str,
    /// The database that the login opened.
    pub(crate) home: String,
    /// What the login fixed about the format of requests and responses.
    pub(crate) dialect: Dialect,
    /// The packet size that was agreed on, in bytes.
    pub(crate) packet_size: usize,
    /// Counts it among the bucket's clients, as long as it is connected.
    pub(crate) _place: BucketClient,
}

/// The client's bytes: socket, TLS, what was read and not consumed, what was not yet written, and where in a
/// message both directions stand.
pub(crate) struct ClientIo {
    pub(crate) link: Link,
    /// Follows the client's messages over restarts: a new session must know whether it owes the rest of one.
    pub(crate) exchange: Option<Exchange>,
    /// The session apart from its server connection, in transaction pooling.
    pub(crate) pooled: Option<Box<PooledState>>,
}

/// Where the session stands, for [`verdict`]: written before each step.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    phase: AtomicU8,
    held: AtomicBool,
    born: Instant,
    /// When the phase was entered, in milliseconds since `born`.
    entered: AtomicU64,
}

impl Default for Checkpoint {
    fn default() -> Self {
        let phase = AtomicU8::new(Phase::Handshaking as u8);
        Self { phase, held: AtomicBool::new(false), born: Instant::now(), entered: AtomicU64::new(0) }
    }
}

impl Checkpoint {
    pub(crate) fn phase(&self) -> Phase {
        Phase::from_u8(self.phase.load(Ordering::Acquire))
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
        let entered = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.entered.store(entered, Ordering::Relaxed);
    }

    /// The phase, and for how long.
    pub(crate) fn since(&self, now: Instant) -> (Phase, Duration) {
        let entered = self.born + Duration::from_millis(self.entered.load(Ordering::Relaxed));
        (self.phase(), now.saturating_duration_since(entered))
    }

    /// The server connection now carries state of the session (or, `false`, there is none any more).
    pub(crate) fn hold(&self, held: bool) {
        self.held.store(held, Ordering::Release);
    }

    pub(crate) fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }
}

/// What others want of a session. It looks whenever it waits for its client: one task at a time.
#[derive(Debug, Default)]
pub(crate) struct Control {
    wish: AtomicU8,
    raised: AtomicWaker,
}

/// What is wanted of a session, in rising order of urgency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wish {
    /// Go on.
    None = 0,
    /// End at the next moment at which nothing is under way.
    Drain = 1,
    /// End now.
    End = 2,
}

impl Control {
    pub(crate) fn raise(&self, wish: Wish) {
        self.wish.fetch_max(wish as u8, Ordering::AcqRel);
        self.raised.wake();
    }

    pub(crate) fn wish(&self) -> Wish {
        match self.wish.load(Ordering::Acquire) {
            0 => Wish::None,
            1 => Wish::Drain,
            _ => Wish::End,
        }
    }

    /// Returns once at least `wish` is wanted. Cancel safe.
    pub(crate) async fn wanted(&self, wish: Wish) {
        poll_fn(|cx| {
            // Before the look: what is raised after it wakes.
            self.raised.register(cx.waker());
            if self.wish() >= wish { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl ClientConn {
    pub(crate) fn new(
        id: SessionId,
        socket: Socket,
        peer: SocketAddr,
        listener: Arc<Listener>,
        handshake: Option<OwnedSemaphorePermit>,
        surplus: bool,
    ) -> Arc<Self> {
        let io = ClientIo { link: Link::new(socket), exchange: None, pooled: None };
        Arc::new(Self {
            id,
            peer,
            listener,
            accepted: Instant::now(),
            io: Arc::new(tokio::sync::Mutex::new(io)),
            checkpoint: Checkpoint::default(),
            control: Control::default(),
            login: OnceLock::new(),
            begun: AtomicBool::new(false),
            surplus,
            crashes: AtomicU32::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            server: AtomicU64::new(0),
            clock: RequestClock::default(),
            hold_trace: Mutex::default(),
            holds: Mutex::default(),
            crash_log: Mutex::default(),
            handshake: Mutex::new(handshake),
        })
    }

    /// The session crashed: what becomes of its client.
    pub(crate) fn crashed(&self, now: Instant) -> Verdict {
        self.crashes.fetch_add(1, Ordering::Relaxed);
        let mut log = self.crash_log.lock().unwrap_or_else(PoisonError::into_inner);
        let allowed = log.crashed(now, policy::SESSION);
        verdict(self.checkpoint.phase(), self.checkpoint.is_held(), allowed)
    }

    /// Shows what the session holds its server connection for, and tells of each hold that has ended.
    pub(crate) fn show_holds(&self, holds: Vec<(&'static str, Instant)>, telemetry: &Telemetry) {
        let before = std::mem::replace(&mut *lock(&self.holds), holds.clone());
        let ended = before.iter().filter(|(reason, _)| !holds.iter().any(|(other, _)| other == reason));
        let traced = *lock(&self.hold_trace);
        for (reason, since) in ended {
            telemetry.hold_ended(self, reason, *since, traced);
        }
        if holds.is_empty() {
            *lock(&self.hold_trace) = None;
        }
    }

    /// The request that is under way has ended.
    pub(crate) fn request_ended(&self, telemetry: &Telemetry) {
        let Some(traced) = telemetry.request_ended(self) else { return };
        if !lock(&self.holds).is_empty() {
            lock(&self.hold_trace).get_or_insert(traced);
        }
    }

    /// What the session holds its server connection for, and since when.
    pub(crate) fn holds(&self) -> Vec<(&'static str, Instant)> {
        lock(&self.holds).clone()
    }

    /// The client is logged in: it no longer counts among the handshakes.
    pub(crate) fn logged_in(&self, login: LoggedIn) {
        drop(self.login.set(login));
        self.handshake.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
