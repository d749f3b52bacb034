//! Partially length-prefixed bytes: values that are sent in chunks ([MS-TDS] 2.2.5.2.3).

use std::borrow::Cow;

use bytes::BufMut;

use crate::Malformed;
use crate::read::Reader;

/// PLP_NULL in place of a length.
pub const NULL: u64 = u64::MAX;
/// UNKNOWN_PLP_LEN in place of a length.
pub const UNKNOWN: u64 = u64::MAX - 1;

/// The whole value, or none for NULL. One chunk is borrowed; more are joined.
///
/// The announced length is a hint only, as the specification says; memory grows with bytes that are there.
pub fn read<'a>(reader: &mut Reader<'a>) -> Result<Option<Cow<'a, [u8]>>, Malformed> {
    if reader.u64()? == NULL {
        return Ok(None);
    }
    let mut whole: Cow<'a, [u8]> = Cow::Borrowed(&[]);
    loop {
        let chunk = reader.l_varbyte()?;
        if chunk.is_empty() {
            return Ok(Some(whole));
        }
        if whole.is_empty() {
            whole = Cow::Borrowed(chunk);
        } else {
            whole.to_mut().extend_from_slice(chunk);
        }
    }
}

/// Passes over a value.
pub fn skip(reader: &mut Reader<'_>) -> Result<(), Malformed> {
    if reader.u64()? != NULL {
        while !reader.l_varbyte()?.is_empty() {}
    }
    Ok(())
}

/// NULL.
pub fn write_null(out: &mut impl BufMut) {
    out.put_u64_le(NULL);
}

/// A value of known length in one chunk.
pub fn write(out: &mut impl BufMut, bytes: &[u8]) {
    out.put_u64_le(bytes.len() as u64);
    write_chunks(out, bytes, usize::MAX);
}

/// A value whose length is not announced, in chunks of at most `chunk` bytes: as servers send XML.
pub fn write_unknown_length(out: &mut impl BufMut, bytes: &[u8], chunk: usize) {
    out.put_u64_le(UNKNOWN);
    write_chunks(out, bytes, chunk);
}

fn write_chunks(out: &mut impl BufMut, bytes: &[u8], chunk: usize) {
    for piece in bytes.chunks(chunk.clamp(1, 0x7FFF_FFFF)) {
        out.put_u32_le(u32::try_from(piece.len()).unwrap_or(u32::MAX));
        out.put_slice(piece);
    }
    out.put_u32_le(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined_whatever_the_announced_length() {
        let mut bytes = Vec::new();
        write_unknown_length(&mut bytes, b"abcdefg", 3);
        let mut reader = Reader::new(&bytes, "a test");
        assert_eq!(read(&mut reader).unwrap().as_deref(), Some(&b"abcdefg"[..]));
        assert!(reader.is_empty());
        bytes[..8].copy_from_slice(&5u64.to_le_bytes());
        assert_eq!(read(&mut Reader::new(&bytes, "a test")).unwrap().as_deref(), Some(&b"abcdefg"[..]));
    }

    #[test]
    fn an_empty_value_is_not_null() {
        let mut bytes = Vec::new();
        write(&mut bytes, b"");
        assert_eq!(bytes, [0; 12]);
        assert_eq!(read(&mut Reader::new(&bytes, "a test")).unwrap().as_deref(), Some(&b""[..]));
        bytes.clear();
        write_null(&mut bytes);
        assert_eq!(read(&mut Reader::new(&bytes, "a test")), Ok(None));
    }
}
