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
    /// Further arguments of redis-cli: how it shows itself, where TLS is.
    login: Vec<String>,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Redis {
    /// Starts one with these further arguments.
    pub fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut redis = Self { port: free_port(), folder, login: Vec::new(), arguments, child: None };
        redis.start_again();
        redis
    }

    /// One that listens with TLS only, with this certificate, key and authority.
    pub fn start_tls([certificate, key, authority]: [&Path; 3]) -> Self {
        let port = free_port();
        let files = ["--tls-cert-file", "--tls-key-file", "--tls-ca-cert-file"].into_iter();
        let mut arguments =
            vec!["--save".to_owned(), String::new(), "--tls-port".to_owned(), port.to_string()];
        for (name, path) in files.zip([certificate, key, authority]) {
            arguments.extend([name.to_owned(), path.display().to_string()]);
        }
        arguments.extend(["--tls-auth-clients".to_owned(), "no".to_owned()]);
        let login = ["--tls", "--cacert", &authority.display().to_string()].map(str::to_owned).to_vec();
        let folder = tempfile::tempdir().expect("a folder");
        let mut redis = Self { port, folder, login, arguments, child: None };
        redis.start_again();
        redis
    }

    /// How many commands clients sent, without what scripts did and what this asks itself.
    pub fn commands(&self) -> u64 {
        let inner = ["hgetall", "hset", "hdel", "time", "publish", "info"];
        let stats = self.ask(&["INFO", "commandstats"]);
        let line = |line: &str| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            let calls: u64 = rest.split(',').next()?.parse().ok()?;
            (!inner.contains(&name)).then_some(calls)
        };
        stats.lines().filter_map(line).sum()
    }

    /// How often this command was called.
    pub fn calls(&self, command: &str) -> u64 {
        let stats = self.ask(&["INFO", "commandstats"]);
        let begin = format!("cmdstat_{command}:calls=");
        let line = stats.lines().find_map(|line| line.strip_prefix(&begin));
        line.and_then(|line| line.split(',').next()).map_or(0, |calls| calls.parse().expect("a number"))
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
        let tls = self.login.iter().any(|word| word == "--tls");
        let port = if tls { "0".to_owned() } else { self.port.to_string() };
        command.args(["--port", &port, "--bind", "127.0.0.1", "--dir"]).arg(self.folder());
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
        cli.args(["-p", &port]).args(&self.login).args(command).stdin(Stdio::null());
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

/// A master, its replicas and three Sentinels. Replicas and Sentinels show themselves as the user `watcher`; proxies
/// may as `proxy`.
pub struct Watched {
    pub master: Redis,
    pub replicas: Vec<Redis>,
    pub sentinels: Vec<Redis>,
}

impl Watched {
    pub fn start(replicas: usize) -> Self {
        let mut with = vec!["--save", "", "--masteruser", "watcher", "--masterauth", "w4tch"];
        for (user, password) in [("watcher", ">w4tch"), ("proxy", ">pr0xy")] {
            with.extend(["--user", user, "on", password, "~*", "&*", "+@all"]);
        }
        let master = Redis::start(&with);
        let port = master.port.to_string();
        with.extend(["--replicaof", "127.0.0.1", &port]);
        let replicas: Vec<Redis> = (0..replicas).map(|_| Redis::start(&with)).collect();
        for replica in &replicas {
            until("the replica follows", || {
                replica.ask(&["INFO", "replication"]).contains("master_link_status:up")
            });
        }
        let sentinels = (0..3).map(|_| sentinel(master.port)).collect::<Vec<_>>();
        for sentinel in &sentinels {
            let whole = format!("slaves={},sentinels=3", replicas.len());
            until("Sentinels know each other and the replicas", || {
                sentinel.ask(&["INFO", "sentinel"]).contains(&whole)
            });
        }
        Self { master, replicas, sentinels }
    }

    /// The master lives on, and proxies that talk to it can go on; Sentinels, replicas and strangers cannot.
    pub fn cut_off_master(&mut self) {
        let login = ["--user", "proxy", "--pass", "pr0xy", "--no-auth-warning"];
        self.master.login = login.map(str::to_owned).to_vec();
        for user in ["watcher", "default"] {
            assert_eq!(self.master.ask(&["ACL", "SETUSER", user, "off"]), "OK");
            self.master.ask(&["CLIENT", "KILL", "USER", user]);
        }
        self.master.ask(&["CLIENT", "KILL", "TYPE", "replica"]);
    }

    pub fn until_a_replica_is_master(&self) {
        until("a replica is made master", || {
            self.replicas.iter().any(|replica| replica.ask(&["ROLE"]).starts_with("master"))
        });
    }
}

fn sentinel(master: u16) -> Redis {
    let folder = tempfile::tempdir().expect("a folder");
    let file: PathBuf = folder.path().join("sentinel.conf");
    let text = format!(
        "sentinel monitor mymaster 127.0.0.1 {master} 2\nsentinel down-after-milliseconds mymaster 1000\n\
         sentinel failover-timeout mymaster 5000\nsentinel auth-user mymaster watcher\n\
         sentinel auth-pass mymaster w4tch\n"
    );
    std::fs::write(file, text).expect("a file of ours");
    let mut redis =
        Redis { port: free_port(), folder, login: Vec::new(), arguments: Vec::new(), child: None };
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
