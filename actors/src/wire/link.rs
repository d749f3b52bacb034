//! One connection to a peer: what was received, what is still to be sent, and the TLS between.
//!
//! Every operation keeps its progress in the [`Link`]: a future that is dropped loses no byte and may simply be
//! called again. A link that waits for its peer holds no buffers after [`Link::shrink`].

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tds::handshake::TlsFraming;

use super::socket::Socket;
use super::tls::{Tls, TlsRole};
use super::tls_error::TlsError;

/// Ciphertext that may wait for the socket, in bytes: four full records, enough for one large write.
const MAX_PENDING: usize = 64 * 1024;
/// Plaintext encrypted at a time, in bytes: one full TLS record.
const RECORD: usize = 16 * 1024;
/// What encryption may add to a record, in bytes, generously: reads of `limit` should not stop just short of a record's end.
const RECORD_OVERHEAD: usize = 256;
/// What a peer may still send after we said goodbye, in bytes, before the connection is reset.
const MAX_DRAIN: usize = 1024 * 1024;
/// How much of that is read at a time, in bytes.
const DRAIN_STEP: usize = 16 * 1024;

/// What an idle connection was found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdleCheck {
    /// Open, and nothing for the application has come.
    Quiet,
    /// The peer closed it, reset it, or broke TLS.
    Closed,
    /// The peer sent bytes although nobody asked: the connection cannot be trusted any more.
    UnexpectedBytes,
}

/// A socket with its buffers, in plaintext or TLS.
pub(crate) struct Link {
    /// Plaintext received and not yet consumed.
    pub(crate) input: BytesMut,
    /// Bytes on their way to the socket: plaintext, or ciphertext under TLS.
    output: BytesMut,
    socket: Socket,
    tls: Option<Box<Tls>>,
    ended: bool,
}

impl Link {
    /// A plaintext link without any buffer.
    pub(crate) fn new(socket: Socket) -> Self {
        Self { input: BytesMut::new(), output: BytesMut::new(), socket, tls: None, ended: false }
    }

    /// Reads about `limit` bytes of plaintext (under TLS up to one record more) behind `input`, with one read from
    /// the socket where that suffices. `Ok(0)` is the end: the peer closed, with or without TLS's close_notify.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>, limit: usize) -> Poll<io::Result<usize>> {
        if self.tls.is_some() {
            return self.poll_fill_tls(cx, limit);
        }
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        // A read of nothing would look like the end.
        let limit = limit.max(1);
        make_room(&mut self.input, limit);
        let read = ready!(self.socket.poll_read(cx, &mut self.input, limit))?;
        self.ended = read == 0;
        Poll::Ready(Ok(read))
    }

    /// [`Link::poll_fill`] as a future. Cancel safe.
    pub(crate) async fn fill(&mut self, limit: usize) -> io::Result<usize> {
        poll_fn(|cx| self.poll_fill(cx, limit)).await
    }

    /// Waits, without holding a buffer, until [`Link::fill`] has something to do: bytes, the end, or an error. Returns
    /// at once when received bytes are waiting already; under TLS a part of a record is nothing to do yet, so a caller
    /// that asks again and again does not spin on it. May return early, so follow it with `fill`. Cancel safe.
    pub(crate) async fn readable(&mut self) {
        let waiting =
            self.ended || !self.input.is_empty() || self.tls.as_ref().is_some_and(|tls| tls.has_record());
        if waiting {
            return;
        }
        #[cfg(test)]
        if let Socket::Memory(_) = self.socket {
            return self.readable_pipe().await;
        }
        // An error here is an error of the next read too, which reports it.
        let _ = self.socket.readable().await;
    }

    /// True while accepted bytes wait for the socket: [`Link::poll_flush`] sends them, nothing else does.
    pub(crate) fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// True when a part of a TLS record has come, and the peer owes the rest.
    pub(crate) fn is_inside_record(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.has_input())
    }

    /// Hands `from` to the socket as far as it takes it, advancing `from`. Ready when `from` is empty and nothing waits
    /// in the link either. In plaintext the bytes go straight from `from` to the socket; under TLS at most 64 KiB wait
    /// encrypted. Cancel safe: what is no longer in `from` is in the link, and the next write or flush sends it.
    pub(crate) fn poll_write_from(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut BytesMut,
    ) -> Poll<io::Result<()>> {
        loop {
            if let Some(tls) = &mut self.tls
                && self.output.is_empty()
            {
                let batch = from.len().min(MAX_PENDING);
                make_room(&mut self.output, batch + batch.div_ceil(RECORD) * RECORD_OVERHEAD);
                for record in from[..batch].chunks(RECORD) {
                    tls.encrypt(record, &mut self.output)?;
                }
                from.advance(batch);
            }
            ready!(self.poll_flush(cx))?;
            if from.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if self.tls.is_none() {
                ready!(poll_drain_into(&mut self.socket, cx, from))?;
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// [`Link::poll_write_from`] as a future. Cancel safe.
    pub(crate) async fn write_from(&mut self, from: &mut BytesMut) -> io::Result<()> {
        poll_fn(|cx| self.poll_write_from(cx, from)).await
    }

    /// Appends a small answer to what is to be sent, encrypted under TLS; [`Link::flush`] sends it and reports errors.
    pub(crate) fn queue(&mut self, bytes: &[u8]) {
        match &mut self.tls {
            None => self.output.extend_from_slice(bytes),
            // A failed TLS session stays failed: the flush that follows says so.
            Some(tls) => {
                let _ = bytes.chunks(RECORD).try_for_each(|record| tls.encrypt(record, &mut self.output));
            }
        }
    }

    /// Sends what waits in the link.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(poll_drain_into(&mut self.socket, cx, &mut self.output))?;
        match &self.tls {
            Some(tls) => Poll::Ready(tls.health().map_err(io::Error::from)),
            None => Poll::Ready(Ok(())),
        }
    }

    /// [`Link::poll_flush`] as a future. Cancel safe.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Does a whole TLS handshake over this link, after sending what was queued before. Bytes already in `input` are
    /// its first ciphertext. With [`TlsFraming::Wrapped`] the handshake's records travel in PRELOGIN packets, those
    /// after it do not ([MS-TDS] 2.2.6.5). Cancel safe: called again, it goes on where it was and ignores its arguments.
    pub(crate) async fn start_tls(&mut self, role: TlsRole, framing: TlsFraming) -> Result<(), TlsError> {
        self.flush().await?;
        if self.tls.is_none() {
            let received = std::mem::take(&mut self.input);
            self.tls = Some(Box::new(Tls::new(role, framing, received)?));
        }
        poll_fn(|cx| self.poll_handshake(cx)).await
    }

    /// Goes back to plaintext after a login-only handshake ([MS-TDS] 2.2.6.5): what was read ahead and not yet decrypted
    /// is plaintext and joins `input`; what is still to be sent stays as it is.
    pub(crate) fn end_tls(&mut self) {
        if let Some(tls) = self.tls.take() {
            let rest = tls.into_undecrypted();
            if self.input.is_empty() {
                self.input = rest;
            } else {
                self.input.extend_from_slice(&rest);
            }
        }
    }

    /// The protocol agreed by ALPN, if any.
    #[cfg(test)]
    pub(crate) fn alpn(&self) -> Option<&[u8]> {
        self.tls.as_ref()?.alpn()
    }

    /// Whether bytes are encrypted now.
    #[cfg(test)]
    pub(crate) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Looks at a connection that should be idle, without waiting. What TLS says to itself (tickets, key updates) is
    /// quiet. Bytes that were found are in `input` afterwards.
    pub(crate) fn check_idle(&mut self) -> IdleCheck {
        self.look_idle(Socket::read_now)
    }

    /// The same by what the runtime knows of the socket, which is as new as its last look at all of them, and costs no
    /// system call.
    pub(crate) fn glance_idle(&mut self) -> IdleCheck {
        self.look_idle(Socket::read_known)
    }

    fn look_idle(&mut self, read: impl Fn(&mut Socket, &mut [u8]) -> io::Result<usize>) -> IdleCheck {
        if !self.input.is_empty() {
            return IdleCheck::UnexpectedBytes;
        }
        if self.ended {
            return IdleCheck::Closed;
        }
        let mut bytes = [0; 2048];
        // Bounded: a peer that talks for 64 KiB is not idle.
        for _ in 0..32 {
            if let Some(tls) = &mut self.tls {
                let decrypted = tls.decrypt(&mut self.input, &mut self.output, 1);
                if !self.input.is_empty() {
                    return IdleCheck::UnexpectedBytes;
                }
                if decrypted.is_err() || tls.peer_closed() {
                    return IdleCheck::Closed;
                }
            }
            match read(&mut self.socket, &mut bytes) {
                Ok(0) => {
                    self.ended = true;
                    return IdleCheck::Closed;
                }
                Ok(read) => match &mut self.tls {
                    Some(tls) => tls.received_mut().extend_from_slice(&bytes[..read]),
                    None => {
                        self.input.extend_from_slice(&bytes[..read]);
                        return IdleCheck::UnexpectedBytes;
                    }
                },
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Half a record is half of something: not what an idle peer sends.
                    let partial = self.tls.as_ref().is_some_and(|tls| tls.has_input());
                    return if partial { IdleCheck::UnexpectedBytes } else { IdleCheck::Quiet };
                }
                Err(_) => return IdleCheck::Closed,
            }
        }
        IdleCheck::UnexpectedBytes
    }

    /// Gives back the memory of empty buffers; to be called before waiting for a quiet peer.
    pub(crate) fn shrink(&mut self) {
        release(&mut self.input);
        release(&mut self.output);
        if let Some(tls) = &mut self.tls {
            release(tls.received_mut());
        }
    }

    /// Sends what waits and reads what the peer has sent unasked, for at most `wait` and 1 MiB: bytes left unread turn the
    /// close into a reset, which may destroy what the peer was told last. To be dropped then.
    pub(crate) async fn say_last_words(&mut self, wait: Duration) {
        let saying = async {
            self.flush().await?;
            if self.check_idle() == IdleCheck::UnexpectedBytes {
                self.drain().await?;
            }
            io::Result::Ok(())
        };
        // A peer that does not read in time, or is gone, has lost them.
        let _ = tokio::time::timeout(wait, saying).await;
    }

    /// Says goodbye: sends what waits (and TLS's close_notify), shuts down, reads to the peer's end for at most `wait` and
    /// 1 MiB, so that the last answer is not lost to a reset. A peer that takes longer is reset.
    pub(crate) async fn close_gracefully(mut self, wait: Duration) {
        if let Some(tls) = &mut self.tls {
            tls.close_notify(&mut self.output);
        }
        if !matches!(tokio::time::timeout(wait, self.drain()).await, Ok(Ok(true))) {
            self.socket.reset();
        }
    }

    /// Memory this link holds, in bytes, with its buffers; TLS state inside rustls is an estimate.
    #[cfg(test)]
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.input.capacity()
            + self.output.capacity()
            + self.tls.as_ref().map_or(0, |tls| tls.memory_bytes())
    }

    fn poll_fill_tls(&mut self, cx: &mut Context<'_>, limit: usize) -> Poll<io::Result<usize>> {
        let limit = limit.max(1);
        let before = self.input.len();
        loop {
            let Some(tls) = &mut self.tls else { return self.poll_fill(cx, limit) };
            if let Err(error) = tls.decrypt(&mut self.input, &mut self.output, limit) {
                // The alert that tells the peer why: sent if the socket takes it now.
                let _ = poll_drain_into(&mut self.socket, cx, &mut self.output);
                return Poll::Ready(Err(error.into()));
            }
            let read = self.input.len() - before;
            if read > 0 || self.ended || tls.peer_closed() {
                return Poll::Ready(Ok(read));
            }
            let room = tls.missing().max(limit.min(MAX_PENDING) + RECORD_OVERHEAD);
            make_room(tls.received_mut(), room);
            self.ended = ready!(self.socket.poll_read(cx, tls.received_mut(), room))? == 0;
        }
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TlsError>> {
        loop {
            let Some(tls) = &mut self.tls else { return Poll::Ready(Err(TlsError::Closed)) };
            let progress = tls.handshake(&mut self.output);
            if let Err(error) = progress {
                let _ = poll_drain_into(&mut self.socket, cx, &mut self.output);
                return Poll::Ready(Err(error));
            }
            ready!(poll_drain_into(&mut self.socket, cx, &mut self.output))?;
            if !tls.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            let received = tls.received_mut();
            make_room(received, RECORD);
            if ready!(self.socket.poll_read(cx, received, RECORD))? == 0 {
                self.ended = true;
                return Poll::Ready(Err(TlsError::Closed));
            }
        }
    }

    /// True when the peer closed too, within the bound.
    async fn drain(&mut self) -> io::Result<bool> {
        poll_fn(|cx| poll_drain_into(&mut self.socket, cx, &mut self.output)).await?;
        poll_fn(|cx| self.socket.poll_shutdown(cx)).await?;
        let mut drained = 0;
        while !self.ended {
            self.input.clear();
            make_room(&mut self.input, DRAIN_STEP);
            let read = poll_fn(|cx| self.socket.poll_read(cx, &mut self.input, DRAIN_STEP)).await?;
            drained += read;
            if drained > MAX_DRAIN {
                return Ok(false);
            }
            self.ended = read == 0;
        }
        Ok(true)
    }

    /// A pipe has no readiness: read a little, to where it belongs.
    #[cfg(test)]
    async fn readable_pipe(&mut self) {
        let received = match &mut self.tls {
            Some(tls) => tls.received_mut(),
            None => &mut self.input,
        };
        if let Ok(0) = poll_fn(|cx| self.socket.poll_read(cx, received, 64)).await {
            self.ended = true;
        }
    }
}

/// Writes `from` to the socket until it is empty.
fn poll_drain_into(socket: &mut Socket, cx: &mut Context<'_>, from: &mut BytesMut) -> Poll<io::Result<()>> {
    while !from.is_empty() {
        let written = ready!(socket.poll_write(cx, from))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        from.advance(written);
    }
    Poll::Ready(Ok(()))
}

/// Room for `wanted` more bytes where that costs no copy, else for at least half of it: a buffer with a small rest in it
/// need not grow to be useful.
fn make_room(buffer: &mut BytesMut, wanted: usize) {
    let spare = buffer.capacity() - buffer.len();
    if spare < wanted && !buffer.try_reclaim(wanted) && spare < wanted.div_ceil(2) {
        buffer.reserve(wanted);
    }
}

fn release(buffer: &mut BytesMut) {
    if buffer.is_empty() {
        *buffer = BytesMut::new();
    }
}

#[cfg(test)]
mod tests;
