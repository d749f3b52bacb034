//! What is wrong with bytes that are not TDS: the one error of every decoder in this crate.

/// Bytes that break the protocol. Whoever sent them cannot be spoken to any further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A packet header announces a length outside `8..=limit` ([MS-TDS] 2.2.3.1.3).
    #[error("packet length {length} is outside 8..={limit}")]
    PacketLength {
        /// The announced length, in bytes, header included.
        length: usize,
        /// The largest length that this side accepts, in bytes.
        limit: usize,
    },
    /// A message grew beyond what this side is willing to hold.
    #[error("{what} is longer than {limit} bytes")]
    TooLong {
        /// What was being read.
        what: &'static str,
        /// The limit, in bytes.
        limit: usize,
    },
    /// A structure ended before its announced contents.
    #[error("{what} ends {missing} bytes early")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// How many bytes are missing.
        missing: usize,
    },
    /// A field has a value that the specification does not allow there.
    #[error("{what} has the value {value:#x}, which is not allowed there")]
    Value {
        /// The field.
        what: &'static str,
        /// Its value.
        value: u64,
    },
    /// A packet or token arrived that has no place in the current state.
    #[error("unexpected {what} while {state}")]
    Unexpected {
        /// What arrived.
        what: &'static str,
        /// What this side was doing.
        state: &'static str,
    },
    /// Text that is not valid UTF-16LE or, in UTF-8 places, UTF-8.
    #[error("{what} is not valid text")]
    Text {
        /// The field.
        what: &'static str,
    },
}
