//! The response scanner: what it reports does not depend on how the bytes come, and nothing leads it astray.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod generated;

use bytes::BufMut;
use generated::response::response;
use proptest::collection::vec;
use proptest::prelude::*;
use tds::col_metadata::{ColMetadata, Column};
use tds::env_change::EnvChange;
use tds::return_value::ReturnValue;
use tds::scan::{Event, Lost, MAX_HELD, MAX_RETURN_VALUE, ResponseScanner, Scanned};
use tds::token::TokenKind;
use tds::type_info::{Collation, TypeInfo};
use tds::value::{Value, plp};
use tds::{Dialect, Malformed, TdsVersion};

const DIALECT: Dialect = Dialect { version: TdsVersion::V7_4, column_encryption: 0, data_classification: 0 };

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
