//! A connection's socket and what was read from it and not yet written to it: plaintext on this side, TLS or not on the
//! other. Every operation is one poll or one try, so that the async loop and a running request can share it.

use std::future::poll_fn;
use std::io::{self, Read};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use rustls::ServerConfig;
use socket2::SockRef;
use tds::handshake::TlsFraming;
use tds::packet::{HEADER_LEN, PacketType};
use tds::tls_wrap::Wrapped;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::tls::Tls;

/// Bytes read at a time from a connection that was idle.
const SMALL_READ: usize = 4096;

/// Bytes read at a time in the middle of something larger.
const LARGE_READ: usize = 32 << 10;

/// How far ahead a running request's connection is read; what comes behind waits in the socket.
const READ_AHEAD: usize = 64 << 10;

/// Output that is worth a system call of its own.
pub(crate) const FLUSH_AT: usize = 32 << 10;

/// The connection's loop and the request it runs share the wire; they run on one thread, so nobody waits for the lock.
pub(crate) type SharedWire = Arc<Mutex<Wire>>;

/// Why a running request must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// An attention; it was taken from the input.
    Attention,
    /// The client closed or reset the connection.
    Gone,
}

#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    tls: Option<Box<Tls>>,
    /// Plaintext received and not consumed.
    pub(crate) input: BytesMut,
    /// Plaintext to be sent.
    pub(crate) output: BytesMut,
    /// Bytes for the socket, with TLS; without, `output` is written as it is.
    cipher: BytesMut,
    read_size: usize,
    /// The input stands inside a message that somebody is reading: its bytes are not packet headers.
    pub(crate) in_message: bool,
    gone: bool,
}

/// The wire, for a moment.
pub(crate) fn lock(wire: &SharedWire) -> MutexGuard<'_, Wire> {
    wire.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for more input; false: the client closed the connection. Nothing is lost when dropped.
pub(crate) async fn fill(wire: &SharedWire) -> io::Result<bool> {
    poll_fn(|cx| lock(wire).poll_fill(cx)).await
}

/// Waits until all output is with the socket. Nothing is lost when dropped.
pub(crate) async fn flush(wire: &SharedWire) -> io::Result<()> {
    if lock(wire).try_flush()? {
        return Ok(());
    }
    poll_fn(|cx| lock(wire).poll_flush(cx)).await
}

/// Does a TLS handshake; what is in the input already belongs to it.
pub(crate) async fn start_tls(
    wire: &SharedWire,
    config: Arc<ServerConfig>,
    framing: TlsFraming,
) -> io::Result<()> {
    let mut tls = Box::new(Tls::new(config)?);
    let mut wrapped = match framing {
        TlsFraming::Wrapped => Some(Wrapped::new()),
        TlsFraming::Raw => None,
    };
    loop {
        let (outcome, more) = {
            let mut wire = lock(wire);
            let wire = &mut *wire;
            let before = wire.input.len();
            match &mut wrapped {
                Some(wrapped) => {
                    wrapped.unwrap(&mut wire.input, &mut tls.incoming).map_err(io::Error::other)?
                }
                None => tls.incoming.unsplit(wire.input.split()),
            }
            let mut early = BytesMut::new();
            let outcome = tls.decrypt(&mut early);
            let mut records = BytesMut::new();
            tls.encrypt(&mut BytesMut::new(), &mut records)?;
            match &mut wrapped {
                _ if records.is_empty() => {}
                Some(_) => Wrapped::wrap(&records, &mut wire.output),
                None => wire.output.unsplit(records),
            }
            if outcome.is_ok() && !tls.is_handshaking() {
                wire.input.unsplit(early);
            }
            (outcome, !wire.input.is_empty() && wire.input.len() < before)
        };
        flush(wire).await?;
        outcome?;
        if !tls.is_handshaking() {
            lock(wire).tls = Some(tls);
            return Ok(());
        }
        if !more && !fill(wire).await? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            tls: None,
            input: BytesMut::new(),
            output: BytesMut::new(),
            cipher: BytesMut::new(),
            read_size: SMALL_READ,
            in_message: false,
            gone: false,
        }
    }

    pub(crate) fn shared(self) -> SharedWire {
        Arc::new(Mutex::new(self))
    }

    /// Goes back to plaintext after a login-only handshake; what was read ahead is plaintext already.
    pub(crate) fn end_tls(&mut self) {
        if let Some(tls) = self.tls.take() {
            self.input.unsplit(tls.incoming);
        }
    }

    /// The next close resets the connection instead of ending it in order.
    pub(crate) fn close_by_reset(&self) {
        // Without it the close is only less abrupt.
        let _ = self.stream.set_zero_linger();
    }

    /// Tells the client that no more comes.
    pub(crate) async fn shut_down(wire: &SharedWire) {
        use tokio::io::AsyncWrite;
        let _ = poll_fn(|cx| std::pin::Pin::new(&mut lock(wire).stream).poll_shutdown(cx)).await;
    }

    /// Gives empty buffers back while nothing happens.
    pub(crate) fn rest(&mut self) {
        self.read_size = SMALL_READ;
        for buffer in [&mut self.input, &mut self.output, &mut self.cipher] {
            if buffer.is_empty() {
                *buffer = BytesMut::new();
            }
        }
        if let Some(tls) = &mut self.tls
            && tls.incoming.is_empty()
        {
            tls.incoming = BytesMut::new();
        }
    }

    /// More input; false at the end. Buffers are allocated when there is something to read.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let before = self.input.len();
        loop {
            let size = self.read_size;
            let into = match &mut self.tls {
                Some(tls) => {
                    if tls.decrypt(&mut self.input)? && self.input.len() > before {
                        return Poll::Ready(Ok(true));
                    }
                    &mut tls.incoming
                }
                None => &mut self.input,
            };
            std::task::ready!(self.stream.poll_read_ready(cx))?;
            into.reserve(size);
            let room = into.capacity() - into.len();
            let read = match pin!(self.stream.read_buf(into)).poll(cx) {
                Poll::Ready(read) => read?,
                Poll::Pending => {
                    if into.is_empty() {
                        *into = BytesMut::new();
                    }
                    return Poll::Pending;
                }
            };
            if read == 0 {
                self.gone = true;
                return Poll::Ready(Ok(false));
            }
            self.read_size = if read == room { LARGE_READ } else { SMALL_READ };
            if self.tls.is_none() {
                return Poll::Ready(Ok(true));
            }
        }
    }

    /// Reads what is there without waiting. It asks the socket itself: while a request runs on the runtime's thread, the
    /// runtime may not know yet that something came.
    fn try_fill(&mut self) -> io::Result<()> {
        let mut chunk = [0; SMALL_READ];
        loop {
            let read = match (&*SockRef::from(&self.stream)).read(&mut chunk) {
                Ok(read) => read,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            };
            if read == 0 {
                self.gone = true;
                return Ok(());
            }
            match &mut self.tls {
                Some(tls) => {
                    tls.incoming.extend_from_slice(&chunk[..read]);
                    if tls.decrypt(&mut self.input)? {
                        return Ok(());
                    }
                }
                None => {
                    self.input.extend_from_slice(&chunk[..read]);
                    return Ok(());
                }
            }
        }
    }

    /// Writes as much as the socket takes now; true if that was all.
    pub(crate) fn try_flush(&mut self) -> io::Result<bool> {
        if let Some(tls) = &mut self.tls {
            tls.encrypt(&mut self.output, &mut self.cipher)?;
        }
        let bytes =
            if self.tls.is_some() || !self.cipher.is_empty() { &mut self.cipher } else { &mut self.output };
        while !bytes.is_empty() {
            match self.stream.try_write(bytes) {
                Ok(written) => bytes.advance(written),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        bytes.clear();
        Ok(true)
    }

    /// Waits until all output is with the socket.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.try_flush()? {
            std::task::ready!(self.stream.poll_write_ready(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Looks without waiting whether the running request must stop.
    pub(crate) fn look(&mut self) -> Option<Interrupt> {
        if self.gone {
            return Some(Interrupt::Gone);
        }
        if self.in_message {
            return None;
        }
        if let Some(interrupt) = self.take_attention() {
            return Some(interrupt);
        }
        if self.other_packet_ahead() {
            return None;
        }
        if self.try_fill().is_err() {
            self.gone = true;
        }
        self.take_attention().or(self.gone.then_some(Interrupt::Gone))
    }

    /// Waits until the running request must stop. Pending for ever while another request is waiting behind it.
    pub(crate) fn poll_interrupt(&mut self, cx: &mut Context<'_>) -> Poll<Interrupt> {
        loop {
            if self.gone {
                return Poll::Ready(Interrupt::Gone);
            }
            if self.in_message {
                return Poll::Pending;
            }
            if let Some(interrupt) = self.take_attention() {
                return Poll::Ready(interrupt);
            }
            if self.other_packet_ahead() {
                return Poll::Pending;
            }
            if std::task::ready!(self.poll_fill(cx)).is_err() {
                self.gone = true;
            }
        }
    }

    /// Takes an attention from the front of the input.
    fn take_attention(&mut self) -> Option<Interrupt> {
        let header = self.input.first_chunk::<HEADER_LEN>()?;
        let length = usize::from(u16::from_be_bytes([header[2], header[3]])).max(HEADER_LEN);
        if header[0] != PacketType::ATTENTION.0 || self.input.len() < length {
            return None;
        }
        self.input.advance(length);
        Some(Interrupt::Attention)
    }

    /// The client has already sent something else, which waits its turn: an attention behind it is for that request.
    fn other_packet_ahead(&self) -> bool {
        self.input.first().is_some_and(|&kind| kind != PacketType::ATTENTION.0)
            || self.input.len() > READ_AHEAD
    }
}
