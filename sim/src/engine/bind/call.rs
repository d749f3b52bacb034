//! Function calls: those that the binder itself must know, and the scalar functions by their signature.

use sqlparser::ast::{Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments};

use super::source::name_of;
use super::{Binder, Scope, Typed};
use crate::engine::datum::Datum;
use crate::engine::functions::{dates, signature};
use crate::engine::message_text::{SqlError, unsupported};
use crate::engine::types::{Kind, SqlType, common};

impl Binder<'_> {
    /// The positional arguments of a call.
    pub(super) fn arguments<'f>(&self, function: &'f Function) -> Result<Vec<&'f Expr>, SqlError> {
        match &function.args {
            FunctionArguments::None => Ok(Vec::new()),
            FunctionArguments::Subquery(_) => Err(unsupported("a subquery as the only argument")),
            FunctionArguments::List(list) => list
                .args
                .iter()
                .filter_map(|arg| match arg {
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(Ok(expr)),
                    FunctionArg::Unnamed(FunctionArgExpr::Wildcard) => None,
                    // f(a = b) is read as a named argument; no T-SQL scalar function takes a condition but IIF.
                    other => Some(Err(unsupported(format_args!("the argument {other}")))),
                })
                .collect(),
        }
    }

    pub(super) fn function(&mut self, function: &Function, scope: &Scope<'_>) -> Result<Typed, SqlError> {
        let full = name_of(&function.name)?;
        let name = full.name.to_ascii_uppercase();
        if !full.schema.is_empty() && !full.schema.eq_ignore_ascii_case("sys") {
            return Err(SqlError::new(
                4121,
                16,
                1,
                format!(
                    "Cannot find either column \"{}\" or the user-defined function or aggregate \"{full}\", or the name is ambiguous.",
                    full.schema
                ),
            ));
        }
        if name == "IIF" {
            return self.iif(function, scope);
        }
        if function.over.is_some() || is_aggregate(&name) {
            return self.aggregate(&name, function, scope);
        }
        let args = self.arguments(function)?;
        match name.as_str() {
            "ISNULL" if args.len() == 2 => {
                let (value, other) = (self.scalar(args[0], scope)?, self.scalar(args[1], scope)?);
                let ty = if value.ty.kind == Kind::Null { other.ty } else { value.ty };
                let nullable = value.nullable && other.nullable;
                let other = self.cast_sql(&other, ty, 0)?;
                Ok(Typed { nullable, ..Typed::new(format!("ifnull({}, {other})", value.sql), ty) })
            }
            "COALESCE" if !args.is_empty() => {
                let mut values = Vec::new();
                for arg in args {
                    values.push(self.scalar(arg, scope)?);
                }
                let ty = values.iter().fold(SqlType::NULL, |ty, v| common(ty, v.ty));
                let nullable = values.iter().all(|v| v.nullable);
                let mut parts = Vec::new();
                for value in &values {
                    parts.push(self.cast_sql(value, ty, 0)?);
                }
                parts.push("NULL".into());
                Ok(Typed { nullable, ..Typed::new(format!("coalesce({})", parts.join(", ")), ty) })
            }
            "NULLIF" if args.len() == 2 => {
                let (value, other) = (self.scalar(args[0], scope)?, self.scalar(args[1], scope)?);
                let ty = value.ty;
                let sql = value.sql.clone();
                let test = self.compare("=", value, other)?;
                Ok(Typed::new(format!("(CASE WHEN {test} THEN NULL ELSE {sql} END)"), ty))
            }
            "CHOOSE" if args.len() >= 2 => {
                let index = self.scalar(args[0], scope)?;
                let index = self.cast_sql(&index, SqlType::INT, 0)?;
                let mut branches = Vec::new();
                for (at, arg) in args[1..].iter().enumerate() {
                    branches.push((format!("{index} = {}", at + 1), self.scalar(arg, scope)?));
                }
                self.case(branches, None)
            }
            "DATEADD" | "DATEDIFF" | "DATEDIFF_BIG" | "DATEPART" | "DATENAME" => {
                let Some((Expr::Identifier(part), rest)) = args.split_first().map(|(p, rest)| (*p, rest))
                else {
                    return Err(SqlError::new(
                        1023,
                        15,
                        1,
                        format!("Invalid parameter 1 specified for {}.", name.to_ascii_lowercase()),
                    ));
                };
                let Some(part) = dates::part(&part.value) else {
                    return Err(SqlError::new(
                        155,
                        15,
                        1,
                        format!("'{}' is not a recognized {} option.", part.value, name.to_ascii_lowercase()),
                    ));
                };
                let mut values = vec![self.constant(Datum::str(part), SqlType::varchar(20))];
                for arg in rest {
                    values.push(self.scalar(arg, scope)?);
                }
                self.call(&name, values)
            }
            _ => {
                let mut values = Vec::new();
                for arg in args {
                    values.push(self.scalar(arg, scope)?);
                }
                if values.is_empty()
                    && let Some(value) = self.bare_function(&name)?
                {
                    return Ok(value);
                }
                if self.session.is_system_function(&name) {
                    return self.system_function(&name, values);
                }
                self.call(&name, values)
            }
        }
    }

    fn iif(&mut self, function: &Function, scope: &Scope<'_>) -> Result<Typed, SqlError> {
        let FunctionArguments::List(list) = &function.args else {
            return Err(unsupported("IIF without arguments"));
        };
        let condition = match list.args.first() {
            Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))) => self.condition(expr, scope)?,
            // IIF(a = b, …): sqlparser takes the first argument for a named one.
            Some(FunctionArg::ExprNamed { name, arg: FunctionArgExpr::Expr(value), .. }) => {
                let (left, right) = (self.scalar(name, scope)?, self.scalar(value, scope)?);
                self.compare("=", left, right)?
            }
            Some(FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), .. }) => {
                let (left, right) =
                    (self.scalar(&Expr::Identifier(name.clone()), scope)?, self.scalar(value, scope)?);
                self.compare("=", left, right)?
            }
            _ => return Err(SqlError::new(174, 15, 1, "The iif function requires 3 argument(s).")),
        };
        let mut values = Vec::new();
        for arg in &list.args[1..] {
            let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = arg else {
                return Err(unsupported("this argument of IIF"));
            };
            values.push(self.scalar(expr, scope)?);
        }
        let mut values = values.into_iter();
        let (Some(yes), Some(no)) = (values.next(), values.next()) else {
            return Err(SqlError::new(174, 15, 1, "The iif function requires 3 argument(s)."));
        };
        self.case(vec![(condition, yes)], Some(no))
    }

    /// A function that is known by its signature.
    pub(super) fn call(&mut self, name: &str, args: Vec<Typed>) -> Result<Typed, SqlError> {
        let types: Vec<SqlType> = args.iter().map(|a| a.ty).collect();
        let Some(signature) = signature::find(name, &types)? else {
            return Err(SqlError::new(
                195,
                15,
                10,
                format!("'{name}' is not a recognized built-in function name."),
            ));
        };
        if crate::engine::metadata::needs_snapshot(name) {
            self.session.load_snapshot()?;
        }
        let mut result = signature.result;
        // The length of some results is known from literals.
        let literal = |n: usize| args.get(n).and_then(|a| a.literal.as_ref()).and_then(Datum::as_i64);
        match (name, literal(if name == "SUBSTRING" { 2 } else { 1 })) {
            ("SUBSTRING" | "LEFT" | "RIGHT", Some(n)) if result.len != crate::engine::types::MAX => {
                result.len = result.len.min(n.clamp(1, 8000) as u16);
            }
            ("STR", Some(n)) => result.len = n.clamp(1, 8000) as u16,
            ("REPLICATE", Some(n)) if args[0].ty.len != crate::engine::types::MAX && n >= 0 => {
                let limit = if result.is_unicode() { 4000 } else { 8000 };
                result.len = (u64::from(args[0].ty.len.max(1)) * n as u64).clamp(1, limit) as u16;
            }
            _ => {}
        }
        if name == "SPACE"
            && let Some(n) = literal(0)
        {
            result.len = n.clamp(1, 8000) as u16;
        }
        let mut parts = Vec::new();
        let mut tests = Vec::new();
        for (at, arg) in args.iter().enumerate() {
            let wanted = signature.args.get(at).copied().flatten();
            let (sql, ty) = match wanted {
                Some(ty) => (self.cast_sql(arg, ty, 0)?, ty),
                None => (arg.sql.clone(), arg.ty),
            };
            if signature.strict && arg.nullable && !(name == "STUFF" && at == 3) {
                tests.push(format!("{sql} IS NULL"));
            }
            parts.push(format!(", {}, {sql}", ty.pack()));
        }
        let entry = if signature.volatile { "tsv" } else { "ts" };
        let mut sql = format!("{entry}('{name}', {}{})", result.pack(), parts.concat());
        if !tests.is_empty() {
            sql = format!("(CASE WHEN {} THEN NULL ELSE {sql} END)", tests.join(" OR "));
        }
        Ok(Typed::new(sql, result))
    }

    /// Functions that are written without parentheses or without arguments, and are constant in a statement.
    pub(super) fn bare_function(&mut self, name: &str) -> Result<Option<Typed>, SqlError> {
        let upper = name.to_ascii_uppercase();
        let Some((ty, value)) = self.session.bare_function(&upper) else { return Ok(None) };
        let typed = self.constant(value, ty);
        Ok(Some(Typed { literal: None, ..typed }))
    }

    /// A function of the session or the server; its arguments must not depend on rows.
    fn system_function(&mut self, name: &str, args: Vec<Typed>) -> Result<Typed, SqlError> {
        let mut values = Vec::new();
        for arg in &args {
            let value = match &arg.literal {
                Some(value) => value.clone(),
                None => self
                    .session
                    .evaluate_constant(&arg.sql, arg.ty, &self.params)
                    .map_err(|_| unsupported(format_args!("{name} with an argument that depends on rows")))?,
            };
            values.push((arg.ty, value));
        }
        let (ty, value) = self.session.system_function(name, &values)?;
        let typed = self.constant(value, ty);
        Ok(Typed { literal: None, nullable: true, ..typed })
    }
}

pub(super) fn is_aggregate(name: &str) -> bool {
    matches!(
        name,
        "COUNT"
            | "COUNT_BIG"
            | "SUM"
            | "AVG"
            | "MIN"
            | "MAX"
            | "STDEV"
            | "STDEVP"
            | "VAR"
            | "VARP"
            | "STRING_AGG"
            | "CHECKSUM_AGG"
            | "GROUPING"
    )
}
