//! What clients do, step by step, and how two servers' answers to a step must agree.

use std::time::Duration;

use tds::packet::Status;

use super::profile::Profile;
use super::request::Ask;

/// Everything that one client does.
#[derive(Clone, Debug)]
pub struct Script {
    pub client: usize,
    pub profile: Profile,
    pub application: String,
    /// Of the logins' choices.
    pub seed: u64,
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub deed: Deed,
    pub check: Check,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Deed {
    /// Sends a request, perhaps with a reset bit, and reads its response.
    Ask(Ask, Reset),
    /// Sends a request and, a moment later, an attention.
    Stop(Ask, Duration),
    /// Sends an attention although nothing runs.
    StopNothing,
    /// Sends a request and takes it back with its last packet.
    Withdraw(Ask),
    /// Closes the socket, perhaps in the middle of a request, and logs in again.
    Leave(Option<(Ask, Duration)>),
}

/// A client's own reset ([MS-TDS] 2.2.3.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    No,
    Yes,
    KeepTransaction,
}

impl Reset {
    pub fn status(self) -> Status {
        match self {
            Self::No => Status::NORMAL,
            Self::Yes => Status::RESET_CONNECTION,
            Self::KeepTransaction => Status::RESET_CONNECTION_SKIP_TRAN,
        }
    }
}

/// How answers agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Token by token.
    Equal,
    /// As far as both came before they were stopped.
    UntilStopped,
    /// Token by token, or the proxy's own error: the values of the previous batch are gone with its connection.
    OrValuesGone,
}

impl Step {
    pub fn ask(ask: Ask) -> Self {
        Self { deed: Deed::Ask(ask, Reset::No), check: Check::Equal }
    }

    pub fn batch(text: impl Into<String>) -> Self {
        Self::ask(Ask::Batch(text.into()))
    }

    pub fn with_reset(self, reset: Reset) -> Self {
        match self.deed {
            Deed::Ask(ask, _) => Self { deed: Deed::Ask(ask, reset), ..self },
            _ => self,
        }
    }

    pub fn checked(self, check: Check) -> Self {
        Self { check, ..self }
    }
}
