//! Why a command failed, what is printed then, and with which exit code.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tdsbouncer_config::LoadError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{}: not a usable configuration\n{source}", path.display())]
    Config { path: PathBuf, source: LoadError },
    #[error("log.filter = {filter:?}: {why}")]
    LogFilter { filter: String, why: String },
    #[error("{}", ports_in_use(taken))]
    PortsInUse { taken: Vec<TakenPort> },
    #[error("cannot listen on {address} for {what}: {source}")]
    Listen { what: &'static str, address: SocketAddr, source: io::Error },
    #[error("cannot start the proxy: {0}")]
    Start(String),
    #[error("cannot start the stand-in server: {0}")]
    Sim(String),
    #[error("the proxy gave up after too many crashes; the log says which")]
    GaveUp,
    #[error("ended by a second signal, {running} after the first", running = tdsbouncer_config::show_duration(*after))]
    Forced { after: Duration },
    #[error(
        "no answer on the admin socket {}: {source} (is the proxy running? --socket names another)",
        path.display()
    )]
    AdminSocket { path: PathBuf, source: io::Error },
    #[error("no answer on the admin port {address}: {source} (is the proxy running with admin.address?)")]
    AdminPort { address: String, source: io::Error },
    #[error("the proxy says: {0}")]
    AdminAnswer(String),
    #[error("the two passwords differ")]
    PasswordsDiffer,
    #[error("the password is empty")]
    PasswordEmpty,
    #[error("cannot hash: {0}")]
    Hash(String),
    #[error("the server could not be probed: {0}")]
    Probe(String),
    #[error("{rows} of the rows above say that sharing connections of this server is not safe")]
    ProbeUnsafe { rows: usize },
    #[error("load: {0}")]
    Load(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A port that the demo wanted and somebody else has.
#[derive(Debug)]
pub(crate) struct TakenPort {
    pub(crate) port: u16,
    pub(crate) what: &'static str,
    pub(crate) option: &'static str,
    pub(crate) why: io::Error,
}

fn ports_in_use(taken: &[TakenPort]) -> String {
    let lines = taken.iter().map(|port| {
        let TakenPort { port, what, option, why } = port;
        match why.kind() {
            io::ErrorKind::AddrInUse => {
                format!("port {port} for {what} is in use; choose another with {option}")
            }
            _ => format!("port {port} for {what} cannot be had: {why}; choose another with {option}"),
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

impl Failure {
    /// 1: it did not work. 2, clap's own, means that the command line was wrong. 130: ended by force.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Forced { .. } => ExitCode::from(130),
            _ => ExitCode::from(1),
        }
    }
}
