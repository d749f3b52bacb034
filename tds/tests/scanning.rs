//! The response scanner: what it reports does not depend on how the bytes come, and nothing leads it astray.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod generated;

use bytes::{BufMut, Bytes};
use proptest::collection::vec;
use proptest::prelude::*;
use tds::col_metadata::{ColMetadata, Column};
use tds::done::{Done, DoneKind, DoneStatus};
use tds::env_change::EnvChange;
use tds::feature::{Feature, FeatureId, write_feature_ext_ack};
use tds::return_value::ReturnValue;
use tds::scan::{Event, Lost, MAX_HELD, MAX_RETURN_VALUE, ResponseScanner, Scanned};
use tds::server_message::ServerMessage;
use tds::session_state::{SessionState, State};
use tds::token::TokenKind;
use tds::type_info::{Collation, TypeInfo};
use tds::value::{Value, plp};
use tds::{Dialect, Malformed, TdsVersion, row};

const DIALECT: Dialect = Dialect { version: TdsVersion::V7_4, column_encryption: 0, data_classification: 0 };

/// Some tokens as bytes, and what the scanner must say about them.
#[derive(Clone, Debug, Default)]
struct Tokens {
    bytes: Vec<u8>,
    /// The report as text, without its range.
    report: Option<String>,
}

impl Tokens {
    fn silent(bytes: Vec<u8>) -> Self {
        Self { bytes, report: None }
    }

    fn reported(bytes: Vec<u8>, event: &Event<'_>) -> Self {
        Self { bytes, report: Some(format!("{event:?}")) }
    }
}

fn done() -> impl Strategy<Value = Done> {
    let kinds = vec![DoneKind::Done, DoneKind::DoneProc, DoneKind::DoneInProc];
    (prop::sample::select(kinds), any::<(u16, u16, u32)>()).prop_map(|(kind, (status, command, rows))| Done {
        kind,
        status: DoneStatus(status),
        current_command: command,
        rows: u64::from(rows),
    })
}

fn env_change() -> impl Strategy<Value = EnvChange> {
    let text = || "\\PC{0,20}";
    prop_oneof![
        (text(), text()).prop_map(|(new, old)| EnvChange::Database { new, old }),
        any::<u64>().prop_map(EnvChange::BeginTransaction),
        any::<u64>().prop_map(EnvChange::CommitTransaction),
        any::<u64>().prop_map(EnvChange::TransactionEnded),
        vec(any::<u8>(), 0..400).prop_map(|token| EnvChange::PromoteTransaction(Bytes::from(token))),
        Just(EnvChange::ResetDone),
    ]
}

/// COLMETADATA, TABNAME, COLINFO, DATACLASSIFICATION, ORDER and rows of both kinds.
fn result_set(dialect: Dialect) -> BoxedStrategy<Tokens> {
    let labels = vec(("\\PC{0,9}", "\\PC{0,9}"), 0..3);
    (generated::result_set(dialect), any::<[bool; 5]>(), labels)
        .prop_map(move |((metadata, rows), choices, labels)| {
            let mut out = Vec::new();
            metadata.write(&mut out, dialect);
            for (token, wanted) in [TokenKind::TAB_NAME, TokenKind::COL_INFO].into_iter().zip(choices) {
                if wanted {
                    out.put_u8(token.0);
                    out.put_u16_le(7);
                    out.put_bytes(0xD1, 7);
                }
            }
            if choices[2] && dialect.data_classification > 0 {
                data_classification(&mut out, &labels, metadata.columns.len(), dialect);
            }
            if choices[3] {
                out.put_slice(&[TokenKind::ORDER.0, 2, 0, 0xFD, 0xFD]);
            }
            // No columns, no rows.
            let rows = if metadata.columns.is_empty() { &[] } else { &rows[..] };
            for (at, row) in rows.iter().enumerate() {
                if (at % 2 == 0) ^ choices[4] {
                    row::write(&mut out, &metadata.columns, row).unwrap();
                } else {
                    row::write_nbc(&mut out, &metadata.columns, row).unwrap();
                }
            }
            Tokens::silent(out)
        })
        .boxed()
}

fn data_classification(out: &mut Vec<u8>, labels: &[(String, String)], columns: usize, dialect: Dialect) {
    let ranked = dialect.data_classification >= 2;
    out.put_u8(TokenKind::DATA_CLASSIFICATION.0);
    for _ in 0..2 {
        out.put_u16_le(labels.len() as u16);
        for (name, id) in labels {
            tds::write::b_varchar(out, name);
            tds::write::b_varchar(out, id);
        }
    }
    if ranked {
        out.put_i32_le(-1);
    }
    out.put_u16_le(columns as u16);
    for column in 0..columns {
        out.put_u16_le(column as u16 % 3);
        for _ in 0..column % 3 {
            out.put_u32_le(0xFFFF_FFFF);
            if ranked {
                out.put_u32_le(20);
            }
        }
    }
}

/// ALTMETADATA and ALTROWs behind a result set.
fn compute(dialect: Dialect) -> BoxedStrategy<Tokens> {
    let column = generated::type_info(dialect, false).prop_flat_map(|type_info| {
        let value = generated::value(&type_info);
        (Just(type_info), value)
    });
    (vec(vec(column, 1..4), 1..4), any::<bool>())
        .prop_map(move |(formats, twice)| {
            let mut out = Vec::new();
            ColMetadata::new(vec![Column::new("a", TypeInfo::Int)]).write(&mut out, dialect);
            for (id, format) in formats.iter().enumerate() {
                out.put_u8(TokenKind::ALT_METADATA.0);
                out.put_u16_le(format.len() as u16);
                out.put_u16_le(id as u16);
                out.put_slice(&[2, 1, 0, 2, 0]);
                for (type_info, _) in format {
                    out.put_slice(&[0x4D, 1, 0]);
                    out.put_bytes(0, if dialect.is_7_2_or_later() { 6 } else { 4 });
                    type_info.write(&mut out, dialect);
                    if type_info.is_text_or_image() {
                        if dialect.is_7_2_or_later() {
                            out.put_u8(1);
                        }
                        tds::write::us_varchar(&mut out, "t");
                    }
                    tds::write::b_varchar(&mut out, "sum");
                }
            }
            for _ in 0..=usize::from(twice) {
                for (id, format) in formats.iter().enumerate().rev() {
                    out.put_u8(TokenKind::ROW.0);
                    out.put_u32_le(0xD1D1_D1D1);
                    out.put_u8(TokenKind::ALT_ROW.0);
                    out.put_u16_le(id as u16);
                    for (type_info, value) in format {
                        value.write_cell(&mut out, type_info).unwrap();
                    }
                }
            }
            Tokens::silent(out)
        })
        .boxed()
}

fn return_value(dialect: Dialect) -> BoxedStrategy<Tokens> {
    let typed = generated::type_info(dialect, false).prop_flat_map(|type_info| {
        let value = generated::value(&type_info);
        (Just(type_info), value)
    });
    (typed, any::<u16>(), "\\PC{0,9}")
        .prop_map(move |((type_info, value), ordinal, name)| {
            let token = ReturnValue::new(ordinal, name, type_info, value);
            let mut out = Vec::new();
            token.write(&mut out, dialect).unwrap();
            Tokens { report: Some(format!("ReturnValue {token:?}")), bytes: out }
        })
        .boxed()
}

fn session_state() -> impl Strategy<Value = Tokens> {
    (any::<(u32, bool)>(), vec((any::<u8>(), vec(any::<u8>(), 0..300)), 0..4)).prop_map(
        |((sequence, recoverable), states)| {
            let mut data = Vec::new();
            for (id, value) in &states {
                State { id: *id, value }.write(&mut data);
            }
            let token = SessionState { sequence, recoverable, data: &data };
            let mut out = Vec::new();
            token.write(&mut out);
            Tokens::reported(out, &Event::SessionState(token))
        },
    )
}

/// Tokens whose contents are passed over.
fn counted() -> impl Strategy<Value = Tokens> {
    let short = vec![TokenKind::ORDER, TokenKind::TAB_NAME, TokenKind::COL_INFO, TokenKind::SSPI];
    prop_oneof![
        (prop::sample::select(short), vec(any::<u8>(), 0..200)).prop_map(|(token, contents)| {
            let mut out = vec![token.0];
            out.put_u16_le(contents.len() as u16);
            out.put_slice(&contents);
            Tokens::silent(out)
        }),
        vec(any::<u8>(), 0..200).prop_map(|contents| {
            let mut out = vec![TokenKind::FED_AUTH_INFO.0];
            out.put_u32_le(contents.len() as u32);
            out.put_slice(&contents);
            Tokens::silent(out)
        }),
        any::<u32>().prop_map(|offset| {
            let mut out = vec![TokenKind::OFFSET.0];
            out.put_u32_le(offset);
            Tokens::silent(out)
        }),
        vec(any::<u8>(), 0..200).prop_map(|contents| {
            let mut out = vec![TokenKind::LOGIN_ACK.0];
            out.put_u16_le(contents.len() as u16);
            out.put_slice(&contents);
            Tokens::reported(out, &Event::LoginAck)
        }),
        vec((0u8..0xFF, vec(any::<u8>(), 0..30)), 0..4).prop_map(|features| {
            let features: Vec<Feature> = features
                .into_iter()
                .map(|(id, data)| Feature { id: FeatureId(id), data: data.into() })
                .collect();
            let mut out = Vec::new();
            write_feature_ext_ack(&mut out, &features);
            Tokens::reported(out, &Event::FeatureExtAck)
        }),
    ]
}

fn tokens(dialect: Dialect) -> BoxedStrategy<Tokens> {
    let version = dialect.version;
    prop_oneof![
        4 => result_set(dialect),
        1 => compute(dialect),
        2 => return_value(dialect),
        2 => counted(),
        1 => session_state(),
        3 => done().prop_map(move |done| {
            let mut out = Vec::new();
            done.write(&mut out, version);
            Tokens::reported(out, &Event::Done(done))
        }),
        2 => env_change().prop_map(|change| {
            let mut out = Vec::new();
            change.write(&mut out);
            Tokens::reported(out, &Event::EnvChange(change))
        }),
        1 => any::<i32>().prop_map(|status| {
            let mut out = vec![TokenKind::RETURN_STATUS.0];
            out.put_i32_le(status);
            Tokens::reported(out, &Event::ReturnStatus(status))
        }),
        2 => (any::<bool>(), any::<(i32, u8, u8)>(), "\\PC{0,60}").prop_map(move |(is_error, (number, state, class), text)| {
            let message =
                ServerMessage { is_error, state, class, ..ServerMessage::error(number, class, text, "s") };
            let mut out = Vec::new();
            message.write(&mut out, version);
            Tokens::reported(out, &Event::Message { is_error, number, state, class })
        }),
    ]
    .boxed()
}

fn response() -> impl Strategy<Value = (Dialect, Vec<Tokens>)> {
    generated::dialect().prop_flat_map(|dialect| (Just(dialect), vec(tokens(dialect), 0..8)))
}

/// The report about one token, in a form that outlives it.
fn text(scanned: &Scanned<'_>) -> String {
    match &scanned.event {
        Event::ReturnValue(raw) => format!("ReturnValue {:?}", raw.read().unwrap().unwrap()),
        event => format!("{event:?}"),
    }
}

/// Scans `bytes` in pieces of these lengths and checks, on the way, that what was settled stays so.
fn scan(scanner: &mut ResponseScanner, bytes: &[u8], lens: &[usize]) -> Vec<(std::ops::Range<u64>, String)> {
    let mut found = Vec::new();
    let (mut rest, mut settled) = (bytes, 0);
    for len in lens.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (now, later) = rest.split_at((*len).min(rest.len()));
        rest = later;
        scanner.feed(now, |scanned| {
            if scanned.is_held() {
                assert!(scanned.range.start >= settled, "{scanned:?} was settled up to {settled}");
            }
            found.push((scanned.range.clone(), text(&scanned)));
        });
        assert!(scanner.settled() >= settled && scanner.settled() <= scanner.offset());
        settled = scanner.settled();
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_response_is_followed_in_any_chunking(
        (dialect, response) in response(),
        lens in vec(1usize..40, 1..20),
    ) {
        let bytes: Vec<u8> = response.iter().flat_map(|tokens| tokens.bytes.clone()).collect();
        let mut expected = Vec::new();
        let mut at = 0;
        for tokens in &response {
            let end = at + tokens.bytes.len() as u64;
            if let Some(report) = &tokens.report {
                expected.push((at..end, report.clone()));
            }
            at = end;
        }
        let mut scanner = ResponseScanner::new(dialect);
        for lens in [&[bytes.len().max(1)][..], &[1], &lens] {
            scanner.restart();
            let found = scan(&mut scanner, &bytes, lens);
            prop_assert_eq!(&found, &expected);
            prop_assert!(scanner.is_between_tokens());
            prop_assert_eq!(scanner.settled(), bytes.len() as u64);
        }
    }

    #[test]
    fn what_is_cut_off_is_not_between_tokens_or_is_a_shorter_response(
        (dialect, response) in response(),
        cut: prop::sample::Index,
    ) {
        let bytes: Vec<u8> = response.iter().flat_map(|tokens| tokens.bytes.clone()).collect();
        if bytes.is_empty() {
            return Ok(());
        }
        let mut scanner = ResponseScanner::new(dialect);
        scanner.feed(&bytes[..cut.index(bytes.len())], |_| {});
        prop_assert!(!scanner.is_lost());
    }

    #[test]
    fn any_bytes_are_followed_alike_in_any_chunking(
        bytes in vec(prop_oneof![any::<u8>(), prop::sample::select(vec![0x81, 0xD1, 0xD2, 0xFD, 0xE3, 0xAC, 0x26, 0])], 0..300),
        dialect in generated::dialect(),
        lens in vec(1usize..20, 1..10),
    ) {
        let texts = |lens: &[usize]| {
            let mut found = Vec::new();
            let mut scanner = ResponseScanner::new(dialect);
            let mut rest = &bytes[..];
            for len in lens.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at((*len).min(rest.len()));
                rest = later;
                scanner.feed(now, |scanned| match scanned.event {
                    Event::Lost(_) => found.push("lost".to_owned()),
                    event => found.push(format!("{event:?}")),
                });
            }
            (found, scanner.is_lost(), scanner.is_between_tokens())
        };
        let whole = texts(&[usize::MAX]);
        prop_assert_eq!(&texts(&[1]), &whole);
        prop_assert_eq!(&texts(&lens), &whole);
    }
}

fn lost(bytes: &[u8], dialect: Dialect) -> Option<Lost> {
    let mut why = None;
    let mut scanner = ResponseScanner::new(dialect);
    scanner.feed(bytes, |scanned| {
        if let Event::Lost(lost) = scanned.event {
            assert!(why.is_none(), "lost twice");
            why = Some(lost);
        }
    });
    assert_eq!(scanner.is_lost(), why.is_some());
    why
}

#[test]
fn an_unknown_token_stops_the_scan_and_the_next_response_starts_it_again() {
    let mut scanner = ResponseScanner::new(DIALECT);
    let mut found = Vec::new();
    scanner.feed(&[0x79, 1, 0, 0, 0, 0x55, 0x79, 2, 0, 0, 0], |scanned| found.push(text(&scanned)));
    assert_eq!(found, ["ReturnStatus(1)", "Lost(UnknownToken(0x55))"]);
    scanner.feed(&[0x79, 3, 0, 0, 0], |scanned| panic!("{scanned:?}"));
    assert!(scanner.is_lost());
    scanner.restart();
    found.clear();
    scanner.feed(&[0x79, 4, 0, 0, 0], |scanned| found.push(text(&scanned)));
    assert_eq!(found, ["ReturnStatus(4)"]);
}

#[test]
fn a_row_without_metadata_is_not_guessed_at() {
    assert_eq!(lost(&[0xD1, 1, 2], DIALECT), Some(Lost::NoMetadata(TokenKind::ROW)));
    assert_eq!(lost(&[0xD2, 1, 2], DIALECT), Some(Lost::NoMetadata(TokenKind::NBC_ROW)));
    assert_eq!(lost(&[0xD3, 1, 2], DIALECT), Some(Lost::NoMetadata(TokenKind::ALT_ROW)));
    let mut bytes = Vec::new();
    ColMetadata::new(vec![Column::new("a", TypeInfo::Int)]).write(&mut bytes, DIALECT);
    let before = bytes.len();
    ColMetadata::write_none(&mut bytes);
    bytes.push(0xD1);
    assert_eq!(lost(&bytes, DIALECT), Some(Lost::NoMetadata(TokenKind::ROW)));
    bytes.truncate(before);
    ColMetadata::default().write(&mut bytes, DIALECT);
    bytes.push(0xD2);
    assert_eq!(lost(&bytes, DIALECT), Some(Lost::NoMetadata(TokenKind::NBC_ROW)));
}

#[test]
fn an_unknown_type_is_not_guessed_at() {
    let bytes = [0x81, 1, 0, 0, 0, 0, 0, 0, 0, 0xF2, 0];
    let why = Lost::Malformed(Malformed::Value { what: "a data type", value: 0xF2 });
    assert_eq!(lost(&bytes, DIALECT), Some(why));
}

#[test]
fn a_token_that_is_too_long_to_be_held_is_given_up_at_once() {
    let mut session_state = vec![0xE4];
    session_state.put_u32_le(u32::MAX);
    assert!(matches!(lost(&session_state, DIALECT), Some(Lost::TooLong { wanted }) if wanted > MAX_HELD));
    // What need not be held may be as long as it likes.
    let mut fed_auth_info = vec![0xEE];
    fed_auth_info.put_u32_le(u32::MAX);
    assert_eq!(lost(&fed_auth_info, DIALECT), None);
}

#[test]
fn a_length_inside_a_token_that_reaches_beyond_it_is_malformed() {
    // ENVCHANGE of 4 bytes whose database name would be 9 characters.
    assert!(matches!(lost(&[0xE3, 4, 0, 1, 9, 0, 0], DIALECT), Some(Lost::Malformed(_))));
    assert!(matches!(lost(&[0xE4, 6, 0, 0, 0, 0, 0, 0, 0, 1, 3], DIALECT), Some(Lost::Malformed(_))));
    assert!(matches!(lost(&[0xAA, 5, 0, 1, 0, 0, 0, 1, 16], DIALECT), Some(Lost::Malformed(_))));
}

#[test]
fn compute_columns_without_end_are_given_up() {
    let mut bytes = Vec::new();
    ColMetadata::new(vec![Column::new("a", TypeInfo::Int)]).write(&mut bytes, DIALECT);
    for _ in 0..3 {
        bytes.put_u8(TokenKind::ALT_METADATA.0);
        bytes.put_slice(&[0xFF, 0xFF, 1, 0, 0]);
        for _ in 0..0xFFFF {
            bytes.put_slice(&[0x4D, 0, 0, 0, 0, 0, 0, 0, 0, 0x38, 0]);
        }
    }
    assert!(matches!(lost(&bytes, DIALECT), Some(Lost::TooLong { .. })));
}

#[test]
fn a_long_return_value_is_reported_without_its_bytes() {
    let mut bytes = Vec::new();
    let text = "x".repeat(MAX_RETURN_VALUE);
    let max = TypeInfo::varchar(u16::MAX, Collation::LATIN1);
    ReturnValue::new(3, "@text", max, Value::String(text)).write(&mut bytes, DIALECT).unwrap();
    for len in [1, 100, bytes.len()] {
        let mut scanner = ResponseScanner::new(DIALECT);
        let mut found = 0;
        for piece in bytes.chunks(len) {
            scanner.feed(piece, |scanned| {
                let Event::ReturnValue(value) = scanned.event else { panic!("{scanned:?}") };
                assert_eq!(value.bytes, None);
                assert_eq!(scanned.range, 0..bytes.len() as u64);
                found += 1;
            });
        }
        assert_eq!(found, 1);
    }
}

#[test]
fn a_value_of_four_gigabytes_is_passed_over_in_strides() {
    let mut bytes = Vec::new();
    ColMetadata::new(vec![Column::new("a", TypeInfo::varbinary(u16::MAX))]).write(&mut bytes, DIALECT);
    bytes.put_u8(TokenKind::ROW.0);
    bytes.put_u64_le(plp::UNKNOWN);
    bytes.put_u32_le(u32::MAX);
    let mut scanner = ResponseScanner::new(DIALECT);
    scanner.feed(&bytes, |scanned| panic!("{scanned:?}"));
    let filling = vec![0xFD; 1 << 20];
    let mut left = u64::from(u32::MAX);
    while left > 0 {
        let now = left.min(filling.len() as u64);
        scanner.feed(&filling[..now as usize], |scanned| panic!("{scanned:?}"));
        left -= now;
    }
    let mut found = Vec::new();
    scanner.feed(&[0, 0, 0, 0, 0x79, 0, 0, 0, 0], |scanned| found.push(text(&scanned)));
    assert_eq!(found, ["ReturnStatus(0)"]);
}

#[test]
fn bytes_of_a_token_that_may_be_taken_out_are_not_settled_until_it_is_reported() {
    let mut bytes = Vec::new();
    EnvChange::ResetDone.write(&mut bytes);
    let mut scanner = ResponseScanner::new(DIALECT);
    scanner.feed(&[0x79, 0, 0, 0, 0], |_| {});
    for (at, byte) in bytes.iter().enumerate() {
        assert_eq!(scanner.settled(), 5, "before byte {at}");
        let mut reported = None;
        scanner.feed(&[*byte], |scanned| reported = Some(scanned.range.clone()));
        assert_eq!(reported.is_some(), at + 1 == bytes.len());
    }
    assert_eq!(scanner.settled(), 5 + bytes.len() as u64);
}
