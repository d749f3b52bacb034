//! `tdsbouncer run`: the daemon.

use crate::failure::Failure;
use crate::service::{self, Service};
use crate::telemetry;
use std::path::PathBuf;
use tdsbouncer_config::Config;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The configuration file
    #[arg(long, env = "TDSBOUNCER_CONFIG", value_name = "FILE")]
    config: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let config =
        Config::load(&args.config).map_err(|source| Failure::Config { path: args.config.clone(), source })?;
    let log = telemetry::start(&config.log)?;
    for warning in &config.warnings {
        tracing::warn!(file = %args.config.display(), "{warning}");
    }
    let runtime = service::runtime(config.runtime)?;
    runtime.block_on(async { Service::start(config, log).await?.until_stopped().await })
}
