//! `show help`: every command with its meaning.

use super::command::HELP;
use super::table::{Column, Kind, Row, Table};

struct HelpRow(&'static str, &'static str);

impl Row for HelpRow {
    const COLUMNS: &'static [Column<Self>] =
        &[("command", Kind::Text, |row| row.0.into()), ("meaning", Kind::Text, |row| row.1.into())];
}

/// The list of commands.
pub(crate) fn help() -> Table {
    let rows: Vec<HelpRow> = HELP.iter().map(|(command, meaning)| HelpRow(command, meaning)).collect();
    Table::of(&rows)
}
