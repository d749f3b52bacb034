//! Random scripts of state-changing requests from many clients at once, each run directly and through the proxy with few
//! server connections: every answer must be the same, token by token.
//!
//! `REQUESTS=1000000 SEED=7 cargo test --test differential` runs longer and elsewhere; a failure prints its seed and the
//! script that it shrank to. `TELLS=1` and `TELLS=0` choose servers that tell their sessions' state, and that do not.

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
use round::{Plan, Round, World};
use tdsbouncer_config::PoolMode;
use tdsbouncer_sim::{Fault, Leftover, ServerKind};
use tokio::task::JoinSet;

const LEFTOVERS: [Leftover; 9] = [
    Leftover::Settings,
    Leftover::Database,
    Leftover::TemporaryTables,
    Leftover::Cursors,
    Leftover::Prepared,
    Leftover::ContextInfo,
    Leftover::SessionContext,
    Leftover::Impersonation,
    Leftover::IdentityInsert,
];

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

/// Rounds that run at the same time: they wait more than they work.
const AT_ONCE: usize = 4;

/// Rounds that differ before a run gives up: a long one shows more than its first difference.
const ENOUGH: usize = 5;

async fn rounds(mode: PoolMode, wanted: usize) {
    let mut seeds = Random::new(from_environment("SEED", SEED));
    let (mut total, mut failed, mut running) = (Count::default(), Vec::new(), JoinSet::new());
    // One round alone: the seed that a failure prints.
    let alone = std::env::var("ROUND").is_ok();
    loop {
        let at_once = if alone { 1 } else { AT_ONCE };
        while running.len() < at_once && total.requests < wanted && failed.len() < ENOUGH {
            let seed = from_environment("ROUND", seeds.next());
            // With and without a server that tells its sessions' state, which is relied on where it was measured.
            let tells = from_environment("TELLS", seed % 2) != 0;
            let is_measured = tells && mode == PoolMode::Transaction;
            let world = World { is_measured, tells, ..World::of(mode) };
            let plan = Plan { clients: 16, ..Plan::new(seed, world) };
            running.spawn(async move { agrees(&plan).await });
        }
        match running.join_next().await {
            None => break,
            Some(Ok(Ok(count))) => total.add(count),
            Some(Ok(Err(report))) => failed.push(report),
            Some(Err(panicked)) => failed.push(panicked.to_string()),
        }
    }
    println!("{mode:?}: {total:?}");
    assert!(failed.is_empty(), "{} rounds differ\n{}", failed.len(), failed.join("\n"));
}

/// Runs one round; a difference is told, and shrunk.
async fn agrees(plan: &Plan) -> Result<Count, String> {
    match plan.round().run().await {
        Ok(count) => Ok(count),
        Err(difference) => {
            eprintln!("{}", report(plan, &plan.round(), &difference));
            let (round, difference) = shrink::shrink(plan.round(), *difference).await;
            let shrunk = report(plan, &round, &difference);
            eprintln!("shrunk to:\n{shrunk}");
            Err(shrunk)
        }
    }
}

/// Rounds until the difference that a fault makes is seen.
const ROUNDS_TO_FIND: usize = 12;

/// Runs rounds until a difference is seen, as there must be one.
async fn is_seen(what: &str, plan: Plan) {
    let mut seeds = Random::new(SEED);
    for round in 1..=ROUNDS_TO_FIND {
        let plan = Plan { seed: seeds.next(), ..plan.clone() };
        if let Err(difference) = plan.round().run().await {
            println!("{what}: round {round}, request {} of client {}", difference.at, difference.client);
            return;
        }
    }
    panic!("{what} is not seen in {} requests", ROUNDS_TO_FIND * plan.clients * plan.length);
}

/// A reset that leaves something shows in somebody's answers: so the scripts look at all of it.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_reset_leaves_is_seen() {
    for left in LEFTOVERS {
        let fault = Some(Fault::ResetLeaves(left));
        is_seen(&format!("{left:?}"), Plan::new(0, World { fault, ..World::of(PoolMode::Session) })).await;
    }
}

/// A rule of transaction pooling that is broken shows in somebody's answers: so the scripts need every rule.
#[tokio::test(flavor = "multi_thread")]
async fn every_broken_rule_is_seen() {
    for mutant in ["reset", "isolation", "settings", "hold", "descriptor", "handles", "previous_values"] {
        let plan = Plan::new(0, World::of(PoolMode::Transaction));
        is_seen(mutant, Plan { mutant: Some(mutant), ..plan }).await;
    }
}

/// Whatever the server is and lacks, a proxy that has measured it makes up for it or pools less.
#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_server_that_is_pooled_answers_as_a_direct_one() {
    let kinds = [
        ServerKind::Babelfish,
        ServerKind::SqlServer2000,
        ServerKind::SqlServer2008R2,
        ServerKind::SqlServer2012,
    ];
    let faults = [
        Fault::NoTransactionEnvChange,
        Fault::NoImplicitEnvChange,
        Fault::NoErrorRollbackEnvChange,
        Fault::InnerEndsSignalled,
        Fault::ResetNotAcknowledged,
        Fault::ResetLeavesEverything,
        Fault::ResetClearsIsolation,
        Fault::ResetAcknowledgedLate,
        Fault::ResetLosesInput,
        Fault::RequestLosesInput,
        Fault::SkipTransactionRefused,
        Fault::EverythingRecoverable,
        Fault::NoSessionState,
        Fault::AttentionLate,
        Fault::AttentionInResponse,
    ];
    let measured = World { is_measured: true, ..World::of(PoolMode::Transaction) };
    let kinds = kinds.into_iter().map(|kind| World { kind, ..measured.clone() });
    // Of what is left by a reset, the proxy asks for all that a login may try without rights of its own.
    let left = LEFTOVERS.into_iter().filter(|left| *left != Leftover::Impersonation);
    let faults = faults.into_iter().chain(left.map(Fault::ResetLeaves));
    let faults = faults.map(|fault| World { fault: Some(fault), ..measured.clone() });
    let mut seeds = Random::new(from_environment("SEED", SEED));
    for world in kinds.chain(faults) {
        let seed = from_environment("ROUND", seeds.next());
        let plan = Plan { length: 60, ..Plan::new(seed, world) };
        let count = agrees(&plan).await.unwrap_or_else(|shrunk| panic!("{shrunk}"));
        println!("{:?} {:?}: {count:?}", plan.world.kind, plan.world.fault);
    }
}

fn report(plan: &Plan, round: &Round, difference: &Difference) -> String {
    let mut out = format!("ROUND={} {:?}, {} connections\n", plan.seed, plan.world, round.connections);
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
    let Difference { direct, proxied, pool, .. } = difference;
    let _ = writeln!(out, "direct: {direct}\nproxied: {proxied}\npool: {pool}");
    out
}
