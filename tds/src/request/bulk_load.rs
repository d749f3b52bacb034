//! Rows that a client sends into a table: the bulk load message ([MS-TDS] 2.2.6.1, 2.2.6.2).

use bytes::{Buf, BytesMut};

use crate::col_metadata::{ColMetadata, Column};
use crate::done::{Done, DoneKind};
use crate::read::Reader;
use crate::row;
use crate::scan::{Cell, Walk};
use crate::token::TokenKind;
use crate::type_info::{TypeId, TypeInfo};
use crate::value::Value;
use crate::{Dialect, Malformed};

/// Reads a bulk load item by item while its bytes come in: COLMETADATA, rows, DONE.
#[derive(Debug)]
pub struct BulkReader {
    dialect: Dialect,
    max_item: usize,
    columns: Vec<Column>,
    cells: Vec<Cell>,
    walk: Walk,
    /// Bytes of the current row that were walked over already, its token byte included.
    walked: usize,
    /// How long the input must be before another attempt at anything but a row can succeed.
    wanted: usize,
}

/// What a bulk load consists of.
#[derive(Clone, Debug, PartialEq)]
pub enum BulkItem {
    /// The columns of the rows that follow.
    Columns(ColMetadata),
    /// A row.
    Row(Vec<Value>),
    /// The end.
    Done(Done),
}

impl BulkReader {
    /// Begins before the first byte. A row or COLMETADATA of more than `max_item` bytes is refused.
    pub fn new(dialect: impl Into<Dialect>, max_item: usize) -> Self {
        Self {
            dialect: dialect.into(),
            max_item,
            columns: Vec::new(),
            cells: Vec::new(),
            walk: Walk::default(),
            walked: 0,
            wanted: 1,
        }
    }

    /// Takes the next item from the front of `input`; none as long as it is not whole. Between two calls `input` may
    /// only grow at its end.
    pub fn read(&mut self, input: &mut BytesMut) -> Result<Option<BulkItem>, Malformed> {
        if input.len() < self.wanted {
            return Ok(None);
        }
        let Some(&token) = input.first() else { return Ok(None) };
        if TokenKind(token) == TokenKind::ROW && !self.cells.is_empty() {
            return self.row(input);
        }
        let mut reader = Reader::new(&input[1..], "a bulk load");
        let item = match TokenKind(token) {
            TokenKind::COL_METADATA => match ColMetadata::read_of_bulk_load(&mut reader, self.dialect) {
                Ok(None) => Err(Malformed::Unexpected { what: "no metadata", state: "reading a bulk load" }),
                other => other.map(Option::unwrap_or_default).map(BulkItem::Columns),
            },
            TokenKind::DONE => {
                Done::read(DoneKind::Done, &mut reader, self.dialect.version).map(BulkItem::Done)
            }
            _ => return Err(Malformed::Value { what: "a bulk load's token", value: u64::from(token) }),
        };
        match item {
            Ok(item) => {
                let len = 1 + reader.position();
                input.advance(len);
                self.wanted = 1;
                if let BulkItem::Columns(metadata) = &item {
                    // Cells without a byte would make rows that cost the sender nothing.
                    if metadata.columns.iter().any(|column| column.type_info == TypeInfo::Null) {
                        let value = u64::from(TypeId::NULL.0);
                        return Err(Malformed::Value { what: "a bulk load's type", value });
                    }
                    self.columns.clone_from(&metadata.columns);
                    self.cells.clear();
                    self.cells.extend(self.columns.iter().map(|column| Cell::from(&column.type_info)));
                }
                Ok(Some(item))
            }
            Err(Malformed::Truncated { missing, .. }) => {
                self.wanted = input.len().saturating_add(missing);
                self.check(self.wanted)?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn row(&mut self, input: &mut BytesMut) -> Result<Option<BulkItem>, Malformed> {
        self.walked = self.walked.max(1);
        let (consumed, complete) = self.walk.walk(&self.cells, None, &input[self.walked..])?;
        self.walked += consumed;
        if !complete {
            self.check(self.walked)?;
            return Ok(None);
        }
        let whole = input.split_to(std::mem::take(&mut self.walked));
        let mut reader = Reader::new(&whole[1..], "a bulk load's row");
        row::read(&mut reader, &self.columns).map(|row| Some(BulkItem::Row(row)))
    }

    fn check(&self, len: usize) -> Result<(), Malformed> {
        if len > self.max_item {
            return Err(Malformed::TooLong { what: "a bulk load's row", limit: self.max_item });
        }
        Ok(())
    }
}

/// The bytes that WRITETEXT BULK or UPDATETEXT BULK sends ([MS-TDS] 2.2.6.2).
pub fn read_text(payload: &[u8]) -> Result<&[u8], Malformed> {
    Reader::new(payload, "a text to write").l_varbyte()
}
