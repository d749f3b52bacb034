//! Session pooling through the front door: clients, the proxy and a stand-in server, over real sockets.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod client;

use std::time::Duration;

use client::stage::Stage;
use client::{Client, Who};
use tds::env_change::EnvChange;
use tds::value::Value;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_gets_the_same_login_response_as_directly_and_its_query_answered() {
    let stage = Stage::with(5).await;
    let mut direct = Client::connect(stage.server.addr(), &Who::default()).await;
    let mut proxied = Client::connect(stage.address, &Who::default()).await;
    assert_eq!(proxied.response.raw, direct.response.raw);
    for text in ["SELECT 42 AS n", "SELECT N'Žluťoučký kůň' AS s", "SELECT CAST(NULL AS int) AS n"] {
        assert_eq!(proxied.batch(text).await.rows, direct.batch(text).await.rows, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_share_one_server_connection_one_after_the_other() {
    let stage = Stage::with(5).await;
    for n in 0..20 {
        let mut client = Client::connect(stage.address, &Who::default()).await;
        assert_eq!(client.batch(&format!("SELECT {n}")).await.number(), n);
        drop(client);
        stage.until_everybody_left().await;
    }
    assert_eq!(stage.server.stats().peak, 1);
    assert_eq!(stage.server.stats().logins, 1, "later logins are answered from memory");
    assert_eq!(stage.server.stats().resets, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_clients_hold_no_server_connection() {
    let stage = Stage::with(5).await;
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(Client::connect(stage.address, &Who::default()).await);
    }
    stage.until("all are logged in", |stage| stage.proxy.health().buckets[0].clients == 50).await;
    assert_eq!(stage.proxy.health().buckets[0].leased, 0);
    assert_eq!(stage.server.stats().peak, 1, "one login proved the password for all");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_session_leaves_behind_is_gone_for_the_next() {
    let stage = Stage::with(1).await;
    let mut first = Client::connect(stage.address, &Who::default()).await;
    first.batch("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE").await;
    first.batch("CREATE TABLE #t (n int)").await;
    first.batch("SET CONTEXT_INFO 0x0102").await;
    first.batch("USE depot").await;
    first.batch("BEGIN TRANSACTION").await;
    drop(first);
    let mut second = Client::connect(stage.address, &Who::default()).await;
    let level = "SELECT transaction_isolation_level FROM sys.dm_exec_sessions WHERE session_id = @@SPID";
    assert_eq!(second.batch(level).await.number(), 2, "READ COMMITTED");
    assert_eq!(second.batch("SELECT @@TRANCOUNT").await.number(), 0);
    assert_eq!(second.batch("SELECT * FROM #t").await.error(), 208);
    assert_eq!(second.batch("SELECT DB_NAME()").await.value().as_str(), Some("shop"));
    assert!(matches!(second.batch("SELECT CONTEXT_INFO()").await.value(), Value::Null));
    assert_eq!(stage.server.stats().peak, 1, "it was the same connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_reset_is_not_acknowledged_is_never_lent_again() {
    let stage = Stage::with(1).await;
    let mut first = Client::connect(stage.address, &Who::default()).await;
    first.batch("SELECT 1").await;
    stage.server.faults().arm(tdsbouncer_sim::Fault::ResetNotAcknowledged);
    drop(first);
    stage.until_everybody_left().await;
    stage.server.faults().clear();
    let mut second = Client::connect(stage.address, &Who::default()).await;
    assert_eq!(second.batch("SELECT 2").await.number(), 2);
    assert_eq!(stage.server.stats().logins, 2, "on a new connection");
    assert_eq!(stage.server.stats().peak, 1, "closed before the next was opened");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_in_the_middle_of_a_response_takes_its_connection_with_it() {
    let stage = Stage::with(1).await;
    let mut first = Client::connect(stage.address, &Who::default()).await;
    first.send_batch("SELECT * FROM dbo.generate_rows(1000000, 100)").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(first);
    let mut second = Client::connect(stage.address, &Who::default()).await;
    assert_eq!(second.batch("SELECT 7").await.number(), 7);
    assert_eq!(stage.server.stats().peak, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_stays_with_its_client_and_its_envchanges_reach_it() {
    let stage = Stage::with(2).await;
    let mut client = Client::connect(stage.address, &Who::default()).await;
    let begun = client.batch("BEGIN TRANSACTION").await;
    assert!(matches!(begun.changes[..], [EnvChange::BeginTransaction(_)]), "{begun:?}");
    assert_eq!(client.batch("SELECT @@TRANCOUNT").await.number(), 1);
    let ended = client.batch("COMMIT").await;
    assert!(ended.changes.iter().any(EnvChange::ends_transaction), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attention_is_acknowledged_in_every_phase() {
    let stage = Stage::with(1).await;
    let mut client = Client::connect(stage.address, &Who::default()).await;
    // Before the first request: nobody has asked a server for anything.
    client.attention().await.unwrap();
    client.acknowledged().await;
    // While a request runs.
    client.send_batch("WAITFOR DELAY '00:00:30'").await.unwrap();
    tokio::time::sleep(Duration::from_millis(30)).await;
    client.attention().await.unwrap();
    client.acknowledged().await;
    // After its response.
    assert_eq!(client.batch("SELECT 1").await.number(), 1);
    client.attention().await.unwrap();
    client.acknowledged().await;
    // While it waits for a server connection.
    let mut waiting = Client::connect(stage.address, &Who::default()).await;
    waiting.send_batch("SELECT 2").await.unwrap();
    stage.until("somebody waits", |stage| stage.proxy.health().buckets[0].waiting == 1).await;
    waiting.attention().await.unwrap();
    waiting.acknowledged().await;
    stage.until("nobody waits", |stage| stage.proxy.health().buckets[0].waiting == 0).await;
    drop(client);
    assert_eq!(waiting.batch("SELECT 3").await.number(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_evicts_an_idle_connection_of_a_full_bucket() {
    let stage = Stage::with(1).await;
    stage.server.add_user(tdsbouncer_sim::User::new("eva", "Eva-passw0rd"));
    let eva = Who { user: "eva".to_owned(), password: "Eva-passw0rd".to_owned(), ..Who::default() };
    for who in [&Who::default(), &eva, &Who::default(), &eva] {
        let mut client = Client::connect(stage.address, who).await;
        assert_eq!(client.batch("SELECT SUSER_SNAME()").await.value().as_str(), Some(&*who.user));
        drop(client);
        stage.until_everybody_left().await;
    }
    assert_eq!(stage.server.stats().peak, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_died_while_idle_is_not_lent() {
    let stage = Stage::with(1).await;
    let mut first = Client::connect(stage.address, &Who::default()).await;
    first.batch("SELECT 1").await;
    drop(first);
    stage.until_everybody_left().await;
    stage.server.kill_all();
    stage.until("the server has closed it", |stage| stage.server.stats().open == 0).await;
    let mut second = Client::connect(stage.address, &Who::default()).await;
    assert_eq!(second.batch("SELECT 2").await.number(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn tds_7_1_clients_are_served_and_their_connections_are_closed_after_use() {
    let stage = Stage::with(1).await;
    let old = Who { version: tds::TdsVersion::V7_1, ..Who::default() };
    for n in 0..3 {
        let mut client = Client::connect(stage.address, &old).await;
        assert_eq!(client.batch(&format!("SELECT {n}")).await.number(), n);
        drop(client);
        stage.until_everybody_left().await;
    }
    assert_eq!(stage.server.stats().resets, 0, "a reset is not acknowledged before TDS 7.2");
    assert_eq!(stage.server.stats().peak, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_sessions_end_and_then_ends_them_clearly() {
    let stage = Stage::with(2).await;
    let mut idle = Client::connect(stage.address, &Who::default()).await;
    let mut holding = Client::connect(stage.address, &Who::default()).await;
    holding.batch("BEGIN TRANSACTION").await;
    let drained = stage.proxy.drain(Duration::from_millis(300));
    let (ended, told_idle, told_holding) = tokio::join!(drained, idle.response(), holding.response());
    assert_eq!(ended, 1, "the one that held a connection had to be ended");
    assert_eq!(told_idle.unwrap().error(), 40501);
    assert_eq!(told_holding.unwrap().error(), 40501);
    assert!(stage.proxy.finished().await, "it ended because it was asked to");
    assert!(tokio::net::TcpStream::connect(stage.address).await.is_err() || stage.server.stats().open == 0);
    assert_eq!(stage.server.stats().open, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_proxy_refuses_new_connections_at_once() {
    let stage = Stage::with(2).await;
    let mut holding = Client::connect(stage.address, &Who::default()).await;
    holding.batch("BEGIN TRANSACTION").await;
    let newcomer = async {
        let over = tokio::time::Instant::now() + Duration::from_secs(20);
        // Until the drain has begun, connections are still accepted.
        while let Ok(socket) = tokio::net::TcpStream::connect(stage.address).await {
            assert!(tokio::time::Instant::now() < over, "still accepted");
            drop(socket);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(holding.batch("SELECT 7").await.number(), 7, "the drain goes on");
        drop(holding);
    };
    let (ended, ()) = tokio::join!(stage.proxy.drain(Duration::from_secs(60)), newcomer);
    assert_eq!(ended, 0, "everybody left before the deadline");
}
