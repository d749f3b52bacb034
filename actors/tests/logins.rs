//! Who may log in, who checks the password, and what the client is told.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod client;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use client::stage::Stage;
use client::{Client, Who};
use tds::encryption::ServerTls;
use tds::handshake::{Connect, ConnectPolicy, ConnectStep};
use tds::login_response::{self, Continuation, LoginOutcome};
use tds::login7::{Login7, OptionFlags2, OptionFlags3, Password};
use tds::message::{MessageReader, write_message};
use tds::packet::{PacketType, Status};
use tdsbouncer_config::{BucketAuth, Secret, hash_password};
use tdsbouncer_sim::{Integrated, Route, SimOptions, SimServer, User};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn with_password(password: &str) -> Who {
    Who { password: password.to_owned(), ..Who::default() }
}

fn options() -> SimOptions {
    SimOptions { databases: vec!["shop".to_owned()], ..SimOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_gets_the_servers_own_words() {
    let stage = Stage::with(2).await;
    let proxied = Client::refused(stage.address, &with_password("wrong")).await;
    let direct = Client::refused(stage.server.addr(), &with_password("wrong")).await;
    assert_eq!(proxied, direct);
    assert_eq!((proxied[0].number, proxied[0].class), (18456, 14));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_never_answered_from_memory() {
    let stage = Stage::with(2).await;
    drop(Client::connect(stage.address, &Who::default()).await);
    assert_eq!(Client::refused(stage.address, &with_password("wrong")).await[0].number, 18456);
    // A failure of the name drops what was remembered of it: the next login asks the server again.
    let before = stage.server.stats().logins;
    drop(Client::connect(stage.address, &Who::default()).await);
    assert_eq!(stage.server.stats().logins, before + 1);
    drop(Client::connect(stage.address, &Who::default()).await);
    assert_eq!(stage.server.stats().logins, before + 1, "and then it is remembered again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_password_is_noticed_when_memory_ends() {
    let ttl = Duration::from_millis(300);
    let stage = Stage::set(2, |_| {}, |config| config.auth.cache_ttl = Some(ttl)).await;
    drop(Client::connect(stage.address, &Who::default()).await);
    stage.server.add_user(User::new("sa", "New-passw0rd"));
    tokio::time::sleep(ttl * 2).await;
    assert_eq!(Client::refused(stage.address, &Who::default()).await[0].number, 18456);
    drop(Client::connect(stage.address, &with_password("New-passw0rd")).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_database_gets_the_servers_own_words() {
    let stage = Stage::with(2).await;
    let nowhere = Who { database: "nowhere".to_owned(), ..Who::default() };
    let proxied = Client::refused(stage.address, &nowhere).await;
    assert_eq!(proxied, Client::refused(stage.server.addr(), &nowhere).await);
    assert_eq!(proxied[0].number, 4060);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_a_bucket_is_error_4060_of_the_proxys() {
    let only_shop = |bucket: &mut tdsbouncer_config::Bucket| {
        bucket.databases = vec![tdsbouncer_config::Pattern::new("shop*")];
        bucket.default = false;
    };
    let stage = Stage::set(2, only_shop, |_| {}).await;
    let elsewhere = Who { database: "depot".to_owned(), ..Who::default() };
    let errors = Client::refused(stage.address, &elsewhere).await;
    assert_eq!((errors[0].number, errors[0].class), (4060, 11));
    assert!(errors[0].text.contains("no bucket is configured for database \"depot\""), "{}", errors[0].text);
    assert_eq!(stage.server.stats().accepted, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_guesses_passwords_waits_longer_and_longer() {
    let slow = |config: &mut tdsbouncer_config::Config| {
        config.auth.failed_login_delay = Duration::from_millis(100);
        config.auth.max_delay = Duration::from_secs(1);
    };
    let stage = Stage::set(2, |_| {}, slow).await;
    let began = Instant::now();
    for _ in 0..3 {
        Client::refused(stage.address, &with_password("wrong")).await;
    }
    assert!(began.elapsed() >= Duration::from_millis(100 + 200 + 400), "{:?}", began.elapsed());
    let other = Who { user: "eva".to_owned(), password: "Eva-passw0rd".to_owned(), ..Who::default() };
    stage.server.add_user(User::new("eva", "Eva-passw0rd"));
    drop(Client::connect(stage.address, &other).await);
}

/// A bucket with a service login, and one client user, `eva`.
async fn service_stage(server_password: &str) -> (Stage, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    let hash = hash_password(&Secret::new("Eva-client".to_owned())).unwrap();
    std::fs::write(&file, format!("eva:{hash}:shop\n")).unwrap();
    let password = Secret::new(server_password.to_owned());
    let stage = Stage::set(
        2,
        |bucket| bucket.auth = BucketAuth::Service { user: "sa".to_owned(), password },
        |config| config.auth.users_file = Some(file),
    )
    .await;
    (stage, folder)
}

fn eva(password: &str, database: &str) -> Who {
    let (user, password) = ("eva".to_owned(), password.to_owned());
    Who { user, password, database: database.to_owned(), ..Who::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_service_login_the_proxy_checks_the_client_and_the_server_sees_the_service() {
    let (stage, _folder) = service_stage("Sim-passw0rd").await;
    let mut client = Client::connect(stage.address, &eva("Eva-client", "shop")).await;
    assert_eq!(client.batch("SELECT SUSER_SNAME()").await.value().as_str(), Some("sa"));
    for (password, database) in
        [("wrong", "shop"), ("Eva-client", "depot"), ("", "shop"), ("Sim-passw0rd", "shop")]
    {
        let errors = Client::refused(stage.address, &eva(password, database)).await;
        assert_eq!((errors[0].number, errors[0].class), (18456, 14), "{password} {database}");
        assert_eq!(errors[0].text, "Login failed for user 'eva'.");
    }
    let sa = Client::refused(stage.address, &Who::default()).await;
    assert_eq!(sa[0].number, 18456, "the service's own credentials open nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_login_that_the_server_refuses_is_not_the_clients_fault() {
    let (stage, _folder) = service_stage("not-the-password").await;
    let errors = Client::refused(stage.address, &eva("Eva-client", "shop")).await;
    assert_eq!(errors[0].number, 40613);
    assert!(!errors[0].text.contains("'sa'"), "whose login it was is nobody's business: {}", errors[0].text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_the_server_routes_elsewhere_is_followed_there() {
    let target = SimServer::start(options()).unwrap();
    let route = Route { host: "127.0.0.1".to_owned(), port: target.addr().port() };
    let gateway = SimServer::start(SimOptions { routing: Some(route), ..options() }).unwrap();
    let stage = Stage::on(gateway, 1, |_| {}, |_| {}).await;
    let mut client = Client::connect(stage.address, &Who::default()).await;
    assert_eq!(client.batch("SELECT 1").await.number(), 1);
    assert_eq!(client.response.routing, None, "the client need not know");
    assert_eq!((stage.server.stats().open, target.stats().open), (0, 1));
}

/// Logs in by hand, as far as the server's first answer.
async fn open(address: std::net::SocketAddr, login: &Login7) -> (TcpStream, Bytes) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let policy = ConnectPolicy { tls: ServerTls::Never, ..ConnectPolicy::default() };
    let mut connect = Connect::new(policy, login);
    let (mut input, mut out) = (BytesMut::new(), BytesMut::new());
    loop {
        let (next, step) = connect.step(&mut input, &mut out).unwrap();
        connect = next;
        socket.write_all(&out).await.unwrap();
        out.clear();
        match step {
            ConnectStep::NeedBytes => assert_ne!(socket.read_buf(&mut input).await.unwrap(), 0, "closed"),
            ConnectStep::Response { message, .. } => return (socket, message.payload.freeze()),
            step => panic!("unexpected {step:?}"),
        }
    }
}

async fn answer(socket: &mut TcpStream) -> Bytes {
    let (mut reader, mut input) = (MessageReader::new(32_767, 1 << 20), BytesMut::new());
    loop {
        if let Some(message) = reader.read(&mut input).unwrap() {
            return message.payload.freeze();
        }
        assert_ne!(socket.read_buf(&mut input).await.unwrap(), 0, "closed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_integrated_login_is_relayed_one_to_one_on_a_connection_of_its_own() {
    let (challenge, response) = (b"who are you?".to_vec(), b"it is me".to_vec());
    let integrated = Integrated::Challenge {
        challenge: challenge.clone(),
        response: response.clone(),
        user: "DOM\\eva".to_owned(),
    };
    let server = SimServer::start(SimOptions { integrated, ..options() }).unwrap();
    let stage = Stage::on(server, 2, |_| {}, |_| {}).await;
    let who = Who { user: String::new(), password: String::new(), ..Who::default() };
    let mut login = who.login();
    login.option_flags2 = login.option_flags2.with(OptionFlags2::INTEGRATED_SECURITY);
    login.sspi = Bytes::from_static(b"hello");
    for round in 1..=2 {
        let (mut socket, first) = open(stage.address, &login).await;
        let outcome = login_response::read(&first, tds::TdsVersion::V7_4).unwrap();
        let LoginOutcome::Continue(Continuation::Sspi(token)) = outcome else { panic!("{outcome:?}") };
        assert_eq!(token, challenge);
        let mut out = BytesMut::new();
        write_message(&mut out, PacketType::SSPI, Status::NORMAL, 0, 4096, &response);
        socket.write_all(&out).await.unwrap();
        let outcome = login_response::read(&answer(&mut socket).await, tds::TdsVersion::V7_4).unwrap();
        assert!(matches!(outcome, LoginOutcome::Accepted(_)), "{outcome:?}");
        assert_eq!(stage.server.stats().logins, round, "never answered from memory");
        stage.until("it is counted", |stage| stage.proxy.health().buckets[0].used == 1).await;
        drop(socket);
        stage.until("its connection is closed", |stage| stage.proxy.health().buckets[0].used == 0).await;
    }
    assert_eq!(stage.server.stats().open, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_changes_its_password_goes_to_the_server() {
    let stage = Stage::with(2).await;
    drop(Client::connect(stage.address, &Who::default()).await);
    let mut login = Who::default().login();
    login.option_flags3 = login.option_flags3.with(OptionFlags3::CHANGE_PASSWORD);
    login.new_password = Password::new("Changed-passw0rd");
    let (_socket, first) = open(stage.address, &login).await;
    let outcome = login_response::read(&first, tds::TdsVersion::V7_4).unwrap();
    assert!(matches!(outcome, LoginOutcome::Accepted(_)), "{outcome:?}");
    drop(Client::connect(stage.address, &with_password("Changed-passw0rd")).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_larger_packets_are_agreed_on_than_the_proxy_reads() {
    let stage = Stage::set(2, |_| {}, |config| config.limits.max_packet = 4096).await;
    let mut login = Who::default().login();
    login.packet_size = 32_767;
    let (_socket, first) = open(stage.address, &login).await;
    let LoginOutcome::Accepted(response) = login_response::read(&first, tds::TdsVersion::V7_4).unwrap()
    else {
        panic!("not accepted")
    };
    assert_eq!(response.packet_size, Some(4096));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_equal_logins_asks_the_server_once() {
    let stage = Arc::new(Stage::with(20).await);
    let mut storm = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let stage = Arc::clone(&stage);
        storm.spawn(async move { Client::connect(stage.address, &Who::default()).await });
    }
    let clients = storm.join_all().await;
    assert_eq!(clients.len(), 100);
    assert_eq!(stage.server.stats().logins, 1);
}
