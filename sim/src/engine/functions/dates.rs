//! Date functions.

use std::sync::atomic::Ordering;

use super::Context;
use crate::engine::convert::{self, Rules};
use crate::engine::datetime::{self, DAY, SECOND};
use crate::engine::datum::Datum;
use crate::engine::message_text::SqlError;
use crate::engine::types::{Kind, SqlType};

/// The canonical name of a date part, from any of its abbreviations.
pub(in super::super) fn part(name: &str) -> Option<&'static str> {
    Some(match name.to_ascii_lowercase().as_str() {
        "year" | "yy" | "yyyy" => "year",
        "quarter" | "qq" | "q" => "quarter",
        "month" | "mm" | "m" => "month",
        "dayofyear" | "dy" | "y" => "dayofyear",
        "day" | "dd" | "d" => "day",
        "week" | "wk" | "ww" => "week",
        "iso_week" | "isowk" | "isoww" => "iso_week",
        "weekday" | "dw" | "w" => "weekday",
        "hour" | "hh" => "hour",
        "minute" | "mi" | "n" => "minute",
        "second" | "ss" | "s" => "second",
        "millisecond" | "ms" => "millisecond",
        "microsecond" | "mcs" => "microsecond",
        "nanosecond" | "ns" => "nanosecond",
        "tzoffset" | "tz" => "tzoffset",
        _ => return None,
    })
}

fn out_of_range(ty: SqlType) -> SqlError {
    SqlError::new(517, 16, 1, format!("Adding a value to a '{}' column caused an overflow.", ty.base_name()))
}

fn cannot_build(kind: &str) -> SqlError {
    SqlError::new(
        289,
        16,
        1,
        format!("Cannot construct data type {kind}, some of the arguments have values which are not valid."),
    )
}

fn last_day(year: i64, month: i64) -> i64 {
    let (next_year, next_month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    datetime::days_of(next_year, next_month, 1) - datetime::days_of(year, month, 1)
}

fn from_ticks(ticks: i64, ty: SqlType, like: &Datum) -> Datum {
    match ty.kind {
        Kind::Date => Datum::Int(ticks.div_euclid(DAY)),
        Kind::Time => Datum::Int(ticks.rem_euclid(DAY)),
        Kind::DateTime => Datum::Int(datetime::to_datetime(ticks)),
        Kind::SmallDateTime => {
            Datum::Int((ticks - datetime::DAYS_TO_1900 * DAY + 300_000_000).div_euclid(600_000_000))
        }
        Kind::DateTimeOffset => {
            let minutes = if let Datum::Offset(_, minutes) = like { *minutes } else { 0 };
            Datum::Offset(ticks - i64::from(minutes) * 600_000_000, minutes)
        }
        _ => Datum::Int(ticks),
    }
}

/// Runs a date function; `None` if `name` is not one.
pub(super) fn call(
    name: &str,
    result: SqlType,
    args: &[(SqlType, Datum)],
    context: &Context,
) -> Result<Option<Datum>, SqlError> {
    let int = |n: usize| args.get(n).and_then(|a| a.1.as_i64()).unwrap_or(0);
    let ticks = |n: usize| args.get(n).and_then(|a| a.1.ticks(a.0)).unwrap_or(0);
    Ok(Some(match name {
        "DATEADD" => {
            let part = part(args[0].1.as_str().unwrap_or("")).unwrap_or("day");
            let amount = int(1);
            let start = ticks(2);
            let moved = match part {
                "year" | "quarter" | "month" => {
                    let civil = datetime::split(start);
                    let months = match part {
                        "year" => amount.saturating_mul(12),
                        "quarter" => amount.saturating_mul(3),
                        _ => amount,
                    };
                    let total = (civil.year * 12 + civil.month - 1).saturating_add(months);
                    let (year, month) = (total.div_euclid(12), total.rem_euclid(12) + 1);
                    if !(1..=9999).contains(&year) {
                        return Err(out_of_range(result));
                    }
                    let day = civil.day.min(last_day(year, month));
                    datetime::days_of(year, month, day) * DAY + start.rem_euclid(DAY)
                }
                _ => {
                    let unit = match part {
                        "week" => 7 * DAY,
                        "hour" => 3600 * SECOND,
                        "minute" => 60 * SECOND,
                        "second" => SECOND,
                        "millisecond" => SECOND / 1000,
                        "microsecond" => 10,
                        "nanosecond" => 0,
                        _ => DAY,
                    };
                    let step =
                        if part == "nanosecond" { Some(amount / 100) } else { amount.checked_mul(unit) };
                    step.and_then(|s| start.checked_add(s)).ok_or_else(|| out_of_range(result))?
                }
            };
            if args[2].0.kind != Kind::Time && !(0..3_652_059 * DAY).contains(&moved) {
                return Err(out_of_range(result));
            }
            from_ticks(moved, result, &args[2].1)
        }
        "DATEDIFF" | "DATEDIFF_BIG" => {
            let part = part(args[0].1.as_str().unwrap_or("")).unwrap_or("day");
            let (a, b) = (ticks(1), ticks(2));
            let (x, y) = (datetime::split(a), datetime::split(b));
            let units = |unit: i64| b.div_euclid(unit) - a.div_euclid(unit);
            let difference = match part {
                "year" => y.year - x.year,
                "quarter" => (y.year * 4 + (y.month - 1) / 3) - (x.year * 4 + (x.month - 1) / 3),
                "month" => (y.year * 12 + y.month) - (x.year * 12 + x.month),
                // A week begins on Sunday here, whatever DATEFIRST says.
                "week" => (b.div_euclid(DAY) + 1).div_euclid(7) - (a.div_euclid(DAY) + 1).div_euclid(7),
                "hour" => units(3600 * SECOND),
                "minute" => units(60 * SECOND),
                "second" => units(SECOND),
                "millisecond" => units(SECOND / 1000),
                "microsecond" => units(10),
                "nanosecond" => (b - a).saturating_mul(100),
                _ => units(DAY),
            };
            if name == "DATEDIFF" && i32::try_from(difference).is_err() {
                return Err(SqlError::new(
                    535,
                    16,
                    0,
                    "The datediff function resulted in an overflow. The number of dateparts separating two date/time instances is too large. Try to use datediff with a less precise datepart.",
                ));
            }
            Datum::Int(difference)
        }
        "DATEPART" => {
            Datum::Int(number(part(args[0].1.as_str().unwrap_or("")).unwrap_or("day"), &args[1], context))
        }
        "DATENAME" => {
            let part = part(args[0].1.as_str().unwrap_or("")).unwrap_or("day");
            let civil = datetime::split(ticks(1));
            Datum::Str(match part {
                "month" => datetime::MONTH_NAMES[(civil.month as usize - 1).min(11)].to_string(),
                "weekday" => datetime::DAY_NAMES[ticks(1).div_euclid(DAY).rem_euclid(7) as usize].to_string(),
                "tzoffset" => datetime::offset_text(number(part, &args[1], context) as i16),
                _ => number(part, &args[1], context).to_string(),
            })
        }
        "YEAR" => Datum::Int(datetime::split(ticks(0)).year),
        "MONTH" => Datum::Int(datetime::split(ticks(0)).month),
        "DAY" => Datum::Int(datetime::split(ticks(0)).day),
        "EOMONTH" => {
            let civil = datetime::split(ticks(0));
            let total = civil.year * 12 + civil.month - 1 + int(1);
            let (year, month) = (total.div_euclid(12), total.rem_euclid(12) + 1);
            Datum::Int(datetime::days_of(year, month, last_day(year, month)))
        }
        "DATEFROMPARTS" | "DATETIMEFROMPARTS" | "DATETIME2FROMPARTS" => {
            let (year, month, day) = (int(0), int(1), int(2));
            if !(1..=9999).contains(&year)
                || !(1..=12).contains(&month)
                || day < 1
                || day > last_day(year, month)
            {
                return Err(cannot_build(result.base_name()));
            }
            let days = datetime::days_of(year, month, day);
            if name == "DATEFROMPARTS" {
                Datum::Int(days)
            } else {
                let fraction = if name == "DATETIMEFROMPARTS" {
                    int(6) * 10_000
                } else {
                    int(6) * 10i64.pow(7 - int(7).clamp(0, 7) as u32)
                };
                let time = ((int(3) * 60 + int(4)) * 60 + int(5)) * SECOND + fraction;
                if !(0..24).contains(&int(3)) || !(0..60).contains(&int(4)) || !(0..60).contains(&int(5)) {
                    return Err(cannot_build(result.base_name()));
                }
                from_ticks(days * DAY + time, result, &Datum::Null)
            }
        }
        "TIMEFROMPARTS" => {
            let fraction = int(3) * 10i64.pow(7 - int(4).clamp(0, 7) as u32);
            Datum::Int(((int(0) * 60 + int(1)) * 60 + int(2)) * SECOND + fraction)
        }
        "TODATETIMEOFFSET" | "SWITCHOFFSET" => {
            let minutes = match &args[1].1 {
                Datum::Int(n) => *n as i16,
                Datum::Str(text) => datetime::parse(&format!("00:00 {text}"), "mdy")
                    .and_then(|p| p.offset)
                    .ok_or_else(|| {
                    SqlError::new(
                        9812,
                        16,
                        0,
                        "The timezone provided to builtin function todatetimeoffset is invalid.",
                    )
                })?,
                _ => 0,
            };
            match &args[0].1 {
                Datum::Offset(utc, _) => Datum::Offset(*utc, minutes),
                Datum::Int(local) => Datum::Offset(local - i64::from(minutes) * 600_000_000, minutes),
                _ => Datum::Null,
            }
        }
        "DTCAST" => convert::cast(args[0].1.clone(), args[0].0, result, Rules::CAST)?,
        _ => return Ok(None),
    }))
}

fn number(part: &str, arg: &(SqlType, Datum), context: &Context) -> i64 {
    let ticks = arg.1.ticks(arg.0).unwrap_or(0);
    let c = datetime::split(ticks);
    let days = ticks.div_euclid(DAY);
    let first_of_year = datetime::days_of(c.year, 1, 1);
    let first = i64::from(context.date_first.load(Ordering::Relaxed)).clamp(1, 7);
    // 0001-01-01 was a Monday.
    let weekday = |days: i64| (days.rem_euclid(7) + 1 - first).rem_euclid(7) + 1;
    match part {
        "year" => c.year,
        "quarter" => (c.month - 1) / 3 + 1,
        "month" => c.month,
        "dayofyear" => days - first_of_year + 1,
        "week" => (days - first_of_year + weekday(first_of_year) - 1) / 7 + 1,
        "iso_week" => {
            let thursday = days - days.rem_euclid(7) + 3;
            let (year, _, _) = datetime::date_of(thursday);
            (thursday - datetime::days_of(year, 1, 1)) / 7 + 1
        }
        "weekday" => weekday(days),
        "hour" => c.hour,
        "minute" => c.minute,
        "second" => c.second,
        "millisecond" => c.ticks / 10_000,
        "microsecond" => c.ticks / 10,
        "nanosecond" => c.ticks * 100,
        "tzoffset" => match arg.1 {
            Datum::Offset(_, minutes) => i64::from(minutes),
            _ => 0,
        },
        _ => c.day,
    }
}
