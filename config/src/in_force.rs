//! The configuration in force as keys and values, for the admin view: without secrets.

use crate::bucket::BucketName;
use crate::config::Config;
use crate::coordinator::Coordinator;
use crate::duration;
use crate::pattern::Pattern;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

impl Config {
    /// Every bucket, listener and limit that is in force, by its path in the file. Secrets are left out.
    pub fn in_force(&self) -> Vec<(String, String)> {
        let mut rows = Rows::default();
        for listener in &self.listeners {
            let at = format!("listeners.{}", listener.name);
            rows.add(&at, "address", listener.address);
            rows.add(&at, "tls.mode", debug(listener.tls.mode));
            rows.add(&at, "tls.strict", listener.tls.strict);
            rows.add(&at, "tls.self_signed", listener.tls.self_signed);
            rows.add(&at, "tls.certificate", path(listener.tls.certificate.as_deref()));
            rows.add(&at, "bucket", listener.bucket.as_ref().map_or("", BucketName::as_str));
            rows.add(&at, "mars", listener.mars);
            rows.add(&at, "backlog", listener.backlog);
            rows.add(&at, "acceptors", listener.acceptors);
        }
        for bucket in &self.buckets {
            let at = format!("buckets.{}", bucket.name);
            rows.add(&at, "host", &bucket.host);
            rows.add(&at, "port", bucket.port);
            rows.add(&at, "databases", patterns(&bucket.databases));
            rows.add(&at, "server_names", patterns(&bucket.server_names));
            rows.add(&at, "users", patterns(&bucket.users));
            rows.add(&at, "default", bucket.default);
            rows.add(&at, "max_connections", bucket.max_connections);
            rows.add(&at, "max_clients", bucket.max_clients.unwrap_or(0));
            rows.add(&at, "pool_mode", debug(bucket.pool_mode));
            rows.add(&at, "self_test", bucket.self_test);
            rows.add(&at, "queue_limit", bucket.queue_limit);
            rows.add(&at, "tenants.by", debug(bucket.tenants.by));
            rows.add(&at, "acquire_timeout", duration::show(bucket.acquire_timeout));
            rows.add(&at, "pause_timeout", duration::show(bucket.pause_timeout));
            rows.add(&at, "min_idle", bucket.min_idle);
            rows.add(&at, "idle_timeout", show(bucket.idle_timeout));
            rows.add(&at, "max_lifetime", show(bucket.max_lifetime));
            rows.add(&at, "lifetime_jitter", bucket.lifetime_jitter);
            rows.add(&at, "split_by", list(bucket.key_extra.iter().map(debug)));
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
            rows.add(&at, "server_tls.ca_file", path(bucket.server_tls.ca_file.as_deref()));
            rows.add(&at, "server_tls.trust_server_certificate", bucket.server_tls.trust_server_certificate);
        }
        let (limits, timeouts) = (&self.limits, &self.timeouts);
        rows.add("limits", "max_clients", limits.max_clients);
        rows.add("limits", "max_handshakes", limits.max_handshakes);
        rows.add("limits", "max_login_bytes", limits.max_login_bytes);
        rows.add("limits", "max_packet", limits.max_packet);
        rows.add("limits", "relay_chunk", limits.relay_chunk);
        rows.add("limits", "max_cached_logins", limits.max_cached_logins);
        rows.add("limits", "max_tracked_failures", limits.max_tracked_failures);
        rows.add("limits", "max_password_checks", limits.max_password_checks);
        rows.add("timeouts", "login", duration::show(timeouts.login));
        rows.add("timeouts", "tls_handshake", duration::show(timeouts.tls_handshake));
        rows.add("timeouts", "request", duration::show(timeouts.request));
        rows.add("timeouts", "client_write", show(timeouts.client_write));
        rows.add("timeouts", "client_idle", show(timeouts.client_idle));
        rows.add("timeouts", "attention", duration::show(timeouts.attention));
        rows.add("timeouts", "drain", duration::show(timeouts.drain));
        if let Coordinator::Redis(redis) = &self.coordinator {
            rows.add("coordinator", "urls", redis.urls.join(", "));
            rows.add("coordinator", "prefix", &redis.prefix);
            rows.add("coordinator", "expected_instances", redis.expected_instances);
            rows.add("coordinator", "lease_time", duration::show(redis.lease_time));
            rows.add("coordinator", "fallback_time", duration::show(redis.fallback_time));
            rows.add("coordinator", "min_replicas", redis.min_replicas);
            rows.add("coordinator", "fence", redis.fence);
        }
        rows.add("auth", "cache_ttl", show(self.auth.cache_ttl));
        rows.add("auth", "failed_login_delay", duration::show(self.auth.failed_login_delay));
        rows.add("auth", "max_delay", duration::show(self.auth.max_delay));
        rows.add("auth", "users_file", path(self.auth.users_file.as_deref()));
        self.surroundings(&mut rows);
        rows.0
    }

    /// What is around the proxy's own work.
    fn surroundings(&self, rows: &mut Rows) {
        let address = |address: Option<SocketAddr>| {
            address.map_or_else(|| "off".to_owned(), |address| address.to_string())
        };
        rows.add("admin", "socket", path(Some(&self.admin.socket)));
        rows.add("admin", "address", address(self.admin.address));
        rows.add("admin", "database", &self.admin.database);
        rows.add("admin", "users", list(self.admin.users.iter().cloned()));
        rows.add("admin", "viewers", list(self.admin.viewers.iter().cloned()));
        rows.add("health", "address", address(self.health));
        rows.add("metrics", "address", address(self.metrics));
        let telemetry = &self.telemetry;
        rows.add("telemetry", "endpoint", telemetry.endpoint.as_deref().unwrap_or("off"));
        rows.add("telemetry", "protocol", debug(telemetry.protocol));
        rows.add("telemetry", "ratio", telemetry.ratio);
        rows.add("telemetry", "slow", show(telemetry.slow));
        rows.add("log", "format", debug(self.log.format));
        rows.add("log", "filter", &self.log.filter);
        rows.add("runtime", "workers", self.runtime.workers.unwrap_or(0));
        rows.add("runtime", "shards", self.runtime.shards.unwrap_or(0));
    }
}

#[derive(Default)]
struct Rows(Vec<(String, String)>);

impl Rows {
    fn add(&mut self, at: &str, key: &str, value: impl ToString) {
        self.0.push((format!("{at}.{key}"), value.to_string()));
    }
}

fn path(path: Option<&Path>) -> String {
    path.map_or_else(String::new, |path| path.display().to_string())
}

fn patterns(patterns: &[Pattern]) -> String {
    list(patterns.iter().map(Pattern::to_string))
}

fn list(names: impl Iterator<Item = String>) -> String {
    names.collect::<Vec<_>>().join(", ")
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
