//! Transactions by text, by transaction manager request, implicit, nested, with savepoints.

use tds::request::{BeginTransaction, IsolationLevel, TransactionRequest};

use super::{Author, Writes};
use crate::request::Ask;
use crate::script::Step;

impl Author {
    pub(super) fn transact(&mut self) {
        if self.profile.is_7_2_or_later() && self.random.chance(50) {
            self.manage();
        } else {
            self.by_text();
        }
        // Something inside, as a rule.
        if self.random.chance(60) {
            match self.writes {
                Some(Writes::Temporary) => self.use_temporary(),
                Some(Writes::Permanent) => self.use_permanent(),
                None => self.use_table(),
            }
        }
        // Locks are others' waiting time.
        if self.random.chance(45) {
            self.end();
        }
    }

    fn by_text(&mut self) {
        let id = self.client;
        let text = match self.random.below(14) {
            0..4 => "BEGIN TRANSACTION".to_owned(),
            4 => "BEGIN TRAN outer_one".to_owned(),
            5 => "SAVE TRANSACTION here".to_owned(),
            6 => "ROLLBACK TRANSACTION here".to_owned(),
            7 => "ROLLBACK TRANSACTION outer_one".to_owned(),
            8 => "BEGIN TRAN; SAVE TRAN here; ROLLBACK TRAN here; COMMIT".to_owned(),
            9 => "SELECT @@TRANCOUNT; BEGIN TRAN; SELECT @@TRANCOUNT; COMMIT; SELECT @@TRANCOUNT".to_owned(),
            10 => {
                self.may_write(Writes::Permanent);
                format!("BEGIN TRAN; INSERT t{id} (n) VALUES (1); ROLLBACK")
            }
            11 => {
                self.may_write(Writes::Permanent);
                format!("EXEC r{id}")
            }
            12 => {
                self.may_write(Writes::Permanent);
                format!("SET IMPLICIT_TRANSACTIONS ON; INSERT t{id} (n) VALUES (5)")
            }
            _ => "SET IMPLICIT_TRANSACTIONS OFF".to_owned(),
        };
        self.batch(text);
    }

    fn end(&mut self) {
        let begins = self.random.chance(25);
        if self.profile.is_7_2_or_later() && self.random.chance(50) {
            let begin = begins.then(|| self.begin());
            let name = String::new();
            let request = if self.random.chance(60) {
                TransactionRequest::Commit { name, begin }
            } else {
                TransactionRequest::Rollback { name, begin }
            };
            self.step(Step::ask(Ask::Transaction(request)));
            return;
        }
        let text = self.pick(&["COMMIT", "COMMIT TRANSACTION", "ROLLBACK", "IF @@TRANCOUNT > 0 COMMIT"]);
        self.batch(text);
    }

    fn begin(&mut self) -> BeginTransaction {
        let isolation = self.pick(&[
            IsolationLevel::CURRENT,
            IsolationLevel::CURRENT,
            IsolationLevel::READ_COMMITTED,
            IsolationLevel::READ_UNCOMMITTED,
            IsolationLevel::SERIALIZABLE,
            IsolationLevel::REPEATABLE_READ,
        ]);
        BeginTransaction { isolation, name: String::new() }
    }

    fn manage(&mut self) {
        let here = || "here".to_owned();
        let request = match self.random.below(10) {
            0..6 => TransactionRequest::Begin(self.begin()),
            6 => TransactionRequest::Save { name: here() },
            7 => TransactionRequest::Rollback { name: here(), begin: None },
            8 => TransactionRequest::Commit { name: String::new(), begin: Some(self.begin()) },
            _ => TransactionRequest::Rollback { name: String::new(), begin: Some(self.begin()) },
        };
        self.step(Step::ask(Ask::Transaction(request)));
    }
}
