//! The engine's types as the wire types of the `tds` crate, both ways.

use tds::col_metadata::{Column, ColumnFlags};
use tds::type_info::{CharInfo, Collation, DecimalInfo, MAX as WIRE_MAX, TextInfo, TypeId, TypeInfo};

use super::types::{Kind, MAX, SqlType};

/// A result column.
#[derive(Debug, Clone)]
pub(super) struct OutColumn {
    pub(super) name: String,
    pub(super) ty: SqlType,
    pub(super) nullable: bool,
    pub(super) identity: bool,
    /// Whether it comes straight from a column that can be written.
    pub(super) updatable: bool,
    pub(super) table: Option<[String; 3]>,
}

impl OutColumn {
    pub(super) fn new(name: impl Into<String>, ty: SqlType) -> OutColumn {
        OutColumn { name: name.into(), ty, nullable: true, identity: false, updatable: false, table: None }
    }
    pub(super) fn not_null(mut self) -> OutColumn {
        self.nullable = false;
        self
    }

    pub(super) fn wire(&self) -> Column {
        let type_info = type_info(self.ty, self.nullable);
        let mut flags = if self.nullable { ColumnFlags::NULLABLE } else { ColumnFlags::default() };
        if self.identity {
            flags = flags.with(ColumnFlags::IDENTITY);
        }
        if self.updatable {
            // What SQL Server says of a table's column in a SELECT; bulk copies leave out columns without it.
            flags = flags.with(ColumnFlags::UPDATEABLE_UNKNOWN);
        }
        let table =
            type_info.is_text_or_image().then(|| self.table.clone().map(Vec::from).unwrap_or_default());
        let mut column = Column::new(self.name.clone(), type_info).with_flags(flags);
        if self.ty.kind == Kind::RowVersion {
            column.user_type = 80;
        }
        column.table = table;
        column
    }
}

fn chars(bytes: u16) -> CharInfo {
    CharInfo { max_len: bytes, collation: Collation::LATIN1 }
}

/// TYPE_INFO of a type; the fixed form where it cannot be NULL.
pub(super) fn type_info(ty: SqlType, nullable: bool) -> TypeInfo {
    use Kind::*;
    let either = |fixed: TypeInfo, open: TypeInfo| if nullable { open } else { fixed };
    match ty.kind {
        Bit => either(TypeInfo::Bit, TypeInfo::BitN(1)),
        TinyInt => either(TypeInfo::TinyInt, TypeInfo::IntN(1)),
        SmallInt => either(TypeInfo::SmallInt, TypeInfo::IntN(2)),
        Int | Null => either(TypeInfo::Int, TypeInfo::IntN(4)),
        BigInt => either(TypeInfo::BigInt, TypeInfo::IntN(8)),
        SmallMoney => either(TypeInfo::SmallMoney, TypeInfo::MoneyN(4)),
        Money => either(TypeInfo::Money, TypeInfo::MoneyN(8)),
        Real => either(TypeInfo::Real, TypeInfo::FloatN(4)),
        Float => either(TypeInfo::Float, TypeInfo::FloatN(8)),
        SmallDateTime => either(TypeInfo::SmallDateTime, TypeInfo::DateTimeN(4)),
        DateTime => either(TypeInfo::DateTime, TypeInfo::DateTimeN(8)),
        Decimal | Numeric => {
            let mut info = DecimalInfo::new(ty.len as u8, ty.scale);
            if ty.kind == Numeric {
                info.id = TypeId::NUMERIC_N;
            }
            // The wire always gives room for the type's largest value: 17 bytes, as SQL Server does.
            info.max_len = 17;
            TypeInfo::Decimal(info)
        }
        Date => TypeInfo::Date,
        Time => TypeInfo::Time(ty.scale),
        DateTime2 => TypeInfo::DateTime2(ty.scale),
        DateTimeOffset => TypeInfo::DateTimeOffset(ty.scale),
        Char => TypeInfo::Char(chars(ty.len.max(1))),
        VarChar => TypeInfo::VarChar(chars(if ty.len == MAX { WIRE_MAX } else { ty.len.clamp(1, 8000) })),
        NChar => TypeInfo::NChar(chars(ty.len.clamp(1, 4000) * 2)),
        NVarChar => {
            TypeInfo::NVarChar(chars(if ty.len == MAX { WIRE_MAX } else { ty.len.clamp(1, 4000) * 2 }))
        }
        Text => TypeInfo::Text(TextInfo { max_len: 0x7FFF_FFFF, collation: Collation::LATIN1 }),
        NText => TypeInfo::NText(TextInfo { max_len: 0x7FFF_FFFE, collation: Collation::LATIN1 }),
        Image => TypeInfo::Image(0x7FFF_FFFF),
        Binary => TypeInfo::Binary(ty.len.max(1)),
        RowVersion => TypeInfo::Binary(8),
        VarBinary => TypeInfo::VarBinary(if ty.len == MAX { WIRE_MAX } else { ty.len.clamp(1, 8000) }),
        Uuid => TypeInfo::Guid(16),
        Xml => TypeInfo::Xml(None),
        Variant => TypeInfo::Variant(8009),
    }
}

/// The engine's type of a TYPE_INFO, and whether it can be NULL. Types that the stand-in does not know become the
/// nearest string or binary.
pub(super) fn sql_type(info: &TypeInfo) -> (SqlType, bool) {
    use Kind::*;
    let chars_of = |kind: Kind, bytes: u16| {
        let len = if bytes == WIRE_MAX {
            MAX
        } else if matches!(kind, NChar | NVarChar) {
            (bytes / 2).max(1)
        } else {
            bytes.max(1)
        };
        SqlType { kind, len, scale: 0 }
    };
    let ty = match info {
        TypeInfo::Bit => return (SqlType::BIT, false),
        TypeInfo::TinyInt => return (SqlType::TINYINT, false),
        TypeInfo::SmallInt => return (SqlType::SMALLINT, false),
        TypeInfo::Int => return (SqlType::INT, false),
        TypeInfo::BigInt => return (SqlType::BIGINT, false),
        TypeInfo::Real => return (SqlType::of(Real), false),
        TypeInfo::Float => return (SqlType::FLOAT, false),
        TypeInfo::SmallMoney => return (SqlType::of(SmallMoney), false),
        TypeInfo::Money => return (SqlType::of(Money), false),
        TypeInfo::SmallDateTime => return (SqlType::of(SmallDateTime), false),
        TypeInfo::DateTime => return (SqlType::DATETIME, false),
        TypeInfo::Null => SqlType::NULL,
        TypeInfo::IntN(1) => SqlType::TINYINT,
        TypeInfo::IntN(2) => SqlType::SMALLINT,
        TypeInfo::IntN(8) => SqlType::BIGINT,
        TypeInfo::IntN(_) => SqlType::INT,
        TypeInfo::BitN(_) => SqlType::BIT,
        TypeInfo::FloatN(4) => SqlType::of(Real),
        TypeInfo::FloatN(_) => SqlType::FLOAT,
        TypeInfo::MoneyN(4) => SqlType::of(SmallMoney),
        TypeInfo::MoneyN(_) => SqlType::of(Money),
        TypeInfo::DateTimeN(4) => SqlType::of(SmallDateTime),
        TypeInfo::DateTimeN(_) => SqlType::DATETIME,
        TypeInfo::Guid(_) => SqlType::UUID,
        TypeInfo::Decimal(info) => SqlType {
            kind: if info.id == TypeId::NUMERIC_N { Numeric } else { Decimal },
            len: u16::from(info.precision.clamp(1, 38)),
            scale: info.scale.min(38),
        },
        TypeInfo::Date => SqlType::of(Date),
        TypeInfo::Time(scale) => SqlType::scaled(Time, *scale),
        TypeInfo::DateTime2(scale) => SqlType::scaled(DateTime2, *scale),
        TypeInfo::DateTimeOffset(scale) => SqlType::scaled(DateTimeOffset, *scale),
        TypeInfo::LegacyChar { varying, max_len } => {
            chars_of(if *varying { VarChar } else { Char }, u16::from(*max_len))
        }
        TypeInfo::LegacyBinary { varying, max_len } => {
            chars_of(if *varying { VarBinary } else { Binary }, u16::from(*max_len))
        }
        TypeInfo::Char(info) => chars_of(Char, info.max_len),
        TypeInfo::VarChar(info) => chars_of(VarChar, info.max_len),
        TypeInfo::NChar(info) => chars_of(NChar, info.max_len),
        TypeInfo::NVarChar(info) => chars_of(NVarChar, info.max_len),
        TypeInfo::Binary(len) => chars_of(Binary, *len),
        TypeInfo::VarBinary(len) => chars_of(VarBinary, *len),
        TypeInfo::Text(_) => SqlType::of(Text),
        TypeInfo::NText(_) => SqlType::of(NText),
        TypeInfo::Image(_) => SqlType::of(Image),
        TypeInfo::Variant(_) => SqlType::VARIANT,
        TypeInfo::Xml(_) => SqlType::of(Xml),
        TypeInfo::Json => SqlType::nvarchar(MAX),
        TypeInfo::Udt(_) | TypeInfo::Vector { .. } | TypeInfo::Table(_) => SqlType::varbinary(MAX),
    };
    (ty, true)
}
