//! Operators and numeric functions, with overflow and division by zero as SQL Server reports them.

use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Context;
use crate::engine::convert::{self, Rules};
use crate::engine::datum::{self, Datum};
use crate::engine::decimal;
use crate::engine::message_text::{SqlError, divide_by_zero, overflow};
use crate::engine::types::{Kind, SqlType};

/// `left op right`; both have been brought to the same family. `result` is the operator's result type.
pub(super) fn binary(op: char, result: SqlType, args: Vec<(SqlType, Datum)>) -> Result<Datum, SqlError> {
    let mut args = args.into_iter();
    let (Some((ta, a)), Some((tb, b))) = (args.next(), args.next()) else { return Ok(Datum::Null) };
    if a.is_null() || b.is_null() {
        return Ok(Datum::Null);
    }
    if result.is_integer() {
        let (Some(a), Some(b)) = (a.as_i64(), b.as_i64()) else { return Ok(Datum::Null) };
        let (a, b) = (i128::from(a), i128::from(b));
        let value = match op {
            '+' => a + b,
            '-' => a - b,
            '*' => a * b,
            '/' | '%' if b == 0 => return Err(divide_by_zero()),
            '/' => a / b,
            '%' => a % b,
            '&' => a & b,
            '|' => a | b,
            _ => a ^ b,
        };
        let (low, high) = convert::range(result);
        if value < low || value > high {
            return Err(overflow(result.base_name()));
        }
        return Ok(Datum::Int(value as i64));
    }
    if result.is_float() {
        let as_float = |value: Datum, ty: SqlType| match value {
            Datum::Int(n) if ty.is_money() => n as f64 / 10_000.0,
            Datum::Int(n) => n as f64,
            Datum::Dec(m) => decimal::to_f64(m, ty.scale),
            Datum::Float(f) => f,
            _ => 0.0,
        };
        let (a, b) = (as_float(a, ta), as_float(b, tb));
        let value = match op {
            '+' => a + b,
            '-' => a - b,
            '*' => a * b,
            '/' | '%' if b == 0.0 => return Err(divide_by_zero()),
            '/' => a / b,
            _ => a % b,
        };
        if !value.is_finite() {
            return Err(overflow("float"));
        }
        return Ok(Datum::Float(if result.kind == Kind::Real { f64::from(value as f32) } else { value }));
    }
    if result.is_temporal() {
        // datetime ± days
        let (Some(a), Some(b)) = (a.as_i64(), b.as_i64()) else { return Ok(Datum::Null) };
        return Ok(Datum::Int(if op == '-' { a - b } else { a + b }));
    }
    let operand = |value: Datum, ty: SqlType| match value {
        Datum::Dec(m) => (m, ty.scale),
        Datum::Int(n) if ty.is_money() => (i128::from(n), 4),
        Datum::Int(n) => (i128::from(n), 0),
        _ => (0, 0),
    };
    let (a, b) = (operand(a, ta), operand(b, tb));
    let scale = if result.is_money() { 4 } else { result.scale };
    let value = match op {
        '+' | '-' => {
            let common = a.1.max(b.1);
            let sum = decimal::rescale(a.0, a.1, common)
                .zip(decimal::rescale(b.0, b.1, common))
                .and_then(|(x, y)| if op == '+' { x.checked_add(y) } else { x.checked_sub(y) });
            sum.and_then(|s| decimal::rescale(s, common, scale))
        }
        '*' => decimal::multiply(a, b, scale),
        '/' | '%' if b.0 == 0 => return Err(divide_by_zero()),
        '/' => decimal::divide(a, b, scale),
        _ => {
            let common = a.1.max(b.1);
            decimal::rescale(a.0, a.1, common)
                .zip(decimal::rescale(b.0, b.1, common))
                .and_then(|(x, y)| decimal::rescale(x % y, common, scale))
        }
    };
    let fits =
        |m: &i128| if result.is_money() { i64::try_from(*m).is_ok() } else { decimal::fits(*m, result.len) };
    match value.filter(fits) {
        Some(m) if result.is_money() => Ok(Datum::Int(m as i64)),
        Some(m) => Ok(Datum::Dec(m)),
        None => Err(overflow(result.base_name())),
    }
}

fn random(context: &Context) -> u64 {
    let mut x = context.seed.load(Ordering::Relaxed);
    if x == 0 {
        x = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(88_172_645_463_325_252, |d| d.as_nanos() as u64)
            | 1;
        x ^= (std::ptr::from_ref(context) as u64) << 17;
    }
    x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    context.seed.store(x, Ordering::Relaxed);
    let mut z = x;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn float_error() -> SqlError {
    SqlError::new(3623, 16, 1, "An invalid floating point operation occurred.")
}

/// Runs a numeric function; `None` if `name` is not one.
pub(super) fn call(
    name: &str,
    result: SqlType,
    args: &[(SqlType, Datum)],
    context: &Context,
) -> Result<Option<Datum>, SqlError> {
    let float = |n: usize| match args.get(n).map(|a| &a.1) {
        Some(Datum::Float(f)) => *f,
        Some(Datum::Int(n)) => *n as f64,
        _ => 0.0,
    };
    let checked = |value: f64| if value.is_finite() { Ok(Datum::Float(value)) } else { Err(float_error()) };
    Ok(Some(match name {
        "NEG" => match &args[0].1 {
            Datum::Int(n) => {
                let (_, high) = convert::range(result);
                if !result.is_money() && i128::from(*n).abs() > high {
                    return Err(overflow(result.base_name()));
                }
                Datum::Int(-n)
            }
            Datum::Dec(m) => Datum::Dec(-m),
            Datum::Float(f) => Datum::Float(-f),
            _ => Datum::Null,
        },
        "ABS" => match &args[0].1 {
            Datum::Int(n) => {
                let (_, high) = convert::range(result);
                if !result.is_money() && i128::from(*n).abs() > high {
                    return Err(overflow(result.base_name()));
                }
                Datum::Int(n.abs())
            }
            Datum::Dec(m) => Datum::Dec(m.abs()),
            Datum::Float(f) => Datum::Float(f.abs()),
            _ => Datum::Null,
        },
        "SIGN" => match &args[0].1 {
            Datum::Int(n) if result.is_money() => Datum::Int(n.signum() * 10_000),
            Datum::Int(n) => Datum::Int(n.signum()),
            Datum::Dec(m) => Datum::Dec(m.signum() * decimal::pow10(result.scale)),
            Datum::Float(f) => Datum::Float(if *f == 0.0 { 0.0 } else { f.signum() }),
            _ => Datum::Null,
        },
        "FLOOR" | "CEILING" => {
            let up = name == "CEILING";
            let whole = |m: i128, scale: u8| {
                let unit = decimal::pow10(scale);
                if up { -((-m).div_euclid(unit)) } else { m.div_euclid(unit) }
            };
            match &args[0].1 {
                Datum::Int(n) if result.is_money() => Datum::Int(whole(i128::from(*n), 4) as i64 * 10_000),
                Datum::Dec(m) => Datum::Dec(whole(*m, args[0].0.scale)),
                Datum::Float(f) => Datum::Float(if up { f.ceil() } else { f.floor() }),
                other => other.clone(),
            }
        }
        "ROUND" => {
            let places = args[1].1.as_i64().unwrap_or(0).clamp(-38, 38) as i8;
            let truncate = args.get(2).and_then(|a| a.1.as_i64()).unwrap_or(0) != 0;
            let exact = |m: i128, scale: u8| -> i128 {
                let drop = i32::from(scale) - i32::from(places);
                if drop <= 0 {
                    return m;
                }
                if drop > 38 {
                    return 0;
                }
                let rounded = if truncate {
                    Some(m / decimal::pow10(drop as u8))
                } else {
                    decimal::rescale(m, drop as u8, 0)
                };
                rounded.and_then(|r| r.checked_mul(decimal::pow10(drop as u8))).unwrap_or(0)
            };
            match &args[0].1 {
                Datum::Int(n) => {
                    let value = exact(i128::from(*n), if result.is_money() { 4 } else { 0 });
                    let (low, high) =
                        convert::range(if result.is_money() { SqlType::BIGINT } else { result });
                    if value < low || value > high {
                        return Err(overflow(result.base_name()));
                    }
                    Datum::Int(value as i64)
                }
                Datum::Dec(m) => {
                    let value = exact(*m, args[0].0.scale);
                    if !decimal::fits(value, result.len) {
                        return Err(overflow("numeric"));
                    }
                    Datum::Dec(value)
                }
                Datum::Float(f) => {
                    let unit = 10f64.powi(i32::from(places));
                    let scaled = f * unit;
                    let whole = if truncate { scaled.trunc() } else { scaled.round() };
                    Datum::Float(if unit.is_finite() && unit > 0.0 { whole / unit } else { *f })
                }
                _ => Datum::Null,
            }
        }
        "POWER" => {
            let base = convert::cast(args[0].1.clone(), args[0].0, SqlType::FLOAT, Rules::CAST)?;
            let Datum::Float(base) = base else { return Ok(Some(Datum::Null)) };
            let value = base.powf(float(1));
            if !value.is_finite() {
                return Err(float_error());
            }
            if result.is_integer() && value.abs() > convert::range(result).1 as f64 {
                return Err(SqlError::new(
                    232,
                    16,
                    3,
                    format!("Arithmetic overflow error for type {}, value = {value:.6}.", result.base_name()),
                ));
            }
            convert::cast(Datum::Float(value), SqlType::FLOAT, result, Rules::CAST)?
        }
        "SQRT" => checked(float(0).sqrt())?,
        "SQUARE" => checked(float(0) * float(0))?,
        "EXP" => checked(float(0).exp())?,
        "LOG" if args.len() > 1 => checked(float(0).ln() / float(1).ln())?,
        "LOG" => checked(float(0).ln())?,
        "LOG10" => checked(float(0).log10())?,
        "SIN" => checked(float(0).sin())?,
        "COS" => checked(float(0).cos())?,
        "TAN" => checked(float(0).tan())?,
        "ASIN" => checked(float(0).asin())?,
        "ACOS" => checked(float(0).acos())?,
        "ATAN" => checked(float(0).atan())?,
        "ATN2" => checked(float(0).atan2(float(1)))?,
        "RADIANS" => checked(float(0).to_radians())?,
        "DEGREES" => checked(float(0).to_degrees())?,
        "PI" => Datum::Float(std::f64::consts::PI),
        "RAND" => {
            if let Some(seed) = args.first().and_then(|a| a.1.as_i64()) {
                context.seed.store((seed as u64).wrapping_mul(0x2545_F491_4F6C_DD1D) | 1, Ordering::Relaxed);
            }
            Datum::Float((random(context) >> 11) as f64 / (1u64 << 53) as f64)
        }
        "NEWID" | "NEWSEQUENTIALID" => {
            let mut wire = [0; 16];
            wire[..8].copy_from_slice(&random(context).to_le_bytes());
            wire[8..].copy_from_slice(&random(context).to_le_bytes());
            wire[7] = wire[7] & 0x0F | 0x40;
            wire[8] = wire[8] & 0x3F | 0x80;
            Datum::Bytes(datum::guid_to_sortable(&wire).to_vec())
        }
        "CRYPT_GEN_RANDOM" => {
            let len = args[0].1.as_i64().unwrap_or(0).clamp(0, 8000) as usize;
            let mut bytes = Vec::with_capacity(len + 8);
            while bytes.len() < len {
                bytes.extend(random(context).to_le_bytes());
            }
            bytes.truncate(len);
            Datum::Bytes(bytes)
        }
        "CHECKSUM" | "BINARY_CHECKSUM" => {
            let mut sum: u32 = 0;
            for (ty, value) in args {
                let text =
                    convert::to_string(value, *ty, SqlType::nvarchar(4000), Rules::CAST).unwrap_or_default();
                let text = if name == "CHECKSUM" { text.to_lowercase() } else { text };
                for byte in text.trim_end().bytes() {
                    sum = sum.rotate_left(4) ^ u32::from(byte);
                }
            }
            Datum::Int(i64::from(sum as i32))
        }
        _ => return Ok(None),
    }))
}
