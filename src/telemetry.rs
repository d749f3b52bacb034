//! Where log events go, in which form, and which of them. Panics are among them.

use crate::failure::Failure;
use std::io::{IsTerminal, stderr};
use std::sync::Arc;
use tdsbouncer_config::{Log, LogFormat};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt, reload};

/// Changes which events are logged, while the program runs.
#[derive(Clone)]
pub(crate) struct LogFilter(Arc<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>);

impl LogFilter {
    /// Levels by module, as the configuration has them.
    pub(crate) fn set(&self, text: &str) -> Result<(), String> {
        (self.0)(filter(text).map_err(|why| why.to_string())?)
    }
}

/// Installs the log for the whole process.
pub(crate) fn start(log: &Log) -> Result<LogFilter, Failure> {
    let (filter, handle) = reload::Layer::new(filter(&log.filter)?);
    let registry = tracing_subscriber::registry().with(filter);
    match log.format {
        LogFormat::Text => {
            registry.with(fmt::layer().with_writer(stderr).with_ansi(stderr().is_terminal())).init();
        }
        LogFormat::Json => registry.with(fmt::layer().with_writer(stderr).json().flatten_event(true)).init(),
    }
    tdsbouncer_actors::log_panics_without_values();
    Ok(LogFilter(Arc::new(move |filter| handle.reload(filter).map_err(|why| why.to_string()))))
}

/// Reads the levels by module; also for `check-config`.
pub(crate) fn filter(text: &str) -> Result<EnvFilter, Failure> {
    EnvFilter::builder()
        .parse(text)
        .map_err(|why| Failure::LogFilter { filter: text.to_owned(), why: why.to_string() })
}
