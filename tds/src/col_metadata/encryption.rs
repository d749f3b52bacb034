//! What COLMETADATA says about columns that only the client can decrypt ([MS-TDS] 2.2.5.7, 2.2.7.4).

use bytes::BufMut;

use super::{read_user_type, write_user_type};
use crate::read::Reader;
use crate::type_info::{Place, TypeInfo};
use crate::{Dialect, Malformed, write};

/// EK_INFO: one column encryption key.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct KeyEntry {
    /// The database that stores the key.
    pub database_id: u32,
    /// The key's id.
    pub key_id: u32,
    /// The key's version.
    pub key_version: u32,
    /// The version of the key's metadata.
    pub metadata_version: u64,
    /// The key, encrypted with one or several master keys.
    pub values: Vec<EncryptedKey>,
}

/// EncryptionKeyValue: the key as one master key encrypts it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct EncryptedKey {
    /// The ciphertext.
    pub key: Vec<u8>,
    /// Which kind of store holds the master key.
    pub store: String,
    /// Where in the store.
    pub path: String,
    /// How the key was encrypted.
    pub algorithm: String,
}

/// CryptoMetaData: how an encrypted value looks when decrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CryptoMetadata {
    /// The key's place in the table of keys; return values have none.
    pub ordinal: u16,
    /// The plaintext's user type.
    pub user_type: u32,
    /// The plaintext's type.
    pub base_type: TypeInfo,
    /// The algorithm; 0 is a custom one, which has a name.
    pub algorithm: u8,
    /// The custom algorithm's name.
    pub algorithm_name: Option<String>,
    /// 1 deterministic, 2 randomized.
    pub encryption_type: u8,
    /// How the plaintext is normalized.
    pub normalization: u8,
}

impl KeyEntry {
    pub(super) fn read_table(reader: &mut Reader<'_>) -> Result<Vec<Self>, Malformed> {
        let count = reader.u16()?;
        let mut table = Vec::new();
        for _ in 0..count {
            let mut entry = Self {
                database_id: reader.u32()?,
                key_id: reader.u32()?,
                key_version: reader.u32()?,
                metadata_version: reader.u64()?,
                values: Vec::new(),
            };
            for _ in 0..reader.u8()? {
                entry.values.push(EncryptedKey {
                    key: reader.us_varbyte()?.to_vec(),
                    store: reader.b_varchar()?,
                    path: reader.us_varchar()?,
                    algorithm: reader.b_varchar()?,
                });
            }
            table.push(entry);
        }
        Ok(table)
    }

    pub(super) fn write_table(table: &[Self], out: &mut impl BufMut) {
        let table = &table[..table.len().min(usize::from(u16::MAX))];
        out.put_u16_le(table.len() as u16);
        for entry in table {
            out.put_u32_le(entry.database_id);
            out.put_u32_le(entry.key_id);
            out.put_u32_le(entry.key_version);
            out.put_u64_le(entry.metadata_version);
            let values = &entry.values[..entry.values.len().min(255)];
            out.put_u8(values.len() as u8);
            for value in values {
                let key = &value.key[..value.key.len().min(usize::from(u16::MAX))];
                out.put_u16_le(key.len() as u16);
                out.put_slice(key);
                write::b_varchar(out, &value.store);
                write::us_varchar(out, &value.path);
                write::b_varchar(out, &value.algorithm);
            }
        }
    }
}

impl CryptoMetadata {
    /// `has_ordinal`: false for return values, which come without a table of keys.
    pub(crate) fn read(
        reader: &mut Reader<'_>,
        dialect: Dialect,
        has_ordinal: bool,
    ) -> Result<Self, Malformed> {
        let ordinal = if has_ordinal { reader.u16()? } else { 0 };
        let user_type = read_user_type(reader, dialect)?;
        let base_type = TypeInfo::read(reader, dialect, Place::Column)?;
        let algorithm = reader.u8()?;
        let algorithm_name = if algorithm == 0 { Some(reader.b_varchar()?) } else { None };
        let (encryption_type, normalization) = (reader.u8()?, reader.u8()?);
        Ok(Self { ordinal, user_type, base_type, algorithm, algorithm_name, encryption_type, normalization })
    }

    pub(crate) fn write(&self, out: &mut impl BufMut, dialect: Dialect, has_ordinal: bool) {
        if has_ordinal {
            out.put_u16_le(self.ordinal);
        }
        write_user_type(self.user_type, out, dialect);
        self.base_type.write(out, dialect);
        out.put_u8(self.algorithm);
        if self.algorithm == 0 {
            write::b_varchar(out, self.algorithm_name.as_deref().unwrap_or_default());
        }
        out.put_slice(&[self.encryption_type, self.normalization]);
    }
}
