//! Who waits for a server connection, in which order, how long, and what the surplus is told.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod client;

use std::sync::Arc;
use std::time::{Duration, Instant};

use client::stage::Stage;
use client::{Client, Who};

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_clients_are_served_by_twenty_connections() {
    let stage = Arc::new(Stage::set(20, |bucket| bucket.queue_limit = 1000, |_| {}).await);
    let mut clients = tokio::task::JoinSet::new();
    for n in 0..300i64 {
        let stage = Arc::clone(&stage);
        clients.spawn(async move {
            let mut client = Client::connect(stage.address, &Who::default()).await;
            for round in 0..3 {
                let n = n * 10 + round;
                assert_eq!(client.batch(&format!("SELECT {n}")).await.number(), n);
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    stage.until_everybody_left().await;
    assert!(stage.server.stats().peak <= 20, "{:?}", stage.server.stats());
    assert_eq!(stage.server.stats().over_limit, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_served_in_order_of_arrival() {
    let stage = Arc::new(Stage::with(1).await);
    let mut holder = Client::connect(stage.address, &Who::default()).await;
    holder.batch("SELECT 1").await;
    let (tell, mut order) = tokio::sync::mpsc::unbounded_channel();
    for n in 0..20 {
        let mut client = Client::connect(stage.address, &Who::default()).await;
        client.send_batch("SELECT 1").await.unwrap();
        let waiting = n + 1;
        stage.until("it waits", |stage| stage.proxy.health().buckets[0].waiting == waiting).await;
        let tell = tell.clone();
        tokio::spawn(async move {
            client.response().await.unwrap();
            tell.send(n).unwrap();
        });
    }
    drop(holder);
    for expected in 0..20 {
        assert_eq!(order.recv().await, Some(expected));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_the_queue_full_is_told_at_once_with_the_numbers() {
    let stage = Stage::set(1, |bucket| bucket.queue_limit = 2, |_| {}).await;
    let mut holder = Client::connect(stage.address, &Who::default()).await;
    holder.batch("SELECT 1").await;
    let mut waiting = Vec::new();
    for n in 1..=2 {
        let mut client = Client::connect(stage.address, &Who::default()).await;
        client.send_batch("SELECT 1").await.unwrap();
        stage.until("it waits", |stage| stage.proxy.health().buckets[0].waiting == n).await;
        waiting.push(client);
    }
    let mut surplus = Client::connect(stage.address, &Who::default()).await;
    let began = Instant::now();
    let response = surplus.batch("SELECT 1").await;
    assert!(began.elapsed() < Duration::from_secs(5), "at once, not at the deadline");
    assert_eq!((response.error(), response.errors[0].class), (10928, 16));
    let text = &response.errors[0].text;
    assert!(text.starts_with("tdsbouncer: bucket b1") && text.contains("2 clients wait"), "{text}");
    drop(holder);
    assert_eq!(waiting[0].response().await.unwrap().number(), 1);
    drop(waiting);
    assert_eq!(surplus.batch("SELECT 3").await.number(), 3, "its session is as good as before");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_too_long_is_told_how_many_stood_ahead() {
    let limit = Duration::from_millis(300);
    let stage = Stage::set(1, |bucket| bucket.acquire_timeout = limit, |_| {}).await;
    let mut holder = Client::connect(stage.address, &Who::default()).await;
    holder.batch("SELECT 1").await;
    let mut first = Client::connect(stage.address, &Who::default()).await;
    let mut second = Client::connect(stage.address, &Who::default()).await;
    first.send_batch("SELECT 1").await.unwrap();
    stage.until("it waits", |stage| stage.proxy.health().buckets[0].waiting == 1).await;
    let began = Instant::now();
    let response = second.batch("SELECT 1").await;
    assert!(began.elapsed() >= limit);
    assert_eq!(response.error(), 10928);
    assert!(response.errors[0].text.contains("ahead"), "{}", response.errors[0].text);
    assert_eq!(first.response().await.unwrap().error(), 10928);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_while_it_waits_leaves_the_queue() {
    let stage = Stage::with(1).await;
    let mut holder = Client::connect(stage.address, &Who::default()).await;
    holder.batch("SELECT 1").await;
    let mut leaver = Client::connect(stage.address, &Who::default()).await;
    leaver.send_batch("SELECT 1").await.unwrap();
    stage.until("it waits", |stage| stage.proxy.health().buckets[0].waiting == 1).await;
    drop(leaver);
    stage.until("the queue is empty", |stage| stage.proxy.health().buckets[0].waiting == 0).await;
    assert_eq!(holder.batch("SELECT 2").await.number(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_clients_are_told_so_at_login() {
    let stage =
        Stage::set(1, |bucket| bucket.max_clients = Some(1), |config| config.limits.max_clients = 3).await;
    let _first = Client::connect(stage.address, &Who::default()).await;
    let errors = Client::refused(stage.address, &Who::default()).await;
    assert_eq!(errors[0].number, 10928);
    assert!(errors[0].text.contains("bucket b1: too many clients"), "{}", errors[0].text);
    let _open = (
        tokio::net::TcpStream::connect(stage.address).await.unwrap(),
        tokio::net::TcpStream::connect(stage.address).await.unwrap(),
    );
    stage.until("they are counted", |stage| stage.proxy.health().clients >= 3).await;
    let errors = Client::refused(stage.address, &Who::default()).await;
    assert!(errors[0].text.contains("limits.max_clients"), "{}", errors[0].text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_reached_is_said_so_and_found_again() {
    let stage =
        Stage::set(2, |bucket| bucket.reconnect_backoff.max = Duration::from_millis(200), |_| {}).await;
    stage.server.faults().arm(tdsbouncer_sim::Fault::RefuseConnections);
    let errors = Client::refused(stage.address, &Who::default()).await;
    assert_eq!((errors[0].number, errors[0].class), (40613, 16), "{errors:?}");
    assert_eq!(stage.proxy.health().buckets[0].state, "unreachable");
    stage.server.faults().clear();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut client = Client::connect(stage.address, &Who::default()).await;
    assert_eq!(client.batch("SELECT 1").await.number(), 1);
    assert_eq!(stage.proxy.health().buckets[0].state, "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn min_idle_connections_are_kept_warm_and_old_ones_replaced() {
    let stage = Stage::set(
        4,
        |bucket| {
            bucket.min_idle = 2;
            bucket.max_lifetime = Some(Duration::from_millis(1500));
            bucket.idle_timeout = Some(Duration::from_millis(100));
        },
        |_| {},
    )
    .await;
    drop(Client::connect(stage.address, &Who::default()).await);
    stage.until("two are warm", |stage| stage.proxy.health().buckets[0].idle == 2).await;
    let logins = stage.server.stats().logins;
    stage.until("old ones are replaced", |stage| stage.server.stats().logins > logins).await;
    assert!(stage.server.stats().peak <= 4);
}
