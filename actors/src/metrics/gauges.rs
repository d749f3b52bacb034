//! What is looked up at the moment of a scrape instead of being counted: the owners register a closure each.

use super::Labels;
use super::names::{self, Name};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How a bucket is now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct BucketGauges {
    /// The bucket's limit, over all proxies.
    pub(crate) max_connections: usize,
    /// This proxy's part of it.
    pub(crate) quota: usize,
    /// Server connections that wait to be lent.
    pub(crate) idle: usize,
    /// Server connections that are lent.
    pub(crate) leased: usize,
    /// Server connections that are being reset.
    pub(crate) resetting: usize,
    /// Server connections that are being opened.
    pub(crate) opening: usize,
    /// Server connections that are being closed.
    pub(crate) closing: usize,
    /// Clients that are logged in.
    pub(crate) clients: usize,
    /// Clients that wait for a server connection.
    pub(crate) waiting: usize,
    /// Logins that can be answered from memory.
    pub(crate) verified_logins: usize,
    /// The pool mode that is in force with its server.
    pub(crate) mode: &'static str,
    /// Whether an operator has paused it.
    pub(crate) paused: bool,
    /// Whether the server could be reached when it was last needed.
    pub(crate) up: bool,
}

/// How the listener is now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SessionGauges {
    /// How many sessions are in each state; every state, so that a zero is seen too.
    pub(crate) by_state: Vec<(&'static str, usize)>,
    /// `limits.max_clients`.
    pub(crate) max_clients: usize,
    /// How many server connections sessions keep between requests: bucket, reason, number.
    pub(crate) held: Vec<(String, &'static str, usize)>,
}

impl BucketGauges {
    /// Clients for each open server connection; without any open one, as many as there are clients.
    fn multiplex_ratio(&self) -> f64 {
        let open = self.idle + self.leased + self.resetting;
        #[expect(clippy::cast_precision_loss, reason = "both are far below 2^52")]
        let ratio = self.clients as f64 / open.max(1) as f64;
        ratio
    }
}

type Source<T> = Box<dyn Fn() -> T + Send + Sync>;
type PerBucket = Vec<(String, BucketGauges)>;
/// How many buckets stand how with Redis.
type Modes = Vec<(&'static str, usize)>;
type Reading = fn(&BucketGauges) -> usize;

/// Who to ask.
#[derive(Default)]
pub(super) struct Sources {
    buckets: Mutex<Option<Source<PerBucket>>>,
    sessions: Mutex<Option<Source<SessionGauges>>>,
    coordinator: Mutex<Option<Source<Modes>>>,
}

impl Sources {
    pub(super) fn watch_buckets(&self, source: Source<PerBucket>) {
        *lock(&self.buckets) = Some(source);
    }

    pub(super) fn watch_coordinator(&self, source: Source<Modes>) {
        *lock(&self.coordinator) = Some(source);
    }

    pub(super) fn watch_sessions(&self, source: Source<SessionGauges>) {
        *lock(&self.sessions) = Some(source);
    }
}

/// Asks everybody once, so that the numbers of a bucket fit together.
#[derive(Debug)]
pub(super) struct Gauges(pub(super) Arc<Sources>);

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(ask) = &*lock(&self.0.sessions) {
            let now = ask();
            let states = now.by_state.iter().map(|(state, count)| (vec![*state], *count));
            write(&mut encoder, names::SESSIONS, states)?;
            write(&mut encoder, names::MAX_CLIENTS, [(vec![], now.max_clients)].into_iter())?;
            let held = now.held.iter().map(|(bucket, reason, count)| (vec![&**bucket, *reason], *count));
            write(&mut encoder, names::HELD, held)?;
        }
        if let Some(ask) = &*lock(&self.0.coordinator) {
            let modes = ask().into_iter().map(|(mode, count)| (vec![mode], count));
            write(&mut encoder, names::COORDINATOR_MODES, modes)?;
        }
        let buckets = lock(&self.0.buckets).as_ref().map_or_else(Vec::new, |ask| ask());
        let plain: [(Name, Reading); 7] = [
            (names::MAX_CONNECTIONS, |now| now.max_connections),
            (names::QUOTA, |now| now.quota),
            (names::CLIENTS, |now| now.clients),
            (names::WAITING, |now| now.waiting),
            (names::VERIFIED_LOGINS, |now| now.verified_logins),
            (names::PAUSED, |now| usize::from(now.paused)),
            (names::UP, |now| usize::from(now.up)),
        ];
        for (name, reading) in plain {
            let rows = buckets.iter().map(|(bucket, now)| (vec![&**bucket], reading(now)));
            write(&mut encoder, name, rows)?;
        }
        let modes = |(bucket, now): &(String, BucketGauges)| {
            ["transaction", "session"]
                .map(|mode| (vec![bucket.clone(), mode.to_owned()], usize::from(now.mode == mode)))
        };
        let rows: Vec<_> = buckets.iter().flat_map(modes).collect();
        let rows = rows.iter().map(|(labels, value)| (labels.iter().map(|label| &**label).collect(), *value));
        write(&mut encoder, names::MODE, rows)?;
        let ratios = buckets.iter().map(|(bucket, now)| (vec![&**bucket], now.multiplex_ratio()));
        write_as(&mut encoder, names::MULTIPLEX, ratios, ConstGauge::new)?;
        if let Some(bytes) = crate::memory::resident() {
            write(&mut encoder, names::MEMORY, [(vec![], bytes)].into_iter())?;
        }
        let states: [(&str, Reading); 5] = [
            ("idle", |now| now.idle),
            ("leased", |now| now.leased),
            ("resetting", |now| now.resetting),
            ("opening", |now| now.opening),
            ("closing", |now| now.closing),
        ];
        let of_states = |(bucket, now): &(String, BucketGauges)| {
            states.map(|(state, reading)| (vec![bucket.clone(), state.to_owned()], reading(now)))
        };
        let rows: Vec<_> = buckets.iter().flat_map(of_states).collect();
        let rows = rows.iter().map(|(labels, value)| (labels.iter().map(|label| &**label).collect(), *value));
        write(&mut encoder, names::SERVER_CONNECTIONS, rows)
    }
}

/// Writes a gauge with all its rows; nothing at all without rows.
fn write<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: Name,
    rows: impl Iterator<Item = (Vec<&'a str>, usize)>,
) -> fmt::Result {
    write_as(encoder, name, rows, |number| ConstGauge::new(i64::try_from(number).unwrap_or(i64::MAX)))
}

fn write_as<'a, T, N>(
    encoder: &mut DescriptorEncoder<'_>,
    name: Name,
    rows: impl Iterator<Item = (Vec<&'a str>, T)>,
    gauge: impl Fn(T) -> ConstGauge<N>,
) -> fmt::Result
where
    ConstGauge<N>: EncodeMetric,
{
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    // The registry ends its own help texts so.
    let help = format!("{}.", name.help);
    let mut family = encoder.encode_descriptor(name.name, &help, None, MetricType::Gauge)?;
    for (values, number) in rows {
        let gauge = gauge(number);
        let labels: Labels = super::labels(name, &values);
        let encoder: MetricEncoder<'_> = family.encode_family(&labels)?;
        gauge.encode(encoder)?;
    }
    Ok(())
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A source that panicked in a scrape leaves the map as it was.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
