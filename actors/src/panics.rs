//! What is told of a panic: its place, and its text only where that is a literal of the source. Any other text was made of
//! values, as those of `str` quote what they could not cut: it may be a client's SQL.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::Location;
use std::sync::{Mutex, PoisonError};

use ractor::ActorProcessingErr;
use tracing::error;

/// A supervisor asks for a panic at once after it; so many may come before.
const KEPT: usize = 64;

/// What a supervisor says of a crash whose text it may not repeat.
const UNTOLD: &str = "its text may hold a client's values";

/// An actor gives up: a crash that it chose, in words of our own.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct GaveUp(pub(crate) String);

/// What was told of the last panics, each by a hash of its whole text: a supervisor learns no more of a panic than its text.
static TOLD: Mutex<VecDeque<(u64, String)>> = Mutex::new(VecDeque::new());

/// From now on a panic is an event of the log, in the place of the standard library's report with its whole text. For the
/// whole process.
pub fn log_panics_without_values() {
    std::panic::set_hook(Box::new(|panic| {
        let told = told(panic.payload(), panic.location());
        let thread = std::thread::current();
        let backtrace = Backtrace::capture();
        let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
        error!(
            thread = thread.name(),
            backtrace = backtrace.as_ref().map(tracing::field::display),
            "panicked: {told}"
        );
        let mut last = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
        last.truncate(KEPT - 1);
        last.push_front((hash(text(panic.payload())), told));
    }));
}

/// Why an actor crashed, for logs and operators.
pub(crate) fn reason(why: &ActorProcessingErr) -> String {
    if let Some(gave_up) = why.downcast_ref::<GaveUp>() {
        return gave_up.to_string();
    }
    let wanted = hash(&why.to_string());
    let last = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    let told = last.iter().find(|(hash, _)| *hash == wanted);
    told.map_or_else(|| UNTOLD.to_owned(), |(_, told)| told.clone())
}

fn told(payload: &(dyn Any + Send), place: Option<&Location<'_>>) -> String {
    let place = place.map_or_else(String::new, |place| format!(" at {}:{}", place.file(), place.line()));
    let literal = payload.downcast_ref::<&'static str>().unwrap_or(&UNTOLD);
    format!("{literal}{place}")
}

fn text(payload: &(dyn Any + Send)) -> &str {
    let literal = payload.downcast_ref::<&'static str>().copied();
    literal.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or_default()
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caught(panics: impl FnOnce() + std::panic::UnwindSafe) -> String {
        let payload = std::panic::catch_unwind(panics).unwrap_err();
        told(&*payload, Some(Location::caller()))
    }

    #[test]
    #[expect(clippy::string_slice, reason = "to panic is what this is for")]
    fn a_literal_is_told_and_a_text_made_of_values_is_not() {
        let sql = "SELECT 'caf\u{e9}'";
        assert!(caught(|| panic!("no such turn")).starts_with("no such turn at actors/src/panics.rs:"));
        assert!(
            caught(|| assert_eq!(sql.get(99..).unwrap(), ""))
                .starts_with("called `Option::unwrap()` on a `None`")
        );
        for told in [
            caught(move || assert_eq!(&sql[..12], "")),
            caught(move || panic!("cannot read {sql}")),
            caught(move || assert_eq!(sql.parse::<u8>().unwrap(), 1)),
            caught(|| std::panic::panic_any(7)),
        ] {
            assert!(told.starts_with("its text may hold a client's values at "), "{told}");
        }
    }

    #[test]
    fn what_an_actor_says_itself_is_told_and_anything_else_is_not() {
        let gave_up = ActorProcessingErr::from(GaveUp("the listener crashed too often".to_owned()));
        assert_eq!(reason(&gave_up), "the listener crashed too often");
        assert_eq!(reason(&ActorProcessingErr::from("SELECT 1".to_owned())), UNTOLD);
    }
}
