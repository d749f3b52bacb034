//! How the line to SQL Server is encrypted and whose certificate is believed.

use crate::check::Check;
use crate::mirror;
use crate::problem::Problem;
use std::path::PathBuf;

pub use crate::mirror::ServerTlsMode;

/// Encryption towards a bucket's server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// Off, on (TDS 7.x, everything encrypted) or strict (TDS 8.0).
    pub mode: ServerTlsMode,
    /// PEM bundle of the authorities to believe; none: those of the operating system.
    pub ca_file: Option<PathBuf>,
    /// Believe whatever certificate comes.
    pub trust_server_certificate: bool,
    /// The name that the certificate must have, instead of the bucket's host.
    pub host_name: Option<String>,
}

/// What stands for the operating system's authorities in place of a file.
const SYSTEM: &str = "system";

impl ServerTls {
    /// No encryption at all.
    pub fn off() -> Self {
        Self { mode: ServerTlsMode::Off, ca_file: None, trust_server_certificate: false, host_name: None }
    }

    pub(crate) fn check(from: &mirror::ServerTls, at: &str, check: &mut Check<'_>) -> Option<Self> {
        let host_name = Some(from.host_name.clone()).filter(|name| !name.is_empty());
        let verified = from.mode != ServerTlsMode::Off && !from.trust_server_certificate;
        let ca_file = if !verified || from.ca_file == SYSTEM {
            None
        } else if from.ca_file.is_empty() {
            let problem =
                Problem::new(format!("{at}.ca_file"), "must be given to verify the server's certificate");
            check.problem(
                problem.hint("or \"system\", or trust_server_certificate = true, or mode = \"off\""),
            );
            return None;
        } else {
            Some(check.pem(&format!("{at}.ca_file"), &from.ca_file, "CERTIFICATE")?)
        };
        if from.mode == ServerTlsMode::Strict && from.trust_server_certificate {
            let path = format!("{at}.trust_server_certificate");
            check.problem(Problem::new(path, "strict encryption always verifies the server's certificate"));
            return None;
        }
        Some(Self {
            mode: from.mode,
            ca_file,
            trust_server_certificate: from.trust_server_certificate,
            host_name,
        })
    }
}
