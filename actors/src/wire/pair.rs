//! Two ends of one connection, for tests: over pipes or loopback TCP, with certificates that fit each other.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tds::handshake::TlsFraming;
use tdsbouncer_config::{ClientTls, ClientTlsMode, ServerTls, ServerTlsMode};
use tokio::net::{TcpListener, TcpStream};

use super::{Link, ServerCertificates, Socket, TlsRole, client_config};

/// Two links joined by pipes that hold `capacity` bytes each way.
pub(crate) fn memory(capacity: usize) -> (Link, Link) {
    let (one, other) = tokio::io::duplex(capacity);
    (Link::new(Socket::Memory(one)), Link::new(Socket::Memory(other)))
}

/// Two links joined by a TCP connection over loopback.
pub(crate) async fn tcp() -> (Link, Link) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dialed = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    (Link::new(Socket::Tcp(accepted)), Link::new(Socket::Tcp(dialed)))
}

/// Both roles of a handshake; the client believes anyone.
pub(crate) fn roles(framing: TlsFraming) -> (TlsRole, TlsRole) {
    let server = ServerCertificates::of(&ClientTls::self_signed(ClientTlsMode::On)).unwrap();
    roles_of(server.config(framing), client_config(&trusting(framing)).unwrap())
}

pub(crate) fn roles_of(server: Arc<ServerConfig>, client: Arc<ClientConfig>) -> (TlsRole, TlsRole) {
    (TlsRole::Server(server), TlsRole::Client(client, ServerName::try_from("localhost").unwrap()))
}

/// Does the handshake on both ends.
pub(crate) async fn start_tls(server: &mut Link, client: &mut Link, framing: TlsFraming) {
    let (accept, connect) = roles(framing);
    let (accepted, connected) =
        tokio::join!(server.start_tls(accept, framing), client.start_tls(connect, framing));
    accepted.unwrap();
    connected.unwrap();
}

/// Settings of a dialer that believes anyone.
pub(crate) fn trusting(framing: TlsFraming) -> ServerTls {
    ServerTls { trust_server_certificate: true, ..verifying(framing, None) }
}

/// Settings of a dialer that believes the authorities in a file, or the system's.
pub(crate) fn verifying(framing: TlsFraming, ca_file: Option<PathBuf>) -> ServerTls {
    let mode = match framing {
        TlsFraming::Wrapped => ServerTlsMode::On,
        TlsFraming::Raw => ServerTlsMode::Strict,
    };
    ServerTls { mode, ca_file, ..ServerTls::off() }
}
