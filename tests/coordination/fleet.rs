//! Proxy processes before one stand-in server, and the clients that a load balancer spreads over them.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
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
    child: Option<Child>,
}

impl Proxy {
    fn start(name: &str, server: SocketAddr, coordinator: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        drop(listener);
        let socket = folder.path().join("admin.sock");
        let text = format!(
            "[[listeners]]\nname = \"main\"\naddress = \"{address}\"\n[listeners.tls]\nmode = \"off\"\n\
             [[buckets]]\nname = \"b1\"\nhost = \"127.0.0.1\"\nport = {}\ndefault = true\n\
             max_connections = {LIMIT}\nacquire_timeout = \"25s\"\nserver_tls = {{ mode = \"off\" }}\n\
             [coordinator]\nkind = \"redis\"\ninstance = \"{name}\"\nlease_time = \"{}ms\"\n{coordinator}\n\
             [admin]\nsocket = {socket:?}\n[health]\naddress = \"off\"\n[metrics]\naddress = \"off\"\n\
             [timeouts]\ndrain = \"3s\"\n",
            server.port(),
            LEASE.as_millis(),
        );
        fs::write(folder.path().join("proxy.toml"), text).expect("a file of ours");
        let mut proxy = Self { address, folder, child: None };
        proxy.start_again();
        proxy
    }

    pub fn start_again(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tdsbouncer"));
        command.arg("run").arg("--config").arg(self.folder.path().join("proxy.toml")).stdin(Stdio::null());
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("log"));
        command.stderr(log.expect("a file of ours"));
        self.child = Some(command.spawn().expect("the proxy starts"));
        let over = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address).is_err() {
            assert!(Instant::now() < over, "the proxy does not listen on {}", self.address);
            std::thread::sleep(Duration::from_millis(20));
        }
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

    /// How this proxy stands with Redis.
    pub fn mode(&self) -> String {
        let modes = ["joining", "normal", "reconciling", "fallback", "cut"];
        let rows = self.coordinator();
        let own = rows.iter().find_map(|row| row["state"].as_str().filter(|mode| modes.contains(mode)));
        own.unwrap_or_default().to_owned()
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

/// Proxies, a server and clients.
pub struct Fleet {
    pub server: SimHandle,
    pub proxies: Vec<Proxy>,
    pub met: Arc<Met>,
    stop: Arc<AtomicBool>,
    clients: JoinSet<()>,
}

impl Fleet {
    /// Three proxies; `coordinator` says for each what its configuration has beside the lease time.
    pub fn start(coordinator: impl Fn(usize) -> String) -> Self {
        let server =
            SimServer::start(SimOptions { databases: vec!["shop".to_owned()], ..SimOptions::default() });
        let server = server.expect("the stand-in starts");
        let mut fleet = Self {
            server,
            proxies: Vec::new(),
            met: Arc::default(),
            stop: Arc::default(),
            clients: JoinSet::new(),
        };
        for number in 0..3 {
            fleet.join(&coordinator(number));
        }
        fleet
    }

    /// One more proxy.
    pub fn join(&mut self, coordinator: &str) {
        let name = format!("p{}", self.proxies.len());
        self.proxies.push(Proxy::start(&name, self.server.addr(), coordinator));
    }

    /// Clients that come, ask a few things and leave, until they are stopped.
    pub fn clients(&mut self, count: usize) {
        let addresses: Vec<SocketAddr> = self.proxies.iter().map(|proxy| proxy.address).collect();
        for number in 0..count {
            let (met, stop, addresses) = (Arc::clone(&self.met), Arc::clone(&self.stop), addresses.clone());
            self.clients.spawn(async move {
                let mut at = number;
                while !stop.load(Ordering::Relaxed) {
                    at += 1;
                    come(addresses[at % addresses.len()], &met).await;
                    tokio::time::sleep(Duration::from_millis(5 + (at % 50) as u64)).await;
                }
            });
        }
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
        let stats = self.server.stats();
        assert!(stats.peak <= LIMIT, "{stats:?}: {:?}", self.logs());
    }

    fn logs(&self) -> Vec<String> {
        self.proxies.iter().map(Proxy::log).collect()
    }

    /// Waits, within reason, until `done`.
    pub async fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let over = Instant::now() + PATIENCE;
        while !done(self) {
            self.within_limit();
            assert!(Instant::now() < over, "{what}: {:?} {:#?}", self.server.stats(), self.logs());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Clients are served.
    pub async fn until_served(&mut self, more: u64) {
        let before = self.met.served.load(Ordering::Relaxed);
        self.until("clients are served", |fleet| fleet.met.served.load(Ordering::Relaxed) >= before + more)
            .await;
    }

    /// Everything is well again: all proxies agree with Redis, and all slots are in use.
    pub async fn until_all_slots_are_used(&mut self) {
        self.until("all slots are used again", |fleet| fleet.server.stats().open == LIMIT).await;
    }

    /// The end: clients leave, nobody was treated badly, and the limit held.
    pub async fn end(mut self) {
        self.until_all_slots_are_used().await;
        self.stop.store(true, Ordering::Relaxed);
        while let Some(client) = self.clients.join_next().await {
            client.expect("a client ends");
        }
        self.within_limit();
        assert_eq!(self.met.strange.load(Ordering::Relaxed), 0, "{:#?}", self.logs());
        println!(
            "served {}, refused {}, lost {}; most connections {}",
            self.met.served.load(Ordering::Relaxed),
            self.met.refused.load(Ordering::Relaxed),
            self.met.lost.load(Ordering::Relaxed),
            self.server.stats().peak
        );
    }
}

/// One client's visit.
async fn come(address: SocketAddr, met: &Met) {
    let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
    let told = |number: i32| match number {
        10928 | 40501 | 40613 | 40197 | 50001 => count(&met.refused),
        _ => count(&met.strange),
    };
    let who = Who::default();
    let logging_in = tokio::time::timeout(Duration::from_secs(20), Client::try_connect(address, &who));
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
        let batch = format!("WAITFOR DELAY '00:00:00.010'; SELECT {round}");
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
