//! Bytes without a client: what a stranger, a broken driver or an attacker sends.

use std::net::SocketAddr;

use bytes::BytesMut;
use tds::encryption::ServerTls;
use tds::handshake::{Connect, ConnectPolicy};
use tds::message::{MessageReader, write_message};
use tds::packet::{PacketType, Status};
use tds::server_message::ServerMessage;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{PATIENCE, Who, read_response};

pub async fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).await.expect("somebody listens");
    socket.set_nodelay(true).expect("it is a TCP socket");
    socket
}

/// Sends, if the other side still takes it.
pub async fn send(socket: &mut TcpStream, bytes: &[u8]) {
    // Closed already: reading tells.
    let _ = socket.write_all(bytes).await;
}

/// Says that nothing more will come.
pub async fn hang_up(socket: &mut TcpStream) {
    // Closed already: reading tells.
    let _ = socket.shutdown().await;
}

/// Reads until the other side ends the connection, in whatever way. Fails the test if it never does.
pub async fn until_ended(socket: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    let reading = async { while let Ok(1..) = socket.read_buf(&mut all).await {} };
    assert!(tokio::time::timeout(PATIENCE, reading).await.is_ok(), "still open after {PATIENCE:?}");
    all
}

/// Reads until so many messages have come, or the connection ends.
pub async fn messages(socket: &mut TcpStream, wanted: usize) {
    let (mut reader, mut input) = (MessageReader::new(32_767, 1 << 20), BytesMut::new());
    let mut seen = 0;
    let reading = async {
        while seen < wanted {
            while let Ok(Some(_)) = reader.read(&mut input) {
                seen += 1;
            }
            if seen >= wanted || !matches!(socket.read_buf(&mut input).await, Ok(1..)) {
                return;
            }
        }
    };
    assert!(tokio::time::timeout(PATIENCE, reading).await.is_ok(), "no answer within {PATIENCE:?}");
}

/// The errors in responses as a client of TDS 7.4 receives them.
pub fn errors(bytes: &[u8]) -> Vec<ServerMessage> {
    let (mut reader, mut input) = (MessageReader::new(32_767, 1 << 20), BytesMut::from(bytes));
    let mut errors = Vec::new();
    while let Ok(Some(message)) = reader.read(&mut input) {
        errors.extend(read_response(&message.payload, tds::TdsVersion::V7_4.into()).errors);
    }
    errors
}

/// A PRELOGIN message.
pub fn prelogin(tls: ServerTls) -> Vec<u8> {
    let policy = ConnectPolicy { tls, ..ConnectPolicy::default() };
    let mut out = BytesMut::new();
    let begun = Connect::new(policy, &Who::default().login()).step(&mut BytesMut::new(), &mut out);
    assert!(begun.is_ok());
    out.to_vec()
}

/// A LOGIN7 message.
pub fn login(who: &Who) -> Vec<u8> {
    let (mut payload, mut out) = (BytesMut::new(), BytesMut::new());
    who.login().encode(&mut payload);
    write_message(&mut out, PacketType::LOGIN7, Status::NORMAL, 0, 4096, &payload);
    out.to_vec()
}

/// One packet, which may lie about its length.
pub fn packet(kind: u8, status: u8, length: u16, payload: &[u8]) -> Vec<u8> {
    let [l1, l0] = length.to_be_bytes();
    [&[kind, status, l1, l0, 0, 0, 1, 0], payload].concat()
}

/// Numbers that are the same in every run.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % limit
    }

    pub fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).expect("below 256")
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.byte()).collect()
    }
}
