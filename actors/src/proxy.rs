//! The whole proxy: what is built before any actor, and how it starts, drains and ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use ractor::{Actor, ActorRef};
use serde::Serialize;
use tdsbouncer_config::{Config, Coordinator, Listener};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::admin::{AdminArgs, AdminSocket, AdminSocketError, Source};
use crate::auth::UsersFileError;
use crate::bucket::{BucketHandle, Directory};
use crate::build;
use crate::coordinator::{CoordinatorHandle, SharedEstate};
use crate::host::{Host, Shutdown};
use crate::listener::{Doors, ShardHandle};
use crate::metrics::{CONTENT_TYPE, Metrics};
use crate::reload::{ReloadHandle, Reloading};
use crate::root::{Estate, Root, RootMsg};
use crate::session::client_conn::Wish;
use crate::session::context::SessionContext;
use crate::session::table::SessionTable;
use crate::view::View;
use crate::wire::CertificateError;

/// The content type of [`Proxy::metrics_text`].
pub const METRICS_CONTENT_TYPE: &str = CONTENT_TYPE;

/// How often a drain looks whether it is done.
const DRAIN_STEP: Duration = Duration::from_millis(20);

/// How long sessions that are told to end at once may take to say so.
const END_WAIT: Duration = Duration::from_secs(6);

/// How long the last spans may take to the collector.
const FLUSH_WAIT: Duration = Duration::from_secs(2);

/// Why the proxy did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("listener \"{listener}\" cannot listen on {address}: {source}")]
    Listen {
        /// The listener's name.
        listener: String,
        /// Its address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A certificate cannot be used.
    #[error("{of}: {source}")]
    Certificate {
        /// The listener or bucket.
        of: String,
        /// What is wrong.
        source: CertificateError,
    },
    /// Traces cannot be sent.
    #[error("{0}")]
    Telemetry(String),
    /// The users file cannot be used.
    #[error(transparent)]
    Users(#[from] UsersFileError),
    /// The admin socket cannot be made.
    #[error(transparent)]
    Admin(#[from] AdminSocketError),
    /// The way to Redis cannot be built from its settings.
    #[error("coordinator: {0}")]
    Coordinator(String),
    /// The root of the supervision tree did not start.
    #[error("the supervision tree did not start: {0}")]
    Tree(#[from] ractor::SpawnErr),
}

/// A running proxy. Dropping it does not stop it: call [`Proxy::drain`].
pub struct Proxy {
    estate: Arc<Estate>,
    metrics: Arc<Metrics>,
    root: ActorRef<RootMsg>,
    ended: watch::Receiver<Option<bool>>,
    _watcher: JoinHandle<()>,
}

/// How the proxy and its buckets are.
#[derive(Clone, Debug, Serialize)]
pub struct Health {
    /// Whether new clients are wanted: false while draining.
    pub ready: bool,
    /// Clients connected now.
    pub clients: usize,
    /// Each bucket, in the order of the configuration.
    pub buckets: Vec<BucketHealth>,
}

/// How one bucket is.
#[derive(Clone, Debug, Serialize)]
pub struct BucketHealth {
    /// Its name.
    pub name: String,
    /// `ok`, `unreachable` (the last attempt to connect failed) or `resting` (crashed too often); or what an operator
    /// wants: `paused`, `disabled`, `draining`, `leaving` (no longer in the configuration).
    pub state: &'static str,
    /// The most server connections over all proxies.
    pub max_connections: u32,
    /// How many of them this proxy may open now.
    pub quota: u32,
    /// How many slots are in use: opening, open and closing connections.
    pub used: u32,
    /// Idle connections.
    pub idle: usize,
    /// Connections lent to sessions.
    pub leased: usize,
    /// Clients that wait for a connection.
    pub waiting: usize,
    /// Clients logged in.
    pub clients: usize,
    /// Why the last attempt to connect failed, if none succeeded since.
    pub error: Option<String>,
}

impl Proxy {
    /// Builds everything, listens, starts the supervision tree.
    ///
    /// `version` is the program's, for the admin view and the metrics.
    pub async fn start(config: Arc<Config>, version: &'static str) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::new(version));
        let coordinator = CoordinatorHandle::default();
        let shared = match &config.coordinator {
            Coordinator::Local => None,
            Coordinator::Redis(settings) => {
                let shared = SharedEstate::new(settings, Arc::clone(&metrics));
                Some(shared.map_err(|why| StartError::Coordinator(why.to_string()))?)
            }
        };
        let buckets = build::buckets(&config, &metrics, &coordinator)?;
        let context = build::context(&config, &buckets, Arc::clone(&metrics), version)?;
        let directory = Arc::new(Directory::new(buckets));
        let sockets = config.listeners.iter().map(listen).collect::<Result<Vec<_>, _>>()?;
        let shards = config.runtime.shards.unwrap_or_else(default_shards);
        let table = Arc::new(SessionTable::new(shards, config.limits.max_clients));
        let doors = Arc::new(Doors {
            sockets,
            shards: (0..table.shards()).map(|_| ShardHandle::default()).collect(),
            table,
            context: ArcSwap::from_pointee(context),
            metrics: Arc::clone(&metrics),
            handshakes: Arc::new(Semaphore::new(config.limits.max_handshakes)),
            closed: watch::Sender::new(false),
        });
        let (host, reload) = (Arc::new(Host::default()), ReloadHandle::default());
        let view = Arc::new(View {
            doors: Arc::clone(&doors),
            directory: Arc::clone(&directory),
            coordinator: coordinator.clone(),
            host: Arc::clone(&host),
            reload: reload.clone(),
            started: Instant::now(),
            version,
        });
        view.register(&metrics);
        let source: Arc<dyn Source> = view;
        doors
            .context
            .rcu(|context| SessionContext { console: Arc::downgrade(&source), ..(**context).clone() });
        let socket = AdminSocket::bind(&config.admin.socket, config.admin.mode)?;
        let port = match config.admin.address {
            Some(address) => Some(Arc::new(listen_for_operators(address).await?)),
            None => None,
        };
        let settings = Arc::new(config.admin.clone());
        let admin = AdminArgs { socket: Arc::new(socket), port, settings, source };
        let reloading = Reloading {
            doors: Arc::clone(&doors),
            directory: Arc::clone(&directory),
            coordinator: coordinator.clone(),
            host: Arc::clone(&host),
        };
        if let Some(shared) = shared.clone() {
            coordinator.is_shared();
            metrics.watch_coordinator(move || shared.modes());
        }
        let estate =
            Arc::new(Estate { doors, directory, coordinator, shared, reloading, reload, host, admin });
        let (root, running) = Actor::spawn(None, Root, Arc::clone(&estate)).await?;
        let (tell, ended) = watch::channel(None);
        let closed = estate.doors.closed.subscribe();
        let watcher = tokio::spawn(async move {
            let outcome = running.await;
            // The root ends by itself only when it gives up.
            let asked = *closed.borrow();
            tell.send_replace(Some(asked && outcome.is_ok()));
        });
        let proxy = Self { estate, metrics, root, ended, _watcher: watcher };
        for (listener, address) in proxy.addresses() {
            info!(listener, %address, "listening");
        }
        Ok(proxy)
    }

    /// Where each listener listens, by its name.
    pub fn addresses(&self) -> Vec<(String, SocketAddr)> {
        let address = |(listener, socket): &(Arc<Listener>, Arc<TcpListener>)| {
            Some((listener.name.clone(), socket.local_addr().ok()?))
        };
        self.estate.doors.sockets.iter().filter_map(address).collect()
    }

    /// How the proxy and its buckets are.
    pub fn health(&self) -> Health {
        Health {
            ready: !*self.estate.doors.closed.borrow() && !self.is_drained_by_operator(),
            clients: self.estate.doors.table.clients(),
            buckets: self.estate.directory.all().iter().map(bucket_health).collect(),
        }
    }

    /// An operator has drained every bucket: whoever sends clients here should send them elsewhere.
    fn is_drained_by_operator(&self) -> bool {
        let buckets = self.estate.directory.all();
        !buckets.is_empty() && buckets.iter().all(|bucket| bucket.shared().standing.is_draining())
    }

    /// Says how the filter of the program's log is changed, for operators and for reloads.
    pub fn log_is_set_by(&self, set: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static) {
        self.estate.host.log_is_set_by(Box::new(set));
    }

    /// Where operators connect over TCP, if anywhere.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.estate.admin.port.as_ref()?.local_addr().ok()
    }

    /// Returns once an operator wants the program to end. Cancel safe.
    pub async fn shutdown_wanted(&self) -> Shutdown {
        self.estate.host.shutdown_wanted().await
    }

    /// Reads the configuration file again and puts in force what can change while clients are there. Returns what
    /// changed and what needs a restart, a line each.
    ///
    /// # Errors
    /// The file cannot be used: then nothing has changed.
    pub async fn reload(&self) -> Result<Vec<String>, String> {
        let done = self.estate.reload.reload().await?;
        Ok(done.into_iter().map(|row| format!("{}: {}", row.what, row.outcome)).collect())
    }

    /// `timeouts.drain` of the configuration in force.
    pub fn drain_limit(&self) -> Duration {
        self.estate.doors.context().config.timeouts.drain
    }

    /// All metrics, in the format of [`METRICS_CONTENT_TYPE`].
    pub fn metrics_text(&self) -> String {
        self.metrics.render()
    }

    /// Lets no more clients in, lets sessions come to their end until `deadline`, ends the others with a clear
    /// error, closes the server connections. Returns how many sessions had to be ended.
    ///
    /// A session that holds a server connection comes to its end when its client leaves: in session pooling
    /// nobody but the client knows whether its state is still needed.
    pub async fn drain(&self, deadline: Duration) -> usize {
        let doors = &self.estate.doors;
        doors.closed.send_replace(true);
        doors.stop_listening();
        doors.table.wish(Wish::Drain);
        // Without an end on any clock: for as long as it takes.
        let over = Instant::now().checked_add(deadline);
        let left = || over.map_or(DRAIN_STEP, |over| over.saturating_duration_since(Instant::now()));
        while doors.table.clients() > 0 && !left().is_zero() {
            tokio::time::sleep(DRAIN_STEP.min(left())).await;
        }
        let ended = doors.table.clients();
        if ended > 0 {
            warn!(sessions = ended, "ended at the drain's deadline");
            doors.table.wish(Wish::End);
            wait_until(END_WAIT, || doors.table.clients() == 0).await;
        }
        let buckets = self.estate.directory.all();
        for bucket in &*buckets {
            bucket.drain();
        }
        let all_closed = || buckets.iter().all(|bucket| bucket.shared().slots.used() == 0);
        wait_until(END_WAIT, all_closed).await;
        self.estate.coordinator.leave().await;
        doors.context().telemetry.flush(FLUSH_WAIT).await;
        self.root.stop(None);
        let mut finished = self.ended.clone();
        drop(tokio::time::timeout(END_WAIT, finished.wait_for(Option::is_some)).await);
        ended
    }

    /// Returns once the proxy has ended: true if it was drained, false if it gave up after too many crashes.
    pub async fn finished(&self) -> bool {
        let mut ended = self.ended.clone();
        let outcome = ended.wait_for(Option::is_some).await.map(|ended| *ended);
        outcome.ok().flatten().unwrap_or(false)
    }
}

async fn wait_until(limit: Duration, done: impl Fn() -> bool) {
    let over = Instant::now() + limit;
    while !done() && Instant::now() < over {
        tokio::time::sleep(DRAIN_STEP).await;
    }
}

fn bucket_health(bucket: &BucketHandle) -> BucketHealth {
    let shared = bucket.shared();
    BucketHealth {
        name: bucket.name().to_string(),
        state: bucket.state(),
        max_connections: bucket.settings().max_connections,
        quota: shared.slots.quota(Instant::now()),
        used: shared.slots.used(),
        idle: shared.idle(),
        leased: shared.counts.leased.load(Ordering::Relaxed),
        waiting: shared.counts.waiting.load(Ordering::Relaxed),
        clients: bucket.clients(),
        error: shared.failure(),
    }
}

fn listen(listener: &Arc<Listener>) -> Result<(Arc<Listener>, Arc<TcpListener>), StartError> {
    let open = || {
        let socket = if listener.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(listener.address)?;
        socket.listen(listener.backlog)
    };
    let socket = open().map_err(|source| StartError::Listen {
        listener: listener.name.clone(),
        address: listener.address,
        source,
    })?;
    Ok((Arc::clone(listener), Arc::new(socket)))
}

async fn listen_for_operators(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen {
        listener: "admin".to_owned(),
        address,
        source,
    })
}

fn default_shards() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
