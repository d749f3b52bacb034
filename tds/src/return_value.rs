//! What an output parameter came back as: RETURNVALUE ([MS-TDS] 2.2.7.19).

use bytes::BufMut;

use crate::col_metadata::{ColumnFlags, CryptoMetadata, read_user_type, write_user_type};
use crate::read::Reader;
use crate::token::TokenKind;
use crate::type_info::{Place, TypeInfo};
use crate::value::{Unfit, Value};
use crate::{Dialect, Malformed, write};

/// An output parameter or the result of a function.
#[derive(Clone, Debug, PartialEq)]
pub struct ReturnValue {
    /// The parameter's place in the call, from 0. At TDS 7.0 servers put a length here.
    pub ordinal: u16,
    /// The parameter's name, with its `@`; may be empty.
    pub name: String,
    /// 1 for an output parameter, 2 for a function's result.
    pub status: u8,
    /// The user type.
    pub user_type: u32,
    /// As for columns.
    pub flags: ColumnFlags,
    /// The type.
    pub type_info: TypeInfo,
    /// How the plaintext looks, if the flags say that the value is encrypted.
    pub crypto: Option<Box<CryptoMetadata>>,
    /// The value.
    pub value: Value,
}

/// [`ReturnValue::status`] of an output parameter.
pub const OUTPUT_PARAMETER: u8 = 1;
/// [`ReturnValue::status`] of a function's result.
pub const FUNCTION_RESULT: u8 = 2;

impl ReturnValue {
    /// An output parameter.
    pub fn new(ordinal: u16, name: impl Into<String>, type_info: TypeInfo, value: Value) -> Self {
        Self {
            ordinal,
            name: name.into(),
            status: OUTPUT_PARAMETER,
            user_type: 0,
            flags: ColumnFlags::default(),
            type_info,
            crypto: None,
            value,
        }
    }

    /// Reads what follows the token byte.
    pub fn read(reader: &mut Reader<'_>, dialect: Dialect) -> Result<Self, Malformed> {
        let ordinal = reader.u16()?;
        let name = reader.b_varchar()?;
        let status = reader.u8()?;
        let user_type = read_user_type(reader, dialect)?;
        let flags = ColumnFlags(reader.u16()?);
        let type_info = TypeInfo::read(reader, dialect, Place::Column)?;
        let crypto = if dialect.column_encryption > 0 && flags.contains(ColumnFlags::ENCRYPTED) {
            Some(Box::new(CryptoMetadata::read(reader, dialect, false)?))
        } else {
            None
        };
        let value = Value::read(reader, &type_info)?;
        Ok(Self { ordinal, name, status, user_type, flags, type_info, crypto, value })
    }

    /// Writes the token. On an error, part of it has been written: throw the buffer away.
    pub fn write(&self, out: &mut impl BufMut, dialect: Dialect) -> Result<(), Unfit> {
        out.put_u8(TokenKind::RETURN_VALUE.0);
        out.put_u16_le(self.ordinal);
        write::b_varchar(out, &self.name);
        out.put_u8(self.status);
        write_user_type(self.user_type, out, dialect);
        let crypto = self.crypto.as_ref().filter(|_| dialect.column_encryption > 0);
        out.put_u16_le(self.flags.with_encrypted(crypto.is_some()).0);
        self.type_info.write(out, dialect);
        if let Some(crypto) = crypto {
            crypto.write(out, dialect, false);
        }
        self.value.write(out, &self.type_info)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TdsVersion;

    #[test]
    fn a_prepared_handle_comes_back_as_an_int() {
        let handle = ReturnValue::new(0, "@handle", TypeInfo::IntN(4), Value::Int(7));
        for (version, len) in [(TdsVersion::V7_1, 30), (TdsVersion::V7_4, 32)] {
            let mut out = Vec::new();
            handle.write(&mut out, version.into()).unwrap();
            assert_eq!(out.len(), len);
            let mut reader = Reader::new(&out[1..], "RETURNVALUE");
            assert_eq!(ReturnValue::read(&mut reader, version.into()).as_ref(), Ok(&handle));
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn text_comes_back_without_a_text_pointer() {
        let info =
            crate::type_info::TextInfo { max_len: 100, collation: crate::type_info::Collation::LATIN1 };
        let text = ReturnValue::new(1, "", TypeInfo::Text(info), Value::String("abc".into()));
        let mut out = Vec::new();
        text.write(&mut out, Dialect::of(TdsVersion::V7_4)).unwrap();
        assert_eq!(out[out.len() - 7..], *b"\x03\0\0\0abc");
    }
}
