//! `show help`: every command with its meaning.

use super::command::{ORDERS, SUBJECTS};
use super::table::{Column, Kind, Row, Table};

struct HelpRow {
    command: String,
    meaning: &'static str,
}

impl Row for HelpRow {
    const COLUMNS: &'static [Column<Self>] = &[
        ("command", Kind::Text, |row| (&*row.command).into()),
        ("meaning", Kind::Text, |row| row.meaning.into()),
    ];
}

/// The list of commands.
pub(crate) fn help() -> Table {
    let shows =
        SUBJECTS.iter().map(|(subject, meaning)| (format!("SHOW {}", subject.to_uppercase()), *meaning));
    let orders = ORDERS.iter().map(|(order, meaning)| ((*order).to_owned(), *meaning));
    let rows: Vec<HelpRow> =
        shows.chain(orders).map(|(command, meaning)| HelpRow { command, meaning }).collect();
    Table::of(&rows)
}
