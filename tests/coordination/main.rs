//! Three proxies, one Redis, one server that counts its connections: the limit holds whatever fails.

#![cfg(target_os = "linux")]
#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed expectation is a failed test")]
#![allow(unreachable_pub, dead_code, reason = "modules of one test program")]

#[path = "../../actors/tests/client/mod.rs"]
mod client;
mod fleet;
mod redis;
mod relay;

use std::sync::atomic::Ordering;
use std::time::Duration;

use fleet::{Fleet, LEASE};
use redis::{Cluster, Redis, Watched};
use relay::Relay;

/// Enough to want more than there is.
const CLIENTS: usize = 60;

fn one(port: u16) -> String {
    format!("urls = [\"redis://127.0.0.1:{port}\"]\nexpected_instances = 3\nfallback_time = \"10s\"")
}

/// A fleet at work.
async fn at_work(coordinator: impl Fn(usize) -> String) -> Fleet {
    let mut fleet = Fleet::start(coordinator);
    fleet.clients(CLIENTS);
    fleet.until_all_slots_are_used().await;
    fleet.until_served(200).await;
    fleet
}

#[tokio::test(flavor = "multi_thread")]
async fn three_proxies_share_a_limit_fairly_and_ask_redis_seldom() {
    let redis = Redis::start(&["--save", ""]);
    let fleet = at_work(|_| one(redis.port)).await;
    fleet.for_a_while(LEASE).await;
    let rows = fleet.proxies[0].coordinator();
    let quotas: Vec<u64> = rows.iter().map(|row| row["quota"].as_u64().unwrap()).collect();
    assert_eq!(quotas.iter().sum::<u64>(), 20, "{rows:?}");
    assert!(quotas.iter().all(|quota| (6..=7).contains(quota)), "{rows:?}");
    assert!(rows.iter().all(|row| row["instance"].as_str().unwrap().contains('/')), "{rows:?}");
    assert_eq!(fleet.proxies[0].mode(), "normal");
    // Steady load: each proxy renews, and nothing more.
    let processed = || {
        let stats = redis.ask(&["INFO", "commandstats"]);
        let line = stats.lines().find(|line| line.starts_with("cmdstat_evalsha:calls="));
        line.and_then(|line| line.split(['=', ',']).nth(1)).map_or(0, |calls| calls.parse::<u64>().unwrap())
    };
    let (commands, served) = (processed(), fleet.met.served.load(Ordering::Relaxed));
    fleet.for_a_while(LEASE * 2).await;
    let (commands, served) = (processed() - commands, fleet.met.served.load(Ordering::Relaxed) - served);
    println!("{commands} commands for {served} requests");
    // Five renewals a lease and proxy; some more, because clients come and go.
    assert!(commands <= 3 * 2 * 5 * 4, "{commands} commands in two lease times");
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_proxys_slots_come_back() {
    let redis = Redis::start(&["--save", ""]);
    let mut fleet = at_work(|_| one(redis.port)).await;
    fleet.proxies[1].kill();
    fleet.for_a_while(LEASE).await;
    // Its share is kept for it for the fallback time; then all twenty are in use by the two others.
    fleet.until_all_slots_are_used().await;
    fleet.proxies[1].start_again();
    fleet.until_served(200).await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_stopped_for_longer_than_its_lease_is_ended_before_others_use_its_slots() {
    let redis = Redis::start(&["--save", ""]);
    let mut fleet = at_work(|_| one(redis.port)).await;
    fleet.proxies[2].signal("STOP");
    fleet.for_a_while(LEASE * 2).await;
    fleet.until("the kernel ends the sleeper", |fleet| fleet.proxies[2].ended_by() == Some(9)).await;
    fleet.until_all_slots_are_used().await;
    fleet.proxies[2].start_again();
    fleet.until_served(200).await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_stopped_for_less_than_its_lease_goes_on() {
    let redis = Redis::start(&["--save", ""]);
    let mut fleet = at_work(|_| one(redis.port)).await;
    fleet.proxies[2].signal("STOP");
    fleet.for_a_while(LEASE / 10).await;
    fleet.proxies[2].signal("CONT");
    fleet.until_served(200).await;
    assert_eq!(fleet.proxies[2].ended_by(), None);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_comes_back_empty_finds_out_who_holds_what() {
    let mut redis = Redis::start(&["--save", ""]);
    let mut fleet = at_work(|_| one(redis.port)).await;
    redis.kill_and_empty();
    fleet.for_a_while(LEASE / 2).await;
    redis.start_again();
    fleet.for_a_while(LEASE).await;
    fleet.until("all agree", |fleet| fleet.proxies.iter().all(|proxy| proxy.mode() == "normal")).await;
    fleet.until_served(200).await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_each_works_with_its_share_and_a_redis_with_its_data_is_joined_again() {
    let mut redis = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let port = redis.port;
    let long = move |_: usize| one(port).replace("10s", "1h");
    let mut fleet = at_work(long).await;
    redis.kill();
    fleet.for_a_while(LEASE).await;
    fleet.until("all fall back", |fleet| fleet.proxies.iter().all(|proxy| proxy.mode() == "fallback")).await;
    // 20 / 3 each.
    fleet.until("shares are kept", |fleet| fleet.server.stats().open <= 18).await;
    fleet.until_served(200).await;
    redis.start_again();
    fleet.until("all agree", |fleet| fleet.proxies.iter().all(|proxy| proxy.mode() == "normal")).await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_cut_off_from_redis_keeps_to_its_share() {
    let redis = Redis::start(&["--save", ""]);
    let relay = Relay::to(redis.address()).await;
    let (through, direct) = (relay.address.port(), redis.port);
    let port = move |number| one(if number == 0 { through } else { direct }).replace("10s", "1h");
    let mut fleet = at_work(port).await;
    // Cut; then silent in both directions; then each direction alone: requests that arrive, answers that do not.
    for round in 0..4 {
        match round {
            0 => relay.cut(),
            1 => relay.stall(true, true),
            2 => relay.stall(false, true),
            _ => relay.stall(true, false),
        }
        fleet
            .until("the one that is cut off falls back", |fleet| fleet.proxies[0].mode() == "fallback")
            .await;
        fleet.for_a_while(LEASE / 2).await;
        relay.heal();
        fleet.until("it is back", |fleet| fleet.proxies[0].mode() == "normal").await;
    }
    fleet.until_served(200).await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_joins_and_all_are_restarted_one_by_one() {
    let redis = Redis::start(&["--save", ""]);
    let port = redis.port;
    let four = move |_: usize| one(port).replace("= 3", "= 4");
    let mut fleet = at_work(four).await;
    fleet.join(&four(3));
    fleet.clients(CLIENTS / 3);
    fleet.until_served(300).await;
    for number in 0..4 {
        fleet.proxies[number].drain();
        fleet.proxies[number].start_again();
        fleet.until_served(100).await;
    }
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_make_the_replica_master() {
    let mut watched = Watched::start();
    let urls: Vec<String> =
        watched.sentinels.iter().map(|redis| format!("\"redis://127.0.0.1:{}\"", redis.port)).collect();
    let urls = urls.join(", ");
    let sentinel = move |_: usize| {
        format!("topology = \"sentinel\"\nurls = [{urls}]\nexpected_instances = 3\nfallback_time = \"1h\"")
    };
    let mut fleet = at_work(sentinel).await;
    watched.master.kill();
    watched.until_replica_is_master();
    fleet.for_a_while(LEASE).await;
    fleet.until("all agree", |fleet| fleet.proxies.iter().all(|proxy| proxy.mode() == "normal")).await;
    fleet.until_served(200).await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_holds_each_bucket_on_one_of_its_nodes() {
    let mut cluster = Cluster::start();
    let urls: Vec<String> =
        cluster.nodes.iter().map(|redis| format!("\"redis://127.0.0.1:{}\"", redis.port)).collect();
    let urls = urls.join(", ");
    let settings = move |_: usize| {
        format!("topology = \"cluster\"\nurls = [{urls}]\nexpected_instances = 3\nfallback_time = \"1h\"")
    };
    let mut fleet = at_work(settings).await;
    let slot: u32 = cluster.nodes[0].ask(&["CLUSTER", "KEYSLOT", "tdsbouncer:{b1}"]).parse().unwrap();
    let holder = (slot / 5461).min(2) as usize;
    assert_eq!(cluster.nodes[holder].ask(&["KEYS", "*"]), "tdsbouncer:{b1}");
    cluster.nodes[holder].kill();
    fleet.for_a_while(LEASE).await;
    cluster.nodes[holder].start_again();
    fleet.until("all agree", |fleet| fleet.proxies.iter().all(|proxy| proxy.mode() == "normal")).await;
    fleet.until_served(200).await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_slots_go_to_who_waits_within_a_second() {
    let redis = Redis::start(&["--save", ""]);
    let mut fleet = Fleet::start(|_| one(redis.port));
    let first = fleet.proxies[0].address;
    let mut held = Vec::new();
    for _ in 0..20 {
        let mut client = client::Client::connect(first, &client::Who::default()).await;
        assert_eq!(client.batch("BEGIN TRANSACTION SELECT 1").await.number(), 1);
        held.push(client);
    }
    drop(held);
    fleet.until("all lie idle at the first", |fleet| fleet.server.stats().open == 20).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut second = client::Client::connect(fleet.proxies[1].address, &client::Who::default()).await;
    let asked = std::time::Instant::now();
    assert_eq!(second.batch("SELECT 2").await.number(), 2);
    println!("served after {:?}", asked.elapsed());
    fleet.within_limit();
}
