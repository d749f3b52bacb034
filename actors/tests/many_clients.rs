//! Five hundred clients with time to think do mixed work over ten server connections, without an error, and leave
//! nothing held: 60% simple requests, 15% prepared statements, 15% transactions, 5% procedures, 5% DDL.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod client;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use client::stage::Stage;
use client::{Client, Response, Who};
use tds::packet::PacketType;
use tds::request::AllHeaders;
use tds::rpc::{Parameter, ProcId, Procedure, RpcRequest};
use tds::type_info::{Collation, TypeInfo};
use tds::value::Value;
use tdsbouncer_config::PoolMode;

const CLIENTS: usize = 500;
const CONNECTIONS: u32 = 10;
const OPERATIONS: u64 = 8;
/// The longest pause between two operations, in milliseconds.
const THINK: u64 = 1200;

fn int(value: i32) -> Parameter {
    Parameter::new("", TypeInfo::IntN(4), Value::Int(value))
}

fn text(value: &str) -> Parameter {
    Parameter::new("", TypeInfo::nvarchar(4000, Collation::LATIN1), Value::String(value.to_owned()))
}

async fn call(client: &mut Client, procedure: Procedure, parameters: Vec<Parameter>) -> Response {
    let headers = Some(AllHeaders::in_transaction(client.transaction));
    let request = RpcRequest { headers, ..RpcRequest::one(procedure, parameters) };
    let mut payload = BytesMut::new();
    request.write(&mut payload, client.dialect).unwrap();
    client.send(PacketType::RPC, &payload).await.unwrap();
    good(client.response().await.unwrap())
}

async fn batch(client: &mut Client, text: &str) -> Response {
    good(client.batch(text).await)
}

fn good(response: Response) -> Response {
    assert!(response.errors.is_empty(), "{:?}", response.errors);
    response
}

struct Worker {
    client: Client,
    number: usize,
    choices: u64,
}

impl Worker {
    fn below(&mut self, end: u64) -> u64 {
        self.choices =
            self.choices.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.choices >> 33) % end
    }

    async fn live(mut self, done: Arc<AtomicUsize>) -> Client {
        for turn in 0..OPERATIONS {
            tokio::time::sleep(Duration::from_millis(self.below(THINK))).await;
            match self.below(100) {
                0..60 => self.simple(turn).await,
                60..75 => self.prepared().await,
                75..90 => self.transaction().await,
                90..95 => self.procedure().await,
                _ => self.ddl(turn).await,
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
        self.client
    }

    async fn simple(&mut self, turn: u64) {
        let wanted = self.number as i64 * 100 + turn as i64;
        let answer = batch(&mut self.client, &format!("SELECT {wanted} FROM stock WHERE id = 1")).await;
        assert_eq!(answer.number(), wanted);
    }

    async fn prepared(&mut self) {
        let n = self.number as i32;
        let handle = Parameter::new("", TypeInfo::IntN(4), Value::Null).by_ref();
        let parameters =
            vec![handle, text("@n int"), text("SELECT @n + COUNT(*) FROM stock WHERE id = @n"), int(n)];
        let prepared = call(&mut self.client, Procedure::Id(ProcId::PREP_EXEC), parameters).await;
        let Value::Int(handle) = prepared.returned[0].value else { panic!("{prepared:?}") };
        for n in [n, n + 1] {
            let answer =
                call(&mut self.client, Procedure::Id(ProcId::EXECUTE), vec![int(handle), int(n)]).await;
            let found = i64::from((1..=100).contains(&n));
            assert_eq!(answer.rows[0][0].as_i64(), Some(i64::from(n) + found));
        }
        call(&mut self.client, Procedure::Id(ProcId::UNPREPARE), vec![int(handle)]).await;
    }

    async fn transaction(&mut self) {
        let row = 1 + self.number % 100;
        batch(&mut self.client, "BEGIN TRANSACTION").await;
        batch(&mut self.client, &format!("UPDATE stock SET n = n - 1 WHERE id = {row}")).await;
        tokio::time::sleep(Duration::from_millis(self.below(5))).await;
        batch(&mut self.client, &format!("UPDATE stock SET n = n + 1 WHERE id = {row}")).await;
        let inside = batch(&mut self.client, "SELECT @@TRANCOUNT").await;
        assert_eq!(inside.number(), 1);
        let end = if self.below(4) == 0 { "ROLLBACK" } else { "COMMIT" };
        batch(&mut self.client, end).await;
    }

    async fn procedure(&mut self) {
        let n = self.number as i32;
        let answer = call(&mut self.client, Procedure::Name("count_stock".to_owned()), vec![int(n)]).await;
        assert_eq!(answer.rows[0][1].as_i64(), Some(i64::from(n)));
    }

    async fn ddl(&mut self, turn: u64) {
        let table = format!("made_{}_{turn}", self.number);
        batch(&mut self.client, &format!("CREATE TABLE {table} (n int)")).await;
        batch(&mut self.client, &format!("DROP TABLE {table}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_clients_do_mixed_work_over_ten_connections_and_leave_nothing_held() {
    let patient = |bucket: &mut tdsbouncer_config::Bucket| {
        bucket.pool_mode = PoolMode::Transaction;
        bucket.acquire_timeout = Duration::from_secs(120);
        bucket.max_clients = None;
        bucket.queue_limit = CLIENTS;
    };
    let stage = Stage::set(CONNECTIONS, patient, |_| {}).await;
    let mut owner = Client::connect(stage.server.addr(), &Who::default()).await;
    batch(&mut owner, "CREATE TABLE stock (id int NOT NULL PRIMARY KEY, n int NOT NULL)").await;
    batch(&mut owner, "DECLARE @i int; SET @i = 1; WHILE @i <= 100 BEGIN INSERT stock VALUES (@i, 1000); SET @i = @i + 1 END").await;
    batch(&mut owner, "CREATE PROCEDURE count_stock @n int AS SELECT COUNT(*), @n FROM stock").await;

    let done = Arc::new(AtomicUsize::new(0));
    let mut workers = Vec::new();
    for number in 0..CLIENTS {
        let client = Client::connect(stage.address, &Who::default()).await;
        let worker = Worker { client, number, choices: number as u64 };
        workers.push(tokio::spawn(worker.live(Arc::clone(&done))));
    }
    let mut clients = Vec::new();
    for worker in workers {
        clients.push(worker.await.unwrap());
    }
    assert_eq!(done.load(Ordering::Relaxed), CLIENTS * OPERATIONS as usize);
    stage.until("nothing is held", |stage| stage.proxy.health().buckets[0].leased == 0).await;
    assert_eq!(stage.proxy.health().clients, CLIENTS);
    let total = batch(&mut owner, "SELECT SUM(n) FROM stock").await;
    assert_eq!(total.number(), 100_000);
    assert_eq!(
        batch(&mut owner, "SELECT COUNT(*) FROM sys.tables WHERE name LIKE 'made_%'").await.number(),
        0
    );
    drop((clients, owner));
    stage.until_everybody_left().await;
    assert!(stage.server.stats().peak <= CONNECTIONS as usize + 1, "{:?}", stage.server.stats());
}
