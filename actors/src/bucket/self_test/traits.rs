//! What a bucket's server does where pooling depends on it, and why that is believed.

use tds::TdsVersion;
use tokio::time::Instant;

use crate::bucket::witness::StateIds;

/// What a bucket's server does. Whatever could not be found out has the value that is safe to believe, with a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerTraits {
    pub(crate) origin: Origin,
    /// What the measured login spoke.
    pub(crate) tds_version: TdsVersion,
    /// The server's version, of LOGINACK.
    pub(crate) program_version: [u8; 4],
    /// BEGIN, COMMIT and ROLLBACK TRANSACTION as text are told by ENVCHANGE 8, 9 and 10.
    pub(crate) text_transactions: bool,
    /// So are the transaction manager's requests.
    pub(crate) tm_transactions: bool,
    /// So are transactions that begin by themselves (SET IMPLICIT_TRANSACTIONS ON).
    pub(crate) implicit_transactions: bool,
    /// No ENVCHANGE 9 or 10 while the transaction stays open (an inner COMMIT, a rollback to a savepoint), as text.
    pub(crate) nested_text_right: bool,
    /// The same for the transaction manager's requests.
    pub(crate) nested_tm_right: bool,
    /// A reset is acknowledged by ENVCHANGE 18.
    pub(crate) reset_acknowledged: bool,
    /// What a reset clears.
    pub(crate) reset_clears: ResetClears,
    /// A reset forgets prepared statements.
    pub(crate) handles_dropped_by_reset: bool,
    /// Two requests written back to back are both answered.
    pub(crate) pipelines: bool,
    /// So are a request with a reset and another one behind it.
    pub(crate) pipelines_behind_reset: bool,
    pub(crate) session_recovery: SessionRecovery,
    /// Where SESSIONSTATE has CONTEXT_INFO and the session context; none if it does not tell them from other states.
    pub(crate) context_states: StateIds,
    /// What is not as with SQL Server, and why that is believed.
    pub(crate) notes: Vec<Note>,
    /// Something got no answer: the next measurement may find more.
    pub(crate) doubtful: bool,
}

/// Where the traits come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// `self_test = false`: SQL Server's, unseen.
    Assumed,
    /// The self-test, which ended then.
    Measured(Instant),
}

/// What RESETCONNECTION clears. Named for what would otherwise be left to the next client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResetClears {
    pub(crate) session_context: bool,
    pub(crate) context_info: bool,
    pub(crate) temp_tables: bool,
    pub(crate) set_options: bool,
    pub(crate) database: bool,
    pub(crate) cursors: bool,
    pub(crate) identity_insert: bool,
}

/// What became of the SESSIONRECOVERY feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionRecovery {
    /// The measured login did not offer it.
    NotOffered,
    /// The server did not take it up.
    Declined,
    /// Acknowledged, but a temp table did not make the session unrecoverable, or a SELECT changed its state: nothing
    /// to rely on.
    Silent,
    /// Acknowledged, and a temp table was told by SESSIONSTATE with fRecoverable 0; of other things it was silent.
    Partly,
    /// All was told that a text or procedure may leave to its session, as far as every login may try it.
    Tells,
}

/// Why one trait is not as with SQL Server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    /// What was checked.
    pub(crate) check: &'static str,
    pub(crate) why: String,
}

impl ResetClears {
    pub(crate) const EVERYTHING: Self = Self {
        session_context: true,
        context_info: true,
        temp_tables: true,
        set_options: true,
        database: true,
        cursors: true,
        identity_insert: true,
    };
}

impl ServerTraits {
    /// What is believed of a server of which nothing is known: it signals nothing and clears nothing.
    pub(crate) fn safe(tds_version: TdsVersion, program_version: [u8; 4]) -> Self {
        Self {
            origin: Origin::Measured(Instant::now()),
            tds_version,
            program_version,
            text_transactions: false,
            tm_transactions: false,
            implicit_transactions: false,
            nested_text_right: false,
            nested_tm_right: false,
            reset_acknowledged: false,
            reset_clears: ResetClears::default(),
            // A handle that is prepared again although it was still there costs a little; one that is used although
            // it is gone fails the client's request.
            handles_dropped_by_reset: true,
            pipelines: false,
            pipelines_behind_reset: false,
            session_recovery: SessionRecovery::NotOffered,
            context_states: StateIds::NONE,
            notes: Vec::new(),
            doubtful: false,
        }
    }

    /// What SQL Server does, for `self_test = false`.
    pub(crate) fn sql_server() -> Self {
        Self {
            origin: Origin::Assumed,
            text_transactions: true,
            tm_transactions: true,
            implicit_transactions: true,
            nested_text_right: true,
            nested_tm_right: true,
            reset_acknowledged: true,
            reset_clears: ResetClears::EVERYTHING,
            pipelines: true,
            pipelines_behind_reset: true,
            ..Self::safe(TdsVersion::V7_4, [0; 4])
        }
    }

    pub(super) fn note(&mut self, check: &'static str, why: impl Into<String>) {
        self.notes.push(Note { check, why: why.into() });
    }

    /// Major, minor and build, as `16.0.4215`.
    pub(crate) fn program(&self) -> String {
        let [major, minor, build1, build0] = self.program_version;
        format!("{major}.{minor}.{}", u16::from_be_bytes([build1, build0]))
    }
}
