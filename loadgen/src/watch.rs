//! What the proxies say of themselves while a run goes on: their `/health`, a few times a second.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// How often.
const EVERY: Duration = Duration::from_millis(250);

/// The longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// One bucket, summed over all proxies that answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BucketNow {
    /// The most server connections over all proxies.
    pub max_connections: u32,
    /// Server connections that exist: opening, open, closing.
    pub used: u32,
    /// Of them idle.
    pub idle: usize,
    /// Of them lent.
    pub leased: usize,
    /// Clients that wait.
    pub waiting: usize,
    /// Clients logged in.
    pub clients: usize,
}

/// One look.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Look {
    /// Seconds since watching began.
    pub seconds: f64,
    /// Proxies that answered.
    pub proxies: usize,
    /// By bucket.
    pub buckets: BTreeMap<String, BucketNow>,
}

#[derive(Deserialize)]
struct Health {
    buckets: Vec<BucketHealth>,
}

#[derive(Deserialize)]
struct BucketHealth {
    name: String,
    max_connections: u32,
    used: u32,
    idle: usize,
    leased: usize,
    waiting: usize,
    clients: usize,
}

/// Looks until it is dropped.
pub struct Watcher {
    looks: Arc<Mutex<Vec<Look>>>,
    task: JoinHandle<()>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watcher {
    /// Begins to watch the proxies whose health is answered at these addresses.
    pub fn start(addresses: Vec<SocketAddr>) -> Self {
        let looks: Arc<Mutex<Vec<Look>>> = Arc::default();
        let task = tokio::spawn({
            let (looks, began) = (Arc::clone(&looks), Instant::now());
            async move {
                loop {
                    let look = Look { seconds: began.elapsed().as_secs_f64(), ..look(&addresses).await };
                    looks.lock().unwrap_or_else(PoisonError::into_inner).push(look);
                    sleep(EVERY).await;
                }
            }
        });
        Self { looks, task }
    }

    /// Everything seen so far.
    pub fn looks(&self) -> Vec<Look> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Asks all proxies once, and sums up what they say. Who does not answer is left out.
pub async fn look(addresses: &[SocketAddr]) -> Look {
    let mut look = Look::default();
    for address in addresses {
        let Ok(Ok(body)) = timeout(PATIENCE, get(*address, "/health")).await else { continue };
        let Ok(health) = serde_json::from_str::<Health>(&body) else { continue };
        look.proxies += 1;
        for bucket in health.buckets {
            let now = look.buckets.entry(bucket.name).or_default();
            now.max_connections = now.max_connections.max(bucket.max_connections);
            now.used += bucket.used;
            now.idle += bucket.idle;
            now.leased += bucket.leased;
            now.waiting += bucket.waiting;
            now.clients += bucket.clients;
        }
    }
    look
}

/// An answer's body, whatever its status.
async fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut socket = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    socket.take(4 << 20).read_to_end(&mut answer).await?;
    let answer = String::from_utf8(answer).map_err(io::Error::other)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    Ok(body.to_owned())
}
