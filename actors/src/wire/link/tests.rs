//! Links against each other over pipes and loopback TCP.

use std::sync::Arc;
use std::time::Duration;

use tds::handshake::TlsFraming::{self, Raw, Wrapped};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::super::pair::{memory, roles, roles_of, start_tls, tcp, trusting};
use super::super::{TlsRole, client_config};
use super::*;

/// Long enough for loopback, short enough for a test.
const SOON: Duration = Duration::from_secs(10);

async fn fill_exactly(link: &mut Link, wanted: usize) -> BytesMut {
    while link.input.len() < wanted {
        assert_ne!(link.fill(16 * 1024).await.unwrap(), 0, "ended early");
    }
    link.input.split_to(wanted)
}

async fn send(link: &mut Link, bytes: &[u8]) {
    let mut bytes = BytesMut::from(bytes);
    link.write_from(&mut bytes).await.unwrap();
    assert!(bytes.is_empty());
}

/// Waits until what the other end sent or closed has reached this end's kernel.
async fn arrive(link: &mut Link) {
    timeout(SOON, link.readable()).await.unwrap();
}

#[tokio::test]
async fn plaintext_passes_both_ways_and_ends() {
    let (mut server, mut client) = tcp().await;
    send(&mut client, b"select 1").await;
    assert_eq!(fill_exactly(&mut server, 8).await, "select 1");
    server.queue(b"o");
    server.queue(b"ne");
    server.flush().await.unwrap();
    assert_eq!(fill_exactly(&mut client, 3).await, "one");
    drop(client);
    assert_eq!(server.fill(100).await.unwrap(), 0);
    assert_eq!(server.fill(100).await.unwrap(), 0, "the end stays the end");
}

#[tokio::test]
async fn a_fill_reads_no_more_than_its_limit_and_gets_room_by_itself() {
    let (mut server, mut client) = memory(1 << 20);
    send(&mut client, &[5; 10_000]).await;
    assert_eq!(server.fill(4096).await.unwrap(), 4096);
    assert_eq!(server.fill(0).await.unwrap(), 1, "a limit of nothing is not the end");
    server.input.advance(4000);
    let mut total = 97;
    while total < 6000 {
        total += server.fill(4096).await.unwrap();
    }
    assert!(server.input.capacity() <= 3 * 4096);
}

#[tokio::test]
async fn a_dropped_fill_and_a_dropped_write_lose_nothing() {
    for tls in [false, true] {
        let (mut server, mut client) = memory(700);
        if tls {
            start_tls(&mut server, &mut client, Wrapped).await;
        }
        let sent: Vec<u8> = (0..50_000u32).map(|n| (n * 7 % 251) as u8).collect();
        let mut from = BytesMut::from(&sent[..]);
        let mut got = Vec::new();
        while got.len() < sent.len() {
            // Poll each future once, then drop it.
            tokio::select! { biased; written = client.write_from(&mut from) => written.unwrap(), () = async {} => {} }
            tokio::select! { biased; read = server.fill(333) => { read.unwrap(); }, () = async {} => {} }
            got.extend_from_slice(&server.input.split());
        }
        assert!(got == sent);
        client.flush().await.unwrap();
    }
}

#[tokio::test]
async fn an_idle_link_holds_no_buffers() {
    for tls in [None, Some(Wrapped), Some(Raw)] {
        let (mut server, mut client) = tcp().await;
        if let Some(framing) = tls {
            start_tls(&mut server, &mut client, framing).await;
        }
        send(&mut client, &[1; 50_000]).await;
        fill_exactly(&mut server, 50_000).await;
        send(&mut server, &[1; 50_000]).await;
        server.shrink();
        assert!(server.memory_bytes() < if tls.is_some() { 4800 } else { 200 }, "{}", server.memory_bytes());
        assert!(timeout(Duration::from_millis(20), server.readable()).await.is_err());
        fill_exactly(&mut client, 50_000).await;
        send(&mut client, b"next").await;
        arrive(&mut server).await;
        assert_eq!(server.input.capacity(), 0);
        assert_eq!(fill_exactly(&mut server, 4).await, "next");
    }
}

#[tokio::test]
async fn readable_returns_at_once_when_bytes_wait_undecrypted() {
    let (mut server, mut client) = tcp().await;
    start_tls(&mut server, &mut client, Wrapped).await;
    send(&mut client, &[1; 40_000]).await;
    fill_exactly(&mut server, 1).await;
    while !server.tls.as_ref().unwrap().has_input() {
        server.input.clear();
        server.fill(1).await.unwrap();
    }
    server.input.clear();
    arrive(&mut server).await;
}

/// A relay at rest asks again after every fill that came to nothing: with a part of a record it spun for ever.
#[tokio::test]
async fn a_part_of_a_record_is_nothing_to_read_yet() {
    let (mut server, mut client) = tcp().await;
    start_tls(&mut server, &mut client, Wrapped).await;
    client.tls.as_mut().unwrap().encrypt(b"request", &mut client.output).unwrap();
    let mut record = client.output.split();
    client.end_tls();
    let mut rest = record.split_off(9);
    client.write_from(&mut record).await.unwrap();
    arrive(&mut server).await;
    assert!(poll_fn(|cx| Poll::Ready(server.poll_fill(cx, 1024))).await.is_pending());
    assert!(timeout(Duration::from_millis(50), server.readable()).await.is_err(), "half a record");
    client.write_from(&mut rest).await.unwrap();
    arrive(&mut server).await;
    assert_eq!(fill_exactly(&mut server, 7).await, "request");
}

#[tokio::test]
async fn bulk_passes_tls_both_ways_and_a_slow_reader_bounds_what_waits() {
    for framing in [Wrapped, Raw] {
        let (mut server, mut client) = tcp().await;
        start_tls(&mut server, &mut client, framing).await;
        let (up, down) = (8 << 20, 4 << 20);
        let receive = async {
            let mut got = 0;
            while got < up {
                got += server.fill(32 * 1024).await.unwrap();
                assert!(server.memory_bytes() < 192 * 1024, "{}", server.memory_bytes());
                assert!(server.input.iter().all(|byte| *byte == 9));
                server.input.clear();
                tokio::task::yield_now().await;
            }
            let mut from = BytesMut::zeroed(down);
            server.write_from(&mut from).await.unwrap();
            server
        };
        let send = async {
            let mut from = BytesMut::from(&vec![9; up][..]);
            std::future::poll_fn(|cx| {
                let sent = client.poll_write_from(cx, &mut from);
                assert!(client.memory_bytes() < 192 * 1024, "{}", client.memory_bytes());
                sent
            })
            .await
            .unwrap();
            fill_exactly(&mut client, down).await
        };
        let (_server, got) = tokio::join!(receive, send);
        assert_eq!(got.len(), down);
    }
}

#[tokio::test]
async fn login_only_tls_ends_and_plaintext_that_follows_at_once_is_kept() {
    let (mut server, mut client) = tcp().await;
    // The PRELOGIN answers, before TLS, may still wait in the links.
    server.queue(b"before");
    let (accept, connect) = roles(Wrapped);
    let shake = async { server.start_tls(accept, Wrapped).await.unwrap() };
    let follow = async {
        fill_exactly(&mut client, 6).await;
        client.start_tls(connect, Wrapped).await.unwrap();
        client.queue(&[0x10; 50_000]);
        client.end_tls();
        client.queue(b"\x01plain");
        client.flush().await.unwrap();
    };
    tokio::join!(shake, follow);
    assert!(server.is_tls());
    assert_eq!(fill_exactly(&mut server, 50_000).await, &[0x10; 50_000][..]);
    server.end_tls();
    assert!(!server.is_tls());
    assert_eq!(fill_exactly(&mut server, 6).await, "\x01plain");
    send(&mut server, b"welcome").await;
    assert_eq!(fill_exactly(&mut client, 7).await, "welcome");
}

#[tokio::test]
async fn strict_bytes_peeked_before_tls_are_its_first_ciphertext() {
    let (mut server, mut client) = tcp().await;
    let (accept, connect) = roles(Raw);
    let accept = async {
        server.fill(3).await.unwrap();
        assert_eq!(server.input[0], 0x16);
        server.start_tls(accept, Raw).await.unwrap();
    };
    let ((), connected) = tokio::join!(accept, client.start_tls(connect, Raw));
    connected.unwrap();
    assert_eq!(server.alpn(), Some(&b"tds/8.0"[..]));
    assert!(server.input.is_empty());
}

#[tokio::test]
async fn a_handshake_that_was_dropped_goes_on_where_it_was() {
    for framing in [Wrapped, Raw] {
        let (mut server, mut client) = memory(50);
        let (mut done, mut rounds) = ((false, false), 0);
        while done != (true, true) {
            let (accept, connect) = roles(framing);
            tokio::select! { biased; r = server.start_tls(accept, framing), if !done.0 => { r.unwrap(); done.0 = true; }, () = async {} => {} }
            tokio::select! { biased; r = client.start_tls(connect, framing), if !done.1 => { r.unwrap(); done.1 = true; }, () = async {} => {} }
            rounds += 1;
        }
        assert!(rounds > 5);
        send(&mut client, b"hello").await;
        assert_eq!(fill_exactly(&mut server, 5).await, "hello");
    }
}

#[tokio::test]
async fn a_peer_that_leaves_during_the_handshake_is_an_error() {
    let (mut server, client) = tcp().await;
    drop(client);
    let error = server.start_tls(roles(Wrapped).0, Wrapped).await.unwrap_err();
    assert!(matches!(error, TlsError::Closed), "{error}");
}

#[tokio::test]
async fn the_end_is_seen_with_and_without_close_notify() {
    for framing in [Wrapped, Raw] {
        for polite in [false, true] {
            let (mut server, mut client) = tcp().await;
            start_tls(&mut server, &mut client, framing).await;
            send(&mut client, b"bye").await;
            let leave = async { if polite { client.close_gracefully(SOON).await } else { drop(client) } };
            let see = async {
                assert_eq!(fill_exactly(&mut server, 3).await, "bye");
                assert_eq!(server.fill(100).await.unwrap(), 0);
                assert_eq!(server.fill(100).await.unwrap(), 0);
                drop(server);
            };
            tokio::join!(leave, see);
        }
    }
}

#[tokio::test]
async fn an_idle_check_tells_quiet_closed_and_unexpected() {
    for tls in [None, Some(Wrapped), Some(Raw)] {
        let pair = || async move {
            let (mut server, mut client) = tcp().await;
            if let Some(framing) = tls {
                start_tls(&mut server, &mut client, framing).await;
            }
            (server, client)
        };
        let (mut server, mut client) = pair().await;
        assert_eq!(server.check_idle(), IdleCheck::Quiet);
        send(&mut client, b"?").await;
        arrive(&mut server).await;
        assert_eq!(server.check_idle(), IdleCheck::UnexpectedBytes);
        assert_eq!(server.input, "?", "what was found is kept");
        assert_eq!(server.check_idle(), IdleCheck::UnexpectedBytes);

        let (mut server, client) = pair().await;
        drop(client);
        arrive(&mut server).await;
        assert_eq!(server.check_idle(), IdleCheck::Closed);
        assert_eq!(server.check_idle(), IdleCheck::Closed);

        let (mut server, client) = pair().await;
        client.socket.reset();
        arrive(&mut server).await;
        assert_eq!(server.check_idle(), IdleCheck::Closed);
    }
}

#[tokio::test]
async fn an_idle_check_finds_close_notify_broken_tls_and_half_a_record() {
    for (sent, found) in [
        (&[0x17, 3, 3, 0, 40][..], IdleCheck::UnexpectedBytes),
        (b"\x04\x01\x00\x08\x00\x00\x00\x00", IdleCheck::Closed),
    ] {
        let (mut server, mut client) = tcp().await;
        start_tls(&mut server, &mut client, Wrapped).await;
        client.end_tls();
        send(&mut client, sent).await;
        arrive(&mut server).await;
        assert_eq!(server.check_idle(), found);
    }
    let (mut server, mut client) = tcp().await;
    start_tls(&mut server, &mut client, Raw).await;
    client.tls.as_mut().unwrap().close_notify(&mut client.output);
    client.flush().await.unwrap();
    arrive(&mut server).await;
    assert_eq!(server.check_idle(), IdleCheck::Closed);
}

#[tokio::test]
async fn session_tickets_are_quiet() {
    let TlsRole::Server(config) = roles(Raw).0 else { panic!() };
    let mut config = (*config).clone();
    config.send_tls13_tickets = 4;
    config.session_storage = rustls::server::ServerSessionMemoryCache::new(8);
    let (accept, connect) = roles_of(Arc::new(config), client_config(&trusting(Raw)).unwrap());
    let (mut server, mut client) = tcp().await;
    let (accepted, connected) = tokio::join!(server.start_tls(accept, Raw), client.start_tls(connect, Raw));
    accepted.unwrap();
    connected.unwrap();
    arrive(&mut client).await;
    assert_eq!(client.check_idle(), IdleCheck::Quiet);
    assert!(!client.tls.as_ref().unwrap().has_input());
    send(&mut server, b"row").await;
    assert_eq!(fill_exactly(&mut client, 3).await, "row");
}

#[tokio::test]
async fn a_graceful_close_delivers_the_last_answer_although_bytes_are_unread() {
    let (mut server, mut client) = tcp().await;
    send(&mut client, &[3; 100_000]).await;
    server.queue(b"too many clients");
    let read = async move {
        let mut answer = BytesMut::new();
        while client.fill(100).await.unwrap() > 0 {
            answer.unsplit(client.input.split());
        }
        // The client goes here, and the other end sees it.
        answer
    };
    let (answer, ()) = tokio::join!(read, server.close_gracefully(SOON));
    assert_eq!(answer, "too many clients");
}

#[tokio::test]
async fn a_peer_that_does_not_leave_is_reset() {
    let (server, client) = tcp().await;
    let Socket::Tcp(mut client) = client.socket else { panic!() };
    server.close_gracefully(Duration::from_millis(20)).await;
    assert_eq!(client.read(&mut [0; 10]).await.unwrap(), 0);
    // The end was there; what follows it is the reset.
    let mut written = Ok(0);
    for _ in 0..100 {
        written = client.write(b"still here").await;
        if written.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(written.is_err());
}

#[tokio::test]
async fn a_peer_that_talks_on_without_end_is_reset() {
    let (server, mut client) = tcp().await;
    let talk = async {
        let mut sent = 0usize;
        loop {
            let mut bytes = BytesMut::zeroed(64 * 1024);
            if client.write_from(&mut bytes).await.is_err() {
                return sent;
            }
            sent += 64 * 1024;
        }
    };
    let (sent, ()) = tokio::join!(talk, server.close_gracefully(SOON));
    // What the kernel's buffers took comes on top.
    assert!((MAX_DRAIN..64 << 20).contains(&sent), "{sent}");
}

#[tokio::test(start_paused = true)]
async fn a_write_to_a_peer_that_does_not_read_waits_and_keeps_its_place() {
    let (mut server, mut client) = memory(1000);
    let mut from = BytesMut::zeroed(3000);
    assert!(timeout(SOON, client.write_from(&mut from)).await.is_err());
    assert_eq!(from.len(), 2000);
    let (written, got) = tokio::join!(client.write_from(&mut from), fill_exactly(&mut server, 3000));
    written.unwrap();
    assert_eq!(got.len(), 3000);
}

/// What a dialer is told when it does not believe the server.
async fn refusal(
    server: Arc<rustls::ServerConfig>,
    client: Arc<rustls::ClientConfig>,
    framing: TlsFraming,
) -> String {
    let (mut one, mut other) = tcp().await;
    let (accept, connect) = roles_of(server, client);
    let (accepted, connected) =
        tokio::join!(one.start_tls(accept, framing), other.start_tls(connect, framing));
    assert!(matches!(accepted.unwrap_err(), TlsError::Refused(_)), "the server is told too");
    connected.unwrap_err().to_string()
}

mod belief;
