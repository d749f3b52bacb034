//! The parts of tokens that have to be whole to be understood, and what comes behind each.

use super::cell::{self, Cell};
use super::event::{Event, Lost};
use super::{RowKind, Rows};
use crate::col_metadata::NO_METADATA;
use crate::done::{Done, DoneKind};
use crate::env_change::{EnvChange, EnvKind};
use crate::read::Reader;
use crate::session_state::SessionState;
use crate::token::TokenKind;
use crate::{Dialect, Malformed};

/// A part of a token, behind the token's kind byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Done(DoneKind),
    EnvChange,
    ReturnStatus,
    ReturnValue,
    SessionState,
    /// The beginning of ERROR or INFO.
    Message {
        is_error: bool,
    },
    LoginAck,
    /// One feature, or the end of the list.
    Feature,
    /// A 2-byte length and so many bytes.
    Short,
    /// A 4-byte length and so many bytes.
    Long,
    /// OFFSET.
    Offset,
    /// The column count.
    ColMetadata,
    /// How many keys there are for so many columns.
    Keys(u16),
    /// One of so many keys for so many columns.
    Key(u16, u16),
    /// One of so many columns.
    Column(u16),
    /// ALTMETADATA up to its columns.
    AltMetadata,
    /// One of so many COMPUTE columns.
    AltColumn(u16),
    /// NBCROW's bitmap.
    NbcRow,
    /// ALTROW's id.
    AltRow,
    DataClassification,
}

/// The most COMPUTE columns of a result set that are remembered: a server could announce them without end.
const MAX_COMPUTE_CELLS: usize = 1 << 17;

/// What comes behind a part.
pub(super) enum Next<'a> {
    /// The token is complete and worth reporting.
    Report(Event<'a>),
    /// The token is worth reporting, although so many of its bytes are still to come.
    ReportAhead(Event<'a>, u64),
    /// So many bytes, then another part, or none.
    Skip(u64, Option<Step>),
    /// The cells of a row.
    Row(RowKind),
    /// The value of a return value.
    Value(Cell),
}

/// Why a part cannot be looked at.
pub(super) enum Stop {
    /// At least so many bytes are missing.
    More(usize),
    /// It never will.
    Lost(Lost),
}

impl From<Malformed> for Stop {
    fn from(error: Malformed) -> Self {
        match error {
            Malformed::Truncated { missing, .. } => Self::More(missing),
            other => Self::Lost(other.into()),
        }
    }
}

impl Step {
    /// The first part of a token.
    pub(super) fn of_token(token: TokenKind, rows_known: bool) -> Result<Self, Lost> {
        Ok(match token {
            TokenKind::DONE => Self::Done(DoneKind::Done),
            TokenKind::DONE_PROC => Self::Done(DoneKind::DoneProc),
            TokenKind::DONE_IN_PROC => Self::Done(DoneKind::DoneInProc),
            TokenKind::ENV_CHANGE => Self::EnvChange,
            TokenKind::RETURN_STATUS => Self::ReturnStatus,
            TokenKind::RETURN_VALUE => Self::ReturnValue,
            TokenKind::SESSION_STATE => Self::SessionState,
            TokenKind::ERROR => Self::Message { is_error: true },
            TokenKind::INFO => Self::Message { is_error: false },
            TokenKind::LOGIN_ACK => Self::LoginAck,
            TokenKind::FEATURE_EXT_ACK => Self::Feature,
            TokenKind::ORDER | TokenKind::TAB_NAME | TokenKind::COL_INFO | TokenKind::SSPI => Self::Short,
            TokenKind::FED_AUTH_INFO => Self::Long,
            TokenKind::OFFSET => Self::Offset,
            TokenKind::COL_METADATA => Self::ColMetadata,
            TokenKind::ALT_METADATA => Self::AltMetadata,
            TokenKind::DATA_CLASSIFICATION => Self::DataClassification,
            TokenKind::NBC_ROW if rows_known => Self::NbcRow,
            TokenKind::ALT_ROW => Self::AltRow,
            TokenKind::ROW | TokenKind::NBC_ROW => return Err(Lost::NoMetadata(token)),
            other => return Err(Lost::UnknownToken(other)),
        })
    }

    /// True where the token's bytes are kept back until it is reported.
    pub(super) fn is_held(self) -> bool {
        matches!(
            self,
            Self::Done(_) | Self::EnvChange | Self::ReturnStatus | Self::ReturnValue | Self::SessionState
        )
    }

    /// Looks at the part at the beginning of `bytes`. Yields how long it is and what comes behind it.
    pub(super) fn look<'a>(
        self,
        bytes: &'a [u8],
        dialect: Dialect,
        rows: &mut Rows,
    ) -> Result<(usize, Next<'a>), Stop> {
        let mut reader = Reader::new(bytes, "a token");
        let next = self.read(&mut reader, dialect, rows)?;
        Ok((reader.position(), next))
    }

    fn read<'a>(self, reader: &mut Reader<'a>, dialect: Dialect, rows: &mut Rows) -> Result<Next<'a>, Stop> {
        Ok(match self {
            Self::Done(kind) => Next::Report(Event::Done(Done::read(kind, reader, dialect.version)?)),
            Self::EnvChange => Next::Report(Event::EnvChange(env_change(reader)?)),
            Self::ReturnStatus => Next::Report(Event::ReturnStatus(reader.array().map(i32::from_le_bytes)?)),
            Self::ReturnValue => Next::Value(Cell::read_return_value(reader, dialect)?),
            Self::SessionState => {
                let mut whole = *reader;
                reader.l_varbyte()?;
                // From here on nothing is missing: what is cut off is malformed.
                let token = SessionState::read(&mut whole).map_err(|error| Stop::Lost(error.into()))?;
                Next::Report(Event::SessionState(token))
            }
            Self::Message { is_error } => {
                let len = u64::from(reader.u16()?);
                let number = reader.array().map(i32::from_le_bytes)?;
                let (state, class) = (reader.u8()?, reader.u8()?);
                let Some(rest) = len.checked_sub(6) else { return Err(too_short("ERROR or INFO", len)) };
                Next::ReportAhead(Event::Message { is_error, number, state, class }, rest)
            }
            Self::LoginAck => Next::ReportAhead(Event::LoginAck, u64::from(reader.u16()?)),
            Self::Feature => match reader.u8()? {
                0xFF => Next::Report(Event::FeatureExtAck),
                _ => Next::Skip(u64::from(reader.u32()?), Some(Self::Feature)),
            },
            Self::Short => Next::Skip(u64::from(reader.u16()?), None),
            Self::Long => Next::Skip(u64::from(reader.u32()?), None),
            Self::Offset => {
                reader.take(4)?;
                Next::Skip(0, None)
            }
            Self::ColMetadata => match reader.u16()? {
                NO_METADATA => {
                    rows.known = false;
                    Next::Skip(0, None)
                }
                count => {
                    rows.begin();
                    // No columns are no metadata either.
                    rows.known = count > 0;
                    if dialect.column_encryption > 0 {
                        Next::Skip(0, Some(Self::Keys(count)))
                    } else {
                        rows.column_after(count)
                    }
                }
            },
            Self::Keys(columns) => match reader.u16()? {
                0 => rows.column_after(columns),
                keys => Next::Skip(0, Some(Self::Key(keys, columns))),
            },
            Self::Key(left, columns) => {
                cell::skip_key(reader)?;
                match left - 1 {
                    0 => rows.column_after(columns),
                    left => Next::Skip(0, Some(Self::Key(left, columns))),
                }
            }
            Self::Column(left) => {
                let cell = Cell::read_column(reader, dialect)?;
                rows.add(cell);
                rows.column_after(left - 1)
            }
            Self::AltMetadata => {
                let (count, id) = (reader.u16()?, reader.u16()?);
                if rows.compute_cells.len() + usize::from(count) > MAX_COMPUTE_CELLS {
                    let wanted = rows.compute_cells.len() + usize::from(count);
                    return Err(Stop::Lost(Lost::TooLong { wanted }));
                }
                let by_columns = usize::from(reader.u8()?);
                reader.take(by_columns * 2)?;
                rows.begin_compute(id);
                rows.alt_column_after(count)
            }
            Self::AltColumn(left) => {
                let cell = Cell::read_compute(reader, dialect)?;
                rows.add_compute(cell);
                rows.alt_column_after(left - 1)
            }
            Self::NbcRow => {
                let nulls = reader.take(rows.bitmap_len())?;
                rows.remember_nulls(nulls);
                Next::Row(RowKind::Nbc)
            }
            Self::AltRow => {
                let id = reader.u16()?;
                let known = rows.computes.iter().position(|(known, ..)| *known == id);
                Next::Row(RowKind::Compute(known.ok_or(Stop::Lost(Lost::NoMetadata(TokenKind::ALT_ROW)))?))
            }
            Self::DataClassification => {
                cell::skip_data_classification(reader, dialect)?;
                Next::Skip(0, None)
            }
        })
    }
}

impl Rows {
    /// NBCROW's bitmap has a bit for every column.
    pub(super) fn bitmap_len(&self) -> usize {
        self.columns.len().div_ceil(8)
    }

    pub(super) fn remember_nulls(&mut self, nulls: &[u8]) {
        self.nulls.clear();
        self.nulls.extend_from_slice(nulls);
    }

    fn begin(&mut self) {
        self.columns.clear();
        self.strides.clear();
        self.computes.clear();
        self.compute_cells.clear();
    }

    fn add(&mut self, cell: Cell) {
        self.columns.push(cell);
        if let (Some(Cell::Fixed(before)), Cell::Fixed(len)) = (self.strides.last_mut(), cell) {
            *before += len;
        } else {
            self.strides.push(cell);
        }
    }

    fn column_after<'a>(&self, left: u16) -> Next<'a> {
        Next::Skip(0, (left > 0).then_some(Step::Column(left)))
    }

    fn begin_compute(&mut self, id: u16) {
        // An id that comes again replaces the one before.
        self.computes.retain(|(known, ..)| *known != id);
        let at = self.compute_cells.len();
        self.computes.push((id, at, at));
    }

    fn add_compute(&mut self, cell: Cell) {
        self.compute_cells.push(cell);
        if let Some((_, _, end)) = self.computes.last_mut() {
            *end += 1;
        }
    }

    fn alt_column_after<'a>(&self, left: u16) -> Next<'a> {
        Next::Skip(0, (left > 0).then_some(Step::AltColumn(left)))
    }
}

/// A promotion announces a length of 1 and is longer than that ([MS-TDS] 2.2.7.9).
fn env_change(reader: &mut Reader<'_>) -> Result<EnvChange, Stop> {
    let mut whole = *reader;
    let announced = reader.us_varbyte()?;
    if *announced == [EnvKind::PROMOTE_TRANSACTION.0] {
        reader.l_varbyte()?;
        reader.u8()?;
    }
    // From here on nothing is missing: what is cut off is malformed.
    EnvChange::read(&mut whole).map_err(|error| Stop::Lost(error.into()))
}

fn too_short(what: &'static str, len: u64) -> Stop {
    Stop::Lost(Malformed::Value { what, value: len }.into())
}
