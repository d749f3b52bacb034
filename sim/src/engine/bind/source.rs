//! What stands in FROM: tables, views, derived tables, table functions, joins.

use std::sync::Arc;

use rusqlite::types::Value as Lite;
use sqlparser::ast::{
    FunctionArg, FunctionArgExpr, Join, JoinConstraint, JoinOperator, ObjectName, ObjectNamePart, TableAlias,
    TableFactor, TableWithJoins,
};

use super::{Binder, Scope, column_sql};
use crate::engine::catalog::{Object, ObjectType};
use crate::engine::message_text::{SqlError, no_object, unsupported};
use crate::engine::parse::Name;
use crate::engine::system_views;
use crate::engine::types::{Kind, SqlType};
use crate::engine::wire_types::OutColumn;

/// One table in sight.
#[derive(Debug, Clone)]
pub(in super::super) struct Source {
    /// The name by which columns may be qualified.
    pub(in super::super) name: String,
    /// Its schema, where it was named without an alias.
    pub(in super::super) schema: Option<String>,
    /// Its alias in the SQL for SQLite.
    pub(in super::super) sql_alias: String,
    pub(in super::super) columns: Vec<SourceColumn>,
    pub(in super::super) table: Option<Arc<Object>>,
}

#[derive(Debug, Clone)]
pub(in super::super) struct SourceColumn {
    pub(in super::super) name: String,
    pub(in super::super) sql: String,
    pub(in super::super) ty: SqlType,
    pub(in super::super) nullable: bool,
    pub(in super::super) identity: bool,
    pub(in super::super) base: Option<[String; 3]>,
}

/// An sqlparser name as ours.
pub(in super::super) fn name_of(name: &ObjectName) -> Result<Name, SqlError> {
    let mut parts = Vec::new();
    for part in &name.0 {
        match part {
            ObjectNamePart::Identifier(ident) => parts.push(ident.value.clone()),
            ObjectNamePart::Function(_) => return Err(unsupported("names made by functions")),
        }
    }
    let mut parts = parts.into_iter().rev();
    let found = Name {
        name: parts.next().unwrap_or_default(),
        schema: parts.next().unwrap_or_default(),
        database: parts.next().unwrap_or_default(),
    };
    if parts.next().is_some() {
        return Err(unsupported("linked servers (four-part names)"));
    }
    Ok(found)
}

impl Binder<'_> {
    /// Binds a FROM clause: its SQL, and its tables added to `scope`.
    pub(in super::super) fn from(
        &mut self,
        tables: &[TableWithJoins],
        scope: &mut Scope<'_>,
    ) -> Result<String, SqlError> {
        let mut parts = Vec::new();
        for table in tables {
            parts.push(self.joined(table, scope)?);
        }
        Ok(parts.join(" CROSS JOIN "))
    }

    fn joined(&mut self, table: &TableWithJoins, scope: &mut Scope<'_>) -> Result<String, SqlError> {
        let mut sql = self.factor(&table.relation, scope)?;
        for join in &table.joins {
            sql = self.join(sql, join, scope)?;
        }
        Ok(sql)
    }

    fn join(&mut self, left: String, join: &Join, scope: &mut Scope<'_>) -> Result<String, SqlError> {
        let before = scope.sources.len();
        let right = self.factor(&join.relation, scope)?;
        let (word, constraint) = match &join.join_operator {
            JoinOperator::Join(c) | JoinOperator::Inner(c) => ("JOIN", Some(c)),
            JoinOperator::Left(c) | JoinOperator::LeftOuter(c) => ("LEFT JOIN", Some(c)),
            JoinOperator::Right(c) | JoinOperator::RightOuter(c) => ("RIGHT JOIN", Some(c)),
            JoinOperator::FullOuter(c) => ("FULL JOIN", Some(c)),
            JoinOperator::CrossJoin(_) | JoinOperator::CrossApply => ("CROSS JOIN", None),
            JoinOperator::OuterApply => ("LEFT JOIN", None),
            _ => return Err(unsupported("this kind of join")),
        };
        let all = scope.sources.len();
        let nulled = match word {
            "LEFT JOIN" => before..all,
            "RIGHT JOIN" => 0..before,
            "FULL JOIN" => 0..all,
            _ => 0..0,
        };
        for source in &mut scope.sources[nulled] {
            source.columns.iter_mut().for_each(|c| c.nullable = true);
        }
        Ok(match constraint {
            Some(JoinConstraint::On(on)) => {
                let condition = self.condition(on, scope)?;
                format!("{left} {word} {right} ON {condition}")
            }
            Some(JoinConstraint::None) if word != "CROSS JOIN" => {
                return Err(crate::engine::message_text::syntax_near("JOIN"));
            }
            Some(JoinConstraint::Using(_) | JoinConstraint::Natural) => {
                return Err(unsupported("JOIN … USING"));
            }
            _ if word == "LEFT JOIN" => format!("{left} LEFT JOIN {right} ON 1"),
            _ => format!("{left} {word} {right}"),
        })
    }

    fn factor(&mut self, factor: &TableFactor, scope: &mut Scope<'_>) -> Result<String, SqlError> {
        match factor {
            TableFactor::Table { name, alias, args, .. } => {
                let name = name_of(name)?;
                let hint_only = args.as_ref().is_some_and(|a| a.args.len() == 1 && is_hint(&a.args[0]));
                match args {
                    Some(args) if !hint_only => {
                        let args = args.args.clone();
                        self.table_function(&name, &args, alias.as_ref(), scope)
                    }
                    _ => self.table(&name, alias.as_ref(), scope),
                }
            }
            TableFactor::Derived { subquery, alias, lateral, .. } => {
                let _ = lateral;
                let (sql, columns) = {
                    // A derived table sees what is around its query, not its siblings.
                    let outer = Scope { sources: Vec::new(), parent: scope.parent };
                    self.subquery_in(subquery, &outer)?
                };
                let given: Vec<String> = alias
                    .as_ref()
                    .map(|a| a.columns.iter().map(|c| c.name.value.clone()).collect())
                    .unwrap_or_default();
                self.add_derived(&sql, columns, given, alias.as_ref(), scope)
            }
            TableFactor::NestedJoin { table_with_joins, .. } => {
                let sql = self.joined(table_with_joins, scope)?;
                Ok(format!("({sql})"))
            }
            _ => Err(unsupported("this table source")),
        }
    }

    fn add_derived(
        &mut self,
        sql: &str,
        columns: Vec<OutColumn>,
        given: Vec<String>,
        alias: Option<&TableAlias>,
        scope: &mut Scope<'_>,
    ) -> Result<String, SqlError> {
        let sql_alias = self.alias();
        let name = alias.map(|a| a.name.value.clone()).unwrap_or_default();
        let columns = Self::rename(columns, &given)?;
        let columns = columns
            .into_iter()
            .enumerate()
            .map(|(at, (column, ty, nullable))| SourceColumn {
                sql: format!("{sql_alias}.c{at}"),
                name: column,
                ty,
                nullable,
                identity: false,
                base: None,
            })
            .collect();
        scope.sources.push(Source { name, schema: None, sql_alias: sql_alias.clone(), columns, table: None });
        Ok(format!("({sql}) AS {sql_alias}"))
    }

    fn table(
        &mut self,
        name: &Name,
        alias: Option<&TableAlias>,
        scope: &mut Scope<'_>,
    ) -> Result<String, SqlError> {
        let shown = alias.map_or_else(|| name.name.clone(), |a| a.name.value.clone());
        let schema = if alias.is_some() {
            None
        } else {
            Some(if name.schema.is_empty() { "dbo".to_string() } else { name.schema.clone() })
        };
        if name.schema.is_empty()
            && name.database.is_empty()
            && let Some(at) = self.ctes.iter().rposition(|c| c.name.eq_ignore_ascii_case(&name.name))
        {
            let sql_alias = self.alias();
            let cte = &self.ctes[at];
            let columns = cte
                .columns
                .iter()
                .enumerate()
                .map(|(at, (column, ty, nullable))| SourceColumn {
                    sql: format!("{sql_alias}.c{at}"),
                    name: column.clone(),
                    ty: *ty,
                    nullable: *nullable,
                    identity: false,
                    base: None,
                })
                .collect();
            let sql = format!("{} AS {sql_alias}", cte.sql_name);
            scope.sources.push(Source { name: shown, schema: None, sql_alias, columns, table: None });
            return Ok(sql);
        }
        if let Some(view) = system_views::rows(self.session, name)? {
            return Ok(self.add_rows(view, shown, scope));
        }
        let object = self.session.find_table(name)?.ok_or_else(|| no_object(&name.to_string()))?;
        match object.kind {
            ObjectType::Table => {
                let source = self.table_source(&object, shown, schema);
                let sql = format!("{} AS {}", object.storage, source.sql_alias);
                scope.sources.push(source);
                Ok(sql)
            }
            ObjectType::View => {
                self.depth += 1;
                if self.depth > 16 {
                    return Err(unsupported("views nested more than 16 deep"));
                }
                let query = crate::engine::parse::query(&object.text)?;
                let ctes = std::mem::take(&mut self.ctes);
                let grouping = std::mem::take(&mut self.grouping);
                let bound = self.subquery_in(&query, &Scope::default());
                self.ctes = ctes;
                self.grouping = grouping;
                self.depth -= 1;
                let (sql, columns) = bound?;
                let given: Vec<String> = object.columns.iter().map(|c| c.name.clone()).collect();
                let sql = self.add_derived(&sql, columns, given, alias, scope)?;
                if let Some(source) = scope.sources.last_mut() {
                    source.name = shown;
                }
                Ok(sql)
            }
            ObjectType::Procedure => Err(no_object(&name.to_string())),
        }
    }

    /// A user table as a source; computed columns become their expressions.
    pub(in super::super) fn table_source(
        &mut self,
        object: &Arc<Object>,
        name: String,
        schema: Option<String>,
    ) -> Source {
        let sql_alias = self.alias();
        let base = [object.database.clone(), object.schema.clone(), object.name.clone()];
        let mut source = Source {
            name,
            schema,
            sql_alias: sql_alias.clone(),
            columns: Vec::new(),
            table: Some(Arc::clone(object)),
        };
        for column in &object.columns {
            source.columns.push(SourceColumn {
                name: column.name.clone(),
                sql: column_sql(&sql_alias, &column.name),
                ty: column.ty(),
                nullable: column.nullable,
                identity: column.identity.is_some(),
                base: Some(base.clone()),
            });
        }
        // Computed columns are evaluated over the others.
        for at in 0..object.columns.len() {
            let Some(text) = &object.columns[at].computed else { continue };
            let scope = Scope { sources: vec![source.clone()], parent: None };
            if let Ok(expr) = crate::engine::parse::expression(text)
                && let Ok(typed) = self.scalar(&expr, &scope)
            {
                source.columns[at].sql = format!("({})", typed.sql);
                source.columns[at].ty = typed.ty;
            }
        }
        source
    }

    fn add_rows(&mut self, view: system_views::Rows, name: String, scope: &mut Scope<'_>) -> String {
        let sql_alias = self.alias();
        let json = system_views::to_json(&view);
        let param = self.param(Lite::Text(json));
        let columns: Vec<SourceColumn> = view
            .columns
            .iter()
            .enumerate()
            .map(|(at, (column, ty))| SourceColumn {
                name: (*column).to_string(),
                sql: format!("{sql_alias}.c{at}"),
                ty: *ty,
                nullable: true,
                identity: false,
                base: None,
            })
            .collect();
        let list: Vec<String> = view
            .columns
            .iter()
            .enumerate()
            .map(|(at, (_, ty))| {
                if ty.is_binary() || ty.is_decimal() || matches!(ty.kind, Kind::Uuid | Kind::Variant) {
                    format!("unhex(json_extract(value, '$[{at}]')) AS c{at}")
                } else {
                    format!("json_extract(value, '$[{at}]') AS c{at}")
                }
            })
            .collect();
        scope.sources.push(Source { name, schema: None, sql_alias: sql_alias.clone(), columns, table: None });
        format!("(SELECT {} FROM json_each({param})) AS {sql_alias}", list.join(", "))
    }

    fn table_function(
        &mut self,
        name: &Name,
        args: &[FunctionArg],
        alias: Option<&TableAlias>,
        scope: &mut Scope<'_>,
    ) -> Result<String, SqlError> {
        let mut values = Vec::new();
        for arg in args {
            let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = arg else {
                return Err(unsupported("this argument"));
            };
            values.push(self.scalar(expr, scope)?);
        }
        let lower = name.name.to_ascii_lowercase();
        let columns;
        let sql;
        match lower.as_str() {
            // generate_rows(n [, width]): n rows, made one at a time.
            "generate_rows" if matches!(values.len(), 1 | 2) => {
                let count = self.cast_sql(&values[0], SqlType::BIGINT, 0)?;
                let width = match values.get(1) {
                    Some(width) => self.cast_sql(width, SqlType::INT, 0)?,
                    None => "20".into(),
                };
                columns = vec![
                    OutColumn::new("id", SqlType::INT).not_null(),
                    OutColumn::new("payload", SqlType::varchar(8000)),
                    OutColumn::new("unicode_payload", SqlType::nvarchar(4000)),
                    OutColumn::new("binary_payload", SqlType::varbinary(8000)),
                ];
                let g = self.alias();
                sql = format!(
                    "WITH RECURSIVE {g}(id) AS (SELECT 1 WHERE 1 <= {count} UNION ALL SELECT id + 1 FROM {g} WHERE id < {count}) \
                     SELECT id AS c0, ts_payload(id, {width}, 0) AS c1, ts_payload(id, {width}, 1) AS c2, ts_payload(id, {width}, 2) AS c3 FROM {g}"
                );
            }
            "generate_series" if matches!(values.len(), 2 | 3) => {
                let ty = crate::engine::types::common(values[0].ty, values[1].ty);
                let start = self.cast_sql(&values[0], ty, 0)?;
                let stop = self.cast_sql(&values[1], ty, 0)?;
                let step = match values.get(2) {
                    Some(step) => self.cast_sql(step, ty, 0)?,
                    None => "1".into(),
                };
                columns = vec![OutColumn::new("value", ty)];
                let g = self.alias();
                sql = format!(
                    "WITH RECURSIVE {g}(c0) AS (SELECT {start} WHERE {start} <= {stop} UNION ALL SELECT c0 + {step} FROM {g} WHERE c0 + {step} <= {stop}) SELECT c0 FROM {g}"
                );
            }
            "string_split" if matches!(values.len(), 2 | 3) => {
                let ty =
                    if values[0].ty.is_unicode() { SqlType::nvarchar(4000) } else { SqlType::varchar(8000) };
                let text = self.cast_sql(&values[0], ty, 0)?;
                let separator = self.cast_sql(&values[1], SqlType::nvarchar(1), 0)?;
                columns = vec![OutColumn::new("value", ty), OutColumn::new("ordinal", SqlType::BIGINT)];
                sql = format!(
                    "SELECT value AS c0, key + 1 AS c1 FROM json_each(ts_split({text}, {separator}))"
                );
            }
            "fn_listextendedproperty" | "fn_helpcollations" => {
                columns =
                    vec![OutColumn::new("name", SqlType::SYSNAME), OutColumn::new("value", SqlType::VARIANT)];
                sql = "SELECT NULL AS c0, NULL AS c1 WHERE 0".into();
            }
            "dm_exec_sql_text" => {
                columns = vec![
                    OutColumn::new("dbid", SqlType::SMALLINT),
                    OutColumn::new("objectid", SqlType::INT),
                    OutColumn::new("text", SqlType::nvarchar(crate::engine::types::MAX)),
                ];
                sql = "SELECT NULL AS c0, NULL AS c1, NULL AS c2 WHERE 0".into();
            }
            _ => return Err(no_object(&name.to_string())),
        }
        let named =
            alias.map(|a| a.columns.iter().map(|c| c.name.value.clone()).collect()).unwrap_or_default();
        let sql = self.add_derived(&sql, columns, named, alias, scope)?;
        if alias.is_none()
            && let Some(source) = scope.sources.last_mut()
        {
            source.name = name.name.clone();
        }
        Ok(sql)
    }
}

fn is_hint(arg: &FunctionArg) -> bool {
    const HINTS: &[&str] = &[
        "NOLOCK",
        "READUNCOMMITTED",
        "READCOMMITTED",
        "UPDLOCK",
        "ROWLOCK",
        "HOLDLOCK",
        "TABLOCK",
        "TABLOCKX",
        "PAGLOCK",
        "XLOCK",
        "READPAST",
        "SERIALIZABLE",
        "REPEATABLEREAD",
        "NOWAIT",
    ];
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(sqlparser::ast::Expr::Identifier(ident))) => {
            HINTS.iter().any(|h| ident.value.eq_ignore_ascii_case(h))
        }
        _ => false,
    }
}
