//! Reads the T-SQL text of a batch and says what ties the session to its connection, what can be replayed, and what
//! reads values that another batch left.
//!
//! The scan is no parser: it knows comments, strings, names and numbers exactly, the statements that matter, and
//! which statements surely run. Nothing within quotes or comments is looked at, nor the body of a procedure,
//! function, trigger or view that is created. Where it is not sure, it reports what holds and leaves out what ends.
//! Text that the server refuses to compile may be reported in any way.
//!
//! ```
//! use tds::tsql::{Finding, Hold, Procedures, Scope, TextScanner};
//!
//! let text: Vec<u8> = "create table #t (i int)".encode_utf16().flat_map(u16::to_le_bytes).collect();
//! let (mut scanner, procedures) = (TextScanner::new(Scope::Batch), Procedures::new());
//! let mut found = false;
//! scanner.feed(&text, &procedures, &mut |finding| found |= finding == Finding::Begins(Hold::TempTable, "#t"));
//! let verdict = scanner.finish(&procedures, &mut |_| ());
//! assert!(found && verdict.holds.contains(Hold::TempTable));
//! ```

mod block;
mod finding;
mod keyword;
mod lexer;
mod procedure;
mod set_option;
mod statement;
#[cfg(test)]
mod tests;
mod values;

pub use finding::{Finding, Hold, Holds, MAX_VALUE, Previous, Verdict};
pub use procedure::{Effect, Procedures};

use lexer::Lexer;
use statement::Statements;

/// Where the text runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// As a batch of its own: SQLBatch.
    Batch,
    /// Called, as by sp_executesql: what it does to SET options, USE and tables named `#t` ends with it.
    Called,
}

/// Scans one text after the other, each in pieces of any size. Memory is kept from one to the next.
#[derive(Debug)]
pub struct TextScanner {
    lexer: Lexer,
    statements: Statements,
}

impl TextScanner {
    /// Begins before the first character of a text.
    pub fn new(scope: Scope) -> Self {
        Self { lexer: Lexer::new(), statements: Statements::new(scope) }
    }

    /// Begins before the first character of another text, whatever became of the last one.
    pub fn restart(&mut self, scope: Scope) {
        self.lexer.restart();
        self.statements.restart(scope);
    }

    /// Takes the next bytes of the text, UTF-16LE without ALL_HEADERS, and reports what they complete, in order.
    pub fn feed(&mut self, text: &[u8], procedures: &Procedures, on_finding: &mut dyn FnMut(Finding<'_>)) {
        let Self { lexer, statements } = self;
        lexer.feed(text, |token| statements.take(token, procedures, on_finding));
    }

    /// The text has ended: reports what was still open, and what it all comes to.
    ///
    /// Wants [`TextScanner::restart`] before the next text.
    pub fn finish(&mut self, procedures: &Procedures, on_finding: &mut dyn FnMut(Finding<'_>)) -> Verdict {
        let Self { lexer, statements } = self;
        lexer.finish(|token| statements.take(token, procedures, on_finding));
        statements.verdict()
    }
}
