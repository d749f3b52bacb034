//! What a probe found: one row for each thing that pooling assumes of a server.

use serde::Serialize;

/// A probe's answer.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What the server calls itself, its version, and how the probe was connected.
    pub server: String,
    /// One row for each assumption.
    pub rows: Vec<Row>,
}

/// One assumption and what became of it.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What it is about: `connection`, `reset`, `transaction`, `recovery`, `prepared`, `pipelining`, `attention`.
    pub area: &'static str,
    /// What is assumed, in a few words; with the area the row's name.
    pub check: &'static str,
    /// How it came out.
    pub verdict: Verdict,
    /// What the server did.
    pub found: String,
    /// What follows for the operator; empty where nothing does.
    pub advice: &'static str,
}

/// How an assumption came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As assumed.
    Good,
    /// Not as assumed, but harmless or made up for.
    Differs,
    /// Sharing connections would not be safe, or not as the configuration promises.
    Unsafe,
    /// Could not be tried: a missing right, a missing feature.
    Unknown,
}

impl Verdict {
    /// In one word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Differs => "differs",
            Self::Unsafe => "unsafe",
            Self::Unknown => "unknown",
        }
    }
}

/// What a check says; its name is the caller's.
#[derive(Debug, Clone)]
pub(super) struct Said {
    pub(super) verdict: Verdict,
    pub(super) found: String,
    pub(super) advice: &'static str,
}

impl Said {
    pub(super) fn good(found: impl Into<String>) -> Self {
        Self { verdict: Verdict::Good, found: found.into(), advice: "" }
    }

    pub(super) fn differs(found: impl Into<String>, advice: &'static str) -> Self {
        Self { verdict: Verdict::Differs, found: found.into(), advice }
    }

    pub(super) fn unsafe_(found: impl Into<String>, advice: &'static str) -> Self {
        Self { verdict: Verdict::Unsafe, found: found.into(), advice }
    }

    pub(super) fn unknown(found: impl Into<String>) -> Self {
        Self { verdict: Verdict::Unknown, found: found.into(), advice: "" }
    }

    pub(super) fn row(self, area: &'static str, check: &'static str) -> Row {
        let Self { verdict, found, advice } = self;
        Row { area, check, verdict, found, advice }
    }
}
