//! A logged-in client's life in transaction pooling: it borrows a server connection for a request or a transaction,
//! keeps it while it must, and gives it back at the first moment at which it may change hands.

pub(crate) mod asked;
mod handles;
pub(crate) mod holds;
mod observer;
mod prelude;
mod receive;
pub(crate) mod state;
mod transaction;
mod turn;
mod values;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tds::env_change::EnvChange;
use tds::message::write_message;
use tds::packet::{DEFAULT_PACKET_SIZE, PacketType, Status};
use tds::request::BeginTransaction;
use tds::tsql::Procedures;
use tdsbouncer_config::UnknownProcedures;
use tokio::time::{Instant, Sleep};
use tracing::debug;

use super::client_conn::{ClientIo, Wish};
use super::prepared;
use super::relay::{RelayEnd, Relaying};
use super::serve::{End, Session, Waited, protocol};
use super::verdict::{Phase, Verdict};
use crate::bucket::recall::RecallLevel;
use crate::bucket::self_test::SessionRecovery;
use crate::bucket::state::{ISOLATION, Wish as ConnWish};
use crate::bucket::witness::StateIds;
use crate::bucket::{ConnTurn, Lease, Rested, ServerConn};
use crate::error::{Answer, SessionError};
use crate::mutant::Mutant;
use crate::telemetry::TraceContext;
use crate::wire::IdleCheck;
use asked::{Asked, RequestReader};
use handles::Handles;
use holds::Reason;
use observer::{Reply, Told};
use receive::{Incoming, Received};
use state::{PooledState, Rules};
use transaction::{Alone, Step, Transaction};
use turn::{Request, Turn, TurnEnd};
use values::Values;

/// What ended a rest with a server connection in hand.
enum Woken {
    Client,
    Server,
    Overdue,
    /// The client did nothing for too long (timeouts.client_idle).
    Idle,
    /// The bucket wants it back, as soon as nothing of the session is on it.
    Recalled,
}

/// What is decided about a request before it is sent.
#[derive(Default)]
struct Decided {
    instead: Option<BytesMut>,
    begin: Option<BeginTransaction>,
}

/// One session's work. What survives it is in the client's [`ClientIo`].
pub(super) struct Pooled<'a> {
    session: &'a Session<'a>,
    procedures: Arc<Procedures>,
    reader: Option<Box<RequestReader>>,
    scratch: Vec<u8>,
    lease: Option<Lease>,
    /// The connection that it used last, if nobody else needs it.
    rested: Option<Rested>,
    check: Option<Pin<Box<Sleep>>>,
}

impl<'a> Pooled<'a> {
    pub(super) fn new(session: &'a Session<'a>) -> Self {
        let procedures = session.login.bucket.shared().procedures.load_full();
        Self {
            session,
            procedures,
            reader: None,
            scratch: Vec::new(),
            lease: None,
            rested: None,
            check: None,
        }
    }

    /// Serves the client until it leaves.
    pub(super) async fn run(mut self, io: &mut ClientIo, after_crash: Option<Verdict>) -> Result<End, End> {
        // A crash took the connection along; where that matters the verdict is the end.
        state_of(io).lost_lease();
        Box::pin(self.session.recover(io, after_crash)).await?;
        let end = loop {
            if let Err(end) = self.serve_one(io).await {
                break end;
            }
        };
        self.leave(io);
        Err(end)
    }

    /// Waits for a request and answers it.
    async fn serve_one(&mut self, io: &mut ClientIo) -> Result<(), End> {
        let conn = self.session.conn;
        conn.checkpoint.enter(Phase::Idle);
        crate::crash_test::point("idle", &self.session.login.template.application);
        self.await_request(io).await?;
        self.session.request_began(io);
        // On the heap, so that a session is small while it rests.
        let served = Box::pin(self.serve_request(io)).await;
        conn.request_ended(&self.session.context.telemetry);
        served
    }

    /// Answers the request that has begun.
    async fn serve_request(&mut self, io: &mut ClientIo) -> Result<(), End> {
        let incoming = match self.session.receive(io).await? {
            Received::Request(incoming) => incoming,
            Received::Withdrawn => return self.session.say_withdrawn(io).await,
        };
        if incoming.ignored {
            return self.session.answer_request(io, &[], &[]).await;
        }
        if let Some((error, rolled_back)) = state_of(io).overdue.take() {
            self.session.conn.clock.refused(error.label());
            return self.session.answer_request(io, &rolled_back, &error.messages()).await;
        }
        let mut asked = self.read(io, &incoming)?;
        let state = state_of(io);
        if incoming.status.asks_for_reset() && incoming.kind.can_reset() {
            // Nothing that was prepared outlives the reset that comes first.
            state.statements.clear();
        }
        asked.handles.take_if(|_| self.is_asked_for(Mutant::Handles));
        asked.runs_prepared(&state.statements);
        if let Some(Err(too_many)) = asked.handles.as_ref().map(|handles| handles.fit(&state.statements)) {
            return self.refuse(io, &too_many.into()).await;
        }
        let decided = match self.decide(io, &incoming, &asked) {
            Ok(decided) => decided,
            Err(tokens) => return self.answer(io, &incoming, &tokens).await,
        };
        if !self.borrow(io, &asked).await? {
            return Ok(());
        }
        self.take_turn(io, &mut asked, incoming, decided).await
    }

    /// Rests until the client begins a request. An attention without one is acknowledged here.
    async fn await_request(&mut self, io: &mut ClientIo) -> Result<(), End> {
        loop {
            if self.session.request_begins(io).await? {
                return Ok(());
            }
            if !io.link.input.is_empty() {
                self.session.fill(io).await?;
                continue;
            }
            if self.lease.is_none() {
                self.rest(io).await?;
                continue;
            }
            match self.rest_with_lease(io).await? {
                Woken::Client => self.session.fill(io).await?,
                Woken::Server => self.server_spoke(io)?,
                Woken::Overdue => self.overdue(io)?,
                Woken::Recalled => self.give_back(),
                Woken::Idle => return Err(End::Quiet("idle for too long (timeouts.client_idle)")),
            }
        }
    }

    /// Rests without a connection; after a while without buffers, too.
    async fn rest(&mut self, io: &mut ClientIo) -> Result<(), End> {
        if let Some(check) = &mut self.check {
            tokio::select! {
                biased;
                () = io.link.readable() => return self.session.fill(io).await,
                () = self.session.conn.control.wanted(Wish::Drain) => {}
                () = check.as_mut() => {}
            }
        }
        self.check = None;
        self.reader = None;
        self.scratch = Vec::new();
        self.session.rest(io).await?;
        self.session.fill(io).await
    }

    async fn rest_with_lease(&mut self, io: &mut ClientIo) -> Result<Woken, End> {
        let patience = self.patience(io);
        let session = self.session;
        let recall = self.lease.as_ref().and_then(Lease::recall).unwrap_or_default();
        let Some(server) = self.lease.as_mut().and_then(Lease::link) else { return Ok(Woken::Server) };
        let free = state_of(io).is_free();
        if !free {
            crate::crash_test::point("held-idle", &session.login.template.application);
        }
        let clean = async {
            if free { recall.wanted(RecallLevel::WhenClean).await } else { std::future::pending().await }
        };
        let overdue = async {
            match patience {
                Some((limit, woken)) => {
                    tokio::time::sleep(limit).await;
                    woken
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = session.conn.control.wanted(Wish::End) => Err(End::Told(SessionError::Killed)),
            why = recall.wanted(RecallLevel::Now) => Err(End::Told(SessionError::Recalled(why))),
            _ = clean => Ok(Woken::Recalled),
            () = io.link.readable() => Ok(Woken::Client),
            () = server.readable() => Ok(Woken::Server),
            woken = overdue => Ok(woken),
        }
    }

    /// How long a session may do nothing with its connection, and what is the matter then.
    fn patience(&self, io: &mut ClientIo) -> Option<(Duration, Woken)> {
        let settings = self.session.login.bucket.settings();
        let state = state_of(io);
        if state.is_free() {
            return Some((settings.linger, Woken::Overdue));
        }
        let in_transaction = settings.idle_in_transaction_timeout.filter(|_| state.transaction.is_open());
        let held = [in_transaction, settings.hold_timeout].into_iter().flatten().min();
        match (held, self.session.context.config.timeouts.client_idle) {
            (Some(held), Some(idle)) if idle < held => Some((idle, Woken::Idle)),
            (Some(held), _) => Some((held, Woken::Overdue)),
            (None, idle) => idle.map(|idle| (idle, Woken::Idle)),
        }
    }

    /// A server that says something unasked closes the connection, or is not to be trusted.
    fn server_spoke(&mut self, io: &mut ClientIo) -> Result<(), End> {
        // A socket may be called readable without a reason: only a look at it tells.
        let quiet =
            |lease: &mut Lease| lease.link().is_some_and(|link| link.check_idle() == IdleCheck::Quiet);
        if self.lease.as_mut().is_some_and(quiet) {
            return Ok(());
        }
        self.drop_lease();
        if state_of(io).is_free() {
            return Ok(());
        }
        let why = "the server closed it while the session rested".to_owned();
        Err(End::Told(SessionError::ServerLost { why }))
    }

    fn overdue(&mut self, io: &mut ClientIo) -> Result<(), End> {
        let state = state_of(io);
        if state.is_free() {
            self.give_back();
            return Ok(());
        }
        let held: Vec<Reason> = state.ledger.reasons().into_iter().map(|(reason, _)| reason).collect();
        let names = held.iter().map(|reason| reason.name()).collect::<Vec<_>>().join(", ");
        let error = SessionError::HeldTooLong { holds: names };
        tracing::warn!(session = %self.session.conn.id, %error, "a hold ended");
        self.session.context.metrics.session_error(error.label());
        if held.iter().any(|reason| *reason != Reason::Transaction) {
            // More than a reset can make good: the session has lost what it relied on.
            return Err(End::Told(error));
        }
        // Nothing but the transaction was on it: the reset rolls it back.
        if let Some(lease) = self.take_lease() {
            lease.reset();
        }
        let rolled_back = state.transaction.rolled_back();
        state.lost_connection();
        state.overdue = Some((error, rolled_back));
        self.session.conn.checkpoint.hold(false);
        self.session.conn.show_holds(Vec::new(), &self.session.context.telemetry);
        Ok(())
    }

    fn read(&mut self, io: &ClientIo, incoming: &Incoming) -> Result<Asked, End> {
        let dialect = self.session.login.dialect;
        let reader = self.reader.get_or_insert_with(|| Box::new(RequestReader::new(dialect)));
        let payload = incoming.payload(&io.link.input, &mut self.scratch);
        if self.session.context.telemetry.is_on()
            && let Some(context) = TraceContext::of(incoming.kind, payload, dialect)
        {
            self.session.conn.clock.belongs_to(context);
        }
        reader
            .read(incoming.kind, incoming.status, payload, incoming.whole, &self.procedures)
            .map_err(protocol)
    }

    /// What of the request is answered here (`Err`: with these tokens), and what is sent instead of it.
    fn decide(&mut self, io: &mut ClientIo, incoming: &Incoming, asked: &Asked) -> Result<Decided, Bytes> {
        let packet_size = self.session.login.packet_size;
        let state = io.pooled.get_or_insert_default();
        // With implicit transactions a BEGIN counts differently, and a reset comes first.
        if incoming.status.asks_for_reset() || !incoming.whole {
            return Ok(Decided::default());
        }
        let version = self.session.login.dialect.version;
        if let Some(handles) = &asked.unprepares
            && let Some(tokens) = prepared::answer_unprepares(handles, &mut state.statements, version)
        {
            return Err(tokens);
        }
        if let Some(tokens) = asked.handles.as_ref().and_then(|handles| handles.answer(&mut state.statements))
        {
            return Err(tokens);
        }
        let begins_implicitly = state.settings.begins_implicitly();
        // Nothing is won where the connection is held anyway, and what is held may end with a transaction: cursors do
        // under CURSOR_CLOSE_ON_COMMIT.
        let begins_really = begins_implicitly
            || (state.ledger.holds_more_than_transaction()
                && !matches!(state.transaction, Transaction::Virtual { .. }));
        let PooledState { transaction, descriptors, settings, .. } = &mut **state;
        let answered = match asked.alone {
            Some(Alone::Begin) if !begins_really => transaction.begin_by_text(descriptors),
            Some(Alone::Commit) => transaction.end_by_text(true, descriptors),
            Some(Alone::Rollback) => transaction.end_by_text(false, descriptors),
            _ => None,
        };
        if let Some(tokens) = answered {
            return Err(tokens.freeze());
        }
        let Some(request) = &asked.transaction else { return Ok(Decided::default()) };
        if begins_really {
            return Ok(Decided::default());
        }
        let step = transaction.step(request, descriptors);
        if let (Step::Answer(_), Transaction::Virtual { begin, .. }) = (&step, &*transaction)
            && let Some(level) = Transaction::isolation(begin)
        {
            Arc::make_mut(settings).set(ISOLATION, level);
        }
        match step {
            Step::Forward => Ok(Decided::default()),
            Step::Answer(tokens) => Err(tokens.freeze()),
            Step::EndAndBegin { instead, begin } => {
                let mut bytes = BytesMut::new();
                let mut payload = BytesMut::new();
                instead.write(&mut payload, &transaction.client_headers(), self.session.login.dialect);
                let (kind, status) = (PacketType::TRANSACTION_MANAGER, Status::NORMAL);
                write_message(&mut bytes, kind, status, 0, packet_size, &payload);
                Ok(Decided { instead: Some(bytes), begin: Some(begin) })
            }
        }
    }

    /// Answers a request here.
    async fn answer(&mut self, io: &mut ClientIo, incoming: &Incoming, tokens: &[u8]) -> Result<(), End> {
        incoming.consume(io).map_err(protocol)?;
        let size = self.session.login.packet_size.min(DEFAULT_PACKET_SIZE);
        let mut out = BytesMut::new();
        write_message(&mut out, PacketType::RESPONSE, Status::NORMAL, 0, size, tokens);
        self.session.login.bucket.shared().metrics.requests.inc();
        state_of(io).values.answered_elsewhere();
        self.session.say(io, &out).await
    }

    async fn refuse(&self, io: &mut ClientIo, error: &SessionError) -> Result<(), End> {
        debug!(session = %self.session.conn.id, %error, "refused a request");
        self.session.conn.clock.refused(error.label());
        self.session.context.metrics.session_error(error.label());
        state_of(io).values.answered_elsewhere();
        self.session.answer_request(io, &[], &error.messages()).await
    }

    /// Makes sure that there is a connection in hand. False if the request was answered otherwise.
    async fn borrow(&mut self, io: &mut ClientIo, asked: &Asked) -> Result<bool, End> {
        let session = self.session;
        let state = state_of(io);
        let had_one = self.lease.is_some();
        if !had_one && !self.resume() {
            let wish = ConnWish {
                session: session.conn.id,
                settings: Arc::clone(&state.settings),
                uses: state.uses,
            };
            session.conn.checkpoint.enter(Phase::Waiting);
            match session.wait_for_lease(io, Some(wish)).await? {
                Waited::Lease(lease) => {
                    session.conn.server.store(lease.id().map_or(0, |id| id.0), Ordering::Relaxed);
                    self.lease = Some(*lease);
                }
                Waited::ClientGone => return Err(End::Quiet("the client left while it waited")),
                Waited::Withdrawn => {
                    session.say_withdrawn(io).await?;
                    return Ok(false);
                }
                Waited::Refused(error) => {
                    session.refused(io, error).await?;
                    return Ok(false);
                }
            }
        }
        let shares_handles = self.lease.as_ref().is_some_and(Lease::has_handles);
        if asked.handles_by_text() && shares_handles && !state_of(io).is_free() {
            self.refuse(io, &SessionError::HandlesByText).await?;
            return Ok(false);
        }
        if !self.previous(io).contains(asked.reads_previous) && !self.is_asked_for(Mutant::PreviousValues) {
            if !had_one {
                self.give_back_untouched();
            }
            self.refuse(io, &SessionError::PreviousValuesGone).await?;
            return Ok(false);
        }
        Ok(true)
    }

    /// Takes up the connection again that it used last, if that still rests.
    fn resume(&mut self) -> bool {
        self.lease = self.rested.take().and_then(|rested| rested.resume(Instant::now()));
        let Some(lease) = &self.lease else { return false };
        let conn = self.session.conn;
        conn.server.store(lease.id().map_or(0, |id| id.0), Ordering::Relaxed);
        self.session.login.bucket.shared().metrics.waited(Duration::ZERO);
        true
    }

    /// Whether the connection in hand is as this session left it.
    fn is_continued(&self, io: &mut ClientIo) -> bool {
        let uses = state_of(io).uses;
        self.lease.as_ref().is_some_and(|lease| lease.is_continued(self.session.conn.id, uses))
    }

    /// Values of the session's earlier requests that are on the connection in hand.
    fn previous(&self, io: &mut ClientIo) -> Values {
        if !self.is_continued(io) {
            return Values::NONE;
        }
        let state = state_of(io);
        let mut values = state.values;
        if self.lease.as_ref().is_some_and(|lease| !lease.has_settings(&state.settings)) {
            // What sets them goes first.
            values.overwritten();
        }
        values
    }

    async fn take_turn(
        &mut self,
        io: &mut ClientIo,
        asked: &mut Asked,
        incoming: Incoming,
        decided: Decided,
    ) -> Result<(), End> {
        let session = self.session;
        let (mut continued, previous) = (self.is_continued(io), self.previous(io));
        let shared = session.login.bucket.shared();
        let metrics = &shared.metrics;
        let was_held = !state_of(io).is_free();
        let rules = self.rules();
        let Some(conn) = self.lease.as_mut().and_then(Lease::conn) else {
            return Err(End::Told(SessionError::ServerLost { why: "it was closed".to_owned() }));
        };
        let ClientIo { link, exchange, pooled } = io;
        let state = pooled.get_or_insert_default();
        if asked.handles_by_text() && !conn.state.reals.is_empty() {
            // A number in a text must not meet what somebody else has prepared.
            (conn.state.dirty, continued) = (true, false);
        }
        let resets = incoming.status.asks_for_reset() && incoming.kind.can_reset();
        let answers_reset = resets && prelude::can_answer_reset(state, conn, continued);
        if answers_reset {
            state.client_reset();
        }
        let mut front = BytesMut::new();
        let keeps = incoming.status.contains(Status::RESET_CONNECTION_SKIP_TRAN);
        if resets && !keeps && matches!(state.transaction, Transaction::Virtual { .. }) {
            front = state.transaction.rolled_back();
            state.transaction = Transaction::None;
        }
        if answers_reset {
            EnvChange::ResetDone.write(&mut front);
        }
        if resets && !answers_reset {
            conn.state.reals.clear();
        }
        let own = prelude::requests(state, conn, continued, resets && !answers_reset, &rules);
        if matches!(state.transaction, Transaction::Virtual { .. }) {
            session.conn.checkpoint.hold(true);
        }
        if let Some(instead) = &decided.instead {
            asked.descriptor_at =
                tds::request::AllHeaders::descriptor_offset(&instead[tds::packet::HEADER_LEN..]);
        }
        let request = Request {
            len: incoming.len,
            whole: incoming.whole,
            walker: incoming.walker,
            instead: decided.instead,
            clear_reset: answers_reset,
            front: (!front.is_empty()).then(|| front.freeze()),
            begin: decided.begin.clone(),
            previous,
        };
        let recall = Arc::clone(conn.recall());
        let dialect = session.login.dialect;
        let reader = self.reader.get_or_insert_with(|| Box::new(RequestReader::new(dialect)));
        let (patience, chunk) = (session.context.patience(), session.context.chunk());
        let application = &session.login.template.application;
        let of = Relaying {
            conn: session.conn,
            metrics,
            telemetry: &session.context.telemetry,
            recall: &recall,
            patience,
            chunk,
            application,
        };
        let Some(ConnTurn { server, editor, reals, witness }) = conn.turn() else {
            return Err(End::Told(SessionError::ServerLost { why: "it was closed".to_owned() }));
        };
        let PooledState { transaction, descriptors, statements, settings, .. } = &mut **state;
        let deals = asked.handles.is_some();
        let handles = Handles {
            calls: asked.handles.take(),
            statements,
            reals,
            context: if deals { settings.handle_context() } else { 0 },
            packet_size: rules.packet_size,
            state: handles::State::default(),
        };
        let turn = Turn {
            of,
            client: link,
            exchange,
            server,
            editor,
            reader,
            procedures: &self.procedures,
            asked,
            transaction,
            descriptors,
            own,
            request,
            handles,
            reply: Reply::default(),
            witness,
            flow: turn::Flow::new(chunk),
            check: &mut self.check,
        };
        match turn.run().await {
            Ok(mut reply) => {
                // What the server itself reset is as after a login.
                let kept = if reply.reset { Values::ALL } else { Values::NONE };
                let state = state_of(io);
                if answers_reset {
                    state.values = Values::NONE;
                }
                let set = match (reply.withdrawn, reply.error) {
                    (true, _) => Values::NONE,
                    (false, true) => Values::OUTCOME,
                    (false, false) => asked.sets,
                };
                state.values.ran(continued, kept.with(set));
                reply.reset |= answers_reset;
                self.settle(io, asked, reply, decided.begin);
                Ok(())
            }
            Err(end) => self.failed(io, end, was_held).await,
        }
    }

    /// The response went out whole: what it did, and whether the connection goes home.
    fn settle(
        &mut self,
        io: &mut ClientIo,
        asked: &Asked,
        mut reply: Reply,
        begin: Option<BeginTransaction>,
    ) {
        let session = self.session;
        if let Some(exchange) = &mut io.exchange {
            exchange.forget_server();
        }
        self.tell(&reply);
        let rules = self.rules();
        let state = io.pooled.get_or_insert_default();
        let Some(conn) = self.lease.as_mut().and_then(Lease::conn) else { return };
        reply.told = told(session, conn);
        let ran = !reply.error && !reply.withdrawn;
        // The level stays, whoever begins the transaction.
        let level = asked.transaction.as_ref().and_then(transaction::begins).and_then(Transaction::isolation);
        // What begins later has not set it on this connection yet.
        let begins_later = begin.is_some();
        if let Some(level) = level.filter(|_| ran && !begins_later) {
            Arc::make_mut(&mut state.settings).set(ISOLATION, level);
        }
        if let Some(begin) = begin.filter(|_| ran && reply.ended.is_none()) {
            state.nested = Some(begin);
        }
        conn.state.last = Some((session.conn.id, conn.uses));
        state.uses = conn.uses;
        state.settle(asked, reply, &mut conn.state, rules, Instant::now());
        if let Some(level) = level.filter(|_| ran && begins_later) {
            Arc::make_mut(&mut state.settings).set(ISOLATION, level);
        }
        let held = !state.is_free() && !Mutant::Hold.is_asked_for(rules.application);
        if held || session.conn.checkpoint.is_held() {
            session.conn.checkpoint.hold(held);
            session.conn.show_holds(
                state.ledger.reasons().into_iter().map(|(reason, since)| (reason.name(), since)).collect(),
                &session.context.telemetry,
            );
        }
        // A transaction that was begun and is over holds nothing either.
        let lingers = asked.leaves_values && !session.login.bucket.settings().linger.is_zero();
        if !held && !lingers {
            self.give_back();
        }
    }

    /// What is told of the request that was answered.
    fn tell(&self, reply: &Reply) {
        let clock = &self.session.conn.clock;
        clock.rows(reply.rows);
        if reply.withdrawn {
            clock.cancelled();
        } else if reply.error {
            clock.error(reply.number.unwrap_or(-1));
        }
    }

    /// The turn could not be ended.
    async fn failed(&mut self, io: &mut ClientIo, end: TurnEnd, was_held: bool) -> Result<(), End> {
        self.drop_lease();
        self.session.conn.checkpoint.hold(false);
        let in_response = self.session.conn.checkpoint.phase() == Phase::Forwarding;
        let told = |error: SessionError, quietly| {
            Err(if in_response { End::Quiet(quietly) } else { End::Told(error) })
        };
        let lost = match end {
            TurnEnd::Relay(RelayEnd::ClientGone) => return Err(End::Quiet("the client left")),
            TurnEnd::Relay(RelayEnd::ClientStalled(how)) => return Err(End::Quiet(how)),
            TurnEnd::Relay(RelayEnd::ClientProtocol(malformed)) => {
                return told(SessionError::ClientProtocol(malformed), "the client broke the protocol");
            }
            TurnEnd::Relay(RelayEnd::Wished) => return told(SessionError::Killed, "closed by an operator"),
            TurnEnd::Relay(RelayEnd::Recalled(why)) => {
                return told(SessionError::Recalled(why), "the server connection was recalled");
            }
            TurnEnd::Relay(RelayEnd::AttentionUnanswered) => "it did not acknowledge an attention".to_owned(),
            TurnEnd::Relay(RelayEnd::ServerGone(why)) => why,
            TurnEnd::Relay(RelayEnd::ServerProtocol(malformed)) => malformed.to_string(),
            TurnEnd::ReadsPrevious if was_held => {
                return told(SessionError::PreviousValuesGone, "values of an earlier request were gone");
            }
            TurnEnd::ReadsPrevious => {
                state_of(io).lost_connection();
                return self.refuse(io, &SessionError::PreviousValuesGone).await;
            }
            TurnEnd::NotPrepared { why, sent: false } if !was_held => {
                let state = state_of(io);
                if state.transaction.is_open() {
                    // It was begun for this request only, and is gone with its connection.
                    return Err(End::Told(SessionError::ServerLost { why }));
                }
                state.lost_lease();
                return self.refuse(io, &SessionError::NotPrepared { why }).await;
            }
            TurnEnd::NotPrepared { why, .. } => why,
        };
        let state = state_of(io);
        if in_response || was_held || state.transaction.is_open() {
            return told(SessionError::ServerLost { why: lost }, "the server connection was lost");
        }
        debug!(session = %self.session.conn.id, why = lost, "a server connection was lost under a request");
        state.lost_connection();
        self.refuse(io, &SessionError::ServerLostUnderRequest { why: lost }).await
    }

    fn rules(&self) -> Rules<'a> {
        let settings = self.session.login.bucket.settings();
        Rules {
            home: &self.session.login.home,
            keep_process_id: settings.spid_reads == tdsbouncer_config::SpidReads::Hold,
            always_reset: settings.reset == tdsbouncer_config::ResetPolicy::Always,
            packet_size: self.session.login.packet_size,
            application: &self.session.login.template.application,
        }
    }

    fn is_asked_for(&self, mutant: Mutant) -> bool {
        mutant.is_asked_for(&self.session.login.template.application)
    }

    /// The connection is the session's no longer; what becomes of it is the caller's to say.
    fn take_lease(&mut self) -> Option<Lease> {
        let lease = self.lease.take()?;
        self.session.conn.server.store(0, Ordering::Relaxed);
        Some(lease)
    }

    /// The connection may serve others: as it is, its state is known.
    fn give_back(&mut self) {
        let Some(lease) = self.take_lease() else { return };
        let conn = self.session.conn;
        if conn.checkpoint.is_held() {
            conn.checkpoint.hold(false);
            conn.show_holds(Vec::new(), &self.session.context.telemetry);
        }
        self.rested = lease.rest(Instant::now());
    }

    /// Nothing was sent on it.
    fn give_back_untouched(&mut self) {
        if let Some(lease) = self.take_lease() {
            drop(lease);
        }
    }

    /// Nobody knows what is on it: it is closed.
    fn drop_lease(&mut self) {
        if let Some(lease) = self.take_lease() {
            self.session.conn.show_holds(Vec::new(), &self.session.context.telemetry);
            drop(lease);
        }
    }

    /// The session is over: what it held is reset and goes home.
    fn leave(&mut self, io: &mut ClientIo) {
        let Some(lease) = self.lease.take() else { return };
        self.session.conn.show_holds(Vec::new(), &self.session.context.telemetry);
        let state = state_of(io);
        if state.is_free() {
            lease.keep();
        } else if state.ledger.outlives_reset() {
            drop(lease);
        } else {
            lease.reset();
        }
    }
}

/// What the server says of the session that has this connection.
fn told(session: &Session<'_>, conn: &ServerConn) -> Option<Told> {
    let witness = conn.witness.as_ref()?;
    let bucket = &session.login.bucket;
    let traits = bucket.shared().traits.load();
    let recovery = traits.as_ref().map_or(SessionRecovery::NotOffered, |traits| traits.session_recovery);
    if recovery == SessionRecovery::Silent {
        return None;
    }
    let context = traits.as_ref().map_or(StateIds::NONE, |traits| traits.context_states);
    Some(Told {
        recoverable: witness.is_recoverable(),
        has_context: witness.has_changed(context),
        context,
        // A text that nobody has read is as a procedure that nobody knows.
        everything: recovery == SessionRecovery::Tells
            && bucket.settings().unknown_procedures == UnknownProcedures::Share,
    })
}

/// The session's state, made at its first request.
fn state_of(io: &mut ClientIo) -> &mut PooledState {
    io.pooled.get_or_insert_default()
}
