//! What a session in transaction pooling is apart from its connection: it survives the hand-overs and a crash.

use std::sync::Arc;

use bytes::BytesMut;
use tds::request::BeginTransaction;
use tds::tsql::Hold;
use tokio::time::Instant;

use super::super::prepared::Statements;
use super::asked::{Asked, Effect, cursor_name};
use super::holds::{Ledger, Reason};
use super::observer::Reply;
use super::transaction::{Descriptors, Transaction};
use super::values::Values;
use crate::bucket::state::{ConnState, Settings};
use crate::error::SessionError;

/// The session, as its client believes it to be.
#[derive(Debug, Default)]
pub(crate) struct PooledState {
    pub(crate) settings: Arc<Settings>,
    pub(crate) ledger: Ledger,
    pub(crate) transaction: Transaction,
    pub(crate) descriptors: Descriptors,
    /// What of its earlier requests is still on the connection that it used last.
    pub(crate) values: Values,
    /// What the client has prepared.
    pub(crate) statements: Statements,
    /// The connection is held for some of it.
    tied: bool,
    /// The number of uses of the connection that it used last, at that time; 0 for none.
    pub(crate) uses: u64,
    /// A transaction that the client believes to have begun inside the open one: it begins with the next request.
    pub(crate) nested: Option<BeginTransaction>,
    /// What the next request is answered with instead of being run, and tokens that go before it.
    pub(crate) overdue: Option<(SessionError, BytesMut)>,
}

/// What of the bucket's settings matters here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules<'a> {
    /// The login's database.
    pub(crate) home: &'a str,
    /// A session that looked at its process id keeps it.
    pub(crate) keep_process_id: bool,
    /// Reset a connection at every change of hands.
    pub(crate) always_reset: bool,
    /// Of what the proxy itself sends, in bytes.
    pub(crate) packet_size: usize,
    /// The client's program.
    pub(crate) application: &'a str,
}

/// What is not explained: settings, for good, or the context, until it is as after the login.
const SETTINGS: &str = "settings";
const CONTEXT: &str = "context";

/// A statement that could not be remembered is on the connection.
const TIE: Reason = Reason::Found(Hold::PreparedHandle);

impl PooledState {
    /// A request has run: what it did to the session and to its connection.
    pub(crate) fn settle(
        &mut self,
        asked: &Asked,
        reply: Reply,
        conn: &mut ConnState,
        rules: Rules<'_>,
        now: Instant,
    ) {
        let clean = !reply.error && !reply.withdrawn && !reply.lost;
        if reply.reset {
            self.client_reset();
            conn.dirty = false;
        }
        if let Some(committed) = reply.ended {
            self.ledger.transaction_ended(committed);
        }
        for effect in &asked.effects {
            self.apply(effect, clean, &reply, rules, now);
        }
        if let Some(database) = &reply.database {
            Arc::make_mut(&mut self.settings).use_database(database, rules.home);
        }
        let sets_language = asked
            .effects
            .iter()
            .any(|effect| matches!(effect, Effect::Set("language", _) | Effect::Begins(Hold::Setting, _)));
        let language_changed = reply.language.as_ref().is_some_and(|(before, now)| before != now);
        if language_changed && !sets_language && !reply.reset {
            self.ledger.begin(Reason::Unexplained, SETTINGS, now);
        }
        self.witness(asked, &reply, now);
        if reply.lost {
            self.ledger.begin(Reason::Unfollowed, "", now);
        }
        if self.statements.tie() != self.tied {
            self.tied = !self.tied;
            if self.tied {
                self.ledger.begin(TIE, "", now);
            } else {
                self.ledger.end(TIE, "", false);
            }
        }
        if self.transaction.is_open() {
            self.ledger.begin(Reason::Transaction, "", now);
        }
        let touched = asked.effects.iter().any(|effect| {
            !matches!(
                effect,
                Effect::Set(..) | Effect::Begins(Hold::Transaction, _) | Effect::EndsAll(Hold::Transaction)
            )
        });
        conn.dirty |= asked.dirties || reply.withdrawn || touched;
        conn.settings = Arc::clone(&self.settings);
    }

    fn apply(&mut self, effect: &Effect, clean: bool, reply: &Reply, rules: Rules<'_>, now: Instant) {
        match effect {
            // The server tells of transactions.
            Effect::Begins(Hold::Transaction, _) | Effect::Ends(Hold::Transaction, _) => {}
            Effect::EndsAll(Hold::Transaction) => {}
            Effect::Begins(Hold::BulkLoad, _) if reply.error => {}
            // What it left is told by the server; the next client's reset takes it away.
            Effect::Begins(Hold::DynamicText, _) if reply.is_told_of_everything() => {}
            Effect::Begins(hold, name) => self.ledger.begin(Reason::Found(*hold), name, now),
            Effect::Ends(hold, name) if clean => {
                self.ledger.end(Reason::Found(*hold), name, self.transaction.is_open());
            }
            // Rows that were refused end the load all the same.
            Effect::EndsAll(Hold::BulkLoad) => self.ledger.end_all(Reason::Found(Hold::BulkLoad)),
            Effect::EndsAll(hold) if clean => self.ledger.end_all(Reason::Found(*hold)),
            Effect::Ends(..) | Effect::EndsAll(_) => {}
            Effect::Set(option, value) if clean => {
                Arc::make_mut(&mut self.settings).set(option, value);
                self.ledger.end(Reason::Found(Hold::Setting), option, false);
            }
            Effect::Set(option, value) => {
                if !self.settings.has(option, value) {
                    self.ledger.begin(Reason::Found(Hold::Setting), option, now);
                }
            }
            Effect::OpensCursor => match reply.cursor {
                Some(0) | None if reply.error => {}
                Some(handle) => self.ledger.begin(Reason::Found(Hold::Cursor), &cursor_name(handle), now),
                None => self.ledger.begin(Reason::Found(Hold::Cursor), "", now),
            },
            Effect::HandlesByText => {}
            Effect::ReadsProcessId => {
                if rules.keep_process_id {
                    self.ledger.begin(Reason::ProcessId, "", now);
                }
            }
        }
    }

    /// What the server itself says about the session.
    fn witness(&mut self, asked: &Asked, reply: &Reply, now: Instant) {
        let Some(told) = reply.told else { return };
        if told.recoverable {
            self.ledger.end_all(Reason::NotRecoverable);
        }
        if !told.has_context {
            self.ledger.end(Reason::Unexplained, CONTEXT, false);
        }
        let explained = reply.reset
            || reply.database.is_some()
            || asked.transaction.is_some()
            || asked.effects.iter().any(explains);
        // A change of the context is seen as long as it lasts.
        if !reply.changed.without(told.context).is_empty() && !explained {
            self.ledger.begin(Reason::Unexplained, SETTINGS, now);
        }
        // What holds by its text need not be said twice.
        if self.ledger.is_empty() && !self.transaction.is_open() {
            if !told.recoverable {
                self.ledger.begin(Reason::NotRecoverable, "", now);
            }
            if told.has_context {
                self.ledger.begin(Reason::Unexplained, CONTEXT, now);
            }
        }
    }

    /// The client had its session reset.
    pub(crate) fn client_reset(&mut self) {
        Arc::make_mut(&mut self.settings).reset();
        self.ledger.reset();
        self.statements.clear();
        self.tied = false;
    }

    /// A crash or a failure took the connection, on which nothing of the session was. A transaction that no server
    /// knows stays.
    pub(crate) fn lost_lease(&mut self) {
        let transaction = std::mem::take(&mut self.transaction);
        self.lost_connection();
        if matches!(transaction, Transaction::Virtual { .. }) {
            self.transaction = transaction;
        }
    }

    /// The connection is gone, with everything that was on it.
    pub(crate) fn lost_connection(&mut self) {
        self.ledger.clear();
        self.statements.untie();
        self.tied = false;
        self.transaction = Transaction::None;
        self.nested = None;
    }

    /// Nothing ties the session to its connection.
    pub(crate) fn is_free(&self) -> bool {
        self.ledger.is_empty() && !self.transaction.is_open()
    }
}

/// Whether it may change states by what its text says: then that is set again by a replay, or holds.
fn explains(effect: &Effect) -> bool {
    !matches!(effect, Effect::ReadsProcessId | Effect::HandlesByText | Effect::Begins(Hold::DynamicText, _))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules<'_> = Rules {
        home: "shop",
        keep_process_id: true,
        always_reset: false,
        packet_size: 4096,
        application: "",
    };

    struct Stage {
        state: PooledState,
        conn: ConnState,
    }

    impl Stage {
        fn new() -> Self {
            Self { state: PooledState::default(), conn: ConnState::default() }
        }

        fn run(&mut self, effects: &[Effect], reply: Reply) -> &mut Self {
            let asked = Asked { effects: effects.to_vec(), ..Asked::default() };
            self.state.settle(&asked, reply, &mut self.conn, RULES, Instant::now());
            self
        }

        fn reasons(&self) -> Vec<&'static str> {
            self.state.ledger.reasons().iter().map(|(reason, _)| reason.name()).collect()
        }
    }

    fn failed() -> Reply {
        Reply { error: true, ..Reply::default() }
    }

    fn table(name: &str) -> Effect {
        Effect::Begins(Hold::TempTable, name.into())
    }

    #[test]
    fn a_set_that_may_not_have_run_holds_until_it_surely_has() {
        let mut stage = Stage::new();
        let set = [Effect::Set("nocount", "on".into())];
        assert_eq!(stage.run(&set, failed()).reasons(), ["setting"]);
        assert!(stage.run(&set, Reply::default()).state.is_free());
        assert!(stage.run(&set, failed()).state.is_free(), "it was on already");
        assert!(stage.conn.settings.has("nocount", "on"));
    }

    #[test]
    fn a_drop_that_failed_ends_nothing() {
        let mut stage = Stage::new();
        let drop = [Effect::Ends(Hold::TempTable, "#t".into())];
        assert_eq!(stage.run(&[table("#t")], Reply::default()).reasons(), ["temp_table"]);
        assert_eq!(stage.run(&drop, failed()).reasons(), ["temp_table"]);
        assert!(stage.run(&drop, Reply::default()).state.is_free());
        assert!(stage.conn.dirty);
    }

    #[test]
    fn an_open_transaction_holds_to_its_end() {
        let mut stage = Stage::new();
        stage.state.transaction.opened(7);
        assert_eq!(stage.run(&[], Reply::default()).reasons(), ["transaction"]);
        stage.state.transaction = Transaction::None;
        let ended = Reply { ended: Some(true), ..Reply::default() };
        assert!(stage.run(&[], ended).state.is_free());
        assert!(!stage.conn.dirty);
    }

    #[test]
    fn a_database_is_part_of_the_settings() {
        let mut stage = Stage::new();
        let used = |name: &str| Reply { database: Some(name.to_owned()), ..Reply::default() };
        stage.run(&[], used("depot"));
        assert!(stage.state.is_free() && stage.conn.settings.replay().contains("USE [depot]"));
        stage.run(&[], used("shop"));
        assert!(stage.conn.settings.is_default());
    }

    #[test]
    fn a_response_that_was_lost_holds_for_good() {
        let mut stage = Stage::new();
        stage.run(&[], Reply { lost: true, ..Reply::default() });
        stage.run(&[], Reply { reset: true, ..Reply::default() });
        assert_eq!(stage.reasons(), ["unfollowed_response"]);
        assert!(stage.state.ledger.outlives_reset());
    }

    #[test]
    fn a_cursor_is_held_by_its_handle() {
        let mut stage = Stage::new();
        stage.run(&[Effect::OpensCursor], Reply { cursor: Some(180), ..Reply::default() });
        assert_eq!(stage.reasons(), ["cursor"]);
        stage.run(&[Effect::Ends(Hold::Cursor, cursor_name(180))], Reply::default());
        assert!(stage.state.is_free());
        assert!(stage.run(&[Effect::OpensCursor], failed()).state.is_free());
    }
}
