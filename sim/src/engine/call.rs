//! Calls: EXECUTE, RPC, prepared statements, API cursors, and the system procedures.

use super::bind::Binder;
use super::catalog::ObjectType;
use super::convert::{self, Rules};
use super::cursor::Cursor;
use super::datum::Datum;
use super::emit::{Emit, Stop};
use super::message_text::{SqlError, no_handle, no_procedure, undeclared, unsupported};
use super::parse::{self, Body, Execute, Name, ParamDef, ProcedureRef};
use super::prepared::{Prepared, What};
use super::session::Session;
use super::types::{MAX, SqlType};
use super::wire_types::{self, OutColumn};
use super::{Cancel, Outcome, Output, Param, Procedure};

/// An argument of a call.
#[derive(Debug, Clone)]
pub(super) struct Arg {
    pub(super) name: String,
    pub(super) ty: SqlType,
    pub(super) value: Datum,
    pub(super) output: bool,
    pub(super) default: bool,
}

impl Arg {
    pub(super) fn text(&self) -> String {
        convert::to_string(&self.value, self.ty, SqlType::nvarchar(MAX), Rules::CAST).unwrap_or_default()
    }
    pub(super) fn int(&self) -> Option<i64> {
        match convert::cast(self.value.clone(), self.ty, SqlType::BIGINT, Rules::CAST) {
            Ok(value) => value.as_i64(),
            Err(_) => None,
        }
    }
}

/// What a call gives back: status, and output values by argument.
pub(super) struct Answer {
    pub(super) status: i32,
    pub(super) outputs: Vec<(usize, SqlType, Datum)>,
}

impl Answer {
    pub(super) fn ok() -> Answer {
        Answer { status: 0, outputs: Vec::new() }
    }
}

const BY_ID: [&str; 16] = [
    "",
    "sp_cursor",
    "sp_cursoropen",
    "sp_cursorprepare",
    "sp_cursorexecute",
    "sp_cursorprepexec",
    "sp_cursorunprepare",
    "sp_cursorfetch",
    "sp_cursoroption",
    "sp_cursorclose",
    "sp_executesql",
    "sp_prepare",
    "sp_execute",
    "sp_prepexec",
    "sp_prepexecrpc",
    "sp_unprepare",
];

impl Session {
    /// Runs an RPC. `last` is false if more calls of the same message follow.
    pub fn call(
        &mut self,
        procedure: &Procedure,
        params: Vec<Param>,
        last: bool,
        out: &mut dyn Output,
        cancel: &Cancel,
    ) -> Outcome {
        let name = match procedure {
            Procedure::Id(id) => BY_ID.get(usize::from(*id)).copied().unwrap_or("").to_string(),
            Procedure::Name(name) => name.clone(),
        };
        let args: Vec<Arg> = params
            .into_iter()
            .map(|p| {
                let (ty, _) = wire_types::sql_type(&p.type_info);
                let value = Datum::from_value(&p.value, ty);
                Arg { name: p.name, ty, value, output: p.by_ref, default: p.default }
            })
            .collect();
        self.request(out, cancel, true, last, move |session, emit| {
            let parts = super::metadata::name_parts(&name);
            let full = Name {
                name: parts[0].clone(),
                schema: parts.get(1).cloned().unwrap_or_default(),
                database: parts.get(2).cloned().unwrap_or_default(),
            };
            // Everything an RPC does happens inside a procedure.
            emit.depth += 1;
            let result = session.invoke(&full, &args, emit);
            emit.depth = emit.depth.saturating_sub(1);
            let answer = result?;
            emit.return_status(answer.status)?;
            for (at, ty, value) in answer.outputs {
                if args.get(at).is_some_and(|a| a.output) {
                    emit.return_value(at as u16, &args[at].name, ty, &value)?;
                }
            }
            Ok(())
        })
    }

    /// Answers an RPC that is not to be executed: with an error, as if there were no such procedure. Which number
    /// SQL Server gives it is not known.
    pub fn skip_call(&mut self, last: bool, out: &mut dyn Output, cancel: &Cancel) -> Outcome {
        let skipped = SqlError::new(50_502, 16, 1, "The call was not executed: its client asked for that.");
        self.request(out, cancel, true, last, |_, _| Err(skipped.into()))
    }

    /// EXECUTE in a batch.
    pub(super) fn execute_call(&mut self, call: &Execute, emit: &mut Emit<'_>) -> Result<(), Stop> {
        let name = match &call.procedure {
            ProcedureRef::Name(name) => name.clone(),
            ProcedureRef::Variable(variable) => {
                let value = self.variable(variable).ok_or_else(|| undeclared(variable))?;
                let parts = super::metadata::name_parts(value.value.as_str().unwrap_or(""));
                Name {
                    name: parts[0].clone(),
                    schema: parts.get(1).cloned().unwrap_or_default(),
                    database: parts.get(2).cloned().unwrap_or_default(),
                }
            }
        };
        let mut args = Vec::new();
        let mut targets = Vec::new();
        for arg in &call.args {
            let (ty, value) = match &arg.value {
                Some(value) => self.value(value)?,
                None => (SqlType::NULL, Datum::Null),
            };
            targets.push(match &arg.value {
                Some(sqlparser::ast::Expr::Identifier(ident)) if arg.output => Some(ident.value.clone()),
                _ => None,
            });
            args.push(Arg {
                name: arg.name.clone().unwrap_or_default(),
                ty,
                value,
                output: arg.output,
                default: arg.value.is_none(),
            });
        }
        emit.depth += 1;
        let result = self.invoke(&name, &args, emit);
        emit.depth = emit.depth.saturating_sub(1);
        let answer = result?;
        for (at, ty, value) in answer.outputs {
            if let Some(Some(variable)) = targets.get(at) {
                let to = self.variable(variable).ok_or_else(|| undeclared(variable))?.ty;
                let value = self.assign(value, ty, to)?;
                self.set_variable(variable, value);
            }
        }
        if let Some(variable) = &call.status_into {
            self.set_variable(variable, Datum::Int(i64::from(answer.status)));
        }
        emit.return_status(answer.status)?;
        emit.done_proc()
    }

    /// Runs a procedure by its name: the session's own, or a system one.
    fn invoke(&mut self, name: &Name, args: &[Arg], emit: &mut Emit<'_>) -> Result<Answer, Stop> {
        let lower = name.name.to_ascii_lowercase();
        let system = lower.starts_with("sp_") || lower.starts_with("xp_");
        if system
            && (name.schema.is_empty()
                || name.schema.eq_ignore_ascii_case("sys")
                || name.schema.eq_ignore_ascii_case("dbo"))
        {
            // database..sp_… runs in that database.
            let home = self.database.clone();
            if !name.database.is_empty() {
                self.database = self
                    .engine
                    .database(&name.database)
                    .ok_or_else(|| super::message_text::no_database(&name.database))?;
            }
            let answer = self.system_procedure(&lower, args, emit);
            if !name.database.is_empty() {
                self.database = home;
            }
            if let Some(answer) = answer? {
                return Ok(answer);
            }
        }
        let object = self
            .find_object(name)?
            .filter(|o| o.kind == ObjectType::Procedure)
            .ok_or_else(|| no_procedure(&name.to_string()))?;
        let (params, statements) = parse::procedure(&object.text)?;
        let values = self.arguments_for(&object.name, &params, args)?;
        let variables: Vec<(String, SqlType, Datum)> =
            params.iter().zip(&values).map(|(p, v)| (p.name.clone(), p.ty, v.0.clone())).collect();
        let (status, after) = self.scoped(&object.name, &statements, variables, emit)?;
        let outputs = params
            .iter()
            .zip(values)
            .zip(after)
            .filter(|((p, _), _)| p.output)
            .filter_map(|((p, v), after)| v.1.map(|at| (at, p.ty, after.2)))
            .collect();
        Ok(Answer { status: status.unwrap_or(0), outputs })
    }

    /// Arguments by position and name, brought to the parameters' types; with each the argument that it came from.
    fn arguments_for(
        &self,
        procedure: &str,
        params: &[ParamDef],
        args: &[Arg],
    ) -> Result<Vec<(Datum, Option<usize>)>, Stop> {
        let mut slots: Vec<Option<usize>> = vec![None; params.len()];
        for (at, arg) in args.iter().enumerate() {
            let place = if arg.name.is_empty() {
                Some(at).filter(|at| *at < params.len())
            } else {
                params.iter().position(|p| p.name.eq_ignore_ascii_case(&arg.name))
            };
            match place {
                Some(place) => slots[place] = Some(at),
                None if arg.name.is_empty() => {
                    return Err(SqlError::new(
                        8144,
                        16,
                        2,
                        format!("Procedure or function {procedure} has too many arguments specified."),
                    )
                    .into());
                }
                None => {
                    return Err(SqlError::new(
                        8145,
                        16,
                        2,
                        format!("{} is not a parameter for procedure {procedure}.", arg.name),
                    )
                    .into());
                }
            }
        }
        let mut values = Vec::new();
        for (param, slot) in params.iter().zip(slots) {
            let value = match slot.map(|at| &args[at]) {
                Some(arg) if !arg.default => self.assign(arg.value.clone(), arg.ty, param.ty)?,
                _ => match &param.default {
                    Some(default) => self.value_as(default, param.ty)?,
                    None => {
                        return Err(SqlError::new(201, 16, 4, format!("Procedure or function '{procedure}' expects parameter '{}', which was not supplied.", param.name)).into());
                    }
                },
            };
            values.push((value, slot));
        }
        Ok(values)
    }

    /// Runs parameterized text, as sp_executesql does. `args` are those after the definitions; `first` is the number of
    /// the first of them in the call.
    fn execute_text(
        &mut self,
        text: &str,
        definitions: &str,
        args: &[Arg],
        first: usize,
        emit: &mut Emit<'_>,
    ) -> Result<Answer, Stop> {
        let params = parse::parameters(definitions)?;
        for (at, param) in params.iter().enumerate() {
            let given = args.iter().any(|a| a.name.eq_ignore_ascii_case(&param.name))
                || args.get(at).is_some_and(|a| a.name.is_empty());
            if !given {
                return Err(SqlError::new(8178, 16, 1, format!("The parameterized query '({definitions}){}' expects the parameter '{}', which was not supplied.", text.chars().take(100).collect::<String>(), param.name)).into());
            }
        }
        let values = self.arguments_for("sp_executesql", &params, args)?;
        let variables =
            params.iter().zip(&values).map(|(p, v)| (p.name.clone(), p.ty, v.0.clone())).collect();
        // sp_executesql answers with DONEINPROCs of the level it was called at.
        emit.depth = emit.depth.saturating_sub(1);
        let result = self.run_inner(text, variables, emit);
        emit.depth += 1;
        let after = result?;
        let outputs = params
            .iter()
            .zip(values)
            .zip(after)
            .filter_map(|((p, v), after)| {
                v.1.filter(|at| p.output || args[*at].output).map(|at| (at + first, p.ty, after.2))
            })
            .collect();
        Ok(Answer { status: self.error.min(0), outputs })
    }

    fn prepare(&mut self, what: What, cursor: bool) -> i64 {
        let handle = self.next_handle;
        self.next_handle += 1;
        self.prepared.insert(handle, Prepared { what, cursor });
        handle
    }

    /// Runs the procedure of this name; `first` is the number of its first argument in the call.
    fn execute_procedure(
        &mut self,
        name: &str,
        args: &[Arg],
        first: usize,
        emit: &mut Emit<'_>,
    ) -> Result<Answer, Stop> {
        let parts = super::metadata::name_parts(name);
        let target = Name {
            name: parts[0].clone(),
            schema: parts.get(1).cloned().unwrap_or_default(),
            ..Name::default()
        };
        let mut answer = self.invoke(&target, args, emit)?;
        answer.outputs.iter_mut().for_each(|output| output.0 += first);
        Ok(answer)
    }

    /// COLMETADATA of what a statement would answer, if its first statement is a query that can be bound now.
    fn describe(&mut self, definitions: &str, text: &str) -> Option<Vec<OutColumn>> {
        let statements = self.engine.parse(text).ok()?;
        let params = parse::parameters(definitions).ok()?;
        self.enter_frame("");
        for param in &params {
            self.declare(&param.name, param.ty, Datum::Null);
        }
        let columns = statements.iter().find_map(|s| match &s.body {
            Body::Select(query) => Binder::new(self)
                .select(query)
                .ok()
                .filter(|b| b.assigns.is_none() && b.into.is_none())
                .map(|b| b.columns),
            _ => None,
        });
        self.leave_frame();
        columns
    }

    fn system_procedure(
        &mut self,
        name: &str,
        args: &[Arg],
        emit: &mut Emit<'_>,
    ) -> Result<Option<Answer>, Stop> {
        let text = |at: usize| args.get(at).map(Arg::text).unwrap_or_default();
        let missing = || {
            Stop::from(SqlError::new(
                201,
                16,
                4,
                format!(
                    "Procedure or function '{name}' expects parameter '@handle', which was not supplied."
                ),
            ))
        };
        let handle_at = |at: usize| args.get(at).and_then(Arg::int).ok_or_else(missing);
        if !matches!(name, "sp_executesql" | "sp_execute" | "sp_prepexec" | "sp_prepexecrpc") {
            // A statement like others; those run some of their own.
            (self.error, self.row_count) = (0, 0);
        }
        Ok(Some(match name {
            "sp_executesql" => {
                if args.is_empty() {
                    return Err(SqlError::new(201, 16, 10, "Procedure or function 'sp_executesql' expects parameter '@statement', which was not supplied.").into());
                }
                self.execute_text(&text(0), &text(1), args.get(2..).unwrap_or_default(), 2, emit)?
            }
            "sp_prepare" => {
                let statement = text(2);
                self.engine.parse(&statement)?;
                let what = What::Text { text: statement.clone(), definitions: text(1) };
                let handle = self.prepare(what, false);
                if let Some(columns) = self.describe(&text(1), &statement) {
                    emit.columns(&columns)?;
                    emit.done(0xC1, Some(0), false)?;
                }
                Answer { status: 0, outputs: vec![(0, SqlType::INT, Datum::Int(handle))] }
            }
            "sp_execute" => {
                let handle = handle_at(0)?;
                let Some(prepared) = self.prepared.get(&handle).cloned() else {
                    return Err(no_handle(handle).into());
                };
                match prepared.what {
                    What::Text { text, definitions } => {
                        self.execute_text(&text, &definitions, &args[1..], 1, emit)?
                    }
                    What::Procedure(name) => self.execute_procedure(&name, &args[1..], 1, emit)?,
                }
            }
            "sp_prepexec" => {
                if let Some(old) = args.first().and_then(Arg::int) {
                    self.prepared.remove(&old);
                }
                let statement = text(2);
                self.engine.parse(&statement)?;
                let what = What::Text { text: statement.clone(), definitions: text(1) };
                let handle = self.prepare(what, false);
                let mut answer =
                    self.execute_text(&statement, &text(1), args.get(3..).unwrap_or_default(), 3, emit)?;
                answer.outputs.insert(0, (0, SqlType::INT, Datum::Int(handle)));
                answer
            }
            "sp_prepexecrpc" => {
                if let Some(old) = args.first().and_then(Arg::int) {
                    self.prepared.remove(&old);
                }
                let name = text(1);
                let handle = self.prepare(What::Procedure(name.clone()), false);
                let rest = args.get(2..).unwrap_or_default();
                let mut answer = self.execute_procedure(&name, rest, 2, emit)?;
                answer.outputs.insert(0, (0, SqlType::INT, Datum::Int(handle)));
                answer
            }
            "sp_unprepare" | "sp_cursorunprepare" => {
                let handle = handle_at(0)?;
                if self.prepared.remove(&handle).is_none() {
                    return Err(no_handle(handle).into());
                }
                Answer::ok()
            }
            "sp_cursoropen" => self.cursor_open(
                args,
                1,
                &text(1),
                args.get(4).map(Arg::text).unwrap_or_default(),
                args.get(5..).unwrap_or_default(),
                emit,
            )?,
            "sp_cursorprepare" => {
                let statement = text(2);
                self.engine.parse(&statement)?;
                let handle = self.prepare(What::Text { text: statement, definitions: text(1) }, true);
                Answer { status: 0, outputs: vec![(0, SqlType::INT, Datum::Int(handle))] }
            }
            "sp_cursorexecute" => {
                let handle = handle_at(0)?;
                let prepared = self.prepared.get(&handle).filter(|prepared| prepared.cursor);
                let Some(What::Text { text, definitions }) = prepared.map(|prepared| prepared.what.clone())
                else {
                    return Err(no_handle(handle).into());
                };
                let mut answer = self.cursor_open(
                    args.get(1..).unwrap_or_default(),
                    0,
                    &text,
                    definitions,
                    args.get(5..).unwrap_or_default(),
                    emit,
                )?;
                answer.outputs.iter_mut().for_each(|o| o.0 += 1);
                answer
            }
            "sp_cursorprepexec" => {
                let statement = text(3);
                let what = What::Text { text: statement.clone(), definitions: text(2) };
                let handle = self.prepare(what, true);
                let mut answer = self.cursor_open(
                    args.get(1..).unwrap_or_default(),
                    0,
                    &statement,
                    text(2),
                    args.get(7..).unwrap_or_default(),
                    emit,
                )?;
                for output in &mut answer.outputs {
                    output.0 = match output.0 {
                        0 => 1,
                        at => at + 3,
                    };
                }
                answer.outputs.insert(0, (0, SqlType::INT, Datum::Int(handle)));
                answer
            }
            "sp_cursorfetch" => self.cursor_fetch(args, emit)?,
            "sp_cursorclose" => {
                let handle = handle_at(0)?;
                if handle == -1 {
                    self.cursors.retain(|name, _| !name.starts_with('\u{1}'));
                } else if self.cursors.remove(&api_cursor(handle)).is_none() {
                    return Err(bad_cursor().into());
                }
                Answer::ok()
            }
            "sp_cursoroption" => {
                let handle = handle_at(0)?;
                if !self.cursors.contains_key(&api_cursor(handle)) {
                    return Err(bad_cursor().into());
                }
                Answer::ok()
            }
            "sp_cursor" => return Err(unsupported("sp_cursor (positioned updates)").into()),
            _ => return self.plain_system_procedure(name, args, emit),
        }))
    }

    /// sp_cursoropen: `@cursor OUTPUT, @stmt, @scrollopt OUTPUT, @ccopt OUTPUT, @rows OUTPUT, @paramdef, …`, or the tail
    /// of it that sp_cursorexecute has; `skip` is 1 if the statement is among `args`.
    fn cursor_open(
        &mut self,
        args: &[Arg],
        skip: usize,
        text: &str,
        definitions: String,
        values: &[Arg],
        emit: &mut Emit<'_>,
    ) -> Result<Answer, Stop> {
        let (definitions, values) = if skip == 1 {
            (args.get(5).map(Arg::text).unwrap_or_default(), args.get(6..).unwrap_or_default())
        } else {
            (definitions, values)
        };
        let statements = self.engine.parse(text)?;
        let query = statements
            .iter()
            .find_map(|s| if let Body::Select(query) = &s.body { Some(query.clone()) } else { None });
        let Some(query) = query else {
            return Err(SqlError::new(16945, 16, 1, "The cursor was not declared.").into());
        };
        let params = parse::parameters(&definitions)?;
        let bound = self.arguments_for("sp_cursoropen", &params, values)?;
        self.enter_frame("");
        for (param, value) in params.iter().zip(bound) {
            self.declare(&param.name, param.ty, value.0);
        }
        let result = self.all_rows(&query);
        self.leave_frame();
        let (columns, rows) = result?;
        let handle = 180_150_000 + self.next_handle;
        self.next_handle += 1;
        let count = rows.len() as i64;
        emit.columns(&columns)?;
        emit.done(0xC1, Some(0), false)?;
        let cursor =
            Cursor { query: None, columns, rows: Some(rows), position: 0, scroll: true, buffer: (1, 0) };
        self.cursors.insert(api_cursor(handle), cursor);
        self.cursor_rows = count;
        let given = |at: usize| args.get(at).and_then(Arg::int).unwrap_or(1);
        Ok(Answer {
            status: 0,
            outputs: vec![
                (0, SqlType::INT, Datum::Int(handle)),
                // Whatever was asked for, the stand-in gives a static, read-only cursor.
                (skip + 1, SqlType::INT, Datum::Int(if given(skip + 1) & 4 != 0 { 4 } else { 8 })),
                (skip + 2, SqlType::INT, Datum::Int(1)),
                (skip + 3, SqlType::INT, Datum::Int(count)),
            ],
        })
    }

    fn cursor_fetch(&mut self, args: &[Arg], emit: &mut Emit<'_>) -> Result<Answer, Stop> {
        let int = |at: usize| args.get(at).and_then(Arg::int);
        let handle = int(0).unwrap_or(0);
        let kind = int(1).unwrap_or(2);
        let row = int(2).unwrap_or(0);
        let wanted = int(3).unwrap_or(1);
        let Some(cursor) = self.cursors.get_mut(&api_cursor(handle)) else { return Err(bad_cursor().into()) };
        let len = cursor.len();
        if kind & 0x100 != 0 {
            // INFO: where the cursor is, and how many rows it has.
            let position = cursor.buffer.0.min(len);
            return Ok(Answer {
                status: 0,
                outputs: vec![(2, SqlType::INT, Datum::Int(position)), (3, SqlType::INT, Datum::Int(len))],
            });
        }
        let wanted = wanted.clamp(0, 1_000_000);
        let (start, held) = cursor.buffer;
        let next = match kind & 0xFF {
            0x01 => 1,
            0x02 => start + held,
            0x04 => start - wanted,
            0x08 => (len - wanted + 1).max(1),
            0x10 if row < 0 => len + 1 + row,
            0x10 => row,
            0x20 => start + row,
            0x80 => start,
            _ => {
                return Err(SqlError::new(
                    16902,
                    16,
                    8,
                    "sp_cursorfetch: The value of parameter 'fetchtype' is invalid.",
                )
                .into());
            }
        };
        let first = next.clamp(1, len + 1);
        let count = (len + 1 - first).min(wanted + (next - first).min(0)).max(0);
        cursor.buffer = (first, count);
        let columns = cursor.columns.clone();
        let rows: Vec<Vec<Datum>> =
            cursor.rows.iter().flatten().skip(first as usize - 1).take(count as usize).cloned().collect();
        emit.columns(&columns)?;
        for row in &rows {
            emit.row(&columns, row)?;
        }
        self.row_count = count;
        emit.done(0xC1, Some(count), false)?;
        Ok(Answer::ok())
    }

    /// A one-result answer of a system procedure.
    pub(super) fn answer_rows(
        &mut self,
        columns: &[OutColumn],
        rows: &[Vec<Datum>],
        emit: &mut Emit<'_>,
    ) -> Result<Answer, Stop> {
        emit.columns(columns)?;
        for row in rows {
            emit.row(columns, row)?;
        }
        self.row_count = rows.len() as i64;
        emit.done(0xC1, Some(rows.len() as i64), false)?;
        Ok(Answer::ok())
    }

    /// What sp_describe_first_result_set and FMTONLY would say.
    pub(super) fn describe_text(&mut self, text: &str, definitions: &str) -> Result<Vec<OutColumn>, Stop> {
        self.engine.parse(text)?;
        Ok(self.describe(definitions, text).unwrap_or_default())
    }
}

fn api_cursor(handle: i64) -> String {
    format!("\u{1}{handle}")
}

fn bad_cursor() -> SqlError {
    SqlError::new(16909, 16, 1, "sp_cursor: The cursor identifier value provided (0) is not valid.")
}
