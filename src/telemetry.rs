//! Where log events go, in which form, and which of them.

use crate::failure::Failure;
use std::io::{IsTerminal, stderr};
use tdsbouncer_config::{Log, LogFormat};
use tracing_subscriber::EnvFilter;

/// Installs the log for the whole process.
pub(crate) fn start(log: &Log) -> Result<(), Failure> {
    let builder = tracing_subscriber::fmt().with_env_filter(filter(&log.filter)?).with_writer(stderr);
    match log.format {
        LogFormat::Text => builder.with_ansi(stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}

/// Reads the levels by module; also for `check-config`.
pub(crate) fn filter(text: &str) -> Result<EnvFilter, Failure> {
    EnvFilter::builder()
        .parse(text)
        .map_err(|why| Failure::LogFilter { filter: text.to_owned(), why: why.to_string() })
}
