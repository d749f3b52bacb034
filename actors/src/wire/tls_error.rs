//! Why TLS failed, in words that an operator can act on.

use std::io;

use rustls::{AlertDescription, CertificateError};

/// Why TLS could not be established or kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The peer closed before the handshake was complete.
    #[error("the peer closed the connection during the TLS handshake")]
    Closed,
    /// What came is not a TLS record.
    #[error("the peer does not speak TLS (record type {kind:#04x}, length {length})")]
    NotTls {
        /// The first byte.
        kind: u8,
        /// The length that the record header announces, in bytes.
        length: usize,
    },
    /// The packets around the handshake's records are malformed.
    #[error("the TLS handshake is wrapped in malformed packets: {0}")]
    Wrapping(#[from] tds::Malformed),
    /// The peer's certificate is not believed.
    #[error("{0}")]
    Certificate(String),
    /// The peer ended TLS with an alert.
    #[error("the peer refused TLS: {0}")]
    Refused(String),
    /// Anything else that rustls found wrong.
    #[error("TLS failed: {0}")]
    Failed(rustls::Error),
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(problem) => Self::Certificate(explain(&problem)),
            rustls::Error::AlertReceived(alert) => Self::Refused(explain_alert(alert)),
            other => Self::Failed(other),
        }
    }
}

impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> Self {
        match error {
            TlsError::Io(error) => error,
            other => io::Error::new(io::ErrorKind::InvalidData, other),
        }
    }
}

/// What an operator can do about a certificate that is not believed.
fn explain(problem: &CertificateError) -> String {
    use CertificateError::*;
    match problem {
        Expired | ExpiredContext { .. } => "the server's certificate has expired".to_owned(),
        NotValidYet | NotValidYetContext { .. } => {
            "the server's certificate is not valid yet (is the clock right?)".to_owned()
        }
        BadSignature => {
            "a signature with the server's certificate cannot be verified (an authority in ca_file that has \
                         been replaced since, or an RSA key below 2048 bits?)"
                .to_owned()
        }
        UnknownIssuer => {
            "the server's certificate is signed by an authority that is not trusted here (add it to ca_file)"
                .to_owned()
        }
        NotValidForName => "the server's certificate is for another host name".to_owned(),
        NotValidForNameContext { expected, presented } => format!(
            "the server's certificate is not for {} but for {} (host_name names another)",
            expected.to_str(),
            if presented.is_empty() { "no name at all".to_owned() } else { presented.join(", ") },
        ),
        Revoked => "the server's certificate has been revoked".to_owned(),
        other => format!("the server's certificate is not acceptable: {other}"),
    }
}

fn explain_alert(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::UnknownCA => "it does not trust our certificate's authority".to_owned(),
        AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => {
            format!("it does not accept our certificate ({alert:?})")
        }
        AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure => {
            format!("no common version or cipher ({alert:?})")
        }
        AlertDescription::NoApplicationProtocol => "it does not speak tds/8.0".to_owned(),
        other => format!("{other:?}"),
    }
}
