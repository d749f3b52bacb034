//! One session's bytes on their way between client and server, in both directions at once and in bounded
//! buffers: what is read is passed on before more is read, so a slow reader holds up its own sender and nobody else.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tds::Malformed;
use tds::edit::{Edit, Passed, ResponseEditor};
use tds::exchange::Exchange;
use tds::packet::PacketType;
use tds::scan::{Event, Scanned};
use tokio::time::{Sleep, sleep};

use super::chunk::Chunk;
use super::client_conn::{ClientConn, ClientIo, Wish};
use super::verdict::Phase;
use crate::bucket::recall::{Recall, RecallLevel, RecallReason};
use crate::metrics::BucketMetrics;
use crate::telemetry::Telemetry;
use crate::wire::Link;

/// How often a session that is under way looks for silence that lasts too long.
const CHECK: Duration = Duration::from_secs(1);

/// Less than this between two checks, in bytes, is no progress in the middle of a request: a client that sends a
/// byte now and then holds a server connection no longer than one that sends nothing.
pub(super) const PACE: usize = 64;

/// Why a relay ended.
#[derive(Debug)]
pub(crate) enum RelayEnd {
    /// The client closed its side.
    ClientGone,
    /// The server closed its side or its socket failed.
    ServerGone(String),
    /// The client sent what no logged-in client may send.
    ClientProtocol(Malformed),
    /// The server sent what is not a response.
    ServerProtocol(Malformed),
    /// The client was silent, or read nothing, for too long.
    ClientStalled(&'static str),
    /// The server did not acknowledge an attention in time.
    AttentionUnanswered,
    /// Somebody wanted the session to end.
    Wished,
    /// The bucket wants the server connection back and cannot wait.
    Recalled(RecallReason),
}

/// Silences that end a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub(crate) request: Duration,
    pub(crate) client_write: Option<Duration>,
    pub(crate) client_idle: Option<Duration>,
    pub(crate) attention: Duration,
}

/// What a relay knows of its session.
#[derive(Clone, Copy)]
pub(crate) struct Relaying<'a> {
    pub(crate) conn: &'a ClientConn,
    pub(crate) metrics: &'a BucketMetrics,
    pub(crate) telemetry: &'a Telemetry,
    pub(crate) recall: &'a Recall,
    pub(crate) patience: Patience,
    /// Bytes read at once, per direction, to begin with.
    pub(crate) chunk: usize,
    pub(crate) application: &'a str,
}

pub(crate) struct Relay<'a> {
    of: Relaying<'a>,
    io: &'a mut ClientIo,
    server: &'a mut Link,
    /// Where the server tells its session's state although the client did not ask: takes that out of its responses.
    editor: Option<&'a mut ResponseEditor>,
    /// Bytes of the server's that were looked at and are not a whole packet.
    looked: usize,
    to_server: BytesMut,
    to_client: BytesMut,
    up: Chunk,
    down: Chunk,
    moved: bool,
    /// Bytes that the client sent since the last check.
    received: usize,
    /// When to look for stalls next; `None` while nothing has to be looked at.
    check: Option<Pin<Box<Sleep>>>,
}

/// Until the timer fires; for ever without one.
async fn wait(timer: &mut Option<Pin<Box<Sleep>>>) {
    match timer {
        Some(timer) => timer.as_mut().await,
        None => std::future::pending().await,
    }
}

/// The same for a timer that nobody else holds.
async fn wait_for(timer: Option<Pin<Box<Sleep>>>) {
    let mut timer = timer;
    wait(&mut timer).await;
}

impl<'a> Relay<'a> {
    /// Passes on what the server says byte by byte; with an `editor` without SESSIONSTATE.
    pub(crate) fn new(
        of: Relaying<'a>,
        io: &'a mut ClientIo,
        server: &'a mut Link,
        editor: Option<&'a mut ResponseEditor>,
    ) -> Self {
        let (to_server, to_client) = (BytesMut::new(), BytesMut::new());
        let (up, down) = (Chunk::new(of.chunk), Chunk::new(of.chunk));
        Self {
            of,
            io,
            server,
            editor,
            looked: 0,
            to_server,
            to_client,
            up,
            down,
            moved: false,
            received: 0,
            check: None,
        }
    }

    /// Relays until somebody leaves. Not cancel safe: what was read and not passed on is lost with it, and with
    /// it the lease.
    pub(crate) async fn run(&mut self) -> RelayEnd {
        loop {
            if self.is_quiet()
                && let Some(end) = self.rest().await
            {
                return end;
            }
            // Whatever ended the rest: a peer's first bytes may be no more than the beginning of a TLS record, so
            // waiting for the remainder is work.
            if let Some(end) = self.work().await {
                return end;
            }
        }
    }

    /// Nothing is under way. Returns once somebody has sent something; after a while buffers and timer are given
    /// back.
    async fn rest(&mut self) -> Option<RelayEnd> {
        crate::crash_test::point("held-idle", self.of.application);
        let (conn, recall) = (self.of.conn, self.of.recall);
        tokio::select! {
            biased;
            () = conn.control.wanted(Wish::End) => return Some(RelayEnd::Wished),
            why = recall.wanted(RecallLevel::Now) => return Some(RelayEnd::Recalled(why)),
            () = self.io.link.readable() => return None,
            () = self.server.readable() => return None,
            () = wait(&mut self.check) => {}
        }
        self.check = None;
        (self.to_server, self.to_client) = (BytesMut::new(), BytesMut::new());
        self.io.link.shrink();
        self.server.shrink();
        let idle = self.of.patience.client_idle.map(|limit| Box::pin(sleep(limit)));
        tokio::select! {
            biased;
            () = conn.control.wanted(Wish::End) => Some(RelayEnd::Wished),
            why = recall.wanted(RecallLevel::Now) => Some(RelayEnd::Recalled(why)),
            () = self.io.link.readable() => None,
            () = self.server.readable() => None,
            () = wait_for(idle) => Some(RelayEnd::ClientStalled("idle for too long (timeouts.client_idle)")),
        }
    }

    /// Something is under way: pass it on, and look now and then whether it still moves. The timer is set once a
    /// second at most, not once a request.
    async fn work(&mut self) -> Option<RelayEnd> {
        let (conn, recall) = (self.of.conn, self.of.recall);
        let mut still = Duration::ZERO;
        loop {
            if self.check.as_ref().is_none_or(|check| check.is_elapsed()) {
                self.check = Some(Box::pin(sleep(CHECK)));
                (self.moved, self.received) = (false, 0);
            }
            let mut check = self.check.take();
            let end = tokio::select! {
                biased;
                end = poll_fn(|cx| self.poll(cx)) => Some(end),
                () = conn.control.wanted(Wish::End) => Some(Some(RelayEnd::Wished)),
                why = recall.wanted(RecallLevel::Now) => Some(Some(RelayEnd::Recalled(why))),
                () = wait(&mut check) => None,
            };
            self.check = check;
            if let Some(end) = end {
                return end;
            }
            if !self.moved && self.is_quiet() && !self.io.link.is_inside_record() {
                return None;
            }
            let trickles = self.received < PACE && self.waits_for_client();
            still = if self.moved && !trickles { Duration::ZERO } else { still + CHECK };
            if let Some(end) = self.stalled(still) {
                return Some(end);
            }
        }
    }

    fn stalled(&self, still: Duration) -> Option<RelayEnd> {
        let exchange = self.io.exchange.as_ref()?;
        if !self.to_client.is_empty() || self.io.link.has_output() {
            let limit = self.of.patience.client_write?;
            return (still >= limit)
                .then_some(RelayEnd::ClientStalled("reads nothing (timeouts.client_write)"));
        }
        if exchange.owes_acknowledgement() && still >= self.of.patience.attention {
            return Some(RelayEnd::AttentionUnanswered);
        }
        (self.waits_for_client() && still >= self.of.patience.request)
            .then_some(RelayEnd::ClientStalled("stopped in the middle of a request (timeouts.request)"))
    }

    /// The client has begun a request and owes the rest of it.
    fn waits_for_client(&self) -> bool {
        let receiving = self.io.exchange.as_ref().is_some_and(Exchange::is_receiving);
        (receiving || self.io.link.is_inside_record()) && self.to_server.is_empty()
    }

    /// Moves what can be moved. `Ready(None)`: everything is settled, the client may rest.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<RelayEnd>> {
        loop {
            let up = self.poll_up(cx);
            if let Poll::Ready(Some(end)) = up {
                return Poll::Ready(Some(end));
            }
            let down = self.poll_down(cx);
            if let Poll::Ready(Some(end)) = down {
                return Poll::Ready(Some(end));
            }
            if up.is_pending() && down.is_pending() {
                return Poll::Pending;
            }
            self.moved = true;
            if self.is_quiet() {
                self.settled();
                return Poll::Ready(None);
            }
        }
    }

    /// Client to server. `Ready(None)`: something moved.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Option<RelayEnd>> {
        if self.to_server.is_empty() {
            if self.server.has_output() {
                // Encrypted, and not yet taken by the socket: nobody else would send it.
                return match self.server.poll_flush(cx) {
                    Poll::Ready(Ok(())) => Poll::Ready(None),
                    Poll::Ready(Err(error)) => Poll::Ready(Some(RelayEnd::ServerGone(error.to_string()))),
                    Poll::Pending => Poll::Pending,
                };
            }
            if self.io.link.input.is_empty() {
                match self.io.link.poll_fill(cx, self.up.size()) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Some(RelayEnd::ClientGone)),
                    Poll::Ready(Ok(read)) => self.up.was_read(read),
                    Poll::Pending => return Poll::Pending,
                }
            }
            if let Err(end) = self.take_from_client() {
                return Poll::Ready(Some(end));
            }
        }
        match self.server.poll_write_from(cx, &mut self.to_server) {
            Poll::Ready(Ok(())) => Poll::Ready(None),
            Poll::Ready(Err(error)) => Poll::Ready(Some(RelayEnd::ServerGone(error.to_string()))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn take_from_client(&mut self) -> Result<(), RelayEnd> {
        std::mem::swap(&mut self.to_server, &mut self.io.link.input);
        self.of.conn.bytes_in.fetch_add(self.to_server.len() as u64, Ordering::Relaxed);
        if self.of.conn.checkpoint.phase() != Phase::Forwarding {
            self.of.conn.checkpoint.enter(Phase::Sent);
        }
        self.received += self.to_server.len();
        self.of.metrics.bytes_to_server.inc_by(self.to_server.len() as u64);
        let Some(exchange) = &mut self.io.exchange else { return Ok(()) };
        let seen = exchange.sent(&self.to_server).map_err(RelayEnd::ClientProtocol)?;
        if seen.begun > 0 {
            self.of
                .conn
                .clock
                .begin(self.to_server.first().map_or(PacketType::SQL_BATCH, |kind| PacketType(*kind)));
            self.of.conn.clock.sent();
        }
        if seen.attentions > 0 {
            self.of.conn.clock.cancelled();
        }
        self.of.metrics.requests.inc_by(seen.begun.into());
        self.of.metrics.work.packets_to_server(kind_of(&self.to_server), seen.packets.into());
        self.of.metrics.attentions.inc_by(seen.attentions.into());
        Ok(())
    }

    /// Server to client. `Ready(None)`: something moved.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Option<RelayEnd>> {
        if self.to_client.is_empty() {
            if self.io.link.has_output() {
                return match self.io.link.poll_flush(cx) {
                    Poll::Ready(Ok(())) => Poll::Ready(None),
                    Poll::Ready(Err(_)) => Poll::Ready(Some(RelayEnd::ClientGone)),
                    Poll::Pending => Poll::Pending,
                };
            }
            if self.server.input.len() == self.looked {
                match self.server.poll_fill(cx, self.down.size()) {
                    Poll::Ready(Ok(0)) => {
                        return Poll::Ready(Some(RelayEnd::ServerGone(
                            "it closed the connection".to_owned(),
                        )));
                    }
                    Poll::Ready(Err(error)) => {
                        return Poll::Ready(Some(RelayEnd::ServerGone(error.to_string())));
                    }
                    Poll::Ready(Ok(read)) => self.down.was_read(read),
                    Poll::Pending => return Poll::Pending,
                }
            }
            if let Err(end) = self.take_from_server() {
                return Poll::Ready(Some(end));
            }
            if self.to_client.is_empty() {
                return Poll::Ready(None);
            }
        }
        match self.io.link.poll_write_from(cx, &mut self.to_client) {
            Poll::Ready(Ok(())) => Poll::Ready(None),
            Poll::Ready(Err(_)) => Poll::Ready(Some(RelayEnd::ClientGone)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn take_from_server(&mut self) -> Result<(), RelayEnd> {
        crate::crash_test::point("sent", self.of.application);
        match &mut self.editor {
            None => std::mem::swap(&mut self.to_client, &mut self.server.input),
            Some(editor) => without_states(editor, &mut self.server.input, &mut self.to_client)
                .map_err(RelayEnd::ServerProtocol)?,
        }
        self.looked = self.server.input.len();
        if self.to_client.is_empty() {
            return Ok(());
        }
        self.of.conn.bytes_out.fetch_add(self.to_client.len() as u64, Ordering::Relaxed);
        self.of.metrics.bytes_to_client.inc_by(self.to_client.len() as u64);
        self.of.conn.checkpoint.enter(Phase::Forwarding);
        crate::crash_test::point("forwarding", self.of.application);
        match &mut self.io.exchange {
            Some(exchange) => {
                self.of.conn.clock.answered();
                let before = exchange.packets_received();
                exchange.received(&self.to_client).map_err(RelayEnd::ServerProtocol)?;
                let packets = exchange.packets_received().wrapping_sub(before);
                self.of.metrics.work.packets_to_client(packets);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn is_quiet(&self) -> bool {
        self.to_server.is_empty()
            && self.to_client.is_empty()
            && !self.server.has_output()
            && !self.io.link.has_output()
            && self.io.link.input.is_empty()
            && self.server.input.is_empty()
            && self.io.exchange.as_ref().is_none_or(Exchange::is_quiet)
    }

    /// A response went out whole. From now on the server connection carries what the request may have left.
    fn settled(&self) {
        if self.io.exchange.is_none() {
            // Nobody follows SMP: some response may still be half way.
            return;
        }
        self.of.conn.checkpoint.hold(true);
        self.of.conn.checkpoint.enter(Phase::Idle);
        self.of.conn.request_ended(self.of.telemetry);
    }
}

/// Moves the whole packets of `input` to `out` without the SESSIONSTATE tokens in them.
fn without_states(
    editor: &mut ResponseEditor,
    input: &mut BytesMut,
    out: &mut BytesMut,
) -> Result<(), Malformed> {
    let edit = |scanned: &Scanned<'_>| match scanned.event {
        Event::SessionState(_) => Edit::Drop,
        _ => Edit::Keep,
    };
    while editor.pass(input, out, edit)? != Passed::More {}
    Ok(())
}

/// What the packets are of which these are the first bytes.
pub(super) fn kind_of(bytes: &[u8]) -> PacketType {
    PacketType(bytes.first().copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tds::TdsVersion;
    use tds::done::{Done, DoneKind, DoneStatus};
    use tds::handshake::TlsFraming;
    use tds::message::{MessageReader, write_message};
    use tds::packet::{MIN_PACKET_SIZE, PacketType, Status};
    use tds::server_message::ServerMessage;
    use tds::session_state::SessionState;
    use tdsbouncer_config::Listener;

    use super::super::client_conn::SessionId;
    use super::*;
    use crate::metrics::Metrics;
    use crate::wire::{Socket, pair};

    const PATIENCE: Patience = Patience {
        request: Duration::from_secs(60),
        client_write: None,
        client_idle: None,
        attention: Duration::from_secs(60),
    };

    /// The far end of the server's side has taken little of what TLS encrypted when the client's last byte is read:
    /// the remainder goes out although nothing follows it.
    #[tokio::test]
    async fn what_tls_has_encrypted_is_sent_although_nothing_follows() {
        let (near, far) = tokio::io::duplex(128 * 1024);
        let listener = Arc::new(Listener::new("main", 0));
        let peer = "127.0.0.1:1".parse().unwrap();
        let conn = ClientConn::new(SessionId(1), Socket::Memory(near), peer, listener, None, false);
        let mut io = Arc::clone(&conn.io).lock_owned().await;
        io.exchange = Some(Exchange::new(32_767, TdsVersion::V7_4));
        let (mut server, mut server_far) = pair::memory(2048);
        pair::start_tls(&mut server_far, &mut server, TlsFraming::Wrapped).await;
        let mut client = Link::new(Socket::Memory(far));
        let mut request = BytesMut::new();
        write_message(&mut request, PacketType::SQL_BATCH, Status::NORMAL, 0, 4096, &[7; 40_000]);
        let expected = request.clone();
        client.write_from(&mut request).await.unwrap();
        let metrics = Metrics::new("test").bucket("b");
        let of = Relaying {
            conn: &conn,
            metrics: &metrics,
            telemetry: &Telemetry::off(),
            recall: &Recall::default(),
            patience: PATIENCE,
            chunk: 1 << 20,
            application: "",
        };
        let mut relay = Relay::new(of, &mut io, &mut server, None);
        let reading = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            while server_far.input.len() < expected.len() {
                server_far.fill(64 * 1024).await.unwrap();
            }
        };
        tokio::select! {
            end = relay.run() => panic!("the relay ended: {end:?}"),
            read = tokio::time::timeout(Duration::from_secs(10), reading) => read.expect("all of it arrives"),
        }
        assert_eq!(server_far.input, expected);
    }

    /// Responses with and without SESSIONSTATE before the last DONE, cut anywhere.
    #[test]
    fn states_are_taken_out_however_the_bytes_come() {
        const SIZE: usize = MIN_PACKET_SIZE;
        let mut long = vec![5, 254];
        long.resize(256, 0xE4);
        let long = long.repeat(4);
        let states: [Option<&[u8]>; 5] =
            [None, Some(&[4, 3, 0xE4, 0xFD, 0xE4]), Some(&long), None, Some(&[9, 0])];
        let (mut told, mut wanted) = (BytesMut::new(), Vec::new());
        for data in states {
            let (mut before, mut state, mut after) = (BytesMut::new(), BytesMut::new(), BytesMut::new());
            ServerMessage::info(5701, "some information".repeat(13), "server")
                .write(&mut before, TdsVersion::V7_4);
            if let Some(data) = data {
                SessionState { sequence: 1, recoverable: false, data }.write(&mut state);
            }
            Done { kind: DoneKind::Done, status: DoneStatus::FINAL, current_command: 0xC1, rows: 1 }
                .write(&mut after, TdsVersion::V7_4);
            let tokens = [&before[..], &state, &after].concat();
            write_message(&mut told, PacketType::RESPONSE, Status::NORMAL, 7, SIZE, &tokens);
            wanted.push([&before[..], &after].concat());
        }
        for chunk in 1..SIZE + 40 {
            let mut editor = ResponseEditor::new(TdsVersion::V7_4, SIZE, SIZE);
            let (mut input, mut out) = (BytesMut::new(), BytesMut::new());
            for bytes in told.chunks(chunk) {
                input.extend_from_slice(bytes);
                without_states(&mut editor, &mut input, &mut out).unwrap();
            }
            let mut reader = MessageReader::new(SIZE, 1 << 16);
            for tokens in &wanted {
                assert_eq!(reader.read(&mut out).unwrap().unwrap().payload, tokens[..], "pieces of {chunk}");
            }
            assert!(input.is_empty() && out.is_empty());
        }
    }
}
