//! The parts of an RPC message that have to be whole to be understood, and what comes behind each ([MS-TDS] 2.2.6.6).

use super::{Callee, Followed};
use crate::col_metadata::{ColumnFlags, NO_METADATA};
use crate::read::Reader;
use crate::rpc::{ParamFlags, ProcId, Separator};
use crate::scan::Cell;
use crate::token::TokenKind;
use crate::type_info::TypeId;
use crate::{Dialect, Malformed};

/// What comes next. `encrypted`: how the value was encrypted is said behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The length of ALL_HEADERS.
    Headers,
    /// What is called and how.
    Call,
    /// A parameter up to its value, or a separator.
    Parameter,
    /// How a value was encrypted.
    Cipher,
    /// One of so many columns of a table type.
    Column { left: u16, encrypted: bool },
    /// What a table type says behind its columns.
    TableOption { encrypted: bool },
    /// A row's token, or the end of the table.
    TableRow { encrypted: bool },
}

/// What comes behind a part.
pub(super) enum Next {
    Part(Part),
    Skip(u64, Part),
    Value(Cell, Part),
    Row(Part),
}

/// The row format of the current table. Memory is kept from one to the next.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// With each column whether rows leave it out.
    columns: Vec<(Cell, bool)>,
    /// The columns' numbers, from 1, in the order in which rows carry them; empty if that is their own.
    order: Vec<u16>,
    /// What rows carry.
    cells: Vec<Cell>,
}

impl Part {
    /// What a message begins with.
    pub(super) fn first(dialect: Dialect) -> Self {
        if dialect.is_7_2_or_later() { Self::Headers } else { Self::Call }
    }

    /// Looks at the part at the beginning of `bytes`, which is at `offset` in the message. Yields how long it is and what
    /// comes behind it.
    pub(super) fn look(
        self,
        bytes: &[u8],
        offset: u64,
        dialect: Dialect,
        table: &mut Table,
        on_event: &mut impl FnMut(Followed<'_>),
    ) -> Result<(usize, Next), Malformed> {
        let mut reader = Reader::new(bytes, "an RPC request");
        let next = match self {
            Self::Headers => {
                let total = reader.u32()?;
                match u64::from(total).checked_sub(4) {
                    Some(rest) => Next::Skip(rest, Self::Call),
                    None => {
                        return Err(Malformed::Value {
                            what: "ALL_HEADERS' length",
                            value: u64::from(total),
                        });
                    }
                }
            }
            Self::Call => {
                let callee = read_callee(&mut reader)?;
                reader.u16()?;
                if dialect.column_encryption >= 2 {
                    reader.us_varbyte()?;
                }
                on_event(Followed::Call { offset, callee, parameters: offset + reader.position() as u64 });
                Next::Part(Self::Parameter)
            }
            Self::Parameter => match Separator::from_byte(reader.u8()?, dialect) {
                Some(separator) => {
                    on_event(Followed::Separator { offset, separator });
                    Next::Part(Self::Call)
                }
                None => {
                    let next = read_parameter(bytes, &mut reader, dialect, table)?;
                    on_event(Followed::Parameter { offset });
                    next
                }
            },
            Self::Cipher => {
                Cell::read_parameter(TypeId(reader.u8()?), &mut reader, dialect)?;
                if reader.u8()? == 0 {
                    skip_b_varchar(&mut reader)?;
                }
                reader.take(1 + 4 + 4 + 4 + 8 + 1)?;
                Next::Part(Self::Parameter)
            }
            Self::Column { left, encrypted } => {
                reader.take(4)?;
                let left_out = ColumnFlags(reader.u16()?).contains(ColumnFlags::DEFAULT);
                let id = TypeId(reader.u8()?);
                // Not allowed in tables ([MS-TDS] 2.2.5.5.5.3), and rows would cost nothing.
                if id == TypeId::NULL {
                    return Err(unfit("a table column's type", id.0));
                }
                let cell = Cell::read_parameter(id, &mut reader, dialect)?;
                skip_b_varchar(&mut reader)?;
                table.columns.push((cell, left_out));
                Next::Part(after_columns(left - 1, encrypted))
            }
            Self::TableOption { encrypted } => match reader.u8()? {
                END => {
                    table.finish()?;
                    Next::Part(Self::TableRow { encrypted })
                }
                ORDER_UNIQUE => Next::Skip(u64::from(reader.u16()?) * 3, self),
                COLUMN_ORDERING => {
                    let count = reader.u16()?;
                    // There are no more columns than that, and each is named once.
                    if table.order.len() + usize::from(count) > table.columns.len() {
                        return Err(bad_order(count));
                    }
                    let mut numbers = Reader::new(reader.take(usize::from(count) * 2)?, "a column order");
                    while !numbers.is_empty() {
                        table.order.push(numbers.u16()?);
                    }
                    Next::Part(self)
                }
                other => return Err(unfit("a table type's token", other)),
            },
            Self::TableRow { encrypted } => match reader.u8()? {
                END => Next::Part(after_value(encrypted)),
                token if token == TokenKind::TVP_ROW.0 => Next::Row(self),
                other => return Err(unfit("a table row's token", other)),
            },
        };
        Ok((reader.position(), next))
    }
}

const ORDER_UNIQUE: u8 = 0x10;
const COLUMN_ORDERING: u8 = 0x11;
const END: u8 = 0x00;

fn after_value(encrypted: bool) -> Part {
    if encrypted { Part::Cipher } else { Part::Parameter }
}

fn after_columns(left: u16, encrypted: bool) -> Part {
    if left > 0 { Part::Column { left, encrypted } } else { Part::TableOption { encrypted } }
}

fn read_callee<'a>(reader: &mut Reader<'a>) -> Result<Callee<'a>, Malformed> {
    match reader.u16()? {
        u16::MAX => Ok(Callee::Id(ProcId(reader.u16()?))),
        // The name is at most 1,046 bytes.
        chars if chars > 523 => {
            Err(Malformed::Value { what: "a procedure name's length", value: u64::from(chars) })
        }
        chars => reader.take(usize::from(chars) * 2).map(Callee::Name),
    }
}

/// What follows the byte that counts the name.
fn read_parameter(
    bytes: &[u8],
    reader: &mut Reader<'_>,
    dialect: Dialect,
    table: &mut Table,
) -> Result<Next, Malformed> {
    let chars = bytes.first().copied().unwrap_or_default();
    reader.take(usize::from(chars) * 2)?;
    let flags = ParamFlags(reader.u8()?);
    let encrypted = flags.contains(ParamFlags::ENCRYPTED) && dialect.column_encryption > 0;
    match TypeId(reader.u8()?) {
        TypeId::TVP => {
            for _ in 0..3 {
                skip_b_varchar(reader)?;
            }
            let columns = match reader.u16()? {
                NO_METADATA => 0,
                count if count > 1024 => {
                    return Err(Malformed::Value {
                        what: "a table type's column count",
                        value: u64::from(count),
                    });
                }
                count => count,
            };
            table.begin();
            Ok(Next::Part(after_columns(columns, encrypted)))
        }
        id => {
            let cell = Cell::read_parameter(id, reader, dialect)?;
            Ok(Next::Value(cell, after_value(encrypted)))
        }
    }
}

impl Table {
    pub(super) fn cells(&self) -> &[Cell] {
        &self.cells
    }

    fn begin(&mut self) {
        self.columns.clear();
        self.order.clear();
        self.cells.clear();
    }

    /// The type is known: so is what rows carry.
    fn finish(&mut self) -> Result<(), Malformed> {
        if self.order.is_empty() {
            let sent = self.columns.iter().filter(|(_, left_out)| !left_out);
            self.cells.extend(sent.map(|(cell, _)| *cell));
            return Ok(());
        }
        if self.order.len() != self.columns.len() {
            return Err(bad_order(self.order.len() as u16));
        }
        for (at, number) in self.order.iter().enumerate() {
            let column = usize::from(*number).checked_sub(1).and_then(|at| self.columns.get(at));
            match column {
                Some((cell, left_out)) if !self.order[..at].contains(number) => {
                    if !left_out {
                        self.cells.push(*cell);
                    }
                }
                _ => return Err(bad_order(*number)),
            }
        }
        Ok(())
    }
}

fn skip_b_varchar(reader: &mut Reader<'_>) -> Result<(), Malformed> {
    let chars = usize::from(reader.u8()?);
    reader.take(chars * 2).map(drop)
}

fn bad_order(number: u16) -> Malformed {
    Malformed::Value { what: "a table's column order", value: u64::from(number) }
}

fn unfit(what: &'static str, value: u8) -> Malformed {
    Malformed::Value { what, value: u64::from(value) }
}
