//! The moment's view of the whole proxy: for the admin commands, the gauges and health.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use crate::admin::{
    BucketRow, ConfigRow, CoordinatorRow, DoneRow, HoldRow, Later, MemoryRow, Order, ServerRow, SessionRow,
    Source, StatsRow, Subject, Table, TenantRow, VersionRow, help,
};
use crate::bucket::{BucketHandle, Directory, self_test};
use crate::coordinator::CoordinatorHandle;
use crate::host::Host;
use crate::listener::Doors;
use crate::memory;
use crate::metrics::{BucketGauges, Metrics, SessionGauges};
use crate::orders;
use crate::reload::ReloadHandle;
use crate::session::client_conn::ClientConn;
use crate::session::verdict::Phase;

/// Everything that can be looked at, and what operators' orders reach.
pub(crate) struct View {
    pub(crate) doors: Arc<Doors>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) coordinator: CoordinatorHandle,
    pub(crate) host: Arc<Host>,
    pub(crate) reload: ReloadHandle,
    pub(crate) started: Instant,
    pub(crate) version: &'static str,
}

impl Source for View {
    fn show(&self, subject: Subject) -> Later<'_, Table> {
        Box::pin(self.table(subject))
    }

    fn perform(&self, order: Order) -> Later<'_, Result<Vec<DoneRow>, String>> {
        Box::pin(orders::perform(self, order))
    }
}

impl View {
    /// Has the gauges of all buckets and of the sessions looked up here at each scrape.
    pub(crate) fn register(self: &Arc<Self>, metrics: &Metrics) {
        let view = Arc::clone(self);
        metrics.watch_buckets(move || {
            view.directory.all().iter().map(|bucket| (bucket.name().to_string(), gauges(bucket))).collect()
        });
        let view = Arc::clone(self);
        metrics.watch_sessions(move || view.session_gauges());
    }

    async fn table(&self, subject: Subject) -> Table {
        let buckets = self.directory.all();
        match subject {
            Subject::Buckets => Table::of(&buckets.iter().map(bucket_row).collect::<Vec<_>>()),
            Subject::Pools => {
                let mut rows = Vec::new();
                for bucket in &*buckets {
                    rows.extend(bucket.pools().await.0);
                }
                Table::of(&rows)
            }
            Subject::Waiters => {
                let mut rows = Vec::new();
                for bucket in &*buckets {
                    rows.extend(bucket.pools().await.1);
                }
                Table::of(&rows)
            }
            Subject::Sessions => Table::of(&self.each_session(session_row)),
            Subject::Servers => Table::of(&self.server_rows().await),
            Subject::Traits => Table::of(&buckets.iter().map(self_test::row).collect::<Vec<_>>()),
            Subject::Holds => Table::of(&self.hold_rows()),
            Subject::Tenants => Table::of(&self.tenant_rows()),
            Subject::Coordinator => Table::of(&self.coordinator_rows().await),
            Subject::Crashes => Table::of(&self.doors.metrics.last_crashes()),
            Subject::Stats => Table::of(&buckets.iter().map(stats_row).collect::<Vec<_>>()),
            Subject::Config => Table::of(&self.config_rows()),
            Subject::Memory => Table::of(&[self.memory_row()]),
            Subject::Version => {
                Table::of(&[VersionRow { version: self.version, uptime: self.started.elapsed() }])
            }
            Subject::Help => help(),
        }
    }

    fn each_session<R>(&self, row: fn(&ClientConn, Instant) -> R) -> Vec<R> {
        let now = Instant::now();
        let mut all = self.doors.table.all();
        all.sort_by_key(|conn| conn.id);
        all.iter().map(|conn| row(conn, now)).collect()
    }

    fn hold_rows(&self) -> Vec<HoldRow> {
        let now = Instant::now();
        let mut all = self.doors.table.all();
        all.sort_by_key(|conn| conn.id);
        all.iter().filter_map(|conn| hold_row(conn, now)).collect()
    }

    fn session_gauges(&self) -> SessionGauges {
        let mut counts = Phase::ALL.map(|phase| (phase.name(), 0));
        let mut held: BTreeMap<(String, &'static str), usize> = BTreeMap::new();
        for conn in self.doors.table.all() {
            counts[conn.checkpoint.phase() as usize].1 += 1;
            let Some(login) = conn.login.get() else { continue };
            for (reason, _) in holds(&conn, Instant::now()) {
                *held.entry((login.bucket.name().to_string(), reason)).or_default() += 1;
            }
        }
        if self.coordinator.is_local() {
            // It beats for nobody but us: to be asked is to live.
            self.doors.metrics.beat();
        }
        SessionGauges {
            by_state: counts.to_vec(),
            max_clients: self.doors.context().config.limits.max_clients,
            held: held.into_iter().map(|((bucket, reason), count)| (bucket, reason, count)).collect(),
        }
    }

    fn tenant_rows(&self) -> Vec<TenantRow> {
        let now = Instant::now();
        let mut tenants: BTreeMap<(String, String), TenantRow> = BTreeMap::new();
        for conn in self.doors.table.all() {
            let (Some(login), Some(tenant)) = (conn.login.get(), tenant_of(&conn)) else { continue };
            let key = (login.bucket.name().to_string(), tenant.to_owned());
            let row = tenants.entry(key).or_insert_with_key(|(bucket, tenant)| TenantRow {
                tenant: tenant.clone(),
                bucket: bucket.clone(),
                ..TenantRow::default()
            });
            let (phase, state_for) = conn.checkpoint.since(now);
            let waits = phase == Phase::Waiting;
            row.clients += 1;
            row.running += usize::from(matches!(phase, Phase::Sent | Phase::Forwarding));
            row.waiting += usize::from(waits);
            row.servers += usize::from(conn.server.load(Ordering::Relaxed) != 0);
            row.longest_wait = row.longest_wait.max(if waits { state_for } else { Duration::ZERO });
            row.bytes_in += conn.bytes_in.load(Ordering::Relaxed);
            row.bytes_out += conn.bytes_out.load(Ordering::Relaxed);
        }
        let mut rows: Vec<TenantRow> = tenants.into_values().collect();
        // Who takes most comes first.
        rows.sort_by_key(|row| std::cmp::Reverse((row.servers, row.waiting, row.clients)));
        rows
    }

    async fn coordinator_rows(&self) -> Vec<CoordinatorRow> {
        if let Some(rows) = self.coordinator.rows().await {
            return rows;
        }
        let row = |bucket: &BucketHandle| CoordinatorRow {
            kind: "local",
            state: "ok".to_owned(),
            bucket: bucket.name().to_string(),
            max_connections: bucket.settings().max_connections as usize,
            quota: bucket.shared().slots.quota(Instant::now()) as usize,
            open: bucket.shared().slots.used() as usize,
            waiting: bucket.shared().counts.waiting.load(Ordering::Relaxed),
            ..CoordinatorRow::default()
        };
        self.directory.all().iter().map(row).collect()
    }

    /// What an operator has changed since goes before what the file said.
    fn config_rows(&self) -> Vec<ConfigRow> {
        let config = self.directory.in_force(&self.doors.context().config);
        config.in_force().into_iter().map(|row| ConfigRow { key: row.path, value: row.value }).collect()
    }

    fn memory_row(&self) -> MemoryRow {
        MemoryRow {
            resident: memory::resident(),
            peak: memory::peak(),
            open_files: memory::open_files(),
            clients: self.doors.table.clients(),
            servers: self.directory.all().iter().map(|bucket| bucket.shared().slots.used() as usize).sum(),
        }
    }

    async fn server_rows(&self) -> Vec<ServerRow> {
        let users: HashMap<u64, u64> = (self.doors.table.all().iter())
            .map(|conn| (conn.server.load(Ordering::Relaxed), conn.id.0))
            .filter(|(server, _)| *server != 0)
            .collect();
        let mut rows = Vec::new();
        for bucket in &*self.directory.all() {
            rows.extend(bucket.servers().await);
        }
        for row in &mut rows {
            row.session = users.get(&row.id).copied();
        }
        rows
    }
}

/// Whose client this is: the database that it named at login.
pub(crate) fn tenant_of(conn: &ClientConn) -> Option<&str> {
    conn.login.get().map(|login| &*login.template.database)
}

/// Why the session keeps its server connection between requests, and since when; nothing while it does not. In session
/// pooling it keeps it because it is its own.
fn holds(conn: &ClientConn, now: Instant) -> Vec<(&'static str, Instant)> {
    let holds = conn.holds();
    let kept = conn.server.load(Ordering::Relaxed) != 0 && conn.checkpoint.is_held();
    if holds.is_empty() && kept {
        return vec![("session", now - conn.checkpoint.since(now).1)];
    }
    holds
}

fn hold_row(conn: &ClientConn, now: Instant) -> Option<HoldRow> {
    let (login, holds) = (conn.login.get()?, holds(conn, now));
    let since = holds.iter().map(|(_, since)| *since).min()?;
    let server = conn.server.load(Ordering::Relaxed);
    Some(HoldRow {
        session: conn.id.0,
        bucket: login.bucket.name().to_string(),
        server: (server != 0).then_some(server),
        user: login.user.clone(),
        database: login.template.database.clone(),
        application: login.template.application.clone(),
        reasons: holds.iter().map(|(reason, _)| *reason).collect::<Vec<_>>().join(", "),
        held_for: now.saturating_duration_since(since),
        state: conn.checkpoint.phase().name(),
    })
}

fn stats_row(bucket: &BucketHandle) -> StatsRow {
    let metrics = &bucket.shared().metrics;
    StatsRow {
        bucket: bucket.name().to_string(),
        requests: metrics.requests.get(),
        attentions: metrics.attentions.get(),
        leases: metrics.leases.get(),
        evictions: metrics.evictions.get(),
        slow: metrics.work.slow(),
        bytes_to_server: metrics.bytes_to_server.get(),
        bytes_to_client: metrics.bytes_to_client.get(),
    }
}

fn gauges(bucket: &BucketHandle) -> BucketGauges {
    let shared = bucket.shared();
    let count = |count: &std::sync::atomic::AtomicUsize| count.load(Ordering::Relaxed);
    BucketGauges {
        max_connections: bucket.settings().max_connections as usize,
        quota: shared.slots.quota(Instant::now()) as usize,
        idle: shared.idle(),
        leased: count(&shared.counts.leased),
        resetting: count(&shared.counts.resetting),
        opening: count(&shared.counts.opening),
        closing: shared.slots.closing() as usize,
        clients: bucket.clients(),
        waiting: count(&shared.counts.waiting),
        verified_logins: shared.verified.len(),
        mode: self_test::name(self_test::pooling(bucket).0),
        paused: shared.standing.paused().is_some(),
        up: shared.failure().is_none() && !bucket.is_resting(),
    }
}

fn bucket_row(bucket: &BucketHandle) -> BucketRow {
    let (shared, gauges, settings) = (bucket.shared(), gauges(bucket), bucket.settings());
    BucketRow {
        name: bucket.name().to_string(),
        host: format!("{}:{}", settings.host, settings.port),
        mode: gauges.mode,
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
        request_for: conn.clock.running_for(now),
        waiting_for: (phase == Phase::Waiting).then_some(state_for),
        server: (server != 0).then_some(server),
        crashes: conn.crashes.load(Ordering::Relaxed),
        bytes_in: conn.bytes_in.load(Ordering::Relaxed),
        bytes_out: conn.bytes_out.load(Ordering::Relaxed),
    }
}
