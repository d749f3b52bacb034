//! From accept to the login response: encryption, LOGIN7, route, proof of the password, the answer.

use std::sync::Arc;

use bytes::BytesMut;
use tds::encryption::{ClientTlsPolicy, Negotiated};
use tds::exchange::Exchange;
use tds::feature::FeatureId;
use tds::handshake::{Accept, AcceptPolicy, AcceptStep, HandshakeError, LoginRequest, TlsFraming};
use tds::login_response::LoginResponse;
use tds::login7::{AuthKind, Login7};
use tds::packet::DEFAULT_PACKET_SIZE;
use tds::{Dialect, TdsVersion};
use tdsbouncer_config::{BucketAuth, ClientTlsMode, Listener, Target};
use tokio::time::Instant;
use tracing::debug;

use super::answer;
use super::client_conn::{ClientConn, ClientIo, LoggedIn};
use super::context::SessionContext;
use super::dedicated;
use super::verdict::Phase;
use crate::bucket::key::LoginTemplate;
use crate::bucket::{BucketClient, BucketHandle, self_test};
use crate::console::{self, Refused};
use crate::error::{AcquireError, Answer, SessionError};
use crate::metrics::LoginKind;
use crate::wire::{Link, TlsError, TlsRole};

/// Bytes read at once while logging in.
const CHUNK: usize = 4096;

/// Why there is no logged-in client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoginEnd {
    /// The client learns why.
    #[error(transparent)]
    Told(#[from] SessionError),
    /// There is nothing to tell, or nobody to tell it to.
    #[error("{0}")]
    Silent(String),
    /// The whole session was served on a connection of its own and is over.
    #[error("served")]
    Served,
}

impl From<std::io::Error> for LoginEnd {
    fn from(error: std::io::Error) -> Self {
        Self::Silent(error.to_string())
    }
}

impl From<TlsError> for LoginEnd {
    fn from(error: TlsError) -> Self {
        Self::Silent(error.to_string())
    }
}

impl From<HandshakeError> for LoginEnd {
    fn from(error: HandshakeError) -> Self {
        Self::Silent(error.to_string())
    }
}

/// Who the client is, once its LOGIN7 was read.
struct Caller {
    request: Box<LoginRequest>,
    bucket: BucketHandle,
    place: BucketClient,
}

/// Brings a new client to its login response.
pub(crate) async fn log_in(
    conn: &ClientConn,
    context: &SessionContext,
    io: &mut ClientIo,
) -> Result<(), LoginEnd> {
    let deadline = Instant::now() + context.config.timeouts.login;
    let receiving = receive_login(conn, context, &mut io.link);
    let request = match tokio::time::timeout_at(deadline, receiving).await {
        Ok(request) => request?,
        Err(_) => return Err(LoginEnd::Silent("did not log in in time (timeouts.login)".to_owned())),
    };
    crate::crash_test::point("login", &request.login.app_name);
    let version = request.login.tds_version;
    let user = request.login.user_name.clone();
    match admit_and_answer(conn, context, io, request).await {
        Err(LoginEnd::Told(error)) => {
            debug!(session = %conn.id, peer = %conn.peer, user, %error, "login refused");
            context.metrics.session_error(error.label());
            say_farewell(context, io, &error, version).await;
            Err(LoginEnd::Told(error))
        }
        other => other,
    }
}

/// The error, then the end: what a client gets whose login fails.
pub(crate) async fn say_farewell(
    context: &SessionContext,
    io: &mut ClientIo,
    error: &SessionError,
    version: TdsVersion,
) {
    io.link.queue(&answer::errors(&error.messages(), version));
    io.link.say_last_words(context.farewell()).await;
}

async fn receive_login(
    conn: &ClientConn,
    context: &SessionContext,
    link: &mut Link,
) -> Result<Box<LoginRequest>, LoginEnd> {
    let mut accept = Accept::new(accept_policy(&conn.listener, context));
    let mut out = BytesMut::new();
    loop {
        let stepped = accept.step(&mut link.input, &mut out);
        link.queue(&out);
        out.clear();
        link.flush().await?;
        let (next, step) = stepped?;
        accept = next;
        match step {
            AcceptStep::NeedBytes => {
                if link.fill(CHUNK).await? == 0 {
                    return Err(LoginEnd::Silent("closed before it logged in".to_owned()));
                }
            }
            AcceptStep::StartTls(framing) => {
                start_tls(conn, context, link, framing).await?;
                accept = accept.tls_established()?;
            }
            AcceptStep::EndTls => link.end_tls(),
            AcceptStep::Login(request) => return Ok(request),
        }
    }
}

fn accept_policy(listener: &Listener, context: &SessionContext) -> AcceptPolicy {
    AcceptPolicy {
        tls: match listener.tls.mode {
            ClientTlsMode::Off => ClientTlsPolicy::Off,
            ClientTlsMode::Login => ClientTlsPolicy::LoginOnly,
            ClientTlsMode::On => ClientTlsPolicy::On,
            ClientTlsMode::Require => ClientTlsPolicy::Require,
            ClientTlsMode::Strict => ClientTlsPolicy::Strict,
        },
        strict: listener.tls.strict,
        server_version: listener.server_version,
        mars: listener.mars,
        max_login: context.config.limits.max_login_bytes,
    }
}

async fn start_tls(
    conn: &ClientConn,
    context: &SessionContext,
    link: &mut Link,
    framing: TlsFraming,
) -> Result<(), LoginEnd> {
    let Some(certificates) = context.certificates.get(&conn.listener.name) else {
        return Err(LoginEnd::Silent("asked for TLS on a listener that has no certificate".to_owned()));
    };
    let role = TlsRole::Server(certificates.config(framing));
    match tokio::time::timeout(context.config.timeouts.tls_handshake, link.start_tls(role, framing)).await {
        Ok(established) => Ok(established?),
        Err(_) => {
            Err(LoginEnd::Silent("TLS handshake not complete in time (timeouts.tls_handshake)".to_owned()))
        }
    }
}

async fn admit_and_answer(
    conn: &ClientConn,
    context: &SessionContext,
    io: &mut ClientIo,
    mut request: Box<LoginRequest>,
) -> Result<(), LoginEnd> {
    // What client and server agree on must fit what we are willing to read.
    let largest = u32::try_from(context.config.limits.max_packet).unwrap_or(u32::MAX);
    request.login.packet_size = request.login.packet_size.min(largest);
    if context.config.admin.is_console(&request.login.database) {
        return at_console(conn, context, io, request).await;
    }
    let caller = admit(conn, context, request)?;
    if context.throttle.turn(&caller.request.login.user_name, conn.peer.ip()).await {
        context.metrics.login_throttled();
    }
    if is_dedicated(&caller.request) {
        return dedicated::serve(conn, context, io, caller.request, &caller.bucket, caller.place).await;
    }
    let login = &caller.request.login;
    if login.feature(FeatureId::SESSION_RECOVERY).is_some_and(|recovery| !recovery.data.is_empty()) {
        // Who cannot restore what a client asks for fails the login ([MS-TDS] 2.2.7.11).
        return Err(SessionError::CannotRecover.into());
    }
    check_password(conn, context, &caller).await?;
    let encryption = encryption_name(&caller.request);
    let (user, key) = (login.user_name.clone(), &context.proof_key);
    let settings = caller.bucket.settings();
    let proof = |login: &Login7| key.proof(&login.user_name, login.password.as_utf16le());
    // In session pooling nobody asks what the server tells, and every response would have to be read for it.
    let offer = self_test::may_share(&caller.bucket);
    let template = LoginTemplate::shared(login.clone(), caller.place.tenant(), &settings, proof, offer);
    let response = verified(conn, context, io, &caller.bucket, &template).await?;
    context.throttle.succeeded(&user, conn.peer.ip());
    io.exchange = Some(Exchange::new(context.config.limits.max_packet, response.ack.tds_version));
    answer_login(io, &response, template.client_version).await?;
    conn.logged_in(LoggedIn {
        bucket: caller.bucket,
        template,
        user,
        encryption,
        home: response.database.clone(),
        dialect: Dialect::of_login(response.ack.tds_version, &response.features),
        packet_size: response.packet_size.unwrap_or(DEFAULT_PACKET_SIZE),
        _place: caller.place,
    });
    conn.checkpoint.enter(Phase::Idle);
    Ok(())
}

/// An operator, who needs no bucket.
async fn at_console(
    conn: &ClientConn,
    context: &SessionContext,
    io: &mut ClientIo,
    request: Box<LoginRequest>,
) -> Result<(), LoginEnd> {
    let user = request.login.user_name.clone();
    if context.throttle.turn(&user, conn.peer.ip()).await {
        context.metrics.login_throttled();
    }
    match console::serve(conn, context, io, request).await {
        Ok(()) => Err(LoginEnd::Served),
        Err(Refused::Told(error)) => Err(error.into()),
        Err(Refused::Unknown) => {
            slow_down(conn, context, &user).await;
            Err(SessionError::LoginFailed { user }.into())
        }
        Err(Refused::Gone) => Err(LoginEnd::Silent("left before it was answered".to_owned())),
    }
}

/// For the admin view.
pub(super) fn encryption_name(request: &LoginRequest) -> &'static str {
    match (request.strict, request.encryption) {
        (true, _) => "strict",
        (false, Negotiated::None) => "off",
        (false, Negotiated::LoginOnly) => "login",
        (false, Negotiated::Full) => "on",
    }
}

/// Limits and the route.
fn admit(
    conn: &ClientConn,
    context: &SessionContext,
    request: Box<LoginRequest>,
) -> Result<Caller, SessionError> {
    if conn.surplus {
        return Err(SessionError::TooManyClients { clients: context.config.limits.max_clients });
    }
    let login = &request.login;
    let target =
        Target { database: &login.database, server_name: &login.server_name, user: &login.user_name };
    let bucket = context
        .router
        .route(&conn.listener, target)
        .and_then(|bucket| context.buckets.get(&bucket.name))
        .ok_or_else(|| SessionError::NoBucket {
            database: login.database.clone(),
            server_name: login.server_name.clone(),
            user: login.user_name.clone(),
        })?
        .clone();
    let place = bucket.admit(login)?;
    Ok(Caller { request, bucket, place })
}

/// Logins that a pool cannot serve: relayed one to one on a connection of their own.
fn is_dedicated(request: &LoginRequest) -> bool {
    let login = &request.login;
    request.mars
        || login.auth_kind() != AuthKind::Sql
        || login.changes_password()
        || login.attaches_file()
        || login.user_instance()
}

/// For buckets with a service login the proxy is who checks passwords.
async fn check_password(
    conn: &ClientConn,
    context: &SessionContext,
    caller: &Caller,
) -> Result<(), SessionError> {
    let login = &caller.request.login;
    let BucketAuth::Service { .. } = caller.bucket.settings().auth else { return Ok(()) };
    let known = context.users.verify(&login.user_name, login.password.as_utf16le()).await;
    if known && context.users.may_use(&login.user_name, &login.database) {
        return Ok(());
    }
    context.metrics.login(caller.bucket.name(), LoginKind::Service, false);
    slow_down(conn, context, &login.user_name).await;
    // As the server does it: the client does not learn whether it was the name, the password or the database.
    Err(SessionError::LoginFailed { user: login.user_name.clone() })
}

/// The response that this login gets: from memory, or from the server.
async fn verified(
    conn: &ClientConn,
    context: &SessionContext,
    io: &mut ClientIo,
    bucket: &BucketHandle,
    template: &Arc<LoginTemplate>,
) -> Result<Arc<LoginResponse>, LoginEnd> {
    if let Some(response) = bucket.shared().verified.lookup(&template.key) {
        context.metrics.login(bucket.name(), LoginKind::Cached, true);
        return Ok(response);
    }
    let deadline = Instant::now() + bucket.settings().acquire_timeout;
    let verifying = bucket.verify(template, deadline);
    let outcome = tokio::select! {
        outcome = verifying => outcome,
        // A client says nothing before it has its answer: if anything comes, it is the end.
        () = gone(&mut io.link) => {
            return Err(LoginEnd::Silent("closed while its login was being checked".to_owned()));
        }
    };
    let accepted = outcome.is_ok();
    context.metrics.login(bucket.name(), LoginKind::Server, accepted);
    if let Err(AcquireError::Refused(_)) = &outcome {
        slow_down(conn, context, &template.login.user_name).await;
    }
    Ok(outcome.map_err(SessionError::from)?)
}

/// Counts a failed login, and lets its answer come late: who guesses passwords waits.
pub(super) async fn slow_down(conn: &ClientConn, context: &SessionContext, user: &str) {
    tokio::time::sleep(context.throttle.failed(user, conn.peer.ip())).await;
}

/// Returns when the client has closed its side. Early bytes stay where they are.
async fn gone(link: &mut Link) {
    match link.fill(CHUNK).await {
        Ok(0) | Err(_) => {}
        Ok(_) => std::future::pending().await,
    }
}

async fn answer_login(
    io: &mut ClientIo,
    response: &LoginResponse,
    client_version: TdsVersion,
) -> Result<(), LoginEnd> {
    let mut out = BytesMut::new();
    if client_version == response.ack.tds_version || client_version != TdsVersion::V8_0 {
        response.replay(&mut out, 0, DEFAULT_PACKET_SIZE, &[]);
    } else {
        // Our side of the server speaks 7.4, which is 8.0 without TLS in front.
        let mut told = response.clone();
        told.ack.tds_version = TdsVersion::V8_0;
        told.build().replay(&mut out, 0, DEFAULT_PACKET_SIZE, &[]);
    }
    io.link.queue(&out);
    io.link.flush().await?;
    io.link.shrink();
    Ok(())
}
