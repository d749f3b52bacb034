//! A TCP relay that can be cut, or stall in one direction or both, as a network does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Default)]
struct State {
    stalls_up: AtomicBool,
    stalls_down: AtomicBool,
    refuses: AtomicBool,
}

pub struct Relay {
    pub address: SocketAddr,
    state: Arc<State>,
    cut: watch::Sender<u64>,
}

impl Relay {
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::<State>::default();
        let cut = watch::Sender::new(0);
        let (shared, cuts) = (Arc::clone(&state), cut.clone());
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if shared.refuses.load(Ordering::Relaxed) {
                    continue;
                }
                let (state, mut cuts) = (Arc::clone(&shared), cuts.subscribe());
                tokio::spawn(async move {
                    let Ok(far) = TcpStream::connect(target).await else { return };
                    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                    tokio::select! {
                        () = pump(near_in, far_out, &state.stalls_up) => {}
                        () = pump(far_in, near_out, &state.stalls_down) => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        });
        Self { address, state, cut }
    }

    /// Nothing arrives any more in these directions; nobody is told.
    pub fn stall(&self, up: bool, down: bool) {
        self.state.stalls_up.store(up, Ordering::Relaxed);
        self.state.stalls_down.store(down, Ordering::Relaxed);
    }

    /// All connections break, and no new ones are made.
    pub fn cut(&self) {
        self.state.refuses.store(true, Ordering::Relaxed);
        self.cut.send_modify(|cuts| *cuts += 1);
    }

    pub fn heal(&self) {
        self.stall(false, false);
        self.state.refuses.store(false, Ordering::Relaxed);
    }
}

async fn pump(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, stalls: &AtomicBool) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        while stalls.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}
