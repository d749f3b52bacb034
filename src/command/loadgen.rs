//! `tdsbouncer loadgen`: many programs at once against any server or proxy, and the scenarios.

use std::io::{IsTerminal, Write};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tdsbouncer_config::parse_duration;
use tdsbouncer_loadgen::ServerTls;
use tdsbouncer_loadgen::plan::{Arrival, Destination, Mix, Plan};
use tdsbouncer_loadgen::report::Report;
use tdsbouncer_loadgen::run::{Progress, run as carry_out};
use tdsbouncer_loadgen::scenario::{Scenario, Stage, Wishes, play};
use tdsbouncer_loadgen::watch::Watcher;

use crate::failure::Failure;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Let programs work against a server or a proxy
    Run(Box<Run>),
    /// Play a scenario, and say whether its conditions hold
    Scenario(Play),
}

/// Where reports go.
#[derive(Debug, clap::Args)]
struct Output {
    /// Write the report as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report as one HTML page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Run {
    /// Where to connect, as HOST:PORT; several are used in turns
    #[arg(long = "to", default_value = "127.0.0.1:1433", value_name = "ADDRESS", value_delimiter = ',')]
    addresses: Vec<String>,
    /// Databases that programs work in, as `[BUCKET=]DATABASE[,DATABASE...][:WEIGHT]`; may be repeated
    #[arg(long = "bucket", default_value = "orders,orders_2025", value_name = "DATABASES", value_parser = destination)]
    buckets: Vec<Destination>,
    /// The login
    #[arg(long, default_value = "sa")]
    user: String,
    /// Its password
    #[arg(
        long,
        env = "TDSBOUNCER_LOADGEN_PASSWORD",
        default_value = "Demo-passw0rd",
        hide_env_values = true
    )]
    password: String,
    /// Encryption: none, only the login, everything, or TDS 8.0
    #[arg(long, value_enum, default_value = "login")]
    tls: Tls,
    /// Programs
    #[arg(long, default_value_t = 100, value_name = "N")]
    programs: usize,
    /// Over how long they start
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    ramp_up: Duration,
    /// How they start within that time
    #[arg(long, value_enum, default_value = "even")]
    arrival: Arriving,
    /// How long the run lasts
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    duration: Duration,
    /// The mean pause between two pieces of work (exponentially distributed); 0s: none
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    think: Duration,
    /// How long a connection lives, as a mean; 0s: as long as the run
    #[arg(long, default_value = "0s", value_parser = parse_duration)]
    connection_life: Duration,
    /// How long a program stays away between two connections, as a mean
    #[arg(long, default_value = "0s", value_parser = parse_duration)]
    away: Duration,
    /// What is done: mixed, or kinds with their parts, as simple=60,prepared=15,transaction=15,procedure=5,ddl=5
    #[arg(long, default_value = "mixed")]
    mix: Mix,
    /// One in so many simple requests asks for many rows; 0: none. Needs GENERATE_SERIES (SQL Server 2022)
    #[arg(long, default_value_t = 0, value_name = "N")]
    rows_every: u32,
    /// How many rows then
    #[arg(long, default_value_t = 1000, value_name = "N")]
    rows: u32,
    /// Of how many characters
    #[arg(long, default_value_t = 100, value_name = "N")]
    row_width: u32,
    /// How long a transaction stays open
    #[arg(long, default_value = "0s", value_parser = parse_duration)]
    hold: Duration,
    /// The longest wait for an answer
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    patience: Duration,
    /// Addresses to connect from; each gives some 28,000 connections to one port
    #[arg(long = "from", value_name = "ADDRESS", value_delimiter = ',')]
    sources: Vec<IpAddr>,
    /// The proxies' /health, watched meanwhile, as HOST:PORT
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    health: Vec<String>,
    /// Do not make the table and the procedure that the work needs (dbo.loadgen_ledger, dbo.loadgen_add)
    #[arg(long)]
    no_setup: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct Play {
    /// Which; without a name they are listed. "all" plays all of them
    name: Option<String>,
    /// Where: "own" starts servers and proxies of its own, "demo" and "compose" use those of `make run` and
    /// `make docker-up`, anything else is a file that describes yours
    #[arg(long, default_value = "own", value_name = "STAGE")]
    on: String,
    /// The proxies' pool mode on a stage of its own
    #[arg(long, default_value = "transaction", value_parser = ["session", "transaction"])]
    pool_mode: String,
    /// Redis for the proxies of a stage of its own, as redis://HOST:PORT
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// Multiplies programs and times
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Write an HTML page and JSON for each scenario into this folder
    #[arg(long, value_name = "FOLDER")]
    reports: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Tls {
    Off,
    Login,
    On,
    Strict,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Arriving {
    Even,
    Random,
}

fn destination(text: &str) -> Result<Destination, String> {
    let (name, rest) = text.split_once('=').map_or((None, text), |(name, rest)| (Some(name), rest));
    let (databases, weight) = match rest.rsplit_once(':') {
        Some((databases, weight)) => (databases, weight.parse().map_err(|_| "the weight must be a number")?),
        None => (rest, 1),
    };
    let databases: Vec<String> = databases.split(',').map(str::to_owned).collect();
    if databases.iter().any(String::is_empty) || weight == 0 {
        return Err("must be [BUCKET=]DATABASE[,DATABASE...][:WEIGHT]".to_owned());
    }
    let name = name.map_or_else(|| databases[0].clone(), str::to_owned);
    Ok(Destination { name, databases, user: String::new(), password: String::new(), weight })
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    // Thousands of clients are thousands of files.
    rlimit::increase_nofile_limit(u64::MAX)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match args.command {
        Command::Run(args) => runtime.block_on(load(*args)),
        Command::Scenario(args) => runtime.block_on(scenarios(&args)),
    }
}

fn failed(why: impl std::fmt::Display) -> Failure {
    Failure::Load(why.to_string())
}

fn resolve(texts: &[String]) -> Result<Vec<SocketAddr>, Failure> {
    let one = |text: &String| {
        let found = text.to_socket_addrs().map_err(|why| failed(format!("{text}: {why}")))?.next();
        found.ok_or_else(|| failed(format!("{text} has no address")))
    };
    texts.iter().map(one).collect()
}

async fn load(args: Run) -> Result<(), Failure> {
    let health = resolve(&args.health)?;
    let (user, password) = (args.user.clone(), args.password.clone());
    let own = |to: Destination| Destination { user: user.clone(), password: password.clone(), ..to };
    let plan = Plan {
        sources: args.sources,
        tls: match args.tls {
            Tls::Off => ServerTls::Never,
            Tls::Login => ServerTls::Off,
            Tls::On => ServerTls::On,
            Tls::Strict => ServerTls::Strict,
        },
        programs: args.programs,
        ramp_up: args.ramp_up,
        arrival: match args.arrival {
            Arriving::Even => Arrival::Even,
            Arriving::Random => Arrival::Random,
        },
        duration: args.duration,
        think: args.think,
        connection_life: args.connection_life,
        away: args.away,
        mix: args.mix,
        rows_every: args.rows_every,
        rows: args.rows,
        row_width: args.row_width,
        hold: args.hold,
        patience: args.patience,
        setup: !args.no_setup,
        ..Plan::new(resolve(&args.addresses)?, args.buckets.into_iter().map(own).collect())
    };
    let watcher = Watcher::start(health.clone());
    let mut bar = Bar::new("load");
    let outcome = carry_out(plan, |progress| bar.show(progress)).await.map_err(failed)?;
    bar.end();
    let report = Report {
        title: "load".to_owned(),
        about: format!("{} programs, mix {}", outcome.plan.programs, outcome.plan.mix),
        command: command_line(),
        machine: tdsbouncer_loadgen::machine::in_a_line(),
        looks: if health.is_empty() { Vec::new() } else { watcher.looks() },
        outcome,
        incidents: Vec::new(),
        checks: Vec::new(),
    };
    print!("{}", report.text());
    write(&report, args.output.json.as_deref(), args.output.html.as_deref())?;
    match report.outcome.counts.wrong {
        0 => Ok(()),
        wrong => Err(failed(format!("{wrong} answers were wrong"))),
    }
}

async fn scenarios(args: &Play) -> Result<(), Failure> {
    let names = match args.name.as_deref() {
        None => {
            for scenario in Scenario::ALL {
                println!("{:<18} {}", scenario.name(), scenario.about());
            }
            return Ok(());
        }
        Some("all") => Scenario::ALL.to_vec(),
        Some(name) => vec![name.parse().map_err(|why| failed(format!("{name:?} {why}")))?],
    };
    if let Some(folder) = &args.reports {
        std::fs::create_dir_all(folder)?;
    }
    let wishes = Wishes {
        scale: args.scale,
        command: command_line(),
        machine: tdsbouncer_loadgen::machine::in_a_line(),
    };
    let mut missed = Vec::new();
    for scenario in names {
        let program = std::env::current_exe()?;
        let mut stage = match args.on.as_str() {
            "own" => Stage::own(scenario.spec(program, &args.pool_mode, args.redis.clone(), args.scale))?,
            "demo" => Stage::demo()?,
            "compose" => Stage::compose()?,
            file => Stage::of_file(Path::new(file))?,
        };
        let mut bar = Bar::new(scenario.name());
        let report = play(scenario, &mut stage, &wishes, &mut |progress| bar.show(progress)).await;
        bar.end();
        let report = report.map_err(|why| failed(format!("{}: {why}", scenario.name())))?;
        println!("{}", report.text());
        if let Some(folder) = &args.reports {
            let file = |kind: &str| folder.join(format!("{}.{kind}", scenario.name()));
            write(&report, Some(&file("json")), Some(&file("html")))?;
        }
        if !report.passed() {
            missed.push(scenario.name());
        }
    }
    if missed.is_empty() {
        Ok(())
    } else {
        Err(failed(format!("conditions were missed: {}", missed.join(", "))))
    }
}

fn write(report: &Report, json: Option<&Path>, html: Option<&Path>) -> Result<(), Failure> {
    if let Some(file) = json {
        std::fs::write(file, format!("{:#}\n", report.json()))?;
    }
    if let Some(file) = html {
        std::fs::write(file, report.html())?;
    }
    Ok(())
}

/// The command without its path and without a password.
fn command_line() -> String {
    let mut words = vec!["tdsbouncer".to_owned()];
    let mut hide = false;
    for word in std::env::args().skip(1) {
        let shown = match word.split_once('=') {
            _ if std::mem::take(&mut hide) => "...".to_owned(),
            Some(("--password", _)) => "--password=...".to_owned(),
            _ => word.clone(),
        };
        hide = word == "--password";
        words.push(shown);
    }
    words.join(" ")
}

/// Progress on standard error: a bar that moves on a terminal, a line now and then elsewhere.
struct Bar {
    title: &'static str,
    terminal: bool,
    said: Instant,
}

impl Bar {
    fn new(title: &'static str) -> Self {
        Self { title, terminal: std::io::stderr().is_terminal(), said: Instant::now() }
    }

    fn show(&mut self, progress: Progress) {
        const WIDTH: usize = 30;
        const EVERY: Duration = Duration::from_secs(10);
        if !self.terminal && self.said.elapsed() < EVERY {
            return;
        }
        self.said = Instant::now();
        let part = (progress.seconds / progress.of.max(0.001)).min(1.0);
        let full = (part * WIDTH as f64) as usize;
        let line = format!(
            "{} [{}{}] {:.0} s of {:.0} s, {} programs, {} done, {} errors",
            self.title,
            "#".repeat(full),
            ".".repeat(WIDTH - full),
            progress.seconds,
            progress.of,
            progress.started,
            progress.done,
            progress.errors
        );
        // Nobody reads standard error: nothing to be done about it.
        let mut out = std::io::stderr();
        let _ = if self.terminal { write!(out, "\r{line}\x1b[K") } else { writeln!(out, "{line}") };
        let _ = out.flush();
    }

    fn end(&self) {
        if self.terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_read_with_its_name_and_weight() {
        let to = destination("hot=a,b:8").unwrap();
        assert_eq!((to.name.as_str(), to.databases.len(), to.weight), ("hot", 2, 8));
        let to = destination("orders").unwrap();
        assert_eq!((to.name.as_str(), to.weight), ("orders", 1));
        assert!(destination("a,,b").is_err() && destination("a:0").is_err() && destination("a:x").is_err());
    }
}
