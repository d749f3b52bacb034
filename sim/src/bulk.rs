//! The rows of a bulk load, read from the socket as the engine takes them ([MS-TDS] 2.2.6.1).

use std::sync::Arc;

use bytes::{Buf, BytesMut};
use tds::col_metadata::Column;
use tds::packet::{MAX_PACKET_SIZE, PacketWalker, Status};
use tds::request::bulk_load::{BulkItem, BulkReader};
use tds::value::Value;
use tds::{Dialect, Malformed};

use crate::connection::End;
use crate::engine::Cancel;
use crate::watcher::Watcher;
use crate::wire::{SharedWire, fill, lock};

/// The largest row, in bytes.
const MAX_ROW: usize = 256 << 20;

/// A bulk load message being read. Ends early, and cancels the load, when the message breaks off.
#[derive(Debug)]
pub(crate) struct BulkRows<'a> {
    wire: &'a SharedWire,
    watcher: &'a Arc<Watcher>,
    reader: BulkReader,
    cancel: Cancel,
    walker: PacketWalker,
    /// Contents of packets that are not yet rows.
    payload: BytesMut,
    message_ended: bool,
    rows_ended: bool,
    ignored: bool,
    malformed: Option<Malformed>,
    io: Option<End>,
}

/// How a bulk load message ended.
#[derive(Debug)]
pub(crate) struct BulkEnd {
    /// The client withdrew it.
    pub(crate) ignored: bool,
    /// It could not be read.
    pub(crate) malformed: Option<Malformed>,
}

impl<'a> BulkRows<'a> {
    pub(crate) fn new(
        wire: &'a SharedWire,
        watcher: &'a Arc<Watcher>,
        dialect: Dialect,
        cancel: Cancel,
    ) -> Self {
        lock(wire).in_message = true;
        Self {
            wire,
            watcher,
            reader: BulkReader::new(dialect, MAX_ROW),
            cancel,
            walker: PacketWalker::new(MAX_PACKET_SIZE),
            payload: BytesMut::new(),
            message_ended: false,
            rows_ended: false,
            ignored: false,
            malformed: None,
            io: None,
        }
    }

    /// The message's metadata, which comes first.
    pub(crate) fn columns(&mut self) -> Option<Vec<Column>> {
        match self.item()? {
            BulkItem::Columns(metadata) => Some(metadata.columns),
            BulkItem::Row(_) | BulkItem::Done(_) => {
                self.give_up(Malformed::Unexpected { what: "no metadata", state: "reading a bulk load" })
            }
        }
    }

    /// Reads the rest of the message.
    pub(crate) fn finish(mut self) -> Result<BulkEnd, End> {
        while !self.message_ended && self.io.is_none() {
            self.payload.clear();
            self.more();
        }
        if let Some(end) = self.io {
            return Err(end);
        }
        lock(self.wire).in_message = false;
        Ok(BulkEnd { ignored: self.ignored, malformed: self.malformed })
    }

    /// The next item, as soon as it is all there. `None`: there is none; the reason is in the fields.
    fn item(&mut self) -> Option<BulkItem> {
        loop {
            match self.reader.read(&mut self.payload) {
                Ok(Some(item)) => return Some(item),
                Ok(None) if self.message_ended => return None,
                Ok(None) => {}
                Err(malformed) => return self.give_up(malformed),
            }
            if !self.more() {
                return None;
            }
        }
    }

    fn give_up<T>(&mut self, malformed: Malformed) -> Option<T> {
        self.malformed = Some(malformed);
        self.cancel.cancel();
        None
    }

    /// Reads more of the message; false when that is impossible.
    fn more(&mut self) -> bool {
        loop {
            let piece = {
                let mut wire = lock(self.wire);
                match self.walker.next(&wire.input) {
                    Ok(Some(piece)) => {
                        let mut bytes = wire.input.split_to(piece.consumed);
                        bytes.advance(piece.payload.start);
                        self.payload.unsplit(bytes);
                        Some(Ok(piece))
                    }
                    Ok(None) => {
                        wire.input.clear();
                        None
                    }
                    Err(malformed) => Some(Err(malformed)),
                }
            };
            match piece {
                Some(Ok(piece)) => {
                    let withdrawn = piece.header.is_some_and(|header| header.status.contains(Status::IGNORE));
                    self.ignored |= withdrawn;
                    self.message_ended = piece.end_of_message;
                    if self.ignored {
                        self.cancel.cancel();
                    }
                    return true;
                }
                // The packets themselves are broken: nothing that follows can be found.
                Some(Err(malformed)) => return self.lost(malformed.into()),
                None => match self.fill() {
                    Ok(true) => {}
                    Ok(false) => return self.lost(End::Closed),
                    Err(error) => return self.lost(error.into()),
                },
            }
        }
    }

    fn fill(&self) -> std::io::Result<bool> {
        self.watcher.block_on(fill(self.wire))
    }

    fn lost(&mut self, end: End) -> bool {
        self.io = Some(end);
        self.cancel.cancel();
        false
    }
}

impl Iterator for BulkRows<'_> {
    type Item = Vec<Value>;

    fn next(&mut self) -> Option<Vec<Value>> {
        if self.rows_ended || self.ignored {
            return None;
        }
        match self.item() {
            Some(BulkItem::Row(row)) if !self.ignored => Some(row),
            _ => {
                self.rows_ended = true;
                None
            }
        }
    }
}
