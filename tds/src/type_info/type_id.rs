//! The byte that names a data type ([MS-TDS] 2.2.5.4).

/// A type's byte on the wire. Unknown bytes are representable: who meets one cannot skip the value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeId(pub u8);

macro_rules! type_ids {
    ($($(#[$doc:meta])* $name:ident = $byte:literal, $text:literal;)*) => {
        impl TypeId {
            $($(#[$doc])* pub const $name: Self = Self($byte);)*

            /// The specification's name, or none for a byte that it does not list.
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($byte => Some($text),)*
                    _ => None,
                }
            }

            /// Every type that the specification lists.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];
        }
    };
}

type_ids! {
    /// No value at all.
    NULL = 0x1F, "NULLTYPE";
    /// `image`.
    IMAGE = 0x22, "IMAGETYPE";
    /// `text`.
    TEXT = 0x23, "TEXTTYPE";
    /// `uniqueidentifier`.
    GUID = 0x24, "GUIDTYPE";
    /// Legacy `varbinary` with a length byte.
    VARBINARY = 0x25, "VARBINARYTYPE";
    /// Integers, nullable.
    INT_N = 0x26, "INTNTYPE";
    /// Legacy `varchar` with a length byte.
    VARCHAR = 0x27, "VARCHARTYPE";
    /// `date`.
    DATE_N = 0x28, "DATENTYPE";
    /// `time(n)`.
    TIME_N = 0x29, "TIMENTYPE";
    /// `datetime2(n)`.
    DATETIME2_N = 0x2A, "DATETIME2NTYPE";
    /// `datetimeoffset(n)`.
    DATETIMEOFFSET_N = 0x2B, "DATETIMEOFFSETNTYPE";
    /// Legacy `binary` with a length byte.
    BINARY = 0x2D, "BINARYTYPE";
    /// Legacy `char` with a length byte.
    CHAR = 0x2F, "CHARTYPE";
    /// `tinyint not null`.
    INT1 = 0x30, "INT1TYPE";
    /// `bit not null`.
    BIT = 0x32, "BITTYPE";
    /// `smallint not null`.
    INT2 = 0x34, "INT2TYPE";
    /// Legacy `decimal`.
    DECIMAL = 0x37, "DECIMALTYPE";
    /// `int not null`.
    INT4 = 0x38, "INT4TYPE";
    /// `smalldatetime not null`.
    DATETIM4 = 0x3A, "DATETIM4TYPE";
    /// `real not null`.
    FLT4 = 0x3B, "FLT4TYPE";
    /// `money not null`.
    MONEY = 0x3C, "MONEYTYPE";
    /// `datetime not null`.
    DATETIME = 0x3D, "DATETIMETYPE";
    /// `float not null`.
    FLT8 = 0x3E, "FLT8TYPE";
    /// Legacy `numeric`.
    NUMERIC = 0x3F, "NUMERICTYPE";
    /// `sql_variant`.
    VARIANT = 0x62, "SSVARIANTTYPE";
    /// `ntext`.
    NTEXT = 0x63, "NTEXTTYPE";
    /// `bit`, nullable.
    BIT_N = 0x68, "BITNTYPE";
    /// `decimal`.
    DECIMAL_N = 0x6A, "DECIMALNTYPE";
    /// `numeric`.
    NUMERIC_N = 0x6C, "NUMERICNTYPE";
    /// `real` and `float`, nullable.
    FLT_N = 0x6D, "FLTNTYPE";
    /// `money` and `smallmoney`, nullable.
    MONEY_N = 0x6E, "MONEYNTYPE";
    /// `datetime` and `smalldatetime`, nullable.
    DATETIM_N = 0x6F, "DATETIMNTYPE";
    /// `smallmoney not null`.
    MONEY4 = 0x7A, "MONEY4TYPE";
    /// `bigint not null`.
    INT8 = 0x7F, "INT8TYPE";
    /// `varbinary`.
    BIG_VARBINARY = 0xA5, "BIGVARBINARYTYPE";
    /// `varchar`.
    BIG_VARCHAR = 0xA7, "BIGVARCHARTYPE";
    /// `binary`.
    BIG_BINARY = 0xAD, "BIGBINARYTYPE";
    /// `char`.
    BIG_CHAR = 0xAF, "BIGCHARTYPE";
    /// `nvarchar`.
    NVARCHAR = 0xE7, "NVARCHARTYPE";
    /// `nchar`.
    NCHAR = 0xEF, "NCHARTYPE";
    /// A CLR type.
    UDT = 0xF0, "UDTTYPE";
    /// `xml`.
    XML = 0xF1, "XMLTYPE";
    /// A table-valued parameter.
    TVP = 0xF3, "TVPTYPE";
    /// `json`.
    JSON = 0xF4, "JSONTYPE";
    /// `vector`.
    VECTOR = 0xF5, "VECTORTYPE";
}

impl TypeId {
    /// The length in bytes of a fixed-length type ([MS-TDS] 2.2.5.4.2), 0 for NULLTYPE.
    pub fn fixed_len(self) -> Option<u8> {
        Some(match self {
            Self::NULL => 0,
            Self::INT1 | Self::BIT => 1,
            Self::INT2 => 2,
            Self::INT4 | Self::DATETIM4 | Self::FLT4 | Self::MONEY4 => 4,
            Self::MONEY | Self::DATETIME | Self::FLT8 | Self::INT8 => 8,
            _ => return None,
        })
    }
}

impl std::fmt::Debug for TypeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "0x{:02X}", self.0),
        }
    }
}
