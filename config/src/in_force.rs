//! The configuration in force as keys and values, for the admin view and for what a reload says. Every key of the mirror is
//! here (`tests/in_force.rs`); of secrets only whether they are given.

use crate::bucket::{Bucket, BucketAuth, BucketName};
use crate::config::Config;
use crate::coordinator::{Coordinator, Redis, RedisLogin, Topology};
use crate::duration;
use crate::listener::{Listener, show_version};
use crate::mirror;
use crate::pattern::Pattern;
use crate::secret::Secret;
use crate::size;
use serde::Serialize;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// One key and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// Which: `buckets.orders.host`, with the name of the bucket or listener.
    pub path: String,
    /// Its key in the file: `buckets.host`.
    pub key: String,
    /// As the file would have it; `set` for a secret.
    pub value: String,
    /// So that another secret is another value.
    secret: Option<Secret>,
}

impl Setting {
    /// Whether the value is the same. Secrets are looked at, and not shown.
    pub fn is_as(&self, other: &Self) -> bool {
        self.value == other.value && self.secret == other.secret
    }
}

impl Config {
    /// Every key and its value. What belongs to Redis is there only if Redis is used.
    pub fn in_force(&self) -> Vec<Setting> {
        let mut rows = Rows::default();
        for listener in &self.listeners {
            of_listener(listener, &mut rows);
        }
        for bucket in &self.buckets {
            of_bucket(bucket, &mut rows);
        }
        self.of_limits(&mut rows);
        self.of_timeouts(&mut rows);
        rows.under("auth", "");
        rows.add("users_file", path(self.auth.users_file.as_deref()));
        rows.add("cache_ttl", show(self.auth.cache_ttl));
        rows.add("failed_login_delay", duration::show(self.auth.failed_login_delay));
        rows.add("max_delay", duration::show(self.auth.max_delay));
        rows.add("forget_failures_after", duration::show(self.auth.forget_failures_after));
        rows.under("coordinator", "");
        match &self.coordinator {
            Coordinator::Local => rows.add("kind", word(mirror::CoordinatorKind::Local)),
            Coordinator::Redis(redis) => of_redis(redis, &mut rows),
        }
        self.surroundings(&mut rows);
        rows.all
    }

    fn of_limits(&self, rows: &mut Rows) {
        let limits = &self.limits;
        rows.under("limits", "");
        rows.add("max_clients", limits.max_clients);
        rows.add("max_handshakes", limits.max_handshakes);
        rows.add("max_login_bytes", size::show(limits.max_login_bytes));
        rows.add("max_packet", size::show(limits.max_packet));
        rows.add("relay_chunk", size::show(limits.relay_chunk));
        rows.add("max_cached_logins", limits.max_cached_logins);
        rows.add("max_tracked_failures", limits.max_tracked_failures);
        rows.add("max_password_checks", limits.max_password_checks);
    }

    fn of_timeouts(&self, rows: &mut Rows) {
        let timeouts = &self.timeouts;
        rows.under("timeouts", "");
        rows.add("login", duration::show(timeouts.login));
        rows.add("tls_handshake", duration::show(timeouts.tls_handshake));
        rows.add("request", duration::show(timeouts.request));
        rows.add("client_write", show(timeouts.client_write));
        rows.add("client_idle", show(timeouts.client_idle));
        rows.add("attention", duration::show(timeouts.attention));
        rows.add("drain", duration::show(timeouts.drain));
        rows.add("client_keepalive.idle", duration::show(timeouts.client_keepalive.idle));
        rows.add("client_keepalive.interval", duration::show(timeouts.client_keepalive.interval));
        rows.add("client_keepalive.count", timeouts.client_keepalive.count);
    }

    /// What is around the proxy's own work.
    fn surroundings(&self, rows: &mut Rows) {
        let address = |address: Option<SocketAddr>| {
            address.map_or_else(|| "off".to_owned(), |address| address.to_string())
        };
        rows.under("admin", "");
        rows.add("socket", path(Some(&self.admin.socket)));
        rows.add("mode", format!("{:04o}", self.admin.mode));
        rows.add("address", address(self.admin.address));
        rows.secret("token", self.admin.token.as_ref());
        rows.secret("view_token", self.admin.view_token.as_ref());
        rows.add("database", &self.admin.database);
        rows.add("users", list(self.admin.users.iter().cloned()));
        rows.add("viewers", list(self.admin.viewers.iter().cloned()));
        rows.under("health", "");
        rows.add("address", address(self.health));
        rows.under("metrics", "");
        rows.add("address", address(self.metrics));
        let telemetry = &self.telemetry;
        rows.under("telemetry", "");
        rows.add("endpoint", telemetry.endpoint.as_deref().unwrap_or("off"));
        rows.add("protocol", word(telemetry.protocol));
        rows.add("ratio", telemetry.ratio);
        rows.add("slow", show(telemetry.slow));
        rows.under("log", "");
        rows.add("format", word(self.log.format));
        rows.add("filter", &self.log.filter);
        rows.under("runtime", "");
        rows.add("workers", self.runtime.workers.unwrap_or(0));
        rows.add("shards", self.runtime.shards.unwrap_or(0));
    }
}

fn of_listener(listener: &Listener, rows: &mut Rows) {
    rows.under("listeners", &listener.name);
    rows.add("address", listener.address);
    rows.add("bucket", listener.bucket.as_ref().map_or("", BucketName::as_str));
    rows.add("mars", listener.mars);
    rows.add("server_version", show_version(listener.server_version));
    rows.add("backlog", listener.backlog);
    rows.add("acceptors", listener.acceptors);
    rows.add("tls.mode", word(listener.tls.mode));
    rows.add("tls.certificate", path(listener.tls.certificate.as_deref()));
    rows.add("tls.key", path(listener.tls.key.as_deref()));
    rows.add("tls.self_signed", listener.tls.self_signed);
    rows.add("tls.strict", listener.tls.strict);
    rows.add("tls.reload_interval", duration::show(listener.tls.reload_interval));
}

fn of_bucket(bucket: &Bucket, rows: &mut Rows) {
    rows.under("buckets", bucket.name.as_str());
    rows.add("host", &bucket.host);
    rows.add("port", bucket.port);
    rows.add("databases", patterns(&bucket.databases));
    rows.add("server_names", patterns(&bucket.server_names));
    rows.add("users", patterns(&bucket.users));
    rows.add("default", bucket.default);
    rows.add("max_connections", bucket.max_connections);
    rows.add("pool_mode", debug(bucket.pool_mode));
    rows.add("self_test", bucket.self_test);
    let (mode, user, password) = match &bucket.auth {
        BucketAuth::Passthrough => (mirror::AuthMode::Passthrough, "", None),
        BucketAuth::Service { user, password } => (mirror::AuthMode::Service, &**user, Some(password)),
    };
    rows.add("auth", word(mode));
    rows.add("service_user", user);
    rows.secret("service_password", password);
    rows.add("max_clients", bucket.max_clients.unwrap_or(0));
    rows.add("queue_limit", bucket.queue_limit);
    rows.add("acquire_timeout", duration::show(bucket.acquire_timeout));
    rows.add("pause_timeout", duration::show(bucket.pause_timeout));
    rows.add("min_idle", bucket.min_idle);
    rows.add("idle_timeout", show(bucket.idle_timeout));
    rows.add("max_lifetime", show(bucket.max_lifetime));
    rows.add("lifetime_jitter", bucket.lifetime_jitter);
    rows.add("connect_timeout", duration::show(bucket.connect_timeout));
    rows.add("login_timeout", duration::show(bucket.login_timeout));
    rows.add("reset_timeout", duration::show(bucket.reset_timeout));
    rows.add("reset", word(bucket.reset));
    rows.add("affinity", duration::show(bucket.affinity));
    rows.add("linger", duration::show(bucket.linger));
    rows.add("idle_in_transaction_timeout", show(bucket.idle_in_transaction_timeout));
    rows.add("hold_timeout", show(bucket.hold_timeout));
    rows.add("spid_reads", word(bucket.spid_reads));
    rows.add("holding_procedures", list(bucket.holding_procedures.iter().cloned()));
    rows.add("harmless_procedures", list(bucket.harmless_procedures.iter().cloned()));
    rows.add("unknown_procedures", word(bucket.unknown_procedures));
    rows.add("split_by", list(bucket.key_extra.iter().map(word)));
    rows.add("server_tls.mode", word(bucket.server_tls.mode));
    rows.add("server_tls.ca_file", path(bucket.server_tls.ca_file.as_deref()));
    rows.add("server_tls.trust_server_certificate", bucket.server_tls.trust_server_certificate);
    rows.add("server_tls.host_name", bucket.server_tls.host_name.as_deref().unwrap_or_default());
    rows.add("keepalive.idle", duration::show(bucket.keepalive.idle));
    rows.add("keepalive.interval", duration::show(bucket.keepalive.interval));
    rows.add("keepalive.count", bucket.keepalive.count);
    rows.add("reconnect_backoff.min", duration::show(bucket.reconnect_backoff.min));
    rows.add("reconnect_backoff.max", duration::show(bucket.reconnect_backoff.max));
    let tenants = &bucket.tenants;
    rows.add("tenants.by", word(tenants.by));
    rows.add("tenants.max_connections", tenants.max_connections.unwrap_or(0));
    rows.add("tenants.queue_limit", tenants.queue_limit.unwrap_or(0));
    rows.add("tenants.max_clients", tenants.max_clients.unwrap_or(0));
    rows.add("tenants.weights", list(tenants.weights().map(|(tenant, weight)| format!("{tenant} {weight}"))));
}

fn of_redis(redis: &Redis, rows: &mut Rows) {
    let none = RedisLogin::default();
    let (topology, master, sentinel) = match &redis.topology {
        Topology::Single => (mirror::RedisTopology::Single, "", &none),
        Topology::Cluster => (mirror::RedisTopology::Cluster, "", &none),
        Topology::Sentinel { master, login } => (mirror::RedisTopology::Sentinel, &**master, login),
    };
    rows.add("kind", word(mirror::CoordinatorKind::Redis));
    rows.add("topology", word(topology));
    rows.add("urls", list(redis.urls.iter().cloned()));
    rows.add("username", redis.login.user.as_deref().unwrap_or_default());
    rows.secret("password", redis.login.password.as_ref());
    rows.add("sentinel_master", master);
    rows.add("sentinel_username", sentinel.user.as_deref().unwrap_or_default());
    rows.secret("sentinel_password", sentinel.password.as_ref());
    rows.add("prefix", &redis.prefix);
    rows.add("instance", redis.instance.as_deref().unwrap_or_default());
    rows.add("expected_instances", redis.expected_instances);
    rows.add("lease_time", duration::show(redis.lease_time));
    rows.add("fallback_time", duration::show(redis.fallback_time));
    rows.add("min_replicas", redis.min_replicas);
    rows.add("fence", redis.fence);
}

#[derive(Default)]
struct Rows {
    all: Vec<Setting>,
    table: &'static str,
    /// Which of the table's, if there are several.
    name: String,
}

impl Rows {
    /// What is added from now on is of this table.
    fn under(&mut self, table: &'static str, name: &str) {
        self.table = table;
        name.clone_into(&mut self.name);
    }

    fn add(&mut self, key: &str, value: impl ToString) {
        let table = self.table;
        let path = match &*self.name {
            "" => format!("{table}.{key}"),
            name => format!("{table}.{name}.{key}"),
        };
        self.all.push(Setting {
            path,
            key: format!("{table}.{key}"),
            value: value.to_string(),
            secret: None,
        });
    }

    fn secret(&mut self, key: &str, secret: Option<&Secret>) {
        self.add(key, if secret.is_some() { "set" } else { "" });
        if let Some(row) = self.all.last_mut() {
            row.secret = secret.cloned();
        }
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

/// A word of the file's.
fn word(value: impl Serialize) -> String {
    let value = toml::Value::try_from(value).ok();
    value.as_ref().and_then(toml::Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown_but_told_apart() {
        let of = |password: &str| {
            let mut bucket = Bucket::new("b", "sql1", 1433, 20);
            let password = Secret::new(password.to_owned());
            bucket.auth = BucketAuth::Service { user: "svc".to_owned(), password };
            Config::of(vec![Listener::new("main", 1433)], vec![bucket]).in_force()
        };
        let (rows, others) = (of("hidden-word"), of("another-word"));
        let limit = rows.iter().find(|row| row.path == "buckets.b.max_connections").unwrap();
        assert_eq!((&*limit.key, &*limit.value), ("buckets.max_connections", "20"));
        assert!(!format!("{rows:?}").contains("hidden-word"));
        let changed: Vec<&str> = (rows.iter().zip(&others))
            .filter_map(|(row, other)| (!row.is_as(other)).then_some(&*row.path))
            .collect();
        assert_eq!(changed, ["buckets.b.service_password"]);
    }

    #[test]
    fn words_are_the_files_own() {
        assert_eq!(word(mirror::ResetPolicy::WhenNeeded), "when_needed");
        assert_eq!(word(mirror::KeyExtra::ApplicationName), "application_name");
    }
}
