//! Spans on their way to the collector: a bounded queue and one task. A collector that is slow or away costs spans and
//! nothing else.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter as Otlp, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tdsbouncer_config::OtlpProtocol;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use crate::metrics::Metrics;

/// Requests whose spans wait. Beyond it spans are dropped, and counted.
const QUEUE: usize = 4096;

/// Requests whose spans are sent together.
const BATCH: usize = 512;

/// How long spans are gathered before they are sent.
const GATHER: Duration = Duration::from_millis(200);

/// The longest that the collector may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A collector that stays away is complained about once in so long.
const COMPLAINT: Duration = Duration::from_secs(60);

/// Why there is no exporter.
#[derive(Debug, thiserror::Error)]
#[error("telemetry.endpoint: {0}")]
pub(crate) struct ExporterError(#[from] ExporterBuildError);

enum Item {
    Spans(Vec<SpanData>),
    Flush(oneshot::Sender<()>),
}

/// The queue's end at which spans are put in.
pub(super) struct Exporter {
    queue: mpsc::Sender<Item>,
    metrics: Arc<Metrics>,
}

impl Exporter {
    pub(super) fn start(
        endpoint: &str,
        protocol: OtlpProtocol,
        version: &'static str,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ExporterError> {
        let builder = Otlp::builder();
        let mut exporter = match protocol {
            OtlpProtocol::Grpc => {
                builder.with_tonic().with_endpoint(endpoint).with_timeout(PATIENCE).build()?
            }
            OtlpProtocol::Http => {
                builder.with_http().with_endpoint(endpoint).with_timeout(PATIENCE).build()?
            }
        };
        let instance = format!("{}:{}", host_name(), std::process::id());
        let resource = Resource::builder()
            .with_service_name("tdsbouncer")
            .with_attribute(KeyValue::new("service.version", version))
            .with_attribute(KeyValue::new("service.instance.id", instance))
            .build();
        exporter.set_resource(&resource);
        let (queue, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(send_all(exporter, waiting, Arc::clone(&metrics)));
        Ok(Self { queue, metrics })
    }

    /// Never waits.
    pub(super) fn offer(&self, spans: Vec<SpanData>) {
        let number = spans.len();
        if self.queue.try_send(Item::Spans(spans)).is_err() {
            self.metrics.spans("dropped", number);
        }
    }

    /// What is not sent by then is lost with the process.
    pub(super) async fn flush(&self, patience: Duration) {
        let (done, sent) = oneshot::channel();
        let flushing = async {
            if self.queue.send(Item::Flush(done)).await.is_ok() {
                drop(sent.await);
            }
        };
        drop(timeout(patience, flushing).await);
    }
}

/// Ends with the queue.
async fn send_all(exporter: Otlp, mut waiting: mpsc::Receiver<Item>, metrics: Arc<Metrics>) {
    let mut complained: Option<Instant> = None;
    while let Some(first) = waiting.recv().await {
        let (mut spans, mut flushed) = (Vec::new(), Vec::new());
        match first {
            Item::Spans(more) => {
                spans = more;
                sleep(GATHER).await;
            }
            Item::Flush(done) => flushed.push(done),
        }
        for _ in 1..BATCH {
            match waiting.try_recv() {
                Ok(Item::Spans(more)) => spans.extend(more),
                Ok(Item::Flush(done)) => flushed.push(done),
                Err(_) => break,
            }
        }
        let number = spans.len();
        if number > 0 {
            let why = match timeout(2 * PATIENCE, exporter.export(spans)).await {
                Ok(Ok(())) => None,
                Ok(Err(why)) => Some(why.to_string()),
                Err(_) => Some("no answer".to_owned()),
            };
            metrics.spans(if why.is_none() { "exported" } else { "failed" }, number);
            if let Some(why) = why.filter(|_| complained.is_none_or(|last| last.elapsed() >= COMPLAINT)) {
                complained = Some(Instant::now());
                warn!(why, spans = number, "the collector did not take spans");
            }
        }
        for done in flushed {
            // Whoever flushes may have lost patience.
            let _ = done.send(());
        }
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    name.map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
}
