//! One connection from accept to close: log in, then answer one message after the other.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use tds::Malformed;
use tds::message::{Message, MessageReader};
use tds::packet::{HEADER_LEN, MAX_PACKET_SIZE, PacketType};
use tokio::net::TcpStream;

use crate::fault::Fault;
use crate::login::{self, LoginEnd};
use crate::registry::{Entry, Seat, count};
use crate::request::Conversation;
use crate::response::AfterCut;
use crate::server::Shared;
use crate::wire::{SharedWire, Wire, fill, flush, lock};

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    /// The client closed it, or the socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The client's bytes are not TDS.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The client closed it.
    #[error("closed by the client")]
    Closed,
    /// KILL, a shutdown, a fatal error that was sent.
    #[error("closed by the server")]
    Ended,
    /// A fault closes it without a word.
    #[error("closed by a fault")]
    Dropped,
}

/// What the loop does after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// Wait for the next message.
    Continue,
    /// Everything was said: close.
    Close,
    /// Close at once.
    Drop,
    /// Never say anything again.
    Silence,
}

impl From<AfterCut> for After {
    fn from(cut: AfterCut) -> Self {
        match cut {
            AfterCut::Close | AfterCut::Garbage => Self::Close,
            AfterCut::Silence => Self::Silence,
        }
    }
}

/// Serves a connection until it ends.
pub(crate) async fn serve(stream: TcpStream, seat: Seat, shared: Arc<Shared>) {
    let wire = Wire::new(stream).shared();
    let entry = seat.entry.clone();
    let end = Box::pin(talk(&wire, seat, &shared)).await;
    match end {
        Err(End::Malformed(_)) => count(&shared.registry.counters.protocol_errors),
        Err(End::Dropped) => lock(&wire).close_by_reset(),
        // What was sent last should arrive although the client may still be sending.
        Err(End::Ended) => Wire::shut_down(&wire).await,
        Ok(()) | Err(End::Io(_) | End::Closed) => {}
    }
    drop(entry);
}

async fn talk(wire: &SharedWire, mut seat: Seat, shared: &Arc<Shared>) -> Result<(), End> {
    if shared.faults.strikes(&Fault::HangAtAccept) {
        return silence(wire, &seat.entry).await;
    }
    let login = Box::pin(login::log_in(wire, shared, &mut seat));
    let logged_in = match tokio::time::timeout(shared.options.login_timeout, login).await {
        Ok(Ok(logged_in)) => logged_in,
        Ok(Err(LoginEnd::Silence)) => return silence(wire, &seat.entry).await,
        Ok(Err(LoginEnd::End(end))) => return Err(end),
        Err(_elapsed) => return Err(End::Ended),
    };
    let reader = MessageReader::new(MAX_PACKET_SIZE, shared.options.max_request);
    let mut conversation = Conversation::new(wire, seat, shared, logged_in);
    let end = converse(wire, reader, &mut conversation).await;
    if conversation.ends_slowly() {
        // It may have to wait for others' locks: not on the thread that looks after their sockets.
        let _ = tokio::task::spawn_blocking(move || drop(conversation)).await;
    }
    end
}

/// Answers messages until the connection ends.
async fn converse(
    wire: &SharedWire,
    mut reader: MessageReader,
    conversation: &mut Conversation,
) -> Result<(), End> {
    loop {
        let after = match next(wire, &mut reader, conversation).await? {
            Incoming::Message(message) => conversation.answer(message)?,
            Incoming::BulkLoad => conversation.bulk_load()?,
        };
        match after {
            After::Continue => flush(wire).await?,
            After::Close => {
                flush(wire).await?;
                return Err(End::Ended);
            }
            After::Drop => return Err(End::Dropped),
            After::Silence => {
                flush(wire).await?;
                return silence(wire, &conversation.entry()).await;
            }
        }
    }
}

enum Incoming {
    Message(Message),
    /// The header of a bulk load is at the front of the input; its rows are read as they come.
    BulkLoad,
}

async fn next(
    wire: &SharedWire,
    reader: &mut MessageReader,
    // Alone: an engine's session may move between threads but not be shared by them.
    conversation: &mut Conversation,
) -> Result<Incoming, End> {
    loop {
        {
            let mut wire = lock(wire);
            let at_boundary = reader.is_at_boundary();
            if at_boundary && wire.input.first() == Some(&PacketType::BULK_LOAD.0) {
                if wire.input.len() >= HEADER_LEN {
                    return Ok(Incoming::BulkLoad);
                }
            } else if let Some(message) = reader.read(&mut wire.input)? {
                return Ok(Incoming::Message(message));
            }
            if at_boundary && wire.input.is_empty() {
                wire.rest();
                drop(wire);
                if conversation.faults_when_idle() {
                    return Err(End::Dropped);
                }
            }
        }
        // A session is not shared between threads, so it is not borrowed while waiting.
        let entry = conversation.entry();
        if entry.is_killed() {
            return Err(End::Ended);
        }
        let more = tokio::select! {
            more = fill(wire) => more?,
            () = entry.kill.notified() => return Err(End::Ended),
        };
        if !more {
            return Err(End::Closed);
        }
    }
}

/// Reads and never answers, until the client gives up.
async fn silence(wire: &SharedWire, entry: &Entry) -> Result<(), End> {
    loop {
        let more = tokio::select! {
            more = fill(wire) => more?,
            () = entry.kill.notified() => return Err(End::Ended),
        };
        if !more {
            return Err(End::Closed);
        }
        lock(wire).input = BytesMut::new();
    }
}
