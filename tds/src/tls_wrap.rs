//! How the TLS handshake of TDS 7.x travels: its bytes are the contents of PRELOGIN packets ([MS-TDS] 2.2.6.5).

use bytes::{BufMut, BytesMut};

use crate::Malformed;
use crate::packet::{DEFAULT_PACKET_SIZE, HEADER_LEN, PacketHeader, PacketType, PacketWalker, Status};

/// One end of a wrapped TLS handshake. It ends with the handshake: TLS records after it stand alone.
///
/// Before TDS 7.2 servers may answer in response packets (type 4), so both types are taken.
#[derive(Clone, Debug)]
pub struct Wrapped {
    walker: PacketWalker,
}

impl Default for Wrapped {
    fn default() -> Self {
        Self::new()
    }
}

impl Wrapped {
    /// Before the first packet of the handshake.
    pub fn new() -> Self {
        Self { walker: PacketWalker::new(DEFAULT_PACKET_SIZE) }
    }

    /// Moves the TLS bytes of `input`'s packets to `tls`, in any chunking. Stops after each message and leaves what
    /// follows in `input`: the last message of the handshake may be followed by bytes that are no longer wrapped.
    /// Call again to go on; nothing moves once `input` holds no more.
    pub fn unwrap(&mut self, input: &mut BytesMut, tls: &mut BytesMut) -> Result<(), Malformed> {
        loop {
            let Some(piece) = self.walker.next(input)? else {
                input.clear();
                return Ok(());
            };
            if let Some(header) = piece.header
                && !matches!(header.kind, PacketType::PRELOGIN | PacketType::RESPONSE)
            {
                return Err(Malformed::Unexpected { what: header.kind.name(), state: "in a TLS handshake" });
            }
            let packet = input.split_to(piece.consumed);
            tls.put_slice(&packet[piece.payload]);
            if piece.end_of_message {
                return Ok(());
            }
        }
    }

    /// True between two packets: what comes next may be unwrapped TLS.
    pub fn is_at_boundary(&self) -> bool {
        self.walker.is_at_boundary()
    }

    /// Appends `tls` to `out` as one PRELOGIN message of packets of at most 4,096 bytes; nothing if it is empty.
    pub fn wrap(tls: &[u8], out: &mut BytesMut) {
        let mut chunks = tls.chunks(DEFAULT_PACKET_SIZE - HEADER_LEN).peekable();
        let mut id = 1u8;
        while let Some(chunk) = chunks.next() {
            let header = PacketHeader {
                kind: PacketType::PRELOGIN,
                status: if chunks.peek().is_some() { Status::NORMAL } else { Status::END_OF_MESSAGE },
                // At most DEFAULT_PACKET_SIZE.
                length: u16::try_from(chunk.len() + HEADER_LEN).unwrap_or(u16::MAX),
                spid: 0,
                id,
                window: 0,
            };
            out.put_slice(&header.encode());
            out.put_slice(chunk);
            id = id.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_handshake_record_is_the_contents_of_a_prelogin_packet() {
        let mut out = BytesMut::new();
        Wrapped::wrap(&[0x16, 3, 1, 0], &mut out);
        assert_eq!(out[..], [0x12, 1, 0, 12, 0, 0, 1, 0, 0x16, 3, 1, 0]);
        out.clear();
        Wrapped::wrap(&[], &mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn what_follows_the_last_message_is_left_alone() {
        let mut input = BytesMut::new();
        Wrapped::wrap(&[1, 2, 3], &mut input);
        input.extend_from_slice(&[0x17, 3, 3, 0, 1]);
        let mut tls = BytesMut::new();
        Wrapped::new().unwrap(&mut input, &mut tls).unwrap();
        assert_eq!((&tls[..], &input[..]), (&[1, 2, 3][..], &[0x17, 3, 3, 0, 1][..]));
    }

    #[test]
    fn another_packet_inside_the_handshake_is_refused() {
        let mut input = BytesMut::from(&[0x10, 1, 0, 9, 0, 0, 1, 0, 0][..]);
        let refused = Wrapped::new().unwrap(&mut input, &mut BytesMut::new());
        assert!(matches!(refused, Err(Malformed::Unexpected { what: "login", .. })));
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_bytes(
            flights in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9000), 0..4),
            chunk in 1usize..5000,
        ) {
            let mut stream = BytesMut::new();
            for flight in &flights {
                Wrapped::wrap(flight, &mut stream);
            }
            let mut wrapped = Wrapped::new();
            let (mut input, mut tls) = (BytesMut::new(), BytesMut::new());
            for bytes in stream.chunks(chunk) {
                input.extend_from_slice(bytes);
                while !input.is_empty() {
                    wrapped.unwrap(&mut input, &mut tls).unwrap();
                }
            }
            prop_assert!(wrapped.is_at_boundary());
            prop_assert_eq!(&tls[..], &flights.concat()[..]);
        }
    }
}
