//! Scalar expressions and conditions.

use sqlparser::ast::{BinaryOperator, CastKind, Expr, Ident, UnaryOperator, Value};

use super::source::name_of;
use super::{Binder, Scope, literal_sql};
use crate::engine::datum::Datum;
use crate::engine::decimal;
use crate::engine::message_text::{SqlError, no_column, undeclared, unsupported};
use crate::engine::parse;
use crate::engine::types::{Kind, MAX, SqlType, common, decimal_result};

/// An expression as SQLite will compute it.
#[derive(Debug, Clone)]
pub(in super::super) struct Typed {
    pub(in super::super) sql: String,
    pub(in super::super) ty: SqlType,
    pub(in super::super) nullable: bool,
    /// The column's name if it is one.
    pub(in super::super) name: Option<String>,
    pub(in super::super) identity: bool,
    pub(in super::super) base: Option<[String; 3]>,
    pub(in super::super) literal: Option<Datum>,
}

impl Typed {
    pub(in super::super) fn new(sql: impl Into<String>, ty: SqlType) -> Typed {
        Typed { sql: sql.into(), ty, nullable: true, name: None, identity: false, base: None, literal: None }
    }
    pub(in super::super) fn not_null(mut self) -> Typed {
        self.nullable = false;
        self
    }
}

impl Binder<'_> {
    /// A constant with its type.
    pub(in super::super) fn constant(&mut self, value: Datum, ty: SqlType) -> Typed {
        let sql = literal_sql(self, &value);
        let nullable = value.is_null();
        Typed { nullable, literal: Some(value), ..Typed::new(sql, ty) }
    }

    /// Binds an expression that gives a value.
    pub(in super::super) fn scalar(&mut self, expr: &Expr, scope: &Scope<'_>) -> Result<Typed, SqlError> {
        self.depth += 1;
        if self.depth > 200 {
            return Err(SqlError::new(
                191,
                15,
                1,
                "Some part of your SQL statement is nested too deeply. Rewrite the query or break it up into smaller queries.",
            ));
        }
        let loose = self.grouping.loose.len();
        let typed = self.scalar_inner(expr, scope)?;
        self.depth -= 1;
        if self.grouping.loose.len() > loose && self.grouping.keys.contains(&typed.sql) {
            self.grouping.loose.truncate(loose);
        }
        Ok(typed)
    }

    fn scalar_inner(&mut self, expr: &Expr, scope: &Scope<'_>) -> Result<Typed, SqlError> {
        match expr {
            Expr::Value(value) => self.literal(&value.value),
            Expr::Identifier(ident) => self.identifier(ident, scope),
            Expr::CompoundIdentifier(parts) => self.column(parts, scope),
            Expr::Nested(inner) => {
                let typed = self.scalar(inner, scope)?;
                Ok(Typed { sql: format!("({})", typed.sql), ..typed })
            }
            Expr::BinaryOp { left, op, right } => {
                let (left, right) = (self.scalar(left, scope)?, self.scalar(right, scope)?);
                self.operator(op, left, right)
            }
            Expr::UnaryOp { op, expr } => self.unary(*op, expr, scope),
            Expr::Cast { kind, expr, data_type, .. } => {
                let to = self.cast_type(parse::sql_type(data_type)?, data_type.to_string());
                let value = self.scalar(expr, scope)?;
                self.convert(value, to, None, matches!(kind, CastKind::TryCast | CastKind::SafeCast))
            }
            Expr::Convert { is_try, expr, data_type, styles, .. } => {
                let Some(data_type) = data_type else { return Err(unsupported("CONVERT … USING")) };
                let to = self.cast_type(parse::sql_type(data_type)?, data_type.to_string());
                let value = self.scalar(expr, scope)?;
                let style = match styles.first() {
                    Some(style) => {
                        let style = self.scalar(style, scope)?;
                        Some(self.cast_sql(&style, SqlType::INT, 0)?)
                    }
                    None => None,
                };
                self.convert(value, to, style, *is_try)
            }
            Expr::Case { operand, conditions, else_result, .. } => {
                let mut branches = Vec::new();
                for when in conditions {
                    let condition = match operand {
                        Some(operand) => {
                            let (left, right) =
                                (self.scalar(operand, scope)?, self.scalar(&when.condition, scope)?);
                            self.compare("=", left, right)?
                        }
                        None => self.condition(&when.condition, scope)?,
                    };
                    branches.push((condition, self.scalar(&when.result, scope)?));
                }
                let otherwise = match else_result {
                    Some(otherwise) => Some(self.scalar(otherwise, scope)?),
                    None => None,
                };
                self.case(branches, otherwise)
            }
            Expr::Subquery(query) => {
                let (sql, columns) = self.subquery_in(query, scope)?;
                if columns.len() != 1 {
                    return Err(SqlError::new(
                        116,
                        16,
                        1,
                        "Only one expression can be specified in the select list when the subquery is not introduced with EXISTS.",
                    ));
                }
                let alias = self.alias();
                let sql = if super::query::at_most_one_row(query) {
                    format!("(SELECT {alias}.c0 FROM ({sql}) AS {alias})")
                } else {
                    format!("(SELECT ts_single({alias}.c0, count(*)) FROM ({sql}) AS {alias})")
                };
                Ok(Typed::new(sql, columns[0].ty))
            }
            Expr::Function(function) => self.function(function, scope),
            Expr::Collate { expr, .. } => self.scalar(expr, scope),
            Expr::Substring { expr, substring_from, substring_for, .. } => {
                let mut args = vec![self.scalar(expr, scope)?];
                for part in [substring_from, substring_for].into_iter().flatten() {
                    args.push(self.scalar(part, scope)?);
                }
                self.call("SUBSTRING", args)
            }
            Expr::Trim { expr, trim_what, trim_where, trim_characters } => {
                let mut args = vec![self.scalar(expr, scope)?];
                let what = trim_what.as_deref().or_else(|| trim_characters.as_ref().and_then(|c| c.first()));
                if let Some(what) = what {
                    args.push(self.scalar(what, scope)?);
                }
                let name = match trim_where {
                    Some(sqlparser::ast::TrimWhereField::Leading) => "LTRIM",
                    Some(sqlparser::ast::TrimWhereField::Trailing) => "RTRIM",
                    _ => "TRIM",
                };
                self.call(name, args)
            }
            Expr::Ceil { expr, .. } => {
                let value = self.scalar(expr, scope)?;
                self.call("CEILING", vec![value])
            }
            Expr::Floor { expr, .. } => {
                let value = self.scalar(expr, scope)?;
                self.call("FLOOR", vec![value])
            }
            Expr::AtTimeZone { .. } => Err(unsupported("AT TIME ZONE")),
            Expr::Tuple(_) => Err(crate::engine::message_text::syntax_near(",")),
            Expr::InList { .. }
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::Like { .. }
            | Expr::Between { .. }
            | Expr::Exists { .. }
            | Expr::InSubquery { .. } => Err(crate::engine::message_text::syntax_near("IN")),
            other => Err(unsupported(format_args!("the expression {other}"))),
        }
    }

    /// `CAST(x AS varchar)` without a length means 30.
    fn cast_type(&self, ty: SqlType, written: String) -> SqlType {
        use Kind::*;
        let unsized_type = !written.contains('(')
            && matches!(ty.kind, Char | VarChar | NChar | NVarChar | Binary | VarBinary);
        if unsized_type && ty != SqlType::SYSNAME { SqlType { len: 30, ..ty } } else { ty }
    }

    pub(in super::super) fn convert(
        &mut self,
        value: Typed,
        to: SqlType,
        style: Option<String>,
        is_try: bool,
    ) -> Result<Typed, SqlError> {
        if value.ty.kind == Kind::Null {
            return Ok(Typed::new("NULL", to));
        }
        let nullable = value.nullable || is_try;
        if style.is_none() && super::same_storage(value.ty, to) && (value.ty.is_integer() || value.ty == to) {
            // Named columns lose their name in a CAST.
            return Ok(Typed { nullable, literal: value.literal, ..Typed::new(value.sql, to) });
        }
        let sql = format!(
            "ts_cast({}, {}, {}, {}, {})",
            value.sql,
            value.ty.pack(),
            to.pack(),
            style.unwrap_or_else(|| "0".into()),
            i64::from(is_try)
        );
        Ok(Typed { nullable, ..Typed::new(sql, to) })
    }

    pub(in super::super) fn case(
        &mut self,
        branches: Vec<(String, Typed)>,
        otherwise: Option<Typed>,
    ) -> Result<Typed, SqlError> {
        let mut ty = otherwise.as_ref().map_or(SqlType::NULL, |o| o.ty);
        for (_, value) in &branches {
            ty = common(ty, value.ty);
        }
        let mut sql = "CASE".to_string();
        let mut nullable = otherwise.as_ref().is_none_or(|o| o.nullable);
        for (condition, value) in &branches {
            nullable |= value.nullable;
            let value = self.cast_sql(value, ty, 0)?;
            sql += &format!(" WHEN {condition} THEN {value}");
        }
        if let Some(otherwise) = &otherwise {
            let value = self.cast_sql(otherwise, ty, 0)?;
            sql += &format!(" ELSE {value}");
        }
        Ok(Typed { nullable, ..Typed::new(sql + " END", ty) })
    }

    pub(in super::super) fn literal(&mut self, value: &Value) -> Result<Typed, SqlError> {
        Ok(match value {
            Value::Null => Typed { literal: Some(Datum::Null), ..Typed::new("NULL", SqlType::NULL) },
            Value::Number(text, _) => {
                if let Some(money) = text.strip_prefix('$') {
                    let value =
                        decimal::parse(money).and_then(|(m, s)| decimal::rescale(m, s, 4)).unwrap_or(0);
                    return Ok(self.constant(Datum::Int(value as i64), SqlType::of(Kind::Money)));
                }
                if text.contains(['e', 'E']) {
                    let value = text.parse().unwrap_or(0.0);
                    return Ok(self.constant(Datum::Float(value), SqlType::FLOAT));
                }
                if !text.contains('.')
                    && let Ok(n) = text.parse::<i32>()
                {
                    return Ok(self.constant(Datum::Int(i64::from(n)), SqlType::INT));
                }
                let (mantissa, scale) = decimal::parse(text)
                    .ok_or_else(|| SqlError::new(1007, 15, 1, format!("The number '{text}' is out of the range for numeric representation (maximum precision 38).")))?;
                let digits = mantissa.unsigned_abs().to_string().len().max(usize::from(scale)).max(1) as u16;
                self.constant(Datum::Dec(mantissa), SqlType::numeric(digits.min(38), scale))
            }
            Value::SingleQuotedString(text) => {
                let len = text.chars().count();
                let ty = SqlType::varchar(if len > 8000 { MAX } else { (len as u16).max(1) });
                self.constant(Datum::str(text.as_str()), ty)
            }
            Value::NationalStringLiteral(text) => {
                let len = text.encode_utf16().count();
                let ty = SqlType::nvarchar(if len > 4000 { MAX } else { (len as u16).max(1) });
                self.constant(Datum::str(text.as_str()), ty)
            }
            Value::HexStringLiteral(digits) => {
                let bytes = crate::engine::convert::unhex(digits).unwrap_or_default();
                let ty =
                    SqlType::varbinary(if bytes.len() > 8000 { MAX } else { (bytes.len() as u16).max(1) });
                self.constant(Datum::Bytes(bytes), ty)
            }
            Value::DoubleQuotedString(text) => return self.literal(&Value::SingleQuotedString(text.clone())),
            Value::Placeholder(text) if text.starts_with('$') => {
                return self.literal(&Value::Number(text.clone(), false));
            }
            other => return Err(unsupported(format_args!("the literal {other}"))),
        })
    }

    fn identifier(&mut self, ident: &Ident, scope: &Scope<'_>) -> Result<Typed, SqlError> {
        if ident.quote_style.is_none() {
            if let Some(name) = ident.value.strip_prefix("@@") {
                let (ty, value) = self.session.global(name).ok_or_else(|| undeclared(&ident.value))?;
                let value = self.constant(value, ty);
                return Ok(Typed { literal: None, ..value });
            }
            if ident.value.starts_with('@') {
                return self.variable(&ident.value);
            }
            if let Some(value) = self.bare_function(&ident.value)? {
                return Ok(value);
            }
        }
        if ident.quote_style == Some('"') && !self.session.settings.quoted_identifier {
            return self.literal(&Value::SingleQuotedString(ident.value.clone()));
        }
        self.column(std::slice::from_ref(ident), scope)
    }

    fn variable(&mut self, name: &str) -> Result<Typed, SqlError> {
        let variable = self.session.variable(name).ok_or_else(|| undeclared(name))?;
        let ty = variable.ty;
        if let Some(slot) = self.running.iter().position(|r| r.eq_ignore_ascii_case(name)) {
            return Ok(Typed::new(format!("ts_var({slot})"), ty));
        }
        let value = variable.value.to_lite();
        let sql = self.param(value);
        Ok(Typed::new(sql, ty))
    }

    fn column(&mut self, parts: &[Ident], scope: &Scope<'_>) -> Result<Typed, SqlError> {
        let Some(last) = parts.last() else { return Err(no_column("")) };
        let qualifier = parts.len().checked_sub(2).map(|at| parts[at].value.as_str());
        let schema = parts.len().checked_sub(3).map(|at| parts[at].value.as_str());
        let mut level = Some(scope);
        let mut own = true;
        while let Some(here) = level {
            let mut found = None;
            for source in &here.sources {
                if let Some(qualifier) = qualifier {
                    let same_schema = schema.is_none_or(|s| {
                        s.is_empty()
                            || source.schema.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(s))
                    });
                    if !source.name.eq_ignore_ascii_case(qualifier) || !same_schema {
                        continue;
                    }
                }
                if let Some(column) = source.columns.iter().find(|c| c.name.eq_ignore_ascii_case(&last.value))
                {
                    if found.is_some() {
                        return Err(SqlError::new(
                            209,
                            16,
                            1,
                            format!("Ambiguous column name '{}'.", last.value),
                        ));
                    }
                    found = Some(column);
                }
            }
            if let Some(column) = found {
                if own && self.grouping.allowed && !self.grouping.inside_aggregate {
                    let shown = here
                        .sources
                        .iter()
                        .find(|s| s.columns.iter().any(|c| std::ptr::eq(c, column)))
                        .map_or("", |s| s.name.as_str());
                    if !self.grouping.keys.contains(&column.sql) {
                        self.grouping.loose.push(format!("{shown}.{}", column.name));
                    }
                }
                return Ok(Typed {
                    nullable: column.nullable,
                    name: Some(column.name.clone()),
                    identity: column.identity,
                    base: column.base.clone(),
                    ..Typed::new(column.sql.clone(), column.ty)
                });
            }
            if qualifier.is_some_and(|q| here.sources.iter().any(|s| s.name.eq_ignore_ascii_case(q))) {
                return Err(no_column(&last.value));
            }
            level = here.parent;
            own = false;
        }
        if qualifier.is_some() {
            let full: Vec<&str> = parts.iter().map(|p| p.value.as_str()).collect();
            return Err(SqlError::new(
                4104,
                16,
                1,
                format!("The multi-part identifier \"{}\" could not be bound.", full.join(".")),
            ));
        }
        Err(no_column(&last.value))
    }

    fn unary(&mut self, op: UnaryOperator, expr: &Expr, scope: &Scope<'_>) -> Result<Typed, SqlError> {
        let value = self.scalar(expr, scope)?;
        match op {
            UnaryOperator::Plus => Ok(value),
            UnaryOperator::Minus => {
                if let Some(literal) = &value.literal {
                    match literal {
                        Datum::Int(n) => return Ok(self.constant(Datum::Int(-n), value.ty)),
                        Datum::Dec(m) if value.ty.scale == 0 && -m == i128::from(i32::MIN) => {
                            return Ok(self.constant(Datum::Int(i64::from(i32::MIN)), SqlType::INT));
                        }
                        Datum::Dec(m) => return Ok(self.constant(Datum::Dec(-m), value.ty)),
                        Datum::Float(f) => return Ok(self.constant(Datum::Float(-f), value.ty)),
                        _ => {}
                    }
                }
                let ty = match value.ty.kind {
                    Kind::Bit | Kind::TinyInt => SqlType::SMALLINT,
                    Kind::Null => SqlType::INT,
                    _ if value.ty.is_number() => value.ty,
                    _ => SqlType::INT,
                };
                let inner = self.cast_sql(&value, ty, 0)?;
                Ok(Typed {
                    nullable: value.nullable,
                    ..Typed::new(format!("ts('NEG', {0}, {0}, {inner})", ty.pack()), ty)
                })
            }
            UnaryOperator::BitwiseNot => {
                if value.ty.kind == Kind::Bit {
                    return Ok(Typed::new(format!("(1 - {})", value.sql), value.ty));
                }
                if value.ty.kind == Kind::TinyInt {
                    return Ok(Typed::new(format!("(255 - {})", value.sql), value.ty));
                }
                Ok(Typed { nullable: value.nullable, ..Typed::new(format!("(~{})", value.sql), value.ty) })
            }
            _ => Err(unsupported(format_args!("the operator {op}"))),
        }
    }

    /// `left op right` for arithmetic, bits and strings.
    pub(in super::super) fn operator(
        &mut self,
        op: &BinaryOperator,
        left: Typed,
        right: Typed,
    ) -> Result<Typed, SqlError> {
        let sign = match op {
            BinaryOperator::Plus => '+',
            BinaryOperator::Minus => '-',
            BinaryOperator::Multiply => '*',
            BinaryOperator::Divide => '/',
            BinaryOperator::Modulo => '%',
            BinaryOperator::BitwiseAnd => '&',
            BinaryOperator::BitwiseOr => '|',
            BinaryOperator::BitwiseXor => '^',
            BinaryOperator::StringConcat => '+',
            BinaryOperator::Eq
            | BinaryOperator::Lt
            | BinaryOperator::Gt
            | BinaryOperator::NotEq
            | BinaryOperator::And
            | BinaryOperator::Or => {
                return Err(crate::engine::message_text::syntax_near(&op.to_string()));
            }
            other => return Err(unsupported(format_args!("the operator {other}"))),
        };
        let nullable = left.nullable || right.nullable;
        let (a, b) = (left.ty, right.ty);
        if sign == '+'
            && (a.is_string() || b.is_string())
            && (a.is_string() || a.kind == Kind::Null)
            && (b.is_string() || b.kind == Kind::Null)
        {
            let unicode = a.is_unicode() || b.is_unicode();
            let total = u32::from(a.len) + u32::from(b.len);
            let max = a.len == MAX || b.len == MAX;
            let limit = if unicode { 4000 } else { 8000 };
            let len = if max { MAX } else { total.clamp(1, limit) as u16 };
            let ty = if unicode { SqlType::nvarchar(len) } else { SqlType::varchar(len) };
            let sql = if self.session.settings.concat_null_yields_null {
                format!("({} || {})", left.sql, right.sql)
            } else {
                format!("(ifnull({}, '') || ifnull({}, ''))", left.sql, right.sql)
            };
            return Ok(Typed { nullable, ..Typed::new(sql, ty) });
        }
        if sign == '+' && a.is_binary() && b.is_binary() {
            let len = if a.len == MAX || b.len == MAX { MAX } else { (a.len + b.len).clamp(1, 8000) };
            let ty = SqlType::varbinary(len);
            let sql = format!(
                "ts('BCONCAT', {}, {}, {}, {}, {})",
                ty.pack(),
                a.pack(),
                left.sql,
                b.pack(),
                right.sql
            );
            return Ok(Typed { nullable, ..Typed::new(sql, ty) });
        }
        if matches!(sign, '&' | '|' | '^') {
            let ty = if a.is_integer() && b.is_integer() {
                common(a, b)
            } else {
                common(common(a, b), SqlType::INT)
            };
            let ty = if ty.is_integer() { ty } else { SqlType::INT };
            return self.apply(sign, ty, ty, ty, &left, &right);
        }
        if a.is_temporal() || b.is_temporal() {
            let target = if a.kind == Kind::SmallDateTime
                || b.kind == Kind::SmallDateTime && a.kind != Kind::DateTime
            {
                SqlType::of(Kind::SmallDateTime)
            } else {
                SqlType::DATETIME
            };
            let plain =
                |t: SqlType| matches!(t.kind, Kind::DateTime | Kind::SmallDateTime) || !t.is_temporal();
            if !matches!(sign, '+' | '-') || !plain(a) || !plain(b) {
                return Err(SqlError::new(
                    402,
                    16,
                    1,
                    format!(
                        "The data types {} and {} are incompatible in the {} operator.",
                        a.base_name(),
                        b.base_name(),
                        word(sign)
                    ),
                ));
            }
            return self.apply(sign, target, target, target, &left, &right);
        }
        // A string takes part as a number.
        let (a, b) = match (a.is_string(), b.is_string()) {
            (true, false) => (b, b),
            (false, true) => (a, a),
            (true, true) if sign != '+' => {
                return Err(SqlError::new(
                    402,
                    16,
                    1,
                    format!(
                        "The data types {} and {} are incompatible in the {} operator.",
                        a.base_name(),
                        b.base_name(),
                        word(sign)
                    ),
                ));
            }
            _ => (a, b),
        };
        let (a, b) = match (a.is_binary(), b.is_binary()) {
            (true, false) => (b, b),
            (false, true) => (a, a),
            _ => (a, b),
        };
        let (a, b) = match (a.kind, b.kind) {
            (Kind::Variant, _) | (_, Kind::Variant) => {
                return Err(SqlError::new(
                    257,
                    16,
                    3,
                    "Implicit conversion from data type sql_variant to numeric is not allowed. Use the CONVERT function to run this query.",
                ));
            }
            (Kind::Null, Kind::Null) => (SqlType::INT, SqlType::INT),
            (Kind::Null, _) => (b, b),
            (_, Kind::Null) => (a, a),
            _ => (a, b),
        };
        if !a.is_number() || !b.is_number() {
            return Err(SqlError::new(
                8117,
                16,
                1,
                format!(
                    "Operand data type {} is invalid for {} operator.",
                    if a.is_number() { b.base_name() } else { a.base_name() },
                    word(sign)
                ),
            ));
        }
        if a.is_integer() && b.is_integer() {
            let ty = common(common(a, b), SqlType::TINYINT);
            return self.apply(sign, ty, ty, ty, &left, &right);
        }
        if a.is_float() || b.is_float() {
            let real = |t: SqlType| t.kind == Kind::Real || t.is_integer() && t.kind < Kind::Int;
            let ty = if real(a) && real(b) { SqlType::of(Kind::Real) } else { SqlType::FLOAT };
            return self.apply(sign, SqlType::FLOAT, SqlType::FLOAT, ty, &left, &right);
        }
        if (a.is_money() || b.is_money()) && !a.is_decimal() && !b.is_decimal() {
            let ty = common(common(a, b), SqlType::of(Kind::SmallMoney));
            return self.apply(sign, ty, ty, ty, &left, &right);
        }
        let exact = |ty: SqlType, value: &Typed| match (&value.literal, ty.is_integer()) {
            (Some(Datum::Int(n)), true) => SqlType::numeric(n.unsigned_abs().to_string().len() as u16, 0),
            _ => ty.as_decimal(),
        };
        let (a, b) = (exact(a, &left), exact(b, &right));
        let ty = decimal_result(sign, a, b);
        self.apply(sign, a, b, ty, &left, &right)
    }

    fn apply(
        &mut self,
        sign: char,
        a: SqlType,
        b: SqlType,
        result: SqlType,
        left: &Typed,
        right: &Typed,
    ) -> Result<Typed, SqlError> {
        let nullable = left.nullable || right.nullable;
        let left = self.cast_sql(left, a, 0)?;
        let right = self.cast_sql(right, b, 0)?;
        let sql = format!("ts('op{sign}', {}, {}, {left}, {}, {right})", result.pack(), a.pack(), b.pack());
        Ok(Typed { nullable, ..Typed::new(sql, result) })
    }

    /// `left op right` as a condition.
    pub(in super::super) fn compare(
        &mut self,
        op: &str,
        left: Typed,
        right: Typed,
    ) -> Result<String, SqlError> {
        let (left, right, text) = self.meet(left, right)?;
        Ok(if text {
            format!("({left} {op} {right} COLLATE TSQL)")
        } else {
            format!("({left} {op} {right})")
        })
    }

    /// Both sides in their common type, and whether they compare as text.
    fn meet(&mut self, left: Typed, right: Typed) -> Result<(String, String, bool), SqlError> {
        let (a, b) = (left.ty, right.ty);
        let mut ty = common(a, b);
        if ty.kind == Kind::Variant {
            ty = if a.kind == Kind::Variant { b } else { a };
            if ty.kind == Kind::Variant {
                return Ok((left.sql, right.sql, false));
            }
        }
        // A whole number that fits needs no decimal arithmetic beside a bigint.
        if ty.is_decimal()
            && ty.scale == 0
            && (a.kind == Kind::BigInt || b.kind == Kind::BigInt)
            && (left.literal.is_some() || right.literal.is_some())
        {
            ty = SqlType::BIGINT;
        }
        if ty.is_string() {
            // Lengths do not matter in a comparison; blanks at the end do not either.
            let open = if ty.is_unicode() { SqlType::nvarchar(MAX) } else { SqlType::varchar(MAX) };
            let side = |binder: &mut Self, value: &Typed| {
                if value.ty.is_string() { Ok(value.sql.clone()) } else { binder.cast_sql(value, open, 0) }
            };
            return Ok((side(self, &left)?, side(self, &right)?, true));
        }
        if ty.is_binary() {
            ty = SqlType::varbinary(MAX);
        }
        Ok((self.cast_sql(&left, ty, 0)?, self.cast_sql(&right, ty, 0)?, false))
    }

    /// Binds an expression that is true, false or unknown.
    pub(in super::super) fn condition(&mut self, expr: &Expr, scope: &Scope<'_>) -> Result<String, SqlError> {
        Ok(match expr {
            Expr::Nested(inner) => format!("({})", self.condition(inner, scope)?),
            Expr::BinaryOp { left, op, right } => {
                let word = match op {
                    BinaryOperator::And | BinaryOperator::Or => {
                        let (left, right) = (self.condition(left, scope)?, self.condition(right, scope)?);
                        return Ok(format!("({left} {op} {right})"));
                    }
                    BinaryOperator::Eq => "=",
                    BinaryOperator::NotEq => "<>",
                    BinaryOperator::Lt => "<",
                    BinaryOperator::Gt => ">",
                    BinaryOperator::LtEq => "<=",
                    BinaryOperator::GtEq => ">=",
                    _ => return Err(not_a_condition(expr)),
                };
                let (left, right) = (self.scalar(left, scope)?, self.scalar(right, scope)?);
                self.compare(word, left, right)?
            }
            Expr::UnaryOp { op: UnaryOperator::Not, expr } => {
                format!("(NOT {})", self.condition(expr, scope)?)
            }
            Expr::IsNull(inner) => format!("({} IS NULL)", self.scalar(inner, scope)?.sql),
            Expr::IsNotNull(inner) => format!("({} IS NOT NULL)", self.scalar(inner, scope)?.sql),
            Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
                let word = if matches!(expr, Expr::IsDistinctFrom(..)) { "IS NOT" } else { "IS" };
                let (left, right) = (self.scalar(left, scope)?, self.scalar(right, scope)?);
                self.compare(word, left, right)?
            }
            Expr::Between { expr, negated, low, high } => {
                let value = self.scalar(expr, scope)?;
                let (low, high) = (self.scalar(low, scope)?, self.scalar(high, scope)?);
                let (low, high) = (self.compare(">=", value.clone(), low)?, self.compare("<=", value, high)?);
                if *negated { format!("(NOT ({low} AND {high}))") } else { format!("({low} AND {high})") }
            }
            Expr::InList { expr, list, negated } => {
                let value = self.scalar(expr, scope)?;
                let mut parts = Vec::new();
                for item in list {
                    let item = self.scalar(item, scope)?;
                    parts.push(self.compare("=", value.clone(), item)?);
                }
                if *negated {
                    format!("(NOT ({}))", parts.join(" OR "))
                } else {
                    format!("({})", parts.join(" OR "))
                }
            }
            Expr::InSubquery { expr, subquery, negated } => {
                let value = self.scalar(expr, scope)?;
                let (sql, columns) = self.subquery_in(subquery, scope)?;
                if columns.len() != 1 {
                    return Err(SqlError::new(
                        116,
                        16,
                        1,
                        "Only one expression can be specified in the select list when the subquery is not introduced with EXISTS.",
                    ));
                }
                let alias = self.alias();
                let inner = Typed::new(format!("{alias}.c0"), columns[0].ty);
                let (left, right, text) = self.meet(value, inner)?;
                let collate = if text { " COLLATE TSQL" } else { "" };
                let not = if *negated { "NOT " } else { "" };
                format!("({left}{collate} {not}IN (SELECT {right}{collate} FROM ({sql}) AS {alias}))")
            }
            Expr::Exists { subquery, negated } => {
                let (sql, _) = self.subquery_in(subquery, scope)?;
                format!("({}EXISTS ({sql}))", if *negated { "NOT " } else { "" })
            }
            Expr::Like { negated, expr, pattern, escape_char, .. } => {
                let unicode = SqlType::nvarchar(MAX);
                let value = self.scalar(expr, scope)?;
                let value = self.cast_sql(&value, unicode, 0)?;
                let pattern = self.scalar(pattern, scope)?;
                let pattern = self.cast_sql(&pattern, unicode, 0)?;
                let escape = match escape_char {
                    Some(escape) => self.scalar(escape, scope)?.sql,
                    None => "''".into(),
                };
                let sql = format!(
                    "(CASE WHEN {value} IS NULL OR {pattern} IS NULL THEN NULL ELSE ts('LIKE', {0}, {1}, {value}, {1}, {pattern}, {1}, {escape}) END)",
                    SqlType::BIT.pack(),
                    unicode.pack()
                );
                if *negated { format!("(NOT {sql})") } else { sql }
            }
            Expr::AnyOp { left, compare_op, right, .. } | Expr::AllOp { left, compare_op, right } => {
                let Expr::Subquery(query) = right.as_ref() else {
                    return Err(unsupported("ANY and ALL without a subquery"));
                };
                let value = self.scalar(left, scope)?;
                let (sql, columns) = self.subquery_in(query, scope)?;
                let alias = self.alias();
                let inner =
                    Typed::new(format!("{alias}.c0"), columns.first().map_or(SqlType::NULL, |c| c.ty));
                let test = self.compare(&compare_op.to_string(), value, inner)?;
                if matches!(expr, Expr::AllOp { .. }) {
                    format!("(NOT EXISTS (SELECT 1 FROM ({sql}) AS {alias} WHERE NOT {test}))")
                } else {
                    format!("(EXISTS (SELECT 1 FROM ({sql}) AS {alias} WHERE {test}))")
                }
            }
            Expr::Function(function)
                if name_of(&function.name).is_ok_and(|n| n.name.eq_ignore_ascii_case("update")) =>
            {
                return Err(unsupported("UPDATE()"));
            }
            _ => return Err(not_a_condition(expr)),
        })
    }
}

fn not_a_condition(expr: &Expr) -> SqlError {
    let text = expr.to_string();
    let near = text.rsplit([' ', '(']).next().unwrap_or("").trim_matches(')').to_string();
    SqlError::new(4145, 15, 1, format!("An expression of non-boolean type specified in a context where a condition is expected, near '{near}'."))
        .reaching(crate::engine::message_text::Reach::Scope)
}

fn word(sign: char) -> &'static str {
    match sign {
        '+' => "add",
        '-' => "subtract",
        '*' => "multiply",
        '/' => "divide",
        '%' => "modulo",
        '&' => "'&'",
        '|' => "'|'",
        _ => "'^'",
    }
}
