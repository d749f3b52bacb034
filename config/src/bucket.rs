//! One SQL Server instance: its address, its limit, who is routed there, and how its connections live and die.

use crate::check::{Check, plain};
use crate::duration;
use crate::mirror;
use crate::pattern::Pattern;
use crate::problem::Problem;
use crate::secret::Secret;
use crate::server_tls::ServerTls;
use crate::tenants::Tenants;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

pub use crate::mirror::{KeyExtra, ResetPolicy, SpidReads, UnknownProcedures};

/// A bucket's name, cheap to clone; equal names are equal buckets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BucketName(Arc<str>);

impl BucketName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for BucketName {
    fn from(name: &str) -> Self {
        Self(Arc::from(name))
    }
}

impl fmt::Display for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One SQL Server instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Bucket {
    /// Unique among the buckets; a label in metrics and logs.
    pub name: BucketName,
    /// Host name or address of the server.
    pub host: String,
    /// TCP port of the server.
    pub port: u16,
    /// The most server connections that may be open at any moment, opening and closing ones included.
    pub max_connections: u32,
    /// Databases routed here.
    pub databases: Vec<Pattern>,
    /// Server names (of LOGIN7) routed here.
    pub server_names: Vec<Pattern>,
    /// Users routed here.
    pub users: Vec<Pattern>,
    /// Whether everybody else is routed here.
    pub default: bool,
    /// When a server connection may change hands.
    pub pool_mode: PoolMode,
    /// Measure the server on its first connection, instead of taking it for a SQL Server.
    pub self_test: bool,
    /// Who checks the client's password, and as whom server connections log in.
    pub auth: BucketAuth,
    /// Encryption towards the server.
    pub server_tls: ServerTls,
    /// Who shares the bucket, and how.
    pub tenants: Tenants,
    /// The most clients logged in to this bucket; none: only the proxy's own limit.
    pub max_clients: Option<usize>,
    /// The most clients that may wait for a server connection; one more gets error 10928 at once.
    pub queue_limit: usize,
    /// The longest wait for a server connection, then error 10928.
    pub acquire_timeout: Duration,
    /// The longest that a pause by an operator is a delay; then error 40501.
    pub pause_timeout: Duration,
    /// Server connections kept warm however long they are idle.
    pub min_idle: u32,
    /// Idle longer than this: closed. None: never.
    pub idle_timeout: Option<Duration>,
    /// Older than this: closed when it comes home. None: never.
    pub max_lifetime: Option<Duration>,
    /// Each connection's own lifetime is shorter by a random part of up to this fraction, 0 to 0.5.
    pub lifetime_jitter: f64,
    /// The longest TCP connect (name resolution included).
    pub connect_timeout: Duration,
    /// The longest from connected to logged in.
    pub login_timeout: Duration,
    /// The longest wait for the acknowledgement of a reset; then the connection is discarded.
    pub reset_timeout: Duration,
    /// Whether a connection is reset at every change of hands, or where something may be left on it.
    pub reset: ResetPolicy,
    /// How long a connection that nobody needs stays with the session that used it last.
    pub affinity: Duration,
    /// How long a session keeps its connection for values that its next request may read (@@IDENTITY and the like).
    pub linger: Duration,
    /// The longest that a client may do nothing in a transaction; then it is rolled back. None: for ever.
    pub idle_in_transaction_timeout: Option<Duration>,
    /// The longest that a client may do nothing with a connection that it holds. None: for ever.
    pub hold_timeout: Option<Duration>,
    /// What becomes of a session that looks at its process id (@@SPID).
    pub spid_reads: SpidReads,
    /// Procedures after whose call the session keeps its connection; the last part of the name.
    pub holding_procedures: Vec<String>,
    /// Procedures that leave nothing, whatever is known of them.
    pub harmless_procedures: Vec<String>,
    /// What becomes of a session that calls a procedure nobody knows.
    pub unknown_procedures: UnknownProcedures,
    /// TCP keep-alive towards the server.
    pub keepalive: Keepalive,
    /// Pause between attempts to reach a server that cannot be reached.
    pub reconnect_backoff: Backoff,
    /// What else of the client's login server connections are not shared across; sorted.
    pub key_extra: Vec<KeyExtra>,
}

/// When a server connection may change hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PoolMode {
    /// After a request or transaction that left nothing on it that belongs to its client.
    Transaction,
    /// When its client leaves.
    Session,
}

impl From<mirror::PoolMode> for PoolMode {
    fn from(mode: mirror::PoolMode) -> Self {
        match mode {
            mirror::PoolMode::Transaction => Self::Transaction,
            mirror::PoolMode::Session => Self::Session,
        }
    }
}

/// Who checks the client's password, and as whom server connections log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BucketAuth {
    /// The server does, with the client's own credentials.
    Passthrough,
    /// The proxy does, by the users file; the server sees this one login.
    Service {
        /// The login's name.
        user: String,
        /// The login's password.
        password: Secret,
    },
}

/// TCP keep-alive: a dead peer is noticed after `idle + interval * count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Unanswered probes before the connection counts as dead.
    pub count: u32,
}

/// Doubling pauses between two bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first pause.
    pub min: Duration,
    /// The longest pause.
    pub max: Duration,
}

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

impl Bucket {
    /// A bucket with every default, TLS off: for tests and the demo.
    pub fn new(name: &str, host: &str, port: u16, max_connections: u32) -> Self {
        let (name, host) = (name.to_owned(), host.to_owned());
        let from = mirror::Bucket { name, host, port, max_connections, ..mirror::Bucket::default() };
        Self::of(&from, BucketAuth::Passthrough, ServerTls::off())
    }

    fn of(from: &mirror::Bucket, auth: BucketAuth, server_tls: ServerTls) -> Self {
        let patterns = |texts: &[String]| texts.iter().map(|text| Pattern::new(text)).collect();
        let mut key_extra = from.split_by.clone();
        key_extra.sort_unstable();
        key_extra.dedup();
        Self {
            name: BucketName::from(&*from.name),
            host: from.host.clone(),
            port: from.port,
            max_connections: from.max_connections,
            databases: patterns(&from.databases),
            server_names: patterns(&from.server_names),
            users: patterns(&from.users),
            default: from.default,
            pool_mode: PoolMode::from(from.pool_mode),
            self_test: from.self_test,
            auth,
            server_tls,
            tenants: Tenants::of(&from.tenants),
            max_clients: limit(from.max_clients),
            queue_limit: from.queue_limit,
            acquire_timeout: from.acquire_timeout,
            pause_timeout: from.pause_timeout,
            min_idle: from.min_idle,
            idle_timeout: from.idle_timeout,
            max_lifetime: from.max_lifetime,
            lifetime_jitter: from.lifetime_jitter,
            connect_timeout: from.connect_timeout,
            login_timeout: from.login_timeout,
            reset_timeout: from.reset_timeout,
            reset: from.reset,
            affinity: from.affinity,
            linger: from.linger,
            idle_in_transaction_timeout: from.idle_in_transaction_timeout,
            hold_timeout: from.hold_timeout,
            spid_reads: from.spid_reads,
            holding_procedures: from.holding_procedures.clone(),
            harmless_procedures: from.harmless_procedures.clone(),
            unknown_procedures: from.unknown_procedures,
            keepalive: Keepalive::from(&from.keepalive),
            reconnect_backoff: Backoff { min: from.reconnect_backoff.min, max: from.reconnect_backoff.max },
            key_extra,
        }
    }

    /// Whether any rule but a listener's leads here.
    pub(crate) fn is_routed(&self) -> bool {
        self.default || !(self.databases.is_empty() && self.server_names.is_empty() && self.users.is_empty())
    }

    pub(crate) fn check(from: &mirror::Bucket, at: &str, check: &mut Check<'_>) -> Option<Self> {
        let before = check.problems.len();
        let path = |key: &str| format!("{at}.{key}");
        check.given(&path("name"), &from.name);
        let odd = |c: char| c.is_whitespace() || c.is_control();
        if from.name.len() > 64 || from.name.contains(odd) {
            let what = "must be at most 64 bytes without spaces: it is a label in metrics";
            check.problem(Problem::new(path("name"), what));
        }
        if check.given(&path("host"), &from.host)
            && from.host.contains([':', ',', '\\', '/'])
            && !is_ipv6(&from.host)
        {
            let hint = "the port has a key of its own; an instance name has to be looked up first";
            check.problem(Problem::new(path("host"), "must be a host name or an address alone").hint(hint));
        }
        check.within(&path("port"), from.port, 1..=u16::MAX, plain);
        // SQL Server's own ceiling on user connections.
        check.within(&path("max_connections"), from.max_connections, 1..=32_767, plain);
        for (key, names) in
            [("databases", &from.databases), ("server_names", &from.server_names), ("users", &from.users)]
        {
            check_names(names, &path(key), check);
        }
        let auth = auth(from, at, check);
        let server_tls = ServerTls::check(&from.server_tls, &path("server_tls"), check);
        if from.min_idle > from.max_connections.max(1) {
            let what = format!("must be at most max_connections, which is {}", from.max_connections);
            check.problem(Problem::new(path("min_idle"), what));
        }
        Tenants::check(&from.tenants, &path("tenants"), check);
        check.within(&path("lifetime_jitter"), from.lifetime_jitter, 0.0..=0.5, plain);
        let mut time = |key: &str, value: Duration, bounds: RangeInclusive<Duration>| {
            check.within(&path(key), value, bounds, duration::show);
        };
        let millisecond = Duration::from_millis(1);
        time("acquire_timeout", from.acquire_timeout, millisecond..=SECONDS(86_400));
        time("pause_timeout", from.pause_timeout, millisecond..=SECONDS(86_400));
        time("connect_timeout", from.connect_timeout, 10 * millisecond..=SECONDS(300));
        time("login_timeout", from.login_timeout, 10 * millisecond..=SECONDS(300));
        time("reset_timeout", from.reset_timeout, 10 * millisecond..=SECONDS(300));
        time("affinity", from.affinity, Duration::ZERO..=SECONDS(60));
        time("linger", from.linger, Duration::ZERO..=SECONDS(60));
        for (key, limit) in [
            ("idle_in_transaction_timeout", from.idle_in_transaction_timeout),
            ("hold_timeout", from.hold_timeout),
        ] {
            if let Some(limit) = limit {
                time(key, limit, 10 * millisecond..=30 * SECONDS(86_400));
            }
        }
        if let Some(lifetime) = from.max_lifetime {
            time("max_lifetime", lifetime, SECONDS(1)..=SECONDS(30 * 86_400));
        }
        if let Some(idle) = from.idle_timeout {
            time("idle_timeout", idle, SECONDS(1)..=SECONDS(30 * 86_400));
        }
        Keepalive::from(&from.keepalive).check(&path("keepalive"), check);
        let backoff = &from.reconnect_backoff;
        let bounds = millisecond..=SECONDS(600);
        check.within(&path("reconnect_backoff.min"), backoff.min, bounds.clone(), duration::show);
        check.within(&path("reconnect_backoff.max"), backoff.max, bounds, duration::show);
        if backoff.min > backoff.max {
            let what = format!("must be at least min, which is {}", duration::show(backoff.min));
            check.problem(Problem::new(path("reconnect_backoff.max"), what));
        }
        if check.problems.len() > before {
            return None;
        }
        Some(Self::of(from, auth?, server_tls?))
    }
}

impl Keepalive {
    pub(crate) fn check(self, at: &str, check: &mut Check<'_>) {
        // What the kernel's socket options hold: whole seconds up to 32,767, up to 127 probes.
        let bounds = SECONDS(1)..=SECONDS(32_767);
        check.within(&format!("{at}.idle"), self.idle, bounds.clone(), duration::show);
        check.within(&format!("{at}.interval"), self.interval, bounds, duration::show);
        check.within(&format!("{at}.count"), self.count, 1..=127, plain);
    }
}

impl From<&mirror::Keepalive> for Keepalive {
    fn from(from: &mirror::Keepalive) -> Self {
        Self { idle: from.idle, interval: from.interval, count: from.count }
    }
}

fn auth(from: &mirror::Bucket, at: &str, check: &mut Check<'_>) -> Option<BucketAuth> {
    let (user, password) = (format!("{at}.service_user"), format!("{at}.service_password"));
    match from.auth {
        mirror::AuthMode::Passthrough => {
            for (path, text) in [(user, &from.service_user), (password, &from.service_password)] {
                if !text.is_empty() {
                    check.problem(
                        Problem::new(path, "has no effect").hint("it belongs to auth = \"service\""),
                    );
                }
            }
            Some(BucketAuth::Passthrough)
        }
        mirror::AuthMode::Service => {
            let named = check.given(&user, &from.service_user);
            let password = if check.given(&password, &from.service_password) {
                check.secret(&password, &from.service_password)
            } else {
                None
            };
            Some(BucketAuth::Service {
                user: Some(&from.service_user).filter(|_| named)?.clone(),
                password: password?,
            })
        }
    }
}

fn check_names(from: &[String], at: &str, check: &mut Check<'_>) {
    for (index, text) in from.iter().enumerate() {
        // sysname, the type of all these names, has 128 characters.
        if text.is_empty() || text.chars().count() > 128 {
            check.problem(Problem::new(format!("{at}[{index}]"), "must have 1 to 128 characters"));
        }
    }
}

fn is_ipv6(host: &str) -> bool {
    host.parse::<std::net::Ipv6Addr>().is_ok()
}

/// Zero is "no limit of its own".
fn limit(number: usize) -> Option<usize> {
    (number > 0).then_some(number)
}
