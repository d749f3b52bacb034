//! What goes wrong on demand goes wrong as announced, and only then.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod raw_client;

use std::time::{Duration, Instant};

use raw_client::{Client, Dial, Failed, changes, dones, errors, login, rows};
use tds::done::DoneStatus;
use tds::env_change::EnvChange;
use tds::handshake::ServerTls;
use tds::packet::Status;
use tds::value::Value;
use tdsbouncer_sim::{Fault, SimHandle, SimOptions, SimServer};

const NO_ERRORS: [i32; 0] = [];
const NO_CHANGES: [EnvChange; 0] = [];
const A_WHILE: Duration = Duration::from_millis(150);

fn server() -> SimHandle {
    SimServer::start(SimOptions::default()).unwrap()
}

fn dial(server: &SimHandle) -> Result<Client, Failed> {
    let dial = Dial {
        tls: ServerTls::Never,
        login: login("Sim-passw0rd"),
        pem: String::new(),
        without_prelogin: false,
    };
    Client::dial(server.addr(), &dial)
}

#[test]
fn connections_are_refused_while_the_fault_is_armed() {
    let server = server();
    server.faults().arm(Fault::RefuseConnections);
    assert!(matches!(dial(&server), Err(Failed::Io(_))));
    assert!(matches!(dial(&server), Err(Failed::Io(_))));
    server.faults().clear();
    dial(&server).unwrap();
}

#[test]
fn a_hanging_accept_and_a_hanging_login_say_nothing() {
    let server = server();
    server.faults().arm_times(Fault::HangAtAccept, 1);
    let mut client = Client::open(server.addr()).unwrap();
    client.write(&[0x12]).unwrap();
    assert!(client.stays_silent(A_WHILE));
    assert_eq!(server.stats().open, 1);
    server.faults().arm_times(Fault::DropAtLogin, 1);
    assert!(matches!(dial(&server), Err(Failed::Io(_))));
    server.faults().arm_times(Fault::ErrorAtLogin { number: 40613, class: 17 }, 1);
    match dial(&server) {
        Err(Failed::Refused(messages)) => assert_eq!(messages[0].number, 40613),
        other => panic!("{other:?}"),
    }
    dial(&server).unwrap();
}

#[test]
fn a_request_is_never_answered_or_its_connection_closes() {
    let server = server();
    let mut client = dial(&server).unwrap();
    server.faults().arm_times(Fault::HangOnRequest, 1);
    client.send_batch("select 1", Status::NORMAL);
    assert!(client.stays_silent(A_WHILE));
    client.attention();
    assert!(client.stays_silent(A_WHILE));
    for fault in [Fault::DropOnRequest, Fault::DropAfterExecution, Fault::DropWhenIdle] {
        let mut client = dial(&server).unwrap();
        server.faults().arm_times(fault.clone(), 1);
        let payload = client.batch_payload("select 1");
        let _ = client.send(tds::packet::PacketType::SQL_BATCH, Status::NORMAL, &payload);
        if fault == Fault::DropWhenIdle {
            let _ = client.receive_raw();
        }
        assert!(client.is_closed(), "{fault:?}");
    }
}

#[test]
fn a_response_breaks_off_in_the_middle_of_a_token() {
    let server = server();
    for after in [0, 1, 5, 12] {
        let mut client = dial(&server).unwrap();
        server.faults().arm_times(Fault::DropInResponse { after }, 1);
        client.send_batch("select 1", Status::NORMAL);
        assert!(client.receive_raw().is_err(), "{after}");
    }
    let mut client = dial(&server).unwrap();
    client.batch("exec sim_fault 'hang_in_response', 5");
    client.send_batch("select 1", Status::NORMAL);
    client.read().unwrap();
    assert!(client.stays_silent(A_WHILE));
    let mut client = dial(&server).unwrap();
    client.batch("exec sim_fault 'garbage_in_response', 5");
    client.send_batch("select 1", Status::NORMAL);
    let payload = client.receive_raw().unwrap();
    assert_eq!(payload[5..], [0; 16]);
}

#[test]
fn a_slow_response_takes_its_time() {
    let server = server();
    let mut client = dial(&server).unwrap();
    client.batch("exec sim_fault 'slow_packets', 300");
    let started = Instant::now();
    assert_eq!(rows(&client.batch("select 1")), [[Value::Int(1)]]);
    assert!(started.elapsed() >= Duration::from_millis(300));
    client.batch("exec sim_fault 'slow_bytes', 200");
    let started = Instant::now();
    assert_eq!(rows(&client.batch("select 1")), [[Value::Int(1)]]);
    assert!(started.elapsed() >= Duration::from_millis(100));
}

#[test]
fn a_fault_armed_by_a_client_is_its_own() {
    let server = server();
    let (mut mine, mut other) = (dial(&server).unwrap(), dial(&server).unwrap());
    assert_eq!(dones(&mine.batch("exec sim_fault 'error_on_request', 701")), [DoneStatus::FINAL]);
    assert_eq!(errors(&other.batch("select 1")), NO_ERRORS);
    assert_eq!(errors(&mine.batch("select 1")), [701]);
    assert_eq!(errors(&mine.batch("select 1")), NO_ERRORS);
    assert_eq!(errors(&mine.batch("exec sim_fault 'no such fault'")), [50000]);
}

#[test]
fn a_reset_goes_wrong_in_each_of_its_ways() {
    let server = server();
    let mut client = dial(&server).unwrap();
    let mut reset = |fault: Fault| {
        server.faults().arm_times(fault, 1);
        client.send_batch("select 1", Status::RESET_CONNECTION);
        client.receive()
    };
    assert_eq!(changes(&reset(Fault::ResetNotAcknowledged)), NO_CHANGES);
    assert_eq!(changes(&reset(Fault::ResetLeavesEverything)), [EnvChange::ResetDone]);
    assert_eq!(errors(&reset(Fault::ResetFails)), [18056]);
    assert!(client.is_closed());
}

#[test]
fn an_attention_is_ignored_on_demand() {
    let server = server();
    let mut client = dial(&server).unwrap();
    server.faults().arm_times(Fault::AttentionIgnored, 1);
    client.attention();
    assert!(client.stays_silent(A_WHILE));
    client.attention();
    assert_eq!(dones(&client.receive()), [DoneStatus::ATTENTION]);
}

#[test]
fn an_attention_is_acknowledged_in_its_response_on_demand() {
    let server = server();
    let mut client = dial(&server).unwrap();
    client.batch("exec sim_fault 'attention_in_response'");
    client.send_batch("waitfor delay '00:00:30'", Status::NORMAL);
    std::thread::sleep(A_WHILE);
    client.attention();
    assert_eq!(dones(&client.receive()), [DoneStatus::ATTENTION]);
    assert_eq!(rows(&client.batch("select 1")), [[Value::Int(1)]]);
}

#[test]
fn stray_bytes_follow_a_complete_response() {
    let server = server();
    let mut client = dial(&server).unwrap();
    server.faults().arm_times(Fault::StrayBytes, 1);
    assert_eq!(rows(&client.batch("select 1")), [[Value::Int(1)]]);
    assert_eq!(dones(&client.receive()), [DoneStatus::FINAL]);
}

#[test]
fn a_connection_is_killed_from_outside() {
    let server = server();
    let mut client = dial(&server).unwrap();
    client.batch("select 1");
    let spid = server.connections()[0].spid;
    assert!(server.kill(spid));
    assert!(client.is_closed());
    assert!(!server.kill(9999));
}

#[test]
fn a_server_that_stops_frees_its_port_and_closes_its_connections() {
    let server = server();
    let addr = server.addr();
    let mut client = dial(&server).unwrap();
    server.shutdown();
    assert!(client.is_closed());
    let again = SimServer::start(SimOptions { listen: addr, ..SimOptions::default() }).unwrap();
    dial(&again).unwrap();
}
