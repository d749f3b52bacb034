//! Packets: the walker sees the same in any chunking and agrees with the reader of whole messages.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use tds::message::{MessageReader, write_message};
use tds::packet::{PacketHeader, PacketWalker};

/// Headers, payload, ends of messages, and whether it ended with an error.
type Walk = (Vec<PacketHeader>, Vec<u8>, Vec<usize>, bool);

fn walk(stream: &[u8], chunk: usize) -> Walk {
    let mut walker = PacketWalker::new(4096);
    let (mut headers, mut payload, mut ends) = (vec![], vec![], vec![]);
    let mut offset = 0;
    for bytes in stream.chunks(chunk) {
        let mut at = 0;
        loop {
            match walker.next(&bytes[at..]) {
                Ok(Some(piece)) => {
                    assert!(piece.payload.start <= piece.payload.end && piece.payload.end == piece.consumed);
                    assert!(piece.consumed > 0);
                    headers.extend(piece.header);
                    payload.extend_from_slice(&bytes[at..][piece.payload]);
                    at += piece.consumed;
                    ends.extend(piece.end_of_message.then_some(offset + at));
                }
                Ok(None) => break,
                Err(_) => return (headers, payload, ends, true),
            }
        }
        offset += bytes.len();
    }
    (headers, payload, ends, false)
}

fuzz_target!(|data: &[u8]| {
    let [first, stream @ ..] = data else { return };
    let whole = walk(stream, stream.len().max(1));
    assert_eq!(walk(stream, usize::from(*first) + 1), whole);

    let mut input = BytesMut::from(stream);
    let mut reader = MessageReader::new(4096, 1 << 16);
    let mut messages = 0;
    while let Ok(Some(message)) = reader.read(&mut input) {
        messages += 1;
        let mut out = BytesMut::new();
        let size = usize::from(*first) * 32;
        write_message(&mut out, message.kind, message.status, message.spid, size, &message.payload);
        let again =
            MessageReader::new(1 << 15, 1 << 16).read(&mut out).expect("what was written").expect("whole");
        assert_eq!((again.kind, again.payload), (message.kind, message.payload));
    }
    assert!(messages <= whole.2.len());
});
