//! Whose certificate a dialer believes, and what it says when it does not.

use std::path::PathBuf;
use std::time::SystemTime;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use tdsbouncer_config::{ClientTls, ClientTlsMode};

use super::super::super::pair::verifying;
use super::super::super::{ServerCertificates, server_name};
use super::*;

/// A directory of its own for a test's files, removed at the end.
pub(crate) struct Files(PathBuf);

impl Files {
    pub(crate) fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("tdsbouncer-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        Self(directory)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.0.join(name);
        std::fs::write(&file, text).unwrap();
        file
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An authority's certificate and a server's that it signed.
fn authority_and_server(
    files: &Files,
    change: impl FnOnce(&mut CertificateParams),
) -> (PathBuf, Arc<ServerConfig>) {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(vec![]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, format!("authority of {}", files.0.display()));
    let ca_file = files.write("ca.pem", &authority.self_signed(&authority_key).unwrap().pem());
    let key = KeyPair::generate().unwrap();
    let mut server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    change(&mut server);
    let signed = server.signed_by(&key, &Issuer::new(authority, authority_key)).unwrap();
    let settings = ClientTls {
        certificate: Some(files.write("server.pem", &signed.pem())),
        key: Some(files.write("server.key", &key.serialize_pem())),
        self_signed: false,
        ..ClientTls::self_signed(ClientTlsMode::On)
    };
    (ca_file, ServerCertificates::of(&settings).unwrap().config(Wrapped))
}

#[tokio::test]
async fn a_certificate_of_a_trusted_authority_is_believed() {
    let files = Files::new("believed");
    let (ca_file, server) = authority_and_server(&files, |_| {});
    let (mut one, mut other) = tcp().await;
    let (accept, connect) = roles_of(server, client_config(&verifying(Wrapped, Some(ca_file))).unwrap());
    let (accepted, connected) =
        tokio::join!(one.start_tls(accept, Wrapped), other.start_tls(connect, Wrapped));
    accepted.unwrap();
    connected.unwrap();
}

#[tokio::test]
async fn a_self_signed_authority_certificate_given_as_ca_file_is_believed_as_it_is() {
    // What `openssl req -x509` makes: an authority that serves.
    let files = Files::new("pinned");
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["elsewhere".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    let certificate = files.write("server.pem", &pem);
    let settings = ClientTls {
        certificate: Some(certificate.clone()),
        key: Some(files.write("server.key", &key.serialize_pem())),
        self_signed: false,
        ..ClientTls::self_signed(ClientTlsMode::On)
    };
    let server = ServerCertificates::of(&settings).unwrap().config(Wrapped);
    let (mut one, mut other) = tcp().await;
    let (accept, connect) = roles_of(server, client_config(&verifying(Wrapped, Some(certificate))).unwrap());
    let (accepted, connected) =
        tokio::join!(one.start_tls(accept, Wrapped), other.start_tls(connect, Wrapped));
    accepted.unwrap();
    connected.unwrap();
}

#[tokio::test]
async fn an_unknown_authority_is_named_as_the_problem() {
    let files = Files::new("unknown");
    let (ca_file, _) = authority_and_server(&files, |_| {});
    let client = client_config(&verifying(Wrapped, Some(ca_file))).unwrap();
    let others = Files::new("unknown-too");
    let (_, server) = authority_and_server(&others, |_| {});
    let told = refusal(server, client, Wrapped).await;
    assert!(told.contains("ca_file"), "{told}");
}

#[tokio::test]
async fn an_expired_certificate_is_named_as_the_problem() {
    let files = Files::new("expired");
    let (ca_file, server) = authority_and_server(&files, |params| {
        params.not_after = (SystemTime::now() - Duration::from_secs(3600)).into();
    });
    let told = refusal(server, client_config(&verifying(Wrapped, Some(ca_file))).unwrap(), Wrapped).await;
    assert_eq!(told, "the server's certificate has expired");
}

#[tokio::test]
async fn another_host_name_is_named_as_the_problem() {
    let files = Files::new("name");
    let (ca_file, server) = authority_and_server(&files, |params| {
        params.subject_alt_names =
            CertificateParams::new(vec!["sql2.example.com".to_owned()]).unwrap().subject_alt_names;
    });
    let told = refusal(server, client_config(&verifying(Wrapped, Some(ca_file))).unwrap(), Wrapped).await;
    assert!(told.contains("localhost") && told.contains("sql2.example.com"), "{told}");
}

#[test]
fn the_name_to_verify_is_the_override_or_the_host() {
    let mut settings = verifying(Wrapped, None);
    for (host, name) in
        [("sql1.example.com.", "sql1.example.com"), ("10.0.0.7", "10.0.0.7"), ("[::1]", "::1")]
    {
        assert_eq!(server_name(&settings, host).unwrap().to_str(), name);
    }
    settings.host_name = Some("certified.example.com".to_owned());
    assert_eq!(server_name(&settings, "10.0.0.7").unwrap().to_str(), "certified.example.com");
    assert!(server_name(&verifying(Wrapped, None), "no host").is_err());
}

#[test]
fn a_bundle_without_authorities_is_refused_by_name() {
    let files = Files::new("empty");
    let empty = files.write("empty.pem", "nothing here");
    let error = client_config(&verifying(Raw, Some(empty))).unwrap_err().to_string();
    assert!(error.contains("empty.pem") && error.contains("certificate"), "{error}");
    let missing = client_config(&verifying(Raw, Some("/nowhere/ca.pem".into()))).unwrap_err().to_string();
    assert!(missing.contains("/nowhere/ca.pem"), "{missing}");
}
