//! What a screen shows: the answers to a few questions, and how counts grew since the look before.

use crate::command::admin::answer::{Answer, cell};
use crate::command::admin::ask::Proxy;
use crate::failure::Failure;
use std::collections::HashMap;
use std::time::Instant;

/// One look at the proxy.
#[derive(Debug)]
pub(super) struct Snapshot {
    at: Instant,
    pub(super) version: String,
    pub(super) uptime: String,
    pub(super) resident: String,
    pub(super) buckets: Vec<Bucket>,
    pub(super) waiters: Rows,
    pub(super) holds: Rows,
    /// Sessions with a request under way, the longest first.
    pub(super) running: Rows,
}

/// A bucket with its rates.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    pub(super) name: String,
    pub(super) state: String,
    pub(super) open: u64,
    pub(super) quota: u64,
    pub(super) idle: u64,
    pub(super) leased: u64,
    pub(super) waiting: u64,
    pub(super) clients: u64,
    requests: u64,
    /// Requests a second.
    pub(super) rate: Option<f64>,
    pub(super) slow: u64,
}

/// Rows of an answer, as texts.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// How many there are; more than are shown, perhaps.
    pub(super) total: usize,
    pub(super) rows: Vec<Vec<String>>,
}

/// More rows of a kind than any screen has.
const MOST_ROWS: usize = 50;

impl Snapshot {
    pub(super) fn take(proxy: &Proxy, before: Option<&Self>) -> Result<Self, Failure> {
        let ask = |subject: &str| Table::ask(proxy, subject);
        let (version, memory) = (ask("VERSION")?, ask("MEMORY")?);
        let (buckets, stats) = (ask("BUCKETS")?, ask("STATS")?);
        let at = Instant::now();
        let requests: HashMap<String, (u64, u64)> = (0..stats.len())
            .map(|row| {
                (stats.text(row, "bucket"), (stats.number(row, "requests"), stats.number(row, "slow")))
            })
            .collect();
        let bucket = |row: usize| {
            let name = buckets.text(row, "bucket");
            let (requests, slow) = requests.get(&name).copied().unwrap_or_default();
            let rate = before.and_then(|before| {
                let then = before.buckets.iter().find(|bucket| bucket.name == name)?;
                let seconds = at.duration_since(before.at).as_secs_f64();
                #[expect(clippy::cast_precision_loss, reason = "a rate is shown with three digits")]
                let rate = requests.saturating_sub(then.requests) as f64 / seconds.max(0.001);
                Some(rate)
            });
            Bucket {
                state: buckets.text(row, "state"),
                open: buckets.number(row, "open"),
                quota: buckets.number(row, "quota"),
                idle: buckets.number(row, "idle"),
                leased: buckets.number(row, "leased"),
                waiting: buckets.number(row, "waiting"),
                clients: buckets.number(row, "clients"),
                name,
                requests,
                rate,
                slow,
            }
        };
        let running = ask("SESSIONS")?;
        Ok(Self {
            at,
            version: version.text(0, "version"),
            uptime: version.text(0, "uptime"),
            resident: memory.text(0, "resident"),
            waiters: ask("WAITERS")?
                .rows(&["bucket", "place", "user", "database", "wants", "waiting_for"], None),
            holds: ask("HOLDS")?.rows(
                &["session", "bucket", "server", "reasons", "held_for", "user", "database"],
                Some("held_for"),
            ),
            running: running.rows(
                &["session", "bucket", "state", "request_for", "server", "user", "database"],
                Some("request_for"),
            ),
            buckets: (0..buckets.len()).map(bucket).collect(),
        })
    }
}

/// An answer whose cells are found by name.
struct Table {
    answer: Answer,
    columns: HashMap<String, usize>,
}

impl Table {
    fn ask(proxy: &Proxy, subject: &str) -> Result<Self, Failure> {
        let answer = Answer::read(&proxy.ask(&format!("SHOW {subject}"))?)?;
        let (columns, _) = answer.rows()?;
        let columns = columns.iter().enumerate().map(|(at, column)| (column.name.clone(), at)).collect();
        Ok(Self { answer, columns })
    }

    fn parts(&self) -> (&[crate::command::admin::answer::Column], &[Vec<serde_json::Value>]) {
        self.answer.rows().unwrap_or((&[], &[]))
    }

    fn len(&self) -> usize {
        self.parts().1.len()
    }

    fn value(&self, row: usize, name: &str) -> Option<&serde_json::Value> {
        self.parts().1.get(row)?.get(*self.columns.get(name)?)
    }

    fn number(&self, row: usize, name: &str) -> u64 {
        self.value(row, name).and_then(serde_json::Value::as_u64).unwrap_or(0)
    }

    fn text(&self, row: usize, name: &str) -> String {
        let at = self.columns.get(name).copied();
        let kind = at.and_then(|at| self.parts().0.get(at)).map_or("text", |column| &*column.kind);
        self.value(row, name).map_or_else(|| "-".to_owned(), |value| cell(kind, value))
    }

    /// These columns of the rows that have a value under `by`, the largest first; without it all, as they come.
    fn rows(&self, names: &[&str], by: Option<&str>) -> Rows {
        let mut order: Vec<usize> = (0..self.len()).collect();
        if let Some(by) = by {
            order.retain(|row| self.value(*row, by).is_some_and(|value| !value.is_null()));
            order.sort_by_key(|row| std::cmp::Reverse(self.number(*row, by)));
        }
        let total = order.len();
        let row = |row: usize| names.iter().map(|name| self.text(row, name)).collect();
        Rows { total, rows: order.into_iter().take(MOST_ROWS).map(row).collect() }
    }
}

#[cfg(test)]
pub(super) fn example() -> Snapshot {
    let rows = |row: &[&str]| Rows { total: 1, rows: vec![row.iter().map(ToString::to_string).collect()] };
    Snapshot {
        at: Instant::now(),
        version: "1.2.3".to_owned(),
        uptime: "2h 3m".to_owned(),
        resident: "31.0MiB".to_owned(),
        buckets: vec![Bucket {
            name: "orders".to_owned(),
            state: "paused".to_owned(),
            open: 12,
            quota: 20,
            rate: Some(250.4),
            ..Bucket::default()
        }],
        waiters: rows(&["orders", "1", "anna", "shop", "connection", "1.5s"]),
        holds: rows(&["7", "orders", "3", "transaction", "4.0s", "anna", "shop"]),
        running: rows(&["7", "orders", "running", "1.5s", "3", "anna", "shop"]),
    }
}
