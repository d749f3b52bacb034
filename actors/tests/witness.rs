//! What the server itself tells of its sessions (SESSIONSTATE), through the front door: it decides what holds, and no
//! client ever sees it.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod client;

use std::time::{Duration, Instant};

use bytes::Bytes;
use client::stage::Stage;
use client::{Client, LoggedIn, Who};
use tds::feature::{Feature, FeatureId};
use tds::value::Value;
use tdsbouncer_config::{Bucket, PoolMode, UnknownProcedures};
use tdsbouncer_sim::{Fault, Features, SimOptions, SimServer};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// A server that is measured: what it is relied on for has been seen.
async fn stage(options: SimOptions, set: impl FnOnce(&mut Bucket)) -> Stage {
    let databases = vec!["shop".to_owned(), "depot".to_owned()];
    let server = SimServer::start(SimOptions { databases, ..options }).expect("the stand-in starts");
    let set_bucket = |bucket: &mut Bucket| {
        bucket.pool_mode = PoolMode::Transaction;
        bucket.self_test = true;
        set(bucket);
    };
    Stage::on(server, 1, set_bucket, |_| {}).await
}

async fn telling(set: impl FnOnce(&mut Bucket)) -> Stage {
    stage(SimOptions::default(), set).await
}

async fn join(stage: &Stage) -> Client {
    Client::connect(stage.address, &Who::default()).await
}

/// The cells of an admin view, row by row.
async fn show(stage: &Stage, view: &str) -> Vec<serde_json::Map<String, serde_json::Value>> {
    let mut stream = BufReader::new(UnixStream::connect(stage.admin_socket()).await.unwrap());
    stream.write_all(format!("{{\"show\":\"{view}\"}}\n").as_bytes()).await.unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    let answer: serde_json::Value = serde_json::from_str(&line).unwrap();
    let names: Vec<String> = answer["columns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| column["name"].as_str().unwrap().to_owned())
        .collect();
    let rows = answer["rows"].as_array().unwrap();
    rows.iter()
        .map(|row| names.iter().cloned().zip(row.as_array().unwrap().iter().cloned()).collect())
        .collect()
}

/// Waits until these are the reasons of the only session that holds: a response comes before what follows from it.
async fn holds(stage: &Stage, reasons: &str, why: &str) {
    let over = Instant::now() + Duration::from_secs(20);
    loop {
        let rows = show(stage, "holds").await;
        let found: Vec<&str> = rows.iter().map(|row| row["reasons"].as_str().unwrap()).collect();
        if found == [reasons] {
            return;
        }
        assert!(Instant::now() < over, "{why}: {found:?} instead of {reasons}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Nobody holds the only connection: another client gets it.
async fn holds_nothing(stage: &Stage, why: &str) {
    let other = join(stage).await.batch("SELECT 1").await;
    assert_eq!(other.errors, [], "{why}");
}

async fn session_state(stage: &Stage) -> String {
    show(stage, "traits").await[0]["session_state"].as_str().unwrap().to_owned()
}

/// Procedures that leave something to their caller.
const PROCEDURES: [&str; 9] = [
    "CREATE PROCEDURE lock_it AS EXEC sp_getapplock 'it', 'Exclusive', 'Session', 1000",
    "CREATE PROCEDURE unlock_it AS EXEC sp_releaseapplock 'it', 'Session'",
    "CREATE PROCEDURE remember @v nvarchar(20) AS EXEC sp_set_session_context N'it', @v",
    "CREATE PROCEDURE mark AS SET CONTEXT_INFO 0x4142",
    "CREATE PROCEDURE open_it AS DECLARE it CURSOR GLOBAL STATIC FOR SELECT 1; OPEN it",
    "CREATE PROCEDURE share_it AS CREATE TABLE ##it (n int); INSERT ##it VALUES (5)",
    "CREATE PROCEDURE set_it AS SET DATEFIRST 2; SET NOCOUNT ON; SET LANGUAGE German; SELECT @@DATEFIRST",
    "CREATE PROCEDURE begin_it AS BEGIN TRANSACTION",
    "CREATE PROCEDURE commit_it AS COMMIT",
];

async fn with_procedures(stage: &Stage) -> Client {
    let mut client = join(stage).await;
    for text in PROCEDURES {
        assert_eq!(client.batch(text).await.error(), 0, "{text}");
    }
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn what_procedures_leave_holds_as_long_as_it_is_there() {
    let stage = telling(|_| {}).await;
    let mut client = with_procedures(&stage).await;
    assert_eq!(session_state(&stage).await, "told");
    for (leaves, reason, shows, seen, ends) in [
        (
            "EXEC lock_it",
            "not_recoverable",
            "SELECT APPLOCK_MODE('public', 'it', 'Session')",
            "Exclusive",
            "EXEC unlock_it",
        ),
        (
            "EXEC remember N'that'",
            "unexplained_state",
            "SELECT CAST(SESSION_CONTEXT(N'it') AS nvarchar(20))",
            "that",
            "EXEC remember NULL",
        ),
        (
            "EXEC open_it",
            "not_recoverable",
            "SELECT CASE CURSOR_STATUS('global', 'it') WHEN 1 THEN 'open' END",
            "open",
            "DEALLOCATE it",
        ),
        (
            "EXEC share_it",
            "not_recoverable",
            "SELECT CASE n WHEN 5 THEN 'five' END FROM ##it",
            "five",
            "DROP TABLE ##it",
        ),
    ] {
        assert_eq!(client.batch(leaves).await.error(), 0, "{leaves}");
        holds(&stage, reason, leaves).await;
        assert_eq!(client.batch(shows).await.value().as_str(), Some(seen), "{leaves}");
        assert_eq!(client.batch(ends).await.error(), 0, "{ends}");
        holds_nothing(&stage, ends).await;
    }
    client.batch("EXEC mark").await;
    holds(&stage, "unexplained_state", "unexplained_state").await;
    let marked = "SELECT SUBSTRING(CONTEXT_INFO(), 1, 2)";
    assert_eq!(*client.batch(marked).await.value(), Value::Bytes(b"AB".to_vec()));
    drop(client);
    stage.until_everybody_left().await;
    let mut next = join(&stage).await;
    assert_eq!(*next.batch(marked).await.value(), Value::Null, "it ends with its session");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_with_its_procedure_or_text_holds_nothing() {
    let stage = telling(|_| {}).await;
    let (mut client, mut other) = (with_procedures(&stage).await, join(&stage).await);
    client.batch("SET DATEFIRST 3").await;
    for text in [
        "EXEC set_it",
        "EXEC('SET DATEFIRST 2; SET LANGUAGE German')",
        "DECLARE @t nvarchar(100) = N'SET DATEFIRST 2; CREATE TABLE #t (n int)'; EXEC(@t)",
        "EXEC sp_executesql N'SET DATEFIRST 2; USE depot'",
    ] {
        assert_eq!(client.batch(text).await.error(), 0, "{text}");
        assert_eq!(other.batch("SELECT @@DATEFIRST").await.number(), 7, "{text}");
        assert_eq!(client.batch("SELECT @@DATEFIRST").await.number(), 3, "{text}");
        let language = client.batch("SELECT @@LANGUAGE").await;
        assert_eq!(language.value().as_str(), Some("us_english"), "{text}");
        assert_eq!(client.batch("SELECT DB_NAME()").await.value().as_str(), Some("shop"), "{text}");
    }
    assert_eq!(stage.server.stats().peak, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_procedures_begin_and_end_is_no_other_hold() {
    let stage = telling(|_| {}).await;
    let mut client = with_procedures(&stage).await;
    client.batch("EXEC begin_it").await;
    holds(&stage, "transaction", "transaction").await;
    client.batch("EXEC commit_it").await;
    holds_nothing(&stage, "it is over").await;
}

/// What a text leaves that nobody has read is told, too.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_text_leaves_that_is_made_at_run_time_holds() {
    let stage = telling(|_| {}).await;
    let mut client = with_procedures(&stage).await;
    let made = |text: &str| format!("DECLARE @t nvarchar(200) = N'{text}'; EXEC(@t)");
    client.batch(&made("EXEC sp_getapplock ''it'', ''Exclusive'', ''Session'', 1000")).await;
    holds(&stage, "not_recoverable", "not_recoverable").await;
    client.batch(&made("EXEC sp_releaseapplock ''it'', ''Session''")).await;
    holds_nothing(&stage, "it is over").await;
    client.batch(&made("SET CONTEXT_INFO 0x4142")).await;
    holds(&stage, "unexplained_state", "unexplained_state").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_server_does_not_tell_a_text_that_is_made_at_run_time_holds() {
    let text = "DECLARE @t nvarchar(100) = N'SELECT 1'; EXEC(@t)";
    let declines = Features { session_recovery: false, ..Features::default() };
    for (options, fault, told) in [
        (SimOptions { features: declines, ..SimOptions::default() }, None, "declined"),
        (SimOptions::default(), Some(Fault::NoSessionState), "acknowledged, but tells nothing"),
        (SimOptions::default(), Some(Fault::EverythingRecoverable), "acknowledged, but tells nothing"),
    ] {
        let faults = fault.into_iter().collect();
        let stage = stage(SimOptions { faults, ..options }, |_| {}).await;
        let mut client = join(&stage).await;
        assert_eq!(client.batch(text).await.number(), 1);
        assert_eq!(session_state(&stage).await, told);
        holds(&stage, "dynamic_text", told).await;
    }
    let stage = telling(|bucket| bucket.unknown_procedures = UnknownProcedures::Hold).await;
    let mut client = join(&stage).await;
    assert_eq!(client.batch(text).await.number(), 1);
    holds(&stage, "dynamic_text", "the operator wants it").await;
}

/// Requests whose responses have SESSIONSTATE in them, alone, behind rows and behind errors. [`Client`] fails on it.
async fn change_states(client: &mut Client) {
    for round in 0..3 {
        client.batch(&format!("SET DATEFIRST {}", 1 + round)).await;
        client.batch("SET LOCK_TIMEOUT 500; SELECT REPLICATE(CAST('x' AS varchar(max)), 20000)").await;
        client.batch("SET LOCK_TIMEOUT 600; SELECT 1/0").await;
        client.batch("CREATE TABLE #t (n int)").await;
        client
            .batch("EXEC sp_set_session_context N'long', N'0123456789012345678901234567890123456789'")
            .await;
        client.batch("DROP TABLE #t; SET LOCK_TIMEOUT 700").await;
        client.batch("SET CONTEXT_INFO 0x01; SELECT n FROM (VALUES (1), (2), (3)) v(n)").await;
        client.batch("SET TRANSACTION ISOLATION LEVEL SNAPSHOT").await;
        client.batch("SET TRANSACTION ISOLATION LEVEL READ COMMITTED").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_client_sees_what_the_server_tells() {
    let asks = vec![Feature { id: FeatureId::SESSION_RECOVERY, data: Bytes::new() }];
    let unfit = Some(Fault::InnerEndsSignalled);
    for (fault, mode) in [(None, "transaction"), (unfit, "session")] {
        let faults = fault.into_iter().collect();
        let stage = stage(SimOptions { faults, ..SimOptions::default() }, |_| {}).await;
        for (packet_size, features) in [(512, Vec::new()), (0, asks.clone())] {
            let who = Who { packet_size, features, ..Who::default() };
            let mut client = Client::connect(stage.address, &who).await;
            assert!(client.response.feature(FeatureId::SESSION_RECOVERY).is_none());
            change_states(&mut client).await;
            drop(client);
            stage.until_everybody_left().await;
        }
        let traits = show(&stage, "traits").await;
        assert_eq!((&traits[0]["mode"], &traits[0]["session_state"]), (&mode.into(), &"told".into()));
    }
}

/// The stand-in tells whoever has asked, so a relay that takes nothing out would be seen.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_another_connection_is_not_recovered() {
    let stage = telling(|_| {}).await;
    let data = Bytes::from_static(&[0; 8]);
    let features = vec![Feature { id: FeatureId::SESSION_RECOVERY, data }];
    let who = Who { features, ..Who::default() };
    match Client::try_connect(stage.address, &who).await.unwrap() {
        LoggedIn::No(errors) => assert_eq!((errors[0].number, errors[0].class), (18056, 20)),
        LoggedIn::Yes(_) => panic!("it believes to have its session back"),
    }
    assert_eq!(stage.server.stats().logins, 0);
}

/// Behind a token that nobody knows SESSIONSTATE could not be found.
#[tokio::test(flavor = "multi_thread")]
async fn with_a_feature_that_is_not_known_the_server_is_not_asked() {
    let stage = telling(|_| {}).await;
    let features = vec![Feature { id: FeatureId(0x6E), data: Bytes::from_static(&[1]) }];
    let mut client = Client::connect(stage.address, &Who { features, ..Who::default() }).await;
    client.batch("SET DATEFIRST 2").await;
    assert_eq!(session_state(&stage).await, "not offered");
}
