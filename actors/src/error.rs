//! What a client may read when something goes wrong: number, class and text, whose fault it is, how loud we say
//! it. Answered once, here.

use std::time::Duration;

use tds::server_message::ServerMessage;
use tdsbouncer_config::BucketName;

use crate::bucket::recall::RecallReason;
use crate::session::prepared::TooManyStatements;

/// The name that errors carry in their "server" field.
pub(crate) const SERVER_NAME: &str = "tdsbouncer";

/// Whose fault an error is: decides how loud the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The client's: logged quietly, a stranger must not fill our disks.
    Client,
    /// The load's or the server's: worth a warning.
    Outside,
    /// Ours: an error.
    Ours,
}

/// Why a session did not get what it needed from its bucket.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum AcquireError {
    #[error(
        "bucket {bucket}: the wait queue is full: {waiting} clients wait already (queue_limit {limit}, max_connections {max_connections})"
    )]
    QueueFull { bucket: BucketName, waiting: usize, limit: usize, max_connections: u32 },
    #[error(
        "bucket {bucket}: too many clients of this tenant wait: {waiting} already (tenants.queue_limit {limit})"
    )]
    TenantQueueFull { bucket: BucketName, waiting: usize, limit: usize },
    #[error(
        "bucket {bucket}: no server connection within {waited:.1?} ({ahead} ahead, max_connections {max_connections})"
    )]
    Timeout { bucket: BucketName, waited: Duration, ahead: usize, max_connections: u32 },
    #[error("bucket {bucket}: the server cannot be reached: {why}")]
    Unreachable { bucket: BucketName, why: String },
    /// The server's own words, passed on unchanged.
    #[error("the server refused the login")]
    Refused(Vec<ServerMessage>),
    #[error("bucket {bucket} is not available: it crashed too often and rests")]
    Resting { bucket: BucketName },
    #[error("this proxy is shutting down")]
    Draining,
    #[error("bucket {bucket} is paused by an operator, for {paused:.0?} already")]
    Paused { bucket: BucketName, paused: Duration },
    #[error("bucket {bucket} takes no new clients: an operator closed it")]
    Disabled { bucket: BucketName },
}

/// Everything else that ends a session or a request with words to the client.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum SessionError {
    #[error(transparent)]
    Acquire(#[from] AcquireError),
    #[error(
        "no bucket is configured for database \"{database}\" (server name \"{server_name}\", user \"{user}\")"
    )]
    NoBucket { database: String, server_name: String, user: String },
    #[error("too many clients: {clients} are connected (limits.max_clients)")]
    TooManyClients { clients: usize },
    #[error("bucket {bucket}: too many clients: {clients} are logged in (max_clients)")]
    TooManyBucketClients { bucket: BucketName, clients: usize },
    #[error(
        "bucket {bucket}: too many clients of this tenant: {clients} are logged in (tenants.max_clients)"
    )]
    TooManyTenantClients { bucket: BucketName, clients: usize },
    #[error("Login failed for user '{user}'.")]
    LoginFailed { user: String },
    #[error("the session was restarted before your request was sent; try again")]
    RestartedBefore,
    #[error("the session was restarted while your request ran: its outcome is unknown")]
    OutcomeUnknown,
    #[error("the server connection was lost while your request ran: {why}; its outcome is unknown")]
    ServerLostUnderRequest { why: String },
    #[error(
        "a server connection could not be given your session's state: {why}; nothing was done, try again"
    )]
    NotPrepared { why: String },
    #[error(
        "the values that the previous request left (@@IDENTITY, SCOPE_IDENTITY(), @@ROWCOUNT, @@ERROR) are gone with the server connection; read them in the same request, or raise linger, or use pool_mode = \"session\""
    )]
    PreviousValuesGone,
    #[error(
        "a text uses prepared handles by number (EXEC sp_prepare, sp_execute, sp_unprepare) in a transaction or hold whose server connection has others prepared on it; use the driver's calls, or pool_mode = \"session\""
    )]
    HandlesByText,
    #[error(transparent)]
    TooManyStatements(#[from] TooManyStatements),
    #[error("your session did nothing for too long with what it held ({holds}): it was rolled back")]
    HeldTooLong { holds: String },
    #[error("the session crashed and its server connection with all its state is lost")]
    StateLost,
    #[error("the session crashed too often")]
    CrashedTooOften,
    #[error("the server connection was lost: {why}")]
    ServerLost { why: String },
    #[error("protocol error in what the client sent: {0}")]
    ClientProtocol(tds::Malformed),
    #[error("the console takes a name and a password of [admin], without MARS")]
    ConsoleLogin,
    #[error("the session of an earlier connection cannot be recovered here (SESSIONRECOVERY); log in anew")]
    CannotRecover,
    #[error("the connection was closed by an operator")]
    Killed,
    #[error("the server connection was taken back: {0}")]
    Recalled(RecallReason),
}

/// What a client may read of an error.
pub(crate) trait Answer {
    /// The error messages of the answer, in order.
    fn messages(&self) -> Vec<ServerMessage>;
    /// Whose fault it is.
    fn fault(&self) -> Fault;
    /// One word for the label in metrics.
    fn label(&self) -> &'static str;
}

/// SqlClient and others retry this: resource limit reached.
const RESOURCE_LIMIT: i32 = 10928;
/// Retried: the service is busy.
const BUSY: i32 = 40501;
/// Retried: the database is not available now.
const UNAVAILABLE: i32 = 40613;
/// Retried: the service could not process the request, nothing was done.
const TRY_AGAIN: i32 = 40197;
/// In no driver's retry list: the outcome is unknown.
const OUTCOME_UNKNOWN: i32 = 50001;
/// In no driver's retry list: what the request reads is not there any more.
const VALUES_GONE: i32 = 50002;
/// In no driver's retry list: the session's transaction or hold was ended.
const HELD_TOO_LONG: i32 = 50003;
/// In no driver's retry list: the session keeps more prepared than it may.
const TOO_MANY_STATEMENTS: i32 = 50004;
/// In no driver's retry list: handles by number would meet those of others.
const HANDLES_BY_TEXT: i32 = 50005;
/// Cannot open the database requested by the login.
const CANNOT_OPEN_DATABASE: i32 = 4060;
/// The session cannot be reused.
const CANNOT_RECOVER: i32 = 18056;
/// Login failed.
const LOGIN_FAILED: i32 = 18456;

fn ours(number: i32, class: u8, error: &impl std::fmt::Display) -> Vec<ServerMessage> {
    vec![ServerMessage::error(number, class, format!("tdsbouncer: {error}"), SERVER_NAME)]
}

impl Answer for AcquireError {
    fn messages(&self) -> Vec<ServerMessage> {
        match self {
            Self::QueueFull { .. } | Self::TenantQueueFull { .. } | Self::Timeout { .. } => {
                ours(RESOURCE_LIMIT, 16, self)
            }
            Self::Unreachable { .. } | Self::Resting { .. } => ours(UNAVAILABLE, 16, self),
            Self::Refused(messages) => messages.clone(),
            Self::Draining | Self::Paused { .. } | Self::Disabled { .. } => ours(BUSY, 16, self),
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Self::Refused(_) => Fault::Client,
            Self::Resting { .. } => Fault::Ours,
            _ => Fault::Outside,
        }
    }

    fn label(&self) -> &'static str {
        match self {
            Self::QueueFull { .. } => "queue_full",
            Self::TenantQueueFull { .. } => "tenant_queue_full",
            Self::Timeout { .. } => "acquire_timeout",
            Self::Unreachable { .. } => "server_unreachable",
            Self::Refused(_) => "login_refused",
            Self::Resting { .. } => "bucket_resting",
            Self::Draining => "draining",
            Self::Paused { .. } => "paused",
            Self::Disabled { .. } => "disabled",
        }
    }
}

impl Answer for SessionError {
    fn messages(&self) -> Vec<ServerMessage> {
        match self {
            Self::Acquire(error) => error.messages(),
            Self::NoBucket { .. } | Self::ConsoleLogin => ours(CANNOT_OPEN_DATABASE, 11, self),
            Self::TooManyClients { .. }
            | Self::TooManyBucketClients { .. }
            | Self::TooManyTenantClients { .. } => ours(RESOURCE_LIMIT, 16, self),
            // Word for word what the server would say: drivers and programs look for it.
            Self::LoginFailed { .. } => {
                vec![ServerMessage::error(LOGIN_FAILED, 14, self.to_string(), SERVER_NAME)]
            }
            Self::RestartedBefore | Self::NotPrepared { .. } => ours(TRY_AGAIN, 16, self),
            Self::OutcomeUnknown | Self::ServerLostUnderRequest { .. } => ours(OUTCOME_UNKNOWN, 16, self),
            Self::PreviousValuesGone => ours(VALUES_GONE, 16, self),
            Self::HeldTooLong { .. } => ours(HELD_TOO_LONG, 16, self),
            Self::HandlesByText => ours(HANDLES_BY_TEXT, 16, self),
            Self::TooManyStatements(_) => ours(TOO_MANY_STATEMENTS, 16, self),
            Self::StateLost | Self::CrashedTooOften | Self::ServerLost { .. } | Self::ClientProtocol(_) => {
                ours(OUTCOME_UNKNOWN, 20, self)
            }
            Self::CannotRecover => ours(CANNOT_RECOVER, 20, self),
            Self::Killed | Self::Recalled(_) => ours(BUSY, 20, self),
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Self::Acquire(error) => error.fault(),
            Self::RestartedBefore | Self::OutcomeUnknown | Self::StateLost | Self::CrashedTooOften => {
                Fault::Ours
            }
            Self::TooManyClients { .. }
            | Self::TooManyBucketClients { .. }
            | Self::ServerLost { .. }
            | Self::ServerLostUnderRequest { .. }
            | Self::NotPrepared { .. }
            | Self::Recalled(_) => Fault::Outside,
            _ => Fault::Client,
        }
    }

    fn label(&self) -> &'static str {
        match self {
            Self::Acquire(error) => error.label(),
            Self::NoBucket { .. } => "no_bucket",
            Self::TooManyClients { .. } => "too_many_clients",
            Self::TooManyBucketClients { .. } => "too_many_bucket_clients",
            Self::TooManyTenantClients { .. } => "too_many_tenant_clients",
            Self::LoginFailed { .. } => "login_failed",
            Self::RestartedBefore => "restarted",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::ServerLostUnderRequest { .. } => "server_lost_under_request",
            Self::NotPrepared { .. } => "not_prepared",
            Self::PreviousValuesGone => "previous_values_gone",
            Self::HeldTooLong { .. } => "held_too_long",
            Self::HandlesByText => "handles_by_text",
            Self::TooManyStatements(_) => "too_many_statements",
            Self::StateLost => "state_lost",
            Self::CrashedTooOften => "crashed_too_often",
            Self::ServerLost { .. } => "server_lost",
            Self::ClientProtocol(_) => "client_protocol",
            Self::ConsoleLogin => "console_login",
            Self::CannotRecover => "cannot_recover",
            Self::Killed => "killed",
            Self::Recalled(_) => "recalled",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_is_told_with_a_number_that_drivers_retry_and_the_numbers_in_its_text() {
        let error = AcquireError::QueueFull {
            bucket: BucketName::from("b1"),
            waiting: 7,
            limit: 7,
            max_connections: 20,
        };
        let [message] = &error.messages()[..] else { panic!("one message") };
        assert_eq!((message.number, message.class), (10928, 16));
        assert!(message.text.starts_with("tdsbouncer: "), "{}", message.text);
        assert!(message.text.contains("7 clients wait") && message.text.contains("max_connections 20"));
    }

    #[test]
    fn an_unknown_outcome_is_in_no_retry_list() {
        assert_eq!(SessionError::OutcomeUnknown.messages()[0].number, 50001);
        assert_eq!(SessionError::RestartedBefore.messages()[0].number, 40197);
    }

    #[test]
    fn what_breaks_the_connection_has_class_20() {
        let recalled = SessionError::Recalled(RecallReason::QuotaShrank);
        for error in [SessionError::StateLost, SessionError::CrashedTooOften, SessionError::Killed, recalled]
        {
            assert_eq!(error.messages()[0].class, 20, "{error}");
        }
    }

    #[test]
    fn the_servers_own_refusal_is_passed_on_word_for_word() {
        let own = ServerMessage::error(18456, 14, "Login failed for user 'x'.", "SQL1");
        assert_eq!(AcquireError::Refused(vec![own.clone()]).messages(), [own]);
    }
}
