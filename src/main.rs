//! The program: commands, telemetry, signals.
fn main() {}
