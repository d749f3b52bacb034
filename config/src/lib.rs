//! What an operator may say: the configuration file, checked and compiled into types that cannot be wrong.
//!
//! The way of a key: [`mirror`] (what serde reads, with every default) → the `check` beside each compiled type,
//! which collects every problem → [`Config`]. The reference `proxy.toml` beside this crate explains every key.
//!
//! ```
//! let config = tdsbouncer_config::Config::parse(r#"
//!     [[listeners]]
//!     name = "main"
//!     tls = { self_signed = true }
//!
//!     [[buckets]]
//!     name = "orders"
//!     host = "sql1.example.com"
//!     max_connections = 100
//!     databases = ["orders", "orders_*"]
//!     server_tls = { trust_server_certificate = true }
//! "#).unwrap();
//! assert_eq!(config.buckets[0].acquire_timeout.as_secs(), 20);
//! ```

mod admin;
mod auth;
mod bucket;
mod check;
mod config;
mod coordinator;
mod document;
mod duration;
mod in_force;
mod limits;
mod listener;
mod log;
pub mod mirror;
mod pattern;
mod problem;
mod route;
mod secret;
mod server_tls;
mod size;
mod telemetry;
mod tenants;
mod users;

pub use admin::Admin;
pub use auth::AuthSettings;
pub use bucket::{
    Backoff, Bucket, BucketAuth, BucketName, Keepalive, KeyExtra, PoolMode, ResetPolicy, SpidReads,
    UnknownProcedures,
};
pub use check::{Machine, Nowhere, Outside};
pub use config::{Config, Runtime};
pub use coordinator::{Coordinator, Redis, RedisLogin, Topology};
pub use duration::{parse as parse_duration, show as show_duration};
pub use in_force::Setting;
pub use limits::{Limits, Timeouts};
pub use listener::{ClientTls, ClientTlsMode, Listener};
pub use log::{Log, LogFormat};
pub use pattern::Pattern;
pub use problem::{LoadError, Problem, Problems};
pub use route::{Router, Target};
pub use secret::Secret;
pub use server_tls::{ServerTls, ServerTlsMode};
pub use size::show as show_size;
pub use telemetry::{OtlpProtocol, Telemetry};
pub use tenants::{TenantBy, Tenants};
pub use users::{User, Users, UsersError, hash_password};
