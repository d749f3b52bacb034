//! The proxy as a running service: started, answering on HTTP, drained by the first signal, ended by the second.

use crate::failure::Failure;
use crate::http::{Http, Vitals};
use crate::open_files;
use crate::signals::Signals;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tdsbouncer_actors::{METRICS_CONTENT_TYPE, Proxy};
use tdsbouncer_config::{Config, Runtime};

/// A proxy with everything around it.
pub(crate) struct Service {
    proxy: Arc<Proxy>,
    http: Http,
    signals: Signals,
    drain: Duration,
}

impl Service {
    /// Listens when this returns; the log must be there before.
    pub(crate) async fn start(config: Config) -> Result<Self, Failure> {
        let signals = Signals::listen()?;
        open_files::raise(&config);
        let (health, metrics, drain) = (config.health, config.metrics, config.timeouts.drain);
        let proxy = Proxy::start(Arc::new(config), env!("CARGO_PKG_VERSION")).await;
        let proxy = Arc::new(proxy.map_err(|why| Failure::Start(why.to_string()))?);
        let http = Http::start(Arc::clone(&proxy), health, metrics).await?;
        if let Some(address) = http.health {
            tracing::info!(%address, "answering /health");
        }
        if let Some(address) = http.metrics {
            tracing::info!(%address, "answering /metrics");
        }
        Ok(Self { proxy, http, signals, drain })
    }

    /// Where each listener listens, by name.
    pub(crate) fn addresses(&self) -> Vec<(String, SocketAddr)> {
        self.proxy.addresses()
    }

    /// Where health and metrics are answered.
    pub(crate) fn http(&self) -> &Http {
        &self.http
    }

    /// Serves until a signal or until the proxy gives up.
    pub(crate) async fn until_stopped(mut self) -> Result<(), Failure> {
        tokio::select! {
            signal = self.signals.next() => tracing::info!(signal, "draining; a second signal ends at once"),
            _ = self.proxy.finished() => return Err(Failure::GaveUp),
        }
        let begun = Instant::now();
        tokio::select! {
            ended = self.proxy.drain(self.drain) => {
                tracing::info!(elapsed = ?begun.elapsed(), ended, "drained");
                Ok(())
            }
            _ = self.signals.next() => Err(Failure::Forced { after: begun.elapsed() }),
        }
    }
}

impl Vitals for Proxy {
    const METRICS_TYPE: &'static str = METRICS_CONTENT_TYPE;

    fn is_ready(&self) -> bool {
        Proxy::health(self).ready
    }

    fn health(&self) -> serde_json::Value {
        serde_json::to_value(Proxy::health(self)).unwrap_or_default()
    }

    fn metrics(&self) -> String {
        self.metrics_text()
    }
}

/// The runtime that a configuration asks for.
pub(crate) fn runtime(settings: Runtime) -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = settings.workers {
        builder.worker_threads(workers);
    }
    Ok(builder.thread_name("tdsbouncer").enable_all().build()?)
}
