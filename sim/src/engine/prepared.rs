//! Prepared statements of a session.

/// What sp_prepare keeps under a handle.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    pub(super) what: What,
    /// Made by sp_cursorprepare.
    pub(super) cursor: bool,
}

/// What sp_execute runs.
#[derive(Debug, Clone)]
pub(super) enum What {
    /// A text, and its parameters' definitions.
    Text { text: String, definitions: String },
    /// A procedure, by its name (sp_prepexecrpc).
    Procedure(String),
}
