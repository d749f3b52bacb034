//! TLS without a socket: ciphertext in, plaintext out, one record at a time, wrapped in PRELOGIN packets where 7.x does so.
//!
//! rustls is driven through its unbuffered interface: it owns no bytes, so whatever was read behind the record in hand
//! is still ours when a login-only session ends, and an idle session has no buffers.

use std::io;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{ClientConfig, ServerConfig};
use tds::handshake::TlsFraming;
use tds::packet::HEADER_LEN;
use tds::tls_wrap::Wrapped;

use super::tls_error::TlsError;

/// The largest record on the wire, in bytes: header, 16 KiB and what TLS 1.2 ciphers may add (RFC 5246, 6.2.3).
const MAX_RECORD: usize = 5 + 16 * 1024 + 2048;
/// Header of a record: type, version, length (RFC 5246, 6.2.1).
const RECORD_HEADER: usize = 5;
/// The record types: change_cipher_spec to heartbeat. No TDS packet type is among them.
const RECORD_TYPES: std::ops::RangeInclusive<u8> = 0x14..=0x18;
/// The record type of application data.
const APPLICATION_DATA: u8 = 0x17;
/// First guess at what encryption adds to a record, in bytes; rustls says so if it is more.
const OVERHEAD: usize = 64;
/// What rustls keeps for an established session, in bytes: an estimate for `memory_bytes`.
#[cfg(test)]
const SESSION_STATE: usize = 2 * 1024;

/// Which end of the handshake this side is, and what it shows or believes.
pub(crate) enum TlsRole {
    /// A client connected to us.
    Server(Arc<ServerConfig>),
    /// We connected to the server of this name.
    Client(Arc<ClientConfig>, ServerName<'static>),
}

/// A TLS session and the ciphertext received for it.
pub(super) struct Tls {
    session: Session,
    /// Ciphertext received: `fed` bytes that rustls has seen but wants to see again (half a handshake message), then
    /// whole and partial records that it has not seen.
    received: BytesMut,
    fed: usize,
    /// Present during a wrapped handshake.
    wrapping: Option<Wrapping>,
    peer_closed: bool,
    broken: bool,
}

enum Session {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// The packets of a wrapped handshake ([MS-TDS] 2.2.6.5).
struct Wrapping {
    packets: BytesMut,
    wrapped: Wrapped,
}

/// What we have to say in the session, beyond what the session itself has to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Say<'a> {
    Nothing,
    Data(&'a [u8]),
    Goodbye,
}

impl Tls {
    /// A session before its handshake; `received` are the first bytes of ciphertext (packets, if wrapped).
    pub(super) fn new(role: TlsRole, framing: TlsFraming, received: BytesMut) -> Result<Self, TlsError> {
        let session = match role {
            TlsRole::Server(config) => Session::Server(UnbufferedServerConnection::new(config)?),
            TlsRole::Client(config, name) => Session::Client(UnbufferedClientConnection::new(config, name)?),
        };
        let (received, wrapping) = match framing {
            TlsFraming::Raw => (received, None),
            TlsFraming::Wrapped => {
                (BytesMut::new(), Some(Wrapping { packets: received, wrapped: Wrapped::new() }))
            }
        };
        Ok(Self { session, received, fed: 0, wrapping, peer_closed: false, broken: false })
    }

    /// Where bytes from the socket belong.
    pub(super) fn received_mut(&mut self) -> &mut BytesMut {
        match &mut self.wrapping {
            Some(wrapping) => &mut wrapping.packets,
            None => &mut self.received,
        }
    }

    /// Whether received bytes are waiting to be looked at or completed.
    pub(super) fn has_input(&self) -> bool {
        self.received.len() > self.fed
    }

    /// Whether there is something to do without further bytes: a whole record, or what cannot become one.
    pub(super) fn has_record(&self) -> bool {
        match self.next_record() {
            Ok(record) => record.is_some_and(|record| self.received.len() - self.fed >= record),
            Err(_) => true,
        }
    }

    /// Whether the peer said that no more will come (close_notify).
    pub(super) fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// Whether the handshake is not complete.
    pub(super) fn is_handshaking(&self) -> bool {
        self.wrapping.is_some() || self.session.state().is_handshaking()
    }

    /// The protocol agreed by ALPN, if any.
    #[cfg(test)]
    pub(super) fn alpn(&self) -> Option<&[u8]> {
        self.session.state().alpn_protocol()
    }

    /// An error once the session has failed: nothing can be said in it any more.
    pub(super) fn health(&self) -> Result<(), TlsError> {
        if self.broken { Err(io::Error::from(io::ErrorKind::BrokenPipe).into()) } else { Ok(()) }
    }

    /// Bytes that complete the record at hand, as far as known; at least 1.
    pub(super) fn missing(&self) -> usize {
        match self.next_record() {
            Ok(Some(record)) => record.saturating_sub(self.received.len() - self.fed).max(1),
            _ => 1,
        }
    }

    /// Goes on with the handshake with what was received and puts the answer into `out`. Stops behind the record that
    /// completes it.
    pub(super) fn handshake(&mut self, out: &mut BytesMut) -> Result<(), TlsError> {
        let mut flight = BytesMut::new();
        let progress = self.handshake_flight(&mut flight);
        // On an error the flight is the alert that tells the peer why.
        match &self.wrapping {
            Some(_) => Wrapped::wrap(&flight, out),
            None => out.extend_from_slice(&flight),
        }
        progress?;
        if !self.session.state().is_handshaking()
            && let Some(wrapping) = self.wrapping.take()
        {
            // What followed the last packet is not wrapped any more.
            if self.received.is_empty() {
                self.received = wrapping.packets;
            } else {
                self.received.extend_from_slice(&wrapping.packets);
            }
        }
        Ok(())
    }

    fn handshake_flight(&mut self, flight: &mut BytesMut) -> Result<(), TlsError> {
        let mut plain = BytesMut::new();
        // A client speaks first.
        self.drive(self.fed, Say::Nothing, &mut plain, flight)?;
        while self.session.state().is_handshaking() {
            match self.whole_record()? {
                Some(record) => self.drive(self.fed + record, Say::Nothing, &mut plain, flight)?,
                None if self.unwrap_packet()? => {}
                None => break,
            }
        }
        Ok(())
    }

    /// Decrypts whole records into `plain` until it has grown by `limit` or they run out, answering to `out` what TLS
    /// itself wants answered. After a record with plaintext it goes on only into another one of application data: what
    /// else may follow is for [`Tls::into_undecrypted`] to decide.
    pub(super) fn decrypt(
        &mut self,
        plain: &mut BytesMut,
        out: &mut BytesMut,
        limit: usize,
    ) -> Result<(), TlsError> {
        let before = plain.len();
        if self.has_input() {
            plain.reserve(self.received.len().min(limit));
        }
        while !self.peer_closed && plain.len() - before < limit {
            if plain.len() > before && self.received.get(self.fed) != Some(&APPLICATION_DATA) {
                break;
            }
            let Some(record) = self.whole_record()? else { break };
            self.drive(self.fed + record, Say::Nothing, plain, out)?;
        }
        Ok(())
    }

    /// Encrypts `bytes`, at most one record of 16 KiB, to the end of `out`.
    pub(super) fn encrypt(&mut self, bytes: &[u8], out: &mut BytesMut) -> Result<(), TlsError> {
        self.health()?;
        let mut plain = BytesMut::new();
        self.drive(self.fed, Say::Data(bytes), &mut plain, out)
    }

    /// Says that no more will come, if the session is in a state to say anything.
    pub(super) fn close_notify(&mut self, out: &mut BytesMut) {
        if !self.broken && !self.is_handshaking() {
            // Goodbye is a courtesy: if it cannot be said, the connection just closes.
            let _ = self.drive(self.fed, Say::Goodbye, &mut BytesMut::new(), out);
        }
    }

    /// Ends the session here: the bytes received behind the last record that was decrypted.
    pub(super) fn into_undecrypted(mut self) -> BytesMut {
        self.received.advance(self.fed);
        self.received
    }

    /// Memory of the session, in bytes.
    #[cfg(test)]
    pub(super) fn memory_bytes(&self) -> usize {
        let packets = self.wrapping.as_ref().map_or(0, |wrapping| wrapping.packets.capacity());
        size_of::<Self>() + SESSION_STATE + self.received.capacity() + packets
    }

    /// Length of the record after the fed bytes, if its header is there, in bytes with the header.
    fn next_record(&self) -> Result<Option<usize>, TlsError> {
        let Some(header) = self.received.get(self.fed..self.fed + RECORD_HEADER) else {
            return match self.received.get(self.fed) {
                // Do not wait for the rest of something that is not TLS.
                Some(&kind) if !RECORD_TYPES.contains(&kind) => Err(TlsError::NotTls { kind, length: 0 }),
                _ => Ok(None),
            };
        };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if !RECORD_TYPES.contains(&header[0]) || header[1] != 3 || RECORD_HEADER + length > MAX_RECORD {
            return Err(TlsError::NotTls { kind: header[0], length });
        }
        Ok(Some(RECORD_HEADER + length))
    }

    /// [`Tls::next_record`], if all of it is there.
    fn whole_record(&mut self) -> Result<Option<usize>, TlsError> {
        let record = self.next_record().inspect_err(|_| self.broken = true)?;
        Ok(record.filter(|record| self.received.len() - self.fed >= *record))
    }

    /// Moves the contents of one packet of the wrapped handshake to the ciphertext. False if none is complete.
    fn unwrap_packet(&mut self) -> Result<bool, TlsError> {
        let Some(Wrapping { packets, wrapped }) = &mut self.wrapping else { return Ok(false) };
        let Some(&kind) = packets.first() else { return Ok(false) };
        if RECORD_TYPES.contains(&kind) {
            // A client that gives up may send its alert bare; it tells why, so it is read.
            self.received.unsplit(packets.split());
            return Ok(true);
        }
        let Some(&[high, low]) = packets.get(2..4) else { return Ok(false) };
        let length = usize::from(u16::from_be_bytes([high, low])).max(HEADER_LEN);
        if packets.len() < length {
            return Ok(false);
        }
        // Exactly one: what follows the handshake's last packet is not wrapped.
        wrapped.unwrap(&mut packets.split_to(length), &mut self.received)?;
        Ok(true)
    }

    /// Lets rustls look at the first `upto` bytes received, says what is to be said, and settles everything that follows.
    fn drive(
        &mut self,
        mut upto: usize,
        mut say: Say<'_>,
        plain: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<(), TlsError> {
        // After a failure rustls must not look at the bytes again: it would find them wrong once more.
        self.health()?;
        loop {
            let seen = &mut self.received[..upto];
            let step = match &mut self.session {
                Session::Server(session) => step(session.process_tls_records(seen), say, plain, out),
                Session::Client(session) => step(session.process_tls_records(seen), say, plain, out),
            };
            self.received.advance(step.discard);
            upto -= step.discard;
            match step.next {
                Next::Again => {}
                Next::Said => say = Say::Nothing,
                Next::PeerClosed => self.peer_closed = true,
                Next::Settled if matches!(say, Say::Data(_)) => {
                    self.broken = true;
                    return Err(io::Error::from(io::ErrorKind::BrokenPipe).into());
                }
                Next::Settled => break,
                Next::Failed(error) => {
                    self.broken = true;
                    self.fed = upto;
                    self.alert(out);
                    return Err(error.into());
                }
            }
        }
        self.fed = upto;
        Ok(())
    }

    /// Takes out what a failed session still wants to say: why.
    fn alert(&mut self, out: &mut BytesMut) {
        // rustls hands out what it has to say before it looks at bytes; there is one alert, seldom something before it.
        while self.session.state().wants_write() {
            let seen = &mut self.received[..self.fed];
            let plain = &mut BytesMut::new();
            let step = match &mut self.session {
                Session::Server(session) => step(session.process_tls_records(seen), Say::Nothing, plain, out),
                Session::Client(session) => step(session.process_tls_records(seen), Say::Nothing, plain, out),
            };
            if !matches!(step.next, Next::Again) {
                break;
            }
        }
    }
}

impl Session {
    fn state(&self) -> &rustls::CommonState {
        match self {
            Session::Server(session) => session,
            Session::Client(session) => session,
        }
    }
}

struct Step {
    discard: usize,
    next: Next,
}

enum Next {
    /// Something was settled; ask again.
    Again,
    /// What was to be said has been said; ask again.
    Said,
    PeerClosed,
    /// Nothing more without further bytes.
    Settled,
    Failed(rustls::Error),
}

/// Settles one state of the unbuffered interface.
fn step<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    say: Say<'_>,
    plain: &mut BytesMut,
    out: &mut BytesMut,
) -> Step {
    let mut discard = status.discard;
    let next = match status.state {
        Err(error) => Next::Failed(error),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    plain.extend_from_slice(record.payload);
                }
                Some(Err(error)) => break Next::Failed(error),
                None => break Next::Again,
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => append(out, 0, |space| match data.encode(space) {
            Err(EncodeError::InsufficientSize(needed)) => Err(Short::Of(needed.required_size)),
            Err(EncodeError::AlreadyEncoded) => Err(Short::Never),
            Ok(written) => Ok(written),
        })
        .map_or_else(Next::Failed, |()| Next::Again),
        // `out` keeps the order of bytes, so encoded is as good as sent.
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Next::Again
        }
        Ok(ConnectionState::WriteTraffic(mut traffic)) => {
            let said = match say {
                Say::Nothing => return Step { discard, next: Next::Settled },
                Say::Data(bytes) => append(out, bytes.len() + OVERHEAD, |space| {
                    traffic.encrypt(bytes, space).map_err(Short::from)
                }),
                Say::Goodbye => {
                    append(out, OVERHEAD, |space| traffic.queue_close_notify(space).map_err(Short::from))
                }
            };
            said.map_or_else(Next::Failed, |()| Next::Said)
        }
        Ok(ConnectionState::PeerClosed) => Next::PeerClosed,
        Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => Next::Settled,
        // Early data is not enabled; the enum is open to additions that are not enabled either.
        Ok(_) => Next::Failed(rustls::Error::General("unexpected TLS state".into())),
    };
    Step { discard, next }
}

/// Why rustls wrote nothing.
enum Short {
    /// It needs this many bytes.
    Of(usize),
    Never,
}

impl From<EncryptError> for Short {
    fn from(error: EncryptError) -> Self {
        match error {
            EncryptError::InsufficientSize(needed) => Self::Of(needed.required_size),
            EncryptError::EncryptExhausted => Self::Never,
        }
    }
}

/// Lets `write` fill the end of `out`, with `guess` bytes of space or what it asks for.
fn append(
    out: &mut BytesMut,
    guess: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Short>,
) -> Result<(), rustls::Error> {
    let before = out.len();
    let mut space = guess;
    // Once with the guess, once with what was asked for.
    for _ in 0..2 {
        out.resize(before + space, 0);
        match write(&mut out[before..]) {
            Ok(written) => {
                out.truncate(before + written);
                return Ok(());
            }
            Err(Short::Of(needed)) => space = needed,
            Err(Short::Never) => break,
        }
    }
    out.truncate(before);
    Err(rustls::Error::EncryptError)
}

#[cfg(test)]
mod tests;
