//! What is measured side by side: the answerer itself, a plain TCP proxy before it, and ours in each pool mode. Each is a
//! process of its own.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Nothing starts slower than this.
const PATIENCE: Duration = Duration::from_secs(30);

/// A way to the answerer.
pub(crate) struct Rival {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    /// The process whose cost is the rival's; none for the direct way.
    pub(crate) process: Option<Child>,
}

impl Rival {
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        if let Some(child) = &mut self.process {
            // Gone already, if it crashed.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Where the rivals' programs and files are.
pub(crate) struct Grounds<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) proxy: PathBuf,
    pub(crate) haproxy: PathBuf,
    pub(crate) server: SocketAddr,
    /// Server connections allowed in transaction mode; in session mode every client has one.
    pub(crate) connections: u32,
    /// More lines for the proxy's `[limits]`.
    pub(crate) limits: String,
    /// The limit of open files: HAProxy refuses to start with more connections than it allows.
    pub(crate) open_files: u64,
}

/// Starts the answerer and reads from it where it listens.
pub(crate) fn answerer() -> io::Result<Rival> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["answer", "--listen", "127.0.0.1:0"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let mut line = String::new();
    let out = child.stdout.take().ok_or_else(|| io::Error::other("no output"))?;
    BufReader::new(out).read_line(&mut line)?;
    let address = line.trim().rsplit(' ').next().and_then(|word| word.parse().ok());
    let address = address.ok_or_else(|| io::Error::other(format!("the answerer said {line:?}")))?;
    Ok(Rival { name: "answerer".to_owned(), address, process: Some(child) })
}

impl Grounds<'_> {
    /// Everybody, newly started.
    pub(crate) fn all(&self, modes: &[String]) -> io::Result<Vec<Rival>> {
        let mut rivals = vec![self.direct(), self.haproxy()?];
        for mode in modes {
            rivals.push(self.ours(mode)?);
        }
        Ok(rivals)
    }

    /// The answerer without anything in front of it.
    fn direct(&self) -> Rival {
        Rival { name: "direct".to_owned(), address: self.server, process: None }
    }

    /// HAProxy in TCP mode, with one thread for each core, as the proxy has.
    fn haproxy(&self) -> io::Result<Rival> {
        let address = free_address()?;
        let file = self.folder.join(format!("haproxy-{}.cfg", address.port()));
        let text = format!(
            "global\n  maxconn {}\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
             frontend in\n  bind {address}\n  default_backend out\nbackend out\n  server one {}\n",
            self.open_files.min(120_000) / 2 - 100,
            self.server
        );
        fs::write(&file, text)?;
        let mut command = Command::new(&self.haproxy);
        // -db: in the foreground, so that the process is the one we started.
        command.arg("-db").arg("-f").arg(&file);
        self.start("HAProxy", &mut command, address)
    }

    /// Our proxy in a pool mode.
    fn ours(&self, mode: &str) -> io::Result<Rival> {
        let address = free_address()?;
        let file = self.folder.join(format!("{mode}-{}.toml", address.port()));
        let connections = if mode == "session" { 10_000 } else { self.connections };
        let text = format!(
            "[[listeners]]\nname = \"main\"\naddress = \"{address}\"\n\
             [listeners.tls]\nmode = \"login\"\nself_signed = true\n\
             [[buckets]]\nname = \"b1\"\nhost = \"127.0.0.1\"\nport = {}\ndefault = true\n\
             max_connections = {connections}\nqueue_limit = 50000\npool_mode = \"{mode}\"\nself_test = false\n\
             server_tls = {{ mode = \"off\" }}\n\
             [limits]\nmax_clients = 20000\n{}\n[log]\nfilter = \"warn\"\n[admin]\nsocket = {:?}\n[health]\naddress = \"off\"\n\
             [metrics]\naddress = \"off\"\n",
            self.server.port(),
            self.limits,
            self.folder.join(format!("{mode}-{}.sock", address.port())),
        );
        fs::write(&file, text)?;
        let mut command = Command::new(&self.proxy);
        command.arg("run").arg("--config").arg(&file);
        self.start(mode, &mut command, address)
    }

    fn start(&self, name: &str, command: &mut Command, address: SocketAddr) -> io::Result<Rival> {
        let child = command.stdin(Stdio::null()).spawn().map_err(|why| {
            io::Error::other(format!("{} does not start: {why}", command.get_program().display()))
        })?;
        let mut rival = Rival { name: name.to_owned(), address, process: Some(child) };
        let over = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            if let Some(child) = &mut rival.process
                && let Some(status) = child.try_wait()?
            {
                return Err(io::Error::other(format!("{name} ended at once: {status}")));
            }
            if Instant::now() > over {
                return Err(io::Error::other(format!("{name} does not listen on {address}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(rival)
    }
}

fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}
