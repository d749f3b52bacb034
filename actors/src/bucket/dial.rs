//! Opening a connection to SQL Server: connect, agree on encryption, log in, follow where the server sends us.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tds::Dialect;
use tds::edit::ResponseEditor;
use tds::feature::FeatureId;
use tds::handshake::{ConnectPolicy, HandshakeError};
use tds::login_response::{self, LoginOutcome, LoginResponse};
use tds::message::Message;
use tds::packet::{DEFAULT_PACKET_SIZE, MAX_PACKET_SIZE};
use tds::prelogin::Version;
use tds::server_message::ServerMessage;
use tdsbouncer_config::{Bucket, ServerTlsMode};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::BucketHandle;
use super::key::LoginTemplate;
use super::recall::RecallReason;
use super::server_conn::{Occupied, ServerConn, ServerConnId};
use super::slots::SlotPermit;
use super::state::ConnState;
use super::witness::Witness;
use crate::wire::{self, CertificateError, Link, Socket, TlsError, TlsRole};

/// How often a server may send us on to another one.
const MAX_ROUTES: usize = 4;

/// What PRELOGIN shows as the client's version: servers read nothing into it.
const CLIENT_VERSION: Version = [0, 1, 0, 0, 0, 0];

/// Why a connection to the server could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("cannot connect to {host}:{port}: {source}")]
    Connect { host: String, port: u16, source: io::Error },
    #[error("cannot connect to {host}:{port} within {waited:?}")]
    ConnectTimeout { host: String, port: u16, waited: Duration },
    #[error("not logged in within {waited:?}")]
    LoginTimeout { waited: Duration },
    #[error("the connection failed during the login: {0}")]
    Io(#[from] io::Error),
    #[error("the server closed the connection during the login")]
    Closed,
    #[error("TLS with the server failed: {0}")]
    Tls(#[from] TlsError),
    #[error("certificates: {0}")]
    Certificates(#[from] CertificateError),
    #[error("handshake: {0}")]
    Handshake(#[from] HandshakeError),
    #[error("the server's login response: {0}")]
    Response(#[from] tds::Malformed),
    #[error("the server refused the login: {}", first_text(messages))]
    Refused { messages: Vec<ServerMessage> },
    #[error("the server asks for more than a password")]
    Unexpected,
    #[error("sent on to another server more than {MAX_ROUTES} times")]
    RoutedInCircles,
    #[error("the server does not do MARS")]
    NoMars,
    #[error("the slot was taken back: {0}")]
    Recalled(RecallReason),
}

impl DialError {
    /// One word for the label in metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "connect",
            Self::ConnectTimeout { .. } => "connect_timeout",
            Self::LoginTimeout { .. } => "login_timeout",
            Self::Io(_) | Self::Closed => "closed",
            Self::Tls(_) | Self::Certificates(_) => "tls",
            Self::Refused { .. } => "login_refused",
            Self::Handshake(_) | Self::Response(_) | Self::Unexpected | Self::NoMars => "protocol",
            Self::RoutedInCircles => "routing",
            Self::Recalled(_) => "recalled",
        }
    }
}

fn first_text(messages: &[ServerMessage]) -> String {
    messages
        .first()
        .map_or_else(|| "no reason given".to_owned(), |m| format!("error {}: {}", m.number, m.text))
}

/// TLS towards one bucket's server, prepared once.
#[derive(Clone)]
pub(crate) struct TlsConnector(Option<Arc<ClientConfig>>);

impl TlsConnector {
    /// Reads the files that the bucket names.
    pub(crate) fn of(bucket: &Bucket) -> Result<Self, CertificateError> {
        // Without encryption a server that insists still gets TLS for the login; nothing is verified then, as
        // with every client that is told not to encrypt.
        let mut settings = bucket.server_tls.clone();
        if settings.mode == ServerTlsMode::Off {
            settings.trust_server_certificate = true;
        }
        Ok(Self(Some(wire::client_config(&settings)?)))
    }

    fn role(&self, bucket: &Bucket, host: &str) -> Result<TlsRole, DialError> {
        let config = self.0.clone().ok_or(DialError::Closed)?;
        let name: ServerName<'static> = wire::server_name(&bucket.server_tls, host)?;
        Ok(TlsRole::Client(config, name))
    }
}

/// A connection that is logged in, and what the server said to it.
pub(crate) struct Dialled {
    pub(crate) conn: Box<ServerConn>,
    pub(crate) response: LoginResponse,
    /// When connecting began: what was learnt of the principal since is newer.
    pub(crate) asked: Instant,
}

/// Opens a connection that can be shared, with the template's login.
pub(crate) async fn dial(
    bucket: &BucketHandle,
    template: &Arc<LoginTemplate>,
    permit: SlotPermit,
) -> Result<Dialled, DialError> {
    dial_in(bucket, template, Occupied::new(permit)).await
}

/// The same in a slot whose connection, if it had one, is closed.
pub(crate) async fn dial_in(
    bucket: &BucketHandle,
    template: &Arc<LoginTemplate>,
    mut occupied: Occupied,
) -> Result<Dialled, DialError> {
    let asked = Instant::now();
    let settings = bucket.settings();
    let mut target = (settings.host.clone(), settings.port);
    for _ in 0..=MAX_ROUTES {
        let message = open_connection(bucket, &mut occupied, template, &target, false).await?;
        let outcome = login_response::read(&message.payload, template.login.tds_version)?;
        let mut response = match outcome {
            LoginOutcome::Accepted(response) => *response,
            LoginOutcome::Refused(messages) => return Err(DialError::Refused { messages }),
            LoginOutcome::Continue(_) => return Err(DialError::Unexpected),
        };
        if let Some(routing) = &response.routing {
            target = (routing.host.clone(), routing.port);
            occupied.disconnect().await;
            continue;
        }
        let (dialect, packet_size) =
            (dialect(&response), response.packet_size.unwrap_or(DEFAULT_PACKET_SIZE));
        let witness =
            response.feature(FeatureId::SESSION_RECOVERY).map(|feature| Witness::at_login(&feature.data));
        if template.offers_session_recovery {
            // The offer was ours, and clients fail on what they did not ask for.
            response = response.without(FeatureId::SESSION_RECOVERY);
        }
        let conn = ServerConn {
            id: ServerConnId::next(),
            occupied,
            template: Arc::clone(template),
            packet_size,
            dialect,
            witness,
            encryption: match settings.server_tls.mode {
                ServerTlsMode::Off => "off",
                ServerTlsMode::On => "on",
                ServerTlsMode::Strict => "strict",
            },
            opened: Instant::now(),
            connecting: asked.elapsed(),
            expires: None,
            uses: 0,
            state: ConnState::default(),
            editor: ResponseEditor::new(dialect, MAX_PACKET_SIZE, packet_size),
            pipelines: true,
            share: None,
        };
        return Ok(Dialled { conn: Box::new(conn), response, asked });
    }
    Err(DialError::RoutedInCircles)
}

/// What the response fixes about the format of everything that follows.
fn dialect(response: &LoginResponse) -> Dialect {
    let acknowledged =
        |id| response.feature(id).and_then(|feature| feature.data.first().copied()).unwrap_or(0);
    Dialect {
        version: response.ack.tds_version,
        column_encryption: acknowledged(FeatureId::COLUMN_ENCRYPTION),
        data_classification: acknowledged(FeatureId::DATA_CLASSIFICATION),
    }
}

/// Connects `occupied` and sends the template's login. Returns the server's first answer to it, whatever it is.
pub(crate) async fn open_connection(
    bucket: &BucketHandle,
    occupied: &mut Occupied,
    template: &LoginTemplate,
    target: &(String, u16),
    mars: bool,
) -> Result<Message, DialError> {
    let settings = bucket.settings();
    let socket = connect(&settings, target).await?;
    occupied.connected(Link::new(Socket::Tcp(socket)));
    let link = occupied.link().ok_or(DialError::Closed)?;
    match tokio::time::timeout(settings.login_timeout, log_in(bucket, link, template, &target.0, mars)).await
    {
        Ok(answer) => answer,
        Err(_) => Err(DialError::LoginTimeout { waited: settings.login_timeout }),
    }
}

async fn connect(settings: &Bucket, (host, port): &(String, u16)) -> Result<TcpStream, DialError> {
    let failed = |source| DialError::Connect { host: host.clone(), port: *port, source };
    let waited = settings.connect_timeout;
    let socket = tokio::time::timeout(waited, TcpStream::connect((host.as_str(), *port)))
        .await
        .map_err(|_| DialError::ConnectTimeout { host: host.clone(), port: *port, waited })?
        .map_err(failed)?;
    socket.set_nodelay(true).map_err(failed)?;
    let keepalive = TcpKeepalive::new()
        .with_time(settings.keepalive.idle)
        .with_interval(settings.keepalive.interval)
        .with_retries(settings.keepalive.count);
    SockRef::from(&socket).set_tcp_keepalive(&keepalive).map_err(failed)?;
    Ok(socket)
}

async fn log_in(
    bucket: &BucketHandle,
    link: &mut Link,
    template: &LoginTemplate,
    host: &str,
    mars: bool,
) -> Result<Message, DialError> {
    let settings = bucket.settings();
    let tls = wire::offer(settings.server_tls.mode);
    let policy = ConnectPolicy { tls, mars, version: CLIENT_VERSION, extras: Vec::new() };
    let role = || bucket.tls().role(&settings, host);
    let answer = wire::log_in(link, policy, &template.login, role).await?.ok_or(DialError::Closed)?;
    if mars && !answer.mars { Err(DialError::NoMars) } else { Ok(answer.message) }
}

impl std::fmt::Debug for Dialled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dialled({:?})", self.conn)
    }
}
