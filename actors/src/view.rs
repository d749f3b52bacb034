//! The moment's view of the whole proxy: for the admin commands, the gauges and health.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use crate::admin::{BucketRow, ConfigRow, ServerRow, SessionRow, Source, VersionRow};
use crate::bucket::BucketHandle;
use crate::listener::Doors;
use crate::metrics::{BucketGauges, Metrics, SessionGauges};
use crate::session::client_conn::ClientConn;
use crate::session::verdict::Phase;

/// Everything that can be looked at.
pub(crate) struct View {
    pub(crate) doors: Arc<Doors>,
    pub(crate) buckets: Vec<BucketHandle>,
    pub(crate) started: Instant,
    pub(crate) version: &'static str,
}

impl View {
    /// Has the gauges of all buckets and of the sessions looked up here at each scrape.
    pub(crate) fn register(self: &Arc<Self>, metrics: &Metrics) {
        for bucket in &self.buckets {
            let watched = bucket.clone();
            metrics.watch_bucket(bucket.name().as_str(), move || gauges(&watched));
        }
        let view = Arc::clone(self);
        metrics.watch_sessions(move || view.session_gauges());
    }

    fn session_gauges(&self) -> SessionGauges {
        let mut counts = Phase::ALL.map(|phase| (phase.name(), 0));
        for conn in self.doors.table.all() {
            counts[conn.checkpoint.phase() as usize].1 += 1;
        }
        SessionGauges { by_state: counts.to_vec(), max_clients: self.doors.context.config.limits.max_clients }
    }

    async fn server_rows(&self) -> Vec<ServerRow> {
        let users: HashMap<u64, u64> = (self.doors.table.all().iter())
            .map(|conn| (conn.server.load(Ordering::Relaxed), conn.id.0))
            .filter(|(server, _)| *server != 0)
            .collect();
        let mut rows = Vec::new();
        for bucket in &self.buckets {
            rows.extend(bucket.servers().await);
        }
        for row in &mut rows {
            row.session = users.get(&row.id).copied();
        }
        rows
    }
}

impl Source for View {
    fn buckets(&self) -> Vec<BucketRow> {
        self.buckets.iter().map(bucket_row).collect()
    }

    fn sessions(&self) -> Vec<SessionRow> {
        let now = Instant::now();
        let mut rows: Vec<SessionRow> =
            self.doors.table.all().iter().map(|conn| session_row(conn, now)).collect();
        rows.sort_by_key(|row| row.id);
        rows
    }

    fn servers(&self) -> Pin<Box<dyn Future<Output = Vec<ServerRow>> + Send + '_>> {
        Box::pin(self.server_rows())
    }

    fn config(&self) -> Vec<ConfigRow> {
        let in_force = self.doors.context.config.in_force();
        in_force.into_iter().map(|(key, value)| ConfigRow { key, value }).collect()
    }

    fn version(&self) -> VersionRow {
        VersionRow { version: self.version, uptime: self.started.elapsed() }
    }
}

fn gauges(bucket: &BucketHandle) -> BucketGauges {
    let shared = bucket.shared();
    let count = |count: &std::sync::atomic::AtomicUsize| count.load(Ordering::Relaxed);
    BucketGauges {
        max_connections: shared.settings.max_connections as usize,
        quota: shared.slots.quota() as usize,
        idle: count(&shared.counts.idle),
        leased: count(&shared.counts.leased),
        resetting: count(&shared.counts.resetting),
        opening: count(&shared.counts.opening),
        closing: shared.slots.closing() as usize,
        clients: bucket.clients(),
        waiting: count(&shared.counts.waiting),
        verified_logins: shared.verified.len(),
        up: shared.failure().is_none() && !bucket.is_resting(),
    }
}

fn bucket_row(bucket: &BucketHandle) -> BucketRow {
    let (shared, gauges) = (bucket.shared(), gauges(bucket));
    BucketRow {
        name: bucket.name().to_string(),
        host: format!("{}:{}", shared.settings.host, shared.settings.port),
        mode: "session",
        state: bucket.state(),
        max_connections: gauges.max_connections,
        quota: gauges.quota,
        open: shared.slots.used() as usize,
        idle: gauges.idle,
        leased: gauges.leased,
        resetting: gauges.resetting,
        opening: gauges.opening,
        closing: gauges.closing,
        waiting: gauges.waiting,
        clients: gauges.clients,
        verified_logins: gauges.verified_logins,
        last_error: shared.failure(),
    }
}

fn session_row(conn: &ClientConn, now: Instant) -> SessionRow {
    let login = conn.login.get();
    let (phase, state_for) = conn.checkpoint.since(now);
    let server = conn.server.load(Ordering::Relaxed);
    SessionRow {
        id: conn.id.0,
        bucket: login.map(|login| login.bucket.name().to_string()),
        state: if phase == Phase::Idle && !conn.holds().is_empty() { "holding" } else { phase.name() },
        user: login.map(|login| login.user.clone()),
        database: login.map(|login| login.template.database.clone()),
        application: login.map(|login| login.template.application.clone()),
        address: Some(conn.peer),
        tds: login.map(|login| login.template.client_version.to_string()),
        encryption: login.map_or("", |login| login.encryption),
        connected_for: now.duration_since(conn.accepted),
        state_for,
        waiting_for: (phase == Phase::Waiting).then_some(state_for),
        server: (server != 0).then_some(server),
        crashes: conn.crashes.load(Ordering::Relaxed),
        bytes_in: conn.bytes_in.load(Ordering::Relaxed),
        bytes_out: conn.bytes_out.load(Ordering::Relaxed),
    }
}
