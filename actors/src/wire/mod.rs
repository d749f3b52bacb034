//! Bytes in motion, no decisions: sockets, buffered links, TLS driven record by record, certificates.

mod certificates;
mod link;
#[cfg(test)]
pub(crate) mod pair;
mod socket;
mod tls;
mod trust;

pub use certificates::CertificateError;
pub(crate) use certificates::ServerCertificates;
pub(crate) use link::{IdleCheck, Link};
pub(crate) use socket::Socket;
pub(crate) use tls::{TlsError, TlsRole};
pub(crate) use trust::{client_config, server_name};
