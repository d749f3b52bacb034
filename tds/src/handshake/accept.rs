//! The server's side of the way to a login.

use bytes::{Bytes, BytesMut};
use zeroize::Zeroize;

use super::{HandshakeError, TlsFraming};
use crate::Malformed;
use crate::encryption::{ClientTlsPolicy, Negotiated, Refusal};
use crate::login7::{Login7, MAX_LOGIN7};
use crate::message::{Message, MessageReader, PacketRead, write_message};
use crate::packet::{DEFAULT_PACKET_SIZE, MAX_PACKET_SIZE, PacketType, Status};
use crate::prelogin::{Prelogin, PreloginOption, Version};

/// The first byte of a TLS handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

/// What a server asks of those who connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptPolicy {
    /// Encryption in TDS 7.x.
    pub tls: ClientTlsPolicy,
    /// Connections may begin with TLS (TDS 8.0).
    pub strict: bool,
    /// The version to show in PRELOGIN.
    pub server_version: Version,
    /// Several requests may run on a connection, if the client likes.
    pub mars: bool,
    /// The longest LOGIN7, in bytes without packet headers; at most 128 KiB count.
    pub max_login: usize,
}

/// What the caller has to do. In any case what was written to `out` is sent first.
#[derive(Debug)]
pub enum AcceptStep {
    /// Call again with more bytes.
    NeedBytes,
    /// Do a TLS handshake as the server, then call [`Accept::tls_established`]; from then on feed what TLS decrypts.
    /// What is left of the input belongs to TLS.
    StartTls(TlsFraming),
    /// TLS ends here: what follows the last TLS record is in the clear. Call again with it, or with nothing.
    EndTls,
    /// The login is here. What is left of the input came after it.
    Login(Box<LoginRequest>),
}

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginRequest {
    /// Its PRELOGIN; old clients at TDS 7.0 and 7.1 send none.
    pub prelogin: Option<Prelogin>,
    /// Its login.
    pub login: Login7,
    /// What of the connection is encrypted. With [`Negotiated::LoginOnly`] TLS has already ended.
    pub encryption: Negotiated,
    /// The connection began with TLS (TDS 8.0).
    pub strict: bool,
    /// Both sides agreed on several requests at a time: everything that follows is SMP.
    pub mars: bool,
}

/// A client on its way to a login ([MS-TDS] 3.3.5.1 to 3.3.5.5).
///
/// ```text
/// first byte ─ 0x12 ─▶ Prelogin ─ no encryption ────────────────────────────▶ Login ──▶ done
///    │                    ├─ full encryption ──▶ Tls (wrapped) ─ established ──▶ Login
///    │                    └─ login only ───────▶ Tls (wrapped) ─ established ──▶ LoginFirstPacket ─ EndTls ─▶ Login
///    ├─ 0x16 ─▶ Tls (raw) ─ established ─▶ Prelogin ─▶ Login                              (TDS 8.0)
///    └─ 0x10 ─▶ Login                                                                     (TDS 7.0, 7.1)
/// ```
#[derive(Debug)]
pub struct Accept {
    policy: AcceptPolicy,
    state: State,
}

#[derive(Debug)]
enum State {
    FirstByte,
    Prelogin {
        reader: MessageReader,
        strict: bool,
    },
    /// TDS 8.0: PRELOGIN comes after TLS.
    RawTls,
    /// TDS 7.x: LOGIN7 comes after TLS.
    WrappedTls(Agreed),
    /// Only the first packet of LOGIN7 is encrypted.
    LoginFirstPacket {
        reader: MessageReader,
        agreed: Agreed,
    },
    Login {
        reader: MessageReader,
        agreed: Agreed,
    },
    /// The login was one packet, and that packet was encrypted.
    LoginRead {
        message: Message,
        agreed: Agreed,
    },
    Done,
}

/// What both sides agreed on before the login.
#[derive(Debug)]
struct Agreed {
    prelogin: Option<Prelogin>,
    encryption: Negotiated,
    strict: bool,
    mars: bool,
}

impl Accept {
    /// Before the client's first byte.
    pub fn new(policy: AcceptPolicy) -> Self {
        Self { policy, state: State::FirstByte }
    }

    /// Takes the client's bytes from `input` as far as they lead, appends the answer to `out`. On an error, too, `out`
    /// is to be sent: it may hold the reason.
    pub fn step(
        self,
        input: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<(Self, AcceptStep), HandshakeError> {
        let policy = self.policy;
        let mut state = self.state;
        loop {
            let (next, step) = match state {
                State::FirstByte => first_byte(policy, input)?,
                State::Prelogin { mut reader, strict } => match reader.read(input)? {
                    None => (State::Prelogin { reader, strict }, Some(AcceptStep::NeedBytes)),
                    Some(message) => take_prelogin(policy, &message, strict, out)?,
                },
                State::LoginFirstPacket { mut reader, agreed } => match reader.read_packet(input)? {
                    PacketRead::NeedBytes => {
                        (State::LoginFirstPacket { reader, agreed }, Some(AcceptStep::NeedBytes))
                    }
                    PacketRead::Packet => (State::Login { reader, agreed }, Some(AcceptStep::EndTls)),
                    PacketRead::Message(message) => {
                        (State::LoginRead { message, agreed }, Some(AcceptStep::EndTls))
                    }
                },
                State::Login { mut reader, agreed } => match reader.read(input)? {
                    None => (State::Login { reader, agreed }, Some(AcceptStep::NeedBytes)),
                    Some(message) => (State::LoginRead { message, agreed }, None),
                },
                State::LoginRead { message, agreed } => {
                    let login = take_login(message, agreed)?;
                    (State::Done, Some(AcceptStep::Login(Box::new(login))))
                }
                State::RawTls | State::WrappedTls(_) => {
                    return Err(HandshakeError::OutOfOrder {
                        called: "a step",
                        state: "the TLS handshake runs",
                    });
                }
                State::Done => {
                    return Err(HandshakeError::OutOfOrder {
                        called: "a step",
                        state: "the login is complete",
                    });
                }
            };
            match step {
                Some(step) => return Ok((Self { policy, state: next }, step)),
                None => state = next,
            }
        }
    }

    /// The TLS handshake that [`AcceptStep::StartTls`] asked for is complete.
    pub fn tls_established(self) -> Result<Self, HandshakeError> {
        let state = match self.state {
            State::RawTls => State::Prelogin { reader: prelogin_reader(), strict: true },
            State::WrappedTls(agreed) => {
                let reader = login_reader(self.policy);
                match agreed.encryption {
                    Negotiated::LoginOnly => State::LoginFirstPacket { reader, agreed },
                    Negotiated::Full | Negotiated::None => State::Login { reader, agreed },
                }
            }
            _ => {
                return Err(HandshakeError::OutOfOrder {
                    called: "the end of a TLS handshake",
                    state: "none runs",
                });
            }
        };
        Ok(Self { policy: self.policy, state })
    }
}

fn prelogin_reader() -> MessageReader {
    MessageReader::new(DEFAULT_PACKET_SIZE, DEFAULT_PACKET_SIZE)
}

/// Some clients cut LOGIN7 by the packet size that they are about to ask for, not by 4,096.
fn login_reader(policy: AcceptPolicy) -> MessageReader {
    MessageReader::new(MAX_PACKET_SIZE, policy.max_login.min(MAX_LOGIN7))
}

fn first_byte(policy: AcceptPolicy, input: &BytesMut) -> Result<(State, Option<AcceptStep>), HandshakeError> {
    let Some(first) = input.first() else {
        return Ok((State::FirstByte, Some(AcceptStep::NeedBytes)));
    };
    match (*first, PacketType(*first)) {
        (TLS_HANDSHAKE, _) if policy.strict => {
            Ok((State::RawTls, Some(AcceptStep::StartTls(TlsFraming::Raw))))
        }
        (TLS_HANDSHAKE, _) => Err(Refusal::NotStrict.into()),
        (_, PacketType::PRELOGIN) => Ok((State::Prelogin { reader: prelogin_reader(), strict: false }, None)),
        (_, PacketType::LOGIN7) => match policy.tls {
            ClientTlsPolicy::Require => Err(Refusal::ClientHasNone.into()),
            ClientTlsPolicy::Strict => Err(Refusal::StrictOnly.into()),
            ClientTlsPolicy::Off | ClientTlsPolicy::LoginOnly | ClientTlsPolicy::On => {
                let agreed =
                    Agreed { prelogin: None, encryption: Negotiated::None, strict: false, mars: false };
                Ok((State::Login { reader: login_reader(policy), agreed }, None))
            }
        },
        (first, _) => {
            Err(Malformed::Value { what: "first byte of a connection", value: u64::from(first) }.into())
        }
    }
}

/// Answers PRELOGIN. The answer is written even if the connection is refused: it holds the reason.
fn take_prelogin(
    policy: AcceptPolicy,
    message: &Message,
    strict: bool,
    out: &mut BytesMut,
) -> Result<(State, Option<AcceptStep>), HandshakeError> {
    if message.kind != PacketType::PRELOGIN {
        return Err(Malformed::Unexpected { what: message.kind.name(), state: "waiting for PRELOGIN" }.into());
    }
    let prelogin = Prelogin::decode(&message.payload)?;
    let offer = prelogin.encryption();
    // In TDS 8.0 the option is ignored; some drivers want their own value back.
    let (answer, encryption) = if strict { (offer, Ok(Negotiated::Full)) } else { policy.tls.answer(offer) };
    let mars = policy.mars && prelogin.mars() == Some(true);
    let response = Prelogin::new(policy.server_version)
        .with(PreloginOption::Encryption(answer))
        .with(PreloginOption::Instance(Bytes::from_static(&[0])))
        .with(PreloginOption::ThreadId(Bytes::new()))
        .with(PreloginOption::Mars(mars));
    let mut payload = BytesMut::new();
    response.encode(&mut payload);
    write_message(out, PacketType::RESPONSE, Status::NORMAL, 0, DEFAULT_PACKET_SIZE, &payload);
    let agreed = Agreed { prelogin: Some(prelogin), encryption: encryption?, strict, mars };
    Ok(match agreed.encryption {
        Negotiated::LoginOnly | Negotiated::Full if !strict => {
            (State::WrappedTls(agreed), Some(AcceptStep::StartTls(TlsFraming::Wrapped)))
        }
        _ => (State::Login { reader: login_reader(policy), agreed }, None),
    })
}

/// Reads LOGIN7 and wipes its bytes: they hold the password, hardly hidden.
fn take_login(mut message: Message, agreed: Agreed) -> Result<LoginRequest, HandshakeError> {
    if message.kind != PacketType::LOGIN7 {
        return Err(Malformed::Unexpected { what: message.kind.name(), state: "waiting for LOGIN7" }.into());
    }
    let login = Login7::decode(&message.payload);
    message.payload[..].zeroize();
    Ok(LoginRequest {
        prelogin: agreed.prelogin,
        login: login?,
        encryption: agreed.encryption,
        strict: agreed.strict,
        mars: agreed.mars,
    })
}
