//! What type a column or parameter has, and how TYPE_INFO says so ([MS-TDS] 2.2.5.4 to 2.2.5.6).

mod collation;
mod type_id;
mod user_defined;

pub use collation::Collation;
pub use type_id::TypeId;
pub use user_defined::{UdtAssembly, UdtInfo, XmlSchema};

use bytes::BufMut;

use crate::read::Reader;
use crate::{Dialect, Malformed};

/// The length in characters or bytes that stands for `(max)`: values of such a type are partially length-prefixed.
pub const MAX: u16 = 0xFFFF;

/// A data type with everything that its TYPE_INFO says.
///
/// Lengths that the specification calls redundant (16 for a GUID) are kept, so that what was read is what is
/// written. Lengths, precisions and scales that no value can have are the server's to refuse: they do not change
/// where the next byte belongs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TypeInfo {
    /// NULLTYPE: no value follows. Clients may send it, servers never do.
    Null,
    /// INT1TYPE: `tinyint not null`.
    TinyInt,
    /// BITTYPE: `bit not null`.
    Bit,
    /// INT2TYPE: `smallint not null`.
    SmallInt,
    /// INT4TYPE: `int not null`.
    Int,
    /// INT8TYPE: `bigint not null`.
    BigInt,
    /// FLT4TYPE: `real not null`.
    Real,
    /// FLT8TYPE: `float not null`.
    Float,
    /// MONEY4TYPE: `smallmoney not null`.
    SmallMoney,
    /// MONEYTYPE: `money not null`.
    Money,
    /// DATETIM4TYPE: `smalldatetime not null`.
    SmallDateTime,
    /// DATETIMETYPE: `datetime not null`.
    DateTime,
    /// INTNTYPE: an integer of 1, 2, 4 or 8 bytes, nullable.
    IntN(u8),
    /// BITNTYPE, 1 byte, nullable.
    BitN(u8),
    /// FLTNTYPE: 4 or 8 bytes, nullable.
    FloatN(u8),
    /// MONEYNTYPE: 4 or 8 bytes, nullable.
    MoneyN(u8),
    /// DATETIMNTYPE: 4 (`smalldatetime`) or 8 bytes (`datetime`), nullable.
    DateTimeN(u8),
    /// GUIDTYPE, 16 bytes.
    Guid(u8),
    /// DECIMALNTYPE, NUMERICNTYPE and their legacy forms.
    Decimal(DecimalInfo),
    /// DATENTYPE, from TDS 7.3.
    Date,
    /// TIMENTYPE, from TDS 7.3, with its number of decimal places (0 to 7).
    Time(u8),
    /// DATETIME2NTYPE, from TDS 7.3, with its number of decimal places (0 to 7).
    DateTime2(u8),
    /// DATETIMEOFFSETNTYPE, from TDS 7.3, with its number of decimal places (0 to 7).
    DateTimeOffset(u8),
    /// CHARTYPE or VARCHARTYPE: the legacy forms with a length byte and no collation.
    LegacyChar {
        /// VARCHARTYPE rather than CHARTYPE.
        varying: bool,
        /// The longest value, in bytes.
        max_len: u8,
    },
    /// BINARYTYPE or VARBINARYTYPE: the legacy forms with a length byte.
    LegacyBinary {
        /// VARBINARYTYPE rather than BINARYTYPE.
        varying: bool,
        /// The longest value, in bytes.
        max_len: u8,
    },
    /// BIGCHARTYPE: `char(n)`.
    Char(CharInfo),
    /// BIGVARCHARTYPE: `varchar(n)` and `varchar(max)`.
    VarChar(CharInfo),
    /// NCHARTYPE: `nchar(n)`.
    NChar(CharInfo),
    /// NVARCHARTYPE: `nvarchar(n)` and `nvarchar(max)`.
    NVarChar(CharInfo),
    /// BIGBINARYTYPE: `binary(n)`, with its length in bytes.
    Binary(u16),
    /// BIGVARBINARYTYPE: `varbinary(n)`, with its length in bytes, or [`MAX`].
    VarBinary(u16),
    /// TEXTTYPE.
    Text(TextInfo),
    /// NTEXTTYPE.
    NText(TextInfo),
    /// IMAGETYPE with its longest value, in bytes.
    Image(u32),
    /// SSVARIANTTYPE with its longest value, in bytes (8009).
    Variant(u32),
    /// XMLTYPE, with the schema collection it is bound to, from TDS 7.2.
    Xml(Option<XmlSchema>),
    /// UDTTYPE: an instance of a CLR type, from TDS 7.2.
    Udt(UdtInfo),
    /// JSONTYPE.
    Json,
    /// VECTORTYPE.
    Vector {
        /// The longest value, in bytes, with its 8-byte header.
        max_len: u16,
        /// The type of a dimension: 0 is a 4-byte float ([MS-TDS] 2.2.5.5.7.4).
        dimension_type: u8,
    },
    /// TVPTYPE: a table-valued parameter; only in RPC requests, from TDS 7.3. See [`crate::rpc`].
    Table(Box<crate::rpc::TableType>),
}

/// Precision and scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DecimalInfo {
    /// DECIMALNTYPE, NUMERICNTYPE, or the legacy DECIMALTYPE, NUMERICTYPE.
    pub id: TypeId,
    /// The longest value, in bytes: 5, 9, 13 or 17.
    pub max_len: u8,
    /// Decimal digits in all, up to 38.
    pub precision: u8,
    /// Decimal digits after the point.
    pub scale: u8,
}

impl DecimalInfo {
    /// `decimal(precision, scale)` with the length that belongs to it ([MS-TDS] 2.2.5.5.1.6).
    pub fn new(precision: u8, scale: u8) -> Self {
        Self { id: TypeId::DECIMAL_N, max_len: decimal_len(precision), precision, scale }
    }
}

/// Bytes of a decimal of this precision, with its sign ([MS-TDS] 2.2.5.5.1.6).
pub(crate) fn decimal_len(precision: u8) -> u8 {
    match precision {
        0..=9 => 5,
        10..=19 => 9,
        20..=28 => 13,
        _ => 17,
    }
}

/// Length and collation of a string type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CharInfo {
    /// The longest value in bytes (so twice the characters for `nvarchar`), or [`MAX`].
    pub max_len: u16,
    /// The collation; raw at TDS 7.0, which sends none.
    pub collation: Collation,
}

/// Length and collation of `text` and `ntext`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TextInfo {
    /// The longest value, in bytes.
    pub max_len: u32,
    /// The collation; raw at TDS 7.0, which sends none.
    pub collation: Collation,
}

/// Who describes the type: UDTs look different in a request ([MS-TDS] 2.2.5.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// COLMETADATA, ALTMETADATA, RETURNVALUE.
    Column,
    /// A parameter of an RPC request.
    Parameter,
}

impl TypeInfo {
    /// Reads TYPE_INFO ([MS-TDS] 2.2.5.6).
    pub fn read(reader: &mut Reader<'_>, dialect: Dialect, place: Place) -> Result<Self, Malformed> {
        let id = TypeId(reader.u8()?);
        Self::read_after_id(id, reader, dialect, place)
    }

    pub(crate) fn read_after_id(
        id: TypeId,
        reader: &mut Reader<'_>,
        dialect: Dialect,
        place: Place,
    ) -> Result<Self, Malformed> {
        Ok(match id {
            TypeId::NULL => Self::Null,
            TypeId::INT1 => Self::TinyInt,
            TypeId::BIT => Self::Bit,
            TypeId::INT2 => Self::SmallInt,
            TypeId::INT4 => Self::Int,
            TypeId::INT8 => Self::BigInt,
            TypeId::FLT4 => Self::Real,
            TypeId::FLT8 => Self::Float,
            TypeId::MONEY4 => Self::SmallMoney,
            TypeId::MONEY => Self::Money,
            TypeId::DATETIM4 => Self::SmallDateTime,
            TypeId::DATETIME => Self::DateTime,
            TypeId::INT_N => Self::IntN(reader.u8()?),
            TypeId::BIT_N => Self::BitN(reader.u8()?),
            TypeId::FLT_N => Self::FloatN(reader.u8()?),
            TypeId::MONEY_N => Self::MoneyN(reader.u8()?),
            TypeId::DATETIM_N => Self::DateTimeN(reader.u8()?),
            TypeId::GUID => Self::Guid(reader.u8()?),
            TypeId::DECIMAL_N | TypeId::NUMERIC_N | TypeId::DECIMAL | TypeId::NUMERIC => {
                let (max_len, precision, scale) = (reader.u8()?, reader.u8()?, reader.u8()?);
                Self::Decimal(DecimalInfo { id, max_len, precision, scale })
            }
            TypeId::DATE_N => Self::Date,
            TypeId::TIME_N => Self::Time(reader.u8()?),
            TypeId::DATETIME2_N => Self::DateTime2(reader.u8()?),
            TypeId::DATETIMEOFFSET_N => Self::DateTimeOffset(reader.u8()?),
            TypeId::CHAR => Self::LegacyChar { varying: false, max_len: reader.u8()? },
            TypeId::VARCHAR => Self::LegacyChar { varying: true, max_len: reader.u8()? },
            TypeId::BINARY => Self::LegacyBinary { varying: false, max_len: reader.u8()? },
            TypeId::VARBINARY => Self::LegacyBinary { varying: true, max_len: reader.u8()? },
            TypeId::BIG_CHAR => Self::Char(char_info(reader, dialect, false)?),
            TypeId::BIG_VARCHAR => Self::VarChar(char_info(reader, dialect, true)?),
            TypeId::NCHAR => Self::NChar(char_info(reader, dialect, false)?),
            TypeId::NVARCHAR => Self::NVarChar(char_info(reader, dialect, true)?),
            TypeId::BIG_BINARY => Self::Binary(max_len(reader, dialect, false)?),
            TypeId::BIG_VARBINARY => Self::VarBinary(max_len(reader, dialect, true)?),
            TypeId::TEXT => Self::Text(text_info(reader, dialect)?),
            TypeId::NTEXT => Self::NText(text_info(reader, dialect)?),
            TypeId::IMAGE => Self::Image(reader.u32()?),
            TypeId::VARIANT => Self::Variant(reader.u32()?),
            TypeId::XML => match reader.u8()? {
                0 => Self::Xml(None),
                1 => Self::Xml(Some(XmlSchema::read(reader)?)),
                value => return Err(Malformed::Value { what: "SCHEMA_PRESENT", value: u64::from(value) }),
            },
            TypeId::UDT => Self::Udt(UdtInfo::read(reader, place)?),
            TypeId::JSON => Self::Json,
            TypeId::VECTOR => Self::Vector { max_len: reader.u16()?, dimension_type: reader.u8()? },
            TypeId(other) => return Err(Malformed::Value { what: "a data type", value: u64::from(other) }),
        })
    }

    /// Writes TYPE_INFO ([MS-TDS] 2.2.5.6). A UDT without an assembly is written as requests write it.
    pub fn write(&self, out: &mut impl BufMut, dialect: Dialect) {
        out.put_u8(self.id().0);
        match self {
            Self::IntN(len) | Self::BitN(len) | Self::FloatN(len) => out.put_u8(*len),
            Self::MoneyN(len) | Self::DateTimeN(len) | Self::Guid(len) => out.put_u8(*len),
            Self::Decimal(info) => out.put_slice(&[info.max_len, info.precision, info.scale]),
            Self::Time(scale) | Self::DateTime2(scale) | Self::DateTimeOffset(scale) => out.put_u8(*scale),
            Self::LegacyChar { max_len, .. } | Self::LegacyBinary { max_len, .. } => out.put_u8(*max_len),
            Self::Char(info) | Self::VarChar(info) | Self::NChar(info) | Self::NVarChar(info) => {
                out.put_u16_le(info.max_len);
                info.collation.write(out, dialect);
            }
            Self::Binary(max_len) | Self::VarBinary(max_len) => out.put_u16_le(*max_len),
            Self::Text(info) | Self::NText(info) => {
                out.put_u32_le(info.max_len);
                info.collation.write(out, dialect);
            }
            Self::Image(max_len) | Self::Variant(max_len) => out.put_u32_le(*max_len),
            Self::Xml(None) => out.put_u8(0),
            Self::Xml(Some(schema)) => {
                out.put_u8(1);
                schema.write(out);
            }
            Self::Udt(info) => info.write(out),
            Self::Vector { max_len, dimension_type } => {
                out.put_u16_le(*max_len);
                out.put_u8(*dimension_type);
            }
            Self::Table(table) => table.write(out, dialect),
            _ => {}
        }
    }

    /// The type's byte on the wire.
    pub fn id(&self) -> TypeId {
        match self {
            Self::Null => TypeId::NULL,
            Self::TinyInt => TypeId::INT1,
            Self::Bit => TypeId::BIT,
            Self::SmallInt => TypeId::INT2,
            Self::Int => TypeId::INT4,
            Self::BigInt => TypeId::INT8,
            Self::Real => TypeId::FLT4,
            Self::Float => TypeId::FLT8,
            Self::SmallMoney => TypeId::MONEY4,
            Self::Money => TypeId::MONEY,
            Self::SmallDateTime => TypeId::DATETIM4,
            Self::DateTime => TypeId::DATETIME,
            Self::IntN(_) => TypeId::INT_N,
            Self::BitN(_) => TypeId::BIT_N,
            Self::FloatN(_) => TypeId::FLT_N,
            Self::MoneyN(_) => TypeId::MONEY_N,
            Self::DateTimeN(_) => TypeId::DATETIM_N,
            Self::Guid(_) => TypeId::GUID,
            Self::Decimal(info) => info.id,
            Self::Date => TypeId::DATE_N,
            Self::Time(_) => TypeId::TIME_N,
            Self::DateTime2(_) => TypeId::DATETIME2_N,
            Self::DateTimeOffset(_) => TypeId::DATETIMEOFFSET_N,
            Self::LegacyChar { varying: false, .. } => TypeId::CHAR,
            Self::LegacyChar { varying: true, .. } => TypeId::VARCHAR,
            Self::LegacyBinary { varying: false, .. } => TypeId::BINARY,
            Self::LegacyBinary { varying: true, .. } => TypeId::VARBINARY,
            Self::Char(_) => TypeId::BIG_CHAR,
            Self::VarChar(_) => TypeId::BIG_VARCHAR,
            Self::NChar(_) => TypeId::NCHAR,
            Self::NVarChar(_) => TypeId::NVARCHAR,
            Self::Binary(_) => TypeId::BIG_BINARY,
            Self::VarBinary(_) => TypeId::BIG_VARBINARY,
            Self::Text(_) => TypeId::TEXT,
            Self::NText(_) => TypeId::NTEXT,
            Self::Image(_) => TypeId::IMAGE,
            Self::Variant(_) => TypeId::VARIANT,
            Self::Xml(_) => TypeId::XML,
            Self::Udt(_) => TypeId::UDT,
            Self::Json => TypeId::JSON,
            Self::Vector { .. } => TypeId::VECTOR,
            Self::Table(_) => TypeId::TVP,
        }
    }

    /// True where values are partially length-prefixed ([MS-TDS] 2.2.5.4.4).
    pub fn is_plp(&self) -> bool {
        match self {
            Self::VarChar(info) | Self::NVarChar(info) => info.max_len == MAX,
            Self::VarBinary(max_len) => *max_len == MAX,
            Self::Xml(_) | Self::Udt(_) | Self::Json => true,
            _ => false,
        }
    }

    /// True for `text`, `ntext` and `image`: their metadata names a table, their cells carry a text pointer.
    pub fn is_text_or_image(&self) -> bool {
        matches!(self, Self::Text(_) | Self::NText(_) | Self::Image(_))
    }

    /// `nvarchar(chars)` in the given collation; more than 4,000 characters is `nvarchar(max)`.
    pub fn nvarchar(chars: u16, collation: Collation) -> Self {
        let max_len = if chars > 4000 { MAX } else { chars * 2 };
        Self::NVarChar(CharInfo { max_len, collation })
    }

    /// `varchar(bytes)` in the given collation; more than 8,000 bytes is `varchar(max)`.
    pub fn varchar(bytes: u16, collation: Collation) -> Self {
        let max_len = if bytes > 8000 { MAX } else { bytes };
        Self::VarChar(CharInfo { max_len, collation })
    }

    /// `varbinary(bytes)`; more than 8,000 bytes is `varbinary(max)`.
    pub fn varbinary(bytes: u16) -> Self {
        Self::VarBinary(if bytes > 8000 { MAX } else { bytes })
    }

    /// `decimal(precision, scale)`, nullable.
    pub fn decimal(precision: u8, scale: u8) -> Self {
        Self::Decimal(DecimalInfo::new(precision, scale))
    }
}

/// USHORTLEN or USHORTMAXLEN. `(max)` exists from TDS 7.2 on and for the varying types only.
fn max_len(reader: &mut Reader<'_>, dialect: Dialect, varying: bool) -> Result<u16, Malformed> {
    let len = reader.u16()?;
    if len == MAX && !(varying && dialect.is_7_2_or_later()) {
        return Err(Malformed::Value { what: "a type's length", value: u64::from(len) });
    }
    Ok(len)
}

fn char_info(reader: &mut Reader<'_>, dialect: Dialect, varying: bool) -> Result<CharInfo, Malformed> {
    Ok(CharInfo { max_len: max_len(reader, dialect, varying)?, collation: Collation::read(reader, dialect)? })
}

fn text_info(reader: &mut Reader<'_>, dialect: Dialect) -> Result<TextInfo, Malformed> {
    Ok(TextInfo { max_len: reader.u32()?, collation: Collation::read(reader, dialect)? })
}
