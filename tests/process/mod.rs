//! The proxy and a stand-in server as processes of their own, so that the proxy's memory can be measured.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(unreachable_pub, reason = "one module for many test programs")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Nothing here takes that long.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Processes {
    pub server: SocketAddr,
    pub proxy: SocketAddr,
    /// The proxy's configuration file and admin socket.
    pub file: PathBuf,
    pub socket: PathBuf,
    running: [Child; 2],
    _folder: tempfile::TempDir,
}

impl Processes {
    /// A stand-in with the database `shop`, and a proxy without encryption before it; `limits` are lines of its
    /// configuration's `[limits]`.
    pub fn start(limits: &str) -> Self {
        Self::with(limits, "", "")
    }

    /// The same with lines of `[admin]`, and with whole tables.
    pub fn with(limits: &str, admin: &str, tables: &str) -> Self {
        Self::begin(limits, admin, tables, str::to_owned, |_| {})
    }

    /// The same with another text of its configuration.
    pub fn edited(edit: impl FnOnce(&str) -> String) -> Self {
        Self::begin("", "", "", edit, |_| {})
    }

    /// With systemd's socket in its environment.
    pub fn notifying(socket: &Path) -> Self {
        Self::begin("", "", "", str::to_owned, |command| {
            command.env("NOTIFY_SOCKET", socket);
        })
    }

    fn begin(
        limits: &str,
        admin: &str,
        tables: &str,
        edit: impl FnOnce(&str) -> String,
        prepare: impl FnOnce(&mut Command),
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (sim, server) = start_sim();
        let proxy = free_address();
        let file = folder.path().join("proxy.toml");
        let socket = folder.path().join("admin.sock");
        let text = format!(
            "[[listeners]]\nname = \"main\"\naddress = \"{proxy}\"\n[listeners.tls]\nmode = \"off\"\n\
             [[buckets]]\nname = \"b1\"\nhost = \"127.0.0.1\"\nport = {}\ndefault = true\nmax_connections = 4\n\
             server_tls = {{ mode = \"off\" }}\n[limits]\n{limits}\n[admin]\nsocket = {socket:?}\n{admin}\n\
             [health]\naddress = \"off\"\n[metrics]\naddress = \"off\"\n{tables}\n",
            server.port(),
        );
        fs::write(&file, edit(&text)).expect("a file of ours");
        let mut command = program();
        command.arg("run").arg("--config").arg(&file).env_remove("NOTIFY_SOCKET");
        prepare(&mut command);
        let child = command.spawn().expect("the proxy starts");
        let processes = Self { server, proxy, file, socket, running: [child, sim], _folder: folder };
        processes.until_it_listens();
        processes
    }

    /// Sends the proxy a signal, as `kill` names it.
    pub fn signal(&self, name: &str) {
        let kill = Command::new("kill").args([name, &self.running[0].id().to_string()]).status();
        assert!(kill.expect("kill is there").success());
    }

    /// Waits until the proxy has ended; its exit code.
    pub fn exit_code(&mut self) -> Option<i32> {
        let over = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.running[0].try_wait().expect("a child of ours") {
                return status.code();
            }
            assert!(Instant::now() < over, "the proxy does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn until_it_listens(&self) {
        let over = Instant::now() + PATIENCE;
        while TcpStream::connect(self.proxy).is_err() {
            assert!(Instant::now() < over, "the proxy does not listen on {}", self.proxy);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The proxy's memory now, in bytes.
    pub fn memory(&self) -> usize {
        self.status("VmRSS:")
    }

    /// The most memory the proxy had at any moment since [`Self::forget_peak`], in bytes.
    pub fn peak(&self) -> usize {
        self.status("VmHWM:")
    }

    /// From now on the peak is a new one (proc(5), clear_refs).
    pub fn forget_peak(&self) {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .open(format!("/proc/{}/clear_refs", self.running[0].id()))
            .expect("a child of ours");
        file.write_all(b"5").expect("the kernel takes it");
    }

    fn status(&self, field: &str) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.running[0].id()));
        let status = status.expect("the proxy runs");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("Linux tells it");
        let kib = line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number");
        kib * 1024
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.running {
            // Gone already, if it crashed.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tdsbouncer"));
    command.stdin(Stdio::null());
    command
}

fn start_sim() -> (Child, SocketAddr) {
    let mut sim = program();
    sim.args(["sim", "--listen", "127.0.0.1:0", "--database", "shop"]).stdout(Stdio::piped());
    let mut child = sim.spawn().expect("the stand-in starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("it prints");
    let words = line.split(' ').skip_while(|word| *word != "on");
    let address = words.skip(1).find_map(|word| word.parse().ok());
    (child, address.expect("it prints where it listens"))
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound")
}
