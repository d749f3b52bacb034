//! Tells systemd how far the service is (sd_notify(3)), where it asked to be told.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The service answers.
pub(crate) const READY: &str = "READY=1";
/// It begins to end.
pub(crate) const STOPPING: &str = "STOPPING=1";
/// It is alive; for the watchdog.
pub(crate) const WATCHDOG: &str = "WATCHDOG=1";

/// Sends a state, if systemd started the program and asked for it. Nobody is told of a failure but the log.
pub(crate) fn notify(state: &str) {
    let Some(path) = env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else { return };
    if let Err(why) = send(&path, state) {
        tracing::warn!(%why, state, "systemd was not told");
    }
}

/// A reload begins; [`READY`] follows when it has ended. systemd wants to know when (Type=notify-reload).
pub(crate) fn reloading() {
    let microseconds = monotonic().map_or(0, |time| time.as_micros());
    notify(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
}

/// How often the watchdog wants to hear from us: half of the time after which it kills.
pub(crate) fn watchdog_interval() -> Option<Duration> {
    let limit: u64 = env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    let ours = env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
    (ours && limit > 1).then(|| Duration::from_micros(limit / 2))
}

fn send(path: &std::ffi::OsStr, state: &str) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(path)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

/// CLOCK_MONOTONIC, which the standard library does not show: the kernel's uptime has it to a hundredth of a second.
fn monotonic() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    let seconds: f64 = text.split(' ').next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_sent_to_a_path_and_to_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        let mut buffer = [0; 64];
        send(path.as_os_str(), READY).unwrap();
        let length = listener.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1");

        let name = format!("tdsbouncer-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixDatagram::bind_addr(&address).unwrap();
        send(std::ffi::OsStr::new(&format!("@{name}")), STOPPING).unwrap();
        let length = listener.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"STOPPING=1");
    }
}
