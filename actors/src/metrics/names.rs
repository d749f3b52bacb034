//! Every metric: its name, labels and meaning. Counters get `_total`, and all of them the prefix, when rendered.

/// What stands before every name.
pub(super) const PREFIX: &str = "tdsbouncer";

/// A line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name {
    /// Without prefix and `_total`; ends in what is counted or in its unit.
    pub(super) name: &'static str,
    /// How it behaves.
    pub(super) kind: Kind,
    /// Its labels. None has a client, a database or a user in it: their number has no bound.
    pub(super) labels: &'static [&'static str],
    /// One sentence without its full stop.
    pub(super) help: &'static str,
}

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only grows.
    Counter,
    /// How it is at the moment of the scrape.
    Gauge,
    /// How often which value was seen.
    Histogram,
    /// Always 1; the labels are what it says.
    Info,
}

macro_rules! names {
    ($($constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub(super) const $constant: Name =
            Name { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*
        /// The whole table, in the order of the answer to a scrape.
        #[cfg(test)]
        pub(super) const ALL: &[Name] = &[$($constant),*];
    };
}

names! {
    BUILD = Info "build" ["version"] "The version of the program";
    START_TIME = Gauge "start_time_seconds" [] "When the process started, in seconds since 1970";
    CLIENT_CONNECTIONS = Counter "client_connections" ["result"]
        "Client connections accepted, and those closed at once because there were far too many (refused)";
    ERRORS = Counter "errors" ["type"] "Errors that clients were told";
    SESSIONS = Gauge "sessions" ["state"] "Clients connected now, by what their sessions do";
    MAX_CLIENTS = Gauge "max_clients" [] "limits.max_clients of the configuration";
    CRASHES = Counter "crashes" ["actor"] "Crashes of actors; each is a bug";
    RESTARTS = Counter "restarts" ["actor"] "Actors restarted by their supervisors";
    MEMORY = Gauge "resident_memory_bytes" [] "Memory of the process that is in RAM";
    HEARTBEAT = Gauge "heartbeat_time_seconds" []
        "When this proxy last showed the coordinator that it lives, in seconds since 1970";
    COORDINATOR_OPERATIONS = Counter "coordinator_operations" ["operation", "result"]
        "What was asked of the coordinator's store (Redis), by outcome";
    SPANS = Counter "trace_spans" ["result"]
        "Spans of traces: exported to the collector, failed there, or dropped because the queue to it was full";

    LOGINS = Counter "logins" ["bucket", "kind", "result"]
        "Logins answered: by the server (server), from memory (cached), from the users file (service), by the server on a connection of the client's own (dedicated)";
    THROTTLED_LOGINS = Counter "throttled_logins" [] "Logins held back after failed ones";
    REQUESTS = Counter "requests" ["bucket"] "Requests passed on to servers";
    ATTENTIONS = Counter "attentions" ["bucket"] "Requests that clients broke off";
    BYTES = Counter "relayed_bytes" ["bucket", "direction"] "Bytes relayed, to_server and to_client";
    PACKETS = Counter "packets" ["direction", "type"] "TDS packets relayed, to_server and to_client, by their type";
    REQUEST_TIME = Histogram "request_seconds" ["bucket"]
        "Requests from their first byte to the last of their response, waiting included";
    SERVER_TIME = Histogram "server_seconds" ["bucket"]
        "The part of it from the first byte sent to the server to the end of its response";
    OWN_TIME = Histogram "own_seconds" ["bucket"]
        "The part of it that is the proxy's own: neither the wait for a connection, nor the server's time, nor a reset or replay";
    SLOW_REQUESTS = Counter "slow_requests" ["bucket"] "Requests that took longer than telemetry.slow";
    FAILED_REQUESTS = Counter "failed_requests" ["bucket", "type"]
        "Requests answered with an error, by the server (server) or by the proxy (the label of the errors metric)";

    MAX_CONNECTIONS = Gauge "bucket_max_connections" ["bucket"] "The bucket's limit, over all proxies";
    QUOTA = Gauge "bucket_quota_connections" ["bucket"] "This proxy's present part of the bucket's limit";
    SERVER_CONNECTIONS = Gauge "bucket_server_connections" ["bucket", "state"]
        "Connections to the bucket's server: idle, leased, resetting, opening, closing; their sum never exceeds the quota";
    CLIENTS = Gauge "bucket_clients" ["bucket"] "Clients logged in to the bucket";
    WAITING = Gauge "bucket_waiting_clients" ["bucket"] "Clients that wait for a server connection";
    VERIFIED_LOGINS = Gauge "bucket_verified_logins" ["bucket"] "Logins that can be answered from memory";
    HELD = Gauge "bucket_held_connections" ["bucket", "reason"]
        "Server connections that a session keeps between requests, by reason";
    MULTIPLEX = Gauge "bucket_multiplex_ratio" ["bucket"] "Clients logged in for each open server connection";
    MODE = Gauge "bucket_pool_mode" ["bucket", "mode"]
        "1 for the pool mode that is in force with the bucket's server, 0 for the other";
    PAUSED = Gauge "bucket_paused" ["bucket"] "1 while an operator has paused the bucket, else 0";
    UP = Gauge "bucket_up" ["bucket"] "1 if the last connection to the server succeeded or none was needed yet, else 0";

    COORDINATOR_MODES = Gauge "coordinator_buckets" ["mode"]
        "Buckets by how this proxy stands with Redis about them; nothing without Redis";

    LEASES = Counter "leases" ["bucket"] "Server connections lent to sessions";
    QUEUE_WAIT = Histogram "queue_wait_seconds" ["bucket"] "How long sessions waited for a server connection, or in vain";
    LEASE_TIME = Histogram "lease_seconds" ["bucket"] "How long sessions kept a server connection";
    HOLD_TIME = Histogram "hold_seconds" ["bucket", "reason"]
        "How long sessions kept a server connection between requests, by reason";
    DIALS = Counter "dials" ["bucket", "result"] "Connections opened to the server, logged in or failed";
    CONNECT_TIME = Histogram "connect_seconds" ["bucket"] "How long connecting and logging in took where it succeeded";
    DIAL_ERRORS = Counter "dial_errors" ["bucket", "type"] "Why connections to the server could not be opened";
    RESETS = Counter "resets" ["bucket", "result"] "Server connections reset before they were lent again";
    REPLAYS = Counter "replays" ["bucket", "result"]
        "Server connections brought to a session's own settings before its request";
    EVICTIONS = Counter "evictions" ["bucket"] "Idle connections closed to make room for another sub-pool";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// What a name may end in: a unit, or the plural of what is counted.
    const ENDINGS: &[&str] = &[
        "_seconds",
        "_bytes",
        "_connections",
        "clients",
        "sessions",
        "logins",
        "errors",
        "requests",
        "attentions",
        "leases",
        "dials",
        "resets",
        "evictions",
        "crashes",
        "restarts",
        "operations",
        "spans",
        "packets",
        "replays",
        "_ratio",
        "_buckets",
        "_up",
        "_paused",
        "_mode",
    ];

    #[test]
    fn every_name_ends_in_a_unit_and_is_in_lower_case() {
        for Name { name, kind, .. } in ALL {
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
            assert!(!name.ends_with("_total"), "{name}: the encoder says it");
            assert!(*kind == Kind::Info || ENDINGS.iter().any(|ending| name.ends_with(ending)), "{name}");
            assert!(*kind != Kind::Histogram || name.ends_with("_seconds"), "{name}");
        }
    }

    #[test]
    fn every_name_is_unique_and_documented() {
        let mut seen = HashSet::new();
        for Name { name, help, .. } in ALL {
            assert!(seen.insert(name), "{name} stands there twice");
            assert!(help.len() > 15 && !help.ends_with('.') && !help.contains('\n'), "{name}: {help}");
        }
    }

    #[test]
    fn no_label_has_an_unbounded_number_of_values() {
        for Name { name, labels, .. } in ALL {
            for label in *labels {
                let bounded = [
                    "bucket",
                    "state",
                    "result",
                    "kind",
                    "type",
                    "direction",
                    "actor",
                    "version",
                    "reason",
                    "operation",
                    "mode",
                ];
                assert!(bounded.contains(label), "{name}: {label}");
            }
        }
    }

    /// The page for operators: written anew with `UPDATE_METRICS_PAGE=1 cargo test -p tdsbouncer-actors`.
    #[test]
    fn the_page_about_metrics_is_current() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../observability/metrics.md");
        let page = page();
        if std::env::var_os("UPDATE_METRICS_PAGE").is_some() {
            std::fs::write(file, &page).unwrap();
        }
        let written = std::fs::read_to_string(file).unwrap_or_default();
        assert!(written == page, "observability/metrics.md is old: UPDATE_METRICS_PAGE=1 writes it anew");
    }

    fn page() -> String {
        let mut page = String::from(
            "# Metrics\n\nGenerated from `actors/src/metrics/names.rs`; a test holds both together. No label has a \
             client, database or user in it: `tdsbouncer admin show tenants` tells about those.\n\n\
             | metric | type | labels | meaning |\n|---|---|---|---|\n",
        );
        for Name { name, kind, labels, help } in ALL {
            let (suffix, kind) = match kind {
                Kind::Counter => ("_total", "counter"),
                Kind::Gauge => ("", "gauge"),
                Kind::Histogram => ("", "histogram"),
                Kind::Info => ("_info", "info"),
            };
            let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
            let labels = labels.join(", ");
            page.push_str(&format!("| `{PREFIX}_{name}{suffix}` | {kind} | {labels} | {help} |\n"));
        }
        page.push_str(
            "\nHistograms have `_bucket`, `_sum` and `_count`. Those of requests carry exemplars with `trace_id` where \
             the request was traced.\n",
        );
        page
    }
}
