//! Random scripts of state-changing requests from many clients at once, each run directly and through the proxy with few
//! server connections: every answer must be the same, token by token.
//!
//! `REQUESTS=1000000 SEED=7 cargo test --test differential` runs longer and elsewhere; a failure prints its seed and the
//! script that it shrank to.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed expectation is a failed test")]
#![allow(unreachable_pub, reason = "modules of one test program")]

#[path = "../client/mod.rs"]
mod client;

mod author;
mod compare;
mod line;
mod player;
mod profile;
mod random;
mod request;
mod round;
mod script;
mod shrink;
mod token;

use std::fmt::Write;

use compare::{Count, Difference};
use random::Random;
use round::{Plan, Round};
use tdsbouncer_config::PoolMode;
use tdsbouncer_sim::{Fault, Leftover};

const CLIENTS: usize = 16;
const LENGTH: usize = 120;

/// What a plain `cargo test` runs.
const REQUESTS: usize = 20_000;
const SEED: u64 = 1;

fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_are_pooled_answer_as_direct_ones() {
    let wanted = usize::try_from(from_environment("REQUESTS", REQUESTS as u64)).unwrap();
    rounds(PoolMode::Session, wanted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_that_are_pooled_answer_as_direct_ones() {
    let wanted = usize::try_from(from_environment("REQUESTS", REQUESTS as u64)).unwrap();
    rounds(PoolMode::Transaction, wanted).await;
}

async fn rounds(mode: PoolMode, wanted: usize) {
    let mut seeds = Random::new(from_environment("SEED", SEED));
    let mut total = Count::default();
    while total.requests < wanted {
        // One round alone: the seed that a failure prints.
        let seed = from_environment("ROUND", seeds.next());
        let plan = Plan { seed, mode, clients: CLIENTS, length: LENGTH, fault: None };
        match plan.round().run().await {
            Ok(count) => total.add(count),
            Err(difference) => {
                eprintln!("{}", report(&plan, &plan.round(), &difference));
                let (round, difference) = shrink::shrink(plan.round(), *difference).await;
                panic!("shrunk to:\n{}", report(&plan, &round, &difference));
            }
        }
    }
    println!("{mode:?}: {total:?}");
}

/// Rounds until the difference that a fault makes is seen.
const ROUNDS_TO_FIND: usize = 12;

/// A reset that leaves something shows in somebody's answers: so the scripts look at all of it.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_reset_leaves_is_seen() {
    let mut seeds = Random::new(SEED);
    for left in [
        Leftover::Settings,
        Leftover::Database,
        Leftover::TemporaryTables,
        Leftover::Cursors,
        Leftover::Prepared,
        Leftover::ContextInfo,
        Leftover::SessionContext,
        Leftover::Impersonation,
        Leftover::IdentityInsert,
    ] {
        let mut rounds = 0;
        let seen = loop {
            let fault = Some(Fault::ResetLeaves(left));
            let plan =
                Plan { seed: seeds.next(), mode: PoolMode::Session, clients: 8, length: LENGTH, fault };
            rounds += 1;
            let seen = plan.round().run().await.is_err();
            if seen || rounds == ROUNDS_TO_FIND {
                break seen;
            }
        };
        assert!(seen, "{left:?} is not seen in {rounds} rounds");
        println!("{left:?}: round {rounds}");
    }
}

fn report(plan: &Plan, round: &Round, difference: &Difference) -> String {
    let mut out = format!("ROUND={} {:?}, {} connections\n", plan.seed, plan.mode, round.connections);
    for script in &round.scripts {
        let failing = script.client == difference.client;
        if !failing && round.scripts.len() > 4 {
            continue;
        }
        let _ = writeln!(out, "client {} ({}):", script.client, script.profile.name);
        for (at, step) in script.steps.iter().enumerate() {
            let mark = if failing && at == difference.at { ">>" } else { "  " };
            let _ = writeln!(out, "{mark} {at} {step:?}");
        }
    }
    let _ = writeln!(out, "at {} of client {}", difference.at, difference.client);
    let _ = writeln!(out, "direct: {}\nproxied: {}", difference.direct, difference.proxied);
    out
}
