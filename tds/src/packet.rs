//! What a packet is: its eight-byte header, and where packets and messages begin and end in a stream.

use std::ops::Range;

use crate::Malformed;

/// Bytes in a packet header ([MS-TDS] 2.2.3.1).
pub const HEADER_LEN: usize = 8;

/// The largest packet before both sides agree on another size, in bytes ([MS-TDS] 2.2.3.1.3).
pub const DEFAULT_PACKET_SIZE: usize = 4096;

/// The smallest size that can be agreed on, in bytes ([MS-TDS] 2.2.3.1.3).
pub const MIN_PACKET_SIZE: usize = 512;

/// The largest size that can be agreed on, in bytes ([MS-TDS] 2.2.3.1.3).
pub const MAX_PACKET_SIZE: usize = 32_767;

/// What kind of message a packet belongs to ([MS-TDS] 2.2.3.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PacketType(pub u8);

impl PacketType {
    /// A batch of T-SQL text.
    pub const SQL_BATCH: Self = Self(0x01);
    /// A login from before TDS 7.
    pub const LEGACY_LOGIN: Self = Self(0x02);
    /// A call of a procedure.
    pub const RPC: Self = Self(0x03);
    /// Everything that a server sends.
    pub const RESPONSE: Self = Self(0x04);
    /// The client asks the server to stop; a header without payload.
    pub const ATTENTION: Self = Self(0x06);
    /// Rows of a bulk load.
    pub const BULK_LOAD: Self = Self(0x07);
    /// A federated authentication token.
    pub const FED_AUTH_TOKEN: Self = Self(0x08);
    /// Begin, commit, roll back and the like, outside T-SQL.
    pub const TRANSACTION_MANAGER: Self = Self(0x0E);
    /// A login.
    pub const LOGIN7: Self = Self(0x10);
    /// A further step of integrated authentication.
    pub const SSPI: Self = Self(0x11);
    /// What comes before a login, and in TDS 7.x the wrapping of the TLS handshake.
    pub const PRELOGIN: Self = Self(0x12);

    /// True for the messages that a logged-in client may send.
    pub fn is_request(self) -> bool {
        matches!(
            self,
            Self::SQL_BATCH | Self::RPC | Self::ATTENTION | Self::BULK_LOAD | Self::TRANSACTION_MANAGER
        )
    }

    /// True where the reset bits have a meaning: batches, calls, transaction manager requests
    /// ([MS-TDS] 2.2.3.1.2).
    pub fn can_reset(self) -> bool {
        matches!(self, Self::SQL_BATCH | Self::RPC | Self::TRANSACTION_MANAGER)
    }

    /// The name in lower case, for errors, spans and labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::SQL_BATCH => "batch",
            Self::LEGACY_LOGIN => "legacy login",
            Self::RPC => "rpc",
            Self::RESPONSE => "response",
            Self::ATTENTION => "attention",
            Self::BULK_LOAD => "bulk load",
            Self::FED_AUTH_TOKEN => "federated authentication token",
            Self::TRANSACTION_MANAGER => "transaction manager request",
            Self::LOGIN7 => "login",
            Self::SSPI => "sspi",
            Self::PRELOGIN => "prelogin",
            _ => "packet of an unknown type",
        }
    }
}

impl std::fmt::Debug for PacketType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({:#04x})", self.name(), self.0)
    }
}

/// The bits of a packet's status byte ([MS-TDS] 2.2.3.1.2). Unknown bits are kept and mean nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(pub u8);

impl Status {
    /// More packets of this message follow.
    pub const NORMAL: Self = Self(0x00);
    /// The last packet of its message.
    pub const END_OF_MESSAGE: Self = Self(0x01);
    /// The client withdraws the message; comes with [`Self::END_OF_MESSAGE`].
    pub const IGNORE: Self = Self(0x02);
    /// Bring the session back to its state after the login, then run the request. First packet only.
    pub const RESET_CONNECTION: Self = Self(0x08);
    /// Like [`Self::RESET_CONNECTION`], but the transaction stays.
    pub const RESET_CONNECTION_SKIP_TRAN: Self = Self(0x10);

    /// True if all bits of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// With the bits of `other` set.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// With the bits of `other` cleared.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// True if either of the reset bits is set.
    pub fn asks_for_reset(self) -> bool {
        self.0 & (Self::RESET_CONNECTION.0 | Self::RESET_CONNECTION_SKIP_TRAN.0) != 0
    }
}

impl std::fmt::Debug for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#04x}", self.0)
    }
}

/// The eight bytes in front of every packet ([MS-TDS] 2.2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketHeader {
    /// The kind of message.
    pub kind: PacketType,
    /// Where in its message the packet stands, and whether to reset first.
    pub status: Status,
    /// The packet's length in bytes, header included.
    pub length: u16,
    /// The server's process id; clients send 0.
    pub spid: u16,
    /// Counts packets modulo 256; nobody checks it.
    pub id: u8,
    /// Always 0.
    pub window: u8,
}

impl PacketHeader {
    /// Reads a header that announces at most `max_packet` bytes, header included.
    pub fn decode(bytes: &[u8; HEADER_LEN], max_packet: usize) -> Result<Self, Malformed> {
        let [kind, status, l1, l0, s1, s0, id, window] = *bytes;
        let length = u16::from_be_bytes([l1, l0]);
        if usize::from(length) < HEADER_LEN || usize::from(length) > max_packet {
            return Err(Malformed::PacketLength { length: usize::from(length), limit: max_packet });
        }
        Ok(Self {
            kind: PacketType(kind),
            status: Status(status),
            length,
            spid: u16::from_be_bytes([s1, s0]),
            id,
            window,
        })
    }

    /// The header's bytes.
    pub fn encode(self) -> [u8; HEADER_LEN] {
        let [l1, l0] = self.length.to_be_bytes();
        let [s1, s0] = self.spid.to_be_bytes();
        [self.kind.0, self.status.0, l1, l0, s1, s0, self.id, self.window]
    }

    /// Bytes behind the header.
    pub fn payload_len(self) -> usize {
        usize::from(self.length).saturating_sub(HEADER_LEN)
    }

    /// True if this is the last packet of its message.
    pub fn ends_message(self) -> bool {
        self.status.contains(Status::END_OF_MESSAGE)
    }
}

/// Follows packet boundaries through a stream that arrives in pieces of any size. It copies no payload and
/// allocates nothing.
///
/// ```text
/// loop { at += walker.next(&buf[at..])?.consumed }   until None: all of buf was consumed
///
/// between packets ── header complete ──▶ in payload ── last byte ──▶ between packets
///        └─ part of a header: kept (at most 7 bytes)                 (in a message, unless it ended)
/// ```
#[derive(Clone, Debug)]
pub struct PacketWalker {
    max_packet: usize,
    partial: [u8; HEADER_LEN],
    partial_len: usize,
    payload_left: usize,
    last_packet: bool,
    in_message: bool,
}

/// What [`PacketWalker::next`] found at the front of its input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// How many bytes of the input this piece takes: the end of a header and then payload.
    pub consumed: usize,
    /// The header, if its last byte is in this piece. Its bytes are the `payload.start` first ones of the input;
    /// if that is less than [`HEADER_LEN`], the others came with earlier input.
    pub header: Option<PacketHeader>,
    /// Where in the input the payload is; may be empty.
    pub payload: Range<usize>,
    /// The packet ends with this piece.
    pub end_of_packet: bool,
    /// The message ends with this piece.
    pub end_of_message: bool,
}

impl PacketWalker {
    /// Starts between two messages; no packet may be longer than `max_packet` bytes, header included.
    pub fn new(max_packet: usize) -> Self {
        Self {
            max_packet,
            partial: [0; HEADER_LEN],
            partial_len: 0,
            payload_left: 0,
            last_packet: false,
            in_message: false,
        }
    }

    /// From the next header on, no packet may be longer than this (after ENVCHANGE 4).
    pub fn set_max_packet(&mut self, max_packet: usize) {
        self.max_packet = max_packet;
    }

    /// The next piece of `input`, which continues where the last piece ended. `None`: all of `input` was consumed
    /// (it was empty or part of a header); more bytes are needed.
    #[inline]
    pub fn next(&mut self, input: &[u8]) -> Result<Option<Piece>, Malformed> {
        if self.payload_left > 0 {
            return Ok((!input.is_empty()).then(|| self.piece(None, 0, input.len())));
        }
        let (header, header_end) = match input.first_chunk::<HEADER_LEN>() {
            Some(bytes) if self.partial_len == 0 => (*bytes, HEADER_LEN),
            _ => {
                let taken = input.len().min(HEADER_LEN - self.partial_len);
                self.partial[self.partial_len..self.partial_len + taken].copy_from_slice(&input[..taken]);
                self.partial_len += taken;
                if self.partial_len < HEADER_LEN {
                    return Ok(None);
                }
                self.partial_len = 0;
                (self.partial, taken)
            }
        };
        let header = PacketHeader::decode(&header, self.max_packet)?;
        self.payload_left = header.payload_len();
        self.last_packet = header.ends_message();
        self.in_message = true;
        Ok(Some(self.piece(Some(header), header_end, input.len())))
    }

    #[inline]
    fn piece(&mut self, header: Option<PacketHeader>, start: usize, input_len: usize) -> Piece {
        let taken = self.payload_left.min(input_len - start);
        self.payload_left -= taken;
        let end_of_packet = self.payload_left == 0;
        let end_of_message = end_of_packet && self.last_packet;
        self.in_message = !end_of_message;
        let end = start + taken;
        Piece { consumed: end, header, payload: start..end, end_of_packet, end_of_message }
    }

    /// True between two packets, with no part of a header read.
    pub fn is_at_boundary(&self) -> bool {
        self.payload_left == 0 && self.partial_len == 0
    }

    /// True from a message's first complete header to its last byte.
    pub fn in_message(&self) -> bool {
        self.in_message
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(status: u8, payload: usize) -> Vec<u8> {
        let header = PacketHeader {
            kind: PacketType::SQL_BATCH,
            status: Status(status),
            length: u16::try_from(payload + HEADER_LEN).unwrap(),
            spid: 0,
            id: 1,
            window: 0,
        };
        let mut bytes = header.encode().to_vec();
        bytes.extend((0..payload).map(|i| u8::try_from(i % 251).unwrap()));
        bytes
    }

    #[test]
    fn a_header_is_big_endian() {
        let bytes = [0x10, 0x01, 0x00, 0x90, 0x12, 0x34, 0x05, 0x00];
        let header = PacketHeader::decode(&bytes, DEFAULT_PACKET_SIZE).unwrap();
        assert_eq!(header.kind, PacketType::LOGIN7);
        assert_eq!((header.length, header.payload_len()), (0x90, 0x88));
        assert_eq!((header.spid, header.id), (0x1234, 5));
        assert!(header.ends_message());
        assert_eq!(header.encode(), bytes);
    }

    #[test]
    fn a_length_outside_its_bounds_is_refused_before_anything_waits_for_it() {
        for length in [0u16, 7, 4097, 0xFFFF] {
            let [l1, l0] = length.to_be_bytes();
            let found = PacketHeader::decode(&[1, 1, l1, l0, 0, 0, 0, 0], 4096);
            assert_eq!(found, Err(Malformed::PacketLength { length: usize::from(length), limit: 4096 }));
        }
        for length in [8u16, 4096] {
            let [l1, l0] = length.to_be_bytes();
            assert!(PacketHeader::decode(&[1, 1, l1, l0, 0, 0, 0, 0], 4096).is_ok());
        }
    }

    #[test]
    fn the_status_is_a_set_of_bits() {
        let status = Status(0x09);
        assert!(status.contains(Status::END_OF_MESSAGE) && status.contains(Status::RESET_CONNECTION));
        assert!(!status.contains(Status::RESET_CONNECTION_SKIP_TRAN));
        assert_eq!(status.without(Status::RESET_CONNECTION), Status::END_OF_MESSAGE);
        assert!(status.asks_for_reset() && Status(0x11).asks_for_reset() && !Status(0x03).asks_for_reset());
    }

    #[test]
    fn a_packet_without_payload_ends_with_its_header() {
        let mut walker = PacketWalker::new(4096);
        let piece = walker.next(&packet(1, 0)).unwrap().unwrap();
        assert_eq!((piece.consumed, piece.payload.clone()), (8, 8..8));
        assert!(piece.end_of_packet && piece.end_of_message);
        assert!(walker.is_at_boundary() && !walker.in_message());
    }

    #[test]
    fn a_header_may_arrive_byte_by_byte() {
        let bytes = packet(0, 3);
        let mut walker = PacketWalker::new(4096);
        for byte in &bytes[..7] {
            assert_eq!(walker.next(&[*byte]), Ok(None));
            assert!(!walker.is_at_boundary());
        }
        let piece = walker.next(&bytes[7..]).unwrap().unwrap();
        assert_eq!((piece.consumed, piece.payload), (4, 1..4));
        assert!(piece.end_of_packet && !piece.end_of_message);
        assert!(walker.is_at_boundary() && walker.in_message());
    }

    /// What a walk saw, independent of the chunks it saw it in.
    fn walk(chunks: &[&[u8]]) -> (Vec<PacketHeader>, Vec<u8>, Vec<usize>, Vec<usize>) {
        let mut walker = PacketWalker::new(4096);
        let (mut headers, mut payload, mut packets, mut messages) = (vec![], vec![], vec![], vec![]);
        let mut offset = 0;
        for chunk in chunks {
            let mut at = 0;
            while let Some(piece) = walker.next(&chunk[at..]).unwrap() {
                headers.extend(piece.header);
                payload.extend_from_slice(&chunk[at..][piece.payload]);
                at += piece.consumed;
                packets.extend(piece.end_of_packet.then_some(offset + at));
                messages.extend(piece.end_of_message.then_some(offset + at));
            }
            offset += chunk.len();
        }
        (headers, payload, packets, messages)
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_result(
            packets in prop::collection::vec((0u8..4, 0usize..100), 0..8),
            cuts in prop::collection::vec(0usize..900, 0..20),
        ) {
            let stream: Vec<u8> = packets.iter().flat_map(|&(status, len)| packet(status, len)).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
            let found = walk(&chunks);
            prop_assert_eq!(&found, &walk(&[&stream]));
            prop_assert_eq!(found.0.len(), packets.len());
            prop_assert_eq!(found.1.len() + HEADER_LEN * packets.len(), stream.len());
        }
    }
}
