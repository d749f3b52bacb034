//! CAST and CONVERT: every value from one type to another, with SQL Server's errors.

use super::datetime::{self, DAY, DAYS_TO_1900, Parsed};
use super::datum::{self, Datum};
use super::decimal;
use super::message_text::{SqlError, overflow};
use super::types::{Kind, MAX, SqlType};

/// What a conversion depends on beside the value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    /// CONVERT's third argument; 0 without one.
    pub(super) style: i64,
    /// SET DATEFORMAT.
    pub(super) date_order: &'a str,
    /// Whether a string that does not fit is cut off (CAST) or an error 2628 (assignment to a column).
    pub(super) strict: bool,
}

impl Rules<'_> {
    pub(super) const CAST: Rules<'static> = Rules { style: 0, date_order: "mdy", strict: false };
}

fn failed(from: SqlType, to: SqlType, text: &str) -> SqlError {
    let to_name = to.base_name();
    match to.kind {
        Kind::Bit | Kind::TinyInt | Kind::SmallInt | Kind::Int if from.is_string() => SqlError::new(
            245,
            16,
            1,
            format!(
                "Conversion failed when converting the {} value '{text}' to data type {to_name}.",
                from.base_name()
            ),
        ),
        Kind::Uuid => SqlError::new(
            8169,
            16,
            2,
            "Conversion failed when converting from a character string to uniqueidentifier.",
        ),
        Kind::DateTime | Kind::Date | Kind::Time | Kind::DateTime2 | Kind::DateTimeOffset => SqlError::new(
            241,
            16,
            1,
            "Conversion failed when converting date and/or time from character string.",
        ),
        Kind::SmallDateTime => SqlError::new(
            295,
            16,
            3,
            "Conversion failed when converting character string to smalldatetime data type.",
        ),
        Kind::Money | Kind::SmallMoney => SqlError::new(
            235,
            16,
            0,
            "Cannot convert a char value to money. The char value has incorrect syntax.",
        ),
        _ => SqlError::new(
            8114,
            16,
            5,
            format!("Error converting data type {} to {to_name}.", from.base_name()),
        ),
    }
}

fn disallowed(from: SqlType, to: SqlType) -> SqlError {
    SqlError::new(
        529,
        16,
        2,
        format!(
            "Explicit conversion from data type {} to {} is not allowed.",
            from.base_name(),
            to.base_name()
        ),
    )
}

/// Converts `value` of type `from` to type `to`.
pub(super) fn cast(value: Datum, from: SqlType, to: SqlType, rules: Rules<'_>) -> Result<Datum, SqlError> {
    if value.is_null() {
        return Ok(Datum::Null);
    }
    if let Datum::Variant(inner) = value {
        if to.kind == Kind::Variant {
            return Ok(Datum::Variant(inner));
        }
        return cast(inner.1, inner.0, to, rules);
    }
    if to.kind == Kind::Variant {
        return Ok(Datum::variant(from, value));
    }
    if to.is_string() {
        return fit_string(to_string(&value, from, to, rules)?, from, to, rules);
    }
    if to.is_binary() {
        return to_binary(value, from, to, rules);
    }
    if to.is_integer() {
        return to_integer(value, from, to);
    }
    if to.is_decimal() || to.is_money() {
        return to_decimal(value, from, to, rules);
    }
    if to.is_float() {
        return to_float(value, from, to);
    }
    if to.is_temporal() {
        return to_temporal(value, from, to, rules);
    }
    if to.kind == Kind::Uuid {
        return match value {
            Datum::Str(text) => match datum::guid_parse(&text) {
                Some(wire) => Ok(Datum::Bytes(datum::guid_to_sortable(&wire).to_vec())),
                None => Err(failed(from, to, &text)),
            },
            Datum::Bytes(bytes) if from.kind == Kind::Uuid => Ok(Datum::Bytes(bytes)),
            Datum::Bytes(bytes) => {
                let mut wire = [0; 16];
                let len = bytes.len().min(16);
                wire[..len].copy_from_slice(&bytes[..len]);
                Ok(Datum::Bytes(datum::guid_to_sortable(&wire).to_vec()))
            }
            _ => Err(disallowed(from, to)),
        };
    }
    Ok(value)
}

fn to_integer(value: Datum, from: SqlType, to: SqlType) -> Result<Datum, SqlError> {
    let wide: i128 = match value {
        Datum::Int(n) if from.is_money() => decimal::rescale(i128::from(n), 4, 0).unwrap_or(0),
        Datum::Int(n) if from.kind == Kind::DateTime => {
            i128::from(n.div_euclid(25_920_000)) + i128::from(n.rem_euclid(25_920_000) >= 12_960_000)
        }
        Datum::Int(n) if from.kind == Kind::SmallDateTime => {
            i128::from(n.div_euclid(1440)) + i128::from(n.rem_euclid(1440) >= 720)
        }
        Datum::Int(_) | Datum::Offset(..) if from.is_temporal() => return Err(disallowed(from, to)),
        Datum::Int(n) => i128::from(n),
        Datum::Dec(m) if to.kind == Kind::Bit => i128::from(m != 0),
        Datum::Dec(m) => decimal::rescale_truncated(m, from.scale, 0).unwrap_or(i128::MAX),
        Datum::Float(f) if to.kind == Kind::Bit => i128::from(f != 0.0),
        Datum::Float(f) => f.trunc() as i128,
        Datum::Str(text) => {
            let trimmed = text.trim();
            if to.kind == Kind::Bit && trimmed.eq_ignore_ascii_case("true") {
                1
            } else if to.kind == Kind::Bit && trimmed.eq_ignore_ascii_case("false") || trimmed.is_empty() {
                0
            } else {
                match trimmed.parse::<i128>() {
                    Ok(n) => {
                        let (low, high) = range(to);
                        if to.kind != Kind::Bit && (n < low || n > high) {
                            let kind = if from.is_unicode() { "nvarchar" } else { "varchar" };
                            return Err(match to.kind {
                                Kind::Int => SqlError::new(
                                    248,
                                    16,
                                    1,
                                    format!(
                                        "The conversion of the {kind} value '{trimmed}' overflowed an int column."
                                    ),
                                ),
                                Kind::BigInt => overflow("bigint"),
                                _ => SqlError::new(
                                    244,
                                    16,
                                    1,
                                    format!(
                                        "The conversion of the {kind} value '{trimmed}' overflowed an INT{} column. Use a larger integer column.",
                                        if to.kind == Kind::TinyInt { 1 } else { 2 }
                                    ),
                                ),
                            });
                        }
                        n
                    }
                    Err(_) => return Err(failed(from, to, &text)),
                }
            }
        }
        Datum::Bytes(bytes) => {
            let mut n: i128 = 0;
            let width = to.max_length() as usize;
            let tail = &bytes[bytes.len().saturating_sub(width)..];
            for byte in tail {
                n = n << 8 | i128::from(*byte);
            }
            match to.kind {
                Kind::SmallInt => i128::from(n as i16),
                Kind::Int => i128::from(n as i32),
                Kind::BigInt => i128::from(n as i64),
                _ => n,
            }
        }
        _ => return Err(disallowed(from, to)),
    };
    if to.kind == Kind::Bit {
        return Ok(Datum::Int(i64::from(wide != 0)));
    }
    let (low, high) = range(to);
    if wide < low || wide > high {
        return Err(if from.is_integer() && to.kind != Kind::Int && to.kind != Kind::BigInt {
            SqlError::new(
                220,
                16,
                if to.kind == Kind::TinyInt { 2 } else { 1 },
                format!("Arithmetic overflow error for data type {}, value = {wide}.", to.base_name()),
            )
        } else if from.is_float() && to.kind != Kind::BigInt {
            SqlError::new(
                232,
                16,
                3,
                format!("Arithmetic overflow error for type {}, value = {wide}.000000.", to.base_name()),
            )
        } else {
            overflow(to.base_name())
        });
    }
    Ok(Datum::Int(wide as i64))
}

/// The smallest and largest value of an integer type.
pub(super) fn range(to: SqlType) -> (i128, i128) {
    match to.kind {
        Kind::Bit => (0, 1),
        Kind::TinyInt => (0, 255),
        Kind::SmallInt => (i128::from(i16::MIN), i128::from(i16::MAX)),
        Kind::Int => (i128::from(i32::MIN), i128::from(i32::MAX)),
        _ => (i128::from(i64::MIN), i128::from(i64::MAX)),
    }
}

fn to_decimal(value: Datum, from: SqlType, to: SqlType, _rules: Rules<'_>) -> Result<Datum, SqlError> {
    let scale = if to.is_money() { 4 } else { to.scale };
    let mantissa = match value {
        Datum::Int(n) if from.is_money() => decimal::rescale(i128::from(n), 4, scale),
        Datum::Int(n) if from.is_integer() => decimal::rescale(i128::from(n), 0, scale),
        Datum::Int(_) => {
            return to_decimal(to_float(value, from, SqlType::FLOAT)?, SqlType::FLOAT, to, _rules);
        }
        Datum::Dec(m) => decimal::rescale(m, from.scale, scale),
        Datum::Float(f) => decimal::from_f64(f, scale),
        Datum::Str(text) => {
            let mut plain = text.trim().to_string();
            if to.is_money() {
                plain = plain.replace([',', '$'], "");
                if plain.is_empty() {
                    plain.push('0');
                }
            }
            match decimal::parse(&plain) {
                Some((m, written)) => decimal::rescale(m, written, scale),
                None => return Err(failed(from, to, &text)),
            }
        }
        Datum::Bytes(_) => match to_integer(value, from, SqlType::BIGINT)? {
            Datum::Int(n) if to.is_money() => Some(i128::from(n)),
            Datum::Int(n) => decimal::rescale(i128::from(n), 0, scale),
            _ => None,
        },
        _ => return Err(disallowed(from, to)),
    };
    let too_big = || {
        if to.is_money() {
            overflow(to.base_name())
        } else {
            SqlError::new(
                8115,
                16,
                8,
                format!(
                    "Arithmetic overflow error converting {} to data type {}.",
                    from.base_name(),
                    to.base_name()
                ),
            )
        }
    };
    let mantissa = mantissa.ok_or_else(too_big)?;
    if to.is_money() {
        let limit = if to.kind == Kind::Money { i128::from(i64::MAX) } else { i128::from(i32::MAX) };
        if mantissa > limit || mantissa < -limit - 1 {
            return Err(too_big());
        }
        return Ok(Datum::Int(mantissa as i64));
    }
    if !decimal::fits(mantissa, to.len) {
        return Err(too_big());
    }
    Ok(Datum::Dec(mantissa))
}

fn to_float(value: Datum, from: SqlType, to: SqlType) -> Result<Datum, SqlError> {
    let wide = match value {
        Datum::Int(n) if from.is_money() => n as f64 / 10_000.0,
        Datum::Int(n) if from.kind == Kind::DateTime => n as f64 / 25_920_000.0,
        Datum::Int(n) if from.kind == Kind::SmallDateTime => n as f64 / 1440.0,
        Datum::Int(n) => n as f64,
        Datum::Dec(m) => decimal::to_f64(m, from.scale),
        Datum::Float(f) => f,
        Datum::Str(text) => {
            let trimmed = text.trim();
            match trimmed.parse::<f64>() {
                _ if trimmed.is_empty() => 0.0,
                Ok(f)
                    if f.is_finite()
                        && trimmed.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b)) =>
                {
                    f
                }
                _ => return Err(failed(from, to, &text)),
            }
        }
        _ => return Err(disallowed(from, to)),
    };
    if to.kind == Kind::Real {
        let narrow = wide as f32;
        if !narrow.is_finite() {
            return Err(overflow("real"));
        }
        return Ok(Datum::Float(f64::from(narrow)));
    }
    Ok(Datum::Float(wide))
}

fn to_temporal(value: Datum, from: SqlType, to: SqlType, rules: Rules<'_>) -> Result<Datum, SqlError> {
    let mut offset = 0;
    let ticks = match &value {
        Datum::Str(text) => {
            let order = match rules.style {
                3 | 4 | 5 | 103 | 104 | 105 => "dmy",
                1 | 10 | 101 | 110 => "mdy",
                2 | 11 | 102 | 111 => "ymd",
                _ => rules.date_order,
            };
            let Parsed { days, time, offset: said } =
                datetime::parse(text, order).ok_or_else(|| failed(from, to, text))?;
            offset = said.unwrap_or(0);
            days.unwrap_or(DAYS_TO_1900) * DAY + time
        }
        Datum::Offset(utc, minutes) => {
            offset = *minutes;
            utc + i64::from(*minutes) * 600_000_000
        }
        Datum::Int(_) if from.is_temporal() => value.ticks(from).unwrap_or(0),
        Datum::Int(_) | Datum::Dec(_) | Datum::Float(_)
            if matches!(to.kind, Kind::DateTime | Kind::SmallDateTime) =>
        {
            let Datum::Float(days) = to_float(value, from, SqlType::FLOAT)? else { return Ok(Datum::Null) };
            let since = (days * 25_920_000.0).round();
            if since.abs() > 8e13 {
                return Err(overflow(to.base_name()));
            }
            datetime::from_datetime(since as i64)
        }
        Datum::Bytes(bytes) if to.kind == Kind::DateTime && bytes.len() >= 8 => {
            let days = i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            let rest = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
            return Ok(Datum::Int(i64::from(days) * 25_920_000 + i64::from(rest)));
        }
        _ => return Err(disallowed(from, to)),
    };
    let out_of_range = || {
        SqlError::new(
            242,
            16,
            3,
            format!(
                "The conversion of a {} data type to a {} data type resulted in an out-of-range value.",
                from.base_name(),
                to.base_name()
            ),
        )
    };
    Ok(match to.kind {
        Kind::Date => Datum::Int(ticks.div_euclid(DAY)),
        Kind::Time => Datum::Int(datetime::round_ticks(ticks.rem_euclid(DAY), to.scale).rem_euclid(DAY)),
        Kind::DateTime2 => Datum::Int(datetime::round_ticks(ticks, to.scale)),
        Kind::DateTimeOffset => {
            Datum::Offset(datetime::round_ticks(ticks, to.scale) - i64::from(offset) * 600_000_000, offset)
        }
        Kind::DateTime => {
            let since = datetime::to_datetime(ticks);
            if since < -53_690 * 25_920_000 {
                return Err(out_of_range());
            }
            Datum::Int(since)
        }
        _ => {
            let minutes = (ticks - DAYS_TO_1900 * DAY + 300_000_000).div_euclid(600_000_000);
            if !(0..65_536 * 1440).contains(&minutes) {
                return Err(out_of_range());
            }
            Datum::Int(minutes)
        }
    })
}

/// The value as text, before it is fitted into a length.
pub(super) fn to_string(
    value: &Datum,
    from: SqlType,
    to: SqlType,
    rules: Rules<'_>,
) -> Result<String, SqlError> {
    let style = rules.style;
    Ok(match value {
        Datum::Null => String::new(),
        Datum::Str(text) => text.clone(),
        Datum::Int(n) if from.is_money() => {
            let digits = match style {
                2 | 126 => 4,
                _ => 2,
            };
            let text = decimal::to_text(decimal::rescale(i128::from(*n), 4, digits).unwrap_or(0), digits);
            if style == 1 { with_commas(&text) } else { text }
        }
        Datum::Int(_) | Datum::Offset(..) if from.is_temporal() => temporal_text(value, from, style)?,
        Datum::Int(n) => n.to_string(),
        Datum::Dec(m) => decimal::to_text(*m, from.scale),
        Datum::Float(f) => float_text(*f, style, from.kind == Kind::Real),
        Datum::Bytes(bytes) if from.kind == Kind::Uuid => datum::guid_text(&datum::guid_from_sortable(bytes)),
        Datum::Bytes(bytes) => match style {
            1 | 2 => {
                let hex: String = bytes.iter().map(|b| format!("{b:02X}")).collect();
                if style == 1 { format!("0x{hex}") } else { hex }
            }
            _ if to.is_unicode() => {
                let units: Vec<u16> = bytes
                    .chunks(2)
                    .map(|p| u16::from_le_bytes([p[0], p.get(1).copied().unwrap_or(0)]))
                    .collect();
                String::from_utf16_lossy(&units)
            }
            _ => bytes.iter().map(|b| *b as char).collect(),
        },
        Datum::Offset(..) => String::new(),
        Datum::Variant(inner) => to_string(&inner.1, inner.0, to, rules)?,
    })
}

fn with_commas(text: &str) -> String {
    let (sign, rest) = text.strip_prefix('-').map_or(("", text), |r| ("-", r));
    let (whole, fraction) = rest.split_once('.').unwrap_or((rest, "00"));
    let mut out = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    format!("{sign}{out}.{fraction}")
}

/// A float as CONVERT writes it: six significant digits, or more with a style.
pub(super) fn float_text(value: f64, style: i64, real: bool) -> String {
    let digits = match style {
        1 => return format_exponent(value, 8),
        2 => return format_exponent(value, 16),
        3 => return if real { format!("{}", value as f32) } else { format!("{value}") },
        _ => 6,
    };
    if value == 0.0 {
        return "0".into();
    }
    let exponent = value.abs().log10().floor() as i32;
    if !(-5..6).contains(&exponent) {
        return format_exponent(value, digits as usize);
    }
    let places = (digits - 1 - exponent).max(0) as usize;
    let text = format!("{value:.places$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
}

fn format_exponent(value: f64, digits: usize) -> String {
    let text = format!("{value:.*e}", digits.saturating_sub(1));
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let mantissa = if digits > 6 || !mantissa.contains('.') {
        mantissa
    } else {
        mantissa.trim_end_matches('0').trim_end_matches('.')
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    format!("{mantissa}e{}{:03}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

fn temporal_text(value: &Datum, from: SqlType, style: i64) -> Result<String, SqlError> {
    let ticks = value.ticks(from).unwrap_or(0);
    let civil = datetime::split(ticks);
    let scale = match from.kind {
        Kind::DateTime => 3,
        Kind::SmallDateTime | Kind::Date => 0,
        _ => from.scale,
    };
    let bad_style = || {
        SqlError::new(
            281,
            16,
            1,
            format!(
                "{style} is not a valid style number when converting from {} to a character string.",
                from.base_name()
            ),
        )
    };
    Ok(match from.kind {
        Kind::Date => match style {
            0 | 20 | 21 | 23 | 25 | 120 | 121 | 126 | 127 => {
                datetime::format_style(civil, 23, 0).ok_or_else(bad_style)?
            }
            100 => datetime::format_style(civil, 0, 0).ok_or_else(bad_style)?[..11].to_string(),
            _ => datetime::format_style(civil, style, 0).ok_or_else(bad_style)?,
        },
        Kind::Time => match style {
            0 | 20 | 21 | 25 | 120 | 121 | 126 | 127 | 8 | 24 | 108 | 114 => {
                let shown = if matches!(style, 20 | 120 | 8 | 24 | 108) { 0 } else { scale };
                format!(
                    "{:02}:{:02}:{:02}{}",
                    civil.hour,
                    civil.minute,
                    civil.second,
                    datetime::fraction(civil.ticks, shown)
                )
            }
            _ => datetime::format_style(civil, 0, 0).ok_or_else(bad_style)?[12..].trim().to_string(),
        },
        Kind::DateTime2 => datetime::format_style(civil, if style == 0 { 121 } else { style }, scale)
            .ok_or_else(bad_style)?,
        Kind::DateTimeOffset => {
            let Datum::Offset(_, minutes) = value else { return Ok(String::new()) };
            let style = if style == 0 { 121 } else { style };
            let text = datetime::format_style(civil, style, scale).ok_or_else(bad_style)?;
            let zone = datetime::offset_text(*minutes);
            match style {
                20 | 21 | 25 | 120 | 121 => format!("{text} {zone}"),
                126 => format!("{text}{zone}"),
                _ => text,
            }
        }
        _ => datetime::format_style(civil, style, scale).ok_or_else(bad_style)?,
    })
}

fn fit_string(mut text: String, from: SqlType, to: SqlType, rules: Rules<'_>) -> Result<Datum, SqlError> {
    let fixed = matches!(to.kind, Kind::Char | Kind::NChar);
    if to.len == MAX || matches!(to.kind, Kind::Text | Kind::NText | Kind::Xml) {
        return Ok(Datum::Str(text));
    }
    let limit = usize::from(to.len);
    let len = if text.is_ascii() { text.len() } else { char_len(&text, to) };
    if len > limit {
        let only_spaces = char_slice(&text, limit, to).1.chars().all(|c| c == ' ');
        if !from.is_string() && !from.is_binary() && (from.is_number() || from.kind == Kind::Uuid) {
            if from.kind == Kind::Uuid {
                return Err(SqlError::new(
                    8170,
                    16,
                    2,
                    "Insufficient result space to convert uniqueidentifier value to char.",
                ));
            }
            if from.is_integer() && matches!(to.kind, Kind::Char | Kind::VarChar) {
                return Ok(Datum::str("*"));
            }
            return Err(SqlError::new(
                8115,
                16,
                5,
                format!(
                    "Arithmetic overflow error converting {} to data type {}.",
                    from.base_name(),
                    to.base_name()
                ),
            ));
        }
        if rules.strict && !only_spaces {
            return Err(SqlError::new(8152, 16, 30, "String or binary data would be truncated."));
        }
        text = char_slice(&text, limit, to).0.to_string();
    } else if fixed && len < limit {
        text.extend(std::iter::repeat_n(' ', limit - len));
    }
    if !to.is_unicode() && !text.is_ascii() {
        text = text.chars().map(|c| if in_code_page(c) { c } else { '?' }).collect();
    }
    Ok(Datum::Str(text))
}

/// Whether a character exists in the code page 1252 of the stand-in's collation.
fn in_code_page(c: char) -> bool {
    (c as u32) < 0x100 && !(0x80..0xA0).contains(&(c as u32)) || "€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ".contains(c)
}

/// Length in the type's units: UTF-16 code units for Unicode types, characters of the code page otherwise.
pub(super) fn char_len(text: &str, ty: SqlType) -> usize {
    if text.is_ascii() {
        text.len()
    } else if ty.is_unicode() {
        text.encode_utf16().count()
    } else {
        text.chars().count()
    }
}

fn char_slice(text: &str, limit: usize, ty: SqlType) -> (&str, &str) {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += if ty.is_unicode() { c.len_utf16() } else { 1 };
        if used > limit {
            return text.split_at(at);
        }
    }
    (text, "")
}

fn to_binary(value: Datum, from: SqlType, to: SqlType, rules: Rules<'_>) -> Result<Datum, SqlError> {
    let natural: Vec<u8> = match value {
        Datum::Bytes(bytes) if from.kind == Kind::Uuid => datum::guid_from_sortable(&bytes).to_vec(),
        Datum::Bytes(bytes) => bytes,
        Datum::Str(text) => match rules.style {
            1 | 2 => {
                let digits = if rules.style == 1 {
                    text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))
                } else {
                    Some(text.as_str())
                };
                match digits.and_then(unhex) {
                    Some(bytes) => bytes,
                    None => return Err(failed(from, to, &text)),
                }
            }
            _ if from.is_unicode() => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            _ => text.chars().map(|c| if (c as u32) < 256 { c as u8 } else { b'?' }).collect(),
        },
        Datum::Int(n) => {
            let bytes = if from.kind == Kind::DateTime {
                let mut both = (n.div_euclid(25_920_000) as i32).to_be_bytes().to_vec();
                both.extend((n.rem_euclid(25_920_000) as u32).to_be_bytes());
                both
            } else {
                let width = (from.max_length().clamp(1, 8)) as usize;
                n.to_be_bytes()[8 - width..].to_vec()
            };
            // Numbers are cut and padded on the left.
            let want =
                if to.len == MAX || to.kind == Kind::Image { bytes.len() } else { usize::from(to.len) };
            if bytes.len() > want {
                return Ok(Datum::Bytes(bytes[bytes.len() - want..].to_vec()));
            }
            if to.kind == Kind::Binary {
                let mut padded = vec![0; want - bytes.len()];
                padded.extend(bytes);
                return Ok(Datum::Bytes(padded));
            }
            return Ok(Datum::Bytes(bytes));
        }
        Datum::Float(f) => f.to_be_bytes().to_vec(),
        Datum::Dec(m) => {
            let mut bytes = vec![from.len as u8, from.scale, 0, u8::from(m >= 0)];
            let width = (from.max_length() - 1) as usize;
            bytes.extend(&m.unsigned_abs().to_le_bytes()[..width.min(16)]);
            bytes
        }
        Datum::Offset(utc, _) => utc.to_le_bytes().to_vec(),
        Datum::Null | Datum::Variant(_) => return Ok(Datum::Null),
    };
    if to.len == MAX || matches!(to.kind, Kind::Image | Kind::RowVersion) {
        return Ok(Datum::Bytes(natural));
    }
    let limit = usize::from(to.len);
    let mut bytes = natural;
    if bytes.len() > limit {
        if rules.strict && bytes[limit..].iter().any(|b| *b != 0) {
            return Err(SqlError::new(8152, 16, 30, "String or binary data would be truncated."));
        }
        bytes.truncate(limit);
    } else if to.kind == Kind::Binary {
        bytes.resize(limit, 0);
    }
    Ok(Datum::Bytes(bytes))
}

/// Hex digits to bytes; an odd number of digits gets a leading zero.
pub(super) fn unhex(digits: &str) -> Option<Vec<u8>> {
    let mut nibbles: Vec<u8> = Vec::with_capacity(digits.len() + 1);
    if digits.len() % 2 == 1 {
        nibbles.push(0);
    }
    for c in digits.chars() {
        nibbles.push(c.to_digit(16)? as u8);
    }
    Some(nibbles.chunks(2).map(|p| p[0] << 4 | p[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str, to: SqlType) -> Result<Datum, SqlError> {
        cast(Datum::str(value), SqlType::varchar(100), to, Rules::CAST)
    }

    #[test]
    fn strings_become_what_they_say() {
        assert_eq!(text(" 12 ", SqlType::INT), Ok(Datum::Int(12)));
        assert_eq!(text("1.005", SqlType::numeric(5, 2)), Ok(Datum::Dec(101)));
        assert_eq!(text("$1,234.5", SqlType::of(Kind::Money)), Ok(Datum::Int(12_345_000)));
        assert_eq!(text("abc", SqlType::INT).unwrap_err().number, 245);
        assert_eq!(text("abcdef", SqlType::varchar(3)), Ok(Datum::str("abc")));
        assert_eq!(text("300", SqlType::TINYINT).unwrap_err().number, 244);
        assert_eq!(text("2024-13-01", SqlType::DATETIME).unwrap_err().number, 241);
    }

    #[test]
    fn datetime_keeps_its_three_hundredths() {
        let value = text("2024-01-02 03:04:05.678", SqlType::DATETIME).unwrap();
        assert_eq!(
            to_string(&value, SqlType::DATETIME, SqlType::varchar(30), Rules { style: 121, ..Rules::CAST })
                .unwrap(),
            "2024-01-02 03:04:05.677"
        );
    }

    #[test]
    fn floats_show_six_digits() {
        for (value, shown) in [
            (1.5, "1.5"),
            (0.1, "0.1"),
            (123_456.0, "123456"),
            (1_234_567.0, "1.23457e+006"),
            (1e-7, "1e-007"),
        ] {
            assert_eq!(float_text(value, 0, false), shown);
        }
    }
}
