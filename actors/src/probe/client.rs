//! One connection to the server in question: logs in, sends requests by hand, reads whole responses.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rustls::ClientConfig;
use tds::feature::{Feature, FeatureId};
use tds::handshake::{ConnectPolicy, HandshakeError};
use tds::login_response::{self, LoginOutcome, LoginResponse};
use tds::login7::{Login7, Password};
use tds::message::{MessageReader, write_message};
use tds::packet::{DEFAULT_PACKET_SIZE, HEADER_LEN, MAX_PACKET_SIZE, PacketType, Status};
use tds::request::{AllHeaders, SqlBatch, TransactionRequest};
use tds::rpc::{Parameter, ProcId, Procedure, RpcRequest};
use tds::scan::{Event, ResponseScanner};
use tds::server_message::ServerMessage;
use tds::{Dialect, Malformed, TdsVersion};
use tdsbouncer_config::{Secret, ServerTls, ServerTlsMode};
use tokio::net::TcpStream;

use super::answer::Answer;
use crate::wire::{self, CertificateError, Link, Socket, TlsError, TlsRole};

/// Bytes read at once; answers are small.
const CHUNK: usize = 4096;
/// No answer to a check is longer, in bytes.
const MAX_ANSWER: usize = 1 << 20;
/// How often a server may send us on to another one.
const MAX_ROUTES: usize = 4;

/// Which server to ask, and as whom.
#[derive(Debug, Clone)]
pub struct Target {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// A SQL login; an ordinary one will do.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// The database to log in to; empty: the login's own.
    pub database: String,
    /// How to encrypt, and whose certificate to believe.
    pub tls: ServerTls,
    /// The longest wait for a connection, a login or an answer.
    pub patience: Duration,
}

/// Why a conversation with the server came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The server cannot be reached, or the connection broke.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The server ended the connection.
    #[error("the server closed the connection")]
    Closed,
    /// No answer in time.
    #[error("no answer within {}", tdsbouncer_config::show_duration(*.0))]
    Silence(Duration),
    /// The server will not have this login.
    #[error("the server refused the login: {}", said(.0))]
    Refused(Vec<ServerMessage>),
    /// The server asks for a domain's or an identity provider's proof.
    #[error("the server asks for more than a password")]
    MoreThanPassword,
    /// The server and the probe could not agree on encryption.
    #[error("no agreement before the login: {0}")]
    Handshake(String),
    /// The certificate is not believed, or TLS failed.
    #[error("TLS: {0}")]
    Tls(String),
    /// A response that cannot be read.
    #[error("the answer cannot be read: {0}")]
    Malformed(#[from] Malformed),
    /// The server refused what a check needs.
    #[error("error {number}: {text}")]
    Error {
        /// The error's number.
        number: i32,
        /// What the server says about it.
        text: String,
    },
    /// A server that sends us on and on.
    #[error("sent on to another server more than {MAX_ROUTES} times")]
    RoutedInCircles,
}

fn said(messages: &[ServerMessage]) -> String {
    let error = messages.iter().find(|message| message.is_error).or(messages.first());
    error.map_or_else(
        || "no reason given".to_owned(),
        |error| format!("error {}: {}", error.number, error.text),
    )
}

impl From<HandshakeError> for Trouble {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::Peer(malformed) => Self::Malformed(malformed),
            other => Self::Handshake(other.to_string()),
        }
    }
}

impl From<TlsError> for Trouble {
    fn from(error: TlsError) -> Self {
        Self::Tls(error.to_string())
    }
}

impl From<CertificateError> for Trouble {
    fn from(error: CertificateError) -> Self {
        Self::Tls(error.to_string())
    }
}

/// How one connection differs from the others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    pub(super) version: TdsVersion,
    pub(super) session_recovery: bool,
}

impl Default for Wish {
    fn default() -> Self {
        Self { version: TdsVersion::V7_4, session_recovery: false }
    }
}

/// TLS towards the target, prepared once.
#[derive(Clone)]
pub(super) struct Tls(Arc<ClientConfig>);

impl Tls {
    pub(super) fn of(settings: &ServerTls) -> Result<Self, Trouble> {
        let mut settings = settings.clone();
        // As in a bucket: without encryption a server that insists still gets TLS for the login, unverified.
        settings.trust_server_certificate |= settings.mode == ServerTlsMode::Off;
        Ok(Self(wire::client_config(&settings)?))
    }
}

/// A logged-in connection.
pub(super) struct Client {
    link: Link,
    reader: MessageReader,
    scanner: ResponseScanner,
    /// What the scanner, which the proxy trusts, could not follow.
    pub(super) lost: Option<String>,
    pub(super) dialect: Dialect,
    pub(super) packet_size: usize,
    /// The descriptor of the open transaction, as the server signalled it.
    pub(super) transaction: u64,
    pub(super) login: Box<LoginResponse>,
    patience: Duration,
}

/// A socket to the target, nothing said yet.
pub(super) async fn connect(target: &Target, host: &str, port: u16) -> Result<Link, Trouble> {
    let socket = within(target.patience, async { Ok(TcpStream::connect((host, port)).await?) }).await?;
    socket.set_nodelay(true)?;
    Ok(Link::new(Socket::Tcp(socket)))
}

pub(super) async fn within<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, Trouble> {
    tokio::time::timeout(patience, work).await.unwrap_or(Err(Trouble::Silence(patience)))
}

pub(super) fn role(target: &Target, tls: &Tls, host: &str) -> Result<TlsRole, Trouble> {
    Ok(TlsRole::Client(Arc::clone(&tls.0), wire::server_name(&target.tls, host)?))
}

impl Client {
    pub(super) async fn log_in(target: &Target, tls: &Tls, wish: Wish) -> Result<Self, Trouble> {
        let (mut host, mut port) = (target.host.clone(), target.port);
        for _ in 0..=MAX_ROUTES {
            let mut link = connect(target, &host, port).await?;
            let payload = within(target.patience, shake_hands(target, tls, wish, &host, &mut link)).await?;
            let login = match login_response::read(&payload, wish.version)? {
                LoginOutcome::Accepted(login) => login,
                LoginOutcome::Refused(messages) => return Err(Trouble::Refused(messages)),
                LoginOutcome::Continue(_) => return Err(Trouble::MoreThanPassword),
            };
            if let Some(route) = &login.routing {
                (host, port) = (route.host.clone(), route.port);
                continue;
            }
            let dialect = Dialect::of_login(login.ack.tds_version, &login.features);
            return Ok(Self {
                link,
                reader: MessageReader::new(MAX_PACKET_SIZE, MAX_ANSWER),
                scanner: ResponseScanner::new(dialect),
                lost: None,
                dialect,
                packet_size: login.packet_size.unwrap_or(DEFAULT_PACKET_SIZE),
                transaction: 0,
                login,
                patience: target.patience,
            });
        }
        Err(Trouble::RoutedInCircles)
    }

    /// Sends bytes as they are, in one write.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.link.queue(bytes);
        within(self.patience, async { Ok(self.link.flush().await?) }).await
    }

    /// The next whole response.
    pub(super) async fn receive(&mut self) -> Result<Answer, Trouble> {
        let patience = self.patience;
        let message = within(patience, async {
            loop {
                if let Some(message) = self.reader.read(&mut self.link.input)? {
                    return Ok(message);
                }
                if self.link.fill(CHUNK).await? == 0 {
                    return Err(Trouble::Closed);
                }
            }
        })
        .await?;
        self.follow(&message.payload);
        let answer = Answer::read(&message.payload, self.dialect)?;
        self.transaction = answer.transaction(self.transaction);
        Ok(answer)
    }

    /// What the proxy would make of the response.
    fn follow(&mut self, payload: &[u8]) {
        self.scanner.restart();
        let lost = &mut self.lost;
        self.scanner.feed(payload, |scanned| {
            if let Event::Lost(why) = scanned.event {
                lost.get_or_insert_with(|| why.to_string());
            }
        });
        if !self.scanner.is_between_tokens() && !self.scanner.is_lost() {
            self.lost.get_or_insert_with(|| "a response ends inside a token".to_owned());
        }
    }

    /// The packets of a batch; `status` goes into the first.
    pub(super) fn batch_packets(&self, text: &str, status: Status) -> BytesMut {
        // A reset ends the transaction, so the request that asks for it is in none.
        let is_reset = status.contains(Status::RESET_CONNECTION);
        let headers = AllHeaders::in_transaction(if is_reset { 0 } else { self.transaction });
        let mut payload = BytesMut::new();
        SqlBatch { headers: Some(headers), ..SqlBatch::new(text) }.write(&mut payload, self.dialect);
        self.packets(PacketType::SQL_BATCH, status, &payload)
    }

    pub(super) fn packets(&self, kind: PacketType, status: Status, payload: &[u8]) -> BytesMut {
        let mut packets = BytesMut::new();
        write_message(&mut packets, kind, status, 0, self.packet_size, payload);
        packets
    }

    /// Runs a batch; its errors are in the answer.
    pub(super) async fn batch(&mut self, text: &str) -> Result<Answer, Trouble> {
        self.batch_with(text, Status::NORMAL).await
    }

    pub(super) async fn batch_with(&mut self, text: &str, status: Status) -> Result<Answer, Trouble> {
        let packets = self.batch_packets(text, status);
        self.write(&packets).await?;
        self.receive().await
    }

    /// Runs a batch that must succeed.
    pub(super) async fn run(&mut self, text: &str) -> Result<Answer, Trouble> {
        let answer = self.batch(text).await?;
        match answer.error() {
            None => Ok(answer),
            Some(error) => Err(Trouble::Error { number: error.number, text: error.text.clone() }),
        }
    }

    /// The first cell that a query answers.
    pub(super) async fn cell(&mut self, query: &str) -> Result<String, Trouble> {
        Ok(self.run(query).await?.cell().unwrap_or_else(|| "nothing".to_owned()))
    }

    pub(super) async fn transaction(&mut self, request: &TransactionRequest) -> Result<Answer, Trouble> {
        let mut payload = BytesMut::new();
        request.write(&mut payload, &AllHeaders::in_transaction(self.transaction), self.dialect);
        let packets = self.packets(PacketType::TRANSACTION_MANAGER, Status::NORMAL, &payload);
        self.write(&packets).await?;
        self.receive().await
    }

    pub(super) async fn call(
        &mut self,
        procedure: ProcId,
        parameters: Vec<Parameter>,
    ) -> Result<Answer, Trouble> {
        let headers = Some(AllHeaders::in_transaction(self.transaction));
        let request = RpcRequest { headers, ..RpcRequest::one(Procedure::Id(procedure), parameters) };
        let mut payload = BytesMut::new();
        let unfit = |error: tds::value::Unfit| Trouble::Io(io::Error::other(error.to_string()));
        request.write(&mut payload, self.dialect).map_err(unfit)?;
        let packets = self.packets(PacketType::RPC, Status::NORMAL, &payload);
        self.write(&packets).await?;
        self.receive().await
    }

    pub(super) fn attention_packets(&self) -> BytesMut {
        self.packets(PacketType::ATTENTION, Status::NORMAL, &[])
    }

    /// A batch that is broken off with its last packet: END_OF_MESSAGE and IGNORE ([MS-TDS] 2.2.1.7).
    pub(super) fn withdrawn_packets(&self, text: &str) -> BytesMut {
        // Longer than a packet: the request has begun when it is withdrawn.
        let text = format!("{text}{}", " ".repeat(self.packet_size));
        let mut packets = self.batch_packets(&text, Status::NORMAL);
        let mut at = 0;
        while let Some(&[high, low]) = packets.get(at + 2..at + 4) {
            let next = at + usize::from(u16::from_be_bytes([high, low])).max(HEADER_LEN);
            if next >= packets.len() {
                packets[at + 1] |= Status::IGNORE.0;
            }
            at = next;
        }
        packets
    }
}

/// Everything up to the server's answer to LOGIN7.
async fn shake_hands(
    target: &Target,
    tls: &Tls,
    wish: Wish,
    host: &str,
    link: &mut Link,
) -> Result<BytesMut, Trouble> {
    let mut login = Login7 {
        tds_version: wish.version,
        user_name: target.user.clone(),
        password: Password::new(target.password.expose()),
        app_name: "tdsbouncer probe".to_owned(),
        server_name: target.host.clone(),
        interface_name: "tdsbouncer".to_owned(),
        database: target.database.clone(),
        ..Login7::default()
    };
    if wish.session_recovery {
        login.features.push(Feature { id: FeatureId::SESSION_RECOVERY, data: bytes::Bytes::new() });
    }
    let policy = ConnectPolicy { tls: wire::offer(target.tls.mode), ..ConnectPolicy::default() };
    let answer = wire::log_in(link, policy, &login, || role(target, tls, host)).await?;
    Ok(answer.ok_or(Trouble::Closed)?.message.payload)
}
