//! Cursors: T-SQL's and the API's, over rows that were read when the cursor was opened.

use super::datum::Datum;
use super::parse::FetchHow;
use super::wire_types::OutColumn;

/// A cursor. Its rows are a snapshot taken at OPEN (as STATIC or INSENSITIVE); DYNAMIC and KEYSET see no later changes.
#[derive(Debug, Clone, Default)]
pub(super) struct Cursor {
    /// What OPEN runs.
    pub(super) query: Option<Box<sqlparser::ast::Query>>,
    pub(super) columns: Vec<OutColumn>,
    pub(super) rows: Option<Vec<Vec<Datum>>>,
    /// 0 is before the first row.
    pub(super) position: i64,
    pub(super) scroll: bool,
    /// For API cursors: rows of the last fetch, for sp_cursor.
    pub(super) buffer: (i64, i64),
}

impl Cursor {
    pub(super) fn close(&mut self) {
        self.rows = None;
        self.position = 0;
    }

    pub(super) fn len(&self) -> i64 {
        self.rows.as_ref().map_or(0, |r| r.len() as i64)
    }

    /// Moves and gives the row there; `amount` is the evaluated number of ABSOLUTE or RELATIVE.
    pub(super) fn fetch(&mut self, how: &FetchHow, amount: i64) -> Option<Vec<Datum>> {
        let len = self.len();
        let target = match how {
            FetchHow::Next => self.position + 1,
            FetchHow::Prior => self.position - 1,
            FetchHow::First => 1,
            FetchHow::Last => len,
            FetchHow::Absolute(_) if amount < 0 => len + 1 + amount,
            FetchHow::Absolute(_) => amount,
            FetchHow::Relative(_) => self.position + amount,
        };
        self.position = target.clamp(0, len + 1);
        if target < 1 || target > len {
            return None;
        }
        self.rows.as_ref().and_then(|rows| rows.get(target as usize - 1)).cloned()
    }
}
