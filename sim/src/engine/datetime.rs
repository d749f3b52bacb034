//! Dates and times: civil calendar, reading T-SQL's formats, writing CONVERT's styles.

use std::time::{SystemTime, UNIX_EPOCH};

/// 100 ns in a day.
pub(super) const DAY: i64 = 864_000_000_000;
/// 100 ns in a second.
pub(super) const SECOND: i64 = 10_000_000;
/// Days from 0001-01-01 to 1900-01-01.
pub(super) const DAYS_TO_1900: i64 = 693_595;
/// Days from 0001-01-01 to 1970-01-01.
const DAYS_TO_1970: i64 = 719_162;

/// A moment split into fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Civil {
    pub(super) year: i64,
    pub(super) month: i64,
    pub(super) day: i64,
    pub(super) hour: i64,
    pub(super) minute: i64,
    pub(super) second: i64,
    /// 100 ns within the second.
    pub(super) ticks: i64,
}

/// Days since 0001-01-01 of a civil date.
pub(super) fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let doy = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    era * 146_097 + doe - 306
}

/// The civil date of days since 0001-01-01.
pub(super) fn date_of(days: i64) -> (i64, i64, i64) {
    let z = days + 306;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, day)
}

/// Splits 100 ns since 0001-01-01.
pub(super) fn split(ticks: i64) -> Civil {
    let (year, month, day) = date_of(ticks.div_euclid(DAY));
    let rest = ticks.rem_euclid(DAY);
    let seconds = rest / SECOND;
    Civil {
        year,
        month,
        day,
        hour: seconds / 3600,
        minute: seconds / 60 % 60,
        second: seconds % 60,
        ticks: rest % SECOND,
    }
}

/// The moment now, UTC, in 100 ns since 0001-01-01.
pub(super) fn utc_now() -> i64 {
    ticks_of(SystemTime::now())
}

/// A system time in 100 ns since 0001-01-01.
pub(super) fn ticks_of(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() / 100);
    DAYS_TO_1970 * DAY + since as i64
}

/// `datetime`'s 1/300 s since 1900 from 100 ns since 0001, rounded.
pub(super) fn to_datetime(ticks: i64) -> i64 {
    let since = ticks - DAYS_TO_1900 * DAY;
    let days = since.div_euclid(DAY);
    let rest = since.rem_euclid(DAY);
    days * 25_920_000 + (rest * 3 + 50_000) / 100_000
}

/// 100 ns since 0001 from `datetime`'s 1/300 s since 1900; milliseconds end in 0, 3 or 7 as SQL Server shows them.
pub(super) fn from_datetime(value: i64) -> i64 {
    let days = value.div_euclid(25_920_000);
    let rest = value.rem_euclid(25_920_000);
    let milliseconds = (rest * 10 + 1) / 3;
    (days + DAYS_TO_1900) * DAY + milliseconds * 10_000
}

/// Rounds 100 ns to `scale` fractional digits.
pub(super) fn round_ticks(ticks: i64, scale: u8) -> i64 {
    let unit = 10i64.pow(u32::from(7 - scale.min(7)));
    (ticks + unit / 2).div_euclid(unit) * unit
}

/// What a string said: date and time parts, offset in minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Parsed {
    pub(super) days: Option<i64>,
    pub(super) time: i64,
    pub(super) offset: Option<i16>,
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
/// The months' English names.
pub(super) const MONTH_NAMES: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
/// The weekdays' English names from Monday.
pub(super) const DAY_NAMES: [&str; 7] =
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

fn valid_days(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=9999).contains(&year) || !(1..=12).contains(&month) || day < 1 {
        return None;
    }
    let days = days_of(year, month, day);
    (date_of(days) == (year, month, day)).then_some(days)
}

/// Reads a date, a time, or both. `order` is DATEFORMAT (`mdy`, `dmy`, `ymd`).
pub(super) fn parse(text: &str, order: &str) -> Option<Parsed> {
    let text = text.trim();
    let mut parsed = Parsed::default();
    if text.is_empty() {
        parsed.days = Some(DAYS_TO_1900);
        return Some(parsed);
    }
    let lower = text.to_ascii_lowercase();
    let mut rest = lower.as_str();
    if let Some((days, after)) = read_date(rest, order) {
        parsed.days = Some(days);
        rest = after.trim_start();
        rest = rest.strip_prefix('t').unwrap_or(rest).trim_start();
        if rest.is_empty() {
            return Some(parsed);
        }
    }
    let (time, after) = read_time(rest)?;
    parsed.time = time;
    let zone = after.trim();
    if zone == "z" {
        parsed.offset = Some(0);
    } else if let Some(sign) = zone.chars().next().filter(|c| *c == '+' || *c == '-') {
        let (hours, minutes) = zone[1..].split_once(':')?;
        let total =
            hours.trim().parse::<i16>().ok()?.checked_mul(60)?.checked_add(minutes.trim().parse().ok()?)?;
        if total > 14 * 60 {
            return None;
        }
        parsed.offset = Some(if sign == '-' { -total } else { total });
    } else if !zone.is_empty() {
        return None;
    }
    Some(parsed)
}

fn number(text: &str) -> Option<(i64, usize, &str)> {
    let len = text.bytes().take_while(u8::is_ascii_digit).count();
    if len == 0 || len > 9 { None } else { Some((text[..len].parse().ok()?, len, &text[len..])) }
}

fn read_date<'a>(text: &'a str, order: &str) -> Option<(i64, &'a str)> {
    let century = |year: i64, len: usize| {
        if len <= 2 { if year < 50 { 2000 + year } else { 1900 + year } } else { year }
    };
    let month_of =
        |word: &str| MONTHS.iter().position(|m| word.len() >= 3 && word.starts_with(m)).map(|p| p as i64 + 1);
    let word_at = |text: &'a str| {
        let len = text.bytes().take_while(u8::is_ascii_alphabetic).count();
        (&text[..len], &text[len..])
    };
    let skip = |text: &'a str| text.trim_start_matches([' ', ',', '-', '/', '.']);
    if text.starts_with(|c: char| c.is_ascii_alphabetic()) {
        // Jan 2 2003
        let (word, rest) = word_at(text);
        let month = month_of(word)?;
        let (day, _, rest) = number(skip(rest))?;
        let (year, len, rest) = number(skip(rest))?;
        return Some((valid_days(century(year, len), month, day)?, rest));
    }
    let (first, len, rest) = number(text)?;
    if len == 8 {
        return Some((valid_days(first / 10_000, first / 100 % 100, first % 100)?, rest));
    }
    if len == 6 && !rest.starts_with(':') {
        return Some((valid_days(century(first / 10_000, 2), first / 100 % 100, first % 100)?, rest));
    }
    let separator = rest.chars().next()?;
    if separator == ':' {
        return None;
    }
    let after = skip(rest);
    if after.starts_with(|c: char| c.is_ascii_alphabetic()) {
        // 2 Jan 2003
        let (word, rest) = word_at(after);
        if let Some(month) = month_of(word) {
            let (second, second_len, rest) = number(skip(rest))?;
            return if len == 4 {
                Some((valid_days(first, month, second)?, rest))
            } else {
                Some((valid_days(century(second, second_len), month, first)?, rest))
            };
        }
        return None;
    }
    if !matches!(separator, '-' | '/' | '.') {
        return None;
    }
    let (second, _, rest) = number(&rest[1..])?;
    let rest = rest.strip_prefix(separator)?;
    let (third, third_len, rest) = number(rest)?;
    let (year, month, day) = if len == 4 {
        if order.eq_ignore_ascii_case("ydm") { (first, third, second) } else { (first, second, third) }
    } else {
        match order.to_ascii_lowercase().as_str() {
            "dmy" => (century(third, third_len), second, first),
            "ymd" => (century(first, len), second, third),
            _ => (century(third, third_len), first, second),
        }
    };
    Some((valid_days(year, month, day)?, rest))
}

fn read_time(text: &str) -> Option<(i64, &str)> {
    let (mut hour, _, mut rest) = number(text)?;
    let (mut minute, mut second, mut fraction) = (0, 0, 0);
    let mut has_minutes = false;
    if let Some(after) = rest.strip_prefix(':') {
        has_minutes = true;
        (minute, _, rest) = number(after)?;
        if let Some(after) = rest.strip_prefix(':') {
            (second, _, rest) = number(after)?;
            if let Some(after) = rest.strip_prefix(['.', ':']) {
                let len = after.bytes().take_while(u8::is_ascii_digit).count();
                if len == 0 || len > 9 {
                    return None;
                }
                let digits = format!("{:0<9}", &after[..len]);
                fraction = (digits.parse::<i64>().ok()? + 50) / 100;
                rest = &after[len..];
            }
        }
    }
    let trimmed = rest.trim_start();
    if let Some(after) = trimmed.strip_prefix("am") {
        if hour == 12 {
            hour = 0;
        }
        rest = after;
    } else if let Some(after) = trimmed.strip_prefix("pm") {
        if hour < 12 {
            hour += 12;
        }
        rest = after;
    } else if !has_minutes {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    Some((((hour * 60 + minute) * 60 + second) * SECOND + fraction, rest))
}

/// Fraction digits with a leading point, or nothing.
pub(super) fn fraction(ticks: i64, scale: u8) -> String {
    if scale == 0 {
        String::new()
    } else {
        format!(".{}", &format!("{ticks:07}")[..usize::from(scale.min(7))])
    }
}

/// `+02:00`.
pub(super) fn offset_text(minutes: i16) -> String {
    format!("{}{:02}:{:02}", if minutes < 0 { '-' } else { '+' }, minutes.abs() / 60, minutes.abs() % 60)
}

/// CONVERT's styles for date and time together; `scale` is the number of fraction digits to show where a style has them.
pub(super) fn format_style(c: Civil, style: i64, scale: u8) -> Option<String> {
    let mon = &MONTH_NAMES[(c.month as usize - 1).min(11)][..3];
    let hour12 = if c.hour % 12 == 0 { 12 } else { c.hour % 12 };
    let half = if c.hour < 12 { "AM" } else { "PM" };
    let yy = c.year % 100;
    let ms = c.ticks / 10_000;
    let (y, m, d, h, n, s) = (c.year, c.month, c.day, c.hour, c.minute, c.second);
    Some(match style {
        0 | 100 => format!("{mon} {d:>2} {y:04} {hour12:>2}:{n:02}{half}"),
        1 => format!("{m:02}/{d:02}/{yy:02}"),
        101 => format!("{m:02}/{d:02}/{y:04}"),
        2 => format!("{yy:02}.{m:02}.{d:02}"),
        102 => format!("{y:04}.{m:02}.{d:02}"),
        3 => format!("{d:02}/{m:02}/{yy:02}"),
        103 => format!("{d:02}/{m:02}/{y:04}"),
        4 => format!("{d:02}.{m:02}.{yy:02}"),
        104 => format!("{d:02}.{m:02}.{y:04}"),
        5 => format!("{d:02}-{m:02}-{yy:02}"),
        105 => format!("{d:02}-{m:02}-{y:04}"),
        6 => format!("{d:02} {mon} {yy:02}"),
        106 => format!("{d:02} {mon} {y:04}"),
        7 => format!("{mon} {d:02}, {yy:02}"),
        107 => format!("{mon} {d:02}, {y:04}"),
        8 | 24 | 108 => format!("{h:02}:{n:02}:{s:02}"),
        9 | 109 => format!("{mon} {d:>2} {y:04} {hour12:>2}:{n:02}:{s:02}:{ms:03}{half}"),
        10 => format!("{m:02}-{d:02}-{yy:02}"),
        110 => format!("{m:02}-{d:02}-{y:04}"),
        11 => format!("{yy:02}/{m:02}/{d:02}"),
        111 => format!("{y:04}/{m:02}/{d:02}"),
        12 => format!("{yy:02}{m:02}{d:02}"),
        112 => format!("{y:04}{m:02}{d:02}"),
        13 | 113 => format!("{d:02} {mon} {y:04} {h:02}:{n:02}:{s:02}:{ms:03}"),
        14 | 114 => format!("{h:02}:{n:02}:{s:02}:{ms:03}"),
        20 | 120 => format!("{y:04}-{m:02}-{d:02} {h:02}:{n:02}:{s:02}"),
        21 | 25 | 121 => format!("{y:04}-{m:02}-{d:02} {h:02}:{n:02}:{s:02}{}", fraction(c.ticks, scale)),
        23 => format!("{y:04}-{m:02}-{d:02}"),
        126 | 127 => {
            let shown = if c.ticks == 0 { String::new() } else { fraction(c.ticks, scale) };
            format!("{y:04}-{m:02}-{d:02}T{h:02}:{n:02}:{s:02}{shown}")
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calendar_is_its_own_inverse() {
        assert_eq!(days_of(1, 1, 1), 0);
        assert_eq!(days_of(1900, 1, 1), DAYS_TO_1900);
        assert_eq!(days_of(1970, 1, 1), DAYS_TO_1970);
        for days in [0, 1, 58, 59, 60, 693_595, 730_119, 3_652_058] {
            let (y, m, d) = date_of(days);
            assert_eq!(days_of(y, m, d), days);
        }
    }

    #[test]
    fn the_usual_date_strings_are_read() {
        let expect = days_of(2024, 2, 29);
        for text in [
            "20240229",
            "2024-02-29",
            "2024/02/29",
            "2/29/2024",
            "Feb 29 2024",
            "29 Feb 2024",
            "2024-02-29T10:11:12.5",
        ] {
            assert_eq!(parse(text, "mdy").and_then(|p| p.days), Some(expect), "{text}");
        }
        assert_eq!(parse("29/02/2024", "dmy").and_then(|p| p.days), Some(expect));
        assert_eq!(parse("29/02/2024", "mdy"), None);
        assert_eq!(parse("10:11:12.1234567 +02:00", "mdy").unwrap().offset, Some(120));
        assert_eq!(parse("10:11 pm", "mdy").unwrap().time, ((22 * 60 + 11) * 60) * SECOND);
    }
}
