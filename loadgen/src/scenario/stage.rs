//! Where a scenario plays: servers and proxies of its own as processes, or somebody's, described by a file.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::plan::Destination;

/// Nothing of ours starts slower than this, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(60);

/// The login of our own servers: it protects nothing.
const PASSWORD: &str = "Demo-passw0rd";

/// What a scenario of our own stage needs.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The program: `sim` and `run` are commands of it.
    pub program: PathBuf,
    /// SQL Servers, each a bucket with two databases.
    pub buckets: usize,
    /// Proxies; those from `running` on are started later.
    pub proxies: usize,
    /// How many of them run at the start.
    pub running: usize,
    /// Server connections allowed to each bucket, over all proxies.
    pub limit: u32,
    /// `session` or `transaction`.
    pub pool_mode: String,
    /// More lines for the proxies' `[defaults]`.
    pub defaults: String,
    /// Through what the proxies agree.
    pub redis: Redis,
}

/// Through what several proxies agree on the limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redis {
    /// Nothing: each proxy has its part of every limit.
    None,
    /// A server of the stage's own, of the program `redis-server`, that can be killed.
    Own,
    /// Somebody's, as `redis://HOST:PORT`.
    At(String),
}

/// Addresses, logins and levers.
pub struct Stage {
    /// Where programs connect.
    pub addresses: Vec<SocketAddr>,
    /// Where proxies tell their health.
    pub health: Vec<SocketAddr>,
    /// Databases and logins.
    pub destinations: Vec<Destination>,
    /// Server connections allowed to each bucket over all proxies, where it is known.
    pub limit: Option<u32>,
    /// `session` or `transaction`.
    pub pool_mode: String,
    own: Option<Own>,
    levers: Vec<Levers>,
    redis: Levers,
}

/// Commands that make something fail and mend it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Levers {
    kill: Option<String>,
    start: Option<String>,
}

struct Own {
    spec: Spec,
    folder: PathBuf,
    servers: Vec<Child>,
    proxies: Vec<Option<Child>>,
    /// Where our own Redis is, and its process while it runs.
    redis: Option<(SocketAddr, Option<Child>)>,
}

/// A stage as a file describes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    addresses: Vec<String>,
    #[serde(default)]
    health: Vec<String>,
    #[serde(default)]
    pool_mode: Option<String>,
    #[serde(default)]
    limit: Option<u32>,
    #[serde(default)]
    proxies: Vec<Levers>,
    #[serde(default)]
    redis: Levers,
    buckets: Vec<FileBucket>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileBucket {
    name: String,
    databases: Vec<String>,
    user: String,
    password: String,
    #[serde(default = "one")]
    weight: u32,
}

fn one() -> u32 {
    1
}

fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

fn resolve(text: &str) -> io::Result<SocketAddr> {
    let unknown = || io::Error::new(io::ErrorKind::NotFound, format!("{text} is no address"));
    text.to_socket_addrs()?.next().ok_or_else(unknown)
}

impl Stage {
    /// The demo as `make run` starts it.
    pub fn demo() -> io::Result<Self> {
        Self::of_text(include_str!("demo.toml"))
    }

    /// The Compose stack as `make docker-up` starts it.
    pub fn compose() -> io::Result<Self> {
        Self::of_text(include_str!("compose.toml"))
    }

    /// Somebody's own servers and proxies.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(path)
            .map_err(|why| io::Error::new(why.kind(), format!("{}: {why}", path.display())))?;
        Self::of_text(&text).map_err(|why| io::Error::new(why.kind(), format!("{}: {why}", path.display())))
    }

    fn of_text(text: &str) -> io::Result<Self> {
        let wrong =
            |why: &dyn std::fmt::Display| io::Error::new(io::ErrorKind::InvalidInput, why.to_string());
        let file: File = toml::from_str(text).map_err(|why| wrong(&why))?;
        if file.addresses.is_empty() || file.buckets.iter().all(|bucket| bucket.databases.is_empty()) {
            return Err(wrong(&"there must be addresses, and buckets with databases"));
        }
        let destinations = file.buckets.into_iter().map(|bucket| {
            // Secrets come from the environment, as in the proxy's own configuration.
            let password = match bucket.password.strip_prefix("env:") {
                Some(name) => {
                    std::env::var(name).map_err(|_| wrong(&format!("the variable {name} is not set")))?
                }
                None => bucket.password,
            };
            let FileBucket { name, databases, user, weight, .. } = bucket;
            Ok(Destination { name, databases, user, password, weight })
        });
        Ok(Self {
            addresses: file.addresses.iter().map(|text| resolve(text)).collect::<io::Result<_>>()?,
            health: file.health.iter().map(|text| resolve(text)).collect::<io::Result<_>>()?,
            destinations: destinations.collect::<io::Result<_>>()?,
            limit: file.limit,
            pool_mode: file.pool_mode.unwrap_or_else(|| "session".to_owned()),
            own: None,
            levers: file.proxies,
            redis: file.redis,
        })
    }

    /// Starts servers and proxies, all on free ports of the loopback interface.
    pub fn own(spec: Spec) -> io::Result<Self> {
        let folder = std::env::temp_dir().join(format!(
            "tdsbouncer-loadgen-{}-{}",
            std::process::id(),
            free_address()?.port()
        ));
        fs::create_dir(&folder)?;
        let redis = if spec.redis == Redis::Own { Some((free_address()?, None)) } else { None };
        let mut own = Own { folder, servers: Vec::new(), proxies: Vec::new(), redis, spec };
        own.start_redis()?;
        let mut destinations = Vec::new();
        let mut servers = Vec::new();
        for n in 0..own.spec.buckets {
            let (name, databases) = (format!("b{n}"), vec![format!("b{n}_a"), format!("b{n}_b")]);
            servers.push(own.start_server(&name, &databases)?);
            let (user, password) = ("sa".to_owned(), PASSWORD.to_owned());
            destinations.push(Destination { name, databases, user, password, weight: 1 });
        }
        let (mut addresses, mut health) = (Vec::new(), Vec::new());
        for n in 0..own.spec.proxies {
            let (address, answers) = (free_address()?, free_address()?);
            own.write_config(n, address, answers, &servers)?;
            addresses.push(address);
            health.push(answers);
            own.proxies.push(None);
        }
        for (n, address) in addresses.iter().enumerate().take(own.spec.running) {
            own.start_proxy(n, *address)?;
        }
        Ok(Self {
            addresses,
            health,
            destinations,
            limit: Some(own.spec.limit),
            pool_mode: own.spec.pool_mode.clone(),
            own: Some(own),
            levers: Vec::new(),
            redis: Levers::default(),
        })
    }

    /// Kills a proxy without a word.
    pub fn kill_proxy(&mut self, n: usize) -> io::Result<()> {
        match &mut self.own {
            Some(own) => own.proxies.get_mut(n).and_then(Option::take).map_or(Ok(()), end),
            None => command(self.levers.get(n).and_then(|levers| levers.kill.as_deref()), "proxies[].kill"),
        }
    }

    /// Starts a proxy that does not run.
    pub fn start_proxy(&mut self, n: usize) -> io::Result<()> {
        match &mut self.own {
            Some(own) => own.start_proxy(n, self.addresses[n]),
            None => command(self.levers.get(n).and_then(|levers| levers.start.as_deref()), "proxies[].start"),
        }
    }

    /// Stops Redis.
    pub fn stop_redis(&mut self) -> io::Result<()> {
        match self.own.as_mut().and_then(|own| own.redis.as_mut()) {
            Some((_, running)) => running.take().map_or(Ok(()), end),
            None => command(self.redis.kill.as_deref(), "redis.kill"),
        }
    }

    /// Starts Redis again.
    pub fn start_redis(&mut self) -> io::Result<()> {
        match &mut self.own {
            Some(own) if own.redis.is_some() => own.start_redis(),
            _ => command(self.redis.start.as_deref(), "redis.start"),
        }
    }

    /// Resident memory of our own proxies that run, in bytes; none on somebody else's stage.
    pub fn memory(&self) -> Option<u64> {
        let own = self.own.as_ref()?;
        let mut total = 0;
        for child in own.proxies.iter().flatten() {
            let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            total += line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024;
        }
        Some(total)
    }
}

fn command(text: Option<&str>, key: &str) -> io::Result<()> {
    let text = text.ok_or_else(|| io::Error::other(format!("this stage says no command for {key}")))?;
    let status = Command::new("sh").arg("-c").arg(text).stdin(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{text:?} ended with {status}"))) }
}

fn end(mut child: Child) -> io::Result<()> {
    child.kill()?;
    child.wait().map(drop)
}

impl Own {
    fn start_server(&mut self, name: &str, databases: &[String]) -> io::Result<SocketAddr> {
        let mut sim = Command::new(&self.spec.program);
        sim.args(["sim", "--listen", "127.0.0.1:0", "--name", name]);
        sim.arg("--user").arg(format!("sa:{PASSWORD}"));
        for database in databases {
            sim.args(["--database", database]);
        }
        let mut child = sim.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let out = child.stdout.take();
        self.servers.push(child);
        let mut line = String::new();
        BufReader::new(out.ok_or_else(|| io::Error::other("no output"))?).read_line(&mut line)?;
        let address = line.split(' ').find_map(|word| word.parse().ok());
        address.ok_or_else(|| io::Error::other(format!("the stand-in said {line:?}")))
    }

    fn write_config(
        &self,
        n: usize,
        address: SocketAddr,
        health: SocketAddr,
        servers: &[SocketAddr],
    ) -> io::Result<()> {
        let spec = &self.spec;
        let url = match (&spec.redis, &self.redis) {
            (Redis::At(url), _) => Some(url.clone()),
            (_, Some((address, _))) => Some(format!("redis://{address}")),
            _ => None,
        };
        let coordinator = url.as_ref().map_or_else(String::new, |url| {
            // All on one host: names of their own. A prefix of its own, too, on a Redis that others use.
            format!(
                "[coordinator]\nkind = \"redis\"\nurls = [\"{url}\"]\nprefix = \"loadgen-{}\"\ninstance = \"proxy-{n}\"\n\
                 expected_instances = {}\nlease_time = \"5s\"\n",
                std::process::id(),
                spec.proxies,
            )
        });
        let share = match url {
            Some(_) => spec.limit,
            // Without Redis nobody agrees: each proxy has its own part.
            None => (spec.limit / u32::try_from(spec.proxies).unwrap_or(1)).max(1),
        };
        let mut text = format!(
            "[[listeners]]\nname = \"main\"\naddress = \"{address}\"\n[listeners.tls]\nmode = \"login\"\nself_signed = true\n\
             [defaults]\nmax_connections = {share}\npool_mode = \"{}\"\nqueue_limit = 100000\n{}\n\
             [defaults.server_tls]\nmode = \"off\"\n[health]\naddress = \"{health}\"\n[metrics]\naddress = \"off\"\n\
             [log]\nfilter = \"error\"\n[limits]\nmax_clients = 9000\n[admin]\nsocket = {:?}\n{coordinator}",
            spec.pool_mode,
            spec.defaults,
            self.folder.join(format!("{n}.sock")),
        );
        for (at, server) in servers.iter().enumerate() {
            text.push_str(&format!(
                "[[buckets]]\nname = \"b{at}\"\nhost = \"127.0.0.1\"\nport = {}\ndatabases = [\"b{at}_*\"]\n",
                server.port()
            ));
        }
        fs::write(self.folder.join(format!("{n}.toml")), text)
    }

    /// Nothing to do where there is none of our own, or it runs.
    fn start_redis(&mut self) -> io::Result<()> {
        let Some((address, running @ None)) = &mut self.redis else { return Ok(()) };
        let mut redis = Command::new("redis-server");
        redis.args(["--port", &address.port().to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"]);
        redis.arg(&self.folder).stdin(Stdio::null()).stdout(Stdio::null());
        let child =
            redis.spawn().map_err(|why| io::Error::new(why.kind(), format!("redis-server: {why}")))?;
        *running = Some(listening(child, *address, "Redis")?);
        Ok(())
    }

    fn start_proxy(&mut self, n: usize, address: SocketAddr) -> io::Result<()> {
        let mut command = Command::new(&self.spec.program);
        command.arg("run").arg("--config").arg(self.folder.join(format!("{n}.toml"))).stdin(Stdio::null());
        self.proxies[n] = Some(listening(command.spawn()?, address, "a proxy")?);
        Ok(())
    }
}

/// A process that listens by now.
fn listening(mut child: Child, address: SocketAddr, what: &str) -> io::Result<Child> {
    let over = Instant::now() + PATIENCE;
    while TcpStream::connect(address).is_err() {
        if let Some(status) = child.try_wait()? {
            return Err(io::Error::other(format!("{what} ended at once: {status}")));
        }
        if Instant::now() > over {
            end(child)?;
            return Err(io::Error::other(format!("{what} does not listen on {address}")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(child)
}

impl Drop for Own {
    fn drop(&mut self) {
        let redis = self.redis.iter_mut().filter_map(|(_, running)| running.as_mut());
        for child in self.proxies.iter_mut().flatten().chain(&mut self.servers).chain(redis) {
            // Gone already, if it crashed.
            let _ = child.kill();
            let _ = child.wait();
        }
        // Nothing is lost when it stays: it holds configuration files and dead sockets.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stages_that_come_along_can_be_read() {
        assert_eq!(Stage::demo().unwrap().destinations.len(), 3);
        let compose = Stage::compose().unwrap();
        assert_eq!((compose.health.len(), compose.levers.len()), (3, 3));
    }

    #[test]
    fn a_stage_says_what_is_wrong_with_it() {
        let wrong = |text: &str| Stage::of_text(text).err().unwrap().to_string();
        assert!(wrong("addresses = []\nbuckets = []").contains("there must be addresses"));
        assert!(wrong("adresses = []\nbuckets = []").contains("adresses"));
        let secret = "addresses = [\"127.0.0.1:1\"]\n[[buckets]]\nname = \"b\"\ndatabases = [\"d\"]\nuser = \"u\"\n\
                      password = \"env:NOT_SET_ANYWHERE\"";
        assert!(wrong(secret).contains("NOT_SET_ANYWHERE"));
    }
}
