//! INSERT, UPDATE, DELETE: rows are found by SQLite, checked and written one by one here.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::types::Value as Lite;
use sqlparser::ast::{Expr, SelectItem, TableWithJoins};

use super::bind::{Binder, Bound, Scope, Source};
use super::catalog::{Key, Object, ObjectType, quote};
use super::convert::{self, Rules};
use super::datum::Datum;
use super::emit::{Captured, Emit, Stop};
use super::message_text::{SqlError, no_column, no_object, undeclared, unsupported};
use super::parse::{self, Delete, Insert, InsertSource, Name, OutputClause, Update};
use super::session::Session;
use super::types::{Kind, SqlType};
use super::wire_types::OutColumn;

/// The parts of a query over the table that is written: SQL, parameters, and where the FROM clause put the table.
struct Target {
    object: Arc<Object>,
    from: String,
    source: Source,
}

/// Columns that OUTPUT sees as inserted.* and deleted.*.
struct OutputRows {
    columns: Vec<OutColumn>,
    rows: Vec<Vec<Datum>>,
}

impl Session {
    pub(super) fn writable(&self, name: &Name) -> Result<Arc<Object>, SqlError> {
        let object = self.find_table(name)?.ok_or_else(|| no_object(&name.to_string()))?;
        if object.kind != ObjectType::Table {
            return Err(unsupported("changing data through a view"));
        }
        Ok(object)
    }

    pub(super) fn insert(&mut self, insert: &Insert, emit: &mut Emit<'_>) -> Result<(), Stop> {
        self.begin_implicitly(emit)?;
        let object = self.writable(&insert.table)?;
        let targets = self.insert_columns(&object, &insert.columns)?;
        // Rows first, then writing: a query may read the table it fills.
        let (types, rows): (Vec<SqlType>, Vec<Vec<Option<Datum>>>) = match &insert.source {
            InsertSource::Default => (Vec::new(), vec![Vec::new()]),
            InsertSource::Values(values) => {
                let mut rows = Vec::new();
                for row in values {
                    if row.len() != targets.len() {
                        return Err(self
                            .wrong_count(&object, &insert.columns, row.len() > targets.len())
                            .into());
                    }
                    let mut cells = Vec::new();
                    for (cell, at) in row.iter().zip(&targets) {
                        cells.push(match cell {
                            None => None,
                            Some(expr) => {
                                let (ty, value) = self.value(expr)?;
                                Some(self.store_as(value, ty, &object, *at)?)
                            }
                        });
                    }
                    rows.push(cells);
                }
                (Vec::new(), rows)
            }
            InsertSource::Query(query) => {
                let mut query = query.clone();
                if !insert.with.is_empty() {
                    query.with = Some(sqlparser::ast::With {
                        with_token: sqlparser::ast::helpers::attached_token::AttachedToken::empty(),
                        recursive: true,
                        cte_tables: insert.with.clone(),
                    });
                }
                let (columns, rows) = self.all_rows(&query)?;
                (
                    columns.iter().map(|c| c.ty).collect(),
                    rows.into_iter().map(|r| r.into_iter().map(Some).collect()).collect(),
                )
            }
            InsertSource::Execute(statement) => {
                let before = emit.capture.replace(Captured::default());
                let result = self.run(std::slice::from_ref(statement), emit);
                let captured = std::mem::replace(&mut emit.capture, before).unwrap_or_default();
                result?;
                (
                    captured.columns.iter().map(|c| c.ty).collect(),
                    captured.rows.into_iter().map(|r| r.into_iter().map(Some).collect()).collect(),
                )
            }
        };
        if !types.is_empty() && types.len() != targets.len() {
            return Err(self.wrong_count(&object, &insert.columns, types.len() > targets.len()).into());
        }
        let output = insert.output.clone();
        let (count, output) = self.atomically(!object.is_temporary(), |session| {
            let mut after = Vec::new();
            let mut count = 0;
            let limit = session.settings.rowcount;
            for row in rows {
                if session.cancel.is_cancelled() {
                    return Err(Stop::Cancelled);
                }
                let mut cells = Vec::with_capacity(row.len());
                for (n, cell) in row.into_iter().enumerate() {
                    cells.push(match cell {
                        Some(value) if !types.is_empty() => {
                            Some(session.store_as(value, types[n], &object, targets[n])?)
                        }
                        other => other,
                    });
                }
                let full = session.insert_row(&object, &targets, cells)?;
                if output.is_some() {
                    after.push(full);
                }
                count += 1;
                if limit > 0 && count >= limit {
                    break;
                }
            }
            let rows = session.output_rows(output.as_ref(), &object, &[], &after)?;
            Ok((count, rows))
        })?;
        self.finish_dml(output, count, 0xC3, emit)
    }

    fn wrong_count(&self, object: &Object, columns: &[String], more: bool) -> SqlError {
        if columns.is_empty() {
            let _ = object;
            SqlError::new(
                213,
                16,
                1,
                "Column name or number of supplied values does not match table definition.",
            )
        } else if more {
            SqlError::new(110, 15, 1, "There are fewer columns in the INSERT statement than values specified in the VALUES clause. The number of values in the VALUES clause must match the number of columns specified in the INSERT statement.").reaching(super::message_text::Reach::Scope)
        } else {
            SqlError::new(109, 15, 1, "There are more columns in the INSERT statement than values specified in the VALUES clause. The number of values in the VALUES clause must match the number of columns specified in the INSERT statement.").reaching(super::message_text::Reach::Scope)
        }
    }

    fn insert_columns(&self, object: &Object, names: &[String]) -> Result<Vec<usize>, SqlError> {
        let on = self.identity_insert == Some(object.id);
        let mut targets = Vec::new();
        if names.is_empty() {
            for (at, column) in object.columns.iter().enumerate() {
                if column.computed.is_none()
                    && column.ty().kind != Kind::RowVersion
                    && (column.identity.is_none() || on)
                {
                    targets.push(at);
                }
            }
            if on {
                return Err(SqlError::new(
                    8101,
                    16,
                    1,
                    format!(
                        "An explicit value for the identity column in table '{}' can only be specified when a column list is used and IDENTITY_INSERT is ON.",
                        object.name
                    ),
                ));
            }
            return Ok(targets);
        }
        for name in names {
            let at = object.column(name).ok_or_else(|| no_column(name))?;
            if object.columns[at].identity.is_some() && !on {
                return Err(SqlError::new(
                    544,
                    16,
                    1,
                    format!(
                        "Cannot insert explicit value for identity column in table '{}' when IDENTITY_INSERT is set to OFF.",
                        object.name
                    ),
                ));
            }
            if object.columns[at].computed.is_some() {
                return Err(SqlError::new(
                    271,
                    16,
                    1,
                    format!(
                        "The column \"{name}\" cannot be modified because it is either a computed column or is the result of a UNION operator."
                    ),
                ));
            }
            if object.columns[at].ty().kind == Kind::RowVersion {
                return Err(SqlError::new(
                    273,
                    16,
                    1,
                    "Cannot insert an explicit value into a timestamp column. Use INSERT with a column list to exclude the timestamp column, or insert a DEFAULT into the timestamp column.",
                ));
            }
            targets.push(at);
        }
        if on && !targets.iter().any(|at| object.columns[*at].identity.is_some()) {
            return Err(SqlError::new(
                545,
                16,
                1,
                format!(
                    "Explicit value must be specified for identity column in table '{}' either when IDENTITY_INSERT is set to ON or when a replication user is inserting into a NOT FOR REPLICATION identity column.",
                    object.name
                ),
            ));
        }
        Ok(targets)
    }

    /// Brings a value to a column's type, as an assignment does.
    pub(super) fn store_as(
        &self,
        value: Datum,
        from: SqlType,
        object: &Object,
        at: usize,
    ) -> Result<Datum, Stop> {
        let column = &object.columns[at];
        let order = self.functions.date_order();
        let rules = Rules { style: 0, date_order: &order, strict: true };
        let shown = match (&value, from.is_string()) {
            (Datum::Str(text), true) => Some(text.clone()),
            _ => None,
        };
        match convert::cast(value, from, column.ty(), rules) {
            Ok(value) => Ok(value),
            Err(error) if error.number == 8152 => {
                let limit = usize::from(column.ty().len);
                let cut: String = shown.unwrap_or_default().chars().take(limit).collect();
                Err(SqlError::new(
                    2628,
                    16,
                    1,
                    format!("String or binary data would be truncated in table '{}.{}.{}', column '{}'. Truncated value: '{cut}'.", object.database, object.schema, object.name, column.name),
                )
                .into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The next identity value of a table.
    fn next_identity(&self, object: &Object, seed: i64, step: i64) -> i64 {
        let mut identities = super::server::lock(&self.engine.identities);
        let next = identities.get(&object.id).map_or(seed, |last| last.wrapping_add(step));
        identities.insert(object.id, next);
        next
    }

    pub(super) fn default_value(&self, object: &Object, at: usize) -> Result<Datum, Stop> {
        match &object.columns[at].default {
            Some((_, text)) => {
                let (ty, value) = self.value(&parse::expression(text)?)?;
                self.store_as(value, ty, object, at)
            }
            None => Ok(Datum::Null),
        }
    }

    /// Writes one new row; gives all its values. `None` cells take their default.
    pub(super) fn insert_row(
        &mut self,
        object: &Arc<Object>,
        targets: &[usize],
        cells: Vec<Option<Datum>>,
    ) -> Result<Vec<Datum>, Stop> {
        if object.identity_column().is_none() {
            // "If the statement did not affect any tables with identity columns, @@IDENTITY returns NULL."
            self.last_identity = None;
        }
        let mut row = vec![Datum::Null; object.columns.len()];
        let mut given = vec![false; object.columns.len()];
        for (at, cell) in targets.iter().zip(cells) {
            if let Some(value) = cell {
                row[*at] = value;
                given[*at] = true;
            }
        }
        for at in 0..row.len() {
            let column = &object.columns[at];
            if column.ty().kind == Kind::RowVersion {
                row[at] = self.next_row_version();
            } else if given[at] || column.computed.is_some() {
                if let (Some((_, step)), Datum::Int(value)) = (column.identity, &row[at]) {
                    let mut identities = super::server::lock(&self.engine.identities);
                    let last = identities.get(&object.id).copied();
                    if last.is_none_or(|last| if step > 0 { *value > last } else { *value < last }) {
                        identities.insert(object.id, *value);
                    }
                    drop(identities);
                    let value = *value;
                    self.last_identity = Some(value);
                    self.frame().scope_identity = Some(value);
                }
            } else if let Some((seed, step)) = column.identity {
                let value = self.next_identity(object, seed, step);
                let (low, high) = if column.ty().is_integer() {
                    convert::range(column.ty())
                } else {
                    (i128::MIN, i128::MAX)
                };
                if i128::from(value) < low || i128::from(value) > high {
                    return Err(SqlError::new(
                        8115,
                        16,
                        1,
                        format!(
                            "Arithmetic overflow error converting IDENTITY to data type {}.",
                            column.ty().base_name()
                        ),
                    )
                    .into());
                }
                row[at] = convert::cast(Datum::Int(value), SqlType::BIGINT, column.ty(), Rules::CAST)?;
                self.last_identity = Some(value);
                self.frame().scope_identity = Some(value);
            } else {
                row[at] = self.default_value(object, at)?;
            }
        }
        self.check_nulls(object, &row, "INSERT")?;
        let stored: Vec<&str> =
            object.columns.iter().filter(|c| c.computed.is_none()).map(|c| c.name.as_str()).collect();
        let columns: Vec<String> = stored.iter().map(|c| quote(c)).collect();
        let places: Vec<String> = (1..=columns.len()).map(|n| format!("?{n}")).collect();
        let sql =
            format!("INSERT INTO {}({}) VALUES ({})", object.storage, columns.join(", "), places.join(", "));
        let values: Vec<Lite> = object
            .columns
            .iter()
            .zip(&row)
            .filter(|(c, _)| c.computed.is_none())
            .map(|(_, v)| v.to_lite())
            .collect();
        let inserted = self
            .connection
            .prepare_cached(&sql)
            .and_then(|mut statement| statement.insert(rusqlite::params_from_iter(values)));
        let rowid = inserted.map_err(|error| self.write_error(&error, object, &row))?;
        self.check_row(object, rowid, &row, "INSERT")?;
        Ok(row)
    }

    fn next_row_version(&self) -> Datum {
        Datum::Bytes((self.engine.row_version.fetch_add(1, Ordering::Relaxed) + 1).to_be_bytes().to_vec())
    }

    fn check_nulls(&self, object: &Object, row: &[Datum], verb: &str) -> Result<(), Stop> {
        for (column, value) in object.columns.iter().zip(row) {
            if !column.nullable && value.is_null() && column.computed.is_none() {
                let table = if object.name.starts_with('@') {
                    object.name.split('$').next().unwrap_or_default().to_string()
                } else {
                    format!("{}.{}.{}", object.database, object.schema, object.name)
                };
                return Err(SqlError::new(
                    515,
                    16,
                    2,
                    format!("Cannot insert the value NULL into column '{}', table '{table}'; column does not allow nulls. {verb} fails.", column.name),
                )
                .into());
            }
        }
        Ok(())
    }

    /// An error of writing a row: duplicate keys with their values.
    fn write_error(&self, error: &rusqlite::Error, object: &Object, row: &[Datum]) -> Stop {
        let text = error.to_string();
        if let (rusqlite::Error::SqliteFailure(failure, _), Some(list)) =
            (error, text.split("UNIQUE constraint failed: ").nth(1))
            && failure.code == rusqlite::ErrorCode::ConstraintViolation
        {
            let columns: Vec<&str> = list.split(", ").map(|c| c.rsplit('.').next().unwrap_or(c)).collect();
            let key = object.keys.iter().find(|k| {
                k.unique
                    && k.columns.len() == columns.len()
                    && k.columns.iter().zip(&columns).all(|(a, b)| a.eq_ignore_ascii_case(b))
            });
            if let Some(key) = key {
                return duplicate(object, key, row).into();
            }
        }
        self.stop_for(error)
    }

    /// CHECK and FOREIGN KEY constraints of a row that was just written.
    fn check_row(&mut self, object: &Arc<Object>, rowid: i64, row: &[Datum], verb: &str) -> Result<(), Stop> {
        for check in &object.checks {
            let expr = parse::expression(&check.text)?;
            let violated = {
                let mut binder = Binder::new(self);
                let source = binder.table_source(object, object.name.clone(), None);
                let alias = source.sql_alias.clone();
                let scope = Scope { sources: vec![source], parent: None };
                let condition = binder.condition(&expr, &scope)?;
                let sql = format!(
                    "SELECT 1 FROM {} AS {alias} WHERE {alias}._rowid_ = {rowid} AND NOT {condition}",
                    object.storage
                );
                let bound = Bound {
                    sql,
                    params: binder.params,
                    columns: vec![OutColumn::new("", SqlType::INT)],
                    ..Bound::default()
                };
                !self.collect(&bound)?.is_empty()
            };
            if violated {
                let column = check.column.as_ref().map(|c| format!(", column '{c}'")).unwrap_or_default();
                return Err(SqlError::new(
                    547,
                    16,
                    0,
                    format!("The {verb} statement conflicted with the CHECK constraint \"{}\". The conflict occurred in database \"{}\", table \"{}\"{column}.", check.name, object.database, object.two_part()),
                )
                .into());
            }
        }
        for foreign in &object.foreign {
            let values: Vec<&Datum> =
                foreign.columns.iter().filter_map(|c| object.column(c)).map(|at| &row[at]).collect();
            if values.iter().any(|v| v.is_null()) {
                continue;
            }
            let [database, schema, table] = &foreign.table;
            let parent = super::catalog::find(&self.connection, database, schema, table)
                .map_err(|e| self.stop_for(&e))?;
            let Some(parent) = parent else { continue };
            if !self.key_exists(&parent, &foreign.referenced, &values)? {
                let column =
                    foreign.referenced.first().map(|c| format!(", column '{c}'")).unwrap_or_default();
                return Err(SqlError::new(
                    547,
                    16,
                    0,
                    format!("The {verb} statement conflicted with the FOREIGN KEY constraint \"{}\". The conflict occurred in database \"{database}\", table \"{schema}.{table}\"{column}.", foreign.name),
                )
                .into());
            }
        }
        Ok(())
    }

    fn key_exists(&self, object: &Object, columns: &[String], values: &[&Datum]) -> Result<bool, Stop> {
        let tests: Vec<String> =
            columns.iter().enumerate().map(|(at, c)| format!("{} = ?{}", quote(c), at + 1)).collect();
        let sql = format!("SELECT 1 FROM {} WHERE {} LIMIT 1", object.storage, tests.join(" AND "));
        let params: Vec<Lite> = values.iter().map(|v| v.to_lite()).collect();
        let found = self
            .connection
            .prepare_cached(&sql)
            .and_then(|mut s| s.exists(rusqlite::params_from_iter(params)));
        found.map_err(|e| self.stop_for(&e))
    }

    /// Whether rows of other tables point at a row that goes away; cascades where the constraint says so.
    fn check_children(&mut self, object: &Arc<Object>, row: &[Datum], verb: &str) -> Result<(), Stop> {
        let all = super::catalog::list(&self.connection, &object.database).map_err(|e| self.stop_for(&e))?;
        for child in all.iter().filter(|c| !c.foreign.is_empty()) {
            for foreign in &child.foreign {
                let same = foreign.table[1].eq_ignore_ascii_case(&object.schema)
                    && foreign.table[2].eq_ignore_ascii_case(&object.name);
                if !same {
                    continue;
                }
                let values: Vec<&Datum> =
                    foreign.referenced.iter().filter_map(|c| object.column(c)).map(|at| &row[at]).collect();
                if !self.key_exists(child, &foreign.columns, &values)? {
                    continue;
                }
                if foreign.cascade && verb == "DELETE" {
                    let tests: Vec<String> = foreign
                        .columns
                        .iter()
                        .enumerate()
                        .map(|(at, c)| format!("{} = ?{}", quote(c), at + 1))
                        .collect();
                    let params: Vec<Lite> = values.iter().map(|v| v.to_lite()).collect();
                    let sql = format!("DELETE FROM {} WHERE {}", child.storage, tests.join(" AND "));
                    self.connection
                        .execute(&sql, rusqlite::params_from_iter(params))
                        .map_err(|e| self.stop_for(&e))?;
                    continue;
                }
                return Err(SqlError::new(
                    547,
                    16,
                    0,
                    format!(
                        "The {verb} statement conflicted with the REFERENCE constraint \"{}\". The conflict occurred in database \"{}\", table \"{}\", column '{}'.",
                        foreign.name,
                        child.database,
                        child.two_part(),
                        foreign.columns.first().map_or("", String::as_str)
                    ),
                )
                .into());
            }
        }
        Ok(())
    }

    /// Finds the table that UPDATE or DELETE names: directly, or as an alias of its FROM clause.
    fn target(
        &self,
        binder: &mut Binder<'_>,
        name: &Name,
        from: &[TableWithJoins],
        scope: &mut Scope<'_>,
    ) -> Result<Target, SqlError> {
        if from.is_empty() {
            let object = self.writable(name)?;
            let source = binder.table_source(&object, name.name.clone(), Some(object.schema.clone()));
            let sql = format!("{} AS {}", object.storage, source.sql_alias);
            scope.sources.push(source.clone());
            return Ok(Target { object, from: sql, source });
        }
        let sql = binder.from(from, scope)?;
        let by_alias = scope
            .sources
            .iter()
            .find(|s| s.name.eq_ignore_ascii_case(&name.name) && s.table.is_some())
            .cloned();
        let found = match by_alias {
            Some(source) => Some(source),
            None => {
                let object = self.writable(name)?;
                scope.sources.iter().find(|s| s.table.as_ref().is_some_and(|t| t.id == object.id)).cloned()
            }
        };
        if let Some(source) = found
            && let Some(object) = source.table.clone()
        {
            return Ok(Target { object, from: sql, source });
        }
        // The table is not in its own FROM clause: joined without a condition.
        let object = self.writable(name)?;
        let source = binder.table_source(&object, name.name.clone(), Some(object.schema.clone()));
        let sql = format!("{} AS {} CROSS JOIN {sql}", object.storage, source.sql_alias);
        scope.sources.insert(0, source.clone());
        Ok(Target { object, from: sql, source })
    }

    pub(super) fn update(&mut self, update: &Update, emit: &mut Emit<'_>) -> Result<(), Stop> {
        self.begin_implicitly(emit)?;
        if update.cursor.is_some() {
            return Err(unsupported("WHERE CURRENT OF").into());
        }
        let mut set: Vec<(usize, SqlType)> = Vec::new();
        let mut variables: Vec<(String, usize)> = Vec::new();
        let (object, bound) = {
            let mut binder = Binder::new(self);
            let with = binder.with_clause(&update.with)?;
            let mut scope = Scope::default();
            let target = self.target(&mut binder, &update.table, &update.from, &mut scope)?;
            let mut list = vec![format!("{}._rowid_", target.source.sql_alias)];
            let mut columns = vec![OutColumn::new("", SqlType::BIGINT)];
            for column in &target.source.columns {
                list.push(column.sql.clone());
                columns.push(OutColumn::new(&column.name, column.ty));
            }
            for assignment in &update.set {
                let at = match &assignment.column {
                    Some(parts) => {
                        let name = parts.last().map_or("", String::as_str);
                        let at = target.object.column(name).ok_or_else(|| no_column(name))?;
                        let column = &target.object.columns[at];
                        if column.identity.is_some() {
                            return Err(SqlError::new(
                                8102,
                                16,
                                1,
                                format!("Cannot update identity column '{}'.", column.name),
                            )
                            .into());
                        }
                        if column.computed.is_some() || column.ty().kind == Kind::RowVersion {
                            return Err(SqlError::new(272, 16, 1, "Cannot update a timestamp column.").into());
                        }
                        Some(at)
                    }
                    None => None,
                };
                let typed = match (&assignment.value, at) {
                    (Some(value), at) => {
                        let value = binder.scalar(value, &scope)?;
                        match (assignment.op, at) {
                            (Some(op), Some(at)) => {
                                let column = &target.source.columns[at];
                                let own = super::bind::Typed::new(column.sql.clone(), column.ty);
                                binder.operator(&operator(op), own, value)?
                            }
                            (Some(op), None) => {
                                let name = assignment.variable.clone().unwrap_or_default();
                                let variable = self.variable(&name).ok_or_else(|| undeclared(&name))?;
                                let own = binder.constant(variable.value.clone(), variable.ty);
                                binder.operator(&operator(op), own, value)?
                            }
                            _ => value,
                        }
                    }
                    (None, Some(at)) => {
                        let value = self.default_value(&target.object, at)?;
                        binder.constant(value, target.object.columns[at].ty())
                    }
                    (None, None) => return Err(unsupported("DEFAULT for a variable").into()),
                };
                let place = list.len();
                list.push(typed.sql);
                columns.push(OutColumn::new("", typed.ty));
                if let Some(at) = at {
                    set.push((at, typed.ty));
                } else {
                    set.push((usize::MAX, typed.ty));
                }
                if let Some(variable) = &assignment.variable {
                    if self.variable(variable).is_none() {
                        return Err(undeclared(variable).into());
                    }
                    variables.push((variable.clone(), place));
                }
            }
            let filter = match &update.filter {
                Some(filter) => format!(" WHERE {}", binder.condition(filter, &scope)?),
                None => String::new(),
            };
            let limit = self.dml_limit(&mut binder, update.top.as_ref())?;
            let sql = format!("{with}SELECT {} FROM {}{filter}{limit}", list.join(", "), target.from);
            (target.object, Bound { sql, params: binder.params, columns, ..Bound::default() })
        };
        let output = update.output.clone();
        let width = object.columns.len();
        let (count, output, last) = self.atomically(!object.is_temporary(), |session| {
            let mut found = session.collect(&bound)?;
            // A row that the join meets twice is changed once.
            if !update.from.is_empty() {
                let mut seen = std::collections::HashSet::new();
                found.retain(|row| seen.insert(row[0].as_i64()));
            }
            let last = found.last().cloned();
            let (mut before, mut after) = (Vec::new(), Vec::new());
            let keyed = object.keys.iter().any(|k| {
                k.unique
                    && set
                        .iter()
                        .any(|(at, _)| *at < width && k.columns.iter().any(|c| object.column(c) == Some(*at)))
            });
            let mut changed = Vec::with_capacity(found.len());
            for row in &found {
                let old: Vec<Datum> = row[1..=width].to_vec();
                let mut new = old.clone();
                for (n, (at, ty)) in set.iter().enumerate() {
                    if *at < width {
                        new[*at] = session.store_as(row[1 + width + n].clone(), *ty, &object, *at)?;
                    }
                }
                for (at, column) in object.columns.iter().enumerate() {
                    if column.ty().kind == Kind::RowVersion {
                        new[at] = session.next_row_version();
                    }
                }
                session.check_nulls(&object, &new, "UPDATE")?;
                changed.push((row[0].as_i64().unwrap_or(0), old, new));
            }
            let spread = keyed && changed.len() > 1;
            if spread {
                // Keys may trade places: take all rows out before they come back.
                for (rowid, _, _) in &changed {
                    session
                        .connection
                        .execute(&format!("DELETE FROM {} WHERE _rowid_ = ?1", object.storage), [rowid])
                        .map_err(|e| session.stop_for(&e))?;
                }
            }
            for (rowid, old, new) in &changed {
                if session.cancel.is_cancelled() {
                    return Err(Stop::Cancelled);
                }
                session.write_row(&object, *rowid, new, spread)?;
                session.check_row(&object, *rowid, new, "UPDATE")?;
                if keyed && old != new {
                    let moved: Vec<&Key> = object
                        .keys
                        .iter()
                        .filter(|k| {
                            k.unique
                                && k.columns
                                    .iter()
                                    .any(|c| object.column(c).is_some_and(|at| old[at] != new[at]))
                        })
                        .collect();
                    if !moved.is_empty() {
                        session.check_children(&object, old, "UPDATE")?;
                    }
                }
            }
            let count = changed.len() as i64;
            if output.is_some() {
                for (_, old, new) in changed {
                    before.push(old);
                    after.push(new);
                }
            }
            let rows = session.output_rows(output.as_ref(), &object, &before, &after)?;
            Ok((count, rows, last))
        })?;
        if let Some(row) = last {
            for (name, place) in variables {
                let ty = self.variable(&name).map_or(SqlType::INT, |v| v.ty);
                let value = self.assign(row[place].clone(), bound.columns[place].ty, ty)?;
                self.set_variable(&name, value);
            }
        }
        self.finish_dml(output, count, 0xC5, emit)
    }

    fn write_row(&self, object: &Object, rowid: i64, row: &[Datum], insert: bool) -> Result<(), Stop> {
        let stored: Vec<(String, Lite)> = object
            .columns
            .iter()
            .zip(row)
            .filter(|(c, _)| c.computed.is_none())
            .map(|(c, v)| (quote(&c.name), v.to_lite()))
            .collect();
        let sql = if insert {
            let names: Vec<&str> = stored.iter().map(|s| s.0.as_str()).collect();
            let places: Vec<String> = (2..=stored.len() + 1).map(|n| format!("?{n}")).collect();
            format!(
                "INSERT INTO {}(_rowid_, {}) VALUES (?1, {})",
                object.storage,
                names.join(", "),
                places.join(", ")
            )
        } else {
            let sets: Vec<String> =
                stored.iter().enumerate().map(|(at, s)| format!("{} = ?{}", s.0, at + 2)).collect();
            format!("UPDATE {} SET {} WHERE _rowid_ = ?1", object.storage, sets.join(", "))
        };
        let params = std::iter::once(Lite::Integer(rowid)).chain(stored.into_iter().map(|s| s.1));
        let done = self
            .connection
            .prepare_cached(&sql)
            .and_then(|mut s| s.execute(rusqlite::params_from_iter(params)));
        done.map(|_| ()).map_err(|error| self.write_error(&error, object, row))
    }

    fn dml_limit(&self, binder: &mut Binder<'_>, top: Option<&Expr>) -> Result<String, Stop> {
        let top = match top {
            Some(top) => {
                let value = binder.scalar(top, &Scope::default())?;
                Some(binder.cast_sql(&value, SqlType::BIGINT, 0)?)
            }
            None => None,
        };
        Ok(match (top, self.settings.rowcount) {
            (Some(top), _) => format!(" LIMIT {top}"),
            (None, n) if n > 0 => format!(" LIMIT {n}"),
            _ => String::new(),
        })
    }

    pub(super) fn delete(&mut self, delete: &Delete, emit: &mut Emit<'_>) -> Result<(), Stop> {
        self.begin_implicitly(emit)?;
        if delete.cursor.is_some() {
            return Err(unsupported("WHERE CURRENT OF").into());
        }
        let (object, bound) = {
            let mut binder = Binder::new(self);
            let with = binder.with_clause(&delete.with)?;
            let mut scope = Scope::default();
            let target = self.target(&mut binder, &delete.table, &delete.from, &mut scope)?;
            let mut list = vec![format!("{}._rowid_", target.source.sql_alias)];
            let mut columns = vec![OutColumn::new("", SqlType::BIGINT)];
            for column in &target.source.columns {
                list.push(column.sql.clone());
                columns.push(OutColumn::new(&column.name, column.ty));
            }
            let filter = match &delete.filter {
                Some(filter) => format!(" WHERE {}", binder.condition(filter, &scope)?),
                None => String::new(),
            };
            let limit = self.dml_limit(&mut binder, delete.top.as_ref())?;
            let sql = format!("{with}SELECT {} FROM {}{filter}{limit}", list.join(", "), target.from);
            (target.object, Bound { sql, params: binder.params, columns, ..Bound::default() })
        };
        let output = delete.output.clone();
        let (count, output) = self.atomically(!object.is_temporary(), |session| {
            let mut found = session.collect(&bound)?;
            if !delete.from.is_empty() {
                let mut seen = std::collections::HashSet::new();
                found.retain(|row| seen.insert(row[0].as_i64()));
            }
            let mut before = Vec::new();
            let sql = format!("DELETE FROM {} WHERE _rowid_ = ?1", object.storage);
            for row in &found {
                if session.cancel.is_cancelled() {
                    return Err(Stop::Cancelled);
                }
                let deleted =
                    session.connection.prepare_cached(&sql).and_then(|mut s| s.execute([row[0].as_i64()]));
                deleted.map_err(|e| session.stop_for(&e))?;
                if object.primary_key().is_some() && !object.is_temporary() {
                    session.check_children(&object, &row[1..], "DELETE")?;
                }
                if output.is_some() {
                    before.push(row[1..].to_vec());
                }
            }
            let rows = session.output_rows(output.as_ref(), &object, &before, &[])?;
            Ok((found.len() as i64, rows))
        })?;
        self.finish_dml(output, count, 0xC4, emit)
    }

    fn finish_dml(
        &mut self,
        output: Option<OutputRows>,
        count: i64,
        command: u16,
        emit: &mut Emit<'_>,
    ) -> Result<(), Stop> {
        if let Some(output) = output {
            emit.columns(&output.columns)?;
            for row in &output.rows {
                emit.row(&output.columns, row)?;
            }
            self.row_count = count;
            let shown = (!self.settings.nocount).then_some(count);
            return emit.done(command, shown, false);
        }
        self.done(emit, command, Some(count))
    }

    /// Evaluates OUTPUT over the rows before and after; writes them where INTO says, or gives them.
    fn output_rows(
        &mut self,
        clause: Option<&OutputClause>,
        object: &Arc<Object>,
        before: &[Vec<Datum>],
        after: &[Vec<Datum>],
    ) -> Result<Option<OutputRows>, Stop> {
        let Some(clause) = clause else { return Ok(None) };
        let count = before.len().max(after.len());
        let mut out = OutputRows { columns: Vec::new(), rows: Vec::new() };
        for at in 0..count.max(1) {
            let bound = {
                let mut binder = Binder::new(self);
                let mut sources = Vec::new();
                for (name, rows) in [("inserted", after), ("deleted", before)] {
                    let mut source = binder.table_source(object, name.to_string(), None);
                    for (n, column) in source.columns.iter_mut().enumerate() {
                        let value = rows.get(at).map_or(Lite::Null, |row| row[n].to_lite());
                        column.sql = binder.param(value);
                    }
                    sources.push(source);
                }
                binder.output_list(&clause.items, Scope { sources, parent: None })?
            };
            if at < count {
                out.rows.extend(self.collect(&bound)?);
            }
            out.columns = bound.columns;
        }
        let Some((into, names)) = &clause.into else { return Ok(Some(out)) };
        let target = self.writable(into)?;
        let targets = self.insert_columns(&target, names)?;
        if targets.len() != out.columns.len() {
            return Err(self.wrong_count(&target, names, false).into());
        }
        for row in out.rows {
            let mut cells = Vec::new();
            for (n, value) in row.into_iter().enumerate() {
                cells.push(Some(self.store_as(value, out.columns[n].ty, &target, targets[n])?));
            }
            self.insert_row(&target, &targets, cells)?;
        }
        Ok(None)
    }

    /// SELECT … INTO: a new table from a query's columns.
    pub(super) fn select_into(
        &mut self,
        name: &Name,
        bound: &Bound,
        emit: &mut Emit<'_>,
    ) -> Result<(), Stop> {
        let rows = self.collect(bound)?;
        let mut columns = Vec::new();
        let mut identity = false;
        for (at, column) in bound.columns.iter().enumerate() {
            if column.name.is_empty() {
                return Err(SqlError::new(1038, 15, 5, "An object or column name is missing or empty. For SELECT INTO statements, verify each column has a name. For other statements, look for empty alias names. Aliases defined as \"\" or [] are not allowed. Change the alias to a valid name.").into());
            }
            let mut info =
                super::catalog::ColumnInfo::new(at as i32 + 1, &column.name, column.ty, column.nullable);
            if column.identity && !identity {
                identity = true;
                info.identity = Some((1, 1));
            }
            columns.push(info);
        }
        let temporary = name.name.starts_with('#') && !name.name.starts_with("##");
        let count = self.atomically(!temporary, |session| {
            let object = session.make_table(name, columns, Vec::new(), Vec::new(), Vec::new())?;
            let targets: Vec<usize> = (0..object.columns.len()).collect();
            let count = rows.len() as i64;
            for row in rows {
                session.insert_row(&object, &targets, row.into_iter().map(Some).collect())?;
            }
            Ok(count)
        })?;
        self.done(emit, 0xC1, Some(count))
    }

    pub(super) fn truncate(&mut self, name: &Name, emit: &mut Emit<'_>) -> Result<(), Stop> {
        self.begin_implicitly(emit)?;
        let object = self.find_table(name)?.ok_or_else(|| {
            SqlError::new(
                4701,
                16,
                1,
                format!(
                    "Cannot find the object \"{}\" because it does not exist or you do not have permissions.",
                    name.name
                ),
            )
        })?;
        let referenced = super::catalog::list(&self.connection, &object.database)
            .map_err(|e| self.stop_for(&e))?
            .iter()
            .any(|o| {
                o.id != object.id
                    && o.foreign.iter().any(|f| {
                        f.table[2].eq_ignore_ascii_case(&object.name)
                            && f.table[1].eq_ignore_ascii_case(&object.schema)
                    })
            });
        if referenced {
            return Err(SqlError::new(
                4712,
                16,
                1,
                format!(
                    "Cannot truncate table '{}' because it is being referenced by a FOREIGN KEY constraint.",
                    object.name
                ),
            )
            .into());
        }
        self.atomically(!object.is_temporary(), |session| {
            session
                .connection
                .execute(&format!("DELETE FROM {}", object.storage), [])
                .map_err(|e| session.stop_for(&e))?;
            super::server::lock(&session.engine.identities).remove(&object.id);
            Ok(())
        })?;
        self.done(emit, 0xFD, None)
    }
}

impl Binder<'_> {
    /// The select list of OUTPUT over its two pseudo tables.
    fn output_list(mut self, items: &[SelectItem], scope: Scope<'_>) -> Result<Bound, SqlError> {
        let (list, columns) = self.plain_projection(items, &scope)?;
        Ok(Bound {
            sql: format!("SELECT {}", list.join(", ")),
            params: self.params,
            columns,
            ..Bound::default()
        })
    }
}

fn operator(op: char) -> sqlparser::ast::BinaryOperator {
    use sqlparser::ast::BinaryOperator as B;
    match op {
        '+' => B::Plus,
        '-' => B::Minus,
        '*' => B::Multiply,
        '/' => B::Divide,
        '%' => B::Modulo,
        '&' => B::BitwiseAnd,
        '|' => B::BitwiseOr,
        _ => B::BitwiseXor,
    }
}

fn duplicate(object: &Object, key: &Key, row: &[Datum]) -> SqlError {
    let values: Vec<String> = key
        .columns
        .iter()
        .filter_map(|c| object.column(c))
        .map(|at| match &row[at] {
            Datum::Null => "<NULL>".to_string(),
            value => convert::to_string(value, object.columns[at].ty(), SqlType::nvarchar(4000), Rules::CAST)
                .unwrap_or_default(),
        })
        .collect();
    let name = object.name.split('$').next().unwrap_or_default();
    let table = format!("{}.{name}", object.schema);
    let values = values.join(", ");
    if key.constraint {
        let kind = if key.primary { "PRIMARY" } else { "UNIQUE" };
        SqlError::new(
            2627,
            14,
            1,
            format!(
                "Violation of {kind} KEY constraint '{}'. Cannot insert duplicate key in object '{table}'. The duplicate key value is ({values}).",
                key.name
            ),
        )
    } else {
        SqlError::new(
            2601,
            14,
            1,
            format!(
                "Cannot insert duplicate key row in object '{table}' with unique index '{}'. The duplicate key value is ({values}).",
                key.name
            ),
        )
    }
}
