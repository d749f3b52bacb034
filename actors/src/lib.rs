//! Who owns what, who waits, who restarts whom: the actors of tdsbouncer under their supervision tree.

mod admin;
mod auth;
mod bucket;
mod build;
mod console;
mod coordinator;
mod crash_book;
mod crash_test;
mod error;
mod host;
mod listener;
mod memory;
mod metrics;
mod mutant;
mod orders;
mod panics;
mod policy;
pub mod probe;
mod proxy;
mod reload;
mod root;
mod session;
mod telemetry;
mod view;
mod wire;

pub use admin::{AdminSocketError, SUBJECTS};
pub use auth::UsersFileError;
pub use host::Shutdown;
pub use panics::log_panics_without_values;
pub use proxy::{BucketHealth, Health, METRICS_CONTENT_TYPE, Proxy, StartError};
pub use wire::CertificateError;
