//! What an operator may ask and order of the running proxy: over a Unix socket or a TCP port, one line of JSON each
//! way, and over the SQL console.
//!
//! Asked: `{"show":"buckets"}` or `{"do":"PAUSE orders"}`. Answered: `{"columns":[{"name":"bucket","kind":"text"},..],
//! "rows":[[..],..]}`, or `{"error":".."}`. A connection may ask one thing after the other. Who may open the Unix socket
//! may do everything: its file mode decides. Over TCP each line carries a token, `"token":".."`, which says what its
//! owner may do.

mod actor;
mod buckets;
mod command;
mod config;
mod connection;
mod coordinator;
mod crashes;
mod done;
mod help;
mod holds;
mod memory;
mod permission;
mod pools;
mod request;
mod servers;
mod sessions;
mod socket;
mod stats;
mod table;
mod tenants;
mod traits;
mod version;
mod waiters;

pub(crate) use actor::{AdminActor, AdminArgs};
pub(crate) use buckets::BucketRow;
pub use command::SUBJECTS;
pub(crate) use command::{Command, NotACommand, Order, Subject};
pub(crate) use config::ConfigRow;
pub(crate) use coordinator::CoordinatorRow;
pub(crate) use crashes::CrashRow;
pub(crate) use done::DoneRow;
pub(crate) use help::help;
pub(crate) use holds::HoldRow;
pub(crate) use memory::MemoryRow;
pub(crate) use permission::Role;
pub(crate) use pools::PoolRow;
pub(crate) use request::carry_out;
pub(crate) use servers::ServerRow;
pub(crate) use sessions::SessionRow;
pub(crate) use socket::AdminSocket;
pub use socket::AdminSocketError;
pub(crate) use stats::StatsRow;
pub(crate) use table::{Kind, Table};
pub(crate) use tenants::TenantRow;
pub(crate) use traits::TraitsRow;
pub(crate) use version::VersionRow;
pub(crate) use waiters::WaiterRow;

use std::pin::Pin;

/// An answer for which others have to be asked.
pub(crate) type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where the answers come from, and who carries the orders out.
pub(crate) trait Source: Send + Sync + 'static {
    /// A moment's view: two of them need not fit together.
    fn show(&self, subject: Subject) -> Later<'_, Table>;
    /// Does it, and says what was done; or says why not.
    fn perform(&self, order: Order) -> Later<'_, Result<Vec<DoneRow>, String>>;
}

#[cfg(test)]
mod stand_in {
    //! A source with one row of everything, for which every order succeeds.

    use super::*;
    use std::time::Duration;

    pub(super) struct OneOfEach;

    impl Source for OneOfEach {
        fn show(&self, subject: Subject) -> Later<'_, Table> {
            let table = match subject {
                Subject::Buckets => Table::of(&[BucketRow {
                    name: "orders".into(),
                    max_connections: 20,
                    idle: 3,
                    ..BucketRow::default()
                }]),
                Subject::Pools => Table::of(&[PoolRow { idle: 4, ..PoolRow::default() }]),
                Subject::Sessions => Table::of(&[SessionRow {
                    id: 7,
                    waiting_for: Some(Duration::from_millis(1500)),
                    ..SessionRow::default()
                }]),
                Subject::Servers => {
                    Table::of(&[ServerRow { id: 9, session: Some(7), ..ServerRow::default() }])
                }
                Subject::Traits => Table::of(&[TraitsRow { mode: "session", ..TraitsRow::default() }]),
                Subject::Holds => Table::of(&[HoldRow { session: 7, ..HoldRow::default() }]),
                Subject::Waiters => Table::of(&[WaiterRow { place: 1, ..WaiterRow::default() }]),
                Subject::Tenants => Table::of(&[TenantRow { clients: 2, ..TenantRow::default() }]),
                Subject::Coordinator => Table::of(&[CoordinatorRow {
                    quota: 5,
                    state: "normal".to_owned(),
                    ..CoordinatorRow::default()
                }]),
                Subject::Crashes => Table::of(&[CrashRow { actor: "session", ..CrashRow::default() }]),
                Subject::Stats => Table::of(&[StatsRow { requests: 6, ..StatsRow::default() }]),
                Subject::Config => {
                    Table::of(&[ConfigRow { key: "limits.max_clients".into(), value: "50000".into() }])
                }
                Subject::Memory => {
                    Table::of(&[MemoryRow { resident: Some(1 << 20), ..MemoryRow::default() }])
                }
                Subject::Version => {
                    Table::of(&[VersionRow { version: "1.2.3", uptime: Duration::from_secs(61) }])
                }
                Subject::Help => help(),
            };
            Box::pin(async { table })
        }

        fn perform(&self, order: Order) -> Later<'_, Result<Vec<DoneRow>, String>> {
            Box::pin(async move {
                match order {
                    Order::Pause(Some(bucket)) if bucket != "orders" => Err(format!("no bucket {bucket}")),
                    order => Ok(vec![DoneRow::new("orders", format!("{order:?}"))]),
                }
            })
        }
    }
}
