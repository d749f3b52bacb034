//! The server's certificate, and TLS without I/O: records in, plaintext out.

use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::{Buf, BufMut, BytesMut};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{ServerConfig, ServerConnection};

use crate::options::Certificate;
use crate::server::SimError;

/// The ALPN name of TDS 8.0.
const TDS_8: &[u8] = b"tds/8.0";

/// Length of a TLS record's header.
const RECORD_HEADER: usize = 5;

/// The two ways this server does TLS.
#[derive(Debug)]
pub(crate) struct TlsConfigs {
    /// For TDS 7.x: TLS 1.2 only. What 1.3 sends after its handshake confuses drivers that unwrap the handshake.
    pub(crate) wrapped: Arc<ServerConfig>,
    /// For TDS 8.0: TLS 1.2 or 1.3 with its ALPN.
    pub(crate) strict: Arc<ServerConfig>,
    /// The certificate chain, for clients that want to check it.
    pub(crate) pem: String,
}

impl TlsConfigs {
    pub(crate) fn new(certificate: &Certificate, name: &str) -> Result<Self, SimError> {
        let (chain, key, pem) = match certificate {
            Certificate::SelfSigned => self_signed(name)?,
            Certificate::Files { chain, key } => {
                let pem = std::fs::read_to_string(chain)?;
                let chain = CertificateDer::pem_slice_iter(pem.as_bytes())
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(|e| SimError::Certificate(e.to_string()))?;
                let key =
                    PrivateKeyDer::from_pem_file(key).map_err(|e| SimError::Certificate(e.to_string()))?;
                (chain, key, pem)
            }
        };
        let config = |versions: &[&'static rustls::SupportedProtocolVersion], alpn: &[&[u8]]| {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let mut config = ServerConfig::builder_with_provider(provider)
                .with_protocol_versions(versions)?
                .with_no_client_auth()
                .with_single_cert(chain.clone(), key.clone_key())?;
            config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
            // Resumption would let a client's first request follow its handshake in one flight.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            Ok::<_, rustls::Error>(Arc::new(config))
        };
        Ok(Self {
            wrapped: config(&[&rustls::version::TLS12], &[])?,
            strict: config(rustls::ALL_VERSIONS, &[TDS_8])?,
            pem,
        })
    }
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, String);

fn self_signed(name: &str) -> Result<Identity, SimError> {
    let made = |e: rcgen::Error| SimError::Certificate(e.to_string());
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    if name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.') && name != "localhost" {
        names.push(name.to_owned());
    }
    let identity = rcgen::generate_simple_self_signed(names).map_err(made)?;
    let key = PrivatePkcs8KeyDer::from(identity.signing_key.serialize_der());
    Ok((vec![identity.cert.der().clone()], key.into(), identity.cert.pem()))
}

/// One connection's TLS. Records are fed one at a time, so that where TLS ends (a login-only handshake) nothing has been
/// read ahead.
#[derive(Debug)]
pub(crate) struct Tls {
    connection: ServerConnection,
    /// Records received and not yet fed.
    pub(crate) incoming: BytesMut,
}

impl Tls {
    pub(crate) fn new(config: Arc<ServerConfig>) -> io::Result<Self> {
        let mut connection = ServerConnection::new(config).map_err(io::Error::other)?;
        connection.set_buffer_limit(None);
        Ok(Self { connection, incoming: BytesMut::new() })
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Feeds whole records until plaintext appears in `plain`; false if no whole record is left.
    pub(crate) fn decrypt(&mut self, plain: &mut BytesMut) -> io::Result<bool> {
        while let Some(length) = record_length(&self.incoming) {
            let mut record = &self.incoming[..length];
            while !record.is_empty() {
                self.connection.read_tls(&mut record)?;
                // A handshake alert is still sent before the error is seen by whoever flushes; the caller closes.
                let state = self.connection.process_new_packets().map_err(io::Error::other)?;
                let ready = state.plaintext_bytes_to_read();
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
        }
        Ok(false)
    }

    /// Encrypts all of `plain` and appends everything TLS wants to say to `cipher`.
    pub(crate) fn encrypt(&mut self, plain: &mut BytesMut, cipher: &mut BytesMut) -> io::Result<()> {
        if !plain.is_empty() {
            self.connection.writer().write_all(plain)?;
            plain.clear();
        }
        let mut writer = cipher.writer();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut writer)?;
        }
        Ok(())
    }
}

/// Length of the whole TLS record at the front, or `None` if it is not all there.
fn record_length(bytes: &[u8]) -> Option<usize> {
    let header = bytes.first_chunk::<RECORD_HEADER>()?;
    let length = RECORD_HEADER + usize::from(u16::from_be_bytes([header[3], header[4]]));
    (bytes.len() >= length).then_some(length)
}
