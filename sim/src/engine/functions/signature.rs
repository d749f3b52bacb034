//! Which scalar functions there are, how many arguments they take, of what types, and what type they return.

use crate::engine::message_text::{SqlError, unsupported};
use crate::engine::types::{Kind, MAX, SqlType};

/// The result type and, per argument, the type it is brought to first (`None`: as it is).
pub(in super::super) struct Signature {
    pub(in super::super) result: SqlType,
    pub(in super::super) args: Vec<Option<SqlType>>,
    /// Gives another value each time.
    pub(in super::super) volatile: bool,
    /// Whether NULL in any argument makes the result NULL.
    pub(in super::super) strict: bool,
}

fn count(name: &str, args: &[SqlType], low: usize, high: usize) -> Result<(), SqlError> {
    if (low..=high).contains(&args.len()) {
        return Ok(());
    }
    Err(if low == high {
        SqlError::new(
            174,
            15,
            1,
            format!("The {} function requires {low} argument(s).", name.to_ascii_lowercase()),
        )
    } else {
        SqlError::new(
            189,
            15,
            1,
            format!("The {} function requires {low} to {high} arguments.", name.to_ascii_lowercase()),
        )
    })
}

/// A type as the string type that it becomes.
pub(in super::super) fn as_string(ty: SqlType) -> SqlType {
    match ty.kind {
        Kind::Char | Kind::VarChar | Kind::NChar | Kind::NVarChar => ty,
        Kind::Text => SqlType::varchar(MAX),
        Kind::NText | Kind::Xml => SqlType::nvarchar(MAX),
        Kind::Null => SqlType::varchar(1),
        _ => SqlType::varchar(ty.display_len()),
    }
}

fn varying(ty: SqlType) -> SqlType {
    let ty = as_string(ty);
    SqlType { kind: if ty.is_unicode() { Kind::NVarChar } else { Kind::VarChar }, ..ty }
}

fn widest(unicode: bool, max: bool) -> SqlType {
    match (unicode, max) {
        (true, true) => SqlType::nvarchar(MAX),
        (true, false) => SqlType::nvarchar(4000),
        (false, true) => SqlType::varchar(MAX),
        (false, false) => SqlType::varchar(8000),
    }
}

fn numeric(ty: SqlType) -> SqlType {
    match ty.kind {
        _ if ty.is_money() || ty.is_decimal() => ty,
        Kind::Bit | Kind::TinyInt | Kind::SmallInt | Kind::Null => SqlType::INT,
        Kind::Int | Kind::BigInt => ty,
        _ => SqlType::FLOAT,
    }
}

fn dated(ty: SqlType) -> SqlType {
    if ty.is_temporal() { ty } else { SqlType::DATETIME }
}

/// A function's signature for arguments of these types; `None` if there is no such function.
pub(in super::super) fn find(name: &str, args: &[SqlType]) -> Result<Option<Signature>, SqlError> {
    let at = |n: usize| args.get(n).copied().unwrap_or(SqlType::NULL);
    let int = Some(SqlType::INT);
    let first = at(0);
    let mut volatile = false;
    let mut strict = true;
    let any_unicode = args.iter().any(|a| a.is_unicode());
    let any_max = args.iter().any(|a| as_string(*a).len == MAX && !a.is_number());
    let (low, high, result, wanted): (usize, usize, SqlType, Vec<Option<SqlType>>) = match name {
        "LEN" => (
            1,
            1,
            if first.len == MAX { SqlType::BIGINT } else { SqlType::INT },
            vec![if first.is_binary() { None } else { Some(as_string(first)) }],
        ),
        "DATALENGTH" => (1, 1, if first.len == MAX { SqlType::BIGINT } else { SqlType::INT }, vec![None]),
        "SUBSTRING" if first.is_binary() => {
            (3, 3, SqlType::varbinary(first.len.max(1)), vec![None, int, int])
        }
        "SUBSTRING" => (3, 3, varying(first), vec![Some(as_string(first)), int, int]),
        "LEFT" | "RIGHT" => (2, 2, varying(first), vec![Some(as_string(first)), int]),
        "UPPER" | "LOWER" | "REVERSE" => (1, 1, as_string(first), vec![Some(as_string(first))]),
        "LTRIM" | "RTRIM" | "TRIM" => {
            (1, 2, varying(first), vec![Some(as_string(first)), Some(as_string(at(1)))])
        }
        "REPLACE" => (3, 3, widest(any_unicode, any_max), args.iter().map(|a| Some(as_string(*a))).collect()),
        "TRANSLATE" => (3, 3, varying(first), args.iter().map(|a| Some(as_string(*a))).collect()),
        "REPLICATE" => {
            (2, 2, widest(first.is_unicode(), as_string(first).len == MAX), vec![Some(as_string(first)), int])
        }
        "CHARINDEX" => (
            2,
            3,
            if at(1).len == MAX { SqlType::BIGINT } else { SqlType::INT },
            vec![Some(as_string(first)), Some(as_string(at(1))), int],
        ),
        "PATINDEX" => (2, 2, SqlType::INT, vec![Some(as_string(first)), Some(as_string(at(1)))]),
        "STUFF" => (
            4,
            4,
            widest(any_unicode, any_max),
            vec![Some(as_string(first)), int, int, Some(as_string(at(3)))],
        ),
        "CONCAT" | "CONCAT_WS" => {
            strict = false;
            let total: u32 = args.iter().map(|a| u32::from(as_string(*a).len)).sum();
            let result = if any_max || total > if any_unicode { 4000 } else { 8000 } {
                widest(any_unicode, any_max)
            } else if any_unicode {
                SqlType::nvarchar((total as u16).max(1))
            } else {
                SqlType::varchar((total as u16).max(1))
            };
            (
                if name == "CONCAT" { 2 } else { 3 },
                254,
                result,
                args.iter().map(|a| Some(as_string(*a))).collect(),
            )
        }
        "SPACE" => (1, 1, SqlType::varchar(8000), vec![int]),
        "CHAR" => (1, 1, SqlType { kind: Kind::Char, len: 1, scale: 0 }, vec![int]),
        "NCHAR" => (1, 1, SqlType { kind: Kind::NChar, len: 1, scale: 0 }, vec![int]),
        "ASCII" | "UNICODE" => (1, 1, SqlType::INT, vec![Some(as_string(first))]),
        "STR" => (1, 3, SqlType::varchar(10), vec![Some(SqlType::FLOAT), int, int]),
        "FORMAT" => (
            2,
            3,
            SqlType::nvarchar(4000),
            vec![None, Some(SqlType::nvarchar(4000)), Some(SqlType::nvarchar(20))],
        ),
        "QUOTENAME" => {
            (1, 2, SqlType::nvarchar(258), vec![Some(SqlType::SYSNAME), Some(SqlType::nvarchar(1))])
        }
        "STRING_ESCAPE" => return Err(unsupported("STRING_ESCAPE")),
        "ABS" | "SIGN" => (1, 1, numeric(first), vec![Some(numeric(first))]),
        "FLOOR" | "CEILING" => {
            let n = numeric(first);
            (1, 1, if n.is_decimal() { SqlType { scale: 0, ..n } } else { n }, vec![Some(n)])
        }
        "ROUND" => (2, 3, numeric(first), vec![Some(numeric(first)), int, int]),
        "POWER" => (2, 2, numeric(first), vec![Some(numeric(first)), Some(SqlType::FLOAT)]),
        "SQRT" | "EXP" | "LOG10" | "SIN" | "COS" | "TAN" | "ASIN" | "ACOS" | "ATAN" | "SQUARE"
        | "RADIANS" | "DEGREES" => (1, 1, SqlType::FLOAT, vec![Some(SqlType::FLOAT)]),
        "LOG" => (1, 2, SqlType::FLOAT, vec![Some(SqlType::FLOAT), Some(SqlType::FLOAT)]),
        "ATN2" => (2, 2, SqlType::FLOAT, vec![Some(SqlType::FLOAT), Some(SqlType::FLOAT)]),
        "PI" => (0, 0, SqlType::FLOAT, vec![]),
        "RAND" => {
            volatile = true;
            (0, 1, SqlType::FLOAT, vec![int])
        }
        "NEWID" | "NEWSEQUENTIALID" => {
            volatile = true;
            (0, 0, SqlType::UUID, vec![])
        }
        "CRYPT_GEN_RANDOM" => {
            volatile = true;
            (1, 1, SqlType::varbinary(8000), vec![int])
        }
        "CHECKSUM" | "BINARY_CHECKSUM" => {
            strict = false;
            (1, 254, SqlType::INT, vec![None; args.len()])
        }
        "ISNUMERIC" | "ISDATE" => {
            strict = false;
            (1, 1, SqlType::INT, vec![Some(as_string(first))])
        }
        "DATEADD" => (
            3,
            3,
            dated(at(2)),
            vec![
                None,
                Some(if at(1).kind == Kind::BigInt { SqlType::BIGINT } else { SqlType::INT }),
                Some(dated(at(2))),
            ],
        ),
        "DATEDIFF" => (3, 3, SqlType::INT, vec![None, Some(dated_wide(at(1))), Some(dated_wide(at(2)))]),
        "DATEDIFF_BIG" => {
            (3, 3, SqlType::BIGINT, vec![None, Some(dated_wide(at(1))), Some(dated_wide(at(2)))])
        }
        "DATEPART" => (2, 2, SqlType::INT, vec![None, Some(dated_wide(at(1)))]),
        "DATENAME" => (2, 2, SqlType::nvarchar(30), vec![None, Some(dated_wide(at(1)))]),
        "YEAR" | "MONTH" | "DAY" => (1, 1, SqlType::INT, vec![Some(dated(first))]),
        "EOMONTH" => (1, 2, SqlType::of(Kind::Date), vec![Some(dated(first)), int]),
        "DATEFROMPARTS" => (3, 3, SqlType::of(Kind::Date), vec![int; 3]),
        "DATETIMEFROMPARTS" => (7, 7, SqlType::DATETIME, vec![int; 7]),
        "DATETIME2FROMPARTS" => (8, 8, SqlType::scaled(Kind::DateTime2, 7), vec![int; 8]),
        "TIMEFROMPARTS" => (5, 5, SqlType::scaled(Kind::Time, 7), vec![int; 5]),
        "TODATETIMEOFFSET" => (
            2,
            2,
            SqlType::scaled(Kind::DateTimeOffset, 7),
            vec![Some(SqlType::scaled(Kind::DateTime2, 7)), None],
        ),
        "SWITCHOFFSET" => (
            2,
            2,
            SqlType::scaled(Kind::DateTimeOffset, 7),
            vec![Some(SqlType::scaled(Kind::DateTimeOffset, 7)), None],
        ),
        _ => return Ok(super::super::metadata::signature(name, args)),
    };
    count(name, args, low, high)?;
    Ok(Some(Signature { result, args: wanted, volatile, strict }))
}

fn dated_wide(ty: SqlType) -> SqlType {
    if ty.is_string() { SqlType::scaled(Kind::DateTimeOffset, 7) } else { dated(ty) }
}
