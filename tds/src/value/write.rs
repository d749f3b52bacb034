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
