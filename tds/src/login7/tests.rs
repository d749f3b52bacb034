//! Logins as the specification and real clients write them, and as an attacker might.

use proptest::prelude::*;

use super::*;

/// [MS-TDS] 4.2, without the packet header.
const EXAMPLE: [u8; 136] = [
    0x88, 0x00, 0x00, 0x00, 0x02, 0x00, 0x09, 0x72, 0x00, 0x10, 0x00, 0x00, 0x00, 0x00, 0x00, 0x07, 0x00,
    0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xE0, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x09, 0x04,
    0x00, 0x00, 0x5E, 0x00, 0x08, 0x00, 0x6E, 0x00, 0x02, 0x00, 0x72, 0x00, 0x00, 0x00, 0x72, 0x00, 0x07,
    0x00, 0x80, 0x00, 0x00, 0x00, 0x80, 0x00, 0x00, 0x00, 0x80, 0x00, 0x04, 0x00, 0x88, 0x00, 0x00, 0x00,
    0x88, 0x00, 0x00, 0x00, 0x00, 0x50, 0x8B, 0xE2, 0xB7, 0x8F, 0x88, 0x00, 0x00, 0x00, 0x88, 0x00, 0x00,
    0x00, 0x88, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x73, 0x00, 0x6B, 0x00, 0x6F, 0x00, 0x73, 0x00,
    0x74, 0x00, 0x6F, 0x00, 0x76, 0x00, 0x31, 0x00, 0x73, 0x00, 0x61, 0x00, 0x4F, 0x00, 0x53, 0x00, 0x51,
    0x00, 0x4C, 0x00, 0x2D, 0x00, 0x33, 0x00, 0x32, 0x00, 0x4F, 0x00, 0x44, 0x00, 0x42, 0x00, 0x43, 0x00,
];

fn encoded(login: &Login7) -> BytesMut {
    let mut out = BytesMut::new();
    login.encode(&mut out);
    out
}

fn full() -> Login7 {
    Login7 {
        packet_size: 8000,
        client_version: 0x1122_3344,
        client_pid: 42,
        connection_id: 7,
        time_zone: -60,
        lcid: 0x0409,
        option_flags3: OptionFlags3::CHANGE_PASSWORD.with(OptionFlags3::EXTENSION),
        host_name: "host".into(),
        user_name: "sa".into(),
        password: "secret".into(),
        app_name: "app".into(),
        server_name: "server".into(),
        interface_name: "ODBC".into(),
        language: "us_english".into(),
        database: "master".into(),
        client_id: [1, 2, 3, 4, 5, 6],
        sspi: Bytes::from_static(&[0x60, 1, 2]),
        attach_file: "a.mdf".into(),
        new_password: "better secret".into(),
        features: vec![
            Feature { id: FeatureId::UTF8_SUPPORT, data: Bytes::from_static(&[1]) },
            Feature { id: FeatureId::SESSION_RECOVERY, data: Bytes::new() },
        ],
        ..Login7::default()
    }
}

#[test]
fn the_specifications_example_is_read_and_written_byte_for_byte() {
    let login = Login7::decode(&EXAMPLE).unwrap();
    assert_eq!(login.tds_version, TdsVersion::V7_2);
    assert_eq!((login.packet_size, login.client_version, login.client_pid), (4096, 0x0700_0000, 256));
    assert_eq!((login.option_flags1.0, login.option_flags2.0), (0xE0, 0x03));
    assert_eq!(login.lcid, 0x0409);
    assert_eq!((&login.host_name[..], &login.user_name[..]), ("skostov1", "sa"));
    assert_eq!((&login.app_name[..], &login.interface_name[..]), ("OSQL-32", "ODBC"));
    assert!(login.password.is_empty() && login.database.is_empty() && login.features.is_empty());
    assert_eq!(login.client_id, [0x00, 0x50, 0x8B, 0xE2, 0xB7, 0x8F]);
    assert_eq!(login.auth_kind(), AuthKind::Sql);
    assert_eq!(encoded(&login)[..], EXAMPLE);
}

#[test]
fn everything_survives_a_round_trip() {
    let login = full();
    assert_eq!(Login7::decode(&encoded(&login)), Ok(login));
}

#[test]
fn what_a_login_asks_for_is_told_by_its_bits() {
    let login = full();
    assert!(login.changes_password() && login.attaches_file() && !login.user_instance());
    assert!(!login.read_only_intent());
    let reader = Login7 { type_flags: TypeFlags::READ_ONLY_INTENT, ..Login7::default() };
    assert!(reader.read_only_intent());
    let integrated = Login7 { option_flags2: OptionFlags2::INTEGRATED_SECURITY, ..Login7::default() };
    assert_eq!(integrated.auth_kind(), AuthKind::Integrated);
    let token = Feature { id: FeatureId::FED_AUTH, data: Bytes::from_static(&[2, 1]) };
    let federated = Login7 { features: vec![token], ..Login7::default() };
    assert_eq!(federated.auth_kind(), AuthKind::Federated);
}

#[test]
fn the_password_is_never_in_clear_in_the_record_or_in_debug() {
    let login = full();
    let clear: Vec<u8> = "secret".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(!encoded(&login).windows(clear.len()).any(|window| window == clear));
    assert!(!format!("{login:?}").contains("secret"));
}

#[test]
fn a_login_before_7_2_has_the_shorter_fixed_part() {
    for version in [TdsVersion::V7_0, TdsVersion::V7_1, TdsVersion::V7_1_SP1] {
        let login = Login7 { tds_version: version, user_name: "u".into(), ..Login7::default() };
        let bytes = encoded(&login);
        assert_eq!((bytes[36], bytes.len()), (86, 88));
        assert_eq!(Login7::decode(&bytes), Ok(login));
    }
}

#[test]
fn a_7_1_login_with_the_longer_fixed_part_is_read_too() {
    let mut bytes = EXAMPLE;
    bytes[4..8].copy_from_slice(&TdsVersion::V7_1_SP1.0.to_le_bytes());
    assert_eq!(Login7::decode(&bytes).unwrap().app_name, "OSQL-32");
}

#[test]
fn a_7_2_login_with_the_shorter_fixed_part_is_read_too() {
    let short = Login7 { tds_version: TdsVersion::V7_1, host_name: "h".into(), ..Login7::default() };
    let mut bytes = encoded(&short);
    bytes[4..8].copy_from_slice(&TdsVersion::V7_4.0.to_le_bytes());
    let login = Login7::decode(&bytes).unwrap();
    assert_eq!((login.tds_version, &login.host_name[..]), (TdsVersion::V7_4, "h"));
}

#[test]
fn empty_fields_may_have_any_offset_and_full_ones_may_overlap() {
    let mut bytes = EXAMPLE;
    bytes[44..48].copy_from_slice(&[0xFF, 0xFF, 0, 0]); // the password: offset 65,535, length 0
    bytes[68..72].copy_from_slice(&[0x5E, 0, 8, 0]); // the database: the host name's bytes
    let login = Login7::decode(&bytes).unwrap();
    assert!(login.password.is_empty());
    assert_eq!((&login.host_name[..], &login.database[..]), ("skostov1", "skostov1"));
}

#[test]
fn a_field_that_points_outside_is_refused() {
    for place in [36, 40, 44, 48, 52, 60, 64, 68, 78, 82] {
        for (offset, length) in [(0xFFF0u16, 4u16), (0x87, 2), (0, 0x7FFF)] {
            let mut bytes = EXAMPLE;
            bytes[place..place + 2].copy_from_slice(&offset.to_le_bytes());
            bytes[place + 2..place + 4].copy_from_slice(&length.to_le_bytes());
            assert!(Login7::decode(&bytes).is_err(), "place {place}, offset {offset}, length {length}");
        }
    }
}

#[test]
fn a_name_beyond_its_limit_is_refused() {
    let places = [36, 40, 44, 48, 52, 60, 64, 68, 86];
    for (places, limit) in [(&places[..], 128u16), (&[82], 260)] {
        for place in places {
            let mut bytes = EXAMPLE.to_vec();
            bytes[27] = OptionFlags3::CHANGE_PASSWORD.0;
            bytes.resize(2000, 0);
            for (length, fits) in [(limit, true), (limit + 1, false)] {
                bytes[*place..place + 2].copy_from_slice(&94u16.to_le_bytes());
                bytes[place + 2..place + 4].copy_from_slice(&length.to_le_bytes());
                assert_eq!(Login7::decode(&bytes).is_ok(), fits, "place {place}, length {length}");
            }
        }
    }
}

#[test]
fn a_login_cut_anywhere_is_refused() {
    let bytes = encoded(&full());
    for end in 0..bytes.len() {
        assert!(Login7::decode(&bytes[..end]).is_err(), "cut at {end}");
        let mut honest = bytes[..end].to_vec();
        if end >= 4 {
            honest[..4].copy_from_slice(&u32::try_from(end).unwrap().to_le_bytes());
        }
        assert!(Login7::decode(&honest).is_err(), "cut at {end} with the right length");
    }
}

#[test]
fn a_login_longer_than_128_kib_is_refused() {
    let mut bytes = EXAMPLE.to_vec();
    bytes.resize(MAX_LOGIN7, 0);
    assert!(Login7::decode(&bytes).is_ok());
    bytes.push(0);
    assert_eq!(Login7::decode(&bytes), Err(Malformed::TooLong { what: "LOGIN7", limit: MAX_LOGIN7 }));
}

#[test]
fn sspi_tokens_of_any_length_survive() {
    for length in [0, 1, 65_534, 65_535, 65_536, 100_000] {
        let login = Login7 {
            sspi: Bytes::from(vec![7; length]),
            features: full().features,
            option_flags3: OptionFlags3::EXTENSION,
            ..Login7::default()
        };
        let bytes = encoded(&login);
        assert_eq!(Login7::decode(&bytes), Ok(login), "{length} bytes");
    }
}

#[test]
fn the_feature_list_is_found_through_an_offset_to_an_offset() {
    let bytes = encoded(&full());
    let place = usize::from(u16::from_le_bytes([bytes[56], bytes[57]]));
    assert_eq!([bytes[58], bytes[59]], [4, 0]);
    let list = u32::from_le_bytes(bytes[place..place + 4].try_into().unwrap());
    let list = usize::try_from(list).unwrap();
    assert_eq!(bytes[list..], [0x0A, 1, 0, 0, 0, 1, 0x01, 0, 0, 0, 0, 0xFF]);

    let mut none = bytes.clone();
    none[place..place + 4].fill(0);
    assert_eq!(Login7::decode(&none).unwrap().features, []);
    let mut outside = bytes.clone();
    outside[place..place + 4].fill(0xFF);
    assert!(matches!(Login7::decode(&outside), Err(Malformed::Truncated { .. })));
    let mut not_used = bytes;
    not_used[27] &= !OptionFlags3::EXTENSION.0;
    assert_eq!(Login7::decode(&not_used).unwrap().features, []);
}

#[test]
fn texts_too_long_to_write_are_cut_and_stay_readable() {
    let login = Login7 {
        app_name: "x".repeat(5000),
        password: Password::new(&"p".repeat(200)),
        attach_file: "f".repeat(300),
        ..full()
    };
    let found = Login7::decode(&encoded(&login)).unwrap();
    assert_eq!((found.app_name.len(), found.attach_file.len()), (128, 260));
    assert_eq!(found.password, Password::new(&"p".repeat(128)));
}

proptest! {
    #[test]
    fn any_login_survives_a_round_trip(
        names in prop::collection::vec("\\PC{0,60}", 8),
        passwords in prop::collection::vec("\\PC{0,60}", 2),
        numbers: [u32; 5],
        flags: [u8; 3],
        client_id: [u8; 6],
        sspi in prop::collection::vec(any::<u8>(), 0..300),
        features in prop::collection::vec((0u8..0xFF, prop::collection::vec(any::<u8>(), 0..60)), 0..8),
        version in prop::sample::select(vec![TdsVersion::V7_2, TdsVersion::V7_4, TdsVersion::V8_0]),
    ) {
        let login = Login7 {
            tds_version: version,
            packet_size: numbers[0],
            client_version: numbers[1],
            client_pid: numbers[2],
            connection_id: numbers[3],
            option_flags1: OptionFlags1(flags[0]),
            option_flags2: OptionFlags2(flags[1]),
            type_flags: TypeFlags(flags[2]),
            option_flags3: OptionFlags3::CHANGE_PASSWORD.with(OptionFlags3::EXTENSION),
            time_zone: -1,
            lcid: numbers[4],
            host_name: names[0].clone(),
            user_name: names[1].clone(),
            password: Password::new(&passwords[0]),
            app_name: names[2].clone(),
            server_name: names[3].clone(),
            interface_name: names[4].clone(),
            language: names[5].clone(),
            database: names[6].clone(),
            client_id,
            sspi: sspi.into(),
            attach_file: names[7].clone(),
            new_password: Password::new(&passwords[1]),
            features: features
                .into_iter()
                .map(|(id, data)| Feature { id: FeatureId(id), data: data.into() })
                .collect(),
        };
        prop_assert_eq!(Login7::decode(&encoded(&login)), Ok(login));
    }

    #[test]
    fn what_was_read_is_read_again_from_what_is_written(
        mut bytes in prop::collection::vec(any::<u8>(), 94..600),
        sane in prop::collection::vec((0usize..13, 0u8..200, 0u8..40), 0..13),
    ) {
        let length = u32::try_from(bytes.len()).unwrap().to_le_bytes();
        bytes[..4].copy_from_slice(&length);
        bytes[36..94].fill(0);
        for (place, offset, units) in sane {
            let at = 36 + place * 4 + if place > 8 { 6 } else { 0 };
            bytes[at..at + 4].copy_from_slice(&[offset, 0, units, 0]);
        }
        if let Ok(login) = Login7::decode(&bytes) {
            let again = Login7::decode(&encoded(&login)).unwrap();
            if login.tds_version.is_7_2_or_later() && login.features.is_empty() {
                prop_assert_eq!(again, login);
            }
        }
    }
}
