//! Panics on demand, for the crash tests: a client whose application name is `crash:POINT[:TIMES]` makes the
//! actor that serves it panic when it passes that point. Release builds do not have it.

/// Passes a point where a crash can be asked for.
#[cfg(not(feature = "crash-test"))]
#[inline(always)]
pub(crate) fn point(_point: &str, _application: &str) {}

/// Panics if `application` asks for it here, as often as it asks.
#[cfg(feature = "crash-test")]
#[expect(clippy::panic, reason = "to panic is what this is for")]
pub(crate) fn point(point: &str, application: &str) {
    use std::collections::HashMap;
    use std::sync::{Mutex, OnceLock, PoisonError};

    static DONE: OnceLock<Mutex<HashMap<String, u32>>> = OnceLock::new();
    let Some(wish) = application.strip_prefix("crash:") else { return };
    let mut parts = wish.split(':');
    if parts.next() != Some(point) {
        return;
    }
    let times = parts.next().and_then(|times| times.parse().ok()).unwrap_or(1);
    {
        let mut done = DONE.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        let crashes = done.entry(application.to_owned()).or_default();
        if *crashes >= times {
            return;
        }
        *crashes += 1;
    }
    panic!("crash asked for at {point}");
}
