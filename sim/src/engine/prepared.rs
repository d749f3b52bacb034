//! Prepared statements of a session.

/// What sp_prepare keeps under a handle.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    /// The parameter definitions as text.
    pub(super) definitions: String,
    pub(super) text: String,
    /// Made by sp_cursorprepare.
    pub(super) cursor: bool,
}
