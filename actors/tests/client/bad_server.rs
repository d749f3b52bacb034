//! Servers that are none: one that answers with given bytes, and one that is real but may be interrupted.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What a bad server does once it has said its piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    Close,
    /// Stays connected and says nothing more.
    Hang,
    /// Says the last part again and again.
    Repeat,
}

/// Answers each read with the next of `says`, on every connection. Stops with the test's runtime.
pub async fn saying(says: Vec<Vec<u8>>, then: Then) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(say(socket, says.clone(), then));
        }
    });
    address
}

async fn say(mut socket: TcpStream, says: Vec<Vec<u8>>, then: Then) {
    let mut heard = vec![0; 4096];
    for piece in &says {
        if !matches!(socket.read(&mut heard).await, Ok(1..)) || socket.write_all(piece).await.is_err() {
            return;
        }
    }
    match (then, says.last()) {
        (Then::Repeat, Some(last)) => while socket.write_all(last).await.is_ok() {},
        (Then::Hang, _) => while let Ok(1..) = socket.read(&mut heard).await {},
        _ => {}
    }
}

/// Stands between the proxy and a server and lets everything pass, until it is told to say something itself.
pub struct Meddler {
    pub address: SocketAddr,
    now: Arc<Notify>,
}

impl Meddler {
    /// Will say `words` to the proxy, on the connection that waits for them.
    pub async fn before(server: SocketAddr, words: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let now = Arc::new(Notify::new());
        let told = Arc::clone(&now);
        tokio::spawn(async move {
            while let Ok((proxy, _)) = listener.accept().await {
                tokio::spawn(pass(proxy, server, words.clone(), Arc::clone(&told)));
            }
        });
        Self { address, now }
    }

    pub fn speak(&self) {
        self.now.notify_one();
    }
}

async fn pass(mut proxy: TcpStream, server: SocketAddr, words: Vec<u8>, now: Arc<Notify>) {
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    let (mut from_proxy, mut from_server) = (vec![0; 16384], vec![0; 16384]);
    loop {
        let passed = tokio::select! {
            read = proxy.read(&mut from_proxy) => match read {
                Ok(n @ 1..) => server.write_all(&from_proxy[..n]).await,
                _ => return,
            },
            read = server.read(&mut from_server) => match read {
                Ok(n @ 1..) => proxy.write_all(&from_server[..n]).await,
                _ => return,
            },
            () = now.notified() => proxy.write_all(&words).await,
        };
        if passed.is_err() {
            return;
        }
    }
}
