//! How packets become whole messages and messages become packets, for the messages that are held whole.

use bytes::{Buf, BufMut, BytesMut};

use crate::Malformed;
use crate::packet::{
    HEADER_LEN, MAX_PACKET_SIZE, MIN_PACKET_SIZE, PacketHeader, PacketType, PacketWalker, Piece, Status,
};

/// A whole message without its packet headers. `Debug` shows the payload's length only: it may hold a password or SQL.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// What kind of message it is.
    pub kind: PacketType,
    /// The status of its first packet: the only one whose reset bits count ([MS-TDS] 2.2.3.1.2).
    pub status: Status,
    /// The process id in its first packet: the server's, or 0.
    pub spid: u16,
    /// Its sender withdrew it with the last packet ([MS-TDS] 2.2.1.7).
    pub ignored: bool,
    /// The packets' contents, joined.
    pub payload: BytesMut,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("kind", &self.kind)
            .field("status", &self.status)
            .field("spid", &self.spid)
            .field("ignored", &self.ignored)
            .field("payload_bytes", &self.payload.len())
            .finish()
    }
}

/// Collects packets into messages, in any chunking. What does not belong to the message stays in the input.
#[derive(Clone)]
pub struct MessageReader {
    walker: PacketWalker,
    max_message: usize,
    first: Option<PacketHeader>,
    ignored: bool,
    payload: BytesMut,
}

impl std::fmt::Debug for MessageReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MessageReader")
            .field("walker", &self.walker)
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

impl MessageReader {
    /// Packets are at most `max_packet` bytes long (header included), messages `max_message` (headers excluded).
    pub fn new(max_packet: usize, max_message: usize) -> Self {
        Self {
            walker: PacketWalker::new(max_packet),
            max_message,
            first: None,
            ignored: false,
            payload: BytesMut::new(),
        }
    }

    /// True between two messages, with no part of a header read.
    pub fn is_at_boundary(&self) -> bool {
        self.first.is_none() && self.walker.is_at_boundary()
    }

    /// True from a message's first complete header to its end.
    pub fn in_message(&self) -> bool {
        self.first.is_some()
    }

    /// Takes bytes from `input` up to the end of a message. `None`: all of `input` was taken, feed more.
    pub fn read(&mut self, input: &mut BytesMut) -> Result<Option<Message>, Malformed> {
        while let Some(piece) = self.next_piece(input)? {
            if piece.end_of_message {
                return Ok(self.finish());
            }
        }
        Ok(None)
    }

    /// Like [`Self::read`], but stops after each packet.
    pub(crate) fn read_packet(&mut self, input: &mut BytesMut) -> Result<PacketRead, Malformed> {
        while let Some(piece) = self.next_piece(input)? {
            if piece.end_of_message {
                return Ok(self.finish().map_or(PacketRead::NeedBytes, PacketRead::Message));
            }
            if piece.end_of_packet {
                return Ok(PacketRead::Packet);
            }
        }
        Ok(PacketRead::NeedBytes)
    }

    fn next_piece(&mut self, input: &mut BytesMut) -> Result<Option<Piece>, Malformed> {
        let Some(piece) = self.walker.next(input)? else {
            input.clear();
            return Ok(None);
        };
        if let Some(header) = piece.header {
            self.take_header(header)?;
        }
        let mut bytes = input.split_to(piece.consumed);
        bytes.advance(piece.payload.start);
        if self.payload.is_empty() {
            self.payload = bytes;
        } else {
            self.payload.unsplit(bytes);
        }
        Ok(Some(piece))
    }

    /// Checks a packet's announced length against the message's limit before any of it is kept.
    fn take_header(&mut self, header: PacketHeader) -> Result<(), Malformed> {
        let first = *self.first.get_or_insert(header);
        if first.kind != header.kind {
            return Err(Malformed::Unexpected { what: header.kind.name(), state: "inside another message" });
        }
        if self.payload.len() + header.payload_len() > self.max_message {
            return Err(Malformed::TooLong { what: first.kind.name(), limit: self.max_message });
        }
        self.ignored = header.ends_message() && header.status.contains(Status::IGNORE);
        Ok(())
    }

    fn finish(&mut self) -> Option<Message> {
        let first = self.first.take()?;
        Some(Message {
            kind: first.kind,
            status: first.status,
            spid: first.spid,
            ignored: self.ignored,
            payload: std::mem::take(&mut self.payload),
        })
    }
}

/// What [`MessageReader::read_packet`] reached.
#[derive(Debug)]
pub(crate) enum PacketRead {
    NeedBytes,
    Packet,
    Message(Message),
}

/// Appends `payload` as packets of at most `packet_size` bytes, header included. Of `status`, the reset bits go
/// into the first packet and all others into the last one, which always ends the message. An empty payload is one
/// packet: a header.
pub fn write_message(
    out: &mut BytesMut,
    kind: PacketType,
    status: Status,
    spid: u16,
    packet_size: usize,
    payload: &[u8],
) {
    let room = packet_size.clamp(MIN_PACKET_SIZE, MAX_PACKET_SIZE) - HEADER_LEN;
    let resets = Status::RESET_CONNECTION.with(Status::RESET_CONNECTION_SKIP_TRAN);
    out.reserve(payload.len() + HEADER_LEN * (1 + payload.len() / room));
    let mut rest = payload;
    let mut id = 1u8;
    let mut status_now = Status(status.0 & resets.0);
    loop {
        let (chunk, after) = rest.split_at(rest.len().min(room));
        if after.is_empty() {
            status_now = status_now.with(status.without(resets)).with(Status::END_OF_MESSAGE);
        }
        // At most MAX_PACKET_SIZE, which is below 2^16.
        let length = u16::try_from(chunk.len() + HEADER_LEN).unwrap_or(u16::MAX);
        out.put_slice(&PacketHeader { kind, status: status_now, length, spid, id, window: 0 }.encode());
        out.put_slice(chunk);
        if after.is_empty() {
            return;
        }
        rest = after;
        id = id.wrapping_add(1);
        status_now = Status::NORMAL;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(status: Status, size: usize, payload: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        write_message(&mut out, PacketType::RPC, status, 7, size, payload);
        out
    }

    #[test]
    fn a_long_message_is_cut_into_full_packets_and_a_last_one() {
        let status = Status::RESET_CONNECTION;
        let mut stream = written(status, 512, &[9; 1000]);
        let mut walker = PacketWalker::new(512);
        let mut headers = vec![];
        let mut at = 0;
        while let Some(piece) = walker.next(&stream[at..]).unwrap() {
            headers.extend(piece.header);
            at += piece.consumed;
        }
        let told: Vec<_> = headers.iter().map(|h| (h.status.0, h.length, h.id, h.spid)).collect();
        assert_eq!(told, [(0x08, 512, 1, 7), (0x01, 504, 2, 7)]);
        let message = MessageReader::new(512, 1000).read(&mut stream).unwrap().unwrap();
        assert_eq!((message.status, message.spid, message.ignored), (Status::RESET_CONNECTION, 7, false));
        assert_eq!(message.payload, [9; 1000][..]);
    }

    #[test]
    fn an_empty_message_is_one_header() {
        let mut out = BytesMut::new();
        write_message(&mut out, PacketType::ATTENTION, Status::NORMAL, 0, 4096, &[]);
        assert_eq!(out[..], [6, 1, 0, 8, 0, 0, 1, 0]);
        let message = MessageReader::new(4096, 0).read(&mut out).unwrap().unwrap();
        assert_eq!((message.kind, message.payload.len()), (PacketType::ATTENTION, 0));
    }

    #[test]
    fn a_withdrawn_message_says_so() {
        let mut stream = written(Status::IGNORE, 512, &[1; 600]);
        assert_eq!((stream[1], stream[513]), (0, 3));
        assert!(MessageReader::new(512, 600).read(&mut stream).unwrap().unwrap().ignored);
    }

    #[test]
    fn a_message_over_its_limit_is_refused_when_its_header_announces_it() {
        let mut stream = written(Status::NORMAL, 512, &[0; 505]);
        stream.truncate(512 + HEADER_LEN);
        let refused = MessageReader::new(512, 504).read(&mut stream);
        assert_eq!(refused, Err(Malformed::TooLong { what: "rpc", limit: 504 }));
    }

    #[test]
    fn a_packet_of_another_type_inside_a_message_is_refused() {
        let mut stream = written(Status::NORMAL, 512, &[0; 504 + 1]);
        stream.truncate(512);
        stream.extend_from_slice(&[6, 1, 0, 8, 0, 0, 1, 0]);
        let refused = MessageReader::new(512, 4096).read(&mut stream);
        assert!(matches!(refused, Err(Malformed::Unexpected { what: "attention", .. })));
    }

    #[test]
    fn debug_shows_no_contents() {
        let mut stream = written(Status::NORMAL, 512, b"ABC");
        let message = MessageReader::new(512, 16).read(&mut stream).unwrap().unwrap();
        let shown = format!("{message:?}");
        assert!(shown.contains("payload_bytes: 3") && !shown.contains("ABC"), "{shown}");
    }

    #[test]
    fn what_follows_a_message_stays_in_the_input() {
        let mut stream = written(Status::NORMAL, 512, b"one");
        stream.extend_from_slice(b"tail");
        assert!(MessageReader::new(512, 16).read(&mut stream).unwrap().is_some());
        assert_eq!(&stream[..], b"tail");
    }

    proptest! {
        #[test]
        fn messages_survive_any_packet_size_and_any_chunking(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 1..4),
            size in 0usize..3000,
            chunk in 1usize..700,
        ) {
            let mut stream = BytesMut::new();
            for payload in &payloads {
                write_message(&mut stream, PacketType::SQL_BATCH, Status::NORMAL, 0, size, payload);
            }
            let mut reader = MessageReader::new(3000, 2000);
            let mut found = vec![];
            let mut input = BytesMut::new();
            for chunk in stream.chunks(chunk) {
                input.extend_from_slice(chunk);
                while let Some(message) = reader.read(&mut input).unwrap() {
                    found.push(message.payload.to_vec());
                }
                prop_assert!(input.is_empty());
            }
            prop_assert!(reader.is_at_boundary());
            prop_assert_eq!(found, payloads);
        }
    }
}
