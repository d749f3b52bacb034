//! The common part of every check: where problems gather, and what a check may ask of the world outside.

use crate::problem::Problem;
use crate::secret::{Secret, Source};
use std::fmt::Display;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// What a configuration refers to beyond its own text.
pub trait Outside {
    /// The value of an environment variable.
    fn variable(&self, name: &str) -> Option<String>;
    /// The contents of a text file.
    ///
    /// # Errors
    /// Whatever reading it says.
    fn file(&self, path: &Path) -> io::Result<String>;
}

/// The machine that this process runs on.
#[derive(Debug, Clone, Copy)]
pub struct Machine;

impl Outside for Machine {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &Path) -> io::Result<String> {
        fs::read_to_string(path)
    }
}

/// Some other machine: every variable and file is taken to exist, and to be empty.
#[derive(Debug, Clone, Copy)]
pub struct Nowhere;

impl Outside for Nowhere {
    fn variable(&self, _: &str) -> Option<String> {
        Some(String::new())
    }

    fn file(&self, _: &Path) -> io::Result<String> {
        Ok(String::new())
    }
}

/// One run of the checks.
pub(crate) struct Check<'a> {
    pub(crate) outside: &'a dyn Outside,
    /// Relative paths in the file start here.
    pub(crate) directory: &'a Path,
    pub(crate) problems: Vec<Problem>,
    /// What is allowed and probably not meant.
    pub(crate) warnings: Vec<Problem>,
}

impl<'a> Check<'a> {
    pub(crate) fn new(outside: &'a dyn Outside, directory: &'a Path) -> Self {
        Self { outside, directory, problems: Vec::new(), warnings: Vec::new() }
    }

    pub(crate) fn problem(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Reports a number, duration or size outside its bounds; goes on with the nearest bound.
    pub(crate) fn within<T: Copy + PartialOrd>(
        &mut self,
        path: &str,
        value: T,
        bounds: RangeInclusive<T>,
        show: impl Fn(T) -> String,
    ) -> T {
        if value < *bounds.start() {
            self.problem(Problem::new(path, format!("must be at least {}", show(*bounds.start()))));
            *bounds.start()
        } else if value > *bounds.end() {
            self.problem(Problem::new(path, format!("must be at most {}", show(*bounds.end()))));
            *bounds.end()
        } else {
            value
        }
    }

    /// A text that must be given.
    pub(crate) fn given(&mut self, path: &str, text: &str) -> bool {
        if text.trim().is_empty() {
            self.problem(Problem::new(path, "must be given"));
            return false;
        }
        true
    }

    pub(crate) fn address(&mut self, path: &str, text: &str) -> Option<SocketAddr> {
        match text.parse() {
            Ok(address) => Some(address),
            Err(_) => {
                let problem = Problem::new(path, "must be an address with a port");
                self.problem(problem.hint("such as 0.0.0.0:1433 or [::]:1433"));
                None
            }
        }
    }

    /// A file that must be there; its contents and full path.
    pub(crate) fn file(&mut self, path: &str, text: &str) -> Option<(PathBuf, String)> {
        let full = self.directory.join(text);
        match self.outside.file(&full) {
            Ok(contents) => Some((full, contents)),
            Err(why) => {
                self.problem(Problem::new(path, format!("cannot read {}: {why}", full.display())));
                None
            }
        }
    }

    /// A PEM file that must be there and hold at least one of these sections.
    pub(crate) fn pem(&mut self, path: &str, text: &str, section: &str) -> Option<PathBuf> {
        let (full, contents) = self.file(path, text)?;
        if !contents.is_empty()
            && !contents.lines().any(|l| l.starts_with("-----BEGIN") && l.contains(section))
        {
            self.problem(Problem::new(path, format!("has no PEM section with a {}", section.to_lowercase())));
            return None;
        }
        Some(full)
    }

    /// A secret from where the file says it is kept.
    pub(crate) fn secret(&mut self, path: &str, text: &str) -> Option<Secret> {
        match Source::parse(text) {
            Some(Source::Variable(name)) => match self.outside.variable(name) {
                Some(secret) => Some(Secret::new(secret)),
                None => {
                    self.problem(Problem::new(path, format!("environment variable {name} is not set")));
                    None
                }
            },
            Some(Source::File(file)) => {
                let (_, contents) = self.file(path, file)?;
                // Editors and `echo` end files with a newline that nobody means to be part of a password.
                Some(Secret::new(contents.trim_end_matches(['\n', '\r']).to_owned()))
            }
            None => {
                let what = "must say where the secret is kept, not the secret itself";
                self.problem(Problem::new(path, what).hint("\"env:NAME\" or \"file:PATH\""));
                None
            }
        }
    }
}

/// For numbers in [`Check::within`].
pub(crate) fn plain(number: impl Display) -> String {
    number.to_string()
}
