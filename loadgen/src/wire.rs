//! A socket and its TLS, of either side: bytes out, plaintext in, and nothing kept while it rests.

use std::io::{self, Read, Write};
use std::sync::{Arc, OnceLock};

use bytes::{Buf, BufMut, BytesMut};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, Connection, DigitallySignedStruct, ServerConfig, ServerConnection,
    SignatureScheme,
};
use tds::handshake::TlsFraming;
use tds::packet::PacketWalker;
use tds::tls_wrap::Wrapped;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use tds::Malformed;

/// Read at once, in bytes.
const READ: usize = 16 * 1024;

/// Header of a TLS record, in bytes.
const RECORD_HEADER: usize = 5;

/// One end of a connection.
pub struct Wire {
    socket: TcpStream,
    tls: Option<Box<Tls>>,
    /// Received and not yet looked at, decrypted.
    pub input: BytesMut,
}

struct Tls {
    connection: Connection,
    /// Received and not yet decrypted.
    incoming: BytesMut,
}

impl Wire {
    /// Begins in the clear.
    pub fn new(socket: TcpStream) -> Self {
        Self { socket, tls: None, input: BytesMut::new() }
    }

    /// Sends all of it, encrypted if TLS is on.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        match &mut self.tls {
            None => self.socket.write_all(bytes).await,
            Some(tls) => {
                tls.connection.writer().write_all(bytes)?;
                let out = tls.said()?;
                self.socket.write_all(&out).await
            }
        }
    }

    /// Waits until `input` has grown; the peer's end is an error.
    pub async fn receive(&mut self) -> io::Result<()> {
        loop {
            let Some(tls) = &mut self.tls else {
                self.input.reserve(READ);
                return match self.socket.read_buf(&mut self.input).await? {
                    0 => Err(io::ErrorKind::UnexpectedEof.into()),
                    _ => Ok(()),
                };
            };
            if tls.decrypt(&mut self.input)? {
                return Ok(());
            }
            tls.incoming.reserve(READ);
            if self.socket.read_buf(&mut tls.incoming).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Reads one whole message and keeps nothing of it: its length in bytes, headers included.
    pub async fn skim_message(&mut self) -> io::Result<u64> {
        let mut walker = PacketWalker::new(32_767);
        let mut total = 0u64;
        loop {
            while let Some(piece) = walker.next(&self.input).map_err(malformed)? {
                total += piece.consumed as u64;
                self.input.advance(piece.consumed);
                if piece.end_of_message {
                    return Ok(total);
                }
            }
            total += self.input.len() as u64;
            self.input.clear();
            self.receive().await?;
        }
    }

    /// Gives empty buffers back.
    pub fn rest(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        if let Some(tls) = &mut self.tls
            && tls.incoming.is_empty()
        {
            tls.incoming = BytesMut::new();
        }
    }

    /// A whole TLS handshake as the client; any certificate is believed.
    pub async fn start_tls(&mut self, framing: TlsFraming) -> io::Result<()> {
        let name = ServerName::IpAddress(self.socket.peer_addr()?.ip().into());
        let config = config(framing == TlsFraming::Raw);
        let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        self.handshake(connection.into(), framing).await
    }

    /// A whole TLS handshake as the server.
    pub async fn accept_tls(&mut self, config: Arc<ServerConfig>, framing: TlsFraming) -> io::Result<()> {
        let connection = ServerConnection::new(config).map_err(io::Error::other)?;
        self.handshake(connection.into(), framing).await
    }

    async fn handshake(&mut self, mut connection: Connection, framing: TlsFraming) -> io::Result<()> {
        connection.set_buffer_limit(None);
        let mut tls = Box::new(Tls { connection, incoming: std::mem::take(&mut self.input) });
        let mut wrapped = (framing == TlsFraming::Wrapped).then(Wrapped::new);
        // What came in packets, and is not yet unwrapped.
        let mut packets = if wrapped.is_some() { std::mem::take(&mut tls.incoming) } else { BytesMut::new() };
        loop {
            let said = tls.said()?;
            match &wrapped {
                Some(_) => {
                    let mut out = BytesMut::new();
                    Wrapped::wrap(&said, &mut out);
                    self.socket.write_all(&out).await?;
                }
                None => self.socket.write_all(&said).await?,
            }
            if !tls.connection.is_handshaking() {
                break;
            }
            let received = if wrapped.is_some() { &mut packets } else { &mut tls.incoming };
            if self.socket.read_buf(received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(wrapped) = &mut wrapped {
                while !packets.is_empty() && tls.connection.is_handshaking() {
                    wrapped.unwrap(&mut packets, &mut tls.incoming).map_err(io::Error::other)?;
                    tls.decrypt(&mut self.input)?;
                }
            } else {
                tls.decrypt(&mut self.input)?;
            }
        }
        tls.incoming.extend_from_slice(&packets);
        self.tls = Some(tls);
        Ok(())
    }

    /// After a login that alone was encrypted: what was read ahead is plaintext.
    pub fn end_tls(&mut self) {
        if let Some(tls) = self.tls.take() {
            self.input.extend_from_slice(&tls.incoming);
        }
    }
}

impl Tls {
    /// Everything that TLS wants to send now.
    fn said(&mut self) -> io::Result<BytesMut> {
        let mut out = BytesMut::new().writer();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut out)?;
        }
        Ok(out.into_inner())
    }

    /// Feeds whole records, one by one, until plaintext appears or the handshake ends: what follows may be plaintext.
    fn decrypt(&mut self, plain: &mut BytesMut) -> io::Result<bool> {
        let began_in_handshake = self.connection.is_handshaking();
        while let Some(length) = record_length(&self.incoming) {
            let mut record = &self.incoming[..length];
            while !record.is_empty() {
                self.connection.read_tls(&mut record)?;
                let ready = self
                    .connection
                    .process_new_packets()
                    .map_err(io::Error::other)?
                    .plaintext_bytes_to_read();
                if ready > 0 {
                    let start = plain.len();
                    plain.put_bytes(0, ready);
                    self.connection.reader().read_exact(&mut plain[start..])?;
                }
            }
            self.incoming.advance(length);
            if !plain.is_empty() {
                return Ok(true);
            }
            if began_in_handshake && !self.connection.is_handshaking() {
                break;
            }
        }
        Ok(false)
    }
}

fn record_length(bytes: &[u8]) -> Option<usize> {
    let header = bytes.first_chunk::<RECORD_HEADER>()?;
    let length = RECORD_HEADER + usize::from(u16::from_be_bytes([header[3], header[4]]));
    (bytes.len() >= length).then_some(length)
}

fn malformed(why: Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// TLS 1.2 inside TDS 7.x, 1.3 in TDS 8.0; no resumption, so that every login costs what a new program's does.
fn config(strict: bool) -> Arc<ClientConfig> {
    static CONFIGS: OnceLock<[Arc<ClientConfig>; 2]> = OnceLock::new();
    let make = |strict: bool| {
        let versions: &[_] = if strict { rustls::ALL_VERSIONS } else { &[&rustls::version::TLS12] };
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_protocol_versions(versions)
                .expect("ring does both versions")
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anyone))
                .with_no_client_auth();
        config.resumption = Resumption::disabled();
        if strict {
            config.alpn_protocols = vec![b"tds/8.0".to_vec()];
        }
        Arc::new(config)
    };
    Arc::clone(&CONFIGS.get_or_init(|| [make(false), make(true)])[usize::from(strict)])
}

/// Load is made on servers of one's own: whose certificate it is does not matter.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
