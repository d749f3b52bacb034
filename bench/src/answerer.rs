//! The server of the benchmark: it does a login and then gives fixed answers to known requests, as cheaply as possible,
//! so that what stands in front of it is what is measured. It is not a SQL Server and executes nothing.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tds::TdsVersion;
use tds::encryption::ClientTlsPolicy;
use tds::handshake::{Accept, AcceptPolicy, AcceptStep};
use tds::login_response::{LoginAck, LoginResponse};
use tds::packet::{PacketType, PacketWalker, Status};
use tdsbouncer_loadgen::wire::Wire;
use tokio::net::{TcpListener, TcpStream};

use crate::answers::Answers;

/// Longer requests are read and not looked at beyond this, in bytes.
const LOOKED_AT: usize = 4096;

/// Serves until the process ends; says on standard output where it listens.
pub(crate) fn serve(listen: SocketAddr) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        println!("answering on {}", listener.local_addr()?);
        let (answers, tls) = (Arc::new(Answers::new()), tls()?);
        loop {
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            let (answers, tls) = (Arc::clone(&answers), Arc::clone(&tls));
            // A client that leaves ends its task.
            tokio::spawn(async move { connection(socket, &answers, tls).await });
        }
    })
}

fn tls() -> io::Result<Arc<ServerConfig>> {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).map_err(io::Error::other)?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .and_then(|config| {
            config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key.into())
        })
        .map_err(io::Error::other)?;
    Ok(Arc::new(config))
}

async fn connection(socket: TcpStream, answers: &Answers, tls: Arc<ServerConfig>) -> io::Result<()> {
    let mut wire = Wire::new(socket);
    log_in(&mut wire, tls).await?;
    let mut walker = PacketWalker::new(32_767);
    let mut request = Request::new();
    let mut transaction = 0u64;
    loop {
        while let Some(piece) = walker.next(&wire.input).map_err(io::Error::other)? {
            if let Some(header) = piece.header
                && !request.begun
            {
                request.begin(header.kind, header.status);
            }
            request.look(&wire.input[piece.payload.clone()]);
            wire.input.advance(piece.consumed);
            if piece.end_of_message {
                answers
                    .send(&request.bytes, request.kind, request.reset, &mut transaction, &mut wire)
                    .await?;
                request.begun = false;
                request.bytes.clear();
            }
        }
        wire.input.clear();
        wire.receive().await?;
    }
}

/// The beginning of a request.
struct Request {
    begun: bool,
    kind: PacketType,
    reset: bool,
    bytes: Vec<u8>,
}

impl Request {
    fn new() -> Self {
        Self { begun: false, kind: PacketType::SQL_BATCH, reset: false, bytes: Vec::new() }
    }

    fn begin(&mut self, kind: PacketType, status: Status) {
        (self.begun, self.kind, self.reset) = (true, kind, status.asks_for_reset());
    }

    fn look(&mut self, payload: &[u8]) {
        let room = LOOKED_AT - self.bytes.len().min(LOOKED_AT);
        self.bytes.extend_from_slice(&payload[..payload.len().min(room)]);
    }
}

/// Lets everybody in.
async fn log_in(wire: &mut Wire, tls: Arc<ServerConfig>) -> io::Result<()> {
    let policy = AcceptPolicy {
        tls: ClientTlsPolicy::LoginOnly,
        strict: false,
        server_version: [16, 0, 0x10, 0, 0, 0],
        mars: false,
        max_login: 128 << 10,
    };
    let (mut accept, mut out) = (Accept::new(policy), BytesMut::new());
    loop {
        let (next, step) = accept.step(&mut wire.input, &mut out).map_err(io::Error::other)?;
        accept = next;
        wire.send(&out).await?;
        out.clear();
        match step {
            AcceptStep::NeedBytes => wire.receive().await?,
            AcceptStep::StartTls(framing) => {
                wire.accept_tls(Arc::clone(&tls), framing).await?;
                accept = accept.tls_established().map_err(io::Error::other)?;
            }
            AcceptStep::EndTls => wire.end_tls(),
            AcceptStep::Login(request) => {
                let ack = LoginAck {
                    interface: 1,
                    tds_version: TdsVersion::V7_4,
                    program_name: "Microsoft SQL Server".to_owned(),
                    program_version: [16, 0, 0x10, 0],
                };
                let database = request.login.database.clone();
                let mut response = LoginResponse::new(ack, database, "us_english");
                response.packet_size = Some(4096);
                response.collation = Some([0x09, 0x04, 0xD0, 0x00, 0x34]);
                response.build().replay(&mut out, 51, 4096, &[]);
                return wire.send(&out).await;
            }
        }
    }
}
