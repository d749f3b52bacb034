//! A small TDS client for tests: it logs in without encryption, sends requests and reads whole responses, and it
//! can send whatever bytes a test wants.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed expectation is a failed test")]
#![allow(unreachable_pub, reason = "one module for many test programs")]

pub mod bad_server;
pub mod raw;
pub mod stage;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use tds::Dialect;
use tds::col_metadata::{ColMetadata, Column};
use tds::done::{Done, DoneKind, DoneStatus};
use tds::encryption::ServerTls;
use tds::env_change::EnvChange;
use tds::feature::Feature;
use tds::handshake::{Connect, ConnectPolicy, ConnectStep};
use tds::login_response::{self, LoginOutcome, LoginResponse};
use tds::login7::{Login7, Password};
use tds::message::{Message, MessageReader, write_message};
use tds::packet::{PacketType, Status};
use tds::read::Reader;
use tds::request::{AllHeaders, SqlBatch};
use tds::return_value::ReturnValue;
use tds::row;
use tds::server_message::ServerMessage;
use tds::token::TokenKind;
use tds::value::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Nothing in these tests takes that long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who logs in.
#[derive(Clone, Debug)]
pub struct Who {
    pub user: String,
    pub password: String,
    pub database: String,
    pub application: String,
    pub version: tds::TdsVersion,
    /// 0 for the server's choice.
    pub packet_size: u32,
    pub features: Vec<Feature>,
}

impl Default for Who {
    fn default() -> Self {
        Self {
            user: "sa".to_owned(),
            password: "Sim-passw0rd".to_owned(),
            database: "shop".to_owned(),
            application: "test".to_owned(),
            version: tds::TdsVersion::V7_4,
            packet_size: 0,
            features: Vec::new(),
        }
    }
}

impl Who {
    pub fn application(name: &str) -> Self {
        Self { application: name.to_owned(), ..Self::default() }
    }

    pub fn login(&self) -> Login7 {
        Login7 {
            tds_version: self.version,
            host_name: "testhost".to_owned(),
            user_name: self.user.clone(),
            password: Password::new(&self.password),
            app_name: self.application.clone(),
            server_name: "testserver".to_owned(),
            interface_name: "tests".to_owned(),
            database: self.database.clone(),
            packet_size: self.packet_size,
            features: self.features.clone(),
            ..Login7::default()
        }
    }
}

/// A logged-in connection.
pub struct Client {
    pub socket: TcpStream,
    input: BytesMut,
    reader: MessageReader,
    pub dialect: Dialect,
    pub response: LoginResponse,
    /// The open transaction, as ALL_HEADERS wants it.
    pub transaction: u64,
}

/// A response, token by token.
#[derive(Clone, Debug, Default)]
pub struct Response {
    pub rows: Vec<Vec<Value>>,
    pub errors: Vec<ServerMessage>,
    pub infos: Vec<ServerMessage>,
    pub changes: Vec<EnvChange>,
    pub dones: Vec<Done>,
    /// Output parameters.
    pub returned: Vec<ReturnValue>,
}

impl Response {
    /// The only value of the only row.
    #[track_caller]
    pub fn value(&self) -> &Value {
        assert!(self.errors.is_empty(), "{:?}", self.errors);
        let [row] = &self.rows[..] else { panic!("one row expected, not {:?}", self.rows) };
        let [value] = &row[..] else { panic!("one column expected, not {row:?}") };
        value
    }

    /// The only value as a number.
    #[track_caller]
    pub fn number(&self) -> i64 {
        self.value().as_i64().unwrap_or_else(|| panic!("a number expected, not {:?}", self.value()))
    }

    /// The number of the first error; 0 without one.
    pub fn error(&self) -> i32 {
        self.errors.first().map_or(0, |error| error.number)
    }

    /// True if the response acknowledges an attention.
    pub fn is_attention(&self) -> bool {
        self.dones.iter().any(|done| done.status.contains(DoneStatus::ATTENTION))
    }
}

/// What came of a login.
pub enum LoggedIn {
    Yes(Box<Client>),
    No(Vec<ServerMessage>),
}

impl Client {
    /// Logs in; anything else is a failed test.
    pub async fn connect(address: SocketAddr, who: &Who) -> Self {
        match Self::try_connect(address, who).await.expect("the connection holds") {
            LoggedIn::Yes(client) => *client,
            LoggedIn::No(errors) => panic!("login refused: {errors:?}"),
        }
    }

    pub async fn refused(address: SocketAddr, who: &Who) -> Vec<ServerMessage> {
        match Self::try_connect(address, who).await.expect("the connection holds") {
            LoggedIn::Yes(_) => panic!("logged in"),
            LoggedIn::No(errors) => errors,
        }
    }

    pub async fn try_connect(address: SocketAddr, who: &Who) -> io::Result<LoggedIn> {
        match tokio::time::timeout(PATIENCE, Self::log_in(address, who)).await {
            Ok(outcome) => outcome,
            Err(_) => panic!("no login within {PATIENCE:?}"),
        }
    }

    async fn log_in(address: SocketAddr, who: &Who) -> io::Result<LoggedIn> {
        let mut socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let policy = ConnectPolicy { tls: ServerTls::Never, ..ConnectPolicy::default() };
        let mut connect = Connect::new(policy, &who.login());
        let (mut input, mut out) = (BytesMut::new(), BytesMut::new());
        loop {
            let (next, step) = connect.step(&mut input, &mut out).map_err(io::Error::other)?;
            connect = next;
            socket.write_all(&out).await?;
            out.clear();
            match step {
                ConnectStep::NeedBytes => {
                    if socket.read_buf(&mut input).await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                ConnectStep::Response { message, .. } => {
                    return match login_response::read(&message.payload, who.version)
                        .map_err(io::Error::other)?
                    {
                        LoginOutcome::Accepted(response) => Ok(LoggedIn::Yes(Box::new(Self {
                            socket,
                            input,
                            reader: MessageReader::new(32_767, 1 << 30),
                            dialect: Dialect::of(response.ack.tds_version),
                            response: *response,
                            transaction: 0,
                        }))),
                        LoginOutcome::Refused(errors) => Ok(LoggedIn::No(errors)),
                        LoginOutcome::Continue(_) => Err(io::Error::other("asked for more")),
                    };
                }
                step => return Err(io::Error::other(format!("unexpected {step:?}"))),
            }
        }
    }

    /// Sends a batch and reads its response.
    pub async fn batch(&mut self, text: &str) -> Response {
        self.try_batch(text).await.unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    pub async fn try_batch(&mut self, text: &str) -> io::Result<Response> {
        self.send_batch(text).await?;
        self.response().await
    }

    pub async fn send_batch(&mut self, text: &str) -> io::Result<()> {
        let mut payload = BytesMut::new();
        let headers = self.dialect.is_7_2_or_later().then(|| AllHeaders::in_transaction(self.transaction));
        let batch = SqlBatch { headers, ..SqlBatch::new(text) };
        batch.write(&mut payload, self.dialect);
        self.send(PacketType::SQL_BATCH, &payload).await
    }

    pub async fn send(&mut self, kind: PacketType, payload: &[u8]) -> io::Result<()> {
        let mut out = BytesMut::new();
        write_message(&mut out, kind, Status::NORMAL, 0, 4096, payload);
        self.send_raw(&out).await
    }

    pub async fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes).await
    }

    /// Asks the server to stop.
    pub async fn attention(&mut self) -> io::Result<()> {
        self.send(PacketType::ATTENTION, &[]).await
    }

    /// Reads what ends a request that an attention stopped: its response, if it still comes, and the
    /// acknowledgement, which may be in it or behind it ([MS-TDS] 3.2.5.9). Returns the request's errors.
    pub async fn acknowledged(&mut self) -> Vec<ServerMessage> {
        let mut errors = Vec::new();
        loop {
            let response = self.response().await.unwrap();
            let acknowledged = response.is_attention();
            errors.extend(response.errors);
            if acknowledged {
                return errors;
            }
        }
    }

    /// Reads one whole response.
    pub async fn response(&mut self) -> io::Result<Response> {
        let message = match tokio::time::timeout(PATIENCE, self.message()).await {
            Ok(message) => message?,
            Err(_) => panic!("no response within {PATIENCE:?}"),
        };
        let response = read_response(&message.payload, self.dialect);
        for change in &response.changes {
            match change {
                EnvChange::BeginTransaction(descriptor) => self.transaction = *descriptor,
                change if change.ends_transaction() => self.transaction = 0,
                _ => {}
            }
        }
        Ok(response)
    }

    async fn message(&mut self) -> io::Result<Message> {
        loop {
            if let Some(message) = self.reader.read(&mut self.input).map_err(io::Error::other)? {
                return Ok(message);
            }
            self.input.reserve(32 * 1024);
            if self.socket.read_buf(&mut self.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Reads until the connection ends, and says how much came.
    pub async fn read_to_end(&mut self) -> io::Result<u64> {
        let mut total = self.input.len() as u64;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match self.socket.read(&mut buffer).await? {
                0 => return Ok(total),
                n => total += n as u64,
            }
        }
    }
}

fn read_response(payload: &[u8], dialect: Dialect) -> Response {
    let mut body = Reader::new(payload, "response");
    let mut response = Response::default();
    let mut columns: Vec<Column> = Vec::new();
    while !body.is_empty() {
        let token = body.u8().expect("a token");
        read_token(TokenKind(token), &mut body, dialect, &mut columns, &mut response);
    }
    response
}

fn read_token(
    token: TokenKind,
    body: &mut Reader<'_>,
    dialect: Dialect,
    columns: &mut Vec<Column>,
    response: &mut Response,
) {
    let version = dialect.version;
    match token {
        TokenKind::COL_METADATA => {
            *columns =
                ColMetadata::read(body, dialect).expect("columns").map_or_else(Vec::new, |meta| meta.columns);
        }
        TokenKind::ROW => response.rows.push(row::read(body, columns).expect("a row")),
        TokenKind::NBC_ROW => response.rows.push(row::read_nbc(body, columns).expect("a row")),
        TokenKind::ERROR => response.errors.push(ServerMessage::read(true, body).expect("an error")),
        TokenKind::INFO => response.infos.push(ServerMessage::read(false, body).expect("an info")),
        TokenKind::ENV_CHANGE => response.changes.push(EnvChange::read(body).expect("a change")),
        TokenKind::ORDER | TokenKind::TAB_NAME | TokenKind::COL_INFO => {
            body.us_varbyte().expect("a list");
        }
        TokenKind::RETURN_VALUE => {
            response.returned.push(ReturnValue::read(body, dialect).expect("an output parameter"));
        }
        TokenKind::RETURN_STATUS => {
            body.u32().expect("a status");
        }
        TokenKind::SESSION_STATE => panic!("nobody asked for SESSIONSTATE"),
        TokenKind(byte) => match DoneKind::from_token(byte) {
            Some(kind) => response.dones.push(Done::read(kind, body, version).expect("a done")),
            None => panic!("unexpected token {token:?}"),
        },
    }
}
