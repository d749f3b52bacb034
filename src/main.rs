//! The program: one command a file, started here; everything it does lives in the crates below.

mod command;
mod failure;
mod http;
mod open_files;
mod service;
mod signals;
mod systemd;
mod table;
mod telemetry;

use clap::Parser;
use command::Command;
use std::process::ExitCode;

/// A connection pool in front of SQL Server: many clients, few server connections, one limit.
#[derive(Debug, Parser)]
#[command(name = "tdsbouncer", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    match Cli::parse().command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("tdsbouncer: {failure}");
            failure.exit_code()
        }
    }
}
