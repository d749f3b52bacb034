//! The last crashes, for the admin view: what crashed, when and why (as [`crate::panics`] tells it).

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::admin::CrashRow;

/// Enough to see a pattern; a storm of crashes must not fill memory.
const KEPT: usize = 100;

/// What is kept of a reason.
const LONGEST: usize = 300;

#[derive(Debug, Default)]
pub(crate) struct CrashBook(Mutex<VecDeque<Crash>>);

#[derive(Debug)]
struct Crash {
    at: Instant,
    actor: &'static str,
    who: String,
    why: String,
}

impl CrashBook {
    pub(crate) fn note(&self, actor: &'static str, who: &str, why: &str) {
        let why = why.chars().take(LONGEST).collect();
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if book.len() == KEPT {
            book.pop_front();
        }
        book.push_back(Crash { at: Instant::now(), actor, who: who.to_owned(), why });
    }

    /// The latest first.
    pub(crate) fn rows(&self) -> Vec<CrashRow> {
        let book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let row = |crash: &Crash| CrashRow {
            ago: crash.at.elapsed(),
            actor: crash.actor,
            who: crash.who.clone(),
            why: crash.why.clone(),
        };
        book.iter().rev().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_crashes_are_kept_and_shown_first() {
        let book = CrashBook::default();
        for n in 0..KEPT + 5 {
            book.note("session", &format!("c{n}"), &"x".repeat(1000));
        }
        let rows = book.rows();
        assert_eq!((rows.len(), &*rows[0].who), (KEPT, "c104"));
        assert_eq!(rows[0].why.len(), LONGEST);
    }
}
