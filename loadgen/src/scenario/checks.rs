//! What has to be true after each scenario.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::profile::{Profile, Scenario};
use super::{Seen, Stage};
use crate::report::Check;
use crate::run::Outcome;

/// Errors of clients whose proxy was killed, and of those who found it gone.
const KILLED: [&str; 7] = [
    "connection lost",
    "login: connection lost",
    "login: cannot connect",
    "cannot connect",
    "40197",
    "50001",
    "login: 40197",
];

struct Checks(Vec<Check>);

impl Checks {
    fn add(&mut self, what: impl Into<String>, good: bool, seen: impl Into<String>) {
        self.0.push(Check { what: what.into(), good, seen: seen.into(), timed: false });
    }

    /// A condition that the machine's speed has a part in.
    fn add_timed(&mut self, what: impl Into<String>, good: bool, seen: impl Into<String>) {
        self.0.push(Check { what: what.into(), good, seen: seen.into(), timed: true });
    }
}

pub(super) fn check(scenario: Scenario, profile: &Profile, stage: &Stage, seen: &Seen<'_>) -> Vec<Check> {
    let mut checks = Checks(Vec::new());
    for outcome in [Some(seen.outcome), seen.side].into_iter().flatten() {
        always(&mut checks, outcome);
    }
    limit_held(&mut checks, stage, seen);
    at_rest(&mut checks, seen);
    match scenario {
        Scenario::Baseline | Scenario::Burst | Scenario::PreparedStorm => {
            no_errors(&mut checks, seen.outcome, &[])
        }
        Scenario::Steady => {
            no_errors(&mut checks, seen.outcome, &[]);
            no_growth(&mut checks, seen);
        }
        Scenario::ProxyFailure => {
            no_errors(&mut checks, seen.outcome, &KILLED);
            recovers(&mut checks, profile, seen);
        }
        Scenario::RedisFailure => {
            no_errors(&mut checks, seen.outcome, &[]);
            recovers(&mut checks, profile, seen);
        }
        Scenario::ScaleOut => {
            // Programs begin at all three addresses, and find one answering.
            no_errors(&mut checks, seen.outcome, &["login: cannot connect"]);
            let joined = seen.looks.last().map_or(0, |look| look.proxies);
            checks.add("all proxies answer at the end", joined == stage.health.len(), format!("{joined}"));
        }
        Scenario::LongTransactions => {
            no_errors(&mut checks, seen.outcome, &[]);
            let p99 = quantile(&seen.outcome.counts.all(), 0.99);
            let hold = profile.side.as_ref().map_or(Duration::ZERO, |side| side.hold);
            let seen_p99 = format!("{p99:.1?} beside {hold:?}");
            checks.add_timed(
                "99 % of the others' work takes less than a long transaction",
                p99 < hold,
                seen_p99,
            );
        }
        Scenario::Uneven => {
            no_errors(&mut checks, seen.outcome, &[]);
            unharmed(&mut checks, "the other buckets", seen);
        }
        Scenario::Fairness => {
            no_errors(&mut checks, seen.outcome, &[]);
            unharmed(&mut checks, "the quiet tenant", seen);
            if let Some(storm) = seen.side {
                let (quiet, loud) =
                    (quantile(&seen.outcome.counts.all(), 0.5), quantile(&storm.counts.all(), 0.5));
                let words = format!("{quiet:.1?} and {loud:.1?}");
                checks.add_timed(
                    "the storm waits for itself: its median is ten times the quiet one's",
                    loud > 10 * quiet,
                    words,
                );
            }
        }
    }
    checks.0
}

fn quantile(of: &Histogram<u64>, quantile: f64) -> Duration {
    Duration::from_micros(of.value_at_quantile(quantile))
}

/// Whatever happens.
fn always(checks: &mut Checks, outcome: &Outcome) {
    let counts = &outcome.counts;
    let words = match counts.wrong_words.first() {
        Some(first) => format!("{} of {}, the first: {first}", counts.wrong, counts.done()),
        None => format!("none of {}", counts.done()),
    };
    checks.add(
        "no answer is wrong, no state is another's, nothing committed is lost",
        counts.wrong == 0,
        words,
    );
    checks.add("work was done", counts.done() > 0, counts.done().to_string());
    checks.add("every program came to its end", outcome.stuck == 0, format!("{} stuck", outcome.stuck));
}

fn limit_held(checks: &mut Checks, stage: &Stage, seen: &Seen<'_>) {
    let Some(limit) = stage.limit else { return };
    let most = seen.looks.iter().flat_map(|look| look.buckets.values().map(|bucket| bucket.used)).max();
    match most {
        Some(most) => checks.add(
            format!("no bucket ever has more than {limit} server connections, over all proxies"),
            most <= limit,
            format!("{most} at most, in {} looks", seen.looks.len()),
        ),
        None => checks.add("the proxies tell their health", false, "no answer"),
    }
}

fn at_rest(checks: &mut Checks, seen: &Seen<'_>) {
    if seen.looks.is_empty() || seen.last.buckets.is_empty() {
        return;
    }
    let sum =
        |of: &dyn Fn(&crate::watch::BucketNow) -> usize| seen.last.buckets.values().map(of).sum::<usize>();
    let (clients, leased, waiting) = (sum(&|b| b.clients), sum(&|b| b.leased), sum(&|b| b.waiting));
    checks.add(
        "afterwards nobody is left, nothing is lent, nobody waits",
        clients + leased + waiting == 0,
        format!("{clients} clients, {leased} lent, {waiting} waiting"),
    );
}

fn no_errors(checks: &mut Checks, outcome: &Outcome, allowed: &[&str]) {
    let other = outcome.counts.errors_but(allowed);
    let errors: Vec<String> =
        outcome.counts.errors.iter().map(|(label, n)| format!("{label}: {n}")).collect();
    let what = match allowed {
        [] => "no request and no login fails".to_owned(),
        _ => format!("nothing fails but by: {}", allowed.join(", ")),
    };
    let seen = if errors.is_empty() { "none".to_owned() } else { errors.join(", ") };
    checks.add(what, other == 0, seen);
}

/// The last quarter does as much as the first one, but for the ramp-up.
fn recovers(checks: &mut Checks, profile: &Profile, seen: &Seen<'_>) {
    let seconds = &seen.outcome.counts.seconds;
    let length = profile.plan.duration.as_secs() as usize;
    let first = seen.incidents.first().map_or(length / 3, |(at, _)| *at as usize);
    let ramp = profile.plan.ramp_up.as_secs() as usize + 1;
    let part = |from: usize, to: usize| {
        let part = seconds.get(from..to.min(seconds.len())).unwrap_or(&[]);
        (part.iter().map(|second| second.done).sum::<u64>() as f64, part.len().max(1) as f64)
    };
    let (before, before_seconds) = part(ramp.min(first), first.max(1));
    let (after, after_seconds) = part(length.saturating_sub(length / 5).max(1), length);
    // Programs come at random moments: a few pieces of work more or less mean nothing.
    let expected = 0.8 * before / before_seconds * after_seconds;
    checks.add_timed(
        "at the end as much is done as before the incident (four fifths at least)",
        after >= expected - 4.0 * expected.sqrt(),
        format!("{:.0} and {:.0} a second", before / before_seconds, after / after_seconds),
    );
}

/// From a quarter of the run on, what the proxies take does not grow.
fn no_growth(checks: &mut Checks, seen: &Seen<'_>) {
    const ALLOWED: u64 = 4 << 20;
    let Some((end, _)) = seen.memory.last() else { return };
    let middle = |from: f64, to: f64| {
        let within = |at: &Duration| *at >= end.mul_f64(from) && *at <= end.mul_f64(to);
        let mut some: Vec<u64> =
            seen.memory.iter().filter(|(at, _)| within(at)).map(|(_, bytes)| *bytes).collect();
        some.sort_unstable();
        some.get(some.len() / 2).copied().unwrap_or(0)
    };
    let (before, after) = (middle(0.25, 0.4), middle(0.85, 1.0));
    checks.add_timed(
        "memory does not grow (by a twentieth and 4 MiB at most)",
        after <= before + before / 20 + ALLOWED,
        format!("{} and {} KiB", before >> 10, after >> 10),
    );
}

/// Beside the storm the same work takes about as long as without.
fn unharmed(checks: &mut Checks, whose: &str, seen: &Seen<'_>) {
    // What one turn costs, and what the machine's processors cost that both share.
    const TURN: Duration = Duration::from_millis(25);
    let Some(reference) = seen.reference else { return };
    for (name, at, factor) in [("median", 0.5, 2), ("99th percentile", 0.99, 4)] {
        let (alone, beside) =
            (quantile(&reference.counts.all(), at), quantile(&seen.outcome.counts.all(), at));
        checks.add_timed(
            format!(
                "{whose}: the {name} beside the storm is at most {factor} times that without, and {TURN:?}"
            ),
            beside <= alone * factor + TURN,
            format!("{alone:.1?} without, {beside:.1?} beside it"),
        );
    }
}
