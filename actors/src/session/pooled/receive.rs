//! Takes a client's request in as far as it is looked at before anything of it is sent.

use bytes::Buf;
use tds::Malformed;
use tds::packet::{HEADER_LEN, MAX_PACKET_SIZE, PacketType, PacketWalker, Status};

use super::super::client_conn::ClientIo;
use super::super::serve::{End, Session, protocol};

/// How much of a request is looked at before anything of it is sent, in chunks.
const LOOK_AHEAD: usize = 4;

/// A request at the front of the client's input.
pub(crate) struct Incoming {
    pub(crate) kind: PacketType,
    /// The first packet's.
    pub(crate) status: Status,
    /// Its bytes that are there.
    pub(crate) len: usize,
    /// All of it is there.
    pub(crate) whole: bool,
    /// All of it is there, and it is one packet.
    single: bool,
    /// The client has withdrawn it itself ([MS-TDS] 2.2.1.7).
    pub(crate) ignored: bool,
    /// Follows the packets behind `len`.
    pub(crate) walker: PacketWalker,
}

/// Puts the payload of packets, which were walked over before without an error, behind what is in `out`.
pub(super) fn put_payload(packets: &[u8], out: &mut Vec<u8>) {
    let mut walker = PacketWalker::new(MAX_PACKET_SIZE);
    let mut at = 0;
    while let Ok(Some(piece)) = walker.next(&packets[at..]) {
        out.extend_from_slice(&packets[at..][piece.payload.clone()]);
        at += piece.consumed;
    }
}

pub(crate) enum Received {
    Request(Incoming),
    /// It was broken off by an attention in its middle; both are consumed.
    Withdrawn,
}

impl Incoming {
    /// The payload that is there, without packet headers.
    pub(crate) fn payload<'a>(&self, input: &'a [u8], scratch: &'a mut Vec<u8>) -> &'a [u8] {
        if self.single {
            return input.get(HEADER_LEN..self.len).unwrap_or_default();
        }
        scratch.clear();
        put_payload(&input[..self.len], scratch);
        scratch
    }

    /// Takes the request out of the input: no server hears of it.
    pub(crate) fn consume(&self, io: &mut ClientIo) -> Result<(), Malformed> {
        let bytes = io.link.input.split_to(self.len);
        if let Some(exchange) = &mut io.exchange {
            exchange.sent(&bytes)?;
            exchange.forget_server();
        }
        Ok(())
    }
}

impl Session<'_> {
    /// Reads the request that begins at the front of the input: to its end, or as much as is read at once.
    pub(crate) async fn receive(&self, io: &mut ClientIo) -> Result<Received, End> {
        let limits = &self.context.config.limits;
        let mut walker = PacketWalker::new(limits.max_packet);
        let (mut at, mut packets) = (0, 0);
        let (mut first, mut last) = (None, Status::NORMAL);
        loop {
            while let Some(piece) = walker.next(&io.link.input[at..]).map_err(protocol)? {
                at += piece.consumed;
                if let Some(header) = piece.header {
                    packets += 1;
                    last = header.status;
                    let (kind, _) = *first.get_or_insert((header.kind, header.status));
                    if header.kind == PacketType::ATTENTION && kind != PacketType::ATTENTION {
                        io.link.input.advance(at);
                        return Ok(Received::Withdrawn);
                    }
                    if header.kind != kind {
                        let what = header.kind.name();
                        return Err(protocol(Malformed::Unexpected {
                            what,
                            state: "in the middle of a request",
                        }));
                    }
                }
                if piece.end_of_message {
                    let Some((kind, status)) = first else { break };
                    let (single, ignored) = (packets == 1, last.contains(Status::IGNORE));
                    let incoming = Incoming { kind, status, len: at, whole: true, single, ignored, walker };
                    return Ok(Received::Request(incoming));
                }
            }
            if let Some((kind, status)) = first
                && io.link.input.len() >= LOOK_AHEAD * self.context.chunk()
            {
                let len = io.link.input.len();
                let incoming =
                    Incoming { kind, status, len, whole: false, single: false, ignored: false, walker };
                return Ok(Received::Request(incoming));
            }
            // The beginning of a header was walked over, too.
            at = io.link.input.len();
            self.fill(io).await?;
        }
    }
}
