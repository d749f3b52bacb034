//! Bringing a used connection back to the state of a fresh one: RESETCONNECTION with its acknowledgement
//! verified, and the isolation level, which a reset leaves as it was ([MS-TDS] 2.2.3.1.2), set back.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tds::env_change::EnvKind;
use tds::message::write_message;
use tds::packet::{MAX_PACKET_SIZE, PacketType, PacketWalker, Status};
use tds::request::SqlBatch;
use tds::scan::{Event, ResponseScanner};

use super::ServerConn;
use super::server_conn::ConnTurn;
use super::witness::Witness;

/// What a fresh session has.
const DEFAULT_ISOLATION: &str = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED";

/// Bytes read at once; the answer has about a hundred.
const CHUNK: usize = 1024;

/// Why a connection is discarded instead of lent again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResetError {
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("the server closed the connection")]
    Closed,
    #[error("not acknowledged within {waited:?}")]
    Timeout { waited: Duration },
    #[error("the server did not acknowledge the reset (ENVCHANGE 18)")]
    Unacknowledged,
    #[error("the server answered with error {number}")]
    Refused { number: i32 },
    #[error("the answer is no response: {0}")]
    Malformed(#[from] tds::Malformed),
    #[error("the answer could not be followed")]
    Lost,
}

/// What an answer to the reset says.
#[derive(Debug, Default)]
struct Seen<'a> {
    witness: Option<&'a mut Witness>,
    acknowledged: bool,
    error: Option<i32>,
    lost: bool,
}

/// Resets the connection. Not cancel safe: a connection whose reset was not awaited is to be discarded.
pub(crate) async fn reset(conn: &mut ServerConn) -> Result<(), ResetError> {
    let (packet_size, dialect) = (conn.packet_size, conn.dialect);
    let mut text = BytesMut::new();
    SqlBatch::new(DEFAULT_ISOLATION).write(&mut text, dialect);
    let mut request = BytesMut::new();
    write_message(&mut request, PacketType::SQL_BATCH, Status::RESET_CONNECTION, 0, packet_size, &text);
    let Some(ConnTurn { server: link, witness, .. }) = conn.turn() else {
        return Err(ResetError::Closed);
    };
    link.write_from(&mut request).await?;
    let mut walker = PacketWalker::new(MAX_PACKET_SIZE);
    let mut scanner = ResponseScanner::new(dialect);
    let mut seen = Seen { witness, ..Seen::default() };
    loop {
        if link.fill(CHUNK).await? == 0 {
            return Err(ResetError::Closed);
        }
        let bytes = link.input.split();
        if follow(&bytes, &mut walker, &mut scanner, &mut seen)? {
            return seen.verdict();
        }
    }
}

/// True once the response is complete.
fn follow(
    mut bytes: &[u8],
    walker: &mut PacketWalker,
    scanner: &mut ResponseScanner,
    seen: &mut Seen<'_>,
) -> Result<bool, ResetError> {
    while let Some(piece) = walker.next(bytes)? {
        scanner.feed(&bytes[piece.payload.clone()], |scanned| seen.note(&scanned.event));
        let rest = &bytes[piece.consumed..];
        if piece.end_of_message {
            // Anything behind the response was not asked for.
            seen.lost |= !rest.is_empty();
            return Ok(true);
        }
        bytes = rest;
    }
    Ok(false)
}

impl Seen<'_> {
    fn note(&mut self, event: &Event<'_>) {
        if let Some(witness) = &mut self.witness {
            witness.hear(event);
        }
        match event {
            Event::EnvChange(change) => self.acknowledged |= change.kind() == EnvKind::RESET_DONE,
            Event::Message { is_error: true, number, .. } => self.error = Some(*number),
            Event::Lost(_) => self.lost = true,
            _ => {}
        }
    }

    fn verdict(&self) -> Result<(), ResetError> {
        match self {
            Self { lost: true, .. } => Err(ResetError::Lost),
            Self { error: Some(number), .. } => Err(ResetError::Refused { number: *number }),
            Self { acknowledged: false, .. } => Err(ResetError::Unacknowledged),
            Self { .. } => Ok(()),
        }
    }
}
