//! Bytes in motion, no decisions: sockets, buffered links, TLS driven record by record, certificates.

mod certificates;
mod link;
mod log_in;
#[cfg(test)]
pub(crate) mod pair;
mod socket;
mod tls;
mod tls_error;
mod trust;

pub use certificates::CertificateError;
pub(crate) use certificates::ServerCertificates;
pub(crate) use link::{IdleCheck, Link};
pub(crate) use log_in::{log_in, offer};
pub(crate) use socket::Socket;
pub(crate) use tls::TlsRole;
pub(crate) use tls_error::TlsError;
pub(crate) use trust::{client_config, server_name};
