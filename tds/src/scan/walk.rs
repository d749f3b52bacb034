//! Walks over the cells of a row, in whatever pieces its bytes come.

use super::cell::Cell;
use crate::Malformed;

/// Where in a row the next byte belongs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Walk {
    /// The cell whose length is to be read next.
    cell: usize,
    /// What of that cell was read already.
    phase: Phase,
    /// Bytes to pass over before the next length.
    skip: u64,
    /// A length that came in pieces.
    part: [u8; 8],
    have: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// Nothing yet.
    #[default]
    Start,
    /// Text: pointer and time stamp; PLP: the length and perhaps chunks.
    Body,
}

impl Walk {
    /// Passes over as much of `input` as belongs to the row. Yields how much that was and whether the row is
    /// complete; if it is, the walk stands at the beginning of the next row.
    ///
    /// `nulls` is NBCROW's bitmap: cells whose bit is set are not there.
    pub(crate) fn walk(
        &mut self,
        cells: &[Cell],
        nulls: Option<&[u8]>,
        input: &[u8],
    ) -> Result<(usize, bool), Malformed> {
        let mut at = 0;
        loop {
            if self.skip > 0 {
                let left = input.len() - at;
                let now = usize::try_from(self.skip).map_or(left, |skip| skip.min(left));
                at += now;
                self.skip -= now as u64;
                if self.skip > 0 {
                    return Ok((at, false));
                }
            }
            if let Some(nulls) = nulls
                && self.phase == Phase::Start
            {
                self.cell = next_present(nulls, self.cell);
            }
            let Some(&cell) = cells.get(self.cell) else {
                self.cell = 0;
                return Ok((at, true));
            };
            if !self.enter(cell, input, &mut at)? {
                return Ok((at, false));
            }
        }
    }

    /// Reads the next length of the cell. False if the input ends before.
    fn enter(&mut self, cell: Cell, input: &[u8], at: &mut usize) -> Result<bool, Malformed> {
        match (cell, self.phase) {
            (Cell::Fixed(len), _) => self.leave(u64::from(len)),
            (Cell::Byte, _) => {
                let Some(&len) = input.get(*at) else { return Ok(false) };
                *at += 1;
                self.leave(u64::from(len));
            }
            (Cell::Short, _) => {
                let Some(len) = self.length(input, at).map(u16::from_le_bytes) else { return Ok(false) };
                self.leave(if len == u16::MAX { 0 } else { u64::from(len) });
            }
            (Cell::Long, _) | (Cell::Text, Phase::Body) => {
                let Some(len) = self.length(input, at).map(u32::from_le_bytes) else { return Ok(false) };
                match len {
                    u32::MAX => self.leave(0),
                    0..=0x7FFF_FFFF => self.leave(u64::from(len)),
                    _ => return Err(Malformed::Value { what: "a value's length", value: u64::from(len) }),
                }
            }
            (Cell::Text, Phase::Start) => {
                let Some(&len) = input.get(*at) else { return Ok(false) };
                *at += 1;
                if len == 0 {
                    self.leave(0);
                } else {
                    self.phase = Phase::Body;
                    self.skip = u64::from(len) + 8;
                }
            }
            (Cell::Plp, Phase::Start) => {
                let Some(len) = self.length(input, at).map(u64::from_le_bytes) else { return Ok(false) };
                if len == crate::value::plp::NULL {
                    self.leave(0);
                } else {
                    self.phase = Phase::Body;
                }
            }
            (Cell::Plp, Phase::Body) => {
                let Some(len) = self.length(input, at).map(u32::from_le_bytes) else { return Ok(false) };
                if len == 0 {
                    self.leave(0);
                } else {
                    self.skip = u64::from(len);
                }
            }
        }
        Ok(true)
    }

    /// The rest of the cell is so long; then comes the next one.
    fn leave(&mut self, skip: u64) {
        self.skip = skip;
        self.cell += 1;
        self.phase = Phase::Start;
    }

    /// The next `N` bytes, of which the first may have come before.
    fn length<const N: usize>(&mut self, input: &[u8], at: &mut usize) -> Option<[u8; N]> {
        let rest = &input[*at..];
        if self.have == 0
            && let Some(whole) = rest.first_chunk::<N>()
        {
            *at += N;
            return Some(*whole);
        }
        let have = usize::from(self.have);
        let now = (N - have).min(rest.len());
        self.part[have..have + now].copy_from_slice(&rest[..now]);
        *at += now;
        if have + now < N {
            self.have = (have + now) as u8;
            return None;
        }
        self.have = 0;
        self.part.first_chunk::<N>().copied()
    }
}

/// The next column from `column` on that is not NULL: a set bit is a NULL, and the first column is the lowest bit of
/// the first byte ([MS-TDS] 2.2.7.15).
fn next_present(nulls: &[u8], column: usize) -> usize {
    let mut at = column / 8;
    // Bits before the column count as nulls.
    let mut before = (1u16 << (column % 8)) as u8 - 1;
    while let Some(byte) = nulls.get(at) {
        match (byte | before).trailing_ones() {
            8 => {}
            ones => return at * 8 + ones as usize,
        }
        at += 1;
        before = 0;
    }
    usize::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_are_passed_over_bit_by_bit_and_byte_by_byte() {
        let nulls = [0b1111_0110, 0xFF, 0xFF, 0b0000_0001];
        let present = |column| next_present(&nulls, column);
        assert_eq!([0, 1, 3, 4, 24, 25].map(present), [0, 3, 3, 25, 25, 25]);
        assert_eq!(next_present(&[0xFF], 0), usize::MAX);
        assert_eq!(next_present(&[0x7F], 0), 7);
    }
}
