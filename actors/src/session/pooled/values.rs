//! Which values of a session's earlier requests (@@IDENTITY, @@ROWCOUNT, @@ERROR, @@FETCH_STATUS) are still on the
//! connection that it used last. A value that somebody else left must never be read for the session's own.

use tds::tsql::{Previous, Verdict};

/// Some of the values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Values {
    identity: bool,
    /// Row count and error.
    outcome: bool,
    fetch: bool,
}

impl Values {
    pub(crate) const NONE: Self = Self { identity: false, outcome: false, fetch: false };
    pub(crate) const ALL: Self = Self { identity: true, outcome: true, fetch: true };
    /// What every request leaves that runs at all.
    pub(crate) const OUTCOME: Self = Self { outcome: true, ..Self::NONE };

    /// What a text surely sets.
    pub(crate) fn set_by(verdict: &Verdict) -> Self {
        Self { identity: verdict.sets_identity, outcome: verdict.sets_outcome, fetch: verdict.sets_fetch }
    }

    /// And what is read here.
    pub(crate) fn read(&mut self, value: Previous) {
        match value {
            Previous::Identity | Previous::ScopeIdentity => self.identity = true,
            Previous::RowCount | Previous::Error => self.outcome = true,
            Previous::FetchStatus => self.fetch = true,
        }
    }

    #[must_use]
    pub(crate) fn with(self, other: Self) -> Self {
        Self {
            identity: self.identity || other.identity,
            outcome: self.outcome || other.outcome,
            fetch: self.fetch || other.fetch,
        }
    }

    pub(crate) fn contains(self, other: Self) -> bool {
        self.with(other) == self
    }

    /// A request that sets `set` has run. `continued`: the connection was as the session had left it.
    pub(crate) fn ran(&mut self, continued: bool, set: Self) {
        let before = if continued { *self } else { Self::NONE };
        *self = before.with(set);
    }

    /// A statement of the proxy's own has run.
    pub(crate) fn overwritten(&mut self) {
        self.outcome = false;
    }

    /// A statement was answered without the server: the last outcome is not on any connection.
    pub(crate) fn answered_elsewhere(&mut self) {
        self.outcome = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: Values = Values { identity: true, ..Values::NONE };

    #[test]
    fn an_identity_is_the_sessions_own_only_while_nobody_came_between() {
        let mut values = Values::default();
        assert!(!values.contains(IDENTITY), "somebody else's may be there");
        values.ran(false, IDENTITY.with(Values::OUTCOME));
        values.ran(true, Values::OUTCOME);
        assert!(values.contains(IDENTITY));
        values.ran(false, Values::OUTCOME);
        assert!(!values.contains(IDENTITY) && values.contains(Values::OUTCOME));
    }

    #[test]
    fn what_the_proxy_answers_has_no_outcome_on_a_connection() {
        let mut values = Values::ALL;
        values.answered_elsewhere();
        assert!(values.contains(IDENTITY) && !values.contains(Values::OUTCOME));
    }
}
