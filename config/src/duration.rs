//! Durations as an operator writes them: `250ms`, `5s`, `10m`, `1h`, `7d`, or `off`.

use std::time::Duration;

/// Unit and its milliseconds, largest first.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
/// Longer than anybody means, and far from the overflow of an instant.
const LONGEST: Duration = Duration::from_secs(3650 * 86_400);
const FORM: &str = "must be a duration such as \"250ms\", \"5s\", \"10m\" or \"1h\"";

/// Reads one number with one unit.
pub fn parse(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = (&text[..digits], text[digits..].trim());
    let number: u64 = number.parse().map_err(|_| FORM.to_owned())?;
    if number == 0 && unit.is_empty() {
        return Ok(Duration::ZERO);
    }
    let Some((_, millis)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(FORM.to_owned());
    };
    let duration = Duration::from_millis(number.saturating_mul(*millis));
    if duration > LONGEST { Err("is longer than ten years".to_owned()) } else { Ok(duration) }
}

/// Writes a duration in the largest unit that needs no fraction, as [`Config`](crate::Config) files have it.
pub fn show(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    let fits = UNITS.iter().find(|(_, unit)| millis.is_multiple_of(*unit));
    let (name, unit) = fits.copied().unwrap_or(("ms", 1));
    format!("{}{name}", millis / unit)
}

/// For `#[serde(with = "duration::plain")]`.
pub(crate) mod plain {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::time::Duration;

    pub(crate) fn serialize<S: Serializer>(value: &Duration, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&super::show(*value))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
        super::parse(&String::deserialize(input)?).map_err(D::Error::custom)
    }
}

/// For `#[serde(with = "duration::or_off")]`: `off` (or a zero) is none.
pub(crate) mod or_off {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::time::Duration;

    #[expect(clippy::ref_option, reason = "serde gives the field's reference")]
    pub(crate) fn serialize<S: Serializer>(value: &Option<Duration>, out: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(duration) => out.serialize_str(&super::show(*duration)),
            None => out.serialize_str("off"),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
        let text = String::deserialize(input)?;
        if text.trim().eq_ignore_ascii_case("off") {
            return Ok(None);
        }
        let duration = super::parse(&text).map_err(|why| D::Error::custom(format!("{why}, or \"off\"")))?;
        Ok(Some(duration).filter(|d| !d.is_zero()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_reads_back_as_the_same_duration() {
        for millis in [0, 1, 250, 1_000, 1_500, 60_000, 90_000, 3_600_000, 86_400_000] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse(&show(duration)), Ok(duration));
        }
        assert_eq!(show(Duration::from_secs(600)), "10m");
    }

    #[test]
    fn a_number_without_a_unit_or_with_an_unknown_one_is_refused() {
        for text in ["5", "", "s", "5 seconds", "-1s", "1.5s", "99999999999999999999s", "9999999d"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
