//! Starting and stopping a stand-in server, and what its owner can ask it.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::connection;
use crate::engine::Engine;
use crate::engine::{EngineError, EngineOptions};
use crate::fault::{Fault, Faults};
use crate::options::{Encryption, SimOptions, User};
use crate::registry::{ConnectionInfo, Registry, Stats};
use crate::tls::TlsConfigs;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;

/// Requests that wait (WAITFOR, locks, slow readers) hold a thread each; idle connections hold none.
const MAX_WAITING: usize = 8192;

/// The longest a statement waits for another session's lock before it is taken for a deadlock.
const LOCK_WAIT: Duration = Duration::from_secs(60);

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// The address cannot be listened on, a file cannot be read, a thread cannot be started.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The reason.
        source: std::io::Error,
    },
    /// The engine cannot start.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The certificate or key is unusable.
    #[error("certificate: {0}")]
    Certificate(String),
    /// TLS does not accept the certificate.
    #[error("tls: {0}")]
    Tls(#[from] rustls::Error),
}

/// A stand-in SQL Server.
#[derive(Clone, Copy, Debug)]
pub struct SimServer;

impl SimServer {
    /// Starts a server on a runtime of its own, so that it can be used from any context: tests, async or not, and
    /// programs. It listens when this returns.
    pub fn start(options: SimOptions) -> Result<SimHandle, SimError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(options.worker_threads.max(1))
            .max_blocking_threads(MAX_WAITING)
            .thread_name(format!("sim-{}", options.name))
            .enable_all()
            .build()?;
        let listener = {
            let _inside = runtime.enter();
            listen(options.listen).map_err(|source| SimError::Listen { address: options.listen, source })?
        };
        let addr = listener.local_addr()?;
        let tls = TlsConfigs::new(&options.certificate, &options.name)?;
        let registry = Arc::new(Registry::new(
            options.max_connections,
            options.memory_total,
            options.memory_per_connection,
        ));
        let engine = Engine::new(EngineOptions {
            server_name: options.name.clone(),
            databases: options.databases.clone(),
            data_dir: None,
            lock_wait: LOCK_WAIT,
            connections: Some(registry.clone()),
        })?;
        let (stop, stopped) = watch::channel(false);
        let faults = Arc::new(Faults::default());
        options.faults.iter().for_each(|fault| faults.arm(fault.clone()));
        let shared = Arc::new(Shared {
            users: RwLock::new(options.users.clone()),
            options,
            engine,
            tls,
            registry,
            faults,
        });
        runtime.spawn(accept(listener, shared.clone(), stopped));
        Ok(SimHandle { addr, shared, stop, runtime: Some(runtime) })
    }
}

/// What all connections of one server share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: SimOptions,
    pub(crate) engine: Engine,
    pub(crate) tls: TlsConfigs,
    pub(crate) registry: Arc<Registry>,
    pub(crate) faults: Arc<Faults>,
    users: RwLock<Vec<User>>,
}

impl Shared {
    /// The login of that name.
    pub(crate) fn user(&self, name: &str) -> Option<User> {
        let users = self.users.read().unwrap_or_else(PoisonError::into_inner);
        users.iter().find(|user| user.name.eq_ignore_ascii_case(name)).cloned()
    }

    /// Gives a login another password.
    pub(crate) fn change_password(&self, name: &str, password: &str) {
        let mut users = self.users.write().unwrap_or_else(PoisonError::into_inner);
        for user in users.iter_mut().filter(|user| user.name.eq_ignore_ascii_case(name)) {
            password.clone_into(&mut user.password);
        }
    }
}

/// A running server. Dropping it stops the server and closes its connections.
#[derive(Debug)]
pub struct SimHandle {
    addr: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    runtime: Option<Runtime>,
}

impl SimHandle {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The numbers since the start.
    pub fn stats(&self) -> Stats {
        self.shared.registry.stats()
    }

    /// Every open connection, in order of arrival.
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        self.shared.registry.connections()
    }

    /// From now on, `Stats::peak` counts from what is open at this moment.
    pub fn restart_peak(&self) {
        self.shared.registry.restart_peak();
    }

    /// Changes the connection limit for connections accepted from now on.
    pub fn limit_connections(&self, max: usize) {
        self.shared.registry.limit(max);
    }

    /// What goes wrong on this server, for all its connections.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Closes the connection of that `@@SPID`; false if there is none.
    pub fn kill(&self, spid: u16) -> bool {
        self.shared.registry.kill(spid)
    }

    /// Closes all connections; the server goes on.
    pub fn kill_all(&self) {
        self.shared.registry.kill_all();
    }

    /// The engine behind the wire, to prepare data with.
    pub fn engine(&self) -> &Engine {
        &self.shared.engine
    }

    /// Adds a SQL login, or gives an existing one another password and database.
    pub fn add_user(&self, user: User) {
        let mut users = self.shared.users.write().unwrap_or_else(PoisonError::into_inner);
        users.retain(|known| !known.name.eq_ignore_ascii_case(&user.name));
        users.push(user);
    }

    /// The server's certificate chain as PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.shared.tls.pem
    }

    /// Stops the server and closes its connections; returns when its port is free.
    pub fn shutdown(mut self) {
        self.stop_now();
    }

    fn stop_now(&mut self) {
        // Nobody listens any more if the accept loop is gone.
        let _ = self.stop.send(true);
        self.shared.registry.kill_all();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for SimHandle {
    fn drop(&mut self) {
        self.stop_now();
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => return,
        };
        match accepted {
            Ok((stream, peer)) => admit(stream, peer, &shared),
            // Out of descriptors: wait until some connection closes.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

fn admit(stream: TcpStream, peer: SocketAddr, shared: &Arc<Shared>) {
    if shared.faults.strikes(&Fault::RefuseConnections) {
        // A reset where it can be had: the client cannot take it for an orderly end.
        let _ = stream.set_zero_linger();
        return;
    }
    let _ = stream.set_nodelay(true);
    let seat = shared.registry.accept(peer);
    tokio::spawn(connection::serve(stream, seat, shared.clone()));
}

/// True if a connection that begins with TLS (TDS 8.0) is welcome.
pub(crate) fn speaks_strict(options: &SimOptions) -> bool {
    options.encryption != Encryption::NotSupported
        && matches!(options.kind, crate::options::ServerKind::SqlServer2022)
}
