//! What a running request looks out for: an attention, a client that went away, a KILL. It is asked on the request's own
//! thread; only where the request has to wait does the thread stop being the runtime's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::engine::Watch;
use crate::registry::Entry;
use crate::wire::{Interrupt, SharedWire, lock};

/// How often a busy request looks at its socket.
const LOOK_EVERY: Duration = Duration::from_millis(2);

const ATTENTION: u8 = 1;
const GONE: u8 = 2;

/// One connection's lookout.
#[derive(Debug)]
pub(crate) struct Watcher {
    wire: SharedWire,
    entry: Arc<Entry>,
    runtime: Handle,
    bell: Notify,
    seen: AtomicU8,
    started: Instant,
    /// When the socket was last looked at, in microseconds after `started`.
    looked: AtomicU64,
    /// Attentions are not looked for (a fault, or a server that only sees them after the response).
    blind: AtomicBool,
    /// The running request has given its worker of the runtime to another thread.
    handed_over: AtomicBool,
}

impl Watcher {
    /// Belongs to the runtime it is made on.
    pub(crate) fn new(wire: SharedWire, entry: Arc<Entry>) -> Arc<Self> {
        Arc::new(Self {
            wire,
            entry,
            runtime: Handle::current(),
            bell: Notify::new(),
            seen: AtomicU8::new(0),
            started: Instant::now(),
            looked: AtomicU64::new(0),
            blind: AtomicBool::new(false),
            handed_over: AtomicBool::new(false),
        })
    }

    /// A request begins.
    pub(crate) fn begin(&self, blind: bool) {
        self.seen.store(0, Ordering::Relaxed);
        self.blind.store(blind, Ordering::Relaxed);
        self.handed_over.store(false, Ordering::Relaxed);
        self.looked.store(self.now(), Ordering::Relaxed);
    }

    /// The running request was told to stop by an attention.
    pub(crate) fn attention(&self) -> bool {
        self.seen.load(Ordering::Relaxed) & ATTENTION != 0
    }

    /// There is nobody to answer any more.
    pub(crate) fn gone(&self) -> bool {
        self.seen.load(Ordering::Relaxed) & GONE != 0
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn note(&self, interrupt: Interrupt) {
        let bit = match interrupt {
            Interrupt::Attention => ATTENTION,
            Interrupt::Gone => GONE,
        };
        self.seen.fetch_or(bit, Ordering::Relaxed);
    }

    fn stop_seen(&self) -> bool {
        if self.entry.is_killed() {
            self.note(Interrupt::Gone);
        }
        self.seen.load(Ordering::Relaxed) != 0
    }

    /// Waits on this thread, which the runtime replaces meanwhile.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        tokio::task::block_in_place(|| self.runtime.block_on(future))
    }

    /// A request that takes longer stops being a guest on the runtime's thread: another thread gets its worker, and looks
    /// after the sockets of all others. Returns when the runtime is seen to go on, however long a busy machine takes for
    /// it: a worker that comes back to the request would be lost to all others until the request's end.
    fn hand_over(&self) {
        if self.handed_over.swap(true, Ordering::Relaxed) {
            return;
        }
        let (going_on, seen) = std::sync::mpsc::sync_channel(1);
        tokio::task::block_in_place(|| {
            self.runtime.spawn(async move {
                let _ = going_on.send(());
            });
            // A runtime that shuts down drops the sender.
            let _ = seen.recv();
        });
    }

    /// Waits until the output is with the socket, or the request must stop.
    pub(crate) fn flush(&self) -> std::io::Result<()> {
        if lock(&self.wire).try_flush()? {
            return Ok(());
        }
        self.block_on(async {
            tokio::select! {
                biased;
                flushed = std::future::poll_fn(|cx| lock(&self.wire).poll_flush(cx)) => flushed,
                () = self.interrupted() => Ok(()),
            }
        })
    }

    /// Sleeps, but not past an interruption.
    pub(crate) fn sleep(&self, time: Duration) {
        self.block_on(async {
            tokio::select! {
                () = tokio::time::sleep(time) => {}
                () = self.interrupted() => {}
            }
        });
    }

    /// Ends when the request must stop.
    async fn interrupted(&self) {
        if self.stop_seen() {
            return;
        }
        if self.blind.load(Ordering::Relaxed) {
            return std::future::pending().await;
        }
        tokio::select! {
            interrupt = std::future::poll_fn(|cx| lock(&self.wire).poll_interrupt(cx)) => self.note(interrupt),
            () = self.entry.kill.notified() => self.note(Interrupt::Gone),
        }
    }
}

impl Watch for Watcher {
    fn look(&self) -> bool {
        if self.stop_seen() {
            return true;
        }
        let now = self.now();
        let every = u64::try_from(LOOK_EVERY.as_micros()).unwrap_or(u64::MAX);
        if now.saturating_sub(self.looked.load(Ordering::Relaxed)) < every
            || self.blind.load(Ordering::Relaxed)
        {
            return false;
        }
        self.looked.store(now, Ordering::Relaxed);
        self.hand_over();
        if let Some(interrupt) = lock(&self.wire).look() {
            self.note(interrupt);
        }
        self.stop_seen()
    }

    fn wait(&self, deadline: Instant) -> bool {
        if self.stop_seen() {
            return true;
        }
        self.block_on(async {
            tokio::select! {
                () = tokio::time::sleep_until(deadline.into()) => {}
                () = self.interrupted() => {}
                () = self.bell.notified() => {}
            }
        });
        self.stop_seen()
    }

    fn wake(&self) {
        self.bell.notify_one();
    }
}
