//! The kernel's timer that ends this process if it does not wake before its leases end.
//!
//! A process that is stopped cannot close its connections, and Redis gives its slots to others once its leases are
//! over. So a timer is always set to the moment at which the first lease ends, and set anew with each renewal; it
//! delivers SIGKILL, which ends stopped processes too, and with them their connections. Only process 1 of a container is
//! spared by signals of its own: there the proxy must be started by an init, as its image does.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use nix::sys::signal::{SigEvent, SigevNotify, Signal};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use tokio::time::Instant;
use tracing::error;

/// What is beyond any lease: no timer needs to be set for it.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Sets the timer, from a thread of its own.
pub(crate) struct Fence {
    to: Sender<Option<Instant>>,
}

impl Fence {
    /// Starts the thread. Without a timer the process runs on, and says so.
    pub(crate) fn start() -> Self {
        if std::process::id() == 1 {
            error!(
                "no fence: process 1 of a container cannot be ended by its own timer; start it by an init"
            );
        }
        let (to, moments) = mpsc::channel();
        let spawned = std::thread::Builder::new().name("fence".to_owned()).spawn(move || watch(&moments));
        if let Err(why) = spawned {
            error!(%why, "no fence: a proxy that sleeps past its lease is not ended");
        }
        Self { to }
    }

    /// From now on the process ends at this moment, unless another one is set before.
    pub(crate) fn set(&self, end: Option<Instant>) {
        // Without the thread there is no fence, which it has said.
        let _ = self.to.send(end);
    }
}

fn watch(moments: &Receiver<Option<Instant>>) {
    let event = SigEvent::new(SigevNotify::SigevSignal { signal: Signal::SIGKILL, si_value: 0 });
    let mut timer = match Timer::new(ClockId::CLOCK_MONOTONIC, event) {
        Ok(timer) => timer,
        Err(why) => return error!(%why, "no fence: a proxy that sleeps past its lease is not ended"),
    };
    loop {
        let end = match moments.recv_timeout(FAR) {
            Ok(end) => end,
            Err(RecvTimeoutError::Timeout) => continue,
            // The coordinator is gone for good: what is open is the bucket's to close.
            Err(RecvTimeoutError::Disconnected) => return,
        };
        // Zero would take the timer away.
        let left = end.map(|end| end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)));
        let setting = left.unwrap_or(Duration::ZERO).into();
        if let Err(why) = timer.set(Expiration::OneShot(setting), TimerSetTimeFlags::empty()) {
            error!(%why, "the fence is not set");
        }
    }
}
