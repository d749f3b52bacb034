//! A password of the operator's: taken from the environment or a file, wiped when dropped, never printed.

use std::fmt;
use zeroize::Zeroizing;

/// A secret text. Neither `Debug` nor any other trait shows it; only [`expose`](Secret::expose) does.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes over a text; the caller's copy is the caller's to wipe.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Where a secret is kept: all that the configuration file may say about it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Source<'a> {
    /// `env:NAME`.
    Variable(&'a str),
    /// `file:PATH`, relative to the configuration file.
    File(&'a str),
}

impl<'a> Source<'a> {
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        match text.split_once(':')? {
            (_, "") => None,
            ("env", name) => Some(Self::Variable(name)),
            ("file", path) => Some(Self::File(path)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_never_contains_the_secret() {
        assert_eq!(format!("{:?}", Secret::new("hunter2".into())), "Secret(..)");
    }

    #[test]
    fn only_env_and_file_are_sources() {
        assert_eq!(Source::parse("env:SQL_PASSWORD"), Some(Source::Variable("SQL_PASSWORD")));
        assert_eq!(Source::parse("file:/run/secrets/sql"), Some(Source::File("/run/secrets/sql")));
        for text in ["hunter2", "", "env:", "file:", "http:x"] {
            assert_eq!(Source::parse(text), None, "{text}");
        }
    }
}
