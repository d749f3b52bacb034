//! `tdsbouncer check-config`: everything that is wrong with a file, at once.

use crate::failure::Failure;
use crate::telemetry;
use std::path::PathBuf;
use tdsbouncer_config::{Config, Machine, Nowhere};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The configuration file
    file: PathBuf,
    /// The file is meant for another machine: take the files and environment variables that it names for granted
    #[arg(long)]
    elsewhere: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let checked = if args.elsewhere {
        Config::load_with(&args.file, &Nowhere)
    } else {
        Config::load_with(&args.file, &Machine)
    };
    let config = checked.map_err(|source| Failure::Config { path: args.file.clone(), source })?;
    telemetry::filter(&config.log.filter)?;
    for warning in &config.warnings {
        println!("warning: {warning}");
    }
    let connections: u64 = config.buckets.iter().map(|bucket| u64::from(bucket.max_connections)).sum();
    println!(
        "{}: good ({} listeners, {} buckets, {connections} server connections at most)",
        args.file.display(),
        config.listeners.len(),
        config.buckets.len()
    );
    Ok(())
}
