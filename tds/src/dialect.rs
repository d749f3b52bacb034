//! What a login fixed about the format of the tokens and requests that follow it.

use crate::TdsVersion;
use crate::feature::{Feature, FeatureId};

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

    /// The format after a login that was answered with this version and these features (FEATUREEXTACK).
    pub fn of_login(version: TdsVersion, acknowledged: &[Feature]) -> Self {
        let data = |id| acknowledged.iter().find(|feature| feature.id == id).map(|feature| &feature.data[..]);
        let column_encryption = match data(FeatureId::COLUMN_ENCRYPTION) {
            // An acknowledgement without its version is one all the same.
            Some(data) => data.first().copied().unwrap_or(1).max(1),
            None => 0,
        };
        let data_classification = match data(FeatureId::DATA_CLASSIFICATION) {
            // The version, then whether the server does it at all.
            Some([version, 1, ..]) => *version,
            _ => 0,
        };
        Self { version, column_encryption, data_classification }
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn the_acknowledged_features_decide() {
        let feature = |id, data: &'static [u8]| Feature { id, data: Bytes::from_static(data) };
        let acknowledged = [
            feature(FeatureId::COLUMN_ENCRYPTION, &[2, 0]),
            feature(FeatureId::DATA_CLASSIFICATION, &[2, 1]),
        ];
        let dialect = Dialect::of_login(TdsVersion::V7_4, &acknowledged);
        assert_eq!((dialect.column_encryption, dialect.data_classification), (2, 2));
        let declined = [feature(FeatureId::DATA_CLASSIFICATION, &[2, 0])];
        assert_eq!(Dialect::of_login(TdsVersion::V7_4, &declined), Dialect::of(TdsVersion::V7_4));
    }
}
