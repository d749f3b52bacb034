//! A soak of attentions at random moments: while a request waits for a server connection, is sent, runs, streams, has just
//! ended, in transactions, and when nothing runs. Nobody reads another's bytes, everything is acknowledged once, no
//! connection is stuck.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod client;

use std::net::SocketAddr;
use std::time::Duration;

use client::stage::Stage;
use client::{Client, Response, Who};
use tdsbouncer_config::PoolMode;

const CLIENTS: usize = 16;
const CONNECTIONS: u32 = 3;

/// Requests of each client.
const REQUESTS: usize = 80;

/// Choices that differ between clients and are the same in every run.
struct Choices(u64);

impl Choices {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// A client that knows its own rows.
struct Marked {
    address: SocketAddr,
    marker: String,
    date_first: u64,
    client: Client,
    choices: Choices,
    sent: u64,
}

impl Marked {
    async fn new(address: SocketAddr, number: usize) -> Self {
        Self {
            address,
            marker: format!("client {number} "),
            date_first: 1 + number as u64 % 7,
            client: Client::connect(address, &Who::application(&format!("attentions {number}"))).await,
            choices: Choices(number as u64 + 1),
            sent: 0,
        }
    }

    #[track_caller]
    fn own(&self, response: &Response) {
        for row in &response.rows {
            let text = row[0].as_str().unwrap_or("");
            assert!(text.starts_with(&self.marker), "{} reads {row:?}", self.marker);
        }
        let expected = [3902, 3903];
        let others = response.errors.iter().find(|error| !expected.contains(&error.number));
        assert!(others.is_none(), "{}: {others:?}", self.marker);
    }

    /// Something that takes as long as it likes.
    fn request(&mut self) -> String {
        let marker = &self.marker;
        match self.choices.below(6) {
            0 => "WAITFOR DELAY '00:05:00'".to_owned(),
            1 => format!("SELECT N'{marker}' + payload FROM dbo.generate_rows(400000, 60)"),
            2 => format!("SELECT N'{marker}' + payload FROM dbo.generate_rows(200, 60)"),
            3 => {
                format!("BEGIN TRANSACTION; SELECT N'{marker}' + payload FROM dbo.generate_rows(100000, 20)")
            }
            _ => format!("SELECT N'{marker}'"),
        }
    }

    async fn stop(&mut self) {
        let text = self.request();
        self.client.send_batch(&text).await.unwrap();
        let wait = [0, 0, 50, 300, 1000, 4000, 15_000][self.choices.below(7) as usize];
        if wait > 0 {
            tokio::time::sleep(Duration::from_micros(wait)).await;
        }
        self.client.attention().await.unwrap();
        self.read_acknowledgement().await;
    }

    async fn read_acknowledgement(&mut self) {
        loop {
            let response = self.client.response().await.unwrap();
            self.own(&response);
            if response.is_attention() {
                return;
            }
        }
    }

    /// A request whose answer nobody else can get, and nothing but its answer.
    async fn check(&mut self) {
        self.sent += 1;
        let wanted = format!("{}{}", self.marker, self.sent);
        let answer = self.client.batch(&format!("SELECT N'{wanted}', @@DATEFIRST")).await;
        assert!(answer.errors.is_empty() && !answer.is_attention(), "{wanted}: {answer:?}");
        assert_eq!(answer.rows[0][0].as_str(), Some(&*wanted));
        assert_eq!(answer.rows[0][1].as_i64(), Some(self.date_first as i64), "{wanted}");
    }

    async fn settle(&mut self) {
        let answer = self.client.batch("IF @@TRANCOUNT > 0 ROLLBACK").await;
        assert!(answer.errors.is_empty() && !answer.is_attention(), "{answer:?}");
    }

    async fn begin(&mut self) {
        self.client.batch(&format!("SET DATEFIRST {}", self.date_first)).await;
    }

    async fn live(mut self) {
        self.begin().await;
        for _ in 0..REQUESTS {
            match self.choices.below(12) {
                0 => {
                    self.client.attention().await.unwrap();
                    self.read_acknowledgement().await;
                }
                1 => {
                    // Leaves in the middle, so that others have their turn.
                    let text = self.request();
                    self.client.send_batch(&text).await.unwrap();
                    self.client = Client::connect(self.address, &Who::default()).await;
                    self.begin().await;
                }
                2..4 => {
                    self.client = Client::connect(self.address, &Who::default()).await;
                    self.begin().await;
                }
                _ => self.stop().await,
            }
            self.settle().await;
            self.check().await;
        }
    }
}

async fn soak(mode: PoolMode) {
    let patient = |bucket: &mut tdsbouncer_config::Bucket| {
        bucket.pool_mode = mode;
        bucket.acquire_timeout = Duration::from_secs(120);
    };
    let stage = Stage::set(CONNECTIONS, patient, |_| {}).await;
    let address = stage.address;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::spawn(async move { Marked::new(address, number).await.live().await }))
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    stage.until_everybody_left().await;
    assert!(stage.server.stats().attentions > 0);
    assert!(stage.server.stats().peak <= CONNECTIONS as usize);
    stage.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attentions_at_random_moments_reach_nobody_else_in_transaction_pooling() {
    soak(PoolMode::Transaction).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attentions_at_random_moments_reach_nobody_else_in_session_pooling() {
    soak(PoolMode::Session).await;
}
