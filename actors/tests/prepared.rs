//! Prepared statements in transaction pooling, through the front door: a client's handles work on whatever server
//! connection it gets, and are nobody else's.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod client;

use bytes::BytesMut;
use client::stage::Stage;
use client::{Client, Response, Who};
use tds::message::write_message;
use tds::packet::{PacketType, Status};
use tds::request::{AllHeaders, EnclavePackage};
use tds::rpc::{Call, CallOptions, Parameter, ProcId, Procedure, RpcRequest, Separator};
use tds::type_info::{Collation, MAX, TypeInfo};
use tds::value::Value;
use tdsbouncer_config::PoolMode;

async fn stage(max_connections: u32) -> Stage {
    Stage::set(max_connections, |bucket| bucket.pool_mode = PoolMode::Transaction, |_| {}).await
}

async fn join(stage: &Stage) -> Client {
    Client::connect(stage.address, &Who::default()).await
}

fn text(text: &str) -> Parameter {
    Parameter::new("", TypeInfo::nvarchar(4000, Collation::LATIN1), Value::String(text.to_owned()))
}

fn int(value: i32) -> Parameter {
    Parameter::new("", TypeInfo::IntN(4), Value::Int(value))
}

fn null() -> Parameter {
    Parameter::new("", TypeInfo::IntN(4), Value::Null)
}

fn call(id: ProcId, parameters: Vec<Parameter>) -> Call {
    Call {
        procedure: Procedure::Id(id),
        options: CallOptions::default(),
        enclave: EnclavePackage::default(),
        parameters,
        separator: None,
    }
}

fn prepare(definitions: &str, statement: &str) -> Call {
    call(ProcId::PREPARE, vec![null().by_ref(), text(definitions), text(statement)])
}

fn prep_exec(definitions: &str, statement: &str, mut arguments: Vec<Parameter>) -> Call {
    let mut parameters = vec![null().by_ref(), text(definitions), text(statement)];
    parameters.append(&mut arguments);
    call(ProcId::PREP_EXEC, parameters)
}

fn execute(handle: i32, mut arguments: Vec<Parameter>) -> Call {
    let mut parameters = vec![int(handle)];
    parameters.append(&mut arguments);
    call(ProcId::EXECUTE, parameters)
}

fn unprepare(handle: i32) -> Call {
    call(ProcId::UNPREPARE, vec![int(handle)])
}

fn message(client: &Client, calls: Vec<Call>) -> BytesMut {
    let mut calls = calls;
    let last = calls.len() - 1;
    for call in &mut calls[..last] {
        call.separator = Some(Separator::Batch);
    }
    let mut payload = BytesMut::new();
    let headers = Some(AllHeaders::in_transaction(client.transaction));
    RpcRequest { headers, calls }.write(&mut payload, client.dialect).unwrap();
    payload
}

async fn calls(client: &mut Client, calls: Vec<Call>) -> Response {
    let payload = message(client, calls);
    client.send(PacketType::RPC, &payload).await.unwrap();
    client.response().await.unwrap()
}

async fn one(client: &mut Client, call: Call) -> Response {
    calls(client, vec![call]).await
}

/// The handles in a response.
fn handles(response: &Response) -> Vec<i32> {
    let outputs = response.returned.iter().filter(|output| output.ordinal == 0);
    outputs.map(|output| i32::try_from(output.value.as_i64().unwrap()).unwrap()).collect()
}

#[track_caller]
fn handle(response: &Response) -> i32 {
    assert!(response.errors.is_empty(), "{:?}", response.errors);
    let [handle] = handles(response)[..] else { panic!("one handle expected, not {:?}", response.returned) };
    handle
}

/// Somebody who keeps every connection that is idle now.
async fn occupy(stage: &Stage, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = join(stage).await;
        client.batch("BEGIN TRAN").await;
        client.batch("SELECT 1").await;
        clients.push(client);
    }
    clients
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_prepare_on_one_connection_and_never_meet() {
    let stage = stage(1).await;
    let (mut one_, mut two) = (join(&stage).await, join(&stage).await);
    let a = handle(&one(&mut one_, prep_exec("@x int", "SELECT @x + 1", vec![int(1)])).await);
    let b = handle(&one(&mut two, prep_exec("@x int", "SELECT @x * 100", vec![int(2)])).await);
    let c = handle(&one(&mut two, prepare("@x int", "SELECT -@x")).await);
    assert_eq!((a, b, c), (1, 1, 2), "each counts for itself");
    for x in 0..20 {
        assert_eq!(one(&mut one_, execute(a, vec![int(x)])).await.number(), i64::from(x + 1));
        assert_eq!(one(&mut two, execute(b, vec![int(x)])).await.number(), i64::from(x * 100));
        assert_eq!(one(&mut two, execute(c, vec![int(x)])).await.number(), i64::from(-x));
        // The other one's number is not this one's.
        let refused = one(&mut one_, execute(c, vec![int(x)])).await;
        assert_eq!(refused.error(), 8179);
        assert!(refused.errors[0].text.contains("handle 2."), "{}", refused.errors[0].text);
    }
    assert_eq!(one(&mut two, unprepare(b)).await.error(), 0);
    assert_eq!(one(&mut two, execute(b, vec![int(1)])).await.error(), 8179);
    assert_eq!(one(&mut two, unprepare(b)).await.error(), 8179);
    assert_eq!(one(&mut one_, execute(a, vec![int(6)])).await.number(), 7);
    assert_eq!(stage.server.stats().peak, 1);
    assert_eq!(stage.server.stats().resets, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_works_on_every_connection() {
    let stage = stage(3).await;
    let mut client = join(&stage).await;
    let h = handle(&one(&mut client, prep_exec("@x int", "SELECT @x + 1", vec![int(1)])).await);
    let others = occupy(&stage, 2).await;
    for x in 0..5 {
        assert_eq!(one(&mut client, execute(h, vec![int(x)])).await.number(), i64::from(x + 1));
    }
    drop(others);
    assert_eq!(one(&mut client, execute(h, vec![int(8)])).await.number(), 9);
    assert_eq!(stage.server.stats().peak, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn output_parameters_keep_their_places_wherever_they_run() {
    let stage = stage(2).await;
    let mut client = join(&stage).await;
    let created = client
        .batch("CREATE PROCEDURE twice @a int, @b int OUTPUT, @c nvarchar(max) OUTPUT AS SET @b = @a * 2; SET @c = REPLICATE(CAST(N'x' AS nvarchar(max)), @a)")
        .await;
    assert_eq!(created.error(), 0, "{:?}", created.errors);
    let long = || Parameter::new("", TypeInfo::nvarchar(MAX, Collation::LATIN1), Value::Null).by_ref();
    let definitions = "@a int, @b int OUTPUT, @c nvarchar(max) OUTPUT";
    let statement = "EXEC twice @a, @b OUTPUT, @c OUTPUT";
    let first =
        one(&mut client, prep_exec(definitions, statement, vec![int(4), int(0).by_ref(), long()])).await;
    let ordinals = |response: &Response| response.returned.iter().map(|o| o.ordinal).collect::<Vec<_>>();
    assert_eq!(ordinals(&first), [0, 4, 5]);
    let h = handle(&first);
    let simple = handle(&one(&mut client, prepare("@a int, @b int OUTPUT", "SET @b = @a * 3")).await);
    let check = |response: &Response, a: i32| {
        assert_eq!(response.error(), 0, "{:?}", response.errors);
        assert_eq!(ordinals(response), [2, 3]);
        assert_eq!(response.returned[0].value, Value::Int(a * 2));
        assert_eq!(response.returned[1].value, Value::String("x".repeat(a as usize)));
    };
    check(&one(&mut client, execute(h, vec![int(7), int(0).by_ref(), long()])).await, 7);
    let _others = occupy(&stage, 1).await;
    // The statement with a small output is prepared on the way, the other one before.
    let small = one(&mut client, execute(simple, vec![int(5), int(0).by_ref()])).await;
    assert_eq!((ordinals(&small), &small.returned[0].value), (vec![2], &Value::Int(15)));
    check(&one(&mut client, execute(h, vec![int(40_000), int(0).by_ref(), long()])).await, 40_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_calls_go_in_one_message() {
    let stage = stage(2).await;
    let mut client = join(&stage).await;
    let prepared = calls(
        &mut client,
        vec![
            prepare("@x int", "SELECT @x"),
            prepare("@x int", "SELECT @x + 1000000"),
            prepare("", "SELECT nothing FROM nowhere"),
        ],
    )
    .await;
    let given = handles(&prepared);
    assert_eq!(given, [1, 2, 3]);
    let mut others = Vec::new();
    for count in [3, 20_000] {
        // Two of three on the first statement; the longer message is more than is read as a whole.
        let many = (0..count).map(|x| execute(if x % 3 == 2 { 2 } else { 1 }, vec![int(x)])).collect();
        let response = calls(&mut client, many).await;
        assert_eq!(response.error(), 0, "{:?}", response.errors);
        assert_eq!(response.rows.len(), count as usize);
        for (x, row) in response.rows.iter().enumerate() {
            let expected = if x % 3 == 2 { x + 1_000_000 } else { x };
            assert_eq!(row[0].as_i64(), Some(expected as i64));
        }
        // And again on a connection that knows none of it.
        if others.is_empty() {
            others = occupy(&stage, 1).await;
        }
    }
    let response = calls(
        &mut client,
        vec![execute(1, vec![int(5)]), unprepare(1), execute(1, vec![int(5)]), execute(2, vec![int(1)])],
    )
    .await;
    assert_eq!(response.rows.len(), 2);
    assert_eq!(response.errors.len(), 1);
    assert!(response.errors[0].text.contains("handle 1."), "{:?}", response.errors);
    assert_eq!(calls(&mut client, vec![unprepare(2), unprepare(3)]).await.dones.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_values_reach_a_connection_that_has_to_prepare_first() {
    let stage = stage(2).await;
    let long = |len: usize| Parameter::new("", TypeInfo::VarBinary(MAX), Value::Bytes(vec![7; len]));
    for size in [512, 4096, 32_767] {
        let who = Who { packet_size: size, application: format!("packets of {size}"), ..Who::default() };
        let mut client = Client::connect(stage.address, &who).await;
        let h = handle(
            &one(&mut client, prepare("@x varbinary(max), @y int", "SELECT DATALENGTH(@x) + @y")).await,
        );
        let mut other = Client::connect(stage.address, &who).await;
        other.batch("BEGIN TRAN").await;
        other.batch("SELECT 1").await;
        let lens: &[usize] = if size == 4096 { &[1 << 24, 10] } else { &[1 << 19, 40_000, 10] };
        for len in lens {
            let payload = message(&client, vec![execute(h, vec![long(*len), int(1)])]);
            let mut packets = BytesMut::new();
            write_message(&mut packets, PacketType::RPC, Status::NORMAL, 0, size as usize, &payload);
            client.send_raw(&packets).await.unwrap();
            let response = client.response().await.unwrap();
            assert_eq!(response.number(), *len as i64 + 1, "packets of {size}");
        }
        other.batch("COMMIT").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_cannot_be_prepared_leaves_nothing() {
    let stage = stage(1).await;
    let mut client = join(&stage).await;
    let broken = one(&mut client, prep_exec("@x int", "SELECT FROM WHERE (", vec![int(1)])).await;
    assert_ne!(broken.error(), 0);
    assert_eq!(handles(&broken), [0; 0]);
    let mut other = join(&stage).await;
    assert_eq!(handle(&one(&mut other, prep_exec("@x int", "SELECT @x", vec![int(1)])).await), 1);
    assert_eq!(one(&mut client, execute(1, vec![int(1)])).await.error(), 8179);
    assert_eq!(handle(&one(&mut client, prep_exec("@x int", "SELECT @x", vec![int(1)])).await), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_changes_between_two_runs_shows_its_new_columns() {
    let stage = stage(2).await;
    let mut client = join(&stage).await;
    client.batch("CREATE TABLE changing (a int)").await;
    client.batch("INSERT changing VALUES (1)").await;
    let h = handle(
        &one(&mut client, prep_exec("@x int", "SELECT * FROM changing WHERE a = @x", vec![int(1)])).await,
    );
    for others in 0..2 {
        let _others = occupy(&stage, others).await;
        assert_eq!(one(&mut client, execute(h, vec![int(1)])).await.rows[0].len(), 1 + others);
        client.batch(&format!("ALTER TABLE changing ADD c{others} int")).await;
        assert_eq!(one(&mut client, execute(h, vec![int(1)])).await.rows[0].len(), 2 + others);
    }
    client.batch("DROP TABLE changing").await;
    assert_eq!(one(&mut client, execute(h, vec![int(1)])).await.error(), 208);
    client.batch("CREATE TABLE changing (a int)").await;
    assert_eq!(one(&mut client, execute(h, vec![int(1)])).await.error(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_may_have_so_many_statements_and_no_more() {
    let stage = stage(1).await;
    let mut client = join(&stage).await;
    let mut given = 0;
    for at in 0..100 {
        let batch = (0..100).map(|n| prepare("@x int", &format!("SELECT @x + {}", at * 100 + n))).collect();
        given += handles(&calls(&mut client, batch).await).len();
    }
    assert_eq!(given, 10_000);
    let refused = one(&mut client, prepare("@x int", "SELECT @x")).await;
    assert_eq!(refused.error(), 50004, "{:?}", refused.errors);
    let mut other = join(&stage).await;
    other.batch("SELECT 1").await;
    assert_eq!(one(&mut client, execute(9999, vec![int(5)])).await.number(), 5 + 9998);
    assert_eq!(one(&mut client, unprepare(1)).await.error(), 0);
    assert_eq!(handle(&one(&mut client, prepare("@x int", "SELECT @x")).await), 10_001);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_that_the_client_asks_for_takes_its_handles() {
    let stage = stage(1).await;
    let mut client = join(&stage).await;
    let h = handle(&one(&mut client, prepare("@x int", "SELECT @x")).await);
    let payload = message(&client, vec![execute(h, vec![int(1)])]);
    let mut packets = BytesMut::new();
    write_message(&mut packets, PacketType::RPC, Status::RESET_CONNECTION, 0, 4096, &payload);
    client.send_raw(&packets).await.unwrap();
    assert_eq!(client.response().await.unwrap().error(), 8179);
    assert_eq!(one(&mut client, execute(h, vec![int(1)])).await.error(), 8179);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_prepared_text_begins_holds_whenever_it_runs() {
    let stage = stage(1).await;
    let mut client = join(&stage).await;
    let lock = "EXEC sp_getapplock @Resource = N'till', @LockMode = N'Exclusive', @LockOwner = N'Session'";
    let h = handle(&one(&mut client, prepare("", lock)).await);
    let mut other = join(&stage).await;
    assert_eq!(other.batch("SELECT 1").await.number(), 1, "to prepare holds nothing");
    assert_eq!(one(&mut client, execute(h, vec![])).await.error(), 0);
    other.send_batch("SELECT 2").await.unwrap();
    let until = tokio::time::timeout(std::time::Duration::from_millis(300), other.response()).await;
    assert!(until.is_err(), "the connection is held for the lock");
    drop(client);
    assert_eq!(other.response().await.unwrap().number(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn handles_live_through_transactions_and_their_ends() {
    let stage = stage(2).await;
    let mut client = join(&stage).await;
    client.batch("CREATE TABLE kept (a int)").await;
    client.batch("BEGIN TRAN").await;
    let h = handle(&one(&mut client, prep_exec("@x int", "INSERT kept VALUES (@x)", vec![int(1)])).await);
    assert_eq!(one(&mut client, execute(h, vec![int(2)])).await.error(), 0);
    client.batch("ROLLBACK").await;
    let _others = occupy(&stage, 1).await;
    client.batch("BEGIN TRAN").await;
    assert_eq!(one(&mut client, execute(h, vec![int(3)])).await.error(), 0);
    let many = (0..5).map(|x| execute(h, vec![int(x)])).collect();
    assert_eq!(calls(&mut client, many).await.error(), 0);
    client.batch("COMMIT").await;
    assert_eq!(client.batch("SELECT COUNT(*) FROM kept").await.number(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn random_work_of_many_clients_is_what_each_would_see_alone() {
    let stage = stage(3).await;
    let direct = stage.server.addr();
    let mut tasks = Vec::new();
    for seed in 0..8u32 {
        let address = stage.address;
        tasks.push(tokio::spawn(async move {
            let mut pooled = Client::connect(address, &Who::default()).await;
            let mut alone = Client::connect(direct, &Who::default()).await;
            let mut state = seed + 1;
            let mut next = move |below: u32| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 10) % below
            };
            for _ in 0..150 {
                let mut made = Vec::new();
                for _ in 0..=next(8) / 6 * next(4) {
                    let n = next(6);
                    let number = next(14) as i32;
                    made.push(match next(8) {
                        0 => prepare("@x int", &format!("SELECT @x + {n}")),
                        1 | 2 => prep_exec("@x int", &format!("SELECT @x * {n}"), vec![int(number)]),
                        3 => unprepare(number),
                        4 => call(ProcId::EXECUTE_SQL, vec![text("SELECT @x"), text("@x int"), int(number)]),
                        _ => execute(number, vec![int(n as i32)]),
                    });
                }
                // What is given in a message is not known in it.
                if made.len() > 1
                    && made
                        .iter()
                        .any(|c| matches!(c.procedure, Procedure::Id(ProcId::PREPARE | ProcId::PREP_EXEC)))
                {
                    made.truncate(1);
                }
                let (seen, expected) =
                    (calls(&mut pooled, made.clone()).await, calls(&mut alone, made).await);
                assert_eq!(seen.rows, expected.rows);
                assert_eq!(seen.returned, expected.returned);
                assert_eq!(seen.dones, expected.dones);
                let texts = |r: &Response| r.errors.iter().map(|e| e.text.clone()).collect::<Vec<_>>();
                assert_eq!(texts(&seen), texts(&expected));
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn handles_are_dropped_by_a_text_as_jdbc_does() {
    let stage = stage(1).await;
    let (mut client, mut alone) =
        (join(&stage).await, Client::connect(stage.server.addr(), &Who::default()).await);
    let mut other = join(&stage).await;
    for n in 0..3 {
        handle(&one(&mut other, prepare("@x int", &format!("SELECT @x + {n}"))).await);
    }
    for client in [&mut client, &mut alone] {
        handle(&one(client, prepare("@x int", "SELECT @x")).await);
        handle(&one(client, prepare("@x int", "SELECT @x + @x")).await);
    }
    let text = "EXEC sp_unprepare 1;EXEC sp_unprepare 2;";
    let (seen, expected) = (client.batch(text).await, alone.batch(text).await);
    assert_eq!((seen.error(), seen.dones), (0, expected.dones));
    assert_eq!(client.batch(text).await.error(), alone.batch(text).await.error());
    // Nobody else's were meant.
    for h in 1..=3 {
        assert_eq!(one(&mut other, execute(h, vec![int(5)])).await.number(), 4 + i64::from(h));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_in_a_text_meets_nobody_elses_handle() {
    let stage = stage(1).await;
    let (mut client, mut other) = (join(&stage).await, join(&stage).await);
    handle(&one(&mut other, prepare("@x int", "SELECT @x")).await);
    for way in 0..3 {
        let refused = match way {
            0 => client.batch("EXEC sp_execute 1, 5").await,
            1 => client.batch("EXEC sp_unprepare 1").await,
            _ => one(&mut client, call(ProcId::EXECUTE_SQL, vec![text("EXEC sp_execute 1, 5")])).await,
        };
        assert_eq!(refused.error(), 8179);
        assert!(refused.errors[0].text.contains("handle 1."), "{:?}", refused.errors);
        assert_eq!(one(&mut other, execute(1, vec![int(5)])).await.number(), 5);
    }
    client.batch("BEGIN TRAN").await;
    handle(&one(&mut client, prep_exec("@x int", "SELECT @x", vec![int(1)])).await);
    assert_eq!(client.batch("EXEC sp_execute 1, 5").await.error(), 50005);
    assert_eq!(client.batch("SELECT @@TRANCOUNT").await.number(), 1);
}
