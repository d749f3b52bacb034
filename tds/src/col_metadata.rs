//! Which columns the rows that follow have: COLMETADATA ([MS-TDS] 2.2.7.4).

mod encryption;

pub use encryption::{CryptoMetadata, EncryptedKey, KeyEntry};

use bytes::BufMut;

use crate::read::Reader;
use crate::token::TokenKind;
use crate::type_info::{Place, TypeInfo};
use crate::{Dialect, Malformed, write};

/// The count that stands for "no metadata follows".
pub const NO_METADATA: u16 = 0xFFFF;

/// The columns of a result set or bulk load.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ColMetadata {
    /// From left to right.
    pub columns: Vec<Column>,
    /// CekTable: the keys of encrypted columns. On the wire only where COLUMNENCRYPTION was acknowledged.
    pub keys: Vec<KeyEntry>,
}

/// One column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// 0, 80 for `timestamp`, or above 255 for an alias type. Two bytes before TDS 7.2.
    pub user_type: u32,
    /// Nullable, identity and the like.
    pub flags: ColumnFlags,
    /// The data type.
    pub type_info: TypeInfo,
    /// The base table's name in parts; only `text`, `ntext` and `image` carry one. One part before TDS 7.2.
    pub table: Option<Vec<String>>,
    /// How the plaintext looks, if the flags say that the column is encrypted.
    pub crypto: Option<Box<CryptoMetadata>>,
    /// The column's name.
    pub name: String,
}

impl Column {
    /// A nullable column of which the server knows nothing more.
    pub fn new(name: impl Into<String>, type_info: TypeInfo) -> Self {
        let flags =
            if type_info.id().fixed_len().is_some() { ColumnFlags::default() } else { ColumnFlags::NULLABLE };
        let table = type_info.is_text_or_image().then(Vec::new);
        Self { user_type: 0, flags, type_info, table, crypto: None, name: name.into() }
    }

    /// The same column with these flags.
    pub fn with_flags(self, flags: ColumnFlags) -> Self {
        Self { flags, ..self }
    }
}

/// The flags of a column or return value ([MS-TDS] 2.2.7.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct ColumnFlags(pub u16);

impl ColumnFlags {
    /// The column may hold NULL.
    pub const NULLABLE: Self = Self(0x0001);
    /// Comparisons are case sensitive.
    pub const CASE_SENSITIVE: Self = Self(0x0002);
    /// usUpdateable = read/write.
    pub const READ_WRITE: Self = Self(0x0004);
    /// usUpdateable = unknown.
    pub const UPDATEABLE_UNKNOWN: Self = Self(0x0008);
    /// An identity column.
    pub const IDENTITY: Self = Self(0x0010);
    /// A computed column.
    pub const COMPUTED: Self = Self(0x0020);
    /// A CLR type of fixed length.
    pub const FIXED_LEN_CLR_TYPE: Self = Self(0x0100);
    /// In a table-valued parameter: the column is left to its default and not sent ([MS-TDS] 2.2.5.5.5.1).
    pub const DEFAULT: Self = Self(0x0200);
    /// The XML column that stands for sparse columns.
    pub const SPARSE_COLUMN_SET: Self = Self(0x0400);
    /// The value is encrypted; the client decrypts it.
    pub const ENCRYPTED: Self = Self(0x0800);
    /// Part of a hidden key, for browse mode.
    pub const HIDDEN: Self = Self(0x2000);
    /// Part of the key, for browse mode.
    pub const KEY: Self = Self(0x4000);
    /// Whether the column is nullable is not known.
    pub const NULLABLE_UNKNOWN: Self = Self(0x8000);

    /// True if all of `other`'s bits are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets.
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The flag must say what follows, whatever the caller put there.
    pub(crate) fn with_encrypted(self, encrypted: bool) -> Self {
        if encrypted { self.with(Self::ENCRYPTED) } else { Self(self.0 & !Self::ENCRYPTED.0) }
    }
}

impl ColMetadata {
    /// Metadata without encryption.
    pub fn new(columns: Vec<Column>) -> Self {
        Self { columns, keys: Vec::new() }
    }

    /// Reads what follows the token byte; none where the server sent no metadata (count FFFF).
    pub fn read(reader: &mut Reader<'_>, dialect: Dialect) -> Result<Option<Self>, Malformed> {
        Self::read_with(reader, dialect, dialect.is_7_2_or_later())
    }

    /// Reads what comes after the token in a bulk load ([MS-TDS] 2.2.6.1). There the table of a text or image column is
    /// one name in every version: so all clients write it and SQL Server reads it, whatever 2.2.7.4 says.
    pub fn read_of_bulk_load(reader: &mut Reader<'_>, dialect: Dialect) -> Result<Option<Self>, Malformed> {
        Self::read_with(reader, dialect, false)
    }

    fn read_with(
        reader: &mut Reader<'_>,
        dialect: Dialect,
        table_in_parts: bool,
    ) -> Result<Option<Self>, Malformed> {
        let count = reader.u16()?;
        if count == NO_METADATA {
            return Ok(None);
        }
        let keys = if dialect.column_encryption > 0 { KeyEntry::read_table(reader)? } else { Vec::new() };
        let mut columns = Vec::new();
        for _ in 0..count {
            columns.push(Column::read(reader, dialect, table_in_parts)?);
        }
        Ok(Some(Self { columns, keys }))
    }

    /// Writes the token.
    pub fn write(&self, out: &mut impl BufMut, dialect: Dialect) {
        self.write_with(out, dialect, dialect.is_7_2_or_later());
    }

    /// Writes the token as a bulk load has it; see [`ColMetadata::read_of_bulk_load`].
    pub fn write_of_bulk_load(&self, out: &mut impl BufMut, dialect: Dialect) {
        self.write_with(out, dialect, false);
    }

    fn write_with(&self, out: &mut impl BufMut, dialect: Dialect, table_in_parts: bool) {
        out.put_u8(TokenKind::COL_METADATA.0);
        let columns = &self.columns[..self.columns.len().min(usize::from(NO_METADATA - 1))];
        out.put_u16_le(columns.len() as u16);
        if dialect.column_encryption > 0 {
            KeyEntry::write_table(&self.keys, out);
        }
        for column in columns {
            column.write(out, dialect, table_in_parts);
        }
    }

    /// Writes the token that says "no metadata".
    pub fn write_none(out: &mut impl BufMut) {
        out.put_u8(TokenKind::COL_METADATA.0);
        out.put_u16_le(NO_METADATA);
    }
}

impl Column {
    fn read(reader: &mut Reader<'_>, dialect: Dialect, table_in_parts: bool) -> Result<Self, Malformed> {
        let user_type = read_user_type(reader, dialect)?;
        let flags = ColumnFlags(reader.u16()?);
        let type_info = TypeInfo::read(reader, dialect, Place::Column)?;
        let table =
            if type_info.is_text_or_image() { Some(read_table_name(reader, table_in_parts)?) } else { None };
        let crypto = if dialect.column_encryption > 0 && flags.contains(ColumnFlags::ENCRYPTED) {
            Some(Box::new(CryptoMetadata::read(reader, dialect, true)?))
        } else {
            None
        };
        Ok(Self { user_type, flags, type_info, table, crypto, name: reader.b_varchar()? })
    }

    fn write(&self, out: &mut impl BufMut, dialect: Dialect, table_in_parts: bool) {
        write_user_type(self.user_type, out, dialect);
        let encrypted = self.crypto.as_ref().filter(|_| dialect.column_encryption > 0);
        out.put_u16_le(self.flags.with_encrypted(encrypted.is_some()).0);
        self.type_info.write(out, dialect);
        if self.type_info.is_text_or_image() {
            write_table_name(self.table.as_deref().unwrap_or_default(), out, table_in_parts);
        }
        if let Some(crypto) = encrypted {
            crypto.write(out, dialect, true);
        }
        write::b_varchar(out, &self.name);
    }
}

/// UserType: four bytes from TDS 7.2 on, two before.
pub(crate) fn read_user_type(reader: &mut Reader<'_>, dialect: Dialect) -> Result<u32, Malformed> {
    if dialect.is_7_2_or_later() { reader.u32() } else { reader.u16().map(u32::from) }
}

/// UserType: four bytes from TDS 7.2 on, two before.
pub(crate) fn write_user_type(user_type: u32, out: &mut impl BufMut, dialect: Dialect) {
    if dialect.is_7_2_or_later() {
        out.put_u32_le(user_type);
    } else {
        out.put_u16_le(u16::try_from(user_type).unwrap_or(0));
    }
}

/// TableName: counted parts from TDS 7.2 on, one name before.
pub(crate) fn read_table_name(reader: &mut Reader<'_>, in_parts: bool) -> Result<Vec<String>, Malformed> {
    if !in_parts {
        return Ok(vec![reader.us_varchar()?]);
    }
    let parts = reader.u8()?;
    (0..parts).map(|_| reader.us_varchar()).collect()
}

fn write_table_name(parts: &[String], out: &mut impl BufMut, in_parts: bool) {
    if !in_parts {
        write::us_varchar(out, &parts.join("."));
        return;
    }
    let parts = &parts[..parts.len().min(255)];
    out.put_u8(parts.len() as u8);
    for part in parts {
        write::us_varchar(out, part);
    }
}
