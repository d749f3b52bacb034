//! What the proxy adds to a request: the same requests direct to the stand-in server and through the proxy, in
//! turns within one run, as ratios. `make bench` runs it.
//!
//! The question: how much of the stand-in's throughput is left behind the proxy, at 1, 16 and 64 clients, for a
//! small batch and for 1 MB of rows, and how long does a login take. Client, server and proxy share the
//! machine's cores, so the ratio is the proxy's whole cost, not its added latency alone. Five rounds; the spread
//! is printed beside the median.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a benchmark that cannot run says so")]
#![allow(missing_docs, reason = "a program, not a library")]

#[path = "../tests/client/mod.rs"]
mod client;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use client::stage::Stage;
use client::{Client, Who};

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(1500);

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let stage = Arc::new(Stage::with(100).await);
        println!("{:<26} {:>12} {:>12}   proxy/direct (spread)", "requests a second", "direct", "proxy");
        for clients in [1, 16, 64] {
            compare(&stage, &format!("small batch, {clients} clients"), clients, "SELECT 1 AS n").await;
        }
        let rows = "SELECT * FROM dbo.generate_rows(10000, 100)";
        compare(&stage, "1 MB of rows, 4 clients", 4, rows).await;
        logins(&stage).await;
    });
}

async fn compare(stage: &Arc<Stage>, what: &str, clients: usize, text: &'static str) {
    let (mut direct, mut proxied, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let d = rate(stage.server.addr(), clients, text).await;
        let p = rate(stage.address, clients, text).await;
        direct.push(d);
        proxied.push(p);
        ratios.push(p / d);
    }
    report(what, direct, proxied, ratios);
}

fn report(what: &str, mut direct: Vec<f64>, mut proxied: Vec<f64>, mut ratios: Vec<f64>) {
    for list in [&mut direct, &mut proxied, &mut ratios] {
        list.sort_by(f64::total_cmp);
    }
    let middle = ROUNDS / 2;
    println!(
        "{what:<26} {:>12.0} {:>12.0}   {:.2} ({:.2}-{:.2})",
        direct[middle],
        proxied[middle],
        ratios[middle],
        ratios[0],
        ratios[ROUNDS - 1]
    );
}

/// Requests a second of so many clients, each waiting for its answer before it asks again.
async fn rate(address: SocketAddr, clients: usize, text: &'static str) -> f64 {
    let served = Arc::new(AtomicU64::new(0));
    let mut ready = Vec::new();
    for _ in 0..clients {
        let mut client = Client::connect(address, &Who::default()).await;
        client.batch(text).await;
        ready.push(client);
    }
    let (began, mut running) = (Instant::now(), tokio::task::JoinSet::new());
    for mut client in ready {
        let served = Arc::clone(&served);
        running.spawn(async move {
            while began.elapsed() < ROUND {
                client.batch(text).await;
                served.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    while let Some(done) = running.join_next().await {
        done.expect("a client works");
    }
    served.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64()
}

/// Logins a second, one after the other: through the proxy from memory.
async fn logins(stage: &Arc<Stage>) {
    let (mut direct, mut proxied, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let d = login_rate(stage.server.addr()).await;
        let p = login_rate(stage.address).await;
        direct.push(d);
        proxied.push(p);
        ratios.push(p / d);
    }
    report("logins, 1 client", direct, proxied, ratios);
}

async fn login_rate(address: SocketAddr) -> f64 {
    let (began, mut logins) = (Instant::now(), 0u32);
    while began.elapsed() < ROUND {
        drop(Client::connect(address, &Who::default()).await);
        logins += 1;
    }
    f64::from(logins) / began.elapsed().as_secs_f64()
}
