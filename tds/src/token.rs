//! The first byte of every token in a response or bulk load ([MS-TDS] 2.2.5.8).

/// A token's type byte. Unknown bytes are representable: who meets one has to stop reading.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenKind(pub u8);

impl TokenKind {
    /// The row of a table-valued parameter ([MS-TDS] 2.2.7.24).
    pub const TVP_ROW: Self = Self(0x01);
    /// Where a keyword stands in the request's text; until TDS 7.1 ([MS-TDS] 2.2.7.16).
    pub const OFFSET: Self = Self(0x78);
    /// What a procedure returned ([MS-TDS] 2.2.7.18).
    pub const RETURN_STATUS: Self = Self(0x79);
    /// The columns of the rows that follow ([MS-TDS] 2.2.7.4).
    pub const COL_METADATA: Self = Self(0x81);
    /// The columns of COMPUTE rows ([MS-TDS] 2.2.7.1).
    pub const ALT_METADATA: Self = Self(0x88);
    /// Sensitivity labels of the columns ([MS-TDS] 2.2.7.5).
    pub const DATA_CLASSIFICATION: Self = Self(0xA3);
    /// Base tables in browse mode ([MS-TDS] 2.2.7.23).
    pub const TAB_NAME: Self = Self(0xA4);
    /// Base columns in browse mode ([MS-TDS] 2.2.7.3).
    pub const COL_INFO: Self = Self(0xA5);
    /// Which columns the rows are ordered by ([MS-TDS] 2.2.7.17).
    pub const ORDER: Self = Self(0xA9);
    /// An error ([MS-TDS] 2.2.7.10).
    pub const ERROR: Self = Self(0xAA);
    /// A message that is not an error ([MS-TDS] 2.2.7.13).
    pub const INFO: Self = Self(0xAB);
    /// An output parameter ([MS-TDS] 2.2.7.19).
    pub const RETURN_VALUE: Self = Self(0xAC);
    /// The login succeeded ([MS-TDS] 2.2.7.14).
    pub const LOGIN_ACK: Self = Self(0xAD);
    /// Which features the server agreed to ([MS-TDS] 2.2.7.11).
    pub const FEATURE_EXT_ACK: Self = Self(0xAE);
    /// A row ([MS-TDS] 2.2.7.20).
    pub const ROW: Self = Self(0xD1);
    /// A row that leaves out its nulls ([MS-TDS] 2.2.7.15).
    pub const NBC_ROW: Self = Self(0xD2);
    /// A COMPUTE row ([MS-TDS] 2.2.7.2).
    pub const ALT_ROW: Self = Self(0xD3);
    /// Something about the session changed ([MS-TDS] 2.2.7.9).
    pub const ENV_CHANGE: Self = Self(0xE3);
    /// What a broken session would need to be recovered ([MS-TDS] 2.2.7.21).
    pub const SESSION_STATE: Self = Self(0xE4);
    /// The server's next step of an integrated login ([MS-TDS] 2.2.7.22).
    pub const SSPI: Self = Self(0xED);
    /// Where to fetch a federated token ([MS-TDS] 2.2.7.12).
    pub const FED_AUTH_INFO: Self = Self(0xEE);
    /// A statement ended ([MS-TDS] 2.2.7.6).
    pub const DONE: Self = Self(0xFD);
    /// A procedure ended ([MS-TDS] 2.2.7.8).
    pub const DONE_PROC: Self = Self(0xFE);
    /// A statement inside a procedure ended ([MS-TDS] 2.2.7.7).
    pub const DONE_IN_PROC: Self = Self(0xFF);

    /// The specification's name, or none for a byte that it does not list.
    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::TVP_ROW => "TVP_ROW",
            Self::OFFSET => "OFFSET",
            Self::RETURN_STATUS => "RETURNSTATUS",
            Self::COL_METADATA => "COLMETADATA",
            Self::ALT_METADATA => "ALTMETADATA",
            Self::DATA_CLASSIFICATION => "DATACLASSIFICATION",
            Self::TAB_NAME => "TABNAME",
            Self::COL_INFO => "COLINFO",
            Self::ORDER => "ORDER",
            Self::ERROR => "ERROR",
            Self::INFO => "INFO",
            Self::RETURN_VALUE => "RETURNVALUE",
            Self::LOGIN_ACK => "LOGINACK",
            Self::FEATURE_EXT_ACK => "FEATUREEXTACK",
            Self::ROW => "ROW",
            Self::NBC_ROW => "NBCROW",
            Self::ALT_ROW => "ALTROW",
            Self::ENV_CHANGE => "ENVCHANGE",
            Self::SESSION_STATE => "SESSIONSTATE",
            Self::SSPI => "SSPI",
            Self::FED_AUTH_INFO => "FEDAUTHINFO",
            Self::DONE => "DONE",
            Self::DONE_PROC => "DONEPROC",
            Self::DONE_IN_PROC => "DONEINPROC",
            _ => return None,
        })
    }
}

impl std::fmt::Debug for TokenKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "0x{:02X}", self.0),
        }
    }
}
