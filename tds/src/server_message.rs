//! What a server tells its user in words: ERROR and INFO ([MS-TDS] 2.2.7.10, 2.2.7.13).

use bytes::{BufMut, BytesMut};

use crate::read::Reader;
use crate::{Malformed, TdsVersion, write};

/// The byte of an ERROR token.
pub const ERROR_TOKEN: u8 = 0xAA;

/// The byte of an INFO token.
pub const INFO_TOKEN: u8 = 0xAB;

/// The longest text that is written, in UTF-16 code units: SQL Server's own limit for a message, and far below
/// what the token's 16-bit length can hold.
const MAX_TEXT: usize = 2047;

/// An ERROR or INFO token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerMessage {
    /// ERROR, otherwise INFO.
    pub is_error: bool,
    /// The message's number; drivers decide by it.
    pub number: i32,
    /// Tells places apart that raise the same number.
    pub state: u8,
    /// Severity: up to 10 informs, 11 to 19 is an error, from 20 on the connection is broken.
    pub class: u8,
    /// The text.
    pub text: String,
    /// The server's name.
    pub server: String,
    /// The procedure's name, or empty.
    pub procedure: String,
    /// The line in the batch or procedure, from 1; 0 if there is none.
    pub line: u32,
}

impl ServerMessage {
    /// An ERROR of state 1 without a procedure, raised at line 1.
    pub fn error(number: i32, class: u8, text: impl Into<String>, server: impl Into<String>) -> Self {
        Self {
            is_error: true,
            number,
            state: 1,
            class,
            text: text.into(),
            server: server.into(),
            procedure: String::new(),
            line: 1,
        }
    }

    /// An INFO of class 0 and state 1 without a procedure, raised at line 1.
    pub fn info(number: i32, text: impl Into<String>, server: impl Into<String>) -> Self {
        Self { is_error: false, ..Self::error(number, 0, text, server) }
    }

    /// Reads what follows the token's byte. The line has 4 bytes from TDS 7.2 on, 2 before; the token's length
    /// tells which, because messages come before both sides have agreed on a version.
    pub fn read(is_error: bool, body: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut body = Reader::new(body.us_varbyte()?, if is_error { "ERROR" } else { "INFO" });
        Ok(Self {
            is_error,
            number: i32::from_le_bytes(body.array()?),
            state: body.u8()?,
            class: body.u8()?,
            text: body.us_varchar()?,
            server: body.b_varchar()?,
            procedure: body.b_varchar()?,
            line: if body.remaining() >= 4 { body.u32()? } else { u32::from(body.u16()?) },
        })
    }

    /// Writes the token, its byte included. Texts longer than SQL Server's limit of 2,047 characters are cut.
    pub fn write(&self, out: &mut impl BufMut, version: TdsVersion) {
        let mut body = BytesMut::with_capacity(64 + 2 * (self.text.len() + self.server.len()));
        body.put_i32_le(self.number);
        body.put_u8(self.state);
        body.put_u8(self.class);
        write::us_varchar(&mut body, cut(&self.text, MAX_TEXT));
        write::b_varchar(&mut body, &self.server);
        write::b_varchar(&mut body, &self.procedure);
        if version.is_7_2_or_later() {
            body.put_u32_le(self.line);
        } else {
            body.put_u16_le(u16::try_from(self.line).unwrap_or(u16::MAX));
        }
        out.put_u8(if self.is_error { ERROR_TOKEN } else { INFO_TOKEN });
        // At most 6 + 2 + 2 * 2047 + 2 * (1 + 2 * 255) + 4 bytes.
        out.put_u16_le(u16::try_from(body.len()).unwrap_or(u16::MAX));
        out.put_slice(&body);
    }
}

/// The longest prefix of `text` of at most `limit` UTF-16 code units.
fn cut(text: &str, limit: usize) -> &str {
    let mut units = 0;
    for (at, c) in text.char_indices() {
        units += c.len_utf16();
        if units > limit {
            return &text[..at];
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(message: &ServerMessage, version: TdsVersion) -> ServerMessage {
        let mut out = vec![];
        message.write(&mut out, version);
        let mut reader = Reader::new(&out[1..], "a message");
        let found = ServerMessage::read(out[0] == ERROR_TOKEN, &mut reader).unwrap();
        assert!(reader.is_empty());
        found
    }

    #[test]
    fn the_line_has_two_bytes_before_tds_7_2() {
        let message = ServerMessage { line: 70_000, ..ServerMessage::error(208, 16, "no", "s") };
        assert_eq!(round_trip(&message, TdsVersion::V7_2).line, 70_000);
        assert_eq!(round_trip(&message, TdsVersion::V7_1).line, 65_535);
        let mut out = vec![];
        message.write(&mut out, TdsVersion::V7_1);
        assert_eq!(out[..9], [0xAA, 18, 0, 208, 0, 0, 0, 1, 16]);
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_at_a_character() {
        let message = ServerMessage::info(0, "😀".repeat(40_000), "s".repeat(400));
        let found = round_trip(&message, TdsVersion::V7_4);
        assert_eq!((found.text.chars().count(), found.server.len()), (1023, 255));
    }

    #[test]
    fn a_text_that_reaches_beyond_its_token_is_refused() {
        let mut out = vec![];
        ServerMessage::error(1, 16, "abc", "s").write(&mut out, TdsVersion::V7_4);
        let announced = out.len() - 3;
        for cut in (0..announced).chain([announced + 1]) {
            let mut wrong = out.clone();
            wrong[1] = u8::try_from(cut).unwrap();
            let found = ServerMessage::read(true, &mut Reader::new(&wrong[1..], ""));
            // Two or three bytes less look like a message from before TDS 7.2.
            let looks_old = (announced - 2..announced).contains(&cut);
            assert_eq!(found.is_ok(), looks_old, "at {cut}");
        }
    }

    proptest! {
        #[test]
        fn messages_survive_a_round_trip(
            is_error: bool, number: i32, state: u8, class: u8,
            text in ".{0,200}", server in ".{0,40}", procedure in ".{0,40}", line in 0u32..65_535, old: bool,
        ) {
            let message = ServerMessage { is_error, number, state, class, text, server, procedure, line };
            let version = if old { TdsVersion::V7_0 } else { TdsVersion::V7_4 };
            prop_assert_eq!(round_trip(&message, version), message);
        }
    }
}
