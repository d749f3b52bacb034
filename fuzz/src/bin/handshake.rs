//! Handshakes: both sides, under every policy, take any bytes in any chunking to the same end. TLS is nothing here: its
//! bytes are as they are.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use tds::encryption::{ClientTlsPolicy, ServerTls};
use tds::handshake::{Accept, AcceptPolicy, AcceptStep, Connect, ConnectPolicy, ConnectStep, TlsFraming};
use tds::login7::Login7;

/// What the server's side does with a stream: its steps, then the error or the login.
fn accept(tls: ClientTlsPolicy, stream: &[u8], chunk: usize) -> (Vec<String>, BytesMut) {
    let policy = AcceptPolicy {
        tls,
        strict: true,
        server_version: [16, 0, 0, 0, 0, 0],
        mars: true,
        max_login: 1 << 16,
    };
    let mut accept = Accept::new(policy);
    let (mut input, mut out) = (BytesMut::new(), BytesMut::new());
    let mut told = vec![];
    for bytes in stream.chunks(chunk) {
        input.extend_from_slice(bytes);
        loop {
            let (next, step) = match accept.step(&mut input, &mut out) {
                Ok(found) => found,
                Err(error) => {
                    told.push(format!("{error:?}"));
                    return (told, out);
                }
            };
            accept = next;
            match step {
                AcceptStep::NeedBytes => break,
                AcceptStep::StartTls(framing) => {
                    told.push(format!("{framing:?}"));
                    if framing == TlsFraming::Raw {
                        input[0] = 0x12;
                    }
                    accept = accept.tls_established().expect("it was asked for");
                }
                AcceptStep::EndTls => told.push("end".into()),
                AcceptStep::Login(request) => {
                    told.push(format!("{request:?}"));
                    return (told, out);
                }
            }
        }
    }
    (told, out)
}

fn connect(tls: ServerTls, stream: &[u8], chunk: usize) -> (Vec<String>, BytesMut) {
    let policy = ConnectPolicy { tls, mars: true, ..ConnectPolicy::default() };
    let mut connect = Connect::new(policy, &Login7 { password: "secret".into(), ..Login7::default() });
    let (mut input, mut out) = (BytesMut::new(), BytesMut::new());
    let mut told = vec![];
    for bytes in stream.chunks(chunk) {
        input.extend_from_slice(bytes);
        loop {
            let (next, step) = match connect.step(&mut input, &mut out) {
                Ok(found) => found,
                Err(error) => {
                    told.push(format!("{error:?}"));
                    return (told, out);
                }
            };
            connect = next;
            match step {
                ConnectStep::NeedBytes => break,
                ConnectStep::StartTls(framing) => {
                    told.push(format!("{framing:?}"));
                    connect = connect.tls_established().expect("it was asked for");
                }
                ConnectStep::EndTls => told.push("end".into()),
                ConnectStep::Response { message, .. } => {
                    let outcome = tds::login_response::read(&message.payload, tds::TdsVersion::V7_4);
                    told.push(format!("{outcome:?}"));
                    if told.len() > 16 {
                        return (told, out);
                    }
                }
            }
        }
    }
    (told, out)
}

fuzz_target!(|data: &[u8]| {
    let [first, second, stream @ ..] = data else { return };
    let whole = stream.len().max(1);
    let chunk = usize::from(*second) + 1;
    use ClientTlsPolicy as Ours;
    let tls = [Ours::Off, Ours::LoginOnly, Ours::On, Ours::Require, Ours::Strict][usize::from(first % 5)];
    assert_eq!(accept(tls, stream, chunk), accept(tls, stream, whole));
    let tls = [ServerTls::Never, ServerTls::Off, ServerTls::On, ServerTls::Strict][usize::from(first % 4)];
    assert_eq!(connect(tls, stream, chunk), connect(tls, stream, whole));
});
