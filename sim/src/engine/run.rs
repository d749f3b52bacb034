//! Runs statements: control flow, variables, errors, TRY and CATCH.

use std::time::{Duration, Instant};

use sqlparser::ast::{Expr, Query};

use super::bind::{Binder, Bound};
use super::convert::{self, Rules};
use super::datetime;
use super::datum::Datum;
use super::emit::{Emit, Stop};
use super::message_text::{Reach, SqlError, no_database, undeclared, unsupported};
use super::parse::{Body, Declaration, FetchHow, Stmt, TranName};
use super::session::Session;
use super::types::{Kind, MAX, SqlType};
use super::wire_types::OutColumn;

/// How a statement ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Next,
    Break,
    Continue,
    Return(Option<i32>),
}

/// Deepest nesting of procedures.
const MAX_NESTING: usize = 32;

impl Session {
    /// Runs the text of a batch in its own frame.
    pub(super) fn run_text(&mut self, text: &str, emit: &mut Emit<'_>) -> Result<(), Stop> {
        let statements = self.engine.parse(text)?;
        if self.settings.parseonly && !text.to_ascii_uppercase().contains("PARSEONLY") {
            return Ok(());
        }
        self.enter_frame("");
        let result = self.run(&statements, emit);
        self.leave_frame();
        match result {
            Err(Stop::Scope) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    pub(super) fn run(&mut self, statements: &[Stmt], emit: &mut Emit<'_>) -> Result<Flow, Stop> {
        for statement in statements {
            match self.run_one(statement, emit)? {
                Flow::Next => {}
                other => return Ok(other),
            }
        }
        Ok(Flow::Next)
    }

    fn run_one(&mut self, statement: &Stmt, emit: &mut Emit<'_>) -> Result<Flow, Stop> {
        if self.cancel.is_cancelled() {
            return Err(Stop::Cancelled);
        }
        self.line = statement.line;
        let result = self.execute(&statement.body, emit);
        match result {
            Err(Stop::Error(mut error)) => {
                if error.line == 0 {
                    error.line = statement.line;
                }
                if error.procedure.is_empty() {
                    error.procedure = self.frames.last().map(|f| f.procedure.clone()).unwrap_or_default();
                }
                self.error = error.number;
                self.row_count = 0;
                if self.try_depth > 0 {
                    return Err(Stop::Error(error));
                }
                self.report(*error, emit, true)?;
                Ok(Flow::Next)
            }
            Ok(flow) => {
                if !matches!(
                    statement.body,
                    Body::Block(_)
                        | Body::If { .. }
                        | Body::While { .. }
                        | Body::Try { .. }
                        | Body::RaisError { .. }
                        | Body::Execute(_)
                ) {
                    self.error = 0;
                }
                if statement.body.resets_row_count() {
                    self.row_count = 0;
                }
                Ok(flow)
            }
            other => other,
        }
    }

    /// Tells the client of an error that no CATCH takes, and ends what it ends.
    pub(super) fn report(
        &mut self,
        error: SqlError,
        emit: &mut Emit<'_>,
        in_batch: bool,
    ) -> Result<(), Stop> {
        emit.error(&error)?;
        let mut reach = error.reach;
        if self.settings.xact_abort
            && error.number < 50_000
            && reach == Reach::Statement
            && !matches!(error.number, 266 | 2812 | 3902 | 3903 | 911 | 201)
        {
            reach = Reach::Transaction;
        }
        if error.terminates_statement() && reach == Reach::Statement {
            let mut info = SqlError::new(3621, 0, 0, "The statement has been terminated.");
            info.line = error.line;
            info.procedure.clone_from(&error.procedure);
            emit.message(&info, false)?;
        }
        if reach == Reach::Transaction || self.settings.xact_abort && reach != Reach::Statement {
            self.roll_back_all(emit)?;
        }
        emit.done(0xFD, None, true)?;
        match reach {
            Reach::Statement => Ok(()),
            Reach::Scope if in_batch => Err(Stop::Scope),
            _ => Err(Stop::Batch),
        }
    }

    fn execute(&mut self, body: &Body, emit: &mut Emit<'_>) -> Result<Flow, Stop> {
        if self.settings.noexec && !matches!(body, Body::SetOption { .. }) {
            return Ok(Flow::Next);
        }
        if self.settings.fmtonly
            && matches!(
                body,
                Body::Insert(_)
                    | Body::Update(_)
                    | Body::Delete(_)
                    | Body::Truncate(_)
                    | Body::CreateTable(_)
                    | Body::AlterTable { .. }
                    | Body::Drop { .. }
                    | Body::WaitFor { .. }
            )
        {
            // Only the shape of results is asked for.
            return Ok(Flow::Next);
        }
        match body {
            Body::Block(statements) => return self.run(statements, emit),
            Body::If { condition, then, otherwise } => {
                return if self.is_true(condition)? {
                    self.run_one(then, emit)
                } else if let Some(otherwise) = otherwise {
                    self.run_one(otherwise, emit)
                } else {
                    Ok(Flow::Next)
                };
            }
            Body::While { condition, body } => {
                while self.is_true(condition)? {
                    if self.cancel.is_cancelled() {
                        return Err(Stop::Cancelled);
                    }
                    match self.run_one(body, emit)? {
                        Flow::Break => break,
                        Flow::Return(status) => return Ok(Flow::Return(status)),
                        Flow::Next | Flow::Continue => {}
                    }
                }
            }
            Body::Break => return Ok(Flow::Break),
            Body::Continue => return Ok(Flow::Continue),
            Body::Return(value) => {
                let status = match value {
                    Some(value) => Some(self.number(value)?.unwrap_or(0) as i32),
                    None => None,
                };
                return Ok(Flow::Return(status));
            }
            Body::Label | Body::Ignored => {}
            Body::Print(value) => {
                let (ty, value) = self.value(value)?;
                let text = convert::cast(value, ty, SqlType::nvarchar(4000), Rules::CAST)?;
                let mut info = SqlError::new(0, 0, 1, text.as_str().filter(|t| !t.is_empty()).unwrap_or(" "));
                info.line = self.line;
                info.procedure = self.frames.last().map(|f| f.procedure.clone()).unwrap_or_default();
                emit.message(&info, false)?;
            }
            Body::RaisError { args, options } => self.raise_error(args, options, emit)?,
            Body::Throw(values) => return self.throw(values.as_deref()),
            Body::Try { body, handler } => return self.try_catch(body, handler, emit),
            Body::WaitFor { delay, time } => self.wait_for(*delay, time)?,
            Body::Declare(declarations) => {
                for declaration in declarations {
                    match declaration {
                        Declaration::Variable { name, ty, value } => {
                            let value = match value {
                                Some(value) => self.value_as(value, *ty)?,
                                None => Datum::Null,
                            };
                            self.declare(name, *ty, value);
                        }
                        Declaration::Table { name, table } => self.declare_table(name, table)?,
                        Declaration::Cursor => return Err(unsupported("cursor variables").into()),
                    }
                }
            }
            Body::SetVariable { name, op, value } => {
                let (own, ty) = match self.variable(name) {
                    Some(variable) => (variable.value.clone(), variable.ty),
                    None => return Err(undeclared(name).into()),
                };
                let new = match op {
                    None => self.value_as(value, ty)?,
                    Some(op) => {
                        let _ = own;
                        let combined = combined(name, *op, value);
                        self.value_as(&combined, ty)?
                    }
                };
                self.set_variable(name, new);
                self.row_count = 1;
            }
            Body::SetOption { name, value } => self.set_option(name, value, emit)?,
            Body::Select(query) => self.select(query, emit)?,
            Body::Insert(insert) => self.insert(insert, emit)?,
            Body::Update(update) => self.update(update, emit)?,
            Body::Delete(delete) => self.delete(delete, emit)?,
            Body::Truncate(name) => self.truncate(name, emit)?,
            Body::CreateTable(table) => self.create_table(table, emit)?,
            Body::AlterTable { table, change } => self.alter_table(table, change, emit)?,
            Body::Drop { kind, if_exists, names } => self.drop_objects(*kind, *if_exists, names, emit)?,
            Body::CreateIndex { name, table, columns, unique } => {
                self.create_index(name, table, columns, *unique, emit)?
            }
            Body::DropIndex { name, table, if_exists } => self.drop_index(name, table, *if_exists, emit)?,
            Body::CreateView { name, columns, text, replace } => {
                self.create_view(name, columns, text, *replace, emit)?
            }
            Body::CreateProcedure { name, text, replace } => {
                self.create_procedure(name, text, *replace, emit)?
            }
            Body::CreateDatabase(name) => self.create_database(name)?,
            Body::CreateSchema(name) => self.create_schema(name)?,
            Body::Execute(call) => return self.execute_call(call, emit).map(|()| Flow::Next),
            Body::ExecuteText { text, more } => {
                let mut whole = String::new();
                for part in std::iter::once(text).chain(more) {
                    whole.push_str(self.value_as(part, SqlType::nvarchar(MAX))?.as_str().unwrap_or(""));
                }
                return self.run_inner(&whole, Vec::new(), emit).map(|_| Flow::Next);
            }
            Body::BeginTransaction(name) => {
                let name = self.transaction_name(name)?;
                self.begin_transaction(&name, emit)?;
                self.done(emit, 0xD4, None)?;
            }
            Body::Commit => {
                self.commit_transaction(emit)?;
                self.done(emit, 0xD5, None)?;
            }
            Body::Rollback(name) => {
                let name = self.transaction_name(name)?;
                self.rollback_transaction(&name, emit)?;
                self.done(emit, 0xD2, None)?;
            }
            Body::Save(name) => {
                let name = self.transaction_name(name)?;
                self.save_transaction(&name)?;
                self.done(emit, 0xD3, None)?;
            }
            Body::Use(name) => self.use_database(name, emit)?,
            Body::DeclareCursor { name, query, options } => self.declare_cursor(name, query, options)?,
            Body::OpenCursor(name) => self.open_cursor(name)?,
            Body::CloseCursor(name) => self.close_cursor(name)?,
            Body::Deallocate(name) => self.deallocate(name)?,
            Body::Fetch { how, cursor, into } => self.fetch(how, cursor, into, emit)?,
            Body::Kill(spid) => self.kill(*spid)?,
            Body::ExecuteAs(name) => {
                if let Some(name) = name {
                    self.security.push(name.clone());
                }
            }
            Body::Revert => {
                self.security.pop();
            }
            Body::Dbcc { command, args } => self.dbcc(command, args, emit)?,
            Body::InsertBulk { table, columns } => self.insert_bulk(table, columns)?,
        }
        Ok(Flow::Next)
    }

    /// The end of a statement, unless NOCOUNT keeps quiet about it.
    pub(super) fn done(&mut self, emit: &mut Emit<'_>, command: u16, rows: Option<i64>) -> Result<(), Stop> {
        if let Some(rows) = rows {
            self.row_count = rows;
        }
        if self.settings.nocount {
            return Ok(());
        }
        emit.done(command, rows, false)
    }

    fn transaction_name(&mut self, name: &TranName) -> Result<String, Stop> {
        Ok(match name {
            TranName::None => String::new(),
            TranName::Name(name) => name.clone(),
            TranName::Variable(name) => {
                let variable = self.variable(name).ok_or_else(|| undeclared(name))?;
                variable.value.as_str().unwrap_or("").to_string()
            }
        })
    }

    /// Evaluates an expression.
    pub(super) fn value(&self, expr: &Expr) -> Result<(SqlType, Datum), Stop> {
        let (sql, ty, params) = Binder::new(self).lone_expr(expr)?;
        Ok((ty, self.single(&sql, &params, ty)?))
    }

    fn single(&self, sql: &str, params: &[rusqlite::types::Value], ty: SqlType) -> Result<Datum, Stop> {
        let run = || -> rusqlite::Result<Datum> {
            let mut statement = self.connection.prepare_cached(sql)?;
            let wanted = statement.parameter_count();
            for (at, value) in params.iter().take(wanted).enumerate() {
                statement.raw_bind_parameter(at + 1, value)?;
            }
            let mut rows = statement.raw_query();
            match rows.next()? {
                Some(row) => Ok(Datum::from_lite(row.get_ref(0)?, ty)),
                None => Ok(Datum::Null),
            }
        };
        run().map_err(|error| self.stop_for(&error))
    }

    /// Evaluates an expression as a type, as an assignment to a variable does.
    pub(super) fn value_as(&self, expr: &Expr, ty: SqlType) -> Result<Datum, Stop> {
        let (from, value) = self.value(expr)?;
        self.assign(value, from, ty)
    }

    pub(super) fn assign(&self, value: Datum, from: SqlType, ty: SqlType) -> Result<Datum, Stop> {
        let order = self.functions.date_order();
        Ok(convert::cast(value, from, ty, Rules { date_order: &order, ..Rules::CAST })?)
    }

    pub(super) fn number(&self, expr: &Expr) -> Result<Option<i64>, Stop> {
        Ok(self.value_as(expr, SqlType::BIGINT)?.as_i64())
    }

    fn is_true(&self, condition: &Expr) -> Result<bool, Stop> {
        let (sql, params) = Binder::new(self).lone_condition(condition)?;
        Ok(self.single(&sql, &params, SqlType::INT)?.as_i64() == Some(1))
    }

    fn raise_error(&mut self, args: &[Expr], options: &[String], emit: &mut Emit<'_>) -> Result<(), Stop> {
        let mut values = Vec::new();
        for arg in args {
            values.push(self.value(arg)?);
        }
        let class = values.get(1).and_then(|v| v.1.as_i64()).unwrap_or(16).clamp(0, 25) as u8;
        let state = values.get(2).and_then(|v| v.1.as_i64()).unwrap_or(1).clamp(0, 255) as u8;
        let (number, format) = match values.first() {
            Some((_, Datum::Int(number))) => (
                *number as i32,
                format!(
                    "Error {number}, severity {class}, state {state} was raised, but no message with that error number was found in sys.messages."
                ),
            ),
            Some((_, Datum::Str(text))) => (50_000, text.clone()),
            _ => (50_000, String::new()),
        };
        let rest: Vec<(SqlType, Datum)> = values.into_iter().skip(3).collect();
        let text = raise_text(&format, &rest);
        let mut error = SqlError::new(number, class, state, text);
        error.line = self.line;
        error.procedure = self.frames.last().map(|f| f.procedure.clone()).unwrap_or_default();
        if class > 18 && !options.iter().any(|o| o == "LOG") {
            return Err(SqlError::new(2754, 16, 1, "Error severity levels greater than 18 can only be specified by members of the sysadmin role, using the WITH LOG option.").into());
        }
        if class <= 10 {
            self.error = if options.iter().any(|o| o == "SETERROR") { number } else { 0 };
            // SQL Server sends severity 10 as 0, for old clients that take 10 for an error.
            error.class = if class == 10 { 0 } else { class };
            return emit.message(&error, false);
        }
        self.error = number;
        if self.try_depth > 0 && class < 20 {
            return Err(error.into());
        }
        emit.error(&error)?;
        emit.done(0xFD, None, true)?;
        if class >= 20 {
            return Err(Stop::Batch);
        }
        Ok(())
    }

    fn throw(&mut self, values: Option<&[Expr; 3]>) -> Result<Flow, Stop> {
        let error = match values {
            None => match self.caught.last() {
                Some(caught) => caught.clone().reaching(Reach::Batch),
                None => return Err(SqlError::new(10704, 15, 1, "To rethrow an error, a THROW statement must be used inside a CATCH block. Insert the THROW statement inside a CATCH block, or add error parameters to the THROW statement.").into()),
            },
            Some([number, text, state]) => {
                let number = self.number(number)?.unwrap_or(0);
                if !(50_000..=i64::from(i32::MAX)).contains(&number) {
                    return Err(SqlError::new(35100, 16, 10, format!("Error number {number} in the THROW statement is outside the valid range. Specify an error number in the valid range of 50000 to 2147483647.")).into());
                }
                let text = self.value_as(text, SqlType::nvarchar(2048))?;
                let state = self.number(state)?.unwrap_or(1).clamp(0, 255) as u8;
                SqlError::new(number as i32, 16, state, text.as_str().unwrap_or("")).reaching(Reach::Batch)
            }
        };
        Err(error.into())
    }

    fn try_catch(&mut self, body: &[Stmt], handler: &[Stmt], emit: &mut Emit<'_>) -> Result<Flow, Stop> {
        let frames = self.frames.len();
        let depth = emit.depth;
        self.try_depth += 1;
        let result = self.run(body, emit);
        self.try_depth -= 1;
        let error = match result {
            Err(Stop::Error(error)) if error.class < 20 => error,
            other => return other,
        };
        while self.frames.len() > frames {
            self.leave_frame();
        }
        emit.depth = depth;
        if self.transaction.count > 0 && (error.reach == Reach::Transaction || self.settings.xact_abort) {
            self.transaction.doomed = true;
        }
        self.error = error.number;
        self.caught.push(*error);
        // An error of the handler is not its own: a TRY around this one may catch it.
        let result = self.run(handler, emit);
        self.caught.pop();
        result
    }

    fn wait_for(&mut self, delay: bool, time: &Expr) -> Result<(), Stop> {
        let (ty, value) = self.value(time)?;
        let bad = || SqlError::new(148, 15, 1, "Incorrect time syntax in time string used with WAITFOR.");
        let ticks = match &value {
            Datum::Str(text) => datetime::parse(text, "mdy").map(|p| p.time).ok_or_else(bad)?,
            other => other.ticks(ty).map(|t| t.rem_euclid(datetime::DAY)).ok_or_else(bad)?,
        };
        let wait = if delay {
            ticks
        } else {
            (ticks - datetime::utc_now().rem_euclid(datetime::DAY)).rem_euclid(datetime::DAY)
        };
        let until = Instant::now() + Duration::from_nanos(wait as u64 * 100);
        if self.cancel.wait_until(until) { Err(Stop::Cancelled) } else { Ok(()) }
    }

    fn use_database(&mut self, name: &str, emit: &mut Emit<'_>) -> Result<(), Stop> {
        let new = self.engine.database(name).ok_or_else(|| no_database(name))?;
        let old = std::mem::replace(&mut self.database, new.clone());
        emit.env_change(&tds::env_change::EnvChange::Database { new: new.clone(), old })?;
        let mut info = SqlError::new(5701, 0, 1, format!("Changed database context to '{new}'."));
        info.line = self.line;
        emit.message(&info, false)
    }

    /// Runs a SELECT statement.
    fn select(&mut self, query: &Query, emit: &mut Emit<'_>) -> Result<(), Stop> {
        let bound = Binder::new(self).select(query)?;
        let touches = bound.sql.contains(" FROM ");
        if touches {
            self.begin_implicitly(emit)?;
        }
        if let Some(target) = &bound.into {
            return self.select_into(target, &bound, emit);
        }
        if let Some(names) = &bound.assigns {
            return self.select_assign(names, &bound, emit);
        }
        if let Some(fold) = &bound.fold {
            return self.select_folded(fold, &bound, emit);
        }
        emit.columns(&bound.columns)?;
        emit.order(&bound.order)?;
        if self.settings.fmtonly {
            return emit.done(0xC1, Some(0), false);
        }
        let limit = self.settings.rowcount;
        let mut count = 0;
        let text_size = self.settings.textsize;
        let columns = &bound.columns;
        let cancel = self.cancel.clone();
        self.each_row(&bound, &mut |row| {
            if cancel.is_cancelled() {
                return Err(Stop::Cancelled);
            }
            if text_size < 2_147_483_647 {
                cut_long(columns, row, text_size);
            }
            emit.row(columns, row)?;
            count += 1;
            Ok(limit == 0 || count < limit)
        })?;
        self.row_count = count;
        let shown = (!self.settings.nocount).then_some(count);
        emit.done(0xC1, shown, false)
    }

    /// Gives every row of a bound query to `take` until it answers false.
    pub(super) fn each_row(
        &self,
        bound: &Bound,
        take: &mut dyn FnMut(&mut Vec<Datum>) -> Result<bool, Stop>,
    ) -> Result<(), Stop> {
        let mut statement = self.connection.prepare_cached(&bound.sql).map_err(|e| self.stop_for(&e))?;
        let wanted = statement.parameter_count();
        for (at, value) in bound.params.iter().take(wanted).enumerate() {
            statement.raw_bind_parameter(at + 1, value).map_err(|e| self.stop_for(&e))?;
        }
        let mut rows = statement.raw_query();
        let mut values = Vec::with_capacity(bound.columns.len());
        loop {
            match rows.next() {
                Err(error) => return Err(self.stop_for(&error)),
                Ok(None) => return Ok(()),
                Ok(Some(row)) => {
                    values.clear();
                    for (at, column) in bound.columns.iter().enumerate() {
                        let raw = row.get_ref(at).map_err(|e| self.stop_for(&e))?;
                        values.push(Datum::from_lite(raw, column.ty));
                    }
                    if !take(&mut values)? {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn select_assign(&mut self, names: &[String], bound: &Bound, emit: &mut Emit<'_>) -> Result<(), Stop> {
        if !bound.running.is_empty() {
            let slots = bound
                .running
                .iter()
                .map(|n| self.variable(n).map_or(rusqlite::types::Value::Null, |v| v.value.to_lite()))
                .collect();
            *super::server::lock(&self.functions.variables) = slots;
        }
        let types: Vec<SqlType> =
            names.iter().map(|n| self.variable(n).map_or(SqlType::INT, |v| v.ty)).collect();
        let mut last: Option<Vec<Datum>> = None;
        let mut count = 0;
        let mut typed = Bound {
            columns: Vec::new(),
            sql: bound.sql.clone(),
            params: bound.params.clone(),
            ..Bound::default()
        };
        typed.columns = types.iter().map(|ty| OutColumn::new("", *ty)).collect();
        self.each_row(&typed, &mut |row| {
            count += 1;
            last = Some(std::mem::take(row));
            Ok(true)
        })?;
        if let Some(row) = last {
            for (name, value) in names.iter().zip(row) {
                self.set_variable(name, value);
            }
        }
        self.row_count = count;
        self.done(emit, 0xC1, Some(count))
    }

    fn select_folded(
        &mut self,
        fold: &super::bind::Fold,
        bound: &Bound,
        emit: &mut Emit<'_>,
    ) -> Result<(), Stop> {
        let super::bind::Fold::Json { array, nulls, root } = fold;
        let mut parts = Vec::new();
        self.each_row(bound, &mut |row| {
            let mut fields = Vec::new();
            for (column, value) in bound.columns.iter().zip(row.iter()) {
                if value.is_null() && !nulls {
                    continue;
                }
                let shown = match value {
                    Datum::Null => "null".to_string(),
                    Datum::Int(n) if column.ty.kind == Kind::Bit => (*n != 0).to_string(),
                    value => {
                        let text = convert::to_string(
                            value,
                            column.ty,
                            SqlType::nvarchar(MAX),
                            Rules { style: 126, ..Rules::CAST },
                        )?;
                        if column.ty.is_number() { text } else { json_string(&text) }
                    }
                };
                fields.push(format!("{}:{shown}", json_string(&column.name)));
            }
            parts.push(format!("{{{}}}", fields.join(",")));
            Ok(true)
        })?;
        let mut text = parts.join(",");
        if *array {
            text = format!("[{text}]");
        }
        if let Some(root) = root {
            text = format!("{{{}:{text}}}", json_string(root));
        }
        let columns = [OutColumn::new("JSON_F52E2B61-18A1-11d1-B105-00805F49916B", SqlType::of(Kind::NText))];
        emit.columns(&columns)?;
        if !parts.is_empty() {
            emit.row(&columns, &[Datum::Str(text)])?;
        }
        let count = i64::from(!parts.is_empty());
        self.done(emit, 0xC1, Some(count))
    }

    /// Runs text in a scope of its own, as sp_executesql and EXEC('…') do: variables, SET options, USE and temporary
    /// tables end with it.
    pub(super) fn run_inner(
        &mut self,
        text: &str,
        variables: Vec<(String, SqlType, Datum)>,
        emit: &mut Emit<'_>,
    ) -> Result<Vec<(String, SqlType, Datum)>, Stop> {
        let statements = self.engine.parse(text)?;
        let (_, values) = self.scoped("", &statements, variables, emit)?;
        Ok(values)
    }

    /// Runs statements in a procedure's scope; gives the status and the variables' last values.
    #[expect(clippy::type_complexity, reason = "name, type and value of each variable")]
    pub(super) fn scoped(
        &mut self,
        procedure: &str,
        statements: &[Stmt],
        variables: Vec<(String, SqlType, Datum)>,
        emit: &mut Emit<'_>,
    ) -> Result<(Option<i32>, Vec<(String, SqlType, Datum)>), Stop> {
        if self.frames.len() > MAX_NESTING {
            return Err(SqlError::new(
                217,
                16,
                1,
                "Maximum stored procedure, function, trigger, or view nesting level exceeded (limit 32).",
            )
            .into());
        }
        let settings = self.settings.clone();
        let database = self.database.clone();
        let isolation = self.isolation;
        let transactions = self.transaction.count;
        let line = self.line;
        self.enter_frame(procedure);
        self.frame().is_called = true;
        for (name, ty, value) in &variables {
            self.declare(name, *ty, value.clone());
        }
        emit.depth += 1;
        let result = self.run(statements, emit);
        emit.depth = emit.depth.saturating_sub(1);
        let values = variables
            .into_iter()
            .map(|(name, ty, old)| {
                let value = self.variable(&name).map_or(old, |v| v.value.clone());
                (name, ty, value)
            })
            .collect();
        self.leave_frame();
        self.line = line;
        let options = super::settings::Settings { rowcount: settings.rowcount, ..settings };
        let language = options.language.clone();
        let inner = self.settings.language.clone();
        if self.settings != options {
            self.settings = options;
            self.settings_changed();
        }
        self.isolation = isolation;
        if inner != language {
            // Whoever wants to recover the session knows its language by ENVCHANGE alone ([MS-TDS] 2.2.6.4).
            emit.env_change(&tds::env_change::EnvChange::Language { new: language, old: inner })?;
        }
        if self.database != database {
            let old = std::mem::replace(&mut self.database, database.clone());
            emit.env_change(&tds::env_change::EnvChange::Database { new: database, old })?;
        }
        let status = match result {
            Ok(Flow::Return(status)) => status,
            Ok(_) => None,
            // The error was reported; the caller goes on with its next statement.
            Err(Stop::Scope) if self.frames.len() > 1 || !procedure.is_empty() => Some(-6),
            Err(other) => return Err(other),
        };
        if self.transaction.count != transactions {
            let error = SqlError::new(
                266,
                16,
                2,
                format!(
                    "Transaction count after EXECUTE indicates a mismatching number of BEGIN and COMMIT statements. Previous count = {transactions}, current count = {}.",
                    self.transaction.count
                ),
            );
            if !procedure.is_empty() {
                let mut error = error;
                error.line = self.line;
                error.procedure = procedure.to_string();
                if self.try_depth > 0 {
                    return Err(error.into());
                }
                emit.error(&error)?;
            }
        }
        Ok((status, values))
    }

    fn declare_cursor(&mut self, name: &str, query: &Query, options: &[String]) -> Result<(), Stop> {
        if self.cursors.contains_key(&name.to_ascii_lowercase()) {
            return Err(SqlError::new(
                16915,
                16,
                1,
                format!("A cursor with the name '{name}' already exists."),
            )
            .into());
        }
        let scroll = options.iter().any(|o| matches!(o.as_str(), "SCROLL" | "STATIC" | "KEYSET" | "DYNAMIC"));
        let cursor =
            super::cursor::Cursor { query: Some(Box::new(query.clone())), scroll, ..Default::default() };
        let key = name.to_ascii_lowercase();
        if options.iter().any(|o| o == "LOCAL") {
            self.frame().local_cursors.insert(key.clone(), key.clone());
        }
        self.cursors.insert(key, cursor);
        Ok(())
    }

    fn no_cursor(name: &str) -> SqlError {
        SqlError::new(16916, 16, 1, format!("A cursor with the name '{name}' does not exist."))
    }

    fn open_cursor(&mut self, name: &str) -> Result<(), Stop> {
        let key = name.to_ascii_lowercase();
        let cursor = self.cursors.get(&key).ok_or_else(|| Self::no_cursor(name))?;
        if cursor.rows.is_some() {
            return Err(SqlError::new(16905, 16, 1, "The cursor is already open.").into());
        }
        let Some(query) = cursor.query.clone() else { return Err(Self::no_cursor(name).into()) };
        let (columns, rows) = self.all_rows(&query)?;
        self.cursor_rows = rows.len() as i64;
        if let Some(cursor) = self.cursors.get_mut(&key) {
            cursor.columns = columns;
            cursor.rows = Some(rows);
            cursor.position = 0;
        }
        Ok(())
    }

    /// Runs a query and keeps its rows.
    pub(super) fn all_rows(&mut self, query: &Query) -> Result<(Vec<OutColumn>, Vec<Vec<Datum>>), Stop> {
        let bound = Binder::new(self).select(query)?;
        let rows = self.collect(&bound)?;
        Ok((bound.columns, rows))
    }

    pub(super) fn collect(&self, bound: &Bound) -> Result<Vec<Vec<Datum>>, Stop> {
        let mut rows = Vec::new();
        self.each_row(bound, &mut |row| {
            rows.push(std::mem::take(row));
            if rows.len() > 5_000_000 {
                return Err(SqlError::new(
                    701,
                    17,
                    1,
                    "There is insufficient system memory in resource pool 'default' to run this query.",
                )
                .into());
            }
            Ok(true)
        })?;
        Ok(rows)
    }

    fn close_cursor(&mut self, name: &str) -> Result<(), Stop> {
        let cursor = self.cursors.get_mut(&name.to_ascii_lowercase()).ok_or_else(|| Self::no_cursor(name))?;
        if cursor.rows.is_none() {
            return Err(SqlError::new(16917, 16, 1, "Cursor is not open.").into());
        }
        cursor.close();
        Ok(())
    }

    fn deallocate(&mut self, name: &str) -> Result<(), Stop> {
        match self.cursors.remove(&name.to_ascii_lowercase()) {
            Some(_) => Ok(()),
            None => Err(Self::no_cursor(name).into()),
        }
    }

    fn fetch(
        &mut self,
        how: &FetchHow,
        name: &str,
        into: &[String],
        emit: &mut Emit<'_>,
    ) -> Result<(), Stop> {
        self.begin_implicitly(emit)?;
        let amount = match how {
            FetchHow::Absolute(n) | FetchHow::Relative(n) => self.number(n)?.unwrap_or(0),
            _ => 0,
        };
        let cursor = self.cursors.get_mut(&name.to_ascii_lowercase()).ok_or_else(|| Self::no_cursor(name))?;
        if cursor.rows.is_none() {
            return Err(SqlError::new(16917, 16, 2, "Cursor is not open.").into());
        }
        if !cursor.scroll && !matches!(how, FetchHow::Next) {
            return Err(SqlError::new(
                16911,
                16,
                1,
                format!(
                    "fetch: The fetch type {} cannot be used with forward only cursors.",
                    match how {
                        FetchHow::Prior => "prior",
                        FetchHow::First => "first",
                        FetchHow::Last => "last",
                        FetchHow::Absolute(_) => "absolute",
                        _ => "relative",
                    }
                ),
            )
            .into());
        }
        let row = cursor.fetch(how, amount);
        let columns = cursor.columns.clone();
        self.fetch_status = if row.is_some() { 0 } else { -1 };
        let count = i64::from(row.is_some());
        if into.is_empty() {
            emit.columns(&columns)?;
            if let Some(row) = &row {
                emit.row(&columns, row)?;
            }
            self.row_count = count;
            return emit.done(0xC1, Some(count), false);
        }
        if into.len() != columns.len() {
            return Err(SqlError::new(16924, 16, 1, "Cursorfetch: The number of variables declared in the INTO list must match that of selected columns.").into());
        }
        if let Some(row) = row {
            for ((name, value), column) in into.iter().zip(row).zip(&columns) {
                let ty = self.variable(name).ok_or_else(|| undeclared(name))?.ty;
                let value = self.assign(value, column.ty, ty)?;
                self.set_variable(name, value);
            }
        }
        self.row_count = count;
        Ok(())
    }

    fn kill(&mut self, spid: i64) -> Result<(), Stop> {
        if spid == i64::from(self.spid) {
            return Err(SqlError::new(6104, 16, 1, "Cannot use KILL to kill your own process.").into());
        }
        let mut sessions = super::server::lock(&self.engine.sessions);
        let Some(listed) = u16::try_from(spid).ok().and_then(|spid| sessions.get_mut(&spid)) else {
            return Err(SqlError::new(
                6106,
                16,
                2,
                format!("Process ID {spid} is not an active process ID."),
            )
            .into());
        };
        listed.killed = true;
        listed.cancel.kill();
        let told = listed.options.on_kill.clone();
        drop(sessions);
        if let Some(told) = told {
            told();
        }
        Ok(())
    }
}

fn combined(name: &str, op: char, value: &Expr) -> Expr {
    use sqlparser::ast::BinaryOperator as B;
    let op = match op {
        '+' => B::Plus,
        '-' => B::Minus,
        '*' => B::Multiply,
        '/' => B::Divide,
        '%' => B::Modulo,
        '&' => B::BitwiseAnd,
        '|' => B::BitwiseOr,
        _ => B::BitwiseXor,
    };
    Expr::BinaryOp {
        left: Box::new(Expr::Identifier(sqlparser::ast::Ident::new(name))),
        op,
        right: Box::new(Expr::Nested(Box::new(value.clone()))),
    }
}

/// SET TEXTSIZE cuts values of `(max)` and old large types.
fn cut_long(columns: &[OutColumn], row: &mut [Datum], limit: i64) {
    if limit <= 0 {
        return;
    }
    for (column, value) in columns.iter().zip(row) {
        if column.ty.len != MAX && !matches!(column.ty.kind, Kind::Text | Kind::NText | Kind::Image) {
            continue;
        }
        match value {
            Datum::Str(text) => {
                let chars = if column.ty.is_unicode() { limit / 2 } else { limit } as usize;
                if text.len() > chars {
                    *text = text.chars().take(chars).collect();
                }
            }
            Datum::Bytes(bytes) => bytes.truncate(limit as usize),
            _ => {}
        }
    }
}

fn json_string(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default().replace('/', "\\/")
}

/// RAISERROR's printf: %s %d %i %u %x %o %%, with width.
fn raise_text(format: &str, args: &[(SqlType, Datum)]) -> String {
    let mut out = String::new();
    let mut args = args.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut spec = String::new();
        while let Some(next) = chars.peek().copied() {
            chars.next();
            spec.push(next);
            if next.is_ascii_alphabetic() && next != 'l' && next != 'h' || next == '%' {
                break;
            }
        }
        let kind = spec.pop().unwrap_or('%');
        if kind == '%' {
            out.push('%');
            continue;
        }
        let value = args.next();
        let number = value.and_then(|v| v.1.as_i64()).unwrap_or(0);
        let shown = match kind {
            'x' => format!("{:x}", number as u32),
            'X' => format!("{:X}", number as u32),
            'o' => format!("{:o}", number as u32),
            'u' => format!("{}", number as u32),
            's' => match value {
                Some((_, Datum::Null)) | None => "(null)".into(),
                Some((ty, v)) => {
                    convert::to_string(v, *ty, SqlType::nvarchar(2047), Rules::CAST).unwrap_or_default()
                }
            },
            _ => number.to_string(),
        };
        let left = spec.starts_with('-');
        let zero = spec.starts_with('0');
        let width: usize = spec
            .trim_start_matches(['-', '0', '+', ' ', '#'])
            .split('.')
            .next()
            .and_then(|w| w.trim_end_matches('l').parse().ok())
            .unwrap_or(0);
        out += &match (left, zero) {
            (true, _) => format!("{shown:<width$}"),
            (_, true) => format!("{shown:0>width$}"),
            _ => format!("{shown:>width$}"),
        };
    }
    out
}
