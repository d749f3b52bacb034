//! What is prepared on a server connection, by whichever session.

use std::collections::HashMap;
use std::sync::Arc;

use super::statement::Statement;
use crate::policy;

/// The real handles of one server connection.
#[derive(Clone, Debug)]
pub(crate) struct RealHandles {
    limit: usize,
    by_statement: HashMap<Key, i32>,
    /// Every handle that the server is known to have; none for one that no statement is looked up for any more.
    by_number: HashMap<i32, Option<Key>>,
    /// The server may have a handle whose number never came.
    lost: bool,
}

/// A handle is good only under the database and settings that it was prepared under (error 586).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    context: u64,
    statement: Arc<Statement>,
}

impl Default for RealHandles {
    fn default() -> Self {
        Self::new(policy::REAL_HANDLES)
    }
}

impl RealHandles {
    /// `limit`: how many handles the connection may have before it is to be reset.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, by_statement: HashMap::new(), by_number: HashMap::new(), lost: false }
    }

    /// How many the server is known to have.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.by_number.len()
    }

    /// True if the server surely has none.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_number.is_empty() && !self.lost
    }

    /// True if the connection has to be reset before it is another session's: it has as many handles as it may have, or
    /// one that only the session which made it could meet.
    pub(crate) fn want_reset(&self) -> bool {
        self.lost || self.is_full()
    }

    /// The connection was reset: the server has none any more.
    pub(crate) fn clear(&mut self) {
        self.by_statement.clear();
        self.by_number.clear();
        self.lost = false;
    }

    pub(super) fn is_full(&self) -> bool {
        self.by_number.len() >= self.limit
    }

    pub(super) fn find(&self, context: u64, statement: &Arc<Statement>) -> Option<i32> {
        self.by_statement.get(&Key { context, statement: Arc::clone(statement) }).copied()
    }

    /// True if the server is known to have a handle of this number.
    pub(super) fn has(&self, number: i32) -> bool {
        self.by_number.contains_key(&number)
    }

    /// True if the server may have a handle of any number.
    pub(super) fn has_lost(&self) -> bool {
        self.lost
    }

    /// The server gave a handle; for a statement that is looked up, or for one that only its session knows.
    pub(super) fn learn(&mut self, context: u64, statement: Option<&Arc<Statement>>, number: i32) {
        self.forget(number);
        let key = statement.map(|statement| Key { context, statement: Arc::clone(statement) });
        if let Some(key) = &key
            && let Some(before) = self.by_statement.insert(key.clone(), number)
        {
            self.by_number.insert(before, None);
        }
        self.by_number.insert(number, key);
    }

    /// The server dropped a handle.
    pub(super) fn forget(&mut self, number: i32) {
        if let Some(Some(key)) = self.by_number.remove(&number) {
            self.by_statement.remove(&key);
        }
    }

    /// The server has it, but for which statement is not sure.
    pub(super) fn disown(&mut self, number: i32) {
        self.forget(number);
        self.by_number.insert(number, None);
    }

    /// The server may have given a handle that did not come.
    pub(super) fn lose(&mut self) {
        self.lost = true;
    }

    /// The same statement if the connection knows it, so that sessions share its text.
    pub(super) fn shared(&self, context: u64, statement: Arc<Statement>) -> Arc<Statement> {
        let key = Key { context, statement };
        match self.by_statement.get_key_value(&key) {
            Some((known, _)) => Arc::clone(&known.statement),
            None => key.statement,
        }
    }
}
