//! What a link reads from and writes to: a TCP stream, or a pair of pipes in tests.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;

/// One end of a connection, before anything is known about the bytes on it.
pub(crate) enum Socket {
    /// A TCP connection, from accept or from dialing.
    Tcp(TcpStream),
    /// An in-memory pipe, so that actors can be tested under a paused clock.
    #[cfg(test)]
    Memory(tokio::io::DuplexStream),
}

impl Socket {
    /// Reads once, at most `at_most` bytes, behind what `into` already holds. `Ok(0)` is the end of the stream.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut BytesMut,
        at_most: usize,
    ) -> Poll<io::Result<usize>> {
        // The future of `read_buf` has no state of its own: polling a new one each time loses nothing.
        let mut space = into.limit(at_most);
        match self {
            Socket::Tcp(stream) => pin!(stream.read_buf(&mut space)).poll(cx),
            #[cfg(test)]
            Socket::Memory(pipe) => pin!(pipe.read_buf(&mut space)).poll(cx),
        }
    }

    /// Waits until a read would not wait. Holds no buffer.
    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => stream.readable().await,
            // A pipe cannot be asked; the caller reads from it instead.
            #[cfg(test)]
            Socket::Memory(_) => Ok(()),
        }
    }

    /// Reads what is there now, asking the kernel and not the runtime, whose view may be older.
    /// `WouldBlock` when there is nothing.
    pub(super) fn read_now(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => io::Read::read(&mut &*socket2::SockRef::from(&*stream), into),
            #[cfg(test)]
            Socket::Memory(pipe) => {
                let mut cx = Context::from_waker(std::task::Waker::noop());
                match pin!(pipe.read(into)).poll(&mut cx) {
                    Poll::Ready(read) => read,
                    Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
                }
            }
        }
    }

    /// Reads what the runtime knows to be there: no system call where it knows of nothing, `WouldBlock` then.
    pub(super) fn read_known(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.try_read(into),
            #[cfg(test)]
            Socket::Memory(_) => self.read_now(into),
        }
    }

    /// Writes once and says how much was taken.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Socket::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            #[cfg(test)]
            Socket::Memory(pipe) => Pin::new(pipe).poll_write(cx, bytes),
        }
    }

    /// Says to the peer that nothing more will come; reading goes on.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(test)]
            Socket::Memory(pipe) => Pin::new(pipe).poll_shutdown(cx),
        }
    }

    /// Drops the connection with a reset, so that the kernel keeps nothing of it.
    pub(super) fn reset(self) {
        match self {
            Socket::Tcp(stream) => {
                // Without the option the drop still closes the socket, only later.
                let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            }
            #[cfg(test)]
            Socket::Memory(_) => {}
        }
    }
}
