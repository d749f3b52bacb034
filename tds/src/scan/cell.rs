//! How far a cell reaches, and nothing else: metadata in the form that skipping rows needs.

use crate::col_metadata::ColumnFlags;
use crate::read::Reader;
use crate::type_info::{MAX, TypeId, TypeInfo};
use crate::{Dialect, Malformed};

/// How the length of a cell is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    /// So many bytes.
    Fixed(u32),
    /// A length byte.
    Byte,
    /// A 2-byte length; FFFF is NULL.
    Short,
    /// A 4-byte length; FFFFFFFF is NULL.
    Long,
    /// A text pointer and a time stamp before a 4-byte length; an empty pointer is NULL.
    Text,
    /// An 8-byte length, then chunks.
    Plp,
}

impl Cell {
    /// What TYPE_INFO says about the cells, without keeping anything else ([MS-TDS] 2.2.5.6).
    pub(super) fn read(reader: &mut Reader<'_>, dialect: Dialect) -> Result<Self, Malformed> {
        let id = TypeId(reader.u8()?);
        Self::read_after_id(id, reader, dialect)
    }

    /// What the TYPE_INFO of a parameter says behind its first byte. Parameters carry no text pointer, and a CLR type
    /// only its name ([MS-TDS] 2.2.5.5.2).
    pub(crate) fn read_parameter(
        id: TypeId,
        reader: &mut Reader<'_>,
        dialect: Dialect,
    ) -> Result<Self, Malformed> {
        if id == TypeId::UDT {
            for _ in 0..3 {
                skip_b_varchar(reader)?;
            }
            return Ok(Self::Plp);
        }
        match Self::read_after_id(id, reader, dialect)? {
            Self::Text => Ok(Self::Long),
            cell => Ok(cell),
        }
    }

    fn read_after_id(id: TypeId, reader: &mut Reader<'_>, dialect: Dialect) -> Result<Self, Malformed> {
        if let Some(len) = id.fixed_len() {
            return Ok(Self::Fixed(u32::from(len)));
        }
        let collation = if dialect.has_collations() { 5 } else { 0 };
        Ok(match id {
            TypeId::INT_N | TypeId::BIT_N | TypeId::FLT_N | TypeId::MONEY_N | TypeId::DATETIM_N => {
                after(reader, 1, Self::Byte)?
            }
            TypeId::GUID => after(reader, 1, Self::Byte)?,
            TypeId::DECIMAL_N | TypeId::NUMERIC_N | TypeId::DECIMAL | TypeId::NUMERIC => {
                after(reader, 3, Self::Byte)?
            }
            TypeId::DATE_N => Self::Byte,
            TypeId::TIME_N | TypeId::DATETIME2_N | TypeId::DATETIMEOFFSET_N => after(reader, 1, Self::Byte)?,
            TypeId::CHAR | TypeId::VARCHAR | TypeId::BINARY | TypeId::VARBINARY => {
                after(reader, 1, Self::Byte)?
            }
            TypeId::BIG_CHAR | TypeId::NCHAR => after(reader, 2 + collation, Self::Short)?,
            TypeId::BIG_BINARY => after(reader, 2, Self::Short)?,
            TypeId::BIG_VARCHAR | TypeId::NVARCHAR => {
                let cell = short_or_plp(reader, dialect)?;
                after(reader, collation, cell)?
            }
            TypeId::BIG_VARBINARY => short_or_plp(reader, dialect)?,
            TypeId::TEXT | TypeId::NTEXT => after(reader, 4 + collation, Self::Text)?,
            TypeId::IMAGE => after(reader, 4, Self::Text)?,
            TypeId::VARIANT => after(reader, 4, Self::Long)?,
            TypeId::XML => {
                if reader.u8()? != 0 {
                    skip_b_varchar(reader)?;
                    skip_b_varchar(reader)?;
                    skip_us_varchar(reader)?;
                }
                Self::Plp
            }
            TypeId::UDT => {
                reader.take(2)?;
                for _ in 0..3 {
                    skip_b_varchar(reader)?;
                }
                skip_us_varchar(reader)?;
                Self::Plp
            }
            TypeId::JSON => Self::Plp,
            TypeId::VECTOR => after(reader, 3, Self::Short)?,
            TypeId(other) => return Err(Malformed::Value { what: "a data type", value: u64::from(other) }),
        })
    }

    /// ColumnData of COLMETADATA.
    pub(super) fn read_column(reader: &mut Reader<'_>, dialect: Dialect) -> Result<Self, Malformed> {
        skip_user_type(reader, dialect)?;
        let flags = ColumnFlags(reader.u16()?);
        let cell = Self::read(reader, dialect)?;
        cell.skip_table_name(reader, dialect)?;
        if dialect.column_encryption > 0 && flags.contains(ColumnFlags::ENCRYPTED) {
            skip_crypto_metadata(reader, dialect, true)?;
        }
        skip_b_varchar(reader)?;
        Ok(cell)
    }

    /// ComputeData of ALTMETADATA.
    pub(super) fn read_compute(reader: &mut Reader<'_>, dialect: Dialect) -> Result<Self, Malformed> {
        reader.take(3)?;
        skip_user_type(reader, dialect)?;
        reader.take(2)?;
        let cell = Self::read(reader, dialect)?;
        cell.skip_table_name(reader, dialect)?;
        skip_b_varchar(reader)?;
        Ok(cell)
    }

    /// RETURNVALUE up to its value, which comes without a text pointer.
    pub(super) fn read_return_value(reader: &mut Reader<'_>, dialect: Dialect) -> Result<Self, Malformed> {
        reader.take(2)?;
        skip_b_varchar(reader)?;
        reader.take(1)?;
        skip_user_type(reader, dialect)?;
        let flags = ColumnFlags(reader.u16()?);
        let cell = Self::read(reader, dialect)?;
        if dialect.column_encryption > 0 && flags.contains(ColumnFlags::ENCRYPTED) {
            skip_crypto_metadata(reader, dialect, false)?;
        }
        Ok(if cell == Self::Text { Self::Long } else { cell })
    }

    fn skip_table_name(self, reader: &mut Reader<'_>, dialect: Dialect) -> Result<(), Malformed> {
        if self == Self::Text {
            let parts = if dialect.is_7_2_or_later() { reader.u8()? } else { 1 };
            for _ in 0..parts {
                skip_us_varchar(reader)?;
            }
        }
        Ok(())
    }
}

impl From<&TypeInfo> for Cell {
    /// The cell of a column; parameters of `text`, `ntext` and `image` are [`Cell::Long`].
    fn from(type_info: &TypeInfo) -> Self {
        let id = type_info.id();
        match id {
            _ if type_info.is_plp() => Self::Plp,
            _ if type_info.is_text_or_image() => Self::Text,
            TypeId::VARIANT => Self::Long,
            TypeId::BIG_CHAR
            | TypeId::BIG_VARCHAR
            | TypeId::NCHAR
            | TypeId::NVARCHAR
            | TypeId::BIG_BINARY
            | TypeId::BIG_VARBINARY
            | TypeId::VECTOR => Self::Short,
            _ => id.fixed_len().map_or(Self::Byte, |len| Self::Fixed(u32::from(len))),
        }
    }
}

/// EK_INFO ([MS-TDS] 2.2.5.7).
pub(super) fn skip_key(reader: &mut Reader<'_>) -> Result<(), Malformed> {
    reader.take(20)?;
    for _ in 0..reader.u8()? {
        reader.us_varbyte()?;
        skip_b_varchar(reader)?;
        skip_us_varchar(reader)?;
        skip_b_varchar(reader)?;
    }
    Ok(())
}

/// DATACLASSIFICATION behind its token byte ([MS-TDS] 2.2.7.5).
pub(super) fn skip_data_classification(reader: &mut Reader<'_>, dialect: Dialect) -> Result<(), Malformed> {
    let ranked = dialect.data_classification >= 2;
    // Sensitivity labels, then information types: each a name and an id.
    for _ in 0..2 {
        for _ in 0..reader.u16()? {
            skip_b_varchar(reader)?;
            skip_b_varchar(reader)?;
        }
    }
    if ranked {
        reader.take(4)?;
    }
    for _ in 0..reader.u16()? {
        let properties = usize::from(reader.u16()?);
        reader.take(properties * if ranked { 8 } else { 4 })?;
    }
    Ok(())
}

fn skip_crypto_metadata(
    reader: &mut Reader<'_>,
    dialect: Dialect,
    has_ordinal: bool,
) -> Result<(), Malformed> {
    if has_ordinal {
        reader.take(2)?;
    }
    skip_user_type(reader, dialect)?;
    Cell::read(reader, dialect)?;
    if reader.u8()? == 0 {
        skip_b_varchar(reader)?;
    }
    reader.take(2).map(drop)
}

fn skip_user_type(reader: &mut Reader<'_>, dialect: Dialect) -> Result<(), Malformed> {
    reader.take(if dialect.is_7_2_or_later() { 4 } else { 2 }).map(drop)
}

pub(super) fn skip_b_varchar(reader: &mut Reader<'_>) -> Result<(), Malformed> {
    let chars = usize::from(reader.u8()?);
    reader.take(chars * 2).map(drop)
}

fn skip_us_varchar(reader: &mut Reader<'_>) -> Result<(), Malformed> {
    let chars = usize::from(reader.u16()?);
    reader.take(chars * 2).map(drop)
}

fn after(reader: &mut Reader<'_>, bytes: usize, cell: Cell) -> Result<Cell, Malformed> {
    reader.take(bytes)?;
    Ok(cell)
}

fn short_or_plp(reader: &mut Reader<'_>, dialect: Dialect) -> Result<Cell, Malformed> {
    match reader.u16()? {
        MAX if dialect.is_7_2_or_later() => Ok(Cell::Plp),
        MAX => Err(Malformed::Value { what: "a type's length", value: u64::from(MAX) }),
        _ => Ok(Cell::Short),
    }
}
