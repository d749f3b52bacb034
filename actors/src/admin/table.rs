//! The form of every answer: named columns that say what kind of value they hold, and rows.

use serde::Serialize;
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;

/// What is in a column, so that a terminal can show it well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// A text.
    Text,
    /// A count or an id.
    Number,
    /// Milliseconds.
    DurationMs,
    /// A number of bytes.
    Bytes,
}

/// A column of `R`'s table: its name, its kind, and where its cells come from.
pub(super) type Column<R> = (&'static str, Kind, fn(&R) -> Value);

/// A row of a table, which knows the table's columns.
pub(super) trait Row: Sized + 'static {
    const COLUMNS: &'static [Column<Self>];
}

/// Rows of one kind, ready to be sent.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Table {
    pub(crate) columns: Vec<Head>,
    /// Texts, whole numbers and nulls.
    pub(crate) rows: Vec<Vec<Value>>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Head {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
}

impl Table {
    /// The table that these rows are of.
    #[expect(private_bounds, reason = "only rows of this module are rows")]
    pub(crate) fn of<R: Row>(rows: &[R]) -> Self {
        Self::new(R::COLUMNS, rows)
    }

    fn new<R>(columns: &[Column<R>], rows: &[R]) -> Self {
        Self {
            columns: columns.iter().map(|(name, kind, _)| Head { name, kind: *kind }).collect(),
            rows: rows.iter().map(|row| columns.iter().map(|(_, _, cell)| cell(row)).collect()).collect(),
        }
    }
}

/// Whole milliseconds.
pub(super) fn millis(duration: Duration) -> Value {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).into()
}

/// Whole milliseconds, or nothing.
pub(super) fn millis_if(duration: Option<Duration>) -> Value {
    duration.map_or(Value::Null, millis)
}

/// Address and port, or nothing.
pub(super) fn address(address: Option<SocketAddr>) -> Value {
    address.map(|address| address.to_string()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_columns_with_their_kinds_and_rows_in_the_same_order() {
        let columns: &[Column<(u32, Option<&str>)>] = &[
            ("waited", Kind::DurationMs, |row| millis(Duration::from_secs(row.0.into()))),
            ("name", Kind::Text, |row| row.1.into()),
        ];
        let table = Table::new(columns, &[(2, Some("a \"b\"\n")), (3, None)]);
        assert_eq!(
            serde_json::to_string(&table).unwrap(),
            concat!(
                r#"{"columns":[{"name":"waited","kind":"duration_ms"},{"name":"name","kind":"text"}],"#,
                r#""rows":[[2000,"a \"b\"\n"],[3000,null]]}"#
            )
        );
    }
}
