//! Which language's rules compare and encode a string ([MS-TDS] 2.2.5.1.2).

use bytes::BufMut;

use crate::read::Reader;
use crate::{Dialect, Malformed};

/// COLLATION: five bytes of LCID, flags, version and sort id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Collation(pub [u8; 5]);

impl Collation {
    /// All zero: no collation.
    pub const RAW: Self = Self([0; 5]);
    /// SQL_Latin1_General_CP1_CI_AS, the default of a US English server; code page 1252.
    pub const LATIN1: Self = Self([0x09, 0x04, 0xD0, 0x00, 0x34]);

    /// The Windows locale, 20 bits.
    pub fn lcid(self) -> u32 {
        self.bits() & 0xF_FFFF
    }

    /// True where `varchar` holds UTF-8.
    pub fn is_utf8(self) -> bool {
        self.bits() & (1 << 26) != 0
    }

    /// The SQL sort order, 0 for a Windows collation.
    pub fn sort_id(self) -> u8 {
        self.0[4]
    }

    fn bits(self) -> u32 {
        u32::from_le_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }

    pub(crate) fn read(reader: &mut Reader<'_>, dialect: Dialect) -> Result<Self, Malformed> {
        if dialect.has_collations() { Ok(Self(reader.array()?)) } else { Ok(Self::RAW) }
    }

    pub(crate) fn write(self, out: &mut impl BufMut, dialect: Dialect) {
        if dialect.has_collations() {
            out.put_slice(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_collation_are_found_by_their_bits() {
        assert_eq!(Collation::LATIN1.lcid(), 0x409);
        assert_eq!(Collation::LATIN1.sort_id(), 52);
        assert!(!Collation::LATIN1.is_utf8());
        // Latin1_General_100_CI_AS_SC_UTF8: LCID 0409, flags D0 with the UTF-8 bit, version 2.
        assert!(Collation([0x09, 0x04, 0xD0, 0x24, 0x00]).is_utf8());
    }
}
