//! The program as its user meets it: what it prints, with which exit code it ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

fn tdsbouncer(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tdsbouncer"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(arguments: &[&str]) -> Output {
    tdsbouncer(arguments).output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_reference_configuration_is_good() {
    let output =
        run(&["check-config", "--elsewhere", concat!(env!("CARGO_MANIFEST_DIR"), "/config/proxy.toml")]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("good (1 listeners, 2 buckets"), "{}", text(&output.stdout));
}

#[test]
fn a_wrong_configuration_is_told_whole_with_exit_code_1() {
    let file = std::env::temp_dir().join(format!("tdsbouncer-wrong-{}.toml", std::process::id()));
    std::fs::write(&file, "[limits]\nmax_client = 5\n[log]\nformat = \"xml\"\n").expect("a temporary file");
    let output = run(&["check-config", file.to_str().expect("a path of ours")]);
    std::fs::remove_file(&file).expect("it was just written");
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    for part in [
        "limits.max_client: no such key (did you mean max_clients?)",
        "line 4: log.format",
        "listeners: at least",
    ] {
        assert!(told.contains(part), "{part} is missing in\n{told}");
    }
}

#[test]
fn a_password_is_hashed_from_standard_input() {
    let mut child =
        tdsbouncer(&["hash-password", "--user", "anna"]).stdin(Stdio::piped()).spawn().expect("it starts");
    child.stdin.take().expect("piped").write_all(b"pa:ss\n").expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0));
    let users = tdsbouncer_config::Users::parse(&text(&output.stdout)).expect("a line of a users file");
    assert!(users.verify("anna", "pa:ss"));
}

#[test]
fn an_admin_command_without_a_proxy_says_where_it_looked() {
    let output = run(&["admin", "show", "buckets", "--socket", "/nowhere/admin.sock"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no answer on the admin socket /nowhere/admin.sock"));
}

#[test]
fn a_port_in_use_is_told_with_the_option_that_changes_it() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("it is bound").port().to_string();
    let ports = Ports::free();
    let output = run(&[
        "demo",
        "--port",
        &port,
        "--health-port",
        &ports.health,
        "--metrics-port",
        &port,
        "--sim-port-base",
        &ports.sims,
    ]);
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    assert!(
        told.contains(&format!("port {port} for the proxy is in use; choose another with --port")),
        "{told}"
    );
    assert!(
        told.contains(&format!("port {port} for /metrics is in use; choose another with --metrics-port")),
        "{told}"
    );
}

#[test]
fn the_demo_answers_on_every_port_that_it_prints_and_ends_in_order() {
    let ports = Ports::free();
    let mut demo = Demo::start(&ports);
    assert!(demo.printed.contains(&format!("127.0.0.1:{}", ports.sims)), "{}", demo.printed);
    assert!(get(&ports.health, "/health/ready").ends_with("ready\n"));
    let health = get(&ports.health, "/health");
    assert!(["orders", "billing", "archive"].iter().all(|bucket| health.contains(bucket)), "{health}");
    assert!(get(&ports.metrics, "/metrics").contains("tdsbouncer_build_info"));
    let socket = demo.socket();
    let output = run(&["admin", "--socket", socket.to_str().expect("it was printed"), "show", "buckets"]);
    assert!(text(&output.stdout).contains("MAX_CONNECTIONS"), "{}", text(&output.stderr));
    assert_eq!(demo.interrupt(), Some(0));
    assert!(!socket.parent().expect("a directory of its own").exists());
}

/// Ports, as arguments.
struct Ports {
    proxy: String,
    health: String,
    metrics: String,
    sims: String,
}

impl Ports {
    /// Ports that are free now, the stand-ins' three in a row.
    fn free() -> Self {
        let bind = |port: u16| TcpListener::bind(("127.0.0.1", port)).ok();
        let port_of = |listener: &TcpListener| listener.local_addr().expect("it is bound").port();
        let row = std::iter::repeat_with(|| {
            let first = bind(0)?;
            let port = port_of(&first);
            let others = (bind(port.checked_add(1)?)?, bind(port.checked_add(2)?)?);
            Some((first, others))
        });
        let row = row.take(100).flatten().next().expect("three free ports in a row");
        let singles = [0; 3].map(|any| bind(any).expect("a free port"));
        let [proxy, health, metrics] = singles.each_ref().map(|listener| port_of(listener).to_string());
        Self { proxy, health, metrics, sims: port_of(&row.0).to_string() }
    }
}

struct Demo {
    child: Child,
    printed: String,
}

impl Demo {
    fn start(ports: &Ports) -> Self {
        let arguments = [
            ["demo", "--port", &*ports.proxy],
            ["--health-port", &*ports.health, "--metrics-port"],
            [&*ports.metrics, "--sim-port-base", &*ports.sims],
        ];
        let mut child = tdsbouncer(&arguments.concat()).stderr(Stdio::inherit()).spawn().expect("it starts");
        let mut printed = String::new();
        let mut lines = BufReader::new(child.stdout.as_mut().expect("piped"));
        while !printed.contains("Ctrl-C") {
            assert!(lines.read_line(&mut printed).expect("it prints") > 0, "ended after printing\n{printed}");
        }
        Self { child, printed }
    }

    fn socket(&self) -> PathBuf {
        let rest = self.printed.split_once("--socket ").expect("it is printed").1;
        PathBuf::from(rest.split(' ').next().expect("it is printed"))
    }

    fn interrupt(&mut self) -> Option<i32> {
        let status = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        assert!(status.expect("kill is there").success());
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Already gone, unless an assertion failed before.
        let _ = self.child.kill();
    }
}

fn get(port: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).expect("somebody listens");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}
