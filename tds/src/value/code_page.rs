//! How `varchar` bytes become text and back: UTF-8 where the collation says so, else code page 1252.
//!
//! Other code pages are read as 1252 too: every byte has a character there, so what was read is what is written,
//! and nothing in this project looks at more than the ASCII part of such text.

use crate::type_info::Collation;

/// The characters of bytes 80 to 9F; the five that 1252 leaves open stand for themselves.
const HIGH: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8D}', 'Ž', '\u{8F}', //
    '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9D}', 'ž', 'Ÿ',
];

/// Text from `varchar` bytes. Invalid UTF-8 becomes U+FFFD.
pub(super) fn decode(bytes: &[u8], collation: Collation) -> String {
    if collation.is_utf8() || bytes.is_ascii() {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    bytes
        .iter()
        .map(|&byte| match byte {
            0x80..=0x9F => HIGH[usize::from(byte - 0x80)],
            _ => char::from(byte),
        })
        .collect()
}

/// Bytes of `varchar` text; a character that the code page lacks becomes a question mark, as on SQL Server.
pub(super) fn encode(text: &str, collation: Collation) -> Vec<u8> {
    if collation.is_utf8() || text.is_ascii() {
        return text.as_bytes().to_vec();
    }
    text.chars().map(|c| byte_of(c).unwrap_or(b'?')).collect()
}

fn byte_of(c: char) -> Option<u8> {
    match u8::try_from(u32::from(c)) {
        Ok(byte) if !(0x80..0xA0).contains(&byte) => Some(byte),
        _ => {
            let at = HIGH.iter().position(|&high| high == c)?;
            u8::try_from(0x80 + at).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_the_way_to_text_and_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(encode(&decode(&all, Collation::LATIN1), Collation::LATIN1), all);
    }

    #[test]
    fn a_character_outside_the_code_page_becomes_a_question_mark() {
        assert_eq!(encode("a€Ω", Collation::LATIN1), [b'a', 0x80, b'?']);
    }
}
