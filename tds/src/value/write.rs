//! How a value is written by its type: TYPE_VARBYTE ([MS-TDS] 2.2.5.2.3).

use bytes::BufMut;

use super::read::time_len;
use super::{Decimal, Value, code_page, plp};
use crate::type_info::{Collation, DecimalInfo, TypeId, TypeInfo};

/// A value that its type cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a value of kind {value} does not fit type {type_id:?}")]
pub struct Unfit {
    /// The value's kind: [`Value::kind`].
    pub value: &'static str,
    /// The type.
    pub type_id: TypeId,
}

impl Value {
    /// Writes a parameter's value: RPC requests, RETURNVALUE, rows of table-valued parameters.
    ///
    /// Integers fit every numeric type that can hold the number, text fits every character type. On an error nothing
    /// has been written.
    pub fn write(&self, out: &mut impl BufMut, type_info: &TypeInfo) -> Result<(), Unfit> {
        let unfit = || Unfit { value: self.kind(), type_id: type_info.id() };
        if let TypeInfo::Variant(_) = type_info {
            return match self {
                Self::Null => {
                    out.put_u32_le(0);
                    Ok(())
                }
                Self::Variant(variant) => variant.write(out),
                _ => Err(unfit()),
            };
        }
        if let TypeInfo::Table(table) = type_info {
            return match self {
                Self::Table(rows) => table.write_rows(out, rows),
                _ => Err(unfit()),
            };
        }
        let data = self.encode(type_info)?;
        let id = type_info.id();
        if let Some(len) = id.fixed_len() {
            match data {
                Some(data) => out.put_slice(&data),
                None if len == 0 => {}
                None => return Err(unfit()),
            }
            return Ok(());
        }
        if type_info.is_plp() {
            match data {
                Some(data) => plp::write(out, &data),
                None => plp::write_null(out),
            }
            return Ok(());
        }
        match id {
            TypeId::BIG_CHAR
            | TypeId::BIG_VARCHAR
            | TypeId::NCHAR
            | TypeId::NVARCHAR
            | TypeId::BIG_BINARY
            | TypeId::BIG_VARBINARY
            | TypeId::VECTOR => match data {
                Some(data) => {
                    let len = u16::try_from(data.len()).ok().filter(|&len| len != u16::MAX);
                    out.put_u16_le(len.ok_or_else(unfit)?);
                    out.put_slice(&data);
                }
                None => out.put_u16_le(u16::MAX),
            },
            TypeId::TEXT | TypeId::NTEXT | TypeId::IMAGE => match data {
                Some(data) => {
                    let len = u32::try_from(data.len()).ok().filter(|&len| len <= 0x7FFF_FFFF);
                    out.put_u32_le(len.ok_or_else(unfit)?);
                    out.put_slice(&data);
                }
                None => out.put_u32_le(u32::MAX),
            },
            _ => match data {
                Some(data) => {
                    out.put_u8(u8::try_from(data.len()).map_err(|_| unfit())?);
                    out.put_slice(&data);
                }
                None => out.put_u8(0),
            },
        }
        Ok(())
    }

    /// Writes a cell of ROW or NBCROW: `text`, `ntext` and `image` get a text pointer and a time stamp, whose
    /// contents mean nothing ([MS-TDS] 2.2.7.20).
    pub fn write_cell(&self, out: &mut impl BufMut, type_info: &TypeInfo) -> Result<(), Unfit> {
        if !type_info.is_text_or_image() {
            return self.write(out, type_info);
        }
        if self.is_null() {
            out.put_u8(0);
            return Ok(());
        }
        let mut data = Vec::new();
        self.write(&mut data, type_info)?;
        out.put_u8(16);
        out.put_bytes(0xFF, 24);
        out.put_slice(&data);
        Ok(())
    }

    /// The value's bytes without a length; none for NULL.
    pub(super) fn encode(&self, type_info: &TypeInfo) -> Result<Option<Vec<u8>>, Unfit> {
        if self.is_null() {
            return Ok(None);
        }
        let unfit = || Unfit { value: self.kind(), type_id: type_info.id() };
        let data = match type_info {
            TypeInfo::Bit | TypeInfo::BitN(_) => vec![u8::from(self.as_i64().ok_or_else(unfit)? != 0)],
            TypeInfo::TinyInt => self.integer(1).ok_or_else(unfit)?,
            TypeInfo::SmallInt => self.integer(2).ok_or_else(unfit)?,
            TypeInfo::Int => self.integer(4).ok_or_else(unfit)?,
            TypeInfo::BigInt => self.integer(8).ok_or_else(unfit)?,
            TypeInfo::IntN(len) => self.integer(*len).ok_or_else(unfit)?,
            TypeInfo::Real | TypeInfo::FloatN(4) => {
                let number = match self {
                    Self::Real(number) => *number,
                    _ => self.as_f64().ok_or_else(unfit)? as f32,
                };
                number.to_le_bytes().to_vec()
            }
            TypeInfo::Float | TypeInfo::FloatN(_) => self.as_f64().ok_or_else(unfit)?.to_le_bytes().to_vec(),
            TypeInfo::SmallMoney | TypeInfo::MoneyN(4) => {
                let money = i32::try_from(self.as_money().ok_or_else(unfit)?).map_err(|_| unfit())?;
                money.to_le_bytes().to_vec()
            }
            TypeInfo::Money | TypeInfo::MoneyN(_) => {
                // The more significant half comes first ([MS-TDS] 2.2.5.5.1.4).
                let mut bytes = self.as_money().ok_or_else(unfit)?.to_le_bytes();
                bytes.rotate_left(4);
                bytes.to_vec()
            }
            TypeInfo::SmallDateTime | TypeInfo::DateTimeN(4) => match *self {
                Self::SmallDateTime { days, minutes } => [days.to_le_bytes(), minutes.to_le_bytes()].concat(),
                _ => return Err(unfit()),
            },
            TypeInfo::DateTime | TypeInfo::DateTimeN(_) => match *self {
                Self::DateTime { days, ticks } => [days.to_le_bytes(), ticks.to_le_bytes()].concat(),
                Self::SmallDateTime { days, minutes } => {
                    [i32::from(days).to_le_bytes(), (u32::from(minutes) * 18_000).to_le_bytes()].concat()
                }
                _ => return Err(unfit()),
            },
            TypeInfo::Guid(_) => match self {
                Self::Guid(guid) => guid.to_vec(),
                _ => return Err(unfit()),
            },
            TypeInfo::Decimal(info) => self.decimal(*info).ok_or_else(unfit)?,
            TypeInfo::Date => match *self {
                Self::Date(days) => days_bytes(days).ok_or_else(unfit)?.to_vec(),
                _ => return Err(unfit()),
            },
            TypeInfo::Time(scale) => match *self {
                Self::Time(ticks) => time_bytes(ticks, *scale).ok_or_else(unfit)?,
                _ => return Err(unfit()),
            },
            TypeInfo::DateTime2(scale) => match *self {
                Self::DateTime2 { days, ticks } => {
                    let mut bytes = time_bytes(ticks, *scale).ok_or_else(unfit)?;
                    bytes.put_slice(&days_bytes(days).ok_or_else(unfit)?);
                    bytes
                }
                _ => return Err(unfit()),
            },
            TypeInfo::DateTimeOffset(scale) => match *self {
                Self::DateTimeOffset { days, ticks, offset } => {
                    let mut bytes = time_bytes(ticks, *scale).ok_or_else(unfit)?;
                    bytes.put_slice(&days_bytes(days).ok_or_else(unfit)?);
                    bytes.put_i16_le(offset);
                    bytes
                }
                _ => return Err(unfit()),
            },
            TypeInfo::LegacyChar { .. } => self.varchar(Collation::RAW).ok_or_else(unfit)?,
            TypeInfo::Char(info) | TypeInfo::VarChar(info) => {
                self.varchar(info.collation).ok_or_else(unfit)?
            }
            TypeInfo::Text(info) => self.varchar(info.collation).ok_or_else(unfit)?,
            TypeInfo::NChar(_) | TypeInfo::NVarChar(_) | TypeInfo::NText(_) => {
                utf16(self.as_str().ok_or_else(unfit)?)
            }
            TypeInfo::Json => self.as_str().ok_or_else(unfit)?.as_bytes().to_vec(),
            TypeInfo::Xml(_) => match self {
                Self::Bytes(bytes) => bytes.clone(),
                _ => utf16(self.as_str().ok_or_else(unfit)?),
            },
            TypeInfo::LegacyBinary { .. }
            | TypeInfo::Binary(_)
            | TypeInfo::VarBinary(_)
            | TypeInfo::Image(_)
            | TypeInfo::Udt(_) => match self {
                Self::Bytes(bytes) => bytes.clone(),
                Self::Guid(guid) => guid.to_vec(),
                _ => return Err(unfit()),
            },
            TypeInfo::Vector { .. } => match self {
                Self::Bytes(bytes) => bytes.clone(),
                Self::Vector(values) => vector(values).ok_or_else(unfit)?,
                _ => return Err(unfit()),
            },
            TypeInfo::Null | TypeInfo::Variant(_) | TypeInfo::Table(_) => return Err(unfit()),
        };
        Ok(Some(data))
    }

    /// `len` little-endian bytes of an integer that fits them; one byte is unsigned.
    fn integer(&self, len: u8) -> Option<Vec<u8>> {
        let n = self.as_i64()?;
        Some(match len {
            1 => u8::try_from(n).ok()?.to_le_bytes().to_vec(),
            2 => i16::try_from(n).ok()?.to_le_bytes().to_vec(),
            4 => i32::try_from(n).ok()?.to_le_bytes().to_vec(),
            8 => n.to_le_bytes().to_vec(),
            _ => return None,
        })
    }

    fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Float(number) => Some(*number),
            Self::Real(number) => Some(f64::from(*number)),
            _ => self.as_i64().map(|n| n as f64),
        }
    }

    /// Ten-thousandths.
    fn as_money(&self) -> Option<i64> {
        match *self {
            Self::Money(money) => Some(money),
            Self::SmallMoney(money) => Some(i64::from(money)),
            _ => self.as_i64()?.checked_mul(10_000),
        }
    }

    fn decimal(&self, info: DecimalInfo) -> Option<Vec<u8>> {
        let decimal = match self {
            Self::Decimal(decimal) => *decimal,
            _ => {
                let n = self.as_i64()?;
                Decimal { negative: n < 0, magnitude: u128::from(n.unsigned_abs()), scale: 0 }
            }
        };
        let decimal = decimal.rescale(info.scale)?;
        let bytes = decimal.magnitude.to_le_bytes();
        let len = match info.max_len {
            5 | 9 | 13 | 17 => usize::from(info.max_len) - 1,
            _ => return None,
        };
        if bytes[len..].iter().any(|&byte| byte != 0) {
            return None;
        }
        let mut out = vec![u8::from(!decimal.negative)];
        out.extend_from_slice(&bytes[..len]);
        Some(out)
    }

    fn varchar(&self, collation: Collation) -> Option<Vec<u8>> {
        self.as_str().map(|text| code_page::encode(text, collation))
    }
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn days_bytes(days: u32) -> Option<[u8; 3]> {
    let [a, b, c, 0] = days.to_le_bytes() else { return None };
    Some([a, b, c])
}

/// A time cut to the type's scale.
fn time_bytes(ticks: u64, scale: u8) -> Option<Vec<u8>> {
    let increments = ticks / 10u64.pow(u32::from(7u8.checked_sub(scale)?));
    let bytes = increments.to_le_bytes();
    let len = usize::from(time_len(scale));
    if bytes[len..].iter().any(|&byte| byte != 0) {
        return None;
    }
    Some(bytes[..len].to_vec())
}

/// [MS-TDS] 2.2.5.5.7.
fn vector(values: &[f32]) -> Option<Vec<u8>> {
    let mut out = vec![0xA9, 1];
    out.put_u16_le(u16::try_from(values.len()).ok()?);
    out.put_slice(&[0; 4]);
    for value in values {
        out.put_f32_le(*value);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::type_info::{CharInfo, MAX, TextInfo};

    fn written(value: &Value, type_info: &TypeInfo) -> Result<Vec<u8>, Unfit> {
        let mut out = Vec::new();
        let outcome = value.write(&mut out, type_info);
        assert!(outcome.is_ok() || out.is_empty(), "nothing is written on an error");
        outcome.map(|()| out)
    }

    /// [MS-TDS] 2.2.5.5.1 in bytes.
    #[test]
    fn every_type_has_its_layout() {
        let decimal = |negative, magnitude| Value::Decimal(Decimal { negative, magnitude, scale: 2 });
        let ticks = 0x01_02_03_04_05;
        let cases: &[(TypeInfo, Value, &[u8])] = &[
            (TypeInfo::Bit, Value::Bit(true), &[1]),
            (TypeInfo::BitN(1), Value::Bit(false), &[1, 0]),
            (TypeInfo::TinyInt, Value::TinyInt(255), &[255]),
            (TypeInfo::SmallInt, Value::SmallInt(-2), &[0xFE, 0xFF]),
            (TypeInfo::IntN(4), Value::Int(1), &[4, 1, 0, 0, 0]),
            (TypeInfo::IntN(8), Value::Null, &[0]),
            (TypeInfo::Real, Value::Real(1.0), &[0, 0, 0x80, 0x3F]),
            (TypeInfo::Float, Value::Float(1.0), &[0, 0, 0, 0, 0, 0, 0xF0, 0x3F]),
            (TypeInfo::SmallMoney, Value::SmallMoney(10_000), &[0x10, 0x27, 0, 0]),
            // The more significant half first, each half little endian.
            (TypeInfo::Money, Value::Money(0x1_0000_0002), &[1, 0, 0, 0, 2, 0, 0, 0]),
            (TypeInfo::MoneyN(8), Value::Money(-1), &[8, 255, 255, 255, 255, 255, 255, 255, 255]),
            (TypeInfo::SmallDateTime, Value::SmallDateTime { days: 1, minutes: 2 }, &[1, 0, 2, 0]),
            (
                TypeInfo::DateTime,
                Value::DateTime { days: -1, ticks: 300 },
                &[255, 255, 255, 255, 44, 1, 0, 0],
            ),
            // 0 is negative, 1 is not.
            (TypeInfo::decimal(9, 2), decimal(false, 123), &[5, 1, 123, 0, 0, 0]),
            (TypeInfo::decimal(10, 2), decimal(true, 1), &[9, 0, 1, 0, 0, 0, 0, 0, 0, 0]),
            (TypeInfo::Date, Value::Date(0x0A_0B0C), &[3, 0x0C, 0x0B, 0x0A]),
            (TypeInfo::Time(0), Value::Time(3 * 10_000_000), &[3, 3, 0, 0]),
            (TypeInfo::Time(7), Value::Time(ticks), &[5, 5, 4, 3, 2, 1]),
            (TypeInfo::DateTime2(3), Value::DateTime2 { days: 1, ticks: 20_000 }, &[7, 2, 0, 0, 0, 1, 0, 0]),
            (
                TypeInfo::DateTimeOffset(7),
                Value::DateTimeOffset { days: 1, ticks, offset: -60 },
                &[10, 5, 4, 3, 2, 1, 1, 0, 0, 0xC4, 0xFF],
            ),
            (TypeInfo::varchar(10, Collation::LATIN1), Value::String("é".into()), &[1, 0, 0xE9]),
            (TypeInfo::nvarchar(10, Collation::LATIN1), Value::String("é".into()), &[2, 0, 0xE9, 0]),
            (TypeInfo::nvarchar(10, Collation::LATIN1), Value::String(String::new()), &[0, 0]),
            (TypeInfo::nvarchar(10, Collation::LATIN1), Value::Null, &[0xFF, 0xFF]),
            (TypeInfo::varbinary(MAX), Value::Null, &[0xFF; 8]),
            (TypeInfo::varbinary(10), Value::Bytes(vec![7]), &[1, 0, 7]),
            (TypeInfo::Image(10), Value::Bytes(vec![7]), &[1, 0, 0, 0, 7]),
            (TypeInfo::Image(10), Value::Null, &[0xFF; 4]),
            (
                TypeInfo::Json,
                Value::String("1".into()),
                &[1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, b'1', 0, 0, 0, 0],
            ),
            (
                TypeInfo::Vector { max_len: 12, dimension_type: 0 },
                Value::Vector(vec![1.0]),
                &[12, 0, 0xA9, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x3F],
            ),
            (TypeInfo::Variant(8009), Value::Null, &[0; 4]),
            (
                TypeInfo::Variant(8009),
                Value::Variant(Box::new(super::super::Variant {
                    type_info: TypeInfo::Int,
                    value: Value::Int(1),
                })),
                &[6, 0, 0, 0, 0x38, 0, 1, 0, 0, 0],
            ),
        ];
        for (type_info, value, bytes) in cases {
            assert_eq!(written(value, type_info).as_deref(), Ok(*bytes), "{value:?} as {type_info:?}");
        }
    }

    #[test]
    fn integers_fit_every_numeric_type_that_can_hold_them() {
        let n = Value::BigInt(200);
        assert_eq!(written(&n, &TypeInfo::TinyInt), Ok(vec![200]));
        assert_eq!(written(&n, &TypeInfo::IntN(2)), Ok(vec![2, 200, 0]));
        assert_eq!(written(&n, &TypeInfo::decimal(5, 1)), Ok(vec![5, 1, 0xD0, 7, 0, 0]));
        assert_eq!(written(&n, &TypeInfo::SmallMoney), Ok(2_000_000i32.to_le_bytes().to_vec()));
        assert_eq!(written(&n, &TypeInfo::Float), Ok(200f64.to_le_bytes().to_vec()));
        assert_eq!(
            written(&Value::BigInt(300), &TypeInfo::TinyInt).map_err(|unfit| unfit.value),
            Err("bigint")
        );
        assert!(written(&Value::Int(-1), &TypeInfo::TinyInt).is_err());
        assert!(written(&Value::BigInt(i64::MAX), &TypeInfo::Money).is_err());
    }

    #[test]
    fn what_does_not_fit_is_refused_before_anything_is_written() {
        let text = CharInfo { max_len: 10, collation: Collation::LATIN1 };
        let misfits = [
            (TypeInfo::Int, Value::Null),
            (TypeInfo::Int, Value::String("1".into())),
            (TypeInfo::VarChar(text), Value::Int(1)),
            (TypeInfo::VarChar(text), Value::String("x".repeat(0xFFFF))),
            (TypeInfo::LegacyChar { varying: true, max_len: 255 }, Value::String("x".repeat(256))),
            (TypeInfo::decimal(9, 0), Value::BigInt(1 << 32)),
            (TypeInfo::Date, Value::Date(1 << 24)),
            (TypeInfo::Time(7), Value::Time(1 << 40)),
            (TypeInfo::Time(8), Value::Time(1)),
            (TypeInfo::Variant(8009), Value::Int(1)),
            (TypeInfo::Null, Value::Int(1)),
        ];
        for (type_info, value) in misfits {
            assert!(written(&value, &type_info).is_err(), "{type_info:?}");
        }
    }

    #[test]
    fn a_text_cell_has_a_pointer_and_a_time_stamp() {
        let text = TypeInfo::Text(TextInfo { max_len: 100, collation: Collation::LATIN1 });
        let mut out = Vec::new();
        Value::String("a".into()).write_cell(&mut out, &text).unwrap();
        assert_eq!((out[0], &out[25..]), (16, &[1, 0, 0, 0, b'a'][..]));
        out.clear();
        Value::Null.write_cell(&mut out, &text).unwrap();
        assert_eq!(out, [0]);
    }
}
