//! A value that brings its own type: `sql_variant` ([MS-TDS] 2.2.5.5.4).

use bytes::BufMut;

use super::{Unfit, Value};
use crate::Malformed;
use crate::read::Reader;
use crate::type_info::{CharInfo, Collation, DecimalInfo, TypeId, TypeInfo, decimal_len};

/// A type and a value of it, which is never NULL: a variant that is NULL is [`Value::Null`].
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    /// The base type.
    pub type_info: TypeInfo,
    /// The value.
    pub value: Value,
}

impl Variant {
    /// Reads a value of SSVARIANTTYPE with its length.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Value, Malformed> {
        let bytes = reader.l_varbyte()?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        let mut reader = Reader::new(bytes, "a sql_variant");
        let id = TypeId(reader.u8()?);
        let mut properties = Reader::new(reader.b_varbyte()?, "a sql_variant's properties");
        let type_info = base_type(id, &mut properties)?;
        if !properties.is_empty() {
            let value = properties.remaining() as u64;
            return Err(Malformed::Value { what: "a sql_variant's properties", value });
        }
        let value = Value::decode(reader.rest(), &type_info)?;
        Ok(Value::Variant(Box::new(Self { type_info, value })))
    }

    /// Writes a value of SSVARIANTTYPE with its length.
    pub(super) fn write(&self, out: &mut impl BufMut) -> Result<(), Unfit> {
        let unfit = || Unfit { value: "sql_variant", type_id: self.type_info.id() };
        let mut properties = Vec::with_capacity(7);
        match &self.type_info {
            TypeInfo::Time(scale) | TypeInfo::DateTime2(scale) | TypeInfo::DateTimeOffset(scale) => {
                properties.put_u8(*scale);
            }
            TypeInfo::Binary(max_len) | TypeInfo::VarBinary(max_len) => properties.put_u16_le(*max_len),
            TypeInfo::Decimal(info) => properties.put_slice(&[info.precision, info.scale]),
            TypeInfo::Char(info)
            | TypeInfo::VarChar(info)
            | TypeInfo::NChar(info)
            | TypeInfo::NVarChar(info) => {
                properties.put_slice(&info.collation.0);
                properties.put_u16_le(info.max_len);
            }
            TypeInfo::Guid(_) | TypeInfo::Date => {}
            other if other.id().fixed_len().is_some_and(|len| len > 0) => {}
            _ => return Err(unfit()),
        }
        let data = self.value.encode(&self.type_info)?.ok_or_else(unfit)?;
        let len = 2 + properties.len() + data.len();
        out.put_u32_le(u32::try_from(len).map_err(|_| unfit())?);
        out.put_slice(&[self.type_info.id().0, properties.len() as u8]);
        out.put_slice(&properties);
        out.put_slice(&data);
        Ok(())
    }
}

/// VARIANT_BASETYPE with VARIANT_PROPERTIES.
fn base_type(id: TypeId, properties: &mut Reader<'_>) -> Result<TypeInfo, Malformed> {
    Ok(match id {
        TypeId::GUID => TypeInfo::Guid(16),
        TypeId::BIT => TypeInfo::Bit,
        TypeId::INT1 => TypeInfo::TinyInt,
        TypeId::INT2 => TypeInfo::SmallInt,
        TypeId::INT4 => TypeInfo::Int,
        TypeId::INT8 => TypeInfo::BigInt,
        TypeId::DATETIME => TypeInfo::DateTime,
        TypeId::DATETIM4 => TypeInfo::SmallDateTime,
        TypeId::FLT4 => TypeInfo::Real,
        TypeId::FLT8 => TypeInfo::Float,
        TypeId::MONEY => TypeInfo::Money,
        TypeId::MONEY4 => TypeInfo::SmallMoney,
        TypeId::DATE_N => TypeInfo::Date,
        TypeId::TIME_N => TypeInfo::Time(properties.u8()?),
        TypeId::DATETIME2_N => TypeInfo::DateTime2(properties.u8()?),
        TypeId::DATETIMEOFFSET_N => TypeInfo::DateTimeOffset(properties.u8()?),
        TypeId::BIG_VARBINARY => TypeInfo::VarBinary(properties.u16()?),
        TypeId::BIG_BINARY => TypeInfo::Binary(properties.u16()?),
        TypeId::NUMERIC_N | TypeId::DECIMAL_N => {
            let (precision, scale) = (properties.u8()?, properties.u8()?);
            TypeInfo::Decimal(DecimalInfo { id, max_len: decimal_len(precision), precision, scale })
        }
        TypeId::BIG_VARCHAR => TypeInfo::VarChar(char_info(properties)?),
        TypeId::BIG_CHAR => TypeInfo::Char(char_info(properties)?),
        TypeId::NVARCHAR => TypeInfo::NVarChar(char_info(properties)?),
        TypeId::NCHAR => TypeInfo::NChar(char_info(properties)?),
        TypeId(other) => {
            return Err(Malformed::Value { what: "a sql_variant's type", value: u64::from(other) });
        }
    })
}

fn char_info(properties: &mut Reader<'_>) -> Result<CharInfo, Malformed> {
    Ok(CharInfo { collation: Collation(properties.array()?), max_len: properties.u16()? })
}
