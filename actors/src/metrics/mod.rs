//! What the proxy counts, for Prometheus. Counting costs one relaxed addition where it happens often.

mod gauges;
mod names;
mod requests;

pub(crate) use gauges::{BucketGauges, SessionGauges};
pub(crate) use requests::{Outcome, RequestMetrics, RequestTimes};

use crate::admin::CrashRow;
use crate::crash_book::CrashBook;
use gauges::{Gauges, Sources};
use names::{Kind, Name};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tdsbouncer_config::BucketName;

/// The content type of [`Metrics::render`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// From a wait that nobody notices to the longest that a driver has patience for, in seconds.
const TIMES: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

/// What crashes are counted of; these and the next appear at zero. A counter that first appears at 1 has not grown for
/// Prometheus, and an alert on its growth would miss the first.
const ACTORS: [&str; 10] = [
    "coordinator",
    "buckets",
    "bucket",
    "errand",
    "listener",
    "acceptor",
    "shard",
    "session",
    "reload",
    "admin",
];
/// What is asked of Redis.
const OPERATIONS: [&str; 4] = ["sync", "listen", "ping", "show"];
/// Errors that say that there is not enough for everybody.
const REFUSALS: [&str; 4] = ["queue_full", "acquire_timeout", "too_many_clients", "too_many_bucket_clients"];
/// The proxy's own time is far below that of any server.
const FINE_TIMES: [f64; 13] =
    [0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0];

type Labels = Vec<(&'static str, Arc<str>)>;

/// All metrics of the process; shared by reference.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    sources: Arc<Sources>,
    of_buckets: OfBuckets,
    client_connections: Series<Counter>,
    errors: Series<Counter>,
    throttled_logins: Series<Counter>,
    crashes: Series<Counter>,
    restarts: Series<Counter>,
    heartbeat: Gauge<f64, AtomicU64>,
    coordinator_operations: Series<Counter>,
    spans: Series<Counter>,
    book: Arc<CrashBook>,
}

/// The metrics that have a bucket's name among their labels.
#[derive(Debug, Clone)]
struct OfBuckets {
    logins: Series<Counter>,
    requests: Series<Counter>,
    attentions: Series<Counter>,
    bytes: Series<Counter>,
    leases: Series<Counter>,
    dials: Series<Counter>,
    resets: Series<Counter>,
    evictions: Series<Counter>,
    queue_wait: Series<Histogram>,
    lease_time: Series<Histogram>,
    connect_time: Series<Histogram>,
    dial_errors: Series<Counter>,
    requests_more: requests::OfRequests,
}

/// One bucket's handles; cheap to clone. The public counters are for hot paths.
#[derive(Debug, Clone)]
pub(crate) struct BucketMetrics {
    bucket: Arc<str>,
    all: OfBuckets,
    /// Crashes of what works for the bucket.
    crashes: Series<Counter>,
    book: Arc<CrashBook>,
    /// Requests passed on to the server.
    pub(crate) requests: Counter,
    /// Requests that clients broke off.
    pub(crate) attentions: Counter,
    /// Bytes relayed to the server.
    pub(crate) bytes_to_server: Counter,
    /// Bytes relayed to clients.
    pub(crate) bytes_to_client: Counter,
    /// Idle connections closed to make room for another sub-pool.
    pub(crate) evictions: Counter,
    /// Server connections lent to sessions.
    pub(crate) leases: Counter,
    /// What is known of each request when it ends.
    pub(crate) work: RequestMetrics,
    queue_wait: Histogram,
    lease_time: Histogram,
}

/// Who answered a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoginKind {
    /// The bucket's server, for a connection that is shared.
    Server,
    /// The memory of verified logins.
    Cached,
    /// The users file.
    Service,
    /// The bucket's server, for a connection of the client's own that is never shared.
    Dedicated,
}

impl Metrics {
    /// Every metric at zero; `version` is the program's.
    pub(crate) fn new(version: &'static str) -> Self {
        let mut registry = Registry::with_prefix(names::PREFIX);
        let sources = Arc::<Sources>::default();
        registry.register(names::BUILD.name, names::BUILD.help, Info::new(labels(names::BUILD, &[version])));
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        registry.register(names::START_TIME.name, names::START_TIME.help, ConstGauge::new(started));
        registry.register_collector(Box::new(Gauges(Arc::clone(&sources))));
        let mut counter = |name| Series::counter(&mut registry, name);
        let client_connections = counter(names::CLIENT_CONNECTIONS);
        let (errors, throttled_logins) = (counter(names::ERRORS), counter(names::THROTTLED_LOGINS));
        let (crashes, restarts) = (counter(names::CRASHES), counter(names::RESTARTS));
        for actor in ACTORS {
            crashes.with(&[actor]);
        }
        for refusal in REFUSALS {
            errors.with(&[refusal]);
        }
        let coordinator_operations = counter(names::COORDINATOR_OPERATIONS);
        let spans = counter(names::SPANS);
        let heartbeat = Gauge::<f64, AtomicU64>::default();
        registry.register(names::HEARTBEAT.name, names::HEARTBEAT.help, heartbeat.clone());
        let of_buckets = OfBuckets::register(&mut registry);
        Self {
            registry,
            sources,
            of_buckets,
            client_connections,
            errors,
            throttled_logins,
            crashes,
            restarts,
            heartbeat,
            coordinator_operations,
            spans,
            book: Arc::default(),
        }
    }

    /// The handles of one bucket; its counters appear at zero.
    pub(crate) fn bucket(&self, name: &str) -> BucketMetrics {
        BucketMetrics::new(name, self.of_buckets.clone(), self.crashes.clone(), Arc::clone(&self.book))
    }

    /// Asks `source` for the buckets' gauges at each scrape.
    pub(crate) fn watch_buckets(
        &self,
        source: impl Fn() -> Vec<(String, BucketGauges)> + Send + Sync + 'static,
    ) {
        self.sources.watch_buckets(Box::new(source));
    }

    /// Asks `source` at each scrape how many buckets stand how with Redis.
    pub(crate) fn watch_coordinator(
        &self,
        source: impl Fn() -> Vec<(&'static str, usize)> + Send + Sync + 'static,
    ) {
        for operation in OPERATIONS {
            self.coordinator_operations.with(&[operation, result(true)]);
            self.coordinator_operations.with(&[operation, result(false)]);
        }
        self.sources.watch_coordinator(Box::new(source));
    }

    /// Asks `source` for the sessions at each scrape.
    pub(crate) fn watch_sessions(&self, source: impl Fn() -> SessionGauges + Send + Sync + 'static) {
        self.sources.watch_sessions(Box::new(source));
    }

    /// A client connected and is served, if only to be told that there are too many.
    pub(crate) fn accepted(&self) {
        self.client_connections.with(&["accepted"]).inc();
    }

    /// A client connected and was closed at once: there were far too many.
    pub(crate) fn refused(&self) {
        self.client_connections.with(&["refused"]).inc();
    }

    /// A login to this bucket was answered.
    pub(crate) fn login(&self, bucket: &BucketName, kind: LoginKind, ok: bool) {
        self.of_buckets.logins.with(&[bucket.as_str(), kind.label(), result(ok)]).inc();
    }

    /// A login was held back after failed ones.
    pub(crate) fn login_throttled(&self) {
        self.throttled_logins.with(&[]).inc();
    }

    /// A client was told an error of this label.
    pub(crate) fn session_error(&self, label: &'static str) {
        self.errors.with(&[label]).inc();
    }

    /// An actor crashed: what kind, which, and why.
    pub(crate) fn crash(&self, actor: &'static str, who: &str, why: &str) {
        self.crashes.with(&[actor]).inc();
        self.book.note(actor, who, why);
    }

    /// The last crashes.
    pub(crate) fn last_crashes(&self) -> Vec<CrashRow> {
        self.book.rows()
    }

    /// An actor was restarted.
    pub(crate) fn restart(&self, actor: &'static str) {
        self.restarts.with(&[actor]).inc();
    }

    /// This proxy just showed the coordinator that it lives.
    pub(crate) fn beat(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        self.heartbeat.set(now);
    }

    /// Something was asked of the coordinator's store.
    pub(crate) fn coordinator_operation(&self, operation: &'static str, ok: bool) {
        debug_assert!(OPERATIONS.contains(&operation), "{operation} is not seen at zero");
        self.coordinator_operations.with(&[operation, result(ok)]).inc();
    }

    /// What became of spans: `exported`, `failed`, `dropped`.
    pub(crate) fn spans(&self, result: &'static str, number: usize) {
        self.spans.with(&[result]).inc_by(number as u64);
    }

    /// The answer to a scrape, of [`CONTENT_TYPE`].
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a string fails only where a label cannot be written, and ours are texts.
        if let Err(why) = prometheus_client::encoding::text::encode(&mut text, &self.registry) {
            tracing::error!(%why, "metrics are incomplete");
        }
        text
    }
}

impl OfBuckets {
    fn register(registry: &mut Registry) -> Self {
        let mut counter = |name| Series::counter(registry, name);
        let logins = counter(names::LOGINS);
        let (requests, attentions) = (counter(names::REQUESTS), counter(names::ATTENTIONS));
        let (bytes, leases) = (counter(names::BYTES), counter(names::LEASES));
        let (dials, resets) = (counter(names::DIALS), counter(names::RESETS));
        let (evictions, dial_errors) = (counter(names::EVICTIONS), counter(names::DIAL_ERRORS));
        let mut times = |name| Series::times(registry, name);
        let (queue_wait, lease_time) = (times(names::QUEUE_WAIT), times(names::LEASE_TIME));
        let connect_time = times(names::CONNECT_TIME);
        let requests_more = requests::OfRequests::register(registry);
        Self {
            logins,
            requests,
            attentions,
            bytes,
            leases,
            dials,
            resets,
            evictions,
            queue_wait,
            lease_time,
            connect_time,
            dial_errors,
            requests_more,
        }
    }
}

impl BucketMetrics {
    fn new(name: &str, all: OfBuckets, crashes: Series<Counter>, book: Arc<CrashBook>) -> Self {
        for ok in [true, false] {
            all.dials.with(&[name, result(ok)]);
            all.resets.with(&[name, result(ok)]);
        }
        all.connect_time.with(&[name]);
        Self {
            requests: all.requests.with(&[name]),
            attentions: all.attentions.with(&[name]),
            bytes_to_server: all.bytes.with(&[name, "to_server"]),
            bytes_to_client: all.bytes.with(&[name, "to_client"]),
            evictions: all.evictions.with(&[name]),
            leases: all.leases.with(&[name]),
            queue_wait: all.queue_wait.with(&[name]),
            lease_time: all.lease_time.with(&[name]),
            work: all.requests_more.of(name),
            bucket: name.into(),
            all,
            crashes,
            book,
        }
    }

    /// A session waited so long for a server connection, with whatever outcome.
    pub(crate) fn waited(&self, waited: Duration) {
        self.queue_wait.observe(waited.as_secs_f64());
    }

    /// A session gave its server connection back after this time.
    pub(crate) fn returned(&self, held: Duration) {
        self.lease_time.observe(held.as_secs_f64());
    }

    /// A connection to the server was opened, or not.
    pub(crate) fn dial(&self, ok: bool) {
        self.all.dials.with(&[&self.bucket, result(ok)]).inc();
    }

    /// Why a connection could not be opened, in one word.
    pub(crate) fn dial_failed(&self, why: &'static str) {
        self.all.dial_errors.with(&[&self.bucket, why]).inc();
    }

    /// Connecting and logging in took so long.
    pub(crate) fn connected(&self, took: Duration) {
        self.all.connect_time.with(&[&self.bucket]).observe(took.as_secs_f64());
    }

    /// A server connection was reset, or could not be.
    pub(crate) fn reset(&self, ok: bool) {
        self.all.resets.with(&[&self.bucket, result(ok)]).inc();
    }

    /// An actor or task that works for this bucket crashed.
    pub(crate) fn crash(&self, actor: &'static str, who: &str, why: &str) {
        self.crashes.with(&[actor]).inc();
        self.book.note(actor, who, why);
    }
}

impl LoginKind {
    fn label(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Cached => "cached",
            Self::Service => "service",
            Self::Dedicated => "dedicated",
        }
    }
}

fn result(ok: bool) -> &'static str {
    if ok { "ok" } else { "failed" }
}

/// A metric of the table with one series for each set of label values.
#[derive(Debug, Clone)]
struct Series<M> {
    name: Name,
    family: Family<Labels, M, fn() -> M>,
}

impl Series<Counter> {
    fn counter(registry: &mut Registry, name: Name) -> Self {
        debug_assert_eq!(name.kind, Kind::Counter, "{}", name.name);
        Self::register(registry, name, Counter::default)
    }
}

impl Series<Histogram> {
    fn times(registry: &mut Registry, name: Name) -> Self {
        debug_assert_eq!(name.kind, Kind::Histogram, "{}", name.name);
        Self::register(registry, name, || Histogram::new(TIMES))
    }
}

impl Series<HistogramWithExemplars<Labels>> {
    fn traced(registry: &mut Registry, name: Name) -> Self {
        debug_assert_eq!(name.kind, Kind::Histogram, "{}", name.name);
        Self::register(registry, name, || HistogramWithExemplars::new(TIMES.into_iter()))
    }

    fn fine(registry: &mut Registry, name: Name) -> Self {
        debug_assert_eq!(name.kind, Kind::Histogram, "{}", name.name);
        Self::register(registry, name, || HistogramWithExemplars::new(FINE_TIMES.into_iter()))
    }
}

impl<M: Clone + Debug + 'static> Series<M>
where
    Family<Labels, M, fn() -> M>: Metric,
    fn() -> M: MetricConstructor<M>,
{
    fn register(registry: &mut Registry, name: Name, new: fn() -> M) -> Self {
        let family = Family::new_with_constructor(new);
        registry.register(name.name, name.help, family.clone());
        Self { name, family }
    }

    fn with(&self, values: &[&str]) -> M {
        self.family.get_or_create_owned(&labels(self.name, values))
    }
}

/// The values with the names that the table gives them.
fn labels(name: Name, values: &[&str]) -> Labels {
    debug_assert_eq!(name.labels.len(), values.len(), "{}", name.name);
    name.labels.iter().copied().zip(values.iter().map(|value| Arc::from(*value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything counted at least once.
    fn full() -> Metrics {
        let metrics = Metrics::new("1.2.3");
        metrics.accepted();
        metrics.refused();
        metrics.login_throttled();
        metrics.session_error("no_bucket");
        metrics.login(&BucketName::from("orders"), LoginKind::Cached, true);
        metrics.crash("session", "c7", "a bug");
        metrics.restart("session");
        let orders = metrics.bucket("orders");
        orders.leases.inc();
        orders.waited(Duration::from_millis(3));
        orders.returned(Duration::from_millis(30));
        orders.dial(true);
        orders.connected(Duration::from_millis(12));
        orders.reset(false);
        orders.crash("errand", "orders", "a bug");
        orders.dial_failed("connect");
        orders.work.replay(true);
        orders.work.packets_to_client(3);
        orders.work.held("transaction", Duration::from_millis(4));
        let times = RequestTimes { total: Duration::from_millis(9), ..RequestTimes::default() };
        orders.work.ended(&times, Outcome::Failed("server"), true, Some("4bf92f3577b34da6a3ce929d0e0e4736"));
        orders.work.ended(&times, Outcome::Good, false, None);
        orders.work.ended(&times, Outcome::Cancelled, false, None);
        metrics.beat();
        metrics.coordinator_operation("sync", true);
        metrics.spans("exported", 4);
        orders.bytes_to_client.inc_by(4096);
        metrics.watch_buckets(|| {
            let gauges = BucketGauges { idle: 3, leased: 2, max_connections: 20, ..Default::default() };
            vec![("orders".to_owned(), gauges)]
        });
        metrics.watch_coordinator(|| vec![("normal", 1)]);
        metrics.watch_sessions(|| SessionGauges {
            by_state: vec![("idle", 7), ("relaying", 0)],
            max_clients: 100,
            held: vec![("orders".to_owned(), "transaction", 1)],
        });
        metrics
    }

    #[test]
    fn a_scrape_shows_every_metric_of_the_table_with_its_labels_and_nothing_else() {
        let text = full().render();
        let mut names: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        for Name { name, kind, labels, help } in names::ALL {
            let full = format!("{}_{name}", names::PREFIX);
            let suffix = match kind {
                Kind::Counter => "_total",
                Kind::Gauge => "",
                Kind::Histogram => "_count",
                Kind::Info => "_info",
            };
            assert!(text.contains(&format!("# HELP {full} {help}.\n")), "{full} has no help in\n{text}");
            let line = text.lines().find(|line| {
                line.strip_prefix(&*full)
                    .and_then(|rest| rest.strip_prefix(suffix))
                    .is_some_and(|rest| rest.starts_with([' ', '{']))
            });
            let line = line.unwrap_or_else(|| panic!("{full}{suffix} is missing in\n{text}"));
            let shown: Vec<&str> = match line.split_once('{') {
                Some((_, labels)) => {
                    labels.split("\",").filter_map(|pair| Some(pair.split_once('=')?.0)).collect()
                }
                None => Vec::new(),
            };
            assert_eq!(&*shown, *labels, "{line}");
            names.retain(|name| **name != *full);
        }
        assert_eq!(names, Vec::<&str>::new(), "these are not in the table");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn gauges_are_asked_for_at_each_scrape() {
        let metrics = full();
        let line = "tdsbouncer_bucket_server_connections{bucket=\"orders\",state=\"idle\"} 3";
        assert!(metrics.render().contains(line), "{}", metrics.render());
        assert!(metrics.render().contains("tdsbouncer_sessions{state=\"relaying\"} 0\n"));
        metrics.watch_buckets(|| vec![("orders".to_owned(), BucketGauges { idle: 4, ..Default::default() })]);
        assert!(metrics.render().contains(&line.replace("} 3", "} 4")));
    }

    #[test]
    fn crashes_and_refusals_are_seen_at_zero() {
        let text = Metrics::new("1").render();
        for line in ["crashes_total{actor=\"session\"} 0", "errors_total{type=\"queue_full\"} 0"] {
            assert!(text.contains(&format!("tdsbouncer_{line}\n")), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn two_handles_of_a_bucket_count_together() {
        let metrics = Metrics::new("1");
        metrics.bucket("a").requests.inc();
        metrics.bucket("a").clone().requests.inc();
        assert!(metrics.render().contains("tdsbouncer_requests_total{bucket=\"a\"} 2\n"));
    }

    #[test]
    fn a_bucket_shows_its_zeros_before_anything_happens() {
        let metrics = Metrics::new("1");
        metrics.bucket("a");
        let text = metrics.render();
        for line in [
            "tdsbouncer_dials_total{bucket=\"a\",result=\"failed\"} 0",
            "tdsbouncer_queue_wait_seconds_count{bucket=\"a\"} 0",
            "tdsbouncer_relayed_bytes_total{bucket=\"a\",direction=\"to_server\"} 0",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn a_traced_request_leaves_its_trace_as_an_exemplar() {
        let text = full().render();
        let bucket = text.lines().find(|line| {
            line.starts_with("tdsbouncer_request_seconds_bucket{") && line.contains("trace_id=\"4bf92f35")
        });
        assert!(bucket.is_some_and(|line| line.contains("} 3 # {")), "{text}");
    }
}
