//! Bytes that a request carries for the server's enclave ([MS-TDS] 2.2.6.6).

use bytes::BufMut;

use crate::read::Reader;
use crate::{Dialect, Malformed};

/// EnclavePackage: opaque, empty for most requests, and on the wire only where COLUMNENCRYPTION 2 was acknowledged.
///
/// The specification calls it L_VARBYTE; Microsoft's drivers write a length of two bytes, and so do we.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct EnclavePackage(pub Vec<u8>);

impl EnclavePackage {
    pub(crate) fn read(reader: &mut Reader<'_>, dialect: Dialect) -> Result<Self, Malformed> {
        if dialect.column_encryption < 2 {
            return Ok(Self::default());
        }
        reader.us_varbyte().map(|bytes| Self(bytes.to_vec()))
    }

    pub(crate) fn write(&self, out: &mut impl BufMut, dialect: Dialect) {
        if dialect.column_encryption >= 2 {
            let bytes = &self.0[..self.0.len().min(usize::from(u16::MAX))];
            out.put_u16_le(bytes.len() as u16);
            out.put_slice(bytes);
        }
    }
}
