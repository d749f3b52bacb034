//! Passes responses on packet by packet, with some of their tokens taken out, changed or put in ([MS-TDS] 2.2.7).

use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};

use crate::packet::{HEADER_LEN, PacketHeader, PacketType, Status};
use crate::scan::{ResponseScanner, Scanned};
use crate::{Dialect, Malformed};

/// What becomes of a token. Only tokens that [`Scanned::is_held`] can be changed; others are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// It passes as it is.
    Keep,
    /// It is left out.
    Drop,
    /// These bytes take its place.
    Replace(Bytes),
}

/// Where a response stands after [`ResponseEditor::pass`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// More packets of it are to come.
    More,
    /// It has ended between two tokens.
    Ended,
    /// It has ended inside a token, or could not be followed to its end: nothing may be concluded from it.
    Torn,
}

/// Follows one response after the other on a connection.
///
/// Packets without an edit pass as they are. Those with one are written anew; a packet may then be shorter than the
/// agreed size, which the specification allows ([MS-TDS] 2.2.3.1.3). Input is consumed by whole packets, so no more
/// than one packet waits for its end.
#[derive(Debug)]
pub struct ResponseEditor {
    scanner: ResponseScanner,
    /// The longest packet that is accepted, in bytes.
    max_packet: usize,
    /// The longest packet that is written, in bytes.
    packet_size: usize,
    /// Payload that is to come before the next packet's: the beginning of a token that may yet be edited, or tokens
    /// put in.
    carry: BytesMut,
    /// How many bytes of `carry` are payload that the scanner has seen.
    carried: usize,
    edits: Vec<(Range<u64>, Bytes)>,
    /// Packets of this response have got other numbers than the server gave them.
    next_id: Option<u8>,
    lost: bool,
}

impl ResponseEditor {
    /// Begins between two responses. No packet may be longer than `max_packet` bytes; those written anew are at most
    /// `packet_size` bytes long, as client and server have agreed.
    pub fn new(dialect: impl Into<Dialect>, max_packet: usize, packet_size: usize) -> Self {
        Self {
            scanner: ResponseScanner::new(dialect),
            max_packet,
            packet_size: packet_size.max(HEADER_LEN + 1),
            carry: BytesMut::new(),
            carried: 0,
            edits: Vec::new(),
            next_id: None,
            lost: false,
        }
    }

    /// Puts tokens before everything else of the response that is passed on next; others may be swallowed before.
    pub fn insert_front(&mut self, tokens: &[u8]) {
        debug_assert_eq!(self.scanner.offset(), 0, "a response has begun");
        self.carry.extend_from_slice(tokens);
    }

    /// Moves whole packets from `input` to `out` up to the end of a response. What lies behind it stays in `input`.
    ///
    /// # Errors
    ///
    /// The bytes are no packets of a response.
    pub fn pass(
        &mut self,
        input: &mut BytesMut,
        out: &mut BytesMut,
        mut on_event: impl FnMut(&Scanned<'_>) -> Edit,
    ) -> Result<Passed, Malformed> {
        // Bytes at the front of `input` that pass as they are.
        let mut run = 0;
        loop {
            let Some(header) = self.whole_packet(&input[run..])? else {
                move_front(input, run, out);
                return Ok(Passed::More);
            };
            let end = run + usize::from(header.length);
            let untouched = self.look(&input[run + HEADER_LEN..end], &mut on_event);
            if untouched && self.next_id.is_none() {
                run = end;
            } else {
                move_front(input, run, out);
                self.rewrite(header, &input[HEADER_LEN..usize::from(header.length)], out);
                input.advance(usize::from(header.length));
                run = 0;
            }
            if header.ends_message() {
                move_front(input, run, out);
                let passed = self.ended();
                self.carry.clear();
                self.carried = 0;
                return Ok(passed);
            }
        }
    }

    /// Takes a response out of `input` up to its end, passing nothing on. Tokens that were put in wait for the next one
    /// that is passed.
    ///
    /// # Errors
    ///
    /// The bytes are no packets of a response.
    pub fn swallow(
        &mut self,
        input: &mut BytesMut,
        mut on_event: impl FnMut(&Scanned<'_>),
    ) -> Result<Passed, Malformed> {
        while let Some(header) = self.whole_packet(input)? {
            let len = usize::from(header.length);
            let lost = &mut self.lost;
            self.scanner.feed(&input[HEADER_LEN..len], |scanned| {
                *lost |= matches!(scanned.event, crate::scan::Event::Lost(_));
                on_event(&scanned);
            });
            input.advance(len);
            if header.ends_message() {
                let front = std::mem::take(&mut self.carry);
                let passed = self.ended();
                self.carry = front;
                return Ok(passed);
            }
        }
        Ok(Passed::More)
    }

    fn whole_packet(&self, input: &[u8]) -> Result<Option<PacketHeader>, Malformed> {
        let Some(bytes) = input.first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let header = PacketHeader::decode(bytes, self.max_packet)?;
        if header.kind != PacketType::RESPONSE {
            return Err(Malformed::Unexpected { what: header.kind.name(), state: "reading a response" });
        }
        Ok((input.len() >= usize::from(header.length)).then_some(header))
    }

    /// Scans a packet's payload and notes the edits. True if the packet can pass as it is.
    fn look(&mut self, payload: &[u8], on_event: &mut impl FnMut(&Scanned<'_>) -> Edit) -> bool {
        let Self { scanner, edits, lost, .. } = self;
        scanner.feed(payload, |scanned| {
            *lost |= matches!(scanned.event, crate::scan::Event::Lost(_));
            match on_event(&scanned) {
                Edit::Keep => {}
                _ if !scanned.is_held() => debug_assert!(false, "only held tokens can be edited"),
                Edit::Drop => edits.push((scanned.range.clone(), Bytes::new())),
                Edit::Replace(bytes) => edits.push((scanned.range.clone(), bytes)),
            }
        });
        self.edits.is_empty() && self.carry.is_empty() && self.scanner.settled() == self.scanner.offset()
    }

    /// Writes a packet anew: what was carried over, its payload with the edits, less what is not settled yet.
    fn rewrite(&mut self, header: PacketHeader, payload: &[u8], out: &mut BytesMut) {
        let end = self.scanner.offset();
        let begin = end - payload.len() as u64 - self.carried as u64;
        // At the end of a message there is nothing to wait for.
        let settled = if header.ends_message() { end } else { self.scanner.settled().max(begin) };
        let mut source = std::mem::take(&mut self.carry);
        let ahead = source.len() - self.carried;
        source.extend_from_slice(payload);
        let place = |offset: u64| ahead + usize::try_from(offset - begin).unwrap_or(usize::MAX);
        let mut edited = BytesMut::with_capacity(source.len());
        edited.extend_from_slice(&source[..ahead]);
        let mut at = ahead;
        for (range, bytes) in self.edits.drain(..) {
            edited.extend_from_slice(&source[at..place(range.start)]);
            edited.extend_from_slice(&bytes);
            at = place(range.end);
        }
        let settled_at = place(settled).max(at);
        edited.extend_from_slice(&source[at..settled_at]);
        self.carry.extend_from_slice(&source[settled_at..]);
        self.carried = self.carry.len();
        self.write_packets(header, &edited, out);
    }

    fn write_packets(&mut self, header: PacketHeader, payload: &[u8], out: &mut BytesMut) {
        let room = self.packet_size - HEADER_LEN;
        let mut chunks = payload.chunks(room).peekable();
        let id = self.next_id.get_or_insert(header.id);
        if chunks.peek().is_none() && !header.ends_message() {
            return;
        }
        loop {
            let chunk = chunks.next().unwrap_or_default();
            let last = chunks.peek().is_none();
            let status = if last { header.status } else { header.status.without(Status::END_OF_MESSAGE) };
            let length = (HEADER_LEN + chunk.len()) as u16;
            let written = PacketHeader { status, length, id: *id, ..header };
            *id = id.wrapping_add(1);
            out.extend_from_slice(&written.encode());
            out.extend_from_slice(chunk);
            if last {
                return;
            }
        }
    }

    fn ended(&mut self) -> Passed {
        let whole = self.scanner.is_between_tokens() && !self.lost;
        self.scanner.restart();
        self.lost = false;
        self.next_id = None;
        if whole { Passed::Ended } else { Passed::Torn }
    }
}

/// Moves the first `len` bytes, without a copy where `out` is empty.
fn move_front(input: &mut BytesMut, len: usize, out: &mut BytesMut) {
    if len == 0 {
        return;
    }
    if !out.is_empty() {
        out.extend_from_slice(&input[..len]);
        input.advance(len);
    } else if len == input.len() {
        std::mem::swap(input, out);
    } else {
        *out = input.split_to(len);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::TdsVersion;
    use crate::done::{Done, DoneKind, DoneStatus};
    use crate::env_change::EnvChange;
    use crate::message::{MessageReader, write_message};
    use crate::scan::Event;
    use crate::server_message::ServerMessage;
    use crate::session_state::SessionState;

    const LIMIT: usize = 512;

    fn done(rows: u64) -> BytesMut {
        let mut out = BytesMut::new();
        let status = DoneStatus::FINAL;
        Done { kind: DoneKind::Done, status, current_command: 0xC1, rows }.write(&mut out, TdsVersion::V7_4);
        out
    }

    fn reset_done() -> BytesMut {
        let mut out = BytesMut::new();
        EnvChange::ResetDone.write(&mut out);
        out
    }

    fn state(data: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        SessionState { sequence: 1, recoverable: true, data }.write(&mut out);
        out
    }

    fn info(len: usize) -> BytesMut {
        let mut out = BytesMut::new();
        ServerMessage::error(5000, 16, "x".repeat(len), "server").write(&mut out, TdsVersion::V7_4);
        out
    }

    fn packets(payload: &[u8], size: usize) -> BytesMut {
        let mut out = BytesMut::new();
        write_message(&mut out, PacketType::RESPONSE, Status::NORMAL, 7, size, payload);
        out
    }

    /// Takes session states and reset acknowledgements out, doubles each DONE's row count.
    fn edit(scanned: &Scanned<'_>) -> Edit {
        match &scanned.event {
            Event::SessionState(_) | Event::EnvChange(EnvChange::ResetDone) => Edit::Drop,
            Event::Done(seen) => Edit::Replace(done(seen.rows * 2).freeze()),
            _ => Edit::Keep,
        }
    }

    fn payload_of(mut bytes: BytesMut) -> Vec<u8> {
        let mut reader = MessageReader::new(LIMIT, 1 << 20);
        let message = reader.read(&mut bytes).unwrap().expect("a whole message");
        assert!(bytes.is_empty());
        message.payload.to_vec()
    }

    #[test]
    fn a_response_without_edits_passes_byte_for_byte() {
        let bytes = packets(&[info(700), done(1)].concat(), LIMIT);
        let (mut input, mut out) = (bytes.clone(), BytesMut::new());
        let mut editor = ResponseEditor::new(TdsVersion::V7_4, LIMIT, LIMIT);
        assert_eq!(editor.pass(&mut input, &mut out, |_| Edit::Keep), Ok(Passed::Ended));
        assert_eq!(out, bytes);
    }

    #[test]
    fn what_lies_behind_a_response_stays() {
        let bytes = packets(&done(1), LIMIT);
        let mut input = BytesMut::from(&[&bytes[..], &bytes[..]].concat()[..]);
        let (mut editor, mut out) = (ResponseEditor::new(TdsVersion::V7_4, LIMIT, LIMIT), BytesMut::new());
        editor.insert_front(&reset_done());
        assert_eq!(editor.swallow(&mut input, |_| ()), Ok(Passed::Ended));
        assert_eq!(input, bytes);
        assert_eq!(editor.pass(&mut input, &mut out, |_| Edit::Keep), Ok(Passed::Ended));
        assert_eq!(payload_of(out), [reset_done(), done(1)].concat());
    }

    #[test]
    fn what_is_put_in_front_waits_until_something_passes() {
        let bytes = packets(&done(1), LIMIT);
        let mut input = BytesMut::from(&[&bytes[..], &bytes[..]].concat()[..]);
        let (mut editor, mut out) = (ResponseEditor::new(TdsVersion::V7_4, LIMIT, LIMIT), BytesMut::new());
        editor.insert_front(&reset_done());
        assert_eq!(editor.swallow(&mut input, |_| ()), Ok(Passed::Ended));
        assert_eq!(editor.pass(&mut input, &mut out, |_| Edit::Keep), Ok(Passed::Ended));
        assert_eq!(payload_of(out), [reset_done(), done(1)].concat());
    }

    #[test]
    fn a_response_that_ends_inside_a_token_is_torn() {
        let whole = done(1);
        let mut input = packets(&whole[..whole.len() - 1], LIMIT);
        let mut editor = ResponseEditor::new(TdsVersion::V7_4, LIMIT, LIMIT);
        let mut out = BytesMut::new();
        assert_eq!(editor.pass(&mut input, &mut out, |_| Edit::Keep), Ok(Passed::Torn));
        assert_eq!(payload_of(out), &whole[..whole.len() - 1], "the client sees what the server said");
    }

    #[test]
    fn a_request_is_no_response() {
        let mut input = BytesMut::new();
        write_message(&mut input, PacketType::RPC, Status::NORMAL, 0, LIMIT, &[0; 20]);
        let mut editor = ResponseEditor::new(TdsVersion::V7_4, LIMIT, LIMIT);
        assert!(editor.pass(&mut input, &mut BytesMut::new(), |_| Edit::Keep).is_err());
    }

    fn tokens() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            (0usize..900).prop_map(|len| info(len).to_vec()),
            (1u64..9).prop_map(|rows| done(rows).to_vec()),
            (0u8..200).prop_map(|len| {
                let mut data = vec![3, len];
                data.extend(std::iter::repeat_n(0xE4, usize::from(len)));
                state(&data).to_vec()
            }),
            Just(reset_done().to_vec()),
        ]
    }

    proptest! {
        #[test]
        fn edits_are_the_same_for_any_packets_and_chunks(
            tokens in proptest::collection::vec(tokens(), 1..12),
            size in 16usize..LIMIT,
            chunks in proptest::collection::vec(1usize..700, 1..40),
            front in any::<bool>(),
        ) {
            let payload = tokens.concat();
            let mut expected = if front { reset_done().to_vec() } else { Vec::new() };
            for token in &tokens {
                match token[0] {
                    0xE4 | 0xE3 => {}
                    0xFD => expected.extend_from_slice(&done(u64::from(token[5]) * 2)),
                    _ => expected.extend_from_slice(token),
                }
            }
            let bytes = packets(&payload, size);
            let mut editor = ResponseEditor::new(TdsVersion::V7_4, LIMIT, LIMIT);
            for _ in 0..2 {
                if front {
                    editor.insert_front(&reset_done());
                }
                let (mut input, mut out) = (BytesMut::new(), BytesMut::new());
                let (mut at, mut sizes, mut passed) = (0, chunks.iter().cycle(), Passed::More);
                while at < bytes.len() {
                    prop_assert_eq!(passed, Passed::More);
                    let end = (at + sizes.next().unwrap()).min(bytes.len());
                    input.extend_from_slice(&bytes[at..end]);
                    at = end;
                    let mut some = BytesMut::new();
                    passed = editor.pass(&mut input, &mut some, edit).unwrap();
                    out.extend_from_slice(&some);
                }
                prop_assert_eq!(passed, Passed::Ended);
                prop_assert_eq!(payload_of(out), expected.clone());
            }
        }
    }
}
