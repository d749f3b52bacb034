//! `tdsbouncer probe` as its user meets it: table, JSON, exit code.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::process::{Command, Output, Stdio};
use tdsbouncer_sim::{Fault, SimHandle, SimOptions, SimServer};

fn probe(server: &SimHandle, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tdsbouncer"));
    command.args(["probe", "--server", "127.0.0.1", "--port", &server.addr().port().to_string()]);
    command
        .args(["--user", "sa", "--password", "env:PROBE_PASSWORD", "--trust-server-certificate"])
        .args(more);
    command.env("PROBE_PASSWORD", "Sim-passw0rd").stdin(Stdio::null());
    command.output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_good_server_is_a_table_of_good_rows_and_exit_code_0() {
    let server = SimServer::start(SimOptions::default()).unwrap();
    let output = probe(&server, &[]);
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{shown}\n{}", text(&output.stderr));
    assert!(shown.starts_with("Microsoft SQL Server 16.0."), "{shown}");
    assert!(shown.contains("\nAREA") && shown.contains("0 different, 0 unsafe, 0 unknown"), "{shown}");
    assert!(!shown.contains("Sim-passw0rd"), "{shown}");
}

#[test]
fn every_row_is_explained() {
    let server = SimServer::start(SimOptions::default()).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&probe(&server, &["--json"]).stdout).unwrap();
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/probe.md")).unwrap();
    let explained: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" |").next())
        .flat_map(|names| names.split(", "))
        .collect();
    let rows = report["rows"].as_array().unwrap();
    for row in rows {
        let name = format!("{}: {}", row["area"].as_str().unwrap(), row["check"].as_str().unwrap());
        assert!(explained.contains(&&*name), "{name}");
    }
    let named = explained.iter().filter(|name| name.contains(": ")).count();
    assert_eq!(named, rows.len(), "{explained:?}");
}

#[test]
fn an_unsafe_server_is_exit_code_1_with_advice() {
    let server = SimServer::start(SimOptions::default()).unwrap();
    server.faults().arm(Fault::ResetLeavesEverything);
    let output = probe(&server, &["--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = report["rows"].as_array().unwrap();
    let row = rows.iter().find(|row| row["check"] == "temporary tables").unwrap();
    assert_eq!((&row["area"], &row["verdict"]), (&"reset".into(), &"unsafe".into()));
    assert!(row["advice"].as_str().unwrap().len() > 20, "{row}");
    assert!(text(&output.stderr).contains("not safe"), "{}", text(&output.stderr));
}

#[test]
fn a_password_never_stands_in_the_command_line() {
    let server = SimServer::start(SimOptions::default()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tdsbouncer"))
        .args(["probe", "--server", "127.0.0.1", "--port", &server.addr().port().to_string()])
        .args(["--user", "sa", "--password", "Sim-passw0rd"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        "tdsbouncer: the server could not be probed: --password must be env:NAME or file:PATH\n"
    );
    assert_eq!(server.stats().logins, 0);
}
