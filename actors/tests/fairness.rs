//! Tenants of one bucket: in turn, with a bound on what each may take, seen from the clients' side.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod client;

use client::stage::Stage;
use client::{Client, Who};

fn of(database: &str) -> Who {
    Who { database: database.to_owned(), ..Who::default() }
}

/// Logs in once while there is a connection for it: later logins are answered from memory.
async fn known(stage: &Stage, database: &str) {
    drop(Client::connect(stage.address, &of(database)).await);
    stage.until("it leaves", |stage| stage.proxy.health().clients == 0).await;
}

async fn waits(stage: &Stage, database: &str, waiting: usize) -> Client {
    let mut client = Client::connect(stage.address, &of(database)).await;
    client.send_batch("SELECT 1").await.unwrap();
    stage.until("it waits", |stage| stage.proxy.health().buckets[0].waiting == waiting).await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_thirty_waiting_clients_cost_another_one_turn() {
    let stage = Stage::with(1).await;
    known(&stage, "depot").await;
    let mut holder = Client::connect(stage.address, &of("shop")).await;
    holder.batch("SELECT 1").await;
    let (tell, mut order) = tokio::sync::mpsc::unbounded_channel();
    for n in 0..31 {
        let database = if n < 30 { "shop" } else { "depot" };
        let mut client = waits(&stage, database, n + 1).await;
        let tell = tell.clone();
        tokio::spawn(async move {
            assert_eq!(client.response().await.unwrap().number(), 1);
            tell.send(database).unwrap();
        });
    }
    drop(holder);
    let mut served = Vec::new();
    for _ in 0..31 {
        served.push(order.recv().await.unwrap());
    }
    let turn = served.iter().position(|database| *database == "depot").unwrap();
    assert!(turn <= 1, "served as number {turn}, though it came last: {served:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_takes_no_more_connections_than_it_may_and_others_take_the_rest() {
    let stage = Stage::set(3, |bucket| bucket.tenants.max_connections = Some(2), |_| {}).await;
    let mut first = Client::connect(stage.address, &of("shop")).await;
    let mut second = Client::connect(stage.address, &of("shop")).await;
    first.batch("SELECT 1").await;
    second.batch("SELECT 1").await;
    let mut third = waits(&stage, "shop", 1).await;
    let mut other = Client::connect(stage.address, &of("depot")).await;
    assert_eq!(other.batch("SELECT 5").await.number(), 5, "the third connection is not for that tenant");
    drop(first);
    assert_eq!(third.response().await.unwrap().number(), 1);
    drop((second, third, other));
    stage.until_everybody_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn surplus_clients_of_a_tenant_are_told_so_with_a_number_that_drivers_retry() {
    let stage = Stage::set(
        1,
        |bucket| {
            bucket.tenants.queue_limit = Some(1);
            bucket.tenants.max_clients = Some(3);
        },
        |_| {},
    )
    .await;
    known(&stage, "depot").await;
    let mut holder = Client::connect(stage.address, &of("shop")).await;
    holder.batch("SELECT 1").await;
    let mut waiting = waits(&stage, "shop", 1).await;
    let mut surplus = Client::connect(stage.address, &of("shop")).await;
    let answer = surplus.batch("SELECT 1").await;
    assert_eq!(answer.error(), 10928);
    assert!(answer.errors[0].text.contains("tenants.queue_limit 1"), "{}", answer.errors[0].text);
    let refused = Client::refused(stage.address, &of("shop")).await;
    assert_eq!(refused[0].number, 10928);
    assert!(refused[0].text.contains("tenants.max_clients"), "{}", refused[0].text);
    let other = waits(&stage, "depot", 2).await;
    drop(holder);
    assert_eq!(waiting.response().await.unwrap().number(), 1);
    drop(other);
}
