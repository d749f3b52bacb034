//! The proxy as a running service: started, answering on HTTP, reloaded by SIGHUP, drained by the first signal that
//! ends it or by an operator, ended by the second.

use crate::failure::Failure;
use crate::http::{Http, Vitals};
use crate::open_files;
use crate::signals::{SIGHUP, Signals};
use crate::systemd;
use crate::telemetry::LogFilter;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tdsbouncer_actors::{METRICS_CONTENT_TYPE, Proxy, Shutdown};
use tdsbouncer_config::{Config, Runtime};

/// A proxy with everything around it.
pub(crate) struct Service {
    proxy: Arc<Proxy>,
    http: Http,
    signals: Signals,
}

impl Service {
    /// Listens when this returns; the log must be there before.
    pub(crate) async fn start(config: Config, log: LogFilter) -> Result<Self, Failure> {
        let signals = Signals::listen()?;
        open_files::raise(&config);
        let (health, metrics) = (config.health, config.metrics);
        let proxy = Proxy::start(Arc::new(config), env!("CARGO_PKG_VERSION")).await;
        let proxy = Arc::new(proxy.map_err(|why| Failure::Start(why.to_string()))?);
        proxy.log_is_set_by(move |filter| log.set(filter));
        let http = Http::start(Arc::clone(&proxy), health, metrics).await?;
        if let Some(address) = http.health {
            tracing::info!(%address, "answering /health");
        }
        if let Some(address) = http.metrics {
            tracing::info!(%address, "answering /metrics");
        }
        if let Some(address) = proxy.admin_address() {
            tracing::info!(%address, "answering operators");
        }
        systemd::notify(systemd::READY);
        Ok(Self { proxy, http, signals })
    }

    /// Where each listener listens, by name.
    pub(crate) fn addresses(&self) -> Vec<(String, SocketAddr)> {
        self.proxy.addresses()
    }

    /// Where health and metrics are answered.
    pub(crate) fn http(&self) -> &Http {
        &self.http
    }

    /// Serves until a signal, an operator or the proxy itself ends it.
    pub(crate) async fn until_stopped(mut self) -> Result<(), Failure> {
        let _watchdog = systemd::watchdog_interval().map(Watchdog::start);
        let deadline = loop {
            tokio::select! {
                signal = self.signals.any() => match signal {
                    SIGHUP => self.reload().await,
                    signal => {
                        tracing::info!(signal, "draining; a second signal ends at once");
                        break self.proxy.drain_limit();
                    }
                },
                how = self.proxy.shutdown_wanted() => {
                    tracing::info!(?how, "an operator ends the proxy; a signal ends it at once");
                    break match how {
                        Shutdown::Drain => self.proxy.drain_limit(),
                        Shutdown::WaitForClients => Duration::MAX,
                    };
                }
                _ = self.proxy.finished() => return Err(Failure::GaveUp),
            }
        };
        systemd::notify(systemd::STOPPING);
        let begun = Instant::now();
        tokio::select! {
            ended = self.proxy.drain(deadline) => {
                tracing::info!(elapsed = ?begun.elapsed(), ended, "drained");
                Ok(())
            }
            _ = self.signals.next() => Err(Failure::Forced { after: begun.elapsed() }),
        }
    }

    async fn reload(&self) {
        systemd::reloading();
        match self.proxy.reload().await {
            Ok(changes) if changes.is_empty() => tracing::info!("reloaded: nothing changed"),
            Ok(changes) => changes.iter().for_each(|change| tracing::info!(change, "reloaded")),
            Err(why) => tracing::error!(why, "not reloaded"),
        }
        systemd::notify(systemd::READY);
    }
}

/// Tells systemd's watchdog that the runtime turns, until dropped.
struct Watchdog(tokio::task::JoinHandle<()>);

impl Watchdog {
    fn start(every: Duration) -> Self {
        Self(tokio::spawn(async move {
            loop {
                systemd::notify(systemd::WATCHDOG);
                tokio::time::sleep(every).await;
            }
        }))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.abort();
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
