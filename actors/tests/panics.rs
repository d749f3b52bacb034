//! A panic whose text quotes a client is told, but not the quote: neither in the log nor to an operator.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod client;

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use client::stage::Stage;
use client::{Client, Who};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_told_without_what_it_quotes_of_a_client() {
    let written = Written::default();
    let writer = written.clone();
    let log = tracing_subscriber::fmt().with_ansi(false).with_max_level(tracing::Level::DEBUG);
    log.with_writer(move || writer.clone()).init();
    tdsbouncer_actors::log_panics_without_values();
    let stage = Stage::with(2).await;
    let mut client = Client::connect(stage.address, &Who::application("crash:sent,hunter2")).await;
    let response = client.batch("SELECT 1 /* hunter2 */").await;
    let mut operator = BufReader::new(UnixStream::connect(stage.admin_socket()).await.unwrap());
    operator.write_all(b"{\"show\":\"crashes\"}\n").await.unwrap();
    let mut shown = String::new();
    operator.read_line(&mut shown).await.unwrap();
    // What fails from here on is a test.
    drop(std::panic::take_hook());
    assert_eq!(response.error(), 50001);
    let log = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    let told = "its text may hold a client's values at actors/src/crash_test.rs:";
    assert!(log.contains(&format!("panicked: {told}")), "{log}");
    assert!(log.contains("session crashed") && shown.contains(told), "{shown}\n{log}");
    for secret in ["hunter2", "Sim-passw0rd"] {
        assert!(!log.contains(secret) && !shown.contains(secret), "{secret}: {shown}\n{log}");
    }
}
