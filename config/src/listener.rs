//! Where clients come in, and how their side of the line is encrypted.

use crate::bucket::BucketName;
use crate::check::{Check, plain};
use crate::duration;
use crate::mirror;
use crate::problem::Problem;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub use crate::mirror::ClientTlsMode;

/// One address that clients connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Unique among the listeners.
    pub name: String,
    /// Where to listen; port 0 lets the system choose.
    pub address: SocketAddr,
    /// Routes every client of this listener there, before any other rule.
    pub bucket: Option<BucketName>,
    /// Encryption towards clients.
    pub tls: ClientTls,
    /// Whether clients that ask for MARS get it (a server connection of their own).
    pub mars: bool,
    /// What PRELOGIN and LOGINACK say: major, minor, build, sub-build (the last two big endian).
    pub server_version: [u8; 6],
    /// Connections that the system may hold ready before they are accepted.
    pub backlog: u32,
    /// Tasks that accept.
    pub acceptors: usize,
}

/// Encryption towards clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTls {
    /// What is offered and what is demanded.
    pub mode: ClientTlsMode,
    /// PEM chain; there whenever the mode is not off and `self_signed` is not set.
    pub certificate: Option<PathBuf>,
    /// PEM key of the certificate's.
    pub key: Option<PathBuf>,
    /// Make a certificate at start, as SQL Server does without one.
    pub self_signed: bool,
    /// Whether TDS 8.0 clients, who begin with TLS, are accepted.
    pub strict: bool,
    /// How often certificate and key are looked at for changes.
    pub reload_interval: Duration,
}

impl Listener {
    /// A listener with every default, TLS off: for tests and the demo.
    pub fn new(name: &str, port: u16) -> Self {
        let defaults = mirror::Listener::default();
        Self {
            name: name.to_owned(),
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port),
            bucket: None,
            tls: ClientTls::off(),
            mars: defaults.mars,
            server_version: version(&defaults.server_version).unwrap_or([16, 0, 0, 0, 0, 0]),
            backlog: defaults.backlog,
            acceptors: defaults.acceptors,
        }
    }

    pub(crate) fn check(from: &mirror::Listener, at: &str, check: &mut Check<'_>) -> Option<Self> {
        let named = check.given(&format!("{at}.name"), &from.name);
        let address = check.address(&format!("{at}.address"), &from.address);
        let server_version = version(&from.server_version);
        if server_version.is_none() {
            let problem = Problem::new(format!("{at}.server_version"), "must be a version of SQL Server");
            check.problem(problem.hint("major.minor.build.revision, such as 16.0.4135.4"));
        }
        let backlog = check.within(&format!("{at}.backlog"), from.backlog, 1..=65_535, plain);
        let acceptors = check.within(&format!("{at}.acceptors"), from.acceptors, 1..=64, plain);
        let tls = ClientTls::check(&from.tls, &format!("{at}.tls"), check);
        let bucket = Some(&*from.bucket).filter(|name| !name.is_empty()).map(BucketName::from);
        Some(Self {
            name: Some(&from.name).filter(|_| named)?.clone(),
            address: address?,
            bucket,
            tls: tls?,
            mars: from.mars,
            server_version: server_version?,
            backlog,
            acceptors,
        })
    }
}

impl ClientTls {
    /// No encryption at all.
    pub fn off() -> Self {
        Self {
            mode: ClientTlsMode::Off,
            certificate: None,
            key: None,
            self_signed: false,
            strict: false,
            reload_interval: mirror::ClientTls::default().reload_interval,
        }
    }

    /// Encryption with a certificate made at start: for tests and the demo.
    pub fn self_signed(mode: ClientTlsMode) -> Self {
        Self { mode, self_signed: true, strict: mode != ClientTlsMode::Off, ..Self::off() }
    }

    fn check(from: &mirror::ClientTls, at: &str, check: &mut Check<'_>) -> Option<Self> {
        let before = check.problems.len();
        let path = |key: &str| format!("{at}.{key}");
        let mut pem = |key: &str, file: &str, section: &str| {
            if file.is_empty() { None } else { check.pem(&path(key), file, section) }
        };
        let certificate = pem("certificate", &from.certificate, "CERTIFICATE");
        let key = pem("key", &from.key, "PRIVATE KEY");
        match (from.certificate.is_empty(), from.key.is_empty()) {
            (true, false) => {
                check.problem(Problem::new(path("certificate"), "must be given together with key"))
            }
            (false, true) => {
                check.problem(Problem::new(path("key"), "must be given together with certificate"))
            }
            (false, false) if from.self_signed => {
                check.problem(Problem::new(path("self_signed"), "contradicts certificate and key"));
            }
            (true, true) if from.mode != ClientTlsMode::Off && !from.self_signed => {
                let hint = "or self_signed = true: clients must then trust it blindly; or mode = \"off\"";
                check.problem(Problem::new(path("certificate"), "must be given, with key").hint(hint));
            }
            _ => {}
        }
        if from.mode == ClientTlsMode::Strict && !from.strict {
            check.problem(Problem::new(path("strict"), "leaves no client with mode = \"strict\""));
        }
        let bounds = Duration::from_secs(1)..=Duration::from_secs(86_400);
        let reload_interval =
            check.within(&path("reload_interval"), from.reload_interval, bounds, duration::show);
        (check.problems.len() == before).then_some(Self {
            mode: from.mode,
            certificate,
            key,
            self_signed: from.self_signed,
            strict: from.strict && from.mode != ClientTlsMode::Off,
            reload_interval,
        })
    }
}

/// `16.0.4135.4` as PRELOGIN has it; the revision may be left out.
fn version(text: &str) -> Option<[u8; 6]> {
    let mut parts = text.split('.');
    let major: u8 = parts.next()?.parse().ok()?;
    let minor: u8 = parts.next()?.parse().ok()?;
    let [high, low] = parts.next()?.parse::<u16>().ok()?.to_be_bytes();
    let [sub_high, sub_low] = parts.next().map_or(Ok(0), str::parse::<u16>).ok()?.to_be_bytes();
    parts.next().is_none().then_some([major, minor, high, low, sub_high, sub_low])
}

/// The same as the file has it.
pub(crate) fn show_version([major, minor, high, low, sub_high, sub_low]: [u8; 6]) -> String {
    let (build, revision) = (u16::from_be_bytes([high, low]), u16::from_be_bytes([sub_high, sub_low]));
    format!("{major}.{minor}.{build}.{revision}")
}

#[cfg(test)]
mod tests {
    use super::{show_version, version};

    #[test]
    fn a_version_is_written_as_prelogin_has_it() {
        assert_eq!(version("16.0.4135.4"), Some([16, 0, 0x10, 0x27, 0, 4]));
        assert_eq!(version("15.0.2000"), Some([15, 0, 0x07, 0xD0, 0, 0]));
        assert_eq!(version("16.0.4135.4").map(show_version).as_deref(), Some("16.0.4135.4"));
        for text in ["", "16", "16.0", "16.0.99999", "256.0.1.1", "16.0.1.1.1", "16.0.x"] {
            assert_eq!(version(text), None, "{text}");
        }
    }
}
