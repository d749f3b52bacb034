//! One parameter of an RPC: name, flags, type, value ([MS-TDS] 2.2.6.6).

use bytes::BufMut;

use crate::read::Reader;
use crate::type_info::{Place, TypeInfo};
use crate::value::{Unfit, Value};
use crate::{Dialect, Malformed, write};

/// ParameterData.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// With its `@`; empty for a parameter by position.
    pub name: String,
    /// Output, default, encrypted.
    pub flags: ParamFlags,
    /// The type.
    pub type_info: TypeInfo,
    /// The value; NULL where the flags ask for the default.
    pub value: Value,
    /// How the value was encrypted, if the flags say so.
    pub cipher: Option<Box<CipherInfo>>,
}

/// StatusFlags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct ParamFlags(pub u8);

impl ParamFlags {
    /// An output parameter.
    pub const BY_REF: Self = Self(1);
    /// The parameter's default is meant, not the value.
    pub const DEFAULT: Self = Self(2);
    /// The value is encrypted.
    pub const ENCRYPTED: Self = Self(8);

    /// True if all of `other`'s bits are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// ParamCipherInfo, from TDS 7.4 on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CipherInfo {
    /// The plaintext's type.
    pub base_type: TypeInfo,
    /// The algorithm; 0 is a custom one, which has a name.
    pub algorithm: u8,
    /// The custom algorithm's name.
    pub algorithm_name: Option<String>,
    /// 1 deterministic, 2 randomized.
    pub encryption_type: u8,
    /// The database that stores the key.
    pub database_id: u32,
    /// The key's id.
    pub key_id: u32,
    /// The key's version.
    pub key_version: u32,
    /// The version of the key's metadata.
    pub metadata_version: u64,
    /// How the plaintext is normalized.
    pub normalization: u8,
}

impl Parameter {
    /// An input parameter; an empty name means by position.
    pub fn new(name: impl Into<String>, type_info: TypeInfo, value: Value) -> Self {
        Self { name: name.into(), flags: ParamFlags::default(), type_info, value, cipher: None }
    }

    /// The same parameter as an output parameter.
    pub fn by_ref(mut self) -> Self {
        self.flags.0 |= ParamFlags::BY_REF.0;
        self
    }

    pub(super) fn write(&self, out: &mut impl BufMut, dialect: Dialect) -> Result<(), Unfit> {
        write::b_varchar(out, &self.name);
        out.put_u8(self.flags.0);
        self.type_info.write(out, dialect);
        self.value.write(out, &self.type_info)?;
        if let Some(cipher) = self.cipher.as_ref().filter(|_| self.flags.contains(ParamFlags::ENCRYPTED)) {
            cipher.write(out, dialect);
        }
        Ok(())
    }
}

impl CipherInfo {
    pub(super) fn read(reader: &mut Reader<'_>, dialect: Dialect) -> Result<Self, Malformed> {
        let base_type = TypeInfo::read(reader, dialect, Place::Parameter)?;
        let algorithm = reader.u8()?;
        let algorithm_name = if algorithm == 0 { Some(reader.b_varchar()?) } else { None };
        Ok(Self {
            base_type,
            algorithm,
            algorithm_name,
            encryption_type: reader.u8()?,
            database_id: reader.u32()?,
            key_id: reader.u32()?,
            key_version: reader.u32()?,
            metadata_version: reader.u64()?,
            normalization: reader.u8()?,
        })
    }

    fn write(&self, out: &mut impl BufMut, dialect: Dialect) {
        self.base_type.write(out, dialect);
        out.put_u8(self.algorithm);
        if self.algorithm == 0 {
            write::b_varchar(out, self.algorithm_name.as_deref().unwrap_or_default());
        }
        out.put_u8(self.encryption_type);
        out.put_u32_le(self.database_id);
        out.put_u32_le(self.key_id);
        out.put_u32_le(self.key_version);
        out.put_u64_le(self.metadata_version);
        out.put_u8(self.normalization);
    }
}
