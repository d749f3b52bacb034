//! What is in force is shown key by key: none of the mirror's is forgotten, and each tells when it was changed.

#![allow(clippy::panic, reason = "a failed expectation is a failed test")]

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use tdsbouncer_config::{Config, Outside, mirror};
use toml::{Table, Value};

/// Keys that name a table, and so are in every path beneath it.
const NAMES: [&str; 2] = ["listeners.name", "buckets.name"];

fn keys_of_the_mirror() -> BTreeSet<String> {
    let file = mirror::File {
        listeners: vec![mirror::Listener::default()],
        buckets: vec![mirror::Bucket::default()],
        ..mirror::File::default()
    };
    let mut keys = BTreeSet::new();
    walk("", &Value::Table(Table::try_from(file).expect("defaults can be written")), &mut keys);
    keys.retain(|key| !key.starts_with("defaults.") && !NAMES.contains(&&**key));
    keys
}

fn walk(path: &str, value: &Value, keys: &mut BTreeSet<String>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                walk(&if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, value, keys);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_table) => {
            items.iter().for_each(|item| walk(path, item, keys));
        }
        _ => {
            keys.insert(path.to_owned());
        }
    }
}

/// Where every variable has its own name as its value, and every file is empty.
struct Elsewhere;

impl Outside for Elsewhere {
    fn variable(&self, name: &str) -> Option<String> {
        Some(name.to_owned())
    }

    fn file(&self, _: &Path) -> io::Result<String> {
        Ok(String::new())
    }
}

fn parse(text: &str) -> Config {
    Config::parse_with(text, Path::new("/etc"), &Elsewhere).unwrap_or_else(|wrong| panic!("{wrong}\n{text}"))
}

#[test]
fn every_key_of_the_mirror_is_shown() {
    let config = parse(
        r#"
        [[listeners]]
        tls = { mode = "off" }
        [[buckets]]
        name = "b"
        host = "h"
        max_connections = 1
        default = true
        server_tls = { mode = "off" }
        [coordinator]
        kind = "redis"
        topology = "sentinel"
        urls = ["redis://s:1"]
        min_replicas = 1
        "#,
    );
    let shown: Vec<String> = config.in_force().into_iter().map(|setting| setting.key).collect();
    let keys: BTreeSet<String> = shown.iter().cloned().collect();
    assert_eq!(keys.len(), shown.len(), "a key is shown twice");
    assert_eq!(keys, keys_of_the_mirror(), "in_force.rs and mirror.rs have other keys");
}

/// For each key two values that are allowed, with what else they need.
#[test]
fn every_changed_key_is_seen() {
    let table: &[(&str, &str, &str)] = &[
        ("listeners.address", r#""0.0.0.0:1""#, r#""0.0.0.0:2""#),
        ("listeners.bucket", r#""""#, r#""b""#),
        ("listeners.mars", "true", "false"),
        ("listeners.server_version", r#""16.0.4135.4""#, r#""15.0.2000""#),
        ("listeners.backlog", "1", "2"),
        ("listeners.acceptors", "1", "2"),
        ("listeners.tls.mode", r#""off""#, r#""login""#),
        ("listeners.tls.certificate", r#""a""#, r#""b""#),
        ("listeners.tls.key", r#""a""#, r#""b""#),
        ("listeners.tls.self_signed", "false", "true"),
        ("listeners.tls.strict", "true", "false"),
        ("listeners.tls.reload_interval", r#""1s""#, r#""2s""#),
        ("buckets.host", r#""a""#, r#""b""#),
        ("buckets.port", "1", "2"),
        ("buckets.databases", r#"["a"]"#, r#"["b"]"#),
        ("buckets.server_names", r#"["a"]"#, r#"["b"]"#),
        ("buckets.users", r#"["a"]"#, r#"["b"]"#),
        ("buckets.default", "true", "false"),
        ("buckets.max_connections", "1", "2"),
        ("buckets.pool_mode", r#""transaction""#, r#""session""#),
        ("buckets.self_test", "true", "false"),
        ("buckets.auth", r#""passthrough""#, r#""service""#),
        ("buckets.service_user", r#""a""#, r#""b""#),
        ("buckets.service_password", r#""env:A""#, r#""env:B""#),
        ("buckets.max_clients", "1", "2"),
        ("buckets.queue_limit", "1", "2"),
        ("buckets.acquire_timeout", r#""1s""#, r#""2s""#),
        ("buckets.pause_timeout", r#""1s""#, r#""2s""#),
        ("buckets.min_idle", "0", "1"),
        ("buckets.idle_timeout", r#""1s""#, r#""off""#),
        ("buckets.max_lifetime", r#""1s""#, r#""off""#),
        ("buckets.lifetime_jitter", "0.1", "0.2"),
        ("buckets.connect_timeout", r#""1s""#, r#""2s""#),
        ("buckets.login_timeout", r#""1s""#, r#""2s""#),
        ("buckets.reset_timeout", r#""1s""#, r#""2s""#),
        ("buckets.reset", r#""when_needed""#, r#""always""#),
        ("buckets.affinity", r#""1s""#, r#""2s""#),
        ("buckets.linger", r#""1s""#, r#""2s""#),
        ("buckets.idle_in_transaction_timeout", r#""1s""#, r#""off""#),
        ("buckets.hold_timeout", r#""1s""#, r#""off""#),
        ("buckets.spid_reads", r#""hold""#, r#""allow""#),
        ("buckets.holding_procedures", r#"["a"]"#, r#"["b"]"#),
        ("buckets.harmless_procedures", r#"["a"]"#, r#"["b"]"#),
        ("buckets.unknown_procedures", r#""share""#, r#""hold""#),
        ("buckets.split_by", "[]", r#"["host_name"]"#),
        ("buckets.server_tls.mode", r#""on""#, r#""strict""#),
        ("buckets.server_tls.ca_file", r#""a""#, r#""b""#),
        ("buckets.server_tls.trust_server_certificate", "true", "false"),
        ("buckets.server_tls.host_name", r#""a""#, r#""b""#),
        ("buckets.keepalive.idle", r#""1s""#, r#""2s""#),
        ("buckets.keepalive.interval", r#""1s""#, r#""2s""#),
        ("buckets.keepalive.count", "1", "2"),
        ("buckets.reconnect_backoff.min", r#""1s""#, r#""2s""#),
        ("buckets.reconnect_backoff.max", r#""1s""#, r#""2s""#),
        ("buckets.tenants.by", r#""database""#, r#""user""#),
        ("buckets.tenants.max_connections", "1", "2"),
        ("buckets.tenants.queue_limit", "1", "2"),
        ("buckets.tenants.max_clients", "1", "2"),
        ("buckets.tenants.weights", "[]", r#"[{ tenant = "a", weight = 2 }]"#),
        ("limits.max_clients", "1", "2"),
        ("limits.max_handshakes", "1", "2"),
        ("limits.max_login_bytes", r#""8KiB""#, r#""16KiB""#),
        ("limits.max_packet", r#""4KiB""#, r#""8KiB""#),
        ("limits.relay_chunk", r#""8KiB""#, r#""16KiB""#),
        ("limits.max_cached_logins", "1", "2"),
        ("limits.max_tracked_failures", "1", "2"),
        ("limits.max_password_checks", "1", "2"),
        ("timeouts.login", r#""1s""#, r#""2s""#),
        ("timeouts.tls_handshake", r#""1s""#, r#""2s""#),
        ("timeouts.request", r#""1s""#, r#""2s""#),
        ("timeouts.client_write", r#""1s""#, r#""off""#),
        ("timeouts.client_idle", r#""1s""#, r#""off""#),
        ("timeouts.attention", r#""1s""#, r#""2s""#),
        ("timeouts.drain", r#""1s""#, r#""2s""#),
        ("timeouts.client_keepalive.idle", r#""1s""#, r#""2s""#),
        ("timeouts.client_keepalive.interval", r#""1s""#, r#""2s""#),
        ("timeouts.client_keepalive.count", "1", "2"),
        ("auth.users_file", r#""a""#, r#""b""#),
        ("auth.cache_ttl", r#""1s""#, r#""off""#),
        ("auth.failed_login_delay", r#""1s""#, r#""2s""#),
        ("auth.max_delay", r#""1s""#, r#""2s""#),
        ("auth.forget_failures_after", r#""1s""#, r#""2s""#),
        ("coordinator.kind", r#""redis""#, r#""local""#),
        ("coordinator.topology", r#""single""#, r#""cluster""#),
        ("coordinator.urls", r#"["redis://a:1"]"#, r#"["redis://b:1"]"#),
        ("coordinator.username", r#""a""#, r#""b""#),
        ("coordinator.password", r#""env:A""#, r#""env:B""#),
        ("coordinator.sentinel_master", r#""a""#, r#""b""#),
        ("coordinator.sentinel_username", r#""a""#, r#""b""#),
        ("coordinator.sentinel_password", r#""env:A""#, r#""env:B""#),
        ("coordinator.prefix", r#""a""#, r#""b""#),
        ("coordinator.instance", r#""a""#, r#""b""#),
        ("coordinator.expected_instances", "1", "2"),
        ("coordinator.lease_time", r#""1s""#, r#""2s""#),
        ("coordinator.fallback_time", r#""10m""#, r#""20m""#),
        ("coordinator.min_replicas", "0", "1"),
        ("coordinator.fence", "true", "false"),
        ("admin.socket", r#""/a""#, r#""/b""#),
        ("admin.mode", r#""0660""#, r#""0600""#),
        ("admin.address", r#""127.0.0.1:1""#, r#""127.0.0.1:2""#),
        ("admin.token", r#""env:A""#, r#""env:B""#),
        ("admin.view_token", r#""env:A""#, r#""env:B""#),
        ("admin.database", r#""a""#, r#""b""#),
        ("admin.users", r#"["a"]"#, r#"["b"]"#),
        ("admin.viewers", r#"["a"]"#, r#"["b"]"#),
        ("health.address", r#""off""#, r#""127.0.0.1:1""#),
        ("metrics.address", r#""off""#, r#""127.0.0.1:1""#),
        ("telemetry.endpoint", r#""off""#, r#""http://a:1""#),
        ("telemetry.protocol", r#""grpc""#, r#""http""#),
        ("telemetry.ratio", "0.1", "0.2"),
        ("telemetry.slow", r#""1s""#, r#""off""#),
        ("log.format", r#""text""#, r#""json""#),
        ("log.filter", r#""info""#, r#""warn""#),
        ("runtime.workers", "1", "2"),
        ("runtime.shards", "1", "2"),
    ];
    let told: BTreeSet<String> = table.iter().map(|(key, ..)| (*key).to_owned()).collect();
    assert_eq!(told, keys_of_the_mirror(), "this table and mirror.rs have other keys");
    for (key, first, second) in table {
        let [before, after] = [first, second].map(|value| with(key, value).in_force());
        let changed = after.iter().filter(|row| {
            let was = before.iter().find(|other| other.path == row.path);
            was.is_none_or(|was| !was.is_as(row))
        });
        let changed: Vec<&str> = changed.map(|row| &*row.key).collect();
        assert!(changed.contains(key), "{key}: {first} -> {second} changes {changed:?}");
    }
}

/// A file in which this key has this value, and all is given that it needs.
fn with(key: &str, value: &str) -> Config {
    let read = |text: &str| text.parse::<Table>().expect("TOML");
    let mut file = read(
        r#"
        listeners = [{ tls = { mode = "off" } }]
        buckets = [{ name = "b", host = "h", max_connections = 1, databases = ["x"], server_tls = { mode = "off" } }]
        "#,
    );
    let needs = match key {
        "listeners.tls.mode" => r#"listeners = [{ tls = { self_signed = true } }]"#,
        "listeners.tls.strict" => r#"listeners = [{ tls = { mode = "login", self_signed = true } }]"#,
        "listeners.tls.certificate" => r#"listeners = [{ tls = { mode = "login", key = "k" } }]"#,
        "listeners.tls.key" => r#"listeners = [{ tls = { mode = "login", certificate = "c" } }]"#,
        "buckets.auth" if value.contains("passthrough") => "",
        "buckets.auth" => {
            "buckets = [{ service_user = \"u\", service_password = \"env:P\" }]\nauth = { users_file = \"u\" }"
        }
        "buckets.service_user" => {
            "buckets = [{ auth = \"service\", service_password = \"env:P\" }]\nauth = { users_file = \"u\" }"
        }
        "buckets.service_password" => {
            "buckets = [{ auth = \"service\", service_user = \"u\" }]\nauth = { users_file = \"u\" }"
        }
        "buckets.server_tls.ca_file" => r#"buckets = [{ server_tls = { mode = "on" } }]"#,
        "buckets.reconnect_backoff.min" => r#"buckets = [{ reconnect_backoff = { max = "10s" } }]"#,
        "auth.failed_login_delay" => r#"auth = { max_delay = "10s" }"#,
        key if key.starts_with("coordinator.sentinel") || key == "coordinator.min_replicas" => {
            r#"coordinator = { kind = "redis", topology = "sentinel", urls = ["redis://a:1"], sentinel_password = "env:P" }"#
        }
        "coordinator.username" => {
            r#"coordinator = { kind = "redis", urls = ["redis://a:1"], password = "env:P" }"#
        }
        key if key.starts_with("coordinator.") => {
            r#"coordinator = { kind = "redis", urls = ["redis://a:1"] }"#
        }
        "admin.address" => r#"admin = { token = "env:T" }"#,
        "admin.users" | "admin.viewers" => r#"auth = { users_file = "u" }"#,
        _ => "",
    };
    merge(&mut file, read(needs));
    let (table, path) = key.split_once('.').expect("a key of a table");
    let assignment = format!("{path} = {value}");
    let own = match table {
        "listeners" | "buckets" => Value::Array(vec![Value::Table(read(&assignment))]),
        _ => Value::Table(read(&assignment)),
    };
    merge(&mut file, Table::from_iter([(table.to_owned(), own)]));
    parse(&toml::to_string(&file).expect("it can be written"))
}

/// Puts what `more` has into `into`, tables key by key; `[[..]]` has one table in each.
fn merge(into: &mut Table, more: Table) {
    for (key, value) in more {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(own)), Value::Table(more)) => merge(own, more),
            (Some(Value::Array(own)), Value::Array(mut more))
                if more.iter().all(Value::is_table) && !more.is_empty() =>
            {
                if let (Some(Value::Table(own)), Some(Value::Table(more))) = (own.first_mut(), more.pop()) {
                    merge(own, more);
                }
            }
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}
