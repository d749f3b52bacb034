//! What a server that does not reset as SQL Server does may leave behind: one thing at a time, for tests of what finds it.

/// One thing that a reset leaves as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leftover {
    /// SET options, without the language.
    Settings,
    /// The language.
    Language,
    /// The current database.
    Database,
    /// Temporary tables.
    TemporaryTables,
    /// Cursors.
    Cursors,
    /// Prepared handles.
    Prepared,
    /// Application locks of the session.
    ApplicationLocks,
    /// CONTEXT_INFO.
    ContextInfo,
    /// The session context.
    SessionContext,
    /// EXECUTE AS.
    Impersonation,
    /// IDENTITY_INSERT.
    IdentityInsert,
    /// `@@IDENTITY`.
    LastIdentity,
    /// The open transaction.
    Transaction,
}

impl Leftover {
    /// The leftover of this name, as faults write it.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "settings" => Self::Settings,
            "language" => Self::Language,
            "database" => Self::Database,
            "temporary_tables" => Self::TemporaryTables,
            "cursors" => Self::Cursors,
            "prepared" => Self::Prepared,
            "application_locks" => Self::ApplicationLocks,
            "context_info" => Self::ContextInfo,
            "session_context" => Self::SessionContext,
            "impersonation" => Self::Impersonation,
            "identity_insert" => Self::IdentityInsert,
            "last_identity" => Self::LastIdentity,
            "transaction" => Self::Transaction,
            _ => return None,
        })
    }
}
