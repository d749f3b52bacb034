//! Follows a response token by token and says what matters to whoever lends the connection ([MS-TDS] 2.2.7).
//!
//! The scanner sees the payload bytes of response packets in whatever pieces they come, passes over rows without
//! looking at them, and keeps nothing but the row format of the current result set. What it cannot follow it gives
//! up: it never guesses where the next token begins.

mod cell;
mod event;
mod step;
mod walk;

pub(crate) use cell::Cell;
pub use event::{Event, Lost, RawReturnValue, Scanned};
pub(crate) use walk::Walk;

use crate::Dialect;
use crate::token::TokenKind;
use step::{Next, Step, Stop};

/// Follows one response after the other. Memory is kept from one to the next.
#[derive(Debug)]
pub struct ResponseScanner {
    dialect: Dialect,
    state: State,
    /// Payload bytes seen since the response began.
    offset: u64,
    /// Where the current token began.
    token: u64,
    /// Bytes of a token or of a part of one that did not come in one piece.
    held: Vec<u8>,
    /// How long `held` must grow before it is worth another look.
    wanted: usize,
    rows: Rows,
    walk: Walk,
}

#[derive(Debug)]
enum State {
    /// The next byte is a token.
    Token,
    /// A part of a token that has to be whole to be understood.
    Part(Step),
    /// So many bytes up to the next part, or the next token.
    Skip(u64, Option<Step>),
    /// Inside a row.
    Row(RowKind),
    /// Inside a return value, which is held as long as it is short.
    Value(Cell, bool),
    /// Given up.
    Lost,
}

/// Which cells the row has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RowKind {
    /// All columns.
    Row,
    /// All columns but the nulls.
    Nbc,
    /// The columns of this entry of [`Rows::computes`].
    Compute(usize),
}

/// The row format of the current result set.
#[derive(Debug, Default)]
struct Rows {
    /// False before the first COLMETADATA, and after one that says "no metadata".
    known: bool,
    /// Every column.
    columns: Vec<Cell>,
    /// The same, with neighbours of fixed length joined.
    strides: Vec<Cell>,
    /// NBCROW's bitmap.
    nulls: Vec<u8>,
    /// ALTMETADATA: the id and where in `compute_cells` the columns begin and end.
    computes: Vec<(u16, usize, usize)>,
    compute_cells: Vec<Cell>,
}

/// The longest part of a token that is held, in bytes. Nothing that servers send comes near; what is longer is not
/// followed.
pub const MAX_HELD: usize = 1 << 20;

/// The longest return value that is reported with its bytes, in bytes. Handles and cursors are short.
pub const MAX_RETURN_VALUE: usize = 16 << 10;

impl ResponseScanner {
    /// Begins before the first token of a response.
    pub fn new(dialect: impl Into<Dialect>) -> Self {
        Self {
            dialect: dialect.into(),
            state: State::Token,
            offset: 0,
            token: 0,
            held: Vec::new(),
            wanted: 0,
            rows: Rows::default(),
            walk: Walk::default(),
        }
    }

    /// Begins before the first token of the next response.
    pub fn restart(&mut self) {
        self.state = State::Token;
        self.offset = 0;
        self.token = 0;
        self.held.clear();
        self.rows.known = false;
        self.walk = Walk::default();
    }

    /// Takes the next payload bytes and reports the tokens that they complete, in order.
    ///
    /// After [`Event::Lost`] nothing more is reported until [`ResponseScanner::restart`].
    pub fn feed(&mut self, payload: &[u8], mut on_event: impl FnMut(Scanned<'_>)) {
        let mut rest = payload;
        while !rest.is_empty() {
            if let Err(why) = self.advance(&mut rest, &mut on_event) {
                self.state = State::Lost;
                self.offset += rest.len() as u64;
                on_event(Scanned { range: self.token..self.offset, event: Event::Lost(why) });
                return;
            }
        }
    }

    /// True between two tokens: the only place where a response may end.
    pub fn is_between_tokens(&self) -> bool {
        matches!(self.state, State::Token)
    }

    /// True after [`Event::Lost`].
    pub fn is_lost(&self) -> bool {
        matches!(self.state, State::Lost)
    }

    /// Payload bytes seen since the response began.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How many of these bytes can be passed on: none of them belongs to a token that will be reported later with
    /// [`Scanned::is_held`].
    ///
    /// Who wants to take tokens out of a response, or to change them, passes on what is settled and keeps the rest
    /// back until it is. That is never more than about [`MAX_HELD`] bytes, and mostly nothing.
    pub fn settled(&self) -> u64 {
        match &self.state {
            State::Part(step) if step.is_held() => self.token,
            State::Value(_, true) => self.token,
            _ => self.offset,
        }
    }

    /// Consumes input until the state changes or the input ends.
    fn advance(&mut self, rest: &mut &[u8], on_event: &mut impl FnMut(Scanned<'_>)) -> Result<(), Lost> {
        match self.state {
            State::Token => return self.next_token(rest),
            State::Part(step) => self.part(step, rest, on_event)?,
            State::Skip(left, then) => {
                let now = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
                self.consume(rest, now);
                self.skip(left - now as u64, then);
            }
            State::Lost => self.consume(rest, rest.len()),
            State::Row(_) | State::Value(..) => {}
        }
        // A row or value may be empty: it must not wait for input.
        match self.state {
            State::Row(kind) => self.row(kind, rest),
            State::Value(cell, whole) => self.value(cell, whole, rest, on_event),
            _ => Ok(()),
        }
    }

    fn consume(&mut self, rest: &mut &[u8], len: usize) {
        self.offset += len as u64;
        *rest = &rest[len..];
    }

    fn skip(&mut self, left: u64, then: Option<Step>) {
        self.state = match (left, then) {
            (0, None) => State::Token,
            (0, Some(step)) => State::Part(step),
            _ => State::Skip(left, then),
        };
    }

    fn next_token(&mut self, rest: &mut &[u8]) -> Result<(), Lost> {
        // Rows are nearly everything: they do not leave this loop.
        while let Some((&token, body)) = rest.split_first() {
            self.token = self.offset;
            let (kind, nulls, body) = match TokenKind(token) {
                TokenKind::ROW if self.rows.known => (RowKind::Row, None, body),
                TokenKind::NBC_ROW if self.rows.known && self.rows.bitmap_len() <= body.len() => {
                    let (nulls, body) = body.split_at(self.rows.bitmap_len());
                    (RowKind::Nbc, Some(nulls), body)
                }
                token => {
                    self.consume(rest, 1);
                    self.state = State::Part(Step::of_token(token, self.rows.known)?);
                    return Ok(());
                }
            };
            let (consumed, complete) = match (nulls, &self.rows.strides[..]) {
                (None, [Cell::Fixed(len)]) if *len as usize <= body.len() => (*len as usize, true),
                (None, strides) => self.walk.walk(strides, None, body)?,
                (nulls, _) => self.walk.walk(&self.rows.columns, nulls, body)?,
            };
            if !complete {
                if let Some(nulls) = nulls {
                    self.rows.remember_nulls(nulls);
                }
                self.state = State::Row(kind);
            }
            let head = rest.len() - body.len();
            self.consume(rest, head + consumed);
            if !complete {
                return Ok(());
            }
        }
        Ok(())
    }

    fn row(&mut self, kind: RowKind, rest: &mut &[u8]) -> Result<(), Lost> {
        let rows = &self.rows;
        let (cells, nulls) = match kind {
            RowKind::Row => (&rows.strides[..], None),
            RowKind::Nbc => (&rows.columns[..], Some(&rows.nulls[..])),
            RowKind::Compute(at) => {
                let (_, start, end) = rows.computes[at];
                (&rows.compute_cells[start..end], None)
            }
        };
        let (consumed, complete) = self.walk.walk(cells, nulls, rest)?;
        self.consume(rest, consumed);
        if complete {
            self.state = State::Token;
        }
        Ok(())
    }

    fn value(
        &mut self,
        cell: Cell,
        whole: bool,
        rest: &mut &[u8],
        on_event: &mut impl FnMut(Scanned<'_>),
    ) -> Result<(), Lost> {
        let (consumed, complete) = self.walk.walk(&[cell], None, rest)?;
        let whole = whole && self.held.len() + consumed <= MAX_RETURN_VALUE;
        if whole {
            self.held.extend_from_slice(&rest[..consumed]);
        }
        self.consume(rest, consumed);
        self.state = State::Value(cell, whole);
        if complete {
            let value = RawReturnValue::new(self.dialect, whole.then_some(&self.held[..]));
            on_event(Scanned { range: self.token..self.offset, event: Event::ReturnValue(value) });
            self.held.clear();
            self.state = State::Token;
        }
        Ok(())
    }

    /// Looks at a part of a token as soon as it is whole; until then its bytes are held.
    fn part(
        &mut self,
        step: Step,
        rest: &mut &[u8],
        on_event: &mut impl FnMut(Scanned<'_>),
    ) -> Result<(), Lost> {
        if self.held.is_empty() {
            let input = *rest;
            match step.look(input, self.dialect, &mut self.rows) {
                Ok((len, next)) => {
                    self.consume(rest, len);
                    if matches!(next, Next::Value(_)) {
                        self.held.extend_from_slice(&input[..len]);
                    }
                    self.go_on(next, on_event);
                }
                Err(Stop::More(missing)) => {
                    self.want(input.len(), missing)?;
                    self.held.extend_from_slice(input);
                    self.consume(rest, input.len());
                }
                Err(Stop::Lost(why)) => return Err(why),
            }
            return Ok(());
        }
        let now = (self.wanted - self.held.len()).min(rest.len());
        self.held.extend_from_slice(&rest[..now]);
        self.consume(rest, now);
        if self.held.len() < self.wanted {
            return Ok(());
        }
        let mut held = std::mem::take(&mut self.held);
        let mut keep = false;
        let outcome = match step.look(&held, self.dialect, &mut self.rows) {
            Ok((len, next)) => {
                debug_assert_eq!(len, held.len(), "no more is held than the part needs");
                // A return value's beginning stays held: the value comes behind it.
                keep = matches!(next, Next::Value(_));
                self.go_on(next, on_event);
                Ok(())
            }
            Err(Stop::More(missing)) => {
                keep = true;
                self.want(held.len(), missing)
            }
            Err(Stop::Lost(why)) => Err(why),
        };
        if !keep {
            held.clear();
        }
        self.held = held;
        outcome
    }

    fn want(&mut self, have: usize, missing: usize) -> Result<(), Lost> {
        self.wanted = have.saturating_add(missing);
        if self.wanted > MAX_HELD { Err(Lost::TooLong { wanted: self.wanted }) } else { Ok(()) }
    }

    fn go_on(&mut self, next: Next<'_>, on_event: &mut impl FnMut(Scanned<'_>)) {
        match next {
            Next::Report(event) => {
                self.state = State::Token;
                on_event(Scanned { range: self.token..self.offset, event });
            }
            Next::ReportAhead(event, ahead) => {
                self.skip(ahead, None);
                on_event(Scanned { range: self.token..self.offset + ahead, event });
            }
            Next::Skip(left, then) => self.skip(left, then),
            Next::Row(kind) => self.state = State::Row(kind),
            Next::Value(cell) => self.state = State::Value(cell, true),
        }
    }
}
