//! `/health/live`, `/health/ready`, `/health` and `/metrics`: small answers for probes and scrapers, bounded like
//! everything else that strangers can reach.

use crate::failure::Failure;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Connections at once, for each of the two addresses: probes and scrapers are few.
const MAX_CONNECTIONS: usize = 64;
/// From accept to the last byte of the answer. Prometheus gives up after 10 seconds by default.
const LONGEST: Duration = Duration::from_secs(10);
/// After a failed accept (no file descriptor left, mostly).
const PAUSE: Duration = Duration::from_millis(100);

/// What the answers are made of.
pub(crate) trait Vitals: Send + Sync + 'static {
    /// The content type of [`metrics`](Self::metrics).
    const METRICS_TYPE: &'static str;
    /// Whether new clients are welcome.
    fn is_ready(&self) -> bool;
    /// The state of every bucket.
    fn health(&self) -> serde_json::Value;
    /// All metrics.
    fn metrics(&self) -> String;
}

/// The addresses where somebody answers; dropping it ends that.
pub(crate) struct Http {
    pub(crate) health: Option<SocketAddr>,
    pub(crate) metrics: Option<SocketAddr>,
    _tasks: JoinSet<()>,
}

impl Http {
    /// Listens on those addresses that are given.
    pub(crate) async fn start<V: Vitals>(
        vitals: Arc<V>,
        health: Option<SocketAddr>,
        metrics: Option<SocketAddr>,
    ) -> Result<Self, Failure> {
        let mut tasks = JoinSet::new();
        let health = match health {
            Some(address) => {
                Some(spawn(&mut tasks, "health", address, health_routes(Arc::clone(&vitals))).await?)
            }
            None => None,
        };
        let metrics = match metrics {
            Some(address) => Some(spawn(&mut tasks, "metrics", address, metrics_routes(vitals)).await?),
            None => None,
        };
        Ok(Self { health, metrics, _tasks: tasks })
    }
}

fn health_routes<V: Vitals>(vitals: Arc<V>) -> Router {
    Router::new()
        // Answering at all is being alive: a wedged runtime does not get here.
        .route("/health/live", get(async || "live\n"))
        .route("/health/ready", get(ready::<V>))
        .route("/health", get(health::<V>))
        .with_state(vitals)
}

fn metrics_routes<V: Vitals>(vitals: Arc<V>) -> Router {
    Router::new().route("/metrics", get(metrics::<V>)).with_state(vitals)
}

async fn ready<V: Vitals>(State(vitals): State<Arc<V>>) -> Response {
    if vitals.is_ready() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
    }
}

async fn health<V: Vitals>(State(vitals): State<Arc<V>>) -> Response {
    Json(vitals.health()).into_response()
}

async fn metrics<V: Vitals>(State(vitals): State<Arc<V>>) -> Response {
    ([(header::CONTENT_TYPE, V::METRICS_TYPE)], vitals.metrics()).into_response()
}

async fn spawn(
    tasks: &mut JoinSet<()>,
    what: &'static str,
    address: SocketAddr,
    routes: Router,
) -> Result<SocketAddr, Failure> {
    let listen = async {
        let listener = TcpListener::bind(address).await?;
        Ok((listener.local_addr()?, listener))
    };
    let (address, listener) = listen.await.map_err(|source| Failure::Listen { what, address, source })?;
    tasks.spawn(answer(listener, routes, LONGEST));
    Ok(address)
}

/// Connections end with this future.
async fn answer(listener: TcpListener, routes: Router, longest: Duration) {
    let seats = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        let service = TowerToHyperService::new(routes.clone());
        connections.spawn(async move {
            let serving =
                http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
            // A peer that is slow or speaks nonsense loses its connection; nobody else has lost anything.
            let _ = timeout(longest, serving).await;
            drop(seat);
        });
        while connections.try_join_next().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    struct Fake(AtomicBool);

    impl Vitals for Fake {
        const METRICS_TYPE: &'static str = "text/plain";

        fn is_ready(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }

        fn health(&self) -> serde_json::Value {
            serde_json::json!({ "buckets": [] })
        }

        fn metrics(&self) -> String {
            "# EOF\n".to_owned()
        }
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn start() -> (Arc<Fake>, Http) {
        let fake = Arc::new(Fake(AtomicBool::new(true)));
        let any = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        let http = Http::start(Arc::clone(&fake), any, any).await.unwrap();
        (fake, http)
    }

    #[tokio::test]
    async fn a_draining_proxy_is_live_and_not_ready() {
        let (fake, http) = start().await;
        let address = http.health.unwrap();
        assert!(get(address, "/health/ready").await.starts_with("HTTP/1.1 200"));
        fake.0.store(false, Ordering::Relaxed);
        assert!(get(address, "/health/ready").await.starts_with("HTTP/1.1 503"));
        assert!(get(address, "/health/live").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/health").await.ends_with("{\"buckets\":[]}"));
    }

    #[tokio::test]
    async fn metrics_are_answered_on_their_own_address_only() {
        let (_, http) = start().await;
        let answer = get(http.metrics.unwrap(), "/metrics").await;
        assert!(answer.contains("text/plain") && answer.ends_with("# EOF\n"), "{answer}");
        assert!(get(http.health.unwrap(), "/metrics").await.starts_with("HTTP/1.1 404"));
    }

    #[tokio::test]
    async fn silent_connections_do_not_keep_the_next_probe_out_for_longer_than_the_limit() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().route("/", super::get(async || "here"));
        let _answering = tokio::spawn(answer(listener, routes, Duration::from_millis(200)));
        let mut silent = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let answer = timeout(LONGEST, get(address, "/")).await.unwrap();
        assert!(answer.ends_with("here"), "{answer}");
    }
}
