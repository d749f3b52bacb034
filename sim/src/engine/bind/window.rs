//! Aggregates and window functions.

use sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArguments, WindowFrameBound, WindowFrameUnits, WindowType,
};

use super::call::is_aggregate;
use super::{Binder, Scope, Typed};
use crate::engine::functions::signature::as_string;
use crate::engine::message_text::{SqlError, unsupported};
use crate::engine::types::{Kind, MAX, SqlType};

impl Binder<'_> {
    /// Binds an aggregate, or any function with OVER.
    pub(super) fn aggregate(
        &mut self,
        name: &str,
        function: &Function,
        scope: &Scope<'_>,
    ) -> Result<Typed, SqlError> {
        let over = match &function.over {
            None => None,
            Some(WindowType::WindowSpec(spec)) => Some(spec),
            Some(WindowType::NamedWindow(_)) => return Err(unsupported("named windows")),
        };
        if over.is_none() {
            if !self.grouping.allowed {
                return Err(SqlError::new(
                    147,
                    15,
                    1,
                    "An aggregate may not appear in the WHERE clause unless it is in a subquery contained in a HAVING clause or a select list, and the column being aggregated is an outer reference.",
                ));
            }
            if self.grouping.inside_aggregate {
                return Err(SqlError::new(
                    130,
                    15,
                    1,
                    "Cannot perform an aggregate function on an expression containing an aggregate or a subquery.",
                ));
            }
            self.grouping.seen_aggregate = true;
        }
        let args = self.arguments(function)?;
        let distinct = matches!(&function.args, FunctionArguments::List(list) if list.duplicate_treatment == Some(DuplicateTreatment::Distinct));
        let before = self.grouping.inside_aggregate;
        self.grouping.inside_aggregate = over.is_none() || before;
        let mut values = Vec::new();
        for arg in &args {
            values.push(self.scalar(arg, scope)?);
        }
        let within = match function.within_group.first() {
            Some(order) => Some((self.scalar(&order.expr, scope)?, descending(order))),
            None => None,
        };
        self.grouping.inside_aggregate = before;
        let mut typed = self.aggregate_sql(name, values, distinct, within)?;
        if let Some(spec) = over {
            if !self.window_allowed {
                return Err(SqlError::new(
                    4108,
                    15,
                    1,
                    "Windowed functions can only appear in the SELECT or ORDER BY clauses.",
                ));
            }
            let mut window = Vec::new();
            if !spec.partition_by.is_empty() {
                let mut keys = Vec::new();
                for key in &spec.partition_by {
                    let key = self.scalar(key, scope)?;
                    keys.push(collated(&key));
                }
                window.push(format!("PARTITION BY {}", keys.join(", ")));
            }
            if !spec.order_by.is_empty() {
                let mut keys = Vec::new();
                for order in &spec.order_by {
                    // ORDER BY (SELECT NULL) means no order.
                    let key = match &order.expr {
                        Expr::Subquery(_) => "NULL".to_string(),
                        expr => {
                            let key = self.scalar(expr, scope)?;
                            collated(&key)
                        }
                    };
                    keys.push(format!("{key}{}", if descending(order) { " DESC" } else { "" }));
                }
                window.push(format!("ORDER BY {}", keys.join(", ")));
            } else if matches!(
                name,
                "ROW_NUMBER"
                    | "RANK"
                    | "DENSE_RANK"
                    | "NTILE"
                    | "LAG"
                    | "LEAD"
                    | "FIRST_VALUE"
                    | "LAST_VALUE"
            ) {
                return Err(SqlError::new(
                    4112,
                    15,
                    1,
                    format!("The function '{name}' must have an OVER clause with ORDER BY."),
                ));
            }
            if let Some(frame) = &spec.window_frame {
                let units = match frame.units {
                    WindowFrameUnits::Rows => "ROWS",
                    WindowFrameUnits::Range => "RANGE",
                    WindowFrameUnits::Groups => return Err(unsupported("GROUPS frames")),
                };
                let start = self.bound(&frame.start_bound, scope)?;
                let end = match &frame.end_bound {
                    Some(bound) => self.bound(bound, scope)?,
                    None => "CURRENT ROW".into(),
                };
                window.push(format!("{units} BETWEEN {start} AND {end}"));
            }
            let clause = format!(" OVER ({})", window.join(" "));
            typed.sql = if typed.sql.contains("{over}") {
                typed.sql.replace("{over}", &clause)
            } else {
                typed.sql + &clause
            };
        } else {
            if !is_aggregate(name) {
                return Err(SqlError::new(
                    10753,
                    15,
                    1,
                    format!("The function '{name}' must have an OVER clause."),
                ));
            }
            typed.sql = typed.sql.replace("{over}", "");
        }
        Ok(typed)
    }

    fn bound(&mut self, bound: &WindowFrameBound, scope: &Scope<'_>) -> Result<String, SqlError> {
        Ok(match bound {
            WindowFrameBound::CurrentRow => "CURRENT ROW".into(),
            WindowFrameBound::Preceding(None) => "UNBOUNDED PRECEDING".into(),
            WindowFrameBound::Following(None) => "UNBOUNDED FOLLOWING".into(),
            WindowFrameBound::Preceding(Some(n)) => format!("{} PRECEDING", self.scalar(n, scope)?.sql),
            WindowFrameBound::Following(Some(n)) => format!("{} FOLLOWING", self.scalar(n, scope)?.sql),
        })
    }

    fn aggregate_sql(
        &mut self,
        name: &str,
        mut values: Vec<Typed>,
        distinct: bool,
        within: Option<(Typed, bool)>,
    ) -> Result<Typed, SqlError> {
        let first = if values.is_empty() { None } else { Some(values.remove(0)) };
        let missing = || {
            SqlError::new(
                174,
                15,
                1,
                format!("The {} function requires 1 argument(s).", name.to_ascii_lowercase()),
            )
        };
        let distinct_word = if distinct { "DISTINCT " } else { "" };
        Ok(match name {
            "COUNT" | "COUNT_BIG" => {
                let ty = if name == "COUNT" { SqlType::INT } else { SqlType::BIGINT };
                match first {
                    None => Typed::new("count(*)", ty).not_null(),
                    Some(value) => {
                        Typed::new(format!("count({distinct_word}{})", collated(&value)), ty).not_null()
                    }
                }
            }
            "MIN" | "MAX" => {
                let value = first.ok_or_else(missing)?;
                Typed::new(format!("{}({})", name.to_ascii_lowercase(), collated(&value)), value.ty)
            }
            "SUM" | "AVG" => {
                let value = first.ok_or_else(missing)?;
                let ty = value.ty;
                if !ty.is_number() && ty.kind != Kind::Null || ty.kind == Kind::Bit {
                    return Err(SqlError::new(
                        8117,
                        16,
                        1,
                        format!(
                            "Operand data type {} is invalid for {} operator.",
                            ty.base_name(),
                            name.to_ascii_lowercase()
                        ),
                    ));
                }
                if ty.is_float() {
                    let word = if name == "SUM" { "sum" } else { "avg" };
                    return Ok(Typed::new(format!("{word}({distinct_word}{})", value.sql), SqlType::FLOAT));
                }
                let result = match ty.kind {
                    Kind::BigInt => SqlType::BIGINT,
                    Kind::Money | Kind::SmallMoney => SqlType::of(Kind::Money),
                    Kind::Decimal | Kind::Numeric if name == "SUM" => {
                        SqlType { kind: ty.kind, len: 38, scale: ty.scale }
                    }
                    Kind::Decimal | Kind::Numeric => {
                        SqlType { kind: ty.kind, len: 38, scale: ty.scale.max(6) }
                    }
                    _ => SqlType::INT,
                };
                if distinct {
                    if !ty.is_integer() {
                        return Err(unsupported("SUM and AVG DISTINCT of anything but integers"));
                    }
                    let sql = if name == "SUM" {
                        format!("sum(DISTINCT {})", value.sql)
                    } else {
                        format!("(sum(DISTINCT {0}) / count(DISTINCT {0}))", value.sql)
                    };
                    return Ok(Typed::new(sql, result));
                }
                let word = if name == "SUM" { "ts_sum" } else { "ts_avg" };
                Typed::new(format!("{word}({}, {}, {}){{over}}", value.sql, ty.pack(), result.pack()), result)
            }
            "STDEV" | "STDEVP" | "VAR" | "VARP" => {
                let value = first.ok_or_else(missing)?;
                let sql = self.cast_sql(&value, SqlType::FLOAT, 0)?;
                let kind = match name {
                    "STDEV" => 0,
                    "VAR" => 1,
                    "STDEVP" => 2,
                    _ => 3,
                };
                Typed::new(format!("ts_spread({sql}, {kind})"), SqlType::FLOAT)
            }
            "STRING_AGG" => {
                let value = first.ok_or_else(missing)?;
                let separator = values.into_iter().next().ok_or_else(missing)?;
                let ty = as_string(value.ty);
                let sql = self.cast_sql(&value, ty, 0)?;
                let order = within.map_or(String::new(), |(key, descending)| {
                    format!(" ORDER BY {}{}", collated(&key), if descending { " DESC" } else { "" })
                });
                let result = match (ty.is_unicode(), ty.len == MAX) {
                    (true, true) => SqlType::nvarchar(MAX),
                    (true, false) => SqlType::nvarchar(4000),
                    (false, true) => SqlType::varchar(MAX),
                    (false, false) => SqlType::varchar(8000),
                };
                Typed::new(format!("group_concat({sql}, {}{order})", separator.sql), result)
            }
            "CHECKSUM_AGG" => {
                let value = first.ok_or_else(missing)?;
                Typed::new(
                    format!(
                        "(ts_sum({}, {}, {}) & 2147483647)",
                        value.sql,
                        value.ty.pack(),
                        SqlType::BIGINT.pack()
                    ),
                    SqlType::INT,
                )
            }
            "ROW_NUMBER" | "RANK" | "DENSE_RANK" => {
                Typed::new(format!("{}()", name.to_ascii_lowercase()), SqlType::BIGINT).not_null()
            }
            "NTILE" => {
                Typed::new(format!("ntile({})", first.ok_or_else(missing)?.sql), SqlType::BIGINT).not_null()
            }
            "PERCENT_RANK" | "CUME_DIST" => {
                Typed::new(format!("{}()", name.to_ascii_lowercase()), SqlType::FLOAT).not_null()
            }
            "LAG" | "LEAD" => {
                let value = first.ok_or_else(missing)?;
                let ty = value.ty;
                let mut sql = format!("{}({}", name.to_ascii_lowercase(), value.sql);
                let mut rest = values.into_iter();
                if let Some(offset) = rest.next() {
                    sql += &format!(", {}", offset.sql);
                }
                if let Some(default) = rest.next() {
                    let default = self.cast_sql(&default, ty, 0)?;
                    sql += &format!(", {default}");
                }
                Typed::new(sql + ")", ty)
            }
            "FIRST_VALUE" | "LAST_VALUE" => {
                let value = first.ok_or_else(missing)?;
                Typed::new(format!("{}({})", name.to_ascii_lowercase(), value.sql), value.ty)
            }
            _ => return Err(unsupported(format_args!("the function {name}"))),
        })
    }
}

/// Whether an ORDER BY item says DESC.
pub(super) fn descending(order: &sqlparser::ast::OrderByExpr) -> bool {
    matches!(order.options.sort, Some(sqlparser::ast::OrderBySort::Desc))
}

/// A value as a sort, group or distinct key.
pub(super) fn collated(value: &Typed) -> String {
    if value.ty.is_string() { format!("{} COLLATE TSQL", value.sql) } else { value.sql.clone() }
}
