//! What the scanner reports.

use std::ops::Range;

use crate::done::Done;
use crate::env_change::EnvChange;
use crate::read::Reader;
use crate::return_value::ReturnValue;
use crate::session_state::SessionState;
use crate::token::TokenKind;
use crate::{Dialect, Malformed};

/// A token that matters, and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Scanned<'a> {
    /// The token's bytes, its kind byte included, counted in payload bytes from the beginning of the response. For
    /// messages and login acknowledgements the end may lie ahead of what the scanner has seen.
    pub range: Range<u64>,
    /// What it says.
    pub event: Event<'a>,
}

impl Scanned<'_> {
    /// True for tokens that can still be taken out of the response or changed: their bytes were not settled before
    /// they were reported ([`super::ResponseScanner::settled`]).
    pub fn is_held(&self) -> bool {
        match &self.event {
            Event::Done(_) | Event::EnvChange(_) | Event::ReturnStatus(_) | Event::SessionState(_) => true,
            Event::ReturnValue(value) => value.bytes.is_some(),
            Event::Message { .. } | Event::LoginAck | Event::FeatureExtAck | Event::Lost(_) => false,
        }
    }
}

/// What a token says.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<'a> {
    /// DONE, DONEPROC or DONEINPROC.
    Done(Done),
    /// ENVCHANGE.
    EnvChange(EnvChange),
    /// ERROR or INFO; the text is not looked at.
    Message {
        /// ERROR rather than INFO.
        is_error: bool,
        /// The message's number.
        number: i32,
        /// The message's state.
        state: u8,
        /// Severity: from 20 on the connection is broken.
        class: u8,
    },
    /// LOGINACK.
    LoginAck,
    /// FEATUREEXTACK.
    FeatureExtAck,
    /// RETURNSTATUS.
    ReturnStatus(i32),
    /// RETURNVALUE.
    ReturnValue(RawReturnValue<'a>),
    /// SESSIONSTATE.
    SessionState(SessionState<'a>),
    /// The response cannot be followed any further. Nothing may be concluded about the session, and the connection
    /// cannot be lent to anybody else.
    Lost(Lost),
}

/// A return value as the wire has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RawReturnValue<'a> {
    dialect: Dialect,
    /// The token without its kind byte; none if it is longer than [`super::MAX_RETURN_VALUE`].
    pub bytes: Option<&'a [u8]>,
}

impl<'a> RawReturnValue<'a> {
    pub(super) fn new(dialect: Dialect, bytes: Option<&'a [u8]>) -> Self {
        Self { dialect, bytes }
    }

    /// The parameter's place in the call.
    pub fn ordinal(&self) -> Option<u16> {
        self.bytes?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
    }

    /// Reads the whole token; none if it is too long.
    pub fn read(&self) -> Option<Result<ReturnValue, Malformed>> {
        self.bytes.map(|bytes| ReturnValue::read(&mut Reader::new(bytes, "RETURNVALUE"), self.dialect))
    }
}

/// Why the scanner gave up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// A token that the specification does not list, or that has no place in a response.
    #[error("unknown token {0:?}")]
    UnknownToken(TokenKind),
    /// A row came without metadata: the server relies on what the client remembers.
    #[error("a {0:?} without metadata")]
    NoMetadata(TokenKind),
    /// A part of a token is longer than the scanner holds.
    #[error("a token's part of {wanted} bytes is too long")]
    TooLong {
        /// How many bytes would have to be held.
        wanted: usize,
    },
    /// A token that breaks the protocol, or a data type that the specification does not list.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}
