//! Rules of transaction pooling that are broken on demand, for the tests that must notice it: a client whose application
//! name is `mutant:NAME` is served without that rule. Release builds do not have it.

/// A broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// What is left on a connection is not reset before somebody else gets it.
    Reset,
    /// The session's isolation level is not set on another connection.
    Isolation,
    /// Nor are its SET options.
    Settings,
    /// A connection goes home while something of the session is on it.
    Hold,
    /// A transaction's descriptor is sent as the client knows it.
    Descriptor,
    /// So are the numbers of prepared handles.
    Handles,
    /// A request that reads values of the one before it (@@IDENTITY) runs wherever it is.
    PreviousValues,
}

#[cfg(not(feature = "mutants"))]
impl Mutant {
    #[inline(always)]
    pub(crate) const fn is_asked_for(self, _application: &str) -> bool {
        false
    }
}

#[cfg(feature = "mutants")]
impl Mutant {
    pub(crate) fn is_asked_for(self, application: &str) -> bool {
        application.strip_prefix("mutant:") == Some(self.name())
    }

    fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Isolation => "isolation",
            Self::Settings => "settings",
            Self::Hold => "hold",
            Self::Descriptor => "descriptor",
            Self::Handles => "handles",
            Self::PreviousValues => "previous_values",
        }
    }
}
