//! The report at a terminal.

use std::fmt::Write;

use hdrhistogram::Histogram;

use super::{Report, show_micros};
use crate::plan::Kind;

/// Columns of texts: the first at the left, the others at the right.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|at| width(at).unwrap_or(0)).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[at] - cell.chars().count());
            if at == 0 {
                line.push_str(&format!("{cell}{pad}"));
            } else {
                line.push_str(&format!("  {pad}{cell}"));
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Heads and rows of latencies: by kind, all together, logins.
pub(super) fn latencies(report: &Report) -> Vec<Vec<String>> {
    let counts = &report.outcome.counts;
    let row = |name: &str, h: &Histogram<u64>| {
        let at = |q: f64| show_micros(h.value_at_quantile(q));
        let each = h.len() as f64 / report.outcome.took.as_secs_f64();
        vec![
            name.to_owned(),
            h.len().to_string(),
            format!("{each:.1}"),
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            show_micros(h.max()),
        ]
    };
    let heads = ["work", "done", "a second", "p50", "p90", "p99", "p99.9", "max"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    let kinds = Kind::ALL.into_iter().zip(&counts.latencies).filter(|(_, h)| !h.is_empty());
    rows.extend(kinds.map(|(kind, h)| row(kind.name(), h)));
    rows.push(row("all work", &counts.all()));
    if counts.by_destination.len() > 1 {
        rows.extend(counts.by_destination.iter().map(|(name, h)| row(&format!("at {name}"), h)));
    }
    rows.push(row("logins", &counts.logins));
    rows
}

/// What the proxies said, at its most.
pub(super) fn proxies(report: &Report) -> Option<String> {
    let last = report.looks.iter().rev().find(|look| look.proxies > 0)?;
    let limit = last.buckets.values().map(|bucket| bucket.max_connections).max().unwrap_or(0);
    Some(format!(
        "server connections of a bucket: {} at most (limit {limit}), lent {} at most; clients waiting {} at most, {} at \
         the end",
        report.most(|bucket| bucket.used as usize),
        report.most(|bucket| bucket.leased),
        report.most(|bucket| bucket.waiting),
        last.buckets.values().map(|bucket| bucket.waiting).sum::<usize>(),
    ))
}

pub(super) fn text(report: &Report) -> String {
    let (outcome, counts) = (&report.outcome, &report.outcome.counts);
    let mut out = format!("{}: {}\n\n", report.title, report.about);
    out.push_str(&table(&latencies(report)));
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "\n{} programs for {:.1} s; wrong answers: {}; programs stuck: {}",
        outcome.plan.programs,
        outcome.took.as_secs_f64(),
        counts.wrong,
        outcome.stuck
    );
    for words in &counts.wrong_words {
        let _ = writeln!(out, "  wrong: {words}");
    }
    if counts.errors.is_empty() {
        out.push_str("errors: none\n");
    } else {
        let errors: Vec<String> = counts.errors.iter().map(|(label, n)| format!("{label}: {n}")).collect();
        let _ = writeln!(out, "errors: {}", errors.join(", "));
    }
    if let Some(proxies) = proxies(report) {
        let _ = writeln!(out, "{proxies}");
    }
    for (at, what) in &report.incidents {
        let _ = writeln!(out, "at {at:.1} s: {what}");
    }
    if !report.checks.is_empty() {
        out.push('\n');
        for check in &report.checks {
            let _ =
                writeln!(out, "{} {}: {}", if check.good { "pass" } else { "FAIL" }, check.what, check.seen);
        }
        let verdict = if report.passed() { "passed" } else { "FAILED" };
        let _ = writeln!(out, "\n{} {verdict}", report.title);
    }
    out
}
