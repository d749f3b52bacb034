//! `show memory`: what the process takes of the machine.

use super::table::{Column, Kind, Row};
use serde_json::Value;

/// The process.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryRow {
    /// In RAM now, in bytes.
    pub(crate) resident: Option<usize>,
    /// The most that ever was.
    pub(crate) peak: Option<usize>,
    /// Open files and sockets.
    pub(crate) open_files: Option<usize>,
    /// Clients connected.
    pub(crate) clients: usize,
    /// Server connections.
    pub(crate) servers: usize,
}

impl Row for MemoryRow {
    const COLUMNS: &'static [Column<Self>] = &[
        ("resident", Kind::Bytes, |row| number(row.resident)),
        ("peak", Kind::Bytes, |row| number(row.peak)),
        ("open_files", Kind::Number, |row| number(row.open_files)),
        ("clients", Kind::Number, |row| row.clients.into()),
        ("servers", Kind::Number, |row| row.servers.into()),
    ];
}

fn number(number: Option<usize>) -> Value {
    number.map_or(Value::Null, Value::from)
}
