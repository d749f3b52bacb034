//! `tdsbouncer probe`: asks a SQL Server, harmlessly, whether it does what pooling assumes.

use crate::failure::Failure;
use crate::table;
use std::fs;
use std::io::{IsTerminal, Read, stdin};
use std::path::PathBuf;
use std::time::Duration;
use tdsbouncer_actors::probe::{Report, Target, Verdict, probe};
use tdsbouncer_config::{Secret, ServerTls, ServerTlsMode};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The SQL Server's name or address
    #[arg(long, value_name = "HOST")]
    server: String,
    /// Its port
    #[arg(long, default_value_t = 1433)]
    port: u16,
    /// A SQL login; an ordinary one will do, and tells what your clients would see
    #[arg(long, value_name = "NAME")]
    user: String,
    /// Where its password is: env:NAME or file:PATH. Without it, the terminal or standard input is read
    #[arg(long, value_name = "SOURCE")]
    password: Option<String>,
    /// The database to log in to; else the login's own
    #[arg(long, default_value = "", value_name = "NAME", hide_default_value = true)]
    database: String,
    /// How to encrypt, as server_tls.mode
    #[arg(long, value_enum, default_value = "on")]
    encrypt: Mode,
    /// Believe any certificate
    #[arg(long)]
    trust_server_certificate: bool,
    /// The authorities to believe (PEM), in place of the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// The name that the certificate carries, where it is not the server's
    #[arg(long, value_name = "NAME")]
    host_name: Option<String>,
    /// The longest wait for each answer, in seconds
    #[arg(long, default_value_t = 15, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(6..=300))]
    patience: u64,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Mode {
    /// The login only, if the server can
    Off,
    /// Everything
    On,
    /// TDS 8.0
    Strict,
}

/// A password of SQL Server's has at most 128 characters; this is for bytes, and for a file's end of line.
const LONGEST: u64 = 1024;

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let target = Target {
        host: args.server.clone(),
        port: args.port,
        user: args.user.clone(),
        password: password(args.password.as_deref())?,
        database: args.database.clone(),
        tls: ServerTls {
            mode: match args.encrypt {
                Mode::Off => ServerTlsMode::Off,
                Mode::On => ServerTlsMode::On,
                Mode::Strict => ServerTlsMode::Strict,
            },
            ca_file: args.ca_file.clone(),
            trust_server_certificate: args.trust_server_certificate,
            host_name: args.host_name.clone(),
        },
        patience: Duration::from_secs(args.patience),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(probe(&target)).map_err(|why| Failure::Probe(why.to_string()))?;
    println!("{}", if args.json { as_json(&report)? } else { as_table(&report) });
    match report.rows.iter().filter(|row| row.verdict == Verdict::Unsafe).count() {
        0 => Ok(()),
        rows => Err(Failure::ProbeUnsafe { rows }),
    }
}

fn password(source: Option<&str>) -> Result<Secret, Failure> {
    let mut text = match source.map(|source| source.split_once(':')) {
        None if stdin().is_terminal() => rpassword::prompt_password("Password: ")?,
        None => {
            let mut text = String::new();
            stdin().take(LONGEST).read_to_string(&mut text)?;
            text
        }
        Some(Some(("env", name))) => std::env::var(name)
            .map_err(|_| Failure::Probe(format!("the environment variable {name} is not set")))?,
        Some(Some(("file", path))) => {
            fs::read_to_string(path).map_err(|why| Failure::Probe(format!("{path}: {why}")))?
        }
        Some(_) => return Err(Failure::Probe("--password must be env:NAME or file:PATH".to_owned())),
    };
    text.truncate(text.trim_end_matches(['\n', '\r']).len());
    Ok(Secret::new(text))
}

fn as_json(report: &Report) -> Result<String, Failure> {
    serde_json::to_string_pretty(report).map_err(|why| Failure::Probe(why.to_string()))
}

fn as_table(report: &Report) -> String {
    let rows: Vec<Vec<String>> = report
        .rows
        .iter()
        .map(|row| {
            [row.area, row.check, row.verdict.word(), &*row.found, row.advice].map(str::to_owned).to_vec()
        })
        .collect();
    let table = table::render(&["area", "check", "verdict", "found", "advice"], &rows, &[]);
    let count = |verdict| report.rows.iter().filter(|row| row.verdict == verdict).count();
    format!(
        "{}\n\n{table}\n\n{} good, {} different, {} unsafe, {} unknown",
        report.server,
        count(Verdict::Good),
        count(Verdict::Differs),
        count(Verdict::Unsafe),
        count(Verdict::Unknown),
    )
}
