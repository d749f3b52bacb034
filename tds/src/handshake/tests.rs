//! Handshakes of both sides against each other, against the specification's bytes, in pieces, and broken.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::TdsVersion;
use crate::encryption::Encryption;
use crate::feature::{Feature, FeatureId};
use crate::login7::{Login7, OptionFlags3};
use crate::message::{MessageReader, write_message};
use crate::packet::{DEFAULT_PACKET_SIZE, PacketType, Status};
use crate::prelogin::{Prelogin, PreloginOption};

fn accept_policy(tls: ClientTlsPolicy) -> AcceptPolicy {
    AcceptPolicy {
        tls,
        strict: true,
        server_version: [16, 0, 0x10, 0x27, 0, 0],
        mars: true,
        max_login: 100_000,
    }
}

fn connect_policy(tls: ServerTls) -> ConnectPolicy {
    ConnectPolicy { tls, mars: true, version: [18, 0, 0, 0, 0, 0], extras: vec![] }
}

fn login() -> Login7 {
    Login7 { user_name: "sa".into(), password: "secret".into(), ..Login7::default() }
}

/// A login of two packets.
fn long_login() -> Login7 {
    Login7 {
        features: vec![Feature { id: FeatureId(0x77), data: Bytes::from(vec![5; 5000]) }],
        option_flags3: OptionFlags3::EXTENSION,
        ..login()
    }
}

/// Bytes on their way. What TLS would hide is marked by xor: whoever reads in the wrong mode reads nonsense.
#[derive(Default)]
struct Wire {
    bytes: BytesMut,
}

impl Wire {
    fn send(&mut self, out: &mut BytesMut, encrypted: bool) {
        self.bytes.extend(out.split().iter().map(|byte| if encrypted { byte ^ 0x55 } else { *byte }));
    }

    fn receive(&mut self, input: &mut BytesMut, encrypted: bool, limit: usize) {
        let take = self.bytes.len().min(limit);
        input
            .extend(self.bytes.split_to(take).iter().map(|byte| if encrypted { byte ^ 0x55 } else { *byte }));
    }
}

/// What a meeting of both sides came to.
#[derive(Debug, PartialEq)]
struct Met {
    request: LoginRequest,
    /// What the client did beside waiting.
    client: Vec<&'static str>,
}

/// Lets both sides talk with `chunk` bytes at a time until the server has a login.
fn meet(
    accept: AcceptPolicy,
    connect: ConnectPolicy,
    login: &Login7,
    chunk: usize,
) -> Result<Met, HandshakeError> {
    let (mut server, mut client) = (Accept::new(accept), Connect::new(connect, login));
    let (mut to_server, mut to_client) = (Wire::default(), Wire::default());
    let (mut server_in, mut client_in) = (BytesMut::new(), BytesMut::new());
    let (mut server_tls, mut client_tls) = (false, false);
    let mut steps = vec![];
    let mut out = BytesMut::new();
    for _ in 0..100_000 {
        to_client.receive(&mut client_in, client_tls, chunk);
        let (next, step) = client.step(&mut client_in, &mut out)?;
        client = next;
        to_server.send(&mut out, client_tls);
        match step {
            ConnectStep::NeedBytes => {}
            ConnectStep::StartTls(framing) => {
                steps.push(if framing == TlsFraming::Raw { "raw tls" } else { "wrapped tls" });
                if framing == TlsFraming::Raw {
                    // The first byte of a ClientHello is all that the server looks at.
                    let (next, step) = server.step(&mut BytesMut::from(&[0x16][..]), &mut out)?;
                    assert!(matches!(step, AcceptStep::StartTls(TlsFraming::Raw)));
                    server = next.tls_established()?;
                    server_tls = true;
                }
                client = client.tls_established()?;
                client_tls = true;
            }
            ConnectStep::EndTls => {
                steps.push("tls ends");
                client_tls = false;
            }
            ConnectStep::Response { .. } => panic!("there was no response"),
        }
        // What the client encrypts waits until the server's side of TLS is up.
        let limit = if client_tls && !server_tls { 0 } else { chunk };
        to_server.receive(&mut server_in, server_tls, limit);
        let (next, step) = server.step(&mut server_in, &mut out)?;
        server = next;
        to_client.send(&mut out, server_tls);
        match step {
            AcceptStep::NeedBytes => {}
            AcceptStep::StartTls(framing) => {
                assert_eq!(framing, TlsFraming::Wrapped);
                server = server.tls_established()?;
                server_tls = true;
                // Let the client read the answer, which was sent in the clear.
                to_client.receive(&mut client_in, false, usize::MAX);
            }
            AcceptStep::EndTls => {
                server_tls = false;
                // Read ahead through TLS, but sent in the clear.
                server_in.iter_mut().for_each(|byte| *byte ^= 0x55);
            }
            AcceptStep::Login(request) => return Ok(Met { request: *request, client: steps }),
        }
    }
    panic!("they never met");
}

#[test]
fn every_pair_of_settings_comes_to_what_the_table_says() {
    use Negotiated::{Full, LoginOnly, None};
    let rows = [
        (ClientTlsPolicy::Off, [Some(None), Some(None), Option::None]),
        (ClientTlsPolicy::LoginOnly, [Some(None), Some(LoginOnly), Some(Full)]),
        (ClientTlsPolicy::On, [Some(None), Some(Full), Some(Full)]),
        (ClientTlsPolicy::Require, [Option::None, Some(Full), Some(Full)]),
        (ClientTlsPolicy::Strict, [Option::None; 3]),
    ];
    for (server, row) in rows {
        for (client, expected) in [ServerTls::Never, ServerTls::Off, ServerTls::On].into_iter().zip(row) {
            let met = meet(accept_policy(server), connect_policy(client), &login(), usize::MAX);
            let found = met.as_ref().ok().map(|met| met.request.encryption);
            assert_eq!(found, expected, "{server:?} {client:?}");
            match met {
                Err(error) => assert!(matches!(error, HandshakeError::Encryption(_)), "{error:?}"),
                Ok(met) => {
                    assert_eq!(met.request.login, login());
                    assert!(met.request.mars && !met.request.strict);
                    let expected: &[&str] = match expected {
                        Some(Full) => &["wrapped tls"],
                        Some(LoginOnly) => &["wrapped tls", "tls ends"],
                        _ => &[],
                    };
                    assert_eq!(met.client, expected);
                }
            }
        }
    }
}

#[test]
fn tds_8_begins_with_tls_under_every_setting() {
    for server in [ClientTlsPolicy::Off, ClientTlsPolicy::Require, ClientTlsPolicy::Strict] {
        let met =
            meet(accept_policy(server), connect_policy(ServerTls::Strict), &login(), usize::MAX).unwrap();
        assert!(met.request.strict);
        assert_eq!((met.request.encryption, met.client), (Negotiated::Full, vec!["raw tls"]));
        assert_eq!(met.request.prelogin.unwrap().encryption(), Encryption::NOT_SUPPORTED);
    }
    let closed = AcceptPolicy { strict: false, ..accept_policy(ClientTlsPolicy::On) };
    let refused = meet(closed, connect_policy(ServerTls::Strict), &login(), usize::MAX);
    assert_eq!(refused, Err(HandshakeError::Encryption(Refusal::NotStrict)));
}

#[test]
fn only_the_first_packet_of_a_long_login_goes_through_tls() {
    let met = meet(
        accept_policy(ClientTlsPolicy::LoginOnly),
        connect_policy(ServerTls::Off),
        &long_login(),
        usize::MAX,
    )
    .unwrap();
    assert_eq!(met.request.login, long_login());
    assert_eq!(met.client, ["wrapped tls", "tls ends"]);
}

#[test]
fn any_chunking_gives_the_same_meeting() {
    for (server, client) in [
        (ClientTlsPolicy::Off, ServerTls::Off),
        (ClientTlsPolicy::LoginOnly, ServerTls::Off),
        (ClientTlsPolicy::Require, ServerTls::On),
        (ClientTlsPolicy::Strict, ServerTls::Strict),
    ] {
        for login in [login(), long_login()] {
            let whole = meet(accept_policy(server), connect_policy(client), &login, usize::MAX);
            assert!(whole.is_ok(), "{whole:?}");
            for chunk in [1, 2, 7, 8, 9, 500, 4096] {
                assert_eq!(
                    meet(accept_policy(server), connect_policy(client), &login, chunk),
                    whole,
                    "{chunk}"
                );
            }
        }
    }
}

fn packet(kind: PacketType, payload: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    write_message(&mut out, kind, Status::NORMAL, 0, DEFAULT_PACKET_SIZE, payload);
    out
}

fn login_packet(login: &Login7) -> BytesMut {
    let mut payload = BytesMut::new();
    login.encode(&mut payload);
    packet(PacketType::LOGIN7, &payload)
}

fn step(accept: Accept, input: &mut BytesMut) -> (Result<(Accept, AcceptStep), HandshakeError>, BytesMut) {
    let mut out = BytesMut::new();
    (accept.step(input, &mut out), out)
}

#[test]
fn an_old_client_may_begin_with_its_login() {
    for tds_version in [TdsVersion::V7_0, TdsVersion::V7_1, TdsVersion::V7_1_SP1] {
        let login = Login7 { tds_version, ..login() };
        for tls in [ClientTlsPolicy::Off, ClientTlsPolicy::LoginOnly, ClientTlsPolicy::On] {
            let (result, out) = step(Accept::new(accept_policy(tls)), &mut login_packet(&login));
            let Ok((_, AcceptStep::Login(request))) = result else { panic!("{result:?}") };
            assert!(out.is_empty() && request.prelogin.is_none() && !request.mars && !request.strict);
            assert_eq!((&request.login, request.encryption), (&login, Negotiated::None));
        }
    }
}

#[test]
fn where_encryption_is_required_a_client_may_not_begin_with_its_login() {
    for (tls, refusal) in
        [(ClientTlsPolicy::Require, Refusal::ClientHasNone), (ClientTlsPolicy::Strict, Refusal::StrictOnly)]
    {
        // Its first byte is enough: nothing of the login is read.
        let (result, _) = step(Accept::new(accept_policy(tls)), &mut BytesMut::from(&[0x10][..]));
        assert_eq!(result.unwrap_err(), HandshakeError::Encryption(refusal));
    }
}

#[test]
fn a_refused_client_gets_the_answer_that_tells_it_why() {
    let prelogin =
        Prelogin::new([9, 0, 0, 0, 0, 0]).with(PreloginOption::Encryption(Encryption::NOT_SUPPORTED));
    let mut payload = BytesMut::new();
    prelogin.encode(&mut payload);
    let mut input = packet(PacketType::PRELOGIN, &payload);
    let (result, mut out) = step(Accept::new(accept_policy(ClientTlsPolicy::Require)), &mut input);
    assert_eq!(result.unwrap_err(), HandshakeError::Encryption(Refusal::ClientHasNone));
    let answer = MessageReader::new(4096, 4096).read(&mut out).unwrap().unwrap();
    assert_eq!(answer.kind, PacketType::RESPONSE);
    let answer = Prelogin::decode(&answer.payload).unwrap();
    assert_eq!(answer.encryption(), Encryption::REQUIRED);
    assert_eq!(answer.version(), accept_policy(ClientTlsPolicy::Off).server_version);
    assert_eq!(answer.mars(), Some(false));
}

#[test]
fn anything_else_as_first_byte_is_refused() {
    for first in (0..=255u8).filter(|byte| ![0x10, 0x12, 0x16].contains(byte)) {
        let (result, out) =
            step(Accept::new(accept_policy(ClientTlsPolicy::On)), &mut BytesMut::from(&[first][..]));
        assert!(matches!(result, Err(HandshakeError::Peer(_))) && out.is_empty());
    }
}

#[test]
fn a_message_out_of_order_is_refused() {
    let off = || Accept::new(accept_policy(ClientTlsPolicy::Off));
    let mut payload = BytesMut::new();
    Prelogin::new([0; 6]).encode(&mut payload);
    let mut twice = packet(PacketType::PRELOGIN, &payload);
    twice.extend_from_slice(&packet(PacketType::PRELOGIN, &payload));
    assert!(matches!(step(off(), &mut twice).0, Err(HandshakeError::Peer(Malformed::Unexpected { .. }))));
    let mut batch = packet(PacketType::PRELOGIN, &payload);
    batch.extend_from_slice(&packet(PacketType::SQL_BATCH, b"select 1"));
    assert!(matches!(step(off(), &mut batch).0, Err(HandshakeError::Peer(Malformed::Unexpected { .. }))));
}

#[test]
fn a_login_over_its_limit_is_refused_when_its_header_announces_it() {
    let policy = AcceptPolicy { max_login: 150, ..accept_policy(ClientTlsPolicy::Off) };
    let mut input = login_packet(&long_login());
    input.truncate(8);
    let (result, _) = step(Accept::new(policy), &mut input);
    assert_eq!(result.unwrap_err(), HandshakeError::Peer(Malformed::TooLong { what: "login", limit: 150 }));
}

#[test]
fn what_came_after_the_login_stays_in_the_input() {
    let mut input = login_packet(&login());
    input.extend_from_slice(b"early");
    let (result, _) = step(Accept::new(accept_policy(ClientTlsPolicy::Off)), &mut input);
    assert!(matches!(result, Ok((_, AcceptStep::Login(_)))));
    assert_eq!(&input[..], b"early");
}

#[test]
fn a_caller_out_of_step_is_told_so() {
    let fresh = Accept::new(accept_policy(ClientTlsPolicy::On));
    assert!(matches!(fresh.tls_established(), Err(HandshakeError::OutOfOrder { .. })));
    let (result, _) = step(Accept::new(accept_policy(ClientTlsPolicy::On)), &mut BytesMut::from(&[0x16][..]));
    let (waiting, _) = result.unwrap();
    assert!(matches!(step(waiting, &mut BytesMut::new()).0, Err(HandshakeError::OutOfOrder { .. })));
    let (result, _) = step(Accept::new(accept_policy(ClientTlsPolicy::Off)), &mut login_packet(&login()));
    let (done, _) = result.unwrap();
    assert!(matches!(step(done, &mut BytesMut::new()).0, Err(HandshakeError::OutOfOrder { .. })));
    let connect = Connect::new(connect_policy(ServerTls::On), &login());
    assert!(matches!(connect.tls_established(), Err(HandshakeError::OutOfOrder { .. })));
    let connect = Connect::new(connect_policy(ServerTls::On), &login());
    let refused = connect.continue_with(PacketType::SSPI, &[1], &mut BytesMut::new());
    assert!(matches!(refused, Err(HandshakeError::OutOfOrder { .. })));
}

/// A client that has said PRELOGIN and waits.
fn connecting(tls: ServerTls) -> Connect {
    let mut out = BytesMut::new();
    let (connect, step) =
        Connect::new(connect_policy(tls), &login()).step(&mut BytesMut::new(), &mut out).unwrap();
    assert!(matches!(step, ConnectStep::NeedBytes));
    assert_eq!(out[0], 0x12);
    connect
}

fn prelogin_answer(encryption: Encryption, mars: bool) -> BytesMut {
    let mut payload = BytesMut::new();
    Prelogin::new([16, 0, 0, 0, 0, 0])
        .with(PreloginOption::Encryption(encryption))
        .with(PreloginOption::Mars(mars))
        .encode(&mut payload);
    packet(PacketType::RESPONSE, &payload)
}

#[test]
fn the_servers_response_comes_with_its_process_id_and_its_word_on_mars() {
    for mars in [false, true] {
        let mut input = prelogin_answer(Encryption::NOT_SUPPORTED, mars);
        write_message(&mut input, PacketType::RESPONSE, Status::NORMAL, 57, 4096, &[0xFD]);
        let mut out = BytesMut::new();
        let (connect, step) = connecting(ServerTls::Off).step(&mut input, &mut out).unwrap();
        assert_eq!(out[0], 0x10);
        let ConnectStep::Response { message, spid, mars: agreed } = step else { panic!("{step:?}") };
        assert_eq!((&message.payload[..], spid, agreed), (&[0xFD][..], 57, mars));
        assert_eq!(connect.server_prelogin().unwrap().version()[0], 16);
    }
}

#[test]
fn a_login_may_take_several_answers() {
    let mut input = prelogin_answer(Encryption::NOT_SUPPORTED, false);
    input.extend_from_slice(&packet(PacketType::RESPONSE, &[0xED, 0, 0]));
    let mut out = BytesMut::new();
    let (connect, _) = connecting(ServerTls::Off).step(&mut input, &mut out).unwrap();
    out.clear();
    let connect = connect.continue_with(PacketType::SSPI, &[1, 2], &mut out).unwrap();
    assert_eq!(out[..], [0x11, 1, 0, 10, 0, 0, 1, 0, 1, 2]);
    let mut input = packet(PacketType::RESPONSE, &[0xAA]);
    let (_, step) = connect.step(&mut input, &mut out).unwrap();
    assert!(matches!(step, ConnectStep::Response { .. }));
}

#[test]
fn a_server_may_answer_prelogin_with_an_error() {
    let mut input = packet(PacketType::RESPONSE, &[0xAA, 0, 0]);
    let (_, step) = connecting(ServerTls::On).step(&mut input, &mut BytesMut::new()).unwrap();
    assert!(matches!(step, ConnectStep::Response { mars: false, .. }));
}

#[test]
fn a_server_that_does_not_encrypt_gets_no_password() {
    for answer in [Encryption::OFF, Encryption::NOT_SUPPORTED] {
        let mut out = BytesMut::new();
        let refused = connecting(ServerTls::On).step(&mut prelogin_answer(answer, false), &mut out);
        assert_eq!(refused.unwrap_err(), HandshakeError::Encryption(Refusal::ServerRefuses));
        assert!(out.is_empty());
    }
}

proptest! {
    #[test]
    fn no_bytes_panic_either_side(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..10),
        first in prop::sample::select(vec![0x10u8, 0x12, 0x16, 0x04]),
    ) {
        let mut server = Some(Accept::new(accept_policy(ClientTlsPolicy::LoginOnly)));
        let mut client = Some(connecting(ServerTls::Off));
        let mut out = BytesMut::new();
        let (mut server_in, mut client_in) = (BytesMut::from(&[first, 1, 0][..]), BytesMut::from(&[4, 1, 0][..]));
        for chunk in chunks {
            server_in.extend_from_slice(&chunk);
            client_in.extend_from_slice(&chunk);
            server = server.and_then(|server| match server.step(&mut server_in, &mut out).ok()? {
                (server, AcceptStep::StartTls(_)) => server.tls_established().ok(),
                (server, _) => Some(server),
            });
            client = client.and_then(|client| match client.step(&mut client_in, &mut out).ok()? {
                (client, ConnectStep::StartTls(_)) => client.tls_established().ok(),
                (client, _) => Some(client),
            });
        }
    }
}
