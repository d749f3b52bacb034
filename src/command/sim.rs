//! `tdsbouncer sim`: the stand-in SQL Server alone.

use crate::failure::Failure;
use crate::signals::Signals;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tdsbouncer_sim::{Certificate, Encryption, Fault, Features, ServerKind, SimOptions, SimServer, User};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:1433", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// The server's name, as @@SERVERNAME tells it
    #[arg(long, default_value = "SIM")]
    name: String,
    /// A login, as NAME:PASSWORD (these are test logins: everybody can read a command line); may be repeated
    #[arg(long = "user", default_value = "sa:Sim-passw0rd", value_name = "NAME:PASSWORD", value_parser = login)]
    users: Vec<(String, String)>,
    /// A database to create; may be repeated
    #[arg(long = "database", value_name = "NAME")]
    databases: Vec<String>,
    /// Which server to behave like
    #[arg(long, value_enum, default_value = "sqlserver2022")]
    kind: Kind,
    /// What to offer and demand
    #[arg(long, value_enum, default_value = "off")]
    encryption: Mode,
    /// Certificate chain (PEM); without it a self-signed one is made
    #[arg(long, requires = "key", value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// The certificate's key (PEM)
    #[arg(long, requires = "certificate", value_name = "FILE")]
    key: Option<PathBuf>,
    /// Open connections beyond this are refused with error 17809
    #[arg(long, default_value_t = 32_767, value_name = "N")]
    max_connections: usize,
    /// MiB that all connections together may cost (5 each); beyond it logins get error 701
    #[arg(long, value_name = "MIB")]
    memory: Option<u64>,
    /// Do not take up SESSIONRECOVERY, as old servers
    #[arg(long)]
    no_session_recovery: bool,
    /// What goes wrong for everybody, as sim/README.md names it; may be repeated
    #[arg(long = "fault", value_name = "NAME[=VALUE]", value_parser = fault)]
    faults: Vec<Fault>,
    /// Milliseconds that each login takes
    #[arg(long, default_value_t = 0, value_name = "MS")]
    login_delay: u64,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Kind {
    #[value(name = "sqlserver2022")]
    SqlServer2022,
    #[value(name = "sqlserver2012")]
    SqlServer2012,
    #[value(name = "sqlserver2008r2")]
    SqlServer2008R2,
    #[value(name = "sqlserver2000")]
    SqlServer2000,
    Babelfish,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Mode {
    /// None, not even for the login
    Unsupported,
    /// For the login, or for everything if the client asks: SQL Server's default
    Off,
    /// For everything
    On,
    /// TDS 8.0 only
    Strict,
}

fn login(text: &str) -> Result<(String, String), String> {
    let (name, password) = text.split_once(':').ok_or("must be NAME:PASSWORD")?;
    if name.is_empty() { Err("has no name".to_owned()) } else { Ok((name.to_owned(), password.to_owned())) }
}

fn fault(text: &str) -> Result<Fault, String> {
    let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
    let value = value.map(str::parse).transpose().map_err(|_| "has a value that is no number".to_owned())?;
    Fault::from_name(name, value).ok_or_else(|| "is no fault (sim/README.md lists them)".to_owned())
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let server = SimServer::start(options(args)).map_err(|why| Failure::Sim(why.to_string()))?;
    println!("stand-in SQL Server {} listening on {} (not a real one; for tests)", args.name, server.addr());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let signal = Signals::listen()?.next().await;
        println!("{signal}: good bye");
        Ok::<_, Failure>(())
    })?;
    server.shutdown();
    Ok(())
}

fn options(args: &Args) -> SimOptions {
    let files = args.certificate.clone().zip(args.key.clone());
    SimOptions {
        listen: args.listen,
        name: args.name.clone(),
        kind: match args.kind {
            Kind::SqlServer2022 => ServerKind::SqlServer2022,
            Kind::SqlServer2012 => ServerKind::SqlServer2012,
            Kind::SqlServer2008R2 => ServerKind::SqlServer2008R2,
            Kind::SqlServer2000 => ServerKind::SqlServer2000,
            Kind::Babelfish => ServerKind::Babelfish,
        },
        encryption: match args.encryption {
            Mode::Unsupported => Encryption::NotSupported,
            Mode::Off => Encryption::Off,
            Mode::On => Encryption::On,
            Mode::Strict => Encryption::Strict,
        },
        certificate: files.map_or(Certificate::SelfSigned, |(chain, key)| Certificate::Files { chain, key }),
        users: args.users.iter().map(|(name, password)| User::new(name, password)).collect(),
        databases: args.databases.clone(),
        max_connections: args.max_connections,
        memory_total: args.memory.map(|mib| mib << 20),
        login_delay: Duration::from_millis(args.login_delay),
        features: Features { session_recovery: !args.no_session_recovery, ..Features::default() },
        faults: args.faults.clone(),
        ..SimOptions::default()
    }
}
