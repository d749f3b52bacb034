//! What the scan reports: things that tie a session to its connection, state that can be replayed, values read.

use std::hash::{DefaultHasher, Hash, Hasher};

/// Something that ties a session to the server connection it happened on.
///
/// A reset of the connection ends it, except where noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Hold {
    /// BEGIN TRANSACTION; counted. Servers that send ENVCHANGE tell it better.
    Transaction,
    /// `#t` or `##t`; by name.
    TempTable,
    /// A procedure of the session, `#p` or `##p`; by name.
    TempProcedure,
    /// DECLARE CURSOR that is not LOCAL, by name, until DEALLOCATE; or a cursor procedure.
    Cursor,
    /// sp_prepare and its like called by text; counted.
    PreparedHandle,
    /// sp_getapplock; counted.
    ApplicationLock,
    /// EXECUTE AS, counted, and SETUSER.
    SecurityContext,
    /// EXECUTE AS .. WITH NO REVERT: no reset ends it.
    SecurityContextForGood,
    /// sp_setapprole: no reset ends it, only sp_unsetapprole.
    ApplicationRole,
    /// SET CONTEXT_INFO.
    ContextInfo,
    /// sp_set_session_context.
    SessionContext,
    /// sp_xml_preparedocument; counted.
    XmlDocument,
    /// DBCC TRACEON; by number.
    TraceFlag,
    /// sp_OACreate and its like.
    OleObject,
    /// SET IDENTITY_INSERT .. ON; by the table's name as written.
    IdentityInsert,
    /// OPEN SYMMETRIC KEY, OPEN MASTER KEY.
    OpenKey,
    /// INSERT BULK: the rows must meet the same connection.
    BulkLoad,
    /// A SET that cannot be replayed: its value is not in the text, it may not run, or it changes what follows; by
    /// the option's name. A [`Finding::Set`] of the option ends it too. While `noexec`, `parseonly`, `fmtonly` or a
    /// `showplan` holds, statements do not run: what later batches end is then not ended.
    Setting,
    /// ALTER DATABASE .. SET SINGLE_USER: this connection is the single user. No reset ends it.
    SingleUser,
    /// sp_bindsession and other things that make a session another's.
    BoundSession,
    /// EXEC ('..'), sp_executesql and other calls whose text is not seen.
    DynamicText,
    /// A procedure that the operator lists; by name.
    ListedProcedure,
    /// Something that is not understood.
    Unsure,
}

impl Hold {
    /// True where each beginning wants an ending of its own, whatever its name.
    pub fn is_counted(self) -> bool {
        matches!(
            self,
            Self::Transaction
                | Self::PreparedHandle
                | Self::ApplicationLock
                | Self::SecurityContext
                | Self::XmlDocument
        )
    }

    /// True where a reset of the connection does not end it: the connection is of no use to others.
    pub fn survives_reset(self) -> bool {
        matches!(self, Self::SecurityContextForGood | Self::ApplicationRole | Self::SingleUser)
    }
}

/// A set of [`Hold`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holds(u32);

impl Holds {
    /// Whether the hold is among them.
    pub fn contains(self, hold: Hold) -> bool {
        self.0 & (1 << hold as u32) != 0
    }

    /// These and that one.
    #[must_use]
    pub fn with(self, hold: Hold) -> Self {
        Self(self.0 | (1 << hold as u32))
    }

    /// These but that one.
    #[must_use]
    pub fn without(self, hold: Hold) -> Self {
        Self(self.0 & !(1 << hold as u32))
    }

    /// True if there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// A value that one batch leaves to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Previous {
    /// @@IDENTITY.
    Identity,
    /// SCOPE_IDENTITY().
    ScopeIdentity,
    /// @@ROWCOUNT, ROWCOUNT_BIG().
    RowCount,
    /// @@ERROR.
    Error,
    /// @@FETCH_STATUS, @@CURSOR_ROWS.
    FetchStatus,
}

/// What the scan found. Names stand as they were written, without quotes: whether case matters is the server's to
/// know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding<'a> {
    /// Something that holds may begin here. Without a name where there should be one, only a reset ends it.
    Begins(Hold, &'a str),
    /// It surely ends here, if the response has no error and the batch is not cancelled. Reported only where the
    /// statement runs in every case: not behind IF, in a loop or in TRY. What a transaction drops comes back when
    /// it is rolled back: [`Hold::TempTable`] and [`Hold::TempProcedure`] end with its commit.
    Ends(Hold, &'a str),
    /// All of this kind end here, under the same condition.
    EndsAll(Hold),
    /// USE; ENVCHANGE confirms it.
    Use(&'a str),
    /// `SET option value`, which can be replayed with just these words. SET LANGUAGE changes `dateformat` and
    /// `datefirst` too.
    Set {
        /// The option, lower case.
        option: &'static str,
        /// The value as T-SQL text, at most [`MAX_VALUE`] bytes.
        value: &'a str,
    },
    /// A value of the previous batch is read.
    ReadsPrevious {
        /// Which.
        value: Previous,
        /// False if something before it in this batch may have set it.
        surely: bool,
    },
    /// What was prepared under a handle runs: sp_execute.
    ExecutesHandle,
    /// The session looks at its process id, or at a list of sessions where it may look for itself.
    ReadsProcessId,
    /// A procedure is called that nothing is known of; the last part of its name.
    Calls(&'a str),
    /// Not understood: hold.
    Unsure(&'static str),
}

/// The longest value of a SET option that is reported, in bytes of UTF-8.
pub const MAX_VALUE: usize = 128;

/// What a whole batch comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What the batch begins and does not surely end.
    pub holds: Holds,
    /// The first reason for [`Hold::Unsure`].
    pub unsure: Option<&'static str>,
    /// It surely reads a value of the previous batch.
    pub reads_previous: bool,
    /// It may read a value of the previous batch.
    pub may_read_previous: bool,
    /// It looks at the session's process id.
    pub reads_process_id: bool,
    /// It changes replayable state: USE, SET.
    pub changes_state: bool,
    /// It calls a procedure that nothing is known of.
    pub calls_procedures: bool,
    /// It leaves identity values that the next batch may read.
    pub leaves_identity: bool,
    /// Its last statement changed rows, or called what may have: the next batch may read how many.
    pub leaves_row_count: bool,
    /// It surely sets the identity.
    pub sets_identity: bool,
    /// It surely sets row count and error.
    pub sets_outcome: bool,
    /// It surely sets the status of the last fetch.
    pub sets_fetch: bool,
}

/// Things a batch began and did not end yet.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    open: [Option<(Hold, u64)>; 32],
    /// What found no room, or is not to be ended by name.
    stuck: Holds,
}

impl Ledger {
    pub(super) fn begin(&mut self, hold: Hold, name: &str) {
        let entry = Some((hold, hash(hold, name)));
        if !hold.is_counted() && self.open.contains(&entry) {
            return;
        }
        match self.open.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) => *slot = entry,
            None => self.stuck = self.stuck.with(hold),
        }
    }

    pub(super) fn end(&mut self, hold: Hold, name: &str) {
        let entry = Some((hold, hash(hold, name)));
        if let Some(slot) = self.open.iter_mut().find(|slot| **slot == entry) {
            *slot = None;
        }
    }

    pub(super) fn end_all(&mut self, hold: Hold) {
        for slot in &mut self.open {
            if slot.is_some_and(|(open, _)| open == hold) {
                *slot = None;
            }
        }
        self.stuck = self.stuck.without(hold);
    }

    pub(super) fn holds(&self) -> Holds {
        self.open.iter().flatten().fold(self.stuck, |holds, (hold, _)| holds.with(*hold))
    }
}

fn hash(hold: Hold, name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    if !hold.is_counted() {
        name.hash(&mut hasher);
    }
    hasher.finish()
}
