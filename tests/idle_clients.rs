//! Many clients that are logged in and do nothing: what each costs, and that none holds a server connection.
//!
//! 10,000, as far as the limit of open files allows; `IDLE_CLIENTS` says another number.

#![cfg(target_os = "linux")]

#[path = "../actors/tests/client/mod.rs"]
mod client;
mod process;

use std::net::SocketAddr;
use std::time::Duration;

use client::{Client, Who};
use process::Processes;
use tokio::task::JoinSet;

/// What an idle client may cost, in bytes of the proxy's own memory; the kernel's socket is not in it.
const BOUND: usize = 16 * 1024;

/// Clients that log in at the same time.
const AT_ONCE: usize = 64;

fn clients() -> usize {
    let said = std::env::var("IDLE_CLIENTS").ok().map(|text| text.parse().expect("IDLE_CLIENTS is a number"));
    said.unwrap_or(10_000)
}

async fn log_in(address: SocketAddr, clients: usize) -> Vec<Client> {
    let mut logging_in = JoinSet::new();
    let mut logged_in = Vec::with_capacity(clients);
    for _ in 0..clients {
        if logging_in.len() >= AT_ONCE {
            logged_in.extend(logging_in.join_next().await.map(|client| client.expect("it logs in")));
        }
        logging_in.spawn(async move { Client::connect(address, &Who::default()).await });
    }
    while let Some(client) = logging_in.join_next().await {
        logged_in.push(client.expect("it logs in"));
    }
    logged_in
}

#[tokio::test]
async fn an_idle_client_costs_little_and_no_server_connection() {
    let allowed = rlimit::increase_nofile_limit(u64::MAX).expect("a limit of open files");
    // The files that tests and proxy open beside their clients'.
    let wanted = clients().min(usize::try_from(allowed).expect("64 bits") - 500);
    let processes = Processes::start("max_clients = 100000");
    // Once before, so that what is measured is these clients and not the program's first steps.
    drop(log_in(processes.proxy, AT_ONCE).await);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = processes.memory();
    let mut idle = log_in(processes.proxy, wanted).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let each = processes.memory().saturating_sub(before) / wanted;
    println!("{wanted} idle clients: {each} bytes each");
    let count = "SELECT COUNT(*) FROM sys.dm_exec_sessions WHERE is_user_process = 1";
    let mut direct = Client::connect(processes.server, &Who::default()).await;
    assert!(
        direct.batch(count).await.number() <= 2,
        "at most the one that proved the password, and this one"
    );
    for at in [0, wanted / 2, wanted - 1] {
        assert_eq!(idle[at].batch("SELECT 42").await.number(), 42, "an idle client is served");
    }
    assert!(each <= BOUND, "{each} bytes for each of {wanted} idle clients");
}
