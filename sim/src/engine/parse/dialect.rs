//! How sqlparser reads T-SQL for us: Microsoft's dialect, plus the words that begin a statement and so end the one before.

use std::any::TypeId;

use sqlparser::dialect::{Dialect, MsSqlDialect};
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

/// The dialect. It says it is [`MsSqlDialect`] wherever sqlparser asks.
#[derive(Debug, Default)]
pub(in super::super) struct TSql {
    inner: MsSqlDialect,
}

/// Words that begin a statement or a clause and so are never an alias.
const STARTERS: &[&str] = &[
    "IF",
    "ELSE",
    "DECLARE",
    "EXEC",
    "EXECUTE",
    "INSERT",
    "UPDATE",
    "DELETE",
    "DROP",
    "CREATE",
    "ALTER",
    "TRUNCATE",
    "PRINT",
    "WHILE",
    "RETURN",
    "THROW",
    "RAISERROR",
    "MERGE",
    "SET",
    "USE",
    "BEGIN",
    "END",
    "COMMIT",
    "ROLLBACK",
    "SAVE",
    "WAITFOR",
    "GOTO",
    "BREAK",
    "CONTINUE",
    "OPEN",
    "CLOSE",
    "FETCH",
    "DEALLOCATE",
    "KILL",
    "DBCC",
    "REVERT",
    "GRANT",
    "DENY",
    "REVOKE",
    "OUTPUT",
    "OPTION",
    "VALUES",
    "DEFAULT",
    "SELECT",
    "FROM",
    "WHERE",
    "INTO",
    "WITH",
    "FOR",
    "CHECKPOINT",
    "BACKUP",
    "SHUTDOWN",
    "RECONFIGURE",
    "ON",
    "WHEN",
    "USING",
    "OFFSET",
    "GO",
    "READTEXT",
    "WRITETEXT",
    "UPDATETEXT",
    "BULK",
];

fn starts_something(parser: &Parser) -> bool {
    match &parser.get_current_token().token {
        Token::Word(word) if word.quote_style.is_none() => {
            STARTERS.iter().any(|s| word.value.eq_ignore_ascii_case(s))
        }
        _ => false,
    }
}

impl Dialect for TSql {
    fn dialect(&self) -> TypeId {
        TypeId::of::<MsSqlDialect>()
    }
    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        self.inner.is_delimited_identifier_start(ch)
    }
    fn is_identifier_start(&self, ch: char) -> bool {
        self.inner.is_identifier_start(ch)
    }
    fn is_identifier_part(&self, ch: char) -> bool {
        self.inner.is_identifier_part(ch)
    }
    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        self.inner.identifier_quote_style(identifier)
    }
    fn convert_type_before_value(&self) -> bool {
        true
    }
    fn supports_dollar_as_money_prefix(&self) -> bool {
        true
    }
    fn supports_eq_alias_assignment(&self) -> bool {
        true
    }
    fn supports_try_convert(&self) -> bool {
        true
    }
    fn supports_boolean_literals(&self) -> bool {
        false
    }
    fn supports_nested_comments(&self) -> bool {
        true
    }
    fn supports_object_name_double_dot_notation(&self) -> bool {
        true
    }
    fn supports_outer_join_operator(&self) -> bool {
        false
    }
    fn is_select_item_alias(&self, explicit: bool, keyword: &Keyword, parser: &mut Parser) -> bool {
        explicit || !starts_something(parser) && self.is_column_alias(keyword, parser)
    }
    fn is_table_factor_alias(&self, explicit: bool, keyword: &Keyword, parser: &mut Parser) -> bool {
        explicit || !starts_something(parser) && self.is_table_alias(keyword, parser)
    }
}
