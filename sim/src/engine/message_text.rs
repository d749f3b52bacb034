//! What goes wrong in T-SQL: numbers, classes and texts as SQL Server has them.

use std::fmt;

/// An error (class 11 and up) on its way to the client or to a CATCH block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SqlError {
    pub(super) number: i32,
    pub(super) class: u8,
    pub(super) state: u8,
    pub(super) text: String,
    /// The line in its batch or procedure; 0 until known.
    pub(super) line: u32,
    /// The procedure it arose in.
    pub(super) procedure: String,
    /// How much of the running code it ends.
    pub(super) reach: Reach,
}

/// How much of the running code an error ends (without TRY and XACT_ABORT).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Its statement; the next one runs.
    Statement,
    /// Its procedure or batch level; the caller goes on.
    Scope,
    /// The whole batch; the transaction stays (THROW, compile errors).
    Batch,
    /// The whole batch and the transaction (conversion errors, deadlocks).
    Transaction,
}

const SEPARATOR: char = '\u{1}';

impl SqlError {
    pub(super) fn new(number: i32, class: u8, state: u8, text: impl Into<String>) -> SqlError {
        SqlError {
            number,
            class,
            state,
            text: text.into(),
            line: 0,
            procedure: String::new(),
            reach: reach_of(number),
        }
    }

    pub(super) fn reaching(mut self, reach: Reach) -> SqlError {
        self.reach = reach;
        self
    }

    /// The form in which an error crosses SQLite: registered functions can only return text.
    pub(super) fn smuggle(&self) -> String {
        format!(
            "{SEPARATOR}{}{SEPARATOR}{}{SEPARATOR}{}{SEPARATOR}{}",
            self.number, self.class, self.state, self.text
        )
    }

    /// Takes a smuggled error back.
    pub(super) fn unsmuggle(text: &str) -> Option<SqlError> {
        let mut parts = text[text.find(SEPARATOR)? + 1..].splitn(4, SEPARATOR);
        let (number, class, state) = (parts.next()?, parts.next()?, parts.next()?);
        Some(SqlError::new(number.parse().ok()?, class.parse().ok()?, state.parse().ok()?, parts.next()?))
    }

    /// Whether `The statement has been terminated.` (3621) follows.
    pub(super) fn terminates_statement(&self) -> bool {
        matches!(self.number, 515 | 547 | 2601 | 2627 | 8115 | 8134 | 2628 | 8152 | 220 | 232 | 513)
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.smuggle())
    }
}

impl std::error::Error for SqlError {}

fn reach_of(number: i32) -> Reach {
    match number {
        // Conversions end the batch and take the transaction along.
        241 | 242 | 244 | 245 | 248 | 293 | 295 | 8114 | 8169 | 235 | 1205 | 3960 | 9420 => {
            Reach::Transaction
        }
        // Names and syntax are found when the statement is compiled.
        102 | 105 | 156 | 137 | 134 | 178 | 207 | 208 | 209 | 1012 | 4104 | 4121 | 195 | 174 | 189 | 8120
        | 107 | 205 | 206 | 402 | 8117 | 529 | 213 | 264 | 145 | 104 | 1087 | 8116 | 141 | 2715 | 50_501 => {
            Reach::Scope
        }
        911 | 4145 | 8178 | 201 | 8144 | 8146 | 8145 => Reach::Statement,
        _ => Reach::Statement,
    }
}

pub(super) fn syntax_near(token: &str) -> SqlError {
    const RESERVED: &[&str] = &[
        "SELECT",
        "FROM",
        "WHERE",
        "GROUP",
        "ORDER",
        "BY",
        "HAVING",
        "INTO",
        "INSERT",
        "UPDATE",
        "DELETE",
        "TABLE",
        "CREATE",
        "DROP",
        "ALTER",
        "BEGIN",
        "END",
        "IF",
        "ELSE",
        "WHILE",
        "AND",
        "OR",
        "NOT",
        "NULL",
        "IS",
        "IN",
        "LIKE",
        "BETWEEN",
        "EXISTS",
        "CASE",
        "WHEN",
        "THEN",
        "SET",
        "DECLARE",
        "EXEC",
        "EXECUTE",
        "AS",
        "ON",
        "JOIN",
        "INNER",
        "LEFT",
        "RIGHT",
        "FULL",
        "OUTER",
        "CROSS",
        "UNION",
        "ALL",
        "DISTINCT",
        "TOP",
        "VALUES",
        "DEFAULT",
        "PRIMARY",
        "KEY",
        "FOREIGN",
        "REFERENCES",
        "CHECK",
        "CONSTRAINT",
        "INDEX",
        "VIEW",
        "PROCEDURE",
        "PROC",
        "RETURN",
        "PRINT",
        "RAISERROR",
        "WAITFOR",
        "USE",
        "GOTO",
        "BREAK",
        "CONTINUE",
        "COMMIT",
        "ROLLBACK",
        "SAVE",
        "TRAN",
        "TRANSACTION",
        "WITH",
        "FOR",
        "CURSOR",
        "OPEN",
        "FETCH",
        "CLOSE",
        "DEALLOCATE",
        "TRUNCATE",
        "MERGE",
        "KILL",
        "TO",
        "ASC",
        "DESC",
        "USER",
    ];
    let upper = token.to_ascii_uppercase();
    if RESERVED.contains(&upper.as_str()) {
        SqlError::new(156, 15, 1, format!("Incorrect syntax near the keyword '{token}'."))
    } else {
        SqlError::new(102, 15, 1, format!("Incorrect syntax near '{token}'."))
    }
}
pub(super) fn unsupported(what: impl fmt::Display) -> SqlError {
    SqlError::new(50_501, 16, 1, format!("This stand-in for SQL Server does not support {what}."))
}
pub(super) fn undeclared(name: &str) -> SqlError {
    SqlError::new(137, 15, 2, format!("Must declare the scalar variable \"{name}\"."))
}
pub(super) fn no_column(name: &str) -> SqlError {
    SqlError::new(207, 16, 1, format!("Invalid column name '{name}'."))
}
pub(super) fn no_object(name: &str) -> SqlError {
    SqlError::new(208, 16, 1, format!("Invalid object name '{name}'."))
}
pub(super) fn no_procedure(name: &str) -> SqlError {
    SqlError::new(2812, 16, 62, format!("Could not find stored procedure '{name}'."))
}
pub(super) fn no_database(name: &str) -> SqlError {
    SqlError::new(
        911,
        16,
        1,
        format!("Database '{name}' does not exist. Make sure that the name is entered correctly."),
    )
}
pub(super) fn no_handle(handle: i64) -> SqlError {
    SqlError::new(8179, 16, 4, format!("Could not find prepared statement with handle {handle}."))
}
pub(super) fn overflow(to: &str) -> SqlError {
    SqlError::new(8115, 16, 2, format!("Arithmetic overflow error converting expression to data type {to}."))
}
pub(super) fn divide_by_zero() -> SqlError {
    SqlError::new(8134, 16, 1, "Divide by zero error encountered.")
}
pub(super) fn lock_timeout() -> SqlError {
    SqlError::new(1222, 16, 51, "Lock request time out period exceeded.")
}
pub(super) fn deadlock(spid: u16) -> SqlError {
    SqlError::new(
        1205,
        13,
        51,
        format!(
            "Transaction (Process ID {spid}) was deadlocked on lock resources with another process and has been chosen as the deadlock victim. Rerun the transaction."
        ),
    )
}
