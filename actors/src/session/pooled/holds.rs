//! Why a session must keep its server connection beyond a request, since when, and what ends it.

use std::hash::{DefaultHasher, Hash, Hasher};

use tds::tsql::Hold;
use tokio::time::Instant;

use crate::bucket::state::ISOLATION;

/// Why a connection is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reason {
    /// An open transaction, by the server's ENVCHANGEs.
    Transaction,
    /// What the scan of a text or call found.
    Found(Hold),
    /// The session looked at its process id and may rely on keeping it.
    ProcessId,
    /// The server says that the session could not be recovered (SESSIONSTATE).
    NotRecoverable,
    /// The server says that something changed that no text explains (SESSIONSTATE).
    Unexplained,
    /// A response could not be followed.
    Unfollowed,
}

impl Reason {
    /// For the admin view and as a label.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Transaction | Self::Found(Hold::Transaction) => "transaction",
            Self::ProcessId => "process_id",
            Self::NotRecoverable => "not_recoverable",
            Self::Unexplained => "unexplained_state",
            Self::Unfollowed => "unfollowed_response",
            Self::Found(hold) => hold_name(hold),
        }
    }

    /// Only the session's end ends it: a connection that was reset is another identity.
    fn survives_client_reset(self) -> bool {
        match self {
            Self::ProcessId | Self::Unfollowed => true,
            Self::Found(hold) => hold.survives_reset(),
            _ => false,
        }
    }
}

fn hold_name(hold: Hold) -> &'static str {
    match hold {
        Hold::Transaction => "transaction",
        Hold::TempTable => "temp_table",
        Hold::TempProcedure => "temp_procedure",
        Hold::Cursor => "cursor",
        Hold::PreparedHandle => "prepared_handle",
        Hold::ApplicationLock => "application_lock",
        Hold::SecurityContext | Hold::SecurityContextForGood => "security_context",
        Hold::ApplicationRole => "application_role",
        Hold::ContextInfo => "context_info",
        Hold::SessionContext => "session_context",
        Hold::XmlDocument => "xml_document",
        Hold::TraceFlag => "trace_flag",
        Hold::OleObject => "ole_object",
        Hold::IdentityInsert => "identity_insert",
        Hold::OpenKey => "open_key",
        Hold::BulkLoad => "bulk_load",
        Hold::Setting => "setting",
        Hold::SingleUser => "single_user",
        Hold::BoundSession => "bound_session",
        Hold::DynamicText => "dynamic_text",
        Hold::ListedProcedure => "listed_procedure",
        Hold::Unsure => "unsure",
    }
}

#[derive(Clone, Debug)]
struct Entry {
    reason: Reason,
    name: u64,
    since: Instant,
    /// It ends when the transaction that is open commits; a rollback brings it back.
    ends_with_commit: bool,
}

/// What the session holds its connection for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger(Vec<Entry>);

/// More than this is one stuck entry: nobody needs to know the rest.
const MOST: usize = 256;

impl Ledger {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether anything but the open transaction is held for.
    pub(crate) fn holds_more_than_transaction(&self) -> bool {
        self.0.iter().any(|entry| entry.reason != Reason::Transaction)
    }

    /// Something begins. What is counted begins once more each time.
    pub(crate) fn begin(&mut self, reason: Reason, name: &str, now: Instant) {
        let counted = matches!(reason, Reason::Found(hold) if hold.is_counted());
        let name = name_of(reason, name);
        if !counted
            && let Some(entry) = self.0.iter_mut().find(|entry| entry.reason == reason && entry.name == name)
        {
            entry.ends_with_commit = false;
            return;
        }
        if self.0.len() < MOST {
            self.0.push(Entry { reason, name, since: now, ends_with_commit: false });
        }
    }

    /// It ends; in a transaction that can be rolled back, only with its commit.
    pub(crate) fn end(&mut self, reason: Reason, name: &str, in_transaction: bool) {
        let name = name_of(reason, name);
        let Some(at) = self.0.iter().rposition(|entry| entry.reason == reason && entry.name == name) else {
            return;
        };
        let comes_back = matches!(reason, Reason::Found(Hold::TempTable | Hold::TempProcedure));
        if in_transaction && comes_back {
            self.0[at].ends_with_commit = true;
        } else {
            self.0.remove(at);
        }
    }

    /// All of this kind end.
    pub(crate) fn end_all(&mut self, reason: Reason) {
        self.0.retain(|entry| entry.reason != reason);
    }

    /// The transaction ended.
    pub(crate) fn transaction_ended(&mut self, committed: bool) {
        if committed {
            self.0.retain(|entry| !entry.ends_with_commit);
        }
        for entry in &mut self.0 {
            entry.ends_with_commit = false;
        }
        self.end_all(Reason::Transaction);
        self.end_all(Reason::Found(Hold::Transaction));
    }

    /// The client had its connection reset: that leaves the isolation level, whatever it is.
    pub(crate) fn reset(&mut self) {
        let setting = Reason::Found(Hold::Setting);
        let isolation = name_of(setting, ISOLATION);
        self.0.retain(|entry| {
            entry.reason.survives_client_reset() || (entry.reason == setting && entry.name == isolation)
        });
    }

    /// The connection is gone, and everything on it.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Each reason once, with the time since the oldest of it.
    pub(crate) fn reasons(&self) -> Vec<(Reason, Instant)> {
        let mut reasons: Vec<(Reason, Instant)> = Vec::new();
        for entry in &self.0 {
            match reasons.iter_mut().find(|(reason, _)| reason.name() == entry.reason.name()) {
                Some((_, since)) => *since = (*since).min(entry.since),
                None => reasons.push((entry.reason, entry.since)),
            }
        }
        reasons
    }

    /// Whether a reset of the connection would leave something on it.
    pub(crate) fn outlives_reset(&self) -> bool {
        self.0.iter().any(|entry| {
            matches!(entry.reason, Reason::Unfollowed)
                || matches!(entry.reason, Reason::Found(hold) if hold.survives_reset())
        })
    }
}

fn name_of(reason: Reason, name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    if !matches!(reason, Reason::Found(hold) if hold.is_counted()) {
        name.hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Reason = Reason::Found(Hold::TempTable);
    const LOCK: Reason = Reason::Found(Hold::ApplicationLock);

    fn ledger(begun: &[(Reason, &str)]) -> Ledger {
        let mut ledger = Ledger::default();
        for (reason, name) in begun {
            ledger.begin(*reason, name, Instant::now());
        }
        ledger
    }

    #[test]
    fn what_has_a_name_ends_by_it() {
        let mut ledger = ledger(&[(TABLE, "#a"), (TABLE, "#b"), (TABLE, "#a")]);
        ledger.end(TABLE, "#a", false);
        assert!(!ledger.is_empty());
        ledger.end(TABLE, "#c", false);
        ledger.end(TABLE, "#b", false);
        assert!(ledger.is_empty());
    }

    #[test]
    fn what_is_counted_ends_as_often_as_it_began() {
        let mut ledger = ledger(&[(LOCK, "x"), (LOCK, "y")]);
        ledger.end(LOCK, "", false);
        assert!(!ledger.is_empty());
        ledger.end(LOCK, "", false);
        assert!(ledger.is_empty());
    }

    #[test]
    fn a_table_dropped_in_a_transaction_is_gone_with_its_commit_only() {
        for committed in [false, true] {
            let mut ledger = ledger(&[(TABLE, "#a"), (Reason::Transaction, "")]);
            ledger.end(TABLE, "#a", true);
            assert_eq!(ledger.reasons().len(), 2);
            ledger.transaction_ended(committed);
            assert_eq!(ledger.is_empty(), committed);
        }
    }

    #[test]
    fn a_reset_leaves_an_isolation_level_that_is_not_known() {
        let setting = Reason::Found(Hold::Setting);
        let mut ledger = ledger(&[(setting, ISOLATION), (setting, "nocount")]);
        ledger.reset();
        ledger.end(setting, "nocount", false);
        assert!(!ledger.is_empty());
        ledger.end(setting, ISOLATION, false);
        assert!(ledger.is_empty());
    }

    #[test]
    fn a_reset_ends_what_it_ends() {
        let mut ledger = ledger(&[
            (TABLE, "#a"),
            (Reason::NotRecoverable, ""),
            (Reason::ProcessId, ""),
            (Reason::Found(Hold::ApplicationRole), ""),
        ]);
        assert!(ledger.outlives_reset());
        ledger.reset();
        let names: Vec<_> = ledger.reasons().iter().map(|(reason, _)| reason.name()).collect();
        assert_eq!(names, ["process_id", "application_role"]);
    }
}
