//! The functions that SQLite calls back: one scalar entry point, the aggregates, and T-SQL's collation.

pub(super) mod aggregate;
pub(super) mod arithmetic;
pub(super) mod dates;
pub(super) mod signature;
pub(super) mod text;

use std::cmp::Ordering;
use std::sync::atomic::{AtomicU8, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::functions::FunctionFlags;
use rusqlite::types::Value as Lite;
use rusqlite::{Connection, Error};

use super::catalog::Snapshot;
use super::convert::{self, Rules};
use super::datum::Datum;
use super::message_text::{SqlError, unsupported};
use super::types::SqlType;

/// What functions depend on beside their arguments; one per session.
#[derive(Debug, Default)]
pub(super) struct Context {
    date_order: Mutex<String>,
    pub(super) date_first: AtomicU8,
    /// State of RAND().
    pub(super) seed: AtomicU64,
    /// The objects that metadata functions look up, loaded by the binder when a query uses one.
    pub(super) snapshot: Mutex<Arc<Snapshot>>,
    /// The variables that a SELECT assigns while it reads them.
    pub(super) variables: Mutex<Vec<Lite>>,
}

impl Context {
    /// As for a new session.
    pub(super) fn forget(&self) {
        self.seed.store(0, std::sync::atomic::Ordering::Relaxed);
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = Arc::default();
        self.variables.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(super) fn date_order(&self) -> String {
        self.date_order.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    pub(super) fn set_date_order(&self, order: &str) {
        *self.date_order.lock().unwrap_or_else(PoisonError::into_inner) = order.to_string();
    }
}

fn failure(error: SqlError) -> Error {
    Error::UserFunctionError(Box::new(error))
}

/// Registers everything on a session's connection.
pub(super) fn register(connection: &Connection, context: &Arc<Context>) -> rusqlite::Result<()> {
    connection.create_collation("TSQL", compare)?;
    let plain = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    for (name, flags) in [("ts", plain), ("tsv", FunctionFlags::SQLITE_UTF8)] {
        let context = Arc::clone(context);
        // ts(name, result type, type, value, type, value …)
        connection.create_scalar_function(name, -1, flags, move |call| {
            let name = call.get_raw(0).as_str().unwrap_or("");
            let result = SqlType::unpack(call.get(1)?);
            let mut args = Vec::with_capacity((call.len() - 2) / 2);
            for at in (2..call.len() - 1).step_by(2) {
                let ty = SqlType::unpack(call.get(at)?);
                args.push((ty, Datum::from_lite(call.get_raw(at + 1), ty)));
            }
            self::call(name, result, args, &context).map(|value| value.to_lite()).map_err(failure)
        })?;
    }
    let shared = Arc::clone(context);
    // cast(value, from, to, style, mode): mode 1 answers NULL instead of an error, 2 refuses to cut strings off.
    connection.create_scalar_function("ts_cast", 5, plain, move |call| {
        let raw = call.get_raw(0);
        if matches!(raw, rusqlite::types::ValueRef::Null) {
            return Ok(Lite::Null);
        }
        let (from, to) = (SqlType::unpack(call.get(1)?), SqlType::unpack(call.get(2)?));
        let mode: i64 = call.get(4)?;
        let order = if from.is_string() && to.is_temporal() { shared.date_order() } else { String::new() };
        let rules = Rules {
            style: call.get::<Option<i64>>(3)?.unwrap_or(0),
            date_order: &order,
            strict: mode & 2 != 0,
        };
        match convert::cast(Datum::from_lite(raw, from), from, to, rules) {
            Ok(value) => Ok(value.to_lite()),
            Err(_) if mode & 1 != 0 => Ok(Lite::Null),
            Err(error) => Err(failure(error)),
        }
    })?;
    let shared = Arc::clone(context);
    connection.create_scalar_function("ts_var", 1, FunctionFlags::SQLITE_UTF8, move |call| {
        let at: i64 = call.get(0)?;
        let variables = shared.variables.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(variables.get(at as usize).cloned().unwrap_or(Lite::Null))
    })?;
    let shared = Arc::clone(context);
    connection.create_scalar_function("ts_setvar", 2, FunctionFlags::SQLITE_UTF8, move |call| {
        let at: i64 = call.get(0)?;
        let value: Lite = call.get(1)?;
        let mut variables = shared.variables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = variables.get_mut(at as usize) {
            *slot = value.clone();
        }
        Ok(value)
    })?;
    // A scalar subquery with more than one row is an error in T-SQL.
    connection.create_scalar_function("ts_single", 2, plain, |call| {
        if call.get::<i64>(1)? > 1 {
            return Err(failure(SqlError::new(
                512,
                16,
                1,
                "Subquery returned more than 1 value. This is not permitted when the subquery follows =, !=, <, <= , >, >= or when the subquery is used as an expression.",
            )));
        }
        call.get::<Lite>(0)
    })?;
    // payload(id, width, kind): what generate_rows fills its rows with; kind 0 varchar, 1 nvarchar, 2 varbinary.
    connection.create_scalar_function("ts_payload", 3, plain, |call| {
        let (id, width, kind): (i64, i64, i64) = (call.get(0)?, call.get(1)?, call.get(2)?);
        let width = width.clamp(0, if kind == 1 { 4000 } else { 8000 }) as usize;
        if kind == 2 {
            return Ok(Lite::Blob((0..width).map(|at| (id as usize + at) as u8).collect()));
        }
        let start = format!("{id}-");
        let text: String = start.chars().chain(('a'..='z').cycle()).take(width).collect();
        Ok(Lite::Text(text))
    })?;
    connection.create_scalar_function("ts_split", 2, plain, |call| {
        let (text, separator): (Option<String>, Option<String>) = (call.get(0)?, call.get(1)?);
        let (Some(text), Some(separator)) = (text, separator) else { return Ok("[]".to_string()) };
        let parts: Vec<&str> = text.split(separator.as_str()).collect();
        Ok(serde_json::Value::from(parts).to_string())
    })?;
    aggregate::register(connection)
}

/// Runs one scalar function on values that the binder has already brought to the wanted types.
pub(super) fn call(
    name: &str,
    result: SqlType,
    args: Vec<(SqlType, Datum)>,
    context: &Context,
) -> Result<Datum, SqlError> {
    if let Some(op) = name.strip_prefix("op") {
        return arithmetic::binary(op.chars().next().unwrap_or('+'), result, args);
    }
    if let Some(value) = text::call(name, result, &args)? {
        return Ok(value);
    }
    if let Some(value) = arithmetic::call(name, result, &args, context)? {
        return Ok(value);
    }
    if let Some(value) = dates::call(name, result, &args, context)? {
        return Ok(value);
    }
    if let Some(value) = super::metadata::call(name, &args, context)? {
        return Ok(value);
    }
    Err(unsupported(format_args!("the function {name}")))
}

/// The collation SQL_Latin1_General_CP1_CI_AS: case does not count, trailing spaces do not count.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_end_matches(' '), b.trim_end_matches(' '));
    if a.is_ascii() && b.is_ascii() {
        return a.bytes().map(|c| c.to_ascii_lowercase()).cmp(b.bytes().map(|c| c.to_ascii_lowercase()));
    }
    a.chars().flat_map(char::to_lowercase).cmp(b.chars().flat_map(char::to_lowercase))
}
