//! What a session has prepared, by the numbers that its client knows.

use std::collections::HashMap;
use std::sync::Arc;

use super::statement::Statement;
use crate::policy;

/// A session's virtual handles. A number is never given twice.
#[derive(Debug)]
pub(crate) struct Statements {
    limits: Limits,
    last: i32,
    by_handle: HashMap<i32, Prepared>,
    bytes: usize,
    tied: usize,
}

/// How much a session may keep prepared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Statements.
    pub(crate) count: usize,
    /// Bytes of memory for their texts.
    pub(crate) bytes: usize,
}

/// What stands behind a virtual handle.
#[derive(Clone, Debug)]
pub(crate) enum Prepared {
    /// A statement that can be prepared on any connection.
    Anywhere(Arc<Statement>),
    /// A statement that could not be remembered: a real handle of the connection that the session holds for its sake.
    Here(i32),
}

impl Prepared {
    /// Bytes of memory.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Anywhere(statement) => statement.size(),
            Self::Here(_) => 0,
        }
    }
}

/// The session has reached a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{count} prepared statements of {bytes} bytes are more than a session may have ({max_count}, {max_bytes} bytes)"
)]
pub(crate) struct TooManyStatements {
    /// What it would have had.
    pub(crate) count: usize,
    /// What they would have taken, in bytes.
    pub(crate) bytes: usize,
    pub(crate) max_count: usize,
    pub(crate) max_bytes: usize,
}

impl Default for Statements {
    fn default() -> Self {
        Self::new(Limits { count: policy::STATEMENTS, bytes: policy::STATEMENT_BYTES })
    }
}

impl Statements {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, last: 0, by_handle: HashMap::new(), bytes: 0, tied: 0 }
    }

    /// How many there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.by_handle.len()
    }

    pub(super) fn get(&self, handle: i32) -> Option<&Prepared> {
        self.by_handle.get(&handle)
    }

    /// True while there are handles that mean something on one connection only: the session has to keep it.
    pub(crate) fn tie(&self) -> bool {
        self.tied > 0
    }

    /// Whether there is room for so many more, of so many bytes together.
    pub(super) fn room_for(&self, more: usize, bytes: usize) -> Result<(), TooManyStatements> {
        let (count, bytes) = (self.by_handle.len() + more, self.bytes + bytes);
        let numbers_left = usize::try_from(i32::MAX - self.last).unwrap_or(0);
        if count > self.limits.count || bytes > self.limits.bytes || more > numbers_left {
            let Limits { count: max_count, bytes: max_bytes } = self.limits;
            return Err(TooManyStatements { count, bytes, max_count, max_bytes });
        }
        Ok(())
    }

    /// The number for one more.
    pub(super) fn add(&mut self, prepared: Prepared) -> i32 {
        let handle = self.next();
        self.bytes += prepared.size();
        self.tied += usize::from(matches!(prepared, Prepared::Here(_)));
        self.by_handle.insert(handle, prepared);
        handle
    }

    /// A number that nothing stands behind.
    pub(super) fn next(&mut self) -> i32 {
        self.last = self.last.saturating_add(1);
        self.last
    }

    pub(super) fn remove(&mut self, handle: i32) -> Option<Prepared> {
        let removed = self.by_handle.remove(&handle)?;
        self.bytes -= removed.size();
        self.tied -= usize::from(matches!(removed, Prepared::Here(_)));
        Some(removed)
    }

    /// The connection is gone, and what meant something on it alone.
    pub(crate) fn untie(&mut self) {
        if self.tied > 0 {
            self.by_handle.retain(|_, prepared| matches!(prepared, Prepared::Anywhere(_)));
            self.tied = 0;
        }
    }

    /// The client had its session reset: all are gone.
    pub(crate) fn clear(&mut self) {
        *self = Self { last: self.last, ..Self::new(self.limits) };
    }
}
