//! Sessions with MARS: their frames are relayed as they are, on a server connection of their own.
//!
//! The stand-in does not do MARS, so the server here is a few lines that log a client in and send back whatever
//! comes: enough to see that every byte arrives, in both directions, and that nothing is shared.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod client;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use client::Who;
use client::stage::Stage;
use tds::encryption::{ClientTlsPolicy, ServerTls};
use tds::handshake::{Accept, AcceptPolicy, AcceptStep, Connect, ConnectPolicy, ConnectStep};
use tds::login_response::{LoginAck, LoginResponse};
use tdsbouncer_config::{Bucket, Config, Listener};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// An SMP SYN and a DATA frame with 32 KiB ([MC-SMP] 2.2.1): 0x53, flags, session, length, sequence, window.
fn frames() -> Vec<u8> {
    let mut bytes = vec![0x53, 0x01, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0];
    let length = 16 + 32 * 1024u32;
    bytes.extend([0x53, 0x08, 0, 0]);
    bytes.extend(length.to_le_bytes());
    bytes.extend([1, 0, 0, 0, 4, 0, 0, 0]);
    bytes.extend((0..32 * 1024u32).map(|n| u8::try_from(n % 251).unwrap()));
    bytes
}

/// A server that does MARS (or not) and echoes.
async fn echo_server(mars: bool) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, open) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&open);
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                counted.fetch_add(1, Ordering::SeqCst);
                // However the connection ends: it is over.
                drop(serve(socket, mars).await);
                counted.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    (address, open)
}

async fn serve(mut socket: TcpStream, mars: bool) -> std::io::Result<()> {
    let policy = AcceptPolicy {
        tls: ClientTlsPolicy::Off,
        strict: false,
        server_version: [16, 0, 0, 0, 0, 0],
        mars,
        max_login: 64 * 1024,
    };
    let (mut accept, mut input, mut out) = (Accept::new(policy), BytesMut::new(), BytesMut::new());
    let login = loop {
        let (next, step) = accept.step(&mut input, &mut out).map_err(std::io::Error::other)?;
        accept = next;
        socket.write_all(&out).await?;
        out.clear();
        match step {
            AcceptStep::NeedBytes => {
                if socket.read_buf(&mut input).await? == 0 {
                    return Ok(());
                }
            }
            AcceptStep::Login(login) => break login,
            step => panic!("unexpected {step:?}"),
        }
    };
    let ack = LoginAck {
        interface: 1,
        tds_version: login.login.tds_version,
        program_name: "Echo".to_owned(),
        program_version: [16, 0, 0, 0],
    };
    LoginResponse::new(ack, "shop", "us_english").build().replay(&mut out, 51, 4096, &[]);
    socket.write_all(&out).await?;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match socket.read(&mut buffer).await? {
            0 => return Ok(()),
            n => socket.write_all(&buffer[..n]).await?,
        }
    }
}

async fn proxy_of(server: SocketAddr) -> (tdsbouncer_actors::Proxy, SocketAddr, tempfile::TempDir) {
    let mut bucket = Bucket::new("b1", "127.0.0.1", server.port(), 2);
    bucket.default = true;
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::of(vec![Listener::new("main", 0)], vec![bucket]);
    config.admin.socket = folder.path().join("admin.sock");
    let proxy = tdsbouncer_actors::Proxy::start(Arc::new(config), "test").await.unwrap();
    let address = proxy.addresses()[0].1;
    (proxy, address, folder)
}

/// Logs in with MARS as far as the first answer.
async fn open(address: SocketAddr) -> (TcpStream, bool, tds::message::Message) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let policy = ConnectPolicy { tls: ServerTls::Never, mars: true, ..ConnectPolicy::default() };
    let mut connect = Connect::new(policy, &Who::default().login());
    let (mut input, mut out) = (BytesMut::new(), BytesMut::new());
    loop {
        let (next, step) = connect.step(&mut input, &mut out).unwrap();
        connect = next;
        socket.write_all(&out).await.unwrap();
        out.clear();
        match step {
            ConnectStep::NeedBytes => assert_ne!(socket.read_buf(&mut input).await.unwrap(), 0, "closed"),
            ConnectStep::Response { message, mars, .. } => return (socket, mars, message),
            step => panic!("unexpected {step:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_pass_untouched_and_the_connection_is_never_shared() {
    let (server, open_there) = echo_server(true).await;
    let (proxy, address, _folder) = proxy_of(server).await;
    for _ in 0..2 {
        let (mut socket, mars, _) = open(address).await;
        assert!(mars, "both sides agreed");
        let sent = frames();
        let mut heard = vec![0; sent.len()];
        // A pause in between: a session that rests must wake up for either side.
        for pause in [0, 1100] {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            socket.write_all(&sent).await.unwrap();
            tokio::time::timeout(Duration::from_secs(20), socket.read_exact(&mut heard))
                .await
                .unwrap()
                .unwrap();
            assert_eq!(heard, sent);
        }
        assert_eq!((open_there.load(Ordering::SeqCst), proxy.health().buckets[0].leased), (1, 1));
        drop(socket);
        let over = std::time::Instant::now() + Duration::from_secs(20);
        while proxy.health().buckets[0].used > 0 || open_there.load(Ordering::SeqCst) > 0 {
            assert!(std::time::Instant::now() < over, "{:?}", proxy.health());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_mars_is_said_so() {
    let stage = Stage::with(1).await;
    let (_socket, _, answer) = open(stage.address).await;
    let outcome = tds::login_response::read(&answer.payload, tds::TdsVersion::V7_4).unwrap();
    let tds::login_response::LoginOutcome::Refused(errors) = outcome else { panic!("{outcome:?}") };
    assert_eq!(errors[0].number, 40613);
    assert!(errors[0].text.contains("does not do MARS"), "{}", errors[0].text);
    stage.until_everybody_left().await;
}
