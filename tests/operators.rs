//! The proxy as its operators meet it: each command on the command line, over the Unix socket and over TCP; signals,
//! reloads and ends.

mod process;

use process::Processes;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tdsbouncer_actors::SUBJECTS;

fn admin(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tdsbouncer"));
    command.arg("admin").args(arguments).stdin(Stdio::null());
    command.env_remove("TDSBOUNCER_ADMIN_TOKEN").env_remove("TDSBOUNCER_ADMIN_SOCKET");
    command.output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a command prints that must succeed.
fn told(proxy: &Processes, arguments: &[&str]) -> String {
    let socket = ["--socket", proxy.socket.to_str().expect("a path of ours")];
    let output = admin(&[&socket, arguments].concat());
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// A key of the configuration in force.
fn in_force(proxy: &Processes, key: &str) -> String {
    let rows: serde_json::Value =
        serde_json::from_str(&told(proxy, &["show", "config", "--json"])).expect("JSON");
    let rows = rows.as_array().expect("rows");
    let row = rows.iter().find(|row| row["key"] == key).expect("there is such a key");
    row["value"].as_str().expect("a text").to_owned()
}

fn until(what: &str, done: impl Fn() -> bool) {
    let over = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < over, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn each_command_is_given_on_the_command_line() {
    let proxy = Processes::start("");
    for (subject, _) in SUBJECTS {
        let table = told(&proxy, &["show", subject]);
        let first = table.lines().next().expect("a head");
        assert!(first.chars().all(|letter| !letter.is_lowercase()), "{subject}: {first}");
        let json = told(&proxy, &["show", subject, "--json"]);
        let rows: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert!(rows.is_array(), "{subject}");
    }
    for (arguments, expected) in [
        (&["pause"][..], "paused"),
        (&["resume", "b1"], "resumed"),
        (&["disable", "b1"], "disabled"),
        (&["enable"], "enabled"),
        (&["reconnect"], "replaced"),
        (&["drain", "b1"], "no new clients"),
        (&["enable", "b1"], "enabled"),
        (&["set", "b1.max_connections", "7"], "4 -> 7"),
        (&["log-level", "debug"], "debug, until the next change"),
        (&["reload"], "7 -> 4"),
    ] {
        let answer = told(&proxy, arguments);
        assert!(answer.contains(expected), "{arguments:?}: {answer}");
    }
    for (arguments, why) in [
        (&["kill", "session", "12"][..], "no such session: 12"),
        (&["kill", "server", "s3"], "no such server connection: 3"),
        (&["kill", "tenant", "o'hara"], "no session of tenant o'hara"),
        (&["pause", "nobody"], "no such bucket: nobody (there are b1)"),
        (&["set", "b1.host", "x"], "is not a key that can be set"),
        (&["log-level", "=="], "log.filter"),
    ] {
        let socket = ["--socket", proxy.socket.to_str().expect("a path of ours")];
        let output = admin(&[&socket, arguments].concat());
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(text(&output.stderr).contains(why), "{arguments:?}: {}", text(&output.stderr));
    }
}

#[test]
fn over_tcp_a_token_says_what_may_be_done() {
    let port =
        TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, token: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, format!("{token}\n")).expect("a file of ours");
        file.to_str().expect("a path of ours").to_owned()
    };
    let (big, small, wrong) = (write("big", "b1g"), write("small", "sma11"), write("wrong", "x"));
    let lines =
        format!("address = \"127.0.0.1:{port}\"\ntoken = \"file:{big}\"\nview_token = \"file:{small}\"");
    let _proxy = Processes::with("", &lines, "");
    let address = format!("127.0.0.1:{port}");
    let ask = |token: Option<&str>, arguments: &[&str]| {
        let mut all = vec!["--address", &address];
        all.extend(token.into_iter().flat_map(|token| ["--token-file", token]));
        all.extend(arguments);
        admin(&all)
    };
    assert!(ask(Some(&small), &["show", "buckets"]).status.success());
    assert!(ask(Some(&big), &["pause"]).status.success());
    assert!(ask(Some(&big), &["resume"]).status.success());
    for arguments in [
        &["pause"][..],
        &["resume"],
        &["disable"],
        &["enable"],
        &["reconnect"],
        &["drain"],
        &["kill", "session", "1"],
        &["kill", "server", "1"],
        &["kill", "tenant", "x"],
        &["set", "b1.max_connections", "1"],
        &["reload"],
        &["shutdown"],
        &["log-level", "debug"],
    ] {
        let refused = ask(Some(&small), arguments);
        assert_eq!(refused.status.code(), Some(1), "{arguments:?}");
        assert!(
            text(&refused.stderr).contains("not permitted: this operator may only look"),
            "{arguments:?}"
        );
    }
    for token in [None, Some(&*wrong)] {
        let refused = ask(token, &["show", "buckets"]);
        assert!(text(&refused.stderr).contains("not permitted: the token"), "{}", text(&refused.stderr));
    }
}

#[test]
fn a_changed_file_is_taken_by_signal_and_says_what_needs_a_restart() {
    let proxy = Processes::start("");
    let before = std::fs::read_to_string(&proxy.file).expect("it was written");
    let after = before.replace("max_connections = 4", "max_connections = 9\nqueue_limit = 7")
        + "[runtime]\nshards = 3\n";
    std::fs::write(&proxy.file, after).expect("a file of ours");
    proxy.signal("-HUP");
    until("the limit is the file's", || in_force(&proxy, "buckets.b1.max_connections") == "9");
    assert!(told(&proxy, &["show", "buckets", "--json"]).contains("\"max_connections\": 9"));
    let more = std::fs::read_to_string(&proxy.file).expect("it was written");
    let more = more.replace("shards = 3", "shards = 4").replace("[limits]\n", "[limits]\nmax_clients = 77\n")
        + "[[buckets]]\nname = \"b2\"\nhost = \"127.0.0.1\"\ndatabases = [\"x\"]\nmax_connections = 1\n\
           server_tls = { mode = \"off\" }\n";
    std::fs::write(&proxy.file, more).expect("a file of ours");
    let answer = told(&proxy, &["reload"]);
    for part in ["buckets.b2", "added", "50000 -> 77", "3 -> 4: needs a restart"] {
        assert!(answer.contains(part), "{part} is missing in\n{answer}");
    }
    assert!(told(&proxy, &["show", "buckets"]).contains("b2"));
    std::fs::write(&proxy.file, before.replace("max_connections = 4", "max_connections = 0"))
        .expect("a file of ours");
    let socket = proxy.socket.to_str().expect("a path of ours");
    let refused = admin(&["--socket", socket, "reload"]);
    assert!(text(&refused.stderr).contains("must be at least 1"), "{}", text(&refused.stderr));
    assert_eq!(in_force(&proxy, "buckets.b1.max_connections"), "9", "the old one stays");
    std::fs::write(&proxy.file, before).expect("a file of ours");
    assert!(told(&proxy, &["reload"]).contains("removed"));
    until("an empty bucket is gone", || !told(&proxy, &["show", "buckets"]).contains("b2"));
}

#[test]
fn a_listener_serves_as_it_began_until_the_restart_that_a_reload_asks_for() {
    let encrypted = "mode = \"on\"\nself_signed = true";
    let proxy = Processes::edited(|text| text.replacen("mode = \"off\"", encrypted, 1));
    let log_in = || {
        let address = proxy.proxy.to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tdsbouncer"));
        command.args(["loadgen", "run", "--to", &address, "--bucket", "shop", "--password", "Sim-passw0rd"]);
        command.args([
            "--tls",
            "on",
            "--programs",
            "1",
            "--ramp-up",
            "0s",
            "--duration",
            "1s",
            "--think",
            "0s",
        ]);
        command.args(["--mix", "simple=1", "--no-setup"]).stdin(Stdio::null());
        let output = command.output().expect("the program starts");
        text(&output.stdout)
    };
    let before = log_in();
    assert!(before.contains("errors: none"), "{before}");
    let file = std::fs::read_to_string(&proxy.file).expect("it was written");
    std::fs::write(&proxy.file, file.replacen(encrypted, "mode = \"off\"", 1)).expect("a file of ours");
    let answer = told(&proxy, &["reload"]);
    assert!(
        answer.contains("listeners.main.tls.mode") && answer.contains("on -> off: needs a restart"),
        "{answer}"
    );
    let after = log_in();
    assert!(after.contains("errors: none"), "{after}");
}

#[test]
fn an_operator_ends_the_proxy_with_exit_code_0() {
    let mut proxy = Processes::start("");
    assert!(told(&proxy, &["shutdown"]).contains("drains and ends"));
    assert_eq!(proxy.exit_code(), Some(0));
    assert!(!proxy.socket.exists());
    let mut proxy = Processes::start("");
    let client = std::net::TcpStream::connect(proxy.proxy).expect("it listens");
    until("the client is counted", || told(&proxy, &["show", "sessions"]).lines().count() == 2);
    assert!(told(&proxy, &["shutdown", "--wait"]).contains("when the last client has left"));
    std::thread::sleep(Duration::from_millis(300));
    assert!(told(&proxy, &["show", "sessions"]).lines().count() == 2, "it waits");
    drop(client);
    assert_eq!(proxy.exit_code(), Some(0));
}

#[test]
fn systemd_is_told_what_happens() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let listener = std::os::unix::net::UnixDatagram::bind(&path).expect("a socket");
    listener.set_read_timeout(Some(Duration::from_secs(60))).expect("a time");
    let next = || {
        let mut buffer = [0; 256];
        let length = listener.recv(&mut buffer).expect("it says something");
        text(&buffer[..length])
    };
    let mut proxy = Processes::notifying(&path);
    assert_eq!(next(), "READY=1");
    proxy.signal("-HUP");
    assert!(next().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(next(), "READY=1");
    proxy.signal("-TERM");
    assert_eq!(next(), "STOPPING=1");
    assert_eq!(proxy.exit_code(), Some(0));
}

#[test]
fn completions_and_the_manual_page_know_the_commands() {
    let print = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tdsbouncer"));
        let output = command.args(arguments).output().expect("the program starts");
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    for shell in ["bash", "zsh", "fish"] {
        assert!(print(&["completions", shell]).contains("reconnect"), "{shell}");
    }
    let page = print(&["man"]);
    assert!(page.contains(".TH tdsbouncer") && page.contains("TDSBOUNCER ADMIN KILL TENANT"), "{page}");
    for (subject, _) in SUBJECTS {
        assert!(page.contains(&format!("{subject}: ")), "{subject} is missing in {page}");
    }
}
