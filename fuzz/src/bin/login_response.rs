//! Login responses: what is accepted can be replayed, with and without its features, and is accepted again.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use tds::TdsVersion;
use tds::login_response::{LoginOutcome, read};
use tds::message::MessageReader;

fuzz_target!(|data: &[u8]| {
    let [first, payload @ ..] = data else { return };
    let version = if first & 1 == 0 { TdsVersion::V7_4 } else { TdsVersion::V7_1 };
    let Ok(LoginOutcome::Accepted(response)) = read(payload, version) else { return };
    let ids: Vec<_> = response.features.iter().map(|feature| feature.id).collect();
    for strip in [&[][..], &ids[..ids.len() / 2], &ids[..]] {
        let mut out = BytesMut::new();
        response.replay(&mut out, 51, 4096, strip);
        let message =
            MessageReader::new(4096, 1 << 20).read(&mut out).expect("what was written").expect("whole");
        let Ok(LoginOutcome::Accepted(again)) = read(&message.payload, version) else {
            panic!("not accepted")
        };
        assert_eq!((&again.ack, &again.messages), (&response.ack, &response.messages));
        assert!(again.features.iter().all(|feature| !strip.contains(&feature.id)));
    }
});
