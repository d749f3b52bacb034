//! `tdsbouncer demo`: three stand-in servers, the proxy in front of them, and two commands that show it works.

use crate::failure::{Failure, TakenPort};
use crate::service::{self, Service};
use crate::table;
use crate::telemetry;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use tdsbouncer_config::{
    Admin, Bucket, ClientTls, ClientTlsMode, Config, Limits, Listener, Log, LogFormat, Pattern,
};
use tdsbouncer_sim::{SimHandle, SimOptions, SimServer, User};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the proxy listens
    #[arg(long, default_value_t = 1433)]
    port: u16,
    /// The first of the stand-in servers' three ports
    #[arg(long, default_value_t = 14331, value_parser = clap::value_parser!(u16).range(1..=65_533))]
    sim_port_base: u16,
    /// Where /health answers
    #[arg(long, default_value_t = 8080)]
    health_port: u16,
    /// Where /metrics answers
    #[arg(long, default_value_t = 9090)]
    metrics_port: u16,
    /// Server connections allowed to each stand-in
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    max_connections: u32,
    /// Levels to log, by module
    #[arg(long, default_value = "warn", value_name = "FILTER")]
    log: String,
}

/// Bucket, databases, and the login that clients use: it exists on that server only.
const SERVERS: [(&str, [&str; 2], &str); 3] = [
    ("orders", ["orders", "orders_2025"], "olga"),
    ("billing", ["billing", "billing_2025"], "bill"),
    ("archive", ["archive", "archive_2025"], "anna"),
];
/// The same for every login: it protects nothing.
const PASSWORD: &str = "Demo-passw0rd";

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    free_ports(args)?;
    let log = telemetry::start(&Log { format: LogFormat::Text, filter: args.log.clone() })?;
    let servers = (0..).zip(&SERVERS).map(|(index, server)| stand_in(args.sim_port_base + index, server));
    let servers = servers.collect::<Result<Vec<_>, _>>()?;
    let directory = Directory::new()?;
    let config = config(args, &servers, &directory.socket());
    let outcome = service::runtime(config.runtime)?.block_on(async {
        let service = Service::start(config, log).await?;
        print(args, &service, &directory.socket());
        service.until_stopped().await
    });
    if outcome.is_ok() {
        println!("drained; good bye");
    }
    outcome
}

/// Asks for every port before anything starts, so that one run tells all that are taken.
fn free_ports(args: &Args) -> Result<(), Failure> {
    let sim = (0..3).map(|index| (args.sim_port_base + index, "a stand-in server", "--sim-port-base"));
    let own = [
        (args.port, "the proxy", "--port"),
        (args.health_port, "/health", "--health-port"),
        (args.metrics_port, "/metrics", "--metrics-port"),
    ];
    // All are held until all are tried: two options with the same port are found out too.
    let (mut held, mut taken) = (Vec::new(), Vec::new());
    for (port, what, option) in own.into_iter().chain(sim) {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(listener) => held.push(listener),
            Err(why) => taken.push(TakenPort { port, what, option, why }),
        }
    }
    if taken.is_empty() { Ok(()) } else { Err(Failure::PortsInUse { taken }) }
}

fn stand_in(port: u16, (name, databases, user): &(&str, [&str; 2], &str)) -> Result<SimHandle, Failure> {
    let user = User { database: databases[0].to_owned(), ..User::new(*user, PASSWORD) };
    SimServer::start(SimOptions {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        name: format!("sim-{name}"),
        users: vec![User::new("sa", PASSWORD), user],
        databases: databases.iter().map(|name| (*name).to_owned()).collect(),
        ..SimOptions::default()
    })
    .map_err(|why| Failure::Sim(why.to_string()))
}

fn config(args: &Args, servers: &[SimHandle], socket: &Path) -> Config {
    let address = |port| Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let listener =
        Listener { tls: ClientTls::self_signed(ClientTlsMode::Login), ..Listener::new("demo", args.port) };
    let buckets = servers.iter().zip(&SERVERS).map(|(server, (name, databases, user))| Bucket {
        databases: databases.iter().map(|name| Pattern::new(name)).collect(),
        users: vec![Pattern::new(user)],
        ..Bucket::new(name, "127.0.0.1", server.addr().port(), args.max_connections)
    });
    let config = Config::of(vec![listener], buckets.collect());
    Config {
        admin: Admin { socket: socket.to_owned(), mode: 0o600, ..config.admin },
        health: address(args.health_port),
        metrics: address(args.metrics_port),
        // Enough to play with, and below the usual limit of open files.
        limits: Limits { max_clients: 5_000, ..Limits::default() },
        ..config
    }
}

fn print(args: &Args, service: &Service, socket: &Path) {
    let text = str::to_owned;
    let row = |what: &str, address: String, users: String, databases: String| {
        vec![text(what), address, users, databases]
    };
    let mut rows = Vec::new();
    for (_, address) in service.addresses() {
        rows.push(row("proxy", address.to_string(), text("all of these"), text("all of these")));
    }
    for (index, (name, databases, user)) in (0..).zip(&SERVERS) {
        let address = format!("127.0.0.1:{}", args.sim_port_base + index);
        rows.push(row(&format!("bucket {name}"), address, format!("sa, {user}"), databases.join(", ")));
    }
    if let Some(address) = service.http().health {
        rows.push(row("health", format!("http://{address}/health"), String::new(), String::new()));
    }
    if let Some(address) = service.http().metrics {
        rows.push(row("metrics", format!("http://{address}/metrics"), String::new(), String::new()));
    }
    let (port, socket, most) = (args.port, socket.display(), args.max_connections);
    println!(
        "The servers are stand-ins, not SQL Server. Every password is {PASSWORD}. At most {most} connections each.\n"
    );
    println!("{}", table::render(&["what", "address", "users", "databases"], &rows, &[]));
    println!("\nTry, in another terminal:");
    println!(
        "  printf 'SELECT @@SERVERNAME, DB_NAME()\\nGO\\n' | tsql -H 127.0.0.1 -p {port} -U sa -P {PASSWORD} -D orders"
    );
    println!(
        "  sqlcmd -C -S tcp:127.0.0.1,{port} -U anna -P {PASSWORD} -d archive -Q 'SELECT @@SERVERNAME, DB_NAME()'"
    );
    println!("  {} admin --socket {socket} show buckets", program());
    println!("\nCtrl-C drains and ends.");
}

/// How this program was called, so that the printed line works where it is printed.
fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "tdsbouncer".to_owned())
}

/// A directory for the admin socket that only this user can enter; gone when dropped.
struct Directory(PathBuf);

impl Directory {
    fn new() -> io::Result<Self> {
        let base = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let path = base.join(format!("tdsbouncer-demo-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    fn socket(&self) -> PathBuf {
        self.0.join("admin.sock")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Nothing is lost when it stays: it holds at most a dead socket.
        let _ = fs::remove_dir_all(&self.0);
    }
}
