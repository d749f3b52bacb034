//! The byte-exact examples of [MS-TDS] section 4 for everything up to the login. `logins/4_4_response.hex` is example
//! 4.4, and so on; from 4.17 a byte too many behind the collation is left out (the printed packet is longer than
//! its header says).

use bytes::BytesMut;
use tds::TdsVersion;
use tds::encryption::Encryption;
use tds::feature::FeatureId;
use tds::login_response::{LoginOutcome, LoginResponse};
use tds::login7::{AuthKind, Login7};
use tds::message::{Message, MessageReader, write_message};
use tds::packet::{DEFAULT_PACKET_SIZE, PacketType, Status};
use tds::prelogin::Prelogin;

#[expect(clippy::unwrap_used, reason = "a test's own data")]
fn message(hex: &str) -> Message {
    let bytes = hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap());
    let mut input: BytesMut = bytes.collect();
    let message = MessageReader::new(DEFAULT_PACKET_SIZE, 1 << 17).read(&mut input).unwrap().unwrap();
    assert!(input.is_empty());
    message
}

#[expect(clippy::unwrap_used, reason = "a test's own data")]
fn login(hex: &str) -> Login7 {
    let message = message(hex);
    assert_eq!(message.kind, PacketType::LOGIN7);
    let login = Login7::decode(&message.payload).unwrap();
    let mut again = BytesMut::new();
    login.encode(&mut again);
    assert_eq!(Login7::decode(&again).unwrap(), login);
    login
}

#[expect(clippy::panic, reason = "a test's own data")]
fn response(hex: &str) -> LoginResponse {
    let message = message(hex);
    assert_eq!(message.kind, PacketType::RESPONSE);
    let response = match tds::login_response::read(&message.payload, TdsVersion::V7_4) {
        Ok(LoginOutcome::Accepted(response)) => *response,
        other => panic!("{other:?}"),
    };
    // Given to another client it is the same message again.
    let (mut replayed, mut original) = (BytesMut::new(), BytesMut::new());
    response.replay(&mut replayed, message.spid, 8000, &[]);
    write_message(&mut original, message.kind, Status::NORMAL, message.spid, 4096, &message.payload);
    assert_eq!(replayed, original);
    response
}

fn features(login: &[tds::feature::Feature]) -> Vec<(FeatureId, usize)> {
    login.iter().map(|feature| (feature.id, feature.data.len())).collect()
}

#[test]
fn a_prelogin_4_1() {
    let hex = include_str!("logins/4_1_prelogin.hex");
    let message = message(hex);
    assert_eq!(message.kind, PacketType::PRELOGIN);
    let prelogin = Prelogin::decode(&message.payload).unwrap();
    assert_eq!((prelogin.encryption(), prelogin.mars()), (Encryption::ON, Some(true)));
    let mut payload = vec![];
    prelogin.encode(&mut payload);
    assert_eq!(payload, message.payload);
}

#[test]
fn a_login_4_2() {
    let hex = include_str!("logins/4_2_login.hex");
    let login = login(hex);
    assert_eq!((login.tds_version, login.auth_kind()), (TdsVersion::V7_2, AuthKind::Sql));
    assert_eq!((&login.host_name[..], &login.user_name[..]), ("skostov1", "sa"));
    let mut payload = BytesMut::new();
    login.encode(&mut payload);
    assert_eq!(payload, message(hex).payload);
}

#[test]
fn a_federated_login_4_3() {
    let login = login(include_str!("logins/4_3_login_fed_auth.hex"));
    assert_eq!((login.tds_version, login.auth_kind()), (TdsVersion::V7_4, AuthKind::Federated));
    assert_eq!((&login.app_name[..], &login.server_name[..]), ("SQLCMD", "cloud.dev.mscds.com,1435"));
    assert!(login.user_name.is_empty() && login.password.is_empty());
    assert_eq!(features(&login.features), [(FeatureId::FED_AUTH, 1854)]);
}

#[test]
fn a_recovering_login_4_16() {
    let hex = include_str!("logins/4_16_login_session_recovery.hex");
    let login = login(hex);
    assert_eq!((&login.user_name[..], &login.database[..]), ("sa", "tempdb"));
    assert_eq!(features(&login.features), [(FeatureId::SESSION_RECOVERY, 103)]);
    let mut payload = BytesMut::new();
    login.encode(&mut payload);
    assert_eq!(payload, message(hex).payload);
}

#[test]
fn a_login_with_four_features_4_20() {
    let login = login(include_str!("logins/4_20_login_azure.hex"));
    assert!(login.read_only_intent());
    assert_eq!((login.packet_size, &login.user_name[..], &login.database[..]), (8000, "cloudsa", "testdb"));
    assert!(!login.password.is_empty());
    let expected = [
        (FeatureId::SESSION_RECOVERY, 0),
        (FeatureId::COLUMN_ENCRYPTION, 1),
        (FeatureId::GLOBAL_TRANSACTIONS, 0),
        (FeatureId::AZURE_SQL_SUPPORT, 1),
    ];
    assert_eq!(features(&login.features), expected);
}

#[test]
fn a_login_response_4_4() {
    let response = response(include_str!("logins/4_4_response.hex"));
    assert_eq!((&response.database[..], &response.language[..]), ("master", "us_english"));
    assert_eq!((response.collation, response.packet_size), (Some([9, 4, 0xD0, 0, 0x34]), Some(4096)));
    assert_eq!(response.ack.tds_version, TdsVersion::V7_2);
    // SQL Server's name ends with two zeros.
    assert_eq!(response.ack.program_name, "Microsoft SQL Server\0\0");
    let texts: Vec<_> = response.messages.iter().map(|message| (message.number, &message.text[..])).collect();
    let expected =
        [(5701, "Changed database context to 'master'."), (5703, "Changed language setting to us_english.")];
    assert_eq!(texts, expected);
}

#[test]
fn a_federated_login_response_4_5() {
    let response = response(include_str!("logins/4_5_response_fed_auth.hex"));
    assert_eq!(response.ack.program_version, [11, 0, 0x08, 0xCB]);
    assert_eq!(features(&response.features), [(FeatureId::FED_AUTH, 64)]);
    assert_eq!(response.messages[0].server, "cloud");
}

#[test]
fn a_login_response_with_session_state_4_17() {
    let response = response(include_str!("logins/4_17_response_session_recovery.hex"));
    assert_eq!(features(&response.features), [(FeatureId::SESSION_RECOVERY, 46)]);
    let mut out = BytesMut::new();
    response.replay(&mut out, 0, 4096, &[FeatureId::SESSION_RECOVERY]);
    let stripped = MessageReader::new(4096, 4096).read(&mut out).unwrap().unwrap();
    assert_eq!(stripped.payload.len(), response.raw.len() - (1 + 5 + 46 + 1));
}

#[test]
fn a_login_response_with_four_features_4_21() {
    let response = response(include_str!("logins/4_21_response_azure.hex"));
    assert_eq!((&response.database[..], response.packet_size), ("testdb", Some(8000)));
    let expected = [
        (FeatureId::SESSION_RECOVERY, 119),
        (FeatureId::COLUMN_ENCRYPTION, 1),
        (FeatureId::GLOBAL_TRANSACTIONS, 1),
        (FeatureId::AZURE_SQL_SUPPORT, 1),
    ];
    assert_eq!(features(&response.features), expected);
}
