//! The words of T-SQL that the scan knows. All but the last few are reserved: no name is spelled like them unquoted.

/// The keyword that this word, in lower case, is.
pub(super) fn keyword(lower: &str) -> Option<&'static str> {
    KEYWORDS.binary_search(&lower).ok().map(|at| KEYWORDS[at])
}

/// True for keywords that begin a statement wherever they stand, but for the places the caller knows.
pub(super) fn begins_statement(keyword: &str) -> bool {
    matches!(
        keyword,
        "alter"
            | "backup"
            | "begin"
            | "break"
            | "bulk"
            | "checkpoint"
            | "close"
            | "commit"
            | "continue"
            | "create"
            | "dbcc"
            | "deallocate"
            | "declare"
            | "delete"
            | "deny"
            | "drop"
            | "else"
            | "exec"
            | "execute"
            | "fetch"
            | "goto"
            | "grant"
            | "if"
            | "insert"
            | "kill"
            | "merge"
            | "open"
            | "print"
            | "raiserror"
            | "readtext"
            | "reconfigure"
            | "restore"
            | "return"
            | "revert"
            | "revoke"
            | "rollback"
            | "save"
            | "select"
            | "set"
            | "setuser"
            | "shutdown"
            | "truncate"
            | "update"
            | "updatetext"
            | "use"
            | "waitfor"
            | "while"
            | "writetext"
    )
}

/// Words that begin a statement without being reserved: at a batch's beginning they are no procedure's name.
pub(super) fn begins_batch(lower: &str) -> bool {
    matches!(lower, "disable" | "enable" | "get" | "move" | "receive" | "send" | "throw")
}

const KEYWORDS: &[&str] = &[
    "add",
    "all",
    "alter",
    "as",
    "backup",
    "begin",
    "break",
    "bulk",
    "case",
    "checkpoint",
    "close",
    "commit",
    "continue",
    "create",
    "cursor",
    "database",
    "dbcc",
    "deallocate",
    "declare",
    "default",
    "delete",
    "deny",
    "drop",
    "else",
    "end",
    "except",
    "exec",
    "execute",
    "exists",
    "fetch",
    "for",
    "from",
    "function",
    "goto",
    "grant",
    "if",
    "insert",
    "intersect",
    "into",
    "kill",
    "merge",
    "null",
    "off",
    "on",
    "open",
    "or",
    "order",
    "print",
    "proc",
    "procedure",
    "raiserror",
    "readtext",
    "reconfigure",
    "restore",
    "return",
    "revert",
    "revoke",
    "rollback",
    "save",
    "select",
    "set",
    "setuser",
    "shutdown",
    "statistics",
    "table",
    "then",
    "to",
    "tran",
    "transaction",
    "trigger",
    "truncate",
    "union",
    "update",
    "updatetext",
    "use",
    "values",
    "view",
    "waitfor",
    "where",
    "while",
    "with",
    "writetext",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_sorted() {
        assert!(KEYWORDS.is_sorted());
    }
}
