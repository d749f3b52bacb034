//! The report: tables in Markdown, medians with their spread, ratios to the plain TCP proxy of the same rounds.

use std::fmt::Write;
use std::time::Duration;

use tds::encryption::ServerTls;

use crate::cost;
use crate::rivals::Rival;
use crate::targets::{IDLE, MODE, TARGETS};
use crate::work::{Case, Round, Work};

/// The rival that ratios are taken to.
const YARDSTICK: &str = "HAProxy";

/// All rounds of one rival in one case.
pub(crate) struct Measured {
    rounds: Vec<Round>,
}

impl Measured {
    pub(crate) fn of(rounds: Vec<Round>) -> Self {
        Self { rounds }
    }

    fn median(&self, value: impl Fn(&Round) -> f64) -> f64 {
        Spread::of(self.rounds.iter().map(value)).median
    }

    fn cpu(&self) -> Option<f64> {
        self.rounds
            .iter()
            .all(|round| round.cpu.is_some())
            .then(|| self.median(|round| round.cpu.unwrap_or(0.0)))
    }

    /// Round by round, ours by theirs.
    fn ratio(&self, other: &Self, of: Ratio) -> Spread {
        Spread::of(self.rounds.iter().zip(&other.rounds).map(|(ours, theirs)| of.of(ours) / of.of(theirs)))
    }
}

/// What is compared with the yardstick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ratio {
    Rate,
    P50,
    Cpu,
}

impl Ratio {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::P50 => "p50",
            Self::Cpu => "CPU of a request",
        }
    }

    fn of(self, round: &Round) -> f64 {
        match self {
            Self::Rate => round.rate,
            Self::P50 => round.p50,
            Self::Cpu => round.cpu.unwrap_or(f64::NAN),
        }
    }
}

struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        Self { median: at(values.len() / 2), least: at(0), most: at(values.len().saturating_sub(1)) }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} ({:.2}-{:.2})", self.median, self.least, self.most)
    }
}

/// Grows line by line; each line is also printed as soon as it is known.
pub(crate) struct Report {
    names: Vec<String>,
    text: String,
    idle: String,
    targets: String,
}

impl Report {
    pub(crate) fn new(rivals: &[Rival], rounds: usize, length: Duration) -> Self {
        let command: Vec<String> = std::env::args().skip(1).collect();
        let mut report = Self {
            names: rivals.iter().map(|rival| rival.name.clone()).collect(),
            text: String::new(),
            idle: String::new(),
            targets: String::new(),
        };
        let text = format!(
            "Machine: {}. Command: `make bench` (`bench {}`). {rounds} rounds of {} ms for each case and rival, in turns, \
             after one round that is not counted; medians, and in parentheses the least and the greatest of the rounds' \
             ratios. Clients, server and proxy share the cores.\n",
            cost::machine(),
            command.join(" "),
            length.as_millis(),
        );
        report.say(&text);
        report.say(
            "\n| case | rival | a second | p50 µs | p99 µs | CPU µs each | rate / HAProxy | p50 / HAProxy | \
             CPU / HAProxy |\n|---|---|---:|---:|---:|---:|---:|---:|---:|\n",
        );
        report
    }

    pub(crate) fn case(&mut self, case: &Case, measured: Vec<Measured>) {
        let yardstick = self.names.iter().position(|name| name == YARDSTICK).and_then(|at| measured.get(at));
        let direct = measured.first().map_or(0.0, |direct| direct.median(|round| round.p50));
        let mode = self.names.iter().position(|name| name == MODE).and_then(|at| measured.get(at));
        if let (Some(ours), Some(theirs)) = (mode, yardstick) {
            for target in TARGETS.iter().filter(|target| target.case == case.name) {
                let found = ours.ratio(theirs, target.ratio);
                self.targets.push_str(&target.line(found.median, &found.to_string()));
            }
        }
        let mut text = String::new();
        for (name, one) in self.names.iter().zip(&measured) {
            let rate = match case.work {
                Work::Rows(..) => format!("{:.0} MiB", one.median(|round| round.bytes) / f64::from(1 << 20)),
                _ => format!("{:.0}", one.median(|round| round.rate)),
            };
            let (p50, p99) = (one.median(|round| round.p50), one.median(|round| round.p99));
            let cpu = one.cpu().map_or_else(String::new, |cpu| format!("{cpu:.1}"));
            let ratios = match yardstick {
                Some(other) if name != YARDSTICK => [
                    one.ratio(other, Ratio::Rate).to_string(),
                    one.ratio(other, Ratio::P50).to_string(),
                    one.cpu().map_or_else(String::new, |_| one.ratio(other, Ratio::Cpu).to_string()),
                ],
                _ => [const { String::new() }; 3],
            };
            let added = if p50 > direct { format!(" (+{:.0})", p50 - direct) } else { String::new() };
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "| {} | {name} | {rate} | {p50:.0}{added} | {p99:.0} | {cpu} | {} | {} | {} |",
                case.name, ratios[0], ratios[1], ratios[2]
            );
        }
        self.say(&text);
    }

    pub(crate) fn idle(&mut self, name: &str, tls: ServerTls, clients: usize, each: i64) {
        let kind = if tls == ServerTls::On { "TLS" } else { "plaintext" };
        let line = format!("| {name} | {kind} | {clients} | {each} |\n");
        print!("{line}");
        self.idle.push_str(&line);
        if let Some((_, bound)) = IDLE.iter().find(|(of, _)| name == MODE && *of == kind) {
            let verdict = if each <= *bound { "reached" } else { "missed" };
            let limit = if each <= *bound {
                ""
            } else {
                "6 kB are what the actor library allocates for an actor, most of it mailboxes of 32 places"
            };
            let line =
                format!("| idle client, {kind}: bytes | at most {bound} | {each} | {verdict} | {limit} |\n");
            self.targets.push_str(&line);
        }
    }

    fn say(&mut self, text: &str) {
        print!("{text}");
        self.text.push_str(text);
    }

    /// The whole page.
    pub(crate) fn text(&self) -> String {
        let (idle, targets) = (&self.idle, &self.targets);
        format!(
            "# Benchmark\n\n{}## Targets\n\nRatios of transaction mode to HAProxy, and what they were to be.\n\n\
             | case | wanted | found | | what limits it |\n|---|---|---|---|---|\n{targets}\n## All cases\n\n{}\n## Memory of an idle client\n\nLogged in, no request yet. The kernel's sockets are not in \
             it. A plain TCP proxy holds a connection to the server for each of them; ours holds none.\n\n\
             | rival | client | clients | bytes each |\n|---|---|---:|---:|\n{idle}",
            ABOUT, self.text
        )
    }
}

const ABOUT: &str = "\
Question: what does the proxy cost beside a plain TCP proxy, which understands nothing of what it passes on? Written by \
`make bench`; rates are this machine's, ratios carry over.\n\n\
The server is `bench answer`: it does real logins and then gives fixed answers without executing anything, on one thread, so \
that its cost does not hide the proxy's. *direct* is that server alone. *HAProxy* is Debian's in TCP mode with a thread per \
core; under TLS it passes ciphertext on, while the proxy decrypts and speaks plaintext to the server. *session* and \
*transaction* are this proxy in its pool modes; in transaction mode it has fewer server connections than clients where \
there are more than 64. CPU is the rival's process, all threads (schedstat). A login through the proxy is answered from \
memory; HAProxy's goes to the server.\n\n";
