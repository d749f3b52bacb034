//! How a value is read by its type: TYPE_VARBYTE ([MS-TDS] 2.2.5.2.3).

use super::{Decimal, Value, Variant, code_page, plp};
use crate::Malformed;
use crate::read::{Reader, decode_utf16};
use crate::type_info::{Collation, TypeId, TypeInfo};

impl Value {
    /// Reads a parameter's value: RPC requests, RETURNVALUE, rows of table-valued parameters.
    pub fn read(reader: &mut Reader<'_>, type_info: &TypeInfo) -> Result<Self, Malformed> {
        match type_info {
            TypeInfo::Variant(_) => Variant::read(reader),
            TypeInfo::Table(table) => table.read_rows(reader).map(Self::Table),
            _ => match frame(reader, type_info)? {
                Some(bytes) => Self::decode(&bytes, type_info),
                None => Ok(Self::Null),
            },
        }
    }

    /// Reads a cell of ROW, NBCROW or ALTROW: `text`, `ntext` and `image` come with a text pointer and a time stamp
    /// ([MS-TDS] 2.2.7.20).
    pub fn read_cell(reader: &mut Reader<'_>, type_info: &TypeInfo) -> Result<Self, Malformed> {
        if type_info.is_text_or_image() && !skip_text_pointer(reader)? {
            return Ok(Self::Null);
        }
        Self::read(reader, type_info)
    }

    /// The value in these bytes, which stand without a length.
    pub(super) fn decode(bytes: &[u8], type_info: &TypeInfo) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, "a value");
        let value = match type_info {
            TypeInfo::Null => Self::Null,
            TypeInfo::Bit | TypeInfo::BitN(_) => Self::Bit(reader.u8()? != 0),
            TypeInfo::TinyInt => Self::TinyInt(reader.u8()?),
            TypeInfo::SmallInt => Self::SmallInt(reader.array().map(i16::from_le_bytes)?),
            TypeInfo::Int => Self::Int(reader.array().map(i32::from_le_bytes)?),
            TypeInfo::BigInt => Self::BigInt(reader.array().map(i64::from_le_bytes)?),
            TypeInfo::Real => Self::Real(reader.array().map(f32::from_le_bytes)?),
            TypeInfo::Float => Self::Float(reader.array().map(f64::from_le_bytes)?),
            TypeInfo::SmallMoney => Self::SmallMoney(reader.array().map(i32::from_le_bytes)?),
            TypeInfo::Money => {
                // The more significant half comes first ([MS-TDS] 2.2.5.5.1.4).
                let (high, low) = (reader.u32()?, reader.u32()?);
                Self::Money(((u64::from(high) << 32) | u64::from(low)) as i64)
            }
            TypeInfo::SmallDateTime => Self::SmallDateTime { days: reader.u16()?, minutes: reader.u16()? },
            TypeInfo::DateTime => {
                Self::DateTime { days: reader.array().map(i32::from_le_bytes)?, ticks: reader.u32()? }
            }
            TypeInfo::IntN(_) => match bytes.len() {
                1 => return Self::decode(bytes, &TypeInfo::TinyInt),
                2 => return Self::decode(bytes, &TypeInfo::SmallInt),
                4 => return Self::decode(bytes, &TypeInfo::Int),
                8 => return Self::decode(bytes, &TypeInfo::BigInt),
                len => return Err(bad_len(len)),
            },
            TypeInfo::FloatN(_) => match bytes.len() {
                4 => return Self::decode(bytes, &TypeInfo::Real),
                8 => return Self::decode(bytes, &TypeInfo::Float),
                len => return Err(bad_len(len)),
            },
            TypeInfo::MoneyN(_) => match bytes.len() {
                4 => return Self::decode(bytes, &TypeInfo::SmallMoney),
                8 => return Self::decode(bytes, &TypeInfo::Money),
                len => return Err(bad_len(len)),
            },
            TypeInfo::DateTimeN(_) => match bytes.len() {
                4 => return Self::decode(bytes, &TypeInfo::SmallDateTime),
                8 => return Self::decode(bytes, &TypeInfo::DateTime),
                len => return Err(bad_len(len)),
            },
            TypeInfo::Guid(_) => Self::Guid(reader.array()?),
            TypeInfo::Decimal(info) => {
                let negative = match reader.u8()? {
                    0 => true,
                    1 => false,
                    sign => {
                        return Err(Malformed::Value { what: "a decimal's sign", value: u64::from(sign) });
                    }
                };
                let digits = reader.rest();
                // [MS-TDS] 2.2.5.5.1.6 knows 4, 8, 12 and 16 bytes of digits; FreeTDS sends just those that the precision
                // needs, and SQL Server takes them.
                if !(1..=16).contains(&digits.len()) {
                    return Err(bad_len(bytes.len()));
                }
                let mut magnitude = [0; 16];
                magnitude[..digits.len()].copy_from_slice(digits);
                let magnitude = u128::from_le_bytes(magnitude);
                Self::Decimal(Decimal { negative, magnitude, scale: info.scale })
            }
            TypeInfo::Date => Self::Date(little(reader.take(3)?) as u32),
            TypeInfo::Time(scale) => Self::Time(time(&mut reader, *scale, 0)?),
            TypeInfo::DateTime2(scale) => {
                let ticks = time(&mut reader, *scale, 3)?;
                Self::DateTime2 { days: little(reader.take(3)?) as u32, ticks }
            }
            TypeInfo::DateTimeOffset(scale) => {
                let ticks = time(&mut reader, *scale, 5)?;
                let days = little(reader.take(3)?) as u32;
                Self::DateTimeOffset { days, ticks, offset: reader.array().map(i16::from_le_bytes)? }
            }
            TypeInfo::LegacyChar { .. } => Self::String(code_page::decode(reader.rest(), Collation::RAW)),
            TypeInfo::Char(info) | TypeInfo::VarChar(info) => {
                Self::String(code_page::decode(reader.rest(), info.collation))
            }
            TypeInfo::Text(info) => Self::String(code_page::decode(reader.rest(), info.collation)),
            TypeInfo::NChar(_) | TypeInfo::NVarChar(_) | TypeInfo::NText(_) => {
                Self::String(decode_utf16(reader.rest(), "a string")?)
            }
            TypeInfo::Json => Self::String(String::from_utf8_lossy(reader.rest()).into_owned()),
            TypeInfo::Xml(_) => {
                let bytes = reader.rest();
                // Binary XML begins DF FF ([MS-BINXML]); text is UTF-16 ([MS-TDS] 2.2.5.5.3).
                if bytes.starts_with(&[0xDF, 0xFF]) || !bytes.len().is_multiple_of(2) {
                    Self::Bytes(bytes.to_vec())
                } else {
                    Self::Xml(decode_utf16(bytes, "xml")?)
                }
            }
            TypeInfo::LegacyBinary { .. }
            | TypeInfo::Binary(_)
            | TypeInfo::VarBinary(_)
            | TypeInfo::Image(_)
            | TypeInfo::Udt(_) => Self::Bytes(reader.rest().to_vec()),
            TypeInfo::Vector { .. } => vector(&mut reader)?,
            TypeInfo::Variant(_) | TypeInfo::Table(_) => {
                return Err(Malformed::Unexpected { what: "a nested type", state: "reading a value" });
            }
        };
        if reader.is_empty() { Ok(value) } else { Err(bad_len(bytes.len())) }
    }
}

/// Passes over a parameter's value and yields its bytes, with their lengths.
pub fn skip<'a>(reader: &mut Reader<'a>, type_info: &TypeInfo) -> Result<&'a [u8], Malformed> {
    let start = reader.position();
    match type_info {
        TypeInfo::Table(table) => table.skip_rows(reader)?,
        TypeInfo::Variant(_) => {
            reader.l_varbyte()?;
        }
        _ if type_info.is_plp() => plp::skip(reader)?,
        _ => {
            frame(reader, type_info)?;
        }
    }
    Ok(reader.since(start))
}

/// Takes the value's bytes without their length; none for NULL ([MS-TDS] 2.2.5.4.3).
fn frame<'a>(
    reader: &mut Reader<'a>,
    type_info: &TypeInfo,
) -> Result<Option<std::borrow::Cow<'a, [u8]>>, Malformed> {
    let id = type_info.id();
    if let Some(len) = id.fixed_len() {
        return reader.take(usize::from(len)).map(|bytes| Some(bytes.into()));
    }
    if type_info.is_plp() {
        return plp::read(reader);
    }
    let len = match id {
        TypeId::BIG_CHAR
        | TypeId::BIG_VARCHAR
        | TypeId::NCHAR
        | TypeId::NVARCHAR
        | TypeId::BIG_BINARY
        | TypeId::BIG_VARBINARY
        | TypeId::VECTOR => match reader.u16()? {
            u16::MAX => return Ok(None),
            len => usize::from(len),
        },
        TypeId::TEXT | TypeId::NTEXT | TypeId::IMAGE => match reader.u32()? {
            u32::MAX => return Ok(None),
            len => usize::try_from(len).unwrap_or(usize::MAX),
        },
        _ => match reader.u8()? {
            0 => return Ok(None),
            len => usize::from(len),
        },
    };
    reader.take(len).map(|bytes| Some(bytes.into()))
}

/// Passes over TextPointer and Timestamp; false where the cell is NULL and ends here ([MS-TDS] 2.2.7.20).
pub(crate) fn skip_text_pointer(reader: &mut Reader<'_>) -> Result<bool, Malformed> {
    if reader.b_varbyte()?.is_empty() {
        return Ok(false);
    }
    reader.take(8)?;
    Ok(true)
}

/// 100 ns units from a time of this scale, which is followed by `tail` bytes of date and offset.
fn time(reader: &mut Reader<'_>, scale: u8, tail: usize) -> Result<u64, Malformed> {
    let Some(unit) = 7u8.checked_sub(scale) else {
        return Err(Malformed::Value { what: "a time's scale", value: u64::from(scale) });
    };
    let len = reader.remaining().saturating_sub(tail);
    if len != usize::from(time_len(scale)) {
        return Err(bad_len(len + tail));
    }
    Ok(little(reader.take(len)?) * 10u64.pow(u32::from(unit)))
}

/// Bytes of a `time` of this scale ([MS-TDS] 2.2.5.5.1.8).
pub(crate) fn time_len(scale: u8) -> u8 {
    match scale {
        0..=2 => 3,
        3..=4 => 4,
        _ => 5,
    }
}

/// A little-endian number of up to eight bytes.
fn little(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, &byte| (n << 8) | u64::from(byte))
}

/// [MS-TDS] 2.2.5.5.7. Layouts and dimensions that are not known are kept as bytes.
fn vector(reader: &mut Reader<'_>) -> Result<Value, Malformed> {
    let bytes = reader.rest();
    let mut header = Reader::new(bytes, "a vector");
    let (layout, version, dimensions) = (header.u8()?, header.u8()?, header.u16()?);
    let dimension_type = header.u8()?;
    header.take(3)?;
    let values = header.rest();
    if (layout, version, dimension_type) != (0xA9, 1, 0) || values.len() != usize::from(dimensions) * 4 {
        return Ok(Value::Bytes(bytes.to_vec()));
    }
    let floats = values.chunks_exact(4).map(|v| f32::from_le_bytes([v[0], v[1], v[2], v[3]]));
    Ok(Value::Vector(floats.collect()))
}

fn bad_len(len: usize) -> Malformed {
    Malformed::Value { what: "a value's length", value: len as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_may_have_as_few_digit_bytes_as_its_precision_needs() {
        let read = |bytes: &[u8]| {
            let value = Value::read(&mut Reader::new(bytes, "a test"), &TypeInfo::decimal(10, 2));
            value.map_err(|malformed| malformed.to_string())
        };
        let expected = Value::Decimal(Decimal { negative: false, magnitude: 0x01_0203_0405, scale: 2 });
        assert_eq!(read(&[6, 1, 5, 4, 3, 2, 1]), Ok(expected.clone()));
        assert_eq!(read(&[9, 1, 5, 4, 3, 2, 1, 0, 0, 0]), Ok(expected));
        assert!(read(&[1, 1]).is_err());
    }
}
