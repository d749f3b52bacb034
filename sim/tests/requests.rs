//! Batches, calls, transactions, resets, attentions and bulk loads, packet by packet.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod raw_client;

use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use raw_client::{Client, Dial, Token, changes, dones, errors, login, rows};
use tds::TdsVersion;
use tds::col_metadata::{ColMetadata, Column};
use tds::done::{Done, DoneKind, DoneStatus};
use tds::env_change::EnvChange;
use tds::feature::{Feature, FeatureId};
use tds::handshake::ServerTls;
use tds::packet::{PacketType, Status};
use tds::request::{BeginTransaction, IsolationLevel, TransactionRequest};
use tds::row;
use tds::rpc::{Call, CallOptions, ParamFlags, Parameter, ProcId, Procedure, RpcRequest};
use tds::type_info::{CharInfo, Collation, MAX, TypeInfo};
use tds::value::Value;
use tdsbouncer_sim::{ServerKind, SimHandle, SimOptions, SimServer};

const NO_ERRORS: [i32; 0] = [];
const NO_CHANGES: [EnvChange; 0] = [];
const PASSWORD: &str = "Sim-passw0rd";

fn server() -> SimHandle {
    SimServer::start(SimOptions::default()).unwrap()
}

fn dial(server: &SimHandle, tls: ServerTls) -> Dial {
    Dial { tls, login: login(PASSWORD), pem: server.certificate_pem().to_owned(), without_prelogin: false }
}

fn client(server: &SimHandle) -> Client {
    Client::dial(server.addr(), &dial(server, ServerTls::Never)).unwrap()
}

fn begin() -> TransactionRequest {
    TransactionRequest::Begin(BeginTransaction { isolation: IsolationLevel::CURRENT, name: String::new() })
}

fn commit() -> TransactionRequest {
    TransactionRequest::Commit { name: String::new(), begin: None }
}

fn nvarchar(text: &str) -> Parameter {
    let collation = Collation::LATIN1;
    let max_len = if text.len() > 4000 { MAX } else { 8000 };
    Parameter {
        name: String::new(),
        flags: ParamFlags::default(),
        type_info: TypeInfo::NVarChar(CharInfo { max_len, collation }),
        value: Value::String(text.to_owned()),
        cipher: None,
    }
}

fn call(id: ProcId, parameters: Vec<Parameter>) -> Call {
    Call {
        procedure: Procedure::Id(id),
        options: CallOptions::default(),
        enclave: Default::default(),
        parameters,
        separator: None,
    }
}

fn rpc(client: &mut Client, calls: Vec<Call>) -> Vec<Token> {
    let request = RpcRequest { headers: Some(client.headers()), calls };
    let mut payload = BytesMut::new();
    request.write(&mut payload, client.dialect).unwrap();
    client.send(PacketType::RPC, Status::NORMAL, &payload).unwrap();
    client.receive()
}

#[test]
fn requests_sent_back_to_back_are_answered_in_order() {
    let server = server();
    let mut client = client(&server);
    for number in 0..20 {
        client.send_batch(&format!("select {number}"), Status::NORMAL);
    }
    for number in 0..20 {
        assert_eq!(rows(&client.receive()), [[Value::Int(number)]]);
    }
}

#[test]
fn an_attention_ends_a_wait_at_once_and_is_acknowledged_behind_its_response() {
    let server = server();
    for tls in [ServerTls::Never, ServerTls::On, ServerTls::Strict] {
        let mut client = Client::dial(server.addr(), &dial(&server, tls)).unwrap();
        let started = Instant::now();
        client.send_batch("waitfor delay '00:00:30'", Status::NORMAL);
        std::thread::sleep(Duration::from_millis(50));
        client.attention();
        assert_eq!(dones(&client.receive()), [DoneStatus::ERROR]);
        assert_eq!(dones(&client.receive()), [DoneStatus::ATTENTION]);
        assert!(started.elapsed() < Duration::from_secs(20));
        assert_eq!(rows(&client.batch("select 1")), [[Value::Int(1)]]);
    }
    assert_eq!(server.stats().attentions, 3);
}

#[test]
fn an_attention_ends_a_long_result_of_which_nobody_reads() {
    let server = server();
    let mut client = client(&server);
    client.send_batch("select * from generate_rows(100000000, 100)", Status::NORMAL);
    std::thread::sleep(Duration::from_millis(300));
    client.attention();
    let payload = client.receive_raw().unwrap();
    let done = &payload[payload.len() - 13..];
    assert_eq!((done[0], done[1]), (0xFD, 0x02));
    assert_eq!(dones(&client.receive()), [DoneStatus::ATTENTION]);
    assert_eq!(rows(&client.batch("select 1")), [[Value::Int(1)]]);
}

#[test]
fn an_attention_after_the_response_gets_an_acknowledgement_of_its_own() {
    let server = server();
    let mut client = client(&server);
    client.batch("select 1");
    client.attention();
    let tokens = client.receive();
    assert_eq!(tokens.len(), 1);
    assert_eq!(dones(&tokens), [DoneStatus::ATTENTION]);
    client.attention();
    client.send_batch("select 2", Status::NORMAL);
    assert_eq!(dones(&client.receive()), [DoneStatus::ATTENTION]);
    assert_eq!(rows(&client.receive()), [[Value::Int(2)]]);
}

#[test]
fn a_withdrawn_request_is_not_run_and_gets_one_done_with_an_error() {
    let server = server();
    let mut client = client(&server);
    client.batch("create table t (n int)");
    let text = format!("insert t values (1) -- {}", "x".repeat(10_000));
    client.send_batch(&text, Status::IGNORE);
    let tokens = client.receive();
    assert_eq!((tokens.len(), dones(&tokens)), (1, vec![DoneStatus::ERROR]));
    assert_eq!(rows(&client.batch("select count(*) from t")), [[Value::Int(0)]]);
    assert_eq!(server.stats().ignored, 1);
}

#[test]
fn a_reset_is_acknowledged_and_rolls_back() {
    let server = server();
    let mut client = client(&server);
    client.batch("create table t (n int)");
    client.batch("begin tran");
    assert_ne!(client.transaction, 0);
    client.batch("insert t values (1)");
    client.batch("create table #mine (n int)");
    client.transaction = 0;
    client.send_batch("select count(*) from t", Status::RESET_CONNECTION);
    let tokens = client.receive();
    assert!(changes(&tokens).contains(&EnvChange::ResetDone));
    assert!(changes(&tokens).iter().any(|change| matches!(change, EnvChange::RollbackTransaction(_))));
    assert_eq!(rows(&tokens), [[Value::Int(0)]]);
    assert_eq!(errors(&client.batch("select * from #mine")), [208]);
    assert_eq!(server.stats().resets, 1);
}

#[test]
fn a_reset_that_skips_the_transaction_keeps_it() {
    let server = server();
    let mut client = client(&server);
    client.batch("begin tran");
    let descriptor = client.transaction;
    client.send_batch("select @@trancount", Status::RESET_CONNECTION_SKIP_TRAN);
    let tokens = client.receive();
    assert_eq!(rows(&tokens), [[Value::Int(1)]]);
    assert_eq!(changes(&tokens), [EnvChange::ResetDone]);
    assert_eq!(client.transaction, descriptor);
}

#[test]
fn a_transaction_manager_request_begins_and_commits() {
    let server = server();
    let mut client = client(&server);
    let tokens = client.transaction(&begin());
    assert!(matches!(changes(&tokens)[..], [EnvChange::BeginTransaction(_)]));
    assert_eq!(rows(&client.batch("select @@trancount")), [[Value::Int(1)]]);
    assert!(server.connections()[0].in_transaction);
    let descriptor = client.transaction;
    let tokens = client.transaction(&commit());
    assert_eq!(changes(&tokens), [EnvChange::CommitTransaction(descriptor)]);
    assert_eq!(errors(&client.transaction(&commit())), [3902]);
    assert_eq!(errors(&client.transaction(&TransactionRequest::Promote)).len(), 1);
}

#[test]
fn a_request_must_name_the_open_transaction() {
    let server = server();
    let mut client = client(&server);
    client.transaction(&begin());
    let descriptor = client.transaction;
    client.transaction = 0;
    assert_eq!(errors(&client.batch("select 1")), [3989]);
    client.transaction = descriptor + 1;
    assert_eq!(errors(&client.batch("select 1")), [3971]);
    client.transaction = descriptor;
    assert_eq!(errors(&client.batch("select 1")), NO_ERRORS);
    client.transaction(&commit());
    client.transaction = descriptor;
    assert_eq!(errors(&client.batch("select 1")), [3971]);
}

#[test]
fn several_calls_in_one_message_are_answered_in_one_response() {
    let server = server();
    let mut client = client(&server);
    let calls = vec![
        call(ProcId::EXECUTE_SQL, vec![nvarchar("select 1")]),
        call(ProcId::EXECUTE_SQL, vec![nvarchar("select 2")]),
    ];
    let tokens = rpc(&mut client, calls);
    assert_eq!(rows(&tokens), [[Value::Int(1)], [Value::Int(2)]]);
    let procs: Vec<_> = tokens
        .iter()
        .filter_map(|token| match token {
            Token::Done(Done { kind: DoneKind::DoneProc, status, .. }) => {
                Some(status.contains(DoneStatus::MORE))
            }
            _ => None,
        })
        .collect();
    assert_eq!(procs, [true, false]);
}

#[test]
fn a_large_parameter_arrives_whole() {
    let server = server();
    let mut dial = dial(&server, ServerTls::Off);
    dial.login.packet_size = 32_767;
    let mut client = Client::dial(server.addr(), &dial).unwrap();
    let text = "x".repeat(20 << 20);
    let parameters = vec![
        nvarchar("select len(@text)"),
        nvarchar("@text nvarchar(max)"),
        Parameter { name: "@text".into(), ..nvarchar(&text) },
    ];
    let tokens = rpc(&mut client, vec![call(ProcId::EXECUTE_SQL, parameters)]);
    assert_eq!(rows(&tokens), [[Value::BigInt(20 << 20)]]);
}

#[test]
fn a_request_longer_than_the_limit_closes_the_connection() {
    let server = SimServer::start(SimOptions { max_request: 10_000, ..SimOptions::default() }).unwrap();
    let mut client = client(&server);
    let payload = client.batch_payload(&"x".repeat(10_000));
    // The server may close before everything is written.
    let _ = client.send(PacketType::SQL_BATCH, Status::NORMAL, &payload);
    assert!(client.is_closed());
}

#[test]
fn a_message_of_an_unknown_type_closes_the_connection() {
    let server = server();
    for kind in [PacketType(0x53), PacketType::LOGIN7, PacketType::RESPONSE] {
        let mut client = client(&server);
        client.send(kind, Status::NORMAL, b"x").unwrap();
        assert!(client.is_closed(), "{kind:?}");
    }
    let mut client = client(&server);
    client.transaction = 0;
    let other = TransactionRequest::Other { kind: 77, payload: Vec::new() };
    let mut payload = BytesMut::new();
    other.write(&mut payload, &client.headers(), client.dialect);
    client.send(PacketType::TRANSACTION_MANAGER, Status::NORMAL, &payload).unwrap();
    assert!(client.is_closed());
}

#[test]
fn a_request_with_broken_headers_gets_an_error_and_a_close() {
    let server = server();
    let mut client = client(&server);
    client.send(PacketType::SQL_BATCH, Status::NORMAL, &[0xFF; 30]).unwrap();
    assert_eq!(errors(&client.receive()), [4002]);
    assert!(client.is_closed());
}

fn bulk_rows(columns: &[Column], count: i32, version: TdsVersion) -> BytesMut {
    let dialect = tds::Dialect::of(version);
    let mut payload = BytesMut::new();
    ColMetadata::new(columns.to_vec()).write(&mut payload, dialect);
    for n in 0..count {
        let values = [Value::Int(n), Value::String(format!("row {n}"))];
        row::write(&mut payload, columns, &values).unwrap();
    }
    payload.put_u8(0xFD);
    payload.put_bytes(0, Done::body_len(version));
    payload
}

fn bulk_columns() -> Vec<Column> {
    let text = CharInfo { max_len: 100, collation: Collation::LATIN1 };
    vec![Column::new("n", TypeInfo::IntN(4)), Column::new("t", TypeInfo::NVarChar(text))]
}

#[test]
fn a_bulk_load_streams_in_and_counts_its_rows() {
    let server = server();
    let mut client = client(&server);
    client.batch("create table t (n int, t nvarchar(50))");
    let tokens = client.batch("insert bulk t (n int, t nvarchar(50))");
    assert_eq!(errors(&tokens), NO_ERRORS);
    let payload = bulk_rows(&bulk_columns(), 20_000, client.dialect.version);
    client.send(PacketType::BULK_LOAD, Status::NORMAL, &payload).unwrap();
    let tokens = client.receive();
    assert!(matches!(tokens.last(), Some(Token::Done(done)) if done.rows == 20_000), "{tokens:?}");
    assert_eq!(
        rows(&client.batch("select count(*) from t where t = concat('row ', n)")),
        [[Value::Int(20_000)]]
    );
}

#[test]
fn a_bulk_load_that_is_withdrawn_leaves_nothing() {
    let server = server();
    let mut client = client(&server);
    client.batch("create table t (n int, t nvarchar(50))");
    client.batch("insert bulk t (n int, t nvarchar(50))");
    let payload = bulk_rows(&bulk_columns(), 5_000, client.dialect.version);
    client.send(PacketType::BULK_LOAD, Status::IGNORE, &payload).unwrap();
    assert_eq!(dones(&client.receive()), [DoneStatus::ERROR]);
    assert_eq!(rows(&client.batch("select count(*) from t")), [[Value::Int(0)]]);
}

#[test]
fn bulk_rows_that_nobody_asked_for_get_an_error() {
    let server = server();
    let mut client = client(&server);
    let payload = bulk_rows(&bulk_columns(), 5_000, client.dialect.version);
    client.send(PacketType::BULK_LOAD, Status::NORMAL, &payload).unwrap();
    assert_eq!(errors(&client.receive()).len(), 1);
    assert_eq!(rows(&client.batch("select 1")), [[Value::Int(1)]]);
}

#[test]
fn session_state_is_told_where_session_recovery_was_agreed_on() {
    let server = server();
    let mut dial = dial(&server, ServerTls::Off);
    dial.login.features = vec![Feature { id: FeatureId::SESSION_RECOVERY, data: Default::default() }];
    let mut client = Client::dial(server.addr(), &dial).unwrap();
    let recoverable = |tokens: &[Token]| -> Vec<bool> {
        tokens
            .iter()
            .filter_map(|token| match token {
                Token::State(_, recoverable, _) => Some(*recoverable),
                _ => None,
            })
            .collect()
    };
    assert_eq!(recoverable(&client.batch("create table #mine (n int)")), [false]);
    let tokens = client.batch("drop table #mine");
    assert_eq!(recoverable(&tokens), [true]);
    assert!(matches!(tokens[tokens.len() - 2..], [Token::State(..), Token::Done(_)]));
}

/// A client that was told of SESSIONRECOVERY, and what it is told of the states: number, recoverable, ids.
fn told_client(server: &SimHandle) -> Client {
    let mut dial = dial(server, ServerTls::Off);
    dial.login.features = vec![Feature { id: FeatureId::SESSION_RECOVERY, data: Default::default() }];
    Client::dial(server.addr(), &dial).unwrap()
}

fn told(tokens: &[Token]) -> Vec<(u32, bool, Vec<u8>)> {
    let state = |token: &Token| match token {
        Token::State(number, recoverable, ids) => Some((*number, *recoverable, ids.clone())),
        _ => None,
    };
    tokens.iter().filter_map(state).collect()
}

#[test]
fn states_are_told_as_changes_of_those_at_login_and_a_reset_goes_back_to_them() {
    let server = server();
    let mut client = told_client(&server);
    let response = client.response.clone().unwrap();
    let initial = response.feature(FeatureId::SESSION_RECOVERY).unwrap();
    let initial = tds::session_state::states(&initial.data).map(|state| state.unwrap().id);
    assert_eq!(initial.collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(told(&client.batch("select 1")), []);
    assert_eq!(told(&client.batch("set context_info 0x01")), [(0, true, vec![4])]);
    assert_eq!(told(&client.batch("set context_info 0x01")), [], "it is the same");
    assert_eq!(told(&client.batch("exec('set datefirst 3') select 1")), [], "it ends with its text");
    client.batch("create procedure p as set datefirst 3; exec sp_set_session_context N'k', 1");
    assert_eq!(told(&client.batch("exec p")), [(1, true, vec![5])]);
    client.batch("set transaction isolation level serializable");
    client.send_batch("select 1", Status::RESET_CONNECTION);
    assert_eq!(told(&client.receive()), [(3, true, vec![2])], "the isolation level outlives it");
    assert_eq!(told(&client.batch("set context_info 0x01")), [(4, true, vec![4])]);
}

#[test]
fn whether_a_state_is_recoverable_counts_for_each_by_itself() {
    let server = server();
    let mut client = told_client(&server);
    let tokens = client.batch("create table #mine (n int); set datefirst 3");
    assert_eq!(told(&tokens), [(0, false, vec![1])]);
    assert_eq!(told(&client.batch("set lock_timeout 9")), [(1, false, vec![3])]);
    assert_eq!(told(&client.batch("select 1")), []);
    assert_eq!(told(&client.batch("drop table #mine")), [(2, true, vec![1, 3])]);
    for (begins, ends) in [
        ("begin tran", "commit"),
        ("declare c cursor global for select 1", "deallocate c"),
        ("exec sp_getapplock 'k', 'Shared', 'Session'", "exec sp_releaseapplock 'k', 'Session'"),
        ("execute as login = 'sa'", "revert"),
        ("create table ##t (n int)", "drop table ##t"),
    ] {
        let recoverable = |tokens: &[Token]| {
            told(tokens).iter().map(|(_, recoverable, _)| *recoverable).collect::<Vec<_>>()
        };
        assert_eq!(recoverable(&client.batch(begins)), [false], "{begins}");
        assert_eq!(recoverable(&client.batch(ends)), [true], "{ends}");
    }
    let document = "declare @h int exec sp_xml_preparedocument @h output, N'<a/>' select @h";
    let [Value::Int(handle)] = rows(&client.batch(document))[0][..] else { panic!("a handle") };
    let tokens = client.batch(&format!("exec sp_xml_removedocument {handle}"));
    assert!(matches!(told(&tokens)[..], [(_, true, _)]));
    assert_eq!(errors(&client.batch(&format!("exec sp_xml_removedocument {handle}"))), [6607]);
}

#[test]
fn a_transaction_that_a_reset_keeps_is_told_again() {
    let server = server();
    let mut client = told_client(&server);
    client.batch("begin tran");
    client.send_batch("select 1", Status::RESET_CONNECTION_SKIP_TRAN);
    assert!(matches!(told(&client.receive())[..], [(_, false, _)]));
}

#[test]
fn before_tds_7_2_there_are_no_headers_and_no_transaction_changes() {
    let server = server();
    let mut dial = dial(&server, ServerTls::Off);
    dial.login.tds_version = TdsVersion::V7_1_SP1;
    let mut client = Client::dial(server.addr(), &dial).unwrap();
    assert_eq!(changes(&client.batch("begin tran")), NO_CHANGES);
    assert_eq!(rows(&client.batch("select @@trancount")), [[Value::Int(1)]]);
    assert_eq!(changes(&client.batch("commit")), NO_CHANGES);
}

#[test]
fn a_large_result_does_not_gather_in_memory_while_nobody_reads() {
    let server = server();
    let mut dial = dial(&server, ServerTls::Never);
    dial.login.packet_size = 32_767;
    let mut client = Client::dial(server.addr(), &dial).unwrap();
    let before = memory();
    client.send_batch("select * from generate_rows(20000, 1000)", Status::NORMAL);
    std::thread::sleep(Duration::from_millis(500));
    // Nobody reads yet: what the server holds back is a few packets and the sockets' buffers.
    assert!(memory() < before + (32 << 20), "{} → {}", before, memory());
    let payload = client.receive_raw().unwrap();
    assert!(payload.len() > 40_000_000);
}

/// Resident memory of this process, in bytes.
fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).unwrap_or(0) << 10
}

#[test]
fn babelfish_keeps_quiet_about_transactions_begun_by_text() {
    let kind = ServerKind::Babelfish;
    let server = SimServer::start(SimOptions { kind, ..SimOptions::default() }).unwrap();
    let mut client = client(&server);
    assert_eq!(changes(&client.batch("begin tran")), NO_CHANGES);
    let tokens = client.transaction(&commit());
    assert!(matches!(changes(&tokens)[..], [EnvChange::CommitTransaction(_)]));
    client.send_batch("select 1", Status::RESET_CONNECTION);
    let tokens = client.receive();
    let done = tokens.iter().position(|token| matches!(token, Token::Done(_))).unwrap();
    let reset = tokens.iter().position(|token| matches!(token, Token::Env(EnvChange::ResetDone))).unwrap();
    assert!(done < reset);
}

#[test]
fn a_reset_ends_a_session_with_an_application_role() {
    let server = server();
    let mut client = client(&server);
    client.batch("EXEC sp_setapprole 'role', 'password'");
    client.send_batch("SELECT 1", Status::RESET_CONNECTION);
    assert_eq!(errors(&client.receive()), [18056]);
    assert!(client.is_closed());
}

#[test]
fn babelfish_leaves_behind_a_reset_what_was_observed_there() {
    let options = SimOptions { kind: ServerKind::Babelfish, ..SimOptions::default() };
    let server = SimServer::start(options).unwrap();
    let mut client = client(&server);
    client.batch("CREATE TABLE #t (n int); SET CONTEXT_INFO 0x01; EXEC sp_set_session_context N'k', 7");
    client.send_batch("SELECT 1", Status::RESET_CONNECTION);
    client.receive();
    let left = rows(&client.batch("SELECT DATALENGTH(CONTEXT_INFO()), CAST(SESSION_CONTEXT(N'k') AS int)"));
    assert_eq!(left, [[Value::Int(128), Value::Int(7)]]);
    assert_eq!(errors(&client.batch("SELECT * FROM #t")), [208]);
    let begun = changes(&client.transaction(&begin()));
    let [EnvChange::BeginTransaction(descriptor)] = begun[..] else { panic!("{begun:?}") };
    client.batch("BEGIN TRANSACTION");
    assert_eq!(changes(&client.transaction(&commit())), [EnvChange::CommitTransaction(descriptor)]);
    assert_eq!(rows(&client.batch("SELECT @@TRANCOUNT")), [[Value::Int(1)]]);
}

#[test]
fn faults_can_be_there_from_the_start() {
    let options =
        SimOptions { faults: vec![tdsbouncer_sim::Fault::ResetNotAcknowledged], ..SimOptions::default() };
    let server = SimServer::start(options).unwrap();
    let mut client = client(&server);
    client.send_batch("SELECT 1", Status::RESET_CONNECTION);
    assert_eq!(changes(&client.receive()), NO_CHANGES);
}
