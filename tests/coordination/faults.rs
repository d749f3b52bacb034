//! What faults cost, and mixes of them at random. `make faults` plays all of it; a few mixes belong to every test run.

use std::time::{Duration, Instant};

use crate::fleet::{Fleet, LEASE};
use crate::redis::{Redis, Watched};
use crate::relay::Relay;
use crate::{behind, one};

const CLIENTS: usize = 300;

/// Milliseconds that a request has a connection: twenty connections serve two hundred a second, which no machine is
/// too slow for. So what is missing is missing connections.
const TAKES: u32 = 100;

/// How long is watched, from the fault on.
const WATCHED: Duration = LEASE.saturating_mul(12);

/// A seed's endless numbers.
struct Dice(u64);

impl Dice {
    /// A number below `sides` (splitmix64).
    fn throw(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % sides as u64) as usize
    }

    /// A time up to so many tenths of a lease.
    fn time(&mut self, tenths: usize) -> Duration {
        LEASE / 1000 * (self.throw(tenths * 100) + 1) as u32
    }
}

/// Plays some faults on three proxies with two buckets, then lets everything heal: the limits held, no slot is lost,
/// and all clients were answered, refused, or lost their proxy.
async fn mix(seed: u64, faults: usize) {
    let mut dice = Dice(seed);
    let keeps_data = dice.throw(2) == 0;
    let arguments: &[&str] =
        if keeps_data { &["--appendonly", "yes", "--appendfsync", "always"] } else { &["--save", ""] };
    let mut redis = Redis::start(arguments);
    let mut relays = Vec::new();
    for _ in 0..3 {
        relays.push(Relay::to(redis.address()).await);
    }
    let mut fleet = Fleet::of(3, 2, |number| one(relays[number].address.port()));
    fleet.clients(CLIENTS, TAKES);
    fleet.until_all_slots_are_used().await;
    let mut played = Vec::new();
    for _ in 0..faults {
        let number = dice.throw(3);
        let name = match dice.throw(8) {
            0 => {
                fleet.proxies[number].kill();
                fleet.for_a_while(dice.time(10)).await;
                fleet.proxies[number].start_again();
                "kill -9"
            }
            1 => {
                fleet.proxies[number].signal("STOP");
                fleet.for_a_while(dice.time(15)).await;
                if fleet.proxies[number].ended_by().is_some() {
                    fleet.proxies[number].start_again();
                } else {
                    fleet.proxies[number].signal("CONT");
                }
                "stop"
            }
            2 => {
                redis.kill_and_empty();
                fleet.for_a_while(dice.time(8)).await;
                redis.start_again();
                "Redis empty"
            }
            3 => {
                redis.kill();
                fleet.for_a_while(dice.time(8)).await;
                redis.start_again();
                "Redis again"
            }
            4 => {
                relays[number].cut();
                "cut"
            }
            5 => {
                let direction = dice.throw(3);
                relays[number].stall(direction != 0, direction != 1);
                ["stall of answers", "stall of requests", "stall"][direction]
            }
            6 => {
                fleet.proxies[number].drain();
                fleet.proxies[number].start_again();
                "restart"
            }
            _ => {
                relays.iter().for_each(Relay::heal);
                "heal"
            }
        };
        played.push(format!("{name} {number}"));
        fleet.for_a_while(dice.time(6)).await;
    }
    relays.iter().for_each(Relay::heal);
    for proxy in &mut fleet.proxies {
        // A fence may have fallen late: the supervisor of a real proxy starts it again.
        if proxy.ended_by().is_some() {
            proxy.start_again();
        }
    }
    println!("seed {seed}: {}", played.join(", "));
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_at_random_1() {
    mix(1, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_at_random_2() {
    mix(2, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_at_random_3() {
    mix(3, 4).await;
}

/// `RUNS` mixes from the seed `SEED` on.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "half an hour: make faults"]
async fn fifty_mixes_of_faults() {
    let said = |name: &str, else_: u64| std::env::var(name).map_or(else_, |text| text.parse().unwrap());
    let first = said("SEED", 1);
    for seed in first..first + said("RUNS", 50) {
        mix(seed, 8).await;
    }
}

/// Served requests, while something is done to a fleet: all in all, and at last.
struct Served {
    all: u64,
    at_last: u64,
}

/// Watches for [`WATCHED`] while `happens`.
async fn watch(fleet: &mut Fleet, happens: impl AsyncFnOnce(&mut Fleet)) -> Served {
    fleet.until_all_slots_are_used().await;
    fleet.for_a_while(LEASE).await;
    let (begin, before) = (Instant::now(), fleet.served());
    happens(fleet).await;
    let last = LEASE * 3;
    fleet.for_a_while((WATCHED - last).saturating_sub(begin.elapsed())).await;
    let (then, middle) = (Instant::now(), fleet.served());
    fleet.for_a_while(WATCHED.saturating_sub(begin.elapsed()).max(last / 2)).await;
    let a_second = |count: u64, time: Duration| (count as f64 / time.as_secs_f64() * 1000.0) as u64;
    Served {
        all: a_second(fleet.served() - before, begin.elapsed()),
        at_last: a_second(fleet.served() - middle, then.elapsed()),
    }
}

struct Table {
    alone: Served,
}

impl Table {
    fn row(&self, name: &str, served: &Served, fleet: &Fleet) {
        let percent = |served: u64, alone: u64| served as f64 * 100.0 / alone as f64;
        println!(
            "| {name} | {:.1} % | {:.1} % | {:?} |",
            percent(served.all, self.alone.all),
            percent(served.at_last, self.alone.at_last),
            fleet.servers.iter().map(|server| server.stats().peak).collect::<Vec<_>>()
        );
    }
}

fn of_kept_share(port: u16) -> String {
    one(port).replace("10s", "1h")
}

/// With no more than its share in use a proxy may sleep, and wakes; with more its fence ends it.
async fn sleeps_for_two_leases(fleet: &mut Fleet, number: usize) {
    fleet.proxies[number].signal("STOP");
    fleet.for_a_while(LEASE * 2).await;
    match fleet.proxies[number].ended_by() {
        Some(_) => fleet.proxies[number].start_again(),
        None => fleet.proxies[number].signal("CONT"),
    }
}

/// The table in docs/coordinator.md: requests served beside those of one proxy with the limit to itself.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a quarter of an hour: make faults"]
async fn what_each_fault_costs() {
    let plain = ["--save", ""];
    let redis = Redis::start(&plain);
    let mut fleet = Fleet::of(1, 1, |_| one(redis.port).replace("= 3", "= 0"));
    fleet.clients(CLIENTS, TAKES);
    let table = Table { alone: watch(&mut fleet, async |_| {}).await };
    println!("one proxy alone: {:.1} requests/s", table.alone.all as f64 / 1000.0);
    fleet.stop().await;
    println!(
        "| fault | served in {WATCHED:?} from it on | in the last quarter | most connections |\n|---|---|---|---|"
    );

    let three = |redis: &Redis| {
        let port = redis.port;
        let mut fleet = Fleet::of(3, 1, move |_| of_kept_share(port));
        fleet.clients(CLIENTS, TAKES);
        fleet
    };

    let redis = Redis::start(&plain);
    let mut fleet = three(&redis);
    let served = watch(&mut fleet, async |_| {}).await;
    table.row("none", &served, &fleet);
    let served = watch(&mut fleet, async |fleet| {
        fleet.proxies[1].kill();
        fleet.for_a_while(Duration::from_secs(1)).await;
        fleet.proxies[1].start_again();
    })
    .await;
    table.row("`kill -9`, started again after 1 s", &served, &fleet);
    let served = watch(&mut fleet, async |fleet| sleeps_for_two_leases(fleet, 2).await).await;
    table.row("SIGSTOP for two lease times", &served, &fleet);
    let served = watch(&mut fleet, async |fleet| {
        fleet.proxies[2].signal("STOP");
        fleet.for_a_while(LEASE * 4 / 10).await;
        fleet.proxies[2].signal("CONT");
    })
    .await;
    table.row("SIGSTOP for 0.4 lease times", &served, &fleet);
    let served = watch(&mut fleet, async |fleet| {
        for number in 0..3 {
            fleet.proxies[number].drain();
            fleet.proxies[number].start_again();
            fleet.for_a_while(LEASE / 2).await;
        }
    })
    .await;
    table.row("rolling restart", &served, &fleet);
    fleet.stop().await;
    drop(fleet);

    let redis = Redis::start(&plain);
    let port = redis.port;
    let mut fleet = Fleet::of(3, 1, move |_| one(port).replace("= 3", "= 0"));
    fleet.clients(CLIENTS, TAKES);
    let served = watch(&mut fleet, async |fleet| sleeps_for_two_leases(fleet, 2).await).await;
    table.row("SIGSTOP for two lease times, no shares", &served, &fleet);
    let served = watch(&mut fleet, async |fleet| fleet.proxies[1].kill()).await;
    table.row("`kill -9`, stays away, no shares", &served, &fleet);
    fleet.stop().await;
    drop(fleet);

    let mut redis = Redis::start(&plain);
    let mut fleet = three(&redis);
    let served = watch(&mut fleet, async |fleet| {
        redis.kill_and_empty();
        fleet.for_a_while(LEASE).await;
        redis.start_again();
    })
    .await;
    table.row("Redis away for a lease time, back empty", &served, &fleet);
    fleet.stop().await;
    drop(fleet);

    let mut redis = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let mut fleet = three(&redis);
    let served = watch(&mut fleet, async |fleet| {
        redis.kill();
        fleet.for_a_while(LEASE).await;
        redis.start_again();
    })
    .await;
    table.row("Redis away for a lease time, back with its data", &served, &fleet);
    fleet.stop().await;
    drop(fleet);

    let mut watched = Watched::start(1);
    let sentinel = behind(&watched);
    let mut fleet = Fleet::of(3, 1, |_| sentinel.clone());
    fleet.clients(CLIENTS, TAKES);
    let served = watch(&mut fleet, async |_| {
        watched.master.kill();
        watched.until_a_replica_is_master();
    })
    .await;
    table.row("Sentinel failover", &served, &fleet);
    fleet.stop().await;
    drop(fleet);

    let redis = Redis::start(&plain);
    let relay = Relay::to(redis.address()).await;
    let (through, direct) = (relay.address.port(), redis.port);
    let mut fleet = Fleet::of(3, 1, move |number| of_kept_share(if number == 0 { through } else { direct }));
    fleet.clients(CLIENTS, TAKES);
    for (name, up, down) in [("requests", true, false), ("answers", false, true)] {
        let served = watch(&mut fleet, async |fleet| {
            relay.stall(up, down);
            fleet.for_a_while(LEASE * 4).await;
            relay.heal();
        })
        .await;
        table.row(&format!("one proxy's {name} do not arrive for 4 lease times"), &served, &fleet);
    }
    fleet.stop().await;
    drop(fleet);

    let redis = Redis::start(&plain);
    let port = redis.port;
    // The share of one that was never heard of rests for the fallback time: not for long here.
    let four = move |_: usize| one(port).replace("= 3", "= 4");
    let mut fleet = Fleet::of(3, 1, four);
    fleet.clients(CLIENTS, TAKES);
    let served = watch(&mut fleet, async |fleet| {
        fleet.join(&four(3));
        fleet.clients(CLIENTS / 3, TAKES);
    })
    .await;
    table.row("a fourth proxy joins", &served, &fleet);
    fleet.stop().await;
}
