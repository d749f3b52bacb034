//! Whom we believe when we dial a SQL Server over TLS: authorities from a file or the system, or anyone.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CipherSuiteCommon, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    SupportedCipherSuite, Tls12CipherSuite,
};
use sha2::{Digest, Sha256};
use tdsbouncer_config::{ServerTls, ServerTlsMode};

use super::certificates::{CertificateError, STRICT_ALPN, read_chain};

/// How many records one key of TLS 1.2 may encrypt. rustls would end the session after 2^24, because TLS 1.2 has no key
/// update: some hours of a busy pooled connection. 2^24 keeps an attacker's chance below 2^-60 for records of 16 KiB;
/// 2^32 keeps it below 2^-44 for those, and far below for the small records of a database.
const TLS12_RECORDS: u64 = 1 << 32;

/// What a dialer needs for TLS towards a bucket's server. TDS 7.x is held to TLS 1.2 without resumption, so that nothing
/// follows the wrapped handshake; strict offers ALPN `tds/8.0`. Reads files: for start and reload, not for each dial.
pub(crate) fn client_config(settings: &ServerTls) -> Result<Arc<ClientConfig>, CertificateError> {
    let strict = settings.mode == ServerTlsMode::Strict;
    let versions: &[_] =
        if strict { &[&rustls::version::TLS13, &rustls::version::TLS12] } else { &[&rustls::version::TLS12] };
    let verifier: Arc<dyn ServerCertVerifier> = if settings.trust_server_certificate {
        Arc::new(Anyone)
    } else {
        Arc::new(Authorities::of(settings.ca_file.as_deref())?)
    };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    if strict {
        config.alpn_protocols = vec![STRICT_ALPN.to_vec()];
    } else {
        config.resumption = Resumption::disabled();
    }
    Ok(Arc::new(config))
}

/// The name that the server's certificate must have: the override, else the host that is dialed.
pub(crate) fn server_name(settings: &ServerTls, host: &str) -> Result<ServerName<'static>, CertificateError> {
    let name = settings.host_name.as_deref().unwrap_or(host);
    // "host." is a fully qualified name, "[::1]" an address: certificates know neither spelling.
    let plain = name.trim_end_matches('.').trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(plain.to_owned()).map_err(|_| CertificateError::Name { name: name.to_owned() })
}

/// The ciphers of both sides: ring's, with a longer life for TLS 1.2's keys.
pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let build = || {
        let mut provider = rustls::crypto::ring::default_provider();
        for suite in &mut provider.cipher_suites {
            if let SupportedCipherSuite::Tls12(original) = *suite {
                // rustls wants suites that live for ever; there are a handful, made once.
                *suite = SupportedCipherSuite::Tls12(Box::leak(Box::new(Tls12CipherSuite {
                    common: CipherSuiteCommon {
                        suite: original.common.suite,
                        hash_provider: original.common.hash_provider,
                        confidentiality_limit: original.common.confidentiality_limit.max(TLS12_RECORDS),
                    },
                    prf_provider: original.prf_provider,
                    kx: original.kx,
                    sign: original.sign,
                    aead_alg: original.aead_alg,
                })));
            }
        }
        Arc::new(provider)
    };
    Arc::clone(PROVIDER.get_or_init(build))
}

/// Believes certificates signed by the given authorities for the right name, and any certificate that is itself in the
/// file: SQL Server's own self-signed one, say, which no authority signed.
#[derive(Debug)]
struct Authorities {
    chain: Arc<WebPkiServerVerifier>,
    pinned: Vec<[u8; 32]>,
}

impl Authorities {
    fn of(ca_file: Option<&Path>) -> Result<Self, CertificateError> {
        let (certificates, whence) = match ca_file {
            Some(file) => (read_chain(file)?, file.display().to_string()),
            None => {
                let found = rustls_native_certs::load_native_certs();
                let problems: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
                let whence = match problems.is_empty() {
                    true => "the system's certificate store".to_owned(),
                    false => format!("the system's certificate store ({})", problems.join("; ")),
                };
                (found.certs, whence)
            }
        };
        let pinned = match ca_file {
            Some(_) => certificates.iter().map(fingerprint).collect(),
            None => Vec::new(),
        };
        let mut roots = RootCertStore::empty();
        // Bundles carry a few that cannot be used; what matters is that one can.
        roots.add_parsable_certificates(certificates);
        if roots.is_empty() {
            return Err(CertificateError::NoAuthority { whence });
        }
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| CertificateError::Authorities { whence, problem: error.to_string() })?;
        Ok(Self { chain, pinned })
    }
}

impl ServerCertVerifier for Authorities {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.pinned.contains(&fingerprint(end_entity)) {
            return Ok(ServerCertVerified::assertion());
        }
        self.chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Believes any certificate (`trust_server_certificate`): encrypted, but with whom is anyone's guess. Signatures are not
/// checked either: they would prove possession of a key that proves nothing, and old servers sign with 1024-bit keys.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let mut schemes = provider().signature_verification_algorithms.supported_schemes();
        schemes.extend([SignatureScheme::RSA_PKCS1_SHA1, SignatureScheme::ECDSA_SHA1_Legacy]);
        schemes
    }
}

fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    Sha256::digest(certificate).into()
}
