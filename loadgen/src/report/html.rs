//! The report as one HTML page: tables and plots, no script, nothing from the network.

use std::fmt::Write;

use super::plot::{Line, plot};
use super::{Report, text};

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}\
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .7rem;text-align:right;border-bottom:1px solid #ddd}\
td:first-child,th:first-child{text-align:left}svg{width:100%;height:auto}svg text{font-size:11px;fill:#555}\
figure{margin:1.5rem 0}figcaption{font-weight:600}.legend{font-size:.85rem;margin:.2rem 0}.good{color:#262}\
.bad{color:#b00;font-weight:600}code{background:#f3f3f3;padding:.1rem .3rem}";

/// Text as HTML shows it.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn table(rows: &[Vec<String>]) -> String {
    let mut out = String::from("<table>\n");
    for (at, row) in rows.iter().enumerate() {
        let tag = if at == 0 { "th" } else { "td" };
        let cells: Vec<String> = row.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(out, "<tr>{}</tr>", cells.concat());
    }
    out.push_str("</table>\n");
    out
}

pub(super) fn html(report: &Report) -> String {
    let title = escape(&report.title);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>tdsbouncer: {title}</title>\
         <style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n<p>{}</p>\n<p><code>{}</code><br>{}</p>\n",
        escape(&report.about),
        escape(&report.command),
        escape(&report.machine),
    );
    if !report.checks.is_empty() {
        let verdict = if report.passed() { ("good", "passed") } else { ("bad", "failed") };
        let _ = writeln!(
            out,
            "<h2 class=\"{}\">{}</h2>\n<table><tr><th>condition</th><th>seen</th><th></th></tr>",
            verdict.0, verdict.1
        );
        for check in &report.checks {
            let (class, word) = if check.good { ("good", "pass") } else { ("bad", "fail") };
            let _ = writeln!(
                out,
                "<tr><td>{}</td><td>{}</td><td class=\"{class}\">{word}</td></tr>",
                escape(&check.what),
                escape(&check.seen)
            );
        }
        out.push_str("</table>\n");
    }
    let (outcome, counts) = (&report.outcome, &report.outcome.counts);
    out.push_str("<h2>Work</h2>\n");
    out.push_str(&table(&text::latencies(report)));
    let _ = writeln!(
        out,
        "<p>{} programs for {:.1} s; mix {}; wrong answers: {}; programs stuck: {}.</p>",
        outcome.plan.programs,
        outcome.took.as_secs_f64(),
        outcome.plan.mix,
        counts.wrong,
        outcome.stuck
    );
    if let Some(proxies) = text::proxies(report) {
        let _ = writeln!(out, "<p>{}</p>", escape(&proxies));
    }
    if !counts.errors.is_empty() {
        let mut rows = vec![vec!["error".to_owned(), "times".to_owned()]];
        rows.extend(counts.errors.iter().map(|(label, n)| vec![label.clone(), n.to_string()]));
        out.push_str(&table(&rows));
    }
    for (at, what) in &report.incidents {
        let _ = writeln!(out, "<p>At {at:.1} s: {}</p>", escape(what));
    }
    plots(report, &mut out);
    out.push_str("</body></html>\n");
    out
}

fn plots(report: &Report, out: &mut String) {
    let counts = &report.outcome.counts;
    // The last second is not whole.
    let whole = &counts.seconds[..counts.seconds.len().saturating_sub(1)];
    let by_second = |name: &str, value: &dyn Fn(&crate::tally::Second) -> f64| Line {
        name: name.to_owned(),
        points: whole.iter().enumerate().map(|(at, second)| (at as f64, value(second))).collect(),
    };
    let marks = &report.incidents;
    let rate = [by_second("work", &|s| s.done as f64), by_second("errors", &|s| s.errors as f64)];
    out.push_str(&plot("Work and errors in each second", "", &rate, marks));
    let quantile = |q: f64| move |s: &crate::tally::Second| s.latencies.value_at_quantile(q) as f64 / 1e3;
    let latencies = [by_second("p50", &quantile(0.5)), by_second("p99", &quantile(0.99))];
    out.push_str(&plot("Latency of work", "ms", &latencies, marks));
    let all = counts.all();
    let distribution: Vec<(f64, f64)> = (0..=99)
        .map(|percent| (f64::from(percent), all.value_at_quantile(f64::from(percent) / 100.0) as f64 / 1e3))
        .collect();
    let rows: Vec<Vec<String>> = [0.0, 25.0, 50.0, 75.0, 90.0, 99.0]
        .iter()
        .filter_map(|percent| distribution.iter().find(|(at, _)| at == percent))
        .map(|(at, ms)| vec![format!("{at:.0} %"), format!("{ms:.2} ms")])
        .collect();
    out.push_str("<h2>Distribution of latency</h2>\n");
    out.push_str(&table(&[vec![vec!["share of work".to_owned(), "done within".to_owned()]], rows].concat()));
    let names: std::collections::BTreeSet<&String> =
        report.looks.iter().flat_map(|look| look.buckets.keys()).collect();
    for name in names {
        let line = |of: &str, value: &dyn Fn(&crate::watch::BucketNow) -> f64| Line {
            name: of.to_owned(),
            points: report
                .looks
                .iter()
                .filter_map(|look| Some((look.seconds, value(look.buckets.get(name)?))))
                .collect(),
        };
        let lines = [
            line("server connections", &|b| f64::from(b.used)),
            line("lent", &|b| b.leased as f64),
            line("clients waiting", &|b| b.waiting as f64),
            line("clients", &|b| b.clients as f64),
            line("limit", &|b| f64::from(b.max_connections)),
        ];
        out.push_str(&plot(&format!("Bucket {name}, all proxies together"), "", &lines, marks));
    }
}
