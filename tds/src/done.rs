//! What ends a statement, a procedure and a response: DONE, DONEPROC, DONEINPROC ([MS-TDS] 2.2.7.6 to 2.2.7.8).

use bytes::BufMut;

use crate::read::Reader;
use crate::{Malformed, TdsVersion};

/// Which of the three tokens it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DoneKind {
    /// 0xFD: the end of a statement of a batch.
    Done,
    /// 0xFE: the end of a procedure.
    DoneProc,
    /// 0xFF: the end of a statement inside a procedure.
    DoneInProc,
}

impl DoneKind {
    /// The token's byte.
    pub fn token(self) -> u8 {
        match self {
            Self::Done => 0xFD,
            Self::DoneProc => 0xFE,
            Self::DoneInProc => 0xFF,
        }
    }

    /// The kind whose token's byte this is.
    pub fn from_token(token: u8) -> Option<Self> {
        match token {
            0xFD => Some(Self::Done),
            0xFE => Some(Self::DoneProc),
            0xFF => Some(Self::DoneInProc),
            _ => None,
        }
    }
}

/// The status bits of a DONE token. Unknown bits are kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct DoneStatus(pub u16);

impl DoneStatus {
    /// The last DONE of the response: no bit at all.
    pub const FINAL: Self = Self(0x000);
    /// More tokens follow.
    pub const MORE: Self = Self(0x001);
    /// The statement failed.
    pub const ERROR: Self = Self(0x002);
    /// A transaction is open. SQL Server never sets it (notes 46, 48, 49): rely on ENVCHANGE.
    pub const IN_TRANSACTION: Self = Self(0x004);
    /// The row count is valid.
    pub const COUNT: Self = Self(0x010);
    /// The acknowledgement of an attention.
    pub const ATTENTION: Self = Self(0x020);
    /// One of several RPCs of a message ended (DONEPROC).
    pub const RPC_IN_BATCH: Self = Self(0x080);
    /// The statement failed so badly that its result set is to be thrown away.
    pub const SERVER_ERROR: Self = Self(0x100);

    /// True if all bits of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// With the bits of `other` set.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// With the bits of `other` cleared.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl std::fmt::Debug for DoneStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#05x}", self.0)
    }
}

/// A DONE, DONEPROC or DONEINPROC token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// Which of the three.
    pub kind: DoneKind,
    /// How it ended, and whether more follows.
    pub status: DoneStatus,
    /// The kind of statement (0xC1 SELECT, 0xC3 INSERT ...); the protocol gives it no meaning.
    pub current_command: u16,
    /// Rows affected, if [`DoneStatus::COUNT`] is set.
    pub rows: u64,
}

impl Done {
    /// Bytes behind the token's byte: the row count has 8 bytes from TDS 7.2 on, 4 before.
    pub fn body_len(version: TdsVersion) -> usize {
        if version.is_7_2_or_later() { 12 } else { 8 }
    }

    /// Reads what follows the token's byte.
    pub fn read(kind: DoneKind, body: &mut Reader<'_>, version: TdsVersion) -> Result<Self, Malformed> {
        Ok(Self {
            kind,
            status: DoneStatus(body.u16()?),
            current_command: body.u16()?,
            rows: if version.is_7_2_or_later() { body.u64()? } else { u64::from(body.u32()?) },
        })
    }

    /// Writes the token, its byte included. Before TDS 7.2 a row count above 2^32 - 1 is written as that.
    pub fn write(self, out: &mut impl BufMut, version: TdsVersion) {
        out.put_u8(self.kind.token());
        out.put_u16_le(self.status.0);
        out.put_u16_le(self.current_command);
        if version.is_7_2_or_later() {
            out.put_u64_le(self.rows);
        } else {
            out.put_u32_le(u32::try_from(self.rows).unwrap_or(u32::MAX));
        }
    }

    /// True if nothing of the response follows.
    pub fn is_final(self) -> bool {
        !self.status.contains(DoneStatus::MORE)
    }

    /// True for the acknowledgement of an attention.
    pub fn acknowledges_attention(self) -> bool {
        self.status.contains(DoneStatus::ATTENTION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_count_has_eight_bytes_from_tds_7_2_on_and_four_before() {
        let done = Done {
            kind: DoneKind::DoneInProc,
            status: DoneStatus::MORE.with(DoneStatus::COUNT),
            current_command: 0xC1,
            rows: 5,
        };
        let mut new = vec![];
        done.write(&mut new, TdsVersion::V7_2);
        assert_eq!(new, [0xFF, 0x11, 0, 0xC1, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        let mut old = vec![];
        done.write(&mut old, TdsVersion::V7_1_SP1);
        assert_eq!(old, [0xFF, 0x11, 0, 0xC1, 0, 5, 0, 0, 0]);
        for (bytes, version) in [(new, TdsVersion::V7_2), (old, TdsVersion::V7_1_SP1)] {
            assert_eq!(bytes.len(), 1 + Done::body_len(version));
            let kind = DoneKind::from_token(bytes[0]).unwrap();
            let mut reader = Reader::new(&bytes[1..], "DONE");
            assert_eq!(Done::read(kind, &mut reader, version), Ok(done));
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn only_the_more_bit_says_that_more_follows() {
        let done =
            |status| Done { kind: DoneKind::Done, status: DoneStatus(status), current_command: 0, rows: 0 };
        assert!(done(0x112).is_final() && !done(0x113).is_final());
        assert!(done(0x20).acknowledges_attention());
    }
}
