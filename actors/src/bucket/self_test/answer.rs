//! What one response of a self-test says, as far as the checks ask for it.

use tds::env_change::{EnvChange, EnvKind};
use tds::scan::Event;
use tds::value::Value;

use crate::bucket::witness::StateIds;

/// What was seen in one whole response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// The kinds of ENVCHANGE that are about transactions, in their order.
    pub(super) signals: Vec<EnvKind>,
    /// The transaction that is open after it, if the response says anything about one.
    pub(super) descriptor: Option<u64>,
    /// ENVCHANGE 18.
    pub(super) reset_done: bool,
    /// The first ERROR.
    pub(super) error: Option<i32>,
    /// An INFO: what the checks' `IF .. PRINT` says.
    pub(super) said_so: bool,
    /// The value of the output parameter that is an int: a prepared statement's handle.
    pub(super) handle: Option<i32>,
    /// SESSIONSTATE, and whether the session could be recovered.
    pub(super) recoverable: Option<bool>,
    /// The states that got other values by it.
    pub(super) changed: StateIds,
    /// The response could not be followed to its end.
    pub(super) lost: bool,
}

impl Answer {
    pub(super) fn note(&mut self, event: &Event<'_>) {
        match event {
            Event::EnvChange(change) => self.changed(change),
            Event::Message { is_error: true, number, .. } => self.error = self.error.or(Some(*number)),
            Event::Message { .. } => self.said_so = true,
            Event::ReturnValue(value) => {
                if let Some(Ok(read)) = value.read()
                    && let Value::Int(handle) = read.value
                {
                    self.handle = Some(handle);
                }
            }
            Event::SessionState(state) => self.recoverable = Some(state.recoverable),
            Event::Lost(_) => self.lost = true,
            _ => {}
        }
    }

    fn changed(&mut self, change: &EnvChange) {
        match change {
            EnvChange::BeginTransaction(descriptor) => self.descriptor = Some(*descriptor),
            EnvChange::ResetDone => self.reset_done = true,
            change if change.ends_transaction() => self.descriptor = Some(0),
            _ => return,
        }
        if *change != EnvChange::ResetDone {
            self.signals.push(change.kind());
        }
    }

    /// Answered without an error.
    pub(super) fn is_fine(&self) -> bool {
        self.error.is_none()
    }
}
