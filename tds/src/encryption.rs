//! Who encrypts what: the table of [MS-TDS] 2.2.6.5, from both ends, for TDS 7.x.

/// The value of the ENCRYPTION option in PRELOGIN.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Encryption(pub u8);

impl Encryption {
    /// Available but off.
    pub const OFF: Self = Self(0x00);
    /// Available and on.
    pub const ON: Self = Self(0x01);
    /// Not available.
    pub const NOT_SUPPORTED: Self = Self(0x02);
    /// Required.
    pub const REQUIRED: Self = Self(0x03);
    /// A bit beside the others: the client wants to log in with a certificate.
    pub const CLIENT_CERTIFICATE: Self = Self(0x80);
    /// A reserved bit, which SQL Server ignores (note 36).
    const EXTENDED: u8 = 0x20;

    /// The value without its bits for certificates and extensions.
    pub fn level(self) -> Self {
        Self(self.0 & !(Self::CLIENT_CERTIFICATE.0 | Self::EXTENDED))
    }

    /// True if the client wants to log in with a certificate.
    pub fn wants_client_certificate(self) -> bool {
        self.0 & Self::CLIENT_CERTIFICATE.0 != 0
    }
}

impl std::fmt::Debug for Encryption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.level() {
            Self::OFF => "ENCRYPT_OFF",
            Self::ON => "ENCRYPT_ON",
            Self::NOT_SUPPORTED => "ENCRYPT_NOT_SUP",
            Self::REQUIRED => "ENCRYPT_REQ",
            _ => "unknown",
        };
        write!(f, "{name} ({:#04x})", self.0)
    }
}

/// What both ends agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Negotiated {
    /// Nothing is encrypted.
    None,
    /// The first packet of LOGIN7 is encrypted, everything after it is not ([MS-TDS] 3.2.5.3).
    LoginOnly,
    /// Everything from LOGIN7 on is encrypted.
    Full,
}

/// Why two ends cannot agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The client insists on encryption and this server has none.
    #[error("the client requires encryption, which is off here")]
    ServerHasNone,
    /// This server insists on encryption and the client has none.
    #[error("encryption is required here, and the client does not support it")]
    ClientHasNone,
    /// The client wants to log in by certificate, but offers no encryption or meets none.
    #[error("a client certificate needs encryption, which one side does not support")]
    CertificateWithoutEncryption,
    /// This server takes TDS 8.0 (TLS before everything else) only.
    #[error("only connections that begin with TLS (TDS 8.0) are accepted here")]
    StrictOnly,
    /// The client began with TLS (TDS 8.0), which this server does not take.
    #[error("connections that begin with TLS (TDS 8.0) are not accepted here")]
    NotStrict,
    /// The value has no meaning.
    #[error("an encryption option with the unknown value {0:#04x}")]
    Unknown(u8),
    /// The server does not encrypt although this client insists on it.
    #[error("the server does not encrypt although encryption is required")]
    ServerRefuses,
    /// The server insists on encryption, which this client said it does not have.
    #[error("the server requires encryption, which is off for it here")]
    ServerInsists,
}

/// What a server asks of its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientTlsPolicy {
    /// There is no encryption (the specification's server set to ENCRYPT_NOT_SUP).
    Off,
    /// As the client likes; a client that likes it off still encrypts its login (set to ENCRYPT_OFF).
    LoginOnly,
    /// Everything is encrypted for every client that can; one that cannot is accepted in the clear.
    On,
    /// Everything is encrypted; a client that cannot is refused (set to ENCRYPT_ON).
    Require,
    /// TDS 8.0 only: PRELOGIN without TLS is refused.
    Strict,
}

impl ClientTlsPolicy {
    /// The answer to a client's offer, and what follows from both. The answer is sent even if the connection is
    /// then refused: the client reads its reason there.
    pub fn answer(self, offer: Encryption) -> (Encryption, Result<Negotiated, Refusal>) {
        use Encryption as E;
        let level = offer.level();
        if level.0 > E::REQUIRED.0 {
            return (E::NOT_SUPPORTED, Err(Refusal::Unknown(offer.0)));
        }
        if offer.wants_client_certificate() && level == E::NOT_SUPPORTED {
            return (E::REQUIRED, Err(Refusal::CertificateWithoutEncryption));
        }
        match (self, level) {
            (Self::Off, E::NOT_SUPPORTED) => (E::NOT_SUPPORTED, Ok(Negotiated::None)),
            (Self::Off, _) if offer.wants_client_certificate() => {
                (E::NOT_SUPPORTED, Err(Refusal::CertificateWithoutEncryption))
            }
            (Self::Off, E::OFF) => (E::NOT_SUPPORTED, Ok(Negotiated::None)),
            (Self::Off, _) => (E::NOT_SUPPORTED, Err(Refusal::ServerHasNone)),
            (Self::LoginOnly, E::OFF) => (E::OFF, Ok(Negotiated::LoginOnly)),
            (Self::LoginOnly | Self::On, E::NOT_SUPPORTED) => (E::NOT_SUPPORTED, Ok(Negotiated::None)),
            (Self::On | Self::Require, E::OFF) => (E::REQUIRED, Ok(Negotiated::Full)),
            (Self::Require, E::NOT_SUPPORTED) => (E::REQUIRED, Err(Refusal::ClientHasNone)),
            (Self::LoginOnly | Self::On | Self::Require, _) => (E::ON, Ok(Negotiated::Full)),
            (Self::Strict, _) => (E::REQUIRED, Err(Refusal::StrictOnly)),
        }
    }
}

/// What a client asks of its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServerTls {
    /// There is no encryption, not even for the login.
    Never,
    /// As the server likes; at least the login is encrypted if the server can. What drivers do when their user
    /// turns encryption off.
    Off,
    /// Everything is encrypted, or there is no connection.
    On,
    /// TDS 8.0: TLS before everything else.
    Strict,
}

impl ServerTls {
    /// What to send in PRELOGIN. In TDS 8.0 the value is ignored; drivers send ENCRYPT_NOT_SUP.
    pub fn offer(self) -> Encryption {
        match self {
            Self::Off => Encryption::OFF,
            Self::On => Encryption::ON,
            Self::Never | Self::Strict => Encryption::NOT_SUPPORTED,
        }
    }

    /// What follows from the server's answer to [`Self::offer`].
    pub fn accept(self, answer: Encryption) -> Result<Negotiated, Refusal> {
        use Encryption as E;
        match (self, answer.level()) {
            (_, E(value)) if value > E::REQUIRED.0 => Err(Refusal::Unknown(answer.0)),
            (Self::Strict, _) => Ok(Negotiated::Full),
            (Self::Never, E::NOT_SUPPORTED | E::OFF) => Ok(Negotiated::None),
            (Self::Never, _) => Err(Refusal::ServerInsists),
            (Self::Off, E::OFF) => Ok(Negotiated::LoginOnly),
            (Self::Off, E::NOT_SUPPORTED) => Ok(Negotiated::None),
            (Self::On, E::OFF | E::NOT_SUPPORTED) => Err(Refusal::ServerRefuses),
            (Self::Off | Self::On, _) => Ok(Negotiated::Full),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFF: u8 = 0x00;
    const ON: u8 = 0x01;
    const NOT_SUP: u8 = 0x02;
    const REQ: u8 = 0x03;
    const CERT: u8 = 0x80;

    /// The first table of 2.2.6.5, row by row: the client's value, then for a server set to ENCRYPT_OFF, ENCRYPT_ON
    /// and ENCRYPT_NOT_SUP the value returned and whether the connection goes on.
    const SERVER_TABLE: [(u8, [(u8, bool); 3]); 8] = [
        (OFF, [(OFF, true), (REQ, true), (NOT_SUP, true)]),
        (ON, [(ON, true), (ON, true), (NOT_SUP, false)]),
        (NOT_SUP, [(NOT_SUP, true), (REQ, false), (NOT_SUP, true)]),
        (REQ, [(ON, true), (ON, true), (NOT_SUP, false)]),
        (CERT | OFF, [(OFF, true), (REQ, true), (NOT_SUP, false)]),
        (CERT | ON, [(ON, true), (ON, true), (NOT_SUP, false)]),
        (CERT | NOT_SUP, [(REQ, false), (REQ, false), (REQ, false)]),
        (CERT | REQ, [(ON, true), (ON, true), (NOT_SUP, false)]),
    ];

    #[test]
    fn every_row_of_the_servers_table_is_answered_as_written() {
        let policies = [ClientTlsPolicy::LoginOnly, ClientTlsPolicy::Require, ClientTlsPolicy::Off];
        for (offer, row) in SERVER_TABLE {
            for (policy, (answer, goes_on)) in policies.into_iter().zip(row) {
                let (found, outcome) = policy.answer(Encryption(offer));
                assert_eq!((found.0, outcome.is_ok()), (answer, goes_on), "{policy:?} {offer:#x}");
            }
        }
    }

    #[test]
    fn both_ends_draw_the_same_conclusion_from_the_same_answer() {
        let policies =
            [ClientTlsPolicy::Off, ClientTlsPolicy::LoginOnly, ClientTlsPolicy::On, ClientTlsPolicy::Require];
        for policy in policies {
            for client in [ServerTls::Never, ServerTls::Off, ServerTls::On] {
                let (answer, ours) = policy.answer(client.offer());
                let theirs = client.accept(answer);
                assert_eq!(ours.ok(), theirs.ok(), "{policy:?} {client:?} {answer:?}");
            }
        }
    }

    /// The second table of 2.2.6.5: what a client that is capable of encryption does with the server's value.
    #[test]
    fn every_row_of_the_clients_table_is_followed() {
        use Negotiated::{Full, LoginOnly, None};
        let rows = [
            (ServerTls::Off, [Some(LoginOnly), Some(Full), Some(Full), Some(None)]),
            (ServerTls::On, [Option::None, Some(Full), Some(Full), Option::None]),
        ];
        for (client, row) in rows {
            for (answer, expected) in [OFF, ON, REQ, NOT_SUP].into_iter().zip(row) {
                assert_eq!(client.accept(Encryption(answer)).ok(), expected, "{client:?} {answer:#x}");
            }
        }
    }

    #[test]
    fn a_server_that_prefers_encryption_still_takes_a_client_without_it() {
        assert_eq!(
            ClientTlsPolicy::On.answer(Encryption::NOT_SUPPORTED),
            (Encryption::NOT_SUPPORTED, Ok(Negotiated::None))
        );
        assert_eq!(ClientTlsPolicy::On.answer(Encryption::OFF), (Encryption::REQUIRED, Ok(Negotiated::Full)));
    }

    #[test]
    fn the_reserved_bit_is_ignored_and_unknown_values_are_refused() {
        assert_eq!(
            ClientTlsPolicy::LoginOnly.answer(Encryption(0x21)),
            (Encryption::ON, Ok(Negotiated::Full))
        );
        assert_eq!(ClientTlsPolicy::LoginOnly.answer(Encryption(0x44)).1, Err(Refusal::Unknown(0x44)));
        assert_eq!(ServerTls::On.accept(Encryption(0x44)), Err(Refusal::Unknown(0x44)));
    }

    #[test]
    fn strict_takes_no_prelogin_in_the_clear() {
        for offer in 0..4 {
            let (_, outcome) = ClientTlsPolicy::Strict.answer(Encryption(offer));
            assert_eq!(outcome, Err(Refusal::StrictOnly));
        }
    }
}
