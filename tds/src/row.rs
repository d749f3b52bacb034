//! The cells of a result set or bulk load: ROW and NBCROW ([MS-TDS] 2.2.7.15, 2.2.7.20).

use bytes::BufMut;

use crate::Malformed;
use crate::col_metadata::Column;
use crate::read::Reader;
use crate::token::TokenKind;
use crate::value::{self, Unfit, Value};

/// Reads a ROW behind its token byte.
pub fn read(reader: &mut Reader<'_>, columns: &[Column]) -> Result<Vec<Value>, Malformed> {
    columns.iter().map(|column| Value::read_cell(reader, &column.type_info)).collect()
}

/// Reads an NBCROW behind its token byte.
pub fn read_nbc(reader: &mut Reader<'_>, columns: &[Column]) -> Result<Vec<Value>, Malformed> {
    let nulls = reader.take(columns.len().div_ceil(8))?;
    let cell = |(at, column): (usize, &Column)| {
        if is_null(nulls, at) { Ok(Value::Null) } else { Value::read_cell(reader, &column.type_info) }
    };
    columns.iter().enumerate().map(cell).collect()
}

/// Passes over a ROW behind its token byte.
pub fn skip(reader: &mut Reader<'_>, columns: &[Column]) -> Result<(), Malformed> {
    columns.iter().try_for_each(|column| skip_cell(reader, column))
}

/// Passes over an NBCROW behind its token byte.
pub fn skip_nbc(reader: &mut Reader<'_>, columns: &[Column]) -> Result<(), Malformed> {
    let nulls = reader.take(columns.len().div_ceil(8))?;
    for (at, column) in columns.iter().enumerate() {
        if !is_null(nulls, at) {
            skip_cell(reader, column)?;
        }
    }
    Ok(())
}

/// Writes a ROW. A missing value is NULL. On an error, part of the row has been written: throw the buffer away.
pub fn write(out: &mut impl BufMut, columns: &[Column], values: &[Value]) -> Result<(), Unfit> {
    out.put_u8(TokenKind::ROW.0);
    for (at, column) in columns.iter().enumerate() {
        values.get(at).unwrap_or(&Value::Null).write_cell(out, &column.type_info)?;
    }
    Ok(())
}

/// Writes an NBCROW, from TDS 7.3 on. A missing value is NULL. On an error, part of the row has been written: throw
/// the buffer away.
pub fn write_nbc(out: &mut impl BufMut, columns: &[Column], values: &[Value]) -> Result<(), Unfit> {
    out.put_u8(TokenKind::NBC_ROW.0);
    let mut nulls = vec![0u8; columns.len().div_ceil(8)];
    for at in 0..columns.len() {
        if values.get(at).is_none_or(Value::is_null) {
            nulls[at / 8] |= 1 << (at % 8);
        }
    }
    out.put_slice(&nulls);
    for (column, value) in columns.iter().zip(values).filter(|(_, value)| !value.is_null()) {
        value.write_cell(out, &column.type_info)?;
    }
    Ok(())
}

fn skip_cell(reader: &mut Reader<'_>, column: &Column) -> Result<(), Malformed> {
    if column.type_info.is_text_or_image() && !value::skip_text_pointer(reader)? {
        return Ok(());
    }
    value::skip(reader, &column.type_info).map(drop)
}

/// A set bit is a NULL; the first column is the lowest bit of the first byte.
fn is_null(nulls: &[u8], column: usize) -> bool {
    nulls[column / 8] & (1 << (column % 8)) != 0
}
