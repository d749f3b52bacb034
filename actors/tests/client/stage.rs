//! A stand-in server behind a proxy, for one test.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tdsbouncer_actors::Proxy;
use tdsbouncer_config::{Bucket, Config, Listener, Pattern, PoolMode};
use tdsbouncer_sim::{SimHandle, SimOptions, SimServer};

use super::{Client, Who};

pub struct Stage {
    pub server: SimHandle,
    pub proxy: Proxy,
    pub address: SocketAddr,
    _admin: tempfile::TempDir,
}

/// A number that no other test of this process has.
pub fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Stage {
    /// One bucket of `max_connections` that pools by session, everything else as usual.
    pub async fn with(max_connections: u32) -> Self {
        Self::set(max_connections, |_| {}, |_| {}).await
    }

    pub async fn set(
        max_connections: u32,
        bucket: impl FnOnce(&mut Bucket),
        config: impl FnOnce(&mut Config),
    ) -> Self {
        let options =
            SimOptions { databases: vec!["shop".to_owned(), "depot".to_owned()], ..SimOptions::default() };
        Self::on(SimServer::start(options).expect("the stand-in starts"), max_connections, bucket, config)
            .await
    }

    pub async fn on(
        server: SimHandle,
        max_connections: u32,
        set_bucket: impl FnOnce(&mut Bucket),
        set_config: impl FnOnce(&mut Config),
    ) -> Self {
        let mut bucket = Bucket::new("b1", "127.0.0.1", server.addr().port(), max_connections);
        bucket.databases = vec![Pattern::new("*")];
        bucket.default = true;
        bucket.pool_mode = PoolMode::Session;
        // Its requests would be counted, and meet the faults, of what a test is about; tests/self_test.rs has it on.
        bucket.self_test = false;
        set_bucket(&mut bucket);
        let mut config = Config::of(vec![Listener::new("main", 0)], vec![bucket]);
        let admin = tempfile::tempdir().expect("a folder for the admin socket");
        config.admin.socket = admin.path().join("admin.sock");
        config.auth.failed_login_delay = Duration::ZERO;
        set_config(&mut config);
        let proxy = Proxy::start(Arc::new(config), "test").await.expect("the proxy starts");
        let address = proxy.addresses()[0].1;
        Self { server, proxy, address, _admin: admin }
    }

    /// Where operators come in.
    pub fn admin_socket(&self) -> std::path::PathBuf {
        self._admin.path().join("admin.sock")
    }

    /// Waits, within reason, until `done`.
    pub async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let over = Instant::now() + Duration::from_secs(30);
        while !done(self) {
            assert!(Instant::now() < over, "{what}: {:?} {:?}", self.proxy.health(), self.server.stats());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until no session and no lease is left, and the server counts no more than what lies idle.
    pub async fn until_everybody_left(&self) {
        self.until("everybody leaves", |stage| {
            let health = stage.proxy.health();
            let bucket = &health.buckets[0];
            let settled = bucket.used as usize == bucket.idle && stage.server.stats().open == bucket.idle;
            health.clients == 0 && bucket.leased == 0 && bucket.waiting == 0 && settled
        })
        .await;
    }

    /// After whatever went wrong: nothing is left of it, and the next client is served.
    pub async fn is_well(&self) {
        self.until_everybody_left().await;
        let mut next = Client::connect(self.address, &Who::default()).await;
        assert_eq!(next.batch("SELECT 42").await.number(), 42);
        drop(next);
        self.until_everybody_left().await;
    }
}
