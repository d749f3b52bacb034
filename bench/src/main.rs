//! `make bench`: what the proxy costs beside a plain TCP proxy, in one run, as ratios with their spread.

mod answerer;
mod answers;
mod cost;
mod report;
mod rivals;
mod targets;
mod work;

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tds::encryption::ServerTls;
use tdsbouncer_loadgen::client::{Client, Target};
use work::{Case, Round, Work};

use crate::report::{Measured, Report};
use crate::rivals::{Grounds, Rival};

/// Measure what the proxy costs, beside HAProxy in TCP mode
#[derive(Debug, Parser)]
#[command(name = "bench", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Run the cases against every rival, in turns
    Run(Run),
    /// Be the server: logins, then fixed answers
    #[command(hide = true)]
    Answer {
        #[arg(long)]
        listen: SocketAddr,
    },
}

#[derive(Debug, clap::Args)]
struct Run {
    /// The proxy's program, built with --release
    #[arg(long, default_value = "target/release/tdsbouncer", value_name = "FILE")]
    proxy: PathBuf,
    /// HAProxy's program
    #[arg(long, default_value = "haproxy", value_name = "FILE")]
    haproxy: PathBuf,
    /// Pool modes of the proxy to measure
    #[arg(long, value_delimiter = ',', default_value = "session,transaction")]
    modes: Vec<String>,
    /// Server connections that transaction mode may use
    #[arg(long, default_value_t = 64, value_name = "N")]
    connections: u32,
    /// Rounds of each case
    #[arg(long, default_value_t = 5, value_name = "N")]
    rounds: usize,
    /// Milliseconds of each round
    #[arg(long, default_value_t = 1000, value_name = "MS")]
    length: u64,
    /// Only cases whose name contains this
    #[arg(long, default_value = "", value_name = "TEXT")]
    only: String,
    /// Idle clients whose memory is measured; 0: none
    #[arg(long, default_value_t = 2000, value_name = "N")]
    idle: usize,
    /// More lines for the table of limits in the proxy's configuration, such as 'relay_chunk = "64KiB"'
    #[arg(long, default_value = "", value_name = "TOML")]
    limits: String,
    /// Write the report there too
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn cases() -> Vec<Case> {
    let thinking = Duration::from_millis(10);
    vec![
        Case::new("small batch, 1 client", Work::Batch, 1),
        Case::new("small batch, 16 clients", Work::Batch, 16),
        Case::new("small batch, 64 clients", Work::Batch, 64),
        Case::new("small batch, 256 clients", Work::Batch, 256),
        Case { think: thinking, ..Case::new("small batch, 64 clients, 10 ms think time", Work::Batch, 64) },
        Case { think: thinking, ..Case::new("small batch, 256 clients, 10 ms think time", Work::Batch, 256) },
        Case::new("call, 16 clients", Work::Call, 16),
        Case::new("transaction of 3 requests, 16 clients", Work::Transaction, 16),
        Case::new("1 MiB of narrow rows, 4 clients", Work::Rows("narrow", 1), 4),
        Case::new("1 MiB of wide rows, 4 clients", Work::Rows("wide", 1), 4),
        Case::new("256 MiB of wide rows, 1 client", Work::Rows("wide", 256), 1),
        Case { tls: ServerTls::On, ..Case::new("small batch under TLS, 16 clients", Work::Batch, 16) },
        Case {
            tls: ServerTls::On,
            ..Case::new("1 MiB of wide rows under TLS, 4 clients", Work::Rows("wide", 1), 4)
        },
        Case::new("login, 4 clients", Work::Login, 4),
        Case { tls: ServerTls::Off, ..Case::new("login, itself encrypted, 4 clients", Work::Login, 4) },
    ]
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Answer { listen } => answerer::serve(listen).map_err(Into::into),
        Command::Run(args) => run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("bench: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Run) -> Result<(), Box<dyn Error>> {
    let open_files = rlimit::increase_nofile_limit(u64::MAX)?;
    let folder = tempfile::tempdir()?;
    let server = rivals::answerer()?;
    let grounds = Grounds {
        folder: folder.path(),
        proxy: args.proxy.clone(),
        haproxy: args.haproxy.clone(),
        server: server.address,
        connections: args.connections,
        limits: args.limits.clone(),
        open_files,
    };
    let rivals = grounds.all(&args.modes)?;
    let mut report = Report::new(&rivals, args.rounds, Duration::from_millis(args.length));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        if args.idle > 0 {
            for tls in [ServerTls::Never, ServerTls::On] {
                // New processes, so that no memory is used again.
                for rival in grounds.all(&args.modes)?.iter().filter(|rival| rival.process.is_some()) {
                    let each = idle(rival, tls, args.idle).await?;
                    report.idle(&rival.name, tls, args.idle, each);
                }
            }
        }
        for case in cases().iter().filter(|case| case.name.contains(&args.only)) {
            let measured = measure(case, &rivals, args).await?;
            report.case(case, measured);
        }
        Ok::<_, Box<dyn Error>>(())
    })?;
    if let Some(file) = &args.out {
        std::fs::write(file, report.text())?;
    }
    Ok(())
}

/// All rivals, round by round, so that what the machine does meanwhile meets all of them.
async fn measure(case: &Case, rivals: &[Rival], args: &Run) -> Result<Vec<Measured>, Box<dyn Error>> {
    let length = Duration::from_millis(args.length);
    let mut found: Vec<Vec<Round>> = vec![Vec::new(); rivals.len()];
    for at in 0..=args.rounds {
        for (rival, rounds) in rivals.iter().zip(&mut found) {
            let round = work::round(case, rival.address, rival.pid(), length).await;
            let round = round.map_err(|why| format!("{}, {}: {why}", case.name, rival.name))?;
            // The first round opens connections and warms caches.
            if at > 0 {
                rounds.push(round);
            }
        }
    }
    Ok(found.into_iter().map(Measured::of).collect())
}

/// Bytes of the rival's memory for each client that is logged in and does nothing.
async fn idle(rival: &Rival, tls: ServerTls, clients: usize) -> Result<i64, Box<dyn Error>> {
    const AT_ONCE: usize = 32;
    let pid = rival.pid().ok_or("no process")?;
    let target = Target { tls, ..Target::new(rival.address, "sa", "Sim-passw0rd", "bench") };
    drop(Client::connect(&target).await?);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = cost::memory(pid)?;
    let mut idle = Vec::with_capacity(clients);
    while idle.len() < clients {
        let mut some = tokio::task::JoinSet::new();
        for _ in 0..AT_ONCE.min(clients - idle.len()) {
            let target = target.clone();
            some.spawn(async move { Client::connect(&target).await });
        }
        while let Some(client) = some.join_next().await {
            idle.push(client??);
        }
    }
    tokio::time::sleep(Duration::from_millis(2000)).await;
    let after = cost::memory(pid)?;
    Ok((i64::try_from(after)? - i64::try_from(before)?) / i64::try_from(clients)?)
}
