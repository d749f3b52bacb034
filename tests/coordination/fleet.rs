//! Proxy processes before one stand-in server, and the clients that a load balancer spreads over them.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tdsbouncer_sim::{SimHandle, SimOptions, SimServer};
use tokio::task::JoinSet;

use crate::client::{Client, LoggedIn, Who};

/// Connections that the server may see.
pub const LIMIT: usize = 20;

/// Long enough for a busy machine, short enough for a test.
pub const LEASE: Duration = Duration::from_secs(5);

/// Nothing here takes that long.
const PATIENCE: Duration = Duration::from_secs(60);

/// One proxy.
pub struct Proxy {
    pub address: SocketAddr,
    folder: tempfile::TempDir,
    /// Variables that it is started with.
    environment: Vec<(String, PathBuf)>,
    child: Option<Child>,
}

impl Proxy {
    fn start(name: &str, buckets: &[SimHandle], environment: &[(&str, &Path)], coordinator: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        drop(listener);
        let socket = folder.path().join("admin.sock");
        let mut text = format!(
            "[[listeners]]\nname = \"main\"\naddress = \"{address}\"\n[listeners.tls]\nmode = \"off\"\n\
             [defaults]\nmax_connections = {LIMIT}\nacquire_timeout = \"25s\"\nserver_tls = {{ mode = \"off\" }}\n\
             [coordinator]\nkind = \"redis\"\ninstance = \"{name}\"\n{coordinator}\n\
             [admin]\nsocket = {socket:?}\n[health]\naddress = \"off\"\n[metrics]\naddress = \"off\"\n\
             [timeouts]\ndrain = \"3s\"\n",
        );
        if !coordinator.contains("lease_time") {
            let lease = format!("kind = \"redis\"\nlease_time = \"{}ms\"", LEASE.as_millis());
            text = text.replace("kind = \"redis\"", &lease);
        }
        for (number, server) in buckets.iter().enumerate() {
            text += &format!(
                "[[buckets]]\nname = \"b{number}\"\nhost = \"127.0.0.1\"\nport = {}\ndatabases = [\"{}\"]\n",
                server.addr().port(),
                database(number)
            );
        }
        fs::write(folder.path().join("proxy.toml"), text).expect("a file of ours");
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), value.to_path_buf()));
        let mut proxy = Self { address, folder, environment: environment.collect(), child: None };
        proxy.start_again();
        proxy
    }

    pub fn start_again(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tdsbouncer"));
        command.arg("run").arg("--config").arg(self.folder.path().join("proxy.toml")).stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("log"));
        command.stderr(log.expect("a file of ours"));
        self.child = Some(command.spawn().expect("the proxy starts"));
        let over = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address).is_err() {
            assert!(Instant::now() < over, "the proxy does not listen on {}: {}", self.address, self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Writes the configuration anew, as `change` says, and has it read.
    pub fn reload(&self, change: impl Fn(&str) -> String) {
        let path = self.folder.path().join("proxy.toml");
        let text = fs::read_to_string(&path).expect("a file of ours");
        fs::write(&path, change(&text)).expect("a file of ours");
        self.signal("HUP");
    }

    pub fn signal(&self, name: &str) {
        let child = self.child.as_ref().expect("it runs");
        let sent = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
        assert!(sent.expect("kill is there").success());
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("a child of ours");
        child.wait().expect("a child of ours");
    }

    /// SIGTERM, and waits until it has ended.
    pub fn drain(&mut self) {
        self.signal("TERM");
        let ended = self.child.take().expect("it runs").wait().expect("a child of ours");
        assert!(ended.success(), "{ended}: {}", self.log());
    }

    /// The signal that ended it, if one did.
    pub fn ended_by(&mut self) -> Option<i32> {
        let ended = self.child.as_mut()?.try_wait().expect("a child of ours")?;
        self.child = None;
        ended.signal()
    }

    /// A row of `admin show coordinator` for each proxy.
    pub fn coordinator(&self) -> Vec<serde_json::Value> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tdsbouncer"));
        command.args(["admin", "--json", "--socket"]).arg(self.folder.path().join("admin.sock"));
        let output = command.args(["show", "coordinator"]).output().expect("the program runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Of these rows, how this proxy itself stands with Redis, one for each bucket.
    pub fn rows_of_its_own(&self) -> impl Iterator<Item = serde_json::Value> {
        let modes = ["joining", "normal", "reconciling", "fallback", "cut", "idle"];
        let own =
            move |row: &serde_json::Value| row["state"].as_str().is_some_and(|mode| modes.contains(&mode));
        self.coordinator().into_iter().filter(own)
    }

    /// How this proxy stands with Redis about the first bucket.
    pub fn mode(&self) -> String {
        let own = self.rows_of_its_own().next();
        own.and_then(|row| row["state"].as_str().map(str::to_owned)).unwrap_or_default()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The database whose clients go to this bucket.
pub fn database(bucket: usize) -> String {
    format!("shop{bucket}")
}

/// What clients met.
#[derive(Default)]
pub struct Met {
    pub served: AtomicU64,
    /// Told an error of the proxy's.
    pub refused: AtomicU64,
    /// Lost their connection without a word.
    pub lost: AtomicU64,
    /// Told something that nobody should be told.
    pub strange: AtomicU64,
}

/// Proxies, a server for each bucket, and clients.
pub struct Fleet {
    pub servers: Vec<SimHandle>,
    pub proxies: Vec<Proxy>,
    pub met: Arc<Met>,
    stop: Arc<AtomicBool>,
    clients: JoinSet<()>,
}

impl Fleet {
    /// Three proxies before one server; `coordinator` says for each what its configuration has beside the lease time.
    pub fn start(coordinator: impl Fn(usize) -> String) -> Self {
        Self::of(3, 1, coordinator)
    }

    /// So many proxies before so many servers.
    pub fn of(proxies: usize, buckets: usize, coordinator: impl Fn(usize) -> String) -> Self {
        let server = |bucket| {
            let databases = vec![database(bucket)];
            SimServer::start(SimOptions { databases, ..SimOptions::default() }).expect("the stand-in starts")
        };
        let mut fleet = Self {
            servers: (0..buckets).map(server).collect(),
            proxies: Vec::new(),
            met: Arc::default(),
            stop: Arc::default(),
            clients: JoinSet::new(),
        };
        for number in 0..proxies {
            fleet.join(&coordinator(number));
        }
        fleet
    }

    /// Proxies before one server, with these variables in their environment.
    pub fn known(
        proxies: usize,
        environment: &[(&str, &Path)],
        coordinator: impl Fn(usize) -> String,
    ) -> Self {
        let mut fleet = Self::of(0, 1, &coordinator);
        for number in 0..proxies {
            let name = format!("p{number}");
            fleet.proxies.push(Proxy::start(&name, &fleet.servers, environment, &coordinator(number)));
        }
        fleet
    }

    /// One more proxy.
    pub fn join(&mut self, coordinator: &str) {
        let name = format!("p{}", self.proxies.len());
        self.proxies.push(Proxy::start(&name, &self.servers, &[], coordinator));
    }

    /// Clients that come, ask a few things that take so many milliseconds, and leave, until they are stopped.
    pub fn clients(&mut self, count: usize, takes: u32) {
        let addresses: Vec<SocketAddr> = self.proxies.iter().map(|proxy| proxy.address).collect();
        for number in 0..count {
            let (met, stop, addresses) = (Arc::clone(&self.met), Arc::clone(&self.stop), addresses.clone());
            let who = Who { database: database(number % self.servers.len()), ..Who::default() };
            self.clients.spawn(async move {
                let mut at = number;
                while !stop.load(Ordering::Relaxed) {
                    at += 1;
                    come(addresses[at % addresses.len()], &who, takes, &met).await;
                    tokio::time::sleep(Duration::from_millis(5 + (at % 50) as u64)).await;
                }
            });
        }
    }

    /// Clients that stay, each at its proxy, and ask one thing after the other.
    pub fn steady_clients(&mut self, count: usize) {
        for number in 0..count {
            let (met, stop) = (Arc::clone(&self.met), Arc::clone(&self.stop));
            let who = Who { database: database(number % self.servers.len()), ..Who::default() };
            let address = self.proxies[number / self.servers.len() % self.proxies.len()].address;
            self.clients.spawn(async move {
                let mut client = Client::connect(address, &who).await;
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(client.batch("SELECT 7").await.number(), 7);
                    met.served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    }

    pub fn served(&self) -> u64 {
        self.met.served.load(Ordering::Relaxed)
    }

    /// Connections that the servers see now.
    pub fn open(&self) -> usize {
        self.servers.iter().map(|server| server.stats().open).sum()
    }

    pub async fn for_a_while(&self, time: Duration) {
        let over = Instant::now() + time;
        while Instant::now() < over {
            self.within_limit();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[track_caller]
    pub fn within_limit(&self) {
        for stats in self.servers.iter().map(SimHandle::stats) {
            assert!(stats.peak <= LIMIT, "{stats:?}: {:#?}", self.logs());
        }
    }

    pub fn logs(&self) -> Vec<String> {
        self.proxies.iter().map(Proxy::log).collect()
    }

    /// Waits, within reason, until `done`.
    pub async fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let over = Instant::now() + PATIENCE;
        while !done(self) {
            self.within_limit();
            if Instant::now() >= over {
                let stands: Vec<_> = self.proxies.iter().flat_map(Proxy::rows_of_its_own).collect();
                panic!("{what}: {} open, {stands:#?}, {:#?}", self.open(), self.logs());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Clients are served.
    pub async fn until_served(&mut self, more: u64) {
        let before = self.served();
        self.until("clients are served", |fleet| fleet.served() >= before + more).await;
    }

    /// Everything is well again: all proxies agree with Redis, and all slots are in use.
    pub async fn until_all_slots_are_used(&mut self) {
        self.until("all slots are used again", |fleet| {
            fleet.servers.iter().all(|server| server.stats().open == LIMIT)
        })
        .await;
    }

    /// The end: clients leave, nobody was treated badly, and the limit held.
    pub async fn end(mut self) {
        self.until_all_slots_are_used().await;
        self.stop().await;
        self.within_limit();
        assert_eq!(self.met.strange.load(Ordering::Relaxed), 0, "{:#?}", self.logs());
        println!(
            "served {}, refused {}, lost {}; most connections {:?}",
            self.served(),
            self.met.refused.load(Ordering::Relaxed),
            self.met.lost.load(Ordering::Relaxed),
            self.servers.iter().map(|server| server.stats().peak).collect::<Vec<_>>()
        );
    }

    /// Clients end what they do and leave.
    pub async fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(client) = self.clients.join_next().await {
            client.expect("a client ends");
        }
    }
}

/// One client's visit.
async fn come(address: SocketAddr, who: &Who, takes: u32, met: &Met) {
    let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
    let told = |number: i32| match number {
        10928 | 40501 | 40613 | 40197 | 50001 => count(&met.refused),
        _ => count(&met.strange),
    };
    let logging_in = tokio::time::timeout(Duration::from_secs(20), Client::try_connect(address, who));
    let mut client = match logging_in.await {
        Ok(Ok(LoggedIn::Yes(client))) => *client,
        Ok(Ok(LoggedIn::No(errors))) => {
            told(errors.first().map_or(0, |error| error.number));
            return;
        }
        // A proxy that sleeps does not even refuse.
        Ok(Err(_)) | Err(_) => {
            count(&met.lost);
            return;
        }
    };
    for round in 0..3i64 {
        let batch = format!("WAITFOR DELAY '00:00:00.{takes:03}'; SELECT {round}");
        match tokio::time::timeout(Duration::from_secs(40), client.try_batch(&batch)).await {
            Ok(Ok(response)) if response.errors.is_empty() => {
                assert_eq!(response.number(), round);
                count(&met.served);
            }
            Ok(Ok(response)) => {
                told(response.error());
                if response.errors.iter().any(|error| error.class >= 20) {
                    return;
                }
            }
            Ok(Err(_)) | Err(_) => {
                count(&met.lost);
                return;
            }
        }
    }
}
