//! What a login fixed about the format of the tokens and requests that follow it.

use crate::TdsVersion;

/// The TDS version and those acknowledged features that change how bytes are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dialect {
    /// The version that LOGINACK named.
    pub version: TdsVersion,
    /// The acknowledged version of COLUMNENCRYPTION, 0 without it. From 1 on, COLMETADATA carries a table of keys;
    /// from 2 on, requests carry an enclave package.
    pub column_encryption: u8,
    /// The acknowledged version of DATACLASSIFICATION, 0 without it. From 2 on, the token carries ranks.
    pub data_classification: u8,
}

impl Dialect {
    /// The format without any feature.
    pub fn of(version: TdsVersion) -> Self {
        Self { version, column_encryption: 0, data_classification: 0 }
    }

    /// True from TDS 7.2 on: see [`TdsVersion::is_7_2_or_later`].
    pub fn is_7_2_or_later(self) -> bool {
        self.version.is_7_2_or_later()
    }

    /// Collations exist from TDS 7.1 on ([MS-TDS] 2.2.5.1.2).
    pub fn has_collations(self) -> bool {
        self.version.generation() >= 1
    }
}

impl From<TdsVersion> for Dialect {
    fn from(version: TdsVersion) -> Self {
        Self::of(version)
    }
}
