//! Responses to logins: successful, refused, unfinished, old, broken.

use super::*;
use crate::message::MessageReader;

fn ack(tds_version: TdsVersion) -> LoginAck {
    LoginAck {
        interface: 1,
        tds_version,
        program_name: "Microsoft SQL Server".into(),
        program_version: [16, 0, 0x10, 0x27],
    }
}

fn feature(id: FeatureId, data: &'static [u8]) -> Feature {
    Feature { id, data: Bytes::from_static(data) }
}

fn full() -> LoginResponse {
    let mut response = LoginResponse::new(ack(TdsVersion::V7_4), "master", "us_english");
    response.collation = Some([9, 4, 0xD0, 0, 0x34]);
    response.packet_size = Some(8000);
    response.features =
        vec![feature(FeatureId::SESSION_RECOVERY, &[1, 2, 3]), feature(FeatureId::UTF8_SUPPORT, &[1])];
    response.messages = vec![ServerMessage::info(5701, "Changed database context to 'master'.", "server")];
    response.build()
}

fn accepted(payload: &[u8]) -> LoginResponse {
    match read(payload, TdsVersion::V7_4).unwrap() {
        LoginOutcome::Accepted(response) => *response,
        other => panic!("{other:?}"),
    }
}

fn replayed(response: &LoginResponse, strip: &[FeatureId]) -> LoginResponse {
    let mut out = BytesMut::new();
    response.replay(&mut out, 51, 8000, strip);
    let message = MessageReader::new(DEFAULT_PACKET_SIZE, 1 << 20).read(&mut out).unwrap().unwrap();
    assert_eq!(message.kind, PacketType::RESPONSE);
    assert!(out.is_empty());
    accepted(&message.payload)
}

#[test]
fn what_is_built_is_read_again() {
    let response = full();
    assert_eq!(accepted(&response.raw), response);
    let mut routed = LoginResponse::new(ack(TdsVersion::V7_4), "db", "us_english");
    routed.routing = Some(Routing { host: "other".into(), port: 1444, database: None });
    let routed = routed.build();
    assert_eq!(accepted(&routed.raw), routed);
    assert_eq!(routed.packet_size, Some(4096));
}

#[test]
fn a_replay_without_stripping_is_the_same_response() {
    assert_eq!(replayed(&full(), &[]), full());
}

#[test]
fn a_replay_leaves_out_what_the_client_did_not_offer() {
    let response = full();
    let stripped = replayed(&response, &[FeatureId::SESSION_RECOVERY]);
    assert_eq!(stripped.features, [feature(FeatureId::UTF8_SUPPORT, &[1])]);
    assert_eq!(stripped.messages, response.messages);
    let bare = replayed(&response, &[FeatureId::SESSION_RECOVERY, FeatureId::UTF8_SUPPORT]);
    assert_eq!(bare.features, []);
    assert_eq!(bare.raw.len() + 1 + 5 + 3 + 5 + 1 + 1, response.raw.len());
}

#[test]
fn a_session_state_goes_with_its_feature() {
    let response = full();
    let mut raw = response.raw.to_vec();
    let done = raw.len() - 13;
    raw.splice(done..done, [SESSION_STATE_TOKEN, 5, 0, 0, 0, 1, 0, 0, 0, 1]);
    let response = accepted(&raw);
    assert_eq!(replayed(&response, &[FeatureId::UTF8_SUPPORT]).feature_tokens.len(), 2);
    assert_eq!(replayed(&response, &[FeatureId::SESSION_RECOVERY]).feature_tokens.len(), 1);
}

#[test]
fn a_replay_stays_within_4096_bytes_a_packet() {
    let mut response = full();
    response.messages = vec![ServerMessage::info(1, "x".repeat(2000), "server"); 3];
    let response = response.build();
    let mut out = BytesMut::new();
    response.replay(&mut out, 51, 32_000, &[]);
    assert_eq!((out[1], u16::from_be_bytes([out[2], out[3]]), out[5]), (0, 4096, 51));
    assert_eq!(replayed(&response, &[]), response);
}

fn refusal(version: TdsVersion) -> (ServerMessage, BytesMut) {
    let message = ServerMessage::error(18456, 14, "Login failed for user 'sa'.", "server");
    let mut payload = BytesMut::new();
    message.write(&mut payload, version);
    let done = Done { kind: DoneKind::Done, status: DoneStatus::ERROR, current_command: 0, rows: 0 };
    done.write(&mut payload, version);
    (message, payload)
}

#[test]
fn a_refusal_brings_the_servers_words() {
    let (message, payload) = refusal(TdsVersion::V7_4);
    assert_eq!(read(&payload, TdsVersion::V7_4), Ok(LoginOutcome::Refused(vec![message])));
}

#[test]
fn a_refusal_in_an_older_form_is_understood() {
    let (message, payload) = refusal(TdsVersion::V7_1);
    assert_eq!(read(&payload, TdsVersion::V7_4), Ok(LoginOutcome::Refused(vec![message])));
}

#[test]
fn a_response_without_acknowledgement_and_without_an_error_is_malformed() {
    let done = [0xFD, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let neither = Malformed::Unexpected { what: "end of the login response", state: "logging in" };
    assert_eq!(read(&done, TdsVersion::V7_4), Err(neither.clone()));
    assert_eq!(read(&[], TdsVersion::V7_4), Err(neither));
}

#[test]
fn the_servers_version_counts_from_its_acknowledgement_on() {
    let mut old = LoginResponse::new(ack(TdsVersion::V7_1_SP1), "pubs", "us_english");
    old.messages = vec![ServerMessage::info(5701, "moved", "server")];
    let old = old.build();
    assert_eq!(accepted(&old.raw), old);
}

#[test]
fn integrated_and_federated_logins_go_on() {
    let sspi = [SSPI_TOKEN, 2, 0, 0xAA, 0xBB];
    let found = read(&sspi, TdsVersion::V7_4).unwrap();
    assert_eq!(found, LoginOutcome::Continue(Continuation::Sspi(Bytes::from_static(&[0xAA, 0xBB]))));
    let info = [FED_AUTH_INFO_TOKEN, 4, 0, 0, 0, 0, 0, 0, 0];
    let found = read(&info, TdsVersion::V7_4).unwrap();
    assert_eq!(found, LoginOutcome::Continue(Continuation::FedAuthInfo(Bytes::from_static(&[0; 4]))));
    assert!(!format!("{found:?}").contains('['));
}

#[test]
fn a_last_sspi_token_does_not_hide_the_acknowledgement() {
    let mut payload = vec![SSPI_TOKEN, 1, 0, 7];
    payload.extend_from_slice(&full().raw);
    assert_eq!(accepted(&payload).ack, full().ack);
}

#[test]
fn a_packet_size_outside_its_bounds_is_refused() {
    for (size, fits) in [(511, false), (512, true), (32_767, true), (32_768, false)] {
        let mut response = full();
        response.packet_size = Some(size);
        assert_eq!(read(&response.build().raw, TdsVersion::V7_4).is_ok(), fits, "{size}");
    }
}

#[test]
fn a_response_cut_anywhere_is_refused_or_lacks_its_acknowledgement() {
    let raw = full().raw;
    let ack_at = raw.iter().position(|byte| *byte == LOGIN_ACK_TOKEN).unwrap();
    for end in 0..raw.len() {
        match read(&raw[..end], TdsVersion::V7_4) {
            Err(_) | Ok(LoginOutcome::Refused(_)) => {}
            Ok(outcome) => assert!(end > ack_at, "{outcome:?} at {end}"),
        }
    }
}

#[test]
fn a_token_that_has_no_place_in_a_login_is_refused() {
    let refused = read(&[0x81, 0, 0], TdsVersion::V7_4);
    assert_eq!(refused, Err(Malformed::Value { what: "login response token", value: 0x81 }));
}
