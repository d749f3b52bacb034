//! Single cases, byte by byte where it matters.

use bytes::BytesMut;
use tds::rpc::{Parameter, ProcId, Procedure, RpcFollower, RpcRequest};
use tds::type_info::{Collation, MAX, TypeInfo};
use tds::value::Value;

use super::super::{Calls, Connection, Expectation, Limits, Plan, RealHandles, Splice, Statements, read};
use super::model::{self, Ask, Client, DIALECT, Deed, Pool, message};

fn ask(deed: Deed, text: u8, number: Option<i32>) -> Ask {
    Ask { deed, text, number, outputs: Vec::new(), style: 0 }
}

fn calls(payload: &[u8], is_whole: bool) -> Option<Calls> {
    read(payload, is_whole, DIALECT, &mut RpcFollower::new(DIALECT))
}

fn statements() -> Statements {
    Statements::new(Limits { count: 3, bytes: 10_000 })
}

fn on(reals: &RealHandles) -> Connection<'_> {
    Connection { reals, context: 1, has_prepared: false }
}

/// What the server is sent.
fn sent(plan: &Plan, payload: &[u8]) -> RpcRequest {
    let Plan::Send(sending) = plan else { panic!("{plan:?}") };
    let mut out = BytesMut::new();
    Splice::apply(&sending.splices, payload, &mut out);
    RpcRequest::read(&out, DIALECT).unwrap()
}

/// A client that has prepared text 0 as its handle 1, and a pool of three connections, the first of which knows it.
fn prepared() -> (Client, Pool) {
    let (mut client, mut pool) = (Client::default(), Pool::new(3, 100));
    client.request(&[ask(Deed::PrepExec, 0, None)], &mut pool, 0);
    (client, pool)
}

#[test]
fn a_request_without_handles_is_none_of_our_business() {
    assert!(calls(&message(&[ask(Deed::Other, 0, None)]), true).is_none());
}

#[test]
fn a_handle_of_the_connection_is_put_where_the_clients_was() {
    let (mut client, mut pool) = prepared();
    // Another client's statement takes the first handle of the second connection.
    Client::default().request(&[ask(Deed::Prepare, 3, None)], &mut pool, 1);
    client.request(&[ask(Deed::Execute, 0, Some(1))], &mut pool, 1);
    let payload = message(&[ask(Deed::Execute, 0, Some(1))]);
    let plan =
        calls(&payload, true).unwrap().plan(&payload, &mut client.statements, on(&pool.connections[1].1));
    let Plan::Send(sending) = &plan else { panic!("{plan:?}") };
    let [splice] = &sending.splices[..] else { panic!("{sending:?}") };
    assert!(splice.is_in_place());
    assert_eq!(splice.range, payload.len() - 4..payload.len());
    assert_eq!(splice.bytes[..], [2, 0, 0, 0]);
}

#[test]
fn where_the_statement_is_not_known_it_is_prepared_on_the_way() {
    let (mut client, pool) = prepared();
    let payload = message(&[Ask { outputs: vec![true], ..ask(Deed::Execute, 0, Some(1)) }]);
    let plan =
        calls(&payload, true).unwrap().plan(&payload, &mut client.statements, on(&pool.connections[1].1));
    let request = sent(&plan, &payload);
    let [call] = &request.calls[..] else { panic!("{request:?}") };
    assert_eq!(call.procedure, Procedure::Id(ProcId::PREP_EXEC));
    assert_eq!(call.parameters.len(), 4);
    assert_eq!(call.parameters[2].value, Value::String("text 0".to_owned()));
}

#[test]
fn a_number_that_was_never_given_meets_no_handle_and_the_error_says_the_clients_number() {
    let (mut client, mut pool) = prepared();
    let mut stranger = Client::default();
    assert_eq!(pool.connections[0].1.len(), 1);
    for number in [1, 2, -7] {
        for deed in [Deed::Execute, Deed::Unprepare] {
            let (seen, direct) = stranger.request(&[ask(deed, 0, Some(number))], &mut pool, 0);
            assert_eq!(seen, direct);
            assert!(seen.contains(&format!("handle {number}.")), "{seen}");
        }
    }
    let (seen, direct) = client.request(&[ask(Deed::Execute, 0, Some(1))], &mut pool, 0);
    assert_eq!(seen, direct);
}

#[test]
fn an_old_number_given_to_sp_prepexec_drops_nobody_elses_handle() {
    let (_client, mut pool) = prepared();
    let mut stranger = Client::default();
    stranger.request(&[ask(Deed::PrepExec, 1, Some(1))], &mut pool, 0);
    assert_eq!(pool.connections[0].1.len(), 2);
    assert_eq!(pool.connections[0].0.requests, 2);
    let (seen, _) = prepared().0.request(&[ask(Deed::Execute, 0, Some(1))], &mut pool, 0);
    assert!(seen.starts_with("ran text 0"), "{seen}");
}

#[test]
fn sp_unprepare_asks_no_server() {
    let (mut client, mut pool) = prepared();
    let (seen, direct) = client.request(&[ask(Deed::Unprepare, 0, Some(1))], &mut pool, 2);
    assert_eq!(seen, direct);
    assert_eq!(pool.connections[2].0.requests, 0);
    assert_eq!(client.statements.len(), 0);
    // The server said its handle is gone only once.
    let (seen, direct) = client.request(&[ask(Deed::Unprepare, 0, Some(1))], &mut pool, 2);
    assert_eq!(seen, direct);
}

#[test]
fn many_calls_in_one_message_are_prepared_once_before() {
    let (mut client, mut pool) = prepared();
    let many: Vec<Ask> = (0..50).map(|_| ask(Deed::Execute, 0, Some(1))).collect();
    let (seen, direct) = client.request(&many, &mut pool, 1);
    assert_eq!(seen, direct);
    assert_eq!(pool.connections[1].0.requests, 2);
    client.request(&many, &mut pool, 1);
    assert_eq!(pool.connections[1].0.requests, 3);
}

#[test]
fn a_long_output_parameter_comes_back_by_the_real_handle() {
    let (mut client, pool) = prepared();
    let long = TypeInfo::nvarchar(MAX, Collation::LATIN1);
    let parameters = vec![
        Parameter::new("", TypeInfo::IntN(4), Value::Int(1)),
        Parameter::new("", long, Value::Null).by_ref(),
    ];
    let mut payload = Vec::new();
    RpcRequest::one(Procedure::Id(ProcId::EXECUTE), parameters).write(&mut payload, DIALECT).unwrap();
    let plan =
        calls(&payload, true).unwrap().plan(&payload, &mut client.statements, on(&pool.connections[1].1));
    assert!(matches!(plan, Plan::PrepareFirst { .. }), "{plan:?}");
}

#[test]
fn the_beginning_of_a_long_request_is_enough() {
    let (mut client, pool) = prepared();
    let parameters = vec![
        Parameter::new("", TypeInfo::IntN(4), Value::Int(1)),
        Parameter::new("", TypeInfo::VarBinary(MAX), Value::Bytes(vec![7; 1 << 20])),
    ];
    let mut payload = Vec::new();
    RpcRequest::one(Procedure::Id(ProcId::EXECUTE), parameters).write(&mut payload, DIALECT).unwrap();
    let prefix = &payload[..4096];
    let known =
        calls(prefix, false).unwrap().plan(prefix, &mut client.statements, on(&pool.connections[0].1));
    let Plan::Send(sending) = known else { panic!("{known:?}") };
    assert!(sending.splices.iter().all(Splice::is_in_place));
    let unknown =
        calls(prefix, false).unwrap().plan(prefix, &mut client.statements, on(&pool.connections[1].1));
    assert!(matches!(unknown, Plan::PrepareFirst { .. }), "{unknown:?}");
}

#[test]
fn a_text_too_long_to_remember_ties_the_session_to_the_connection() {
    let (mut statements, mut reals) = (statements(), RealHandles::new(10));
    let text =
        Parameter::new("", TypeInfo::nvarchar(MAX, Collation::LATIN1), Value::String("x".repeat(5000)));
    let parameters = vec![
        Parameter::new("", TypeInfo::IntN(4), Value::Null).by_ref(),
        Parameter::new("", TypeInfo::nvarchar(10, Collation::LATIN1), Value::Null),
        text,
    ];
    let mut payload = Vec::new();
    RpcRequest::one(Procedure::Id(ProcId::PREPARE), parameters).write(&mut payload, DIALECT).unwrap();
    let prefix = &payload[..1000];
    let plan = calls(prefix, false).unwrap().plan(prefix, &mut statements, on(&reals));
    let Plan::Send(mut sending) = plan else { panic!("{plan:?}") };
    let response = model::Server::default().serve(&payload);
    model::edit(&response, &mut sending.expects, &mut statements, &mut reals);
    assert!(statements.tie());
    let payload = message(&[ask(Deed::Execute, 0, Some(1))]);
    let plan = calls(&payload, true).unwrap().plan(&payload, &mut statements, on(&reals));
    assert_eq!(sent(&plan, &payload).calls[0].parameters[0].value, Value::Int(1));
    // It is the server's to drop.
    let payload = message(&[ask(Deed::Unprepare, 0, Some(1))]);
    let calls = calls(&payload, true).unwrap();
    assert_eq!(calls.answer(&mut statements), None);
    calls.plan(&payload, &mut statements, on(&reals));
    assert!(!statements.tie());
}

#[test]
fn a_session_has_a_limit_of_statements() {
    let (mut client, mut pool) = (Client::default(), Pool::new(1, 100));
    client.statements = statements();
    for text in 0..3 {
        client.request(&[ask(Deed::Prepare, text, None)], &mut pool, 0);
    }
    let payload = message(&[ask(Deed::Prepare, 3, None)]);
    let plan =
        calls(&payload, true).unwrap().plan(&payload, &mut client.statements, on(&pool.connections[0].1));
    assert!(matches!(plan, Plan::Refuse(too_many) if too_many.count == 4 && too_many.max_count == 3));
    client.request(&[ask(Deed::Unprepare, 0, Some(2))], &mut pool, 0);
    let (seen, direct) = client.request(&[ask(Deed::Prepare, 3, None)], &mut pool, 0);
    assert_eq!(seen, direct);
}

#[test]
fn the_same_statement_prepared_again_and_again_has_one_handle() {
    let (mut client, mut pool) = (Client::default(), Pool::new(1, 100));
    for _ in 0..50 {
        client.request(&[ask(Deed::PrepExec, 0, None)], &mut pool, 0);
    }
    assert_eq!(pool.connections[0].1.len(), 1);
    assert_eq!(client.statements.len(), 50);
}

#[test]
fn a_response_that_does_not_fit_its_request_takes_its_handles_back() {
    let (mut statements, mut reals) = (statements(), RealHandles::new(10));
    let payload = message(&[ask(Deed::Prepare, 0, None), ask(Deed::Prepare, 1, None)]);
    let plan = calls(&payload, true).unwrap().plan(&payload, &mut statements, on(&reals));
    let Plan::Send(mut sending) = plan else { panic!("{plan:?}") };
    // A server that does not say where a call ends.
    let mut response = model::Server::default().serve(&payload);
    let done = response.windows(3).position(|bytes| *bytes == [0xFE, 0x81, 0]).unwrap();
    response[done + 1] = 0x01;
    model::edit(&response, &mut sending.expects, &mut statements, &mut reals);
    assert!(sending.expects.out_of_step());
    assert!(reals.want_reset());
    assert_eq!(statements.len(), 0);
}

#[test]
fn a_handle_that_did_not_come_makes_the_connection_want_a_reset() {
    let (mut statements, mut reals) = (statements(), RealHandles::new(10));
    let payload = message(&[ask(Deed::PrepExec, 0, None)]);
    let plan = calls(&payload, true).unwrap().plan(&payload, &mut statements, on(&reals));
    let Plan::Send(mut sending) = plan else { panic!("{plan:?}") };
    sending.expects.broken_off(&mut reals);
    assert!(reals.want_reset());
    reals.clear();
    assert!(!reals.want_reset());
}

#[test]
fn a_handle_that_did_not_come_is_not_met_by_a_number_that_was_never_given() {
    let (mut statements, mut reals) = (statements(), RealHandles::new(10));
    reals.lose();
    let payload = message(&[ask(Deed::Execute, 0, Some(7))]);
    let plan = calls(&payload, true).unwrap().plan(&payload, &mut statements, on(&reals));
    assert_eq!(sent(&plan, &payload).calls[0].parameters[0].value, Value::Int(0));
}

#[test]
fn an_old_handle_is_of_no_use_where_the_new_one_did_not_come() {
    let (mut client, mut pool) = prepared();
    let reals = &mut pool.connections[0].1;
    let payload = message(&[ask(Deed::PrepExec, 0, None)]);
    let plan = calls(&payload, true).unwrap().plan(&payload, &mut client.statements, on(reals));
    let Plan::Send(mut sending) = plan else { panic!("{plan:?}") };
    // The server drops the one and fails before it gives the other.
    sending.expects.broken_off(reals);
    let payload = message(&[ask(Deed::Execute, 0, Some(1))]);
    let plan = calls(&payload, true).unwrap().plan(&payload, &mut client.statements, on(reals));
    assert_eq!(sent(&plan, &payload).calls[0].procedure, Procedure::Id(ProcId::PREP_EXEC));
}

#[test]
fn a_handle_that_the_server_has_dropped_is_not_used_twice() {
    let (mut client, mut pool) = prepared();
    // Somebody's text did it.
    pool.connections[0].0.forget(1);
    let (seen, _) = client.request(&[ask(Deed::Execute, 0, Some(1))], &mut pool, 0);
    assert!(seen.contains("Could not find prepared statement"));
    let (seen, direct) = client.request(&[ask(Deed::Execute, 0, Some(1))], &mut pool, 0);
    assert_eq!(seen, direct);
}

#[test]
fn handles_are_good_only_where_they_were_prepared() {
    let (mut client, pool) = prepared();
    let payload = message(&[ask(Deed::Execute, 0, Some(1))]);
    let elsewhere = Connection { context: 2, ..on(&pool.connections[0].1) };
    let plan = calls(&payload, true).unwrap().plan(&payload, &mut client.statements, elsewhere);
    assert_eq!(sent(&plan, &payload).calls[0].procedure, Procedure::Id(ProcId::PREP_EXEC));
}

#[test]
fn a_request_without_handles_costs_no_allocation() {
    let text = |text: &str| {
        Parameter::new("", TypeInfo::nvarchar(4000, Collation::LATIN1), Value::String(text.to_owned()))
    };
    let parameters = vec![
        text("select * from t where a = @a and b = @b"),
        text("@a int, @b nvarchar(max)"),
        Parameter::new("@a", TypeInfo::IntN(4), Value::Int(1)),
        Parameter::new("@b", TypeInfo::nvarchar(MAX, Collation::LATIN1), Value::String("x".repeat(9000))),
    ];
    let mut payload = Vec::new();
    RpcRequest::one(Procedure::Id(ProcId::EXECUTE_SQL), parameters).write(&mut payload, DIALECT).unwrap();
    let mut follower = RpcFollower::new(DIALECT);
    let allocated = allocation_counter::measure(|| {
        assert!(read(&payload, true, DIALECT, &mut follower).is_none());
        drop(Expectation::default());
    });
    assert_eq!(allocated.count_total, 0);
}

#[test]
fn thousands_of_calls_in_one_message_are_changed_as_they_stream_through() {
    let (mut client, mut pool) = prepared();
    client.request(&[ask(Deed::Prepare, 1, None)], &mut pool, 2);
    let many: Vec<Ask> = (0..6000).map(|at| ask(Deed::Execute, 0, Some(1 + i32::from(at > 5000)))).collect();
    for on in 0..3 {
        let (seen, direct) = client.request_in_pieces(&many, Some((64 << 10, 4088)), &mut pool, on);
        assert_eq!(seen, direct);
    }
}
