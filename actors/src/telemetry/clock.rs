//! How far a session's request has come, and when it came there: read by whoever looks, written in a few places by the
//! session, and left as it is by a crash.

use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tds::packet::PacketType;
use tokio::time::Instant;

use super::context::TraceContext;
use crate::metrics::Outcome;

/// The moments of one request, in nanoseconds since the session began; 0: not yet.
#[derive(Debug)]
pub(crate) struct RequestClock {
    born: Instant,
    began: AtomicU64,
    asked: AtomicU64,
    leased: AtomicU64,
    /// How long the server connection took to be opened, if that was within the wait.
    connecting: AtomicU64,
    preparing: AtomicU64,
    sent: AtomicU64,
    answered: AtomicU64,
    rows: AtomicU64,
    error: AtomicI32,
    kind: AtomicU8,
    rest: Mutex<Rest>,
}

/// What few requests have.
#[derive(Debug, Default)]
struct Rest {
    refused: Option<&'static str>,
    cancelled: bool,
    context: Option<TraceContext>,
}

/// A request that has ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ended {
    pub(super) kind: PacketType,
    pub(super) began: Instant,
    pub(super) ended: Instant,
    pub(super) asked: Option<Instant>,
    pub(super) leased: Option<Instant>,
    pub(super) connecting: Option<Duration>,
    pub(super) preparing: Option<Instant>,
    pub(super) sent: Option<Instant>,
    pub(super) answered: Option<Instant>,
    pub(super) rows: u64,
    /// The number of the server's error.
    pub(super) error: Option<i32>,
    pub(super) outcome: Outcome,
    pub(super) context: Option<TraceContext>,
}

impl Default for RequestClock {
    fn default() -> Self {
        Self {
            born: Instant::now(),
            began: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            leased: AtomicU64::new(0),
            connecting: AtomicU64::new(0),
            preparing: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            error: AtomicI32::new(0),
            kind: AtomicU8::new(0),
            rest: Mutex::default(),
        }
    }
}

impl RequestClock {
    /// The first bytes of a request are there. One that is under way goes on.
    pub(crate) fn begin(&self, kind: PacketType) {
        if self.began.load(Ordering::Relaxed) == 0 {
            self.kind.store(kind.0, Ordering::Relaxed);
            self.note(&self.began);
        }
    }

    /// What the request says about the trace that it belongs to.
    pub(crate) fn belongs_to(&self, context: TraceContext) {
        self.rest().context = Some(context);
    }

    /// It waits for a server connection.
    pub(crate) fn asked(&self) {
        self.note(&self.asked);
    }

    /// It has one, which was opened at `opened`, and opening it took `connecting`.
    pub(crate) fn leased(&self, opened: Instant, connecting: Duration) {
        self.note(&self.leased);
        if self.at(&self.asked).is_some_and(|asked| opened >= asked) {
            self.connecting.store(nanos(connecting).max(1), Ordering::Relaxed);
        }
    }

    /// Something of the proxy's own goes to the server first: a reset, a replay of settings.
    pub(crate) fn preparing(&self) {
        self.note(&self.preparing);
    }

    /// Its first bytes go to the server.
    pub(crate) fn sent(&self) {
        self.note(&self.sent);
    }

    /// The first bytes of its response are there.
    pub(crate) fn answered(&self) {
        self.note(&self.answered);
    }

    /// Rows of its response.
    pub(crate) fn rows(&self, rows: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
    }

    /// The server answered with this error; the first one counts.
    pub(crate) fn error(&self, number: i32) {
        // Zero is no error's number.
        let _ = self.error.compare_exchange(0, number, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The proxy answered in the server's place, with an error of this label.
    pub(crate) fn refused(&self, label: &'static str) {
        self.rest().refused = Some(label);
    }

    /// Its client broke it off.
    pub(crate) fn cancelled(&self) {
        self.rest().cancelled = true;
    }

    /// For how long a request is under way, if one is.
    pub(crate) fn running_for(&self, now: Instant) -> Option<Duration> {
        self.at(&self.began).map(|began| now.saturating_duration_since(began))
    }

    /// The request is over; the clock stands ready for the next. None: there was none.
    pub(super) fn end(&self) -> Option<Ended> {
        let began = self.take(&self.began)?;
        let rest = std::mem::take(&mut *self.rest());
        let error = Some(self.error.swap(0, Ordering::Relaxed)).filter(|number| *number != 0);
        let outcome = match (rest.cancelled, rest.refused, error) {
            (true, _, _) => Outcome::Cancelled,
            (false, Some(label), _) => Outcome::Failed(label),
            (false, None, Some(_)) => Outcome::Failed("server"),
            (false, None, None) => Outcome::Good,
        };
        let connecting = self.connecting.swap(0, Ordering::Relaxed);
        Some(Ended {
            kind: PacketType(self.kind.load(Ordering::Relaxed)),
            began,
            ended: Instant::now(),
            asked: self.take(&self.asked),
            leased: self.take(&self.leased),
            connecting: (connecting != 0).then(|| Duration::from_nanos(connecting)),
            preparing: self.take(&self.preparing),
            sent: self.take(&self.sent),
            answered: self.take(&self.answered),
            rows: self.rows.swap(0, Ordering::Relaxed),
            error,
            outcome,
            context: rest.context,
        })
    }

    /// The first of several is the moment.
    fn note(&self, moment: &AtomicU64) {
        if moment.load(Ordering::Relaxed) == 0 {
            moment.store(nanos(self.born.elapsed()).max(1), Ordering::Relaxed);
        }
    }

    fn at(&self, moment: &AtomicU64) -> Option<Instant> {
        let nanos = moment.load(Ordering::Relaxed);
        (nanos != 0).then(|| self.born + Duration::from_nanos(nanos))
    }

    fn take(&self, moment: &AtomicU64) -> Option<Instant> {
        let at = self.at(moment);
        moment.store(0, Ordering::Relaxed);
        at
    }

    fn rest(&self) -> MutexGuard<'_, Rest> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_tells_each_request_by_itself() {
        let clock = RequestClock::default();
        assert_eq!(clock.end(), None);
        for _ in 0..2 {
            tokio::time::advance(Duration::from_secs(9)).await;
            clock.begin(PacketType::RPC);
            clock.asked();
            tokio::time::advance(Duration::from_millis(5)).await;
            clock.leased(Instant::now(), Duration::from_millis(4));
            clock.sent();
            tokio::time::advance(Duration::from_millis(20)).await;
            clock.begin(PacketType::SQL_BATCH);
            clock.answered();
            clock.rows(3);
            clock.error(547);
            clock.error(3621);
            assert_eq!(clock.running_for(Instant::now()), Some(Duration::from_millis(25)));
            let ended = clock.end().unwrap();
            assert_eq!((ended.kind, ended.rows, ended.error), (PacketType::RPC, 3, Some(547)));
            assert_eq!(ended.outcome, Outcome::Failed("server"));
            assert_eq!(ended.ended - ended.began, Duration::from_millis(25));
            assert_eq!(ended.connecting, Some(Duration::from_millis(4)));
        }
        clock.begin(PacketType::RPC);
        let ended = clock.end().unwrap();
        assert_eq!((ended.sent, ended.error, ended.outcome), (None, None, Outcome::Good));
    }
}
