//! Prepared handles that a client may use on any server connection: it gets numbers of the proxy's own, and each request
//! is given what is right on the connection at hand. Nothing in here touches a socket.
//!
//! ```text
//! request   calls::read ─► Calls::answer        sp_unprepare alone: no server is asked
//!                     └──► Calls::plan  ─► Send          patched in place, or with a new head
//!                                       ─► PrepareFirst  a request of the proxy's own, then plan again
//!                                       ─► Refuse        too many statements
//! later on  Rest::feed                          changes what comes of a message too long to be read as a whole
//! response  Expectation::on_event ─► Keep | Drop | Replace
//! ```

mod answer;
mod calls;
mod expectation;
mod handle;
mod plan;
mod procedure;
mod real_handles;
mod rest;
mod rewrite;
mod statement;
mod statements;
#[cfg(test)]
mod tests;
mod text;

pub(crate) use calls::{Calls, read};
pub(crate) use expectation::Expectation;
pub(crate) use plan::{Connection, Plan};
pub(crate) use procedure::is_known_by_handle;
pub(crate) use real_handles::RealHandles;
pub(crate) use rest::{Means, Rest};
pub(crate) use rewrite::Splice;
pub(crate) use statement::Statement;
#[cfg(test)]
pub(crate) use statements::Limits;
pub(crate) use statements::{Statements, TooManyStatements};
pub(crate) use text::{answer_unprepares, unprepares};
