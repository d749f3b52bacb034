//! Each bucket's server is measured on its first connection, seen through the front door: the stand-in plays every
//! kind of server.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod client;

use std::path::PathBuf;

use client::stage::Stage;
use client::{Client, Who};
use tdsbouncer_config::{Bucket, PoolMode};
use tdsbouncer_sim::{Fault, Leftover, ServerKind, SimHandle, SimOptions, SimServer};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

struct Measured {
    stage: Stage,
    admin: PathBuf,
}

fn sim(kind: ServerKind) -> SimHandle {
    let databases = vec!["shop".to_owned(), "depot".to_owned()];
    SimServer::start(SimOptions { kind, databases, ..SimOptions::default() }).expect("the stand-in starts")
}

impl Measured {
    async fn on(server: SimHandle, max_connections: u32, set: impl FnOnce(&mut Bucket)) -> Self {
        let mut admin = PathBuf::new();
        let bucket = |bucket: &mut Bucket| {
            bucket.self_test = true;
            bucket.pool_mode = PoolMode::Transaction;
            set(bucket);
        };
        let stage =
            Stage::on(server, max_connections, bucket, |config| admin.clone_from(&config.admin.socket)).await;
        Self { stage, admin }
    }

    /// The cells of `show traits`, by column.
    async fn traits(&self) -> serde_json::Map<String, serde_json::Value> {
        let mut stream = BufReader::new(UnixStream::connect(&self.admin).await.unwrap());
        stream.write_all(b"{\"show\":\"traits\"}\n").await.unwrap();
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        let answer: serde_json::Value = serde_json::from_str(&line).unwrap();
        let names =
            answer["columns"].as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap());
        names.map(str::to_owned).zip(answer["rows"][0].as_array().unwrap().iter().cloned()).collect()
    }

    fn gauge(&self, mode: &str) -> bool {
        let wanted = format!("tdsbouncer_bucket_pool_mode{{bucket=\"b1\",mode=\"{mode}\"}} 1");
        self.stage.proxy.metrics_text().lines().any(|line| line == wanted)
    }

    async fn one_client(&self) {
        let mut client = Client::connect(self.stage.address, &Who::default()).await;
        assert_eq!(client.batch("SELECT 42").await.number(), 42);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sql_server_is_measured_once_by_its_first_connection() {
    let measured = Measured::on(sim(ServerKind::SqlServer2022), 5, |_| {}).await;
    assert_eq!(measured.traits().await["origin"], "not yet");
    assert!(measured.gauge("session"), "nothing is known of it");
    measured.one_client().await;
    let traits = measured.traits().await;
    for (column, value) in [
        ("pool_mode", "transaction"),
        ("mode", "transaction"),
        ("origin", "measured"),
        ("version", "16.0.4215"),
        ("tds", "7.4"),
        ("signals", "text, tm, implicit, nested"),
        ("reset", "acknowledged"),
        ("reset_leaves", ""),
        ("pipelines", "yes"),
        ("notes", ""),
    ] {
        assert_eq!(traits[column], value, "{column}: {traits:?}");
    }
    assert!(traits["reason"].is_null());
    assert!(measured.gauge("transaction") && !measured.gauge("session"));
    measured.stage.until_everybody_left().await;
    let (requests, logins) = (measured.stage.server.stats().requests, measured.stage.server.stats().logins);
    assert_eq!(logins, 1, "over the connection that was opened anyway");
    measured.one_client().await;
    measured.stage.until_everybody_left().await;
    assert!(measured.stage.server.stats().requests <= requests + 2, "a query, and a reset perhaps");
    assert_eq!(measured.stage.server.stats().protocol_errors, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_at_once_wait_for_one_measurement() {
    let measured = Measured::on(sim(ServerKind::SqlServer2022), 4, |_| {}).await;
    let mut running = tokio::task::JoinSet::new();
    for n in 0..12 {
        let address = measured.stage.address;
        running.spawn(async move {
            let mut client = Client::connect(address, &Who::default()).await;
            assert_eq!(client.batch(&format!("SELECT {n}")).await.number(), n);
        });
    }
    assert!(running.join_all().await.len() == 12);
    assert_eq!(measured.traits().await["mode"], "transaction");
    assert!(measured.stage.server.stats().peak <= 4);
    measured.stage.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn babelfish_falls_back_to_session_pooling_within_one_slot_and_says_why() {
    let measured = Measured::on(sim(ServerKind::Babelfish), 1, |_| {}).await;
    measured.one_client().await;
    let traits = measured.traits().await;
    for (column, value) in [
        ("pool_mode", "transaction"),
        ("mode", "session"),
        ("reason", "the server does not signal transactions of T-SQL text"),
        ("signals", "tm"),
        ("reset", "acknowledged"),
        ("reset_leaves", "session_context, context_info, identity_insert"),
        ("pipelines", "not behind a reset"),
    ] {
        assert_eq!(traits[column], value, "{column}: {traits:?}");
    }
    assert!(measured.gauge("session") && !measured.gauge("transaction"));
    measured.stage.is_well().await;
    assert_eq!(measured.stage.server.stats().peak, 1, "one slot is enough, whatever breaks");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_reset_leaves_behind_never_reaches_the_next_client() {
    let kinds = [ServerKind::Babelfish, ServerKind::SqlServer2022];
    let modes = [PoolMode::Session, PoolMode::Transaction];
    for (kind, mode) in kinds.into_iter().flat_map(|kind| modes.map(|mode| (kind, mode))) {
        let measured = Measured::on(sim(kind), 1, |bucket| bucket.pool_mode = mode).await;
        if kind == ServerKind::SqlServer2022 {
            let faults = measured.stage.server.faults();
            faults.arm(Fault::ResetLeaves(Leftover::SessionContext));
        }
        let mut first = Client::connect(measured.stage.address, &Who::default()).await;
        first.batch("EXEC sp_set_session_context N'who', N'first'").await;
        first.batch("SET CONTEXT_INFO 0x0102").await;
        drop(first);
        measured.stage.until_everybody_left().await;
        let mut second = Client::connect(measured.stage.address, &Who::default()).await;
        assert!(second.batch("SELECT SESSION_CONTEXT(N'who')").await.value().is_null(), "{kind:?} {mode:?}");
        assert!(second.batch("SELECT CONTEXT_INFO()").await.value().is_null(), "{kind:?} {mode:?}");
        assert_eq!(measured.stage.server.stats().peak, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_server_gets_its_mode_its_reason_and_its_clients() {
    let rows = [
        (Fault::NoTransactionEnvChange, Some("the server does not signal transactions of T-SQL text")),
        (Fault::InnerEndsSignalled, Some("the server signals the end of transactions that are still open")),
        (Fault::ResetNotAcknowledged, Some("the server does not acknowledge a reset")),
        (Fault::ResetFails, Some("the server does not acknowledge a reset")),
        (Fault::ResetLeavesEverything, None),
        (Fault::ResetLeaves(Leftover::SessionContext), None),
        (Fault::ResetLosesInput, None),
        (
            Fault::ErrorOnRequest { number: 229, class: 14 },
            Some("the server does not signal transactions of T-SQL text"),
        ),
    ];
    for (fault, reason) in rows {
        let server = sim(ServerKind::SqlServer2022);
        server.faults().arm(fault.clone());
        let measured = Measured::on(server, 1, |_| {}).await;
        let mut client = Client::connect(measured.stage.address, &Who::default()).await;
        let traits = measured.traits().await;
        assert_eq!(traits["reason"].as_str(), reason, "{fault:?}: {traits:?}");
        let mode = if reason.is_some() { "session" } else { "transaction" };
        assert_eq!(traits["mode"], mode, "{fault:?}");
        assert!(measured.gauge(mode), "{fault:?}");
        measured.stage.server.faults().clear();
        assert_eq!(client.batch("SELECT 42").await.number(), 42, "{fault:?}");
        drop(client);
        measured.stage.is_well().await;
        assert_eq!(measured.stage.server.stats().peak, 1, "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_in_the_middle_of_a_check_is_given_up_and_clients_are_served() {
    for requests in [0, 9, 40] {
        let server = sim(ServerKind::SqlServer2022);
        server.faults().arm(Fault::HangAfterRequests { requests });
        let measured = Measured::on(server, 1, |_| {}).await;
        let mut client = Client::connect(measured.stage.address, &Who::default()).await;
        measured.stage.server.faults().clear();
        assert_eq!(client.batch("SELECT 42").await.number(), 42, "hangs after {requests}");
        let traits = measured.traits().await;
        assert_eq!(traits["mode"], "session", "hangs after {requests}: {traits:?}");
        assert!(traits["notes"].as_str().unwrap().contains("no answer within 2s"), "{traits:?}");
        drop(client);
        measured.stage.is_well().await;
        assert_eq!(measured.stage.server.stats().peak, 1, "hangs after {requests}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_self_test_nothing_is_asked_and_a_sql_server_assumed() {
    let measured = Measured::on(sim(ServerKind::SqlServer2022), 1, |bucket| bucket.self_test = false).await;
    let traits = measured.traits().await;
    assert_eq!((&traits["mode"], &traits["origin"]), (&"transaction".into(), &"assumed".into()));
    measured.one_client().await;
    measured.stage.until_everybody_left().await;
    assert!(measured.stage.server.stats().requests <= 2, "a query, and a reset perhaps");
}
