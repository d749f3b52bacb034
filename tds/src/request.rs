//! What a client asks for, apart from RPCs: the headers of requests, batches, transactions, bulk loads ([MS-TDS] 2.2.6).

mod all_headers;
pub mod bulk_load;
mod enclave;
mod transaction;

pub use all_headers::{AllHeaders, QueryNotification, TraceActivity, TransactionDescriptor};
pub use enclave::EnclavePackage;
pub use transaction::{BeginTransaction, IsolationLevel, TransactionRequest};

use bytes::BufMut;

use crate::read::{Reader, decode_utf16};
use crate::{Dialect, Malformed, write};

/// SQLBatch: text to execute ([MS-TDS] 2.2.6.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlBatch {
    /// Present from TDS 7.2 on.
    pub headers: Option<AllHeaders>,
    /// For the server's enclave, where column encryption 2 was acknowledged.
    pub enclave: EnclavePackage,
    /// The text.
    pub text: String,
}

impl SqlBatch {
    /// A batch in autocommit mode.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            headers: Some(AllHeaders::autocommit()),
            enclave: EnclavePackage::default(),
            text: text.into(),
        }
    }

    /// Reads the payload of a batch message.
    pub fn read(payload: &[u8], dialect: Dialect) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload, "a batch");
        let headers = AllHeaders::read_if_any(&mut reader, dialect)?;
        let enclave = EnclavePackage::read(&mut reader, dialect)?;
        Ok(Self { headers, enclave, text: decode_utf16(reader.rest(), "a batch")? })
    }

    /// Writes the payload of a batch message.
    pub fn write(&self, out: &mut impl BufMut, dialect: Dialect) {
        if dialect.is_7_2_or_later() {
            self.headers.as_ref().unwrap_or(&AllHeaders::autocommit()).write(out);
        }
        self.enclave.write(out, dialect);
        write::utf16(out, &self.text);
    }

    /// Where the UTF-16 text begins in the payload, in bytes; the beginning of the payload is enough.
    pub fn text_offset(payload: &[u8], dialect: Dialect) -> Result<usize, Malformed> {
        let mut reader = Reader::new(payload, "a batch");
        AllHeaders::read_if_any(&mut reader, dialect)?;
        EnclavePackage::read(&mut reader, dialect)?;
        Ok(reader.position())
    }
}
