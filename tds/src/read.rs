//! How fields are read from bytes that a stranger sent: every length is checked before use.

use crate::Malformed;

/// A cursor over a byte slice. Each read either yields a whole field or says how many bytes are missing.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte; `what` names the structure in errors.
    pub fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { bytes, at: 0, what }
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Bytes left.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// True at the end.
    pub fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    /// What was read since `start`, an earlier [`Reader::position`]; empty if that is still ahead.
    pub fn since(&self, start: usize) -> &'a [u8] {
        self.bytes.get(start..self.at).unwrap_or_default()
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let rest = &self.bytes[self.at..];
        match rest.get(..n) {
            Some(taken) => {
                self.at += n;
                Ok(taken)
            }
            None => Err(Malformed::Truncated { what: self.what, missing: n - rest.len() }),
        }
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        let rest = &self.bytes[self.at..];
        self.at = self.bytes.len();
        rest
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    /// A little-endian 16-bit number.
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    /// A little-endian 32-bit number.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    /// A little-endian 64-bit number.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    /// A big-endian 16-bit number.
    pub fn u16_be(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    /// A big-endian 32-bit number.
    pub fn u32_be(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// UTF-16LE text of `chars` code units.
    pub fn utf16(&mut self, chars: usize) -> Result<String, Malformed> {
        let bytes = self.take(chars * 2)?;
        decode_utf16(bytes, self.what)
    }

    /// B_VARCHAR: a byte that counts code units, then the text ([MS-TDS] 2.2.5.1.1).
    pub fn b_varchar(&mut self) -> Result<String, Malformed> {
        let chars = self.u8()?;
        self.utf16(usize::from(chars))
    }

    /// US_VARCHAR: a 16-bit count of code units, then the text ([MS-TDS] 2.2.5.1.1).
    pub fn us_varchar(&mut self) -> Result<String, Malformed> {
        let chars = self.u16()?;
        self.utf16(usize::from(chars))
    }

    /// B_VARBYTE: a byte that counts bytes, then the bytes.
    pub fn b_varbyte(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.u8()?;
        self.take(usize::from(len))
    }

    /// US_VARBYTE: a 16-bit count of bytes, then the bytes.
    pub fn us_varbyte(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// L_VARBYTE: a 32-bit count of bytes, then the bytes.
    pub fn l_varbyte(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.u32()?;
        self.take(usize::try_from(len).unwrap_or(usize::MAX))
    }
}

/// Text from UTF-16LE bytes. Unpaired surrogates become U+FFFD: SQL Server stores and sends them.
pub fn decode_utf16(bytes: &[u8], what: &'static str) -> Result<String, Malformed> {
    if !bytes.len().is_multiple_of(2) {
        return Err(Malformed::Text { what });
    }
    let units = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    Ok(char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_is_cut_off_says_how_much_is_missing() {
        let mut reader = Reader::new(&[1, 2, 3], "a test");
        assert_eq!(reader.u16(), Ok(0x0201));
        assert_eq!(reader.u32(), Err(Malformed::Truncated { what: "a test", missing: 3 }));
        assert_eq!(reader.u8(), Ok(3));
        assert!(reader.is_empty());
    }

    #[test]
    fn a_huge_announced_length_is_an_error_and_not_an_allocation() {
        let mut reader = Reader::new(&[0xFF, 0xFF, 0xFF, 0xFF, 1], "a test");
        assert!(matches!(reader.l_varbyte(), Err(Malformed::Truncated { .. })));
    }

    #[test]
    fn text_is_utf16_little_endian() {
        let mut reader = Reader::new(&[2, b'h', 0, b'i', 0], "a test");
        assert_eq!(reader.b_varchar().as_deref(), Ok("hi"));
    }
}
