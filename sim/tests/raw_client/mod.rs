//! A small blocking TDS client for tests at the protocol's level: every packet can be sent by hand.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of the client")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tds::Dialect;
use tds::col_metadata::ColMetadata;
use tds::done::{Done, DoneKind, DoneStatus};
use tds::env_change::EnvChange;
use tds::handshake::{Connect, ConnectPolicy, ConnectStep, ServerTls, TlsFraming};
use tds::login_response::{Continuation, LoginOutcome, LoginResponse, read as read_login};
use tds::login7::{Login7, Password};
use tds::message::{MessageReader, write_message};
use tds::packet::{MAX_PACKET_SIZE, PacketType, Status};
use tds::read::Reader;
use tds::request::{AllHeaders, SqlBatch, TransactionRequest};
use tds::return_value::ReturnValue;
use tds::row;
use tds::server_message::ServerMessage;
use tds::tls_wrap::Wrapped;
use tds::token::TokenKind;
use tds::value::Value;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// One token of a response.
#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    Columns(Vec<String>),
    Row(Vec<Value>),
    Done(Done),
    Env(EnvChange),
    Message(ServerMessage),
    Status(i32),
    Value(ReturnValue),
    /// SESSIONSTATE: number, recoverable, the states' ids.
    State(u32, bool, Vec<u8>),
    Other(TokenKind),
}

/// How to connect.
#[derive(Clone)]
pub struct Dial {
    pub tls: ServerTls,
    pub login: Login7,
    pub pem: String,
    /// Send LOGIN7 first, as clients of TDS 7.1 may.
    pub without_prelogin: bool,
}

pub fn login(password: &str) -> Login7 {
    Login7 {
        user_name: "sa".into(),
        password: Password::new(password),
        app_name: "raw client".into(),
        ..Login7::default()
    }
}

#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    input: BytesMut,
    pub dialect: Dialect,
    pub packet_size: usize,
    pub transaction: u64,
    pub response: Option<LoginResponse>,
}

#[derive(Debug)]
pub enum Failed {
    Io(std::io::Error),
    Refused(Vec<ServerMessage>),
    Handshake(String),
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl Client {
    /// A socket on which nothing was said yet.
    pub fn open(addr: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            tls: None,
            input: BytesMut::new(),
            dialect: Dialect::of(tds::TdsVersion::V7_4),
            packet_size: 4096,
            transaction: 0,
            response: None,
        })
    }

    /// A logged-in client.
    pub fn dial(addr: SocketAddr, dial: &Dial) -> Result<Self, Failed> {
        Self::dial_and_answer(addr, dial, |_| None)
    }

    /// Logs in and answers what the server asks on the way.
    pub fn dial_and_answer(
        addr: SocketAddr,
        dial: &Dial,
        answer: impl Fn(&Continuation) -> Option<(PacketType, Vec<u8>)>,
    ) -> Result<Self, Failed> {
        let mut client = Self::open(addr)?;
        if dial.without_prelogin {
            let mut payload = BytesMut::new();
            dial.login.encode(&mut payload);
            client.send(PacketType::LOGIN7, Status::NORMAL, &payload)?;
            let message = client.receive_raw()?;
            client.take_login(&message)?;
            return Ok(client);
        }
        let policy = ConnectPolicy { tls: dial.tls, ..ConnectPolicy::default() };
        let mut connect = Connect::new(policy, &dial.login);
        loop {
            let mut out = BytesMut::new();
            let (next, step) =
                connect.step(&mut client.input, &mut out).map_err(|e| Failed::Handshake(e.to_string()))?;
            connect = next;
            client.write(&out)?;
            match step {
                ConnectStep::NeedBytes => client.read()?,
                ConnectStep::StartTls(framing) => {
                    client.start_tls(framing, &dial.pem)?;
                    connect = connect.tls_established().map_err(|e| Failed::Handshake(e.to_string()))?;
                }
                ConnectStep::EndTls => client.tls = None,
                ConnectStep::Response { message, .. } => {
                    let version = dial.login.tds_version;
                    let outcome = read_login(&message.payload, version);
                    if let Ok(LoginOutcome::Continue(continuation)) = &outcome {
                        let Some((kind, payload)) = answer(continuation) else {
                            return Err(Failed::Handshake("the server wants to hear more".into()));
                        };
                        let mut out = BytesMut::new();
                        connect = connect
                            .continue_with(kind, &payload, &mut out)
                            .map_err(|e| Failed::Handshake(e.to_string()))?;
                        client.write(&out)?;
                        continue;
                    }
                    client.take_login(&message.payload)?;
                    return Ok(client);
                }
            }
        }
    }

    fn take_login(&mut self, payload: &[u8]) -> Result<(), Failed> {
        match read_login(payload, self.dialect.version).map_err(|e| Failed::Handshake(e.to_string()))? {
            LoginOutcome::Accepted(response) => {
                self.dialect = Dialect::of(response.ack.tds_version);
                self.packet_size = response.packet_size.unwrap_or(4096);
                self.response = Some(*response);
                Ok(())
            }
            LoginOutcome::Refused(messages) => Err(Failed::Refused(messages)),
            LoginOutcome::Continue(_) => Err(Failed::Handshake("the server wants to hear more".into())),
        }
    }

    fn start_tls(&mut self, framing: TlsFraming, pem: &str) -> std::io::Result<()> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        if framing == TlsFraming::Raw {
            config.alpn_protocols = vec![b"tds/8.0".to_vec()];
        }
        let name = ServerName::try_from("localhost").unwrap();
        let mut tls = Box::new(ClientConnection::new(Arc::new(config), name).unwrap());
        let mut wrapped = Wrapped::new();
        loop {
            let mut records = Vec::new();
            while tls.wants_write() {
                tls.write_tls(&mut records)?;
            }
            match framing {
                TlsFraming::Raw => self.stream.write_all(&records)?,
                TlsFraming::Wrapped => {
                    let mut packets = BytesMut::new();
                    Wrapped::wrap(&records, &mut packets);
                    self.stream.write_all(&packets)?;
                }
            }
            if !tls.is_handshaking() {
                self.tls = Some(tls);
                return Ok(());
            }
            self.read()?;
            let mut incoming = BytesMut::new();
            match framing {
                TlsFraming::Raw => incoming = self.input.split(),
                TlsFraming::Wrapped => wrapped.unwrap(&mut self.input, &mut incoming).unwrap(),
            }
            let mut incoming = &incoming[..];
            while !incoming.is_empty() {
                tls.read_tls(&mut incoming)?;
                tls.process_new_packets().map_err(std::io::Error::other)?;
            }
        }
    }

    /// Writes bytes as they are, encrypted if the connection is.
    pub fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let Some(tls) = &mut self.tls else { return self.stream.write_all(bytes) };
        tls.writer().write_all(bytes)?;
        while tls.wants_write() {
            tls.write_tls(&mut self.stream)?;
        }
        Ok(())
    }

    /// Reads some bytes.
    pub fn read(&mut self) -> std::io::Result<()> {
        let mut chunk = [0; 65536];
        let read = match &mut self.tls {
            None => self.stream.read(&mut chunk)?,
            Some(tls) => loop {
                if tls.read_tls(&mut self.stream)? == 0 {
                    break 0;
                }
                let state = tls.process_new_packets().map_err(std::io::Error::other)?;
                if state.plaintext_bytes_to_read() > 0 {
                    break tls.reader().read(&mut chunk)?;
                }
            },
        };
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.input.extend_from_slice(&chunk[..read]);
        Ok(())
    }

    /// True if nothing arrives for a while.
    pub fn stays_silent(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).unwrap();
        let read = self.read();
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        matches!(read, Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut))
    }

    /// True if the server closes the connection and says nothing more.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.read(), Err(e) if !matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut))
    }

    pub fn send(&mut self, kind: PacketType, status: Status, payload: &[u8]) -> std::io::Result<()> {
        let mut out = BytesMut::new();
        write_message(&mut out, kind, status, 0, self.packet_size, payload);
        self.write(&out)
    }

    pub fn headers(&self) -> AllHeaders {
        AllHeaders::in_transaction(self.transaction)
    }

    pub fn batch_payload(&self, text: &str) -> BytesMut {
        let mut payload = BytesMut::new();
        SqlBatch { headers: Some(self.headers()), ..SqlBatch::new(text) }.write(&mut payload, self.dialect);
        payload
    }

    pub fn send_batch(&mut self, text: &str, status: Status) {
        let payload = self.batch_payload(text);
        self.send(PacketType::SQL_BATCH, status, &payload).unwrap();
    }

    pub fn batch(&mut self, text: &str) -> Vec<Token> {
        self.send_batch(text, Status::NORMAL);
        self.receive()
    }

    pub fn transaction(&mut self, request: &TransactionRequest) -> Vec<Token> {
        let mut payload = BytesMut::new();
        request.write(&mut payload, &self.headers(), self.dialect);
        self.send(PacketType::TRANSACTION_MANAGER, Status::NORMAL, &payload).unwrap();
        self.receive()
    }

    pub fn attention(&mut self) {
        self.send(PacketType::ATTENTION, Status::NORMAL, &[]).unwrap();
    }

    /// A response's tokens as bytes.
    pub fn receive_raw(&mut self) -> std::io::Result<BytesMut> {
        let mut reader = MessageReader::new(MAX_PACKET_SIZE, 256 << 20);
        loop {
            if let Some(message) = reader.read(&mut self.input).map_err(std::io::Error::other)? {
                assert_eq!(message.kind, PacketType::RESPONSE);
                return Ok(message.payload);
            }
            self.read()?;
        }
    }

    /// A response's tokens.
    pub fn receive(&mut self) -> Vec<Token> {
        let payload = self.receive_raw().unwrap();
        let tokens = self.tokens(&payload);
        for token in &tokens {
            match token {
                Token::Env(EnvChange::BeginTransaction(descriptor)) => self.transaction = *descriptor,
                Token::Env(change) if change.ends_transaction() => self.transaction = 0,
                _ => {}
            }
        }
        tokens
    }

    fn tokens(&self, payload: &[u8]) -> Vec<Token> {
        let version = self.dialect.version;
        let mut reader = Reader::new(payload, "a response");
        let mut columns = ColMetadata::default();
        let mut tokens = Vec::new();
        while !reader.is_empty() {
            let kind = TokenKind(reader.u8().unwrap());
            tokens.push(match kind {
                TokenKind::COL_METADATA => {
                    columns = ColMetadata::read(&mut reader, self.dialect).unwrap().unwrap_or_default();
                    Token::Columns(columns.columns.iter().map(|column| column.name.clone()).collect())
                }
                TokenKind::ROW => Token::Row(row::read(&mut reader, &columns.columns).unwrap()),
                TokenKind::NBC_ROW => Token::Row(row::read_nbc(&mut reader, &columns.columns).unwrap()),
                TokenKind::DONE | TokenKind::DONE_PROC | TokenKind::DONE_IN_PROC => {
                    let kind = DoneKind::from_token(kind.0).unwrap();
                    Token::Done(Done::read(kind, &mut reader, version).unwrap())
                }
                TokenKind::ENV_CHANGE => Token::Env(EnvChange::read(&mut reader).unwrap()),
                TokenKind::ERROR | TokenKind::INFO => {
                    Token::Message(ServerMessage::read(kind == TokenKind::ERROR, &mut reader).unwrap())
                }
                TokenKind::RETURN_STATUS => Token::Status(i32::from_le_bytes(reader.array().unwrap())),
                TokenKind::RETURN_VALUE => {
                    Token::Value(ReturnValue::read(&mut reader, self.dialect).unwrap())
                }
                TokenKind::SESSION_STATE => {
                    let state = tds::session_state::SessionState::read(&mut reader).unwrap();
                    Token::State(
                        state.sequence,
                        state.recoverable,
                        state.states().map(|state| state.id).collect(),
                    )
                }
                TokenKind::ORDER | TokenKind::TAB_NAME | TokenKind::COL_INFO => {
                    reader.us_varbyte().unwrap();
                    Token::Other(kind)
                }
                kind => panic!("token {kind:?}"),
            });
        }
        tokens
    }
}

/// The statuses of all DONE tokens.
pub fn dones(tokens: &[Token]) -> Vec<DoneStatus> {
    tokens
        .iter()
        .filter_map(|token| match token {
            Token::Done(done) => Some(done.status),
            _ => None,
        })
        .collect()
}

/// The numbers of all errors.
pub fn errors(tokens: &[Token]) -> Vec<i32> {
    tokens
        .iter()
        .filter_map(|token| match token {
            Token::Message(message) if message.is_error => Some(message.number),
            _ => None,
        })
        .collect()
}

/// All rows.
pub fn rows(tokens: &[Token]) -> Vec<Vec<Value>> {
    tokens
        .iter()
        .filter_map(|token| match token {
            Token::Row(values) => Some(values.clone()),
            _ => None,
        })
        .collect()
}

/// All environment changes.
pub fn changes(tokens: &[Token]) -> Vec<EnvChange> {
    tokens
        .iter()
        .filter_map(|token| match token {
            Token::Env(change) => Some(change.clone()),
            _ => None,
        })
        .collect()
}
