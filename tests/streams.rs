//! Large results and large parameters pass through one session in bounded memory, intact.
//!
//! A parameter of 100 MB and a result of 1 GB. An unoptimized stand-in takes its time for that, so in debug builds the
//! result has 200 MB, unless `STREAM_MB` says another number.

#![cfg(target_os = "linux")]

#[path = "../actors/tests/client/mod.rs"]
mod client;
mod process;

use std::hash::{DefaultHasher, Hasher};
use std::net::SocketAddr;

use bytes::{Buf, BytesMut};
use client::{Client, Who};
use process::Processes;
use tds::packet::{PacketType, PacketWalker};
use tds::rpc::{Parameter, ProcId, Procedure, RpcRequest};
use tds::type_info::{self, TypeInfo};
use tds::value::Value;
use tokio::io::AsyncReadExt;

/// What a session may need beside its sockets, in bytes.
const BOUND: usize = 1 << 20;

/// A row of `generate_rows(n, 4000)`: characters of one byte, of two, and binary.
const ROW: usize = 4 * 4000;

/// The result, in bytes.
fn result_size() -> usize {
    let said = std::env::var("STREAM_MB").ok().map(|text| text.parse().expect("STREAM_MB is a number"));
    1_000_000 * said.unwrap_or(if cfg!(debug_assertions) { 200 } else { 1000 })
}

/// Asks for rows of about so many bytes and returns what came: how much, and its hash without packet headers.
async fn fetch(address: SocketAddr, bytes: usize) -> (usize, u64) {
    let mut client = Client::connect(address, &Who::default()).await;
    let batch = format!("SELECT * FROM dbo.generate_rows({}, 4000)", bytes / ROW);
    client.send_batch(&batch).await.expect("it is sent");
    let (mut walker, mut input) = (PacketWalker::new(32_767), BytesMut::with_capacity(64 * 1024));
    let (mut length, mut hash) = (0, DefaultHasher::new());
    loop {
        assert!(
            client.socket.read_buf(&mut input).await.expect("it lasts") > 0,
            "ended after {length} bytes"
        );
        while let Some(piece) = walker.next(&input).expect("packets") {
            length += piece.payload.len();
            hash.write(&input[piece.payload.clone()]);
            input.advance(piece.consumed);
            if piece.end_of_message {
                return (length, hash.finish());
            }
        }
        input.clear();
        input.reserve(64 * 1024);
    }
}

#[tokio::test]
async fn a_large_result_passes_intact_in_bounded_memory() {
    let processes = Processes::start("");
    let wanted = result_size();
    // Once before, so that what is measured is this session and not the program's first steps.
    fetch(processes.proxy, 10_000_000).await;
    let before = processes.memory();
    processes.forget_peak();
    let through = fetch(processes.proxy, wanted).await;
    let grown = processes.peak().saturating_sub(before);
    println!("a result of {} MB: the proxy grew by {} KiB", through.0 / 1_000_000, grown / 1024);
    assert!(through.0 >= wanted / 10 * 9);
    assert_eq!(through, fetch(processes.server, wanted).await, "the same as without the proxy");
    assert!(grown < BOUND, "{grown} bytes");
}

#[tokio::test]
async fn a_large_parameter_passes_intact_in_bounded_memory() {
    let processes = Processes::start("");
    let wanted = 100_000_000;
    echo(processes.proxy, 1_000_000).await;
    let before = processes.memory();
    processes.forget_peak();
    echo(processes.proxy, wanted).await;
    let grown = processes.peak().saturating_sub(before);
    println!("a parameter of {} MB: the proxy grew by {} KiB", wanted / 1_000_000, grown / 1024);
    assert!(grown < BOUND, "{grown} bytes");
}

/// Sends a parameter of so many bytes and wants it back.
async fn echo(address: SocketAddr, bytes: usize) {
    let sent: Vec<u8> = (0..bytes).map(|at| (at / 251 + at) as u8).collect();
    let text = |text: &str| {
        let type_info = TypeInfo::nvarchar(type_info::MAX, type_info::Collation::LATIN1);
        Parameter::new("", type_info, Value::String(text.to_owned()))
    };
    let value = Parameter::new("@p", TypeInfo::varbinary(type_info::MAX), Value::Bytes(sent.clone()));
    let parameters = vec![text("SELECT @p AS p"), text("@p varbinary(max)"), value];
    let mut client = Client::connect(address, &Who::default()).await;
    let mut payload = BytesMut::new();
    let request = RpcRequest::one(Procedure::Id(ProcId::EXECUTE_SQL), parameters);
    request.write(&mut payload, client.dialect).expect("it fits");
    client.send(PacketType::RPC, &payload).await.expect("it is sent");
    let response = client.response().await.expect("an answer");
    assert!(response.errors.is_empty(), "{:?}", response.errors);
    assert!(matches!(response.value(), Value::Bytes(back) if *back == sent), "not what was sent");
}
