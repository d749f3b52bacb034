//! The client's side of the way to a login.

use bytes::{Bytes, BytesMut};
use zeroize::Zeroize;

use super::{HandshakeError, TlsFraming};
use crate::Malformed;
use crate::encryption::{Negotiated, ServerTls};
use crate::env_change::ENV_CHANGE_TOKEN;
use crate::login7::Login7;
use crate::message::{Message, MessageReader, write_message};
use crate::packet::{DEFAULT_PACKET_SIZE, MAX_PACKET_SIZE, PacketType, Status};
use crate::prelogin::{Prelogin, PreloginOption, Version};
use crate::server_message::{ERROR_TOKEN, INFO_TOKEN};

/// The longest response to a login, in bytes without packet headers.
const MAX_RESPONSE: usize = 256 * 1024;

/// How to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectPolicy {
    /// Encryption.
    pub tls: ServerTls,
    /// Ask for several requests at a time.
    pub mars: bool,
    /// The client's version to show in PRELOGIN.
    pub version: Version,
    /// Further options for PRELOGIN: a trace id, FEDAUTHREQUIRED, a nonce.
    pub extras: Vec<PreloginOption>,
}

impl Default for ConnectPolicy {
    /// Everything encrypted, one request at a time.
    fn default() -> Self {
        Self { tls: ServerTls::On, mars: false, version: [0; 6], extras: Vec::new() }
    }
}

/// What the caller has to do. In any case what was written to `out` is sent first.
#[derive(Debug)]
pub enum ConnectStep {
    /// Call again with more bytes.
    NeedBytes,
    /// Do a TLS handshake as the client, then call [`Connect::tls_established`]; from then on encrypt what is
    /// written and feed what is decrypted.
    StartTls(TlsFraming),
    /// Send what was written through TLS, then end TLS without a farewell: everything after it is in the clear in both
    /// directions. Call again.
    EndTls,
    /// The server's answer. If it wants to hear more: [`Connect::continue_with`].
    Response {
        /// For [`crate::login_response::read`].
        message: Message,
        /// The server's process id for the connection.
        spid: u16,
        /// Both sides agreed on several requests at a time: everything after the login is SMP.
        mars: bool,
    },
}

/// A connection on its way to a login ([MS-TDS] 3.2.5.1 to 3.2.5.6).
///
/// ```text
/// Start ─ TDS 7.x ────────────────────────────▶ Prelogin ─ no encryption ────────────────────▶ Login
///   │                                              ├─ full ─▶ Tls (wrapped) ─ established ──────▶ Login
///   │                                              └─ login only ─▶ Tls (wrapped) ─ established ─▶ Login ─ EndTls
///   └─ TDS 8.0 ─▶ Tls (raw) ─ established ─▶ Prelogin ─▶ Login
///
/// Login ──▶ Response ─ answered ─▶ the caller's, or continue_with ──▶ Response
/// ```
pub struct Connect {
    policy: ConnectPolicy,
    login: Login7,
    server: Option<Prelogin>,
    encryption: Negotiated,
    state: State,
}

enum State {
    Start,
    SendPrelogin,
    Prelogin(MessageReader),
    RawTls,
    WrappedTls,
    SendLogin,
    /// The packets of LOGIN7 after the first one, where only that is encrypted.
    SendLoginRest(BytesMut),
    Response(MessageReader),
}

/// Without the login's bytes.
impl std::fmt::Debug for Connect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connect")
            .field("policy", &self.policy)
            .field("server", &self.server)
            .field("encryption", &self.encryption)
            .finish_non_exhaustive()
    }
}

impl Connect {
    /// Before the first byte.
    pub fn new(policy: ConnectPolicy, login: &Login7) -> Self {
        Self { policy, login: login.clone(), server: None, encryption: Negotiated::None, state: State::Start }
    }

    /// What the server said in its PRELOGIN, once it is read.
    pub fn server_prelogin(&self) -> Option<&Prelogin> {
        self.server.as_ref()
    }

    /// What of the connection is encrypted, once the server has said so.
    pub fn encryption(&self) -> Negotiated {
        self.encryption
    }

    /// Takes the server's bytes from `input` as far as they lead, appends what to send to `out`.
    pub fn step(
        mut self,
        input: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<(Self, ConnectStep), HandshakeError> {
        loop {
            let (next, step) = match self.state {
                State::Start if self.policy.tls == ServerTls::Strict => {
                    (State::RawTls, Some(ConnectStep::StartTls(TlsFraming::Raw)))
                }
                State::Start => (State::SendPrelogin, None),
                State::SendPrelogin => {
                    write_prelogin(&self.policy, out);
                    (State::Prelogin(response_reader()), None)
                }
                State::Prelogin(mut reader) => match reader.read(input)? {
                    None => (State::Prelogin(reader), Some(ConnectStep::NeedBytes)),
                    Some(message) if is_refusal(&message) => {
                        (State::Response(response_reader()), Some(response(message, false)))
                    }
                    Some(message) => {
                        let server = Prelogin::decode(&of_server(message, "waiting for PRELOGIN")?.payload)?;
                        self.encryption = self.policy.tls.accept(server.encryption())?;
                        self.server = Some(server);
                        match self.encryption {
                            Negotiated::Full | Negotiated::LoginOnly
                                if self.policy.tls != ServerTls::Strict =>
                            {
                                (State::WrappedTls, Some(ConnectStep::StartTls(TlsFraming::Wrapped)))
                            }
                            _ => (State::SendLogin, None),
                        }
                    }
                },
                State::SendLogin => self.write_login(out),
                State::SendLoginRest(rest) => {
                    out.extend_from_slice(&rest);
                    (State::Response(response_reader()), None)
                }
                State::Response(mut reader) => match reader.read(input)? {
                    None => (State::Response(reader), Some(ConnectStep::NeedBytes)),
                    Some(message) => {
                        let message = of_server(message, "waiting for the login's response")?;
                        let mars = agrees_on_mars(&self.policy, self.server.as_ref());
                        (State::Response(reader), Some(response(message, mars)))
                    }
                },
                State::RawTls | State::WrappedTls => {
                    return Err(HandshakeError::OutOfOrder {
                        called: "a step",
                        state: "the TLS handshake runs",
                    });
                }
            };
            self.state = next;
            if let Some(step) = step {
                return Ok((self, step));
            }
        }
    }

    /// The TLS handshake that [`ConnectStep::StartTls`] asked for is complete.
    pub fn tls_established(mut self) -> Result<Self, HandshakeError> {
        self.state = match self.state {
            State::RawTls => State::SendPrelogin,
            State::WrappedTls => State::SendLogin,
            _ => {
                return Err(HandshakeError::OutOfOrder {
                    called: "the end of a TLS handshake",
                    state: "none runs",
                });
            }
        };
        Ok(self)
    }

    /// Answers a response that wants to hear more: `kind` is [`PacketType::SSPI`] or [`PacketType::FED_AUTH_TOKEN`].
    pub fn continue_with(
        self,
        kind: PacketType,
        payload: &[u8],
        out: &mut BytesMut,
    ) -> Result<Self, HandshakeError> {
        match self.state {
            State::Response(_) => {
                write_message(out, kind, Status::NORMAL, 0, DEFAULT_PACKET_SIZE, payload);
                Ok(self)
            }
            _ => Err(HandshakeError::OutOfOrder { called: "an answer", state: "there was no question" }),
        }
    }

    /// With login-only encryption the first packet goes through TLS, the others follow in the clear.
    fn write_login(&self, out: &mut BytesMut) -> (State, Option<ConnectStep>) {
        let mut payload = BytesMut::new();
        self.login.encode(&mut payload);
        let mut packets = BytesMut::new();
        write_message(&mut packets, PacketType::LOGIN7, Status::NORMAL, 0, DEFAULT_PACKET_SIZE, &payload);
        payload[..].zeroize();
        let first = if self.encryption == Negotiated::LoginOnly {
            packets.len().min(DEFAULT_PACKET_SIZE)
        } else {
            packets.len()
        };
        out.extend_from_slice(&packets[..first]);
        packets[..first].zeroize();
        if self.encryption == Negotiated::LoginOnly {
            (State::SendLoginRest(packets.split_off(first)), Some(ConnectStep::EndTls))
        } else {
            (State::Response(response_reader()), None)
        }
    }
}

fn response(message: Message, mars: bool) -> ConnectStep {
    ConnectStep::Response { spid: message.spid, message, mars }
}

fn agrees_on_mars(policy: &ConnectPolicy, server: Option<&Prelogin>) -> bool {
    policy.mars && server.and_then(Prelogin::mars) == Some(true)
}

/// Some servers send the response to a login in packets of the size that it announces.
fn response_reader() -> MessageReader {
    MessageReader::new(MAX_PACKET_SIZE, MAX_RESPONSE)
}

fn write_prelogin(policy: &ConnectPolicy, out: &mut BytesMut) {
    let prelogin = Prelogin::new(policy.version)
        .with(PreloginOption::Encryption(policy.tls.offer()))
        .with(PreloginOption::Instance(Bytes::from_static(&[0])))
        .with(PreloginOption::ThreadId(Bytes::from_static(&[0; 4])))
        .with(PreloginOption::Mars(policy.mars));
    let prelogin = policy.extras.iter().cloned().fold(prelogin, Prelogin::with);
    let mut payload = BytesMut::new();
    prelogin.encode(&mut payload);
    write_message(out, PacketType::PRELOGIN, Status::NORMAL, 0, DEFAULT_PACKET_SIZE, &payload);
}

/// A server that is full or going down may answer PRELOGIN with an error.
fn is_refusal(message: &Message) -> bool {
    message.kind == PacketType::RESPONSE
        && matches!(message.payload.first(), Some(&(ERROR_TOKEN | INFO_TOKEN | ENV_CHANGE_TOKEN)))
}

fn of_server(message: Message, state: &'static str) -> Result<Message, Malformed> {
    if message.kind == PacketType::RESPONSE {
        Ok(message)
    } else {
        Err(Malformed::Unexpected { what: message.kind.name(), state })
    }
}
