//! Load as thousands of small programs make it: light TDS clients, what they do, and what came of it.
//!
//! A [`plan::Plan`] says how many programs there are and what they do; [`run::run`] lets them work and gives an
//! [`run::Outcome`]; [`report`] shows it. A [`scenario`] is a plan with a stage, an incident and conditions to pass.

pub mod client;
pub mod machine;
pub mod plan;
mod program;
pub mod report;
pub mod run;
pub mod scenario;
mod setup;
pub mod tally;
pub mod watch;
pub mod wire;
mod work;

pub use tds::encryption::ServerTls;
