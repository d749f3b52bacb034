//! Redis processes of a test: alone, with a replica and Sentinels, or as a cluster.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

pub fn free_port() -> u16 {
    // A cluster's bus is at 10000 above, so that must be a port too.
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        if port < 55_000 {
            return port;
        }
    }
}

/// One redis-server (or Sentinel), which can be killed and started again with or without its data.
pub struct Redis {
    pub port: u16,
    folder: tempfile::TempDir,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Redis {
    /// Starts one with these further arguments.
    pub fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut redis = Self { port: free_port(), folder, arguments, child: None };
        redis.start_again();
        redis
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn start_again(&mut self) {
        let mut command = Command::new("redis-server");
        let sentinel = self.folder().join("sentinel.conf");
        if sentinel.exists() {
            command.arg(sentinel).arg("--sentinel");
        }
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--dir"]).arg(self.folder());
        command.args(&self.arguments).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().expect("redis-server is installed (tests/run installs it)"));
        let over = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address()).is_err() || self.ask(&["PING"]) != "PONG" {
            assert!(Instant::now() < over, "redis-server does not answer on {}", self.port);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a child of ours");
            child.wait().expect("a child of ours");
        }
    }

    /// Kills it and takes its data away.
    pub fn kill_and_empty(&mut self) {
        self.kill();
        for name in ["dump.rdb", "appendonlydir"] {
            let path = self.folder().join(name);
            let _ = std::fs::remove_dir_all(&path);
            let _ = std::fs::remove_file(&path);
        }
    }

    /// What redis-cli says.
    pub fn ask(&self, command: &[&str]) -> String {
        let port = self.port.to_string();
        let mut cli = Command::new("redis-cli");
        cli.args(["-p", &port]).args(command).stdin(Stdio::null());
        let output = cli.output().expect("redis-cli is installed (tests/run installs it)");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn until(what: &str, done: impl Fn() -> bool) {
    let over = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < over, "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A master, its replica and three Sentinels.
pub struct Watched {
    pub master: Redis,
    pub replica: Redis,
    pub sentinels: Vec<Redis>,
}

impl Watched {
    pub fn start() -> Self {
        let master = Redis::start(&["--save", ""]);
        let replica = Redis::start(&["--save", "", "--replicaof", "127.0.0.1", &master.port.to_string()]);
        until("the replica follows", || {
            replica.ask(&["INFO", "replication"]).contains("master_link_status:up")
        });
        let sentinels = (0..3).map(|_| sentinel(master.port)).collect::<Vec<_>>();
        for sentinel in &sentinels {
            until("Sentinels know each other and the replica", || {
                let known = sentinel.ask(&["INFO", "sentinel"]);
                known.contains("slaves=1,sentinels=3")
            });
        }
        Self { master, replica, sentinels }
    }

    pub fn until_replica_is_master(&self) {
        until("the replica is made master", || self.replica.ask(&["ROLE"]).starts_with("master"));
    }
}

fn sentinel(master: u16) -> Redis {
    let folder = tempfile::tempdir().expect("a folder");
    let file: PathBuf = folder.path().join("sentinel.conf");
    let text = format!(
        "sentinel monitor mymaster 127.0.0.1 {master} 2\nsentinel down-after-milliseconds mymaster 1000\n\
         sentinel failover-timeout mymaster 5000\n"
    );
    std::fs::write(file, text).expect("a file of ours");
    let mut redis = Redis { port: free_port(), folder, arguments: Vec::new(), child: None };
    redis.start_again();
    redis
}

/// Three masters.
pub struct Cluster {
    pub nodes: Vec<Redis>,
}

impl Cluster {
    pub fn start() -> Self {
        let node = |_| {
            Redis::start(&[
                "--cluster-enabled",
                "yes",
                "--appendonly",
                "yes",
                "--cluster-node-timeout",
                "2000",
            ])
        };
        let nodes: Vec<Redis> = (0..3).map(node).collect();
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]).args(nodes.iter().map(|node| node.address().to_string()));
        let made = create.args(["--cluster-yes"]).output().expect("redis-cli is installed");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
        for node in &nodes {
            until("the cluster is whole", || node.ask(&["CLUSTER", "INFO"]).contains("cluster_state:ok"));
        }
        Self { nodes }
    }
}
