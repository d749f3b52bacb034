//! Handshakes, records and the end of TLS, both roles against each other, without sockets.

use bytes::{BufMut, BytesMut};
use proptest::prelude::*;
use tds::handshake::TlsFraming::{self, Raw, Wrapped};

use super::super::pair::{roles, roles_of, trusting};
use super::*;

/// Two sessions and the bytes between them.
struct Both {
    server: Tls,
    client: Tls,
    to_server: BytesMut,
    to_client: BytesMut,
}

impl Both {
    fn new(framing: TlsFraming) -> Self {
        Self::of(roles(framing), framing)
    }

    fn of((server, client): (TlsRole, TlsRole), framing: TlsFraming) -> Self {
        Self {
            server: Tls::new(server, framing, BytesMut::new()).unwrap(),
            client: Tls::new(client, framing, BytesMut::new()).unwrap(),
            to_server: BytesMut::new(),
            to_client: BytesMut::new(),
        }
    }

    /// Shakes hands, passing on at most `chunk()` bytes at a time. Returns all bytes of each direction.
    fn shake(&mut self, mut chunk: impl FnMut() -> usize) -> Result<(BytesMut, BytesMut), TlsError> {
        let (mut up, mut down) = (BytesMut::new(), BytesMut::new());
        self.client.handshake(&mut self.to_server)?;
        while self.server.is_handshaking() || self.client.is_handshaking() {
            assert!(!self.to_server.is_empty() || !self.to_client.is_empty(), "both wait for ever");
            let bytes = self.to_server.split_to(chunk().min(self.to_server.len()));
            up.put_slice(&bytes);
            self.server.received_mut().put_slice(&bytes);
            self.server.handshake(&mut self.to_client)?;
            let bytes = self.to_client.split_to(chunk().min(self.to_client.len()));
            down.put_slice(&bytes);
            self.client.received_mut().put_slice(&bytes);
            self.client.handshake(&mut self.to_server)?;
        }
        Ok((up, down))
    }
}

fn decrypt(tls: &mut Tls) -> Result<BytesMut, TlsError> {
    let (mut plain, mut out) = (BytesMut::new(), BytesMut::new());
    tls.decrypt(&mut plain, &mut out, usize::MAX)?;
    Ok(plain)
}

fn encrypt(tls: &mut Tls, bytes: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    for record in bytes.chunks(16 * 1024) {
        tls.encrypt(record, &mut out).unwrap();
    }
    out
}

fn packets_only(mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
        if bytes[0] != 0x12 || length > 4096 {
            return false;
        }
        bytes = &bytes[length..];
    }
    true
}

#[test]
fn a_wrapped_handshake_is_tls_1_2_in_prelogin_packets_and_what_follows_is_bare() {
    let mut both = Both::new(Wrapped);
    let (up, down) = both.shake(|| usize::MAX).unwrap();
    assert!(packets_only(&up) && packets_only(&down));
    assert_eq!(both.client.session.state().protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
    assert!(both.to_client.is_empty(), "nothing may follow the server's last flight");
    assert_eq!(encrypt(&mut both.client, b"login")[0], APPLICATION_DATA);
}

#[test]
fn a_strict_handshake_is_bare_and_agrees_on_tds_8() {
    let mut both = Both::new(Raw);
    let (up, _) = both.shake(|| usize::MAX).unwrap();
    assert_eq!(up[0], 0x16);
    assert_eq!(both.server.alpn(), Some(&b"tds/8.0"[..]));
    assert_eq!(both.client.alpn(), Some(&b"tds/8.0"[..]));
    assert_eq!(both.server.session.state().protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
}

#[test]
fn a_strict_client_of_tls_1_2_is_served() {
    let (server, _) = roles(Raw);
    let TlsRole::Server(server) = server else { panic!() };
    let mut client = (*super::super::client_config(&trusting(Wrapped)).unwrap()).clone();
    client.alpn_protocols = vec![b"tds/8.0".to_vec()];
    let mut both = Both::of(roles_of(server, Arc::new(client)), Raw);
    both.shake(|| 100).unwrap();
    assert_eq!(both.server.alpn(), Some(&b"tds/8.0"[..]));
}

#[test]
fn a_client_of_another_protocol_is_refused_with_an_alert() {
    let (server, _) = roles(Raw);
    let TlsRole::Server(server) = server else { panic!() };
    let mut client = (*super::super::client_config(&trusting(Raw)).unwrap()).clone();
    client.alpn_protocols = vec![b"h2".to_vec()];
    let mut both = Both::of(roles_of(server, Arc::new(client)), Raw);
    assert!(both.shake(|| usize::MAX).is_err());
    both.client.received_mut().unsplit(both.to_client.split());
    let told = both.client.handshake(&mut both.to_server).unwrap_err();
    assert_eq!(told.to_string(), "the peer refused TLS: it does not speak tds/8.0");
}

#[test]
fn an_alert_during_a_wrapped_handshake_is_wrapped_and_a_bare_one_is_read_all_the_same() {
    let mut both = Both::new(Wrapped);
    both.client.handshake(&mut both.to_server).unwrap();
    both.server.received_mut().unsplit(both.to_server.split());
    both.server.handshake(&mut both.to_client).unwrap();
    both.server.received_mut().put_slice(&[0x15, 3, 3, 0, 2, 2, 48]);
    let told = both.server.handshake(&mut both.to_client).unwrap_err();
    assert_eq!(told.to_string(), "the peer refused TLS: it does not trust our certificate's authority");

    let mut both = Both::new(Wrapped);
    both.client.handshake(&mut both.to_server).unwrap();
    // A record of a handshake message that has no place here, in a packet.
    both.client.received_mut().put_slice(&[0x12, 1, 0, 17, 0, 0, 0, 0, 0x16, 3, 3, 0, 4, 20, 0, 0, 0]);
    let mut alert = BytesMut::new();
    assert!(both.client.handshake(&mut alert).is_err());
    assert!(packets_only(&alert) && alert[8] == 0x15, "{alert:?}");
}

#[test]
fn bytes_that_are_not_tls_are_an_error_at_once() {
    for bytes in [&b"\x12"[..], b"GET / HTTP/1.1\r\n", b"\x16\x03\x03\xff\xff"] {
        let (server, _) = roles(Raw);
        let mut server = Tls::new(server, Raw, BytesMut::from(bytes)).unwrap();
        let error = server.handshake(&mut BytesMut::new()).unwrap_err();
        assert!(matches!(error, TlsError::NotTls { .. }), "{error}");
    }
    let (server, _) = roles(Wrapped);
    let mut server = Tls::new(server, Wrapped, BytesMut::from(&b"\x12\x01\x00\x0a\0\0\0\0GE"[..])).unwrap();
    assert!(server.handshake(&mut BytesMut::new()).is_err());
}

#[test]
fn application_data_before_the_handshake_ends_is_an_error() {
    let (server, _) = roles(Raw);
    let mut server = Tls::new(server, Raw, BytesMut::from(&[APPLICATION_DATA, 3, 3, 0, 1, 0][..])).unwrap();
    assert!(server.handshake(&mut BytesMut::new()).is_err());
    assert!(server.encrypt(b"secret", &mut BytesMut::new()).is_err());
}

#[test]
fn a_forged_record_breaks_the_session_and_leaves_an_alert() {
    let mut both = Both::new(Wrapped);
    both.shake(|| usize::MAX).unwrap();
    let mut record = encrypt(&mut both.client, b"login");
    let last = record.len() - 1;
    record[last] ^= 1;
    both.server.received_mut().unsplit(record);
    let (mut plain, mut alert) = (BytesMut::new(), BytesMut::new());
    assert!(both.server.decrypt(&mut plain, &mut alert, 100).is_err());
    assert_eq!((plain.len(), alert[0]), (0, 0x15));
    assert!(both.server.encrypt(b"answer", &mut alert).is_err());
    assert!(both.server.health().is_err());
}

#[test]
fn close_notify_ends_the_plaintext_and_allows_an_answer() {
    for framing in [Wrapped, Raw] {
        let mut both = Both::new(framing);
        both.shake(|| usize::MAX).unwrap();
        let mut bytes = encrypt(&mut both.client, b"last words");
        both.client.close_notify(&mut bytes);
        both.server.received_mut().unsplit(bytes);
        assert_eq!(decrypt(&mut both.server).unwrap(), "last words");
        let _ = decrypt(&mut both.server).unwrap();
        assert!(both.server.peer_closed());
        let answer = encrypt(&mut both.server, b"heard");
        both.client.received_mut().unsplit(answer);
        assert_eq!(decrypt(&mut both.client).unwrap(), "heard");
    }
}

#[test]
fn an_established_session_owns_no_bytes() {
    let mut both = Both::new(Wrapped);
    both.shake(|| usize::MAX).unwrap();
    let bytes = encrypt(&mut both.client, &[7; 40_000]);
    both.server.received_mut().unsplit(bytes);
    assert_eq!(decrypt(&mut both.server).unwrap().len(), 40_000);
    assert!(!both.server.has_input() && both.server.wrapping.is_none());
    assert!(size_of::<Tls>() < 2048, "{}", size_of::<Tls>());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_handshake_succeeds_in_any_chunking(
        chunks in prop::collection::vec(1usize..700, 1..20), strict: bool
    ) {
        let framing = if strict { Raw } else { Wrapped };
        let mut both = Both::new(framing);
        let mut chunks = chunks.iter().cycle();
        both.shake(|| *chunks.next().unwrap()).unwrap();
        let bytes = encrypt(&mut both.server, b"welcome");
        both.client.received_mut().put_slice(&both.to_client.split());
        both.client.received_mut().put_slice(&bytes);
        prop_assert_eq!(&decrypt(&mut both.client).unwrap()[..], b"welcome");
    }

    #[test]
    fn login_only_tls_ends_without_losing_what_follows_in_any_chunking(
        chunks in prop::collection::vec(1usize..3000, 1..20),
        login in 1usize..40_000,
        following in prop::collection::vec(0x01u8..=0x12, 0..300),
    ) {
        let mut both = Both::new(Wrapped);
        let login = vec![0x10; login];
        both.shake(|| usize::MAX).unwrap();
        let mut stream = BytesMut::new();
        stream.unsplit(encrypt(&mut both.client, &login));
        stream.put_slice(&following);
        let (mut plain, mut chunks) = (BytesMut::new(), chunks.iter().cycle());
        while plain.len() < login.len() {
            let chunk = stream.split_to(stream.len().min(*chunks.next().unwrap()));
            both.server.received_mut().put_slice(&chunk);
            let more = decrypt(&mut both.server).unwrap();
            plain.put_slice(&more);
        }
        prop_assert_eq!(&plain, &login);
        let mut rest = both.server.into_undecrypted();
        rest.unsplit(stream);
        prop_assert_eq!(&rest[..], &following[..]);
    }
}
