//! What precedes a request from TDS 7.2 on: its transaction and how to trace it ([MS-TDS] 2.2.5.3).

use bytes::BufMut;

use crate::read::Reader;
use crate::{Dialect, Malformed, write};

/// ALL_HEADERS. Headers that the specification does not list are passed over.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct AllHeaders {
    /// Tell the client when the results change.
    pub query_notification: Option<QueryNotification>,
    /// The transaction that the request belongs to; required, but not every client sends it.
    pub transaction: Option<TransactionDescriptor>,
    /// The client's id of what it is doing, from TDS 7.4 on.
    pub trace_activity: Option<TraceActivity>,
}

/// The query notifications header ([MS-TDS] 2.2.5.3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryNotification {
    /// The client's name for the notification.
    pub id: String,
    /// The Service Broker deployment.
    pub deployment: String,
    /// How long the subscription lives, in milliseconds.
    pub timeout: Option<u32>,
}

/// The transaction descriptor header ([MS-TDS] 2.2.5.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionDescriptor {
    /// The number that ENVCHANGE 8 announced; 0 in autocommit mode.
    pub descriptor: u64,
    /// Requests active on the connection; 1 without MARS.
    pub outstanding_requests: u32,
}

/// The trace activity header ([MS-TDS] 2.2.5.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceActivity {
    /// A GUID in the order of the wire.
    pub id: [u8; 16],
    /// Counts within the activity.
    pub sequence: u32,
}

const QUERY_NOTIFICATION: u16 = 1;
const TRANSACTION_DESCRIPTOR: u16 = 2;
const TRACE_ACTIVITY: u16 = 3;

impl AllHeaders {
    /// No transaction, no tracing.
    pub fn autocommit() -> Self {
        Self::in_transaction(0)
    }

    /// The transaction that ENVCHANGE 8 announced under this number.
    pub fn in_transaction(descriptor: u64) -> Self {
        let transaction = Some(TransactionDescriptor { descriptor, outstanding_requests: 1 });
        Self { transaction, ..Self::default() }
    }

    /// Reads the headers and their total length.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let total = reader.u32()?;
        let len = usize::try_from(total).unwrap_or(usize::MAX);
        let Some(len) = len.checked_sub(4) else {
            return Err(Malformed::Value { what: "ALL_HEADERS' length", value: u64::from(total) });
        };
        let mut inside = Reader::new(reader.take(len)?, "ALL_HEADERS");
        let mut headers = Self::default();
        while !inside.is_empty() {
            let header_len = inside.u32()?;
            let kind = inside.u16()?;
            let Some(len) = usize::try_from(header_len).unwrap_or(usize::MAX).checked_sub(6) else {
                return Err(Malformed::Value { what: "a header's length", value: u64::from(header_len) });
            };
            headers.take(kind, Reader::new(inside.take(len)?, "a header"))?;
        }
        Ok(headers)
    }

    /// Reads the headers if the version has them.
    pub fn read_if_any(reader: &mut Reader<'_>, dialect: Dialect) -> Result<Option<Self>, Malformed> {
        if dialect.is_7_2_or_later() { Self::read(reader).map(Some) } else { Ok(None) }
    }

    fn take(&mut self, kind: u16, mut data: Reader<'_>) -> Result<(), Malformed> {
        match kind {
            QUERY_NOTIFICATION => {
                self.query_notification = Some(QueryNotification {
                    id: byte_counted(&mut data)?,
                    deployment: byte_counted(&mut data)?,
                    timeout: if data.is_empty() { None } else { Some(data.u32()?) },
                });
            }
            TRANSACTION_DESCRIPTOR => {
                self.transaction = Some(TransactionDescriptor {
                    descriptor: data.u64()?,
                    outstanding_requests: data.u32()?,
                });
            }
            TRACE_ACTIVITY => {
                self.trace_activity = Some(TraceActivity { id: data.array()?, sequence: data.u32()? });
            }
            _ => {}
        }
        Ok(())
    }

    /// Where the transaction's descriptor (8 bytes) stands in a payload that begins with headers, in bytes. None
    /// if there is no such header, or the headers are not all there.
    pub fn descriptor_offset(payload: &[u8]) -> Option<usize> {
        let len = |at: usize| {
            let bytes = payload.get(at..)?.first_chunk::<4>()?;
            usize::try_from(u32::from_le_bytes(*bytes)).ok()
        };
        let total = len(0)?;
        payload.get(..total)?;
        let mut at = 4;
        while at + 6 <= total {
            let header = len(at)?;
            if header < 6 {
                return None;
            }
            if payload[at + 4..at + 6] == TRANSACTION_DESCRIPTOR.to_le_bytes() && header >= 14 {
                return (at + 14 <= total).then_some(at + 6);
            }
            at = at.checked_add(header)?;
        }
        None
    }

    /// Writes the headers with their total length.
    pub fn write(&self, out: &mut impl BufMut) {
        let mut all = Vec::with_capacity(22);
        if let Some(notification) = &self.query_notification {
            let mut data = Vec::new();
            for text in [&notification.id, &notification.deployment] {
                let mut bytes = Vec::new();
                write::utf16(&mut bytes, text);
                bytes.truncate(0xFFFE);
                data.put_u16_le(bytes.len() as u16);
                data.put_slice(&bytes);
            }
            if let Some(timeout) = notification.timeout {
                data.put_u32_le(timeout);
            }
            put_header(&mut all, QUERY_NOTIFICATION, &data);
        }
        if let Some(transaction) = self.transaction {
            let mut data = Vec::with_capacity(12);
            data.put_u64_le(transaction.descriptor);
            data.put_u32_le(transaction.outstanding_requests);
            put_header(&mut all, TRANSACTION_DESCRIPTOR, &data);
        }
        if let Some(activity) = self.trace_activity {
            let mut data = activity.id.to_vec();
            data.put_u32_le(activity.sequence);
            put_header(&mut all, TRACE_ACTIVITY, &data);
        }
        out.put_u32_le(4 + all.len() as u32);
        out.put_slice(&all);
    }
}

fn put_header(all: &mut Vec<u8>, kind: u16, data: &[u8]) {
    all.put_u32_le(6 + data.len() as u32);
    all.put_u16_le(kind);
    all.put_slice(data);
}

/// Text after its length in bytes.
fn byte_counted(data: &mut Reader<'_>) -> Result<String, Malformed> {
    let bytes = data.us_varbyte()?;
    crate::read::decode_utf16(bytes, "a query notification")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptor_is_found_behind_other_headers() {
        let notification =
            QueryNotification { id: "n".to_owned(), deployment: "d".to_owned(), timeout: Some(1) };
        for query_notification in [None, Some(notification)] {
            let headers =
                AllHeaders { query_notification, ..AllHeaders::in_transaction(0x0102_0304_0506_0708) };
            let mut payload = Vec::new();
            headers.write(&mut payload);
            let at = AllHeaders::descriptor_offset(&payload).unwrap();
            assert_eq!(payload[at..at + 8], 0x0102_0304_0506_0708_u64.to_le_bytes());
            for len in 0..payload.len() {
                assert_eq!(AllHeaders::descriptor_offset(&payload[..len]), None);
            }
        }
        assert_eq!(AllHeaders::descriptor_offset(&[4, 0, 0, 0, 1]), None);
        assert_eq!(AllHeaders::descriptor_offset(&[14, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0]), None);
    }
}
