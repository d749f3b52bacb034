//! What the file may contain: one struct per table, one field per key, and every default, in one place.
//!
//! Nothing here is checked beyond its type; an empty text means "not given". Serializing a default value writes the
//! keys with their defaults: that is how a test holds the reference `proxy.toml` to this file.

#![expect(missing_docs, reason = "the reference proxy.toml explains every key; here it would stand twice")]

use crate::{duration, size};
use serde::{Deserialize, Serialize};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// The whole file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    pub listeners: Vec<Listener>,
    pub defaults: Bucket,
    pub buckets: Vec<Bucket>,
    pub limits: Limits,
    pub timeouts: Timeouts,
    pub auth: Auth,
    pub coordinator: Coordinator,
    pub admin: Admin,
    pub health: Health,
    pub metrics: Metrics,
    pub telemetry: Telemetry,
    pub log: Log,
    pub runtime: Runtime,
}

/// `[[listeners]]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listener {
    pub name: String,
    pub address: String,
    pub bucket: String,
    pub mars: bool,
    pub server_version: String,
    pub backlog: u32,
    pub acceptors: usize,
    pub tls: ClientTls,
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            name: "main".into(),
            address: "0.0.0.0:1433".into(),
            bucket: String::new(),
            mars: true,
            server_version: "16.0.4135.4".into(),
            backlog: 4096,
            acceptors: 1,
            tls: ClientTls::default(),
        }
    }
}

/// `[listeners.tls]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientTls {
    pub mode: ClientTlsMode,
    pub certificate: String,
    pub key: String,
    pub self_signed: bool,
    pub strict: bool,
    #[serde(with = "duration::plain")]
    pub reload_interval: Duration,
}

impl Default for ClientTls {
    fn default() -> Self {
        Self {
            mode: ClientTlsMode::Login,
            certificate: String::new(),
            key: String::new(),
            self_signed: false,
            strict: true,
            reload_interval: 10 * SECOND,
        }
    }
}

/// `listeners.tls.mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientTlsMode {
    Off,
    Login,
    On,
    Strict,
    Require,
}

/// `[[buckets]]`, and `[defaults]` for what all of them have in common.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bucket {
    pub name: String,
    pub host: String,
    pub databases: Vec<String>,
    pub server_names: Vec<String>,
    pub users: Vec<String>,
    pub default: bool,
    pub port: u16,
    pub max_connections: u32,
    pub pool_mode: PoolMode,
    pub self_test: bool,
    pub auth: AuthMode,
    pub service_user: String,
    pub service_password: String,
    pub max_clients: usize,
    pub queue_limit: usize,
    #[serde(with = "duration::plain")]
    pub acquire_timeout: Duration,
    #[serde(with = "duration::plain")]
    pub pause_timeout: Duration,
    pub min_idle: u32,
    #[serde(with = "duration::or_off")]
    pub idle_timeout: Option<Duration>,
    #[serde(with = "duration::or_off")]
    pub max_lifetime: Option<Duration>,
    pub lifetime_jitter: f64,
    #[serde(with = "duration::plain")]
    pub connect_timeout: Duration,
    #[serde(with = "duration::plain")]
    pub login_timeout: Duration,
    #[serde(with = "duration::plain")]
    pub reset_timeout: Duration,
    pub reset: ResetPolicy,
    #[serde(with = "duration::plain")]
    pub affinity: Duration,
    #[serde(with = "duration::plain")]
    pub linger: Duration,
    #[serde(with = "duration::or_off")]
    pub idle_in_transaction_timeout: Option<Duration>,
    #[serde(with = "duration::or_off")]
    pub hold_timeout: Option<Duration>,
    pub spid_reads: SpidReads,
    pub holding_procedures: Vec<String>,
    pub harmless_procedures: Vec<String>,
    pub unknown_procedures: UnknownProcedures,
    pub split_by: Vec<KeyExtra>,
    pub server_tls: ServerTls,
    pub keepalive: Keepalive,
    pub reconnect_backoff: Backoff,
    pub tenants: Tenants,
}

impl Default for Bucket {
    fn default() -> Self {
        Self {
            name: String::new(),
            host: String::new(),
            databases: Vec::new(),
            server_names: Vec::new(),
            users: Vec::new(),
            default: false,
            port: 1433,
            max_connections: 0,
            pool_mode: PoolMode::Transaction,
            self_test: true,
            auth: AuthMode::Passthrough,
            service_user: String::new(),
            service_password: String::new(),
            max_clients: 0,
            queue_limit: 1000,
            acquire_timeout: 20 * SECOND,
            pause_timeout: 5 * MINUTE,
            min_idle: 0,
            idle_timeout: Some(10 * MINUTE),
            max_lifetime: Some(HOUR),
            lifetime_jitter: 0.1,
            connect_timeout: 5 * SECOND,
            login_timeout: 15 * SECOND,
            reset_timeout: 5 * SECOND,
            reset: ResetPolicy::WhenNeeded,
            affinity: Duration::from_secs(1),
            linger: Duration::from_millis(5),
            idle_in_transaction_timeout: None,
            hold_timeout: None,
            spid_reads: SpidReads::Hold,
            holding_procedures: Vec::new(),
            harmless_procedures: Vec::new(),
            unknown_procedures: UnknownProcedures::Share,
            split_by: Vec::new(),
            server_tls: ServerTls::default(),
            keepalive: Keepalive::default(),
            reconnect_backoff: Backoff::default(),
            tenants: Tenants::default(),
        }
    }
}

/// `buckets.pool_mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolMode {
    Transaction,
    Session,
}

/// `buckets.auth`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    Passthrough,
    Service,
}

/// `buckets.reset`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResetPolicy {
    WhenNeeded,
    Always,
}

/// `buckets.spid_reads`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpidReads {
    Hold,
    Allow,
}

/// `buckets.unknown_procedures`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownProcedures {
    Share,
    Hold,
}

/// `buckets.split_by`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyExtra {
    ApplicationName,
    HostName,
}

/// `[buckets.server_tls]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerTls {
    pub mode: ServerTlsMode,
    pub ca_file: String,
    pub trust_server_certificate: bool,
    pub host_name: String,
}

impl Default for ServerTls {
    fn default() -> Self {
        Self {
            mode: ServerTlsMode::On,
            ca_file: "system".into(),
            trust_server_certificate: false,
            host_name: String::new(),
        }
    }
}

/// `buckets.server_tls.mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerTlsMode {
    Off,
    On,
    Strict,
}

/// `[buckets.keepalive]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keepalive {
    #[serde(with = "duration::plain")]
    pub idle: Duration,
    #[serde(with = "duration::plain")]
    pub interval: Duration,
    pub count: u32,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { idle: 30 * SECOND, interval: 10 * SECOND, count: 3 }
    }
}

/// `[buckets.reconnect_backoff]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Backoff {
    #[serde(with = "duration::plain")]
    pub min: Duration,
    #[serde(with = "duration::plain")]
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { min: Duration::from_millis(100), max: 10 * SECOND }
    }
}

/// `[buckets.tenants]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tenants {
    pub by: TenantBy,
    pub max_connections: usize,
    pub queue_limit: usize,
    pub max_clients: usize,
    pub weights: Vec<TenantWeight>,
}

impl Default for Tenants {
    fn default() -> Self {
        Self {
            by: TenantBy::Database,
            max_connections: 0,
            queue_limit: 0,
            max_clients: 0,
            weights: Vec::new(),
        }
    }
}

/// `buckets.tenants.by`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TenantBy {
    /// Who named the same database at login; the user's name where none was named.
    Database,
    /// Who logged in as the same user.
    User,
    /// All clients of the bucket.
    None,
}

/// `buckets.tenants.weights[]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TenantWeight {
    pub tenant: String,
    pub weight: u32,
}

/// `[limits]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    pub max_clients: usize,
    pub max_handshakes: usize,
    #[serde(with = "size::plain")]
    pub max_login_bytes: usize,
    #[serde(with = "size::plain")]
    pub max_packet: usize,
    #[serde(with = "size::plain")]
    pub relay_chunk: usize,
    pub max_cached_logins: usize,
    pub max_tracked_failures: usize,
    pub max_password_checks: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_clients: 50_000,
            max_handshakes: 2_000,
            max_login_bytes: 128 << 10,
            max_packet: 32_767,
            relay_chunk: 16 << 10,
            max_cached_logins: 100_000,
            max_tracked_failures: 10_000,
            max_password_checks: 4,
        }
    }
}

/// `[timeouts]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    #[serde(with = "duration::plain")]
    pub login: Duration,
    #[serde(with = "duration::plain")]
    pub tls_handshake: Duration,
    #[serde(with = "duration::plain")]
    pub request: Duration,
    #[serde(with = "duration::or_off")]
    pub client_write: Option<Duration>,
    #[serde(with = "duration::or_off")]
    pub client_idle: Option<Duration>,
    #[serde(with = "duration::plain")]
    pub attention: Duration,
    #[serde(with = "duration::plain")]
    pub drain: Duration,
    pub client_keepalive: ClientKeepalive,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            login: 15 * SECOND,
            tls_handshake: 10 * SECOND,
            request: MINUTE,
            client_write: Some(10 * MINUTE),
            client_idle: None,
            attention: 5 * SECOND,
            drain: 25 * SECOND,
            client_keepalive: ClientKeepalive::default(),
        }
    }
}

/// `[timeouts.client_keepalive]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientKeepalive {
    #[serde(with = "duration::plain")]
    pub idle: Duration,
    #[serde(with = "duration::plain")]
    pub interval: Duration,
    pub count: u32,
}

impl Default for ClientKeepalive {
    fn default() -> Self {
        Self { idle: MINUTE, interval: 20 * SECOND, count: 3 }
    }
}

/// `[auth]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    pub users_file: String,
    #[serde(with = "duration::or_off")]
    pub cache_ttl: Option<Duration>,
    #[serde(with = "duration::plain")]
    pub failed_login_delay: Duration,
    #[serde(with = "duration::plain")]
    pub max_delay: Duration,
    #[serde(with = "duration::plain")]
    pub forget_failures_after: Duration,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            users_file: String::new(),
            cache_ttl: Some(5 * MINUTE),
            failed_login_delay: Duration::from_millis(250),
            max_delay: 8 * SECOND,
            forget_failures_after: 10 * MINUTE,
        }
    }
}

/// `[coordinator]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Coordinator {
    pub kind: CoordinatorKind,
    pub topology: RedisTopology,
    pub urls: Vec<String>,
    pub sentinel_master: String,
    pub username: String,
    pub password: String,
    pub sentinel_username: String,
    pub sentinel_password: String,
    pub prefix: String,
    pub instance: String,
    pub expected_instances: u32,
    #[serde(with = "duration::plain")]
    pub lease_time: Duration,
    #[serde(with = "duration::plain")]
    pub fallback_time: Duration,
    pub min_replicas: u32,
    pub fence: bool,
}

impl Default for Coordinator {
    fn default() -> Self {
        Self {
            kind: CoordinatorKind::Local,
            topology: RedisTopology::Single,
            urls: Vec::new(),
            sentinel_master: "mymaster".into(),
            username: String::new(),
            password: String::new(),
            sentinel_username: String::new(),
            sentinel_password: String::new(),
            prefix: "tdsbouncer".into(),
            instance: String::new(),
            expected_instances: 0,
            lease_time: 10 * SECOND,
            fallback_time: HOUR,
            min_replicas: 0,
            fence: true,
        }
    }
}

/// `coordinator.topology`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RedisTopology {
    Single,
    Sentinel,
    Cluster,
}

/// `coordinator.kind`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CoordinatorKind {
    Local,
    Redis,
}

/// `[admin]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    pub socket: String,
    pub mode: String,
    pub address: String,
    pub token: String,
    pub view_token: String,
    pub database: String,
    pub users: Vec<String>,
    pub viewers: Vec<String>,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            socket: "/run/tdsbouncer/admin.sock".into(),
            mode: "0660".into(),
            address: "off".into(),
            token: String::new(),
            view_token: String::new(),
            database: "tdsbouncer".into(),
            users: Vec::new(),
            viewers: Vec::new(),
        }
    }
}

/// `[health]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    pub address: String,
}

impl Default for Health {
    fn default() -> Self {
        Self { address: "0.0.0.0:8080".into() }
    }
}

/// `[metrics]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    pub address: String,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { address: "0.0.0.0:9090".into() }
    }
}

/// `[telemetry]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    pub endpoint: String,
    pub protocol: OtlpProtocol,
    pub ratio: f64,
    #[serde(with = "duration::or_off")]
    pub slow: Option<Duration>,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { endpoint: "off".into(), protocol: OtlpProtocol::Grpc, ratio: 0.01, slow: Some(SECOND) }
    }
}

/// `telemetry.protocol`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OtlpProtocol {
    Grpc,
    Http,
}

/// `[log]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    pub format: LogFormat,
    pub filter: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info,ractor=warn".into() }
    }
}

/// `log.format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

/// `[runtime]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Runtime {
    pub workers: usize,
    pub shards: usize,
}
