//! What the imitated products say about themselves and which TDS versions they speak.

use tds::TdsVersion;

use crate::options::ServerKind;

impl ServerKind {
    /// Major, minor, build (two bytes, big endian), as LOGINACK writes it; PRELOGIN puts two zero bytes behind it.
    pub(crate) fn version(self) -> [u8; 4] {
        match self {
            Self::SqlServer2022 => [16, 0, 0x10, 0x77],
            Self::SqlServer2012 => [11, 0, 0x1B, 0x59],
            Self::SqlServer2008R2 => [10, 50, 0x17, 0x70],
            Self::SqlServer2000 => [8, 0, 0x07, 0xF7],
            Self::Babelfish => [12, 0, 0x07, 0xD0],
        }
    }

    /// The newest version inside the PRELOGIN flow.
    fn newest(self) -> TdsVersion {
        match self {
            Self::SqlServer2022 | Self::SqlServer2012 | Self::Babelfish => TdsVersion::V7_4,
            Self::SqlServer2008R2 => TdsVersion::V7_3B,
            Self::SqlServer2000 => TdsVersion::V7_1_SP1,
        }
    }

    /// The version for a client that asks for `asked`.
    pub(crate) fn negotiate(self, asked: TdsVersion) -> TdsVersion {
        if asked.generation() > self.newest().generation() { self.newest() } else { asked }
    }

    /// Features exist from TDS 7.4 on; the newer ones from SQL Server 2019 on.
    pub(crate) fn knows_new_features(self) -> bool {
        matches!(self, Self::SqlServer2022)
    }

    /// Babelfish never sends FEATUREEXTACK.
    pub(crate) fn acknowledges_features(self) -> bool {
        matches!(self, Self::SqlServer2022 | Self::SqlServer2012)
    }
}
