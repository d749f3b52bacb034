//! PRELOGIN: what is read is written and read again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tds::encryption::ClientTlsPolicy;
use tds::prelogin::Prelogin;

fuzz_target!(|data: &[u8]| {
    let Ok(prelogin) = Prelogin::decode(data) else { return };
    let _ = (prelogin.instance(), prelogin.mars(), prelogin.trace_id(), prelogin.nonce());
    for policy in
        [ClientTlsPolicy::Off, ClientTlsPolicy::LoginOnly, ClientTlsPolicy::On, ClientTlsPolicy::Require]
    {
        let _ = policy.answer(prelogin.encryption());
    }
    let mut out = vec![];
    prelogin.encode(&mut out);
    // Overlapping options may be too long to stand one behind the other.
    if out.len() <= usize::from(u16::MAX) {
        assert_eq!(Prelogin::decode(&out).as_ref(), Ok(&prelogin));
    }
});
