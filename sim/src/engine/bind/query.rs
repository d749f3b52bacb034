//! SELECT: projection, grouping, ordering, TOP, set operations.

use sqlparser::ast::{
    Distinct, Expr, ForClause, ForJson, GroupByExpr, LimitClause, OrderBy, OrderByKind, Query, Select,
    SelectItem, SelectItemQualifiedWildcardKind, SetExpr, SetOperator, SetQuantifier, TopQuantity, Value,
};

use super::source::name_of;
use super::window::collated;
use super::{Binder, Bound, Grouping, Scope, Typed};
use crate::engine::message_text::{SqlError, no_column, undeclared, unsupported};
use crate::engine::types::{Kind, SqlType, common};
use crate::engine::wire_types::OutColumn;

/// How rows become one string.
#[derive(Debug, Clone)]
pub(in super::super) enum Fold {
    Json { array: bool, nulls: bool, root: Option<String> },
}

/// One item of the select list after `*` has been expanded.
struct Item {
    typed: Typed,
    name: String,
    /// The alias was written, so ORDER BY may use it.
    aliased: bool,
    assign: Option<String>,
}

/// A bound query body.
struct Body {
    sql: String,
    columns: Vec<OutColumn>,
    assigns: Option<Vec<String>>,
    into: Option<crate::engine::parse::Name>,
    order: Vec<u16>,
}

impl Binder<'_> {
    pub(super) fn statement_query(&mut self, query: &Query) -> Result<Bound, SqlError> {
        // Variables that are assigned and read in the same SELECT change from row to row.
        if let SetExpr::Select(select) = query.body.as_ref() {
            let assigned: Vec<String> =
                select.projection.iter().filter_map(|item| assignment(item).map(|a| a.0)).collect();
            if !assigned.is_empty() && !select.from.is_empty() {
                let text = select
                    .projection
                    .iter()
                    .filter_map(assignment)
                    .map(|a| a.1.to_string())
                    .collect::<Vec<_>>()
                    .join(" ")
                    .to_ascii_lowercase();
                if assigned.iter().any(|a| text.contains(&a.to_ascii_lowercase())) {
                    self.running = assigned;
                }
            }
        }
        let body = self.query(query, &Scope::default(), true)?;
        let fold = match &query.for_clause {
            None | Some(ForClause::Browse) => None,
            Some(ForClause::Json {
                for_json: ForJson::Path | ForJson::Auto,
                root,
                include_null_values,
                without_array_wrapper,
            }) => Some(Fold::Json {
                array: !without_array_wrapper,
                nulls: *include_null_values,
                root: root.clone(),
            }),
            Some(other) => return Err(unsupported(other)),
        };
        Ok(Bound {
            sql: body.sql,
            columns: body.columns,
            assigns: body.assigns,
            running: self.running.clone(),
            into: body.into,
            order: body.order,
            params: Vec::new(),
            fold,
        })
    }

    /// Binds a query inside another; its columns are named c0, c1 ….
    pub(super) fn subquery_in(
        &mut self,
        query: &Query,
        scope: &Scope<'_>,
    ) -> Result<(String, Vec<OutColumn>), SqlError> {
        let grouping = std::mem::take(&mut self.grouping);
        let window = std::mem::replace(&mut self.window_allowed, true);
        let result = self.query(query, scope, false);
        self.grouping = grouping;
        self.window_allowed = window;
        let body = result?;
        if body.into.is_some() {
            return Err(crate::engine::message_text::syntax_near("INTO"));
        }
        Ok((body.sql, body.columns))
    }

    fn query(&mut self, query: &Query, scope: &Scope<'_>, outermost: bool) -> Result<Body, SqlError> {
        let known = self.ctes.len();
        let with = match &query.with {
            Some(with) => self.with_clause(&with.cte_tables)?,
            None => String::new(),
        };
        let limit = self.limits(query, scope)?;
        let mut body = match query.body.as_ref() {
            SetExpr::Select(select) => {
                self.select_body(select, query.order_by.as_ref(), limit, scope, outermost)?
            }
            SetExpr::Query(inner) if query.order_by.is_none() && limit.is_none() => {
                self.query(inner, scope, outermost)?
            }
            other => {
                let mut body = self.set_body(other, scope)?;
                if let Some(order_by) = &query.order_by {
                    let keys = self.order_by_result(order_by, &body.columns)?;
                    body.sql += &format!(" ORDER BY {}", keys.join(", "));
                }
                if let Some(limit) = limit {
                    body.sql = format!("SELECT * FROM ({}) {limit}", body.sql);
                }
                body
            }
        };
        if !with.is_empty() {
            body.sql = format!("{with}{}", body.sql);
        }
        self.ctes.truncate(known);
        Ok(body)
    }

    /// OFFSET … FETCH as LIMIT.
    fn limits(&mut self, query: &Query, scope: &Scope<'_>) -> Result<Option<String>, SqlError> {
        let offset = match &query.limit_clause {
            None => None,
            Some(LimitClause::LimitOffset { limit: None, offset: Some(offset), .. }) => Some(&offset.value),
            Some(_) => return Err(crate::engine::message_text::syntax_near("LIMIT")),
        };
        let fetch = match &query.fetch {
            None => None,
            Some(fetch) if fetch.with_ties || fetch.percent => {
                return Err(unsupported("FETCH with PERCENT or TIES"));
            }
            Some(fetch) => fetch.quantity.as_ref(),
        };
        if offset.is_none() && fetch.is_none() {
            return Ok(None);
        }
        if query.order_by.is_none() {
            return Err(crate::engine::message_text::syntax_near("OFFSET"));
        }
        let mut number = |expr: Option<&Expr>, default: &str| -> Result<String, SqlError> {
            match expr {
                Some(expr) => {
                    let value = self.scalar(expr, scope)?;
                    self.cast_sql(&value, SqlType::BIGINT, 0)
                }
                None => Ok(default.to_string()),
            }
        };
        let (fetch, offset) = (number(fetch, "-1")?, number(offset, "0")?);
        Ok(Some(format!("LIMIT {fetch} OFFSET {offset}")))
    }

    fn set_body(&mut self, expr: &SetExpr, scope: &Scope<'_>) -> Result<Body, SqlError> {
        match expr {
            SetExpr::Select(select) => self.select_body(select, None, None, scope, false),
            SetExpr::Query(query) => {
                let body = self.query(query, scope, false)?;
                Ok(Body { sql: format!("SELECT * FROM ({})", body.sql), ..body })
            }
            SetExpr::Values(values) => {
                let mut rows: Vec<Vec<Typed>> = Vec::new();
                for row in &values.rows {
                    let mut cells = Vec::new();
                    for cell in row.iter() {
                        cells.push(self.scalar(cell, scope)?);
                    }
                    rows.push(cells);
                }
                let width = rows.first().map_or(0, Vec::len);
                if rows.iter().any(|r| r.len() != width) {
                    return Err(SqlError::new(
                        10709,
                        16,
                        1,
                        "The number of columns for each row in a table value constructor must be the same.",
                    ));
                }
                let types: Vec<SqlType> = (0..width)
                    .map(|at| rows.iter().fold(SqlType::NULL, |ty, row| common(ty, row[at].ty)))
                    .collect();
                let mut parts = Vec::new();
                for row in &rows {
                    let mut cells = Vec::new();
                    for (at, cell) in row.iter().enumerate() {
                        let sql = self.cast_sql(cell, types[at], 0)?;
                        cells.push(format!("{sql} AS c{at}"));
                    }
                    parts.push(format!("SELECT {}", cells.join(", ")));
                }
                let columns = types.into_iter().map(|ty| OutColumn::new("", ty)).collect();
                Ok(Body {
                    sql: parts.join(" UNION ALL "),
                    columns,
                    assigns: None,
                    into: None,
                    order: Vec::new(),
                })
            }
            SetExpr::SetOperation { left, op, set_quantifier, right } => {
                let (left, right) = (self.set_body(left, scope)?, self.set_body(right, scope)?);
                if left.columns.len() != right.columns.len() {
                    return Err(SqlError::new(
                        205,
                        16,
                        1,
                        "All queries combined using a UNION, INTERSECT or EXCEPT operator must have an equal number of expressions in their target lists.",
                    ));
                }
                let word = match (op, set_quantifier) {
                    (SetOperator::Union, SetQuantifier::All) => "UNION ALL",
                    (SetOperator::Union, _) => "UNION",
                    (SetOperator::Intersect, _) => "INTERSECT",
                    _ => "EXCEPT",
                };
                let mut columns = Vec::new();
                for (a, b) in left.columns.iter().zip(&right.columns) {
                    columns.push(OutColumn {
                        ty: common(a.ty, b.ty),
                        nullable: a.nullable || b.nullable,
                        identity: false,
                        ..a.clone()
                    });
                }
                let all = word == "UNION ALL";
                let simple = matches!(expr, SetExpr::SetOperation { right, .. } if matches!(right.as_ref(), SetExpr::Select(_)));
                let left = self.brought_to(&left, &columns, all)?;
                let right = self.brought_to(&right, &columns, all && simple)?;
                Ok(Body {
                    sql: format!("{left} {word} {right}"),
                    columns,
                    assigns: None,
                    into: left_into(expr),
                    order: Vec::new(),
                })
            }
            _ => Err(unsupported("this query")),
        }
    }

    /// A branch of a set operation with its columns in the common types.
    fn brought_to(&mut self, body: &Body, columns: &[OutColumn], as_it_is: bool) -> Result<String, SqlError> {
        // A recursive branch must name its table directly, not inside another query.
        if as_it_is
            && body
                .columns
                .iter()
                .zip(columns)
                .all(|(own, wanted)| own.ty.kind == Kind::Null || super::same_storage(own.ty, wanted.ty))
        {
            return Ok(body.sql.clone());
        }
        let alias = self.alias();
        let mut items = Vec::new();
        for (at, (own, wanted)) in body.columns.iter().zip(columns).enumerate() {
            let value = Typed::new(format!("{alias}.c{at}"), own.ty);
            let sql = self.cast_sql(&value, wanted.ty, 0)?;
            let collate = if wanted.ty.is_string() { " COLLATE TSQL" } else { "" };
            items.push(format!("{sql}{collate} AS c{at}"));
        }
        Ok(format!("SELECT {} FROM ({}) AS {alias}", items.join(", "), body.sql))
    }

    fn select_body(
        &mut self,
        select: &Select,
        order_by: Option<&OrderBy>,
        limit: Option<String>,
        parent: &Scope<'_>,
        outermost: bool,
    ) -> Result<Body, SqlError> {
        let mut scope = Scope { sources: Vec::new(), parent: Some(parent) };
        let from = if select.from.is_empty() {
            String::new()
        } else {
            format!(" FROM {}", self.from(&select.from, &mut scope)?)
        };
        let scope = scope;
        self.window_allowed = false;
        let filter = match &select.selection {
            Some(filter) => format!(" WHERE {}", self.condition(filter, &scope)?),
            None => String::new(),
        };
        // GROUP BY
        let GroupByExpr::Expressions(group, modifiers) = &select.group_by else {
            return Err(unsupported("GROUP BY ALL"));
        };
        if !modifiers.is_empty() {
            return Err(unsupported("ROLLUP, CUBE and GROUPING SETS"));
        }
        let mut keys = Vec::new();
        let mut key_sql = Vec::new();
        for expr in group {
            if matches!(expr, Expr::Rollup(_) | Expr::Cube(_) | Expr::GroupingSets(_)) {
                return Err(unsupported("ROLLUP, CUBE and GROUPING SETS"));
            }
            let key = self.scalar(expr, &scope)?;
            key_sql.push(if key.literal.is_some() { format!("({})", key.sql) } else { collated(&key) });
            keys.push(key.sql);
        }
        self.grouping = Grouping { allowed: true, keys, ..Grouping::default() };
        self.window_allowed = true;
        let items = self.projection(&select.projection, &scope)?;
        let having = match &select.having {
            Some(having) => {
                self.window_allowed = false;
                let condition = self.condition(having, &scope)?;
                self.window_allowed = true;
                self.grouping.seen_aggregate = true;
                format!(" HAVING {condition}")
            }
            None => String::new(),
        };
        let distinct = match &select.distinct {
            None | Some(Distinct::All) => false,
            Some(Distinct::Distinct) => true,
            Some(_) => return Err(unsupported("DISTINCT ON")),
        };
        let (order_keys, order) = match order_by {
            Some(order_by) => self.order_by(order_by, &items, &scope, distinct)?,
            None => (Vec::new(), Vec::new()),
        };
        if (self.grouping.seen_aggregate || !group.is_empty())
            && let Some(column) = self.grouping.loose.first()
        {
            return Err(SqlError::new(
                8120,
                16,
                1,
                format!(
                    "Column '{column}' is invalid in the select list because it is not contained in either an aggregate function or the GROUP BY clause."
                ),
            ));
        }
        self.grouping = Grouping::default();
        let group_by =
            if key_sql.is_empty() { String::new() } else { format!(" GROUP BY {}", key_sql.join(", ")) };

        let assigns: Vec<Option<String>> = items.iter().map(|i| i.assign.clone()).collect();
        let assigning = assigns.iter().filter(|a| a.is_some()).count();
        if assigning > 0 && (assigning < items.len() || !outermost) {
            return Err(SqlError::new(
                141,
                15,
                1,
                "A SELECT statement that assigns a value to a variable must not be combined with data-retrieval operations.",
            ));
        }
        let into = match &select.into {
            None => None,
            Some(into) => match into.targets.first() {
                Some(Expr::Identifier(ident)) => {
                    Some(crate::engine::parse::Name { name: ident.value.clone(), ..Default::default() })
                }
                Some(Expr::CompoundIdentifier(parts)) => {
                    let mut parts = parts.iter().rev().map(|p| p.value.clone());
                    Some(crate::engine::parse::Name {
                        name: parts.next().unwrap_or_default(),
                        schema: parts.next().unwrap_or_default(),
                        database: parts.next().unwrap_or_default(),
                    })
                }
                _ => return Err(unsupported("this target of INTO")),
            },
        };
        if into.is_some() && !outermost {
            return Err(crate::engine::message_text::syntax_near("INTO"));
        }

        let mut list = Vec::new();
        let mut columns = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let mut sql = item.typed.sql.clone();
            if let Some(assigned) = &item.assign {
                let ty = self.session.variable(assigned).ok_or_else(|| undeclared(assigned))?.ty;
                sql = self.cast_sql(&item.typed, ty, 0)?;
                if let Some(slot) = self.running.iter().position(|r| r.eq_ignore_ascii_case(assigned)) {
                    sql = format!("ts_setvar({slot}, {sql})");
                }
            }
            let collate = if distinct && item.typed.ty.is_string() { " COLLATE TSQL" } else { "" };
            list.push(format!("{sql}{collate} AS c{at}"));
            columns.push(OutColumn {
                name: item.name.clone(),
                ty: if item.typed.ty.kind == Kind::Null && outermost { SqlType::INT } else { item.typed.ty },
                nullable: item.typed.nullable,
                identity: item.typed.identity,
                updatable: item.typed.base.is_some(),
                table: item.typed.base.clone(),
            });
        }
        let limit = match &select.top {
            Some(top) if top.with_ties || top.percent => return Err(unsupported("TOP with PERCENT or TIES")),
            Some(top) => {
                let count = match &top.quantity {
                    Some(TopQuantity::Constant(n)) => n.to_string(),
                    Some(TopQuantity::Expr(expr)) => {
                        let value = self.scalar(expr, parent)?;
                        self.cast_sql(&value, SqlType::BIGINT, 0)?
                    }
                    None => "0".into(),
                };
                Some(format!("LIMIT max({count}, 0)"))
            }
            None => limit,
        };
        let mut sql = format!(
            "SELECT {}{}{from}{filter}{group_by}{having}",
            if distinct { "DISTINCT " } else { "" },
            list.join(", ")
        );
        if !order_keys.is_empty() {
            sql += &format!(" ORDER BY {}", order_keys.join(", "));
        }
        if let Some(limit) = limit {
            sql += &format!(" {limit}");
            if !outermost {
                sql = format!("SELECT * FROM ({sql})");
            }
        } else if !order_keys.is_empty() && !outermost {
            return Err(SqlError::new(
                1033,
                15,
                1,
                "The ORDER BY clause is invalid in views, inline functions, derived tables, subqueries, and common table expressions, unless TOP, OFFSET or FOR XML is also specified.",
            ));
        }
        Ok(Body {
            sql,
            columns,
            assigns: (assigning > 0).then(|| assigns.into_iter().flatten().collect()),
            into,
            order,
        })
    }

    fn projection(&mut self, projection: &[SelectItem], scope: &Scope<'_>) -> Result<Vec<Item>, SqlError> {
        let mut items = Vec::new();
        for item in projection {
            if let Some((variable, expr)) = assignment(item) {
                let typed = self.scalar(expr, scope)?;
                items.push(Item { typed, name: String::new(), aliased: false, assign: Some(variable) });
                continue;
            }
            match item {
                SelectItem::UnnamedExpr(expr) => {
                    let typed = self.scalar(expr, scope)?;
                    let name = typed.name.clone().unwrap_or_default();
                    items.push(Item { typed, name, aliased: false, assign: None });
                }
                SelectItem::ExprWithAlias { expr, alias } => {
                    let typed = self.scalar(expr, scope)?;
                    items.push(Item { typed, name: alias.value.clone(), aliased: true, assign: None });
                }
                SelectItem::Wildcard(_) => {
                    if scope.sources.is_empty() {
                        return Err(SqlError::new(263, 16, 1, "Must specify table to select from."));
                    }
                    self.expand(None, scope, &mut items)?;
                }
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                    let name = name_of(name)?;
                    self.expand(Some(&name.name), scope, &mut items)?;
                }
                other => return Err(unsupported(format_args!("the select item {other}"))),
            }
        }
        Ok(items)
    }

    /// A select list without FROM, grouping or order: OUTPUT's.
    pub(in super::super) fn plain_projection(
        &mut self,
        items: &[SelectItem],
        scope: &Scope<'_>,
    ) -> Result<(Vec<String>, Vec<OutColumn>), SqlError> {
        let items = self.projection(items, scope)?;
        let list = items.iter().map(|i| i.typed.sql.clone()).collect();
        let columns = items
            .into_iter()
            .map(|i| OutColumn {
                name: i.name,
                ty: i.typed.ty,
                nullable: i.typed.nullable,
                identity: i.typed.identity,
                updatable: false,
                table: i.typed.base,
            })
            .collect();
        Ok((list, columns))
    }

    fn expand(
        &mut self,
        qualifier: Option<&str>,
        scope: &Scope<'_>,
        items: &mut Vec<Item>,
    ) -> Result<(), SqlError> {
        let mut found = false;
        for source in &scope.sources {
            if qualifier.is_some_and(|q| !q.eq_ignore_ascii_case(&source.name)) {
                continue;
            }
            found = true;
            for column in &source.columns {
                if self.grouping.allowed && !self.grouping.keys.contains(&column.sql) {
                    self.grouping.loose.push(format!("{}.{}", source.name, column.name));
                }
                let typed = Typed {
                    nullable: column.nullable,
                    name: Some(column.name.clone()),
                    identity: column.identity,
                    base: column.base.clone(),
                    ..Typed::new(column.sql.clone(), column.ty)
                };
                items.push(Item { typed, name: column.name.clone(), aliased: false, assign: None });
            }
        }
        match qualifier {
            Some(qualifier) if !found => Err(SqlError::new(
                107,
                15,
                1,
                format!(
                    "The column prefix '{qualifier}' does not match with a table name or alias name used in the query."
                ),
            )),
            _ => Ok(()),
        }
    }

    fn order_by(
        &mut self,
        order_by: &OrderBy,
        items: &[Item],
        scope: &Scope<'_>,
        distinct: bool,
    ) -> Result<(Vec<String>, Vec<u16>), SqlError> {
        let OrderByKind::Expressions(exprs) = &order_by.kind else { return Err(unsupported("ORDER BY ALL")) };
        let mut keys = Vec::new();
        let mut ordinals = Vec::new();
        for order in exprs {
            let at = match &order.expr {
                Expr::Value(value) => match &value.value {
                    Value::Number(text, _) => {
                        let n: usize = text.parse().unwrap_or(0);
                        if n == 0 || n > items.len() {
                            return Err(SqlError::new(
                                108,
                                16,
                                1,
                                format!(
                                    "The ORDER BY position number {text} is out of range of the number of items in the select list."
                                ),
                            ));
                        }
                        Some(n - 1)
                    }
                    _ => {
                        return Err(SqlError::new(
                            408,
                            16,
                            1,
                            "A constant expression was encountered in the ORDER BY list, position 1.",
                        ));
                    }
                },
                Expr::Identifier(ident) => {
                    items.iter().position(|i| i.aliased && i.name.eq_ignore_ascii_case(&ident.value))
                }
                _ => None,
            };
            let key = match at {
                Some(at) => collated_alias(&items[at].typed, at),
                None if matches!(order.expr, Expr::Subquery(_)) => "NULL".into(),
                None => {
                    let typed = self.scalar(&order.expr, scope)?;
                    match items.iter().position(|i| i.typed.sql == typed.sql) {
                        Some(at) => {
                            ordinals.push(at as u16 + 1);
                            collated_alias(&typed, at)
                        }
                        None if distinct => {
                            return Err(SqlError::new(
                                145,
                                15,
                                1,
                                "ORDER BY items must appear in the select list if SELECT DISTINCT is specified.",
                            ));
                        }
                        None => collated(&typed),
                    }
                }
            };
            if let Some(at) = at {
                ordinals.push(at as u16 + 1);
            }
            keys.push(format!("{key}{}", if super::window::descending(order) { " DESC" } else { "" }));
        }
        Ok((keys, ordinals))
    }

    fn order_by_result(
        &mut self,
        order_by: &OrderBy,
        columns: &[OutColumn],
    ) -> Result<Vec<String>, SqlError> {
        let OrderByKind::Expressions(exprs) = &order_by.kind else { return Err(unsupported("ORDER BY ALL")) };
        let mut keys = Vec::new();
        for order in exprs {
            let at = match &order.expr {
                Expr::Value(value) => match &value.value {
                    Value::Number(text, _) => {
                        text.parse::<usize>().ok().filter(|n| (1..=columns.len()).contains(n)).map(|n| n - 1)
                    }
                    _ => None,
                },
                Expr::Identifier(ident) => {
                    columns.iter().position(|c| c.name.eq_ignore_ascii_case(&ident.value))
                }
                _ => None,
            };
            let Some(at) = at else {
                return Err(match &order.expr {
                    Expr::Identifier(ident) => no_column(&ident.value),
                    _ => SqlError::new(
                        104,
                        16,
                        1,
                        "ORDER BY items must appear in the select list if the statement contains a UNION, INTERSECT or EXCEPT operator.",
                    ),
                });
            };
            let collate = if columns[at].ty.is_string() { " COLLATE TSQL" } else { "" };
            keys.push(format!(
                "{}{collate}{}",
                at + 1,
                if super::window::descending(order) { " DESC" } else { "" }
            ));
        }
        Ok(keys)
    }
}

fn collated_alias(typed: &Typed, at: usize) -> String {
    let collate = if typed.ty.is_string() { " COLLATE TSQL" } else { "" };
    format!("c{at}{collate}")
}

fn left_into(expr: &SetExpr) -> Option<crate::engine::parse::Name> {
    match expr {
        SetExpr::SetOperation { left, .. } => left_into(left),
        SetExpr::Select(select) => match select.into.as_ref()?.targets.first()? {
            Expr::Identifier(ident) => {
                Some(crate::engine::parse::Name { name: ident.value.clone(), ..Default::default() })
            }
            _ => None,
        },
        _ => None,
    }
}

/// `@x = expression` in a select list.
fn assignment(item: &SelectItem) -> Option<(String, &Expr)> {
    match item {
        SelectItem::ExprWithAlias { expr, alias }
            if alias.value.starts_with('@') && alias.quote_style.is_none() =>
        {
            Some((alias.value.clone(), expr))
        }
        _ => None,
    }
}

/// Whether a scalar subquery cannot have more than one row.
pub(super) fn at_most_one_row(query: &Query) -> bool {
    match query.body.as_ref() {
        SetExpr::Select(select) => {
            let one = matches!(&select.top, Some(top) if matches!(top.quantity, Some(TopQuantity::Constant(0 | 1))));
            one || select.from.is_empty()
        }
        _ => false,
    }
}

/// Whether a common table expression names itself.
pub(super) fn mentions(query: &Query, name: &str) -> bool {
    let text = query.body.to_string().to_ascii_lowercase();
    let name = name.to_ascii_lowercase();
    matches!(query.body.as_ref(), SetExpr::SetOperation { .. })
        && text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name)
}

/// The first branch of a recursive common table expression.
pub(super) fn anchor(query: &Query) -> Option<Query> {
    match query.body.as_ref() {
        SetExpr::SetOperation { left, .. } => {
            let mut anchor = query.clone();
            anchor.body = left.clone();
            anchor.order_by = None;
            Some(anchor)
        }
        _ => None,
    }
}
