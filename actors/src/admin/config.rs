//! `show config`: the configuration in force, key by key, without secrets.

use super::table::{Column, Kind, Row};

/// One key.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConfigRow {
    /// Its path, as `buckets[0].max_connections`.
    pub(crate) key: String,
    /// Its value, as the file would have it.
    pub(crate) value: String,
}

impl Row for ConfigRow {
    const COLUMNS: &'static [Column<Self>] =
        &[("key", Kind::Text, |row| (&*row.key).into()), ("value", Kind::Text, |row| (&*row.value).into())];
}
