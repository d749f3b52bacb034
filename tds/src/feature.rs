//! What a client offers beyond the protocol's core and what the server takes up: FeatureExt in LOGIN7
//! ([MS-TDS] 2.2.6.4) and FEATUREEXTACK ([MS-TDS] 2.2.7.11), which have the same form.

use bytes::{BufMut, Bytes};

use crate::Malformed;
use crate::read::Reader;

/// The byte of a FEATUREEXTACK token.
pub const FEATURE_EXT_ACK_TOKEN: u8 = 0xAE;

/// More features than any client sends; the list's end is not announced, so it needs a bound.
const MAX_FEATURES: usize = 64;

const TERMINATOR: u8 = 0xFF;

/// A feature's number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FeatureId(pub u8);

impl FeatureId {
    /// The session can be rebuilt on another connection; the server reports its state.
    pub const SESSION_RECOVERY: Self = Self(0x01);
    /// Login with a token of an identity provider.
    pub const FED_AUTH: Self = Self(0x02);
    /// Always Encrypted.
    pub const COLUMN_ENCRYPTION: Self = Self(0x04);
    /// Distributed transactions without a coordinator of the client's (Azure).
    pub const GLOBAL_TRANSACTIONS: Self = Self(0x05);
    /// Read-only logins at a failover partner (Azure).
    pub const AZURE_SQL_SUPPORT: Self = Self(0x08);
    /// Sensitivity labels with the results.
    pub const DATA_CLASSIFICATION: Self = Self(0x09);
    /// Text in UTF-8 collations.
    pub const UTF8_SUPPORT: Self = Self(0x0A);
    /// The client may remember the server's address (Azure).
    pub const AZURE_SQL_DNS_CACHING: Self = Self(0x0B);
    /// The json type.
    pub const JSON_SUPPORT: Self = Self(0x0D);
    /// The vector type.
    pub const VECTOR_SUPPORT: Self = Self(0x0E);
    /// Routing to another database (Azure).
    pub const ENHANCED_ROUTING: Self = Self(0x0F);
    /// What driver on what system; not in [MS-TDS], sent by Microsoft's drivers.
    pub const USER_AGENT: Self = Self(0x10);

    /// The specification's name, for logs; `None` for numbers that it does not know.
    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::SESSION_RECOVERY => "SESSIONRECOVERY",
            Self::FED_AUTH => "FEDAUTH",
            Self::COLUMN_ENCRYPTION => "COLUMNENCRYPTION",
            Self::GLOBAL_TRANSACTIONS => "GLOBALTRANSACTIONS",
            Self::AZURE_SQL_SUPPORT => "AZURESQLSUPPORT",
            Self::DATA_CLASSIFICATION => "DATACLASSIFICATION",
            Self::UTF8_SUPPORT => "UTF8_SUPPORT",
            Self::AZURE_SQL_DNS_CACHING => "AZURESQLDNSCACHING",
            Self::JSON_SUPPORT => "JSONSUPPORT",
            Self::VECTOR_SUPPORT => "VECTORSUPPORT",
            Self::ENHANCED_ROUTING => "ENHANCEDROUTINGSUPPORT",
            Self::USER_AGENT => "USERAGENT",
            _ => return None,
        })
    }
}

impl std::fmt::Debug for FeatureId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({:#04x})", self.name().unwrap_or("unknown"), self.0)
    }
}

/// A feature that is offered or acknowledged. Its data may hold an access token: `Debug` shows only its length.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Feature {
    /// Which one.
    pub id: FeatureId,
    /// What it says; each feature has its own format.
    pub data: Bytes,
}

impl std::fmt::Debug for Feature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: {} bytes", self.id, self.data.len())
    }
}

/// Reads features up to their terminator: FeatureExt, or what follows the byte of a FEATUREEXTACK token.
pub fn read_features(body: &mut Reader<'_>) -> Result<Vec<Feature>, Malformed> {
    let mut features = Vec::new();
    loop {
        let id = body.u8()?;
        if id == TERMINATOR {
            return Ok(features);
        }
        if features.len() == MAX_FEATURES {
            return Err(Malformed::TooLong { what: "feature list", limit: MAX_FEATURES });
        }
        features.push(Feature { id: FeatureId(id), data: Bytes::copy_from_slice(body.l_varbyte()?) });
    }
}

/// Writes features and their terminator, without a token's byte.
pub fn write_features(out: &mut impl BufMut, features: &[Feature]) {
    for feature in features {
        out.put_u8(feature.id.0);
        out.put_u32_le(u32::try_from(feature.data.len()).unwrap_or(u32::MAX));
        out.put_slice(&feature.data);
    }
    out.put_u8(TERMINATOR);
}

/// Writes a FEATUREEXTACK token, its byte included.
pub fn write_feature_ext_ack(out: &mut impl BufMut, features: &[Feature]) {
    out.put_u8(FEATURE_EXT_ACK_TOKEN);
    write_features(out, features);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_survive_a_round_trip_in_their_order() {
        let features = vec![
            Feature { id: FeatureId::UTF8_SUPPORT, data: Bytes::from_static(&[1]) },
            Feature { id: FeatureId::SESSION_RECOVERY, data: Bytes::new() },
            Feature { id: FeatureId(0x7E), data: Bytes::from_static(b"not known yet") },
        ];
        let mut out = vec![];
        write_feature_ext_ack(&mut out, &features);
        assert_eq!(out[..8], [0xAE, 0x0A, 1, 0, 0, 0, 1, 0x01]);
        let mut reader = Reader::new(&out[1..], "FEATUREEXTACK");
        assert_eq!(read_features(&mut reader), Ok(features));
        assert!(reader.is_empty());
    }

    #[test]
    fn a_list_without_its_end_is_refused() {
        let mut reader = Reader::new(&[0x0A, 1, 0, 0, 0, 1], "FeatureExt");
        assert_eq!(read_features(&mut reader), Err(Malformed::Truncated { what: "FeatureExt", missing: 1 }));
        let endless = [0u8; 5 * (MAX_FEATURES + 1)];
        let refused = read_features(&mut Reader::new(&endless, "FeatureExt"));
        assert!(matches!(refused, Err(Malformed::TooLong { .. })));
    }

    #[test]
    fn debug_does_not_show_a_features_data() {
        let feature = Feature { id: FeatureId::FED_AUTH, data: Bytes::from_static(b"secret token") };
        assert_eq!(format!("{feature:?}"), "FEDAUTH (0x02): 12 bytes");
    }
}
