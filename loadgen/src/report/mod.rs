//! What a run shows: as a table, as JSON, and as one HTML page that needs nothing else.

mod html;
mod plot;
mod text;

use serde_json::{Value, json};

use crate::plan::Kind;
use crate::run::Outcome;
use crate::watch::Look;

/// A condition that a scenario has to meet.
#[derive(Clone, Debug)]
pub struct Check {
    /// What has to be true.
    pub what: String,
    /// Whether it was.
    pub good: bool,
    /// What was seen.
    pub seen: String,
    /// Whether a slow or busy machine can make it bad.
    pub timed: bool,
}

/// A run, what was seen meanwhile, and what had to be true.
pub struct Report {
    /// The scenario's name, or "load".
    pub title: String,
    /// What it is about.
    pub about: String,
    /// The command that made it.
    pub command: String,
    /// The machine, in a line.
    pub machine: String,
    /// What came of the load.
    pub outcome: Outcome,
    /// What the proxies said meanwhile.
    pub looks: Vec<Look>,
    /// What happened on purpose: seconds since the start, and what.
    pub incidents: Vec<(f64, String)>,
    /// Conditions; none for a plain run.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether every condition was met.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.good)
    }

    /// For people at a terminal.
    pub fn text(&self) -> String {
        text::text(self)
    }

    /// For browsers: one file, no script, no network.
    pub fn html(&self) -> String {
        html::html(self)
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let counts = &self.outcome.counts;
        let latencies = |h: &hdrhistogram::Histogram<u64>| {
            let at = |q: f64| h.value_at_quantile(q);
            json!({
                "count": h.len(), "mean_us": h.mean(), "p50_us": at(0.5), "p90_us": at(0.9), "p99_us": at(0.99),
                "p999_us": at(0.999), "max_us": h.max(),
            })
        };
        let kinds = Kind::ALL.into_iter().zip(&counts.latencies).filter(|(_, h)| !h.is_empty());
        let kinds: serde_json::Map<String, Value> =
            kinds.map(|(kind, h)| (kind.name().to_owned(), latencies(h))).collect();
        let destinations: serde_json::Map<String, Value> =
            counts.by_destination.iter().map(|(name, h)| (name.clone(), latencies(h))).collect();
        let seconds: Vec<Value> = counts
            .seconds
            .iter()
            .map(|s| {
                json!({
                    "done": s.done, "errors": s.errors, "p50_us": s.latencies.value_at_quantile(0.5),
                    "p99_us": s.latencies.value_at_quantile(0.99),
                })
            })
            .collect();
        json!({
            "title": self.title, "command": self.command, "machine": self.machine, "passed": self.passed(),
            "plan": self.outcome.plan, "took_seconds": self.outcome.took.as_secs_f64(),
            "done": counts.done(), "rate": self.outcome.rate(), "wrong": counts.wrong,
            "wrong_words": counts.wrong_words, "errors": counts.errors, "stuck": self.outcome.stuck,
            "work": latencies(&counts.all()), "kinds": kinds, "destinations": destinations,
            "logins": latencies(&counts.logins), "seconds": seconds, "proxies": self.looks,
            "incidents": self.incidents,
            "checks": self.checks.iter().map(|check| {
                json!({ "what": check.what, "good": check.good, "seen": check.seen, "timed": check.timed })
            }).collect::<Vec<_>>(),
        })
    }

    /// The most that was seen of something, over all buckets and moments.
    pub fn most(&self, of: impl Fn(&crate::watch::BucketNow) -> usize) -> usize {
        self.looks.iter().flat_map(|look| look.buckets.values().map(&of)).max().unwrap_or(0)
    }
}

/// Microseconds as people read them.
fn show_micros(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        _ => format!("{:.2} s", micros as f64 / 1e6),
    }
}
