//! How a password is carried: obfuscated on the wire, wiped from memory, never shown.

use zeroize::{Zeroize, Zeroizing};

/// A password of LOGIN7. It is wiped when dropped and `Debug` shows nothing of it. Comparing two takes a time that
/// depends on their contents: use it in tests only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Password {
    /// UTF-16LE, in the clear.
    units: Zeroizing<Vec<u8>>,
}

impl Password {
    /// A password from text.
    pub fn new(text: &str) -> Self {
        // The exact capacity: growing would leave copies behind.
        let mut units = Zeroizing::new(Vec::with_capacity(text.encode_utf16().count() * 2));
        units.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
        Self { units }
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// The text; wiped when dropped.
    pub fn reveal(&self) -> Zeroizing<String> {
        let units = self.units.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
        // At most three bytes of UTF-8 for two of UTF-16: the text never has to grow.
        let mut text = Zeroizing::new(String::with_capacity(self.units.len() / 2 * 3));
        text.extend(char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)));
        text
    }

    /// The password as UTF-16LE in the clear: what a proof of it is computed from.
    pub fn as_utf16le(&self) -> &[u8] {
        &self.units
    }

    /// From the wire: each byte xor A5, then its halves swapped ([MS-TDS] 2.2.6.4, last paragraph).
    pub(super) fn from_wire(obfuscated: &[u8]) -> Self {
        let mut units = Zeroizing::new(Vec::with_capacity(obfuscated.len()));
        units.extend(obfuscated.iter().map(|byte| (byte ^ 0xA5).rotate_left(4)));
        Self { units }
    }

    /// For the wire: each byte's halves swapped, then xor A5.
    pub(super) fn to_wire(&self) -> Zeroizing<Vec<u8>> {
        let mut wire = Zeroizing::new(Vec::with_capacity(self.units.len()));
        wire.extend(self.units.iter().map(|byte| byte.rotate_left(4) ^ 0xA5));
        wire
    }

    /// Without what goes beyond `limit` UTF-16 code units.
    pub(super) fn cut(mut self, limit: usize) -> Self {
        if self.units.len() > limit * 2 {
            self.units[limit * 2..].zeroize();
            self.units.truncate(limit * 2);
        }
        self
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_empty() { "none" } else { "***" })
    }
}

impl From<&str> for Password {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_obfuscation_swaps_halves_and_then_xors() {
        // 'a' = 0x61: halves swapped 0x16, xor 0xA5 = 0xB3; 0x00 becomes 0xA5.
        let password = Password::new("a");
        assert_eq!(password.to_wire()[..], [0xB3, 0xA5]);
        assert_eq!(Password::from_wire(&[0xB3, 0xA5]), password);
    }

    #[test]
    fn every_byte_survives_the_obfuscation() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(Password::from_wire(&all).to_wire()[..], all[..]);
    }

    #[test]
    fn text_comes_back_and_debug_shows_none_of_it() {
        let password = Password::new("pä$$😀");
        assert_eq!(&**password.reveal(), "pä$$😀");
        assert_eq!(format!("{password:?} {:?}", Password::default()), "*** none");
    }
}
