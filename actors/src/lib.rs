//! The crate tdsbouncer-actors.
