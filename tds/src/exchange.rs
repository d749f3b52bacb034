//! Whether a connection is quiet: which requests still wait for their response, which attentions for their
//! acknowledgement, seen from the packets that pass in both directions.

use crate::Malformed;
use crate::TdsVersion;
use crate::packet::{PacketHeader, PacketType, PacketWalker, Status};

/// DONE's token byte ([MS-TDS] 2.2.7.6); DONEPROC and DONEINPROC follow it.
const FIRST_DONE: u8 = 0xFD;
/// The bit in a DONE's status that acknowledges an attention.
const DONE_ATTN: u8 = 0x20;
/// A DONE token from TDS 7.2 on: token, status (2), current command (2), row count (8).
const LONG_DONE: usize = 13;
/// The same before TDS 7.2, with a row count of 4 bytes.
const SHORT_DONE: usize = 9;

/// Follows the packets of one logged-in connection in both directions.
///
/// Each request is answered by one response message. An attention is acknowledged by a DONE with DONE_ATTN, in
/// the running response or in a message of its own behind it ([MS-TDS] 3.2.5.9, 3.3.5.9). Such a DONE is always
/// the last token of its message, so the last bytes tell without reading any token.
#[derive(Clone, Debug)]
pub struct Exchange {
    up: PacketWalker,
    down: PacketWalker,
    unanswered: u32,
    unacknowledged: u32,
    doubtful: bool,
    distributed: bool,
    done_len: usize,
    tail: [u8; LONG_DONE],
    tail_len: usize,
    packets_received: u64,
}

/// What happened in a stretch of client bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Requests that began in it.
    pub begun: u32,
    /// Requests that it completed.
    pub completed: u32,
    /// Attentions in it.
    pub attentions: u32,
    /// Packets that began in it.
    pub packets: u32,
}

impl Exchange {
    /// Starts right behind the login response. No packet may be longer than `max_packet` bytes.
    pub fn new(max_packet: usize, version: TdsVersion) -> Self {
        Self {
            up: PacketWalker::new(max_packet),
            down: PacketWalker::new(max_packet),
            unanswered: 0,
            unacknowledged: 0,
            doubtful: false,
            distributed: false,
            done_len: if version.is_7_2_or_later() { LONG_DONE } else { SHORT_DONE },
            tail: [0; LONG_DONE],
            tail_len: 0,
            packets_received: 0,
        }
    }

    /// Follows bytes from the client. An error means that they are not TDS, or no message that a logged-in
    /// client may send.
    pub fn sent(&mut self, mut bytes: &[u8]) -> Result<Sent, Malformed> {
        let mut seen = Sent::default();
        while !bytes.is_empty() {
            let was_inside = self.up.in_message();
            let Some(piece) = self.up.next(bytes)? else { break };
            if let Some(header) = piece.header {
                seen.packets += 1;
                self.request_header(header, was_inside, &mut seen)?;
            }
            if piece.header.is_some_and(|header| header.kind == PacketType::TRANSACTION_MANAGER)
                && !was_inside
            {
                self.distributed |= may_be_distributed(&bytes[piece.payload.clone()]);
            }
            if piece.end_of_message && !piece.header.is_some_and(|h| h.kind == PacketType::ATTENTION) {
                self.unanswered = self.unanswered.saturating_add(1);
                seen.completed += 1;
            }
            bytes = &bytes[piece.consumed..];
        }
        Ok(seen)
    }

    fn request_header(
        &mut self,
        header: PacketHeader,
        was_inside: bool,
        seen: &mut Sent,
    ) -> Result<(), Malformed> {
        if !header.kind.is_request() {
            return Err(Malformed::Unexpected { what: header.kind.name(), state: "logged in" });
        }
        if header.kind == PacketType::ATTENTION {
            if !header.status.contains(Status::END_OF_MESSAGE) || header.payload_len() != 0 {
                return Err(Malformed::Unexpected {
                    what: "an attention of several packets",
                    state: "logged in",
                });
            }
            // In the middle of a request an attention has no defined meaning: let the server answer, and trust
            // the connection no further.
            self.doubtful |= was_inside;
            self.unacknowledged = self.unacknowledged.saturating_add(1);
            seen.attentions += 1;
        } else if !was_inside {
            seen.begun += 1;
        }
        Ok(())
    }

    /// Follows bytes from the server. Returns how many response messages ended.
    pub fn received(&mut self, mut bytes: &[u8]) -> Result<u32, Malformed> {
        let mut ended = 0;
        while !bytes.is_empty() {
            let Some(piece) = self.down.next(bytes)? else { break };
            if let Some(header) = piece.header
                && header.kind != PacketType::RESPONSE
            {
                return Err(Malformed::Unexpected { what: header.kind.name(), state: "reading a response" });
            }
            self.packets_received = self.packets_received.wrapping_add(u64::from(piece.header.is_some()));
            self.keep_tail(&bytes[piece.payload.clone()]);
            if piece.end_of_message {
                self.response_ended();
                ended += 1;
            }
            bytes = &bytes[piece.consumed..];
        }
        Ok(ended)
    }

    fn keep_tail(&mut self, payload: &[u8]) {
        let len = self.done_len;
        if let Some(last) = payload.len().checked_sub(len) {
            self.tail[..len].copy_from_slice(&payload[last..]);
            self.tail_len = len;
            return;
        }
        let overflow = (self.tail_len + payload.len()).saturating_sub(len);
        self.tail.copy_within(overflow..self.tail_len, 0);
        self.tail_len -= overflow;
        self.tail[self.tail_len..self.tail_len + payload.len()].copy_from_slice(payload);
        self.tail_len += payload.len();
    }

    fn response_ended(&mut self) {
        let whole_done = self.tail_len == self.done_len && self.tail[0] >= FIRST_DONE;
        if whole_done && self.tail[1] & DONE_ATTN != 0 {
            // One acknowledgement answers every attention sent so far; more may come and would be noise.
            self.doubtful |= self.unacknowledged != 1;
            self.unacknowledged = self.unacknowledged.saturating_sub(1);
        } else {
            self.doubtful |= self.unanswered == 0 || !whole_done;
        }
        self.unanswered = self.unanswered.saturating_sub(1);
        self.tail_len = 0;
    }

    /// True when nothing is under way in either direction and nothing happened that casts doubt on that: the
    /// only moment at which the connection may change hands.
    pub fn is_quiet(&self) -> bool {
        !self.doubtful
            && self.unanswered == 0
            && self.unacknowledged == 0
            && !self.up.in_message()
            && self.up.is_at_boundary()
            && !self.down.in_message()
            && self.down.is_at_boundary()
    }

    /// Packets from the server that began so far.
    pub fn packets_received(&self) -> u64 {
        self.packets_received
    }

    /// True when the client owes the rest of a message that it has begun.
    pub fn is_receiving(&self) -> bool {
        self.up.in_message() || !self.up.is_at_boundary()
    }

    /// Requests that were sent whole and whose response has not ended.
    pub fn unanswered(&self) -> u32 {
        self.unanswered
    }

    /// True while an attention waits for its acknowledgement.
    pub fn owes_acknowledgement(&self) -> bool {
        self.unacknowledged > 0
    }

    /// True if the client asked for something that RESETCONNECTION does not undo (a distributed transaction,
    /// [MS-TDS] 2.2.6.9).
    pub fn outlives_reset(&self) -> bool {
        self.distributed
    }

    /// A new server takes the place of the old one, and with it all that the old one owed. What the client has
    /// sent half stays half.
    pub fn forget_server(&mut self) {
        self.unanswered = 0;
        self.unacknowledged = 0;
        self.doubtful = false;
        self.tail_len = 0;
        self.down = PacketWalker::new(crate::packet::MAX_PACKET_SIZE);
    }
}

/// Transaction manager requests 0 (DTC address) and 1 (propagate) touch distributed transactions. A request
/// whose type is not in the first piece is taken for one: the connection is then closed instead of shared.
fn may_be_distributed(payload: &[u8]) -> bool {
    let Some(total) = payload.first_chunk::<4>() else { return true };
    let at = usize::try_from(u32::from_le_bytes(*total)).unwrap_or(usize::MAX);
    match payload.get(at..).and_then(<[u8]>::first_chunk::<2>) {
        Some(kind) => u16::from_le_bytes(*kind) <= 1,
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::*;
    use crate::message::write_message;

    const DONE: [u8; 13] = [0xFD, 0, 0, 0xC1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const ATTN: [u8; 13] = [0xFD, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    fn exchange() -> Exchange {
        Exchange::new(4096, TdsVersion::V7_4)
    }

    fn message(kind: PacketType, payload: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        write_message(&mut out, kind, Status::NORMAL, 0, 512, payload);
        out
    }

    fn response(tokens: &[&[u8]]) -> BytesMut {
        message(PacketType::RESPONSE, &tokens.concat())
    }

    #[test]
    fn a_connection_is_quiet_before_and_after_a_request_and_not_between() {
        let mut exchange = exchange();
        assert!(exchange.is_quiet());
        let seen = exchange.sent(&message(PacketType::SQL_BATCH, &[0; 1000])).unwrap();
        assert_eq!(seen, Sent { begun: 1, completed: 1, attentions: 0, packets: 2 });
        assert!(!exchange.is_quiet());
        assert_eq!(exchange.received(&response(&[&[0xD1; 2000], &DONE])).unwrap(), 1);
        assert!(exchange.is_quiet());
    }

    #[test]
    fn an_attention_acknowledged_inside_the_response_settles_both() {
        let mut exchange = exchange();
        exchange.sent(&message(PacketType::SQL_BATCH, b"x")).unwrap();
        exchange.sent(&message(PacketType::ATTENTION, b"")).unwrap();
        exchange.received(&response(&[&ATTN])).unwrap();
        assert!(exchange.is_quiet());
    }

    #[test]
    fn a_late_attention_keeps_the_connection_until_its_own_acknowledgement() {
        let mut exchange = exchange();
        exchange.sent(&message(PacketType::SQL_BATCH, b"x")).unwrap();
        exchange.sent(&message(PacketType::ATTENTION, b"")).unwrap();
        exchange.received(&response(&[&DONE])).unwrap();
        assert!(!exchange.is_quiet());
        assert!(exchange.owes_acknowledgement());
        exchange.received(&response(&[&ATTN])).unwrap();
        assert!(exchange.is_quiet());
    }

    #[test]
    fn an_attention_without_a_request_waits_for_its_acknowledgement() {
        let mut exchange = exchange();
        exchange.sent(&message(PacketType::ATTENTION, b"")).unwrap();
        assert!(!exchange.is_quiet());
        exchange.received(&response(&[&ATTN])).unwrap();
        assert!(exchange.is_quiet());
    }

    #[test]
    fn requests_sent_back_to_back_are_all_awaited() {
        let mut exchange = exchange();
        let twice = [message(PacketType::RPC, b"1"), message(PacketType::RPC, b"2")].concat();
        exchange.sent(&twice).unwrap();
        exchange.received(&response(&[&DONE])).unwrap();
        assert!(!exchange.is_quiet());
        exchange.received(&response(&[&DONE])).unwrap();
        assert!(exchange.is_quiet());
    }

    #[test]
    fn a_response_nobody_asked_for_is_never_trusted_again() {
        let mut exchange = exchange();
        exchange.received(&response(&[&DONE])).unwrap();
        assert!(!exchange.is_quiet());
    }

    #[test]
    fn a_response_that_does_not_end_in_done_is_never_trusted_again() {
        let mut exchange = exchange();
        exchange.sent(&message(PacketType::SQL_BATCH, b"x")).unwrap();
        exchange.received(&response(&[&[0xAB; 40]])).unwrap();
        assert!(!exchange.is_quiet());
    }

    #[test]
    fn before_tds_7_2_a_done_is_shorter() {
        let mut exchange = Exchange::new(4096, TdsVersion::V7_1);
        exchange.sent(&message(PacketType::SQL_BATCH, b"x")).unwrap();
        exchange.sent(&message(PacketType::ATTENTION, b"")).unwrap();
        exchange.received(&response(&[&ATTN[..9]])).unwrap();
        assert!(exchange.is_quiet());
    }

    #[test]
    fn a_login_in_the_middle_of_a_session_is_refused() {
        assert!(exchange().sent(&message(PacketType::LOGIN7, b"x")).is_err());
    }

    #[test]
    fn propagating_a_distributed_transaction_outlives_a_reset() {
        let headers = [22, 0, 0, 0, 18, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
        for (kind, outlives) in [(0u8, true), (1, true), (5, false), (7, false), (8, false)] {
            let mut exchange = exchange();
            let payload = [&headers[..], &[kind, 0, 0, 0]].concat();
            exchange.sent(&message(PacketType::TRANSACTION_MANAGER, &payload)).unwrap();
            assert_eq!(exchange.outlives_reset(), outlives, "request {kind}");
        }
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_result(
            up in proptest::collection::vec(1usize..9, 0..200),
            down in proptest::collection::vec(1usize..9, 0..400),
        ) {
            let requests = [message(PacketType::SQL_BATCH, &[7; 700]), message(PacketType::ATTENTION, b"")].concat();
            let responses = [response(&[&[0xD1; 900], &DONE]), response(&[&ATTN])].concat();
            let mut whole = exchange();
            whole.sent(&requests).unwrap();
            whole.received(&responses).unwrap();
            let mut pieces = exchange();
            let (mut at, mut sizes) = (0, up.into_iter());
            while at < requests.len() {
                let end = (at + sizes.next().unwrap_or(requests.len())).min(requests.len());
                pieces.sent(&requests[at..end]).unwrap();
                at = end;
            }
            let (mut at, mut sizes) = (0, down.into_iter());
            while at < responses.len() {
                let end = (at + sizes.next().unwrap_or(responses.len())).min(responses.len());
                pieces.received(&responses[at..end]).unwrap();
                at = end;
            }
            prop_assert!(whole.is_quiet());
            prop_assert!(pieces.is_quiet());
        }
    }
}
