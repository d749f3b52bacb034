//! A logged-in client's life in session pooling: it holds no server connection until its first request, and then
//! one until it leaves.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use bytes::Buf;
use tds::Malformed;
use tds::exchange::Exchange;
use tds::packet::{HEADER_LEN, MAX_PACKET_SIZE, PacketHeader, PacketType};
use tds::server_message::ServerMessage;
use tdsbouncer_config::PoolMode;
use tokio::time::Instant;
use tracing::debug;

use super::answer;
use super::client_conn::{ClientConn, ClientIo, LoggedIn, Wish};
use super::context::SessionContext;
use super::pooled::Pooled;
use super::relay::{Relay, RelayEnd, Relaying};
use super::verdict::{Phase, Verdict};
use crate::bucket::state::Wish as ConnWish;
use crate::bucket::{ConnTurn, Lease, self_test};
use crate::error::{AcquireError, Answer, SessionError};

/// How a session ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The client left, or there is nothing to tell it.
    Quiet(&'static str),
    /// The client is told, and then the connection is closed.
    Told(SessionError),
}

/// What came of waiting for a lease.
pub(super) enum Waited {
    Lease(Box<Lease>),
    /// The client withdrew its request by an attention.
    Withdrawn,
    ClientGone,
    Refused(AcquireError),
}

/// Serves the client until it leaves. `after_crash`: what the session before this one left to be said.
pub(crate) async fn serve(
    conn: &ClientConn,
    context: &SessionContext,
    io: &mut ClientIo,
    login: &LoggedIn,
    after_crash: Option<Verdict>,
) -> End {
    let session = Session { conn, context, login };
    if after_crash.is_some() {
        conn.clock.refused("restarted");
        conn.request_ended(&context.telemetry);
    }
    let ended = if session.shares() {
        Box::pin(Pooled::new(&session).run(io, after_crash)).await
    } else {
        Box::pin(session.run(io, after_crash)).await
    };
    match ended {
        Ok(end) | Err(end) => end,
    }
}

/// Requests that no server will answer.
struct Swallowed {
    requests: u32,
    /// The client waits for the acknowledgement of an attention, too.
    attention: bool,
}

pub(super) struct Session<'a> {
    pub(super) conn: &'a ClientConn,
    pub(super) context: &'a SessionContext,
    pub(super) login: &'a LoggedIn,
}

impl Session<'_> {
    /// Whether the session gives its connection back between requests: if the server is fit for it. Before TDS 7.2 the server does not tell of
    /// transactions, nor of a reset that is done.
    fn shares(&self) -> bool {
        self_test::pooling(&self.login.bucket).0 == PoolMode::Transaction
            && self.login.dialect.is_7_2_or_later()
    }

    async fn run(&self, io: &mut ClientIo, after_crash: Option<Verdict>) -> Result<End, End> {
        self.recover(io, after_crash).await?;
        loop {
            self.conn.checkpoint.enter(Phase::Idle);
            crate::crash_test::point("idle", &self.login.template.application);
            self.next_request(io).await?;
            self.request_began(io);
            self.conn.checkpoint.enter(Phase::Waiting);
            match self.wait_for_lease(io, None).await? {
                Waited::Lease(lease) => return self.relay(io, *lease).await,
                Waited::ClientGone => return Ok(End::Quiet("the client left while it waited")),
                Waited::Withdrawn => self.say_withdrawn(io).await?,
                Waited::Refused(error) => self.refused(io, error).await?,
            }
            self.conn.request_ended(&self.context.telemetry);
        }
    }

    /// A request's first packet is at the front of the input.
    pub(super) fn request_began(&self, io: &ClientIo) {
        if let Some(kind) = io.link.input.first() {
            self.conn.clock.begin(PacketType(*kind));
        }
    }

    /// What a client gets that broke off its request before a server heard of it.
    pub(super) async fn say_withdrawn(&self, io: &mut ClientIo) -> Result<(), End> {
        self.conn.clock.cancelled();
        let version = self.login.template.client_version;
        self.say(io, &answer::errors(&[], version)).await?;
        self.say(io, &answer::attention_acknowledged(version)).await
    }

    /// There is no connection for the request.
    pub(super) async fn refused(&self, io: &mut ClientIo, error: AcquireError) -> Result<(), End> {
        if matches!(error, AcquireError::Refused(_)) {
            // The server does not want this login any more: neither do we.
            return Err(End::Told(error.into()));
        }
        debug!(session = %self.conn.id, %error, "no server connection");
        self.conn.clock.refused(error.label());
        self.context.metrics.session_error(error.label());
        self.answer_request(io, &[], &error.messages()).await
    }

    /// Says what the crashed session before this one left unsaid.
    pub(super) async fn recover(&self, io: &mut ClientIo, after_crash: Option<Verdict>) -> Result<(), End> {
        match after_crash {
            None | Some(Verdict::Resume | Verdict::Close) => Ok(()),
            Some(Verdict::ResumeWithRetry) => {
                self.answer_request(io, &[], &SessionError::RestartedBefore.messages()).await
            }
            Some(Verdict::ResumeWithUnknownOutcome) => {
                self.answer_request(io, &[], &SessionError::OutcomeUnknown.messages()).await
            }
            Some(Verdict::FatalStateLost) => Err(End::Told(SessionError::StateLost)),
            Some(Verdict::FatalTooOften) => Err(End::Told(SessionError::CrashedTooOften)),
        }
    }

    /// Whether a request begins at the front of the input. An attention without one is acknowledged here.
    pub(super) async fn request_begins(&self, io: &mut ClientIo) -> Result<bool, End> {
        while let Some(header) = first_header(io).map_err(protocol)? {
            if header.kind != PacketType::ATTENTION {
                return Ok(true);
            }
            io.link.input.advance(HEADER_LEN);
            self.say(io, &answer::attention_acknowledged(self.login.template.client_version)).await?;
        }
        Ok(false)
    }

    /// Waits until the client begins a request.
    async fn next_request(&self, io: &mut ClientIo) -> Result<(), End> {
        loop {
            if self.request_begins(io).await? {
                return Ok(());
            }
            if io.link.input.is_empty() {
                self.rest(io).await?;
            }
            self.fill(io).await?;
        }
    }

    /// Nothing is under way: no lease, no buffers.
    pub(super) async fn rest(&self, io: &mut ClientIo) -> Result<(), End> {
        io.link.shrink();
        let idle_too_long = async {
            match self.context.config.timeouts.client_idle {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = io.link.readable() => Ok(()),
            () = self.conn.control.wanted(Wish::Drain) => Err(self.wished()),
            () = idle_too_long => Err(End::Quiet("idle for too long (timeouts.client_idle)")),
        }
    }

    fn wished(&self) -> End {
        match self.conn.control.wish() {
            Wish::Drain => End::Told(SessionError::Acquire(AcquireError::Draining)),
            _ => End::Told(SessionError::Killed),
        }
    }

    pub(super) async fn fill(&self, io: &mut ClientIo) -> Result<(), End> {
        let patience = self.context.config.timeouts.request;
        match tokio::time::timeout(patience, io.link.fill(self.context.chunk())).await {
            Ok(Ok(0) | Err(_)) => Err(End::Quiet("the client left")),
            Ok(Ok(_)) => Ok(()),
            Err(_) => Err(End::Quiet("the client stopped in the middle of a request (timeouts.request)")),
        }
    }

    pub(super) async fn wait_for_lease(
        &self,
        io: &mut ClientIo,
        wish: Option<ConnWish>,
    ) -> Result<Waited, End> {
        crate::crash_test::point("waiting", &self.login.template.application);
        let bucket = &self.login.bucket;
        let asked = Instant::now();
        self.conn.clock.asked();
        let deadline = asked + bucket.settings().acquire_timeout;
        let mut acquiring = std::pin::pin!(bucket.acquire(&self.login.template, wish, deadline));
        let outcome = loop {
            let room = self.context.chunk().saturating_sub(io.link.input.len());
            if let ControlFlow::Break(waited) = self.withdrawn(io)? {
                break Ok(waited);
            }
            tokio::select! {
                biased;
                outcome = &mut acquiring => break match outcome {
                    Ok(lease) => {
                        if let Some((opened, connecting)) = lease.opened() {
                            self.conn.clock.leased(opened, connecting);
                        }
                        Ok(Waited::Lease(Box::new(lease)))
                    }
                    Err(error) => Ok(Waited::Refused(error)),
                },
                // One client's early bytes are bounded by one chunk: the rest stays in its socket.
                filled = io.link.fill(room), if room > 0 => if !matches!(filled, Ok(1..)) {
                    break Ok(Waited::ClientGone);
                },
                () = self.conn.control.wanted(Wish::End) => break Err(End::Told(SessionError::Killed)),
            }
        };
        bucket.shared().metrics.waited(asked.elapsed());
        outcome
    }

    /// Whether an attention follows the request that waits: then both are taken out of the input.
    fn withdrawn(&self, io: &mut ClientIo) -> Result<ControlFlow<Waited>, End> {
        let mut walker = tds::packet::PacketWalker::new(MAX_PACKET_SIZE);
        let mut at = 0;
        while let Some(piece) = walker.next(&io.link.input[at..]).map_err(protocol)? {
            at += piece.consumed;
            // A client that breaks the protocol does not wait for its turn first.
            let kind = piece.header.map(only_requests).transpose().map_err(protocol)?;
            if kind == Some(PacketType::ATTENTION) && piece.end_of_message {
                io.link.input.advance(at);
                return Ok(ControlFlow::Break(Waited::Withdrawn));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Answers what the client has asked, with errors instead of a server, behind `front` tokens: first takes the
    /// rest of it.
    pub(super) async fn answer_request(
        &self,
        io: &mut ClientIo,
        front: &[u8],
        messages: &[ServerMessage],
    ) -> Result<(), End> {
        let swallowed = self.swallow_request(io).await?;
        let version = self.login.template.client_version;
        for _ in 0..swallowed.requests {
            self.say(io, &answer::errors_behind(front, messages, version)).await?;
        }
        if swallowed.attention {
            self.say(io, &answer::attention_acknowledged(version)).await?;
        }
        Ok(())
    }

    /// Takes the rest of the client's request, and whatever came with it.
    async fn swallow_request(&self, io: &mut ClientIo) -> Result<Swallowed, End> {
        let mut exchange = io.exchange.take().unwrap_or_else(|| self.new_exchange());
        let mut swallowed = Swallowed { requests: exchange.unanswered(), attention: false };
        loop {
            let seen = exchange.sent(&io.link.input.split()).map_err(protocol)?;
            swallowed.requests += seen.completed;
            if swallowed.requests > 0 && !exchange.is_receiving() {
                swallowed.attention = exchange.owes_acknowledgement();
                exchange.forget_server();
                io.exchange = Some(exchange);
                return Ok(swallowed);
            }
            self.fill(io).await?;
        }
    }

    fn new_exchange(&self) -> Exchange {
        Exchange::new(self.context.config.limits.max_packet, self.login.template.client_version)
    }

    pub(super) async fn say(&self, io: &mut ClientIo, bytes: &[u8]) -> Result<(), End> {
        io.link.queue(bytes);
        let flushed = match self.context.config.timeouts.client_write {
            Some(limit) => tokio::time::timeout(limit, io.link.flush()).await,
            None => Ok(io.link.flush().await),
        };
        match flushed {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Quiet("the client left")),
            Err(_) => Err(End::Quiet("the client reads nothing (timeouts.client_write)")),
        }
    }

    /// Lends the session its server connection until the client leaves, then brings it home.
    async fn relay(&self, io: &mut ClientIo, mut lease: Lease) -> Result<End, End> {
        if io.exchange.is_none() {
            io.exchange = Some(self.new_exchange());
        }
        self.conn.server.store(lease.id().map_or(0, |id| id.0), Ordering::Relaxed);
        if let Err(why) = lease.freshen().await {
            return Err(End::Told(SessionError::NotPrepared { why: why.to_string() }));
        }
        let Some(recall) = lease.recall() else {
            return Err(End::Told(SessionError::ServerLost { why: "it was closed".to_owned() }));
        };
        let Some(ConnTurn { server, editor, witness, .. }) = lease.conn().and_then(|conn| conn.turn()) else {
            return Err(End::Told(SessionError::ServerLost { why: "it was closed".to_owned() }));
        };
        let application = &self.login.template.application;
        let metrics = &self.login.bucket.shared().metrics;
        let (patience, chunk) = (self.context.patience(), self.context.chunk());
        let telemetry = &self.context.telemetry;
        let relaying =
            Relaying { conn: self.conn, metrics, telemetry, recall: &recall, patience, chunk, application };
        let end = Relay::new(relaying, io, server, witness.is_some().then_some(editor)).run().await;
        debug!(session = %self.conn.id, lease = ?lease, ?end, "session over");
        // Behind bytes that are no packets nobody knows where the connection stands.
        let broken = matches!(end, RelayEnd::ClientProtocol(_) | RelayEnd::ServerProtocol(_));
        if let Some(exchange) = io.exchange.as_ref().filter(|_| !broken) {
            lease.settle(exchange);
        }
        self.conn.server.store(0, Ordering::Relaxed);
        self.say_why(io, end)
    }

    fn say_why(&self, io: &ClientIo, end: RelayEnd) -> Result<End, End> {
        let error = match end {
            RelayEnd::ClientGone => return Ok(End::Quiet("the client left")),
            RelayEnd::ClientStalled(how) => return Err(End::Quiet(how)),
            RelayEnd::ClientProtocol(malformed) => SessionError::ClientProtocol(malformed),
            RelayEnd::ServerGone(why) => SessionError::ServerLost { why },
            RelayEnd::ServerProtocol(malformed) => SessionError::ServerLost { why: malformed.to_string() },
            RelayEnd::AttentionUnanswered => {
                SessionError::ServerLost { why: "it did not acknowledge an attention".to_owned() }
            }
            RelayEnd::Wished => SessionError::Killed,
            RelayEnd::Recalled(why) => SessionError::Recalled(why),
        };
        let quietly = match error {
            SessionError::ClientProtocol(_) => "the client broke the protocol",
            SessionError::Killed => "closed by an operator",
            SessionError::Recalled(_) => "the server connection was recalled",
            _ => "the server connection was lost",
        };
        // Where some of a response went out, an ERROR would land in the middle of a token; where no request
        // runs, nobody would read it, except who has just done something or is closed for no reason of its own.
        let in_response = self.conn.checkpoint.phase() == Phase::Forwarding;
        let unasked = io.exchange.as_ref().is_some_and(Exchange::is_quiet);
        let listens = !unasked
            || matches!(
                error,
                SessionError::Killed | SessionError::Recalled(_) | SessionError::ClientProtocol(_)
            );
        Err(if listens && !in_response { End::Told(error) } else { End::Quiet(quietly) })
    }
}

pub(super) fn protocol(malformed: Malformed) -> End {
    End::Told(SessionError::ClientProtocol(malformed))
}

/// The header of what the client sent first, if it is complete.
fn first_header(io: &ClientIo) -> Result<Option<PacketHeader>, Malformed> {
    let Some(bytes) = io.link.input.first_chunk::<HEADER_LEN>() else { return Ok(None) };
    let header = PacketHeader::decode(bytes, MAX_PACKET_SIZE)?;
    only_requests(header)?;
    Ok(Some(header))
}

fn only_requests(header: PacketHeader) -> Result<PacketType, Malformed> {
    if header.kind.is_request() {
        return Ok(header.kind);
    }
    Err(Malformed::Unexpected { what: header.kind.name(), state: "logged in" })
}
