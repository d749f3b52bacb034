//! How much and how long: the proxy's own bounds, whatever the buckets say.

use crate::bucket::Keepalive;
use crate::check::{Check, plain};
use crate::duration;
use crate::mirror;
use crate::size;
use std::time::Duration;

/// How much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Clients connected at any moment, logged in or not.
    pub max_clients: usize,
    /// Clients that are still logging in.
    pub max_handshakes: usize,
    /// The longest LOGIN7 message, in bytes.
    pub max_login_bytes: usize,
    /// The longest packet accepted from anybody and the largest size agreed to, in bytes.
    pub max_packet: usize,
    /// How much is read at once and passed on, in bytes, per direction of a busy session.
    pub relay_chunk: usize,
    /// Verified logins remembered for each bucket.
    pub max_cached_logins: usize,
    /// Principals and addresses whose failed logins are remembered.
    pub max_tracked_failures: usize,
    /// Password hashes computed at the same time (each takes about 19 MiB for some 20 ms).
    pub max_password_checks: usize,
}

/// How long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// From accept to the end of the client's LOGIN7 message.
    pub login: Duration,
    /// The TLS handshake's part of it.
    pub tls_handshake: Duration,
    /// The longest silence in the middle of a client's request.
    pub request: Duration,
    /// The longest that a client may leave its answer unread; none: for ever.
    pub client_write: Option<Duration>,
    /// The longest that a client may do nothing between requests; none: for ever.
    pub client_idle: Option<Duration>,
    /// The longest wait for a server's acknowledgement of an attention; then its connection is closed.
    pub attention: Duration,
    /// The longest that a shutdown waits for running requests.
    pub drain: Duration,
    /// TCP keep-alive towards clients.
    pub client_keepalive: Keepalive,
}

impl Default for Limits {
    fn default() -> Self {
        Self::from(&mirror::Limits::default())
    }
}

impl From<&mirror::Limits> for Limits {
    fn from(from: &mirror::Limits) -> Self {
        Self {
            max_clients: from.max_clients,
            max_handshakes: from.max_handshakes,
            max_login_bytes: from.max_login_bytes,
            max_packet: from.max_packet,
            relay_chunk: from.relay_chunk,
            max_cached_logins: from.max_cached_logins,
            max_tracked_failures: from.max_tracked_failures,
            max_password_checks: from.max_password_checks,
        }
    }
}

impl Limits {
    pub(crate) fn check(from: &mirror::Limits, check: &mut Check<'_>) -> Self {
        check.within("limits.max_clients", from.max_clients, 1..=10_000_000, plain);
        check.within("limits.max_handshakes", from.max_handshakes, 1..=1_000_000, plain);
        // [MS-TDS] 2.2.6.4: a LOGIN7 message is at most 128 KiB less one byte.
        check.within("limits.max_login_bytes", from.max_login_bytes, 4 << 10..=128 << 10, size::show);
        // [MS-TDS] 2.2.6.4: packet sizes from 512 to 32,767 bytes; 4096 is what clients may assume before login.
        check.within("limits.max_packet", from.max_packet, 4096..=32_767, size::show);
        check.within("limits.relay_chunk", from.relay_chunk, 4 << 10..=1 << 20, size::show);
        check.within("limits.max_cached_logins", from.max_cached_logins, 1..=10_000_000, plain);
        check.within("limits.max_tracked_failures", from.max_tracked_failures, 1..=10_000_000, plain);
        check.within("limits.max_password_checks", from.max_password_checks, 1..=256, plain);
        Self::from(from)
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self::from(&mirror::Timeouts::default())
    }
}

impl From<&mirror::Timeouts> for Timeouts {
    fn from(from: &mirror::Timeouts) -> Self {
        let keepalive = &from.client_keepalive;
        Self {
            login: from.login,
            tls_handshake: from.tls_handshake,
            request: from.request,
            client_write: from.client_write,
            client_idle: from.client_idle,
            attention: from.attention,
            drain: from.drain,
            client_keepalive: Keepalive {
                idle: keepalive.idle,
                interval: keepalive.interval,
                count: keepalive.count,
            },
        }
    }
}

impl Timeouts {
    pub(crate) fn check(from: &mirror::Timeouts, check: &mut Check<'_>) -> Self {
        let (second, hour, day) =
            (Duration::from_secs(1), Duration::from_secs(3600), Duration::from_secs(86_400));
        let mut time = |key: &str, value: Duration, low: Duration, high: Duration| {
            check.within(&format!("timeouts.{key}"), value, low..=high, duration::show);
        };
        time("login", from.login, second, hour);
        time("tls_handshake", from.tls_handshake, second, hour);
        time("request", from.request, second, day);
        if let Some(stall) = from.client_write {
            time("client_write", stall, second, 30 * day);
        }
        if let Some(idle) = from.client_idle {
            time("client_idle", idle, second, 30 * day);
        }
        time("attention", from.attention, second / 10, hour);
        time("drain", from.drain, Duration::ZERO, day);
        let timeouts = Self::from(from);
        timeouts.client_keepalive.check("timeouts.client_keepalive", check);
        timeouts
    }
}
