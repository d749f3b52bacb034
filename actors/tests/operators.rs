//! What operators see and order, over the admin socket and over the SQL console, and what it does to clients.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod client;

use std::time::{Duration, Instant};

use client::stage::Stage;
use client::{Client, Response, Who};
use serde_json::Value as Json;
use tds::value::Value;
use tdsbouncer_actors::SUBJECTS;
use tdsbouncer_config::{Bucket, Config, PoolMode, Secret, hash_password};
use tdsbouncer_sim::{SimHandle, SimOptions, SimServer};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// The answer to a command over the admin socket.
async fn order(stage: &Stage, command: &str) -> Json {
    let mut stream = BufReader::new(UnixStream::connect(stage.admin_socket()).await.unwrap());
    let line = format!("{}\n", serde_json::json!({ "do": command }));
    stream.write_all(line.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_line(&mut answer).await.unwrap();
    serde_json::from_str(&answer).unwrap()
}

/// The outcome of an order that concerns one thing.
async fn done(stage: &Stage, command: &str) -> String {
    let answer = order(stage, command).await;
    let outcome = answer["rows"][0][1].as_str();
    outcome.unwrap_or_else(|| panic!("{command}: {answer}")).to_owned()
}

/// The cells of a column of a table.
async fn column(stage: &Stage, command: &str, name: &str) -> Vec<Json> {
    let answer = order(stage, command).await;
    let columns = answer["columns"].as_array().unwrap_or_else(|| panic!("{command}: {answer}"));
    let at = columns.iter().position(|column| column["name"] == name).expect("there is such a column");
    answer["rows"].as_array().unwrap().iter().map(|row| row[at].clone()).collect()
}

async fn waiting(stage: &Stage, clients: usize) {
    stage.until("they wait", |stage| stage.proxy.health().buckets[0].waiting == clients).await;
}

/// Ends the server and starts another in its place, with nothing of what was in it.
async fn restart_server(stage: &mut Stage) {
    let listen = stage.server.addr();
    let elsewhere = SimServer::start(SimOptions::default()).unwrap();
    let server = std::mem::replace(&mut stage.server, elsewhere);
    tokio::task::spawn_blocking(|| server.shutdown()).await.unwrap();
    stage.server = back_on(listen).await;
}

/// A server on the port of one that has just ended: the system may take a moment to give it back.
async fn back_on(listen: std::net::SocketAddr) -> SimHandle {
    let start = move || {
        let over = Instant::now() + Duration::from_secs(30);
        loop {
            let options = SimOptions { listen, databases: vec!["shop".to_owned()], ..SimOptions::default() };
            match SimServer::start(options) {
                Ok(server) => return server,
                Err(why) => assert!(Instant::now() < over, "{listen}: {why}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    tokio::task::spawn_blocking(start).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_server_under_pause_is_only_a_delay() {
    let mut stage = Stage::with(2).await;
    let mut early = Client::connect(stage.address, &Who::default()).await;
    assert_eq!(done(&stage, "PAUSE b1").await, "paused");
    assert_eq!(done(&stage, "PAUSE").await, "was paused already");
    stage.until("its connections are closed", |stage| stage.server.stats().open == 0).await;
    assert_eq!(stage.proxy.health().buckets[0].state, "paused");
    early.send_batch("SELECT 1").await.unwrap();
    waiting(&stage, 1).await;
    // The login comes from memory, the request waits.
    let mut late = Client::connect(stage.address, &Who::default()).await;
    late.send_batch("SELECT 2").await.unwrap();
    waiting(&stage, 2).await;
    assert_eq!(column(&stage, "SHOW WAITERS", "place").await, [1, 2]);
    assert_eq!(column(&stage, "SHOW WAITERS", "time_left").await, [Json::Null, Json::Null]);

    restart_server(&mut stage).await;
    assert_eq!(done(&stage, "RESUME").await, "resumed");
    assert_eq!(early.response().await.unwrap().number(), 1);
    assert_eq!(late.response().await.unwrap().number(), 2);
    assert_eq!(done(&stage, "RESUME b1").await, "was not paused");
    drop((early, late));
    stage.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_transaction_pooling_a_restart_under_pause_is_a_delay_and_keeps_every_sessions_settings() {
    let mut stage = Stage::set(2, |bucket| bucket.pool_mode = PoolMode::Transaction, |_| {}).await;
    let mut clients = Vec::new();
    for number in 1..=6 {
        let mut client = Client::connect(stage.address, &Who::default()).await;
        assert!(client.batch(&format!("SET LOCK_TIMEOUT {number}")).await.errors.is_empty());
        clients.push(client);
    }
    let mut busy = Client::connect(stage.address, &Who::default()).await;
    assert!(busy.batch("BEGIN TRANSACTION; SELECT 1").await.errors.is_empty());
    assert_eq!(done(&stage, "PAUSE b1").await, "paused");
    // What is held is let go at its own end.
    assert_eq!(busy.batch("SELECT 2").await.number(), 2);
    assert_eq!(stage.server.stats().open, 1);
    assert!(busy.batch("COMMIT").await.errors.is_empty());
    stage.until("its connections are closed", |stage| stage.server.stats().open == 0).await;
    for client in &mut clients {
        client.send_batch("SELECT @@LOCK_TIMEOUT").await.unwrap();
    }
    busy.send_batch("SELECT @@TRANCOUNT").await.unwrap();
    waiting(&stage, 7).await;

    restart_server(&mut stage).await;
    assert_eq!(done(&stage, "RESUME b1").await, "resumed");
    for (number, client) in (1..).zip(&mut clients) {
        assert_eq!(client.response().await.unwrap().number(), number);
    }
    assert_eq!(busy.response().await.unwrap().number(), 0);
    assert!(stage.server.stats().peak <= 2, "{:?}", stage.server.stats());
    drop((clients, busy));
    stage.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_tells_new_sessions_what_procedures_leave_something() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("proxy.toml");
    let source = file.clone();
    let set = |bucket: &mut Bucket| bucket.pool_mode = PoolMode::Transaction;
    let stage = Stage::set(2, set, |config| config.source = Some(source)).await;
    let mut before = Client::connect(stage.address, &Who::default()).await;
    before.batch("EXEC dbo.leaves_something").await;
    let socket = stage.admin_socket();
    let text = format!(
        "[[listeners]]\naddress = \"127.0.0.1:0\"\ntls = {{ mode = \"off\" }}\n[[buckets]]\nname = \"b1\"\n\
         host = \"127.0.0.1\"\nport = {}\ndatabases = [\"*\"]\ndefault = true\nmax_connections = 2\n\
         self_test = false\nserver_tls = {{ mode = \"off\" }}\nholding_procedures = [\"leaves_something\"]\n\
         [auth]\nfailed_login_delay = \"0s\"\n[admin]\nsocket = {socket:?}\n[health]\naddress = \"off\"\n\
         [metrics]\naddress = \"off\"\n",
        stage.server.addr().port(),
    );
    std::fs::write(&file, text).unwrap();
    let answer = order(&stage, "RELOAD").await;
    let key = "buckets.b1.holding_procedures";
    assert_eq!(answer["rows"], serde_json::json!([[key, " -> leaves_something, for new sessions"]]));
    assert_eq!(column(&stage, "SHOW HOLDS", "reasons").await, Vec::<Json>::new());
    let mut after = Client::connect(stage.address, &Who::default()).await;
    after.batch("EXEC dbo.leaves_something").await;
    assert_eq!(column(&stage, "SHOW HOLDS", "reasons").await, ["listed_procedure"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_a_pause_does_not_count_as_waiting_and_a_long_pause_is_told() {
    let stage = Stage::set(
        1,
        |bucket| {
            bucket.acquire_timeout = Duration::from_millis(300);
            bucket.pause_timeout = Duration::from_millis(1500);
        },
        |_| {},
    )
    .await;
    let mut client = Client::connect(stage.address, &Who::default()).await;
    done(&stage, "PAUSE b1").await;
    client.send_batch("SELECT 1").await.unwrap();
    waiting(&stage, 1).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(stage.proxy.health().buckets[0].waiting, 1, "beyond its own limit it waits on");
    let response = client.response().await.unwrap();
    assert_eq!(response.error(), 40501, "{response:?}");
    assert!(response.errors[0].text.contains("paused by an operator"), "{:?}", response.errors);
    assert_eq!(client.batch("SELECT 1").await.error(), 40501, "at once, as long as the pause lasts");
    done(&stage, "RESUME b1").await;
    assert_eq!(client.batch("SELECT 3").await.number(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_bucket_takes_no_new_clients_and_keeps_those_it_has() {
    let stage = Stage::with(2).await;
    let mut inside = Client::connect(stage.address, &Who::default()).await;
    assert_eq!(done(&stage, "DISABLE b1").await, "disabled");
    let errors = Client::refused(stage.address, &Who::default()).await;
    assert_eq!(errors[0].number, 40501, "{errors:?}");
    assert_eq!(inside.batch("SELECT 5").await.number(), 5);
    assert!(stage.proxy.health().ready, "only one of its buckets is closed, by an operator's wish");
    assert_eq!(done(&stage, "ENABLE b1").await, "enabled");
    assert_eq!(Client::connect(stage.address, &Who::default()).await.batch("SELECT 6").await.number(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_every_bucket_makes_the_proxy_not_ready_until_it_is_enabled() {
    let stage = Stage::with(2).await;
    let mut idle = Client::connect(stage.address, &Who::default()).await;
    assert!(done(&stage, "DRAIN").await.contains("1 end when nothing of theirs is under way"));
    assert!(!stage.proxy.health().ready);
    assert_eq!(idle.response().await.unwrap().error(), 40501);
    assert_eq!(Client::refused(stage.address, &Who::default()).await[0].number, 40501);
    done(&stage, "ENABLE").await;
    assert!(stage.proxy.health().ready);
    stage.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_higher_limit_serves_who_waits_at_once_and_a_reconnect_replaces_connections() {
    let stage = Stage::with(1).await;
    let mut holder = Client::connect(stage.address, &Who::default()).await;
    holder.batch("SELECT 1").await;
    let mut second = Client::connect(stage.address, &Who::default()).await;
    second.send_batch("SELECT 2").await.unwrap();
    waiting(&stage, 1).await;
    assert!(done(&stage, "SET b1.max_connections = 2").await.starts_with("1 -> 2"));
    assert_eq!(second.response().await.unwrap().number(), 2);
    let config = order(&stage, "SHOW CONFIG").await.to_string();
    assert!(config.contains("\"buckets.b1.max_connections\",\"2\""), "{config}");
    drop((holder, second));
    stage.until_everybody_left().await;
    let logins = stage.server.stats().logins;
    done(&stage, "RECONNECT b1").await;
    stage.until("the old ones are closed", |stage| stage.server.stats().open == 0).await;
    assert_eq!(Client::connect(stage.address, &Who::default()).await.batch("SELECT 3").await.number(), 3);
    assert!(stage.server.stats().logins > logins, "on a new connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_servers_and_tenants_are_killed_and_nobody_else() {
    let stage = Stage::with(4).await;
    let depot = Who { database: "depot".to_owned(), ..Who::default() };
    let mut victim = Client::connect(stage.address, &Who::default()).await;
    let mut neighbour = Client::connect(stage.address, &Who::default()).await;
    let mut other = Client::connect(stage.address, &depot).await;
    for client in [&mut victim, &mut neighbour, &mut other] {
        client.batch("SELECT 1").await;
    }
    let sessions = column(&stage, "SHOW SESSIONS", "session").await;
    assert_eq!(done(&stage, &format!("KILL SESSION {}", sessions[0])).await, "ended");
    let told = victim.response().await.unwrap();
    assert!(told.errors[0].text.contains("by an operator") && told.errors[0].class == 20, "{told:?}");
    assert!(order(&stage, "KILL SESSION 99999").await["error"].as_str().unwrap().contains("no such session"));

    let tenants = column(&stage, "SHOW TENANTS", "tenant").await;
    assert!(tenants.contains(&"depot".into()) && tenants.contains(&"shop".into()), "{tenants:?}");
    assert_eq!(done(&stage, "KILL TENANT depot").await, "1 sessions ended");
    assert!(other.response().await.unwrap().errors[0].text.contains("by an operator"));

    assert_eq!(neighbour.batch("SELECT 7").await.number(), 7);
    stage.until("only one is left", |stage| stage.proxy.health().clients == 1).await;
    let leased = column(&stage, "SHOW SESSIONS", "server").await[0].clone();
    assert!(done(&stage, &format!("KILL SERVER {leased}")).await.starts_with("closed"));
    let told = neighbour.response().await.unwrap();
    assert_eq!(told.errors[0].class, 20, "{told:?}");
    stage.until("its slot is back", |stage| stage.proxy.health().buckets[0].leased == 0).await;
    let idle = column(&stage, "SHOW SERVERS", "server").await;
    for server in &idle {
        assert_eq!(done(&stage, &format!("KILL SERVER {server}")).await, "closed");
    }
    stage.until("none is left", |stage| stage.server.stats().open == 0).await;
    assert!(order(&stage, "KILL SERVER 99999").await["error"].is_string());
    stage.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_subject_is_shown() {
    let stage = Stage::with(2).await;
    let mut client = Client::connect(stage.address, &Who::application("crash:idle")).await;
    client.batch("SELECT 1").await;
    let answers = [
        ("BUCKETS", "bucket", "b1"),
        ("POOLS", "user", "sa"),
        ("SESSIONS", "application", "crash:idle"),
        ("SERVERS", "state", "leased"),
        ("HOLDS", "application", "crash:idle"),
        ("TENANTS", "tenant", "shop"),
        ("COORDINATOR", "kind", "local"),
        ("CRASHES", "actor", "session"),
        ("STATS", "bucket", "b1"),
        ("CONFIG", "key", "buckets.b1.max_connections"),
        ("VERSION", "version", "test"),
        ("HELP", "command", "RELOAD"),
    ];
    for (subject, name, expected) in answers {
        let cells = column(&stage, &format!("SHOW {subject}"), name).await;
        assert!(cells.iter().any(|cell| cell == expected), "{subject}: {cells:?}");
    }
    let memory = column(&stage, "SHOW MEMORY", "resident").await;
    assert!(memory[0].as_u64().unwrap() > 1 << 20, "{memory:?}");
    assert_eq!(column(&stage, "SHOW WAITERS", "place").await, Vec::<Json>::new());
}

/// A stage with the users `dba`, who may do everything, and `watch`, who may look.
async fn with_console() -> (Stage, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    let hash = |password: &str| hash_password(&Secret::new(password.to_owned())).unwrap();
    std::fs::write(&file, format!("dba:{}\nwatch:{}\nanna:{}\n", hash("top"), hash("see"), hash("x")))
        .unwrap();
    let set = |config: &mut Config| {
        config.auth.users_file = Some(file);
        config.admin.users = vec!["dba".to_owned()];
        config.admin.viewers = vec!["watch".to_owned()];
    };
    (Stage::set(2, |_| {}, set).await, folder)
}

fn operator(user: &str, password: &str) -> Who {
    Who {
        user: user.to_owned(),
        password: password.to_owned(),
        database: "TDSbouncer".to_owned(),
        ..Who::default()
    }
}

fn texts(response: &Response, at: usize) -> Vec<&str> {
    assert!(response.errors.is_empty(), "{:?}", response.errors);
    response.rows.iter().map(|row| row[at].as_str().expect("a text")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_gives_the_same_answers_as_result_sets() {
    let (stage, _folder) = with_console().await;
    for version in [tds::TdsVersion::V7_1, tds::TdsVersion::V7_4] {
        let who = Who { version, ..operator("dba", "top") };
        let mut console = Client::connect(stage.address, &who).await;
        assert_eq!(texts(&console.batch("SHOW BUCKETS").await, 0), ["b1"]);
        let config = console.batch("show config;").await;
        assert!(texts(&config, 0).contains(&"buckets.b1.max_connections"));
        assert_eq!(texts(&console.batch("PAUSE b1").await, 1), ["paused"]);
        assert_eq!(stage.proxy.health().buckets[0].state, "paused");
        let both = console.batch("SHOW VERSION\nRESUME b1").await;
        assert_eq!((both.rows.len(), both.dones.len()), (2, 2), "two result sets");
        assert_eq!(console.batch("SELECT 1").await.number(), 1);
        assert!(console.batch("SET NOCOUNT ON").await.errors.is_empty());
        let wrong = console.batch("DROP TABLE x").await;
        assert_eq!(wrong.error(), 102);
        assert!(wrong.errors[0].text.contains("no such command: DROP"), "{:?}", wrong.errors);
        let failed = console.batch("PAUSE nobody").await;
        assert!(
            failed.errors[0].text.contains("no such bucket: nobody (there are b1)"),
            "{:?}",
            failed.errors
        );
        let uptime = console.batch("SHOW VERSION").await;
        assert!(matches!(uptime.rows[0][3], Value::BigInt(0..)), "{:?}", uptime.rows);
    }
    assert_eq!(stage.server.stats().logins, 0, "the console needs no server");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_command_is_given_at_the_console() {
    let (stage, _folder) = with_console().await;
    let mut console = Client::connect(stage.address, &operator("dba", "top")).await;
    for (subject, _) in SUBJECTS {
        let command = format!("SHOW {subject}");
        let answer = console.batch(&command).await;
        assert!(answer.errors.is_empty() && answer.dones.len() == 1, "{command}: {answer:?}");
        let columns = order(&stage, &command).await["columns"].as_array().unwrap().len();
        assert!(answer.rows.iter().all(|row| row.len() == columns), "{command}: {answer:?}");
    }
    for (command, expected) in [
        ("PAUSE", "paused"),
        ("RESUME b1", "resumed"),
        ("DISABLE b1", "disabled"),
        ("ENABLE", "enabled"),
        ("RECONNECT", "replaced"),
        ("DRAIN b1", "no new clients"),
        ("ENABLE b1", "enabled"),
        ("SET b1.max_connections = 7", "2 -> 7"),
    ] {
        let answer = console.batch(command).await;
        assert!(texts(&answer, 1)[0].contains(expected), "{command}: {answer:?}");
    }
    for (command, why) in [
        ("KILL SESSION 9999", "no such session: 9999"),
        ("KILL SERVER s9999", "no such server connection: 9999"),
        ("KILL TENANT nobody", "no session of tenant nobody"),
        ("RELOAD", "not started from a configuration file"),
        ("LOG-LEVEL debug", "cannot be changed"),
    ] {
        let answer = console.batch(command).await;
        assert!(answer.error() == 50_000 && answer.errors[0].text.contains(why), "{command}: {answer:?}");
    }
    let answer = console.batch("SHUTDOWN").await;
    assert!(texts(&answer, 1)[0].contains("drains and ends"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_look_is_refused_and_who_is_no_operator_does_not_get_in() {
    let (stage, _folder) = with_console().await;
    let mut viewer = Client::connect(stage.address, &operator("WATCH", "see")).await;
    assert_eq!(texts(&viewer.batch("SHOW BUCKETS").await, 0), ["b1"]);
    for command in [
        "PAUSE",
        "RESUME",
        "DISABLE",
        "ENABLE",
        "RECONNECT",
        "DRAIN",
        "KILL SESSION 1",
        "KILL SERVER 1",
        "KILL TENANT shop",
        "SET b1.max_connections = 1",
        "RELOAD",
        "SHUTDOWN",
        "LOG-LEVEL debug",
    ] {
        let refused = viewer.batch(command).await;
        assert_eq!((refused.error(), refused.errors[0].class), (229, 14), "{command}: {:?}", refused.errors);
    }
    for who in [operator("dba", "see"), operator("anna", "x"), operator("sa", "Sim-passw0rd")] {
        let errors = Client::refused(stage.address, &who).await;
        assert_eq!(errors[0].number, 18456, "{}", who.user);
    }
    assert_eq!(stage.proxy.health().buckets[0].state, "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_operators_the_consoles_name_is_a_database_like_any_other() {
    let stage = Stage::with(1).await;
    let errors = Client::refused(stage.address, &operator("sa", "Sim-passw0rd")).await;
    assert_eq!(errors[0].number, 4060, "the server's own answer: {errors:?}");
}
