//! What follows from a server's traits: which pool mode it is fit for, what may be pipelined, when a reset is enough.

use std::fmt;

use tdsbouncer_config::PoolMode;

use super::traits::{ResetClears, ServerTraits};

/// Why a server is not fit for transaction pooling: nobody could tell when a transaction ends, or clean up behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// No connection was opened yet.
    NotMeasured,
    TextTransactions,
    TmTransactions,
    ImplicitTransactions,
    NestedTransactions,
    Reset,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotMeasured => "the server was not measured yet",
            Self::TextTransactions => "the server does not signal transactions of T-SQL text",
            Self::TmTransactions => "the server does not signal transactions of transaction manager requests",
            Self::ImplicitTransactions => "the server does not signal implicit transactions",
            Self::NestedTransactions => "the server signals the end of transactions that are still open",
            Self::Reset => "the server does not acknowledge a reset",
        })
    }
}

/// The mode that a bucket's `pool_mode` comes to with this server, and the reason if it is another one.
pub(crate) fn effective(mode: PoolMode, traits: Option<&ServerTraits>) -> (PoolMode, Option<Unfit>) {
    match mode {
        PoolMode::Session => (PoolMode::Session, None),
        PoolMode::Transaction => {
            let unfit = traits.map_or(Some(Unfit::NotMeasured), unfit_for_transactions);
            (if unfit.is_some() { PoolMode::Session } else { mode }, unfit)
        }
    }
}

fn unfit_for_transactions(traits: &ServerTraits) -> Option<Unfit> {
    let needed = [
        (traits.text_transactions, Unfit::TextTransactions),
        (traits.tm_transactions, Unfit::TmTransactions),
        (traits.implicit_transactions, Unfit::ImplicitTransactions),
        (traits.nested_signals_right(), Unfit::NestedTransactions),
        (traits.reset_acknowledged, Unfit::Reset),
    ];
    needed.into_iter().find(|(has, _)| !has).map(|(_, unfit)| unfit)
}

impl ServerTraits {
    /// No end of a transaction is signalled while it is open.
    pub(crate) fn nested_signals_right(&self) -> bool {
        self.nested_text_right && self.nested_tm_right
    }

    /// Whether a request may be written behind another one; `reset`: behind one that carries a reset.
    pub(crate) fn pipelining_allowed(&self, reset: bool) -> bool {
        self.pipelines && (!reset || self.pipelines_behind_reset)
    }

    /// Whether a reset leaves nothing to the next client. If not, a connection on which anything was done is discarded
    /// instead: which keys a session context has, which tables there are, nobody knows.
    pub(crate) fn reset_is_complete(&self) -> bool {
        self.reset_acknowledged && self.reset_clears == ResetClears::EVERYTHING
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn but(change: impl FnOnce(&mut ServerTraits)) -> ServerTraits {
        let mut traits = ServerTraits::sql_server();
        change(&mut traits);
        traits
    }

    #[test]
    fn transaction_pooling_needs_right_signals_and_an_acknowledged_reset() {
        let rows = [
            (but(|_| {}), None),
            (but(|t| t.pipelines = false), None),
            (but(|t| t.pipelines_behind_reset = false), None),
            (but(|t| t.reset_clears = ResetClears::default()), None),
            (but(|t| t.handles_dropped_by_reset = false), None),
            (but(|t| t.text_transactions = false), Some(Unfit::TextTransactions)),
            (but(|t| t.tm_transactions = false), Some(Unfit::TmTransactions)),
            (but(|t| t.implicit_transactions = false), Some(Unfit::ImplicitTransactions)),
            (but(|t| t.nested_text_right = false), Some(Unfit::NestedTransactions)),
            (but(|t| t.nested_tm_right = false), Some(Unfit::NestedTransactions)),
            (but(|t| t.reset_acknowledged = false), Some(Unfit::Reset)),
            (ServerTraits::safe(tds::TdsVersion::V7_4, [0; 4]), Some(Unfit::TextTransactions)),
        ];
        for (traits, why) in rows {
            let mode = if why.is_some() { PoolMode::Session } else { PoolMode::Transaction };
            assert_eq!(effective(PoolMode::Transaction, Some(&traits)), (mode, why), "{traits:?}");
            assert_eq!(effective(PoolMode::Session, Some(&traits)), (PoolMode::Session, None));
        }
        let unseen = (PoolMode::Session, Some(Unfit::NotMeasured));
        assert_eq!(effective(PoolMode::Transaction, None), unseen);
    }

    #[test]
    fn pipelining_behind_a_reset_is_a_matter_of_its_own() {
        let rows = [
            (but(|_| {}), true, true),
            (but(|t| t.pipelines_behind_reset = false), true, false),
            (but(|t| t.pipelines = false), false, false),
        ];
        for (traits, plain, behind_reset) in rows {
            assert_eq!(traits.pipelining_allowed(false), plain);
            assert_eq!(traits.pipelining_allowed(true), behind_reset);
        }
    }

    #[test]
    fn a_reset_is_complete_if_it_is_acknowledged_and_clears_everything() {
        assert!(but(|_| {}).reset_is_complete());
        assert!(but(|t| t.handles_dropped_by_reset = false).reset_is_complete(), "the proxy's own to know");
        let lacking = [
            but(|t| t.reset_acknowledged = false),
            but(|t| t.reset_clears.session_context = false),
            but(|t| t.reset_clears.context_info = false),
            but(|t| t.reset_clears.temp_tables = false),
            but(|t| t.reset_clears.set_options = false),
            but(|t| t.reset_clears.database = false),
            but(|t| t.reset_clears.cursors = false),
            but(|t| t.reset_clears.identity_insert = false),
        ];
        assert!(lacking.iter().all(|traits| !traits.reset_is_complete()));
    }
}
