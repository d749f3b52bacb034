//! One value on its way between SQLite, the engine and the wire types.

use rusqlite::types::{Value as Lite, ValueRef};
use tds::value::{self, Value};

use super::datetime::{self, DAY, DAYS_TO_1900};
use super::types::{Kind, SqlType};

/// A value without its type; the type says how to read it (see the table in `types.rs`).
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) enum Datum {
    #[default]
    Null,
    Int(i64),
    Dec(i128),
    Float(f64),
    Str(String),
    Bytes(Vec<u8>),
    /// UTC in 100 ns since 0001, minutes ahead of UTC.
    Offset(i64, i16),
    Variant(Box<(SqlType, Datum)>),
}

impl Datum {
    pub(super) fn str(text: impl Into<String>) -> Datum {
        Datum::Str(text.into())
    }
    pub(super) fn is_null(&self) -> bool {
        matches!(self, Datum::Null)
    }
    pub(super) fn as_i64(&self) -> Option<i64> {
        match self {
            Datum::Int(n) => Some(*n),
            Datum::Float(f) => Some(*f as i64),
            _ => None,
        }
    }
    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Datum::Str(text) => Some(text),
            _ => None,
        }
    }
    pub(super) fn variant(ty: SqlType, value: Datum) -> Datum {
        if value.is_null() { Datum::Null } else { Datum::Variant(Box::new((ty, value))) }
    }

    /// As SQLite stores it.
    pub(super) fn to_lite(&self) -> Lite {
        match self {
            Datum::Null => Lite::Null,
            Datum::Int(n) => Lite::Integer(*n),
            Datum::Dec(mantissa) => Lite::Blob(dec_to_blob(*mantissa).to_vec()),
            Datum::Float(f) => Lite::Real(*f),
            Datum::Str(text) => Lite::Text(text.clone()),
            Datum::Bytes(bytes) => Lite::Blob(bytes.clone()),
            Datum::Offset(utc, minutes) => {
                let mut blob = ((*utc as u64) ^ (1 << 63)).to_be_bytes().to_vec();
                blob.extend(((*minutes as u16) ^ 0x8000).to_be_bytes());
                Lite::Blob(blob)
            }
            Datum::Variant(inner) => {
                let mut blob = inner.0.pack().to_be_bytes().to_vec();
                match inner.1.to_lite() {
                    Lite::Null => return Lite::Null,
                    Lite::Integer(n) => {
                        blob.push(1);
                        blob.extend(n.to_be_bytes());
                    }
                    Lite::Real(f) => {
                        blob.push(2);
                        blob.extend(f.to_be_bytes());
                    }
                    Lite::Text(text) => {
                        blob.push(3);
                        blob.extend(text.as_bytes());
                    }
                    Lite::Blob(bytes) => {
                        blob.push(4);
                        blob.extend(bytes);
                    }
                }
                Lite::Blob(blob)
            }
        }
    }

    /// From SQLite, read as `ty`.
    pub(super) fn from_lite(value: ValueRef<'_>, ty: SqlType) -> Datum {
        match value {
            ValueRef::Null => Datum::Null,
            ValueRef::Integer(n) => {
                if ty.is_float() {
                    Datum::Float(n as f64)
                } else if ty.is_decimal() {
                    Datum::Dec(i128::from(n) * super::decimal::pow10(ty.scale))
                } else {
                    Datum::Int(n)
                }
            }
            ValueRef::Real(f) => Datum::Float(f),
            ValueRef::Text(text) => Datum::Str(String::from_utf8_lossy(text).into_owned()),
            ValueRef::Blob(blob) => match ty.kind {
                Kind::Decimal | Kind::Numeric => Datum::Dec(dec_from_blob(blob)),
                Kind::DateTimeOffset if blob.len() == 10 => {
                    let mut utc = [0; 8];
                    utc.copy_from_slice(&blob[..8]);
                    let minutes = u16::from_be_bytes([blob[8], blob[9]]) ^ 0x8000;
                    Datum::Offset((u64::from_be_bytes(utc) ^ (1 << 63)) as i64, minutes as i16)
                }
                Kind::Variant if blob.len() >= 9 => {
                    let mut code = [0; 8];
                    code.copy_from_slice(&blob[..8]);
                    let inner = SqlType::unpack(i64::from_be_bytes(code));
                    let rest = &blob[9..];
                    let mut eight = [0; 8];
                    let number = |eight: &mut [u8; 8]| {
                        if rest.len() == 8 {
                            eight.copy_from_slice(rest);
                        }
                        *eight
                    };
                    let value = match blob[8] {
                        1 => ValueRef::Integer(i64::from_be_bytes(number(&mut eight))),
                        2 => ValueRef::Real(f64::from_be_bytes(number(&mut eight))),
                        3 => ValueRef::Text(rest),
                        _ => ValueRef::Blob(rest),
                    };
                    Datum::Variant(Box::new((inner, Datum::from_lite(value, inner))))
                }
                _ => Datum::Bytes(blob.to_vec()),
            },
        }
    }

    /// As the wire half sends it, for a column of type `ty`.
    pub(super) fn to_value(&self, ty: SqlType) -> Value {
        use Kind::*;
        match (self, ty.kind) {
            (Datum::Null, _) => Value::Null,
            (Datum::Int(n), Bit) => Value::Bit(*n != 0),
            (Datum::Int(n), TinyInt) => Value::TinyInt(*n as u8),
            (Datum::Int(n), SmallInt) => Value::SmallInt(*n as i16),
            (Datum::Int(n), Int | Null) => Value::Int(*n as i32),
            (Datum::Int(n), BigInt) => Value::BigInt(*n),
            (Datum::Int(n), Money) => Value::Money(*n),
            (Datum::Int(n), SmallMoney) => Value::SmallMoney(*n as i32),
            (Datum::Int(n), Date) => Value::Date(*n as u32),
            (Datum::Int(n), Time) => Value::Time(*n as u64),
            (Datum::Int(n), SmallDateTime) => {
                Value::SmallDateTime { days: n.div_euclid(1440) as u16, minutes: n.rem_euclid(1440) as u16 }
            }
            (Datum::Int(n), DateTime) => Value::DateTime {
                days: n.div_euclid(25_920_000) as i32,
                ticks: n.rem_euclid(25_920_000) as u32,
            },
            (Datum::Int(n), DateTime2) => {
                Value::DateTime2 { days: n.div_euclid(DAY) as u32, ticks: n.rem_euclid(DAY) as u64 }
            }
            (Datum::Int(n), Float | Real) => Value::Float(*n as f64),
            (Datum::Int(n), _) => Value::BigInt(*n),
            (Datum::Dec(m), _) => Value::Decimal(value::Decimal {
                negative: *m < 0,
                magnitude: m.unsigned_abs(),
                scale: ty.scale,
            }),
            (Datum::Float(f), Real) => Value::Real(*f as f32),
            (Datum::Float(f), _) => Value::Float(*f),
            (Datum::Str(text), Xml) => Value::Xml(text.clone()),
            (Datum::Str(text), _) => Value::String(text.clone()),
            (Datum::Bytes(bytes), Uuid) => Value::Guid(guid_from_sortable(bytes)),
            (Datum::Bytes(bytes), _) => Value::Bytes(bytes.clone()),
            (Datum::Offset(utc, minutes), _) => Value::DateTimeOffset {
                days: utc.div_euclid(DAY) as u32,
                ticks: utc.rem_euclid(DAY) as u64,
                offset: *minutes,
            },
            (Datum::Variant(inner), _) => Value::Variant(Box::new(value::Variant {
                type_info: super::wire_types::type_info(inner.0, false),
                value: inner.1.to_value(inner.0),
            })),
        }
    }

    /// From the wire half, stored as `ty` (which came with it).
    pub(super) fn from_value(value: &Value, ty: SqlType) -> Datum {
        match value {
            Value::Null | Value::Vector(_) | Value::Table(_) => Datum::Null,
            Value::Bit(b) => Datum::Int(i64::from(*b)),
            Value::TinyInt(n) => Datum::Int(i64::from(*n)),
            Value::SmallInt(n) => Datum::Int(i64::from(*n)),
            Value::Int(n) => Datum::Int(i64::from(*n)),
            Value::BigInt(n) => Datum::Int(*n),
            Value::Real(f) => Datum::Float(f64::from(*f)),
            Value::Float(f) => Datum::Float(*f),
            Value::Decimal(d) => {
                let mantissa = i128::try_from(d.magnitude).unwrap_or(i128::MAX);
                let mantissa = if d.negative { -mantissa } else { mantissa };
                super::decimal::rescale(mantissa, d.scale, ty.scale).map_or(Datum::Null, Datum::Dec)
            }
            Value::Money(n) => Datum::Int(*n),
            Value::SmallMoney(n) => Datum::Int(i64::from(*n)),
            Value::SmallDateTime { days, minutes } => {
                Datum::Int(i64::from(*days) * 1440 + i64::from(*minutes))
            }
            Value::DateTime { days, ticks } => Datum::Int(i64::from(*days) * 25_920_000 + i64::from(*ticks)),
            Value::Date(days) => Datum::Int(i64::from(*days)),
            Value::Time(ticks) => Datum::Int(*ticks as i64),
            Value::DateTime2 { days, ticks } => Datum::Int(i64::from(*days) * DAY + *ticks as i64),
            Value::DateTimeOffset { days, ticks, offset } => {
                Datum::Offset(i64::from(*days) * DAY + *ticks as i64, *offset)
            }
            Value::String(text) | Value::Xml(text) => Datum::Str(text.clone()),
            Value::Bytes(bytes) => Datum::Bytes(bytes.clone()),
            Value::Guid(guid) => Datum::Bytes(guid_to_sortable(guid).to_vec()),
            Value::Variant(inner) => {
                let (ty, _) = super::wire_types::sql_type(&inner.type_info);
                Datum::variant(ty, Datum::from_value(&inner.value, ty))
            }
        }
    }

    /// 100 ns since 0001-01-01 of any date or time type; a time counts from 1900-01-01.
    pub(super) fn ticks(&self, ty: SqlType) -> Option<i64> {
        match (self, ty.kind) {
            (Datum::Int(n), Kind::Date) => Some(n * DAY),
            (Datum::Int(n), Kind::Time) => Some(DAYS_TO_1900 * DAY + n),
            (Datum::Int(n), Kind::SmallDateTime) => Some(DAYS_TO_1900 * DAY + n * 600_000_000),
            (Datum::Int(n), Kind::DateTime) => Some(datetime::from_datetime(*n)),
            (Datum::Int(n), Kind::DateTime2) => Some(*n),
            (Datum::Offset(utc, minutes), _) => Some(utc + i64::from(*minutes) * 600_000_000),
            _ => None,
        }
    }
}

/// 16 bytes that sort as the number does.
pub(super) fn dec_to_blob(mantissa: i128) -> [u8; 16] {
    ((mantissa as u128) ^ (1 << 127)).to_be_bytes()
}

/// The number of [`dec_to_blob`].
pub(super) fn dec_from_blob(blob: &[u8]) -> i128 {
    let mut bytes = [0; 16];
    if blob.len() == 16 {
        bytes.copy_from_slice(blob);
    }
    (u128::from_be_bytes(bytes) ^ (1 << 127)) as i128
}

const GUID_ORDER: [usize; 16] = [10, 11, 12, 13, 14, 15, 8, 9, 6, 7, 4, 5, 0, 1, 2, 3];

/// A GUID's wire bytes in the order in which SQL Server compares them.
pub(super) fn guid_to_sortable(wire: &[u8; 16]) -> [u8; 16] {
    GUID_ORDER.map(|at| wire[at])
}

/// Back from [`guid_to_sortable`].
pub(super) fn guid_from_sortable(sortable: &[u8]) -> [u8; 16] {
    let mut wire = [0; 16];
    for (from, to) in GUID_ORDER.iter().enumerate() {
        wire[*to] = sortable.get(from).copied().unwrap_or(0);
    }
    wire
}

/// The GUID's text from its wire bytes.
pub(super) fn guid_text(w: &[u8; 16]) -> String {
    format!(
        "{:02X}{:02X}{:02X}{:02X}-{:02X}{:02X}-{:02X}{:02X}-{:02X}{:02X}-{:02X}{:02X}{:02X}{:02X}{:02X}{:02X}",
        w[3], w[2], w[1], w[0], w[5], w[4], w[7], w[6], w[8], w[9], w[10], w[11], w[12], w[13], w[14], w[15]
    )
}

/// Reads a GUID's text into wire bytes.
pub(super) fn guid_parse(text: &str) -> Option<[u8; 16]> {
    let text = text.trim().trim_start_matches('{');
    let text = text.get(..36)?;
    let mut digits = Vec::with_capacity(32);
    for (at, byte) in text.bytes().enumerate() {
        if matches!(at, 8 | 13 | 18 | 23) {
            if byte != b'-' {
                return None;
            }
        } else {
            digits.push((byte as char).to_digit(16)? as u8);
        }
    }
    let mut plain = [0u8; 16];
    for (at, pair) in digits.chunks(2).enumerate() {
        plain[at] = pair[0] << 4 | pair[1];
    }
    Some([3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15].map(|at: usize| plain[at]))
}
