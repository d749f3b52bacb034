//! The crate tdsbouncer-sim.
