//! Which version of TDS a connection speaks, and what that changes in the format.

/// A TDS version as LOGIN7 and LOGINACK write it ([MS-TDS] 2.2.6.4, 2.2.7.14).
///
/// The value is the number that reads naturally (`0x74000004` for 7.4). LOGIN7 carries it little endian,
/// LOGINACK big endian.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TdsVersion(pub u32);

impl TdsVersion {
    /// SQL Server 7.0.
    pub const V7_0: Self = Self(0x7000_0000);
    /// SQL Server 2000.
    pub const V7_1: Self = Self(0x7100_0000);
    /// SQL Server 2000 SP1.
    pub const V7_1_SP1: Self = Self(0x7100_0001);
    /// SQL Server 2005.
    pub const V7_2: Self = Self(0x7209_0002);
    /// SQL Server 2008.
    pub const V7_3A: Self = Self(0x730A_0003);
    /// SQL Server 2008 R2.
    pub const V7_3B: Self = Self(0x730B_0003);
    /// SQL Server 2012 and later.
    pub const V7_4: Self = Self(0x7400_0004);
    /// SQL Server 2022 and later: TLS before everything else.
    pub const V8_0: Self = Self(0x0800_0000);

    /// 0 for 7.0, 1 for 7.1 ... 4 for 7.4, 5 for 8.0: an order that the raw numbers do not have.
    pub fn generation(self) -> u8 {
        match self.0 >> 24 {
            0x70 => 0,
            0x71 => 1,
            0x72 => 2,
            0x73 => 3,
            0x74 => 4,
            0x08 => 5,
            _ => 4,
        }
    }

    /// ALL_HEADERS, 8-byte row counts, MARS, PLP types, 4-byte user types and transaction ENVCHANGEs exist from
    /// TDS 7.2 on.
    pub fn is_7_2_or_later(self) -> bool {
        self.generation() >= 2
    }
}

impl std::fmt::Debug for TdsVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl std::fmt::Display for TdsVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::V7_0 => f.write_str("7.0"),
            Self::V7_1 | Self::V7_1_SP1 => f.write_str("7.1"),
            Self::V7_2 => f.write_str("7.2"),
            Self::V7_3A | Self::V7_3B => f.write_str("7.3"),
            Self::V7_4 => f.write_str("7.4"),
            Self::V8_0 => f.write_str("8.0"),
            Self(raw) => write!(f, "0x{raw:08X}"),
        }
    }
}
