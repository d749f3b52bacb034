//! A connection stays with the session that used it last until anybody else needs it.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod client;

use std::time::Duration;

use client::stage::Stage;
use client::{Client, Who};
use tdsbouncer_config::{Bucket, PoolMode, SpidReads};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// Longer than any test.
const LONG: Duration = Duration::from_secs(60);

async fn stage(max_connections: u32, set: impl FnOnce(&mut Bucket)) -> Stage {
    let set_bucket = |bucket: &mut Bucket| {
        bucket.pool_mode = PoolMode::Transaction;
        bucket.spid_reads = SpidReads::Allow;
        bucket.affinity = LONG;
        set(bucket);
    };
    Stage::set(max_connections, set_bucket, |_| {}).await
}

async fn join(stage: &Stage) -> Client {
    Client::connect(stage.address, &Who::default()).await
}

async fn order(stage: &Stage, command: &str) {
    let mut stream = BufReader::new(UnixStream::connect(stage.admin_socket()).await.unwrap());
    let line = format!("{}\n", serde_json::json!({ "do": command }));
    stream.write_all(line.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_line(&mut answer).await.unwrap();
    assert!(answer.contains("rows"), "{command}: {answer}");
}

async fn process_id(client: &mut Client) -> i64 {
    client.batch("SELECT @@SPID").await.number()
}

/// Two sessions, each of which has just given a connection back.
async fn two_with_a_connection_each(stage: &Stage) -> (Client, Client) {
    let (mut one, mut two) = (join(stage).await, join(stage).await);
    one.batch("BEGIN TRANSACTION; SELECT 1").await;
    two.batch("BEGIN TRANSACTION; SELECT 2").await;
    one.batch("COMMIT").await;
    two.batch("COMMIT").await;
    (one, two)
}

/// How often a connection was lent by the bucket.
fn leases(stage: &Stage) -> u64 {
    let text = stage.proxy.metrics_text();
    let line = text.lines().find(|line| line.starts_with("tdsbouncer_leases_total{"));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).expect("it is among the metrics")
}

async fn open(stage: &Stage, connections: usize) {
    let what = format!("{connections} are open");
    stage.until(&what, |stage| stage.server.stats().open == connections).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_session_goes_on_with_the_connection_that_nobody_else_needs() {
    let stage = stage(2, |_| {}).await;
    let (mut one, mut two) = two_with_a_connection_each(&stage).await;
    let own = (process_id(&mut one).await, process_id(&mut two).await);
    assert_ne!(own.0, own.1);
    for _ in 0..20 {
        assert_eq!((process_id(&mut one).await, process_id(&mut two).await), own);
    }
    let health = stage.proxy.health();
    assert_eq!((health.buckets[0].leased, health.buckets[0].idle), (0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_affinity_every_request_asks_for_a_connection() {
    for (affinity, asked) in [(LONG, 0), (Duration::ZERO, 40)] {
        let stage = stage(2, |bucket| bucket.affinity = affinity).await;
        let (mut one, mut two) = two_with_a_connection_each(&stage).await;
        let before = leases(&stage);
        for _ in 0..20 {
            one.batch("SELECT 1").await;
            two.batch("SELECT 2").await;
        }
        assert_eq!(leases(&stage) - before, asked, "affinity {affinity:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rests_serves_whoever_asks_before_anything_is_opened() {
    let stage = stage(10, |_| {}).await;
    let (mut one, mut two) = (join(&stage).await, join(&stage).await);
    for round in 0..20 {
        assert_eq!(one.batch(&format!("SELECT {round}")).await.number(), round);
        assert_eq!(two.batch(&format!("SELECT -{round}")).await.number(), -round);
    }
    assert_eq!(stage.server.stats().peak, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rests_gives_way_to_another_login() {
    let stage = stage(1, |_| {}).await;
    let mut one = join(&stage).await;
    let elsewhere = Who { database: "depot".to_owned(), ..Who::default() };
    let mut two = Client::connect(stage.address, &elsewhere).await;
    for _ in 0..5 {
        assert_eq!(one.batch("SELECT DB_NAME()").await.value().as_str(), Some("shop"));
        assert_eq!(two.batch("SELECT DB_NAME()").await.value().as_str(), Some("depot"));
    }
    assert_eq!(stage.server.stats().peak, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_gets_the_connection_as_soon_as_a_transaction_ends() {
    let stage = stage(1, |_| {}).await;
    let (mut one, mut two) = (join(&stage).await, join(&stage).await);
    one.batch("BEGIN TRANSACTION; SELECT 1").await;
    two.send_batch("SELECT 2").await.unwrap();
    stage.until("it waits", |stage| stage.proxy.health().buckets[0].waiting == 1).await;
    one.batch("COMMIT").await;
    assert_eq!(two.response().await.unwrap().number(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_closes_what_rests_and_its_session_goes_on_afterwards() {
    let stage = stage(2, |_| {}).await;
    let (mut one, mut two) = two_with_a_connection_each(&stage).await;
    order(&stage, "PAUSE b1").await;
    open(&stage, 0).await;
    one.send_batch("SELECT 1").await.unwrap();
    stage.until("it waits", |stage| stage.proxy.health().buckets[0].waiting == 1).await;
    order(&stage, "RESUME b1").await;
    assert_eq!(one.response().await.unwrap().number(), 1);
    assert_eq!(two.batch("SELECT 2").await.number(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lower_limit_closes_what_rests() {
    let stage = stage(2, |_| {}).await;
    let (mut one, mut two) = two_with_a_connection_each(&stage).await;
    order(&stage, "SET b1.max_connections = 1").await;
    open(&stage, 1).await;
    assert_eq!((one.batch("SELECT 1").await.number(), two.batch("SELECT 2").await.number()), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reconnect_replaces_what_rests() {
    let stage = stage(2, |_| {}).await;
    let (mut one, mut two) = two_with_a_connection_each(&stage).await;
    order(&stage, "RECONNECT b1").await;
    open(&stage, 0).await;
    assert_eq!((one.batch("SELECT 1").await.number(), two.batch("SELECT 2").await.number()), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rests_and_was_closed_by_the_server_is_replaced_unnoticed() {
    let stage = stage(2, |_| {}).await;
    let (mut one, mut two) = two_with_a_connection_each(&stage).await;
    stage.server.kill_all();
    open(&stage, 0).await;
    assert_eq!((one.batch("SELECT 1").await.number(), two.batch("SELECT 2").await.number()), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_leaves_leaves_its_connection_to_others() {
    let stage = stage(2, |_| {}).await;
    let (one, mut two) = two_with_a_connection_each(&stage).await;
    drop(one);
    stage.until("it left", |stage| stage.proxy.health().clients == 1).await;
    two.batch("BEGIN TRANSACTION; SELECT 1").await;
    let mut three = join(&stage).await;
    assert_eq!(three.batch("SELECT 3").await.number(), 3);
    assert_eq!(stage.server.stats().peak, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_the_bucket_closes_what_rests_and_nobody_notices() {
    let stage = stage(2, |_| {}).await;
    let (mut one, mut two) = two_with_a_connection_each(&stage).await;
    let mut crasher = Client::connect(
        stage.address,
        &Who::application(&format!("crash:bucket,test{}", client::stage::unique())),
    )
    .await;
    // Its request is answered by the bucket's successor.
    assert_eq!(crasher.batch("SELECT 3").await.number(), 3);
    assert_eq!((one.batch("SELECT 1").await.number(), two.batch("SELECT 2").await.number()), (1, 2));
    stage.until("no slot is lost", |stage| stage.proxy.health().buckets[0].used <= 2).await;
    drop((one, two, crasher));
    stage.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_its_time_a_connection_is_closed_like_any_idle_one() {
    let stage = stage(2, |bucket| {
        bucket.affinity = Duration::from_millis(1);
        bucket.idle_timeout = Some(Duration::from_millis(1));
    })
    .await;
    let (mut one, _two) = two_with_a_connection_each(&stage).await;
    open(&stage, 0).await;
    assert_eq!(one.batch("SELECT 1").await.number(), 1);
}
