//! The crate tdsbouncer-config.
