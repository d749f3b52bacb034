//! Sizes as an operator writes them: `512B`, `32KiB`, `16MiB`, `1GiB`.

const UNITS: [(&str, usize); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const FORM: &str = "must be a size such as \"512B\", \"32KiB\" or \"16MiB\"";

/// Reads one number with one unit; the unit's case does not matter.
pub(crate) fn parse(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = (&text[..digits], text[digits..].trim());
    let number: usize = number.parse().map_err(|_| FORM.to_owned())?;
    let unit = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or(FORM)?.1;
    number.checked_mul(unit).ok_or_else(|| "is larger than this machine can address".to_owned())
}

/// Writes a size in the largest unit that needs no fraction.
pub fn show(bytes: usize) -> String {
    let fits = UNITS.iter().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit));
    let (name, unit) = fits.copied().unwrap_or(("B", 1));
    format!("{}{name}", bytes / unit)
}

/// For `#[serde(with = "size::plain")]`.
pub(crate) mod plain {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives the field's reference")]
    pub(crate) fn serialize<S: Serializer>(value: &usize, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&super::show(*value))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<usize, D::Error> {
        super::parse(&String::deserialize(input)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_reads_back_as_the_same_size() {
        for bytes in [0, 1, 512, 1024, 4096, 32 << 10, 16 << 20, (1 << 20) + 1] {
            assert_eq!(parse(&show(bytes)), Ok(bytes));
        }
        assert_eq!(show(32 << 10), "32KiB");
    }

    #[test]
    fn a_number_without_a_unit_is_refused() {
        for text in ["5", "", "KiB", "1.5MiB", "32 KB", "99999999999999999999GiB", "18446744073709551615KiB"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
