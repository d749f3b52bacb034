//! CREATE, ALTER and DROP.

use sqlparser::tokenizer::Token;

use super::{AlterTable, Body, ColumnDef, Constraint, CreateTable, Name, ObjectKind, Reader, Replace};
use crate::engine::message_text::{SqlError, unsupported};

impl Reader<'_> {
    pub(super) fn definition(&mut self) -> Result<Body, SqlError> {
        let start = self.offset();
        let verb = self.word_at(0).unwrap_or_default();
        self.next();
        if verb == "DROP" {
            return self.drop_objects();
        }
        let mut replace = if verb == "ALTER" { Replace::Alter } else { Replace::Create };
        if self.take("OR") {
            self.expect("ALTER")?;
            replace = Replace::Either;
        }
        let unique = self.take("UNIQUE");
        let _ = self.take("CLUSTERED") || self.take("NONCLUSTERED");
        let what = self.word_at(0).unwrap_or_default();
        self.next();
        match what.as_str() {
            "TABLE" if verb == "CREATE" => {
                let name = self.name()?;
                let mut table = self.table_body()?;
                table.name = name;
                self.skip_storage()?;
                Ok(Body::CreateTable(Box::new(table)))
            }
            "TABLE" => self.alter_table(),
            "INDEX" if verb == "CREATE" => {
                let name = self.ident()?;
                self.expect("ON")?;
                let table = self.name()?;
                let columns = self.column_list()?;
                if self.take("INCLUDE") {
                    self.column_list()?;
                }
                if self.peek_is("WHERE") {
                    return Err(unsupported("filtered indexes"));
                }
                self.skip_storage()?;
                Ok(Body::CreateIndex { name, table, columns, unique })
            }
            "INDEX" => {
                self.ident()?;
                self.expect("ON")?;
                self.name()?;
                self.ident()?;
                Ok(Body::Ignored)
            }
            "VIEW" => {
                let name = self.name()?;
                let columns =
                    if self.peek().token == Token::LParen { self.column_list()? } else { Vec::new() };
                if self.take("WITH") {
                    self.ident()?;
                }
                self.expect("AS")?;
                let from = self.offset();
                self.query()?;
                let text = self.text_from(from);
                if self.take("WITH") {
                    self.expect("CHECK")?;
                    self.expect("OPTION")?;
                }
                Ok(Body::CreateView { name, columns, text: text.trim_end_matches(';').to_string(), replace })
            }
            "PROCEDURE" | "PROC" => {
                let name = self.name()?;
                // The rest of the batch is the procedure; read it once now for its syntax errors.
                let text = self.text[start..].trim_end().to_string();
                while self.next().token != Token::EOF {}
                let first_line = self.text[..start].matches('\n').count() as u32;
                super::procedure(&text).map_err(|mut error| {
                    error.line += first_line;
                    error
                })?;
                Ok(Body::CreateProcedure { name, text, replace })
            }
            "DATABASE" if verb == "CREATE" => {
                let name = self.ident()?;
                while !matches!(self.peek().token, Token::SemiColon | Token::EOF) {
                    self.next();
                }
                Ok(Body::CreateDatabase(name))
            }
            "SCHEMA" if verb == "CREATE" => {
                let name = self.ident()?;
                if self.take("AUTHORIZATION") {
                    self.ident()?;
                }
                Ok(Body::CreateSchema(name))
            }
            "DATABASE" | "LOGIN" | "USER" | "ROLE" | "SERVER" | "STATISTICS" | "AUTHORIZATION" => {
                while !matches!(self.peek().token, Token::SemiColon | Token::EOF) {
                    self.next();
                }
                Ok(Body::Ignored)
            }
            other => Err(unsupported(format_args!("{verb} {other}"))),
        }
    }

    fn drop_objects(&mut self) -> Result<Body, SqlError> {
        let kind = match self.word_at(0).unwrap_or_default().as_str() {
            "TABLE" => ObjectKind::Table,
            "VIEW" => ObjectKind::View,
            "PROCEDURE" | "PROC" => ObjectKind::Procedure,
            "DATABASE" => ObjectKind::Database,
            "SCHEMA" => ObjectKind::Schema,
            "INDEX" => {
                self.next();
                let if_exists = self.take_all(&["IF", "EXISTS"]);
                let first = self.name()?;
                if self.take("ON") {
                    return Ok(Body::DropIndex { name: first.name, table: self.name()?, if_exists });
                }
                // The old form: table.index.
                let table = Name { database: String::new(), schema: first.database, name: first.schema };
                return Ok(Body::DropIndex { name: first.name, table, if_exists });
            }
            _ => ObjectKind::Other,
        };
        if kind == ObjectKind::Other {
            let what = self.ident()?;
            return match what.to_ascii_uppercase().as_str() {
                "LOGIN" | "USER" | "ROLE" | "STATISTICS" => {
                    while !matches!(self.peek().token, Token::SemiColon | Token::EOF) {
                        self.next();
                    }
                    Ok(Body::Ignored)
                }
                other => Err(unsupported(format_args!("DROP {other}"))),
            };
        }
        self.next();
        let if_exists = self.take_all(&["IF", "EXISTS"]);
        let mut names = vec![self.name()?];
        while self.take_token(&Token::Comma) {
            names.push(self.name()?);
        }
        Ok(Body::Drop { kind, if_exists, names })
    }

    /// `ON filegroup`, `TEXTIMAGE_ON`, `WITH (…)` after a table, index or key.
    fn skip_storage(&mut self) -> Result<(), SqlError> {
        loop {
            if self.peek_is("WITH") && self.parser.peek_nth_token_ref(1).token == Token::LParen {
                self.next();
                self.skip_parentheses()?;
            } else if self.peek_is("ON") || self.peek_is("TEXTIMAGE_ON") {
                self.next();
                self.ident()?;
            } else {
                return Ok(());
            }
        }
    }

    pub(super) fn table_body(&mut self) -> Result<CreateTable, SqlError> {
        let mut table = CreateTable {
            name: Name::default(),
            columns: Vec::new(),
            constraints: Vec::new(),
            indexes: Vec::new(),
        };
        self.expect_token(&Token::LParen)?;
        loop {
            if self.peek().token == Token::RParen {
                break;
            }
            if self.take("INDEX") {
                let name = self.ident()?;
                let unique = self.take("UNIQUE");
                let _ = self.take("CLUSTERED") || self.take("NONCLUSTERED");
                let columns = self.column_list()?;
                if unique {
                    table.constraints.push(Constraint::Key { name: Some(name), primary: false, columns });
                } else {
                    table.indexes.push((name, columns));
                }
            } else if self.starts_table_constraint() {
                let constraint = self.constraint(None)?;
                table.constraints.push(constraint);
            } else {
                let column = self.column_def(&mut table.constraints)?;
                table.columns.push(column);
            }
            if !self.take_token(&Token::Comma) {
                break;
            }
        }
        self.expect_token(&Token::RParen)?;
        Ok(table)
    }

    fn starts_table_constraint(&self) -> bool {
        ["CONSTRAINT", "CHECK"].iter().any(|w| self.peek_is(w))
            || (self.peek_is("PRIMARY") && self.nth_is(1, "KEY"))
            || (self.peek_is("FOREIGN") && self.nth_is(1, "KEY"))
            || (self.peek_is("UNIQUE") && !matches!(self.parser.peek_nth_token_ref(1).token, Token::Comma))
            || (self.peek_is("DEFAULT"))
    }

    fn column_def(&mut self, constraints: &mut Vec<Constraint>) -> Result<ColumnDef, SqlError> {
        let mut column = ColumnDef { name: self.ident()?, ..ColumnDef::default() };
        if self.take("AS") {
            let start = self.offset();
            self.expr()?;
            column.computed = Some(self.text_from(start));
            self.take("PERSISTED");
        } else if self.peek_is("TIMESTAMP") || self.peek_is("ROWVERSION") {
            self.next();
            column.ty = Some(crate::engine::types::SqlType::of(crate::engine::types::Kind::RowVersion));
        } else if matches!(self.parser.peek_token_ref().token, Token::Comma | Token::RParen)
            && column.name.eq_ignore_ascii_case("timestamp")
        {
            column.ty = Some(crate::engine::types::SqlType::of(crate::engine::types::Kind::RowVersion));
        } else {
            column.ty = Some(self.data_type()?);
        }
        loop {
            if self.take("COLLATE") {
                self.ident()?;
            } else if self.take_all(&["NOT", "NULL"]) {
                column.nullable = Some(false);
            } else if self.take("NULL") {
                column.nullable = Some(true);
            } else if self.take("IDENTITY") {
                let mut numbers = (1, 1);
                if self.take_token(&Token::LParen) {
                    numbers.0 = self.signed()?;
                    self.expect_token(&Token::Comma)?;
                    numbers.1 = self.signed()?;
                    self.expect_token(&Token::RParen)?;
                }
                column.identity = Some(numbers);
            } else if self.take("SPARSE")
                || self.take("ROWGUIDCOL")
                || self.take("PERSISTED")
                || self.take_all(&["NOT", "FOR", "REPLICATION"])
            {
            } else if ["CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "REFERENCES", "FOREIGN", "DEFAULT"]
                .iter()
                .any(|w| self.peek_is(w))
            {
                match self.constraint(Some(&column.name.clone()))? {
                    Constraint::Default { text, .. } => column.default = Some(text),
                    other => {
                        if matches!(other, Constraint::Key { primary: true, .. }) {
                            column.nullable = Some(false);
                        }
                        constraints.push(other);
                    }
                }
            } else {
                return Ok(column);
            }
        }
    }

    fn signed(&mut self) -> Result<i64, SqlError> {
        let negative = self.take_token(&Token::Minus);
        match self.next().token {
            Token::Number(digits, _) => {
                let n: i64 = digits.parse().unwrap_or(0);
                Ok(if negative { -n } else { n })
            }
            _ => Err(self.near_here()),
        }
    }

    /// A constraint of a column (whose name is given) or of a table.
    fn constraint(&mut self, column: Option<&str>) -> Result<Constraint, SqlError> {
        let name = if self.take("CONSTRAINT") { Some(self.ident()?) } else { None };
        if self.take_all(&["PRIMARY", "KEY"]) || self.peek_is("UNIQUE") {
            let primary = !self.take("UNIQUE");
            let _ = self.take("CLUSTERED") || self.take("NONCLUSTERED");
            let columns = match column {
                Some(column) if self.peek().token != Token::LParen => vec![column.to_string()],
                _ => self.column_list()?,
            };
            self.skip_storage()?;
            return Ok(Constraint::Key { name, primary, columns });
        }
        if self.take("CHECK") {
            self.take_all(&["NOT", "FOR", "REPLICATION"]);
            self.expect_token(&Token::LParen)?;
            let start = self.offset();
            self.expr()?;
            let text = self.text_from(start);
            self.expect_token(&Token::RParen)?;
            return Ok(Constraint::Check { name, text });
        }
        if self.take("DEFAULT") {
            let start = self.offset();
            // A default is a literal, a call or a parenthesised expression: never a NOT NULL that follows it.
            self.default_value()?;
            let text = self.text_from(start);
            let mut target = column.map(str::to_string).unwrap_or_default();
            if column.is_none() && self.take("FOR") {
                target = self.ident()?;
            }
            return Ok(Constraint::Default { name, column: target, text });
        }
        let columns = if self.take_all(&["FOREIGN", "KEY"]) && column.is_none() {
            self.column_list()?
        } else {
            column.map(|c| vec![c.to_string()]).unwrap_or_default()
        };
        self.expect("REFERENCES")?;
        let table = self.name()?;
        let referenced = if self.peek().token == Token::LParen { self.column_list()? } else { Vec::new() };
        let mut cascade = false;
        while self.take("ON") {
            let delete = self.take("DELETE");
            if !delete {
                self.expect("UPDATE")?;
            }
            if self.take("CASCADE") {
                cascade |= delete;
                if !delete {
                    return Err(unsupported("ON UPDATE CASCADE"));
                }
            } else if self.take("NO") {
                self.expect("ACTION")?;
            } else {
                return Err(unsupported("ON DELETE or UPDATE SET NULL and SET DEFAULT"));
            }
        }
        Ok(Constraint::Foreign { name, columns, table, referenced, cascade })
    }

    fn default_value(&mut self) -> Result<(), SqlError> {
        match self.peek().token {
            Token::LParen => self.skip_parentheses(),
            Token::Minus | Token::Plus => {
                self.next();
                self.next();
                Ok(())
            }
            Token::Word(_) => {
                self.name()?;
                if self.peek().token == Token::LParen { self.skip_parentheses() } else { Ok(()) }
            }
            Token::EOF => Err(self.near_here()),
            _ => {
                self.next();
                Ok(())
            }
        }
    }

    fn alter_table(&mut self) -> Result<Body, SqlError> {
        let table = self.name()?;
        let checked = self.take_all(&["WITH", "CHECK"]) || self.take_all(&["WITH", "NOCHECK"]);
        let change = if self.take("ADD") {
            let (mut columns, mut constraints) = (Vec::new(), Vec::new());
            loop {
                if self.starts_table_constraint() {
                    constraints.push(self.constraint(None)?);
                } else {
                    columns.push(self.column_def(&mut constraints)?);
                }
                if !self.take_token(&Token::Comma) {
                    break;
                }
            }
            AlterTable::Add { columns, constraints }
        } else if self.take("DROP") {
            let column = self.take("COLUMN");
            if !column {
                self.take("CONSTRAINT");
            }
            let if_exists = self.take_all(&["IF", "EXISTS"]);
            let mut names = vec![self.ident()?];
            while self.take_token(&Token::Comma) {
                let _ = self.take("COLUMN") || self.take("CONSTRAINT");
                names.push(self.ident()?);
            }
            if column {
                AlterTable::DropColumns { names, if_exists }
            } else {
                AlterTable::DropConstraints { names, if_exists }
            }
        } else if self.take_all(&["ALTER", "COLUMN"]) {
            AlterTable::AlterColumn(self.column_def(&mut Vec::new())?)
        } else if checked
            || self.peek_is("CHECK")
            || self.peek_is("NOCHECK")
            || self.peek_is("ENABLE")
            || self.peek_is("DISABLE")
            || self.peek_is("REBUILD")
            || self.peek_is("SET")
        {
            while !matches!(self.peek().token, Token::SemiColon | Token::EOF) {
                self.next();
            }
            AlterTable::Nothing
        } else {
            return Err(self.near_here());
        };
        Ok(Body::AlterTable { table, change })
    }
}
