//! What a cell or parameter holds, apart from how its type writes it ([MS-TDS] 2.2.5.5).

mod code_page;
pub mod plp;
mod read;
mod variant;
mod write;

pub use read::skip;
pub(crate) use read::skip_text_pointer;
pub use variant::Variant;
pub use write::Unfit;

/// A value of any data type.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Value {
    /// NULL.
    #[default]
    Null,
    /// `bit`.
    Bit(bool),
    /// `tinyint`.
    TinyInt(u8),
    /// `smallint`.
    SmallInt(i16),
    /// `int`.
    Int(i32),
    /// `bigint`.
    BigInt(i64),
    /// `real`.
    Real(f32),
    /// `float`.
    Float(f64),
    /// `decimal` and `numeric`.
    Decimal(Decimal),
    /// `money`, in ten-thousandths.
    Money(i64),
    /// `smallmoney`, in ten-thousandths.
    SmallMoney(i32),
    /// `smalldatetime`.
    SmallDateTime {
        /// Days since 1 January 1900.
        days: u16,
        /// Minutes since midnight.
        minutes: u16,
    },
    /// `datetime`.
    DateTime {
        /// Days since 1 January 1900.
        days: i32,
        /// Three-hundredths of a second since midnight.
        ticks: u32,
    },
    /// `date`: days since 1 January of the year 1.
    Date(u32),
    /// `time`: units of 100 ns since midnight, whatever the type's scale.
    Time(u64),
    /// `datetime2`.
    DateTime2 {
        /// Days since 1 January of the year 1.
        days: u32,
        /// Units of 100 ns since midnight.
        ticks: u64,
    },
    /// `datetimeoffset`; date and time are UTC.
    DateTimeOffset {
        /// Days since 1 January of the year 1.
        days: u32,
        /// Units of 100 ns since midnight.
        ticks: u64,
        /// Minutes that local time is ahead of UTC.
        offset: i16,
    },
    /// Any character type, and `json`.
    String(String),
    /// `binary`, `varbinary`, `image`, instances of CLR types, binary XML.
    Bytes(Vec<u8>),
    /// `uniqueidentifier`, in the order of the wire.
    Guid([u8; 16]),
    /// `xml` as text.
    Xml(String),
    /// `vector` of 4-byte floats.
    Vector(Vec<f32>),
    /// `sql_variant`.
    Variant(Box<Variant>),
    /// The rows of a table-valued parameter, without its default columns.
    Table(Vec<Vec<Value>>),
}

/// A fixed-point number: magnitude × 10^-scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Decimal {
    /// Below zero.
    pub negative: bool,
    /// All digits, without the point.
    pub magnitude: u128,
    /// How many of them stand after the point.
    pub scale: u8,
}

impl Decimal {
    /// The same number with another scale; digits that no longer fit after the point are rounded half away from
    /// zero. None when the magnitude would overflow.
    pub fn rescale(self, scale: u8) -> Option<Self> {
        let magnitude = if scale >= self.scale {
            self.magnitude.checked_mul(10u128.checked_pow(u32::from(scale - self.scale))?)?
        } else {
            match 10u128.checked_pow(u32::from(self.scale - scale)) {
                Some(divisor) => {
                    let rest = self.magnitude % divisor;
                    self.magnitude / divisor + u128::from(rest >= divisor - rest)
                }
                None => 0,
            }
        };
        Some(Self { magnitude, scale, ..self })
    }
}

impl Value {
    /// The variant's name, for errors.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bit(_) => "bit",
            Self::TinyInt(_) => "tinyint",
            Self::SmallInt(_) => "smallint",
            Self::Int(_) => "int",
            Self::BigInt(_) => "bigint",
            Self::Real(_) => "real",
            Self::Float(_) => "float",
            Self::Decimal(_) => "decimal",
            Self::Money(_) => "money",
            Self::SmallMoney(_) => "smallmoney",
            Self::SmallDateTime { .. } => "smalldatetime",
            Self::DateTime { .. } => "datetime",
            Self::Date(_) => "date",
            Self::Time(_) => "time",
            Self::DateTime2 { .. } => "datetime2",
            Self::DateTimeOffset { .. } => "datetimeoffset",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Guid(_) => "uniqueidentifier",
            Self::Xml(_) => "xml",
            Self::Vector(_) => "vector",
            Self::Variant(_) => "sql_variant",
            Self::Table(_) => "table",
        }
    }

    /// True for NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The number, if it is an integer of any width.
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
            Self::Bit(bit) => Some(i64::from(bit)),
            Self::TinyInt(n) => Some(i64::from(n)),
            Self::SmallInt(n) => Some(i64::from(n)),
            Self::Int(n) => Some(i64::from(n)),
            Self::BigInt(n) => Some(n),
            _ => None,
        }
    }

    /// The text, if it is text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) | Self::Xml(text) => Some(text),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rescaling_rounds_half_away_from_zero_and_notices_overflow() {
        let n = |magnitude, scale| Decimal { negative: true, magnitude, scale };
        assert_eq!(n(12345, 3).rescale(2), Some(n(1235, 2)));
        assert_eq!(n(12344, 3).rescale(2), Some(n(1234, 2)));
        assert_eq!(n(5, 0).rescale(3), Some(n(5000, 3)));
        assert_eq!(n(u128::MAX, 0).rescale(1), None);
        assert_eq!(n(7, 255).rescale(0), Some(n(0, 0)));
    }
}
