//! Each scenario of `tdsbouncer loadgen scenario`, short: every condition holds that no slow machine can make bad.

#![allow(clippy::panic, reason = "a failed expectation is a failed test")]

use std::process::{Command, Stdio};

/// Plays one on a stage of its own; the Redis of `redis-failure` too.
fn play(name: &str, scale: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tdsbouncer"));
    command.args(["loadgen", "scenario", name, "--scale", scale, "--reports"]).arg(folder.path());
    let output = command.stdin(Stdio::null()).output().expect("the program starts");
    let told =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(folder.path().join(format!("{name}.json")));
    let text = text.unwrap_or_else(|why| panic!("{name} did not come to its end: {why}\n{told}"));
    let report: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let checks = report["checks"].as_array().expect("conditions");
    let counted: Vec<_> = checks.iter().filter(|check| check["timed"] == false).collect();
    assert!(counted.len() >= 6, "{told}");
    let bad: Vec<_> = counted.into_iter().filter(|check| check["good"] != true).collect();
    assert!(bad.is_empty(), "{name}: {bad:#?}\n{told}");
}

#[test]
fn baseline() {
    play("baseline", "0.1");
}

#[test]
fn burst() {
    play("burst", "0.1");
}

#[test]
fn steady() {
    play("steady", "0.01");
}

#[test]
fn proxy_failure() {
    play("proxy-failure", "0.1");
}

#[test]
fn redis_failure() {
    play("redis-failure", "0.2");
}

#[test]
fn uneven() {
    play("uneven", "0.1");
}

#[test]
fn scale_out() {
    play("scale-out", "0.1");
}

#[test]
fn long_transactions() {
    play("long-transactions", "0.1");
}

#[test]
fn prepared_storm() {
    play("prepared-storm", "0.1");
}

#[test]
fn fairness() {
    play("fairness", "0.15");
}
