//! What a broken session would need to be recovered: SESSIONSTATE ([MS-TDS] 2.2.7.21).

use bytes::BufMut;

use crate::Malformed;
use crate::read::Reader;
use crate::token::TokenKind;

/// A SESSIONSTATE token whose states are still bytes of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionState<'a> {
    /// Counts the tokens of a connection; FFFFFFFF means that recovery is off for good.
    pub sequence: u32,
    /// Whether the states in this token can be recovered.
    pub recoverable: bool,
    /// SessionStateDataSet: see [`states`].
    pub data: &'a [u8],
}

/// One state: what it means is the server's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State<'a> {
    /// The state's number.
    pub id: u8,
    /// Its value; empty means that it is not needed for recovery.
    pub value: &'a [u8],
}

impl<'a> SessionState<'a> {
    /// Reads what follows the token byte, and checks that the states are well formed.
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let mut inside = Reader::new(reader.l_varbyte()?, "SESSIONSTATE");
        let (sequence, status) = (inside.u32()?, inside.u8()?);
        let data = inside.rest();
        states(data).try_for_each(|state| state.map(drop))?;
        Ok(Self { sequence, recoverable: status & 1 != 0, data })
    }

    /// The states one by one.
    pub fn states(&self) -> impl Iterator<Item = State<'a>> + use<'a> {
        // Their form was checked by `read`; whoever builds a token by hand may lose what is malformed.
        states(self.data).map_while(Result::ok)
    }

    /// Writes the token.
    pub fn write(&self, out: &mut impl BufMut) {
        out.put_u8(TokenKind::SESSION_STATE.0);
        out.put_u32_le(5 + self.data.len() as u32);
        out.put_u32_le(self.sequence);
        out.put_u8(u8::from(self.recoverable));
        out.put_slice(self.data);
    }
}

/// The states of a SessionStateDataSet, which also stands in the SESSIONRECOVERY feature ([MS-TDS] 2.2.7.11). Ends
/// after the first that is malformed.
pub fn states(data: &[u8]) -> impl Iterator<Item = Result<State<'_>, Malformed>> {
    let mut reader = Reader::new(data, "a session state");
    std::iter::from_fn(move || {
        if reader.is_empty() {
            return None;
        }
        let state = State::read(&mut reader);
        if state.is_err() {
            reader.rest();
        }
        Some(state)
    })
}

impl<'a> State<'a> {
    /// StateLen is a byte, or FF and four bytes.
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let id = reader.u8()?;
        let value = match reader.u8()? {
            0xFF => reader.l_varbyte()?,
            len => reader.take(usize::from(len))?,
        };
        Ok(Self { id, value })
    }

    /// Appends the state to a SessionStateDataSet.
    pub fn write(&self, out: &mut impl BufMut) {
        out.put_u8(self.id);
        match u8::try_from(self.value.len()) {
            Ok(len) if len < 0xFF => out.put_u8(len),
            _ => {
                out.put_u8(0xFF);
                out.put_u32_le(self.value.len() as u32);
            }
        }
        out.put_slice(self.value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// [MS-TDS] 4.18, the token alone.
    const EXAMPLE: [u8; 16] = [0xE4, 0x0B, 0, 0, 0, 1, 0, 0, 0, 1, 9, 4, 0xFF, 0xFF, 0xFF, 0xFF];

    #[test]
    fn the_specifications_example_reads_and_writes() {
        let token = SessionState::read(&mut Reader::new(&EXAMPLE[1..], "a test")).unwrap();
        assert_eq!((token.sequence, token.recoverable), (1, true));
        let states: Vec<_> = token.states().collect();
        assert_eq!(states, [State { id: 9, value: &[0xFF; 4] }]);
        let mut out = Vec::new();
        token.write(&mut out);
        assert_eq!(out, EXAMPLE);
    }

    #[test]
    fn a_state_of_255_bytes_has_a_long_length() {
        for len in [0, 254, 255, 70_000] {
            let value = vec![7; len];
            let mut data = Vec::new();
            State { id: 3, value: &value }.write(&mut data);
            assert_eq!(data.len(), len + if len < 255 { 2 } else { 6 });
            let found: Vec<_> = states(&data).collect();
            assert_eq!(found, [Ok(State { id: 3, value: &value })]);
        }
    }

    #[test]
    fn a_state_that_reaches_beyond_its_token_is_refused() {
        let mut wrong = EXAMPLE;
        wrong[11] = 5;
        assert!(SessionState::read(&mut Reader::new(&wrong[1..], "a test")).is_err());
        assert_eq!(states(&[1, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0]).count(), 1);
    }
}
