//! The response scanner: any bytes in any chunking give the same reports, and what the full decoders read to its end
//! the scanner follows to its end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tds::col_metadata::ColMetadata;
use tds::done::{Done, DoneKind};
use tds::env_change::EnvChange;
use tds::read::Reader;
use tds::return_value::ReturnValue;
use tds::scan::{Event, ResponseScanner};
use tds::server_message::ServerMessage;
use tds::session_state::SessionState;
use tds::token::TokenKind;
use tds::{Dialect, Malformed, TdsVersion, row};

fn dialect(choice: u8) -> Dialect {
    let plain = |version| Dialect { version, column_encryption: 0, data_classification: 0 };
    match choice % 8 {
        0 => plain(TdsVersion::V7_0),
        1 => plain(TdsVersion::V7_1_SP1),
        2 => plain(TdsVersion::V7_2),
        3 => plain(TdsVersion::V7_3B),
        4 => plain(TdsVersion::V8_0),
        5 => Dialect { data_classification: 1, ..plain(TdsVersion::V7_4) },
        6 => Dialect { column_encryption: 2, data_classification: 2, ..plain(TdsVersion::V7_4) },
        _ => plain(TdsVersion::V7_4),
    }
}

/// Reports, whether the scanner gave up, whether it stands between two tokens.
fn scan(scanner: &mut ResponseScanner, stream: &[u8], chunk: usize) -> (Vec<String>, bool, bool) {
    let (mut reports, mut settled) = (vec![], 0);
    for piece in stream.chunks(chunk) {
        scanner.feed(piece, |scanned| {
            assert!(!scanned.is_held() || scanned.range.start >= settled);
            if let Event::ReturnValue(value) = &scanned.event {
                let _ = value.read();
            }
            // Why it gave up may depend on how much was there at once.
            reports.push(match &scanned.event {
                Event::Lost(_) => "lost".to_owned(),
                _ => format!("{scanned:?}"),
            });
        });
        assert!(scanner.settled() >= settled && scanner.settled() <= scanner.offset());
        settled = scanner.settled();
    }
    (reports, scanner.is_lost(), scanner.is_between_tokens())
}

/// Reads the whole stream; false where a token is not among those that this knows.
fn decode(stream: &[u8], dialect: Dialect) -> Result<bool, Malformed> {
    let mut reader = Reader::new(stream, "a response");
    let mut columns = vec![];
    while !reader.is_empty() {
        let token = reader.u8()?;
        match TokenKind(token) {
            TokenKind::COL_METADATA => {
                columns = ColMetadata::read(&mut reader, dialect)?.unwrap_or_default().columns;
            }
            TokenKind::ROW | TokenKind::NBC_ROW if columns.is_empty() => return Ok(false),
            TokenKind::ROW => {
                let mut skipping = reader;
                row::read(&mut reader, &columns)?;
                row::skip(&mut skipping, &columns).expect("what is read can be skipped");
                assert_eq!(reader.position(), skipping.position());
            }
            TokenKind::NBC_ROW => {
                row::read_nbc(&mut reader, &columns)?;
            }
            TokenKind::RETURN_VALUE => {
                ReturnValue::read(&mut reader, dialect)?;
            }
            TokenKind::ENV_CHANGE => {
                EnvChange::read(&mut reader)?;
            }
            TokenKind::SESSION_STATE => {
                SessionState::read(&mut reader)?;
            }
            TokenKind::ERROR | TokenKind::INFO => {
                ServerMessage::read(token == TokenKind::ERROR.0, &mut reader)?;
            }
            TokenKind::RETURN_STATUS => {
                reader.u32()?;
            }
            _ => match DoneKind::from_token(token) {
                Some(kind) => {
                    Done::read(kind, &mut reader, dialect.version)?;
                }
                None => return Ok(false),
            },
        }
    }
    Ok(true)
}

fuzz_target!(|data: &[u8]| {
    let [first, second, stream @ ..] = data else { return };
    let dialect = dialect(*first);
    let mut scanner = ResponseScanner::new(dialect);
    let whole = scan(&mut scanner, stream, stream.len().max(1));
    scanner.restart();
    assert_eq!(scan(&mut scanner, stream, usize::from(*second) + 1), whole);
    if decode(stream, dialect) == Ok(true) {
        assert!(whole.2, "read to its end, but not followed to it");
    }
});
