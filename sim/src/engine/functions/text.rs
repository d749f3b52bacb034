//! String functions and LIKE.

use crate::engine::convert::{self, Rules, char_len};
use crate::engine::datetime;
use crate::engine::datum::Datum;
use crate::engine::message_text::{SqlError, unsupported};
use crate::engine::types::{MAX, SqlType};

/// Longest string that functions build before they give up.
const LIMIT: usize = 64 << 20;

fn fold(text: &str) -> Vec<char> {
    text.chars().map(|c| c.to_lowercase().next().unwrap_or(c)).collect()
}

fn find(haystack: &[char], needle: &[char], from: usize) -> Option<usize> {
    if needle.is_empty() || haystack.len() < needle.len() {
        return None;
    }
    (from..=haystack.len() - needle.len()).find(|at| haystack[*at..].starts_with(needle))
}

fn slice(text: &str, start: i64, len: i64) -> String {
    let from = start.max(1);
    let until = start.saturating_add(len);
    if until <= from {
        return String::new();
    }
    text.chars().skip((from - 1) as usize).take((until - from) as usize).collect()
}

fn negative_length(name: &str) -> SqlError {
    SqlError::new(537, 16, 3, format!("Invalid length parameter passed to the {name} function."))
}

/// Runs a string function; `None` if `name` is not one.
pub(super) fn call(
    name: &str,
    result: SqlType,
    args: &[(SqlType, Datum)],
) -> Result<Option<Datum>, SqlError> {
    let text = |n: usize| args.get(n).and_then(|a| a.1.as_str()).unwrap_or("");
    let int = |n: usize| args.get(n).and_then(|a| a.1.as_i64()).unwrap_or(0);
    let is_null = |n: usize| args.get(n).is_none_or(|a| a.1.is_null());
    let cut = |out: String| -> Datum {
        if result.len != MAX && char_len(&out, result) > usize::from(result.len) {
            Datum::Str(slice(&out, 1, i64::from(result.len)))
        } else {
            Datum::Str(out)
        }
    };
    Ok(Some(match name {
        "LEN" => match &args[0].1 {
            Datum::Bytes(bytes) => Datum::Int(bytes.len() as i64),
            _ => Datum::Int(char_len(text(0).trim_end_matches(' '), args[0].0) as i64),
        },
        "DATALENGTH" => Datum::Int(data_length(&args[0].1, args[0].0)),
        "SUBSTRING" => {
            if int(2) < 0 {
                return Err(negative_length("substring"));
            }
            match &args[0].1 {
                Datum::Bytes(bytes) => {
                    let from = int(1).max(1);
                    let until = int(1).saturating_add(int(2)).max(from);
                    Datum::Bytes(
                        bytes
                            .iter()
                            .skip((from - 1) as usize)
                            .take((until - from) as usize)
                            .copied()
                            .collect(),
                    )
                }
                _ => Datum::Str(slice(text(0), int(1), int(2))),
            }
        }
        "LEFT" | "RIGHT" => {
            if int(1) < 0 {
                return Err(negative_length(&name.to_ascii_lowercase()));
            }
            let len = text(0).chars().count() as i64;
            let start = if name == "LEFT" { 1 } else { (len - int(1)).max(0) + 1 };
            Datum::Str(slice(text(0), start, int(1)))
        }
        "UPPER" => Datum::Str(text(0).to_uppercase()),
        "LOWER" => Datum::Str(text(0).to_lowercase()),
        "REVERSE" => Datum::Str(text(0).chars().rev().collect()),
        "LTRIM" | "RTRIM" | "TRIM" => {
            let set: Vec<char> = if args.len() > 1 { text(1).chars().collect() } else { vec![' '] };
            let trimmed = match name {
                "LTRIM" => text(0).trim_start_matches(&set[..]),
                "RTRIM" => text(0).trim_end_matches(&set[..]),
                _ => text(0).trim_matches(&set[..]),
            };
            Datum::str(trimmed)
        }
        "REPLACE" => {
            let (source, lowered, needle) =
                (text(0).chars().collect::<Vec<_>>(), fold(text(0)), fold(text(1)));
            let mut out = String::new();
            let mut at = 0;
            while let Some(hit) = find(&lowered, &needle, at) {
                out.extend(&source[at..hit]);
                out.push_str(text(2));
                at = hit + needle.len();
                if out.len() > LIMIT {
                    return Err(unsupported("strings of more than 64 MB from REPLACE"));
                }
            }
            out.extend(&source[at..]);
            cut(out)
        }
        "TRANSLATE" => {
            let (from, to) = (fold(text(1)), text(2).chars().collect::<Vec<_>>());
            if from.len() != to.len() {
                return Err(SqlError::new(
                    9828,
                    16,
                    1,
                    "The second and third arguments of the TRANSLATE built-in function must contain an equal number of characters.",
                ));
            }
            let out = text(0)
                .chars()
                .map(|c| from.iter().position(|f| Some(*f) == c.to_lowercase().next()).map_or(c, |p| to[p]))
                .collect();
            Datum::Str(out)
        }
        "REPLICATE" => {
            if int(1) < 0 {
                return Ok(Some(Datum::Null));
            }
            let mut times = int(1) as usize;
            if result.len != MAX && !text(0).is_empty() {
                times = times.min(usize::from(result.len) / char_len(text(0), result).max(1));
            }
            if text(0).len().saturating_mul(times) > LIMIT {
                return Err(unsupported("strings of more than 64 MB from REPLICATE"));
            }
            Datum::Str(text(0).repeat(times))
        }
        "CHARINDEX" => {
            let from = if args.len() > 2 { (int(2) - 1).max(0) as usize } else { 0 };
            if text(0).is_empty() {
                return Ok(Some(Datum::Int(0)));
            }
            Datum::Int(find(&fold(text(1)), &fold(text(0)), from).map_or(0, |at| at as i64 + 1))
        }
        "PATINDEX" => {
            let pattern = text(0);
            let source: Vec<char> = text(1).chars().collect();
            let anchored = !pattern.starts_with('%');
            let tail = pattern.trim_start_matches('%');
            let mut found = 0;
            for start in 0..=source.len() {
                if (!anchored || start == 0) && like(&source[start..].iter().collect::<String>(), tail, None)
                {
                    found = start as i64 + 1;
                    break;
                }
            }
            Datum::Int(found)
        }
        "STUFF" => {
            let (start, len) = (int(1), int(2));
            let total = text(0).chars().count() as i64;
            if start < 1 || start > total || len < 0 {
                return Ok(Some(Datum::Null));
            }
            let insert = if is_null(3) { "" } else { text(3) };
            cut(format!("{}{insert}{}", slice(text(0), 1, start - 1), slice(text(0), start + len, total)))
        }
        "CONCAT" => cut(args.iter().filter_map(|a| a.1.as_str()).collect()),
        "CONCAT_WS" => {
            let parts: Vec<&str> = args[1..].iter().filter_map(|a| a.1.as_str()).collect();
            cut(parts.join(text(0)))
        }
        "SPACE" => {
            if int(0) < 0 {
                Datum::Null
            } else {
                Datum::Str(" ".repeat(int(0).min(8000) as usize))
            }
        }
        "CHAR" => match u8::try_from(int(0)) {
            Ok(code) => Datum::Str((code as char).to_string()),
            Err(_) => Datum::Null,
        },
        "NCHAR" => char::from_u32(int(0) as u32).map_or(Datum::Null, |c| Datum::Str(c.to_string())),
        "ASCII" | "UNICODE" => {
            text(0).chars().next().map_or(Datum::Null, |c| Datum::Int(i64::from(c as u32)))
        }
        "STR" => {
            let Datum::Float(value) = args[0].1 else { return Ok(Some(Datum::Null)) };
            let width = if args.len() > 1 { int(1).clamp(0, 8000) as usize } else { 10 };
            let places = if args.len() > 2 { int(2).clamp(0, 16) as usize } else { 0 };
            // Half away from zero, as SQL Server rounds.
            let scaled =
                (value.abs() * 10f64.powi(places as i32) + 0.5 + 1e-9).floor() / 10f64.powi(places as i32);
            let mut shown = format!("{:.places$}", scaled.copysign(value));
            while shown.len() > width && shown.contains('.') {
                shown.pop();
                if shown.ends_with('.') {
                    shown.pop();
                    break;
                }
            }
            Datum::Str(if shown.len() > width { "*".repeat(width) } else { format!("{shown:>width$}") })
        }
        "QUOTENAME" => {
            let (open, close) = match text(1) {
                "" | "[" | "]" => ('[', ']'),
                "(" | ")" => ('(', ')'),
                "'" => ('\'', '\''),
                "\"" => ('"', '"'),
                "{" | "}" => ('{', '}'),
                _ => return Ok(Some(Datum::Null)),
            };
            Datum::Str(format!("{open}{}{close}", text(0).replace(close, &format!("{close}{close}"))))
        }
        "FORMAT" => Datum::Str(format(&args[0].1, args[0].0, text(1))?),
        "LIKE" => Datum::Int(i64::from(like(text(0), text(1), text(2).chars().next()))),
        "BCONCAT" => match (&args[0].1, &args[1].1) {
            (Datum::Bytes(a), Datum::Bytes(b)) => Datum::Bytes([&a[..], &b[..]].concat()),
            _ => Datum::Null,
        },
        "ISNUMERIC" => {
            let t = text(0).trim();
            let plain = t.replace([',', '$'], "");
            Datum::Int(i64::from(
                !plain.is_empty()
                    && (plain.parse::<f64>().is_ok_and(f64::is_finite)
                        && !plain.contains(['i', 'n', 'I', 'N'])),
            ))
        }
        "ISDATE" => Datum::Int(i64::from(
            !is_null(0) && datetime::parse(text(0), "mdy").is_some_and(|p| p.offset.is_none()),
        )),
        _ => return Ok(None),
    }))
}

/// DATALENGTH: bytes that SQL Server would need.
pub(in super::super) fn data_length(value: &Datum, ty: SqlType) -> i64 {
    match value {
        Datum::Null => 0,
        Datum::Str(text) if ty.is_unicode() => text.encode_utf16().count() as i64 * 2,
        Datum::Str(text) => text.chars().count() as i64,
        Datum::Bytes(bytes) => bytes.len() as i64,
        Datum::Variant(inner) => data_length(&inner.1, inner.0),
        _ => ty.max_length(),
    }
}

/// FORMAT for dates (yyyy-MM-dd HH:mm:ss) and numbers (N2, F2, D5, 0.00, #,##0.00).
fn format(value: &Datum, ty: SqlType, pattern: &str) -> Result<String, SqlError> {
    if let Some(ticks) = value.ticks(ty).filter(|_| ty.is_temporal()) {
        let c = datetime::split(ticks);
        let mut out = String::new();
        let chars: Vec<char> = match pattern {
            "d" => "M/d/yyyy".chars().collect(),
            other => other.chars().collect(),
        };
        let mut at = 0;
        while at < chars.len() {
            let run = chars[at..].iter().take_while(|x| **x == chars[at]).count();
            let month = (c.month as usize - 1).min(11);
            out.push_str(&match (chars[at], run) {
                ('y', 1 | 2) => format!("{:02}", c.year % 100),
                ('y', _) => format!("{:04}", c.year),
                ('M', 1) => c.month.to_string(),
                ('M', 2) => format!("{:02}", c.month),
                ('M', 3) => datetime::MONTH_NAMES[month][..3].to_string(),
                ('M', _) => datetime::MONTH_NAMES[month].to_string(),
                ('d', 1) => c.day.to_string(),
                ('d', 2) => format!("{:02}", c.day),
                ('d', n) => {
                    let day = datetime::DAY_NAMES[(ticks.div_euclid(datetime::DAY)).rem_euclid(7) as usize];
                    if n == 3 { day[..3].to_string() } else { day.to_string() }
                }
                ('H', 1) => c.hour.to_string(),
                ('H', _) => format!("{:02}", c.hour),
                ('h', 1) => ((c.hour + 11) % 12 + 1).to_string(),
                ('h', _) => format!("{:02}", (c.hour + 11) % 12 + 1),
                ('m', 1) => c.minute.to_string(),
                ('m', _) => format!("{:02}", c.minute),
                ('s', 1) => c.second.to_string(),
                ('s', _) => format!("{:02}", c.second),
                ('f', n) => format!("{:07}", c.ticks)[..n.min(7)].to_string(),
                ('t', _) => {
                    if c.hour < 12 {
                        "AM".into()
                    } else {
                        "PM".into()
                    }
                }
                (other, n) => std::iter::repeat_n(other, n).collect(),
            });
            at += run;
        }
        return Ok(out);
    }
    let places = match pattern.chars().next() {
        Some('N' | 'n' | 'F' | 'f') => pattern[1..].parse().unwrap_or(2),
        Some('D' | 'd') => 0,
        _ => pattern.split_once('.').map_or(0, |(_, f)| f.len() as u8),
    };
    let Datum::Dec(mantissa) = convert::cast(value.clone(), ty, SqlType::numeric(38, places), Rules::CAST)?
    else {
        return Ok(String::new());
    };
    let plain = crate::engine::decimal::to_text(mantissa, places);
    let (sign, plain) = plain.strip_prefix('-').map_or(("", plain.as_str()), |p| ("-", p));
    let (whole, fraction) = plain.split_once('.').unwrap_or((plain, ""));
    let mut whole = whole.to_string();
    let width = match pattern.chars().next() {
        Some('D' | 'd') => pattern[1..].parse().unwrap_or(1),
        Some('0' | '#') => pattern.split('.').next().unwrap_or("").chars().filter(|c| *c == '0').count(),
        Some('N' | 'n' | 'F' | 'f') => 1,
        _ => return Err(unsupported(format_args!("FORMAT with '{pattern}'"))),
    };
    while whole.len() < width {
        whole.insert(0, '0');
    }
    if pattern.starts_with(['N', 'n']) || pattern.contains(',') {
        let digits: Vec<char> = whole.chars().collect();
        whole = String::new();
        for (at, digit) in digits.iter().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                whole.push(',');
            }
            whole.push(*digit);
        }
    }
    Ok(if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

#[derive(Debug)]
enum Piece {
    Any,
    One,
    Char(char),
    Set { chars: Vec<(char, char)>, negated: bool },
}

fn pieces(pattern: &str, escape: Option<char>) -> Vec<Piece> {
    let lowered: Vec<char> = pattern.chars().map(|c| c.to_lowercase().next().unwrap_or(c)).collect();
    let mut out = Vec::new();
    let mut at = 0;
    while at < lowered.len() {
        let c = lowered[at];
        at += 1;
        if Some(c) == escape && at < lowered.len() {
            out.push(Piece::Char(lowered[at]));
            at += 1;
            continue;
        }
        match c {
            '%' => out.push(Piece::Any),
            '_' => out.push(Piece::One),
            '[' => match lowered[at..].iter().skip(1).position(|x| *x == ']').map(|p| p + 1) {
                None => out.push(Piece::Char('[')),
                Some(len) => {
                    let mut inner = &lowered[at..at + len];
                    let negated = inner.first() == Some(&'^');
                    if negated {
                        inner = &inner[1..];
                    }
                    let mut chars = Vec::new();
                    let mut i = 0;
                    while i < inner.len() {
                        if i + 2 < inner.len() && inner[i + 1] == '-' {
                            chars.push((inner[i], inner[i + 2]));
                            i += 3;
                        } else {
                            chars.push((inner[i], inner[i]));
                            i += 1;
                        }
                    }
                    out.push(Piece::Set { chars, negated });
                    at += len + 1;
                }
            },
            other => out.push(Piece::Char(other)),
        }
    }
    out
}

/// T-SQL's LIKE: `%`, `_`, `[a-z]`, `[^a-z]`; case does not count.
pub(in super::super) fn like(text: &str, pattern: &str, escape: Option<char>) -> bool {
    let text = fold(text);
    let pieces = pieces(pattern, escape);
    // Greedy with one backtracking point: the last `%`.
    let (mut t, mut p, mut star) = (0, 0, None);
    while t < text.len() {
        let hit = match pieces.get(p) {
            Some(Piece::Any) => {
                star = Some((p, t));
                p += 1;
                continue;
            }
            Some(Piece::One) => true,
            Some(Piece::Char(c)) => *c == text[t],
            Some(Piece::Set { chars, negated }) => {
                chars.iter().any(|(a, b)| (*a..=*b).contains(&text[t])) != *negated
            }
            // Trailing spaces of the text do not count.
            None => text[t..].iter().all(|c| *c == ' ') && !pieces.is_empty(),
        };
        if hit && p < pieces.len() {
            t += 1;
            p += 1;
        } else if hit {
            return true;
        } else if let Some((at, from)) = star {
            p = at + 1;
            t = from + 1;
            star = Some((at, from + 1));
        } else {
            return false;
        }
    }
    pieces[p..].iter().all(|piece| matches!(piece, Piece::Any))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_knows_sets_ranges_and_escapes() {
        for (text, pattern, expect) in [
            ("Hello", "h%o", true),
            ("Hello", "_ello", true),
            ("Hello", "[a-h]%", true),
            ("Hello", "[^a-h]%", false),
            ("50%", "50[%]", true),
            ("abc  ", "abc", true),
            ("", "%", true),
            ("x", "", false),
            ("aXbXc", "%x%x%", true),
        ] {
            assert_eq!(like(text, pattern, None), expect, "{text} LIKE {pattern}");
        }
        assert!(like("50%", "50!%", Some('!')));
    }
}
