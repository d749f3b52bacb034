//! INSERT, UPDATE, DELETE and what stands before them: WITH, TOP, OUTPUT.

use sqlparser::ast::{Cte, Expr, SetExpr};
use sqlparser::tokenizer::Token;

use super::{Assignment, Body, Delete, Insert, InsertSource, OutputClause, Reader, Update};
use crate::engine::message_text::{SqlError, unsupported};

impl Reader<'_> {
    pub(super) fn with_statement(&mut self) -> Result<Body, SqlError> {
        // Find out what follows the common table expressions; a query takes them itself.
        let start = self.parser.get_current_index();
        self.next();
        let mut with = Vec::new();
        loop {
            with.push(self.parser.parse_cte().map_err(|error| self.misread(error))?);
            if !self.take_token(&Token::Comma) {
                break;
            }
        }
        match self.word_at(0).as_deref() {
            Some("INSERT") => self.insert(with),
            Some("UPDATE") => self.update(with),
            Some("DELETE") => self.delete(with),
            Some("MERGE") => Err(unsupported("MERGE")),
            _ => {
                let _ = start;
                let mut query = self.query()?;
                query.with = Some(sqlparser::ast::With {
                    with_token: sqlparser::ast::helpers::attached_token::AttachedToken::empty(),
                    recursive: true,
                    cte_tables: with,
                });
                Ok(Body::Select(query))
            }
        }
    }

    fn top(&mut self) -> Result<Option<Expr>, SqlError> {
        if !self.take("TOP") {
            return Ok(None);
        }
        let parenthesised = self.take_token(&Token::LParen);
        let count = self.expr()?;
        if parenthesised {
            self.expect_token(&Token::RParen)?;
        }
        if self.take("PERCENT") {
            return Err(unsupported("TOP … PERCENT"));
        }
        Ok(Some(count))
    }

    fn hints(&mut self) -> Result<(), SqlError> {
        if self.peek_is("WITH") && self.parser.peek_nth_token_ref(1).token == Token::LParen {
            self.next();
            self.skip_parentheses()?;
        }
        Ok(())
    }

    fn output(&mut self) -> Result<Option<OutputClause>, SqlError> {
        if !self.take("OUTPUT") {
            return Ok(None);
        }
        let mut items = Vec::new();
        loop {
            items.push(self.parser.parse_select_item().map_err(|error| self.misread(error))?);
            if !self.take_token(&Token::Comma) {
                break;
            }
        }
        let mut into = None;
        if self.take("INTO") {
            let table = self.name()?;
            let columns = if self.peek().token == Token::LParen { self.column_list()? } else { Vec::new() };
            into = Some((table, columns));
        }
        Ok(Some(OutputClause { items, into }))
    }

    pub(super) fn insert(&mut self, with: Vec<Cte>) -> Result<Body, SqlError> {
        self.next();
        if self.take("BULK") {
            return self.insert_bulk();
        }
        self.top()?;
        self.take("INTO");
        let table = self.name()?;
        self.hints()?;
        let mut columns = Vec::new();
        if self.peek().token == Token::LParen && !self.nth_is(1, "SELECT") {
            self.next();
            loop {
                // t.column is allowed and means column.
                columns.push(self.name()?.name);
                if !self.take_token(&Token::Comma) {
                    break;
                }
            }
            self.expect_token(&Token::RParen)?;
        }
        let output = self.output()?;
        let source = if self.take("VALUES") {
            let mut rows = Vec::new();
            loop {
                self.expect_token(&Token::LParen)?;
                let mut row = Vec::new();
                loop {
                    row.push(if self.take("DEFAULT") { None } else { Some(self.expr()?) });
                    if !self.take_token(&Token::Comma) {
                        break;
                    }
                }
                self.expect_token(&Token::RParen)?;
                rows.push(row);
                if !self.take_token(&Token::Comma) {
                    break;
                }
            }
            InsertSource::Values(rows)
        } else if self.take_all(&["DEFAULT", "VALUES"]) {
            InsertSource::Default
        } else if self.peek_is("EXEC") || self.peek_is("EXECUTE") {
            InsertSource::Execute(Box::new(self.statement(false)?))
        } else {
            let query = self.query()?;
            if matches!(*query.body, SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_)) {
                return Err(self.near_here());
            }
            InsertSource::Query(query)
        };
        Ok(Body::Insert(Box::new(Insert { with, table, columns, output, source })))
    }

    fn insert_bulk(&mut self) -> Result<Body, SqlError> {
        let table = self.name()?;
        let mut columns = Vec::new();
        if self.take_token(&Token::LParen) {
            loop {
                let name = self.ident()?;
                let ty = self.data_type()?;
                if self.take("COLLATE") {
                    self.ident()?;
                }
                if self.take("NOT") {
                    self.expect("NULL")?;
                } else {
                    self.take("NULL");
                }
                columns.push((name, ty));
                if !self.take_token(&Token::Comma) {
                    break;
                }
            }
            self.expect_token(&Token::RParen)?;
        }
        if self.take("WITH") {
            self.skip_parentheses()?;
        }
        Ok(Body::InsertBulk { table, columns })
    }

    pub(super) fn update(&mut self, with: Vec<Cte>) -> Result<Body, SqlError> {
        self.next();
        if self.take("STATISTICS") {
            self.name()?;
            return Ok(Body::Ignored);
        }
        let top = self.top()?;
        let table = self.name()?;
        self.hints()?;
        self.expect("SET")?;
        let mut set = Vec::new();
        loop {
            set.push(self.assignment()?);
            if !self.take_token(&Token::Comma) {
                break;
            }
        }
        let output = self.output()?;
        let (from, filter, cursor) = self.sources_and_filter()?;
        Ok(Body::Update(Box::new(Update { with, top, table, set, output, from, filter, cursor })))
    }

    fn assignment(&mut self) -> Result<Assignment, SqlError> {
        let mut variable = None;
        if let Token::Word(word) = self.peek().token
            && word.value.starts_with('@')
        {
            self.next();
            variable = Some(word.value);
            // SET @x = column = value, or SET @x = value.
            let op = self.assignment_operator()?;
            let is_column = matches!(self.peek().token, Token::Word(word) if !word.value.starts_with('@'))
                && self.parser.peek_nth_token_ref(1).token == Token::Eq;
            if op.is_some() || !is_column {
                return Ok(Assignment { variable, column: None, op, value: Some(self.expr()?) });
            }
        }
        let mut column = vec![self.ident()?];
        while self.take_token(&Token::Period) {
            column.push(self.ident()?);
        }
        let op = self.assignment_operator()?;
        let value = if self.take("DEFAULT") { None } else { Some(self.expr()?) };
        Ok(Assignment { variable, column: Some(column), op, value })
    }

    #[expect(clippy::type_complexity, reason = "three clauses that always come together")]
    fn sources_and_filter(
        &mut self,
    ) -> Result<(Vec<sqlparser::ast::TableWithJoins>, Option<Expr>, Option<String>), SqlError> {
        let mut from = Vec::new();
        if self.take("FROM") {
            loop {
                from.push(self.parser.parse_table_and_joins().map_err(|error| self.misread(error))?);
                if !self.take_token(&Token::Comma) {
                    break;
                }
            }
        }
        let mut filter = None;
        let mut cursor = None;
        if self.take("WHERE") {
            if self.take_all(&["CURRENT", "OF"]) {
                self.take("GLOBAL");
                cursor = Some(self.ident()?);
            } else {
                filter = Some(self.expr()?);
            }
        }
        if self.take("OPTION") {
            self.skip_parentheses()?;
        }
        Ok((from, filter, cursor))
    }

    pub(super) fn delete(&mut self, with: Vec<Cte>) -> Result<Body, SqlError> {
        self.next();
        let top = self.top()?;
        self.take("FROM");
        let table = self.name()?;
        self.hints()?;
        let output = self.output()?;
        let (from, filter, cursor) = self.sources_and_filter()?;
        Ok(Body::Delete(Box::new(Delete { with, top, table, output, from, filter, cursor })))
    }
}
