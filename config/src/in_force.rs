//! The configuration in force as keys and values, for the admin view: without secrets.

use crate::config::Config;
use crate::duration;
use std::time::Duration;

impl Config {
    /// Every bucket, listener and limit that is in force, by its path in the file. Secrets are left out.
    pub fn in_force(&self) -> Vec<(String, String)> {
        let mut rows = Rows::default();
        for listener in &self.listeners {
            let at = format!("listeners.{}", listener.name);
            rows.add(&at, "address", listener.address);
            rows.add(&at, "tls.mode", debug(listener.tls.mode));
            rows.add(&at, "mars", listener.mars);
        }
        for bucket in &self.buckets {
            let at = format!("buckets.{}", bucket.name);
            rows.add(&at, "host", &bucket.host);
            rows.add(&at, "port", bucket.port);
            rows.add(&at, "max_connections", bucket.max_connections);
            rows.add(&at, "pool_mode", debug(bucket.pool_mode));
            rows.add(&at, "queue_limit", bucket.queue_limit);
            rows.add(&at, "acquire_timeout", duration::show(bucket.acquire_timeout));
            rows.add(&at, "min_idle", bucket.min_idle);
            rows.add(&at, "idle_timeout", show(bucket.idle_timeout));
            rows.add(&at, "max_lifetime", show(bucket.max_lifetime));
            rows.add(&at, "connect_timeout", duration::show(bucket.connect_timeout));
            rows.add(&at, "login_timeout", duration::show(bucket.login_timeout));
            rows.add(&at, "reset_timeout", duration::show(bucket.reset_timeout));
            rows.add(&at, "reset", debug(bucket.reset));
            rows.add(&at, "linger", duration::show(bucket.linger));
            rows.add(&at, "idle_in_transaction_timeout", show(bucket.idle_in_transaction_timeout));
            rows.add(&at, "hold_timeout", show(bucket.hold_timeout));
            rows.add(&at, "spid_reads", debug(bucket.spid_reads));
            rows.add(&at, "unknown_procedures", debug(bucket.unknown_procedures));
            rows.add(&at, "server_tls.mode", debug(bucket.server_tls.mode));
        }
        let (limits, timeouts) = (&self.limits, &self.timeouts);
        rows.add("limits", "max_clients", limits.max_clients);
        rows.add("limits", "max_handshakes", limits.max_handshakes);
        rows.add("limits", "max_login_bytes", limits.max_login_bytes);
        rows.add("limits", "max_packet", limits.max_packet);
        rows.add("limits", "relay_chunk", limits.relay_chunk);
        rows.add("limits", "max_cached_logins", limits.max_cached_logins);
        rows.add("timeouts", "login", duration::show(timeouts.login));
        rows.add("timeouts", "tls_handshake", duration::show(timeouts.tls_handshake));
        rows.add("timeouts", "request", duration::show(timeouts.request));
        rows.add("timeouts", "client_write", show(timeouts.client_write));
        rows.add("timeouts", "client_idle", show(timeouts.client_idle));
        rows.add("timeouts", "attention", duration::show(timeouts.attention));
        rows.add("timeouts", "drain", duration::show(timeouts.drain));
        rows.add("auth", "cache_ttl", show(self.auth.cache_ttl));
        rows.add("auth", "failed_login_delay", duration::show(self.auth.failed_login_delay));
        rows.add("auth", "max_delay", duration::show(self.auth.max_delay));
        rows.0
    }
}

#[derive(Default)]
struct Rows(Vec<(String, String)>);

impl Rows {
    fn add(&mut self, at: &str, key: &str, value: impl ToString) {
        self.0.push((format!("{at}.{key}"), value.to_string()));
    }
}

fn show(limit: Option<Duration>) -> String {
    limit.map_or_else(|| "off".to_owned(), duration::show)
}

fn debug(value: impl std::fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bucket, BucketAuth, Listener, Secret};

    #[test]
    fn secrets_are_not_among_what_is_shown() {
        let mut bucket = Bucket::new("b", "sql1", 1433, 20);
        bucket.auth =
            BucketAuth::Service { user: "svc".to_owned(), password: Secret::new("hidden-word".to_owned()) };
        let rows = Config::of(vec![Listener::new("main", 1433)], vec![bucket]).in_force();
        assert!(rows.contains(&("buckets.b.max_connections".to_owned(), "20".to_owned())));
        assert!(rows.iter().all(|(_, value)| !value.contains("hidden-word")));
    }
}
