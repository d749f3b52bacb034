//! The trace that a client has begun: from the TDS trace-activity header, or from a `traceparent` in a comment of the
//! text.

use tds::Dialect;
use tds::packet::PacketType;
use tds::read::Reader;
use tds::request::{AllHeaders, SqlBatch};

/// Which trace a request belongs to, and which span it is a child of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceContext {
    pub(super) trace: [u8; 16],
    pub(super) parent: Option<[u8; 8]>,
    /// Whether the client records its own span. Nothing is known of an activity.
    pub(super) sampled: Option<bool>,
}

/// How far into a text a comment is looked for, in bytes of UTF-16.
const LOOKED_AT: usize = 1024;

impl TraceContext {
    /// What a request's payload says; its beginning is enough.
    pub(crate) fn of(kind: PacketType, payload: &[u8], dialect: Dialect) -> Option<Self> {
        let takes_headers = [PacketType::SQL_BATCH, PacketType::RPC, PacketType::TRANSACTION_MANAGER];
        if !takes_headers.contains(&kind) {
            return None;
        }
        let text = match kind {
            PacketType::SQL_BATCH => {
                SqlBatch::text_offset(payload, dialect).ok().and_then(|at| payload.get(at..))
            }
            // `sp_executesql` and the like have their text somewhere in the beginning, at any byte.
            _ => Some(payload),
        };
        let found = text.and_then(|text| Self::in_comment(&text[..text.len().min(LOOKED_AT)]));
        if found.is_some() {
            return found;
        }
        let headers = AllHeaders::read_if_any(&mut Reader::new(payload, "a request"), dialect).ok()??;
        Self::of_activity(headers.trace_activity?.id)
    }

    /// A W3C traceparent: `00-TRACE-PARENT-FLAGS`.
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split('-');
        let (version, trace) = (fields.next()?, fields.next()?);
        let (parent, flags) = (fields.next()?, fields.next()?);
        // ff is no version.
        hex::<1>(version).filter(|version| *version != [0xFF])?;
        let trace = hex::<16>(trace).filter(|id| *id != [0; 16])?;
        let parent = hex::<8>(parent).filter(|id| *id != [0; 8])?;
        let [flags] = hex::<1>(flags)?;
        Some(Self { trace, parent: Some(parent), sampled: Some(flags & 1 == 1) })
    }

    /// As sqlcommenter writes it: `/*key='value',traceparent='00-..'*/`, in UTF-16.
    fn in_comment(utf16: &[u8]) -> Option<Self> {
        let at = find(utf16, &wide("traceparent='"))?;
        let (before, after) = (&utf16[..at], &utf16[at + 2 * "traceparent='".len()..]);
        let opened = before.windows(4).rposition(|window| window == wide("/*"))?;
        if find(&before[opened..], &wide("*/")).is_some() {
            return None;
        }
        let units = after.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
        let letters = units.take(64).map_while(|unit| u8::try_from(unit).ok().map(char::from));
        let text: String = letters.take_while(|letter| *letter != '\'').collect();
        Self::parse(&text)
    }

    /// An activity's GUID is the trace's id, with its digits in the order in which GUIDs are shown.
    fn of_activity(id: [u8; 16]) -> Option<Self> {
        if id == [0; 16] {
            return None;
        }
        let [a, b, c, d, e, f, g, h, rest @ ..] = id;
        let mut trace = [d, c, b, a, f, e, h, g, 0, 0, 0, 0, 0, 0, 0, 0];
        trace[8..].copy_from_slice(&rest);
        Some(Self { trace, parent: None, sampled: None })
    }
}

fn wide(text: &str) -> Vec<u8> {
    text.bytes().flat_map(|byte| [byte, 0]).collect()
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use tds::TdsVersion;
    use tds::request::TraceActivity;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn of_batch(text: &str, activity: Option<[u8; 16]>) -> Option<TraceContext> {
        let dialect = Dialect::of(TdsVersion::V7_4);
        let mut batch = SqlBatch::new(text);
        if let (Some(headers), Some(id)) = (&mut batch.headers, activity) {
            headers.trace_activity = Some(TraceActivity { id, sequence: 1 });
        }
        let mut payload = BytesMut::new();
        batch.write(&mut payload, dialect);
        TraceContext::of(PacketType::SQL_BATCH, &payload, dialect)
    }

    #[test]
    fn a_traceparent_in_a_comment_is_the_clients_trace() {
        let (trace, parent) = (hex(TRACE).unwrap(), hex("00f067aa0ba902b7"));
        let expected = TraceContext { trace, parent, sampled: Some(true) };
        for text in [
            format!("/*traceparent='{PARENT}'*/ SELECT 1"),
            format!("/*action='x',traceparent='{PARENT}',tracestate=''*/SELECT 1"),
            format!("SELECT 1 /*traceparent='{PARENT}'*/"),
        ] {
            assert_eq!(of_batch(&text, None), Some(expected), "{text}");
        }
        let not_sampled = format!("/*traceparent='{}'*/ SELECT 1", PARENT.replace("-01", "-00"));
        assert_eq!(of_batch(&not_sampled, None).unwrap().sampled, Some(false));
    }

    #[test]
    fn what_only_looks_like_one_is_none() {
        for text in [
            format!("SELECT 1 AS traceparent='{PARENT}'"),
            format!("/* x */ SELECT 1 AS traceparent='{PARENT}'"),
            "/*traceparent='00-0-0-0'*/ SELECT 1".to_owned(),
            "/*traceparent='00-00000000000000000000000000000000-00f067aa0ba902b7-01'*/".to_owned(),
            format!("/*traceparent='ff-{TRACE}-00f067aa0ba902b7-01'*/"),
            "/*traceparent='".to_owned(),
            String::new(),
        ] {
            assert_eq!(of_batch(&text, None), None, "{text}");
        }
    }

    #[test]
    fn an_activity_is_the_trace_that_its_guid_shows() {
        let id: [u8; 16] = hex("352ff94bb377a64da3ce929d0e0e4736").unwrap();
        let found = of_batch("SELECT 1", Some(id)).unwrap();
        assert_eq!(found.trace, hex("4bf92f3577b34da6a3ce929d0e0e4736").unwrap());
        assert_eq!((found.parent, found.sampled), (None, None));
        assert_eq!(of_batch("SELECT 1", Some([0; 16])), None);
    }
}
