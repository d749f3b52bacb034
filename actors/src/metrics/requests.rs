//! What is counted and measured of each request when it ends, and of each hold.

use super::names;
use super::{Labels, Series};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::time::Duration;
use tds::packet::PacketType;

type Times = HistogramWithExemplars<Labels>;

/// How long the parts of one request took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RequestTimes {
    /// From its first byte to the last of its response.
    pub(crate) total: Duration,
    /// Waiting for a server connection.
    pub(crate) waited: Duration,
    /// Bringing the connection to the session's settings.
    pub(crate) prepared: Duration,
    /// From the first byte sent to the server to the end of its response.
    pub(crate) server: Duration,
}

impl RequestTimes {
    /// What is left when everything that others caused is taken away.
    pub(crate) fn own(&self) -> Duration {
        self.total.saturating_sub(self.waited).saturating_sub(self.prepared).saturating_sub(self.server)
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Answered without an error.
    Good,
    /// Answered with an error: of the server's (`server`), or of the proxy's own with this label.
    Failed(&'static str),
    /// Broken off by its client.
    Cancelled,
}

impl Outcome {
    /// One word, for logs and spans.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Cancelled => "cancelled",
            Self::Failed(label) => label,
        }
    }
}

/// The series of all buckets.
#[derive(Debug, Clone)]
pub(super) struct OfRequests {
    total: Series<Times>,
    server: Series<Times>,
    own: Series<Times>,
    slow: Series<Counter>,
    failed: Series<Counter>,
    packets: Series<Counter>,
    replays: Series<Counter>,
    holds: Series<Histogram>,
}

/// One bucket's handles; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct RequestMetrics {
    bucket: Arc<str>,
    all: OfRequests,
    total: Times,
    server: Times,
    own: Times,
    slow: Counter,
    packets: Packets,
}

/// Packets relayed, of all buckets: looked up once.
#[derive(Debug, Clone)]
struct Packets {
    to_client: Counter,
    /// As [`KINDS`] has them, then all others.
    to_server: [Counter; KINDS.len() + 1],
}

/// What clients send, and what it is called.
const KINDS: [(PacketType, &str); 5] = [
    (PacketType::SQL_BATCH, "batch"),
    (PacketType::RPC, "call"),
    (PacketType::TRANSACTION_MANAGER, "transaction"),
    (PacketType::BULK_LOAD, "bulk_load"),
    (PacketType::ATTENTION, "attention"),
];

impl OfRequests {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            total: Series::traced(registry, names::REQUEST_TIME),
            server: Series::traced(registry, names::SERVER_TIME),
            own: Series::fine(registry, names::OWN_TIME),
            slow: Series::counter(registry, names::SLOW_REQUESTS),
            failed: Series::counter(registry, names::FAILED_REQUESTS),
            packets: Series::counter(registry, names::PACKETS),
            replays: Series::counter(registry, names::REPLAYS),
            holds: Series::times(registry, names::HOLD_TIME),
        }
    }

    /// A bucket's handles; what can be zero is seen as zero.
    pub(super) fn of(&self, bucket: &str) -> RequestMetrics {
        for ok in [true, false] {
            self.replays.with(&[bucket, super::result(ok)]);
        }
        RequestMetrics {
            bucket: bucket.into(),
            all: self.clone(),
            total: self.total.with(&[bucket]),
            server: self.server.with(&[bucket]),
            own: self.own.with(&[bucket]),
            slow: self.slow.with(&[bucket]),
            packets: Packets {
                to_client: self.packets.with(&["to_client", "response"]),
                to_server: std::array::from_fn(|at| {
                    let kind = KINDS.get(at).map_or("other", |(_, name)| *name);
                    self.packets.with(&["to_server", kind])
                }),
            },
        }
    }
}

impl RequestMetrics {
    /// A request ended; `trace` is its trace's id, if it was traced.
    pub(crate) fn ended(&self, times: &RequestTimes, outcome: Outcome, slow: bool, trace: Option<&str>) {
        let exemplar = || trace.map(|id| -> Labels { vec![("trace_id", Arc::from(id))] });
        self.total.observe(times.total.as_secs_f64(), exemplar(), None);
        self.own.observe(times.own().as_secs_f64(), exemplar(), None);
        if times.server > Duration::ZERO {
            self.server.observe(times.server.as_secs_f64(), exemplar(), None);
        }
        if slow {
            self.slow.inc();
        }
        if let Outcome::Failed(kind) = outcome {
            self.all.failed.with(&[&self.bucket, kind]).inc();
        }
    }

    /// Requests that took longer than what counts as slow.
    pub(crate) fn slow(&self) -> u64 {
        self.slow.get()
    }

    /// A server connection was brought to a session's settings, or could not be.
    pub(crate) fn replay(&self, ok: bool) {
        self.all.replays.with(&[&self.bucket, super::result(ok)]).inc();
    }

    /// Packets of this kind were relayed to a server.
    pub(crate) fn packets_to_server(&self, kind: PacketType, number: u64) {
        let at = KINDS.iter().position(|(known, _)| *known == kind).unwrap_or(KINDS.len());
        self.packets.to_server[at].inc_by(number);
    }

    /// Packets of responses were relayed to a client.
    pub(crate) fn packets_to_client(&self, number: u64) {
        self.packets.to_client.inc_by(number);
    }

    /// A session gave up a server connection that it had kept for this reason.
    pub(crate) fn held(&self, reason: &'static str, for_: Duration) {
        self.all.holds.with(&[&self.bucket, reason]).observe(for_.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxys_own_time_is_what_nobody_else_caused() {
        let milli = Duration::from_millis;
        let times =
            RequestTimes { total: milli(100), waited: milli(60), prepared: milli(5), server: milli(30) };
        assert_eq!(times.own(), milli(5));
        // Clocks are read one after the other: never less than nothing.
        assert_eq!(RequestTimes { total: milli(1), server: milli(2), ..times }.own(), Duration::ZERO);
    }
}
