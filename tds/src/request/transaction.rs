//! Begins, ends and moves transactions without text: the transaction manager request ([MS-TDS] 2.2.6.9).

use bytes::BufMut;

use super::AllHeaders;
use crate::read::{Reader, decode_utf16};
use crate::{Dialect, Malformed, write};

/// A transaction manager request without its headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionRequest {
    /// TM_GET_DTC_ADDRESS.
    GetDtcAddress(Vec<u8>),
    /// TM_PROPAGATE_XACT: joins a distributed transaction.
    Propagate(Vec<u8>),
    /// TM_BEGIN_XACT.
    Begin(BeginTransaction),
    /// TM_PROMOTE_XACT: makes the transaction a distributed one.
    Promote,
    /// TM_COMMIT_XACT.
    Commit {
        /// The transaction's name; may be empty.
        name: String,
        /// Begins the next transaction at once.
        begin: Option<BeginTransaction>,
    },
    /// TM_ROLLBACK_XACT.
    Rollback {
        /// The transaction's or the savepoint's name; empty for the whole transaction.
        name: String,
        /// Begins the next transaction at once.
        begin: Option<BeginTransaction>,
    },
    /// TM_SAVE_XACT: sets a savepoint.
    Save {
        /// The savepoint's name.
        name: String,
    },
    /// A type that the specification does not list: servers disconnect on it.
    Other {
        /// The type.
        kind: u16,
        /// What follows it.
        payload: Vec<u8>,
    },
}

/// How a transaction begins.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct BeginTransaction {
    /// Stays in effect for the session after the transaction's end.
    pub isolation: IsolationLevel,
    /// The transaction's name; may be empty.
    pub name: String,
}

/// ISOLATION_LEVEL. Unknown values are representable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct IsolationLevel(pub u8);

impl IsolationLevel {
    /// Leave it as it is.
    pub const CURRENT: Self = Self(0);
    /// READ UNCOMMITTED.
    pub const READ_UNCOMMITTED: Self = Self(1);
    /// READ COMMITTED.
    pub const READ_COMMITTED: Self = Self(2);
    /// REPEATABLE READ.
    pub const REPEATABLE_READ: Self = Self(3);
    /// SERIALIZABLE.
    pub const SERIALIZABLE: Self = Self(4);
    /// SNAPSHOT.
    pub const SNAPSHOT: Self = Self(5);
}

impl TransactionRequest {
    /// Reads the payload of a transaction manager message, with its headers from TDS 7.2 on.
    pub fn read(payload: &[u8], dialect: Dialect) -> Result<(Option<AllHeaders>, Self), Malformed> {
        let mut reader = Reader::new(payload, "a transaction manager request");
        let headers = AllHeaders::read_if_any(&mut reader, dialect)?;
        let request = match reader.u16()? {
            0 => Self::GetDtcAddress(reader.us_varbyte()?.to_vec()),
            1 => Self::Propagate(reader.us_varbyte()?.to_vec()),
            5 => Self::Begin(BeginTransaction::read(&mut reader)?),
            6 => Self::Promote,
            7 => Self::Commit { name: read_name(&mut reader)?, begin: read_next(&mut reader)? },
            8 => Self::Rollback { name: read_name(&mut reader)?, begin: read_next(&mut reader)? },
            9 => Self::Save { name: read_name(&mut reader)? },
            kind => Self::Other { kind, payload: reader.rest().to_vec() },
        };
        Ok((headers, request))
    }

    /// Writes the payload of a transaction manager message; headers are left out before TDS 7.2.
    pub fn write(&self, out: &mut impl BufMut, headers: &AllHeaders, dialect: Dialect) {
        if dialect.is_7_2_or_later() {
            headers.write(out);
        }
        match self {
            Self::GetDtcAddress(bytes) => put_bytes(out, 0, bytes),
            Self::Propagate(bytes) => put_bytes(out, 1, bytes),
            Self::Begin(begin) => {
                out.put_u16_le(5);
                begin.write(out);
            }
            Self::Promote => out.put_u16_le(6),
            Self::Commit { name, begin } => put_end(out, 7, name, begin.as_ref()),
            Self::Rollback { name, begin } => put_end(out, 8, name, begin.as_ref()),
            Self::Save { name } => {
                out.put_u16_le(9);
                write_name(out, name);
            }
            Self::Other { kind, payload } => {
                out.put_u16_le(*kind);
                out.put_slice(payload);
            }
        }
    }
}

impl BeginTransaction {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { isolation: IsolationLevel(reader.u8()?), name: read_name(reader)? })
    }

    fn write(&self, out: &mut impl BufMut) {
        out.put_u8(self.isolation.0);
        write_name(out, &self.name);
    }
}

/// XACT_FLAGS and what follows if fBeginXact is set.
fn read_next(reader: &mut Reader<'_>) -> Result<Option<BeginTransaction>, Malformed> {
    if reader.u8()? & 1 == 0 { Ok(None) } else { BeginTransaction::read(reader).map(Some) }
}

/// B_VARBYTE that holds UTF-16: its length counts bytes.
fn read_name(reader: &mut Reader<'_>) -> Result<String, Malformed> {
    decode_utf16(reader.b_varbyte()?, "a transaction's name")
}

fn write_name(out: &mut impl BufMut, name: &str) {
    let mut bytes = Vec::new();
    write::utf16(&mut bytes, name);
    bytes.truncate(254);
    out.put_u8(bytes.len() as u8);
    out.put_slice(&bytes);
}

fn put_bytes(out: &mut impl BufMut, kind: u16, bytes: &[u8]) {
    out.put_u16_le(kind);
    let bytes = &bytes[..bytes.len().min(usize::from(u16::MAX))];
    out.put_u16_le(bytes.len() as u16);
    out.put_slice(bytes);
}

fn put_end(out: &mut impl BufMut, kind: u16, name: &str, begin: Option<&BeginTransaction>) {
    out.put_u16_le(kind);
    write_name(out, name);
    out.put_u8(u8::from(begin.is_some()));
    if let Some(begin) = begin {
        begin.write(out);
    }
}
