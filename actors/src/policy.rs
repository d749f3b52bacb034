//! How often an actor may crash before its supervisor gives up: every number, each with its reason.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// At most `restarts` restarts within `window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RestartPolicy {
    pub(crate) restarts: usize,
    pub(crate) window: Duration,
}

/// The root's children: repeated crashes there mean that the process is broken. It drains and exits, and
/// Kubernetes starts a new one.
pub(crate) const ROOT: RestartPolicy = RestartPolicy { restarts: 5, window: Duration::from_secs(60) };

/// A bucket: a crash loses its idle connections and nothing else, so it may crash a few times; then the bucket
/// answers "unavailable" for [`BUCKET_REST`] so that a storm of clients does not drive a storm of crashes.
pub(crate) const BUCKET: RestartPolicy = RestartPolicy { restarts: 5, window: Duration::from_secs(30) };

/// How long a bucket that crashed too often rests.
pub(crate) const BUCKET_REST: Duration = Duration::from_secs(30);

/// A session: three crashes can be three unlucky requests; the fourth within ten seconds is a client that
/// makes us crash, and it is told a fatal error.
pub(crate) const SESSION: RestartPolicy = RestartPolicy { restarts: 3, window: Duration::from_secs(10) };

/// The listener's children (shards and acceptors): as the root's.
pub(crate) const LISTENER: RestartPolicy = RestartPolicy { restarts: 5, window: Duration::from_secs(60) };

/// What never escalates (coordinator, admin, reload) waits this long before each restart.
pub(crate) const BACK_OFF: BackOff =
    BackOff { first: Duration::from_millis(100), most: Duration::from_secs(10) };

/// A delay that doubles.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BackOff {
    pub(crate) first: Duration,
    pub(crate) most: Duration,
}

impl BackOff {
    /// The delay before attempt number `attempt` (0 is the first).
    pub(crate) fn delay(self, attempt: u32) -> Duration {
        self.first.saturating_mul(2u32.saturating_pow(attempt.min(20))).min(self.most)
    }
}

/// Statements that a session may have prepared: a program that prepares more has lost count of them.
pub(crate) const STATEMENTS: usize = 10_000;

/// Bytes of memory that their texts may take: with the other bounds, a session stays small beside its server connection.
pub(crate) const STATEMENT_BYTES: usize = 16 << 20;

/// Prepared statements that a server connection may have before it is reset: each costs the server memory.
pub(crate) const REAL_HANDLES: usize = 1000;

/// When the last crashes were.
#[derive(Debug, Default)]
pub(crate) struct CrashLog(VecDeque<Instant>);

impl CrashLog {
    /// Notes a crash. True if a restart is still allowed.
    pub(crate) fn crashed(&mut self, now: Instant, policy: RestartPolicy) -> bool {
        while self.0.front().is_some_and(|first| now.saturating_duration_since(*first) >= policy.window) {
            self.0.pop_front();
        }
        self.0.push_back(now);
        self.0.len() <= policy.restarts
    }

    /// Starts anew.
    pub(crate) fn forget(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fourth_crash_of_a_session_within_ten_seconds_is_the_last() {
        let start = Instant::now();
        let mut log = CrashLog::default();
        for second in 0..3 {
            assert!(log.crashed(start + Duration::from_secs(second), SESSION));
        }
        assert!(!log.crashed(start + Duration::from_secs(9), SESSION));
    }

    #[test]
    fn crashes_outside_the_window_are_forgotten() {
        let start = Instant::now();
        let mut log = CrashLog::default();
        for second in 0..100 {
            assert!(log.crashed(start + Duration::from_secs(second * 4), SESSION));
        }
    }

    #[test]
    fn a_back_off_doubles_up_to_its_most() {
        let delays: Vec<u128> =
            [0, 1, 2, 6, 7, 1000].iter().map(|n| BACK_OFF.delay(*n).as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 6400, 10_000, 10_000]);
    }
}
