//! Turns T-SQL queries and expressions into SQLite's, with every type known beforehand.

mod call;
mod expr;
mod query;
mod source;
mod window;

use rusqlite::types::Value as Lite;
use sqlparser::ast::{Cte, Expr, Query};

pub(super) use expr::Typed;
pub(super) use query::Fold;
pub(super) use source::Source;

use super::catalog::quote;
use super::datum::Datum;
use super::message_text::SqlError;
use super::parse::Name;
use super::session::Session;
use super::types::{Kind, SqlType};
use super::wire_types::OutColumn;

/// A query ready to run.
#[derive(Debug, Default)]
pub(super) struct Bound {
    pub(super) sql: String,
    pub(super) params: Vec<Lite>,
    pub(super) columns: Vec<OutColumn>,
    /// Variables that the columns are assigned to instead of being sent.
    pub(super) assigns: Option<Vec<String>>,
    /// Assigned variables that the query also reads: name by slot.
    pub(super) running: Vec<String>,
    /// INTO.
    pub(super) into: Option<Name>,
    /// Result ordinals of ORDER BY, for the ORDER token.
    pub(super) order: Vec<u16>,
    /// FOR JSON / XML: the rows become one string.
    pub(super) fold: Option<query::Fold>,
}

/// A common table expression in sight.
struct CteInSight {
    name: String,
    sql_name: String,
    columns: Vec<(String, SqlType, bool)>,
}

/// Where names are looked up: the sources of one SELECT, then those around it.
#[derive(Default)]
pub(super) struct Scope<'p> {
    pub(super) sources: Vec<Source>,
    pub(super) parent: Option<&'p Scope<'p>>,
}

/// How aggregates are treated where an expression stands.
#[derive(Default)]
struct Grouping {
    /// Aggregates are allowed here.
    allowed: bool,
    inside_aggregate: bool,
    seen_aggregate: bool,
    /// SQL of the GROUP BY expressions.
    keys: Vec<String>,
    /// Columns that are neither grouped nor aggregated, so far.
    loose: Vec<String>,
}

/// Binds the queries of one statement.
pub(super) struct Binder<'s> {
    session: &'s Session,
    pub(super) params: Vec<Lite>,
    ctes: Vec<CteInSight>,
    aliases: usize,
    grouping: Grouping,
    /// Variables that are being assigned row by row.
    running: Vec<String>,
    depth: usize,
    /// Select items that ORDER BY may name.
    window_allowed: bool,
}

impl<'s> Binder<'s> {
    pub(super) fn new(session: &'s Session) -> Binder<'s> {
        Binder {
            session,
            params: Vec::new(),
            ctes: Vec::new(),
            aliases: 0,
            grouping: Grouping::default(),
            running: Vec::new(),
            depth: 0,
            window_allowed: true,
        }
    }

    /// Binds a value and gives its placeholder.
    pub(super) fn param(&mut self, value: Lite) -> String {
        self.params.push(value);
        format!("?{}", self.params.len())
    }

    pub(super) fn alias(&mut self) -> String {
        self.aliases += 1;
        format!("t{}", self.aliases)
    }

    /// Binds a whole SELECT statement.
    pub(super) fn select(mut self, query: &Query) -> Result<Bound, SqlError> {
        let bound = self.statement_query(query)?;
        Ok(Bound { params: self.params, ..bound })
    }

    /// Binds an expression without any table in sight.
    pub(super) fn lone_expr(mut self, expr: &Expr) -> Result<(String, SqlType, Vec<Lite>), SqlError> {
        let scope = Scope::default();
        let typed = self.scalar(expr, &scope)?;
        Ok((format!("SELECT {}", typed.sql), typed.ty, self.params))
    }

    /// Binds a condition without any table in sight.
    pub(super) fn lone_condition(mut self, expr: &Expr) -> Result<(String, Vec<Lite>), SqlError> {
        let scope = Scope::default();
        let condition = self.condition(expr, &scope)?;
        Ok((format!("SELECT CASE WHEN {condition} THEN 1 ELSE 0 END"), self.params))
    }

    /// Brings common table expressions in sight and gives the WITH clause for them.
    pub(super) fn with_clause(&mut self, ctes: &[Cte]) -> Result<String, SqlError> {
        if ctes.is_empty() {
            return Ok(String::new());
        }
        let mut parts = Vec::new();
        for cte in ctes {
            let sql_name = format!("w{}", self.alias());
            let name = cte.alias.name.value.clone();
            let given: Vec<String> = cte.alias.columns.iter().map(|c| c.name.value.clone()).collect();
            // A recursive one needs its own columns in sight while it is bound: take them from its first branch.
            if query::mentions(&cte.query, &name)
                && let Some(anchor) = query::anchor(&cte.query)
            {
                let params = self.params.len();
                let (_, columns) = self.subquery_in(&anchor, &Scope::default())?;
                self.params.truncate(params);
                let columns = Self::rename(columns, &given)?;
                self.ctes.push(CteInSight { name: name.clone(), sql_name: sql_name.clone(), columns });
                let (sql, _) = self.subquery_in(&cte.query, &Scope::default())?;
                parts.push(format!("{sql_name} AS ({sql})"));
                continue;
            }
            let (sql, columns) = self.subquery_in(&cte.query, &Scope::default())?;
            let columns = Self::rename(columns, &given)?;
            self.ctes.push(CteInSight { name, sql_name: sql_name.clone(), columns });
            parts.push(format!("{sql_name} AS ({sql})"));
        }
        Ok(format!("WITH RECURSIVE {} ", parts.join(", ")))
    }

    fn rename(columns: Vec<OutColumn>, given: &[String]) -> Result<Vec<(String, SqlType, bool)>, SqlError> {
        if !given.is_empty() && given.len() != columns.len() {
            return Err(SqlError::new(
                8158,
                16,
                1,
                "The number of columns for the table expression does not match its column list.",
            ));
        }
        Ok(columns
            .into_iter()
            .enumerate()
            .map(|(at, c)| {
                (
                    given.get(at).cloned().unwrap_or(c.name),
                    if c.ty.kind == Kind::Null { SqlType::INT } else { c.ty },
                    c.nullable,
                )
            })
            .collect())
    }

    /// Wraps `sql` of type `from` so that it gives type `to`.
    pub(super) fn cast_sql(&mut self, value: &Typed, to: SqlType, mode: i64) -> Result<String, SqlError> {
        let from = value.ty;
        if from.kind == Kind::Null || same_storage(from, to) {
            return Ok(value.sql.clone());
        }
        if let Some(literal) = &value.literal {
            // Literals are converted now; so '1' = 1 costs nothing per row.
            let order = self.session.functions.date_order();
            let rules = super::convert::Rules { style: 0, date_order: &order, strict: mode & 2 != 0 };
            if let Ok(converted) = super::convert::cast(literal.clone(), from, to, rules) {
                return Ok(self.param(converted.to_lite()));
            }
        }
        Ok(format!("ts_cast({}, {}, {}, 0, {mode})", value.sql, from.pack(), to.pack()))
    }
}

/// Whether a value of one type is already a value of the other.
pub(super) fn same_storage(from: SqlType, to: SqlType) -> bool {
    use super::types::MAX;
    if from == to {
        return true;
    }
    if from.is_integer() && to.is_integer() {
        return to.kind >= from.kind && from.kind != Kind::Bit || to.kind > from.kind;
    }
    let open = |t: SqlType| t.len == MAX || matches!(t.kind, Kind::Text | Kind::NText | Kind::Xml);
    if from.is_string() && to.is_string() {
        let widens = open(to) || !open(from) && to.len >= from.len;
        let fixed = matches!(to.kind, Kind::Char | Kind::NChar);
        return widens
            && (!fixed || from.len == to.len && from.kind == to.kind)
            && (to.is_unicode() || !from.is_unicode());
    }
    if from.is_binary() && to.is_binary() {
        return (to.len == MAX
            || to.kind == Kind::Image
            || from.len <= to.len && from.len != MAX && from.kind != Kind::Image)
            && to.kind != Kind::Binary;
    }
    match (from.kind, to.kind) {
        (Kind::Decimal | Kind::Numeric, Kind::Decimal | Kind::Numeric) => {
            from.scale == to.scale && to.len >= from.len
        }
        (Kind::SmallMoney, Kind::Money) | (Kind::Real, Kind::Float) => true,
        (Kind::DateTime2, Kind::DateTime2)
        | (Kind::Time, Kind::Time)
        | (Kind::DateTimeOffset, Kind::DateTimeOffset) => to.scale >= from.scale,
        _ => false,
    }
}

/// A column of an SQLite table, quoted.
pub(super) fn column_sql(alias: &str, name: &str) -> String {
    format!("{alias}.{}", quote(name))
}

/// A literal's SQL, inline where it is short and cannot be misread.
pub(super) fn literal_sql(binder: &mut Binder<'_>, value: &Datum) -> String {
    match value {
        Datum::Null => "NULL".into(),
        Datum::Int(n) if *n >= 0 => n.to_string(),
        other => binder.param(other.to_lite()),
    }
}
