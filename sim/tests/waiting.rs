//! Requests that wait (WAITFOR, locks, slow readers) hold up nobody else.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is a failed test")]

mod raw_client;

use std::thread;
use std::time::{Duration, Instant};

use raw_client::{Client, Dial, Token, login, rows};
use tds::handshake::ServerTls;
use tds::packet::Status;
use tdsbouncer_sim::{SimHandle, SimOptions, SimServer};

fn server() -> SimHandle {
    let options = SimOptions { databases: vec!["shop".into()], worker_threads: 2, ..SimOptions::default() };
    SimServer::start(options).unwrap()
}

fn connect(server: &SimHandle) -> Client {
    let login = tds::login7::Login7 { database: "shop".into(), ..login("Sim-passw0rd") };
    let dial = Dial { tls: ServerTls::Never, login, pem: String::new(), without_prelogin: false };
    Client::dial(server.addr(), &dial).unwrap()
}

#[test]
fn clients_that_break_off_a_wait_at_the_same_moment_are_all_answered() {
    let server = server();
    let mut clients: Vec<Client> = (0..8).map(|_| connect(&server)).collect();
    let mut worst = Duration::ZERO;
    for round in 0..200u64 {
        for client in &mut clients {
            client.send_batch("WAITFOR DELAY '00:01:00'", Status::NORMAL);
        }
        thread::sleep(Duration::from_micros(round * 137 % 5000));
        let began = Instant::now();
        for client in &mut clients {
            client.attention();
        }
        for client in &mut clients {
            client.receive();
            client.receive();
            worst = worst.max(began.elapsed());
        }
    }
    eprintln!("worst {worst:?}");
    assert!(worst < Duration::from_secs(5), "{worst:?}");
}

#[test]
fn writers_that_wait_for_a_lock_hold_up_no_reader() {
    let server = server();
    let mut owner = connect(&server);
    owner.batch("CREATE TABLE t (n int)");
    owner.batch("BEGIN TRANSACTION; INSERT t VALUES (0)");
    let mut writers: Vec<Client> = (0..8).map(|_| connect(&server)).collect();
    for (n, writer) in writers.iter_mut().enumerate() {
        writer.send_batch(&format!("INSERT t VALUES ({})", n + 1), Status::NORMAL);
    }
    let mut worst = Duration::ZERO;
    let mut reader = connect(&server);
    for _ in 0..500 {
        let began = Instant::now();
        assert_eq!(rows(&reader.batch("SELECT 1")).len(), 1);
        worst = worst.max(began.elapsed());
    }
    eprintln!("worst {worst:?}");
    owner.batch("COMMIT");
    for writer in &mut writers {
        assert!(matches!(writer.receive().last(), Some(Token::Done(_))));
    }
    assert_eq!(rows(&reader.batch("SELECT COUNT(*) FROM t"))[0][0].as_i64(), Some(9));
    assert!(worst < Duration::from_secs(5), "{worst:?}");
}
