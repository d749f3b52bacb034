//! One request and its response on their way, in both directions at once and in bounded buffers, with what the proxy
//! itself has to say to the server before it.
//!
//! ```text
//! up:    own requests ─▶ the client's request ─▶ the rest of it, as it comes ─▶ attentions
//! down:  own responses, swallowed ─▶ the client's response, observed and edited ─▶ acknowledgement
//! ```

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tds::edit::{Edit, Passed, ResponseEditor};
use tds::exchange::Exchange;
use tds::packet::{HEADER_LEN, PacketHeader, PacketType, PacketWalker, Status};
use tds::request::BeginTransaction;
use tds::tsql::Procedures;
use tokio::time::{Sleep, sleep};

use super::super::chunk::Chunk;
use super::super::client_conn::Wish;
use super::super::relay::{RelayEnd, Relaying, kind_of};
use super::super::verdict::Phase;
use super::asked::{Asked, RequestReader};
use super::handles::{Handles, Planned, Sent};
use super::observer::{Observer, OwnReply, Reply};
use super::transaction::{Descriptors, Transaction};
use super::values::Values;
use crate::bucket::recall::RecallLevel;
use crate::bucket::witness::Witness;
use crate::mutant::Mutant;
use crate::wire::Link;

/// How often a turn that takes long looks for silence that lasts too long.
const CHECK: Duration = Duration::from_secs(1);

/// A request of the proxy's own that goes before the client's.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) bytes: BytesMut,
    pub(crate) kind: OwnKind,
    /// What comes behind it waits for its response.
    pub(crate) wait: bool,
}

/// What it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnKind {
    /// A replay of settings behind a reset, which has to be acknowledged.
    Reset,
    /// A replay of settings.
    Replay,
    /// Begins what was virtual.
    Begin,
    /// Begins a transaction inside the one that is open: nothing is said of it.
    Nest,
    /// Prepares what the request executes.
    Prepare,
}

/// Why a turn failed.
#[derive(Debug)]
pub(crate) enum TurnEnd {
    Relay(RelayEnd),
    /// The connection could not be given the session's state. `sent`: the request was under way already.
    NotPrepared {
        why: String,
        sent: bool,
    },
    /// Late in a long text something was found that cannot be answered on this connection.
    ReadsPrevious,
}

impl From<RelayEnd> for TurnEnd {
    fn from(end: RelayEnd) -> Self {
        Self::Relay(end)
    }
}

/// The client's request, and what is to happen to it.
pub(crate) struct Request {
    /// Its bytes at the front of the client's input.
    pub(crate) len: usize,
    /// All of it is there.
    pub(crate) whole: bool,
    /// Follows the client's packets behind `len`.
    pub(crate) walker: PacketWalker,
    /// Sent in its place.
    pub(crate) instead: Option<BytesMut>,
    /// The reset bit was answered by the proxy.
    pub(crate) clear_reset: bool,
    /// Tokens that come before the server's.
    pub(crate) front: Option<Bytes>,
    /// What begins virtually once the transaction has ended.
    pub(crate) begin: Option<BeginTransaction>,
    /// Values of the session's earlier requests that are still on the connection.
    pub(crate) previous: Values,
}

/// What a turn works with.
pub(crate) struct Turn<'a> {
    pub(crate) of: Relaying<'a>,
    pub(crate) client: &'a mut Link,
    pub(crate) exchange: &'a mut Option<Exchange>,
    pub(crate) server: &'a mut Link,
    pub(crate) editor: &'a mut ResponseEditor,
    pub(crate) reader: &'a mut RequestReader,
    pub(crate) procedures: &'a Procedures,
    pub(crate) asked: &'a mut Asked,
    pub(crate) transaction: &'a mut Transaction,
    pub(crate) descriptors: &'a mut Descriptors,
    pub(crate) own: VecDeque<Own>,
    pub(crate) request: Request,
    pub(crate) handles: Handles<'a>,
    pub(crate) reply: Reply,
    /// Of the connection, if its server tells of its session.
    pub(crate) witness: Option<&'a mut Witness>,
    pub(crate) flow: Flow,
    /// When to look for stalls next.
    pub(crate) check: &'a mut Option<Pin<Box<Sleep>>>,
}

/// How far it has come.
pub(crate) struct Flow {
    up_chunk: Chunk,
    down_chunk: Chunk,
    to_server: BytesMut,
    to_client: BytesMut,
    up: Up,
    /// Responses to the proxy's own requests that are to come.
    awaited: VecDeque<OwnKind>,
    own_reply: OwnReply,
    /// The next thing to send waits for the response to what was sent.
    waiting: bool,
    answered: bool,
    unacknowledged: bool,
    /// Bytes that were looked at and are not a whole packet.
    looked: usize,
    moved: bool,
    received: usize,
    still: Duration,
}

impl Flow {
    /// Reads `chunk` bytes at once, to begin with.
    pub(crate) fn new(chunk: usize) -> Self {
        Self {
            up_chunk: Chunk::new(chunk),
            down_chunk: Chunk::new(chunk),
            to_server: BytesMut::new(),
            to_client: BytesMut::new(),
            up: Up::Own,
            awaited: VecDeque::new(),
            own_reply: OwnReply::default(),
            waiting: false,
            answered: false,
            unacknowledged: false,
            looked: 0,
            moved: false,
            received: 0,
            still: Duration::ZERO,
        }
    }
}

/// What is sent next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Up {
    Own,
    Request,
    Rest,
    Attentions,
}

impl Turn<'_> {
    /// Runs the request to the end of its response. Not cancel safe: what was read and not passed on is lost with
    /// it, and with it the lease.
    pub(crate) async fn run(mut self) -> Result<Reply, TurnEnd> {
        if let Some(front) = self.request.front.take() {
            self.editor.insert_front(&front);
        }
        let (control, recall) = (&self.of.conn.control, self.of.recall);
        loop {
            if self.check.as_ref().is_none_or(|check| check.is_elapsed()) {
                *self.check = Some(Box::pin(sleep(CHECK)));
                (self.flow.moved, self.flow.received) = (false, 0);
            }
            let mut check = self.check.take();
            let end = tokio::select! {
                biased;
                end = poll_fn(|cx| self.poll(cx)) => Some(end),
                () = control.wanted(Wish::End) => Some(Err(RelayEnd::Wished.into())),
                why = recall.wanted(RecallLevel::Now) => Some(Err(RelayEnd::Recalled(why).into())),
                () = async { if let Some(check) = &mut check { check.as_mut().await } } => None,
            };
            *self.check = check;
            match end {
                Some(Ok(())) => return Ok(self.reply),
                Some(Err(end)) => return Err(end),
                None => self.stalled()?,
            }
        }
    }

    /// Silences that last too long. A server may think for as long as it likes.
    fn stalled(&mut self) -> Result<(), TurnEnd> {
        let trickles = self.flow.received < super::super::relay::PACE && self.waits_for_client();
        let quiet = !self.flow.moved || trickles;
        self.flow.still = if quiet { self.flow.still + CHECK } else { Duration::ZERO };
        let (still, patience) = (self.flow.still, self.of.patience);
        if !self.flow.to_client.is_empty() || self.client.has_output() {
            return match patience.client_write {
                Some(limit) if still >= limit => {
                    Err(RelayEnd::ClientStalled("reads nothing (timeouts.client_write)").into())
                }
                _ => Ok(()),
            };
        }
        if self.flow.unacknowledged && still >= patience.attention {
            return Err(RelayEnd::AttentionUnanswered.into());
        }
        if self.waits_for_client() && still >= patience.request {
            let how = "stopped in the middle of a request (timeouts.request)";
            return Err(RelayEnd::ClientStalled(how).into());
        }
        Ok(())
    }

    fn waits_for_client(&self) -> bool {
        self.flow.up == Up::Rest && self.flow.to_server.is_empty()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TurnEnd>> {
        loop {
            let up = self.poll_up(cx)?;
            let down = self.poll_down(cx)?;
            if self.is_over() {
                return Poll::Ready(Ok(()));
            }
            if up.is_pending() && down.is_pending() {
                return Poll::Pending;
            }
            self.flow.moved = true;
        }
    }

    fn is_over(&self) -> bool {
        let flow = &self.flow;
        flow.answered
            && flow.up == Up::Attentions
            && !flow.unacknowledged
            && flow.to_client.is_empty()
            && flow.to_server.is_empty()
            && !self.client.has_output()
            && !self.server.has_output()
    }

    /// Client to server. `Ready`: something moved.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TurnEnd>> {
        if self.flow.to_server.is_empty() && !self.server.has_output() {
            self.load_up()?;
        }
        if self.flow.to_server.is_empty() && !self.server.has_output() {
            return self.poll_client(cx);
        }
        match self.server.poll_write_from(cx, &mut self.flow.to_server) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(RelayEnd::ServerGone(error.to_string()).into())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Nothing is to be sent: reads what the client sends, no more than is good to have.
    fn poll_client(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TurnEnd>> {
        let before = self.client.input.len();
        // A request behind this one waits in its socket.
        if self.flow.up == Up::Attentions && before >= HEADER_LEN {
            return Poll::Pending;
        }
        match self.client.poll_fill(cx, self.flow.up_chunk.size()) {
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(Err(RelayEnd::ClientGone.into())),
            Poll::Ready(Ok(read)) => {
                self.flow.received += read;
                self.flow.up_chunk.was_read(read);
                Poll::Ready(Ok(()))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Puts what is to be sent next into the buffer.
    fn load_up(&mut self) -> Result<(), TurnEnd> {
        loop {
            if self.flow.waiting {
                return Ok(());
            }
            match self.flow.up {
                Up::Own => match self.own.pop_front() {
                    Some(own) => {
                        self.of.conn.clock.preparing();
                        self.flow.to_server.extend_from_slice(&own.bytes);
                        self.flow.awaited.push_back(own.kind);
                        self.flow.waiting = own.wait;
                    }
                    None => self.flow.up = Up::Request,
                },
                Up::Request => return self.load_request(),
                Up::Rest => return self.load_rest(),
                Up::Attentions => return self.load_attention(),
            }
        }
    }

    fn load_request(&mut self) -> Result<(), TurnEnd> {
        if self.handles.deals() && !self.load_handles()? {
            return Ok(());
        }
        let Self { request, client, exchange, flow, of, asked, transaction, .. } = self;
        of.conn.checkpoint.enter(Phase::Sent);
        of.conn.clock.sent();
        let mut bytes = client.input.split_to(request.len);
        if let Some(exchange) = exchange.as_mut() {
            let seen = exchange.sent(&bytes).map_err(RelayEnd::ClientProtocol)?;
            of.metrics.work.packets_to_server(kind_of(&bytes), seen.packets.into());
        }
        of.conn.bytes_in.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if let Some(instead) = request.instead.take() {
            bytes = instead;
        }
        if request.clear_reset
            && let Some(status) = bytes.get_mut(1)
        {
            *status &= !(Status::RESET_CONNECTION.0 | Status::RESET_CONNECTION_SKIP_TRAN.0);
        }
        let translated = !Mutant::Descriptor.is_asked_for(of.application);
        if let Some(at) = asked.descriptor_at.filter(|_| translated) {
            let place = bytes.get_mut(HEADER_LEN + at..).and_then(<[u8]>::first_chunk_mut::<8>);
            if let Some(place) = place {
                *place = transaction.to_server(u64::from_le_bytes(*place)).to_le_bytes();
            }
        }
        of.metrics.requests.inc();
        of.metrics.bytes_to_server.inc_by(bytes.len() as u64);
        if flow.to_server.is_empty() {
            flow.to_server = bytes;
        } else {
            flow.to_server.extend_from_slice(&bytes);
        }
        flow.up = if request.whole { Up::Attentions } else { Up::Rest };
        Ok(())
    }

    /// A request that deals in prepared handles. False if something else goes first.
    fn load_handles(&mut self) -> Result<bool, TurnEnd> {
        let Self { request, client, flow, asked, transaction, handles, .. } = self;
        let packets = client.input.get(..request.len).unwrap_or_default();
        let descriptor = asked.descriptor_at.and_then(|at| {
            let descriptor = packets.get(HEADER_LEN + at..).and_then(<[u8]>::first_chunk::<8>)?;
            Some((at, transaction.to_server(u64::from_le_bytes(*descriptor)).to_le_bytes()))
        });
        match handles.plan(&Sent { packets, clear_reset: request.clear_reset, descriptor }) {
            Planned::First(bytes) => {
                flow.to_server.extend_from_slice(&bytes);
                flow.awaited.push_back(OwnKind::Prepare);
                flow.waiting = true;
                Ok(false)
            }
            Planned::Send(instead) => {
                if instead.is_some() {
                    // All is in there already.
                    (request.instead, request.clear_reset, asked.descriptor_at) = (instead, false, None);
                }
                Ok(true)
            }
            Planned::Not(why) => Err(TurnEnd::NotPrepared { why, sent: false }),
        }
    }

    /// More of a request that is too long to be looked at as a whole.
    fn load_rest(&mut self) -> Result<(), TurnEnd> {
        let mut at = 0;
        let mut ended = false;
        let mut pieces = Vec::new();
        let mut last = Status::NORMAL;
        while at < self.client.input.len() && !ended {
            let input = &self.client.input[at..];
            let Some(piece) = self.request.walker.next(input).map_err(RelayEnd::ClientProtocol)? else {
                at = self.client.input.len();
                break;
            };
            if let Some(header) = piece.header
                && Some(header.kind) != self.asked.kind
            {
                let what = header.kind.name();
                let malformed = tds::Malformed::Unexpected { what, state: "in the middle of a request" };
                return Err(RelayEnd::ClientProtocol(malformed).into());
            }
            self.reader.more(&input[piece.payload.clone()], self.asked, self.procedures);
            last = piece.header.map_or(last, |header| header.status);
            ended = piece.end_of_message;
            if self.handles.deals() {
                let payload = at + piece.payload.start..at + piece.payload.end;
                pieces.push((payload, ended.then_some(last)));
            }
            at += piece.consumed;
        }
        if at == 0 {
            return Ok(());
        }
        if ended {
            self.reader.finish(self.asked, self.procedures);
            self.flow.up = Up::Attentions;
        }
        if !self.request.previous.contains(self.asked.reads_previous) {
            return Err(TurnEnd::ReadsPrevious);
        }
        let mut bytes = self.client.input.split_to(at);
        if let Some(exchange) = self.exchange.as_mut() {
            let seen = exchange.sent(&bytes).map_err(RelayEnd::ClientProtocol)?;
            self.of.metrics.work.packets_to_server(kind_of(&bytes), seen.packets.into());
        }
        self.of.conn.bytes_in.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if let Some(changed) = self.handles.more(&pieces, &bytes, &mut self.reader.handles) {
            bytes = changed;
        }
        if ended {
            self.handles.ran(self.asked);
        }
        self.of.metrics.bytes_to_server.inc_by(bytes.len() as u64);
        self.flow.to_server = bytes;
        Ok(())
    }

    /// The client may break off what it asked for; only once the server runs just that.
    fn load_attention(&mut self) -> Result<(), TurnEnd> {
        if !self.flow.awaited.is_empty() {
            return Ok(());
        }
        while let Some(bytes) = self.client.input.first_chunk::<HEADER_LEN>() {
            let header = PacketHeader::decode(bytes, tds::packet::MAX_PACKET_SIZE)
                .map_err(RelayEnd::ClientProtocol)?;
            if !header.kind.is_request() {
                let malformed = tds::Malformed::Unexpected { what: header.kind.name(), state: "logged in" };
                return Err(RelayEnd::ClientProtocol(malformed).into());
            }
            if header.kind != PacketType::ATTENTION {
                return Ok(());
            }
            let attention = self.client.input.split_to(HEADER_LEN);
            if let Some(exchange) = self.exchange.as_mut() {
                // Should the session crash, its successor knows that it owes an acknowledgement.
                exchange.sent(&attention).map_err(RelayEnd::ClientProtocol)?;
            }
            self.of.metrics.attentions.inc();
            // One acknowledgement answers for all that came before it.
            if !self.flow.unacknowledged {
                self.flow.unacknowledged = true;
                self.flow.still = Duration::ZERO;
                self.flow.to_server.extend_from_slice(&attention);
            }
        }
        Ok(())
    }

    /// Server to client. `Ready`: something moved.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TurnEnd>> {
        if self.flow.to_client.is_empty() && !self.client.has_output() {
            if self.server.input.len() == self.flow.looked {
                // Between two turns the server has nothing to say, and what it says then is judged by the pool.
                if self.flow.answered && !self.flow.unacknowledged {
                    return Poll::Pending;
                }
                match self.server.poll_fill(cx, self.flow.down_chunk.size()) {
                    Poll::Ready(Ok(0)) => {
                        return Poll::Ready(Err(
                            RelayEnd::ServerGone("the server closed it".to_owned()).into()
                        ));
                    }
                    Poll::Ready(Ok(read)) => self.flow.down_chunk.was_read(read),
                    Poll::Ready(Err(error)) => {
                        return Poll::Ready(Err(RelayEnd::ServerGone(error.to_string()).into()));
                    }
                    Poll::Pending => return Poll::Pending,
                }
            }
            self.take_from_server()?;
            if self.flow.to_client.is_empty() {
                return Poll::Ready(Ok(()));
            }
            crate::crash_test::point("sent", self.of.application);
            self.of.conn.checkpoint.enter(Phase::Forwarding);
            self.of.conn.clock.answered();
            crate::crash_test::point("forwarding", self.of.application);
            self.of.conn.bytes_out.fetch_add(self.flow.to_client.len() as u64, Ordering::Relaxed);
            self.of.metrics.bytes_to_client.inc_by(self.flow.to_client.len() as u64);
            self.of.metrics.work.packets_to_client(whole_packets(&self.flow.to_client));
        }
        match self.client.poll_write_from(cx, &mut self.flow.to_client) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            Poll::Ready(Err(_)) => Poll::Ready(Err(RelayEnd::ClientGone.into())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Looks at what the server has sent.
    fn take_from_server(&mut self) -> Result<(), TurnEnd> {
        while let Some(kind) = self.flow.awaited.front().copied() {
            let (own_reply, handles) = (&mut self.flow.own_reply, &mut self.handles);
            let witness = &mut self.witness;
            let passed = self
                .editor
                .swallow(&mut self.server.input, |scanned| {
                    own_reply.see(scanned);
                    if let Some(witness) = witness {
                        witness.hear(&scanned.event);
                    }
                    if kind == OwnKind::Prepare {
                        handles.see_own(scanned);
                    }
                })
                .map_err(RelayEnd::ServerProtocol)?;
            if passed == Passed::More {
                self.flow.looked = self.server.input.len();
                return Ok(());
            }
            self.own_answered(kind, passed)?;
        }
        self.pass_on()?;
        self.flow.looked = self.server.input.len();
        Ok(())
    }

    fn own_answered(&mut self, kind: OwnKind, passed: Passed) -> Result<(), TurnEnd> {
        let reply = std::mem::take(&mut self.flow.own_reply);
        let sent = self.flow.up != Up::Own && self.flow.up != Up::Request;
        let work = &self.of.metrics.work;
        let failed = |why: String| {
            work.replay(false);
            Err(TurnEnd::NotPrepared { why, sent })
        };
        self.flow.awaited.pop_front();
        // Nothing is sent behind what waits, so its response is the last one that is awaited.
        self.flow.waiting &= !self.flow.awaited.is_empty();
        match (kind, reply) {
            _ if passed == Passed::Torn => failed("its answer could not be followed".to_owned()),
            (_, OwnReply { lost: true, .. }) => failed("its answer could not be followed".to_owned()),
            (OwnKind::Prepare, OwnReply { ended: true, .. }) => failed("the transaction ended".to_owned()),
            // What cannot be prepared will say so when it is executed.
            (OwnKind::Prepare, _) => Ok(()),
            (_, OwnReply { error: Some(number), .. }) => {
                failed(format!("the server answered with error {number}"))
            }
            (OwnKind::Reset, OwnReply { reset: false, .. }) => {
                failed("the server did not acknowledge the reset (ENVCHANGE 18)".to_owned())
            }
            (OwnKind::Begin, OwnReply { began: Some(descriptor), .. }) => {
                self.transaction.began(descriptor);
                Ok(())
            }
            (OwnKind::Begin, _) => {
                failed("the server did not say that a transaction began (ENVCHANGE 8)".to_owned())
            }
            (OwnKind::Reset | OwnKind::Replay, _) => {
                work.replay(true);
                Ok(())
            }
            (OwnKind::Nest, _) => Ok(()),
        }
    }

    fn pass_on(&mut self) -> Result<(), TurnEnd> {
        loop {
            let Self {
                editor,
                server,
                flow,
                transaction,
                descriptors,
                reply,
                request,
                asked,
                handles,
                witness,
                ..
            } = self;
            if flow.answered && !flow.unacknowledged {
                return Ok(());
            }
            let mut observer = Observer {
                version: tds::TdsVersion::V7_4,
                transaction,
                descriptors,
                reply,
                witness: witness.as_deref_mut(),
                client_resets: asked.status.is_some_and(Status::asks_for_reset),
                begin: request.begin.as_ref(),
                opens_cursor: asked.effects.contains(&super::asked::Effect::OpensCursor),
            };
            let passed = editor
                .pass(&mut server.input, &mut flow.to_client, |scanned| {
                    let edit = observer.see(scanned);
                    match handles.see(scanned) {
                        Edit::Keep => edit,
                        edit => edit,
                    }
                })
                .map_err(RelayEnd::ServerProtocol)?;
            match passed {
                Passed::More => return Ok(()),
                Passed::Torn => self.reply.lost = true,
                Passed::Ended => {}
            }
            self.flow.answered = true;
            // An answer to half a request: whatever it means, nothing may be concluded from it.
            self.reply.lost |= self.flow.up != Up::Attentions;
            // Nor from one that is not the answer to what was asked.
            self.reply.lost |= !self.handles.answered();
            if std::mem::take(&mut self.reply.attention) {
                if !self.flow.unacknowledged {
                    // Nobody had asked for it: what comes next is anybody's guess.
                    self.reply.lost = true;
                }
                self.flow.unacknowledged = false;
                self.reply.withdrawn = true;
            }
        }
    }
}

/// How many packets these are: the editor writes whole ones.
fn whole_packets(mut bytes: &[u8]) -> u64 {
    let mut packets = 0;
    while let Some(header) = bytes.first_chunk::<HEADER_LEN>() {
        packets += 1;
        let length = usize::from(u16::from_be_bytes([header[2], header[3]])).max(HEADER_LEN);
        bytes = bytes.get(length..).unwrap_or_default();
    }
    packets
}
