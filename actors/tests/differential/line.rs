//! One client's connection: logs in as its driver does, sends requests packet by packet, reads whole responses.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use tds::Dialect;
use tds::encryption::ServerTls;
use tds::handshake::{Connect, ConnectPolicy, ConnectStep};
use tds::login_response::{self, LoginOutcome, LoginResponse};
use tds::login7::Login7;
use tds::message::{MessageReader, write_message};
use tds::packet::{HEADER_LEN, MAX_PACKET_SIZE, PacketType, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// No wait is longer, on a busy machine either: in session pooling a client waits until others have played their scripts.
pub const PATIENCE: Duration = Duration::from_secs(960);

/// The longest response, in bytes.
const MAX_RESPONSE: usize = 64 << 20;

#[derive(Debug)]
pub struct Line {
    socket: TcpStream,
    input: BytesMut,
    reader: MessageReader,
    pub dialect: Dialect,
    packet_size: usize,
    pub login: LoginResponse,
}

impl Line {
    pub async fn connect(address: SocketAddr, login: &Login7, without_prelogin: bool) -> io::Result<Self> {
        let mut socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let mut input = BytesMut::new();
        let payload = if without_prelogin {
            let (mut payload, mut out) = (BytesMut::new(), BytesMut::new());
            login.encode(&mut payload);
            write_message(&mut out, PacketType::LOGIN7, Status::NORMAL, 0, 4096, &payload);
            socket.write_all(&out).await?;
            let mut reader = MessageReader::new(MAX_PACKET_SIZE, MAX_RESPONSE);
            loop {
                if let Some(message) = reader.read(&mut input).map_err(io::Error::other)? {
                    break message.payload;
                }
                fill(&mut socket, &mut input).await?;
            }
        } else {
            shake_hands(&mut socket, &mut input, login).await?
        };
        match login_response::read(&payload, login.tds_version).map_err(io::Error::other)? {
            LoginOutcome::Accepted(response) => Ok(Self {
                socket,
                input,
                reader: MessageReader::new(MAX_PACKET_SIZE, MAX_RESPONSE),
                dialect: Dialect::of(response.ack.tds_version),
                packet_size: response.packet_size.unwrap_or(4096),
                login: *response,
            }),
            LoginOutcome::Refused(errors) => Err(io::Error::other(format!("login refused: {errors:?}"))),
            LoginOutcome::Continue(_) => Err(io::Error::other("the login asks for more")),
        }
    }

    pub async fn send(&mut self, kind: PacketType, status: Status, payload: &[u8]) -> io::Result<()> {
        let mut out = BytesMut::new();
        write_message(&mut out, kind, status, 0, self.packet_size, payload);
        self.socket.write_all(&out).await
    }

    /// Sends a message whose last packet takes it back ([MS-TDS] 2.2.1.7).
    pub async fn send_withdrawn(&mut self, kind: PacketType, payload: &[u8]) -> io::Result<()> {
        let mut out = BytesMut::new();
        write_message(&mut out, kind, Status::NORMAL, 0, self.packet_size, payload);
        let packets = (out.len() - 1) / self.packet_size;
        // Packets are full but for the last.
        let last = packets * self.packet_size;
        debug_assert!(last + HEADER_LEN <= out.len());
        out[last + 1] |= Status::IGNORE.0;
        self.socket.write_all(&out).await
    }

    /// The next whole message, without packet headers.
    pub async fn receive(&mut self) -> io::Result<BytesMut> {
        let reading = async {
            loop {
                if let Some(message) = self.reader.read(&mut self.input).map_err(io::Error::other)? {
                    return Ok(message.payload);
                }
                fill(&mut self.socket, &mut self.input).await?;
            }
        };
        match tokio::time::timeout(PATIENCE, reading).await {
            Ok(read) => read,
            Err(_) => Err(io::Error::other(format!("no answer within {PATIENCE:?}"))),
        }
    }
}

async fn fill(socket: &mut TcpStream, input: &mut BytesMut) -> io::Result<()> {
    input.reserve(16 * 1024);
    match socket.read_buf(input).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

async fn shake_hands(socket: &mut TcpStream, input: &mut BytesMut, login: &Login7) -> io::Result<BytesMut> {
    let policy = ConnectPolicy { tls: ServerTls::Never, ..ConnectPolicy::default() };
    let mut connect = Connect::new(policy, login);
    let mut out = BytesMut::new();
    loop {
        let (next, step) = connect.step(input, &mut out).map_err(io::Error::other)?;
        connect = next;
        socket.write_all(&out).await?;
        out.clear();
        match step {
            ConnectStep::NeedBytes => fill(socket, input).await?,
            ConnectStep::Response { message, .. } => return Ok(message.payload),
            step => return Err(io::Error::other(format!("unexpected {step:?}"))),
        }
    }
}
