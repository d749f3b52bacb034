//! What changed in a session, as its server reports it: ENVCHANGE ([MS-TDS] 2.2.7.9).

use bytes::{BufMut, Bytes, BytesMut};

use crate::read::Reader;
use crate::{Malformed, write};

/// The byte of an ENVCHANGE token.
pub const ENV_CHANGE_TOKEN: u8 = 0xE3;

/// The kind byte of an ENVCHANGE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EnvKind(pub u8);

impl EnvKind {
    /// The current database.
    pub const DATABASE: Self = Self(1);
    /// The language of messages and dates.
    pub const LANGUAGE: Self = Self(2);
    /// The character set (TDS 7.0 and earlier).
    pub const CHARACTER_SET: Self = Self(3);
    /// The largest packet.
    pub const PACKET_SIZE: Self = Self(4);
    /// The locale of Unicode sorting (TDS 7.0 and earlier).
    pub const UNICODE_LOCALE: Self = Self(5);
    /// The flags of Unicode comparison (TDS 7.0 and earlier).
    pub const UNICODE_COMPARISON: Self = Self(6);
    /// The collation.
    pub const COLLATION: Self = Self(7);
    /// A transaction began.
    pub const BEGIN_TRANSACTION: Self = Self(8);
    /// A transaction was committed.
    pub const COMMIT_TRANSACTION: Self = Self(9);
    /// A transaction was rolled back.
    pub const ROLLBACK_TRANSACTION: Self = Self(10);
    /// The session joined a distributed transaction.
    pub const ENLIST_TRANSACTION: Self = Self(11);
    /// The session left a distributed or bound transaction.
    pub const DEFECT_TRANSACTION: Self = Self(12);
    /// The mirroring partner's name.
    pub const MIRRORING_PARTNER: Self = Self(13);
    /// The token of a transaction that became a distributed one.
    pub const PROMOTE_TRANSACTION: Self = Self(15);
    /// The address of the transaction manager.
    pub const TRANSACTION_MANAGER_ADDRESS: Self = Self(16);
    /// The transaction that a request named has ended (bound sessions).
    pub const TRANSACTION_ENDED: Self = Self(17);
    /// The reset that a request asked for is done.
    pub const RESET_DONE: Self = Self(18);
    /// The name of the user instance that the login started.
    pub const USER_INSTANCE: Self = Self(19);
    /// Log in elsewhere.
    pub const ROUTING: Self = Self(20);
    /// Log in elsewhere, to another database.
    pub const ENHANCED_ROUTING: Self = Self(21);
}

/// Where a server sends a login on to ([MS-TDS] 2.2.7.9, types 20 and 21).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routing {
    /// The other server's name; may contain an instance's name after a backslash.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
    /// The other database; only in type 21.
    pub database: Option<String>,
}

/// An ENVCHANGE token. Transactions are named by their descriptors, 8 bytes that mean something to the server only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvChange {
    /// 1: the current database.
    Database {
        /// Its name.
        new: String,
        /// The name of the one before.
        old: String,
    },
    /// 2: the language.
    Language {
        /// Its name.
        new: String,
        /// The name of the one before.
        old: String,
    },
    /// 4: the largest packet, in bytes, from the next message on.
    PacketSize {
        /// The new size.
        new: usize,
        /// The size before.
        old: usize,
    },
    /// 7: the collation; 5 bytes, or none.
    Collation {
        /// The new one ([MS-TDS] 2.2.5.1.2).
        new: Option<[u8; 5]>,
        /// The one before.
        old: Option<[u8; 5]>,
    },
    /// 8: a transaction began.
    BeginTransaction(u64),
    /// 9: the transaction was committed.
    CommitTransaction(u64),
    /// 10: the transaction was rolled back.
    RollbackTransaction(u64),
    /// 11: the session joined a distributed transaction.
    EnlistTransaction(u64),
    /// 12: the session left a distributed or bound transaction.
    DefectTransaction(u64),
    /// 15: the transaction became a distributed one; its token for the coordinator.
    PromoteTransaction(Bytes),
    /// 17: the transaction that the request named has ended.
    TransactionEnded(u64),
    /// 18: the reset that the request asked for is done.
    ResetDone,
    /// 20 and 21: log in elsewhere.
    Routing(Routing),
    /// All other kinds, which nobody has to act on.
    Other {
        /// The kind.
        kind: EnvKind,
        /// What follows the kind byte.
        raw: Bytes,
    },
}

impl EnvChange {
    /// The kind byte.
    pub fn kind(&self) -> EnvKind {
        match self {
            Self::Database { .. } => EnvKind::DATABASE,
            Self::Language { .. } => EnvKind::LANGUAGE,
            Self::PacketSize { .. } => EnvKind::PACKET_SIZE,
            Self::Collation { .. } => EnvKind::COLLATION,
            Self::BeginTransaction(_) => EnvKind::BEGIN_TRANSACTION,
            Self::CommitTransaction(_) => EnvKind::COMMIT_TRANSACTION,
            Self::RollbackTransaction(_) => EnvKind::ROLLBACK_TRANSACTION,
            Self::EnlistTransaction(_) => EnvKind::ENLIST_TRANSACTION,
            Self::DefectTransaction(_) => EnvKind::DEFECT_TRANSACTION,
            Self::PromoteTransaction(_) => EnvKind::PROMOTE_TRANSACTION,
            Self::TransactionEnded(_) => EnvKind::TRANSACTION_ENDED,
            Self::ResetDone => EnvKind::RESET_DONE,
            Self::Routing(Routing { database: None, .. }) => EnvKind::ROUTING,
            Self::Routing(Routing { database: Some(_), .. }) => EnvKind::ENHANCED_ROUTING,
            Self::Other { kind, .. } => *kind,
        }
    }

    /// True for the kinds that open (8, 11) a transaction.
    pub fn opens_transaction(&self) -> bool {
        matches!(self, Self::BeginTransaction(_) | Self::EnlistTransaction(_))
    }

    /// True for the kinds that end (9, 10, 12, 17) the session's transaction.
    pub fn ends_transaction(&self) -> bool {
        matches!(
            self,
            Self::CommitTransaction(_)
                | Self::RollbackTransaction(_)
                | Self::DefectTransaction(_)
                | Self::TransactionEnded(_)
        )
    }

    /// Reads what follows the token's byte. Type 15 announces a length of 1 and is longer than that (notes of
    /// 2.2.7.9); here both forms are taken.
    pub fn read(body: &mut Reader<'_>) -> Result<Self, Malformed> {
        let announced = body.us_varbyte()?;
        let mut values = Reader::new(announced, "ENVCHANGE");
        let kind = EnvKind(values.u8()?);
        let change = match kind {
            EnvKind::DATABASE => Self::Database { new: text(&mut values)?, old: text(&mut values)? },
            EnvKind::LANGUAGE => Self::Language { new: text(&mut values)?, old: text(&mut values)? },
            EnvKind::PACKET_SIZE => Self::PacketSize { new: size(&mut values)?, old: size(&mut values)? },
            EnvKind::COLLATION => {
                Self::Collation { new: collation(&mut values)?, old: collation(&mut values)? }
            }
            EnvKind::BEGIN_TRANSACTION => Self::BeginTransaction(descriptor(&mut values)?),
            EnvKind::COMMIT_TRANSACTION => Self::CommitTransaction(descriptor(&mut values)?),
            EnvKind::ROLLBACK_TRANSACTION => Self::RollbackTransaction(descriptor(&mut values)?),
            EnvKind::ENLIST_TRANSACTION => Self::EnlistTransaction(descriptor(&mut values)?),
            EnvKind::DEFECT_TRANSACTION => Self::DefectTransaction(descriptor(&mut values)?),
            EnvKind::TRANSACTION_ENDED => Self::TransactionEnded(descriptor(&mut values)?),
            EnvKind::PROMOTE_TRANSACTION => {
                let values = if announced.len() == 1 { body } else { &mut values };
                let token = Bytes::copy_from_slice(values.l_varbyte()?);
                values.u8()?;
                Self::PromoteTransaction(token)
            }
            EnvKind::RESET_DONE => Self::ResetDone,
            EnvKind::ROUTING | EnvKind::ENHANCED_ROUTING => {
                let mut value = Reader::new(values.us_varbyte()?, "ENVCHANGE routing");
                match value.u8()? {
                    0 => {}
                    other => {
                        let what = "ENVCHANGE routing protocol";
                        return Err(Malformed::Value { what, value: u64::from(other) });
                    }
                }
                let port = value.u16()?;
                let host = value.us_varchar()?;
                let database =
                    if kind == EnvKind::ENHANCED_ROUTING { Some(value.us_varchar()?) } else { None };
                Self::Routing(Routing { host, port, database })
            }
            kind => Self::Other { kind, raw: Bytes::copy_from_slice(values.rest()) },
        };
        Ok(change)
    }

    /// Writes the token, its byte included.
    pub fn write(&self, out: &mut impl BufMut) {
        let mut values = BytesMut::new();
        values.put_u8(self.kind().0);
        match self {
            Self::Database { new, old } | Self::Language { new, old } => {
                write::b_varchar(&mut values, new);
                write::b_varchar(&mut values, old);
            }
            Self::PacketSize { new, old } => {
                write::b_varchar(&mut values, &new.to_string());
                write::b_varchar(&mut values, &old.to_string());
            }
            Self::Collation { new, old } => {
                for collation in [new, old] {
                    let bytes = collation.as_ref().map_or(&[][..], |bytes| &bytes[..]);
                    b_varbyte(&mut values, bytes);
                }
            }
            Self::BeginTransaction(new) | Self::EnlistTransaction(new) | Self::TransactionEnded(new) => {
                b_varbyte(&mut values, &new.to_le_bytes());
                values.put_u8(0);
            }
            Self::CommitTransaction(old) | Self::RollbackTransaction(old) | Self::DefectTransaction(old) => {
                values.put_u8(0);
                b_varbyte(&mut values, &old.to_le_bytes());
            }
            Self::PromoteTransaction(token) => {
                out.put_u8(ENV_CHANGE_TOKEN);
                out.put_u16_le(1);
                out.put_u8(EnvKind::PROMOTE_TRANSACTION.0);
                out.put_u32_le(u32::try_from(token.len()).unwrap_or(u32::MAX));
                out.put_slice(token);
                out.put_u8(0);
                return;
            }
            Self::ResetDone => values.put_slice(&[0, 0]),
            Self::Routing(routing) => {
                let mut value = BytesMut::new();
                value.put_u8(0);
                value.put_u16_le(routing.port);
                write::us_varchar(&mut value, &routing.host);
                if let Some(database) = &routing.database {
                    write::us_varchar(&mut value, database);
                }
                values.put_u16_le(u16::try_from(value.len()).unwrap_or(u16::MAX));
                values.put_slice(&value);
                values.put_u16_le(0);
            }
            Self::Other { raw, .. } => values.put_slice(raw),
        }
        out.put_u8(ENV_CHANGE_TOKEN);
        out.put_u16_le(u16::try_from(values.len()).unwrap_or(u16::MAX));
        out.put_slice(&values);
    }
}

/// A B_VARCHAR; the old value may be left out ([MS-TDS] 2.2.7.9: `[OldValue]`).
fn text(values: &mut Reader<'_>) -> Result<String, Malformed> {
    if values.is_empty() { Ok(String::new()) } else { values.b_varchar() }
}

/// A packet size, which is written as text.
fn size(values: &mut Reader<'_>) -> Result<usize, Malformed> {
    let text = text(values)?;
    match text.trim_end_matches('\0').trim() {
        "" => Ok(0),
        digits => digits.parse().map_err(|_| Malformed::Text { what: "ENVCHANGE packet size" }),
    }
}

fn collation(values: &mut Reader<'_>) -> Result<Option<[u8; 5]>, Malformed> {
    if values.is_empty() {
        return Ok(None);
    }
    match values.b_varbyte()? {
        [] => Ok(None),
        bytes => bytes.try_into().map(Some).map_err(|_| Malformed::Value {
            what: "ENVCHANGE collation length",
            value: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        }),
    }
}

/// A transaction's descriptor: 8 bytes, as the new or the old value. The specification's table and its notes
/// disagree for types 11, 12 and 17, so whichever is there counts; 0 if neither is.
fn descriptor(values: &mut Reader<'_>) -> Result<u64, Malformed> {
    let mut found = 0;
    while !values.is_empty() {
        match values.b_varbyte()? {
            [] => {}
            bytes => {
                found = bytes.try_into().map(u64::from_le_bytes).map_err(|_| Malformed::Value {
                    what: "ENVCHANGE transaction descriptor length",
                    value: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
                })?;
            }
        }
    }
    Ok(found)
}

fn b_varbyte(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u8(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
    out.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_kind() -> Vec<EnvChange> {
        let text = |s: &str| s.to_owned();
        vec![
            EnvChange::Database { new: text("master"), old: text("") },
            EnvChange::Language { new: text("us_english"), old: text("Deutsch") },
            EnvChange::PacketSize { new: 8000, old: 4096 },
            EnvChange::Collation { new: Some([9, 4, 0xD0, 0, 0x34]), old: None },
            EnvChange::BeginTransaction(0x0034_0000_0001),
            EnvChange::CommitTransaction(1),
            EnvChange::RollbackTransaction(2),
            EnvChange::EnlistTransaction(3),
            EnvChange::DefectTransaction(4),
            EnvChange::PromoteTransaction(Bytes::from_static(&[7; 300])),
            EnvChange::TransactionEnded(5),
            EnvChange::ResetDone,
            EnvChange::Routing(Routing { host: text("other"), port: 1444, database: None }),
            EnvChange::Routing(Routing { host: text("other"), port: 1444, database: Some(text("db")) }),
            EnvChange::Other { kind: EnvKind::MIRRORING_PARTNER, raw: Bytes::from_static(&[1, b'm', 0, 0]) },
            EnvChange::Other { kind: EnvKind(99), raw: Bytes::new() },
        ]
    }

    #[test]
    fn every_kind_survives_a_round_trip() {
        for change in every_kind() {
            let mut out = vec![];
            change.write(&mut out);
            assert_eq!(out[0], ENV_CHANGE_TOKEN);
            let mut reader = Reader::new(&out[1..], "ENVCHANGE");
            assert_eq!(EnvChange::read(&mut reader), Ok(change));
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn a_token_cut_anywhere_is_an_error_or_lacks_only_its_old_value() {
        for change in every_kind() {
            let mut out = vec![];
            change.write(&mut out);
            for end in 1..out.len() {
                let _ = EnvChange::read(&mut Reader::new(&out[1..end], "ENVCHANGE")).unwrap_err();
            }
        }
    }

    #[test]
    fn a_promotion_announces_one_byte_and_has_more() {
        let bytes = [1, 0, 15, 2, 0, 0, 0, 0xAA, 0xBB, 0, 0xFD];
        let mut reader = Reader::new(&bytes, "ENVCHANGE");
        let change = EnvChange::read(&mut reader).unwrap();
        assert_eq!(change, EnvChange::PromoteTransaction(Bytes::from_static(&[0xAA, 0xBB])));
        assert_eq!(reader.position(), 10);
    }

    #[test]
    fn an_enlistment_may_name_its_transaction_as_new_or_as_old_value() {
        for values in [[8, 1, 0, 0, 0, 0, 0, 0, 0, 0], [0, 8, 1, 0, 0, 0, 0, 0, 0, 0]] {
            let mut bytes = vec![11, 0, 11];
            bytes.extend_from_slice(&values);
            let change = EnvChange::read(&mut Reader::new(&bytes, "ENVCHANGE")).unwrap();
            assert_eq!(change, EnvChange::EnlistTransaction(1));
            assert!(change.opens_transaction() && !change.ends_transaction());
        }
    }

    #[test]
    fn an_old_value_may_be_left_out() {
        let bytes = [4, 0, 1, 1, b'm', 0];
        let change = EnvChange::read(&mut Reader::new(&bytes, "ENVCHANGE")).unwrap();
        assert_eq!(change, EnvChange::Database { new: "m".into(), old: String::new() });
    }
}
