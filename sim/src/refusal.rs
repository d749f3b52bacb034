//! The errors that the wire half raises itself, with the numbers and words of SQL Server.

use tds::server_message::ServerMessage;

use crate::options::SimOptions;

/// Login failed. The state tells SQL Server's log why; the client always sees 1.
pub(crate) fn login_failed(options: &SimOptions, user: &str) -> ServerMessage {
    error(options, 18456, 14, format!("Login failed for user '{user}'."))
}

/// An integrated login from a domain that is not trusted.
pub(crate) fn untrusted_domain(options: &SimOptions) -> ServerMessage {
    let text = "Login failed. The login is from an untrusted domain and cannot be used with Integrated authentication.";
    error(options, 18452, 14, text)
}

/// The login's database does not exist.
pub(crate) fn no_such_database(options: &SimOptions, database: &str) -> ServerMessage {
    let text = format!("Cannot open database \"{database}\" requested by the login. The login failed.");
    error(options, 4060, 11, text)
}

/// `user connections` is reached.
pub(crate) fn too_many_connections(options: &SimOptions) -> ServerMessage {
    let text = format!(
        "Could not connect because the maximum number of '{}' user connections has already been reached. The system \
         administrator can use sp_configure to increase the maximum value. The connection has been closed.",
        options.max_connections
    );
    error(options, 17809, 20, text)
}

/// No memory is left.
pub(crate) fn out_of_memory(options: &SimOptions) -> ServerMessage {
    error(
        options,
        701,
        17,
        "There is insufficient system memory in resource pool 'default' to run this query.",
    )
}

/// A federated login that claims another PRELOGIN than there was, or whose token is not good.
pub(crate) fn federated_login_failed(options: &SimOptions) -> ServerMessage {
    error(options, 18456, 14, "Login failed for user '<token-identified principal>'.")
}

/// Something that a session recovery login asks for cannot be had.
pub(crate) fn recovery_failed(options: &SimOptions) -> ServerMessage {
    let text =
        "The client's session recovery data is invalid or cannot be restored. The connection is closed.";
    error(options, 18056, 20, text)
}

/// A request in autocommit mode while a transaction is open.
pub(crate) fn no_descriptor(options: &SimOptions) -> ServerMessage {
    let text =
        "New request is not allowed to start because it should come with valid transaction descriptor.";
    error(options, 3989, 16, text)
}

/// A request for a transaction that there is not.
pub(crate) fn wrong_descriptor(options: &SimOptions, descriptor: u64) -> ServerMessage {
    error(options, 3971, 16, format!("The server failed to resume the transaction. Desc:{descriptor:x}."))
}

/// Distributed transactions.
pub(crate) fn no_distributed_transactions(options: &SimOptions) -> ServerMessage {
    let text = "MSDTC on server 'sim' is unavailable.";
    error(options, 8501, 16, text)
}

/// A request that breaks the protocol.
pub(crate) fn protocol_error(options: &SimOptions, what: &str) -> ServerMessage {
    let text = format!("The incoming tabular data stream (TDS) protocol stream is incorrect. {what}");
    error(options, 4002, 16, text)
}

/// An RPC whose bytes make no sense.
pub(crate) fn rpc_protocol_error(options: &SimOptions, what: &str) -> ServerMessage {
    let text = format!(
        "The incoming tabular data stream (TDS) remote procedure call (RPC) protocol stream is incorrect. {what}"
    );
    error(options, 8009, 16, text)
}

/// Bulk rows that nobody asked for.
pub(crate) fn unexpected_bulk_load(options: &SimOptions) -> ServerMessage {
    let text =
        "The incoming tabular data stream (TDS) protocol stream is incorrect. The stream ended unexpectedly.";
    error(options, 4002, 16, text)
}

/// Bulk rows that cannot be read.
pub(crate) fn bulk_load_broken(options: &SimOptions, what: &str) -> ServerMessage {
    error(options, 4804, 16, format!("The bulk load data stream is incorrect: {what}."))
}

/// A fault's error.
pub(crate) fn on_demand(options: &SimOptions, number: i32, class: u8) -> ServerMessage {
    match number {
        701 => ServerMessage { class, ..out_of_memory(options) },
        number => error(options, number, class, format!("Error {number} on demand (sim_fault).")),
    }
}

/// A fault's name that does not exist.
pub(crate) fn unknown_fault(options: &SimOptions, text: &str) -> ServerMessage {
    error(options, 50000, 16, format!("sim_fault: no such fault, or a wrong argument: {text}"))
}

/// The connection is unusable after a failed reset.
pub(crate) fn reset_failed(options: &SimOptions) -> ServerMessage {
    let text = "The client was unable to reuse a session, which had been reset for connection pooling. The failure ID \
                is 29. This error may have been caused by an earlier operation failing.";
    error(options, 18056, 20, text)
}

/// KILL hit the session.
pub(crate) fn killed(options: &SimOptions) -> ServerMessage {
    error(options, 596, 21, "Cannot continue the execution because the session is in the kill state.")
}

/// The engine's answer has no form on the wire.
pub(crate) fn cannot_be_sent(options: &SimOptions, why: String) -> ServerMessage {
    error(options, 50000, 16, format!("The stand-in cannot send this result: {why}."))
}

fn error(options: &SimOptions, number: i32, class: u8, text: impl Into<String>) -> ServerMessage {
    ServerMessage::error(number, class, text, options.name.as_str())
}
