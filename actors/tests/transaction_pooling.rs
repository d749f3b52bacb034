//! Transaction pooling through the front door: many clients, few server connections, nobody's state seen by another.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod client;

use std::time::Duration;

use bytes::BytesMut;
use client::stage::Stage;
use client::{Client, Response, Who};
use tds::env_change::EnvChange;
use tds::packet::{PacketType, Status};
use tds::request::{AllHeaders, BeginTransaction, IsolationLevel, SqlBatch, TransactionRequest};
use tds::value::Value;
use tdsbouncer_config::{Bucket, PoolMode, SpidReads};

const ISOLATION: &str =
    "SELECT transaction_isolation_level FROM sys.dm_exec_sessions WHERE session_id = @@SPID";

async fn stage(max_connections: u32, set: impl FnOnce(&mut Bucket)) -> Stage {
    let set_bucket = |bucket: &mut Bucket| {
        bucket.pool_mode = PoolMode::Transaction;
        set(bucket);
    };
    Stage::set(max_connections, set_bucket, |_| {}).await
}

async fn join(stage: &Stage) -> Client {
    Client::connect(stage.address, &Who::default()).await
}

async fn transaction(client: &mut Client, request: TransactionRequest) -> Response {
    let mut payload = BytesMut::new();
    request.write(&mut payload, &AllHeaders::in_transaction(client.transaction), client.dialect);
    client.send(PacketType::TRANSACTION_MANAGER, &payload).await.unwrap();
    client.response().await.unwrap()
}

fn begin() -> TransactionRequest {
    TransactionRequest::Begin(BeginTransaction::default())
}

fn commit_and_begin() -> TransactionRequest {
    TransactionRequest::Commit { name: String::new(), begin: Some(BeginTransaction::default()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_take_turns_on_one_connection() {
    let stage = stage(1, |_| {}).await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(join(&stage).await);
    }
    for round in 0..5 {
        for client in &mut clients {
            assert_eq!(client.batch(&format!("SELECT {round}")).await.number(), round);
        }
    }
    assert_eq!(stage.server.stats().peak, 1);
    assert_eq!(stage.server.stats().resets, 0, "nothing was left that a reset would take away");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_follow_their_session() {
    let stage = stage(1, |_| {}).await;
    let (mut one, mut two) = (join(&stage).await, join(&stage).await);
    one.batch("SET DATEFIRST 3; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE").await;
    two.batch("USE depot; SET LOCK_TIMEOUT 77").await;
    for _ in 0..3 {
        assert_eq!(one.batch("SELECT @@DATEFIRST").await.number(), 3);
        assert_eq!(two.batch("SELECT @@DATEFIRST").await.number(), 7);
        assert_eq!(one.batch("SELECT DB_NAME()").await.value().as_str(), Some("shop"));
        assert_eq!(two.batch("SELECT DB_NAME()").await.value().as_str(), Some("depot"));
        assert_eq!(two.batch("SELECT @@LOCK_TIMEOUT").await.number(), 77);
        assert_eq!(one.batch("SELECT @@LOCK_TIMEOUT").await.number(), -1);
    }
    assert_eq!(stage.server.stats().peak, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_isolation_level_follows_its_session_too() {
    let stage = stage(1, |bucket| bucket.spid_reads = SpidReads::Allow).await;
    let (mut one, mut two) = (join(&stage).await, join(&stage).await);
    one.batch("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE").await;
    for _ in 0..3 {
        assert_eq!(two.batch(ISOLATION).await.number(), 2);
        assert_eq!(one.batch(ISOLATION).await.number(), 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_keeps_its_connection_and_gives_it_back_with_its_end() {
    let stage = stage(2, |_| {}).await;
    let (mut one, mut two) = (join(&stage).await, join(&stage).await);
    one.batch("CREATE TABLE t (n int)").await;
    one.batch("BEGIN TRANSACTION; INSERT INTO t VALUES (1)").await;
    stage.until("it is held", |stage| stage.proxy.health().buckets[0].leased == 1).await;
    assert_eq!(two.batch("SELECT 5").await.number(), 5);
    assert_eq!(one.batch("SELECT @@TRANCOUNT").await.number(), 1);
    one.batch("COMMIT").await;
    stage.until("it is given back", |stage| stage.proxy.health().buckets[0].leased == 0).await;
    assert_eq!(two.batch("SELECT COUNT(*) FROM t").await.number(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_does_nothing_holds_nothing() {
    let stage = stage(1, |_| {}).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = join(&stage).await;
        let begun = transaction(&mut client, begin()).await;
        assert!(matches!(begun.changes[..], [EnvChange::BeginTransaction(_)]), "{begun:?}");
        clients.push(client);
    }
    assert_eq!(stage.proxy.health().buckets[0].leased, 0);
    for client in &mut clients {
        client.batch("IF OBJECT_ID('t') IS NULL CREATE TABLE t (n int)").await;
        client.batch("INSERT INTO t VALUES (1)").await;
        assert_eq!(client.batch("SELECT @@TRANCOUNT").await.number(), 1);
        let before = client.transaction;
        let ended = transaction(client, commit_and_begin()).await;
        let [EnvChange::CommitTransaction(old), EnvChange::BeginTransaction(new)] = ended.changes[..] else {
            panic!("{ended:?}")
        };
        assert_eq!(old, before);
        assert_ne!(new, before);
        assert_eq!(stage.proxy.health().buckets[0].waiting, 0);
    }
    assert_eq!(clients[0].batch("SELECT COUNT(*) FROM t").await.number(), 5);
    transaction(&mut clients[0], TransactionRequest::Rollback { name: String::new(), begin: None }).await;
    assert_eq!(clients[1].batch("SELECT @@TRANCOUNT").await.number(), 1);
    transaction(&mut clients[1], TransactionRequest::Commit { name: String::new(), begin: None }).await;
    assert_eq!(clients[1].batch("SELECT @@TRANCOUNT").await.number(), 0);
    assert_eq!(stage.server.stats().peak, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nested_transaction_that_commits_and_begins_again_stays_nested() {
    let stage = stage(1, |_| {}).await;
    let mut client = join(&stage).await;
    transaction(&mut client, begin()).await;
    client.batch("BEGIN TRANSACTION").await;
    assert_eq!(client.batch("SELECT @@TRANCOUNT").await.number(), 2);
    let ended = transaction(&mut client, commit_and_begin()).await;
    assert!(ended.changes.is_empty(), "{ended:?}");
    assert_eq!(client.batch("SELECT @@TRANCOUNT").await.number(), 2);
    client.batch("COMMIT; COMMIT").await;
    assert_eq!(client.batch("SELECT @@TRANCOUNT").await.number(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_virtual_transactions_isolation_level_stays() {
    let stage = stage(1, |bucket| bucket.spid_reads = SpidReads::Allow).await;
    let (mut one, mut two) = (join(&stage).await, join(&stage).await);
    let isolated =
        BeginTransaction { isolation: IsolationLevel::SERIALIZABLE, ..BeginTransaction::default() };
    transaction(&mut one, TransactionRequest::Begin(isolated)).await;
    assert_eq!(one.batch(ISOLATION).await.number(), 4);
    transaction(&mut one, TransactionRequest::Commit { name: String::new(), begin: None }).await;
    assert_eq!(two.batch(ISOLATION).await.number(), 2);
    assert_eq!(one.batch(ISOLATION).await.number(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn begin_and_commit_alone_by_text_are_answered_without_a_server() {
    let stage = stage(1, |_| {}).await;
    let mut direct = Client::connect(stage.server.addr(), &Who::default()).await;
    let mut client = join(&stage).await;
    let before = stage.server.stats().requests;
    for text in ["BEGIN TRAN", "COMMIT TRAN", "begin transaction", "ROLLBACK"] {
        let (answer, expected) = (client.batch(text).await, direct.batch(text).await);
        assert_eq!(answer.dones, expected.dones, "{text}");
        assert_eq!(answer.changes.len(), expected.changes.len(), "{text}");
    }
    assert_eq!(stage.server.stats().requests, before + 4, "the direct client's only");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_temporary_table_holds_its_connection_until_it_is_dropped() {
    let stage = stage(2, |_| {}).await;
    let (mut one, mut two) = (join(&stage).await, join(&stage).await);
    one.batch("CREATE TABLE #t (n int)").await;
    two.batch("SELECT 1").await;
    one.batch("INSERT INTO #t VALUES (7)").await;
    assert_eq!(two.batch("SELECT * FROM #t").await.error(), 208);
    assert_eq!(one.batch("SELECT n FROM #t").await.number(), 7);
    stage.until("only it is held", |stage| stage.proxy.health().buckets[0].leased == 1).await;
    one.batch("DROP TABLE #t").await;
    stage.until("it is given back", |stage| stage.proxy.health().buckets[0].leased == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_session_leaves_behind_when_it_leaves_is_gone_for_the_next() {
    let stage = stage(1, |bucket| bucket.spid_reads = SpidReads::Allow).await;
    let mut first = join(&stage).await;
    first.batch("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE").await;
    first.batch("CREATE TABLE #t (n int)").await;
    first.batch("SET CONTEXT_INFO 0x0102").await;
    first.batch("USE depot").await;
    first.batch("BEGIN TRANSACTION SELECT 1").await;
    drop(first);
    let mut second = join(&stage).await;
    assert_eq!(second.batch(ISOLATION).await.number(), 2, "READ COMMITTED");
    assert_eq!(second.batch("SELECT @@TRANCOUNT").await.number(), 0);
    assert_eq!(second.batch("SELECT * FROM #t").await.error(), 208);
    assert_eq!(second.batch("SELECT DB_NAME()").await.value().as_str(), Some("shop"));
    assert!(matches!(second.batch("SELECT CONTEXT_INFO()").await.value(), Value::Null));
    assert_eq!(stage.server.stats().peak, 1, "it was the same connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_looks_at_its_process_id_keeps_it() {
    let stage = stage(3, |_| {}).await;
    let (mut one, mut two) = (join(&stage).await, join(&stage).await);
    let spid = one.batch("SELECT @@SPID").await.number();
    for _ in 0..3 {
        assert_ne!(two.batch("SELECT @@SPID").await.number(), spid);
        assert_eq!(one.batch("SELECT @@SPID").await.number(), spid);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_the_previous_request_are_read_at_once_or_refused() {
    let stage = stage(1, |bucket| bucket.linger = Duration::from_millis(300)).await;
    let (mut one, mut two) = (join(&stage).await, join(&stage).await);
    one.batch("CREATE TABLE t (id int IDENTITY, n int)").await;
    one.batch("INSERT INTO t (n) VALUES (1)").await;
    assert_eq!(one.batch("SELECT CAST(@@IDENTITY AS int)").await.number(), 1);
    one.batch("INSERT INTO t (n) VALUES (2)").await;
    assert_eq!(two.batch("SELECT 1").await.number(), 1, "waits until the other's patience is over");
    let gone = one.batch("SELECT CAST(@@IDENTITY AS int)").await;
    assert_eq!((gone.error(), gone.errors[0].class), (50002, 16));
    assert_eq!(one.batch("INSERT INTO t (n) VALUES (3) SELECT CAST(@@IDENTITY AS int)").await.number(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_nobody_followed_still_reads_its_values() {
    let stage = stage(1, |_| {}).await;
    let mut one = join(&stage).await;
    one.batch("CREATE TABLE t (id int IDENTITY, n int)").await;
    one.batch("INSERT INTO t (n) VALUES (1)").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    stage.until("it is given back", |stage| stage.proxy.health().buckets[0].leased == 0).await;
    assert_eq!(one.batch("SELECT CAST(@@IDENTITY AS int)").await.number(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_own_reset_is_acknowledged_to_it_alone() {
    let stage = stage(1, |_| {}).await;
    let (mut one, mut two) = (join(&stage).await, join(&stage).await);
    one.batch("SET DATEFIRST 3").await;
    two.batch("SELECT 1").await;
    for (text, expected) in [("SELECT @@DATEFIRST", 7), ("SELECT 9", 9)] {
        let mut payload = BytesMut::new();
        SqlBatch::new(text).write(&mut payload, one.dialect);
        let mut out = BytesMut::new();
        let (kind, status) = (PacketType::SQL_BATCH, Status::RESET_CONNECTION);
        tds::message::write_message(&mut out, kind, status, 0, 4096, &payload);
        one.send_raw(&out).await.unwrap();
        let answer = one.response().await.unwrap();
        assert_eq!(answer.number(), expected);
        assert_eq!(answer.changes[0], EnvChange::ResetDone);
    }
    assert!(two.batch("SELECT 1").await.changes.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attention_while_it_waits_while_it_runs_and_while_it_rests_is_acknowledged() {
    let stage = stage(1, |_| {}).await;
    let (mut one, mut two) = (join(&stage).await, join(&stage).await);
    one.batch("BEGIN TRANSACTION SELECT 1").await;
    two.send_batch("SELECT 1").await.unwrap();
    stage.until("it waits", |stage| stage.proxy.health().buckets[0].waiting == 1).await;
    two.attention().await.unwrap();
    assert!(two.acknowledged().await.is_empty());
    one.send_batch("WAITFOR DELAY '00:00:30'").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    one.attention().await.unwrap();
    one.acknowledged().await;
    one.attention().await.unwrap();
    one.acknowledged().await;
    one.batch("ROLLBACK").await;
    assert_eq!(two.batch("SELECT 3").await.number(), 3);
    two.attention().await.unwrap();
    two.acknowledged().await;
    assert_eq!(one.batch("SELECT 4").await.number(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_idle_in_a_transaction_for_too_long_is_rolled_back_and_told() {
    let stage =
        stage(1, |bucket| bucket.idle_in_transaction_timeout = Some(Duration::from_millis(200))).await;
    let (mut one, mut two) = (join(&stage).await, join(&stage).await);
    one.batch("CREATE TABLE t (n int)").await;
    one.batch("BEGIN TRANSACTION INSERT INTO t VALUES (1)").await;
    assert_eq!(two.batch("SELECT COUNT(*) FROM t").await.number(), 0, "it was rolled back");
    let told = one.batch("SELECT 1").await;
    assert_eq!((told.error(), told.errors[0].class), (50003, 16));
    assert!(matches!(told.changes[..], [EnvChange::RollbackTransaction(_)]), "{told:?}");
    assert_eq!(one.batch("SELECT 1").await.number(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_connection_that_dies_under_a_request_is_not_the_sessions_end() {
    let stage = stage(1, |_| {}).await;
    let mut one = join(&stage).await;
    one.batch("SELECT 1").await;
    one.send_batch("WAITFOR DELAY '00:00:30'").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    stage.server.kill_all();
    let told = one.response().await.unwrap();
    assert_eq!((told.error(), told.errors[0].class), (50001, 16));
    assert_eq!(one.batch("SELECT 1").await.number(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_requests_and_results_pass_and_are_understood() {
    let stage = stage(1, |_| {}).await;
    let (mut one, mut two) = (join(&stage).await, join(&stage).await);
    let filler = "/* filler */ ".repeat(50_000);
    one.batch(&format!("SET DATEFIRST 3 {filler} SET LOCK_TIMEOUT 5")).await;
    assert_eq!(two.batch("SELECT @@DATEFIRST").await.number(), 7);
    assert_eq!(one.batch(&format!("SELECT {filler} 5 AS n")).await.number(), 5);
    let long = format!("SELECT N'{}' AS s", "x".repeat(300_000));
    assert_eq!(two.batch(&long).await.value().as_str().map(str::len), Some(300_000));
    assert_eq!(one.batch("SELECT @@DATEFIRST").await.number(), 3);
    one.batch("CREATE TABLE t (id int IDENTITY)").await;
    two.batch("SELECT 1").await;
    let late = one.batch(&format!("{filler} SELECT @@IDENTITY")).await;
    assert_eq!(late.error(), 50002);
    assert_eq!(one.batch("SELECT @@DATEFIRST").await.number(), 3);
}
