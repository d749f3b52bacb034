//! What clients of older TDS versions get instead of types that they do not know: before 7.2 the `(max)` types and `xml`
//! are `text`, `ntext` and `image`; before 7.3 the date and time types of SQL Server 2008 are `nvarchar`.

use std::borrow::Cow;

use tds::TdsVersion;
use tds::col_metadata::Column;
use tds::type_info::{CharInfo, Collation, MAX, TextInfo, TypeInfo};
use tds::value::Value;

const TICKS_PER_SECOND: u64 = 10_000_000;
const TICKS_PER_DAY: i64 = 86_400 * TICKS_PER_SECOND as i64;

/// The column as the client can read it.
pub(crate) fn column(column: &Column, version: TdsVersion) -> Column {
    let mut column = column.clone();
    if let Some(type_info) = older(&column.type_info, version) {
        column.table = type_info.is_text_or_image().then(Vec::new);
        column.type_info = type_info;
    }
    column
}

/// The values of a row; `columns` are the engine's own.
pub(crate) fn row<'a>(values: &'a [Value], columns: &[Column], version: TdsVersion) -> Cow<'a, [Value]> {
    let known =
        version.generation() >= 3 || columns.iter().all(|column| older(&column.type_info, version).is_none());
    if known {
        return Cow::Borrowed(values);
    }
    values.iter().zip(columns).map(|(value, column)| as_text(value, &column.type_info, version)).collect()
}

fn older(type_info: &TypeInfo, version: TdsVersion) -> Option<TypeInfo> {
    let text = |collation| TextInfo { max_len: 0x7FFF_FFFF, collation };
    let ntext = |collation| TextInfo { max_len: 0x7FFF_FFFE, collation };
    if version.generation() < 2 {
        match type_info {
            TypeInfo::VarChar(info) if info.max_len == MAX => {
                return Some(TypeInfo::Text(text(info.collation)));
            }
            TypeInfo::NVarChar(info) if info.max_len == MAX => {
                return Some(TypeInfo::NText(ntext(info.collation)));
            }
            TypeInfo::VarBinary(MAX) => return Some(TypeInfo::Image(0x7FFF_FFFF)),
            TypeInfo::Xml(_) => return Some(TypeInfo::NText(ntext(Collation::LATIN1))),
            _ => {}
        }
    }
    let characters = match type_info {
        _ if version.generation() >= 3 => return None,
        TypeInfo::Date => 10,
        TypeInfo::Time(_) => 16,
        TypeInfo::DateTime2(_) => 27,
        TypeInfo::DateTimeOffset(_) => 34,
        _ => return None,
    };
    Some(TypeInfo::NVarChar(CharInfo { max_len: characters * 2, collation: Collation::LATIN1 }))
}

fn as_text(value: &Value, type_info: &TypeInfo, version: TdsVersion) -> Value {
    if version.generation() >= 3 {
        return value.clone();
    }
    let scale = match type_info {
        TypeInfo::Time(scale) | TypeInfo::DateTime2(scale) | TypeInfo::DateTimeOffset(scale) => *scale,
        _ => 0,
    };
    let text = match *value {
        Value::Date(days) => date(i64::from(days)),
        Value::Time(ticks) => time(ticks, scale),
        Value::DateTime2 { days, ticks } => format!("{} {}", date(i64::from(days)), time(ticks, scale)),
        Value::DateTimeOffset { days, ticks, offset } => {
            let local = i64::from(days) * TICKS_PER_DAY
                + ticks.min(TICKS_PER_DAY as u64) as i64
                + i64::from(offset) * 60 * TICKS_PER_SECOND as i64;
            let clock = time(local.rem_euclid(TICKS_PER_DAY).unsigned_abs(), scale);
            let sign = if offset < 0 { '-' } else { '+' };
            let (hours, minutes) = (offset.unsigned_abs() / 60, offset.unsigned_abs() % 60);
            format!("{} {clock} {sign}{hours:02}:{minutes:02}", date(local.div_euclid(TICKS_PER_DAY)))
        }
        Value::Xml(ref text) if version.generation() < 2 => text.clone(),
        _ => return value.clone(),
    };
    Value::String(text)
}

fn time(ticks: u64, scale: u8) -> String {
    let (seconds, fraction) = (ticks / TICKS_PER_SECOND, ticks % TICKS_PER_SECOND);
    let whole = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    match usize::from(scale.min(7)) {
        0 => whole,
        digits => format!("{whole}.{}", &format!("{fraction:07}")[..digits]),
    }
}

/// Days after 1 January of the year 1, counted from 1 March of the year 0 in eras of 400 years.
fn date(days: i64) -> String {
    let shifted = days + 306;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(type_info: TypeInfo, value: Value, version: TdsVersion) -> (TypeInfo, Value) {
        let own = [Column::new("v", type_info)];
        let values = [value];
        let shown = row(&values, &own, version).into_owned();
        (column(&own[0], version).type_info, shown.into_iter().next().unwrap())
    }

    #[test]
    fn clients_before_7_3_read_the_newer_dates_as_text() {
        let cases = [
            (TypeInfo::Date, Value::Date(738_944), "2024-02-29"),
            (TypeInfo::Time(3), Value::Time(476_551_234_567), "13:14:15.123"),
            (TypeInfo::DateTime2(0), Value::DateTime2 { days: 0, ticks: 0 }, "0001-01-01 00:00:00"),
            (
                TypeInfo::DateTimeOffset(7),
                Value::DateTimeOffset { days: 738_944, ticks: 828_000_000_000, offset: 120 },
                "2024-03-01 01:00:00.0000000 +02:00",
            ),
        ];
        for (type_info, value, text) in cases {
            let (shown, said) = seen(type_info.clone(), value.clone(), TdsVersion::V7_2);
            assert!(matches!(shown, TypeInfo::NVarChar(_)), "{shown:?}");
            assert_eq!(said, Value::String(text.into()));
            assert_eq!(seen(type_info.clone(), value.clone(), TdsVersion::V7_3A), (type_info, value));
        }
    }

    #[test]
    fn clients_before_7_2_read_long_values_as_text() {
        let long = TypeInfo::VarChar(CharInfo { max_len: MAX, collation: Collation::LATIN1 });
        let value = Value::String("long".into());
        assert!(matches!(seen(long.clone(), value.clone(), TdsVersion::V7_1), (TypeInfo::Text(_), _)));
        assert_eq!(seen(long.clone(), value.clone(), TdsVersion::V7_2), (long, value));
        let (shown, said) = seen(TypeInfo::Xml(None), Value::Xml("<a/>".into()), TdsVersion::V7_1);
        assert!(matches!(shown, TypeInfo::NText(_)));
        assert_eq!(said, Value::String("<a/>".into()));
    }
}
