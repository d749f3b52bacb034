//! Aggregates that SQLite lacks or computes otherwise: exact sums, standard deviations, CHECKSUM_AGG.

use rusqlite::functions::{Aggregate, Context, FunctionFlags, WindowAggregate};
use rusqlite::types::{Value as Lite, ValueRef};
use rusqlite::{Connection, Error, Result};

use crate::engine::convert;
use crate::engine::datum::{dec_from_blob, dec_to_blob};
use crate::engine::decimal;
use crate::engine::message_text::{SqlError, overflow};
use crate::engine::types::SqlType;

/// SUM and AVG of exact numbers: `ts_sum(value, result type)`, `ts_avg(value, argument type, result type)`.
struct Exact {
    average: bool,
}

#[derive(Default, Clone)]
struct ExactState {
    sum: i128,
    count: i64,
    from: SqlTypeCode,
    to: SqlTypeCode,
}

#[derive(Default, Clone, Copy)]
struct SqlTypeCode(i64);

fn fail(error: SqlError) -> Error {
    Error::UserFunctionError(Box::new(error))
}

fn exact_value(value: ValueRef<'_>) -> Option<i128> {
    match value {
        ValueRef::Integer(n) => Some(i128::from(n)),
        ValueRef::Blob(blob) => Some(dec_from_blob(blob)),
        _ => None,
    }
}

impl Exact {
    fn answer(&self, state: Option<&ExactState>) -> Result<Lite> {
        let Some(state) = state.filter(|s| s.count > 0) else { return Ok(Lite::Null) };
        let (from, to) = (SqlType::unpack(state.from.0), SqlType::unpack(state.to.0));
        let scale = |ty: SqlType| if ty.is_money() { 4 } else { ty.scale };
        let value = if self.average {
            decimal::divide((state.sum, scale(from)), (i128::from(state.count), 0), scale(to))
        } else {
            decimal::rescale(state.sum, scale(from), scale(to))
        };
        let value = value.ok_or_else(|| fail(overflow(to.base_name())))?;
        if to.is_decimal() {
            if !decimal::fits(value, to.len) {
                return Err(fail(overflow(to.base_name())));
            }
            return Ok(Lite::Blob(dec_to_blob(value).to_vec()));
        }
        let (low, high) = convert::range(to);
        if value < low || value > high {
            return Err(fail(overflow(to.base_name())));
        }
        Ok(Lite::Integer(value as i64))
    }
}

impl Aggregate<ExactState, Lite> for Exact {
    fn init(&self, _: &mut Context<'_>) -> Result<ExactState> {
        Ok(ExactState::default())
    }
    fn step(&self, call: &mut Context<'_>, state: &mut ExactState) -> Result<()> {
        state.from = SqlTypeCode(call.get(1)?);
        state.to = SqlTypeCode(call.get(2)?);
        if let Some(value) = exact_value(call.get_raw(0)) {
            state.sum = state.sum.checked_add(value).ok_or_else(|| fail(overflow("numeric")))?;
            state.count += 1;
        }
        Ok(())
    }
    fn finalize(&self, _: &mut Context<'_>, state: Option<ExactState>) -> Result<Lite> {
        self.answer(state.as_ref())
    }
}

impl WindowAggregate<ExactState, Lite> for Exact {
    fn value(&self, state: Option<&mut ExactState>) -> Result<Lite> {
        self.answer(state.as_deref())
    }
    fn inverse(&self, call: &mut Context<'_>, state: &mut ExactState) -> Result<()> {
        if let Some(value) = exact_value(call.get_raw(0)) {
            state.sum -= value;
            state.count -= 1;
        }
        Ok(())
    }
}

/// STDEV, STDEVP, VAR, VARP: `ts_spread(value, kind)`.
struct Spread;

#[derive(Default)]
struct SpreadState {
    values: Vec<f64>,
    kind: i64,
}

impl Aggregate<SpreadState, Lite> for Spread {
    fn init(&self, _: &mut Context<'_>) -> Result<SpreadState> {
        Ok(SpreadState::default())
    }
    fn step(&self, call: &mut Context<'_>, state: &mut SpreadState) -> Result<()> {
        state.kind = call.get(1)?;
        if let Some(value) = call.get::<Option<f64>>(0)? {
            state.values.push(value);
        }
        Ok(())
    }
    fn finalize(&self, _: &mut Context<'_>, state: Option<SpreadState>) -> Result<Lite> {
        let Some(state) = state else { return Ok(Lite::Null) };
        let n = state.values.len() as f64;
        let sample = state.kind < 2;
        if n == 0.0 || (sample && n < 2.0) {
            return Ok(Lite::Null);
        }
        let mean = state.values.iter().sum::<f64>() / n;
        let squares: f64 = state.values.iter().map(|v| (v - mean) * (v - mean)).sum();
        let variance = squares / if sample { n - 1.0 } else { n };
        Ok(Lite::Real(if state.kind % 2 == 0 { variance.sqrt() } else { variance }))
    }
}

pub(super) fn register(connection: &Connection) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_window_function("ts_sum", 3, flags, Exact { average: false })?;
    connection.create_window_function("ts_avg", 3, flags, Exact { average: true })?;
    connection.create_aggregate_function("ts_spread", 2, flags, Spread)
}
