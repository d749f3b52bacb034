//! What clients get when sessions, shards and buckets crash: the verdict table of ARCHITECTURE.md, through the
//! front door. Who asks for a crash does so by its application name; `unique` keeps the tests apart.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod client;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use client::stage::{Stage, unique};
use client::{Client, Who};
use tdsbouncer_config::PoolMode;

/// A client that crashes its session (or more) at these points.
fn crashing(points: &str) -> Who {
    Who::application(&format!("crash:{points},test{}", unique()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_while_idle_is_not_noticed() {
    let stage = Stage::with(2).await;
    let mut client = Client::connect(stage.address, &crashing("idle")).await;
    assert_eq!(client.batch("SELECT 1").await.number(), 1);
    assert_eq!(client.batch("SELECT 2").await.number(), 2);
    drop(client);
    stage.until_everybody_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_before_anything_was_sent_is_an_error_that_drivers_retry() {
    let stage = Stage::with(2).await;
    let mut client = Client::connect(stage.address, &crashing("waiting")).await;
    let response = client.batch("SELECT 1").await;
    assert_eq!((response.error(), response.errors[0].class), (40197, 16));
    assert_eq!(client.batch("SELECT 2").await.number(), 2, "the client's connection is as good as before");
    drop(client);
    stage.until_everybody_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_while_a_request_runs_is_an_unknown_outcome_on_a_living_connection() {
    let stage = Stage::with(1).await;
    let mut client = Client::connect(stage.address, &crashing("sent")).await;
    let response = client.batch("SELECT 1").await;
    assert_eq!((response.error(), response.errors[0].class), (50001, 16));
    assert_eq!(client.batch("SELECT 2").await.number(), 2);
    assert_eq!(stage.server.stats().logins, 2, "the crashed session's server connection was not used again");
    assert_eq!(stage.server.stats().peak, 1, "and closed before the next one was opened");
    drop(client);
    stage.until_everybody_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_request_that_was_sent_half_is_taken_whole_before_it_is_answered() {
    let stage = Stage::with(1).await;
    let mut client = Client::connect(stage.address, &crashing("waiting")).await;
    let long = format!("SELECT {} AS n", "1 + ".repeat(100_000) + "1");
    assert_eq!(client.batch(&long).await.error(), 40197);
    assert_eq!(client.batch("SELECT 2").await.number(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_in_the_middle_of_a_response_closes_the_connection() {
    let stage = Stage::with(1).await;
    let mut client = Client::connect(stage.address, &crashing("forwarding")).await;
    assert!(client.try_batch("SELECT 1").await.is_err());
    stage.until_everybody_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_that_loses_the_sessions_state_is_fatal_and_said_so() {
    let stage = Stage::with(1).await;
    let mut client = Client::connect(stage.address, &crashing("held-idle")).await;
    assert_eq!(client.batch("SELECT 1").await.number(), 1);
    let response = client.response().await.unwrap();
    assert_eq!((response.error(), response.errors[0].class), (50001, 20));
    assert!(client.response().await.is_err(), "and the connection is closed");
    stage.until_everybody_left().await;
}

/// The same rows of the table where the session shares its connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_in_transaction_pooling_survives_whatever_its_connection_was_not_needed_for() {
    let stage = Stage::set(1, |bucket| bucket.pool_mode = PoolMode::Transaction, |_| {}).await;
    for (points, expected) in [("idle", 0), ("waiting", 40197), ("sent", 50001)] {
        let mut client = Client::connect(stage.address, &crashing("none")).await;
        client.batch("SET DATEFIRST 3").await;
        drop(client);
        let mut client = Client::connect(stage.address, &crashing(points)).await;
        let response = client.batch("SELECT 1").await;
        assert_eq!(response.error(), expected, "{points}");
        assert_eq!(client.batch("SELECT @@DATEFIRST").await.number(), 7, "{points}");
        client.batch("SET DATEFIRST 5").await;
        assert_eq!(client.batch("SELECT @@DATEFIRST").await.number(), 5, "{points}");
        drop(client);
        stage.until_everybody_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_survive_a_crash_in_transaction_pooling() {
    let stage = Stage::set(1, |bucket| bucket.pool_mode = PoolMode::Transaction, |_| {}).await;
    let mut client = Client::connect(stage.address, &crashing("idle*2")).await;
    client.batch("SET DATEFIRST 5").await;
    assert_eq!(client.batch("SELECT @@DATEFIRST").await.number(), 5);
    assert_eq!(client.batch("SELECT @@DATEFIRST").await.number(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_in_a_transaction_is_fatal_in_transaction_pooling_too() {
    let stage = Stage::set(1, |bucket| bucket.pool_mode = PoolMode::Transaction, |_| {}).await;
    let mut other = Client::connect(stage.address, &Who::default()).await;
    other.batch("CREATE TABLE t (n int)").await;
    let mut client = Client::connect(stage.address, &crashing("held-idle")).await;
    client.batch("BEGIN TRANSACTION INSERT INTO t VALUES (1)").await;
    let response = client.response().await.unwrap();
    assert_eq!((response.error(), response.errors[0].class), (50001, 20));
    assert!(client.response().await.is_err(), "and the connection is closed");
    assert_eq!(other.batch("SELECT COUNT(*) FROM t").await.number(), 0, "its transaction is rolled back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_during_the_login_closes_the_connection() {
    let stage = Stage::with(1).await;
    let who = crashing("login");
    assert!(Client::try_connect(stage.address, &who).await.is_err());
    assert_eq!(
        Client::connect(stage.address, &who).await.batch("SELECT 1").await.number(),
        1,
        "a driver's retry"
    );
    stage.until_everybody_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fourth_crash_in_ten_seconds_is_the_last() {
    let stage = Stage::with(1).await;
    let mut client = Client::connect(stage.address, &crashing("waiting*9")).await;
    for _ in 0..3 {
        assert_eq!(client.batch("SELECT 1").await.error(), 40197);
    }
    let last = client.batch("SELECT 1").await;
    assert_eq!((last.error(), last.errors[0].class), (50001, 20));
    assert!(client.response().await.is_err());
    stage.until_everybody_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attention_that_a_crashed_session_owed_is_acknowledged() {
    let stage = Stage::with(1).await;
    let mut client = Client::connect(stage.address, &crashing("sent")).await;
    client.send_batch("WAITFOR DELAY '00:00:30'").await.unwrap();
    stage.until("it runs", |stage| stage.server.stats().requests > 0).await;
    client.attention().await.unwrap();
    assert_eq!(client.acknowledged().await[0].number, 50001);
    assert_eq!(client.batch("SELECT 2").await.number(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_crashes_is_not_noticed() {
    let stage = Stage::with(3).await;
    let mut sibling = Client::connect(stage.address, &Who::default()).await;
    sibling.batch("CREATE TABLE #t (n int)").await;
    let mut client = Client::connect(stage.address, &crashing("bucket")).await;
    assert_eq!(client.batch("SELECT 1").await.number(), 1, "its request waited for the bucket's successor");
    assert_eq!(sibling.batch("SELECT COUNT(*) FROM #t").await.number(), 0, "a lease outlives its bucket");
    drop((client, sibling));
    stage.until_everybody_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_crashes_too_often_rests_and_says_so() {
    let stage = Stage::with(1).await;
    let mut client = Client::connect(stage.address, &crashing("bucket*6")).await;
    let response = client.batch("SELECT 1").await;
    assert_eq!((response.error(), response.errors[0].class), (40613, 16));
    assert_eq!(stage.proxy.health().buckets[0].state, "resting");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_crashes_hands_its_clients_to_its_successor() {
    let stage = Stage::set(4, |_| {}, |config| config.runtime.shards = Some(1)).await;
    let mut idle = Client::connect(stage.address, &Who::default()).await;
    let mut holding = Client::connect(stage.address, &Who::default()).await;
    holding.batch("CREATE TABLE #t (n int)").await;
    // Its session crashes, and the shard crashes when it starts the next one.
    let mut client = Client::connect(stage.address, &crashing("idle,shard")).await;
    assert_eq!(client.batch("SELECT 1").await.number(), 1);
    assert_eq!(idle.batch("SELECT 2").await.number(), 2, "an idle client notices nothing");
    let lost = holding.response().await.unwrap();
    assert_eq!((lost.error(), lost.errors[0].class), (50001, 20), "its temp table is gone, and it is told");
    drop((idle, holding, client));
    stage.until_everybody_left().await;
}

/// Crashes of every kind among siblings that work without a pause.
#[tokio::test(flavor = "multi_thread")]
async fn siblings_notice_nothing_and_no_slot_is_lost() {
    let stage = Arc::new(Stage::with(12).await);
    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut siblings = Vec::new();
    for sibling in 0..6i64 {
        let (stage, stop, served) = (Arc::clone(&stage), Arc::clone(&stop), Arc::clone(&served));
        siblings.push(tokio::spawn(async move {
            let mut client = Client::connect(stage.address, &Who::default()).await;
            let mut n = sibling * 1_000_000;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                assert_eq!(client.batch(&format!("SELECT {n}")).await.number(), n);
                served.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    for round in 0..10 {
        let points = ["idle", "waiting", "sent", "forwarding", "held-idle", "login"];
        let mut crashes = tokio::task::JoinSet::new();
        for point in points {
            let stage = Arc::clone(&stage);
            crashes.spawn(async move {
                let who = crashing(point);
                if let Ok(client::LoggedIn::Yes(mut client)) = Client::try_connect(stage.address, &who).await
                {
                    // What it gets is another test's business; here only the siblings count.
                    drop(client.try_batch(&format!("SELECT {round}")).await);
                    drop(client.try_batch("SELECT 2").await);
                }
            });
        }
        while let Some(done) = crashes.join_next().await {
            done.unwrap();
        }
    }
    stop.store(true, Ordering::Relaxed);
    for sibling in siblings {
        sibling.await.unwrap();
    }
    assert!(served.load(Ordering::Relaxed) > 100);
    stage.until_everybody_left().await;
    assert!(stage.server.stats().peak <= 12, "{:?}", stage.server.stats());
    let metrics = stage.proxy.metrics_text();
    assert!(metrics.contains("crashes_total{actor=\"session\"} 60"), "{metrics}");
}
