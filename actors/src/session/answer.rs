//! What the proxy itself says to a client: errors, and acknowledgements of attentions, as whole messages.

use bytes::BytesMut;
use tds::TdsVersion;
use tds::done::{Done, DoneKind, DoneStatus};
use tds::message::write_message;
use tds::packet::{DEFAULT_PACKET_SIZE, PacketType, Status};
use tds::server_message::ServerMessage;

/// ERROR messages and the DONE that ends them. Without any: what a request that its client withdrew gets.
pub(crate) fn errors(messages: &[ServerMessage], version: TdsVersion) -> BytesMut {
    errors_behind(&[], messages, version)
}

/// The same behind other tokens.
pub(crate) fn errors_behind(front: &[u8], messages: &[ServerMessage], version: TdsVersion) -> BytesMut {
    let mut tokens = BytesMut::from(front);
    for message in messages {
        message.write(&mut tokens, version);
    }
    done(&mut tokens, DoneStatus::ERROR, version);
    packets(&tokens)
}

/// The acknowledgement of an attention that no server has to answer any more ([MS-TDS] 3.3.5.9). A message of its
/// own, behind the response to the request that it stopped: tedious waits for it there, others find it anywhere.
pub(crate) fn attention_acknowledged(version: TdsVersion) -> BytesMut {
    let mut tokens = BytesMut::new();
    done(&mut tokens, DoneStatus::ATTENTION, version);
    packets(&tokens)
}

fn done(tokens: &mut BytesMut, status: DoneStatus, version: TdsVersion) {
    Done { kind: DoneKind::Done, status, current_command: 0, rows: 0 }.write(tokens, version);
}

/// Every client accepts packets of the size that holds before anything is agreed on, or less.
fn packets(tokens: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    write_message(&mut out, PacketType::RESPONSE, Status::NORMAL, 0, DEFAULT_PACKET_SIZE, tokens);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_is_one_done_with_the_attention_bit() {
        let bytes = attention_acknowledged(TdsVersion::V7_4);
        assert_eq!(bytes[..8], [4, 1, 0, 21, 0, 0, 1, 0]);
        assert_eq!(bytes[8..12], [0xFD, 0x20, 0, 0]);
        assert_eq!(bytes.len(), 8 + 13);
    }

    #[test]
    fn an_error_ends_with_a_done_that_says_so() {
        let message = ServerMessage::error(10928, 16, "tdsbouncer: full", "tdsbouncer");
        let bytes = errors(&[message], TdsVersion::V7_1);
        assert_eq!(bytes[8], 0xAA);
        let done = &bytes[bytes.len() - 9..];
        assert_eq!(done[..3], [0xFD, 0x02, 0]);
    }
}
