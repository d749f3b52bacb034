//! Whether a value that is read was set by this batch or by the one before it.

use super::block::Runs;
use super::finding::Previous;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Origin {
    #[default]
    PreviousBatch,
    Either,
    ThisBatch,
}

/// What a statement sets when it ends.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sets {
    pub(super) identity: bool,
    /// It may set the identity, but need not: a procedure's call.
    pub(super) maybe_identity: bool,
    /// Row count and error.
    pub(super) outcome: bool,
    pub(super) fetch: bool,
    /// It leaves a row count that somebody would read.
    pub(super) rows: bool,
}

/// Follows the values over one batch.
#[derive(Debug, Default)]
pub(super) struct Values {
    identity: Origin,
    outcome: Origin,
    fetch: Origin,
    pending: Sets,
    runs: Runs,
    rows: bool,
}

impl Values {
    /// The statement before ends, this one begins.
    pub(super) fn statement(&mut self, sets: Sets, runs: Runs) {
        self.end_statement();
        self.pending = sets;
        self.runs = runs;
    }

    /// SELECT INTO sets the identity, as is seen late.
    pub(super) fn also_identity(&mut self) {
        self.pending.identity = true;
    }

    /// INSERT BULK only announces rows, which may fail.
    pub(super) fn not_surely_identity(&mut self) {
        self.pending.identity = false;
        self.pending.maybe_identity = true;
    }

    pub(super) fn end_statement(&mut self) {
        let sets = std::mem::take(&mut self.pending);
        let surely = !self.runs.maybe;
        let set = |origin: &mut Origin, surely: bool| match (*origin, surely) {
            (_, true) => *origin = Origin::ThisBatch,
            (Origin::PreviousBatch, false) => *origin = Origin::Either,
            _ => {}
        };
        if sets.identity || sets.maybe_identity {
            set(&mut self.identity, surely && sets.identity);
        }
        if sets.outcome {
            set(&mut self.outcome, surely);
            self.rows = sets.rows;
        }
        if sets.fetch {
            set(&mut self.fetch, surely);
        }
    }

    /// Whether reading it reads the previous batch's value, and surely so.
    pub(super) fn read(&self, value: Previous) -> Option<bool> {
        let origin = match value {
            Previous::Identity | Previous::ScopeIdentity => self.identity,
            Previous::RowCount | Previous::Error => self.outcome,
            Previous::FetchStatus => self.fetch,
        };
        match origin {
            Origin::PreviousBatch => Some(true),
            Origin::Either => Some(false),
            Origin::ThisBatch => None,
        }
    }

    /// Whether the batch surely sets the value.
    pub(super) fn sets(&self, value: Previous) -> bool {
        self.read(value).is_none()
    }

    pub(super) fn leaves_identity(&self) -> bool {
        self.identity != Origin::PreviousBatch
    }

    pub(super) fn leaves_row_count(&self) -> bool {
        self.rows
    }
}
