//! What the project wants of itself in this benchmark, and whether a run reached it.

use crate::report::Ratio;

/// The mode that most programs run in.
pub(crate) const MODE: &str = "transaction";

/// A bound on a ratio to the plain TCP proxy, in one case.
pub(crate) struct Target {
    pub(crate) case: &'static str,
    pub(crate) ratio: Ratio,
    pub(crate) bound: Bound,
    /// What it takes to get nearer, where it was missed when this was written.
    limit: &'static str,
}

pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    pub(crate) fn holds(&self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= *bound,
            Self::AtMost(bound) => value <= *bound,
        }
    }

    fn show(&self) -> String {
        match self {
            Self::AtLeast(bound) => format!("at least {bound:.1}"),
            Self::AtMost(bound) => format!("at most {bound:.1}"),
        }
    }
}

const READS: &str = "the proxy reads every request and response to know what a session leaves behind";
const WAKES: &str = "at light load a request wakes a thread of the runtime, and often a second one";

pub(crate) const TARGETS: [Target; 8] = [
    Target { case: "small batch, 1 client", ratio: Ratio::P50, bound: Bound::AtMost(1.0), limit: WAKES },
    Target { case: "small batch, 1 client", ratio: Ratio::Cpu, bound: Bound::AtMost(1.0), limit: WAKES },
    Target { case: "small batch, 64 clients", ratio: Ratio::Rate, bound: Bound::AtLeast(1.0), limit: READS },
    Target { case: "small batch, 64 clients", ratio: Ratio::Cpu, bound: Bound::AtMost(1.0), limit: READS },
    Target {
        case: "small batch, 64 clients, 10 ms think time",
        ratio: Ratio::Cpu,
        bound: Bound::AtMost(1.0),
        limit: WAKES,
    },
    Target {
        case: "small batch, 256 clients",
        ratio: Ratio::Rate,
        bound: Bound::AtLeast(1.0),
        limit: "192 of them wait for one of 64 server connections at any time: a lease by two messages for each request",
    },
    Target {
        case: "256 MiB of wide rows, 1 client",
        ratio: Ratio::Rate,
        bound: Bound::AtLeast(0.9),
        limit: "one thread copies, scans and sends",
    },
    Target {
        case: "login, 4 clients",
        ratio: Ratio::Rate,
        bound: Bound::AtLeast(5.0),
        limit: "the server of this benchmark checks no password and opens no database: its logins are as cheap as ours",
    },
];

/// Bytes of an idle client: without TLS, with it.
pub(crate) const IDLE: [(&str, i64); 2] = [("plaintext", 8 << 10), ("TLS", 24 << 10)];

impl Target {
    /// A line of the table, with what was found.
    pub(crate) fn line(&self, found: f64, shown: &str) -> String {
        let (verdict, limit) = if self.bound.holds(found) { ("reached", "") } else { ("missed", self.limit) };
        format!(
            "| {}: {} | {} | {shown} | {verdict} | {limit} |\n",
            self.case,
            self.ratio.name(),
            self.bound.show()
        )
    }
}
