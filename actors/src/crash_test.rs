//! Panics on demand, for the crash tests: a client whose application name is `crash:POINT[*TIMES],..` makes the
//! actor that serves it panic when it passes those points. Release builds do not have it.

/// Passes a point where a crash can be asked for.
#[cfg(not(feature = "crash-test"))]
#[inline(always)]
pub(crate) fn point(_point: &str, _application: &str) {}

/// Panics if `application` asks for it here, as often as it asks.
#[cfg(feature = "crash-test")]
#[expect(clippy::panic, reason = "to panic is what this is for")]
pub(crate) fn point(point: &str, application: &str) {
    if due(point, application) {
        // The name stands for whatever of a client's a panic may quote.
        panic!("crash asked for at {point} by {application}");
    }
}

#[cfg(feature = "crash-test")]
fn due(point: &str, application: &str) -> bool {
    use std::collections::HashMap;
    use std::sync::{Mutex, OnceLock, PoisonError};

    static DONE: OnceLock<Mutex<HashMap<String, u32>>> = OnceLock::new();
    let Some(wishes) = application.strip_prefix("crash:") else { return false };
    let wish = wishes.split(',').map(|wish| wish.split_once('*').unwrap_or((wish, "1")));
    let Some((_, times)) = wish.into_iter().find(|(wished, _)| *wished == point) else { return false };
    let times = times.parse().unwrap_or(1);
    let mut done = DONE.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    let crashes = done.entry(format!("{point} {application}")).or_default();
    let due = *crashes < times;
    *crashes += u32::from(due);
    due
}
