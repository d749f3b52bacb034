//! One light TDS client: it logs in, sends requests, reads whole answers, and holds no buffer while it is idle.

mod answer;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::BytesMut;
use tds::encryption::ServerTls;
use tds::handshake::{Connect, ConnectPolicy, ConnectStep};
use tds::login_response::{self, LoginOutcome};
use tds::login7::{Login7, Password};
use tds::message::{MessageReader, write_message};
use tds::packet::{PacketType, Status};
use tds::request::{AllHeaders, SqlBatch, TransactionRequest};
use tds::rpc::{Parameter, Procedure, RpcRequest};
use tds::server_message::ServerMessage;
use tds::{Dialect, TdsVersion};
use tokio::net::TcpSocket;

use crate::wire::Wire;
pub use answer::Answer;

/// The longest answer that is taken, in bytes.
const MAX_ANSWER: usize = 1 << 30;

/// Why a client could not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers at the address.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// The connection broke.
    #[error("connection lost: {0}")]
    Lost(io::Error),
    /// The other side does not speak TDS as we know it.
    #[error("protocol: {0}")]
    Protocol(String),
    /// The login was refused.
    #[error("login refused: {}", first_text(.0))]
    Refused(Vec<ServerMessage>),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
}

fn first_text(messages: &[ServerMessage]) -> String {
    let first = messages.iter().find(|message| message.is_error);
    first.map_or_else(
        || "without a reason".to_owned(),
        |message| format!("{} {}", message.number, message.text),
    )
}

impl ClientError {
    /// The number of the refusal's first error, if that is what it was.
    pub fn number(&self) -> Option<i32> {
        match self {
            Self::Refused(messages) => messages.iter().find(|m| m.is_error).map(|m| m.number),
            _ => None,
        }
    }

    /// A short word for tables of errors.
    pub fn label(&self) -> String {
        match self {
            Self::Connect(_) => "cannot connect".to_owned(),
            Self::Lost(_) => "connection lost".to_owned(),
            Self::Protocol(_) => "protocol".to_owned(),
            Self::Refused(_) => self.number().map_or_else(|| "refused".to_owned(), |n| n.to_string()),
            Self::TimedOut(_) => "timed out".to_owned(),
        }
    }
}

/// Who logs in, where and how.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where to connect.
    pub address: SocketAddr,
    /// The address to connect from: each gives some 28,000 more connections to one port.
    pub source: Option<IpAddr>,
    /// Encryption.
    pub tls: ServerTls,
    /// The login's name.
    pub user: String,
    /// Its password.
    pub password: String,
    /// The initial database.
    pub database: String,
    /// The application's name, as servers and proxies show it.
    pub application: String,
    /// The packet size to ask for, in bytes.
    pub packet_size: u32,
    /// The longest wait for a login and for each answer.
    pub patience: Duration,
}

impl Target {
    /// A login without encryption, with 60 s of patience.
    pub fn new(address: SocketAddr, user: &str, password: &str, database: &str) -> Self {
        Self {
            address,
            source: None,
            tls: ServerTls::Never,
            user: user.to_owned(),
            password: password.to_owned(),
            database: database.to_owned(),
            application: "tdsbouncer loadgen".to_owned(),
            packet_size: 4096,
            patience: Duration::from_secs(60),
        }
    }

    fn login(&self) -> Login7 {
        Login7 {
            packet_size: self.packet_size,
            host_name: "loadgen".to_owned(),
            user_name: self.user.clone(),
            password: Password::new(&self.password),
            app_name: self.application.clone(),
            server_name: self.address.ip().to_string(),
            interface_name: "loadgen".to_owned(),
            database: self.database.clone(),
            ..Login7::default()
        }
    }
}

/// A logged-in connection.
pub struct Client {
    wire: Wire,
    reader: MessageReader,
    dialect: Dialect,
    packet_size: usize,
    transaction: u64,
    patience: Duration,
}

impl Client {
    /// Connects and logs in.
    pub async fn connect(target: &Target) -> Result<Self, ClientError> {
        match tokio::time::timeout(target.patience, Self::log_in(target)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ClientError::TimedOut(target.patience)),
        }
    }

    async fn log_in(target: &Target) -> Result<Self, ClientError> {
        let mut wire = Wire::new(open(target).await.map_err(ClientError::Connect)?);
        let policy = ConnectPolicy { tls: target.tls, ..ConnectPolicy::default() };
        let mut connect = Connect::new(policy, &target.login());
        let mut out = BytesMut::new();
        loop {
            let (next, step) = connect.step(&mut wire.input, &mut out).map_err(protocol)?;
            connect = next;
            wire.send(&out).await.map_err(ClientError::Lost)?;
            out.clear();
            match step {
                ConnectStep::NeedBytes => wire.receive().await.map_err(ClientError::Lost)?,
                ConnectStep::StartTls(framing) => {
                    wire.start_tls(framing).await.map_err(ClientError::Lost)?;
                    connect = connect.tls_established().map_err(protocol)?;
                }
                ConnectStep::EndTls => wire.end_tls(),
                ConnectStep::Response { message, .. } => {
                    let outcome =
                        login_response::read(&message.payload, TdsVersion::V7_4).map_err(protocol)?;
                    return match outcome {
                        LoginOutcome::Accepted(response) => Ok(Self {
                            wire,
                            reader: MessageReader::new(32_767, MAX_ANSWER),
                            dialect: Dialect::of(response.ack.tds_version),
                            packet_size: response.packet_size.unwrap_or(4096),
                            transaction: 0,
                            patience: target.patience,
                        }),
                        LoginOutcome::Refused(messages) => Err(ClientError::Refused(messages)),
                        LoginOutcome::Continue(_) => Err(ClientError::Protocol("asked for more".to_owned())),
                    };
                }
            }
        }
    }

    /// Runs a batch of T-SQL.
    pub async fn batch(&mut self, text: &str) -> Result<Answer, ClientError> {
        let mut payload = BytesMut::with_capacity(64 + 2 * text.len());
        let batch = SqlBatch { headers: Some(self.headers()), ..SqlBatch::new(text) };
        batch.write(&mut payload, self.dialect);
        self.request(PacketType::SQL_BATCH, &payload).await
    }

    /// Calls a procedure.
    pub async fn call(
        &mut self,
        procedure: Procedure,
        parameters: Vec<Parameter>,
    ) -> Result<Answer, ClientError> {
        let mut payload = BytesMut::new();
        let request = RpcRequest { headers: Some(self.headers()), ..RpcRequest::one(procedure, parameters) };
        request.write(&mut payload, self.dialect).map_err(protocol)?;
        self.request(PacketType::RPC, &payload).await
    }

    /// Begins or ends a transaction without text.
    pub async fn transaction(&mut self, request: &TransactionRequest) -> Result<Answer, ClientError> {
        let mut payload = BytesMut::new();
        request.write(&mut payload, &self.headers(), self.dialect);
        self.request(PacketType::TRANSACTION_MANAGER, &payload).await
    }

    /// Sends a request and passes over its answer without decoding it: the answer's length in bytes, headers included.
    pub async fn skim(&mut self, text: &str) -> Result<u64, ClientError> {
        let mut payload = BytesMut::with_capacity(64 + 2 * text.len());
        SqlBatch { headers: Some(self.headers()), ..SqlBatch::new(text) }.write(&mut payload, self.dialect);
        let patience = self.patience;
        let asking = async {
            self.send(PacketType::SQL_BATCH, &payload).await?;
            self.wire.skim_message().await.map_err(ClientError::Lost)
        };
        match tokio::time::timeout(patience, asking).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ClientError::TimedOut(patience)),
        }
    }

    /// True while a transaction is open, as far as the server said.
    pub fn in_transaction(&self) -> bool {
        self.transaction != 0
    }

    /// Sends bytes that were made beforehand and reads one message without decoding it: for measuring.
    pub async fn exchange(&mut self, packets: &[u8]) -> Result<u64, ClientError> {
        self.wire.send(packets).await.map_err(ClientError::Lost)?;
        self.wire.skim_message().await.map_err(ClientError::Lost)
    }

    /// The packets of a request: for [`Self::exchange`].
    pub fn packets(&self, kind: PacketType, payload: &[u8]) -> BytesMut {
        let mut out = BytesMut::with_capacity(payload.len() + 64);
        write_message(&mut out, kind, Status::NORMAL, 0, self.packet_size, payload);
        out
    }

    /// What the login agreed on.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The headers that a request of this moment carries.
    pub fn headers(&self) -> AllHeaders {
        AllHeaders::in_transaction(self.transaction)
    }

    async fn send(&mut self, kind: PacketType, payload: &[u8]) -> Result<(), ClientError> {
        let packets = self.packets(kind, payload);
        self.wire.send(&packets).await.map_err(ClientError::Lost)
    }

    /// Sends a request's payload and reads its answer.
    pub async fn request(&mut self, kind: PacketType, payload: &[u8]) -> Result<Answer, ClientError> {
        let patience = self.patience;
        let asking = async {
            self.send(kind, payload).await?;
            loop {
                if let Some(message) = self.reader.read(&mut self.wire.input).map_err(protocol)? {
                    return Answer::read(&message.payload, self.dialect).map_err(protocol);
                }
                self.wire.receive().await.map_err(ClientError::Lost)?;
            }
        };
        let answer = match tokio::time::timeout(patience, asking).await {
            Ok(answer) => answer?,
            Err(_) => return Err(ClientError::TimedOut(patience)),
        };
        self.wire.rest();
        if let Some(transaction) = answer.transaction {
            self.transaction = transaction;
        }
        Ok(answer)
    }
}

async fn open(target: &Target) -> io::Result<tokio::net::TcpStream> {
    let socket = if target.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = target.source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = socket.connect(target.address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn protocol(error: impl std::fmt::Display) -> ClientError {
    ClientError::Protocol(error.to_string())
}
