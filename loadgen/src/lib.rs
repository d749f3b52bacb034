//! Load as thousands of small programs make it: light TDS clients, what they do, and what came of it.

pub mod client;
pub mod wire;
