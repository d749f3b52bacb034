//! Reads a batch: statements by hand, queries and expressions by sqlparser.

mod definition;
mod dialect;
mod dml;
mod procedural;
mod statement;

use sqlparser::ast::{DataType, Expr, Query};
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

pub(super) use statement::*;

use super::message_text::{SqlError, syntax_near, unsupported};
use super::types::{SqlType, parse_type};

/// Deepest nesting of statements and expressions.
const MAX_DEPTH: usize = 60;

/// Reads the statements of a batch, or the first mistake in it.
pub(super) fn batch(text: &str) -> Result<Vec<Stmt>, SqlError> {
    let dialect = dialect::TSql::default();
    let mut reader = Reader::new(&dialect, text)?;
    let mut statements = Vec::new();
    while let Some(statement) = reader.statement_or_end(statements.is_empty())? {
        statements.push(statement);
    }
    Ok(statements)
}

/// Reads one query (a view's).
pub(super) fn query(text: &str) -> Result<Box<Query>, SqlError> {
    let dialect = dialect::TSql::default();
    Reader::new(&dialect, text)?.query()
}

/// Reads one expression (a default's, a check's).
pub(super) fn expression(text: &str) -> Result<Expr, SqlError> {
    let dialect = dialect::TSql::default();
    Reader::new(&dialect, text)?.expr()
}

/// One parameter of a procedure or of sp_executesql's definition list.
#[derive(Debug, Clone)]
pub(super) struct ParamDef {
    pub(super) name: String,
    pub(super) ty: SqlType,
    pub(super) default: Option<Expr>,
    pub(super) output: bool,
}

/// Reads `@a int, @b varchar(10) = 'x' OUTPUT`.
pub(super) fn parameters(text: &str) -> Result<Vec<ParamDef>, SqlError> {
    let dialect = dialect::TSql::default();
    let mut reader = Reader::new(&dialect, text)?;
    reader.parameter_list()
}

/// A procedure's parameters and statements, from the text of its CREATE PROCEDURE.
pub(super) fn procedure(text: &str) -> Result<(Vec<ParamDef>, Vec<Stmt>), SqlError> {
    let dialect = dialect::TSql::default();
    let mut reader = Reader::new(&dialect, text)?;
    reader.word_any(&["CREATE", "ALTER"])?;
    if reader.take("OR") {
        reader.expect("ALTER")?;
    }
    reader.word_any(&["PROCEDURE", "PROC"])?;
    reader.name()?;
    let parenthesised = reader.take_token(&Token::LParen);
    let params = reader.parameter_list()?;
    if parenthesised {
        reader.expect_token(&Token::RParen)?;
    }
    if reader.take("WITH") {
        while !reader.peek_is("AS") {
            if reader.next().token == Token::EOF {
                return Err(reader.near_here());
            }
        }
    }
    reader.expect("AS")?;
    let mut statements = Vec::new();
    while let Some(statement) = reader.statement_or_end(false)? {
        statements.push(statement);
    }
    Ok((params, statements))
}

/// A cursor over the tokens of a batch, and the batch's text.
pub(super) struct Reader<'a> {
    parser: Parser<'a>,
    text: &'a str,
    line_starts: Vec<usize>,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn new(dialect: &'a dialect::TSql, text: &'a str) -> Result<Reader<'a>, SqlError> {
        let tokens = Tokenizer::new(dialect, text).tokenize_with_location().map_err(|error| {
            let message = error.message.as_str();
            let unclosed = message.contains("nterminated") && !message.contains("comment")
                || message.contains("close delimiter");
            let mut sql_error = if unclosed {
                SqlError::new(
                    105,
                    15,
                    1,
                    format!("Unclosed quotation mark after the character string '{}'.", tail_string(text)),
                )
            } else if error.message.contains("comment") {
                SqlError::new(113, 15, 1, "Missing end comment mark '*/'.")
            } else {
                SqlError::new(102, 15, 1, format!("Incorrect syntax: {}.", error.message))
            };
            sql_error.line = error.location.line as u32;
            sql_error
        })?;
        let mut line_starts = vec![0];
        line_starts.extend(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at + 1));
        let parser = Parser::new(dialect).with_recursion_limit(200).with_tokens_with_locations(tokens);
        Ok(Reader { parser, text, line_starts, depth: 0 })
    }

    fn peek(&self) -> TokenWithSpan {
        self.parser.peek_token()
    }
    fn next(&mut self) -> TokenWithSpan {
        self.parser.next_token()
    }
    fn line(&self) -> u32 {
        self.parser.peek_token_ref().span.start.line as u32
    }

    /// The byte offset at which the next token begins.
    fn offset(&self) -> usize {
        let token = self.parser.peek_token_ref();
        if token.token == Token::EOF {
            return self.text.len();
        }
        let at = token.span.start;
        let start = self.line_starts.get(at.line as usize - 1).copied().unwrap_or(0);
        self.text[start..]
            .char_indices()
            .nth(at.column as usize - 1)
            .map_or(self.text.len(), |(i, _)| start + i)
    }

    fn word_at(&self, n: usize) -> Option<String> {
        match &self.parser.peek_nth_token_ref(n).token {
            Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_ascii_uppercase()),
            _ => None,
        }
    }
    fn peek_is(&self, word: &str) -> bool {
        self.nth_is(0, word)
    }
    fn nth_is(&self, n: usize, word: &str) -> bool {
        matches!(&self.parser.peek_nth_token_ref(n).token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
    }
    fn take(&mut self, word: &str) -> bool {
        let found = self.peek_is(word);
        if found {
            self.next();
        }
        found
    }
    fn take_all(&mut self, words: &[&str]) -> bool {
        let found = words.iter().enumerate().all(|(n, word)| self.nth_is(n, word));
        if found {
            words.iter().for_each(|_| drop(self.next()));
        }
        found
    }
    fn take_token(&mut self, token: &Token) -> bool {
        let found = self.parser.peek_token_ref().token == *token;
        if found {
            self.next();
        }
        found
    }
    fn expect(&mut self, word: &str) -> Result<(), SqlError> {
        if self.take(word) { Ok(()) } else { Err(self.near_here()) }
    }
    fn word_any(&mut self, words: &[&str]) -> Result<(), SqlError> {
        if words.iter().any(|word| self.take(word)) { Ok(()) } else { Err(self.near_here()) }
    }
    fn expect_token(&mut self, token: &Token) -> Result<(), SqlError> {
        if self.take_token(token) { Ok(()) } else { Err(self.near_here()) }
    }

    /// The syntax error at the next token; at the end of the text it names the last one.
    fn near_here(&mut self) -> SqlError {
        let mut token = self.peek();
        if token.token == Token::EOF {
            self.parser.prev_token();
            token = self.peek();
        }
        let mut error = syntax_near(&shown(&token.token));
        error.line = token.span.start.line as u32;
        error
    }

    fn misread(&mut self, error: ParserError) -> SqlError {
        match error {
            ParserError::RecursionLimitExceeded => SqlError::new(
                191,
                15,
                1,
                "Some part of your SQL statement is nested too deeply. Rewrite the query or break it up into smaller queries.",
            ),
            ParserError::ParserError(text) | ParserError::TokenizerError(text) => {
                let found = text.rfind("found: ").map(|at| &text[at + 7..]);
                let Some(found) = found else {
                    return self.near_here();
                };
                let (token, place) = found.rsplit_once(" at Line: ").unwrap_or((found, ""));
                if token == "EOF" {
                    return self.near_here();
                }
                let mut error = syntax_near(token.trim_matches(|c| c == '\'' || c == '"'));
                error.line = place
                    .split(',')
                    .next()
                    .and_then(|l| l.trim().parse().ok())
                    .unwrap_or_else(|| self.line());
                error
            }
        }
    }

    pub(super) fn expr(&mut self) -> Result<Expr, SqlError> {
        self.parser.parse_expr().map_err(|error| self.misread(error))
    }

    fn query(&mut self) -> Result<Box<Query>, SqlError> {
        let query = self.parser.parse_query().map_err(|error| self.misread(error))?;
        if self.take("OPTION") {
            self.skip_parentheses()?;
        }
        if self.peek_is("FOR") && self.nth_is(1, "BROWSE") {
            self.next();
            self.next();
        }
        Ok(query)
    }

    /// An identifier, quoted or not.
    fn ident(&mut self) -> Result<String, SqlError> {
        match self.peek().token {
            Token::Word(word) => {
                self.next();
                Ok(word.value)
            }
            _ => Err(self.near_here()),
        }
    }

    /// `[[database.]schema.]name`, with `database..name`; a server part is not supported.
    fn name(&mut self) -> Result<Name, SqlError> {
        let mut parts = vec![self.ident()?];
        while self.take_token(&Token::Period) {
            if self.parser.peek_token_ref().token == Token::Period {
                parts.push(String::new());
            } else {
                parts.push(self.ident()?);
            }
        }
        let mut parts = parts.into_iter().rev();
        let name = Name {
            name: parts.next().unwrap_or_default(),
            schema: parts.next().unwrap_or_default(),
            database: parts.next().unwrap_or_default(),
        };
        if parts.next().is_some() {
            return Err(unsupported("linked servers (four-part names)"));
        }
        Ok(name)
    }

    fn data_type(&mut self) -> Result<SqlType, SqlError> {
        let parsed = self.parser.parse_data_type().map_err(|error| self.misread(error))?;
        sql_type(&parsed)
    }

    fn column_list(&mut self) -> Result<Vec<String>, SqlError> {
        self.expect_token(&Token::LParen)?;
        let mut columns = Vec::new();
        loop {
            columns.push(self.ident()?);
            if !self.take("ASC") {
                self.take("DESC");
            }
            if !self.take_token(&Token::Comma) {
                break;
            }
        }
        self.expect_token(&Token::RParen)?;
        Ok(columns)
    }

    fn skip_parentheses(&mut self) -> Result<(), SqlError> {
        self.expect_token(&Token::LParen)?;
        let mut open = 1;
        while open > 0 {
            match self.next().token {
                Token::LParen => open += 1,
                Token::RParen => open -= 1,
                Token::EOF => return Err(self.near_here()),
                _ => {}
            }
        }
        Ok(())
    }

    /// The source text from `start` to the next token.
    fn text_from(&self, start: usize) -> String {
        self.text[start..self.offset().max(start)].trim().to_string()
    }

    fn parameter_list(&mut self) -> Result<Vec<ParamDef>, SqlError> {
        let mut params = Vec::new();
        while let Token::Word(word) = self.peek().token {
            if !word.value.starts_with('@') {
                break;
            }
            let name = self.ident()?;
            self.take("AS");
            let ty = self.data_type()?;
            self.take("VARYING");
            self.take("NULL");
            let default = if self.take_token(&Token::Eq) { Some(self.expr()?) } else { None };
            let output = self.take("OUTPUT") || self.take("OUT");
            self.take("READONLY");
            params.push(ParamDef { name, ty, default, output });
            if !self.take_token(&Token::Comma) {
                break;
            }
        }
        Ok(params)
    }
}

/// Our type of a type that sqlparser read.
pub(super) fn sql_type(parsed: &DataType) -> Result<SqlType, SqlError> {
    let text = parsed.to_string();
    let (name, rest) = text.split_once('(').unwrap_or((&text, ""));
    let inner = rest.split(')').next().unwrap_or("");
    let args: Vec<&str> = inner.split(',').map(str::trim).filter(|a| !a.is_empty()).collect();
    parse_type(name, &args)
}

fn shown(token: &Token) -> String {
    match token {
        Token::Word(word) => word.value.clone(),
        Token::SingleQuotedString(text) | Token::NationalStringLiteral(text) => text.clone(),
        Token::Number(text, _) => text.clone(),
        other => other.to_string(),
    }
}

fn tail_string(text: &str) -> &str {
    text.rfind('\'').map_or("", |at| text[at + 1..].trim_end_matches(['\r', '\n']))
}
