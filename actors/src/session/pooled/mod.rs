//! A logged-in client's life in transaction pooling: it borrows a server connection for a request or a transaction,
//! keeps it while it must, and gives it back at the first moment at which it may change hands.

pub(crate) mod asked;
mod decide;
mod handles;
pub(crate) mod holds;
mod lending;
mod observer;
mod outcome;
mod prelude;
mod receive;
mod rest;
pub(crate) mod state;
mod transaction;
mod turn;
mod values;

use std::pin::Pin;
use std::sync::Arc;

use bytes::BytesMut;
use tds::message::write_message;
use tds::packet::{DEFAULT_PACKET_SIZE, PacketType, Status};
use tds::tsql::Procedures;
use tokio::time::Sleep;
use tracing::debug;

use super::client_conn::ClientIo;
use super::relay::Relaying;
use super::serve::{End, Session, protocol};
use super::verdict::{Phase, Verdict};
use crate::bucket::{ConnTurn, Lease, Rested};
use crate::error::{Answer, SessionError};
use crate::mutant::Mutant;
use crate::telemetry::TraceContext;
use asked::{Asked, RequestReader};
use decide::Decided;
use handles::Handles;
use observer::Reply;
use prelude::Prepared;
use receive::{Incoming, Received};
use state::{PooledState, Rules};
use turn::Turn;
use values::Values;

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

    async fn take_turn(
        &mut self,
        io: &mut ClientIo,
        asked: &mut Asked,
        incoming: Incoming,
        decided: Decided,
    ) -> Result<(), End> {
        let session = self.session;
        let (continued, previous) = (self.is_continued(io), self.previous(io));
        let metrics = &session.login.bucket.shared().metrics;
        let was_held = !state_of(io).is_free();
        let rules = self.rules();
        let Some(conn) = self.lease.as_mut().and_then(Lease::conn) else {
            return Err(End::Told(SessionError::ServerLost { why: "it was closed".to_owned() }));
        };
        let ClientIo { link, exchange, pooled } = io;
        let state = pooled.get_or_insert_default();
        let begin = decided.begin.clone();
        let Prepared { own, request, continued, answers_reset } =
            prelude::prepare(state, conn, asked, incoming, decided, continued, previous, &rules);
        if own.iter().any(|own| own.kind == turn::OwnKind::Begin) {
            session.conn.checkpoint.hold(true);
        }
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
                let state = state_of(io);
                if answers_reset {
                    state.values = Values::NONE;
                }
                state.values.ran(continued, reply.leaves(asked.sets));
                reply.reset |= answers_reset;
                self.settle(io, asked, reply, begin);
                Ok(())
            }
            Err(end) => self.failed(io, end, was_held).await,
        }
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
}

/// The session's state, made at its first request.
fn state_of(io: &mut ClientIo) -> &mut PooledState {
    io.pooled.get_or_insert_default()
}
