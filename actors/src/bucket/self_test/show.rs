//! A bucket's traits in words, for the admin view.

use tdsbouncer_config::PoolMode;
use tokio::time::Instant;

use super::traits::{Origin, ServerTraits, SessionRecovery};
use super::{BucketHandle, pooling};
use crate::admin::TraitsRow;

/// The row of this bucket in `show traits`.
pub(crate) fn row(bucket: &BucketHandle) -> TraitsRow {
    let (mode, unfit) = pooling(bucket);
    let row = TraitsRow {
        bucket: bucket.name().to_string(),
        wanted: name(bucket.settings().pool_mode),
        mode: name(mode),
        reason: unfit.map(|unfit| unfit.to_string()),
        origin: "not yet",
        ..TraitsRow::default()
    };
    match &*bucket.shared().traits.load() {
        Some(traits) => told(row, traits),
        None => row,
    }
}

/// The mode as the configuration writes it.
pub(crate) fn name(mode: PoolMode) -> &'static str {
    match mode {
        PoolMode::Transaction => "transaction",
        PoolMode::Session => "session",
    }
}

fn told(row: TraitsRow, traits: &ServerTraits) -> TraitsRow {
    let (origin, age, version) = match traits.origin {
        Origin::Assumed => ("assumed", None, None),
        Origin::Measured(at) => {
            ("measured", Some(Instant::now().saturating_duration_since(at)), Some(traits.program()))
        }
    };
    let clears = &traits.reset_clears;
    TraitsRow {
        origin,
        age,
        version,
        tds: age.map(|_| traits.tds_version.to_string()),
        signals: list(&[
            (traits.text_transactions, "text"),
            (traits.tm_transactions, "tm"),
            (traits.implicit_transactions, "implicit"),
            (traits.nested_signals_right(), "nested"),
        ]),
        reset: if traits.reset_acknowledged { "acknowledged" } else { "not acknowledged" },
        leaves: list(&[
            (!clears.session_context, "session_context"),
            (!clears.context_info, "context_info"),
            (!clears.temp_tables, "temp_tables"),
            (!clears.set_options, "set_options"),
            (!clears.database, "database"),
            (!clears.cursors, "cursors"),
            (!clears.identity_insert, "identity_insert"),
            (!traits.handles_dropped_by_reset, "prepared_handles"),
        ]),
        pipelines: match (traits.pipelining_allowed(false), traits.pipelining_allowed(true)) {
            (_, true) => "yes",
            (true, false) => "not behind a reset",
            (false, false) => "no",
        },
        session_state: match traits.session_recovery {
            SessionRecovery::NotOffered => "not offered",
            SessionRecovery::Declined => "declined",
            SessionRecovery::Silent => "acknowledged, but tells nothing",
            SessionRecovery::Partly => "told in part",
            SessionRecovery::Tells => "told",
        },
        notes: traits
            .notes
            .iter()
            .map(|note| format!("{}: {}", note.check, note.why))
            .collect::<Vec<_>>()
            .join("; "),
        ..row
    }
}

fn list(words: &[(bool, &str)]) -> String {
    let there: Vec<&str> = words.iter().filter(|(there, _)| *there).map(|(_, word)| *word).collect();
    there.join(", ")
}
