//! The words of T-SQL that the scan knows. All but the last few are reserved: no name is spelled like them unquoted.

/// The keyword that this word, in lower case, is.
pub(super) fn keyword(lower: &str) -> Option<&'static str> {
    place(lower).map(|at| KEYWORDS[at])
}

/// The first letter leaves a handful, of which few have the word's length.
fn place(lower: &str) -> Option<usize> {
    let letter = usize::from(lower.as_bytes().first()?.checked_sub(b'a')?);
    let (from, to) = (*FIRST.get(letter)?, *FIRST.get(letter + 1)?);
    (from..to).find(|at| KEYWORDS[*at].len() == lower.len() && KEYWORDS[*at] == lower)
}

/// Where the keywords with each first letter begin, and behind the last letter's.
const FIRST: [usize; 27] = {
    let mut first = [KEYWORDS.len(); 27];
    let mut at = KEYWORDS.len();
    let mut letter = 26;
    while letter > 0 {
        letter -= 1;
        while at > 0 && KEYWORDS[at - 1].as_bytes()[0] >= b'a' + letter as u8 {
            at -= 1;
        }
        first[letter] = at;
    }
    first
};

/// Which keywords begin a statement.
const BEGINS: [bool; KEYWORDS.len()] = {
    let mut begins = [false; KEYWORDS.len()];
    let mut at = 0;
    while at < BEGINNING.len() {
        let mut place = 0;
        while !same(BEGINNING[at].as_bytes(), KEYWORDS[place].as_bytes()) {
            place += 1;
        }
        begins[place] = true;
        at += 1;
    }
    begins
};

const fn same(one: &[u8], other: &[u8]) -> bool {
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
}

/// True for keywords that begin a statement wherever they stand, but for the places the caller knows.
pub(super) fn begins_statement(keyword: &str) -> bool {
    place(keyword).is_some_and(|at| BEGINS[at])
}

/// Words that begin a statement without being reserved: at a batch's beginning they are no procedure's name.
pub(super) fn begins_batch(lower: &str) -> bool {
    matches!(lower, "disable" | "enable" | "get" | "move" | "receive" | "send" | "throw")
}

const BEGINNING: &[&str] = &[
    "alter",
    "backup",
    "begin",
    "break",
    "bulk",
    "checkpoint",
    "close",
    "commit",
    "continue",
    "create",
    "dbcc",
    "deallocate",
    "declare",
    "delete",
    "deny",
    "drop",
    "else",
    "exec",
    "execute",
    "fetch",
    "goto",
    "grant",
    "if",
    "insert",
    "kill",
    "merge",
    "open",
    "print",
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
    "truncate",
    "update",
    "updatetext",
    "use",
    "waitfor",
    "while",
    "writetext",
];

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

    #[test]
    fn each_keyword_is_found_and_nothing_else() {
        for word in KEYWORDS {
            assert_eq!(keyword(word), Some(*word));
            assert_eq!(begins_statement(word), BEGINNING.contains(word), "{word}");
            assert_eq!(keyword(&format!("{word}x")), None);
        }
        for word in ["", "a", "zz", "~", "{", "select ", "xyz"] {
            assert_eq!(keyword(word), None);
        }
    }
}
