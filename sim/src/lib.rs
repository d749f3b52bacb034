//! A stand-in SQL Server for tests, the demo and load: TDS on the wire, T-SQL on SQLite behind it. Never in the data path.
//!
//! ```no_run
//! use tdsbouncer_sim::{SimOptions, SimServer};
//!
//! let server = SimServer::start(SimOptions::default())?;
//! println!("listening on {}", server.addr());
//! # Ok::<(), tdsbouncer_sim::SimError>(())
//! ```

pub mod engine;

mod bulk;
mod connection;
mod down_level;
mod ending;
mod execute;
mod fault;
mod fault_call;
mod login;
mod options;
mod product;
mod refusal;
mod registry;
mod request;
mod response;
mod server;
mod tls;
mod watcher;
mod wire;

pub use engine::Leftover;
pub use fault::{Fault, Faults};
pub use options::{
    Certificate, Encryption, Features, Federated, Integrated, Route, ServerKind, SimOptions, User,
};
pub use registry::{ConnectionInfo, Phase, Stats};
pub use server::{SimError, SimHandle, SimServer};
