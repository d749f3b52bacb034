//! SQL Server's data types: names, storage inside SQLite, precedence, and the result types of operators.
//!
//! Inside SQLite a value carries no SQL Server type; the binder knows it statically. Storage:
//!
//! | types | SQLite |
//! |---|---|
//! | bit, tinyint … bigint | INTEGER |
//! | money, smallmoney | INTEGER, in 1/10000 |
//! | decimal, numeric | BLOB of 16 bytes: the mantissa at the type's scale, big endian, sign bit flipped (so it sorts) |
//! | real, float | REAL |
//! | date | INTEGER, days since 0001-01-01 |
//! | time, datetime2 | INTEGER, 100 ns since midnight or 0001-01-01 |
//! | datetime | INTEGER, 1/300 s since 1900-01-01 |
//! | smalldatetime | INTEGER, minutes since 1900-01-01 |
//! | datetimeoffset | BLOB of 10 bytes: UTC 100 ns big endian, offset minutes |
//! | char … ntext, xml | TEXT |
//! | binary … image, rowversion | BLOB |
//! | uniqueidentifier | BLOB of 16 bytes in SQL Server's sort order |
//! | sql_variant | BLOB: packed type, then the value's own storage |

use super::message_text::SqlError;

/// The families of types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Kind {
    // In order of precedence, lowest first.
    Null,
    Binary,
    VarBinary,
    RowVersion,
    Char,
    VarChar,
    NChar,
    NVarChar,
    Uuid,
    Image,
    Text,
    NText,
    Bit,
    TinyInt,
    SmallInt,
    Int,
    BigInt,
    SmallMoney,
    Money,
    Decimal,
    Numeric,
    Real,
    Float,
    Time,
    Date,
    SmallDateTime,
    DateTime,
    DateTime2,
    DateTimeOffset,
    Xml,
    Variant,
}

const KINDS: [Kind; 31] = [
    Kind::Null,
    Kind::Binary,
    Kind::VarBinary,
    Kind::RowVersion,
    Kind::Char,
    Kind::VarChar,
    Kind::NChar,
    Kind::NVarChar,
    Kind::Uuid,
    Kind::Image,
    Kind::Text,
    Kind::NText,
    Kind::Bit,
    Kind::TinyInt,
    Kind::SmallInt,
    Kind::Int,
    Kind::BigInt,
    Kind::SmallMoney,
    Kind::Money,
    Kind::Decimal,
    Kind::Numeric,
    Kind::Real,
    Kind::Float,
    Kind::Time,
    Kind::Date,
    Kind::SmallDateTime,
    Kind::DateTime,
    Kind::DateTime2,
    Kind::DateTimeOffset,
    Kind::Xml,
    Kind::Variant,
];

/// Length of a `(max)` type.
pub(super) const MAX: u16 = u16::MAX;

/// One data type with its length or precision and scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SqlType {
    pub(super) kind: Kind,
    /// Characters for n/char, bytes for binary, [`MAX`] for `(max)`; the precision of a decimal.
    pub(super) len: u16,
    /// The scale of a decimal or of a time.
    pub(super) scale: u8,
}

impl SqlType {
    pub(super) const INT: SqlType = SqlType::of(Kind::Int);
    pub(super) const BIGINT: SqlType = SqlType::of(Kind::BigInt);
    pub(super) const SMALLINT: SqlType = SqlType::of(Kind::SmallInt);
    pub(super) const TINYINT: SqlType = SqlType::of(Kind::TinyInt);
    pub(super) const BIT: SqlType = SqlType::of(Kind::Bit);
    pub(super) const FLOAT: SqlType = SqlType::of(Kind::Float);
    pub(super) const DATETIME: SqlType = SqlType::of(Kind::DateTime);
    pub(super) const NULL: SqlType = SqlType::of(Kind::Null);
    pub(super) const VARIANT: SqlType = SqlType::of(Kind::Variant);
    pub(super) const UUID: SqlType = SqlType::of(Kind::Uuid);
    pub(super) const SYSNAME: SqlType = SqlType::nvarchar(128);

    pub(super) const fn of(kind: Kind) -> SqlType {
        SqlType { kind, len: 0, scale: 0 }
    }
    pub(super) const fn varchar(len: u16) -> SqlType {
        SqlType { kind: Kind::VarChar, len, scale: 0 }
    }
    pub(super) const fn nvarchar(len: u16) -> SqlType {
        SqlType { kind: Kind::NVarChar, len, scale: 0 }
    }
    pub(super) const fn varbinary(len: u16) -> SqlType {
        SqlType { kind: Kind::VarBinary, len, scale: 0 }
    }
    pub(super) const fn numeric(precision: u16, scale: u8) -> SqlType {
        SqlType { kind: Kind::Numeric, len: precision, scale }
    }
    pub(super) const fn scaled(kind: Kind, scale: u8) -> SqlType {
        SqlType { kind, len: 0, scale }
    }

    /// One number that registered functions get instead of a type.
    pub(super) fn pack(self) -> i64 {
        (self.kind as i64) << 32 | i64::from(self.len) << 8 | i64::from(self.scale)
    }
    pub(super) fn unpack(code: i64) -> SqlType {
        let kind = KINDS.get((code >> 32) as usize & 0xff).copied().unwrap_or(Kind::Null);
        SqlType { kind, len: (code >> 8) as u16, scale: code as u8 }
    }

    pub(super) fn is_string(self) -> bool {
        use Kind::*;
        matches!(self.kind, Char | VarChar | NChar | NVarChar | Text | NText | Xml)
    }
    pub(super) fn is_unicode(self) -> bool {
        use Kind::*;
        matches!(self.kind, NChar | NVarChar | NText | Xml)
    }
    pub(super) fn is_binary(self) -> bool {
        use Kind::*;
        matches!(self.kind, Binary | VarBinary | Image | RowVersion)
    }
    pub(super) fn is_integer(self) -> bool {
        use Kind::*;
        matches!(self.kind, Bit | TinyInt | SmallInt | Int | BigInt)
    }
    pub(super) fn is_money(self) -> bool {
        matches!(self.kind, Kind::Money | Kind::SmallMoney)
    }
    pub(super) fn is_decimal(self) -> bool {
        matches!(self.kind, Kind::Decimal | Kind::Numeric)
    }
    pub(super) fn is_float(self) -> bool {
        matches!(self.kind, Kind::Float | Kind::Real)
    }
    pub(super) fn is_number(self) -> bool {
        self.is_integer() || self.is_money() || self.is_decimal() || self.is_float()
    }
    pub(super) fn is_temporal(self) -> bool {
        use Kind::*;
        matches!(self.kind, Time | Date | SmallDateTime | DateTime | DateTime2 | DateTimeOffset)
    }

    /// Precision and scale as a decimal would have them.
    pub(super) fn as_decimal(self) -> SqlType {
        use Kind::*;
        match self.kind {
            Decimal | Numeric => self,
            Bit => SqlType::numeric(1, 0),
            TinyInt => SqlType::numeric(3, 0),
            SmallInt => SqlType::numeric(5, 0),
            Int | Null => SqlType::numeric(10, 0),
            BigInt => SqlType::numeric(19, 0),
            SmallMoney => SqlType::numeric(10, 4),
            Money => SqlType::numeric(19, 4),
            _ => SqlType::numeric(18, 0),
        }
    }

    /// The type's name without length: `sys.types.name`.
    pub(super) fn base_name(self) -> &'static str {
        use Kind::*;
        match self.kind {
            Null => "int",
            Binary => "binary",
            VarBinary => "varbinary",
            RowVersion => "timestamp",
            Char => "char",
            VarChar => "varchar",
            NChar => "nchar",
            NVarChar => "nvarchar",
            Uuid => "uniqueidentifier",
            Image => "image",
            Text => "text",
            NText => "ntext",
            Bit => "bit",
            TinyInt => "tinyint",
            SmallInt => "smallint",
            Int => "int",
            BigInt => "bigint",
            SmallMoney => "smallmoney",
            Money => "money",
            Decimal => "decimal",
            Numeric => "numeric",
            Real => "real",
            Float => "float",
            Time => "time",
            Date => "date",
            SmallDateTime => "smalldatetime",
            DateTime => "datetime",
            DateTime2 => "datetime2",
            DateTimeOffset => "datetimeoffset",
            Xml => "xml",
            Variant => "sql_variant",
        }
    }

    /// The type as T-SQL writes it: `decimal(10,2)`, `nvarchar(max)`.
    pub(super) fn full_name(self) -> String {
        use Kind::*;
        match self.kind {
            Decimal | Numeric => format!("{}({},{})", self.base_name(), self.len, self.scale),
            Time | DateTime2 | DateTimeOffset => format!("{}({})", self.base_name(), self.scale),
            Binary | VarBinary | Char | VarChar | NChar | NVarChar if self.len == MAX => {
                format!("{}(max)", self.base_name())
            }
            Binary | VarBinary | Char | VarChar | NChar | NVarChar => {
                format!("{}({})", self.base_name(), self.len)
            }
            _ => self.base_name().to_string(),
        }
    }

    /// `system_type_id` of sys.types.
    pub(super) fn system_type_id(self) -> u8 {
        use Kind::*;
        match self.kind {
            Null | Int => 56,
            Binary => 173,
            VarBinary => 165,
            RowVersion => 189,
            Char => 175,
            VarChar => 167,
            NChar => 239,
            NVarChar => 231,
            Uuid => 36,
            Image => 34,
            Text => 35,
            NText => 99,
            Bit => 104,
            TinyInt => 48,
            SmallInt => 52,
            BigInt => 127,
            SmallMoney => 122,
            Money => 60,
            Decimal => 106,
            Numeric => 108,
            Real => 59,
            Float => 62,
            Time => 41,
            Date => 40,
            SmallDateTime => 58,
            DateTime => 61,
            DateTime2 => 42,
            DateTimeOffset => 43,
            Xml => 241,
            Variant => 98,
        }
    }

    /// `max_length` of sys.columns, in bytes; -1 for `(max)`.
    pub(super) fn max_length(self) -> i64 {
        use Kind::*;
        match self.kind {
            Bit | TinyInt => 1,
            SmallInt => 2,
            Int | Null | Real | SmallMoney | SmallDateTime => 4,
            BigInt | Money | Float | DateTime | RowVersion => 8,
            Date => 3,
            Decimal | Numeric => match self.len {
                0..=9 => 5,
                10..=19 => 9,
                20..=28 => 13,
                _ => 17,
            },
            Time => i64::from(time_bytes(self.scale)),
            DateTime2 => i64::from(time_bytes(self.scale)) + 3,
            DateTimeOffset => i64::from(time_bytes(self.scale)) + 5,
            Uuid | Image | Text | NText => 16,
            Variant => 8016,
            Xml => -1,
            Binary | VarBinary | Char | VarChar if self.len == MAX => -1,
            NChar | NVarChar if self.len == MAX => -1,
            Binary | VarBinary | Char | VarChar => i64::from(self.len),
            NChar | NVarChar => i64::from(self.len) * 2,
        }
    }

    /// `precision` and `scale` of sys.columns.
    pub(super) fn precision_scale(self) -> (u8, u8) {
        use Kind::*;
        match self.kind {
            Bit => (1, 0),
            TinyInt => (3, 0),
            SmallInt => (5, 0),
            Int | Null => (10, 0),
            BigInt => (19, 0),
            SmallMoney => (10, 4),
            Money => (19, 4),
            Real => (24, 0),
            Float => (53, 0),
            Decimal | Numeric => (self.len as u8, self.scale),
            Date => (10, 0),
            Time => (if self.scale == 0 { 8 } else { 9 + self.scale }, self.scale),
            SmallDateTime => (16, 0),
            DateTime => (23, 3),
            DateTime2 => (if self.scale == 0 { 19 } else { 20 + self.scale }, self.scale),
            DateTimeOffset => (if self.scale == 0 { 26 } else { 27 + self.scale }, self.scale),
            _ => (0, 0),
        }
    }

    /// How many characters the type's values have at most when they become a string.
    pub(super) fn display_len(self) -> u16 {
        use Kind::*;
        match self.kind {
            Bit => 1,
            TinyInt => 3,
            SmallInt => 6,
            Int | Null | SmallMoney => 12,
            BigInt => 20,
            Money => 21,
            Decimal | Numeric => 41,
            Real | Float => 23,
            Date => 10,
            Time => 16,
            SmallDateTime | DateTime => 23,
            DateTime2 => 27,
            DateTimeOffset => 34,
            Uuid => 36,
            Char | VarChar | NChar | NVarChar | Binary | VarBinary => self.len,
            RowVersion => 8,
            Text | NText | Image | Xml => MAX,
            Variant => 8000,
        }
    }
}

/// Bytes of a time with that many fractional digits.
pub(super) fn time_bytes(scale: u8) -> u8 {
    match scale {
        0..=2 => 3,
        3..=4 => 4,
        _ => 5,
    }
}

/// Parses a declared type: its name and the numbers (or `max`) in its parentheses.
pub(super) fn parse_type(name: &str, args: &[&str]) -> Result<SqlType, SqlError> {
    use Kind::*;
    let lower = name.trim().trim_matches(|c| c == '[' || c == ']').to_ascii_lowercase();
    let lower = lower.strip_prefix("sys.").unwrap_or(&lower).to_string();
    let number = |at: usize| args.get(at).and_then(|a| a.trim().parse::<u16>().ok());
    let is_max = args.first().is_some_and(|a| a.trim().eq_ignore_ascii_case("max"));
    let sized = |kind: Kind, limit: u16, default: u16| -> Result<SqlType, SqlError> {
        if is_max {
            return Ok(SqlType { kind, len: MAX, scale: 0 });
        }
        let len = number(0).unwrap_or(default);
        if len == 0 || len > limit {
            return Err(SqlError::new(
                131,
                15,
                3,
                format!(
                    "The size ({len}) given to the type '{lower}' exceeds the maximum allowed for any data type ({limit})."
                ),
            ));
        }
        Ok(SqlType { kind, len, scale: 0 })
    };
    let fraction = |kind: Kind| SqlType::scaled(kind, number(0).map_or(7, |n| n.min(7) as u8));
    Ok(match lower.as_str() {
        "bit" => SqlType::BIT,
        "tinyint" => SqlType::TINYINT,
        "smallint" => SqlType::SMALLINT,
        "int" | "integer" => SqlType::INT,
        "bigint" => SqlType::BIGINT,
        "decimal" | "dec" | "numeric" => {
            let precision = number(0).unwrap_or(18);
            let scale = number(1).unwrap_or(0);
            if precision == 0 || precision > 38 || scale > precision {
                return Err(SqlError::new(
                    1007,
                    15,
                    1,
                    format!(
                        "The number '{precision}' is out of the range for numeric representation (maximum precision 38)."
                    ),
                ));
            }
            let kind = if lower == "numeric" { Numeric } else { Decimal };
            SqlType { kind, len: precision, scale: scale as u8 }
        }
        "money" => SqlType::of(Money),
        "smallmoney" => SqlType::of(SmallMoney),
        "float" | "double precision" | "double" => match number(0) {
            Some(n) if n <= 24 => SqlType::of(Real),
            _ => SqlType::FLOAT,
        },
        "real" => SqlType::of(Real),
        "date" => SqlType::of(Date),
        "time" => fraction(Time),
        "datetime" => SqlType::DATETIME,
        "smalldatetime" => SqlType::of(SmallDateTime),
        "datetime2" => fraction(DateTime2),
        "datetimeoffset" => fraction(DateTimeOffset),
        "char" | "character" => sized(Char, 8000, 1)?,
        "varchar" | "char varying" | "character varying" => sized(VarChar, 8000, 1)?,
        "text" => SqlType::of(Text),
        "nchar" | "national character" => sized(NChar, 4000, 1)?,
        "nvarchar" | "national character varying" => sized(NVarChar, 4000, 1)?,
        "sysname" => SqlType::SYSNAME,
        "ntext" => SqlType::of(NText),
        "binary" => sized(Binary, 8000, 1)?,
        "varbinary" => sized(VarBinary, 8000, 1)?,
        "image" => SqlType::of(Image),
        "uniqueidentifier" => SqlType::UUID,
        "xml" => SqlType::of(Xml),
        "sql_variant" => SqlType::VARIANT,
        "rowversion" | "timestamp" => SqlType::of(RowVersion),
        _ => {
            return Err(SqlError::new(
                2715,
                16,
                6,
                format!("Column, parameter, or variable #1: Cannot find data type {}.", name.trim()),
            ));
        }
    })
}

/// The type two operands meet in (CASE, UNION, comparison, COALESCE).
pub(super) fn common(a: SqlType, b: SqlType) -> SqlType {
    if a.kind == Kind::Null {
        return b;
    }
    if b.kind == Kind::Null || a == b {
        return a;
    }
    let (high, low) = if a.kind >= b.kind { (a, b) } else { (b, a) };
    if high.is_decimal() && (low.is_decimal() || low.is_integer() || low.is_money()) {
        let (x, y) = (high.as_decimal(), low.as_decimal());
        let scale = x.scale.max(y.scale);
        let whole = (x.len - u16::from(x.scale)).max(y.len - u16::from(y.scale));
        let precision = (whole + u16::from(scale)).min(38);
        return SqlType { kind: high.kind, len: precision, scale: scale.min((38 - whole.min(38)) as u8) };
    }
    if (high.is_string() && low.is_string()) || (high.is_binary() && low.is_binary()) {
        let fixed = matches!(high.kind, Kind::Char | Kind::NChar | Kind::Binary)
            && matches!(low.kind, Kind::Char | Kind::NChar | Kind::Binary);
        let kind = match high.kind {
            Kind::NChar if !fixed => Kind::NVarChar,
            Kind::Char if !fixed => Kind::VarChar,
            other => other,
        };
        return SqlType { kind, len: high.len.max(low.len), scale: 0 };
    }
    if high.is_temporal() && low.is_temporal() {
        return SqlType { scale: high.scale.max(low.scale), ..high };
    }
    high
}

/// The result type of `+ - * / %` on two decimals.
pub(super) fn decimal_result(op: char, a: SqlType, b: SqlType) -> SqlType {
    let (a, b) = (a.as_decimal(), b.as_decimal());
    let (p1, s1, p2, s2) = (i32::from(a.len), i32::from(a.scale), i32::from(b.len), i32::from(b.scale));
    let (mut precision, mut scale) = match op {
        '*' => (p1 + p2 + 1, s1 + s2),
        '/' => {
            let scale = (s1 + p2 + 1).max(6);
            (p1 - s1 + s2 + scale, scale)
        }
        '%' => ((p1 - s1).min(p2 - s2) + s1.max(s2), s1.max(s2)),
        _ => (s1.max(s2) + (p1 - s1).max(p2 - s2) + 1, s1.max(s2)),
    };
    if precision > 38 {
        if op == '*' || op == '/' {
            let whole = precision - scale;
            scale = if whole < 32 { scale.min(38 - whole) } else { scale.min(6) };
        } else {
            let whole = (p1 - s1).max(p2 - s2);
            scale = scale.min(38 - whole.min(38));
        }
        precision = 38;
    }
    SqlType::numeric(precision as u16, scale.max(0) as u8)
}
