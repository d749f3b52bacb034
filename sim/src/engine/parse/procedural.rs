//! Control flow, variables, options, transactions, cursors, EXECUTE: everything that is not a query or a definition.

use sqlparser::ast::Expr;
use sqlparser::tokenizer::Token;

use super::{
    Body, Declaration, Execute, ExecuteArg, FetchHow, MAX_DEPTH, ProcedureRef, Reader, Stmt, TranName,
};
use crate::engine::message_text::{SqlError, unsupported};

impl Reader<'_> {
    /// The next statement of a batch, or `None` at its end.
    pub(super) fn statement_or_end(&mut self, first: bool) -> Result<Option<Stmt>, SqlError> {
        while self.take_token(&Token::SemiColon) {}
        if self.peek().token == Token::EOF {
            return Ok(None);
        }
        self.statement(first).map(Some)
    }

    pub(super) fn statement(&mut self, first: bool) -> Result<Stmt, SqlError> {
        while self.take_token(&Token::SemiColon) {}
        let line = self.line();
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(SqlError::new(
                191,
                15,
                1,
                "Some part of your SQL statement is nested too deeply. Rewrite the query or break it up into smaller queries.",
            ));
        }
        let body = self.body(first)?;
        self.depth -= 1;
        while self.take_token(&Token::SemiColon) {}
        Ok(Stmt { line, body })
    }

    fn body(&mut self, first: bool) -> Result<Body, SqlError> {
        let Some(word) = self.word_at(0) else {
            if self.parser.peek_token_ref().token == Token::LParen {
                return Ok(Body::Select(self.query()?));
            }
            return match (first, self.peek().token) {
                (true, Token::Word(_)) => self.execute_call(),
                _ => Err(self.near_here()),
            };
        };
        match word.as_str() {
            "SELECT" => Ok(Body::Select(self.query()?)),
            "WITH" => self.with_statement(),
            "INSERT" => self.insert(Vec::new()),
            "UPDATE" => self.update(Vec::new()),
            "DELETE" => self.delete(Vec::new()),
            "MERGE" => Err(unsupported("MERGE")),
            "BEGIN" => self.begin(),
            "IF" => {
                self.next();
                let condition = self.expr()?;
                let then = Box::new(self.statement(false)?);
                let otherwise = if self.take("ELSE") { Some(Box::new(self.statement(false)?)) } else { None };
                Ok(Body::If { condition, then, otherwise })
            }
            "WHILE" => {
                self.next();
                let condition = self.expr()?;
                Ok(Body::While { condition, body: Box::new(self.statement(false)?) })
            }
            "BREAK" => self.simple(Body::Break),
            "CONTINUE" => self.simple(Body::Continue),
            "RETURN" => {
                self.next();
                let value = match self.peek().token {
                    Token::Number(..) | Token::Minus | Token::LParen => Some(self.expr()?),
                    Token::Word(word) if word.value.starts_with('@') => Some(self.expr()?),
                    _ => None,
                };
                Ok(Body::Return(value))
            }
            "GOTO" => Err(unsupported("GOTO")),
            "PRINT" => {
                self.next();
                Ok(Body::Print(self.expr()?))
            }
            "RAISERROR" => self.raiserror(),
            "THROW" => {
                self.next();
                if matches!(self.peek().token, Token::SemiColon | Token::EOF) || self.peek_is("END") {
                    return Ok(Body::Throw(None));
                }
                let number = self.expr()?;
                self.expect_token(&Token::Comma)?;
                let text = self.expr()?;
                self.expect_token(&Token::Comma)?;
                Ok(Body::Throw(Some(Box::new([number, text, self.expr()?]))))
            }
            "WAITFOR" => {
                self.next();
                let delay = self.take("DELAY");
                if !delay {
                    self.expect("TIME")?;
                }
                Ok(Body::WaitFor { delay, time: self.expr()? })
            }
            "DECLARE" => self.declare(),
            "SET" => self.set(),
            "TRUNCATE" => {
                self.next();
                self.expect("TABLE")?;
                Ok(Body::Truncate(self.name()?))
            }
            "CREATE" | "ALTER" | "DROP" => self.definition(),
            "EXEC" | "EXECUTE" => self.execute(),
            "COMMIT" => {
                self.next();
                let _ = self.take("TRANSACTION") || self.take("TRAN") || self.take("WORK");
                self.transaction_name()?;
                Ok(Body::Commit)
            }
            "ROLLBACK" => {
                self.next();
                let _ = self.take("TRANSACTION") || self.take("TRAN") || self.take("WORK");
                Ok(Body::Rollback(self.transaction_name()?))
            }
            "SAVE" => {
                self.next();
                self.word_any(&["TRANSACTION", "TRAN"])?;
                Ok(Body::Save(self.transaction_name()?))
            }
            "USE" => {
                self.next();
                Ok(Body::Use(self.ident()?))
            }
            "OPEN" => self.cursor_verb(Body::OpenCursor),
            "CLOSE" => self.cursor_verb(Body::CloseCursor),
            "DEALLOCATE" => self.cursor_verb(Body::Deallocate),
            "FETCH" => self.fetch(),
            "KILL" => {
                self.next();
                match self.next().token {
                    Token::Number(digits, _) => Ok(Body::Kill(digits.parse().unwrap_or(0))),
                    _ => Err(unsupported("KILL of anything but a number")),
                }
            }
            "REVERT" => self.simple(Body::Revert),
            "DBCC" => self.dbcc(),
            "GRANT" | "DENY" | "REVOKE" | "CHECKPOINT" | "RECONFIGURE" | "BACKUP" | "RESTORE" => {
                while !matches!(self.peek().token, Token::SemiColon | Token::EOF) {
                    self.next();
                }
                Ok(Body::Ignored)
            }
            "GO" => Err(self.near_here()),
            _ if matches!(self.parser.peek_nth_token_ref(1).token, Token::Colon) => {
                self.next();
                self.next();
                Ok(Body::Label)
            }
            _ if first => self.execute_call(),
            _ => Err(self.near_here()),
        }
    }

    fn simple(&mut self, body: Body) -> Result<Body, SqlError> {
        self.next();
        Ok(body)
    }

    fn statements_until_end(&mut self) -> Result<Vec<Stmt>, SqlError> {
        let mut statements = Vec::new();
        loop {
            while self.take_token(&Token::SemiColon) {}
            if self.take("END") {
                return Ok(statements);
            }
            if self.peek().token == Token::EOF {
                return Err(self.near_here());
            }
            statements.push(self.statement(false)?);
        }
    }

    fn begin(&mut self) -> Result<Body, SqlError> {
        self.next();
        if self.take("DISTRIBUTED") {
            return Err(unsupported("BEGIN DISTRIBUTED TRANSACTION"));
        }
        if self.take("TRANSACTION") || self.take("TRAN") {
            let name = self.transaction_name()?;
            if self.take("WITH") {
                self.expect("MARK")?;
                if matches!(self.peek().token, Token::SingleQuotedString(_)) {
                    self.next();
                }
            }
            return Ok(Body::BeginTransaction(name));
        }
        if self.take("TRY") {
            let body = self.statements_until_end()?;
            self.expect("TRY")?;
            while self.take_token(&Token::SemiColon) {}
            self.expect("BEGIN")?;
            self.expect("CATCH")?;
            let handler = self.statements_until_end()?;
            self.expect("CATCH")?;
            return Ok(Body::Try { body, handler });
        }
        let statements = self.statements_until_end()?;
        Ok(Body::Block(statements))
    }

    fn transaction_name(&mut self) -> Result<TranName, SqlError> {
        const NOT_NAMES: &[&str] = &[
            "SELECT",
            "INSERT",
            "UPDATE",
            "DELETE",
            "EXEC",
            "EXECUTE",
            "IF",
            "ELSE",
            "END",
            "SET",
            "DECLARE",
            "PRINT",
            "WITH",
            "BEGIN",
            "COMMIT",
            "ROLLBACK",
            "WHILE",
            "RETURN",
            "THROW",
            "RAISERROR",
            "CREATE",
            "DROP",
            "ALTER",
            "TRUNCATE",
            "USE",
            "WAITFOR",
            "SAVE",
            "MERGE",
            "BREAK",
            "CONTINUE",
            "OPEN",
            "CLOSE",
            "FETCH",
            "DEALLOCATE",
            "DBCC",
            "GOTO",
            "KILL",
            "REVERT",
        ];
        match self.peek().token {
            Token::Word(word) if word.value.starts_with('@') => {
                self.next();
                // IF @@TRANCOUNT > 0 ROLLBACK … @name is a variable.
                Ok(TranName::Variable(word.value))
            }
            Token::Word(word)
                if word.quote_style.is_some()
                    || !NOT_NAMES.iter().any(|n| word.value.eq_ignore_ascii_case(n)) =>
            {
                self.next();
                Ok(TranName::Name(word.value))
            }
            _ => Ok(TranName::None),
        }
    }

    fn raiserror(&mut self) -> Result<Body, SqlError> {
        self.next();
        if !self.take_token(&Token::LParen) {
            return Err(unsupported("RAISERROR without parentheses"));
        }
        let mut args = vec![self.expr()?];
        while self.take_token(&Token::Comma) {
            args.push(self.expr()?);
        }
        self.expect_token(&Token::RParen)?;
        let mut options = Vec::new();
        if self.take("WITH") {
            loop {
                options.push(self.ident()?.to_ascii_uppercase());
                if !self.take_token(&Token::Comma) {
                    break;
                }
            }
        }
        Ok(Body::RaisError { args, options })
    }

    fn declare(&mut self) -> Result<Body, SqlError> {
        self.next();
        if !matches!(self.peek().token, Token::Word(word) if word.value.starts_with('@')) {
            return self.declare_cursor();
        }
        let mut declarations = Vec::new();
        loop {
            let name = self.ident()?;
            self.take("AS");
            if self.take("TABLE") {
                let mut table = self.table_body()?;
                table.name.name = name.clone();
                declarations.push(Declaration::Table { name, table });
            } else if self.take("CURSOR") {
                declarations.push(Declaration::Cursor);
            } else {
                let ty = self.data_type()?;
                let value = if self.take_token(&Token::Eq) { Some(self.expr()?) } else { None };
                declarations.push(Declaration::Variable { name, ty, value });
            }
            if !self.take_token(&Token::Comma) {
                return Ok(Body::Declare(declarations));
            }
        }
    }

    fn declare_cursor(&mut self) -> Result<Body, SqlError> {
        let name = self.ident()?;
        let mut options = Vec::new();
        while !self.peek_is("CURSOR") {
            options.push(self.ident()?.to_ascii_uppercase());
        }
        self.next();
        while !self.peek_is("FOR") {
            options.push(self.ident()?.to_ascii_uppercase());
        }
        self.next();
        let query = self.query()?;
        if self.take("FOR") {
            if self.take("UPDATE") {
                if self.take("OF") {
                    self.ident()?;
                    while self.take_token(&Token::Comma) {
                        self.ident()?;
                    }
                }
            } else {
                self.expect("READ")?;
                self.expect("ONLY")?;
            }
        }
        Ok(Body::DeclareCursor { name, query, options })
    }

    fn cursor_verb(&mut self, make: fn(String) -> Body) -> Result<Body, SqlError> {
        self.next();
        if self.peek_is("GLOBAL") && matches!(self.parser.peek_nth_token_ref(1).token, Token::Word(_)) {
            self.next();
        }
        Ok(make(self.ident()?))
    }

    fn fetch(&mut self) -> Result<Body, SqlError> {
        self.next();
        let mut how = FetchHow::Next;
        let mut named = true;
        if self.take("PRIOR") {
            how = FetchHow::Prior;
        } else if self.take("FIRST") {
            how = FetchHow::First;
        } else if self.take("LAST") {
            how = FetchHow::Last;
        } else if self.take("ABSOLUTE") {
            how = FetchHow::Absolute(self.expr()?);
        } else if self.take("RELATIVE") {
            how = FetchHow::Relative(self.expr()?);
        } else {
            named = self.take("NEXT");
        }
        let from = self.take("FROM");
        if named && !from {
            return Err(self.near_here());
        }
        self.take("GLOBAL");
        let cursor = self.ident()?;
        let mut into = Vec::new();
        if self.take("INTO") {
            loop {
                into.push(self.ident()?);
                if !self.take_token(&Token::Comma) {
                    break;
                }
            }
        }
        Ok(Body::Fetch { how, cursor, into })
    }

    fn set(&mut self) -> Result<Body, SqlError> {
        self.next();
        if let Token::Word(word) = self.peek().token
            && word.value.starts_with('@')
        {
            self.next();
            let op = self.assignment_operator()?;
            return Ok(Body::SetVariable { name: word.value, op, value: self.expr()? });
        }
        if self.take_all(&["TRANSACTION", "ISOLATION", "LEVEL"]) {
            let mut level = self.ident()?.to_ascii_uppercase();
            if level == "READ" || level == "REPEATABLE" {
                level = format!("{level} {}", self.ident()?.to_ascii_uppercase());
            }
            return Ok(Body::SetOption { name: "TRANSACTION ISOLATION LEVEL".into(), value: vec![level] });
        }
        if self.take_all(&["STATISTICS"]) {
            self.ident()?;
            self.ident()?;
            return Ok(Body::Ignored);
        }
        if self.take("IDENTITY_INSERT") {
            let table = self.name()?;
            let on = self.ident()?;
            return Ok(Body::SetOption {
                name: "IDENTITY_INSERT".into(),
                value: vec![table.to_string(), on.to_ascii_uppercase()],
            });
        }
        let mut names = vec![self.ident()?.to_ascii_uppercase()];
        while self.take_token(&Token::Comma) {
            names.push(self.ident()?.to_ascii_uppercase());
        }
        let mut value = String::new();
        match self.next().token {
            Token::Word(word) => value = word.value,
            Token::Number(digits, _) => value = digits,
            Token::Minus => {
                if let Token::Number(digits, _) = self.next().token {
                    value = format!("-{digits}");
                }
            }
            Token::SingleQuotedString(text) | Token::NationalStringLiteral(text) => value = text,
            Token::HexStringLiteral(digits) => value = format!("0x{digits}"),
            _ => {
                self.parser.prev_token();
                return Err(self.near_here());
            }
        }
        names.push(value);
        let value = names.pop().into_iter().collect::<Vec<_>>();
        Ok(Body::SetOption { name: names.join(","), value })
    }

    /// `=`, `+=`, `-=` … : the operator before the equals sign.
    pub(super) fn assignment_operator(&mut self) -> Result<Option<char>, SqlError> {
        let op = match self.peek().token {
            Token::Plus => Some('+'),
            Token::Minus => Some('-'),
            Token::Mul => Some('*'),
            Token::Div => Some('/'),
            Token::Mod => Some('%'),
            Token::Ampersand => Some('&'),
            Token::Pipe => Some('|'),
            Token::Caret => Some('^'),
            _ => None,
        };
        if op.is_some() {
            self.next();
        }
        self.expect_token(&Token::Eq)?;
        Ok(op)
    }

    fn execute(&mut self) -> Result<Body, SqlError> {
        self.next();
        if self.take("AS") {
            if self.take("CALLER") {
                return Ok(Body::ExecuteAs(None));
            }
            self.word_any(&["USER", "LOGIN"])?;
            self.expect_token(&Token::Eq)?;
            let name = match self.next().token {
                Token::SingleQuotedString(name) | Token::NationalStringLiteral(name) => name,
                _ => return Err(unsupported("EXECUTE AS without a literal name")),
            };
            if self.take("WITH") {
                return Err(unsupported("EXECUTE AS … WITH"));
            }
            return Ok(Body::ExecuteAs(Some(name)));
        }
        if self.take_token(&Token::LParen) {
            let text = self.expr()?;
            let mut more = Vec::new();
            while self.take_token(&Token::Comma) {
                more.push(self.expr()?);
            }
            self.expect_token(&Token::RParen)?;
            return Ok(Body::ExecuteText { text, more });
        }
        self.execute_call()
    }

    /// `[@status =] procedure [args]`, the verb already read or left out.
    fn execute_call(&mut self) -> Result<Body, SqlError> {
        let mut status_into = None;
        if let Token::Word(word) = self.peek().token
            && word.value.starts_with('@')
            && self.parser.peek_nth_token_ref(1).token == Token::Eq
        {
            status_into = Some(word.value);
            self.next();
            self.next();
        }
        let procedure = match self.peek().token {
            Token::Word(word) if word.value.starts_with('@') => {
                self.next();
                ProcedureRef::Variable(word.value)
            }
            _ => ProcedureRef::Name(self.name()?),
        };
        if self.take_token(&Token::SemiColon) && matches!(self.peek().token, Token::Number(..)) {
            self.next();
        }
        let mut args = Vec::new();
        if self.starts_argument() {
            loop {
                args.push(self.argument()?);
                if !self.take_token(&Token::Comma) {
                    break;
                }
            }
        }
        if self.peek_is("WITH") && (self.nth_is(1, "RECOMPILE") || self.nth_is(1, "RESULT")) {
            self.next();
            self.next();
            if self.take("SETS") {
                self.ident()?;
            }
        }
        Ok(Body::Execute(Box::new(Execute { status_into, procedure, args })))
    }

    fn starts_argument(&self) -> bool {
        match &self.parser.peek_token_ref().token {
            Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::NationalStringLiteral(_)
            | Token::HexStringLiteral(_) => true,
            Token::Minus | Token::Plus => true,
            Token::Word(word) if word.quote_style.is_some() => true,
            Token::Word(word) if word.value.starts_with('@') => true,
            Token::Word(word) => {
                let upper = word.value.to_ascii_uppercase();
                matches!(upper.as_str(), "NULL" | "DEFAULT")
                    || !super::super::message_text::syntax_near(&word.value).text.contains("keyword")
                        && !matches!(
                            upper.as_str(),
                            "THROW" | "BREAK" | "CONTINUE" | "DBCC" | "REVERT" | "GOTO"
                        )
            }
            _ => false,
        }
    }

    fn argument(&mut self) -> Result<ExecuteArg, SqlError> {
        let mut name = None;
        if let Token::Word(word) = self.peek().token
            && word.value.starts_with('@')
            && self.parser.peek_nth_token_ref(1).token == Token::Eq
        {
            name = Some(word.value);
            self.next();
            self.next();
        }
        if self.take("DEFAULT") {
            return Ok(ExecuteArg { name, value: None, output: false });
        }
        let value = match self.peek().token {
            // A bare word is a string.
            Token::Word(word)
                if word.quote_style.is_none()
                    && !word.value.starts_with('@')
                    && !word.value.eq_ignore_ascii_case("null") =>
            {
                self.next();
                let mut text = word.value;
                while self.take_token(&Token::Period) {
                    text = format!("{text}.{}", self.ident()?);
                }
                Expr::Value(sqlparser::ast::Value::SingleQuotedString(text).into())
            }
            Token::Word(word) if word.quote_style == Some('[') => {
                self.next();
                Expr::Value(sqlparser::ast::Value::SingleQuotedString(word.value).into())
            }
            _ => self.expr()?,
        };
        let output = self.take("OUTPUT") || self.take("OUT");
        Ok(ExecuteArg { name, value: Some(value), output })
    }

    fn dbcc(&mut self) -> Result<Body, SqlError> {
        self.next();
        let command = self.ident()?.to_ascii_uppercase();
        let mut args = Vec::new();
        if self.take_token(&Token::LParen) {
            while !self.take_token(&Token::RParen) {
                match self.next().token {
                    Token::Comma => {}
                    Token::EOF => return Err(self.near_here()),
                    token => args.push(super::shown(&token)),
                }
            }
        }
        if self.take("WITH") {
            self.ident()?;
        }
        Ok(Body::Dbcc { command, args })
    }
}
