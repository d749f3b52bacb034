//! The certificate that clients see: from files, reloaded when they change, or made at start.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::NoServerSessionStorage;
use sha2::{Digest, Sha256};
use tds::handshake::TlsFraming;
use tdsbouncer_config::ClientTls;
use zeroize::Zeroizing;

use super::trust::provider;

/// What TDS 8.0 is called in ALPN ([MS-TDS] 2.2.6.5).
pub(super) const STRICT_ALPN: &[u8] = b"tds/8.0";
/// A made certificate begins this long ago, for clients whose clock is behind ...
const BACKDATED: Duration = Duration::from_secs(24 * 3600);
/// ... and ends this far ahead: as long as certificates of the public web ever lasted; a restart makes a new one.
const LIFETIME: Duration = Duration::from_secs(825 * 24 * 3600);

/// Why a certificate, a key or a bundle of authorities cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The file could not be read.
    #[error("{}: {error}", file.display())]
    Read {
        /// Which file.
        file: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file is not PEM of the expected kind.
    #[error("{}: no usable {what} in PEM: {problem}", file.display())]
    Pem {
        /// Which file.
        file: PathBuf,
        /// "certificate" or "private key".
        what: &'static str,
        /// What the parser said.
        problem: String,
    },
    /// Certificate and key cannot be used, or not together.
    #[error("{}: {problem}", certificate.display())]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// What rustls said.
        problem: String,
    },
    /// Neither files nor `self_signed`.
    #[error("no certificate is configured")]
    Unconfigured,
    /// No certificate could be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// Nobody to believe: every server's certificate would be refused.
    #[error("{whence} has no usable authority: no server's certificate could be verified")]
    NoAuthority {
        /// The file, or the system's store.
        whence: String,
    },
    /// The authorities cannot be used.
    #[error("{whence}: {problem}")]
    Authorities {
        /// The file, or the system's store.
        whence: String,
        /// What rustls said.
        problem: String,
    },
    /// Not a name that a certificate could have.
    #[error("{name:?} is not a host name or address")]
    Name {
        /// As configured.
        name: String,
    },
    /// The TLS library refuses the settings.
    #[error("TLS settings: {0}")]
    Settings(#[from] rustls::Error),
}

/// A listener's certificate, ready for handshakes, exchangeable while running.
pub(crate) struct ServerCertificates {
    source: Source,
    shown: ArcSwap<Shown>,
}

enum Source {
    Files { certificate: PathBuf, key: PathBuf },
    SelfSigned,
}

struct Shown {
    wrapped: Arc<ServerConfig>,
    strict: Arc<ServerConfig>,
    /// SHA-256 over the files, to notice changes without keeping the key's text.
    content: [u8; 32],
}

impl ServerCertificates {
    /// As the listener's settings say: read from files, or made now.
    pub(crate) fn of(settings: &ClientTls) -> Result<Self, CertificateError> {
        match (&settings.certificate, &settings.key) {
            (Some(certificate), Some(key)) => Self::from_files(certificate.clone(), key.clone()),
            _ if settings.self_signed => Self::self_signed(),
            _ => Err(CertificateError::Unconfigured),
        }
    }

    fn from_files(certificate: PathBuf, key: PathBuf) -> Result<Self, CertificateError> {
        let shown = Shown::read(&certificate, &key)?;
        Ok(Self { source: Source::Files { certificate, key }, shown: ArcSwap::from_pointee(shown) })
    }

    /// A certificate that nobody signed, as SQL Server makes one: clients must be told to trust it.
    fn self_signed() -> Result<Self, CertificateError> {
        // P-256: small, fast, and known to every client that knows TLS 1.2.
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params =
            CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, "tdsbouncer self-signed");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let now = SystemTime::now();
        params.not_before = (now - BACKDATED).into();
        params.not_after = (now + LIFETIME).into();
        let certificate = params.self_signed(&key)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let shown = Shown::of(vec![certificate.der().clone()], key, [0; 32])?;
        Ok(Self { source: Source::SelfSigned, shown: ArcSwap::from_pointee(shown) })
    }

    /// Looks at the files again. True if they changed and new handshakes show the new certificate; on an error the old
    /// one stays. Reads files: call it where blocking is allowed.
    pub(crate) fn reload(&self) -> Result<bool, CertificateError> {
        let Source::Files { certificate, key } = &self.source else { return Ok(false) };
        let files = Files::read(certificate, key)?;
        if files.digest() == self.shown.load().content {
            return Ok(false);
        }
        self.shown.store(Arc::new(Shown::parse(&files, certificate, key)?));
        Ok(true)
    }

    /// What a handshake of this kind shows: TLS 1.2 only if wrapped, else 1.2 or 1.3 and ALPN `tds/8.0`.
    pub(crate) fn config(&self, framing: TlsFraming) -> Arc<ServerConfig> {
        let shown = self.shown.load();
        match framing {
            TlsFraming::Wrapped => Arc::clone(&shown.wrapped),
            TlsFraming::Raw => Arc::clone(&shown.strict),
        }
    }
}

/// The two files as read.
struct Files {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

impl Files {
    fn read(certificate: &Path, key: &Path) -> Result<Self, CertificateError> {
        Ok(Self { certificate: read(certificate)?, key: Zeroizing::new(read(key)?) })
    }

    fn digest(&self) -> [u8; 32] {
        let mut sha = Sha256::new();
        sha.update((self.certificate.len() as u64).to_be_bytes());
        sha.update(&self.certificate);
        sha.update(&*self.key);
        sha.finalize().into()
    }
}

impl Shown {
    fn read(certificate: &Path, key: &Path) -> Result<Self, CertificateError> {
        Self::parse(&Files::read(certificate, key)?, certificate, key)
    }

    fn parse(files: &Files, certificate: &Path, key: &Path) -> Result<Self, CertificateError> {
        let chain = parse_chain(&files.certificate, certificate)?;
        let private = PrivateKeyDer::from_pem_slice(&files.key).map_err(|error| CertificateError::Pem {
            file: key.to_owned(),
            what: "private key",
            problem: error.to_string(),
        })?;
        Self::of(chain, private, files.digest()).map_err(|error| CertificateError::Unusable {
            certificate: certificate.to_owned(),
            problem: match error {
                rustls::Error::InconsistentKeys(_) => {
                    format!("the key in {} is not this certificate's", key.display())
                }
                other => other.to_string(),
            },
        })
    }

    fn of(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        content: [u8; 32],
    ) -> Result<Self, rustls::Error> {
        let config = |versions: &[&'static rustls::SupportedProtocolVersion]| {
            let mut config = ServerConfig::builder_with_provider(provider())
                .with_protocol_versions(versions)?
                .with_no_client_auth()
                .with_single_cert(chain.clone(), key.clone_key())?;
            // Without resumption nothing follows our Finished: no ticket can reach a client that does not expect TLS there.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            Ok::<_, rustls::Error>(config)
        };
        let wrapped = config(&[&rustls::version::TLS12])?;
        let mut strict = config(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
        strict.alpn_protocols = vec![STRICT_ALPN.to_vec()];
        Ok(Self { wrapped: Arc::new(wrapped), strict: Arc::new(strict), content })
    }
}

/// Every certificate in a PEM file, in order.
pub(super) fn read_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    parse_chain(&read(file)?, file)
}

fn parse_chain(pem: &[u8], file: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let problem =
        |problem: String| CertificateError::Pem { file: file.to_owned(), what: "certificate", problem };
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|e| problem(e.to_string()))?;
    if chain.is_empty() { Err(problem("there is none".to_owned())) } else { Ok(chain) }
}

fn read(file: &Path) -> Result<Vec<u8>, CertificateError> {
    std::fs::read(file).map_err(|error| CertificateError::Read { file: file.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use rcgen::generate_simple_self_signed;
    use tdsbouncer_config::ClientTlsMode;

    use super::*;

    struct Files {
        directory: PathBuf,
        settings: ClientTls,
    }

    impl Files {
        fn new(name: &str) -> Self {
            let directory = std::env::temp_dir().join(format!("tdsbouncer-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&directory).unwrap();
            let settings = ClientTls {
                certificate: Some(directory.join("server.pem")),
                key: Some(directory.join("server.key")),
                self_signed: false,
                ..ClientTls::self_signed(ClientTlsMode::On)
            };
            let files = Self { directory, settings };
            files.renew();
            files
        }

        fn renew(&self) -> (String, String) {
            let made = generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
            let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
            self.write(&certificate, &key);
            (certificate, key)
        }

        fn write(&self, certificate: &str, key: &str) {
            std::fs::write(self.directory.join("server.pem"), certificate).unwrap();
            std::fs::write(self.directory.join("server.key"), key).unwrap();
        }
    }

    impl Drop for Files {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }

    #[test]
    fn a_reload_takes_changed_files_and_only_those() {
        let files = Files::new("reload");
        let certificates = ServerCertificates::of(&files.settings).unwrap();
        let before = certificates.config(TlsFraming::Wrapped);
        assert!(!certificates.reload().unwrap());
        assert!(Arc::ptr_eq(&before, &certificates.config(TlsFraming::Wrapped)));
        files.renew();
        assert!(certificates.reload().unwrap());
        assert!(!Arc::ptr_eq(&before, &certificates.config(TlsFraming::Wrapped)));
        assert!(!certificates.reload().unwrap());
    }

    #[test]
    fn a_reload_of_bad_files_keeps_the_old_certificate_and_says_why() {
        let files = Files::new("bad-reload");
        let (certificate, key) = files.renew();
        let certificates = ServerCertificates::of(&files.settings).unwrap();
        let before = certificates.config(TlsFraming::Raw);
        let other =
            generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap().signing_key.serialize_pem();
        for (bad_certificate, bad_key, problem) in [
            ("rubbish", &*key, "no usable certificate"),
            (&*certificate, "rubbish", "no usable private key"),
            (&certificate[..certificate.len() / 2], &*key, "no usable certificate"),
            (&*certificate, &*other, "is not this certificate's"),
        ] {
            files.write(bad_certificate, bad_key);
            let error = certificates.reload().unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
            assert!(Arc::ptr_eq(&before, &certificates.config(TlsFraming::Raw)));
        }
        std::fs::remove_file(files.directory.join("server.key")).unwrap();
        assert!(matches!(certificates.reload(), Err(CertificateError::Read { .. })));
        files.write(&certificate, &key);
        assert!(!certificates.reload().unwrap(), "back to what is shown");
    }

    #[test]
    fn a_certificate_is_made_when_asked_and_never_silently() {
        let made = ServerCertificates::of(&ClientTls::self_signed(ClientTlsMode::On)).unwrap();
        assert!(!made.reload().unwrap());
        assert!(matches!(ServerCertificates::of(&ClientTls::off()), Err(CertificateError::Unconfigured)));
    }
}
