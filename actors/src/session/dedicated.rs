//! Sessions that a pool cannot serve: integrated and federated logins, MARS, changed passwords, attached files.
//! Each gets a server connection of its own, counted against the bucket's slots and never shared.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::BytesMut;
use tds::Dialect;
use tds::exchange::Exchange;
use tds::handshake::LoginRequest;
use tds::login_response::{self, LoginOutcome};
use tds::message::{Message, MessageReader, write_message};
use tds::packet::{DEFAULT_PACKET_SIZE, MAX_PACKET_SIZE, PacketType, Status};
use tokio::time::Instant;

use super::client_conn::{ClientConn, ClientIo, LoggedIn};
use super::context::SessionContext;
use super::log_in::{LoginEnd, encryption_name, slow_down};
use super::relay::{Relay, Relaying};
use super::verdict::Phase;
use crate::bucket::key::LoginTemplate;
use crate::bucket::{BucketClient, BucketHandle, DialError, Occupied, open_connection};
use crate::error::{AcquireError, SessionError};
use crate::metrics::LoginKind;
use crate::wire::Link;

/// The longest token that takes part in an integrated or federated login, in bytes: Kerberos tickets with many
/// groups reach 64 KiB.
const MAX_TOKEN: usize = 256 * 1024;

/// Bytes read at once while logging in.
const CHUNK: usize = 4096;

/// How often the server may send us on to another one.
const MAX_ROUTES: usize = 4;

/// Serves the whole session. Returns [`LoginEnd::Served`] once it is over.
pub(crate) async fn serve(
    conn: &ClientConn,
    context: &SessionContext,
    io: &mut ClientIo,
    request: Box<LoginRequest>,
    bucket: &BucketHandle,
    place: BucketClient,
) -> Result<(), LoginEnd> {
    let settings = bucket.settings();
    let (user, encryption, mars) = (request.login.user_name.clone(), encryption_name(&request), request.mars);
    let proof =
        |login: &tds::login7::Login7| context.proof_key.proof(&login.user_name, login.password.as_utf16le());
    let template = LoginTemplate::dedicated(request.login, place.tenant(), &settings, proof);
    let deadline = Instant::now() + settings.acquire_timeout;
    let mut occupied = bucket.acquire_slot(&template, deadline).await.map_err(SessionError::from)?;
    let accepted = log_in(context, io, bucket, &mut occupied, &template, mars).await;
    match &accepted {
        Ok(_) => context.throttle.succeeded(&user, conn.peer.ip()),
        Err(LoginEnd::Told(SessionError::Acquire(AcquireError::Refused(_)))) => {
            slow_down(conn, context, &user).await;
        }
        Err(_) => {}
    }
    context.metrics.login(bucket.name(), LoginKind::Dedicated, accepted.is_ok());
    accepted?;
    let version = template.client_version;
    // MARS wraps packets into frames of its own: nothing to follow there.
    io.exchange = (!mars).then(|| Exchange::new(context.config.limits.max_packet, version));
    let application = template.application.clone();
    let (home, dialect) = (template.database.clone(), Dialect::of(version));
    conn.logged_in(LoggedIn {
        bucket: bucket.clone(),
        template,
        user,
        encryption,
        home,
        dialect,
        packet_size: DEFAULT_PACKET_SIZE,
        _place: place,
    });
    conn.checkpoint.hold(true);
    conn.checkpoint.enter(Phase::Idle);
    bucket.shared().counts.leased.fetch_add(1, Ordering::Relaxed);
    let _counted = Counted(bucket);
    let recall = Arc::clone(occupied.recall());
    let server = occupied.link().ok_or(LoginEnd::Served)?;
    let metrics = &bucket.shared().metrics;
    let relaying = Relaying {
        conn,
        metrics,
        telemetry: &context.telemetry,
        recall: &recall,
        patience: context.patience(),
        chunk: context.chunk(),
        application: &application,
    };
    // Byte by byte: SESSIONSTATE comes only where the client itself has asked for it.
    let end = Relay::new(relaying, io, server, None).run().await;
    tracing::debug!(session = %conn.id, ?end, "dedicated session ended");
    Err(LoginEnd::Served)
}

/// Counts a dedicated connection among the leased ones.
struct Counted<'a>(&'a BucketHandle);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.shared().counts.leased.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Relays the login one to one, in as many steps as it takes.
async fn log_in(
    context: &SessionContext,
    io: &mut ClientIo,
    bucket: &BucketHandle,
    occupied: &mut Occupied,
    template: &Arc<LoginTemplate>,
    mars: bool,
) -> Result<(), LoginEnd> {
    let settings = bucket.settings();
    let mut target = (settings.host.clone(), settings.port);
    for _ in 0..=MAX_ROUTES {
        let opened = open_connection(bucket, occupied, template, &target, mars).await;
        let mut message = opened.map_err(|error| dial_failed(bucket, &error))?;
        loop {
            let outcome = login_response::read(&message.payload, template.login.tds_version)
                .map_err(|error| dial_failed(bucket, &DialError::Response(error)))?;
            match outcome {
                LoginOutcome::Accepted(response) => {
                    if let Some(routing) = &response.routing {
                        target = (routing.host.clone(), routing.port);
                        break;
                    }
                    pass_on(io, &message.payload).await?;
                    return Ok(());
                }
                LoginOutcome::Refused(messages) => {
                    return Err(SessionError::from(AcquireError::Refused(messages)).into());
                }
                LoginOutcome::Continue(_) => {
                    pass_on(io, &message.payload).await?;
                    let link = occupied.link().ok_or(LoginEnd::Served)?;
                    message = one_more_step(context, io, link).await?;
                }
            }
        }
        occupied.disconnect().await;
    }
    Err(dial_failed(bucket, &DialError::RoutedInCircles))
}

/// The client's next token to the server, the server's answer to it.
async fn one_more_step(
    context: &SessionContext,
    io: &mut ClientIo,
    server: &mut Link,
) -> Result<Message, LoginEnd> {
    let step = async {
        let token = read_message(&mut io.link, MAX_TOKEN).await?;
        if token.kind != PacketType::SSPI && token.kind != PacketType::FED_AUTH_TOKEN {
            return Err(LoginEnd::Silent("sent something else than the token that was asked for".to_owned()));
        }
        let mut out = BytesMut::new();
        write_message(&mut out, token.kind, Status::NORMAL, 0, DEFAULT_PACKET_SIZE, &token.payload);
        server.write_from(&mut out).await?;
        read_message(server, MAX_TOKEN).await
    };
    match tokio::time::timeout(context.config.timeouts.login, step).await {
        Ok(message) => message,
        Err(_) => Err(LoginEnd::Silent("did not log in in time (timeouts.login)".to_owned())),
    }
}

async fn read_message(link: &mut Link, max: usize) -> Result<Message, LoginEnd> {
    let mut reader = MessageReader::new(MAX_PACKET_SIZE, max);
    loop {
        let message = reader.read(&mut link.input).map_err(|error| LoginEnd::Silent(error.to_string()))?;
        if let Some(message) = message {
            return Ok(message);
        }
        if link.fill(CHUNK).await? == 0 {
            return Err(LoginEnd::Silent("closed during the login".to_owned()));
        }
    }
}

async fn pass_on(io: &mut ClientIo, payload: &[u8]) -> Result<(), LoginEnd> {
    let mut out = BytesMut::new();
    write_message(&mut out, PacketType::RESPONSE, Status::NORMAL, 0, DEFAULT_PACKET_SIZE, payload);
    io.link.queue(&out);
    io.link.flush().await?;
    Ok(())
}

fn dial_failed(bucket: &BucketHandle, error: &DialError) -> LoginEnd {
    let why = error.to_string();
    SessionError::from(AcquireError::Unreachable { bucket: bucket.name().clone(), why }).into()
}
