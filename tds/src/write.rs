//! How fields are written: the counterpart of [`crate::read`].

use bytes::BufMut;

/// Appends `text` as UTF-16LE without a length.
pub fn utf16(out: &mut impl BufMut, text: &str) {
    for unit in text.encode_utf16() {
        out.put_u16_le(unit);
    }
}

/// B_VARCHAR: at most 255 code units; longer text is cut at a character ([MS-TDS] 2.2.5.1.1).
pub fn b_varchar(out: &mut impl BufMut, text: &str) {
    let (text, units) = cut(text, usize::from(u8::MAX));
    out.put_u8(u8::try_from(units).unwrap_or(u8::MAX));
    utf16(out, text);
}

/// US_VARCHAR: at most 65,535 code units; longer text is cut at a character ([MS-TDS] 2.2.5.1.1).
pub fn us_varchar(out: &mut impl BufMut, text: &str) {
    let (text, units) = cut(text, usize::from(u16::MAX));
    out.put_u16_le(u16::try_from(units).unwrap_or(u16::MAX));
    utf16(out, text);
}

/// The longest prefix of `text` of at most `limit` UTF-16 code units, and its length in them.
fn cut(text: &str, limit: usize) -> (&str, usize) {
    let mut units = 0;
    for (at, c) in text.char_indices() {
        if units + c.len_utf16() > limit {
            return (&text[..at], units);
        }
        units += c.len_utf16();
    }
    (text, units)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_too_long_for_its_length_byte_is_cut_at_a_character() {
        let mut out = Vec::new();
        b_varchar(&mut out, &"😀".repeat(200));
        assert_eq!(out[0], 254);
        assert_eq!(out.len(), 1 + 254 * 2);
    }
}
