//! The way from an accepted or opened socket to a login, without the socket: each step takes the peer's bytes, gives
//! bytes to send, and says what the caller has to do ([MS-TDS] 3.2.5, 3.3.5). TLS itself is the caller's.

mod accept;
mod connect;

pub use self::accept::{Accept, AcceptPolicy, AcceptStep, LoginRequest};
pub use self::connect::{Connect, ConnectPolicy, ConnectStep};
use crate::Malformed;
pub use crate::encryption::{ClientTlsPolicy, Negotiated, Refusal, ServerTls};

/// How TLS records travel during the TLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFraming {
    /// TDS 7.x: inside PRELOGIN packets ([`crate::tls_wrap::Wrapped`]) until the TLS handshake ends, then raw.
    Wrapped,
    /// TDS 8.0: raw from the first byte, with ALPN `tds/8.0`.
    Raw,
}

/// Why a handshake ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The peer's fault: it broke the protocol. It gets no answer ([MS-TDS] 3.3.5.5).
    #[error("the peer broke the protocol: {0}")]
    Peer(#[from] Malformed),
    /// Nobody's fault: the two sides' settings do not fit. What was written for the peer is still to be sent.
    #[error(transparent)]
    Encryption(#[from] Refusal),
    /// The caller's fault: a step that has no place in this state.
    #[error("{called} has no place while {state}")]
    OutOfOrder {
        /// What was called.
        called: &'static str,
        /// What the handshake was doing.
        state: &'static str,
    },
}

#[cfg(test)]
mod tests;
