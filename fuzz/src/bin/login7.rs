//! LOGIN7: what is read is written and read again as the same login with the same profile.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use tds::login7::{Login7, MAX_LOGIN7};
use tds::profile::LoginProfile;

fuzz_target!(|data: &[u8]| {
    let Ok(login) = Login7::decode(data) else { return };
    let _ = (login.auth_kind(), format!("{login:?}"), login.password.reveal());
    let mut out = BytesMut::new();
    login.encode(&mut out);
    if out.len() > MAX_LOGIN7 {
        return;
    }
    let again = Login7::decode(&out).expect("what was written");
    assert_eq!(LoginProfile::of(&again), LoginProfile::of(&login));
    assert_eq!(
        (&again.password, &again.sspi, &again.features),
        (&login.password, &login.sspi, &login.features)
    );
    let mut twice = BytesMut::new();
    again.encode(&mut twice);
    assert_eq!(twice, out);
});
