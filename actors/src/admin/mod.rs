//! What an operator may ask of the running proxy, over a Unix socket: one line of JSON each way.
//!
//! Asked: `{"show":"buckets"}`. Answered: `{"columns":[{"name":"bucket","kind":"text"},..],"rows":[[..],..]}`, or
//! `{"error":".."}`. A connection may ask one thing after the other. Who may open the socket may ask: its file mode
//! decides.

mod actor;
mod buckets;
mod config;
mod connection;
mod request;
mod servers;
mod sessions;
mod socket;
mod table;
mod version;

pub(crate) use actor::{AdminActor, AdminArgs};
pub(crate) use buckets::BucketRow;
pub(crate) use config::ConfigRow;
pub(crate) use servers::ServerRow;
pub(crate) use sessions::SessionRow;
pub(crate) use socket::AdminSocket;
pub use socket::AdminSocketError;
pub(crate) use version::VersionRow;

use std::pin::Pin;

/// Where the answers come from. Each is a moment's view: two of them need not fit together.
pub(crate) trait Source: Send + Sync + 'static {
    /// Each bucket.
    fn buckets(&self) -> Vec<BucketRow>;
    /// Each client.
    fn sessions(&self) -> Vec<SessionRow>;
    /// Each server connection: the buckets have to be asked for them.
    fn servers(&self) -> Pin<Box<dyn Future<Output = Vec<ServerRow>> + Send + '_>>;
    /// The configuration in force, without secrets.
    fn config(&self) -> Vec<ConfigRow>;
    /// The program.
    fn version(&self) -> VersionRow;
}

#[cfg(test)]
mod stand_in {
    //! A source with one row of everything.

    use super::*;
    use std::time::Duration;

    pub(super) struct OneOfEach;

    impl Source for OneOfEach {
        fn buckets(&self) -> Vec<BucketRow> {
            vec![BucketRow { name: "orders".into(), max_connections: 20, idle: 3, ..BucketRow::default() }]
        }

        fn sessions(&self) -> Vec<SessionRow> {
            vec![SessionRow {
                id: 7,
                waiting_for: Some(Duration::from_millis(1500)),
                ..SessionRow::default()
            }]
        }

        fn servers(&self) -> Pin<Box<dyn Future<Output = Vec<ServerRow>> + Send + '_>> {
            Box::pin(async { vec![ServerRow { id: 9, session: Some(7), ..ServerRow::default() }] })
        }

        fn config(&self) -> Vec<ConfigRow> {
            vec![ConfigRow { key: "limits.max_clients".into(), value: "50000".into() }]
        }

        fn version(&self) -> VersionRow {
            VersionRow { version: "1.2.3", uptime: Duration::from_secs(61) }
        }
    }
}
