//! Who gets in, how, and what the answer to a login says.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod raw_client;

use std::time::Duration;

use bytes::Bytes;
use raw_client::{Client, Dial, Failed, dones, login, rows};
use tds::TdsVersion;
use tds::feature::{Feature, FeatureId};
use tds::handshake::ServerTls;
use tds::login_response::Continuation;
use tds::login7::{Login7, OptionFlags2, OptionFlags3, Password};
use tds::packet::PacketType;
use tds::value::Value;
use tdsbouncer_sim::{
    Encryption, Federated, Integrated, Route, ServerKind, SimHandle, SimOptions, SimServer,
};

const PASSWORD: &str = "Sim-passw0rd";

fn server(options: SimOptions) -> SimHandle {
    SimServer::start(options).unwrap()
}

fn dial(server: &SimHandle, tls: ServerTls) -> Dial {
    Dial { tls, login: login(PASSWORD), pem: server.certificate_pem().to_owned(), without_prelogin: false }
}

fn numbers(failed: Failed) -> Vec<(i32, u8, u8)> {
    match failed {
        Failed::Refused(messages) => {
            messages.iter().filter(|m| m.is_error).map(|m| (m.number, m.state, m.class)).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_encryption_mode_of_the_server_meets_every_mode_of_the_client() {
    use Encryption as E;
    use ServerTls as C;
    let fits = |server, client| match (server, client) {
        (E::NotSupported, C::On | C::Strict) | (E::On, C::Never) => false,
        (E::Strict, client) => client == C::Strict,
        _ => true,
    };
    for encryption in [E::NotSupported, E::Off, E::On, E::Strict] {
        let server = server(SimOptions { encryption, ..SimOptions::default() });
        for tls in [C::Never, C::Off, C::On, C::Strict] {
            let outcome = Client::dial(server.addr(), &dial(&server, tls));
            assert_eq!(outcome.is_ok(), fits(encryption, tls), "{encryption:?} {tls:?} {:?}", outcome.err());
            if let Ok(mut client) = outcome {
                assert_eq!(rows(&client.batch("select 1")), [[Value::Int(1)]], "{encryption:?} {tls:?}");
            }
        }
    }
}

#[test]
fn every_tds_version_gets_an_answer_in_its_own_format() {
    let server = server(SimOptions::default());
    for version in [
        TdsVersion::V7_0,
        TdsVersion::V7_1,
        TdsVersion::V7_1_SP1,
        TdsVersion::V7_2,
        TdsVersion::V7_3A,
        TdsVersion::V7_3B,
        TdsVersion::V7_4,
    ] {
        let mut dial = dial(&server, ServerTls::Off);
        dial.login.tds_version = version;
        let mut client = Client::dial(server.addr(), &dial).unwrap();
        assert_eq!(client.dialect.version, version);
        assert_eq!(rows(&client.batch("select 1")), [[Value::Int(1)]], "{version}");
    }
}

#[test]
fn an_older_server_answers_with_its_own_version() {
    for (kind, version) in [
        (ServerKind::SqlServer2000, TdsVersion::V7_1_SP1),
        (ServerKind::SqlServer2008R2, TdsVersion::V7_3B),
        (ServerKind::SqlServer2012, TdsVersion::V7_4),
    ] {
        let server = server(SimOptions { kind, ..SimOptions::default() });
        let mut client = Client::open(server.addr()).unwrap();
        client.dialect = tds::Dialect::of(version);
        let client = Client::dial(server.addr(), &dial(&server, ServerTls::Never)).unwrap();
        assert_eq!(client.dialect.version, version);
    }
}

#[test]
fn a_client_of_tds_7_1_may_log_in_without_prelogin() {
    let server = server(SimOptions::default());
    let mut dial = dial(&server, ServerTls::Never);
    dial.login.tds_version = TdsVersion::V7_1_SP1;
    dial.without_prelogin = true;
    let mut client = Client::dial(server.addr(), &dial).unwrap();
    assert_eq!(rows(&client.batch("select 1")), [[Value::Int(1)]]);
}

#[test]
fn the_packet_size_is_always_told_and_kept_within_bounds() {
    let server = server(SimOptions { max_packet_size: 8000, ..SimOptions::default() });
    for (asked, told) in [(0, 4096), (100, 512), (4096, 4096), (8000, 8000), (32767, 8000)] {
        let mut dial = dial(&server, ServerTls::Off);
        dial.login.packet_size = asked;
        let client = Client::dial(server.addr(), &dial).unwrap();
        assert_eq!(client.packet_size, told, "{asked}");
    }
}

#[test]
fn a_wrong_password_and_an_unknown_user_get_the_same_error() {
    let server = server(SimOptions::default());
    for (user, password) in [("sa", "wrong"), ("nobody", PASSWORD)] {
        let mut dial = dial(&server, ServerTls::Off);
        dial.login = Login7 { user_name: user.into(), ..login(password) };
        let failed = Client::dial(server.addr(), &dial).unwrap_err();
        assert_eq!(numbers(failed), [(18456, 1, 14)]);
    }
    assert_eq!(server.stats().failed_logins, 2);
}

#[test]
fn an_unknown_database_gets_4060_and_then_18456() {
    let server = server(SimOptions { databases: vec!["shop".into()], ..SimOptions::default() });
    let mut dial = dial(&server, ServerTls::Off);
    dial.login.database = "SHOP".into();
    let client = Client::dial(server.addr(), &dial).unwrap();
    assert_eq!(client.response.unwrap().database, "shop");
    dial.login.database = "missing".into();
    let failed = Client::dial(server.addr(), &dial).unwrap_err();
    assert_eq!(numbers(failed), [(4060, 1, 11), (18456, 1, 14)]);
}

#[test]
fn it_says_that_it_is_a_stand_in() {
    let server = server(SimOptions::default());
    let client = Client::dial(server.addr(), &dial(&server, ServerTls::Off)).unwrap();
    let response = client.response.unwrap();
    assert!(response.messages.iter().any(|message| message.text.contains("stand-in")));
}

#[test]
fn a_login_can_change_its_password() {
    let server = server(SimOptions::default());
    let mut change = dial(&server, ServerTls::Off);
    change.login.new_password = Password::new("another one");
    change.login.option_flags3 = change.login.option_flags3.with(OptionFlags3::CHANGE_PASSWORD);
    Client::dial(server.addr(), &change).unwrap();
    assert!(Client::dial(server.addr(), &dial(&server, ServerTls::Off)).is_err());
    let with_new = Dial { login: login("another one"), ..dial(&server, ServerTls::Off) };
    Client::dial(server.addr(), &with_new).unwrap();
}

#[test]
fn features_are_acknowledged_as_the_options_say() {
    let asked = [
        FeatureId::SESSION_RECOVERY,
        FeatureId::COLUMN_ENCRYPTION,
        FeatureId::DATA_CLASSIFICATION,
        FeatureId::UTF8_SUPPORT,
        FeatureId::USER_AGENT,
    ];
    let data = |id| match id {
        FeatureId::SESSION_RECOVERY => Bytes::new(),
        FeatureId::DATA_CLASSIFICATION => Bytes::from_static(&[2]),
        _ => Bytes::from_static(&[1]),
    };
    let mut options = SimOptions::default();
    for (session_recovery, expected) in [
        (true, vec![FeatureId::SESSION_RECOVERY, FeatureId::DATA_CLASSIFICATION, FeatureId::UTF8_SUPPORT]),
        (false, vec![FeatureId::DATA_CLASSIFICATION, FeatureId::UTF8_SUPPORT]),
    ] {
        options.features.session_recovery = session_recovery;
        let server = server(options.clone());
        let mut dial = dial(&server, ServerTls::Off);
        dial.login.features = asked.iter().map(|&id| Feature { id, data: data(id) }).collect();
        let client = Client::dial(server.addr(), &dial).unwrap();
        let found: Vec<_> = client.response.unwrap().features.iter().map(|feature| feature.id).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn an_integrated_login_is_refused_unless_a_challenge_is_set_up() {
    let server = server(SimOptions::default());
    let mut dial = dial(&server, ServerTls::Off);
    dial.login.option_flags2 = dial.login.option_flags2.with(OptionFlags2::INTEGRATED_SECURITY);
    dial.login.sspi = Bytes::from_static(b"hello");
    assert_eq!(numbers(Client::dial(server.addr(), &dial).unwrap_err()), [(18452, 1, 14)]);
}

#[test]
fn an_integrated_login_that_answers_the_challenge_gets_in() {
    let integrated = Integrated::Challenge {
        challenge: b"who are you?".to_vec(),
        response: b"it is me".to_vec(),
        user: "DOMAIN\\me".into(),
    };
    let server = server(SimOptions { integrated, ..SimOptions::default() });
    let mut dial = dial(&server, ServerTls::Off);
    dial.login.option_flags2 = dial.login.option_flags2.with(OptionFlags2::INTEGRATED_SECURITY);
    dial.login.sspi = Bytes::from_static(b"hello");
    let answer = |with: &'static [u8]| {
        move |asked: &Continuation| match asked {
            Continuation::Sspi(token) => {
                assert_eq!(token[..], b"who are you?"[..]);
                Some((PacketType::SSPI, with.to_vec()))
            }
            Continuation::FedAuthInfo(_) => None,
        }
    };
    let mut client = Client::dial_and_answer(server.addr(), &dial, answer(b"it is me")).unwrap();
    assert_eq!(dones(&client.batch("select 1")).len(), 1);
    assert!(Client::dial_and_answer(server.addr(), &dial, answer(b"somebody")).is_err());
}

#[test]
fn a_federated_login_fetches_its_token_where_the_server_says() {
    let federated = Federated::Accept {
        sts_url: "https://sts.example/".into(),
        spn: "https://database.example/".into(),
        token: b"a good token".to_vec(),
        user: "me@example".into(),
    };
    let server = server(SimOptions { federated, ..SimOptions::default() });
    let mut dial = dial(&server, ServerTls::On);
    dial.login.features = vec![Feature { id: FeatureId::FED_AUTH, data: Bytes::from_static(&[2 << 1, 1]) }];
    let answer = |asked: &Continuation| match asked {
        Continuation::FedAuthInfo(_) => {
            let token = b"a good token";
            let mut payload = (4 + token.len() as u32).to_le_bytes().to_vec();
            payload.extend((token.len() as u32).to_le_bytes());
            payload.extend(token);
            Some((PacketType::FED_AUTH_TOKEN, payload))
        }
        Continuation::Sspi(_) => None,
    };
    let client = Client::dial_and_answer(server.addr(), &dial, answer).unwrap();
    assert_eq!(client.response.unwrap().features[0].id, FeatureId::FED_AUTH);
}

#[test]
fn a_login_can_be_routed() {
    let routing = Some(Route { host: "elsewhere".into(), port: 1499 });
    let server = server(SimOptions { routing, ..SimOptions::default() });
    let client = Client::dial(server.addr(), &dial(&server, ServerTls::Off)).unwrap();
    let routing = client.response.unwrap().routing.unwrap();
    assert_eq!((routing.host.as_str(), routing.port), ("elsewhere", 1499));
}

#[test]
fn connections_beyond_the_limit_get_17809_and_are_counted_while_open() {
    let server = server(SimOptions { max_connections: 2, ..SimOptions::default() });
    let dial = dial(&server, ServerTls::Off);
    let first = Client::dial(server.addr(), &dial).unwrap();
    let second = Client::dial(server.addr(), &dial).unwrap();
    assert_eq!(numbers(Client::dial(server.addr(), &dial).unwrap_err()), [(17809, 1, 20)]);
    let stats = server.stats();
    assert_eq!((stats.peak, stats.over_limit, stats.logins), (3, 1, 2));
    drop((first, second));
    wait_until(|| server.stats().open == 0);
    Client::dial(server.addr(), &dial).unwrap();
}

#[test]
fn a_login_for_which_the_memory_does_not_suffice_gets_701() {
    let server =
        server(SimOptions { memory_per_connection: 10, memory_total: Some(25), ..SimOptions::default() });
    let dial = dial(&server, ServerTls::Off);
    let first = Client::dial(server.addr(), &dial).unwrap();
    let _second = Client::dial(server.addr(), &dial).unwrap();
    assert_eq!(numbers(Client::dial(server.addr(), &dial).unwrap_err()), [(701, 1, 17)]);
    assert_eq!(server.stats().memory_used, 20);
    drop(first);
    wait_until(|| server.stats().memory_used == 10);
    Client::dial(server.addr(), &dial).unwrap();
}

#[test]
fn a_client_that_never_logs_in_is_closed_after_the_login_timeout() {
    let server = server(SimOptions { login_timeout: Duration::from_millis(100), ..SimOptions::default() });
    let mut client = Client::open(server.addr()).unwrap();
    assert!(client.is_closed());
    wait_until(|| server.stats().open == 0);
}

#[test]
fn bytes_that_are_not_tds_close_the_connection() {
    let server = server(SimOptions::default());
    for bytes in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x12, 1, 0, 4, 0, 0, 0, 0], &[0x10, 1, 0xFF, 0xFF, 0, 0, 0, 0]]
    {
        let mut client = Client::open(server.addr()).unwrap();
        client.write(bytes).unwrap();
        assert!(client.is_closed(), "{bytes:?}");
    }
    wait_until(|| server.stats().protocol_errors == 3);
}

fn wait_until(condition: impl Fn() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it never happened");
}
