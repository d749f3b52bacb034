//! A parameter that is a table: its type and its rows ([MS-TDS] 2.2.5.5.5).

use bytes::BufMut;

use crate::col_metadata::{ColumnFlags, NO_METADATA};
use crate::read::Reader;
use crate::token::TokenKind;
use crate::type_info::{Place, TypeInfo};
use crate::value::{self, Unfit, Value};
use crate::{Dialect, Malformed, write};

const ORDER_UNIQUE: u8 = 0x10;
const COLUMN_ORDERING: u8 = 0x11;
const END: u8 = 0x00;

/// TVP_TYPE_INFO up to the first row.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct TableType {
    /// Must be empty, says the specification.
    pub database: String,
    /// The type's schema; may be empty.
    pub schema: String,
    /// The type's name; may be empty.
    pub name: String,
    /// None for TVP_NULL_TOKEN: the parameter is NULL, that is, empty.
    pub columns: Option<Vec<TableColumn>>,
    /// TVP_ORDER_UNIQUE: how the rows are ordered or unique.
    pub order: Vec<ColumnOrder>,
    /// TVP_COLUMN_ORDERING: the columns' numbers, from 1, in the order in which rows carry them.
    pub sent_order: Vec<u16>,
}

/// TvpColumnMetaData.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TableColumn {
    /// The user type.
    pub user_type: u32,
    /// [`ColumnFlags::DEFAULT`] means that rows leave the column out.
    pub flags: ColumnFlags,
    /// The data type.
    pub type_info: TypeInfo,
    /// Must be empty, says the specification.
    pub name: String,
}

/// One entry of TVP_ORDER_UNIQUE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ColumnOrder {
    /// The column's number, from 1.
    pub column: u16,
    /// 1 ascending, 2 descending, 4 unique.
    pub flags: u8,
}

impl TableType {
    pub(super) fn read(reader: &mut Reader<'_>, dialect: Dialect) -> Result<Self, Malformed> {
        let mut table = Self {
            database: reader.b_varchar()?,
            schema: reader.b_varchar()?,
            name: reader.b_varchar()?,
            ..Self::default()
        };
        table.columns = match reader.u16()? {
            NO_METADATA => None,
            count if count > 1024 => {
                return Err(Malformed::Value {
                    what: "a table type's column count",
                    value: u64::from(count),
                });
            }
            count => {
                Some((0..count).map(|_| TableColumn::read(reader, dialect)).collect::<Result<Vec<_>, _>>()?)
            }
        };
        loop {
            match reader.u8()? {
                END => return table.checked(),
                ORDER_UNIQUE => {
                    for _ in 0..reader.u16()? {
                        table.order.push(ColumnOrder { column: reader.u16()?, flags: reader.u8()? });
                    }
                }
                COLUMN_ORDERING => {
                    for _ in 0..reader.u16()? {
                        table.sent_order.push(reader.u16()?);
                    }
                }
                other => {
                    return Err(Malformed::Value { what: "a table type's token", value: u64::from(other) });
                }
            }
        }
    }

    /// TVP_COLUMN_ORDERING must name every column once.
    fn checked(self) -> Result<Self, Malformed> {
        let count = self.columns.as_ref().map_or(0, Vec::len);
        let mut named = vec![false; count];
        for number in &self.sent_order {
            match usize::from(*number).checked_sub(1).and_then(|at| named.get_mut(at)) {
                Some(named) if !*named => *named = true,
                _ => return Err(bad_order(*number)),
            }
        }
        if !self.sent_order.is_empty() && self.sent_order.len() != count {
            return Err(bad_order(self.sent_order.len() as u16));
        }
        Ok(self)
    }

    /// Writes what follows the type byte, up to the end of the optional tokens.
    pub(crate) fn write(&self, out: &mut impl BufMut, dialect: Dialect) {
        write::b_varchar(out, &self.database);
        write::b_varchar(out, &self.schema);
        write::b_varchar(out, &self.name);
        match &self.columns {
            None => out.put_u16_le(NO_METADATA),
            Some(columns) => {
                out.put_u16_le(columns.len() as u16);
                for column in columns {
                    out.put_u32_le(column.user_type);
                    out.put_u16_le(column.flags.0);
                    column.type_info.write(out, dialect);
                    write::b_varchar(out, &column.name);
                }
            }
        }
        if !self.order.is_empty() {
            out.put_u8(ORDER_UNIQUE);
            out.put_u16_le(self.order.len() as u16);
            for order in &self.order {
                out.put_u16_le(order.column);
                out.put_u8(order.flags);
            }
        }
        if !self.sent_order.is_empty() {
            out.put_u8(COLUMN_ORDERING);
            out.put_u16_le(self.sent_order.len() as u16);
            for column in &self.sent_order {
                out.put_u16_le(*column);
            }
        }
        out.put_u8(END);
    }

    /// The columns that rows carry, in their order.
    pub fn sent_columns(&self) -> Vec<&TableColumn> {
        let columns = self.columns.as_deref().unwrap_or_default();
        let in_order: Vec<&TableColumn> = if self.sent_order.is_empty() {
            columns.iter().collect()
        } else {
            let by_number = |number: &u16| columns.get(usize::from(*number).checked_sub(1)?);
            self.sent_order.iter().filter_map(by_number).collect()
        };
        in_order.into_iter().filter(|column| !column.flags.contains(ColumnFlags::DEFAULT)).collect()
    }

    pub(crate) fn read_rows(&self, reader: &mut Reader<'_>) -> Result<Vec<Vec<Value>>, Malformed> {
        let columns = self.sent_columns();
        let mut rows = Vec::new();
        while next_row(reader)? {
            let row = columns.iter().map(|column| Value::read(reader, &column.type_info));
            rows.push(row.collect::<Result<_, _>>()?);
        }
        Ok(rows)
    }

    pub(crate) fn skip_rows(&self, reader: &mut Reader<'_>) -> Result<(), Malformed> {
        let columns = self.sent_columns();
        while next_row(reader)? {
            for column in &columns {
                value::skip(reader, &column.type_info)?;
            }
        }
        Ok(())
    }

    pub(crate) fn write_rows(&self, out: &mut impl BufMut, rows: &[Vec<Value>]) -> Result<(), Unfit> {
        let columns = self.sent_columns();
        for row in rows {
            out.put_u8(TokenKind::TVP_ROW.0);
            for (at, column) in columns.iter().enumerate() {
                row.get(at).unwrap_or(&Value::Null).write(out, &column.type_info)?;
            }
        }
        out.put_u8(END);
        Ok(())
    }
}

impl TableColumn {
    fn read(reader: &mut Reader<'_>, dialect: Dialect) -> Result<Self, Malformed> {
        let user_type = reader.u32()?;
        let flags = ColumnFlags(reader.u16()?);
        let type_info = TypeInfo::read(reader, dialect, Place::Parameter)?;
        // Not allowed in tables ([MS-TDS] 2.2.5.5.5.3), and cells without a byte would make rows that cost nothing.
        if type_info == TypeInfo::Null {
            return Err(Malformed::Value {
                what: "a table column's type",
                value: u64::from(type_info.id().0),
            });
        }
        Ok(Self { user_type, flags, type_info, name: reader.b_varchar()? })
    }
}

fn bad_order(number: u16) -> Malformed {
    Malformed::Value { what: "a table's column order", value: u64::from(number) }
}

fn next_row(reader: &mut Reader<'_>) -> Result<bool, Malformed> {
    match reader.u8()? {
        END => Ok(false),
        token if token == TokenKind::TVP_ROW.0 => Ok(true),
        other => Err(Malformed::Value { what: "a table row's token", value: u64::from(other) }),
    }
}
