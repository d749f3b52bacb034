//! Three proxies, one Redis, one server that counts its connections: the limit holds whatever fails.

#![cfg(target_os = "linux")]
#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed expectation is a failed test")]
#![allow(unreachable_pub, dead_code, reason = "modules of one test program")]

#[path = "../../actors/tests/client/mod.rs"]
mod client;
mod faults;
mod fleet;
mod redis;
mod relay;
mod secured;

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
    fleet.clients(CLIENTS, 10);
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
    // Everybody wants more than there is: nothing changes, so there is nothing to say beside the renewals.
    let (commands, served) = (redis.commands(), fleet.served());
    fleet.for_a_while(LEASE * 2).await;
    let (commands, served) = (redis.commands() - commands, fleet.served() - served);
    println!("{commands} commands for {served} requests");
    // Five renewals a lease and proxy, one look whether the wake channel lives; more, because clients come and go, and the
    // more so the busier the machine is.
    assert!(commands <= 3 * 2 * 6 * 10, "{commands} commands in two lease times");
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_requests_cost_less_than_one_command_however_many_buckets_there_are() {
    let redis = Redis::start(&["--save", ""]);
    let longer = one(redis.port).replace("10s", "1h") + "\nlease_time = \"1m\"";
    let mut fleet = Fleet::of(3, 6, |_| longer.clone());
    fleet.steady_clients(54);
    fleet.until_served(1000).await;
    let agreed = |proxy: &fleet::Proxy| proxy.rows_of_its_own().all(|row| row["state"] == "normal");
    fleet.until("all agree", |fleet| fleet.proxies.iter().all(agreed)).await;
    // Until each has renewed its leases of all six, at least.
    let (commands, scripts, served) = (redis.commands(), redis.calls("evalsha"), fleet.served());
    let enough =
        |fleet: &mut Fleet| fleet.served() >= served + 20_000 && redis.calls("evalsha") >= scripts + 6;
    fleet.until("many requests are served", enough).await;
    let (commands, served) = (redis.commands() - commands, fleet.served() - served);
    println!("{commands} commands for {served} requests");
    assert!(commands * 1000 < served, "{commands} commands for {served} requests");
    fleet.stop().await;
    fleet.within_limit();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_holds_nothing_and_has_no_share_says_nothing_until_a_client_comes() {
    let redis = Redis::start(&["--save", ""]);
    let mut fleet = Fleet::of(3, 2, |_| one(redis.port).replace("= 3", "= 0"));
    let idle = |proxy: &fleet::Proxy| proxy.rows_of_its_own().all(|row| row["state"] == "idle");
    fleet.until("all are idle", |fleet| fleet.proxies.iter().all(idle)).await;
    assert!(!redis.ask(&["HGETALL", "tdsbouncer:{b0}"]).contains("m:"), "all took their leave");
    let scripts = || redis.calls("evalsha");
    let before = scripts();
    fleet.for_a_while(LEASE * 2).await;
    assert_eq!(scripts(), before);
    let who = client::Who { database: fleet::database(1), ..client::Who::default() };
    let mut client = client::Client::connect(fleet.proxies[1].address, &who).await;
    assert_eq!(client.batch("SELECT 2").await.number(), 2);
    // Only the one that is used, at the proxy that uses it; and Redis is told apart from one that began anew.
    assert!(fleet.proxies[0].rows_of_its_own().all(|row| row["state"] == "idle"));
    assert!(redis.ask(&["HGETALL", "tdsbouncer:{b1}"]).contains("m:p1/"));
    fleet.within_limit();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_is_changed_in_redis_or_by_reload_holds_for_all() {
    let redis = Redis::start(&["--save", ""]);
    let mut fleet = at_work(|_| one(redis.port)).await;
    let open = |limit: usize| move |fleet: &mut Fleet| fleet.open() == limit;
    let limits =
        |proxy: &fleet::Proxy| proxy.rows_of_its_own().map(|row| row["max_connections"].clone()).collect();
    redis.ask(&["HSET", "tdsbouncer:{b0}", "limit", "12"]);
    fleet.until("the limit in Redis is in force", open(12)).await;
    let seen: Vec<Vec<_>> = fleet.proxies.iter().map(limits).collect();
    assert_eq!(seen, [[12], [12], [12]].map(|of| of.map(serde_json::Value::from).to_vec()));
    redis.ask(&["HDEL", "tdsbouncer:{b0}", "limit"]);
    fleet.until("the configured limit is in force again", open(20)).await;
    // Of different limits the lowest counts, so one that is lowered counts at once, and one that is raised when all are.
    let change = |from: &'static str, to: &'static str| move |text: &str| text.replace(from, to);
    fleet.proxies[0].reload(change("max_connections = 20", "max_connections = 9"));
    fleet.until("the lowest limit is in force", open(9)).await;
    for server in &fleet.servers {
        server.restart_peak();
    }
    for number in [1, 2, 0] {
        let from = if number == 0 { "max_connections = 9" } else { "max_connections = 20" };
        fleet.proxies[number].reload(change(from, "max_connections = 15"));
    }
    fleet.until("the new limit is in force", open(15)).await;
    assert!(fleet.servers[0].stats().peak <= 15);
    for proxy in &fleet.proxies {
        proxy.reload(change("max_connections = 15", "max_connections = 20"));
    }
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_taken_away_and_brought_back_by_reloads_is_shared_again() {
    let redis = Redis::start(&["--save", ""]);
    let mut fleet = Fleet::of(2, 2, |_| one(redis.port));
    let who = client::Who { database: fleet::database(1), ..client::Who::default() };
    for round in 0..2 {
        let mut client = client::Client::connect(fleet.proxies[0].address, &who).await;
        assert_eq!(client.batch("SELECT 2").await.number(), 2, "round {round}");
        drop(client);
        // Its table is the last.
        fleet.proxies[0].reload(|text| {
            let (rest, table) = text.rsplit_once("[[buckets]]").unwrap();
            rest.to_owned() + &table.lines().map(|line| format!("#{line}\n")).collect::<String>()
        });
        let gone = |fleet: &mut Fleet| fleet.proxies[0].rows_of_its_own().count() == 1;
        fleet.until("the bucket is gone", gone).await;
        let forgotten = |_: &mut Fleet| !redis.ask(&["HGETALL", "tdsbouncer:{b1}"]).contains("m:p0/");
        fleet.until("Redis forgets its member", forgotten).await;
        fleet.proxies[0].reload(|text| {
            let (rest, table) = text.split_once("#\n").unwrap();
            format!("{rest}[[buckets]]\n{}", table.replace('#', ""))
        });
        let back = |fleet: &mut Fleet| fleet.proxies[0].rows_of_its_own().count() == 2;
        fleet.until("the bucket is back", back).await;
    }
    fleet.within_limit();
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
    fleet.until("shares are kept", |fleet| fleet.open() <= 18).await;
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
    fleet.clients(CLIENTS / 3, 10);
    fleet.until_served(300).await;
    for number in 0..4 {
        fleet.proxies[number].drain();
        fleet.proxies[number].start_again();
        fleet.until_served(100).await;
    }
    fleet.end().await;
}

fn behind(watched: &Watched) -> String {
    let urls: Vec<String> =
        watched.sentinels.iter().map(|redis| format!("\"redis://127.0.0.1:{}\"", redis.port)).collect();
    let urls = urls.join(", ");
    format!("topology = \"sentinel\"\nurls = [{urls}]\nexpected_instances = 3\nfallback_time = \"1h\"")
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_make_the_replica_master() {
    let mut watched = Watched::start(1);
    let sentinel = behind(&watched);
    let mut fleet = at_work(|_| sentinel.clone()).await;
    watched.master.kill();
    watched.until_a_replica_is_master();
    fleet.for_a_while(LEASE).await;
    fleet.until("all agree", |fleet| fleet.proxies.iter().all(|proxy| proxy.mode() == "normal")).await;
    fleet.until_served(200).await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_cut_off_and_lives_on_beside_the_new_one_grants_nothing() {
    let mut watched = Watched::start(2);
    let user = "username = \"proxy\"\npassword = \"env:REDIS_PASSWORD\"";
    let sentinel = format!("{}\nmin_replicas = 1\n{user}", behind(&watched));
    let mut fleet = Fleet::known(3, &[("REDIS_PASSWORD", "pr0xy".as_ref())], |_| sentinel.clone());
    fleet.clients(CLIENTS, 10);
    fleet.until_all_slots_are_used().await;
    watched.cut_off_master();
    watched.until_a_replica_is_master();
    // Both are masters, and a program that knows no better could go on with the old one.
    assert!(watched.master.ask(&["ROLE"]).starts_with("master"));
    fleet.for_a_while(LEASE * 2).await;
    fleet.until("all agree", |fleet| fleet.proxies.iter().all(|proxy| proxy.mode() == "normal")).await;
    let new = watched.replicas.iter().find(|replica| replica.ask(&["ROLE"]).starts_with("master")).unwrap();
    let members = new.ask(&["HKEYS", "tdsbouncer:{b0}"]);
    assert_eq!(members.lines().filter(|field| field.starts_with("m:")).count(), 3, "{members}");
    assert!(watched.master.ask(&["ROLE"]).starts_with("master"), "the old one is still there");
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
    let slot: u32 = cluster.nodes[0].ask(&["CLUSTER", "KEYSLOT", "tdsbouncer:{b0}"]).parse().unwrap();
    let holder = (slot / 5461).min(2) as usize;
    assert_eq!(cluster.nodes[holder].ask(&["KEYS", "*"]), "tdsbouncer:{b0}");
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
    let who = client::Who { database: fleet::database(0), ..client::Who::default() };
    let mut held = Vec::new();
    for _ in 0..20 {
        let mut client = client::Client::connect(first, &who).await;
        assert_eq!(client.batch("BEGIN TRANSACTION SELECT 1").await.number(), 1);
        held.push(client);
    }
    drop(held);
    fleet.until("all lie idle at the first", |fleet| fleet.open() == 20).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = redis.commands();
    let mut second = client::Client::connect(fleet.proxies[1].address, &who).await;
    assert_eq!(second.batch("SELECT 2").await.number(), 2);
    let commands = redis.commands() - before;
    // One asks, one gives, one is told; renewals of three proxies may fall between.
    println!("served with {commands} commands");
    assert!((2..=12).contains(&commands), "{commands}");
    // What was given is not taken back and forth.
    let before = redis.commands();
    fleet.for_a_while(LEASE).await;
    let commands = redis.commands() - before;
    assert!(commands <= 3 * (5 + 3), "{commands} commands in a lease time");
    fleet.within_limit();
}
